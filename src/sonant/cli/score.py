"""`sonant score`: features judged by tasks."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sonant.cli.arguments import (
    ClipTable,
    Command,
    PackFolder,
    RoundTable,
    console,
    features_of,
    key,
    named,
    split_of,
)
from sonant.clips import Clips
from sonant.errors import UsageError, at_least
from sonant.features import Features
from sonant.files import demand_writable
from sonant.types import Modality

if TYPE_CHECKING:
    from sonant.media.pack import Pack

Kind = Literal["platt", "isotonic"]
Rule = Literal["balanced", "f1", "half"]
Grouping = Literal["ward", "average", "complete", "single", "kmeans"]
Metric = Literal["euclidean", "cosine"]
Average = Literal["logits", "probabilities"]
Classifier = Literal["svm", "logistic"]
Scale = Literal["unit", "standard"]


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
            `sonant.load(RUN).score` then gives probabilities, or a file that ends in .json.
        out: the report to write.
        scores: a Parquet file for the first model's score of every clip, and its probability.
        seed: of the bootstrap over videos.
    """
    from sonant import report
    from sonant.media.pack import Pack

    if calibration is not None:
        _check_place(calibration, calibrate, features)
    asked = (features, baselines, trivial, split, reference_split, temperature, seed)
    made_from = {"discovery": key(asked, pack, *named(features + baselines).values())}
    judged = split_of(pack, split)
    judging = (judged, split_of(pack, reference_split, "--reference-split"), temperature, seed)
    if calibrate is not None:
        split_of(pack, calibrate_split, "--calibrate-split")
    if scores is not None:
        demand_writable(scores)
    if not report.holds(out, made_from, Pack.open(pack).clips):
        _discover(pack, features, baselines, trivial, judging, out, made_from)
    console.print(report.discovery_table(report.read(out)))
    if calibrate is not None:
        learning = (calibrate, calibrate_score, calibrate_split, threshold)
        _calibrate(pack, features, learning, judging, out, calibration, scores)
    elif scores is not None:
        _first(pack, features, judging).write(scores)


def _check_place(calibration: Path, calibrate: Kind | None, features: tuple[str, ...]) -> None:
    """Refuse where a calibration cannot be kept, before anything is computed for it."""
    if calibrate is None:
        raise UsageError(f"nothing to keep in {calibration}: give --calibrate platt or isotonic")
    if not calibration.is_dir():
        if calibration.suffix != ".json":
            raise UsageError(
                f"--calibration {calibration}: no such run; give the folder of one, or a file that "
                "ends in .json"
            )
        demand_writable(calibration)
        return
    from sonant.embed import weights_of

    file = next(iter(named(features).values()))
    if Features.read(file).run.rpartition("@")[2] != weights_of(calibration):
        raise UsageError(
            f"{file} was embedded by other weights than {calibration} holds, or by another sonant: "
            f"`sonant embed {calibration} PACK {file}` again"
        )


Judging = tuple[str | None, str | None, float, int]
"""Split, reference split, temperature, seed."""


def _discover(
    pack: Path,
    features: tuple[str, ...],
    baselines: tuple[str, ...],
    trivial: bool,
    judging: Judging,
    out: Path,
    made_from: Mapping[str, str],
) -> None:
    """Judge, and write the report."""
    from sonant import report
    from sonant.media.pack import Pack
    from sonant.tasks.agreement import examples
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
    scored = _first(pack, features, judging)
    pair = "AV raw" if "AV raw" in scored.scores else "AL raw"
    shown = examples(scored, clips, measured, score=pair)
    report.save(out, clips=clips, discovery=found, examples=shown, made_from=made_from)


