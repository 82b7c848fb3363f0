"""Rows of a table trained on draws of data, one folder a row and draw; what is there is kept.

A run of a bench is one draw: with the narrated world its own videos, and always its own seed.
Rows of one run are paired: the same clips in the same order from the same first weights.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sonant import __version__
from sonant.checkpoint import RecipeFunction, read_run, weights_path
from sonant.clips import Clips
from sonant.embed import embed
from sonant.errors import SonantError, UsageError
from sonant.features import Features
from sonant.files import replacing
from sonant.media.pack import Pack, pack
from sonant.metrics.collapse import effective_rank, mean_other_cosine
from sonant.sources.folder import FRACTIONS, Window, folder
from sonant.sources.recut import recut
from sonant.sources.world import laws, world
from sonant.tasks.discovery import discovery
from sonant.tasks.retrieval import retrieval
from sonant.train import train
from sonant.validation import Validation

Result = dict[str, dict[str, float]]
"""What a row reached: `AV raw` and the like to areas, `V>A` and the like to measures, `rank` and
`others` to modalities."""

FormOf = Callable[[Window], Mapping[str, Any]]
"""Settings of `pack` that are not its defaults, for clips of a window."""

Judge = Callable[[Features, Clips, str], Result]
"""Reads a row's features of a split."""

JUDGE = 1
"""Version of `judge`: what another has found is found again."""
EVEN = {"train": 0.45, "val": 0.1, "test": 0.45}
"""Shares of the videos where few labels are learned from: as many are judged."""
RESAMPLES = 2
"""Of the bootstrap over videos: intervals of one run are not shown, runs are compared instead."""


@dataclass(frozen=True)
class Row:
    """A method with its arguments: a line of a table."""

    name: str
    recipe: RecipeFunction
    arguments: Mapping[str, Any] = field(default_factory=dict)
    after: "Row | None" = None
    """The row with whose weights this one begins: what several do first is done once."""
    window: Window = field(default_factory=Window)
    """Of the clips around their narrations."""
    narrated: bool = True
    """Whether it learns from clips around narrations, or from all that there is, cut to windows."""
    share: float = 1.0
    """Of the training videos, those that it learns from: the first by name."""
    chosen: bool = False
    """Whether the validation clips choose the epoch that it ends with."""

    @property
    def folder(self) -> str:
        """The name as that of a folder."""
        kept = "".join(c if c.isalnum() or c in ".=" else " " for c in self.name.lower())
        return "-".join(kept.split())


@dataclass(frozen=True)
class Draw:
    """The data of one run."""

    folder: Path
    """Where its rows are kept."""
    seed: int
    packs: Path
    clips: Callable[[Window, bool], Clips]
    """The clip table of a window, around narrations or not."""
    about: str
    """What the clips are drawn from, in words; packs of anything else are not taken for them."""
    workers: int
    form: FormOf | None = None
    cache: bool = True
    """Whether decoded clips are kept beside the pack."""

    def pack(self, window: Window, *, narrated: bool = True) -> Path:
        """Folder of the packed clips of a window; they are packed if they are not yet.

        Args:
            window: span around a narration.
            narrated: whether there is one; else the whole of the videos is cut so.

        Raises:
            UsageError: the folder is there and holds clips of something else.
            SonantError: no clip can be packed.
        """
        kind = "pack" if narrated else "windows"
        out = self.packs / f"{kind}-{window.before:g}-{window.after:g}"
        note, about = out / "drawn-from.txt", self.about
        form = self.form(window) if self.form else {}
        about += "".join(f", {name} {value:g}" for name, value in form.items())
        if not note.is_file():
            packed = pack(self.clips(window, narrated), out, workers=self.workers, **form)
            if not len(packed.where(packed=True)):
                raise SonantError(f"{out}: no clip could be packed; its clips.parquet says why")
            with replacing(note) as partial:
                partial.write_text(about + "\n", encoding="utf-8")
        if (there := note.read_text(encoding="utf-8").strip()) != about:
            raise UsageError(f"{out}: is of {there}, not of {about}; give another folder")
        return out


def world_draws(
    out: Path,
    *,
    runs: int,
    videos: int,
    seed: int,
    workers: int,
    fractions: Mapping[str, float] = FRACTIONS,
    form: FormOf | None = None,
) -> list[Draw]:
    """Draws of the narrated world with seeds `seed`, `seed` + 1, ...; made when they are needed."""

    def draw(seed: int) -> Draw:
        here = out / f"run-{seed}"
        root = here / "world"

        def clips(window: Window, narrated: bool) -> Clips:
            world(root, videos=videos, seed=seed, workers=workers)
            same: dict[str, Any] = {
                "window": window,
                "fractions": fractions,
                "seed": seed,
                "workers": workers,
            }
            if not narrated:
                return folder(root / "videos", **same)
            narrations, labels = root / "narrations.csv", root / "truth.csv"
            return folder(root, narrations=narrations, labels=labels, **same)

        dealt = "".join(f", {name} {share:g}" for name, share in fractions.items())
        about = f"{laws.NAME}, {videos} videos, seed {seed}"
        about += "" if fractions == FRACTIONS else dealt
        return Draw(here / "rows", seed, here, clips, about, workers, form)

    return [draw(seed + number) for number in range(runs)]


