"""Clips to features by a trained run, and the model of a run for everything else.

Evaluation computes in fp32 whatever the run was trained in, and sees each clip's middle square: a
clip's features do not depend on what is embedded beside it.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from math import isfinite
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from sonant.checkpoint import load_weights, read_run, weights_path
from sonant.clips import Clips
from sonant.data import (
    FRONT_END,
    Array,
    Arrays,
    Examples,
    Reader,
    Request,
    Views,
    loader,
    to_batch,
    to_device,
)
from sonant.distributed import device
from sonant.encoders.conv3d import FromFrames
from sonant.encoders.released import hash_in, known, released
from sonant.errors import MediaError, SonantError, TableError, UsageError, at_least
from sonant.features import Features
from sonant.files import demand_writable, spare
from sonant.media.read import read
from sonant.media.text import train_tokenizer
from sonant.methods.method import Mapped, Method, at_least_fp32
from sonant.tasks.calibration import Calibration
from sonant.types import Batch, Embeddings, Map, Modality

CALIBRATION = "calibration.json"
"""A run's own calibration, in its folder."""
SCORED = "AV raw"
"""What `Model.score` measures, as `tasks.agreement` names it."""
PART = 1024
"""Clips written at once: as many are embedded again if `embed` is killed."""


class Model:
    """The model of a finished run.

    Args:
        method: with its weights.
        views: how media become its inputs.
        name: the run, an @, and a hash of its weights and of what makes media their inputs.
        calibration: what makes `score` a probability, if anything does.
    """

    def __init__(
        self, method: Method, views: Views, name: str, calibration: Calibration | None = None
    ) -> None:
        self.method = method.eval()
        self.views = views
        self.name = name
        self.calibration = calibration

    def embed(
        self,
        *,
        video: Array | Tensor | None = None,
        audio: Array | Tensor | Sequence[Array] | None = None,
        text: str | Sequence[str] | None = None,
    ) -> dict[Modality, Array]:
        """Unit rows float32 [n, width] of whatever is given; the counts n need not agree.

        Args:
            video: frames uint8 [n, T, H, W, 3], spread evenly over each clip; training saw
                `views.frames` of them.
            audio: mono samples float [n, S] at `views.rate`, or n arrays of different lengths.
            text: narrations as they are; marks such as #C are cleaned away here.

        Raises:
            UsageError: the model has no such modality, or the input is of another kind or shape, or
                empty.
        """
        given = {"video": video, "audio": audio, "text": [text] if isinstance(text, str) else text}
        clips = {m: _listed(m, x) for m, x in given.items() if x is not None}
        if unknown := [m for m in clips if m not in self.method.modalities]:
            raise UsageError(
                f"this model embeds {', '.join(self.method.modalities)}, not {', '.join(unknown)}"
            )
        inputs: Arrays = {}
        if "video" in clips:
            inputs["video"] = self._films(clips["video"])
        if "audio" in clips:
            inputs["audio"] = np.stack([self._sound(np.asarray(wave)) for wave in clips["audio"]])
        if "text" in clips:
            inputs["text"] = self._words(clips["text"])
        found: dict[Modality, Array] = {}
        for modality, x in inputs.items():
            seen = self.views.encoded(modality, x)
            batch = to_batch(np.arange(len(x)), {modality: seen})
            found[modality] = self.rows(batch)[0][modality].cpu().numpy()
        return found

    def score(self, path: Path | str, start: float, end: float) -> float:
        """How much the action in a span of a file, in seconds, sounds.

        If the model has a `calibration`, it is the probability that the action sounds, in (0, 1);
        if not, the cosine of what is heard and what is seen, in [-1, 1].

        Raises:
            UsageError: the span is none, or not as long as the clips of the training.
            MediaError: the span cannot be read, or lacks sound or pictures.
        """
        cosine = self._cosine(path, start, end)
        return cosine if self.calibration is None else float(self.calibration.probability(cosine))

    def sounds(self, path: Path | str, start: float, end: float) -> bool:
        """Whether the action in a span of a file sounds: yes or no, at the calibration's threshold.

        Raises:
            UsageError: the model is not calibrated; otherwise as `score`.
            MediaError: as `score`.
        """
        if self.calibration is None:
            raise UsageError(
                f"{self.name.rpartition('@')[0]}: is not calibrated, and a cosine alone is no yes "
                "or no; `sonant score discovery --calibrate platt --calibration RUN` calibrates it"
            )
        return bool(self.calibration.sounds(self._cosine(path, start, end)))

    def _cosine(self, path: Path | str, start: float, end: float) -> float:
        v = self.views
        if not (start >= 0 and isfinite(start) and isfinite(end)):
            raise UsageError(f"a span needs 0 <= start < end in seconds, not {start:g} to {end:g}")
        if not v.fits(end - start):
            raise UsageError(
                f"{start:g} to {end:g} is {end - start:.4g} s, and this model compares sound with "
                f"pictures of {v.seconds:g} s: ask for {start:g} to {start + v.seconds:g}"
            )
        media = read(path, start, end, frames=v.frames, size=v.kept_size, rate=v.rate)
        if media.frames is None or media.samples is None:
            missing = "pictures" if media.frames is None else "sound"
            raise MediaError(path, f"has no {missing}, and a score compares sound with pictures")
        e = self.embed(video=media.frames[None], audio=media.samples[None])
        cosine = float(e["video"][0] @ e["audio"][0])
        if not isfinite(cosine):
            raise SonantError(f"{self.name}: its embeddings of {path} are not finite; its weights?")
        return cosine

    def rows(self, batch: Batch) -> tuple[Embeddings, dict[str, Tensor]]:
        """Embeddings of a batch, and the method's own scores if the batch has all it needs."""
        batch = to_device(batch, device())
        with torch.inference_mode():
            whole = set(self.method.modalities) <= set(batch.inputs)
            return self.method.embed(batch), self.method.scores(batch) if whole else {}

    def _films(self, clips: list[Any]) -> Array:
        films = [self._frames(np.asarray(clip)) for clip in clips]
        if len(lengths := {len(film) for film in films}) > 1:
            said = " and ".join(map(str, sorted(lengths)))
            raise UsageError(f"video is uint8 [n, T, H, W, 3], one T for all clips, not {said}")
        return np.stack(films)

    def _frames(self, clip: Array) -> Array:
        if clip.dtype != np.uint8 or clip.ndim != 4 or clip.shape[3] != 3 or not clip.size:
            raise UsageError(
                f"video is uint8 [n, T, H, W, 3]; a clip is {clip.dtype} {list(clip.shape)}"
            )
        return self.views.middle(self.views.video(clip))

    def _sound(self, wave: Array) -> Array:
        if not np.issubdtype(wave.dtype, np.floating) or wave.ndim != 1:
            raise UsageError(
                f"audio is float [n, S] within -1 to 1; a clip is {wave.dtype} {list(wave.shape)}"
            )
        return self.views.heard(self.views.audio(wave.astype(np.float32), self.views.rate))

    def _words(self, texts: list[Any]) -> Array:
        if foreign := [text for text in texts if not isinstance(text, str)]:
            raise UsageError(f"text is narrations, not {type(foreign[0]).__name__}")
        words = self.views.text(texts)
        silent = np.flatnonzero(~self.views.says(words))
        if len(silent):
            raise UsageError(f"text {texts[silent[0]]!r} has no words to embed")
        return words


