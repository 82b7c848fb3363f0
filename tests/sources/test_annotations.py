from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonant.errors import TableError, UsageError
from sonant.sources.annotations import BLANK, NO, YES, held_out, read_decisions, read_votes

LONG = "clip,annotator,vote\nx,ann,yes\nx,bob,no\ny,ann,\ny,bob,1\nx,cy,True\n"
WIDE = "id\tann\tbob\tcy\nx\tyes\tno\tY\ny\t\t1\t\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "votes.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize("text", [LONG, WIDE, "\ufeff" + LONG])
def test_both_forms_say_the_same(tmp_path: Path, text: str) -> None:
    votes = read_votes(written(tmp_path, text))
    assert (votes.clips, votes.annotators) == (("x", "y"), ("ann", "bob", "cy"))
    assert votes.votes.tolist() == [[YES, NO, YES], [BLANK, YES, BLANK]]
    assert votes.counts().tolist() == [[1, 2], [0, 1]]


def test_a_list_for_adjudication_is_no_annotator(tmp_path: Path) -> None:
    text = "clip,video,start,end,text,why,majority,ann,bob,decision\n"
    text += 'x,v.mp4,0.0,1.5,#C C cuts,"1 of 3 votes missing",yes,yes,yes,no\n'
    votes = read_votes(written(tmp_path, text))
    assert (votes.annotators, votes.votes.tolist()) == (("ann", "bob"), [[YES, YES]])
    with pytest.raises(TableError, match="has the columns clip, text; wanted are"):
        read_votes(written(tmp_path, "clip,text\nx,#C C cuts\n"))


@pytest.mark.parametrize("text", [LONG, WIDE])
def test_a_row_of_blanks_is_no_vote(tmp_path: Path, text: str) -> None:
    blank = "z,ann,\nz,bob, \n" if text is LONG else "z\t\t \t\n"
    votes = read_votes(written(tmp_path, text + blank))
    assert (votes.clips, votes.counts().tolist()[-1]) == (("x", "y", "z"), [0, 0])
    cast = votes.cast()
    assert (cast.clips, cast.annotators) == (("x", "y"), votes.annotators)
    assert cast.votes.tolist() == [[YES, NO, YES], [BLANK, YES, BLANK]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clip,ann,said\nx,yes,#C C cuts\n", "If that is no annotator's column, leave it out"),
        ("clip,who,said\nx,ann,yes\n", "line 2: who is 'ann'; wanted is yes or no, or nothing"),
        ("name,annotator,vote\n", "has the columns name, annotator, vote; wanted are clip, anno"),
        ("clip\nx\n", "has the columns clip; wanted are"),
        ("", r"has the columns \(none\)"),
        ("clip,annotator,vote\n", "has no votes$"),
        ("clip,annotator,vote\nx,ann,\n", "has no votes: each of its 1 is blank; wanted is yes"),
        ("clip,ann,bob\nx,,\ny,, \n", "has no votes: each of its 4 is blank"),
        ("clip,annotator,vote\nx,ann,maybe\n", "line 2: vote is 'maybe'"),
        (
            "clip,annotator,vote\nx,ann,yes\nx,bob,no\nx,ann,yes\n",
            "lines 2 and 4: 'ann' votes twice",
        ),
        ("clip,ann,bob\nx,1,0\nx,1,1\n", "lines 2 and 3: 'ann' votes twice on clip 'x'"),
        ("clip,ann,ann\nx,1,0\n", "has the column 'ann' more than once"),
        ("clip,annotator,vote\nx,,yes\n", "line 2: annotator is empty"),
        ("clip,annotator,vote\n,ann,yes\n", "line 2: clip is empty"),
        ("clip,annotator,vote\nx,ann\n", "line 2: has fewer cells than the 3 columns"),
        ("clip,annotator,vote\nx,ann,yes,no\n", "line 2: has more cells than the 3 columns"),
        ('clip,annotator,vote\nx,"ann,yes\n', "not a readable CSV file"),
    ],
)
def test_wrong_votes_say_where(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TableError, match=message):
        read_votes(written(tmp_path, text))
    with pytest.raises(TableError, match=r"none.csv: no such file"):
        read_votes(tmp_path / "none.csv")


def test_decisions_are_those_filled_in(tmp_path: Path) -> None:
    text = 'clip,text,ann,decision\nx,"#C C cuts, then rests",yes,no\ny,,,\nz,,,YES\n'
    assert read_decisions(written(tmp_path, text)) == {"x": False, "z": True}
    with pytest.raises(TableError, match="wanted are clip and decision"):
        read_decisions(written(tmp_path, LONG))
    with pytest.raises(TableError, match="votes twice on clip 'x'"):
        read_decisions(written(tmp_path, "clip,decision\nx,yes\nx,no\n"))


@given(st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=60), st.data())
def test_validation_videos_hold_about_what_was_asked_for(
    videos: list[str], data: st.DataObject
) -> None:
    clips = data.draw(st.integers(1, len(videos)))
    if len(set(videos)) < 2 or clips == len(videos):
        with pytest.raises(UsageError, match=r"leave none for tests.*ask for fewer with --val"):
            held_out(videos, clips)
        return
    chosen = held_out(videos, clips, seed=1)
    sizes = {video: videos.count(video) for video in set(videos)}
    held = sum(sizes[video] for video in chosen)
    assert chosen
    assert chosen < set(videos)
    others = [size for video, size in sizes.items() if video not in chosen]
    assert held <= clips < held + min(others) or (len(chosen) == 1 and held == min(sizes.values()))
    assert held_out(videos[::-1], clips, seed=1) == chosen


def test_three_thousand_of_thirty_three() -> None:
    """The sizes of the paper's split, over videos as long-tailed as Ego4D's."""
    rng = np.random.default_rng(0)
    sizes = 1 + rng.pareto(1.2, 1500)
    videos = rng.choice([f"v{n}" for n in range(1500)], 33_000, p=sizes / sizes.sum())
    chosen = held_out(videos.tolist(), 3000)
    assert np.isin(videos, list(chosen)).sum() == 3000
