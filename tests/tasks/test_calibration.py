import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sonant.clips import Clips
from sonant.errors import TableError, UsageError
from sonant.features import Features
from sonant.metrics import calibration as metrics
from sonant.metrics.calibration import Isotonic, Platt
from sonant.metrics.ranking import roc_auc
from sonant.tasks.agreement import agreement
from sonant.tasks.calibration import Calibrated, Calibration, calibrate, calibration


@pytest.fixture(scope="module")
def split(table: Clips) -> Clips:
    """The table's training videos, half of them for validation."""
    return resplit(table, {f"v{i}.mp4": "val" for i in range(15, 20)})


def resplit(table: Clips, of: dict[str, str]) -> Clips:
    named = [
        of.get(video, there)
        for video, there in zip(table.column("video"), table.column("split"), strict=True)
    ]
    place = table.table.column_names.index("split")
    return Clips(table.table.set_column(place, "split", [named]), table.root)


def label(table: Clips, values: list[Any]) -> Clips:
    place = table.table.column_names.index("label.sounding")
    column = pa.array(values, pa.bool_())
    return Clips(table.table.set_column(place, "label.sounding", column), table.root)


def only_val(split: Clips) -> list[bool | None]:
    """The truth of the validation clips alone."""
    truth = zip(split.column("sounding").tolist(), split.column("split"), strict=True)
    return [value if part == "val" else None for value, part in truth]


def judge(split: Clips, model: Features, **options: Any) -> Calibrated:
    return calibration({"MC3": model}, split, **{"resamples": 40} | options)


