"""What XDC's audio encoders know of recorded sounds: `sonant bench sounds`.

Encoders that were pretrained on the narrated world, or on the recordings themselves without their
labels, are transferred to ESC-10 on its official folds and to Kitchen20 dealt by source: a linear
layer over features as they are (the paper's fc), all of an encoder fine-tuned, and a linear SVM.
"""

import hashlib
import json
import os
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from sonant import __version__
from sonant.bench.runs import RESAMPLES, Draw, Result, Row, trained
from sonant.bench.tables import Column, Table, differences, table, write
from sonant.bench.transfer import Dealing, reached_by, transfer
from sonant.bench.xdc import BATCH, METHODS, ROUND
from sonant.checkpoint import read_run, weights_path
from sonant.clips import Clips
from sonant.embed import embed
from sonant.features import Features
from sonant.files import replacing
from sonant.media.pack import Pack, pack
from sonant.methods.classify import classes, classify_small
from sonant.methods.deepcluster import sdc_small
from sonant.metrics.collapse import effective_rank
from sonant.sources.esc50 import esc50
from sonant.sources.folds import folds, recordings
from sonant.sources.kitchen20 import kitchen20
from sonant.sources.windows import windows
from sonant.tasks.agreement import label
from sonant.tasks.probe import probe
from sonant.train import train
from sonant.types import Clip

SETS = ("ESC-10", "Kitchen20")
"""The data sets, and the labels that hold their classes: null for the clips of the other one."""
SOURCE = "source"
"""Label of the Freesound recording that a clip was cut from."""
SECONDS = 1.5
"""Of a window, as the small towers hear it and the world's clips have it."""
WINDOWS = 3
"""Spread evenly over a recording."""

SCRATCH = "Scratch"
HEARD = "SDC of these sounds"
WHITENED = f"{HEARD}, whitened"
HEARING: dict[str, Any] = ROUND | {"modalities": ["audio"], "compared": SETS}
ON_SOUNDS: Mapping[str, Row] = {
    SCRATCH: Row("untrained", sdc_small, {"modalities": ["audio"], "rounds": 1, "epochs": 0}),
    HEARD: Row(HEARD, sdc_small, HEARING),
    WHITENED: Row(WHITENED, sdc_small, HEARING | {"pca": 16, "whiten": True, "unit": True}),
}
"""Pretrained on windows of all recordings of both sets, if at all; whitened: with DeepCluster's
preparation of what is clustered, which XDC does not mention, of so few components as there always
are: after a round features vary in 30 to 40 directions."""
ON_WORLD: Mapping[str, Row] = {
    name: row for name in ("SDC", "MDC", "CDC", "XDC") if (row := METHODS[name]) is not None
}
"""Pretrained on windows of the world's videos: the rows of `bench.xdc`."""

FINE_TUNING: dict[str, Any] = {"modalities": ["audio"], "epochs": 8, "batch": BATCH}
LINEAR: Mapping[str, Mapping[str, Any]] = {
    "fc": {"classifier": "logistic", "scale": "standard", "costs": (0.001, 0.01, 0.1, 1.0)},
    "SVM": {"classifier": "svm", "scale": "unit", "costs": (0.1, 1.0, 10.0)},
}
"""Classifiers of features as they are. A fully connected layer under cross entropy, with its decay
chosen inside the training part, is what logistic regression finds the best of."""
INNER = 3
"""Parts that the training part is dealt into to choose C, by source."""
VERSION = 1
"""Of what judges here: what another has found is found again."""

COLUMNS = [
    Column(f"{name}, {how}", f"{how} {name}", "top1", percent=True)
    for name in SETS
    for how in ("fc", "all", "SVM")
]
RANKS = [Column(f"{name}, rank", f"rank {name}", "audio") for name in SETS]
DIFFERENCES = [
    *[("XDC", "CDC"), ("CDC", "MDC"), ("MDC", "SDC"), ("SDC", SCRATCH)],
    *[("XDC", "SDC"), ("XDC", SCRATCH), (HEARD, SCRATCH), (HEARD, "SDC")],
    *[(WHITENED, HEARD), (WHITENED, SCRATCH)],
]