class _OfLayer(Method):
    """A method that embeds a clip by a map on the way through each tower."""

    def __init__(self, method: Method, layer: Map) -> None:
        super().__init__({m: method.towers[m] for m in method.modalities}, method.stages)
        self.layer = layer
        without = [m for m in self.modalities if not isinstance(self.towers[m], Mapped)]
        if without:
            raise UsageError(
                f"the towers of {', '.join(without)} are no convolutional networks by stages, and "
                f"have no {layer}; those of the recipes `xdc` and `avcl` are, small twins' are not"
            )

    def embed(self, batch: Batch) -> Embeddings:
        """Unit rows [clips, planes * time * height * width] of each modality in the batch."""
        rows: Embeddings = {}
        for modality, x in batch.inputs.items():
            if modality in self.modalities:
                tower = self.towers[modality]
                assert isinstance(tower, Mapped)
                found = at_least_fp32(tower.maps(x)[self.layer])
                rows[modality] = F.normalize(found.flatten(1), dim=1)
        return rows


def _of_layer(model: Model, layer: Map) -> Model:
    """A model that embeds by a map of its towers."""
    path, _, weights = model.name.rpartition("@")
    return Model(_OfLayer(model.method, layer), model.views, f"{path}@{_hash(weights, layer)}")


def _listed(what: str, given: Any) -> list[Any]:
    """The clips of one modality, one or more."""
    try:
        clips = list(given)
    except TypeError as error:
        raise UsageError(
            f"{what} is {type(given).__name__}; wanted are clips, one or more"
        ) from error
    if not clips:
        raise UsageError(f"{what} has no clips; wanted are one or more")
    return clips


