import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sonant.cli import main
from sonant.clips import Clips
from sonant.errors import TableError, UsageError
from sonant.metrics.raters import fleiss_kappa
from sonant.sources.annotations import BLANK, Votes
from sonant.sources.taxonomy import Taxonomy
from sonant.tasks.annotations import annotate, majority
from sonant.types import Clip

NAMES = ("ann", "bob", "cy")
VERBS = Taxonomy(("wash", "hold"), (("wash",), ("hold", "grip")))
NOUNS = Taxonomy(("dish", "cup"), (("dish", "plate"), ("cup",)))


def table(clips: int = 8, videos: int = 4) -> Clips:
    """Clips of a few videos, washing and holding in turn."""
    said = ("#C C washes a plate", "#C C grips the cup", "#C C wash the dishes", "#C C sits down")
    return Clips.of(
        [
            Clip(f"c{n}", f"v{n % videos}.mp4", 0.0, 1.5, said[n % 4], "train", {"verb": "old"})
            for n in range(clips)
        ],
        root=Path("videos"),
    )


def votes(*cast: str) -> Votes:
    """A word a clip: y, n or - of each annotator."""
    values = {"y": 1, "n": 0, "-": BLANK}
    ids = tuple(f"c{n}" for n in range(len(cast)))
    return Votes(ids, NAMES, np.array([[values[vote] for vote in of] for of in cast], np.int8))


CAST = votes("yyy", "nnn", "yyn", "n-n", "yn-", "y--", "nny", "yyy")


def test_the_majority_of_the_panel_decides() -> None:
    found, clips = annotate(table(), CAST, val=0, resamples=20)
    assert clips.column("sounding").tolist() == [True, False, True, False, None, None, False, True]
    assert (found.voted, found.votes, found.missing) == (8, 20, 4)
    assert (found.sounding, found.silent, found.undecided, found.complete) == (3, 3, 2, 5)
    counts = np.array([[0, 3], [3, 0], [1, 2], [2, 1], [0, 3]])
    assert found.kappa.value == pytest.approx(fleiss_kappa(counts))
    assert found.agreement.value == pytest.approx((3 + 2 / 3) / 5)
    assert found.unanimous == 3 / 5
    ann = found.annotators[0]
    assert (ann.name, ann.votes, ann.yes, ann.with_truth) == ("ann", 8, 5 / 8, 1.0)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=9))
def test_no_votes_that_are_missing_could_turn_a_majority(cast: list[tuple[int, int]]) -> None:
    panel = 3
    counts = np.array([pair for pair in cast if sum(pair) <= panel] or [(0, 0)])
    for (no, yes), told in zip(counts.tolist(), majority(counts, panel), strict=True):
        missing = panel - no - yes
        outcomes = {yes + more > no + missing - more for more in range(missing + 1)}
        assert told is (outcomes.pop() if len(outcomes) == 1 else None)


def test_an_even_panel_can_be_split() -> None:
    assert majority(np.array([[2, 2], [1, 3], [0, 2]]), 4) == [None, True, None]


def test_the_adjudicator_gets_what_is_open_and_has_the_last_word() -> None:
    found, _ = annotate(table(), CAST, val=0, resamples=20)
    assert [(one.id, one.why, one.majority) for one in found.open] == [
        ("c4", "no majority, 1 of 3 votes missing", ""),
        ("c5", "no majority, 2 of 3 votes missing", ""),
        ("c3", "1 of 3 votes missing", "no"),
    ]
    assert found.open[0].votes == {"ann": "yes", "bob": "no"}
    decided, clips = annotate(
        table(), CAST, decisions={"c4": True, "c3": True}, val=0, resamples=20
    )
    assert [one.id for one in decided.open] == ["c5"]
    assert clips.column("sounding").tolist()[3:6] == [True, True, None]
    assert (decided.sounding, decided.decided_by_adjudicator) == (5, 2)