def table_draws(
    out: Path,
    table: Path,
    *,
    runs: int,
    seed: int,
    workers: int,
    form: FormOf | None = None,
) -> list[Draw]:
    """The clips of one table for every run, which differ in their seed alone.

    Where another window is asked for than the usual one, they are cut anew (`recut`), which only
    clips that all have the usual length can be.

    Args:
        out: folder for the pack, which all runs share, and for what each run trains.
        table: of the clips.
        runs: how many.
        seed: of the first; each other's is one more.
        workers: processes that decode.
        form: settings of `pack` that are not its defaults, for clips of a window.

    Raises:
        TableError: the table is missing or no clip table.
    """
    clips = Clips.read(table)
    about = f"clips {clips.digest()}"

    def cut(window: Window, narrated: bool) -> Clips:
        return clips if window == Window() else recut(clips, window, workers=workers)

    def draw(seed: int) -> Draw:
        rows = out / f"run-{seed}" / "rows"
        return Draw(rows, seed, out, cut, about, workers, form)

    return [draw(seed + number) for number in range(runs)]


def reach(
    row: Row, draw: Draw, *, split: str, judged: Judge | None = None, version: object = JUDGE
) -> Result:
    """Train a row on a draw, embed, judge; each only if it is not done already.

    Args:
        row: the method.
        draw: the data.
        split: the clips to judge.
        judged: the judge; `judge` if not given.
        version: of it.
    """
    run, packed = trained(row, draw), draw.pack(row.window)
    clips = Pack.open(packed).clips
    features = embed(
        run, clips, run / "features.parquet", media=Pack(clips, packed), workers=draw.workers
    )
    path = run / f"{split}.json"
    key = hashlib.sha256(
        repr((__version__, version, split, features.run.rpartition("@")[2], features.data)).encode()
    ).hexdigest()
    if path.is_file():
        there = json.loads(path.read_text(encoding="utf-8"))
        if there["made from"] == key:
            return dict(there["reached"])
    reached = (judged or judge)(features, clips, split)
    with replacing(path) as partial:
        said = {"made from": key, "row": row.name, "reached": reached}
        partial.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    return reached


def judge(features: Features, clips: Clips, split: str, *, temperature: float = 0.07) -> Result:
    """Discovery and retrieval of one model's features on a split, and how its space lies.

    Args:
        features: of the model.
        clips: the table.
        split: the clips to judge.
        temperature: of the PMI score.
    """
    found = discovery(
        {"": features}, clips, split=split, temperature=temperature, resamples=RESAMPLES
    )
    reached: Result = {
        f"{row.pair} {row.score}": {name: area.value for name, area in row.areas.items()}
        for row in found.rows
        if row.kind == "model"
    }
    for ranked in retrieval({"": features}, clips, split=split, resamples=RESAMPLES).rows:
        name = ranked.direction if ranked.kind == "model" else f"{ranked.direction} by chance"
        reached[name] = {measure: one.value for measure, one in ranked.values.items()}
    here = features.of_clips(clips.where(split=split, quarantined=False).column("id"))
    spaces = {modality: here.matrix(modality) for modality in here.modalities}
    spaces = {modality: x[np.isfinite(x).all(1)] for modality, x in spaces.items()}
    spaces = {modality: x for modality, x in spaces.items() if len(x) > 1}
    reached["rank"] = {modality: effective_rank(x) for modality, x in spaces.items()}
    reached["others"] = {modality: mean_other_cosine(x) for modality, x in spaces.items()}
    return reached


def features_of(rows: Sequence[Row], draw: Draw) -> dict[str, Features]:
    """The features of rows that were reached."""
    return {row.name: Features.read(draw.folder / row.folder / "features.parquet") for row in rows}


def trained(row: Row, draw: Draw) -> Path:
    """The run of a row on a draw; it is trained if it is not yet."""
    initial = None
    if row.after is not None:
        before = trained(row.after, draw)
        stages = [stage for stage in read_run(before).method.stages if stage.epochs]
        initial = weights_path(before, stages[-1])
    packed, run = draw.pack(row.window, narrated=row.narrated), draw.folder / row.folder
    whole = Pack.open(packed).clips
    clips = _first(whole.where(split="train", packed=True, quarantined=False), row.share)
    held = whole.where(split="val", packed=True, quarantined=False)
    try:
        train(
            row.recipe,
            {**row.arguments, "seed": draw.seed},
            clips,
            run,
            media=Pack(clips, packed),
            initial=initial,
            validation=Validation(held, Pack(held, packed)) if row.chosen else None,
            workers=draw.workers,
            cache=packed / "cache" if draw.cache else None,
        )
    except UsageError as error:
        raise UsageError(f"row {row.name!r}: {error}") from error
    return run


def _first(clips: Clips, share: float) -> Clips:
    """The clips of a share of the videos, the first by name."""
    videos = sorted(set(clips.column("video")))
    return clips.where(np.isin(clips.column("video"), videos[: math.ceil(share * len(videos))]))
