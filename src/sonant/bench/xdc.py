"""XDC's Tables 1, 2, 3, 5 and 6 on the narrated world: `sonant bench xdc`.

Encoders are pretrained on whole videos cut to windows, without narrations or labels, and then
transferred to clips of actions: all of an encoder fine-tuned on one label, or a linear classifier
over its features as they are (the paper's fc). Seen and heard apart, as in the paper.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from sonant.assignments import read_assignment
from sonant.bench.runs import RESAMPLES, Draw, Judge, Result, Row, reach
from sonant.bench.tables import Column, Table, differences, paired, table, write
from sonant.checkpoint import RecipeFunction
from sonant.clips import Clips
from sonant.features import Features
from sonant.media.pack import Pack
from sonant.methods.classify import classify_small
from sonant.methods.deepcluster import (
    cdc_small,
    mdc_small,
    same_modality_small,
    sdc_small,
    xdc_small,
)
from sonant.metrics.clustering import by_purity, nmi, purity
from sonant.sources.world.surroundings import surroundings
from sonant.tasks.probe import probe
from sonant.tasks.recognition import recognition
from sonant.types import Modality

LINEAR, TUNED = "transfer 2 fc", "transfer 1"
"""Versions of what judges here: what another has found is found again."""

VERB, NOUN = "verb", "noun"
"""What encoders are fine-tuned to tell, and what Superv begins with."""
SEEN_HEARD: tuple[Modality, ...] = ("video", "audio")
LABELS: Mapping[Modality, tuple[str, ...]] = {
    "video": (VERB, NOUN, "material", "scene"),
    "audio": (VERB, NOUN, "material"),
}
"""What linear classifiers are to tell: also what the thing is made of and where it is seen."""
ROUNDS = 4
BATCH = 32
"""So few clips are too few steps in the small twins' own batches of 128."""
ROUND: dict[str, Any] = {"rounds": ROUNDS, "epochs": 3, "batch": BATCH}
FINE_TUNING: dict[str, Any] = {"label": VERB, "epochs": 12, "batch": BATCH}
TUNINGS = {
    "all": Row("all", classify_small, FINE_TUNING, chosen=True),
    "few": Row("few", classify_small, FINE_TUNING | {"epochs": 40}, share=0.1, chosen=True),
}
"""Fine-tuning with all labels, and with those of a tenth of the videos, a third of the steps."""
COST = 1.0
"""C of the linear classifiers: one for all rows."""

Pretrained = Mapping[str, Row | None]
"""A row's name to what it begins with."""


def pretrained(name: str, recipe: RecipeFunction, **arguments: Any) -> Row:
    """A method on windows of whole videos."""
    narrated = bool(arguments.pop("narrated", False))
    share = arguments.pop("share", 1.0)
    return Row(f"{name}, pretrained", recipe, ROUND | arguments, narrated=narrated, share=share)


XDC = pretrained("XDC", xdc_small)
NARRATED = pretrained("XDC of actions", xdc_small, narrated=True, compared=(VERB, NOUN))
UNTRAINED = pretrained("untrained", xdc_small, epochs=0, rounds=1)
SUPERVISED = Row("Superv, pretrained", classify_small, FINE_TUNING | {"label": NOUN})

METHODS: Pretrained = {
    "Scratch": None,
    "Superv": SUPERVISED,
    "same-modality-XDC, video": pretrained("same video", same_modality_small, modality="video"),
    "same-modality-XDC, audio": pretrained("same audio", same_modality_small, modality="audio"),
    "SDC": pretrained("SDC", sdc_small),
    "MDC": pretrained("MDC", mdc_small),
    "CDC": pretrained("CDC", cdc_small),
    "XDC": XDC,
}
"""Table 1. The supervised row learns the nouns of narrated clips, another taxonomy."""

NUMBERS: Pretrained = {
    f"k = {k}": XDC
    if k == 32
    else pretrained(f"XDC, k = {k}", xdc_small, audio_clusters=k, video_clusters=k)
    for k in (8, 16, 32, 64, 128)
}
"""Table 2."""

