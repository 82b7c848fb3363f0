"""Learning rates over a stage."""

import math


def learning_rate(step: int, *, steps: int, peak: float, warmup: float) -> float:
    """A straight rise to `peak` over the first part of a stage, then half a cosine down to zero.

    Args:
        step: of this stage, from 0.
        steps: of this stage in all.
        peak: the highest rate.
        warmup: the share of steps that rise, 0 to 1.
    """
    rising = warmup * steps
    if step < rising:
        return peak * (step + 1) / (rising + 1)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1.0, steps - rising)))
