"""The front end against Kaldi's own code, against its definition, and by its properties."""

import math

import kaldi_native_fbank as knf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from sonant.errors import UsageError
from sonant.media.audio import (
    AST_BINS,
    FLOOR,
    cut_or_pad,
    log_mel,
    normalise_ast,
    resample,
)

RATE = 16_000
LOW, HIGH = 20.0, 8_000.0
# Below this bin the triangles are narrower than the Fourier bins, and Kaldi's code refuses them.
FIRST_WIDE_BIN = 31


def noise(seed: int, seconds: float = 1.5, level: float = 0.1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, level, round(seconds * RATE)).astype(np.float32)


def sweep_tone() -> np.ndarray:
    """A loud tone over a noise floor; without one, Kaldi's own float32 is off by more than 1e-3."""
    time = np.arange(24_000) / RATE
    return (0.4 * signal.chirp(time, 50, 1.5, 7_500)).astype(np.float32) + noise(3, level=0.01)


SOUNDS = [
    noise(0),
    noise(1, level=1e-4),
    sweep_tone(),
    noise(2) + np.float32(0.3),
    np.zeros(24_000, np.float32),
]
NAMES = ["noise", "faint", "chirp", "offset", "silence"]


def mel(hertz):
    return 1127.0 * np.log1p(np.asarray(hertz) / 700.0)


def mel_edges() -> np.ndarray:
    return np.linspace(mel(LOW), mel(HIGH), AST_BINS + 2)


def kaldi(wave: np.ndarray, first_bin: int) -> np.ndarray:
    """Kaldi's filter bank, cut so that its triangles are the last ones of the 128."""
    options = knf.FbankOptions()
    options.frame_opts.samp_freq = RATE
    options.frame_opts.dither = 0
    options.frame_opts.window_type = "hanning"
    options.frame_opts.frame_shift_ms, options.frame_opts.frame_length_ms = 10, 25
    options.mel_opts.num_bins = AST_BINS - first_bin
    options.mel_opts.low_freq = float(700 * np.expm1(mel_edges()[first_bin] / 1127))
    options.mel_opts.high_freq = 0
    options.use_energy = False
    options.htk_compat = True
    bank = knf.OnlineFbank(options)
    bank.accept_waveform(RATE, (wave - wave.mean()).tolist())
    bank.input_finished()
    return np.stack([bank.get_frame(i) for i in range(bank.num_frames_ready)])


def by_definition(wave: np.ndarray) -> np.ndarray:
    """Every step for every frame and bin on its own, in float64."""
    wave = wave.astype(np.float64) - wave.mean(dtype=np.float64)
    edges, hertz = mel_edges(), np.arange(257) * RATE / 512
    rows = []
    for start in range(0, len(wave) - 400 + 1, 160):
        window = wave[start : start + 400] - wave[start : start + 400].mean()
        emphasised = window - 0.97 * np.concatenate([window[:1], window[:-1]])
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)
        power = np.abs(np.fft.fft(emphasised * hann, 512)[:257]) ** 2
        row = []
        for left, centre, right in zip(edges[:-2], edges[1:-1], edges[2:], strict=True):
            triangle = np.interp(mel(hertz), [left, centre, right], [0, 1, 0])
            row.append(math.log(max(power @ triangle, np.finfo(np.float32).eps)))
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize("wave", SOUNDS, ids=NAMES)
def test_log_mel_is_kaldis(wave):
    ours = log_mel(wave, RATE)
    assert ours.shape == (148, 128)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours[:, FIRST_WIDE_BIN:], kaldi(wave, FIRST_WIDE_BIN), atol=1e-3)


@pytest.mark.parametrize("wave", SOUNDS[:3], ids=NAMES[:3])
def test_log_mel_is_as_defined_in_every_bin(wave):
    np.testing.assert_allclose(log_mel(wave[:4000], RATE), by_definition(wave[:4000]), atol=1e-3)


@given(st.integers(400, 4_000), st.floats(0.25, 4.0))
@settings(max_examples=30, deadline=None)
def test_frames_and_gain(length, gain):
    wave = noise(length)[:length]
    mel = log_mel(wave, RATE)
    assert len(mel) == 1 + (length - 400) // 160
    heard = mel > math.log(FLOOR) + 4
    louder = log_mel(wave * np.float32(gain), RATE)
    np.testing.assert_allclose(louder[heard], mel[heard] + 2 * math.log(gain), atol=1e-3)


def test_another_rate_is_resampled_first():
    time = np.arange(72_000) / 48_000
    wave = np.sin(2 * np.pi * 1_000 * time).astype(np.float32)
    there = log_mel(wave, 48_000)
    assert there.shape == (148, 128)
    wanted = log_mel(wave[::3].copy(), RATE)
    loud = wanted > wanted.max() - 5
    np.testing.assert_allclose(there[2:-2][loud[2:-2]], wanted[2:-2][loud[2:-2]], atol=0.01)


@pytest.mark.parametrize(
    ("samples", "spec", "message"),
    [
        (np.zeros(399, np.float32), "ast", "399 samples at 16000 Hz are shorter than one window"),
        (np.zeros(0, np.float32), "ast", "0 samples"),
        (np.full(800, np.nan, np.float32), "ast", "800 of 800 samples are no numbers"),
        (np.zeros((2, 800), np.float32), "ast", "must be mono"),
        (np.zeros(800, np.float32), "mfcc", "no front end 'mfcc' for sound; there is ast"),
    ],
)
def test_impossible_sound_is_refused(samples, spec, message):
    with pytest.raises(UsageError, match=message):
        log_mel(samples, RATE, spec)


def test_audioset_statistics_become_zero_mean_and_half_deviation():
    np.testing.assert_allclose(normalise_ast(np.float32([[-4.2677393, 0.3012581]])), [[0, 0.5]])


@pytest.mark.parametrize("frames", [1, 148, 200])
def test_cut_or_pad(frames):
    mel = log_mel(noise(5), RATE)
    fitted = cut_or_pad(mel, frames)
    assert fitted.shape == (frames, 128)
    np.testing.assert_array_equal(fitted[:148], mel[:frames])
    assert not fitted[148:].any()


@given(
    st.sampled_from([8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000]),
    st.sampled_from([8_000, 16_000, 44_100]),
    st.integers(1, 3_000),
)
@settings(max_examples=40, deadline=None)
def test_resampling_is_scipys(rate, new_rate, length):
    wave = noise(length)[:length]
    wanted = signal.resample_poly(wave.astype(np.float64), new_rate, rate)
    ours = resample(wave, rate, new_rate)
    assert len(ours) == math.ceil(length * new_rate / rate)
    np.testing.assert_allclose(ours, wanted, atol=2e-6)


def test_rates_without_common_divisor_are_exact():
    time = np.arange(44_101) / 44_101
    tone = np.sin(2 * np.pi * 440 * time).astype(np.float32)
    ours = resample(tone, 44_101, RATE)
    wanted = np.sin(2 * np.pi * 440 * np.arange(len(ours)) / RATE)
    np.testing.assert_allclose(ours[100:-100], wanted[100:-100], atol=2e-3)