DATA: Pretrained = {
    "Scratch": None,
    "Superv, half of the videos": replace(SUPERVISED, name="Superv, half, pretrained", share=0.5),
    "Superv, all videos": SUPERVISED,
    "a quarter of the videos": pretrained("XDC, quarter", xdc_small, share=0.25),
    "half of the videos": pretrained("XDC, half", xdc_small, share=0.5),
    "all videos": XDC,
    "clips of actions": NARRATED,
}
"""Tables 3 and 4: more of it, and curated: the narrated moments alone; and with labels."""

PUBLISHED = {
    "Scratch": ("54.5", "54.3"),
    "Superv": ("90.9", "82.3"),
    "same-modality-XDC, video": ("61.3", "–"),
    "same-modality-XDC, audio": ("–", "66.0"),
    "SDC": ("61.8", "66.5"),
    "MDC": ("68.4", "70.3"),
    "CDC": ("72.9", "74.8"),
    "XDC": ("74.2", "78.0"),
}
"""Table 1: UCF101 and ESC-50, split 1, pretrained on Kinetics."""

ALL = [Column(f"{VERB}, {m}, all", f"all {m}", "top1", percent=True) for m in SEEN_HEARD]
BY_FEW = [Column(f"{VERB}, {m}, few", f"few {m}", "top1", percent=True) for m in SEEN_HEARD]
FC = [
    Column(f"{label}, {m}, fc", f"fc {m}", label, percent=True)
    for m in SEEN_HEARD
    for label in LABELS[m]
]
DIFFERENCES = [
    ("XDC", "CDC"),
    ("CDC", "MDC"),
    ("MDC", "SDC"),
    ("SDC", "Scratch"),
    ("XDC", "SDC"),
    ("XDC", "Scratch"),
    ("XDC", "same-modality-XDC, video"),
    ("XDC", "same-modality-XDC, audio"),
    ("XDC", "Superv"),
]


def bench(
    out: Path, draws: Sequence[Draw], *, ablation_draws: Sequence[Draw] = (), split: str = "test"
) -> list[Table]:
    """Train every row on every draw, and write the tables to OUT/xdc.{md,csv,html}.

    What is there already is not done again. Judged on another split than test, the files have its
    name in theirs.

    Args:
        out: folder of the tables.
        draws: the data of each run.
        ablation_draws: those on which numbers of clusters and data are varied, too.
        split: the clips to judge.
    """
    judged = f"{paired(len(draws))}, {split} clips; per cent, mean and deviation over runs."
    methods = _reached(METHODS, draws, split, fine_tuned=True)
    tables = [
        table("Table 1: methods, all of the encoder fine-tuned",
              f"{judged} All but Superv, which has nouns of narrated clips and fewer steps, are "
              "pretrained for 12 epochs of windows. The paper's figures are of UCF101 and ESC-50, "
              "split 1, pretrained on Kinetics.", methods, ALL, PUBLISHED),
        table("Table 1 with a tenth of the labels",
              f"{judged} As Table 1, but fine-tuned on the labelled clips of a tenth of the "
              "videos, for 40 epochs.",
              methods, BY_FEW),
        table("Table 5: methods, features as they are (fc)",
              f"{judged} Scratch: encoders as initialised.", methods, FC),
        differences("Paired differences", "Points.", methods, DIFFERENCES, [*ALL, *BY_FEW, *FC]),
    ]  # fmt: skip
    every = dict(methods)
    if ablation_draws:
        said = (
            f"XDC where nothing else is said; {paired(len(ablation_draws))}, {split} clips; 12 "
            "epochs each: fewer clips are fewer steps, too. Linear classifiers of features as they "
            "are; the paper fine-tunes all."
        )
        for title, rows in (
            ("Table 2: the number of clusters", NUMBERS),
            ("Tables 3 and 4: size and kind of the data", DATA),
        ):
            found = _reached(rows, ablation_draws, split, fine_tuned=False)
            tables.append(table(title, said, found, FC))
            every |= found
        tables += _clusters(ablation_draws[0])
    write(out, f"xdc{'' if split == 'test' else f'-{split}'}", "# XDC", tables, every)
    return tables


