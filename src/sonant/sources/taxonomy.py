"""Ego4D's taxonomies: which words of narrations are one verb, which are one noun.

`narration_verb_taxonomy.csv` and `narration_noun_taxonomy.csv` have a row a group: `label`, such as
`cut_(trim,_slice,_chop)`, and `group`, a Python list of its words. A row's place is its number in
EgoClip's tags. The tool that MC3 took verbs and nouns out of narrations with is not known; this one
needs nothing but these files.
"""

from __future__ import annotations

import ast
import csv
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sonant.errors import TableError
from sonant.media.text import clean

ENDINGS: Sequence[tuple[str, Sequence[str]]] = (
    ("ies", ("y", "ie")),
    ("ves", ("f", "fe")),
    ("es", ("", "e")),
    ("s", ("",)),
    ("ing", ("", "e")),
    ("ied", ("y",)),
    ("ed", ("", "e")),
)
"""What an inflected word ends in, and what may have stood there. Irregular forms are in the
taxonomies' own lists of words."""
_WORD = re.compile(r"[a-z0-9]+")
_LABEL = re.compile(r"\s*([^(]*?)[_\s]*(?:\(([^)]*)\)\s*)?")

_Ends = dict[str, list[tuple[list[str], int]]]
"""A phrase's inflected word to the phrase's other words and its group, longer phrases first."""


@dataclass(frozen=True)
class Taxonomy:
    """Groups of words, in the order of their file."""

    names: tuple[str, ...]
    """Each group's label without the synonyms, such as `turn_on`; the whole label where two groups
    would have the same name."""
    words: tuple[tuple[str, ...], ...]
    """Each group's words and phrases, in lower case."""

    @classmethod
    def read(cls, path: Path) -> Taxonomy:
        """Read one of Ego4D's two files.

        Raises:
            TableError: it is missing, lacks the column `label`, has no rows, or a row whose label
                is empty or stands before, or whose `group` is no list.
        """
        rows = _rows(path)
        labels = [label for label, _ in rows]
        split = [_LABEL.fullmatch(label) for label in labels]
        heads = [match[1] if match else label for match, label in zip(split, labels, strict=True)]
        often = Counter(heads)
        inside = [(match[2] or "").split(",") if match else [] for match in split]
        return cls(
            names=tuple(
                head if often[head] == 1 else label
                for head, label in zip(heads, labels, strict=True)
            ),
            words=tuple(
                _phrases([*group, head, *synonyms])
                for (_, group), head, synonyms in zip(rows, heads, inside, strict=True)
            ),
        )


class Actions:
    """Finds the verb and the noun of narrations.

    The verb is the first word, read from the left, that some group has; a longer phrase goes before
    a shorter ("picks up" before "picks"), then the group that comes first in its file. The noun is
    looked for after the verb: the last of the first nouns in a row, so that a "pan lid" is a lid.
    Words count as what they may be inflected from: `ENDINGS`, and doubled consonants before "-ing"
    and "-ed".

    Args:
        verbs: the groups of verbs; without them the noun is looked for from the start.
        nouns: the groups of nouns.
    """

    def __init__(self, verbs: Taxonomy | None, nouns: Taxonomy | None) -> None:
        self._verbs, self._nouns = verbs, nouns
        self._by_first = _by_word(verbs, 0)
        self._by_last = _by_word(nouns, -1)
        self._verbs_seen: _Ends = {}
        self._nouns_seen: _Ends = {}

    def find(self, narration: str) -> tuple[str | None, str | None]:
        """The names of the groups of a narration's verb and noun, None where there is none."""
        words = _WORD.findall(clean(narration).lower())
        verb, end = self._verb(words)
        noun = self._noun(words, end)
        return (
            None if verb is None or self._verbs is None else self._verbs.names[verb],
            None if noun is None or self._nouns is None else self._nouns.names[noun],
        )

    def _verb(self, words: list[str]) -> tuple[int | None, int]:
        """The group of the verb and the place after it."""
        for place, word in enumerate(words):
            for rest, group in _looked_up(word, self._by_first, self._verbs_seen):
                if words[place + 1 : place + 1 + len(rest)] == rest:
                    return group, place + 1 + len(rest)
        return None, 0

    def _noun(self, words: list[str], begin: int) -> int | None:
        found = None
        for place in range(begin, len(words)):
            here = None
            for before, group in _looked_up(words[place], self._by_last, self._nouns_seen):
                if place - len(before) >= begin and words[place - len(before) : place] == before:
                    here = group
                    break
            if here is None and found is not None:
                break
            found = here
        return found


def forms(word: str) -> list[str]:
    """A word, and all that it may be an inflection of.

    >>> forms("cutting")
    ['cutting', 'cutt', 'cutte', 'cut']
    """
    found = [word]
    for ending, stood in ENDINGS:
        if word.endswith(ending) and not word.endswith("ss") and len(word) > len(ending) + 1:
            stem = word[: -len(ending)]
            found += [stem + end for end in stood]
            if ending in ("ing", "ed") and len(stem) > 2 and stem[-1] == stem[-2]:
                found.append(stem[:-1])
    return list(dict.fromkeys(found))


def _looked_up(word: str, by_word: _Ends, seen: _Ends) -> list[tuple[list[str], int]]:
    """The phrases that a word may be the inflected one of; those of the word itself go first."""
    if word not in seen:
        found = [phrase for form in forms(word) for phrase in by_word.get(form, [])]
        seen[word] = sorted(found, key=lambda phrase: -len(phrase[0]))
    return seen[word]


def _by_word(taxonomy: Taxonomy | None, place: int) -> _Ends:
    """Phrases by the word that is inflected in them: verbs' first (0), nouns' last (-1)."""
    found: _Ends = {}
    for group, phrases in enumerate(taxonomy.words if taxonomy else ()):
        for phrase in phrases:
            words = phrase.split()
            word = words.pop(place)
            found.setdefault(word, []).append((words, group))
    return found


def _phrases(texts: Iterable[str]) -> tuple[str, ...]:
    """Words as narrations have them; of `increase/reduce` both."""
    parts = (part for text in texts for part in text.lower().split("/"))
    return tuple(dict.fromkeys(filter(None, (" ".join(_WORD.findall(part)) for part in parts))))


def _rows(path: Path) -> list[tuple[str, list[str]]]:
    """Labels and lists of words, checked."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            there = list(reader.fieldnames or [])
            if "label" not in there:
                raise TableError(
                    f"{path}: has the columns {', '.join(there) or '(none)'}; wanted are label "
                    "and group, as in Ego4D's narration_verb_taxonomy.csv"
                )
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TableError(f"{path}: no readable taxonomy: {error}") from error
    if not rows:
        raise TableError(f"{path}: has no rows")
    seen: dict[str, int] = {}
    found = []
    for line, row in rows:
        label = (row["label"] or "").strip()
        if not label or label in seen:
            why = f"{label!r} stands in line {seen[label]} too" if label else "is empty"
            raise TableError(f"{path}, line {line}: label {why}")
        seen[label] = line
        found.append((label, _group(row.get("group") or "[]", path, line)))
    return found


def _group(text: str, path: Path, line: int) -> list[str]:
    try:
        group = ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        group = error
    if not isinstance(group, list) or not all(isinstance(word, str) for word in group):
        raise TableError(
            f"{path}, line {line}: group is {text!r}; wanted is a list such as ['cut', 'slice']"
        )
    return group
