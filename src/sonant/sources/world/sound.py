"""What is heard: every source is a stem of its own, so that truth can be measured, not declared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from scipy import fft

from sonant.sources.world import laws, motion
from sonant.sources.world.laws import RATE, Material
from sonant.sources.world.story import Act, Moment, Noise, Story

Array = np.ndarray[Any, np.dtype[Any]]

BANDS = (125, 250, 500, 1000, 2000, 4000, 6500)
"""Centres of the noise bands, in Hz."""
_BANK = 1 << 19
_RING = 45_000
"""Samples of the transform that adds reverberation: a voice and its tail."""
_EARLY, _LATE = 0.1, 0.7
"""Seconds of a voice before its act begins and after it ends."""


@dataclass(frozen=True)
class Stem:
    """A sound and the sample at which it starts; its level in dB is that of its loudest 50 ms."""

    start: int
    samples: Array

    def window(self, start: int, length: int) -> Array:
        """The part [start, start + length) of the timeline, zero where the stem is silent."""
        out = np.zeros(length, np.float32)
        low, high = max(start, self.start), min(start + length, self.start + len(self.samples))
        if low < high:
            out[low - start : high - start] = self.samples[low - self.start : high - self.start]
        return out


@dataclass(frozen=True)
class Soundtrack:
    """All stems of a video, [samples] each where they last throughout; lists follow `moments`.

    `total` is their sum; `mix` is what the recorder makes of it.
    """

    acts: tuple[Stem | None, ...]
    elsewhere: tuple[Stem | None, ...]
    clutter: tuple[Stem | None, ...]
    distractor: Array
    ambience: Array
    total: Array
    mix: Array


def soundtrack(story: Story) -> Soundtrack:
    """Everything that sounds in a video, at `laws.RATE`."""
    rng = story.random("sound")
    room = _room(rng, story.scene.reverberation)
    length = round(story.duration * RATE)
    acts, elsewhere, clutter = [], [], []
    for moment in story.moments:
        heard = moment.act if story.sync else _out_of_time(rng, moment)
        acts.append(_act(rng, heard, room))
        elsewhere.append(_act(rng, moment.elsewhere, room) if moment.elsewhere else None)
        clutter.append(_noise(rng, moment.clutter, room) if moment.clutter else None)
    distractor = _distractor(rng, story, length)
    ambience = _ambience(rng, story, length)
    total = distractor + ambience
    for stem in (*acts, *elsewhere, *clutter):
        if stem is not None:
            low, high = max(stem.start, 0), min(stem.start + len(stem.samples), length)
            total[low:high] += stem.samples[low - stem.start : high - stem.start]
    mix = np.tanh(total * _gain(story, length))
    return Soundtrack(
        tuple(acts), tuple(elsewhere), tuple(clutter), distractor, ambience, total, mix
    )


def decibels(samples: Array) -> float:
    """Level of a sound in dB of full scale; -120 at least."""
    return float(10 * np.log10(np.mean(np.square(samples)) + 1e-12))


# ---------------------------------------------------------------------------------- building blocks


@cache
def _bank() -> Array:
    """Noise of unit power in each band [bands, samples]: the same in every process."""
    rng = np.random.default_rng(1)
    frequencies = np.fft.rfftfreq(_BANK, 1 / RATE)
    octaves = np.log2(np.maximum(frequencies, 1)[None] / np.array(BANDS)[:, None])
    spectrum = rng.normal(size=octaves.shape[1]) + 1j * rng.normal(size=octaves.shape[1])
    bands = fft.irfft(spectrum * np.exp(-2.5 * octaves**2), _BANK, axis=1)
    return np.asarray(bands / bands.std(axis=1, keepdims=True), np.float32)


def _hiss(rng: np.random.Generator, length: int, weights: Sequence[float]) -> Array:
    """Noise with these weights of the bands."""
    start = int(rng.integers(_BANK - length))
    out = np.zeros(length, np.float32)
    for weight, band in zip(weights, _bank(), strict=True):
        if weight:
            out += np.float32(weight) * band[start : start + length]
    return out


_MODES: dict[Material, tuple[tuple[float, ...], float, float, float]] = {
    "metal": ((1.0, 2.76, 5.40, 8.93), 620.0, 0.16, 0.3),
    "glass": ((1.0, 2.32, 4.25), 1500.0, 0.10, 0.3),
    "ceramic": ((1.0, 2.12, 3.71, 5.3), 900.0, 0.06, 0.5),
    "wood": ((1.0, 1.92, 3.1, 4.4), 280.0, 0.035, 0.8),
    "plastic": ((1.0, 1.63, 2.5), 430.0, 0.025, 0.9),
    "soft": ((1.0, 1.5), 110.0, 0.03, 1.0),
}
"""Overtones, lowest mode in Hz, decay time in s, and share of noise in an impact."""


def _hit(rng: np.random.Generator, material: Material, pitch: float = 1.0) -> Array:
    """One impact on a thing of this material, peak about 1."""
    overtones, lowest, decay, noise = _MODES[material]
    t = np.arange(int(min(6 * decay, 0.5) * RATE), dtype=np.float32) / RATE
    base = lowest * pitch * float(np.exp(rng.normal(0, 0.18)))
    out = noise * _hiss(rng, len(t), (0.3, 0.4, 0.5, 0.5, 0.3, 0.2, 0.1)) * np.exp(-t / 0.012)
    for order, overtone in enumerate(overtones):
        if base * overtone < RATE / 2.2:
            fade = np.exp(-t * ((1 + 0.6 * order) / decay))
            out += fade * np.sin(2 * np.pi * base * overtone * t) / (1 + 0.5 * order)
    return np.asarray(out, np.float32)


def _click(rng: np.random.Generator, seconds: float, weights: Sequence[float]) -> Array:
    """A burst of noise that dies away in so many seconds."""
    length = int(5 * seconds * RATE)
    fade = np.exp(-np.arange(length, dtype=np.float32) / (seconds * RATE))
    click: Array = _hiss(rng, length, weights) * fade
    return click


def _put(out: Array, at: float, what: Array, gain: float = 1.0) -> None:
    """Add a sound to a voice, so many seconds after the voice's start."""
    start = int(at * RATE)
    if 0 <= start < len(out):
        part = what[: len(out) - start]
        out[start : start + len(part)] += np.float32(gain) * part


