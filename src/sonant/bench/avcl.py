"""AVCL's Tables I to IV: `sonant bench avcl`.

Every row is pretrained without labels, then all of it is fine-tuned on one label; the validation
clips choose the epoch, the test clips are looked at once. Baselines begin with fine-tuning.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sonant.bench.runs import RESAMPLES, Draw, Result, Row, reach
from sonant.bench.tables import Column, Table, differences, paired, table, write
from sonant.checkpoint import RecipeFunction
from sonant.clips import Clips
from sonant.features import Features
from sonant.methods.avcl import avcl, avcl_small
from sonant.methods.classify import classify, classify_small
from sonant.methods.siamese import (
    barlow_twins_small,
    byol_small,
    iic_small,
    moco_small,
    simclr_small,
    simsiam_small,
)
from sonant.tasks.recognition import recognition

VERSION = "recognition 1"
"""Of `recognised`: what another has found is found again."""

NARROW: dict[str, Any] = {
    "planes": 8,
    "frames": 8,
    "frame_rate": 16 / 3,
    "size": 64,
    "jitter": 4,
    "mel": 64,
    "mel_crop": 64,
    "seconds": 1.5,
    "batch": 32,
}
"""AVCL's own networks, made narrow: those of Table I and II, and other backbones.

They see all of a clip, 8 frames of 1.5 s, and hear all of it but where Table I says otherwise.
"""
PRETRAINING: dict[str, Any] = {"epochs": 10, "rate": 1e-2, "contrast_weight": 0.05, "joint": 32}
"""Of narrow networks. The contrast weighs NT-Xent by 3.2, as the paper's 0.1 does at 16 clips."""
RATE = 0.1
"""Of narrow networks that are fine-tuned; at the paper's 0.01 they are far from done (LOG.md)."""
GATED_RATE = 0.03
"""Of those with a gate, which closes for good at the other rate (LOG.md)."""
BATCH = 32
"""Of small towers: so few clips are too few steps in the twins' own batches of 128."""
SELF = 0.1 * 16 / BATCH
"""λ_self of small towers; the contrast is a sum over the batch, and the paper's 0.1 at 16 clips."""
FINE_TUNING: dict[str, Any] = {"epochs": 12, "hidden": (), "dropout": 0.0, "batch": BATCH}

PUBLISHED = {
    "Baseline-R": "60.4",
    "Baseline-A": "52.9",
    "Baseline-R+A": "73.9",
    "IIC": "60.5",
    "SimCLR": "69.7",
    "MoCo": "68.2",
    "BYOL": "73.3",
    "SimSiam": "72.9",
    "Barlow Twins": "69.6",
    "AVCL": "75.6",
    "Baseline-R+A, one network": "73.9",
    "AVCL, C3D": "74.0",
    "AVCL, R(2+1)D": "77.2",
    "AVCL, R3D": "75.6",
    "AVCL, R3D, gated": "75.6",
    "1 frame, middle 1.2 s": "67.9",
    "raw audio": "50.2",
    "one model": "60.5",
    "no CGRA": "72.5",
    "CGRA at conv3": "68.5",
    "CGRA at conv4": "69.3",
    "CGRA at conv5 and pool": "70.4",
    "without SelfCL": "73.5",
    "cor .1, self .9": "72.0",
    "cor .3, self .7": "72.2",
    "cor .5, self .5": "74.1",
    "cor .7, self .3": "73.7",
    "without AMFM": "73.5",
}
"""Top-1 on Kinetics-Sounds32, per cent."""


def small(label: str, name: str, recipe: RecipeFunction, **arguments: Any) -> Row:
    """A method with small towers, then fine-tuned; what it gates it is classified by."""
    before = Row(f"{name}, pretrained", recipe, arguments | {"batch": BATCH})
    after = {"label": label, "fusion": bool(arguments.get("fusion"))} | FINE_TUNING
    return Row(name, classify_small, after, after=before, chosen=True)