def of_split(split: Clips, model: Features, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Truth and AV cosines of a split's clips."""
    scores = agreement(model, split, split=name).scores["AV raw"]
    return split.where(split=name).column("sounding").astype(bool), scores


@pytest.mark.parametrize("kind", ["platt", "isotonic"])
def test_what_is_learnt_is_of_the_validation_clips_alone(
    split: Clips, model: Features, kind: Any
) -> None:
    learnt = calibrate(model, split, kind=kind)
    y, s = of_split(split, model, "val")
    curve = {"platt": Platt, "isotonic": Isotonic}[kind].fit(y, s)
    assert learnt.curve == curve
    assert learnt.threshold == metrics.best_threshold(y, curve(s))
    assert (learnt.clips, learnt.positives, learnt.videos) == (60, int(y.sum()), 5)
    assert calibrate(model, label(split, only_val(split)), kind=kind) == learnt
    assert learnt.sounds(s).tolist() == (curve(s) >= learnt.threshold).tolist()
    assert learnt.sounds([np.nan]).tolist() == [False]


def test_the_report_is_the_metrics_on_the_test_clips(split: Clips, model: Features) -> None:
    report = judge(split, model)
    y, s = of_split(split, model, "test")
    learnt = calibrate(model, split)
    p = learnt.probability(s)
    row, chance = report.rows
    assert (row.name, row.kind, row.clips, row.calibration) == ("MC3", "model", 120, learnt)
    wanted = {
        "brier": metrics.brier(y, p),
        "log_loss": metrics.log_loss(y, p),
        "ece_equal_width": metrics.ece_equal_width(y, p),
        "ece_equal_mass": metrics.ece_equal_mass(y, p),
        "roc_auc": roc_auc(y, s),
    }
    assert {name: of.value for name, of in row.measures.items()} == pytest.approx(wanted)
    yes = metrics.decisions(y, learnt.sounds(s))
    assert {name: of.value for name, of in row.decisions.items()} == pytest.approx(
        {name: of[0] for name, of in yes.items()}
    )
    for of in (row.measures["brier"], row.decisions["accuracy"]):
        assert of.low < of.value < of.high
    assert sum(one.clips for one in row.bins) == sum(row.counts) == 120
    share = sum(one.clips * one.share.value for one in row.bins)
    assert share == pytest.approx(y.sum())
    assert sum(one.clips * one.probability for one in row.bins) == pytest.approx(p.sum())
    assert all(one.share.low <= one.share.value <= one.share.high for one in row.bins)
    rate = of_split(split, model, "val")[0].mean()
    assert chance.measures["brier"].value == pytest.approx(metrics.brier(y, np.full(120, rate)))
    assert row.measures["brier"].value < chance.measures["brier"].value
    assert report.learnt_from.startswith("60 clips of 5 videos of split val")
    assert judge(split, model) == report


def test_a_falling_curve_is_said_to_fall(split: Clips, model: Features) -> None:
    flipped = label(split, [not value for value in split.column("sounding")])
    assert "the curve falls" in judge(flipped, model).notes[0]
    learnt = calibrate(model, flipped, kind="isotonic")
    assert (np.diff(learnt.probability(np.linspace(-1, 1, 50))) >= 0).all()


def test_other_scores_can_be_calibrated_and_models_without_it_are_named(
    split: Clips, model: Features
) -> None:
    assert calibrate(model, split, score="AL centred").score == "AL centred"
    told = Features.of(
        model.ids.tolist(), {m: model.matrix(m) for m in ("audio", "text")}, run="clap"
    )
    report = calibration({"CLAP": told, "MC3": model}, split, resamples=5)
    assert [row.name for row in report.rows] == ["MC3", "base rate"]
    assert report.notes == ["CLAP: has no score AV raw."]
    with pytest.raises(UsageError, match="no score 'AV raw' to calibrate; there are AL raw"):
        judge(split, told)


def test_videos_that_are_judged_too_are_noted(table: Clips, split: Clips, model: Features) -> None:
    splits = split.column("split").tolist()
    places = [i for i, name in enumerate(splits) if name == "val"]
    splits[places[0]] = "test"
    place = split.table.column_names.index("split")
    mixed = Clips(split.table.set_column(place, "split", [splits]), split.root)
    assert "1 of the judged videos are also in split val" in judge(mixed, model).notes[0]


def test_without_truth_to_judge_by_there_are_probabilities(split: Clips, model: Features) -> None:
    report = judge(label(split, only_val(split)), model)
    assert "not judged" in report.notes[0]
    assert [row.measures for row in report.rows] == [{}, {}]


def test_clips_without_a_score_are_left_out(split: Clips, model: Features) -> None:
    video = model.matrix("video")
    parts = split.column("split")
    video[np.flatnonzero(parts == "test")[:7]] = np.nan
    video[np.flatnonzero(parts == "val")[:3]] = np.nan
    some = Features.of(model.ids.tolist(), {"audio": model.matrix("audio"), "video": video})
    report = judge(split, some)
    assert report.notes == ["MC3: 7 of 120 clips have no score: left out."]
    row = report.rows[0]
    assert row.clips == 113
    assert row.calibration is not None
    assert row.calibration.clips == 57


def test_what_cannot_be_learnt_from_is_refused(split: Clips, model: Features) -> None:
    none = label(split, [None] * len(split))
    with pytest.raises(UsageError, match="0 of the 60 clips of split 'val' have both, 0 have"):
        judge(none, model)
    same = label(split, [True] * len(split))
    with pytest.raises(UsageError, match="60 of the 60 labelled clips of split 'val' sound"):
        judge(same, model)
    with pytest.raises(UsageError, match="no clip is in split 'dev'"):
        judge(split, model, learn_from="dev")
    for judged in ("val", None):
        with pytest.raises(UsageError, match="cannot be judged"):
            calibration({"MC3": model}, split, split=judged)
    with pytest.raises(UsageError, match="none were given"):
        calibration({}, split)
    one = np.ones((len(split), 4), np.float32)
    constant = Features.of(model.ids.tolist(), {"audio": one, "video": one})
    with pytest.raises(UsageError, match="all 60 scores are 1"):
        judge(split, constant)


@pytest.mark.parametrize("kind", ["platt", "isotonic"])
def test_a_calibration_is_read_as_it_was_written(
    split: Clips, model: Features, tmp_path: Path, kind: Any
) -> None:
    learnt = calibrate(model, split, kind=kind, rule="f1")
    learnt.write(tmp_path / "c.json")
    assert Calibration.read(tmp_path / "c.json") == learnt


@pytest.mark.parametrize(
    "change",
    [{"version": "2"}, {"kind": "beta"}, {"curve": {}}, {"threshold": None}, {"more": 1}],
)
def test_other_files_are_no_calibrations(
    split: Clips, model: Features, tmp_path: Path, change: dict[str, Any]
) -> None:
    path = tmp_path / "c.json"
    with pytest.raises(TableError, match="no calibration there"):
        Calibration.read(path)
    calibrate(model, split).write(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(TableError, match="is no calibration of version 1"):
        Calibration.read(path)
    path.write_text("[]")
    with pytest.raises(TableError, match="is no calibration of version 1"):
        Calibration.read(path)


def test_a_model_that_cannot_be_calibrated_leaves_the_others_be(
    split: Clips, model: Features
) -> None:
    one = np.ones((len(split), 4), np.float32)
    constant = Features.of(model.ids.tolist(), {"audio": one, "video": one})
    report = calibration({"MC3": model, "collapsed": constant}, split, resamples=5)
    assert [row.name for row in report.rows] == ["MC3", "base rate"]
    assert list(report.runs) == ["MC3"]
    assert "collapsed: is left out: all 60 scores are 1" in report.notes[0]
    with pytest.raises(UsageError, match="collapsed: all 60 scores are 1"):
        calibration({"collapsed": constant, "MC3": model}, split, resamples=5)


def test_a_model_may_be_called_as_the_baseline_is(split: Clips, model: Features) -> None:
    rows = calibration({"base rate": model}, split, resamples=5).rows
    assert [(row.name, row.kind) for row in rows] == [
        ("base rate", "model"),
        ("base rate", "chance"),
    ]


def test_judged_clips_of_one_class_are_noted(split: Clips, model: Features) -> None:
    parts = zip(split.column("sounding").tolist(), split.column("split"), strict=True)
    one = label(split, [True if part == "test" else value for value, part in parts])
    report = judge(one, model)
    assert "120 of 120 labelled clips sound: with one class only" in report.notes[0]
    assert report.rows[0].measures == {}


def test_learning_from_what_was_trained_on_is_noted(split: Clips, model: Features) -> None:
    assert judge(split, model).notes == []
    assert "the training's of MC3" in judge(split, model, trained_on={"MC3": "val"}).notes[0]
    assert "the training's of MC3" in judge(split, model, learn_from="train").notes[0]
    assert judge(split, model, learn_from="train", trained_on={"MC3": "val"}).notes == []


@pytest.mark.parametrize("score", ["AV centred", "AL pmi"])
def test_a_curve_is_not_learnt_against_another_bank(
    split: Clips, model: Features, score: str
) -> None:
    with pytest.raises(UsageError, match="name a reference split"):
        judge(split, model, score=score, reference_split=None)
    assert judge(split, model, reference_split=None, resamples=5).rows
