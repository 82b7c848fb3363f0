"""Sound to log-mel spectrograms, as the models that read them expect."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np

from sonant.errors import UsageError

Array = np.ndarray[Any, np.dtype[np.float32]]

AST_RATE = 16_000
AST_BINS = 128
AST_WINDOW = AST_RATE * 25 // 1000
AST_SHIFT = AST_RATE * 10 // 1000
AST_FFT = 1 << (AST_WINDOW - 1).bit_length()
AST_LOW = 20.0
AST_HIGH = AST_RATE / 2
AST_PREEMPHASIS = 0.97
AST_MEAN = -4.2677393
AST_DEVIATION = 4.5689974
"""Mean and deviation of AudioSet's log-mel values, from AST's own recipe."""
FLOOR = float(np.finfo(np.float32).eps)
SPECS = ("ast",)
FILTER_REACH = 10
"""Samples of the lower rate that the resampling filter spans to either side."""


def log_mel(samples: Array, rate: int, spec: str = "ast") -> Array:
    """Log-mel spectrogram as AST's (Gong, Chung, Glass 2021), before its normalisation.

    Kaldi's filter bank without dither or energy: the mean of the whole wave is taken off, then each
    25 ms window (every 10 ms, none beyond the end) loses its own mean, is pre-emphasised by 0.97,
    shaped by a Hann window, and summed over 128 triangles on the mel scale from 20 Hz to 8 kHz.
    1.5 s give 148 frames. Another rate is first brought to 16 kHz by `resample`.

    Args:
        samples: mono sound [n] within -1 to 1.
        rate: samples per second.
        spec: the front end; only `ast` there is.

    Returns:
        Natural logarithms of mel energies, float32 [1 + (n - 400) // 160, 128] at 16 kHz.

    Raises:
        UsageError: an unknown front end, less than 25 ms of sound, or samples that are no numbers.
    """
    if spec not in SPECS:
        raise UsageError(f"no front end {spec!r} for sound; there is {', '.join(SPECS)}")
    wave = np.asarray(samples, np.float32)
    if wave.ndim != 1:
        raise UsageError(f"sound must be mono, of shape [samples], not {list(wave.shape)}")
    if not np.isfinite(wave).all():
        raise UsageError(f"{int((~np.isfinite(wave)).sum())} of {wave.size} samples are no numbers")
    if rate != AST_RATE:
        wave = resample(wave, rate, AST_RATE)
    if wave.size < AST_WINDOW:
        raise UsageError(
            f"{wave.size} samples at {AST_RATE} Hz are shorter than one window of 25 ms"
        )
    frames = _frames(wave - wave.mean(dtype=np.float64).astype(np.float32))
    spectrum = np.fft.rfft(frames, n=AST_FFT, axis=1)
    power = spectrum.real**2 + spectrum.imag**2
    mel: Array = np.log(np.maximum(power @ _mel_triangles(), np.float32(FLOOR)))
    return mel


def normalise_ast(mel: Array) -> Array:
    """(x - mean) / (2 deviation) over AudioSet, so that most values lie within -1 to 1 (AST)."""
    return np.asarray((mel - AST_MEAN) / (2 * AST_DEVIATION), np.float32)


def cut_or_pad(mel: Array, frames: int) -> Array:
    """Exactly so many frames of a log-mel spectrogram, as AST does before it normalises.

    Surplus frames are cut off the end; missing ones are appended as zeros, which are log-mel values
    of 0, not silence.
    """
    missing = max(0, frames - len(mel))
    padded: Array = np.pad(mel[:frames], ((0, missing), (0, 0)))
    return padded


def resample(samples: Array, rate: int, new_rate: int) -> Array:
    """Bring sound to another rate through a zero-phase low-pass: a sinc of 10 zeros to either side.

    It is what scipy's `resample_poly` computes, without half a second to import `scipy.signal`.
    Sample 0 stays at the same time; n samples become ceil(n * new_rate / rate).

    Args:
        samples: mono sound [n].
        rate: samples per second there are.
        new_rate: samples per second wanted.
    """
    up, down = ratio(rate, new_rate)
    if up == down:
        return np.asarray(samples, np.float32)
    bank = _polyphase(up, down)
    width = bank.shape[1]
    padded = np.pad(np.asarray(samples, np.float32), width // 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, width)
    new = np.empty(-(-len(samples) * up // down), np.float32)
    for phase in range(min(up, len(new))):
        first, offset = divmod(phase * down, up)
        count = len(new[phase::up])
        new[phase::up] = windows[first::down][:count] @ bank[offset]
    return new


@cache
def ratio(rate: int, new_rate: int) -> tuple[int, int]:
    """Factors (up, down) between two rates, in lowest terms."""
    return Fraction(new_rate, rate).as_integer_ratio()


@cache
def _polyphase(up: int, down: int) -> Array:
    """Filters [up, taps]: row p weighs the samples around a point p/up of a sample past the middle.

    A sinc cut off at the lower of both Nyquist frequencies, under a Kaiser window (beta 5).
    """
    widest = max(up, down)
    half = FILTER_REACH * widest
    steps = np.arange(-half, half + 1)
    low_pass = np.sinc(steps / widest) * np.kaiser(len(steps), 5.0)
    low_pass *= up / low_pass.sum()
    reach = -(-half // up)
    places = half + np.arange(up)[:, None] - np.arange(-reach, reach + 1) * up
    inside = (places >= 0) & (places < len(low_pass))
    bank: Array = np.where(inside, low_pass[places * inside], 0).astype(np.float32)
    return bank


def _frames(wave: Array) -> Array:
    """Windows [frames, 400] without their means, pre-emphasised and shaped."""
    windows = np.lib.stride_tricks.sliding_window_view(wave, AST_WINDOW)[::AST_SHIFT]
    centred: Array = windows - windows.mean(axis=1, keepdims=True)
    emphasised = np.empty_like(centred)
    np.multiply(centred[:, :-1], -AST_PREEMPHASIS, out=emphasised[:, 1:])
    emphasised[:, 1:] += centred[:, 1:]
    emphasised[:, 0] = (1 - AST_PREEMPHASIS) * centred[:, 0]
    emphasised *= _hann()
    return emphasised


@cache
def _hann() -> Array:
    """Kaldi's "hanning": symmetric, zero at both ends."""
    return np.hanning(AST_WINDOW).astype(np.float32)


def _mel(hertz: Any) -> Any:
    return 1127.0 * np.log(1.0 + hertz / 700.0)


@cache
def _mel_triangles() -> Array:
    """Weights [257, 128] of Fourier bins: triangles equally wide on the mel scale."""
    edges = np.linspace(_mel(AST_LOW), _mel(AST_HIGH), AST_BINS + 2)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    mel = _mel(np.arange(AST_FFT // 2 + 1) * AST_RATE / AST_FFT)[:, None]
    rising = (mel - left) / (centre - left)
    falling = (right - mel) / (right - centre)
    triangles: Array = np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)
    return triangles
