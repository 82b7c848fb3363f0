from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn import metrics as oracle

from sonant.clips import Clips
from sonant.errors import TableError, UsageError
from sonant.features import Features
from sonant.tasks.agreement import label
from sonant.tasks.discovery import Discovery, Row, discovery


def relabelled(table: Clips, name: str, values: list[Any]) -> Clips:
    return table.join(pa.table({"id": table.column("id").tolist(), name: values}))


def find(report: Discovery, name: str, pair: str = "", score: str = "") -> Row:
    (row,) = (r for r in report.rows if (r.name, r.pair, r.score) == (name, pair, score))
    return row


def judge(table: Clips, model: Features, **options: Any) -> Discovery:
    return discovery({"MC3": model}, table, **{"resamples": 40} | options)


def cosines(table: Clips, model: Features, other: str = "video") -> np.ndarray:
    here = model.of_clips(table.where(split="test").column("id"))
    x, y = here.matrix("audio"), here.matrix(other)  # type: ignore[arg-type]
    return np.asarray((x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1))


def test_areas_of_the_cosine_are_those_of_scikit_learn(table: Clips, model: Features) -> None:
    report = judge(table, model)
    truth = table.where(split="test").column("sounding")
    for pair, other in (("AV", "video"), ("AL", "text")):
        areas = find(report, "MC3", pair, "raw").areas
        s = cosines(table, model, other)
        precision, recall, _ = oracle.precision_recall_curve(truth, s)
        assert areas["roc_auc"].value == pytest.approx(oracle.roc_auc_score(truth, s))
        assert areas["pr_auc"].value == pytest.approx(oracle.auc(recall, precision))
        assert areas["average_precision"].value == pytest.approx(
            oracle.average_precision_score(truth, s)
        )
    assert (report.clips, report.videos, report.labelled) == (120, 10, 120)
    assert report.positives == truth.sum()
    assert report.reference == "the 120 clips of split train"


def test_cases_and_verbs_are_judged_apart(table: Clips, model: Features) -> None:
    row = find(judge(table, model), "MC3", "AV", "raw")
    test = table.where(split="test")
    s, cases, verbs = cosines(table, model), test.column("case"), test.column("verb")
    for case in ("II", "III", "IV"):
        among = (cases == "I") | (cases == case)
        want = oracle.roc_auc_score(cases[among] == "I", s[among])
        assert row.areas[f"I/{case}"].value == pytest.approx(want)
        assert row.means[case] == pytest.approx(s[cases == case].mean())
    pairs = [
        s[i] > s[j]
        for i in np.flatnonzero(cases == "I")
        for j in np.flatnonzero(cases != "I")
        if verbs[i] == verbs[j]
    ]
    assert row.areas["within_verb"].value == pytest.approx(np.mean(pairs))
    assert row.means["all"] == pytest.approx(s.mean())


def test_intervals_hold_the_value_and_the_seed_decides(table: Clips, model: Features) -> None:
    report = judge(table, model, resamples=200)
    for row in report.rows:
        for area in row.areas.values():
            assert area.low <= area.value <= area.high
    assert judge(table, model, resamples=200) == report
    other = judge(table, model, resamples=200, seed=1)
    assert find(other, "MC3", "AV", "raw").areas != find(report, "MC3", "AV", "raw").areas


def test_baselines_stand_beside_the_models(
    table: Clips, model: Features, untrained: Features, trivial: Features
) -> None:
    single = Features.of(trivial.ids.tolist(), scores={"sounding": table.column("sounding") * 1.0})
    report = discovery(
        {"MC3": model, "untrained": untrained},
        table,
        baselines={"trivial": trivial, "oracle": single},
        resamples=40,
    )
    assert [(row.name, row.kind) for row in report.rows[::3]][:4] == [
        ("MC3", "model"),
        ("MC3", "model"),
        ("untrained", "model"),
        ("untrained", "model"),
    ]
    assert [row.name for row in report.rows[12:]] == [
        "trivial: loudness mean",
        "trivial: motion energy",
        "oracle",
        "verb prior",
        "base rate",
    ]
    assert find(report, "oracle").areas["roc_auc"].value == 1
    rate = table.where(split="test").column("sounding").mean()
    chance = find(report, "base rate").areas
    assert (chance["roc_auc"].value, chance["pr_auc"].value) == (0.5, pytest.approx(rate))
    assert chance["average_precision"].low < rate < chance["average_precision"].high


def test_the_first_model_is_compared_with_the_others(
    table: Clips, model: Features, untrained: Features
) -> None:
    report = discovery({"MC3": model, "untrained": untrained}, table, resamples=40)
    assert [(d.pair, d.score) for d in report.differences] == [
        (pair, score) for pair in ("AV", "AL") for score in ("raw", "centred", "pmi")
    ]
    for one in report.differences:
        first, second = (find(report, n, one.pair, one.score) for n in (one.first, one.second))
        for name, area in one.areas.items():
            assert area.value == pytest.approx(first.areas[name].value - second.areas[name].value)
    assert report.differences[0].areas["roc_auc"].low > 0


def test_the_verb_prior_comes_from_the_other_splits(table: Clips, model: Features) -> None:
    row = find(judge(table, model), "verb prior")
    train, test = table.where(split="train"), table.where(split="test")
    share = {
        verb: train.column("sounding")[train.column("verb") == verb].mean()
        for verb in set(train.column("verb"))
    }
    scores = [share[verb] for verb in test.column("verb")]
    want = oracle.roc_auc_score(test.column("sounding"), scores)
    assert row.areas["roc_auc"].value == pytest.approx(want)
    assert row.areas["within_verb"].value == 0.5


