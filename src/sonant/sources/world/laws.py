"""The constants of world-1: who does what to which things, where, how often and how loud.

Everything here is a design choice, calibrated once (docs/world.md) and frozen: another value makes
another world and needs another `NAME`. Levels are dB relative to full scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

NAME = "world-1"

Material = Literal["metal", "glass", "ceramic", "wood", "plastic", "soft"]
Shape = Literal["disc", "box", "bar", "bowl", "bottle"]
Texture = Literal["planks", "tiles", "speckle", "stripes", "plain"]

RATE = 16_000
"""Audio samples per second."""
FPS = 12
"""Frames per second."""
SIZE = 96
"""Width and height of a frame, in pixels."""

BEFORE, AFTER = 0.5, 1.0
"""The clip that truth speaks of: seconds before and after the narrated time."""
NARRATIONS = (30, 45)
"""Fewest and most narrations of a video."""
SPACING = (2.2, 3.0)
"""Seconds from one action to the next."""
LEAD, TAIL = 2.4, 2.6
"""Seconds of a video before its first and after its last action."""

AUDIBLE_DB, AUDIBLE_CELLS = 3.0, 0.02
"""A stem is audible if it is this much above all else in more than this share of the mel cells."""
VISIBLE_SECONDS = 0.4
"""An on-screen action is visible if at least this much of it falls inside the clip."""

OFFSCREEN_IF_SILENT, OFFSCREEN_IF_SOUNDING = 0.90, 0.30
"""Chance that somebody's action sounds off screen, given that the narrated one does or does not."""
SAME_VERB_KEPT = 0.22
"""Off-screen draws that hit the narrated verb are kept with this chance, else drawn again."""
CLUTTER = 0.54
"""Chance of a clutter sound near a narration, whatever else is heard."""
WRONG_NARRATION = 0.045
"""Chance that a narration tells of another action."""
WRONG_TIME = 0.02
"""Chance that a narration is stamped early or late by `SHIFT` seconds."""
SHIFT = (1.0, 1.5)
DECOY = 0.85
"""Chance that, while the narrated action is off screen, a silent other one is on it."""

ACTION_DB, ACTION_SPREAD = -25.0, 4.5
VIGOUR_DB, VIGOUR_LOGIT = 2.0, 0.30
"""What one standard deviation of vigour adds to the level and to the logit of sounding."""
AMBIENCE_DB, AMBIENCE_SPREAD, AMBIENCE_CHANCE = -44.0, 4.0, 0.75
NOISE_DB = -66.0
CLUTTER_DB, CLUTTER_SPREAD = -25.0, 4.0
GAIN_SPREAD = 5.0
GAIN_KNEE, GAIN_SLOPE = -35.0, 0.4
"""The recorder's automatic gain wanders by so many dB from one action to the next, and takes back
so much of a running distractor's level above the knee."""

DISTRACTOR_SEEN = 0.52
DISTRACTOR_ON = 0.60
DISTRACTOR_UNSEEN = 0.15
"""Chance that a distractor is on screen; runs if it is; runs if it is not on screen."""
DISTRACTOR_STAY = 0.7
"""Chance that a distractor's state outlasts an action."""
DISTRACTOR_DB, DISTRACTOR_SPREAD, DISTRACTOR_WANDER = -24.0, 2.5, 5.0
"""Level of a distractor, its deviation between videos and between the actions of one video."""
DISTRACTOR_SURGE, SURGES = 7.0, 5.0
"""Its level surges by so many dB up and down, so many times a second."""

SHAKE = (0.5, 2.0)
"""Strength of the camera's shake during an action, drawn between these, log-uniform."""