def load(run: Path, calibration: Path | None = None) -> Model:
    """The model of a finished run, on this process's device.

    Args:
        run: folder of the run.
        calibration: a file that `sonant score discovery --calibrate` wrote; if not given, the run's
            own calibration.json, if it has one.

    Raises:
        UsageError: the folder holds no run, or one that is not finished; or the calibration is of
            other weights, or of a score that `Model.score` does not give.
    """
    model = _plain(run)
    own = Path(run) / CALIBRATION
    path = own if calibration is None and own.is_file() else calibration
    if path is not None:
        found = Calibration.read(path)
        _check(found, model, path)
        model.calibration = found
    return model


def carry(run: Path, calibration: Calibration) -> Path:
    """Keep a calibration in the folder of its run; returns the file.

    Raises:
        UsageError: the folder holds no finished run, or the calibration is not of its score.
    """
    path = Path(run) / CALIBRATION
    _check(calibration, _plain(Path(run)), path)
    calibration.write(path)
    return path


def weights_of(run: Path) -> str:
    """Hash of a finished run's weights and of what makes media their inputs, as features name it.

    Raises:
        UsageError: the folder holds no finished run.
    """
    return _weights(_plain(Path(run)).name)


def _check(calibration: Calibration, model: Model, path: Path) -> None:
    """Refuse a calibration of other weights, or of a score that no file is scored by."""
    weights = _weights(model.name)
    if calibration.weights != weights:
        raise UsageError(
            f"{path}: the calibration is of the weights {calibration.weights or '(unknown)'}, and "
            f"those of {model.name} are {weights}: calibrate this run, or do without for cosines"
        )
    if calibration.score != SCORED:
        raise UsageError(
            f"{path}: the calibration is of the score {calibration.score!r}, and a model scores a "
            f"span of a file by {SCORED!r}: calibrate that"
        )


def _plain(run: Path) -> Model:
    """The model of a finished run, not calibrated."""
    recipe = read_run(run)
    path = weights_path(run, recipe.method.stages[-1])
    if not path.is_file():
        raise UsageError(f"{run}: not finished, {path.name} is missing; `sonant train` goes on")
    load_weights(recipe.method, path)
    files = (path, Path(run) / "tokenizer.json")
    said = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    v = recipe.views
    seen = (v.frames, v.size, v.jitter, v.seconds, v.tokens, v.rate, v.identities)
    name = f"{run}@{_hash(*said, *seen, FRONT_END)}"
    return Model(recipe.method.to(device()), v, name)