def bench(out: Path, draws: Sequence[Draw], clips: Clips) -> list[Table]:
    """Transfer every row of every draw to both sets, and write OUT/sounds.{md,csv,html}.

    What is there already is not done again: rows of the world that `bench.xdc` has trained on the
    same draws are taken.

    Args:
        out: folder of the tables, and in it `sounds` with the pack and the runs.
        draws: the world's data and the seed of each run.
        clips: windows of the recordings, as `recorded` makes them.

    Raises:
        UsageError: OUT/sounds holds the windows or runs of something else.
    """
    packed, workers = out / "sounds" / "pack", draws[0].workers
    clips = pack(clips, packed, partial=True, workers=workers)
    found = [_reached(draw, packed, out / "sounds" / f"run-{draw.seed}") for draw in draws]
    every = {name: [fold for one in found for fold in one[name]] for name in found[0]}
    means = {name: _mean([one[name] for one in found]) for name in found[0]}
    said = "Points: the mean difference, and that of every fold."
    tables = [
        table(
            "Tables 1 and 5 on recorded sounds",
            _about(clips, len(draws)),
            means,
            [*COLUMNS, *RANKS],
        ),
        differences("Differences on recorded sounds", said, means, DIFFERENCES, COLUMNS),
    ]
    write(out, "sounds", "# XDC on recorded sounds", tables, every)
    return tables


def recorded(esc10: Path, kitchen: Path, *, workers: int) -> Clips:
    """Windows of all recordings of both sets in one table.

    Labels: `ESC-10` and `Kitchen20`, the class in that set; `ESC-10 fold`, the official one, and
    `Kitchen20 fold`, which tears no source apart; `source` and `recording`.

    Args:
        esc10: folder of ESC-10, or of ESC-50, which holds it.
        kitchen: folder of Kitchen20.
        workers: processes that look into the files.

    Raises:
        UsageError: no such folder, or a set has too few recordings.
        TableError: a set's list is not what it should be.
    """
    listings = (esc50(esc10, esc10=True), "fold"), (kitchen20(kitchen), "source_fold")
    root = Path(os.path.commonpath([listing.root.resolve() for listing, _ in listings]))
    rows, reasons = list[Clip](), list[str]()
    for name, (listing, fold) in zip(SETS, listings, strict=True):
        clips = listing.clips(workers=workers)
        reasons += clips.column("quarantine").tolist()
        rows += [_of_set(clip, name, fold, clips.root.resolve(), root) for clip in clips]
    whole = Clips.of(rows, root=root, quarantine=reasons)
    return windows(whole, seconds=SECONDS, count=WINDOWS)


def _of_set(clip: Clip, name: str, fold: str, folder: Path, root: Path) -> Clip:
    """A recording as one of several sets, whose folders lie in the root."""
    place = (folder / clip.video).relative_to(root).as_posix()
    labels = {name: clip.labels["class"], f"{name} fold": clip.labels[fold]}
    labels[SOURCE] = str(clip.labels[SOURCE])
    return replace(clip, id=f"{name}/{clip.id}", video=place, labels=labels)


def _reached(draw: Draw, packed: Path, here: Path) -> dict[str, list[Result]]:
    """What every row of a draw reaches in each fold; those of the two sets stand side by side."""
    found: dict[str, list[Result]] = {}
    clips = Pack.open(packed).clips
    for name, run in _runs(draw, packed, here).items():
        path = here / "features" / f"{run.name}.parquet"
        media = Pack(clips, packed)
        features = embed(run, clips, path, media=media, workers=draw.workers)
        parts = [_linear(features, clips, path.with_suffix(".json"))]
        parts += [_ranks(features, clips, of) for of in SETS]
        parts += [_tuned(name, run, packed, here / "all", draw, of=of) for of in SETS]
        found[name] = _joined(parts)
    return found