def narrow(label: str, name: str, *, fusion: bool = False, **arguments: Any) -> Row:
    """AVCL with its own networks, made narrow, then fine-tuned; without the gate, if not asked for.

    Of a narrow network's gate so few channels ever open (LOG.md) that all rows would tell of that.
    """
    of_parts = {"backbone", "models", "frames", "sound", "repeats"}
    parts = NARROW | {key: value for key, value in arguments.items() if key in of_parts}
    own = {key: value for key, value in arguments.items() if key not in of_parts}
    before = Row(f"{name}, pretrained", avcl, PRETRAINING | {"fusion": fusion} | own | parts)
    rate = GATED_RATE if fusion else RATE
    after = {"label": label, "fusion": fusion, "joint": PRETRAINING["joint"], "rate": rate}
    return Row(name, classify, after | FINE_TUNING | parts, after=before, chosen=True)


def narrow_scratch(label: str, name: str, *, models: int) -> Row:
    """One narrow network or two that learn the labels alone."""
    arguments = {"label": label, "rate": RATE, "models": models} | FINE_TUNING | NARROW
    return Row(name, classify, arguments, chosen=True)


def scratch(label: str, name: str, *modalities: str) -> Row:
    """Small towers that learn the labels alone."""
    arguments = {"label": label, "modalities": modalities} | FINE_TUNING
    return Row(name, classify_small, arguments, chosen=True)


def rivals(label: str) -> list[Row]:
    """Table IV's rows of equal towers."""
    return [
        scratch(label, "Baseline-R", "video"),
        scratch(label, "Baseline-A", "audio"),
        scratch(label, "Baseline-R+A", "audio", "video"),
        small(label, "IIC", iic_small),
        small(label, "SimCLR", simclr_small),
        small(label, "MoCo", moco_small),
        small(label, "BYOL", byol_small),
        small(label, "SimSiam", simsiam_small),
        small(label, "Barlow Twins", barlow_twins_small),
        small(label, "AVCL", avcl_small, fusion=True, contrast_weight=SELF),
    ]


def weights(label: str) -> list[Row]:
    """Table III: what each part of the loss weighs, and the gate."""

    def weighed(name: str, correlation: float, contrast: float, *, fusion: bool = True) -> Row:
        parts = {"correlation_weight": correlation, "contrast_weight": 10 * SELF * contrast}
        return small(label, name, avcl_small, fusion=fusion, **parts)

    return [
        weighed("without SelfCL", 1.0, 0.0),
        weighed("cor .1, self .9", 0.1, 0.9),
        weighed("cor .3, self .7", 0.3, 0.7),
        weighed("cor .5, self .5", 0.5, 0.5),
        weighed("cor .7, self .3", 0.7, 0.3),
        small(label, "AVCL", avcl_small, fusion=True, contrast_weight=SELF),
        weighed("without AMFM", 0.9, 0.1, fusion=False),
    ]


ABLATIONS: Mapping[str, Callable[[str], list[Row]]] = {
    "Table I: what is seen and heard, by how many models": lambda label: [
        narrow(label, "raw audio", sound="wave"),
        narrow(label, "1 frame, middle 1.2 s", frames=1, sound="middle"),
        narrow(label, "AVCL, R3D"),
        narrow(label, "one model", models=1),
    ],
    "Table II: where CGRA is attached": lambda label: [
        narrow(label, "no CGRA", layers=()),
        narrow(label, "CGRA at conv3", layers=("conv3",)),
        narrow(label, "CGRA at conv4", layers=("conv4",)),
        narrow(label, "AVCL, R3D"),
        narrow(label, "CGRA at conv5 and pool", layers=("conv5", "pool")),
    ],
    "Table IV: backbones": lambda label: [
        narrow_scratch(label, "Baseline-R+A, one network", models=1),
        narrow_scratch(label, "Baseline-R+A, two networks", models=2),
        narrow(label, "AVCL, R3D"),
        narrow(label, "AVCL, R3D, gated", fusion=True),
        narrow(label, "AVCL, C3D", backbone="c3d", repeats=8),
        narrow(label, "AVCL, R(2+1)D", backbone="r2plus1d"),
    ],
}
"""With AVCL's own networks, whose maps CGRA can be attached to."""