@dataclass(frozen=True)
class Verb:
    """An action: how often it is done, how often it sounds, and what it is called.

    Args:
        name: the class.
        words: third-person forms for narrations, the most frequent first.
        share: of all actions.
        sounds: probability that it makes a sound at mean vigour and an average thing.
        level: dB over the level of other actions.
        rates: strokes per second, from and to; (0, 0) for what is done once or steadily.
        seen: probability of being on screen.
        things: nouns it is done to, the most frequent first (Zipf).
        tails: what narrations add, such as the tool.
    """

    name: str
    words: tuple[str, ...]
    share: float
    sounds: float
    level: float
    rates: tuple[float, float]
    seen: float
    things: tuple[str, ...]
    tails: tuple[str, ...]


@dataclass(frozen=True)
class Thing:
    """A noun: what it is called, made of, and looks like, and the scenes it occurs in."""

    name: str
    words: tuple[str, ...]
    material: Material
    shape: Shape
    colour: tuple[int, int, int]
    size: float
    scenes: str
    """Initials of `Scene.name`s."""


@dataclass(frozen=True)
class Scene:
    """A place: colours, surface, how it hums (dB over usual) and rings (seconds to -60 dB)."""

    name: str
    wall: tuple[int, int, int]
    table: tuple[int, int, int]
    texture: Texture
    clutter: int
    hum: float
    tilt: float
    """Slope of the ambience's spectrum, as a power of frequency."""
    reverberation: float


def _verbs() -> dict[str, Verb]:
    rows = [
        Verb("wash", ("washes", "rinses", "cleans", "scrubs"), 0.04, 0.985, 0.5, (1.3, 1.8), 0.995,
             ("plate", "cup", "carrot", "spoon", "bowl", "cloth", "brush", "hand", "pot"),
             ("in the sink", "with water", "under the tap", "")),
        Verb("close", ("closes", "shuts", "pushes shut"), 0.06, 0.99, 7.5, (0.0, 0.0), 0.985,
             ("drawer", "door", "box", "jar", "lid", "fridge", "laptop"),
             ("with his right hand", "with the left hand", "", "")),
        Verb("cut", ("cuts", "chops", "slices", "dices"), 0.075, 0.91, 2.0, (1.5, 2.1), 0.96,
             ("carrot", "onion", "bread", "potato", "paper", "cloth", "plank", "rope"),
             ("with a knife", "on the board", "into pieces", "")),
        Verb("drop", ("drops", "puts down", "places", "sets down"), 0.145, 0.865, 4.0, (0.0, 0.0),
             0.95,
             ("spoon", "cup", "knife", "box", "plank", "plate", "cloth", "book", "bottle", "bag"),
             ("on the table", "on the counter", "on the floor", "")),
        Verb("stir", ("stirs", "mixes", "whisks"), 0.155, 0.815, 2.0, (0.8, 1.3), 0.95,
             ("pot", "cup", "bowl", "pan", "paint", "jar"),
             ("with a spoon", "with a whisk", "in circles", "")),
        Verb("wipe", ("wipes", "mops", "dusts", "cleans off"), 0.17, 0.65, -4.0, (0.7, 1.0), 0.95,
             ("table", "plate", "pan", "laptop", "door", "bottle", "plank"),
             ("with a cloth", "with a towel", "with tissue", "")),
        Verb("rub", ("rubs", "scrapes", "smooths", "sands"), 0.105, 0.5, -5.0, (1.8, 2.2), 0.95,
             ("plank", "hand", "cloth", "table", "brush", "leaf", "pot"),
             ("together", "with his fingers", "back and forth", "")),
        Verb("touch", ("touches", "taps", "pats", "presses"), 0.045, 0.45, 4.0, (0.8, 1.2), 0.95,
             ("phone", "dough", "laptop", "table", "leaf", "door", "bag"),
             ("with a finger", "lightly", "with both hands", "")),
        Verb("lift", ("lifts", "picks up", "raises", "takes"), 0.03, 0.23, 0.0, (0.0, 0.0), 0.95,
             ("cup", "box", "pan", "plank", "bag", "bottle", "lid", "plate"),
             ("from the table", "off the floor", "with both hands", "")),
        Verb("hold", ("holds", "grips", "keeps"), 0.025, 0.13, -3.0, (0.0, 0.0), 0.95,
             ("phone", "bag", "book", "bottle", "rope", "leaf"),
             ("in his hand", "with the left hand", "", "")),
        Verb("pour", ("pours", "tips out", "empties"), 0.055, 0.68, -4.0, (0.0, 0.0), 0.96,
             ("water", "milk", "oil", "paint", "rice"),
             ("into the bowl", "from a jug", "into the cup", "")),
        Verb("hammer", ("hammers", "hits", "bangs"), 0.01, 0.97, 4.0, (1.2, 1.7), 0.97,
             ("nail", "plank", "peg", "bracket"),
             ("with a hammer", "into the wood", "")),
        Verb("turn", ("turns", "rotates", "twists", "screws"), 0.075, 0.56, -5.0, (0.7, 1.1), 0.95,
             ("lid", "screw", "knob", "bottle", "jar", "key"),
             ("clockwise", "with his right hand", "with a wrench", "")),
        Verb("talk", ("talks", "speaks", "converses"), 0.01, 0.92, -2.0, (0.0, 0.0), 0.0,
             ("man", "woman"),
             ("", "at the table", "in the room")),
    ]  # fmt: skip
    return {verb.name: verb for verb in rows}


