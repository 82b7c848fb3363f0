"""Sound to log-mel spectrograms, as the models that read them expect."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np

from sonant.errors import UsageError, above_zero, at_least

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

VMZ_RATE = 16_000
VMZ_BINS = 40
VMZ_WINDOW = 0.016
VMZ_HOP = 0.010
VMZ_GAIN = 1_080_674_186.3482928
"""Energy of a full-scale sample; about 32768 squared, as if samples were 16-bit integers."""
XDC_FRAMES = 100
XDC_HOP = 0.020

AVCL_RATE = 24_000
AVCL_BINS = 256
AVCL_FRAMES = 256
AVCL_WINDOW = 0.010
AVCL_HOP = 0.010
AVCL_FFT = 4096
"""The least power of two whose bins are closer together than the lowest mel bands."""
AVCL_FLOOR = 1e-6

SPECS = ("ast", "vmz", "avcl")
FILTER_REACH = 10
"""Samples of the lower rate that the resampling filter spans to either side."""
BLOCK = 1024
"""Frames whose spectra are held at a time."""


def log_mel(samples: Array, rate: int, spec: str = "ast") -> Array:
    """Log-mel spectrogram by one of three front ends, at its defaults and before normalisation.

    | `spec` | what it is of | shape |
    |---|---|---|
    | `ast` | AST, by `ast` | [1 + (n - 400) // 160, 128] of n samples at 16 kHz |
    | `vmz` | VMZ, and so most likely XDC, by `vmz` | [ceil((n - 256) / 160), 40] at 16 kHz |
    | `avcl` | AVCL, by `avcl` | [256, 256], the whole sound |

    Args:
        samples: mono sound [n] within -1 to 1.
        rate: samples per second; another one than the front end's is changed by `resample`.
        spec: the front end.

    Returns:
        [frames, bins], float32.

    Raises:
        UsageError: an unknown front end, sound that is shorter than one window or not mono, or
            samples that are no numbers.
    """
    match spec:
        case "ast":
            return ast(samples, rate)
        case "vmz":
            return vmz(samples, rate)
        case "avcl":
            return avcl(samples, rate)
    raise UsageError(f"no front end {spec!r} for sound; there is {', '.join(SPECS)}")


def ast(samples: Array, rate: int) -> Array:
    """Log-mel spectrogram as AST's (Gong, Chung, Glass 2021), before its normalisation.

    Kaldi's filter bank without dither or energy: the mean of the whole wave is taken off, then each
    25 ms window (every 10 ms, none beyond the end) loses its own mean, is pre-emphasised by 0.97,
    shaped by a Hann window, and summed over 128 triangles on the mel scale from 20 Hz to 8 kHz.
    1.5 s give 148 frames.

    Args:
        samples: mono sound [n] within -1 to 1.
        rate: samples per second; another one than 16 kHz is changed by `resample`.

    Returns:
        Natural logarithms of mel energies, float32 [1 + (n - 400) // 160, 128] at 16 kHz.

    Raises:
        UsageError: less than 25 ms of sound, not mono, or samples that are no numbers.
    """
    wave = _wave(samples, rate, AST_RATE, AST_WINDOW)
    frames = _frames(wave - wave.mean(dtype=np.float64).astype(np.float32))
    spectrum = np.fft.rfft(frames, n=AST_FFT, axis=1)
    power = spectrum.real**2 + spectrum.imag**2
    filters = mel_filters(AST_LOW, AST_HIGH, AST_BINS, AST_FFT, AST_RATE)
    mel: Array = np.log(np.maximum(mel_energy(power, filters), np.float32(FLOOR)))
    return mel


def vmz(samples: Array, rate: int, *, window: float = VMZ_WINDOW, hop: float = VMZ_HOP) -> Array:
    """Log-mel spectrogram as VMZ's `LogSpectrum` operator computes it, the one XDC points to.

    A symmetric Hann window of 16 ms every 10 ms, zero-padded to a power of two; re² + im² of all
    bins but the last, whose energy is packed into the first; 40 triangles from 0 to 8 kHz, equally
    wide on the mel scale but at least one bin to either side, each of unit sum; E times 1.08e9;
    then ln E where E > e, and E / e below. A window also wants one sample beyond its own last.

    The bins of the triangles are 8000 / 129 Hz apart, not 8000 / 128 as those of the spectrum: so
    it is in the operator.

    Args:
        samples: mono sound [n] within -1 to 1.
        rate: samples per second; another one than 16 kHz is changed by `resample`.
        window: seconds.
        hop: seconds between the starts of two windows.

    Returns:
        float32 [ceil((n - 256) / 160), 40] at 16 kHz and the defaults; 0 is silence.

    Raises:
        UsageError: no more sound than one window, not mono, samples that are no numbers, or a
            window or hop of less than two samples.
    """
    length, step = _samples(VMZ_RATE, window=window, hop=hop)
    wave = _wave(samples, rate, VMZ_RATE, length + 1)
    windows = np.lib.stride_tricks.sliding_window_view(wave[:-1], length)[::step]
    fft = 1 << (length - 1).bit_length()
    shape, filters = np.hanning(length).astype(np.float32), _vmz_filters(fft)
    powers = _power(windows, shape, fft)
    energy = np.concatenate([mel_energy(_packed(power), filters) for power in powers])
    energy *= np.float32(VMZ_GAIN)
    mel: Array = np.where(
        energy > math.e, np.log(np.maximum(energy, 1)), energy / np.float32(math.e)
    )
    return mel


def xdc(
    samples: Array,
    rate: int,
    *,
    frames: int = XDC_FRAMES,
    window: float = VMZ_WINDOW,
    hop: float = XDC_HOP,
) -> Array:
    """XDC's input: the whole sound, 2 s in the paper, as 100 frames of `vmz`.

    How 2 s become 100 frames the paper does not say. The default hop of 20 ms gives just 100. It is
    every second frame of VMZ's hop of 10 ms, which is also what its operator keeps when it is asked
    for a longer sound than its frames hold (its `audio_length`: the nearest frame). A hop of 10 ms
    here gives 199, which are then brought to 100 by `stretch` and so averaged over time.

    Args:
        samples: mono sound [n] within -1 to 1.
        rate: samples per second.
        frames: in the result; another number that the hop gives is brought to it by `stretch`.
        window: seconds.
        hop: seconds between the starts of two windows.

    Returns:
        float32 [frames, 40].

    Raises:
        UsageError: as `vmz`, or fewer frames than one.
    """
    return stretch(vmz(samples, rate, window=window, hop=hop), frames)


def avcl(samples: Array, rate: int, *, frames: int = AVCL_FRAMES, hop: float = AVCL_HOP) -> Array:
    """AVCL's input: the whole sound as 256 frames of 256 mel bands.

    A periodic Hann window of 10 ms every 10 ms at 24 kHz; 256 triangles on the mel scale from 0 to
    12 kHz; ln(E + 1e-6), as in the code for EPIC-Fusion that the paper's words come from.

    What the paper leaves open: 10 s at a hop of 10 ms are 1000 frames, not its 256, so the frames
    are brought to 256 by `stretch`; and windows of 240 samples have fewer bins than there are mel
    bands, so they are zero-padded to 4096, lest bands be empty.

    Args:
        samples: mono sound [n] within -1 to 1.
        rate: samples per second; another one than 24 kHz is changed by `resample`.
        frames: in the result, whatever the length of the sound.
        hop: seconds between the starts of two windows before that.

    Returns:
        float32 [frames, 256]; ln(1e-6), about -13.8, is silence.

    Raises:
        UsageError: less than 10 ms of sound, not mono, samples that are no numbers, a hop of less
            than two samples, or fewer frames than one.
    """
    length, step = _samples(AVCL_RATE, window=AVCL_WINDOW, hop=hop)
    wave = _wave(samples, rate, AVCL_RATE, length)
    windows = np.lib.stride_tricks.sliding_window_view(wave, length)[::step]
    shape = np.hanning(length + 1)[:-1].astype(np.float32)
    filters = mel_filters(0, AVCL_RATE / 2, AVCL_BINS, AVCL_FFT, AVCL_RATE)
    powers = _power(windows, shape, AVCL_FFT)
    energy = np.concatenate([mel_energy(power, filters) for power in powers])
    return stretch(np.log(energy + np.float32(AVCL_FLOOR)), frames)


def stretch(mel: Array, frames: int) -> Array:
    """Bring a spectrogram to a number of frames that span the same time.

    Between frames by straight lines; where there are more than wanted, by means under a triangle
    as wide as two new frames, so that no sound between is lost. It is Pillow's bilinear resize.

    Args:
        mel: [frames, bins].
        frames: wanted.
    """
    at_least(1, frames=frames)
    if frames == len(mel):
        return mel
    scale = len(mel) / frames
    reach = max(1.0, scale)
    stretched = np.empty((frames, mel.shape[1]), np.float32)
    for frame in range(frames):
        centre = (frame + 0.5) * scale - 0.5
        first, last = max(0, math.ceil(centre - reach)), math.floor(centre + reach) + 1
        near = mel[first:last]
        weights = 1 - np.abs(np.arange(first, first + len(near)) - centre) / reach
        weights = (weights / weights.sum()).astype(np.float32)
        stretched[frame] = np.einsum("f,fb->b", weights, near)
    return stretched


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


def _wave(samples: Array, rate: int, new_rate: int, least: int) -> Array:
    """Mono sound at another rate.

    Raises:
        UsageError: fewer samples than `least` then, not mono, or samples that are no numbers.
    """
    above_zero(rate=rate)
    wave = np.asarray(samples, np.float32)
    if wave.ndim != 1:
        raise UsageError(f"sound must be mono, of shape [samples], not {list(wave.shape)}")
    if not np.isfinite(wave).all():
        raise UsageError(f"{int((~np.isfinite(wave)).sum())} of {wave.size} samples are no numbers")
    if rate != new_rate:
        wave = resample(wave, rate, new_rate)
    if wave.size < least:
        raise UsageError(
            f"{wave.size} samples at {new_rate} Hz are shorter than one window of "
            f"{1000 * least / new_rate:.3g} ms"
        )
    return wave


def _samples(rate: int, **seconds: float) -> list[int]:
    """Durations in samples, none under two."""
    at_least(2 / rate, **seconds)
    return [round(value * rate) for value in seconds.values()]


def _power(windows: Array, shape: Array, fft: int) -> Iterator[Array]:
    """Power spectra [frames, fft // 2 + 1], a block at a time: minutes of sound have many."""
    for first in range(0, len(windows), BLOCK):
        spectrum = np.fft.rfft(windows[first : first + BLOCK] * shape, n=fft, axis=1)
        yield np.asarray(spectrum.real**2 + spectrum.imag**2, np.float32)


def _packed(power: Array) -> Array:
    """All bins but the last, whose energy joins the first: as FFmpeg packs a real transform."""
    power[:, 0] += power[:, -1]
    return power[:, :-1]


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


def mel_centres(low: float, high: float, bins: int) -> Any:
    """Frequencies [bins], in hertz, of the peaks of so many triangles from `low` to `high`."""
    return 700.0 * np.expm1(np.linspace(_mel(low), _mel(high), bins + 2)[1:-1] / 1127.0)


def mel_energy(power: Any, filters: Any) -> Any:
    """Energies [frames, bins] of power spectra [frames, Fourier bins] under sparse filters.

    Their sums have one order: the last bits of a dense product depend on how many threads it has.
    """
    return np.ascontiguousarray((filters @ power.T).T)


def _sparse(weights: Array) -> Any:
    """Weights [Fourier bins, bins] as a sparse matrix of a row a bin."""
    from scipy import sparse

    return sparse.csr_array(weights.T.astype(np.float32))


@cache
def mel_filters(low: float, high: float, bins: int, fft: int, rate: int) -> Any:
    """Triangles equally wide on the mel scale: a sparse matrix [bins, fft // 2 + 1] of weights."""
    edges = np.linspace(_mel(low), _mel(high), bins + 2)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    mel = _mel(np.arange(fft // 2 + 1) * rate / fft)[:, None]
    rising = (mel - left) / (centre - left)
    falling = (right - mel) / (right - centre)
    return _sparse(np.maximum(0.0, np.minimum(rising, falling)))


@cache
def _vmz_filters(fft: int) -> Any:
    """Of fft // 2 bins, of unit sum but for the last, which loses the bin that is packed."""
    count = fft // 2 + 1
    edges = np.linspace(0, _mel(VMZ_RATE / 2), VMZ_BINS + 2)
    places = 700 * np.expm1(edges / 1127) / (VMZ_RATE / 2 / count)
    start, middle, end = places[:-2], places[1:-1], places[2:]
    bins = np.arange(count)[:, None]
    rising = 1 - (middle - bins) / np.maximum(1, middle - start)
    falling = 1 - (bins - middle) / np.maximum(1, end - middle)
    inside = (bins >= np.floor(start)) & (bins <= np.floor(end) + 1)
    weights = np.where(inside, np.maximum(0, np.where(bins < middle, rising, falling)), 0)
    weights /= weights.sum(0)
    return _sparse(np.where(bins < np.floor(end) + 1, weights, 0)[:-1])