DIFFERENCES = [
    ("AVCL", "Baseline-R+A"),
    ("AVCL", "SimCLR"),
    ("AVCL", "BYOL"),
    ("AVCL", "without AMFM"),
    ("AVCL", "without SelfCL"),
    ("SimCLR", "Baseline-R+A"),
]
NARROW_DIFFERENCES = [
    ("AVCL, R3D", name)
    for name in (
        "raw audio",
        "1 frame, middle 1.2 s",
        "one model",
        "no CGRA",
        "CGRA at conv3",
        "CGRA at conv4",
        "CGRA at conv5 and pool",
        "AVCL, R3D, gated",
        "AVCL, C3D",
        "AVCL, R(2+1)D",
        "Baseline-R+A, one network",
        "Baseline-R+A, two networks",
    )
]


def bench(
    out: Path,
    draws: Sequence[Draw],
    *,
    ablation_draws: Sequence[Draw] = (),
    label: str = "verb",
    split: str = "test",
) -> list[Table]:
    """Train every row on every draw, and write the tables to OUT/avcl.{md,csv,html}.

    What is there already is not done again. Judged on another split than test, the files have its
    name in theirs.

    Args:
        out: folder of the tables.
        draws: the data of each run.
        ablation_draws: those on which AVCL's own networks are trained, too.
        label: the classes to recognise.
        split: the clips to judge.
    """
    judged = partial(recognised, label=label)

    def reached(rows: Sequence[Row], draws: Sequence[Draw]) -> dict[str, list[Result]]:
        version = f"{VERSION} {label}"
        return {
            row.name: [reach(row, d, split=split, judged=judged, version=version) for d in draws]
            for row in rows
        }

    columns = [
        Column("top-1", label, "top1", percent=True),
        Column("mean class", label, "mca", percent=True),
    ]
    about = (
        f"{label}, {paired(len(draws))}, {split} clips; per cent, mean and deviation over runs. "
        "Pretrained for 13 epochs, fine-tuned for 12 without dropout; baselines are trained for "
        "12 on labels alone. The paper's figures are of Kinetics-Sounds32."
    )
    tables, every = [], dict[str, list[Result]]()
    for title, rows in (
        ("Table IV: rivals", rivals(label)),
        ("Table III: parts of the loss", weights(label)),
    ):
        found = reached(rows, draws)
        tables.append(table(title, about, found, columns, _published(found)))
        every |= found
    tables.insert(1, differences("Paired differences", "Points.", every, DIFFERENCES, columns))
    for title, rows_of in ABLATIONS.items() if ablation_draws else ():
        found = reached(rows_of(label), ablation_draws)
        said = (
            f"AVCL's own networks, narrow; {paired(len(ablation_draws))}, {split} clips; 10 epochs "
            "of pretraining. C3D has the spectrogram repeated 8 times, the others once. All but "
            "the gated row are without AMFM, which the paper's have; so CGRA at conv5 (the "
            "paper's 70.9) is AVCL itself, for the mean of conv5 is what pool gives. The paper's "
            "figures are of Kinetics-Sounds32."
        )
        tables.append(table(title, said, found, columns, _published(found)))
        every |= found
    if ablation_draws:
        tables.append(
            differences("Paired differences, narrow", "Points.", every, NARROW_DIFFERENCES, columns)
        )
    suffix = "" if split == "test" else f"-{split}"
    write(out, f"avcl{suffix}", "# AVCL and its rivals", tables, every)
    return tables


def recognised(features: Features, clips: Clips, split: str, *, label: str) -> Result:
    """How well a classifier's scores name the label of a split's clips, as fractions."""
    judged = recognition({"": features}, clips, label=label, split=split, resamples=RESAMPLES)
    (row,) = (row for row in judged.rows if row.kind == "model")
    return {label: {name: area.value for name, area in row.measures.items()}}


def _published(found: Mapping[str, object]) -> dict[str, tuple[str]]:
    return {name: (PUBLISHED[name],) for name in found if name in PUBLISHED}