def _reached(
    rows: Pretrained, draws: Sequence[Draw], split: str, *, fine_tuned: bool
) -> dict[str, list[Result]]:
    """What each row's features give a linear classifier, and its encoders once fine-tuned."""
    return {
        name: [_row(name, row, d, split, fine_tuned) for d in draws] for name, row in rows.items()
    }


def _row(name: str, before: Row | None, draw: Draw, split: str, fine_tuned: bool) -> Result:
    features = partial(reach, draw=draw, split=split, version=LINEAR)
    found = features(before or UNTRAINED, judged=partial(_linear, seed=draw.seed))
    for modality in SEEN_HEARD if fine_tuned else ():
        if before is None or f"fc {modality}" in found:
            found |= _tuned(name, before, draw, split, modality)
    return found


def _tuned(name: str, before: Row | None, draw: Draw, split: str, modality: Modality) -> Result:
    """What all of an encoder names once it is fine-tuned."""
    found: Result = {}
    for labels, tuning in TUNINGS.items():
        arguments = {**tuning.arguments, "modalities": (modality,)}
        row = replace(
            tuning, name=f"{name}, {modality}, {labels}", arguments=arguments, after=before
        )
        judged: Judge = partial(_recognised, of=f"{labels} {modality}")
        found |= reach(row, draw, split=split, judged=judged, version=f"{TUNED} {labels}")
    return found


def _linear(features: Features, clips: Clips, split: str, *, seed: int) -> Result:
    """What linear classifiers of the training clips' features make of a split's."""
    clips = surroundings(clips.where(quarantined=False), seed=seed)
    clips = clips.where((clips.column("split") == "train") | (clips.column("split") == split))
    found: Result = {}
    for modality in (m for m in SEEN_HEARD if m in features.modalities):
        found[f"fc {modality}"] = {
            label: probe(
                {"": features}, clips, label=label, modalities=[modality], costs=[COST],
                by=["split"], resamples=RESAMPLES,
            ).rows[0].mean["top1"]
            for label in LABELS[modality]
        }  # fmt: skip
    return found


def _recognised(features: Features, clips: Clips, split: str, *, of: str) -> Result:
    """How well a fine-tuned encoder names the label of a split's clips, under a name."""
    judged = recognition({"": features}, clips, label=VERB, split=split, resamples=RESAMPLES)
    (row,) = (row for row in judged.rows if row.kind == "model")
    return {of: {name: area.value for name, area in row.measures.items()}}


def _clusters(draw: Draw) -> list[Table]:
    """Table 6: the purest and the most mixed clusters of the last round on narrated clips."""
    path = draw.folder / NARRATED.folder / f"round {ROUNDS}.parquet"
    packed = Pack.open(draw.pack(NARRATED.window)).clips
    verbs = dict(zip(packed.column("id"), packed.column(VERB), strict=True))
    lines = []
    for source in SEEN_HEARD:
        clusters = read_assignment(path, source).of
        ids = [id for id in clusters if verbs[id] is not None]
        numbers, labels = [clusters[id] for id in ids], [str(verbs[id]) for id in ids]
        read = by_purity(numbers, labels)
        shown = [*enumerate(read, 1)]
        for rank, cluster in [*shown[:5], *shown[-3:]]:
            said = ", ".join(f"{word} ({share:.2f})" for word, share in cluster.concepts)
            lines.append((f"{source} {rank}", str(cluster.clips), said))
        whole = f"purity {purity(numbers, labels):.3f}, NMI {nmi(numbers, labels):.3f}"
        lines.append((f"{source}, all {len(read)}", str(len(ids)), whole))
    about = (
        "XDC on narrated clips, last round: clusters by their purity, with the three commonest "
        "verbs of each."
    )
    heads = ("cluster", "clips", VERB)
    return [Table("Table 6: clusters", about, heads, tuple(lines))]
