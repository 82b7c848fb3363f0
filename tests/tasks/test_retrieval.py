from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonant.clips import Clips
from sonant.errors import UsageError
from sonant.features import Features
from sonant.metrics import ranking
from sonant.tasks.retrieval import Retrieval, halves, retrieval


def judge(table: Clips, model: Features, **options: Any) -> Retrieval:
    return retrieval({"MC3": model}, table, **{"resamples": 40} | options)


@given(
    st.lists(st.sampled_from(["", "a", "b", "c", "wipe cup"]), max_size=40),
    st.integers(1, 4),
    st.integers(0, 99),
)
def test_large_groups_are_halved_and_the_odd_one_asks(
    names: list[str], more_than: int, seed: int
) -> None:
    groups = np.array(names, object)
    queries, gallery = halves(groups, more_than=more_than, seed=seed)
    assert not set(queries) & set(gallery)
    for group in {"a", "b", "c", "wipe cup"}:
        size = names.count(group)
        asked, answered = (sum(groups[rows] == group) for rows in (queries, gallery))
        assert asked + answered == (size if size > more_than else 0)
        assert asked - answered == (size % 2 if size > more_than else 0)
    again = halves(groups, more_than=more_than, seed=seed)
    np.testing.assert_array_equal(again[0], queries)
    assert not (groups[queries] == "").any()


def test_a_groups_halves_do_not_depend_on_others() -> None:
    alone = halves(np.array(["a"] * 9, object), seed=4)[0]
    beside = halves(np.array(["a"] * 9 + ["b"] * 5, object), seed=4)[0]
    assert beside[beside < 9].tolist() == alone.tolist()
    drawn = {tuple(halves(np.array(["a"] * 9, object), seed=s)[0]) for s in range(20)}
    assert len(drawn) > 10
    with pytest.raises(UsageError, match="not 0"):
        halves(np.array(["a"]), more_than=0)


def test_every_direction_is_the_metric_on_cosines(table: Clips, model: Features) -> None:
    report = judge(table, model, permutations=3)
    test = table.where(split="test")
    sounds = test.column("sounding").astype(bool)
    groups = np.where(sounds, test.column("text"), "")
    queries, gallery = halves(groups, seed=0)
    assert (report.queries, report.gallery) == (len(queries), len(gallery))
    assert report.groups == len(set(groups[queries]))
    here = model.of_clips(test.column("id"))
    unit = {
        m: here.matrix(m) / np.linalg.norm(here.matrix(m), axis=1, keepdims=True)
        for m in here.modalities
    }
    letters = {"V": "video", "A": "audio", "L": "text"}
    for direction in ("V>A", "A>V", "L>A", "A>L"):
        level, row = (r for r in report.rows if r.direction == direction)
        assert (level.kind, row.name) == ("chance", "MC3")
        similarity = unit[letters[direction[0]]][queries] @ unit[letters[direction[2]]][gallery].T
        relevant = groups[queries][:, None] == groups[gallery]
        want = ranking.retrieval(similarity, relevant, (1, 5, 10))
        assert {name: of.value for name, of in row.values.items()} == pytest.approx(want)
        want = ranking.chance(similarity, relevant, (1, 5, 10), permutations=3)
        assert {name: of.value for name, of in level.values.items()} == pytest.approx(want)
        for of in row.values.values():
            assert of.low <= of.value <= of.high


def test_the_chance_row_is_what_noise_gets(
    table: Clips, model: Features, untrained: Features
) -> None:
    report = judge(table, model, permutations=50)
    noise = judge(table, untrained, resamples=300)
    for direction in ("V>A", "L>A"):
        (level,) = (r for r in report.rows if (r.kind, r.direction) == ("chance", direction))
        (row,) = (r for r in noise.rows if (r.kind, r.direction) == ("model", direction))
        assert row.values["map"].low - 0.05 < level.values["map"].value
        assert level.values["map"].value < row.values["map"].high
        assert np.isnan(level.values["map"].low)
    assert judge(table, model, permutations=50).rows[1] == report.rows[1]


def test_centring_uses_the_reference(table: Clips, model: Features) -> None:
    report = judge(table, model, centred=True)
    assert (report.score, report.reference) == ("centred", "the 120 clips of split train")
    plain = judge(table, model)
    assert (plain.score, plain.reference) == ("raw", "")
    assert report.rows[1].values != plain.rows[1].values
    assert report.rows[1].values["map"].value > report.rows[0].values["map"].value


def test_only_sounding_clips_of_large_groups_take_part(table: Clips, model: Features) -> None:
    test = table.where(split="test")
    sounds = test.column("sounding").astype(bool)
    texts = test.column("text")[sounds].tolist()
    for more_than in (2, 5, 8):
        report = judge(table, model, more_than=more_than)
        large = [text for text in texts if texts.count(text) > more_than]
        assert report.queries + report.gallery == len(large)
    none = judge(table, model, more_than=1000)
    assert none.rows == []
    assert none.notes == ["No group has more than 1000 clips: nothing to retrieve."]