@cache
def _speakers() -> Array:
    """Four people talking for 12 s, unit power [people, samples]: syllables of vowels."""
    rng = np.random.default_rng(2)
    length = 12 * RATE
    t = np.arange(length) / RATE
    vowels = np.array([[700, 1200], [300, 2300], [500, 1800], [400, 800], [350, 1100]])
    out = np.zeros((4, length))
    for voice, pitch in zip(out, (105, 130, 190, 230), strict=True):
        edges = np.cumsum(rng.uniform(0.13, 0.30, 120))
        edges = edges[edges < 12]
        syllable = np.searchsorted(edges, t)
        formants = vowels[rng.integers(len(vowels), size=len(edges) + 1)][syllable]
        bend = rng.normal(0, 0.08, len(edges) + 1)[syllable]
        angle = 2 * np.pi * np.cumsum(pitch * (1 + bend + 0.03 * np.sin(9 * t))) / RATE
        loud = rng.choice([0, 0.7, 1, 1], len(edges) + 1)[syllable]
        soft = np.abs(np.sin(np.pi * np.interp(t, [0, *edges], np.arange(len(edges) + 1))))
        for harmonic in range(1, 22):
            away = harmonic * pitch - formants
            gain = np.exp(-((away / 170) ** 2)).sum(1) + 0.25 / harmonic
            voice += gain * np.sin(harmonic * angle)
        voice *= loud * np.sqrt(soft)
    return np.asarray(out / out.std(axis=1, keepdims=True), np.float32)


def _speech(rng: np.random.Generator, length: int) -> Array:
    voices = _speakers()
    start = int(rng.integers(voices.shape[1] - length))
    return voices[rng.integers(len(voices)), start : start + length].copy()


# ------------------------------------------------------------------------------- voices of the acts