def embed(
    run: Path,
    clips: Clips,
    out: Path,
    *,
    media: Reader,
    batch: int = 64,
    workers: int = 2,
    cache: Path | None = None,
    layer: Map | None = None,
) -> Features:
    """Embed the clips that are not quarantined, and write them as features.

    A call that was killed goes on after its last part, to the same result; features of the same
    weights, clips and media are left as they are.

    Args:
        run: folder of a finished run.
        clips: the clips; a modality that a clip lacks becomes null.
        out: the Parquet file to write.
        media: reads the clips by their row in `clips`, such as a pack of them.
        batch: clips at a time.
        workers: processes that decode ahead; 0 decodes in between.
        cache: folder in which the vectors of locked encoders are kept for other runs on them; None
            computes them each time. Decoded clips are not kept.
        layer: embed by this map of each tower, all its numbers in a row, instead of by its output.

    Raises:
        UsageError: the run is not finished, no clip is good, or one is not as long as those of the
            training; or the towers have no such map.
        SonantError: a clip cannot be read.
    """
    model = _plain(Path(run))
    if layer is not None:
        model = _of_layer(model, layer)
    kept = cache if model.views.locked else None
    examples = Examples(clips, media, model.views, model.method.modalities, kept, partial=True)
    examples.check_lengths()
    return _written(model, examples, Path(out), batch=batch, workers=workers)


def released_model(
    weights: str,
    *,
    path: Path | str | None = None,
    frames: int | None = None,
    size: int | None = None,
) -> tuple[Model, str]:
    """The model of weights that others have published, which sees and does not hear.

    Its embeddings are the network's features under its head, as unit rows. A clip's frames are
    spread over all of it, scaled as in the weights' training, and their middle square is seen.

    Args:
        weights: one of `sonant.encoders.released.RELEASES`.
        path: the published file, or one of other weights in the same layout; as text also the
            Hugging Face id of a repository that has it under its published name; None downloads it.
        frames: of a clip; those of the weights' training if not given.
        size: pixels a side of the square, the scale in proportion; as for `frames`.

    Returns:
        The model, named by the weights (or by the file, if it is not the published one) and a hash;
        and what became of the file, in words.

    Raises:
        UsageError: no such weights, or a file of another layout; impossible settings.
        SonantError: the file cannot be fetched or read.
    """
    release = known(weights)
    network, loaded = released(weights, path=path, other=True)
    sight = release.sight
    side = sight.size if size is None else size
    views = Views(
        tokenizer=train_tokenizer(()),
        frames=sight.frames if frames is None else frames,
        size=side,
        jitter=round(side * (sight.short_side / sight.size - 1) / 2),
        seconds=1.0,
        tokens=1,
    )
    published = loaded.sha256.startswith(hash_in(release.url))
    said = "" if published else f"; it is not the published file of {weights}"
    seen = (views.frames, views.size, views.jitter)
    name = f"{weights if published else path}@{_hash(loaded.sha256, weights, *seen)}"
    method = Method({"video": FromFrames(network)}, ()).to(device())
    return Model(method, views, name), f"{loaded}{said}"


def pace(weights: str, model: Model, clips: Clips) -> str:
    """How densely published weights see some clips, and how they did in training, in words."""
    lengths = np.asarray(clips.column("end") - clips.column("start"), np.float64)
    if not len(lengths):
        return "no clips"
    frames, sight = model.views.frames, known(weights).sight
    rates = sorted(
        {f"{frames / length:.3g}" for length in (lengths.max(), lengths.min())}, key=float
    )
    return (
        f"{frames} frames a clip are {' to '.join(rates)} a second; these weights were trained on "
        f"{sight.frame_rate:g} a second, {sight.frames} at a time"
    )


def embed_released(
    model: Model,
    clips: Clips,
    out: Path,
    *,
    media: Reader,
    batch: int = 64,
    workers: int = 2,
    layer: Map | None = None,
) -> Features:
    """Embed clips with published weights, and write them as features; it goes on as `embed` does.

    Args:
        model: of `released_model`.
        clips: good ones, of any length; one without pictures has null.
        out: the Parquet file to write.
        media: reads the clips by their row in `clips`, such as a pack of them.
        batch: clips at a time.
        workers: processes that decode ahead; 0 decodes in between.
        layer: embed by this map of the network, as `embed` does.

    Raises:
        UsageError: no clip is good, none has pictures, or pictures are fewer or smaller than what
            the model sees.
        SonantError: a clip cannot be read.
    """
    if layer is not None:
        model = _of_layer(model, layer)
    examples = Examples(clips, media, model.views, model.method.modalities, partial=True)
    examples.check_media()
    return _written(model, examples, Path(out), batch=batch, workers=workers)