def test_verbs_and_groups_by_taxonomy() -> None:
    found, clips = annotate(table(), CAST, verbs=VERBS, nouns=NOUNS, val=0, resamples=50)
    assert clips.column("group").tolist()[:4] == ["wash:dish", "hold:cup", "wash:dish", None]
    assert [(verb.name, verb.clips, verb.sounding, verb.paper) for verb in found.verbs] == [
        ("wash", 3, 2, 0.90),
        ("hold", 1, 0, 0.09),
    ]
    assert found.verbs[0].share.value == pytest.approx(2 / 3)
    assert [(group.name, group.clips) for group in found.groups] == [("wash:dish", 2)]
    assert found.groups[0].example == "#C C washes a plate"
    assert (found.large_groups, found.large_group_clips) == (0, 0)
    kept, _ = annotate(table(), CAST, val=0, resamples=20)
    assert [(verb.name, verb.clips) for verb in kept.verbs] == [("old", 6)]
    assert "8 of 8 clips have no group: left out." in kept.notes


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 7), st.integers(0, 3))
def test_no_video_lies_in_two_splits(val: int, seed: int) -> None:
    some = Votes(CAST.clips[:6], NAMES, CAST.votes[:6])
    try:
        found, clips = annotate(table(16), some, val=val, seed=seed, resamples=5)
    except UsageError as error:
        assert val >= 4 and "leave none for tests" in str(error)
        return
    splits: dict[str, set[str]] = {}
    for video, split in zip(clips.column("video"), clips.column("split"), strict=True):
        splits.setdefault(video, set()).add(split)
    assert all(len(of) == 1 for of in splits.values())
    assert [part.split for part in found.parts] == ["val", "test"]
    assert sum(part.clips for part in found.parts) == 4


def test_the_order_of_the_votes_does_not_matter() -> None:
    order = [5, 2, 7, 0, 1, 6, 3, 4]
    shuffled = Votes(tuple(CAST.clips[row] for row in order), NAMES, CAST.votes[order])
    one = annotate(table(), CAST, verbs=VERBS, nouns=NOUNS, val=3, resamples=20)
    other = annotate(table(), shuffled, verbs=VERBS, nouns=NOUNS, val=3, resamples=20)
    assert repr(one[0]) == repr(other[0])
    assert one[1].table.equals(other[1].table)


def test_votes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(TableError, match="1 of 8 clips with votes are not in the clip table"):
        annotate(table(7), CAST)
    with pytest.raises(TableError, match="2 of 2 clips with decisions are not in the clip table"):
        annotate(table(), CAST, decisions={"x": True, "y": False})
    with pytest.raises(TableError, match="a decision on clip 'c15', but no vote"):
        annotate(table(16), CAST, decisions={"c15": True})
    with pytest.raises(
        TableError, match="clip 'c0' has 3 votes, but a panel has 2; say with --panel"
    ):
        annotate(table(), CAST, panel=2)
    with pytest.raises(UsageError, match="6 clips for validation leave none for tests"):
        annotate(table(), CAST, val=6)
    with pytest.raises(UsageError, match="panel must be at least 1"):
        annotate(table(), CAST, panel=0)


def test_nothing_decided_is_a_report_too() -> None:
    found, clips = annotate(table(), votes("y--", "n--"), val=0, resamples=5)
    assert (found.undecided, found.complete) == (2, 0)
    assert np.isnan(found.kappa.value) and np.isnan(found.alpha)
    assert clips.table["label.sounding"].type == "bool"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    table().write(tmp_path / "clips.parquet")
    rows = [
        f"{clip},{name},{ {1: 'yes', 0: 'no', BLANK: ''}[vote] }"
        for clip, of in zip(CAST.clips, CAST.votes.tolist(), strict=True)
        for name, vote in zip(NAMES, of, strict=True)
    ]
    (tmp_path / "votes.csv").write_text("clip,annotator,vote\n" + "\n".join(rows) + "\n")
    (tmp_path / "verbs.csv").write_text("label,group\nwash,['wash']\nhold,\"['hold', 'grip']\"\n")
    (tmp_path / "nouns.csv").write_text("label,group\ndish,\"['dish', 'plate']\"\ncup,['cup']\n")
    return tmp_path


