"""What happens in a video: its place, its actions and who tells of them, drawn from the laws.

A story is drawn before anything is seen or heard of it. It fixes all that pictures, sounds and
narrations must agree on; each of them then draws its own details from its own stream of numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sonant.sources.world import laws
from sonant.sources.world.laws import SCENES, THINGS, VERBS, Scene, Thing, Verb
from sonant.sources.world.narration import narrate

Stream = Literal["story", "sound", "picture"]
_STREAMS: dict[Stream, int] = {"story": 0, "sound": 1, "picture": 2}
_NAMES = tuple(VERBS)
_SHARES = np.array([verb.share for verb in VERBS.values()])
_HEARD = np.array([verb.share * verb.sounds for verb in VERBS.values()])


def random(seed: int, index: int, stream: Stream) -> np.random.Generator:
    """The numbers of one purpose in one video of one world."""
    return np.random.default_rng([seed, index, _STREAMS[stream]])


@dataclass(frozen=True)
class Act:
    """Somebody does something to a thing.

    Args:
        moment: when it counts, in seconds of the video: the fall, the thud, the first stroke's end.
        begin: when it starts; `end` likewise.
        rate: strokes per second; 0 for what is done once or steadily.
        amplitude: size of the movement, 1 on average.
        vigour: in standard deviations.
        level: of its sound, in dB; None if it makes none.
        x: place on the table, from 0 (left, top) to 1; `y` likewise.
        side: -1 if the hand comes from the left, 1 if from the right.
    """

    verb: Verb
    thing: Thing
    moment: float
    begin: float
    end: float
    rate: float
    amplitude: float
    vigour: float
    level: float | None
    x: float
    y: float
    side: int


@dataclass(frozen=True)
class Noise:
    """A clutter sound: its kind, when it starts, its level in dB."""

    kind: str
    begin: float
    level: float


@dataclass(frozen=True)
class Moment:
    """One narrated moment of a video.

    Args:
        time: what the narration is stamped with, in seconds: `shift` after it happened.
        text: the narration.
        told_verb: what the narration says, and `told_thing`; wrong if it is not what `act` is.
        act: what was done.
        seen: whether it is done before the camera; if not, a silent `decoy` may be.
        elsewhere: another action, off screen, that is heard.
        clutter: another sound nearby.
        distractor_seen: the video's distractor is on screen; `distractor_on`: it runs.
        distractor_level: of it in dB, if it runs.
        gain: of the recorder, in dB.
        shake: of the camera; 1 is usual. `look` is where it points, around (0, 0).
    """

    time: float
    shift: float
    text: str
    told_verb: Verb
    told_thing: Thing
    act: Act
    seen: bool
    decoy: Act | None
    elsewhere: Act | None
    clutter: Noise | None
    distractor_seen: bool
    distractor_on: bool
    distractor_level: float
    gain: float
    shake: float
    look: tuple[float, float]

    @property
    def happened(self) -> float:
        """The true time, in seconds."""
        return self.time - self.shift

    @property
    def wrong(self) -> bool:
        """Whether the narration tells of another action."""
        return (self.told_verb, self.told_thing) != (self.act.verb, self.act.thing)


@dataclass(frozen=True)
class Story:
    """A video before it is rendered; `duration` in seconds, `ambience` in dB or None."""

    seed: int
    index: int
    scene: Scene
    distractor: str
    ambience: float | None
    moments: tuple[Moment, ...]
    duration: float
    sync: bool

    def random(self, stream: Stream) -> np.random.Generator:
        """The numbers of one purpose in this video."""
        return random(self.seed, self.index, stream)


def story(seed: int, index: int, *, sync: bool = True) -> Story:
    """Draw the video `index` of the world `seed`; without `sync` its sounds keep another time."""
    rng = random(seed, index, "story")
    scene = SCENES[rng.integers(len(SCENES))]
    count = int(rng.integers(laws.NARRATIONS[0], laws.NARRATIONS[1] + 1))
    times = laws.LEAD + np.cumsum(rng.uniform(*laws.SPACING, count)) - laws.SPACING[0]
    seen = _stretches(rng, count, laws.DISTRACTOR_SEEN)
    on = _stretches(rng, count, laws.DISTRACTOR_ON)
    on_unseen = _stretches(rng, count, laws.DISTRACTOR_UNSEEN)
    running = np.where(seen, on, on_unseen)
    distractor_db = float(rng.normal(laws.DISTRACTOR_DB, laws.DISTRACTOR_SPREAD))
    moments: list[Moment] = []
    for time, visible, runs in zip(times, seen, running, strict=True):
        before = moments[-1] if moments else None
        moments.append(_moment(rng, scene, float(time), before, visible, bool(runs), distractor_db))
    ambience = rng.normal(laws.AMBIENCE_DB + scene.hum, laws.AMBIENCE_SPREAD)
    return Story(
        seed,
        index,
        scene,
        laws.DISTRACTORS[rng.integers(len(laws.DISTRACTORS))],
        float(ambience) if rng.random() < laws.AMBIENCE_CHANCE else None,
        tuple(moments),
        float(np.ceil((times[-1] + laws.TAIL) * laws.FPS) / laws.FPS),
        sync,
    )


def _stretches(rng: np.random.Generator, count: int, share: float) -> list[bool]:
    """A state that holds for `share` of the time and outlasts a step with chance `STAY`."""
    draws = rng.random(count) < share
    kept = rng.random(count) < laws.DISTRACTOR_STAY
    states: list[bool] = []
    for draw, keep in zip(draws, kept, strict=True):
        states.append(states[-1] if states and keep else bool(draw))
    return states


def _moment(
    rng: np.random.Generator,
    scene: Scene,
    time: float,
    before: Moment | None,
    distractor_seen: bool,
    distractor_on: bool,
    distractor_db: float,
) -> Moment:
    verb = VERBS[_pick(rng, _NAMES, _SHARES)]
    act = _act(rng, scene, verb, time)
    seen = rng.random() < verb.seen
    decoy = None
    if not seen and rng.random() < laws.DECOY:
        decoy = _act(rng, scene, VERBS[_pick(rng, _NAMES[:-1], _SHARES[:-1])], time, silent=True)
    told = (verb, act.thing)
    if rng.random() < laws.WRONG_NARRATION:
        told = _another(rng, scene, verb)
    shift = 0.0
    if before is not None and before.shift == 0 and rng.random() < laws.WRONG_TIME:
        shift = float(rng.choice([-1, 1]) * rng.uniform(*laws.SHIFT))
    return Moment(
        time=round(time + shift, 3),
        shift=shift,
        text=narrate(rng, *told),
        told_verb=told[0],
        told_thing=told[1],
        act=act,
        seen=bool(seen),
        decoy=decoy,
        elsewhere=_elsewhere(rng, scene, act, time),
        clutter=_clutter(rng, time),
        distractor_seen=distractor_seen,
        distractor_on=distractor_on,
        distractor_level=float(rng.normal(distractor_db, laws.DISTRACTOR_WANDER)),
        gain=float(rng.normal(0, laws.GAIN_SPREAD)),
        shake=float(np.exp(rng.uniform(*np.log(laws.SHAKE)))),
        look=(float(rng.normal(0, 0.05)), float(rng.normal(0, 0.04))),
    )


def _act(
    rng: np.random.Generator, scene: Scene, verb: Verb, time: float, *, silent: bool = False
) -> Act:
    vigour = float(rng.normal())
    logit = np.log(verb.sounds / (1 - verb.sounds)) + laws.VIGOUR_LOGIT * vigour
    sounds = rng.random() < 1 / (1 + np.exp(-logit))
    level = rng.normal(laws.ACTION_DB + verb.level, laws.ACTION_SPREAD) + laws.VIGOUR_DB * vigour
    rate = rng.uniform(*verb.rates)
    spread = 0.5 / rate if rate else 0.25
    return Act(
        verb=verb,
        thing=_thing(rng, scene, verb),
        moment=time + float(rng.uniform(-spread, spread)) + 0.25,
        begin=time - float(rng.uniform(0.35, 0.55)),
        end=time + float(rng.uniform(0.9, 1.1)),
        rate=float(rate),
        amplitude=float(np.exp(0.12 * vigour + rng.normal(0, 0.08))),
        vigour=vigour,
        level=float(level) if sounds and not silent else None,
        x=float(rng.uniform(0.38, 0.62)),
        y=float(rng.uniform(0.52, 0.64)),
        side=int(rng.choice([-1, 1])),
    )


def _thing(rng: np.random.Generator, scene: Scene, verb: Verb) -> Thing:
    """A thing that the scene has, if the verb has one there; Zipf over the verb's list."""
    ranks = np.arange(1, len(verb.things) + 1)
    here = np.array([scene.name[0] in THINGS[name].scenes for name in verb.things])
    weights = np.where(here, 1.0, 0.0 if here.any() else 1.0) / ranks
    return THINGS[_pick(rng, verb.things, weights)]


