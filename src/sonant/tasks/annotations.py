"""Annotators' votes become truth: MC3 section 5, with Table 1 and Fig. 4.

Each clip has a panel of annotators, three in the paper, and the majority of the panel decides
whether its action sounds. A vote that is missing is nobody's: two of three decide without it, and
one against one does not. What is open goes to an adjudicator.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sonant.clips import LABEL, Clips
from sonant.errors import TableError, at_least
from sonant.metrics import bootstrap
from sonant.metrics.bootstrap import Interval, Values, Weights
from sonant.metrics.raters import fleiss_kappas, krippendorff_alpha, pair_agreement
from sonant.sources.annotations import BLANK, YES, Votes, held_out
from sonant.sources.taxonomy import Actions, Taxonomy

Array = NDArray[Any]

PAPER = {
    "wash": 0.90, "close": 0.82, "cut": 0.77, "drop": 0.64, "stir": 0.64,
    "wipe": 0.53, "rub": 0.39, "touch": 0.27, "lift": 0.19, "hold": 0.09,
}  # fmt: skip
"""Table 1: the share of clips that sound in ten of the paper's verb groups."""
HELD_OUT = ("val", "test")
LARGE = 2
"""Clips that a group needs more of for retrieval (section 6.2)."""


_WORDS: Mapping[bool | None, str] = {True: "yes", False: "no", None: ""}


@dataclass(frozen=True)
class Annotator:
    """How one annotator votes."""

    name: str
    votes: int
    yes: float
    """Share of the votes that are yes."""
    with_truth: float
    """Share of the votes on decided clips that are as was decided; NaN where there are none."""


@dataclass(frozen=True)
class Part:
    """What is labelled in one split."""

    split: str
    clips: int
    videos: int
    sounding: int
    share: float
    """Of clips that sound: the average precision of scores that say nothing."""


@dataclass(frozen=True)
class Verb:
    """How often the clips of one verb group sound."""

    name: str
    clips: int
    sounding: int
    share: Interval
    """With its interval over videos."""
    paper: float | None
    """What Table 1 has for a group of this name."""


@dataclass(frozen=True)
class Group:
    """Sounding clips of one verb and noun."""

    name: str
    clips: int
    example: str
    """A narration."""


@dataclass(frozen=True)
class Open:
    """A clip for the adjudicator: no majority, or votes missing, or decided by one."""

    id: str
    video: str
    start: float
    end: float
    text: str
    votes: dict[str, str]
    """Annotator to yes or no; those who did not vote are not in it."""
    why: str
    """Empty if nothing was open, and the adjudicator decided all the same."""
    majority: str
    """yes or no where the votes there are decide all the same, else empty."""
    decision: str = ""
    """yes or no where the adjudicator has decided, else empty."""


@dataclass(frozen=True)
class Annotations:
    """The report of this task."""

    clips: int
    """Of the table; the following are those of them that were voted on."""
    voted: int
    videos: int
    panel: int
    votes: int
    missing: int
    sounding: int
    silent: int
    undecided: int
    decided_by_adjudicator: int
    complete: int
    """Clips with all votes of their panel: the next four are of them."""
    kappa: Interval
    """Fleiss'."""
    agreement: Interval
    """Share of pairs of votes on one clip that are alike."""
    unanimous: float
    alpha: float
    """Krippendorff's, of all clips with two votes or more."""
    annotators: list[Annotator]
    parts: list[Part]
    verbs: list[Verb]
    groups: list[Group]
    """Largest first."""
    large_groups: int
    """Groups of more than `LARGE` clips, and how many clips those hold."""
    large_group_clips: int
    open: list[Open]
    """Not decided yet."""
    decided: list[Open]
    """By an adjudicator."""
    resamples: int
    seed: int
    notes: list[str]


