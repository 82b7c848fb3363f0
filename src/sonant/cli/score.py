"""`sonant score`: features judged by tasks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from sonant.cli.arguments import (
    ClipTable,
    Command,
    PackFolder,
    console,
    features_of,
    key,
    named,
)
from sonant.clips import Clips
from sonant.errors import UsageError
from sonant.features import Features
from sonant.types import Modality

Kind = Literal["platt", "isotonic"]
Rule = Literal["balanced", "f1", "half"]
Linkage = Literal["ward", "average", "complete", "single"]
Metric = Literal["euclidean", "cosine"]


def score_discovery(
    pack: PackFolder,
    *,
    features: tuple[str, ...],
    baselines: tuple[str, ...] = (),
    trivial: bool = False,
    split: str = "test",
    reference_split: str = "train",
    temperature: float = 0.07,
    calibrate: Kind | None = None,
    calibrate_score: str = "AV raw",
    calibrate_split: str = "val",
    threshold: Rule = "balanced",
    calibration: Path | None = None,
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
        calibrate: also make the models' scores probabilities, by Platt's sigmoid or by isotonic
            regression, and judge these.
        calibrate_score: the score that becomes a probability.
        calibrate_split: the labelled clips to learn that from; never the judged ones.
        threshold: what makes a yes: the probability with the best balanced accuracy or F1 on the
            clips learnt from, or a half.
        calibration: where to keep what was learnt for the first model: the folder of its run, whose
            `sonant.load(RUN).score` then gives probabilities, or a file.
        out: the report to write.
        scores: a Parquet file for the first model's score of every clip, and its probability.
        seed: of the bootstrap over videos.
    """
    from sonant import report

    if calibration is not None and calibrate is None:
        raise UsageError(f"nothing to keep in {calibration}: give --calibrate platt or isotonic")
    asked = (features, baselines, trivial, split, reference_split, temperature, seed)
    made_from = {"discovery": key(asked, pack, *named(features + baselines).values())}
    judging = (_split(split), _split(reference_split), temperature, seed)
    if not report.holds(out, made_from) or (scores is not None and not scores.is_file()):
        _discover(pack, features, baselines, trivial, judging, out, scores, made_from)
    console.print(report.discovery_table(report.read(out)))
    if calibrate is not None:
        learning = (calibrate, calibrate_score, calibrate_split, threshold)
        _calibrate(pack, features, learning, judging, out, calibration, scores)


Judging = tuple[str | None, str | None, float, int]
"""Split, reference split, temperature, seed."""


def _discover(
    pack: Path,
    features: tuple[str, ...],
    baselines: tuple[str, ...],
    trivial: bool,
    judging: Judging,
    out: Path,
    scores: Path | None,
    made_from: Mapping[str, str],
) -> None:
    """Judge, and write the report and the first model's scores."""
    from sonant import report
    from sonant.media.pack import Pack
    from sonant.tasks.agreement import agreement, examples
    from sonant.tasks.discovery import discovery
    from sonant.tasks.trivial import trivial as measure

    split, bank, temperature, seed = judging
    clips = Pack.open(pack).clips
    models, beside = features_of(clips, features), features_of(clips, baselines)
    measured = measure(clips, pack, pack / "trivial.parquet")
    found = discovery(
        models,
        clips,
        split=split,
        reference_split=bank,
        temperature=temperature,
        baselines=beside | ({"trivial": measured} if trivial else {}),
        seed=seed,
    )
    scored = agreement(
        next(iter(models.values())),
        clips,
        split=split,
        reference_split=bank,
        temperature=temperature,
    )
    if scores is not None:
        scored.write(scores)
    pair = "AV raw" if "AV raw" in scored.scores else "AL raw"
    shown = examples(scored, clips, measured, score=pair)
    report.save(out, clips=clips, discovery=found, examples=shown, made_from=made_from)


def _calibrate(
    pack: Path,
    features: tuple[str, ...],
    learning: tuple[Kind, str, str, Rule],
    judging: Judging,
    out: Path,
    keep: Path | None,
    scores: Path | None,
) -> None:
    """Add the judged probabilities to the report; keep the first model's curve, and its answers."""
    from sonant import report
    from sonant.media.pack import Pack
    from sonant.tasks.agreement import agreement
    from sonant.tasks.calibration import calibrate, calibration

    kind, score, learn_from, rule = learning
    split, bank, temperature, seed = judging
    made_from = {"calibration": key((features, learning, judging), pack, *named(features).values())}
    clips = Pack.open(pack).clips
    models = features_of(clips, features)
    first = next(iter(models.values()))
    if not report.holds(out, made_from):
        found = calibration(
            models, clips, kind=kind, score=score, learn_from=learn_from, split=split, rule=rule,
            reference_split=bank, temperature=temperature, seed=seed,
        )  # fmt: skip
        report.save(out, clips=clips, calibration=found, made_from=made_from)
    console.print(report.calibration_table(report.read(out)))
    if keep is None and scores is None:
        return
    learnt = calibrate(
        first, clips, kind=kind, score=score, split=learn_from, rule=rule,
        reference_split=bank, temperature=temperature,
    )  # fmt: skip
    if scores is not None:
        there = agreement(first, clips, split=split, reference_split=bank, temperature=temperature)
        both = there.scores | {"probability": learnt.probability(there.scores[score])}
        Features.of(there.ids.tolist(), scores=both, run=there.run, data=there.data).write(scores)
    if keep is not None and keep.is_dir():
        from sonant.embed import carry

        console.print(f"calibration kept in {carry(keep, learnt)}")
    elif keep is not None:
        learnt.write(keep)
        console.print(f"calibration kept in {keep}")