def _runs(draw: Draw, packed: Path, here: Path) -> dict[str, Path]:
    """The run that each row begins with; it is trained if it is not yet."""
    clips = Pack.open(packed).clips.where(packed=True, quarantined=False)
    for row in ON_SOUNDS.values():
        train(
            row.recipe,
            {**row.arguments, "seed": draw.seed},
            clips,
            here / row.folder,
            media=Pack(clips, packed),
            workers=draw.workers,
            cache=packed / "cache",
        )
    heard = {name: here / row.folder for name, row in ON_SOUNDS.items()}
    return heard | {name: trained(row, draw) for name, row in ON_WORLD.items()}


def _tuned(name: str, run: Path, packed: Path, out: Path, draw: Draw, *, of: str) -> list[Result]:
    """How well an encoder names the classes of a set once all of it is fine-tuned."""
    out = out / of.lower()
    weights = weights_path(run, read_run(run).method.stages[-1])
    transfer(
        out,
        packed,
        classify_small,
        FINE_TUNING | {"label": of, "seed": draw.seed},
        name=name,
        initial=None if name == SCRATCH else weights,
        dealing=Dealing((f"{of} fold",)),
        workers=draw.workers,
    )
    return [{f"all {of}": fold["recognition"]} for fold in reached_by(out, name)]


def _linear(features: Features, clips: Clips, path: Path) -> list[Result]:
    """What linear classifiers make of an encoder's features, in each fold of both sets."""
    weights = features.run.rpartition("@")[2]
    made = (__version__, VERSION, SETS, LINEAR, weights, features.data)
    key = hashlib.sha256(repr(made).encode()).hexdigest()
    if path.is_file():
        there = json.loads(path.read_text(encoding="utf-8"))
        if there["made from"] == key:
            return list(there["reached"])
    found = _joined([_probed(features, clips, how, of) for of in SETS for how in LINEAR])
    with replacing(path) as partial:
        said = {"made from": key, "reached": found}
        partial.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    return found


def _probed(features: Features, clips: Clips, how: str, of: str) -> list[Result]:
    asked = {**LINEAR[how], "label": of, "by": [f"{of} fold"], "apart": SOURCE}
    found = probe({"": features}, clips, inner=INNER, resamples=RESAMPLES, **asked)
    return [{f"{how} {of}": {"top1": part.top1, "mca": part.mca}} for part in found.rows[0].parts]


def _ranks(features: Features, clips: Clips, of: str) -> list[Result]:
    """The effective rank of the judged windows' features, fold by fold."""
    judged = [fold.test for fold in folds(clips, [f"{of} fold"])]
    found = [features.of_clips(clips.column("id")[mask]).matrix("audio") for mask in judged]
    return [{f"rank {of}": {"audio": effective_rank(x)}} for x in found]


def _joined(parts: Sequence[Sequence[Result]]) -> list[Result]:
    """Side by side, fold by fold."""
    return [dict(ChainMap(*fold)) for fold in zip(*parts, strict=True)]


def _mean(runs: Sequence[Sequence[Result]]) -> list[Result]:
    """The mean over runs, fold by fold."""
    return [
        {
            of: {measure: mean(run[of][measure] for run in fold) for measure in measures}
            for of, measures in fold[0].items()
        }
        for fold in zip(*runs, strict=True)
    ]


def _about(clips: Clips, runs: int) -> str:
    """What a reader must know."""
    clips = clips.where(packed=True, quarantined=False)
    counts = [
        f"{name}, {len(set(recordings(here)))} recordings of {len(classes(here, name))} classes"
        for name in SETS
        for here in [clips.where(label(clips, name) != "")]
    ]
    several = f", each the mean of {runs} runs" if runs > 1 else "; one run"
    return (
        f"Top-1 in per cent, mean and deviation over folds{several}. {'; '.join(counts)}: the "
        f"former's official folds, the latter's by source; scores are averaged over {WINDOWS} "
        f"windows of {SECONDS:g} s. fc: logistic regression of the features; SVM: a linear one; C "
        f"is chosen inside each training part. all: everything fine-tuned, the last of "
        f"{FINE_TUNING['epochs']} epochs. rank: effective, of the judged windows' features. "
        f"{', '.join(ON_WORLD)} are pretrained on the narrated world; {HEARD} without labels on "
        f"all {len(clips):,} windows here, the judged among them."
    )
