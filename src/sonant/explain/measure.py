"""The picture as a measurement: on the narrated world, where does a model look, and should it?"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from sonant.checkpoint import read_run
from sonant.clips import Clips
from sonant.data import Views
from sonant.distributed import device
from sonant.embed import Model, load
from sonant.errors import UsageError, at_least
from sonant.explain.clip import batch_of, front_end
from sonant.explain.maps import Found, find
from sonant.files import replacing
from sonant.media.audio import cut_or_pad, log_mel
from sonant.media.pack import Pack
from sonant.media.read import Media
from sonant.metrics.bootstrap import Interval, interval, mean
from sonant.metrics.pointing import iou, pointing
from sonant.sources.world.masks import Masks
from sonant.types import Batch, Clip, Modality

Array = np.ndarray[Any, Any]
Mel = Callable[[Array, int], Array]

QUESTIONS: Mapping[str, tuple[Modality, str]] = {
    "movement": ("video", "pixels it changes"),
    "pixels": ("video", "its pixels"),
    "sound": ("audio", "its mel cells"),
}
"""What is asked: what of the action, of which modality, in words."""
MODEL, RANDOM = "model", "random weights"
THRESHOLD = 0.5
"""Of what is hot, for the IoU."""
PIXELS, CELLS = 1 / 16, 1 / 32
"""How far off a hit may be: of a frame's side, in that very frame; of the spectrogram's sides."""
CENTRE = 0.25
"""Deviation of the centre prior, of each side."""


@dataclass(frozen=True)
class Row:
    """How often a map points at what it should, and how far it covers it."""

    pointing: Interval
    iou: Interval


@dataclass(frozen=True)
class Answer:
    """The rows of one question.

    Args:
        clips: that have something to point at.
        area: the mean share of it.
        rows: name to row: the model, one with random weights, and maps made without a model.
        gain: of the model over the one with random weights, clip by clip.
    """

    clips: int
    area: float
    rows: dict[str, Row]
    gain: Row


@dataclass(frozen=True)
class Measured:
    """What `measure` found, and of what."""

    model: str
    target: str
    pooled: bool
    layers: dict[str, str]
    clips: int
    videos: int
    threshold: float
    answers: dict[str, Answer]

    def write(self, path: Path) -> None:
        """Write as JSON, whole or not at all; intervals that one video has not are null."""
        told = json.dumps(_without_nan(asdict(self)), indent=1, allow_nan=False)
        with replacing(path) as partial:
            partial.write_text(told + "\n")


def drawn(clips: Clips, *, split: str, most: int, seed: int) -> Array:
    """Rows of clips whose actions sound: seen, heard and rightly narrated; in their order.

    Args:
        clips: a table that `sonant index world` made.
        split: that they are of; "all" for any.
        most: of them; if there are more, so many are drawn.
        seed: of the draw.

    Raises:
        UsageError: the table does not say what sounds, or nothing in the split does.
    """
    at_least(1, clips=most)
    at_least(0, seed=seed)
    if "sounding" not in clips.labels:
        raise UsageError("these clips do not say which sound; `sonant index world` makes some")
    of = (clips.column("split") == split) | (split == "all")
    sounds = np.array([value is True for value in clips.column("sounding").tolist()])
    rows = np.flatnonzero(of & sounds & (clips.column("quarantine") == ""))
    if not len(rows):
        raise UsageError(f"no clip in the split {split!r} sounds")
    chosen = np.random.default_rng(seed).permutation(rows)[:most]
    return np.sort(chosen)


def measure(
    run: Path,
    pack: Pack,
    rows: Array,
    world: Path,
    *,
    target: str = "",
    at: Mapping[Modality, str] | None = None,
    pooled: bool = True,
    batch: int = 32,
    seed: int = 0,
) -> Measured:
    """Compare where a model looks with what is known of the narrated world.

    Args:
        run: folder of a trained run.
        pack: of clips of the world.
        rows: of the pack's clips.
        world: folder of the world.
        target: as in `maps.find`; so are `at` and `pooled`.
        at: modality to layer.
        pooled: weights of Grad-CAM's channels.
        batch: clips at a time.
        seed: of the bootstrap over videos.

    Raises:
        UsageError: the clips are not of this world, or as `maps.find`.
        SonantError: a clip cannot be read.
    """
    masks, models = Masks(world), {MODEL: load(run), RANDOM: random_weights(run)}
    clips, views = pack.clips, models[MODEL].views
    truth: dict[str, list[Array]] = {question: [] for question in QUESTIONS}
    heats: dict[str, dict[str, list[Array]]] = {question: {} for question in QUESTIONS}
    found: dict[str, Found] = {}
    firsts = range(0, len(rows), batch)
    for first in track(firsts, "measure", console=Console(stderr=True), disable=len(firsts) < 2):
        part = [int(row) for row in rows[first : first + batch]]
        media = [pack.read(row, frames=views.frames, film=views.part(None)) for row in part]
        told = [clips[row] for row in part]
        texts, ids = [clip.text for clip in told], [clip.id for clip in told]
        given = batch_of(models[MODEL], media, texts, ids, target)
        found = {
            name: find(model, given, target=target, at=at, pooled=pooled)
            for name, model in models.items()
        }
        for question, (modality, _) in QUESTIONS.items():
            if modality not in found[MODEL].looked:
                continue
            for name, of in found.items():
                heats[question].setdefault(name, []).extend(of.looked[modality].heat)
            heats[question].setdefault(NAIVE[modality], []).extend(naive(modality, given))
            pairs = zip(told, media, strict=True)
            truth[question] += [_mask(question, masks, views, clip, one) for clip, one in pairs]
    videos = clips.column("video")[rows]
    answers = {
        question: _answer(question, truth[question], heats[question], videos, seed)
        for question in QUESTIONS
        if any(mask.any() for mask in truth[question])
    }
    if not answers:
        raise UsageError("none of these clips has anything of an action's own to point at")
    return Measured(
        model=models[MODEL].name,
        target=found[MODEL].target,
        pooled=pooled,
        layers={modality: looked.layer for modality, looked in found[MODEL].looked.items()},
        clips=len(rows),
        videos=len(set(videos)),
        threshold=THRESHOLD,
        answers=answers,
    )


NAIVE: Mapping[Modality, str] = {"video": "change of pixels", "audio": "loudness"}


def naive(modality: Modality, batch: Batch) -> Array:
    """What a map made without a model shows: where pixels change, or where it is loud."""
    x = batch.inputs[modality].cpu().numpy()
    if modality == "audio":
        return np.asarray(x - x.min((1, 2), keepdims=True), np.float64)
    change = np.abs(np.diff(x.astype(np.float64), axis=1)).mean(2)
    return np.concatenate([change[:, :1], change], 1)


def random_weights(run: Path) -> Model:
    """The model of a run as it was initialised, without weights of others."""
    recipe = read_run(run)
    return Model(recipe.method.to(device()), recipe.views, f"{run}, random weights")


def centre(shape: tuple[int, ...]) -> Array:
    """A normal distribution around the middle of a map [time, bins], or of each frame's."""
    places = np.meshgrid(*(np.linspace(-0.5, 0.5, n) for n in shape[-2:]), indexing="ij")
    bump = np.exp(-sum(place**2 for place in places) / (2 * CENTRE**2))
    return np.broadcast_to(bump, shape)