def _things() -> dict[str, Thing]:
    rows = [
        Thing("plate", ("plate", "dish"), "ceramic", "disc", (225, 225, 235), 0.17, "kdl"),
        Thing("cup", ("cup", "mug"), "ceramic", "disc", (190, 70, 60), 0.11, "kdlo"),
        Thing("spoon", ("spoon", "ladle"), "metal", "bar", (185, 190, 200), 0.12, "kdl"),
        Thing("knife", ("knife", "blade"), "metal", "bar", (160, 165, 175), 0.13, "kwd"),
        Thing("bowl", ("bowl", "basin"), "ceramic", "bowl", (90, 130, 190), 0.17, "kdb"),
        Thing("pot", ("pot", "saucepan"), "metal", "bowl", (120, 122, 130), 0.18, "kdg"),
        Thing("pan", ("pan", "skillet"), "metal", "disc", (55, 55, 62), 0.18, "kd"),
        Thing("carrot", ("carrot", "carrots"), "plastic", "bar", (235, 125, 30), 0.12, "kdg"),
        Thing("onion", ("onion", "onions"), "plastic", "disc", (200, 150, 190), 0.10, "kdg"),
        Thing("potato", ("potato", "potatoes"), "plastic", "disc", (190, 155, 95), 0.10, "kdg"),
        Thing("bread", ("bread", "loaf"), "soft", "box", (205, 150, 80), 0.15, "kdl"),
        Thing("dough", ("dough", "pastry"), "soft", "disc", (238, 220, 175), 0.14, "kd"),
        Thing("cloth", ("cloth", "fabric", "towel"), "soft", "box", (80, 160, 150), 0.15, "kbwl"),
        Thing("brush", ("brush", "scrubber"), "plastic", "bar", (60, 90, 200), 0.12, "bwg"),
        Thing("hand", ("hand", "palm"), "soft", "disc", (222, 175, 140), 0.12, "kbwgodlr"),
        Thing("table", ("table", "counter", "surface"), "wood", "box", (150, 105, 65), 0.24,
              "kdlo"),
        Thing("plank", ("plank", "board", "wood"), "wood", "bar", (200, 160, 100), 0.22, "wgr"),
        Thing("drawer", ("drawer", "cabinet"), "wood", "box", (165, 115, 75), 0.20, "kbolr"),
        Thing("door", ("door", "gate"), "wood", "box", (135, 85, 60), 0.24, "kbwgodlr"),
        Thing("fridge", ("fridge", "refrigerator"), "metal", "box", (230, 232, 236), 0.24, "kd"),
        Thing("box", ("box", "carton"), "plastic", "box", (185, 140, 90), 0.17, "wor"),
        Thing("jar", ("jar", "container"), "glass", "bottle", (150, 205, 190), 0.13, "kdgl"),
        Thing("lid", ("lid", "cap", "cover"), "metal", "disc", (210, 60, 90), 0.11, "kdwb"),
        Thing("bottle", ("bottle", "flask"), "glass", "bottle", (60, 150, 90), 0.14, "kblog"),
        Thing("laptop", ("laptop", "computer"), "plastic", "box", (70, 75, 85), 0.19, "ol"),
        Thing("phone", ("phone", "mobile phone"), "plastic", "box", (30, 35, 60), 0.10, "olr"),
        Thing("book", ("book", "notebook"), "soft", "box", (170, 40, 50), 0.15, "ol"),
        Thing("paper", ("paper", "sheet"), "soft", "box", (240, 240, 225), 0.17, "olw"),
        Thing("bag", ("bag", "sack"), "soft", "box", (110, 70, 130), 0.18, "lorgd"),
        Thing("rope", ("rope", "string"), "soft", "bar", (195, 175, 120), 0.15, "wgr"),
        Thing("leaf", ("leaf", "plant"), "soft", "disc", (70, 150, 50), 0.13, "gl"),
        Thing("water", ("water", "hot water"), "plastic", "bottle", (100, 170, 235), 0.13, "kbdgl"),
        Thing("milk", ("milk", "batter"), "plastic", "bottle", (245, 245, 240), 0.13, "kd"),
        Thing("oil", ("oil", "sauce"), "glass", "bottle", (225, 190, 40), 0.12, "kdr"),
        Thing("rice", ("rice", "grains"), "plastic", "bottle", (235, 230, 205), 0.13, "kd"),
        Thing("paint", ("paint", "varnish"), "metal", "bowl", (40, 120, 200), 0.15, "wr"),
        Thing("nail", ("nail", "pin"), "metal", "bar", (140, 145, 155), 0.08, "wr"),
        Thing("peg", ("peg", "stake"), "wood", "bar", (175, 130, 80), 0.11, "wg"),
        Thing("bracket", ("bracket", "metal sheet"), "metal", "box", (155, 160, 170), 0.13, "wr"),
        Thing("screw", ("screw", "bolt"), "metal", "disc", (150, 150, 165), 0.09, "wor"),
        Thing("knob", ("knob", "dial"), "plastic", "disc", (40, 40, 45), 0.11, "kbo"),
        Thing("key", ("key", "switch"), "metal", "disc", (215, 180, 60), 0.09, "olr"),
        Thing("man", ("man", "man X"), "soft", "disc", (120, 120, 120), 0.1, "kbwgodlr"),
        Thing("woman", ("woman", "lady Y"), "soft", "disc", (120, 120, 120), 0.1, "kbwgodlr"),
    ]  # fmt: skip
    return {thing.name: thing for thing in rows}