def _wash(rng: np.random.Generator, act: Act, t: Array, out: Array) -> None:
    flow = 0.45 + 0.55 * np.abs(np.sin(motion.phase(act, t) / 2))
    out += _hiss(rng, len(t), (0, 0, 0.1, 0.4, 0.8, 0.9, 0.7)) * flow
    for _ in range(int(rng.integers(6, 14))):
        at, pitch = rng.uniform(0, t[-1] - t[0]), rng.uniform(500, 1400)
        s = np.arange(800, dtype=np.float32) / RATE
        _put(out, at, np.sin(2 * np.pi * pitch * s * (1 + 9 * s)) * np.exp(-s * 70), 2.2)


def _close(rng: np.random.Generator, act: Act, t: Array, out: Array) -> None:
    since = t - act.moment + motion.SWING
    moving = (since > 0) & (since < motion.SWING)
    pitch = rng.uniform(380, 700)
    creak = np.sign(np.sin(2 * np.pi * pitch * since * (1 + 0.5 * since))) * moving
    out += 0.10 * creak * np.abs(np.sin(2 * np.pi * 11 * since))
    at = act.moment - t[0]
    _put(out, at, _hit(rng, act.thing.material, 0.5), 1.0)
    _put(out, at, _click(rng, 0.06, (1.2, 1, 0.8, 0.5, 0.3, 0.2, 0.1)), 1.2)
    _put(out, at + 0.11, _click(rng, 0.010, (0, 0, 0, 0.5, 1, 1, 0.6)), 0.8)


def _cut(rng: np.random.Generator, act: Act, t: Array, out: Array) -> None:
    knock = _hit(rng, "wood", 1.9)
    for at in motion.strokes(act):
        crunch = _click(rng, 0.030, (0, 0, 0, 0.3, 0.8, 1, 0.7))
        _put(out, at - t[0] - 0.07, crunch[::-1][-int(0.08 * RATE) :], 0.5)
        _put(out, at - t[0], knock, float(rng.uniform(0.8, 1.2)))


def _drop(rng: np.random.Generator, act: Act, t: Array, out: Array) -> None:
    at = act.moment - t[0]
    body = _hit(rng, act.thing.material)
    for after, gain in ((0.0, 1.0), *motion.BOUNCES):
        _put(out, at + after, body, gain)
    _put(out, at, _click(rng, 0.02, (1.2, 0.8, 0.4, 0, 0, 0, 0)), 0.8)


def _stir(rng: np.random.Generator, act: Act, t: Array, out: Array) -> None:
    clink = _hit(rng, "ceramic" if act.thing.material == "soft" else act.thing.material, 2.4)
    for offset, gain in ((0.0, 1.0), (0.3, 0.7)):
        for at in motion.strokes(act, offset=offset):
            _put(out, at - t[0], clink, gain * float(rng.uniform(0.8, 1.2)))
    swirl = 0.5 + 0.5 * np.cos(motion.phase(act, t))
    out += 0.10 * _hiss(rng, len(t), (0, 0.3, 1, 0.6, 0, 0, 0)) * swirl


def _wipe(rng: np.random.Generator, act: Act, t: Array, out: Array) -> None:
    speed = np.abs(np.sin(motion.phase(act, t))) ** 1.5
    out += _hiss(rng, len(t), (0, 0.5, 1, 1, 0.4, 0.1, 0)) * speed


def _rub(rng: np.random.Generator, act: Act, t: Array, out: Array) -> None:
    speed = np.abs(np.sin(motion.phase(act, t))) ** 2
    grain = 0.6 + 0.4 * np.sign(np.sin(2 * np.pi * 70 * t))
    out += _hiss(rng, len(t), (0, 0, 0, 0.1, 0.5, 1, 0.9)) * speed * grain


def _touch(rng: np.random.Generator, act: Act, t: Array, out: Array) -> None:
    tap = _hit(rng, act.thing.material, 0.8)
    for at in motion.strokes(act):
        _put(out, at - t[0], tap, 0.6)
        _put(out, at - t[0], _click(rng, 0.012, (1.5, 1, 0.3, 0, 0, 0, 0)), 1.0)