def table(measured: Measured) -> Table:
    """For a terminal."""
    layers = ", ".join(f"{modality} {layer}" for modality, layer in measured.layers.items())
    title = (
        f"Where it looks for {measured.target} ({layers}) and where the action is: "
        f"{measured.clips} clips of {measured.videos} videos; 95 % intervals over videos; hot from "
        f"{measured.threshold:g} on"
    )
    shown = Table(title=title, title_justify="left", box=None)
    for head in ("", "points at it", "IoU"):
        shown.add_column(head, justify="right" if head else "left", no_wrap=True)
    for question, answer in measured.answers.items():
        about = f"{QUESTIONS[question][1]}, {answer.area:.1%} (n {answer.clips})"
        shown.add_row(f"[bold]{about}")
        for name, row in [*answer.rows.items(), (f"{MODEL} less {RANDOM}", answer.gain)]:
            shown.add_row(f"  {name}", _told(row.pointing), _told(row.iou))
    return shown


def _mask(question: str, masks: Masks, views: Views, clip: Clip, media: Media) -> Array:
    """What a map of one clip should point at."""
    if question == "sound":
        return masks.cells(clip.video, clip.start, clip.end, _mel(views))
    assert media.frame_times is not None
    own, moving = masks.pixels(clip.video, clip.start, media.frame_times)
    drawn = np.repeat(255 * (moving if question == "movement" else own)[..., None], 3, -1)
    seen = views.middle(views.video(drawn.astype(np.uint8)))
    return np.asarray(seen[:, 0] > 127)


def _mel(views: Views) -> Mel:
    """The log-mel, before any normalisation, of the views' spectrograms."""
    if type(views) is Views:
        return lambda samples, rate: cut_or_pad(log_mel(samples, rate, "ast"), views.mel_frames)
    if front_end(views) is None:
        raise UsageError(
            f"what {type(views).__name__} makes of sound has no mel cells that could be an action's"
        )
    return lambda samples, rate: views.heard(views.audio(samples, rate))


def _answer(
    question: str,
    truth: list[Array],
    heats: Mapping[str, list[Array]],
    videos: Array,
    seed: int,
) -> Answer:
    shape = truth[0].shape
    share = PIXELS if QUESTIONS[question][0] == "video" else CELLS
    reach = [round(share * side) for side in shape]
    reach[: len(shape) - 2] = [0] * (len(shape) - 2)
    total = np.sum(truth, axis=0, dtype=np.int64)
    maps: dict[str, Callable[[int], Array]] = {
        **{name: of.__getitem__ for name, of in heats.items()},
        "where it is in other clips": lambda clip: (total - truth[clip]).astype(np.float64),
        "the centre": lambda clip: centre(shape),
        "chance": lambda clip: np.ones(shape),
    }
    there = [clip for clip, mask in enumerate(truth) if mask.any()]
    if len(there) < 2:
        del maps["where it is in other clips"]
    scores = {
        name: np.array(
            [
                (pointing(of(clip), truth[clip], reach), iou(of(clip), truth[clip], THRESHOLD))
                for clip in there
            ]
        )
        for name, of in maps.items()
    }
    rows = {name: _row(of, videos[there], seed) for name, of in scores.items()}
    gain = _row(scores[MODEL] - scores[RANDOM], videos[there], seed)
    area = float(np.mean([truth[clip].mean() for clip in there]))
    return Answer(len(there), area, rows, gain)


def _row(scores: Array, videos: Array, seed: int) -> Row:
    points, covers = (interval(mean(of), videos, seed=seed) for of in scores.T)
    return Row(points, covers)


def _told(of: Interval) -> str:
    spread = f" ({of.low:.3f}, {of.high:.3f})" if of.low == of.low else ""
    return f"{of.value:.3f}{spread}".replace("-", "−")


def _without_nan(x: Any) -> Any:
    if isinstance(x, dict):
        return {name: _without_nan(value) for name, value in x.items()}
    return None if isinstance(x, float) and x != x else x