def _another(rng: np.random.Generator, scene: Scene, verb: Verb) -> tuple[Verb, Thing]:
    """Another action than the one that was done, as often as it is done."""
    shares = np.where(np.array(_NAMES) == verb.name, 0.0, _SHARES)
    other = VERBS[_pick(rng, _NAMES, shares)]
    return other, _thing(rng, scene, other)


def _elsewhere(rng: np.random.Generator, scene: Scene, act: Act, time: float) -> Act | None:
    """Someone's action off screen: it sounds, and says nothing of whether the narrated one does."""
    silent = act.level is None
    if rng.random() >= (laws.OFFSCREEN_IF_SILENT if silent else laws.OFFSCREEN_IF_SOUNDING):
        return None
    name = _pick(rng, _NAMES, _HEARD)
    while name == act.verb.name and rng.random() >= laws.SAME_VERB_KEPT:
        name = _pick(rng, _NAMES, _HEARD)
    other = _act(rng, scene, VERBS[name], time)
    while other.level is None:
        other = _act(rng, scene, VERBS[name], time)
    return other


def _clutter(rng: np.random.Generator, time: float) -> Noise | None:
    if rng.random() >= laws.CLUTTER:
        return None
    kind = laws.CLUTTERS[rng.integers(len(laws.CLUTTERS))]
    level = rng.normal(laws.CLUTTER_DB, laws.CLUTTER_SPREAD)
    return Noise(kind, time + float(rng.uniform(-0.6, 0.8)), float(level))


def _pick(rng: np.random.Generator, names: Sequence[str], weights: np.ndarray) -> str:
    total = np.cumsum(weights)
    return names[int(np.searchsorted(total, rng.random() * total[-1], side="right"))]