def _lift(rng: np.random.Generator, act: Act, t: Array, out: Array) -> None:
    at = act.moment - t[0]
    slide = np.clip((t - act.moment + 0.35) / 0.35, 0, 1) * (t < act.moment)
    out += 0.6 * _hiss(rng, len(t), (0.2, 0.8, 1, 0.5, 0.2, 0, 0)) * slide
    _put(out, at, _hit(rng, act.thing.material, 1.3), 0.8)


def _hold(rng: np.random.Generator, act: Act, t: Array, out: Array) -> None:
    for at in np.sort(rng.uniform(0.1, t[-1] - t[0] - 0.6, 14)):
        crackle = _click(rng, 0.006, (0, 0, 0.2, 0.6, 1, 0.6, 0.3))
        _put(out, float(at), crackle, float(rng.uniform(0.3, 1)))


def _pour(rng: np.random.Generator, act: Act, t: Array, out: Array) -> None:
    flow = motion.tilted(act, t - 0.15)
    rising = 420 + 500 * np.clip((t - act.begin) / (act.end - act.begin), 0, 1)
    angle = 2 * np.pi * np.cumsum(rising * (1 + 0.25 * _slow(rng, t, 14))) / RATE
    out += flow * (np.sin(angle) * (0.6 + 0.5 * _slow(rng, t, 18)))
    out += flow * 0.35 * _hiss(rng, len(t), (0, 0.2, 0.6, 0.8, 0.5, 0.2, 0))


def _hammer(rng: np.random.Generator, act: Act, t: Array, out: Array) -> None:
    ring, thud = _hit(rng, "metal", 1.8), _click(rng, 0.02, (1, 1.2, 1, 0.8, 0.5, 0.3, 0.2))
    for at in motion.strokes(act):
        _put(out, at - t[0], ring, 0.8)
        _put(out, at - t[0], thud, 1.2)


def _turn(rng: np.random.Generator, act: Act, t: Array, out: Array) -> None:
    speed = np.abs(np.sin(motion.phase(act, t)))
    click = _click(rng, 0.004, (0, 0, 0, 0.6, 1, 0.7, 0.2))
    for at in np.arange(act.begin, act.end, 0.055):
        fast = float(np.abs(np.sin(motion.phase(act, np.asarray(at)))))
        if fast > 0.45:
            _put(out, at - t[0], click, fast)
    squeak = np.sin(2 * np.pi * np.cumsum(1500 + 500 * speed) / RATE)
    out += 0.12 * squeak * np.clip(speed - 0.5, 0, 1) * 2


def _talk(rng: np.random.Generator, act: Act, t: Array, out: Array) -> None:
    out += _speech(rng, len(t))


_VOICES: dict[str, Callable[[np.random.Generator, Act, Array, Array], None]] = {
    "wash": _wash, "close": _close, "cut": _cut, "drop": _drop, "stir": _stir, "wipe": _wipe,
    "rub": _rub, "touch": _touch, "lift": _lift, "hold": _hold, "pour": _pour, "hammer": _hammer,
    "turn": _turn, "talk": _talk,
}  # fmt: skip


def _act(rng: np.random.Generator, act: Act, room: Array) -> Stem | None:
    """The stem of an act, with its room; None if it makes no sound."""
    if act.level is None:
        return None
    start = act.begin - _EARLY
    length = int((act.end - start + _LATE) * RATE)
    t = start + np.arange(length) / RATE
    voice = np.zeros(length, np.float32)
    _VOICES[act.verb.name](rng, act, t, voice)
    voice *= motion.presence(act, t - 0.1) > 0.02 if act.rate else 1.0
    return Stem(round(start * RATE), _levelled(_ringing(voice, room), act.level))


def _out_of_time(rng: np.random.Generator, moment: Moment) -> Act:
    """The act with a sound of the same kind that keeps another time."""
    act = moment.act
    rate = rng.uniform(*act.verb.rates)
    spread = 0.5 / rate if rate else 0.25
    return replace(act, rate=rate, moment=moment.happened + rng.uniform(-spread, spread) + 0.25)


# --------------------------------------------------------------------------------- everything else


def _slow(rng: np.random.Generator, t: Array, rate: float) -> Array:
    """A random course within -1 to 1 that changes so many times a second."""
    knots = rng.uniform(-1, 1, int((t[-1] - t[0]) * rate) + 3)
    return np.asarray(np.interp((t - t[0]) * rate, np.arange(len(knots)), knots))