def scored(folder: Path, *more: str) -> int:
    words = ["score", "annotations", str(folder / "clips.parquet"), "--votes"]
    words += [str(folder / "votes.csv"), "--out", str(folder / "out"), "--val", "2"]
    words += ["--verbs", str(folder / "verbs.csv"), "--nouns", str(folder / "nouns.csv")]
    return main([*words, *more])


def test_the_command_writes_it_all(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert scored(folder) == 0
    assert "Fleiss' kappa" in capsys.readouterr().out
    out = folder / "out"
    report = json.loads((out / "annotations.json").read_text())
    assert (report["schema"], report["sounding"], report["undecided"]) == (
        "sonant.annotations",
        3,
        2,
    )
    page = (out / "annotations.md").read_text()
    assert "| wash | 3 | 2 | 0.667 |" in page and "| 0.900 |" in page
    labels = list(csv.DictReader((out / "labels.csv").open()))
    assert [row["sounding"] for row in labels] == ["yes", "no", "yes", "no", "no", "yes"]
    groups = list(csv.DictReader((out / "groups.csv").open()))
    assert groups == [{"group": "wash:dish", "clips": "2", "example": "#C C washes a plate"}]
    plot = (out / "groups.svg").read_text()
    assert "wash:dish" in plot and "largest first" in plot
    clips = Clips.read(out / "clips.parquet")
    assert clips.column("sounding").tolist()[:5] == [True, False, True, False, None]
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert scored(folder) == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_list_that_was_filled_in_is_taken_back(folder: Path) -> None:
    assert scored(folder) == 0
    path = folder / "out" / "adjudication.csv"
    rows = list(csv.DictReader(path.open()))
    assert [row["clip"] for row in rows] == ["c4", "c5", "c3"]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({**row, "decision": "yes"} for row in rows)
    assert scored(folder, "--decisions", str(path)) == 0
    assert Clips.read(folder / "out" / "clips.parquet").column("sounding").tolist() == [
        True, False, True, True, True, True, False, True,
    ]  # fmt: skip
    assert [(row["clip"], row["decision"]) for row in csv.DictReader(path.open())] == [
        ("c4", "yes"), ("c5", "yes"), ("c3", "yes"),
    ]  # fmt: skip
    before = path.read_bytes()
    assert scored(folder, "--decisions", str(path)) == 0
    assert path.read_bytes() == before


def test_decisions_that_were_not_thereare_not_written_over(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scored(folder) == 0
    path = folder / "out" / "adjudication.csv"
    path.write_text("clip,decision\nc4,no\nc5,\nc3,yes\n")
    before = {path.name: path.read_bytes() for path in (folder / "out").iterdir()}
    other = folder / "other.csv"
    other.write_text("clip,decision\nc4,yes\nc3,yes\n")
    for more, lost in (((), 2), (("--decisions", str(other)), 1)):
        capsys.readouterr()
        assert scored(folder, *more) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert f"has {lost} decisions that were not given, the first on clip 'c4'" in said
        assert {path.name: path.read_bytes() for path in (folder / "out").iterdir()} == before


@given(st.permutations(range(8)), st.integers(1, 7), st.integers(0, 3))
@settings(max_examples=25, deadline=None)
def test_batches_are_as_good_as_all_votes_at_once(order: list[int], first: int, val: int) -> None:
    def batch(rows: list[int]) -> Votes:
        return Votes(tuple(CAST.clips[row] for row in rows), NAMES, CAST.votes[rows])

    _, at_once = annotate(table(16), CAST, val=val, resamples=5)
    try:
        _, clips = annotate(table(16), batch(order[:first]), val=val, resamples=5)
    except UsageError:  # too few for validation
        return
    found, clips = annotate(clips, batch(order[first:]), val=val, resamples=5)
    assert clips.table.equals(at_once.table)
    kept = sum(at_once.column("sounding")[row] is not None for row in order[:first])
    assert f"{kept} truths of clips that were not voted on are kept." in found.notes or not kept


def test_what_becomes_of_earlier_truths_is_said() -> None:
    _, clips = annotate(table(16), votes("yyy", "nnn", "yyy"), val=2, resamples=5)
    found, clips = annotate(clips, votes("nnn", "n--"), val=0, resamples=5)
    assert clips.column("sounding").tolist()[:3] == [False, None, True]
    assert found.notes[-3:] == [
        "1 truths of clips that were not voted on are kept.",
        "2 truths that the table had are overwritten by the votes.",
        "10 clips of val and test have no truth.",
    ]
    wrong = table(2).join(pa.table({"id": ["c0"], "sounding": ["loud"]}))
    with pytest.raises(TableError, match=r"label.sounding is of type string; wanted is bool"):
        annotate(wrong, votes("yyy"), val=0)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.sampled_from(["yyy", "nnn", "y-n", "--y", "---"]), min_size=8, max_size=8),
    st.lists(st.sampled_from([True, False, None]), min_size=16, max_size=16),
    st.integers(0, 2),
)
@example(["yyy"] * 7 + ["---"], [True] * 16, 0)
def test_a_row_of_blanks_changes_nothing(
    cast: list[str], truths: list[bool | None], val: int
) -> None:
    """Not the truth that its clip has, not the splits, and nothing that is counted."""
    before = table(16, videos=8).join(
        pa.table({"id": [f"c{n}" for n in range(16)], "sounding": pa.array(truths, pa.bool_())})
    )
    listed, there = votes(*cast), [row for row, of in enumerate(cast) if of != "---"]
    told = Votes(tuple(listed.clips[row] for row in there), NAMES, listed.votes[there])
    try:
        wanted, clips = annotate(before, told, val=val, resamples=5)
    except UsageError as error:  # too few for validation, or no votes at all
        with pytest.raises(type(error)) as again:
            annotate(before, listed, val=val, resamples=5)
        assert str(again.value) == str(error)
        return
    found, same = annotate(before, listed, val=val, resamples=5)
    assert same.table.equals(clips.table)
    for row, of in enumerate(cast):
        assert of != "---" or same.table["label.sounding"][row].as_py() is truths[row]
    blank = f"{8 - len(there)} clips have only blank votes: not voted on."
    assert (blank in found.notes) is (len(there) < 8)
    rest = [note for note in found.notes if note != blank]
    assert repr(replace(found, notes=rest)) == repr(wanted)


