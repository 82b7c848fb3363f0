"""`sonant score`: features judged by tasks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sonant.cli.arguments import Command, PackFolder, console, features_of, key, named


def score_discovery(
    pack: PackFolder,
    *,
    features: tuple[str, ...],
    baselines: tuple[str, ...] = (),
    trivial: bool = False,
    split: str = "test",
    reference_split: str = "train",
    temperature: float = 0.07,
    out: Path = Path("report.json"),
    scores: Path | None = None,
    seed: int = 0,
) -> None:
    """Judge which clips' actions sound: ROC and PR areas, or bare scores where there is no truth.

    Args:
        pack: folder of a pack.
        features: NAME=FILE of each model's features; the first is compared with the others.
        baselines: NAME=FILE of features whose own scores are rows too, such as a supervised head's.
        trivial: measure loudness, flux, motion and the like as rows too.
        split: the clips to judge; "all" for all of them.
        reference_split: the clips that double-centred and PMI scores compare with; "all" for the
            judged ones themselves.
        temperature: of the PMI score, the training's.
        out: the report to write.
        scores: a Parquet file for the first model's score of every clip.
        seed: of the bootstrap over videos.
    """
    from sonant import report
    from sonant.media.pack import Pack
    from sonant.tasks.agreement import agreement, examples
    from sonant.tasks.discovery import discovery
    from sonant.tasks.trivial import trivial as measure

    asked = (features, baselines, trivial, split, reference_split, temperature, seed)
    made_from = {"discovery": key(asked, pack, *named(features + baselines).values())}
    if report.holds(out, made_from) and (scores is None or scores.is_file()):
        console.print(report.discovery_table(report.read(out)))
        return
    clips = Pack.open(pack).clips
    models, beside = features_of(clips, features), features_of(clips, baselines)
    measured = measure(clips, pack, pack / "trivial.parquet")
    chosen = None if split == "all" else split
    bank = None if reference_split == "all" else reference_split
    found = discovery(
        models,
        clips,
        split=chosen,
        reference_split=bank,
        temperature=temperature,
        baselines=beside | ({"trivial": measured} if trivial else {}),
        seed=seed,
    )
    scored = agreement(
        next(iter(models.values())),
        clips,
        split=chosen,
        reference_split=bank,
        temperature=temperature,
    )
    if scores is not None:
        scored.write(scores)
    pair = "AV raw" if "AV raw" in scored.scores else "AL raw"
    shown = examples(scored, clips, measured, score=pair)
    report.save(out, clips=clips, discovery=found, examples=shown, made_from=made_from)
    console.print(report.discovery_table(report.read(out)))


def score_retrieval(
    pack: PackFolder,
    *,
    features: tuple[str, ...],
    split: str = "test",
    reference_split: str = "train",
    centred: bool = False,
    more_than: int = 2,
    out: Path = Path("report.json"),
    seed: int = 0,
) -> None:
    """Judge how well sound, sight and narration of like actions find each other.

    Args:
        pack: folder of a pack.
        features: NAME=FILE of each model's features.
        split: the clips to judge; "all" for all of them.
        reference_split: the clips that centred similarities compare with; "all" for the judged.
        centred: take off each clip's mean similarity with the reference.
        more_than: sounding clips that a verb-noun group needs more of.
        out: the report to write, or to add to.
        seed: of the halves, the permutations and the bootstrap.
    """
    from sonant import report
    from sonant.media.pack import Pack
    from sonant.tasks.retrieval import retrieval

    asked = (features, split, reference_split, centred, more_than, seed)
    made_from = {"retrieval": key(asked, pack, *named(features).values())}
    if report.holds(out, made_from):
        console.print(report.retrieval_table(report.read(out)))
        return
    clips = Pack.open(pack).clips
    found = retrieval(
        features_of(clips, features),
        clips,
        split=None if split == "all" else split,
        reference_split=None if reference_split == "all" else reference_split,
        centred=centred,
        more_than=more_than,
        seed=seed,
    )
    report.save(out, clips=clips, retrieval=found, made_from=made_from)
    console.print(report.retrieval_table(report.read(out)))


SCORE: Mapping[str, Command] = {"discovery": score_discovery, "retrieval": score_retrieval}