def test_without_truth_scores_are_shown_not_judged(table: Clips, model: Features) -> None:
    bare = Clips(table.table.drop_columns([f"label.{n}" for n in table.labels]), table.root)
    report = judge(bare, model)
    assert report.labelled == 0
    assert "no truth" in report.notes[0]
    assert all(not row.areas and row.roc is None for row in report.rows)
    row = find(report, "MC3", "AV", "raw")
    assert row.means == {"all": pytest.approx(cosines(table, model).mean()), **row.means}
    assert sum(row.histogram.counts["unlabelled"]) == 120
    silent = judge(relabelled(table, "sounding", [False] * 240), model)
    assert "one class only" in silent.notes[0]
    assert not find(silent, "MC3", "AV", "raw").areas


def test_unlabelled_clips_are_left_out_and_counted(table: Clips, model: Features) -> None:
    truth = table.column("sounding").tolist()
    some = relabelled(table, "sounding", [None] * 24 + truth[24:])
    report = judge(some, model)
    assert report.labelled == 96
    assert report.notes == ["24 of 120 clips have no truth: left out."]
    want = oracle.roc_auc_score(truth[24:120], cosines(table, model)[24:])
    assert find(report, "MC3", "AV", "raw").areas["roc_auc"].value == pytest.approx(want)


def test_clips_without_text_are_left_out_of_its_rows(table: Clips, model: Features) -> None:
    text = model.matrix("text")
    text[:12] = np.nan
    parts = {"audio": model.matrix("audio"), "video": model.matrix("video"), "text": text}
    partial = Features.of(model.ids.tolist(), parts)  # type: ignore[arg-type]
    report = judge(table, partial)
    assert report.notes == ["MC3 AL: 12 of 120 clips have no score: left out."]
    row = find(report, "MC3", "AL", "raw")
    assert row.clips == 108
    truth = table.where(split="test").column("sounding")[12:]
    want = oracle.roc_auc_score(truth, cosines(table, model, "text")[12:])
    assert row.areas["roc_auc"].value == pytest.approx(want)


def test_quarantined_clips_are_left_out(table: Clips, model: Features) -> None:
    bad = {f"v0:{place}": "no audio stream" for place in range(12)}
    report = judge(table.quarantined(bad), model.of_clips(table.column("id")[12:]))
    assert (report.clips, report.videos) == (108, 9)


def test_curves_and_histograms_are_small_and_whole(table: Clips, model: Features) -> None:
    row = find(judge(table, model), "MC3", "AV", "raw")
    assert row.roc is not None
    assert row.pr is not None
    assert (row.roc.x[0], row.roc.y[0], row.roc.x[-1], row.roc.y[-1]) == (0, 0, 1, 1)
    assert len(row.pr.x) <= 200
    assert np.trapezoid(row.roc.y, row.roc.x) == pytest.approx(row.areas["roc_auc"].value, abs=1e-3)
    assert sum(map(sum, row.histogram.counts.values())) == 120
    assert list(row.histogram.counts) == ["I", "II", "III", "IV"]


def test_wrong_use_is_named(table: Clips, model: Features, trivial: Features) -> None:
    with pytest.raises(UsageError, match="none were given"):
        discovery({}, table)
    with pytest.raises(UsageError, match="no clip is in split 'dev'"):
        judge(table, model, split="dev")
    with pytest.raises(UsageError, match="seed must be at least 0, not -1"):
        judge(table, model, seed=-1)
    with pytest.raises(UsageError, match="temperature is positive, not 0"):
        judge(table, model, temperature=0.0)
    with pytest.raises(TableError, match="120 of 120 clips have no features"):
        judge(table, model.of_clips(table.where(split="train").column("id")))
    with pytest.raises(UsageError, match="none has both"):
        judge(table, trivial)


def test_the_verb_prior_never_sees_another_split_than_the_reference(
    table: Clips, model: Features
) -> None:
    place = table.table.column_names.index("split")
    parts = table.column("split").tolist()
    parts[:12] = ["val"] * 12
    three = Clips(table.table.set_column(place, "split", [parts]), table.root)
    truth = table.column("sounding")
    swapped = np.where(np.array(parts) == "test", ~truth.astype(bool), truth)
    one, other = (
        find(judge(relabelled(three, "sounding", of.tolist()), model, split="val"), "verb prior")
        for of in (truth.astype(bool), swapped)
    )
    assert repr(one) == repr(other)
    for bank in ("test", None):
        rows = judge(table, model, reference_split=bank).rows
        assert "prior" not in {row.kind for row in rows}


def test_labels_that_are_not_known_are_no_group(table: Clips, model: Features) -> None:
    verbs = ["" if v == "cut" else v for v in table.column("verb")]
    numbers = [float("nan") if not v else float(len(v)) for v in verbs]
    nulls = [v or None for v in verbs]
    rows = [
        find(judge(relabelled(table, "verb", of), model), "MC3", "AV", "raw").areas["within_verb"]
        for of in (verbs, nulls)
    ]
    assert rows[0] == rows[1]
    values = label(relabelled(table, "verb", numbers), "verb")
    assert set(values) == {"", "3.0", "4.0"}
    assert set(label(table, "no such label")) == {""}


def test_a_collapsed_model_is_at_chance_by_every_score(table: Clips, collapsed: Features) -> None:
    """Whatever is taken off equal cosines, the rounding of sums must not rank them."""
    report = judge(table, collapsed)
    sounds = table.where(split="test").column("sounding").astype(bool)
    for row in (row for row in report.rows if row.kind == "model"):
        assert row.areas["roc_auc"].value == 0.5, row.score
        for name in ("average_precision", "pr_auc"):
            assert row.areas[name].value == pytest.approx(sounds.mean()), row.score
