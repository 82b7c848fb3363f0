"""How the actions move: one description that both pictures and sounds follow.

Times are seconds of the video, lengths are fractions of the frame.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sonant.sources.world.story import Act

Array = np.ndarray[Any, np.dtype[Any]]

EASE = 0.22
"""Seconds in which a hand comes and goes."""
FALL = 0.26
"""Seconds from letting go to the first impact; `BOUNCES` follow it, with their heights."""
BOUNCES = ((0.17, 0.5), (0.30, 0.28), (0.38, 0.15))
SWING = 0.45
"""Seconds in which something is shut, ending at the moment."""
RAISE = 0.7
"""Seconds in which something is lifted, beginning at the moment."""


def presence(act: Act, t: Array) -> Array:
    """0 while the hand is away, 1 while it is there, smooth between."""
    x = np.clip(np.minimum(t - act.begin, act.end - t) / EASE + 1, 0, 1)
    return x * x * (3 - 2 * x)


def phase(act: Act, t: Array) -> Array:
    """Angle of the stroke, in radians; a whole number of turns when a stroke ends."""
    return 2 * np.pi * act.rate * (t - act.moment)


def strokes(act: Act, per_turn: float = 1.0, offset: float = 0.0) -> list[float]:
    """Times at which strokes end, `offset` turns later, while the hand is there."""
    step = 1 / (act.rate * per_turn)
    first = act.moment + offset / act.rate
    low = int(np.ceil((act.begin - first) / step))
    return [first + k * step for k in range(low, int((act.end - first) / step) + 1)]


def height(act: Act, t: Array) -> Array:
    """Of a tool that comes down once per stroke: 1 at the top, 0 at the stroke's end."""
    return np.sqrt((1 - np.cos(phase(act, t))) / 2)


def fallen(act: Act, t: Array) -> Array:
    """Height of a dropped thing: 1 in the hand, 0 on the table, with bounces."""
    since = t - act.moment
    y = np.clip(1 - ((since + FALL) / FALL) ** 2, 0, 1) * (since < 0)
    y = np.where(since < -FALL, 1.0, y)
    start = 0.0
    for end, top in BOUNCES:
        x = (since - start) / (end - start)
        y = np.where((x >= 0) & (x < 1), top * 0.8 * 4 * x * (1 - x), y)
        start = end
    return y


def shut(act: Act, t: Array) -> Array:
    """0 while open, 1 from the moment on."""
    x = np.clip((t - act.moment) / SWING + 1, 0, 1)
    return x**2


def raised(act: Act, t: Array) -> Array:
    """0 on the table, 1 at the top."""
    x = np.clip((t - act.moment) / RAISE, 0, 1)
    return x * x * (3 - 2 * x)


def tilted(act: Act, t: Array) -> Array:
    """0 upright, 1 pouring."""
    return np.clip(np.minimum(t - act.begin, act.end - t) / 0.25, 0, 1)
