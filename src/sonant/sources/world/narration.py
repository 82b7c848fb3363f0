"""Narrations in the manner of Ego4D's annotators: tags, synonyms, slips."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sonant.sources.world.laws import Thing, Verb

WEARER = ("#C C", "#c c", "# C c", "#C  C")
WEARER_SHARES = (0.90, 0.05, 0.03, 0.02)
OTHERS = ("#O A man X", "#O a woman Y", "#O person X")
ADJECTIVES = ("", "", "", "", "the small", "a big", "the other", "a clean", "an old", "his")
UNSURE = 0.015
"""Chance that the thing is `#unsure`."""
DROPPED = 0.035
"""Chance that a word is missing."""
TAIL = 0.55


def narrate(rng: np.random.Generator, verb: Verb, thing: Thing) -> str:
    """One sentence about doing `verb` to `thing`, such as `#C C cuts the carrot with a knife`."""
    alone = verb.name == "talk" and rng.random() < 0.5
    who = OTHERS[rng.integers(len(OTHERS))] if alone else _who(rng)
    does = verb.words[_zipf(rng, verb.words)]
    noun = thing.words[_zipf(rng, thing.words)]
    if rng.random() < UNSURE:
        noun = "#unsure"
    adjective = ADJECTIVES[rng.integers(len(ADJECTIVES))] or ("the" if rng.random() < 0.7 else "a")
    words = [does, *(["to"] if verb.name == "talk" else []), *adjective.split(), noun]
    if rng.random() < TAIL:
        words += verb.tails[rng.integers(len(verb.tails))].split()
    words = words[:1] + [word for word in words[1:] if word == noun or rng.random() >= DROPPED]
    if rng.random() < DROPPED / 2:
        words.remove(noun)
    return " ".join([who, *words])


def _who(rng: np.random.Generator) -> str:
    return WEARER[int(rng.choice(len(WEARER), p=WEARER_SHARES))]


def _zipf(rng: np.random.Generator, words: Sequence[str]) -> int:
    weights = 1 / np.arange(1, len(words) + 1)
    return int(rng.choice(len(words), p=weights / weights.sum()))
