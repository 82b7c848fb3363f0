"""VMZ's and AVCL's front ends against their definitions, written out in float64."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import signal

from sonant.errors import UsageError
from sonant.media.audio import BLOCK, avcl, log_mel, resample, stretch, vmz, xdc


def noise(seed: int, samples: int, level: float = 0.1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, level, samples).astype(np.float32)


def chirp(samples: int, rate: int) -> np.ndarray:
    time = np.arange(samples) / rate
    return (0.4 * signal.chirp(time, 50, time[-1], 0.47 * rate)).astype(np.float32)


def vmz_filters(fft: int) -> list[list[float]]:
    """As the operator fills them, filter by filter and bin by bin, the last bin of each unused."""
    length = fft // 2 + 1
    step = 16_000 / 2 / length
    width = 1127 * math.log(1 + 8_000 / 700) / 41

    def place(k: int) -> float:
        return 700 * (math.exp(k * width / 1127) - 1) / step

    filters = []
    for k in range(40):
        start, mid, end = place(k), place(k + 1), place(k + 2)
        first, last = max(0, int(start)), min(length - 1, int(end) + 1)
        weights = [0.0] * length
        for i in range(first, last + 1):
            gap = (mid - i) / max(1.0, mid - start) if i < mid else (i - mid) / max(1.0, end - mid)
            weights[i] = max(0.0, 1 - gap)
        total = sum(weights)
        filters.append([w / total if i < last else 0.0 for i, w in enumerate(weights)])
    return filters


def vmz_by_definition(wave: np.ndarray, window: int, hop: int) -> np.ndarray:
    fft = 2 ** math.ceil(math.log2(window))
    filters = np.array(vmz_filters(fft))
    hann = np.array([0.5 * (1 - math.cos(2 * math.pi * i / (window - 1))) for i in range(window)])
    rows, left = [], wave.astype(np.float64)
    while len(left) > window:
        padded = np.zeros(fft)
        padded[:window] = left[:window] * hann
        spectrum = np.array(
            [np.exp(-2j * np.pi * k * np.arange(fft) / fft) @ padded for k in range(fft // 2 + 1)]
        )
        power = np.abs(spectrum) ** 2
        power[0] += power[-1]
        energy = filters[:, :-1] @ power[:-1] * 1080674186.3482928
        rows.append([math.log(e) if e > math.e else e / math.e for e in energy])
        left = left[hop:]
    return np.array(rows)


@pytest.mark.parametrize(
    "wave",
    [noise(0, 3_000), noise(1, 3_000, 1e-6), chirp(3_000, 16_000), noise(2, 3_000) + 0.3],
    ids=["noise", "under a bit", "chirp", "offset"],
)
@pytest.mark.parametrize(("window", "hop"), [(256, 160), (512, 320), (400, 160)])
def test_vmz_is_the_operator(wave, window, hop):
    ours = vmz(wave, 16_000, window=window / 16_000, hop=hop / 16_000)
    wanted = vmz_by_definition(wave, window, hop)
    assert ours.dtype == np.float32
    # Far below a frame's loudest bin the rounding of a float32 transform shows.
    faint = wanted < wanted.max(1, keepdims=True) - 11
    np.testing.assert_allclose(ours[~faint], wanted[~faint], atol=1e-4)
    np.testing.assert_allclose(ours[faint], wanted[faint], atol=0.02)


def test_vmz_filters_have_unit_sum_but_for_the_bin_that_is_packed_away():
    sums = np.array([sum(weights[:-1]) for weights in vmz_filters(256)])
    np.testing.assert_allclose(sums[:-1], 1)
    assert 0.9 < sums[-1] < 1


@given(st.integers(257, 6_000))
@settings(max_examples=30, deadline=None)
def test_vmz_counts_windows_that_have_a_sample_after_them(samples):
    assert vmz(noise(samples, samples), 16_000).shape == (-(-(samples - 256) // 160), 40)


def test_vmz_of_silence_is_zero_and_of_full_scale_is_of_16_bits():
    assert not vmz(np.zeros(1_000, np.float32), 16_000).any()
    tone = np.sin(2 * np.pi * 1_000 * np.arange(4_000) / 16_000).astype(np.float32)
    integers = 2 * math.log(32_767 * 256 / 4)
    assert integers - 3 < vmz(tone, 16_000).max() < integers


def test_xdc_makes_100_frames_of_two_seconds_every_second_one_of_vmz():
    wave = noise(3, 32_000)
    ours = xdc(wave, 16_000)
    assert ours.shape == (100, 40)
    np.testing.assert_allclose(ours, vmz(wave, 16_000)[::2], atol=1e-5)


def test_xdc_brings_other_hops_to_100_frames():
    wave = noise(3, 32_000)
    averaged = xdc(wave, 16_000, hop=0.010)
    assert averaged.shape == (100, 40)
    np.testing.assert_array_equal(averaged, stretch(vmz(wave, 16_000), 100))
    assert averaged.var() < 0.8 * xdc(wave, 16_000).var()
    assert xdc(wave, 16_000, window=0.032).shape == (100, 40)


def avcl_by_definition(wave: np.ndarray) -> np.ndarray:
    hann = np.array([0.5 - 0.5 * math.cos(2 * math.pi * i / 240) for i in range(240)])
    top = 1127 * math.log(1 + 12_000 / 700)
    edges = [top * k / 257 for k in range(258)]
    mel = 1127 * np.log(1 + np.arange(2_049) * 24_000 / 4_096 / 700)
    triangles = np.array([np.interp(mel, edges[k : k + 3], [0, 1, 0]) for k in range(256)])
    rows = []
    for start in range(0, len(wave) - 239, 240):
        window = wave[start : start + 240].astype(np.float64) * hann
        power = np.abs(np.fft.fft(window, 4_096)[:2_049]) ** 2
        rows.append(np.log(triangles @ power + 1e-6))
    return np.array(rows)


@pytest.mark.parametrize("wave", [noise(0, 4_000), chirp(4_000, 24_000), noise(1, 4_000, 1e-6)])
def test_avcl_is_as_defined(wave):
    wanted = avcl_by_definition(wave)
    assert len(wanted) == 16
    np.testing.assert_allclose(avcl(wave, 24_000, frames=16), wanted, atol=1e-3)


def test_every_mel_band_of_avcl_hears_its_own_pitch():
    edges = 700 * np.expm1(np.arange(1, 257) * 1127 * np.log1p(12_000 / 700) / 257 / 1127)
    loudest = []
    for hertz in edges[40::12]:
        tone = 0.5 * np.sin(2 * np.pi * hertz * np.arange(2_400) / 24_000)
        loudest.append(int(avcl(tone.astype(np.float32), 24_000).mean(0).argmax()))
    # Triangles widen with pitch, so a tone is loudest up to a few bands above its own.
    np.testing.assert_allclose(loudest, np.arange(40, 256, 12), atol=6)
    faint = avcl(noise(0, 24_000, 1e-4), 24_000).mean(0)
    assert faint.min() > math.log(1e-6) + 1e-3, "a band without a bin hears nothing"


@pytest.mark.parametrize("seconds", [0.5, 1.2, 2.56, 10.0])
def test_avcl_shows_the_whole_sound_whatever_its_length(seconds):
    wave = np.zeros(round(seconds * 24_000), np.float32)
    wave[-2_400:] = noise(0, 2_400)
    ours = log_mel(wave, 24_000, "avcl")
    assert ours.shape == (256, 256)
    loud = np.flatnonzero(ours.max(1) > math.log(1e-6) + 1)
    assert loud[-1] == 255
    np.testing.assert_allclose(loud[0] / 256, 1 - 0.1 / seconds, atol=0.03)


def test_long_sounds_are_worked_off_in_blocks():
    wave = noise(4, (BLOCK + 5) * 160 + 256)
    whole, tail = vmz(wave, 16_000), vmz(wave[BLOCK * 160 :], 16_000)
    assert len(whole) == BLOCK + 5
    np.testing.assert_allclose(whole[BLOCK:], tail, atol=1e-5)


@given(st.integers(1, 700), st.integers(1, 300))
@settings(max_examples=40, deadline=None)
def test_stretch_is_pillows(old, new):
    mel = noise(old, old * 3, 4.0).reshape(old, 3)
    wanted = Image.fromarray(mel).resize((3, new), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(stretch(mel, new), np.asarray(wanted), atol=1e-4)


def test_stretch_leaves_what_fits_and_what_is_even():
    mel = noise(0, 30).reshape(10, 3)
    assert stretch(mel, 10) is mel
    even = np.full((57, 2), 3.25, np.float32)
    np.testing.assert_allclose(stretch(even, 13), 3.25, rtol=1e-6)


@pytest.mark.parametrize(("spec", "rate"), [("vmz", 16_000), ("avcl", 24_000)])
def test_another_rate_is_resampled_first(spec, rate):
    wave = noise(6, 44_100)
    np.testing.assert_array_equal(
        log_mel(wave, 44_100, spec), log_mel(resample(wave, 44_100, rate), rate, spec)
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: log_mel(np.zeros(256, np.float32), 16_000, "vmz"), "256 samples at 16000 Hz"),
        (
            lambda: log_mel(np.zeros(239, np.float32), 24_000, "avcl"),
            "shorter than one window of 10 ms",
        ),
        (lambda: log_mel(np.full(800, np.inf, np.float32), 16_000, "vmz"), "800 of 800"),
        (lambda: log_mel(np.zeros((2, 800), np.float32), 16_000, "avcl"), "must be mono"),
        (lambda: log_mel(np.zeros(800, np.float32), 0, "avcl"), "rate must be above 0"),
        (lambda: vmz(np.zeros(800, np.float32), 16_000, hop=0), "hop must be at least"),
        (lambda: xdc(np.zeros(800, np.float32), 16_000, frames=0), "frames must be at least 1"),
    ],
)
def test_impossible_sound_is_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()


SEVERAL = """
import hashlib
import numpy as np
from sonant.media.audio import SPECS, log_mel
noise = np.random.default_rng(0).normal(0, 0.1, 72_000).astype(np.float32)
made = [log_mel(noise, 48_000, spec) for spec in sorted(SPECS)]
print([hashlib.sha256(mel.tobytes()).hexdigest() for mel in made])
"""


def test_no_bit_depends_on_how_many_threads_a_product_may_have() -> None:
    """A matrix product of BLAS does, on a machine of several cores."""
    found = {
        subprocess.run(
            [sys.executable, "-c", SEVERAL],
            env=os.environ | {"OPENBLAS_NUM_THREADS": threads},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for threads in ("1", "2")
    }
    assert len(found) == 1