VERBS = MappingProxyType(_verbs())
THINGS = MappingProxyType(_things())
SCENES = (
    Scene("kitchen", (205, 200, 185), (165, 125, 85), "planks", 9, 2.0, -0.5, 0.35),
    Scene("bathroom", (200, 220, 228), (225, 228, 232), "tiles", 5, 0.0, -0.3, 0.70),
    Scene("workshop", (140, 135, 125), (120, 95, 70), "speckle", 12, 3.0, -0.8, 0.45),
    Scene("garden", (130, 170, 200), (95, 130, 70), "speckle", 10, 1.0, -0.2, 0.12),
    Scene("office", (215, 215, 220), (190, 175, 150), "plain", 6, 0.0, -0.7, 0.25),
    Scene("dining room", (190, 160, 140), (110, 65, 45), "planks", 7, -1.0, -0.6, 0.30),
    Scene("living room", (170, 180, 160), (145, 150, 165), "stripes", 8, -1.0, -0.9, 0.28),
    Scene("repair garage", (105, 110, 120), (85, 88, 95), "tiles", 12, 3.0, -1.0, 0.60),
)
DISTRACTORS = ("fan", "tv", "machine", "tap", "vehicle")
CLUTTERS = ("speech", "footsteps", "bark", "clatter", "beat", "rustle")