def annotate(
    clips: Clips,
    votes: Votes,
    *,
    panel: int = 3,
    decisions: Mapping[str, bool] | None = None,
    verbs: Taxonomy | None = None,
    nouns: Taxonomy | None = None,
    val: int = 3000,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[Annotations, Clips]:
    """Make votes into truth, and say how far annotators agree on it and what it holds.

    Clips that were not voted on keep the truth they have, so that a table may be annotated in
    batches: in any order, and the result is that of all votes at once. A clip whose votes are all
    blank was not voted on.

    Args:
        clips: the table that was voted on, the label `sounding` of an earlier batch in it.
        votes: of `sources.annotations.read_votes`.
        panel: votes that each clip should have; more than half of them decide.
        decisions: an adjudicator's, by clip id; they go before the votes.
        verbs: groups of verbs, found in the narrations; without them the label `verb` counts.
        nouns: groups of nouns; without them the label `noun`.
        val: labelled clips, about, whose videos become the split val, while the other voted on
            videos become test; those that val and test hold of earlier batches are dealt anew with
            them. 0 leaves all splits as they are.
        resamples: of the bootstrap over videos.
        seed: of the bootstrap and of the choice of validation videos, 0 or more.

    Returns:
        The report, and the clip table with the truth as label `sounding` (null where there is
        none), the splits, and the labels verb, noun and group if taxonomies were given.

    Raises:
        TableError: votes or decisions on clips that are not in the table, no votes at all, more
            votes than the panel has, a label `sounding` that is none.
        UsageError: impossible settings, or too few clips for validation.
    """
    at_least(1, panel=panel, resamples=resamples)
    at_least(0, val=val, seed=seed)
    decisions = decisions or {}
    listed, votes = len(votes.clips), votes.cast()
    rows = _rows_of(clips, votes, decisions, panel)
    truth = _truth(votes, panel, decisions)
    labelled = _labelled(clips, votes, truth, verbs, nouns)
    if val:
        labelled = _split(labelled, rows, val, seed)
    voted = labelled.where(np.isin(np.arange(len(clips)), rows))
    order = np.argsort(rows, kind="stable")
    votes = Votes(
        tuple(votes.clips[row] for row in order), votes.annotators, votes.votes[order]
    )  # in the order of the table, as `voted` is
    found = _Voted(voted, votes, [truth[row] for row in order], panel)
    report = found.report(len(clips), decisions, resamples, seed)
    blank = listed - len(rows)
    said = [f"{blank} clips have only blank votes: not voted on."] if blank else []
    notes = [*report.notes, *said, *_carried(clips, labelled, rows)]
    return replace(report, notes=notes), labelled


def _rows_of(
    clips: Clips, votes: Votes, decisions: Mapping[str, bool], panel: int
) -> NDArray[np.intp]:
    """The row of each clip that was voted on."""
    if not votes.clips:
        raise TableError("there are no votes; wanted is yes or no on one clip or more")
    places = {id: row for row, id in enumerate(clips.column("id"))}
    for what, ids in (("votes", votes.clips), ("decisions", tuple(decisions))):
        if unknown := [id for id in ids if id not in places]:
            raise TableError(
                f"{len(unknown)} of {len(ids)} clips with {what} are not in the clip table, the "
                f"first is {unknown[0]!r}; the table's first is {next(iter(places), None)!r}"
            )
    unvoted = set(decisions) - set(votes.clips)
    if unvoted:
        raise TableError(f"there is a decision on clip {min(unvoted)!r}, but no vote")
    counts = votes.counts().sum(1)
    if (counts > panel).any():
        row = int(np.argmax(counts > panel))
        raise TableError(
            f"clip {votes.clips[row]!r} has {counts[row]} votes, but a panel has {panel}; say with "
            "--panel how many vote on a clip"
        )
    return np.array([places[id] for id in votes.clips], np.intp)


def majority(counts: NDArray[np.int64], panel: int) -> list[bool | None]:
    """What more than half of a panel say, None where no side has so many.

    Args:
        counts: votes of no and of yes on each clip [clips, 2].
        panel: votes that a clip should have.
    """
    return [None if 2 * max(no, yes) <= panel else bool(yes > no) for no, yes in counts.tolist()]


def _truth(votes: Votes, panel: int, decisions: Mapping[str, bool]) -> list[bool | None]:
    """What is decided on each clip, in the order of the votes."""
    by_votes = majority(votes.counts(), panel)
    return [decisions.get(id, told) for id, told in zip(votes.clips, by_votes, strict=True)]


def _labelled(
    clips: Clips,
    votes: Votes,
    truth: list[bool | None],
    verbs: Taxonomy | None,
    nouns: Taxonomy | None,
) -> Clips:
    """The clip table with the truth, and with verbs and nouns if there are taxonomies."""
    told = dict(zip(votes.clips, truth, strict=True))
    before = zip(clips.column("id"), _known(clips), strict=True)
    sounding = pa.array([told.get(id, known) for id, known in before], pa.bool_())
    table, name = clips.table, LABEL + "sounding"
    if name in table.column_names:
        table = table.drop_columns([name])
    clips = Clips(table.append_column(name, sounding), clips.root)
    if verbs is None and nouns is None:
        return clips
    actions = Actions(verbs, nouns)
    found = [actions.find(text) for text in clips.column("text")]
    given = {
        "verb": _named(clips, "verb") if verbs is None else [verb for verb, _ in found],
        "noun": _named(clips, "noun") if nouns is None else [noun for _, noun in found],
    }
    pairs = zip(given["verb"], given["noun"], strict=True)
    given["group"] = [f"{verb}:{noun}" if verb and noun else None for verb, noun in pairs]
    columns = {name: pa.array(of, pa.string()) for name, of in given.items()}
    return clips.join(pa.table({"id": clips.table["id"], **columns}))


def _named(clips: Clips, label: str) -> list[str | None]:
    """A label as strings, None where there is none."""
    if label not in clips.labels:
        return [None] * len(clips)
    return [
        None if value is None else str(value) for value in clips.table[LABEL + label].to_pylist()
    ]


def _known(clips: Clips) -> list[bool | None]:
    """Whether each clip sounds, None where that is unknown."""
    name = LABEL + "sounding"
    if name not in clips.table.column_names:
        return [None] * len(clips)
    column = clips.table[name]
    if pa.types.is_string(column.type) and column.null_count < len(clips):
        raise TableError(f"{name} is of type string; wanted is bool, the truth of earlier votes")
    return list(column.cast(pa.bool_()).to_pylist())


def _split(clips: Clips, rows: NDArray[np.intp], val: int, seed: int) -> Clips:
    """Videos that were voted on, now or before, as val or test, all their clips with them."""
    videos, before = clips.column("video"), clips.column("split")
    labelled = np.array([known is not None for known in _known(clips)], bool)
    annotated = np.isin(np.arange(len(clips)), rows) | (labelled & np.isin(before, HELD_OUT))
    chosen = held_out(videos[annotated & labelled].tolist(), val, seed=seed)
    voted = set(videos[annotated])
    splits = [
        "val" if video in chosen else "test" if video in voted else split
        for video, split in zip(videos, before, strict=True)
    ]
    place = clips.table.column_names.index("split")
    return Clips(clips.table.set_column(place, "split", pa.array(splits, pa.string())), clips.root)


def _carried(before: Clips, after: Clips, rows: NDArray[np.intp]) -> list[str]:
    """What became of truths that the table had, and what of val and test has none."""
    voted = np.isin(np.arange(len(before)), rows)
    old, new = _known(before), _known(after)
    had = np.array([truth is not None for truth in old], bool)
    changed = np.array([one is not other for one, other in zip(old, new, strict=True)], bool)
    unknown = np.array([truth is None for truth in new], bool)
    counts = {
        "truths of clips that were not voted on are kept.": had & ~voted,
        "truths that the table had are overwritten by the votes.": had & changed,
        "clips of val and test have no truth.": unknown & np.isin(after.column("split"), HELD_OUT),
    }
    return [f"{of.sum()} {what}" for what, of in counts.items() if of.any()]


@dataclass(frozen=True)
class _Voted:
    """Clips that were voted on, the votes and the truth, in one order."""

    clips: Clips
    votes: Votes
    truth: list[bool | None]
    panel: int

    def report(
        self, clips: int, decisions: Mapping[str, bool], resamples: int, seed: int
    ) -> Annotations:
        counts = self.votes.counts()
        complete = counts.sum(1) == self.panel
        kappa, agreement = self._agreement(counts, complete, resamples, seed)
        groups = self._groups()
        large = [group.clips for group in groups if group.clips > LARGE]
        listed = self._listed(counts, decisions)
        open_ = [one for one in listed if not one.decision]
        return Annotations(
            clips=clips,
            voted=len(self.clips),
            videos=len(set(self.clips.column("video"))),
            panel=self.panel,
            votes=int(counts.sum()),
            missing=int((self.panel - counts.sum(1)).sum()),
            sounding=self.truth.count(True),
            silent=self.truth.count(False),
            undecided=self.truth.count(None),
            decided_by_adjudicator=len(decisions),
            complete=int(complete.sum()),
            kappa=kappa,
            agreement=agreement,
            unanimous=float((counts[complete].max(1) == self.panel).mean())
            if complete.any()
            else float("nan"),
            alpha=krippendorff_alpha(counts),
            annotators=self._annotators(),
            parts=self._parts(),
            verbs=self._verbs(resamples, seed),
            groups=groups,
            large_groups=len(large),
            large_group_clips=sum(large),
            open=open_,
            decided=[one for one in listed if one.decision],
            resamples=resamples,
            seed=seed,
            notes=self._notes(open_, complete),
        )

    def _agreement(
        self, counts: Array, complete: Array, resamples: int, seed: int
    ) -> tuple[Interval, Interval]:
        nothing = Interval(np.nan, np.nan, np.nan)
        if not complete.any() or self.panel < 2:
            return nothing, nothing
        whole = counts[complete]
        alike = bootstrap.mean(pair_agreement(whole))

        def statistic(weights: Weights) -> Values:
            return {"kappa": fleiss_kappas(whole, weights), "agreement": alike(weights)}

        videos = self.clips.column("video")[complete]
        found = bootstrap.intervals(statistic, videos, resamples=resamples, seed=seed)
        return found["kappa"], found["agreement"]

    def _annotators(self) -> list[Annotator]:
        known = np.array([told is not None for told in self.truth], bool)
        truth = np.array([told is True for told in self.truth], bool)
        found = []
        for name, cast in zip(self.votes.annotators, self.votes.votes.T, strict=True):
            voted = cast != BLANK
            right = (cast == YES)[voted & known] == truth[voted & known]
            found.append(Annotator(name, int(voted.sum()), _mean(cast[voted] == YES), _mean(right)))
        return found

    def _parts(self) -> list[Part]:
        splits, videos = self.clips.column("split"), self.clips.column("video")
        known = np.array([told is not None for told in self.truth], bool)
        sounds = np.array([told is True for told in self.truth], bool)
        names = [name for name in HELD_OUT if name in splits]
        found = []
        for name in names + sorted(set(splits) - set(HELD_OUT)):
            here = known & (splits == name)
            part = int(here.sum()), len(set(videos[here])), int(sounds[here].sum())
            found.append(Part(name or "(none)", *part, _mean(sounds[here])))
        return found

    def _verbs(self, resamples: int, seed: int) -> list[Verb]:
        """Verb groups, those that sound most often first."""
        known = np.array([told is not None for told in self.truth], bool)
        sounds = np.array([told is True for told in self.truth], bool)[known].astype(float)
        verbs = np.array([name or "" for name in _named(self.clips, "verb")], object)[known]
        names = sorted(set(verbs) - {""})
        if not names:
            return []
        member = (verbs[:, None] == np.array(names, object)).astype(float)

        def statistic(weights: Weights) -> Values:
            number, yes = weights @ member, (weights * sounds) @ member
            out = np.full(number.shape, np.nan)
            shares = np.divide(yes, number, out=out, where=number > 0)
            return dict(zip(names, shares.T, strict=True))

        videos = self.clips.column("video")[known]
        shares = bootstrap.intervals(statistic, videos, resamples=resamples, seed=seed)
        clips, yes = member.sum(0).astype(int), (sounds @ member).astype(int)
        found = [
            Verb(name, int(of), int(heard), shares[name], PAPER.get(name))
            for name, of, heard in zip(names, clips, yes, strict=True)
        ]
        return sorted(found, key=lambda verb: (-verb.share.value, -verb.clips, verb.name))

    def _groups(self) -> list[Group]:
        """Verb and noun groups of the sounding clips."""
        texts, names = self.clips.column("text"), _named(self.clips, "group")
        heard = [
            (name, text)
            for name, text, told in zip(names, texts, self.truth, strict=True)
            if name and told is True
        ]
        example = dict(reversed(heard))
        counts = sorted(Counter(name for name, _ in heard).items(), key=lambda of: (-of[1], of[0]))
        return [Group(name, count, example[name]) for name, count in counts]

    def _listed(self, counts: Array, decisions: Mapping[str, bool]) -> list[Open]:
        """What is for an adjudicator, and what one has decided."""
        by_votes = majority(counts, self.panel)
        found = []
        for row, (clip, told) in enumerate(zip(self.clips, by_votes, strict=True)):
            missing = self.panel - int(counts[row].sum())
            decision = decisions.get(clip.id)
            if decision is None and told is not None and not missing:
                continue
            cast = zip(self.votes.annotators, self.votes.votes[row].tolist(), strict=True)
            votes = {name: "yes" if vote == YES else "no" for name, vote in cast if vote != BLANK}
            whys = ["no majority"] * (told is None)
            whys += [f"{missing} of {self.panel} votes missing"] * (missing > 0)
            found.append(
                Open(
                    clip.id, clip.video, clip.start, clip.end, clip.text, votes,
                    ", ".join(whys), _WORDS[told], _WORDS[decision],
                )
            )  # fmt: skip
        return sorted(found, key=lambda clip: (clip.majority != "", clip.id))

    def _notes(self, open_: list[Open], complete: Array) -> list[str]:
        notes = []
        if open_:
            notes.append(f"{len(open_)} clips are for an adjudicator.")
        if not complete.all():
            notes.append(
                f"Fleiss' kappa and agreement are of the {int(complete.sum())} clips with all "
                f"{self.panel} votes; alpha is of all with two or more."
            )
        for label in ("verb", "group"):
            unnamed = sum(name is None for name in _named(self.clips, label))
            if unnamed:
                notes.append(f"{unnamed} of {len(self.clips)} clips have no {label}: left out.")
        bad = int((self.clips.column("quarantine") != "").sum())
        if bad:
            notes.append(f"{bad} clips that were voted on are in quarantine; they count here.")
        return notes


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else float("nan")
