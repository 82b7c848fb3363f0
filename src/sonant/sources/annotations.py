"""Annotators' votes on whether the action of a clip sounds, as CSV in one of two forms.

Long, a row a vote: `clip` (or `id`), `annotator`, `vote`. Wide, a row a clip: `clip` (or `id`), and
a column for each annotator; the columns of a list for adjudication are none. A vote is yes or no
(true or false, 1 or 0), or nothing.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sonant.errors import TableError, UsageError, at_least
from sonant.sources.folder import TRUTHS

YES, NO, BLANK = 1, 0, -1
CLIP = ("clip", "id")
LISTED = ("video", "start", "end", "text", "why", "majority")
"""What a list for adjudication says of a clip, before the votes and the decision."""
WORDS = TRUTHS | {"y": True, "n": False}

_Cells = dict[tuple[str, str], tuple[int, int]]
"""Clip and annotator to the vote and the line it is from."""


@dataclass(frozen=True)
class Votes:
    """Who voted what on which clip."""

    clips: tuple[str, ...]
    annotators: tuple[str, ...]
    votes: NDArray[np.int8]
    """[clips, annotators]: `YES`, `NO`, or `BLANK` where there is none."""

    def counts(self) -> NDArray[np.int64]:
        """Votes of no and of yes on each clip [clips, 2]."""
        return np.stack([(self.votes == vote).sum(1) for vote in (NO, YES)], axis=1)

    def cast(self) -> Votes:
        """Without the clips that nobody has voted on: a row of blanks is no vote."""
        rows = np.flatnonzero(self.counts().any(1))
        return Votes(tuple(self.clips[row] for row in rows), self.annotators, self.votes[rows])


def read_votes(path: Path) -> Votes:
    """Read votes; clips and annotators stand in the order of the file, blank rows among them.

    Raises:
        TableError: the file is missing, has other columns or no votes, a vote is none, or an
            annotator votes twice on a clip.
    """
    names, rows = _rows(path)
    clip = next((name for name in CLIP if name in names), None)
    long = {"annotator", "vote"} <= set(names)
    voters = [name for name in names if name not in (*CLIP, *LISTED, "decision")]
    if clip is None or not voters:
        raise TableError(
            f"{path}: has the columns {', '.join(names) or '(none)'}; wanted are clip, annotator "
            "and vote, or clip and a column of votes for each annotator"
        )
    cells: _Cells = {}
    for line, row in rows:
        votes = {row["annotator"]: "vote"} if long else {name: name for name in voters}
        for annotator, column in votes.items():
            vote = _vote(row[column], column, path, line, "" if long else _OTHER)
            _add(cells, row[clip], annotator, vote, path, line)
    if all(vote == BLANK for vote, _ in cells.values()):
        blank = f": each of its {len(cells)} is blank; wanted is yes or no" if cells else ""
        raise TableError(f"{path}: has no votes{blank}")
    clips = tuple(dict.fromkeys(clip for clip, _ in cells))
    annotators = tuple(dict.fromkeys(annotator for _, annotator in cells))
    votes_of = np.full((len(clips), len(annotators)), BLANK, np.int8)
    place = {name: column for column, name in enumerate(annotators)}
    place_of = {name: row for row, name in enumerate(clips)}
    for (one, annotator), (vote, _) in cells.items():
        votes_of[place_of[one], place[annotator]] = vote
    return Votes(clips, annotators, votes_of)


def read_decisions(path: Path) -> dict[str, bool]:
    """Read what was decided on clips: the columns `clip` (or `id`) and `decision`, which may be
    empty, as in a list for adjudication that was filled in.

    Raises:
        TableError: the file is missing, has other columns, a decision is none, or there are two
            on a clip.
    """
    names, rows = _rows(path)
    clip = next((name for name in CLIP if name in names), None)
    if clip is None or "decision" not in names:
        raise TableError(
            f"{path}: has the columns {', '.join(names) or '(none)'}; wanted are clip and decision"
        )
    cells: _Cells = {}
    for line, row in rows:
        decision = _vote(row["decision"], "decision", path, line)
        _add(cells, row[clip], "the adjudicator", decision, path, line)
    return {one: vote == YES for (one, _), (vote, _) in cells.items() if vote != BLANK}


def held_out(videos: Sequence[str], clips: int, *, seed: int = 0) -> set[str]:
    """Choose videos that have about so many clips together, for validation; the rest is for tests.

    In an order that is drawn, each video is taken whose clips still fit; if none does, the smallest
    one. No video lies on both sides.

    Args:
        videos: video of each clip [clips].
        clips: how many to hold out, at most if a video is that small.
        seed: of the order.

    Raises:
        UsageError: there are fewer than two videos, or nothing would be left.
    """
    at_least(1, val=clips)
    names, sizes = np.unique(np.asarray(videos, dtype=str), return_counts=True)
    if len(names) < 2 or clips >= sizes.sum():
        raise UsageError(
            f"{clips} clips for validation leave none for tests: there are {sizes.sum()} clips of "
            f"{len(names)} videos, and a video is not split; ask for fewer with --val"
        )
    chosen: list[int] = []
    room = clips
    for video in np.random.default_rng(seed).permutation(len(names)):
        if sizes[video] <= room:
            chosen.append(video)
            room -= int(sizes[video])
    return {str(names[video]) for video in chosen or [int(np.argmin(sizes))]}


def _rows(path: Path) -> tuple[list[str], list[tuple[int, Mapping[str, str]]]]:
    """The columns' names, and each row with the number of its line."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            delimiter = "\t" if "\t" in file.readline() else ","
            file.seek(0)
            reader = csv.DictReader(file, delimiter=delimiter, strict=True)
            names = list(reader.fieldnames or [])
            rows: list[tuple[int, Mapping[str, str]]] = [(reader.line_num, row) for row in reader]
    except FileNotFoundError as error:
        raise TableError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TableError(f"{path}: not a readable CSV file: {error}") from error
    if repeated := [name for name in names if names.count(name) > 1]:
        raise TableError(f"{path}: has the column {repeated[0]!r} more than once")
    for line, row in rows:
        if None in row or None in row.values():
            raise TableError(
                f"{path}, line {line}: has {'more' if None in row else 'fewer'} cells than the "
                f"{len(names)} columns {', '.join(names)}"
            )
    return names, rows


_OTHER = (
    ". If that is no annotator's column, leave it out, or give the columns clip, annotator and vote"
)


def _vote(text: str, column: str, path: Path, line: int, hint: str = "") -> int:
    word = text.strip().lower()
    if word and word not in WORDS:
        raise TableError(
            f"{path}, line {line}: {column} is {text!r}; wanted is yes or no, or nothing{hint}"
        )
    return int(WORDS[word]) if word else BLANK


def _add(cells: _Cells, clip: str, annotator: str, vote: int, path: Path, line: int) -> None:
    for name, value in (("clip", clip), ("annotator", annotator)):
        if not value.strip():
            raise TableError(f"{path}, line {line}: {name} is empty")
    key = clip.strip(), annotator.strip()
    if key in cells:
        raise TableError(
            f"{path}, lines {cells[key][1]} and {line}: {key[1]!r} votes twice on clip {key[0]!r}"
        )
    cells[key] = vote, line