def _written(model: Model, examples: Examples, out: Path, *, batch: int, workers: int) -> Features:
    """The features of the good clips, part by part, unless they are there already."""
    at_least(1, batch=batch)
    at_least(0, workers=workers)
    spare(out, "sonant.features", "table of features")
    clips = examples.clips
    rows = np.flatnonzero(clips.column("quarantine") == "")
    if not len(rows):
        raise UsageError(f"none of the {len(clips)} clips is good; their quarantine says why")
    data = clips.where(quarantined=False).packed_digest()
    if _done(out, model.name, data):
        return Features.read(out)
    demand_writable(out)
    folder = out.with_name(f".{out.name}.{_hash(_weights(model.name), data)}")
    tables = []
    with Progress(console=Console(stderr=True), disable=len(rows) <= batch) as progress:
        bar = progress.add_task("embed", total=len(rows))
        advance = partial(progress.advance, bar)
        for first in range(0, len(rows), PART):
            path, part = folder / f"{first:08d}.parquet", rows[first : first + PART]
            if not path.is_file():
                _part(model, examples, part, batch, workers, advance).write(path)
            progress.update(bar, completed=first + len(part))
            tables.append(Features.read(path).table)
    features = Features(pa.concat_tables(tables), model.name, data)
    features.write(out)
    rmtree(folder)
    return features


def _part(
    model: Model,
    examples: Examples,
    rows: Array,
    batch: int,
    workers: int,
    advance: Callable[[int], None],
) -> Features:
    asked = [Request(rows[first : first + batch]) for first in range(0, len(rows), batch)]
    embeddings: dict[Modality, list[Array]] = {}
    scores: dict[str, list[Array]] = {}
    for made in loader(examples, asked, workers=workers):
        there = {m: x.numpy() for m, x in made.there.items()}
        found, said = model.rows(made)
        for modality, x in found.items():
            _check_finite(x, there[modality], examples.ids[made.index.numpy()], modality, model)
            embeddings.setdefault(modality, []).append(_nan(x, there[modality]))
        for name, x in said.items():
            whole = np.logical_and.reduce(list(there.values()))
            scores.setdefault(name, []).append(_nan(x, whole))
        advance(len(made.index))
    if examples.kept is not None:
        examples.kept.save(rank=0)
    return Features.of(
        list(examples.ids[rows]),
        {modality: np.concatenate(parts) for modality, parts in embeddings.items()},
        scores={name: np.concatenate(parts) for name, parts in scores.items()},
    )


def _check_finite(x: Tensor, there: Array, ids: Array, modality: Modality, model: Model) -> None:
    """NaN would read as a clip without the modality."""
    wrong = there & ~x.isfinite().all(1).cpu().numpy()
    if wrong.any():
        raise SonantError(
            f"clip {ids[wrong][0]!r}: its embedding of {modality} is not finite; the weights of "
            f"{model.name.rpartition('@')[0] or model.name} are not, or its media are odd"
        )


def _nan(x: Tensor, there: Array) -> Array:
    """Rows of NaN for clips that lack what they were computed from."""
    found = x.float().cpu().numpy().copy()
    found[~there] = np.nan
    return found


def _done(out: Path, name: str, data: str) -> bool:
    try:
        there = Features.read(out)
    except TableError:
        return False
    return (_weights(there.run), there.data) == (_weights(name), data)


def _weights(name: str) -> str:
    """The hash in a model's name, whatever path its run was asked for by."""
    return name.rpartition("@")[2]


def _hash(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]