def _noise(rng: np.random.Generator, noise: Noise, room: Array) -> Stem:
    """A clutter sound of about 1.2 s."""
    length = int(1.3 * RATE)
    t = np.arange(length) / RATE
    out = np.zeros(length, np.float32)
    _CLUTTERS[noise.kind](rng, t, out)
    out *= np.minimum(1, (t[-1] - t) / 0.1)
    return Stem(round(noise.begin * RATE), _levelled(_ringing(out, room), noise.level))


def _chatter(rng: np.random.Generator, t: Array, out: Array) -> None:
    out += _speech(rng, len(t))


def _footsteps(rng: np.random.Generator, t: Array, out: Array) -> None:
    for at in np.arange(rng.uniform(0, 0.4), 1.2, rng.uniform(0.42, 0.6)):
        _put(out, at, _click(rng, 0.03, (1.5, 1, 0.4, 0.2, 0.1, 0, 0)))
        _put(out, at + 0.05, _click(rng, 0.015, (0, 0.3, 0.5, 0.5, 0.3, 0.1, 0)), 0.5)


def _bark(rng: np.random.Generator, t: Array, out: Array) -> None:
    pitch = rng.uniform(350, 650)
    for at in np.arange(rng.uniform(0, 0.2), 1.0, rng.uniform(0.3, 0.5)):
        s = np.arange(int(0.16 * RATE)) / RATE
        angle = 2 * np.pi * np.cumsum(pitch * (1.2 - 2 * s)) / RATE
        burst = sum(np.sin(k * angle) / k for k in range(1, 6)) * np.sin(np.pi * s / 0.16)
        _put(out, at, np.asarray(burst, np.float32))


def _clatter(rng: np.random.Generator, t: Array, out: Array) -> None:
    materials: tuple[Material, ...] = ("metal", "glass", "ceramic", "wood", "plastic")
    for _ in range(int(rng.integers(2, 6))):
        hit = _hit(rng, materials[rng.integers(len(materials))])
        _put(out, rng.uniform(0, 1.0), hit, rng.uniform(0.4, 1))


def _beat(rng: np.random.Generator, t: Array, out: Array) -> None:
    step = rng.uniform(0.22, 0.3)
    for number, at in enumerate(np.arange(0, 1.2, step)):
        if number % 2:
            _put(out, at, _click(rng, 0.02, (0, 0, 0, 0.2, 0.6, 1, 1)), 0.7)
        else:
            _put(out, at, _click(rng, 0.06, (2, 1, 0, 0, 0, 0, 0)))
    tone = 220 * 2 ** (rng.integers(12) / 12)
    out += np.asarray(0.2 * np.sign(np.sin(2 * np.pi * tone * t)), np.float32)


def _rustle(rng: np.random.Generator, t: Array, out: Array) -> None:
    course = np.clip(_slow(rng, t, 12), 0, 1)
    out += _hiss(rng, len(t), (0, 0, 0.1, 0.5, 1, 1, 0.6)) * course


_CLUTTERS: dict[str, Callable[[np.random.Generator, Array, Array], None]] = {
    "speech": _chatter, "footsteps": _footsteps, "bark": _bark, "clatter": _clatter,
    "beat": _beat, "rustle": _rustle,
}  # fmt: skip


def _distractor(rng: np.random.Generator, story: Story, length: int) -> Array:
    """The distractor's sound throughout the video, while it runs."""
    loop = _running(rng, story.distractor)
    surge = laws.DISTRACTOR_SURGE * _slow(rng, np.arange(len(loop)) / RATE, laws.SURGES)
    loop *= np.asarray(10 ** (surge / 20), np.float32)
    loop /= loop.std()
    happened = [moment.happened for moment in story.moments]
    edges = [0.0, *(b - 1.0 for b in happened[1:]), story.duration]
    gate = np.zeros(length, np.float32)
    for moment, low, high in zip(story.moments, edges[:-1], edges[1:], strict=True):
        if moment.distractor_on:
            gate[round(low * RATE) : round(high * RATE)] = 10 ** (moment.distractor_level / 20)
    return np.resize(loop, length) * gate