def _split(name: str) -> str | None:
    return None if name == "all" else name


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
        split=_split(split),
        reference_split=_split(reference_split),
        centred=centred,
        more_than=more_than,
        seed=seed,
    )
    report.save(out, clips=clips, retrieval=found, made_from=made_from)
    console.print(report.retrieval_table(report.read(out)))


def score_clusters(
    pack: PackFolder,
    *,
    features: tuple[str, ...],
    modality: Modality = "video",
    clusters: int = 20,
    linkage: Linkage = "ward",
    metric: Metric = "euclidean",
    labels: tuple[str, ...] = ("verb", "noun"),
    split: str = "test",
    sample: int | None = None,
    out: Path = Path("report.json"),
    sheet: Path | None = None,
    seed: int = 0,
) -> None:
    """Group clips that a model finds alike, and compare the groups with the labels.

    Args:
        pack: folder of a pack.
        features: NAME=FILE of each model's features.
        modality: whose embeddings are clustered.
        clusters: how many.
        linkage: which two clusters to join next; ward makes some of like sizes.
        metric: between clips; ward takes euclidean only.
        labels: what to compare with.
        split: the clips to cluster; "all" for all of them. n take 8 n² bytes: 7 GB for 30,000.
        sample: cluster so many of them, drawn at random.
        out: the report to write, or to add to.
        sheet: a PNG of the clips nearest the centres of the first model's clusters.
        seed: of the sample and of the permutations that give the chance level.
    """
    from sonant import report
    from sonant.media.pack import Pack
    from sonant.report.sheet import contact_sheet
    from sonant.tasks.clusters import clusters as cluster

    asked = (features, modality, clusters, linkage, metric, labels, split, sample, seed)
    made_from = {"clusters": key(asked, pack, *named(features).values())}
    media = Pack.open(pack)
    if not report.holds(out, made_from):
        found = cluster(
            features_of(media.clips, features),
            media.clips,
            modality=modality,
            number=clusters,
            split=_split(split),
            linkage=linkage,
            metric=metric,
            labels=labels,
            sample=sample,
            seed=seed,
        )
        report.save(out, clips=media.clips, clusters=found, made_from=made_from)
    made = report.read(out)
    console.print(report.clusters_table(made))
    if sheet is not None:
        contact_sheet(made["clusters"], media, sheet)
        console.print(f"contact sheet in {sheet}")


def score_annotations(
    clips: ClipTable,
    *,
    votes: Path,
    decisions: Path | None = None,
    panel: int = 3,
    verbs: Path | None = None,
    nouns: Path | None = None,
    val: int = 3000,
    out: Path = Path("annotations"),
    seed: int = 0,
) -> None:
    """Make annotators' votes into truth: majority, agreement, splits, which verbs sound.

    Args:
        clips: the clip table that was voted on.
        votes: CSV with the columns clip, annotator and vote, or clip and a column of votes for
            each annotator; a vote is yes, no or nothing.
        decisions: CSV with the columns clip and decision, which go before the votes: such as
            adjudication.csv of an earlier run, filled in.
        panel: votes that each clip should have; more than half of them decide.
        verbs: narration_verb_taxonomy.csv, to find verbs in the narrations; else the table's
            label verb counts.
        nouns: narration_noun_taxonomy.csv; else the label noun.
        val: labelled clips of the split val, about; the other voted on videos are test, and no
            video is split. 0 leaves the splits as they are.
        out: folder for clips.parquet (the table with the truth), annotations.json, annotations.md,
            labels.csv, verbs.csv, groups.csv, groups.svg and adjudication.csv.
        seed: of the choice of validation videos and of the bootstrap.
    """
    from sonant.report.annotation import save, table
    from sonant.sources.annotations import read_decisions, read_votes
    from sonant.sources.taxonomy import Taxonomy
    from sonant.tasks.annotations import annotate

    found, labelled = annotate(
        Clips.read(clips),
        read_votes(votes),
        panel=panel,
        decisions=None if decisions is None else read_decisions(decisions),
        verbs=None if verbs is None else Taxonomy.read(verbs),
        nouns=None if nouns is None else Taxonomy.read(nouns),
        val=val,
        seed=seed,
    )
    save(out, found, labelled)
    console.print(table(found))
    console.print(f"all of it in {out}; the clips with their truth in {out / 'clips.parquet'}")


SCORE: Mapping[str, Command] = {
    "discovery": score_discovery,
    "retrieval": score_retrieval,
    "clusters": score_clusters,
    "annotations": score_annotations,
}