def _first(pack: Path, features: tuple[str, ...], judging: Judging) -> Features:
    """All scores of the first model."""
    from sonant.media.pack import Pack
    from sonant.tasks.agreement import agreement

    split, bank, temperature, _ = judging
    clips = Pack.open(pack).clips
    first = next(iter(features_of(clips, features[:1]).values()))
    return agreement(first, clips, split=split, reference_split=bank, temperature=temperature)


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
    from sonant.tasks.calibration import calibrate, calibration

    kind, score, learn_from, rule = learning
    split, bank, temperature, seed = judging
    made_from = {"calibration": key((features, learning, judging), pack, *named(features).values())}
    clips = Pack.open(pack).clips
    models = features_of(clips, features)
    first = next(iter(models.values()))
    if not report.holds(out, made_from, Pack.open(pack).clips):
        found = calibration(
            models, clips, kind=kind, score=score, learn_from=learn_from, split=split, rule=rule,
            reference_split=bank, temperature=temperature, seed=seed,
            trained_on=_trained_on(models, clips, learn_from),
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
        there = _first(pack, features, judging)
        both = there.scores | {"probability": learnt.probability(there.scores[score])}
        Features.of(there.ids.tolist(), scores=both, run=there.run, data=there.data).write(scores)
    if keep is not None and keep.is_dir():
        from sonant.embed import carry

        console.print(f"calibration kept in {carry(keep, learnt)}", markup=False)
    elif keep is not None:
        learnt.write(keep)
        console.print(f"calibration kept in {keep}", markup=False)


def _trained_on(models: Mapping[str, Features], clips: Clips, learn_from: str) -> dict[str, str]:
    """Name to the split that a model was trained on, where its run is there and says so.

    One that was trained on all clips was trained on the split to learn from.
    """
    runs = {name: Path(of.run.rpartition("@")[0]) for name, of in models.items() if of.run}
    there = {name: run for name, run in runs.items() if (run / "record.json").is_file()}
    if not there:
        return {}
    from sonant.checkpoint import read_record

    digests = {clips.where(quarantined=False).digest(): learn_from} | {
        clips.where(split=split, quarantined=False).digest(): split
        for split in sorted(set(clips.column("split")))
    }
    found: dict[str, str] = {}
    for name, run in there.items():
        with suppress(UsageError):  # the record of another sonant: it is not known
            found[name] = digests.get(read_record(run)["data"], "")
    return {name: split for name, split in found.items() if split}


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
    if report.holds(out, made_from, Pack.open(pack).clips):
        console.print(report.retrieval_table(report.read(out)))
        return
    at_least(1, **{"--more-than": more_than})
    clips = Pack.open(pack).clips
    found = retrieval(
        features_of(clips, features),
        clips,
        split=split_of(pack, split),
        reference_split=split_of(pack, reference_split, "--reference-split") if centred else None,
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
    grouping: Grouping = "ward",
    metric: Metric = "euclidean",
    labels: tuple[str, ...] = ("verb", "noun"),
    members: int = 8,
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
        grouping: which two clusters to join next; ward makes some of like sizes. kmeans joins none.
        metric: between clips; ward and kmeans take euclidean only.
        labels: what to compare with, and to read the clusters by.
        members: clips nearest each centre that are shown; in the page they play.
        split: the clips to cluster; "all" for all of them. n take 8 n² bytes, 7 GB for 30,000, but
            for kmeans.
        sample: cluster so many of them, drawn at random.
        out: the report to write, or to add to.
        sheet: a PNG of the clips nearest the centres of the first model's clusters.
        seed: of the sample, of kmeans and of the permutations that give the chance level.
    """
    from sonant import report
    from sonant.media.pack import Pack
    from sonant.tasks.clusters import clusters as cluster

    asked = (features, modality, clusters, grouping, metric, labels, members, split, sample, seed)
    made_from = {"clusters": key(asked, pack, *named(features).values())}
    at_least(2, **{"--clusters": clusters})
    media = Pack.open(pack)
    if sheet is not None:
        demand_writable(sheet)
    if not report.holds(out, made_from, Pack.open(pack).clips):
        found = cluster(
            features_of(media.clips, features),
            media.clips,
            modality=modality,
            number=clusters,
            split=split_of(pack, split),
            grouping=grouping,
            metric=metric,
            labels=labels,
            members=members,
            sample=sample,
            seed=seed,
        )
        report.save(out, clips=media.clips, clusters=found, made_from=made_from)
    _show_clusters(out, media, sheet)


def score_round(
    pack: PackFolder,
    table: RoundTable,
    *,
    source: str = "",
    labels: tuple[str, ...] = ("verb", "noun"),
    members: int = 10,
    split: str = "all",
    out: Path = Path("report.json"),
    sheet: Path | None = None,
    seed: int = 0,
) -> None:
    """Show the clusters that a round of deep clustering found, and what is nearest their centroids.

    Args:
        pack: folder of the pack that was trained on.
        table: what the round left in the run's folder, such as "runs/xdc/round 6.parquet".
        source: whose features were clustered: audio, video, or video+audio if side by side. It may
            be left out where there is but one.
        labels: what to compare with, and to read the clusters by.
        members: clips nearest each centroid that are shown; in the page they play.
        split: look at the clips of this split alone; "all" for all that were clustered.
        out: the report to write, or to add to, in place of other clusters.
        sheet: a PNG of the clips nearest the centroids.
        seed: of the permutations that give the chance level.
    """
    from sonant import report
    from sonant.assignments import read_assignment
    from sonant.media.pack import Pack
    from sonant.tasks.clusters import assigned

    found = read_assignment(table, source)
    made_from = {"clusters": key(("round", source, labels, members, split, seed), pack, table)}
    media = Pack.open(pack)
    if not report.holds(out, made_from, Pack.open(pack).clips):
        shown = assigned(
            f"{table.resolve().parent.name}, {table.stem}",
            found,
            media.clips,
            run=str(table),
            split=split_of(pack, split),
            labels=labels,
            members=members,
            seed=seed,
        )
        report.save(out, clips=media.clips, clusters=shown, made_from=made_from)
    _show_clusters(out, media, sheet)


def _show_clusters(out: Path, media: Pack, sheet: Path | None) -> None:
    from sonant import report
    from sonant.report.sheet import contact_sheet

    made = report.read(out)
    console.print(report.clusters_table(made))
    if any(row["purest"] for row in made["clusters"]["rows"]):
        console.print(report.concepts_table(made))
    if sheet is not None:
        contact_sheet(made["clusters"], media, sheet)
        console.print(f"contact sheet in {sheet}", markup=False)


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
        clips: the clip table that was voted on; truths of clips without votes are kept.
        votes: CSV with the columns clip, annotator and vote, or clip and a column of votes for
            each annotator; a vote is yes, no or nothing.
        decisions: CSV with the columns clip and decision, which go before the votes: such as
            adjudication.csv of an earlier run, filled in. One in OUT with decisions that are not
            given is never written over.
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

    demand_writable(out / "clips.parquet")
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


def score_recognition(
    pack: PackFolder,
    *,
    features: tuple[str, ...],
    label: str = "class",
    split: str = "test",
    average: Average = "logits",
    recording: str = "recording",
    out: Path = Path("report.json"),
    seed: int = 0,
) -> None:
    """Judge which class recordings are of by models' own scores: top-1, top-5, mean class accuracy.

    Args:
        pack: folder of a pack.
        features: NAME=FILE of each classifier's features; the first is compared with the others.
        label: whose classes they score.
        split: the clips to judge; "all" for all of them.
        average: what is averaged over a recording's clips: scores, or their softmax.
        recording: the label that says which recording a clip is of; without windows each clip is
            one.
        out: the report to write, or to add to.
        seed: of the bootstrap over videos.
    """
    from sonant import report
    from sonant.media.pack import Pack
    from sonant.report.recognition import recognition_table
    from sonant.tasks.recognition import recognition

    asked = (features, label, split, average, recording, seed)
    made_from = {"recognition": key(asked, pack, *named(features).values())}
    if not report.holds(out, made_from, Pack.open(pack).clips):
        clips = Pack.open(pack).clips
        found = recognition(
            features_of(clips, features),
            clips,
            label=label,
            split=split_of(pack, split),
            average=average,
            recording=recording,
            seed=seed,
        )
        report.save(out, clips=clips, recognition=found, made_from=made_from)
    console.print(recognition_table(report.read(out)))


def score_svm(
    pack: PackFolder,
    *,
    features: tuple[str, ...],
    label: str = "class",
    folds: tuple[str, ...] = ("split",),
    classifier: Classifier = "svm",
    modalities: tuple[Modality, ...] = ("audio",),
    scale: Scale = "unit",
    costs: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0, 100.0),
    inner: int = 5,
    apart: str = "recording",
    average: Average = "logits",
    out: Path = Path("report.json"),
    seed: int = 0,
) -> None:
    """Judge features by a linear SVM, or a linear probe, on every fold.

    Args:
        pack: folder of a pack.
        features: NAME=FILE of each model's features.
        label: to predict.
        folds: columns that deal the clips: with values train and test, as split, or with a value a
            fold, each of which is judged in turn.
        classifier: a linear SVM, or logistic regression.
        modalities: whose features; those of several stand side by side.
        scale: rows to length 1, or numbers to mean 0 and deviation 1 in the training part.
        costs: values of C to choose from, inside each training part; one is taken as it is.
        inner: parts that a training part is dealt into for that.
        apart: the label whose values are not torn apart there.
        average: what is averaged over a recording's clips: scores, or their softmax.
        out: the report to write, or to add to.
        seed: of the inner parts, the SVM and the bootstrap over videos.
    """
    from sonant import report
    from sonant.media.pack import Pack
    from sonant.report.recognition import probe_table
    from sonant.tasks.probe import probe

    asked = (
        features, label, folds, classifier, modalities, scale, costs, inner, apart, average, seed
    )  # fmt: skip
    made_from = {"probe": key(asked, pack, *named(features).values())}
    if not report.holds(out, made_from, Pack.open(pack).clips):
        clips = Pack.open(pack).clips
        found = probe(
            features_of(clips, features),
            clips,
            label=label,
            by=folds,
            classifier=classifier,
            modalities=modalities,
            scale=scale,
            costs=costs,
            inner=inner,
            apart=apart,
            average=average,
            seed=seed,
        )
        report.save(out, clips=clips, probe=found, made_from=made_from)
    console.print(probe_table(report.read(out)))


SCORE: Mapping[str, Command] = {
    "discovery": score_discovery,
    "retrieval": score_retrieval,
    "clusters": score_clusters,
    "round": score_round,
    "recognition": score_recognition,
    "svm": score_svm,
    "annotations": score_annotations,
}