def _running(rng: np.random.Generator, kind: str) -> Array:
    """Eight seconds of a distractor."""
    t = np.arange(8 * RATE) / RATE
    base = float(rng.uniform(0.9, 1.1))
    if kind == "fan":
        blades = 1 + 0.3 * np.sin(2 * np.pi * round(22 * base) * t)
        out = _hiss(rng, len(t), (1, 1, 0.9, 0.8, 0.6, 0.45, 0.3)) * blades
        out += 0.5 * np.sin(2 * np.pi * round(90 * base) * t)
    elif kind == "tv":
        notes = 110 * 2 ** (rng.integers(0, 24, 32) / 12)
        out = _speech(rng, len(t)) + 0.4 * np.sin(2 * np.pi * notes[(t * 4).astype(int)] * t)
        out += 0.25 * _hiss(rng, len(t), (0, 0, 0.4, 0.8, 1, 0.8, 0.6))
    elif kind == "machine":
        turns = round(48 * base)
        out = sum(np.sin(2 * np.pi * turns * k * t + k * k) / k**0.7 for k in range(1, 16))
        out = out * 0.5 + _hiss(rng, len(t), (0.3, 0.5, 0.7, 0.7, 0.7, 0.5, 0.4))
    elif kind == "tap":
        out = _hiss(rng, len(t), (0.1, 0.2, 0.4, 0.7, 1, 1, 0.9))
    else:
        rumble = _hiss(rng, len(t), (2, 1.6, 1.0, 0.6, 0.4, 0.25, 0.15))
        out = rumble * (1 + 0.4 * np.sin(2 * np.pi * round(13 * base) * t))
    return np.asarray(out, np.float32)


def _ambience(rng: np.random.Generator, story: Story, length: int) -> Array:
    """The hum of the place and the microphone's own noise."""
    weights = [(band / 1000) ** story.scene.tilt for band in BANDS]
    out = _hiss(rng, 16 * RATE, weights)
    level = -200.0 if story.ambience is None else story.ambience
    out *= np.float32(10 ** (level / 20) / out.std())
    own = _hiss(rng, 16 * RATE, (1, 1, 1, 1, 1, 1, 1))
    out += own * np.float32(10 ** (laws.NOISE_DB / 20) / own.std())
    return np.resize(out, length)


def _room(rng: np.random.Generator, seconds: float) -> Array:
    """Spectrum of a room's impulse response, reverberant for so many seconds."""
    length = int(min(seconds, 0.4) * RATE)
    t = np.arange(length) / RATE
    tail = rng.normal(size=length) * np.exp(-6.9 * t / seconds)
    tail *= 0.35 / np.sqrt(np.sum(tail**2))
    tail[0] = 1.0
    return np.asarray(fft.rfft(tail.astype(np.float32), _RING), np.complex64)


def _ringing(dry: Array, room: Array) -> Array:
    spectrum = fft.rfft(dry, _RING)
    spectrum *= room
    return np.asarray(fft.irfft(spectrum, _RING)[: len(dry)], np.float32)


def _levelled(samples: Array, level: float) -> Array:
    """Scaled so that its loudest 50 ms are at `level` dB."""
    frame = RATE // 20
    energy = np.square(samples[: len(samples) // frame * frame]).reshape(-1, frame).mean(1)
    return samples * np.float32(10 ** (level / 20) / np.sqrt(energy.max() + 1e-12))


def _gain(story: Story, length: int) -> Array:
    """The recorder's automatic gain, from one action to the next."""
    t = np.arange(0, length + 1600, 1600) / RATE
    times = [moment.happened for moment in story.moments]
    course = np.interp(t, times, [_moment_gain(moment) for moment in story.moments])
    fine = np.interp(np.arange(length), t * RATE, 10 ** (course / 20))
    return np.asarray(fine, np.float32)


def _moment_gain(moment: Moment) -> float:
    excess = max(0.0, moment.distractor_level - laws.GAIN_KNEE) if moment.distractor_on else 0.0
    return moment.gain - laws.GAIN_SLOPE * excess