def test_votes_that_are_all_blank_are_none() -> None:
    with pytest.raises(TableError, match="there are no votes; wanted is yes or no on one clip"):
        annotate(table(), votes("---", "---"), val=0)
    with pytest.raises(TableError, match="a decision on clip 'c1', but no vote"):
        annotate(table(), votes("yyy", "---"), decisions={"c1": True}, val=0)


def test_the_command_keeps_the_truth_of_clips_with_blank_votes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truths = [False, True, False, None, True, True, True, True]
    known = pa.table({"id": [f"c{n}" for n in range(8)], "sounding": truths})
    table().join(known).write(folder / "clips.parquet")
    path, words = folder / "votes.csv", ("--val", "0")
    path.write_text("clip,ann,bob,cy\nc0,yes,yes,\nc1,,,\nc2,,,\nc3,,,\n")
    assert scored(folder, *words) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "clips voted on 1 of 8" in said
    assert "3 clips have only blank votes: not voted on." in said
    clips = Clips.read(folder / "out" / "clips.parquet")
    assert clips.column("sounding").tolist() == [True, *truths[1:]]
    assert set(clips.column("split")) == {"train"}
    path.write_text("clip,annotator,vote\nc0,ann,\nc1,bob,\n")
    assert scored(folder, *words) == 2
    assert "votes.csv: has no votes: each of its 2 is blank" in capsys.readouterr().err


def test_wrong_votes_exit_with_2(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (folder / "votes.csv").open("a") as file:
        file.write("c0,ann,no\n")
    assert scored(folder) == 2
    assert "lines 2 and 26: 'ann' votes twice on clip 'c0'" in capsys.readouterr().err