def test_missing_labels_are_noted(table: Clips, model: Features) -> None:
    def without(*names: str) -> Clips:
        return Clips(table.table.drop_columns([f"label.{name}" for name in names]), table.root)

    report = judge(without("noun"), model)
    assert report.rows == []
    assert "group, or verb and noun; the labels there are: verb, sounding, case" in report.notes[0]
    report = judge(without("sounding"), model)
    assert "silent clips are among" in report.notes[0]
    assert report.queries + report.gallery == 120


def test_missing_modalities_are_left_out(table: Clips, model: Features) -> None:
    ids = table.column("id").tolist()
    audio, video = model.matrix("audio"), model.matrix("video")
    report = judge(table, Features.of(ids, {"audio": audio, "video": video}))
    assert {row.direction for row in report.rows} == {"V>A", "A>V"}
    video[:60] = np.nan
    report = judge(table, Features.of(ids, {"audio": audio, "video": video}))
    assert "clips lack a modality" in report.notes[0]
    assert report.queries > 0
    with pytest.raises(UsageError, match="none were given"):
        retrieval({}, table)


def test_models_of_two_modalities_have_their_directions_beside_a_whole_one(
    table: Clips, model: Features
) -> None:
    ids = table.column("id").tolist()
    heard, seen, told = (model.matrix(m) for m in ("audio", "video", "text"))
    models = {
        "CM-ACC": Features.of(ids, {"audio": heard, "video": seen}),
        "CLAP": Features.of(ids, {"audio": heard, "text": told}),
        "MC3": model,
    }
    report = retrieval(models, table, resamples=20)
    names: dict[str, list[str]] = {}
    for row in report.rows:
        names.setdefault(row.direction, []).append(row.name)
    assert names == {
        "V>A": ["chance", "CM-ACC", "MC3"],
        "A>V": ["chance", "CM-ACC", "MC3"],
        "L>A": ["chance", "CLAP", "MC3"],
        "A>L": ["chance", "CLAP", "MC3"],
    }
    values = {(row.name, row.direction): row.values for row in report.rows}
    assert values["CM-ACC", "V>A"] == values["MC3", "V>A"]
    wanted = {
        f"{name}@{k}" for name in ("hit", "recall", "mean_hits", "precision") for k in (1, 5, 10)
    }
    for row in report.rows:
        assert set(row.values) == wanted | {"map", "median_rank"}
    deaf = retrieval({"mute": Features.of(ids, {"video": seen, "text": told})}, table)
    assert deaf.rows == []
    assert "nothing to compare" in deaf.notes[0]


def relabelled(table: Clips, **labels: list[Any]) -> Clips:
    columns = {name: pa.array(of) for name, of in labels.items()}
    return table.join(pa.table({"id": table.column("id").tolist(), **columns}))


def test_labels_that_no_clip_has_are_as_none(table: Clips, model: Features) -> None:
    blank: list[Any] = [None] * len(table)
    plain = judge(table, model)
    for empty in (blank, [""] * len(table), [float("nan")] * len(table)):
        assert judge(relabelled(table, group=empty), model) == plain
    named = relabelled(table, group=table.column("text").tolist(), verb=blank)
    assert judge(named, model) == plain
    neither = judge(relabelled(table, verb=blank), model)
    assert neither.rows == []
    assert "the labels there are: noun, sounding, case." in neither.notes[0]
    deaf = table.table.column_names.index("label.sounding")
    nulls = table.table.set_column(deaf, "label.sounding", pa.array(blank, pa.bool_()))
    report = judge(Clips(nulls, table.root), model)
    assert "silent clips are among" in report.notes[0]
    assert report.queries + report.gallery == 120
    silent = judge(relabelled(table, sounding=[False] * len(table)), model)
    assert silent.notes == [
        "None of the clips with a group sounds (label.sounding): nothing to retrieve."
    ]
    with pytest.raises(UsageError, match="seed must be at least 0, not -1"):
        judge(table, model, seed=-1)


@pytest.mark.parametrize("centred", [False, True])
def test_a_collapsed_model_retrieves_by_chance(
    table: Clips, collapsed: Features, centred: bool
) -> None:
    report = judge(table, collapsed, centred=centred)
    test = table.where(split="test")
    groups = np.where(test.column("sounding").astype(bool), test.column("text"), "")
    queries, gallery = halves(groups, seed=0)
    relevant = groups[queries][:, None] == groups[gallery]
    want = ranking.retrieval(np.zeros(relevant.shape), relevant, (1, 5, 10))
    rows = [row for row in report.rows if row.name == "MC3"]
    assert len(rows) == 4
    for row in rows:
        assert {name: x.value for name, x in row.values.items()} == pytest.approx(want)
