"""What a span gives, and what is refused."""

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sonant.errors import MediaError, UsageError
from sonant.media.frames import centres
from sonant.media.read import Media, probe, read


@pytest.fixture(scope="module")
def plain(film, tmp_path_factory):
    return film(tmp_path_factory.mktemp("read") / "plain.mp4", seconds=3, options={"bf": "3"})


def numbers(media: Media) -> np.ndarray:
    """The number of each frame, which its brightness tells (10, grain of 5.5, 1.4 lost as YUV)."""
    return (media.frames.reshape(len(media.frames), -1).mean(1) - 14.1) / 3


@given(st.floats(0, 2.5), st.floats(0.1, 1.5), st.integers(1, 9), st.sampled_from([8_000, 16_000]))
@settings(max_examples=15, deadline=None)
def test_a_span_is_what_was_asked_for(plain, start, length, frames, rate):
    end = min(3.0, start + length)
    media = read(plain, start, end, frames=frames, size=32, rate=rate)
    assert media.frames.shape == (frames, 32, 48, 3)
    assert media.samples.dtype == np.float32
    assert len(media.samples) == round((end - start) * rate)
    assert abs(media.samples_start - start) <= 0.5 / 48_000 + 1e-9
    wanted = centres(start, end, frames)
    assert (media.frame_times <= wanted + 1e-6).all()
    assert (wanted < media.frame_times + 0.04 + 1e-6).all()
    np.testing.assert_allclose(numbers(media), media.frame_times * 25 % 70, atol=0.4)


def test_uneven_frame_rates_show_the_last_frame_that_came(film, tmp_path):
    stamps = [0, 40, 80, 700, 740, 1500, 1540, 1580, 2000, 2400]
    path = film(tmp_path / "uneven.mp4", seconds=0.4, stamps=stamps.__getitem__, audio=None)
    media = read(path, 0.0, 2.4, frames=24, size=32, rate=16_000)
    wanted = [max(s for s in stamps if s / 1000 <= t) for t in centres(0, 2.4, 24)]
    np.testing.assert_allclose(media.frame_times, np.array(wanted) / 1000, atol=1e-3)
    np.testing.assert_allclose(numbers(media), [stamps.index(s) for s in wanted], atol=0.4)


def test_streams_that_start_apart_share_one_clock(film, ffmpeg, tmp_path):
    sound = film(tmp_path / "sound.wav", video=None, audio="pcm_s16le", clicks=[0.5])
    video = film(tmp_path / "video.mp4", audio=None, flashes=[0.4])
    path = tmp_path / "apart.mkv"
    ffmpeg("-i", video, "-itsoffset", "0.7", "-i", sound, "-c", "copy", path)
    media = read(path, 0.75, 2.0, frames=25, size=32, rate=16_000)
    click = media.samples_start + np.argmax(np.abs(media.samples)) / 16_000
    assert click == pytest.approx(1.2, abs=1e-3)
    with pytest.raises(MediaError, match=r"only from 0\.700 to 1\.200 s"):
        read(path, 0.2, 1.2, frames=2, size=32, rate=16_000)
    assert probe(path).duration == pytest.approx(3.7, abs=0.05)


def test_sound_and_video_alone(film, tmp_path):
    silent = film(tmp_path / "silent.mp4", audio=None, seconds=1)
    media = read(silent, 0.1, 0.9, frames=2, size=32, rate=16_000)
    assert media.samples is None and media.samples_start is None and len(media.frames) == 2
    blind = film(tmp_path / "blind.wav", video=None, audio="pcm_s16le", seconds=1, rate=8_000)
    media = read(blind, 0.1, 0.9, frames=2, size=32, rate=16_000)
    assert media.frames is None and media.frame_times is None and len(media.samples) == 12_800
    there = probe(blind)
    assert (there.has_video, there.has_audio, there.sample_rate) == (False, True, 8_000)
    assert repr(media) == "Media(frames=None, samples=[12800], rate=16000)"


def test_pictures_that_are_not_square_are_shown_square(film, ffmpeg, tmp_path):
    path = film(tmp_path / "plain.mp4", audio=None, seconds=0.4, size=(96, 64))
    wide = tmp_path / "wide.mp4"
    ffmpeg("-i", path, "-c", "copy", "-bsf:v", "h264_metadata=sample_aspect_ratio=2/1", wide)
    assert read(wide, 0, 0.4, frames=1, size=32, rate=16_000).frames.shape == (1, 32, 96, 3)
    assert (probe(wide).width, probe(wide).height) == (192, 64)


def test_cover_art_is_no_video(film, ffmpeg, tmp_path):
    sound = film(tmp_path / "sound.mp3", video=None, audio="libmp3lame", rate=44_100, seconds=1)
    cover, song = tmp_path / "cover.png", tmp_path / "song.mp3"
    ffmpeg("-f", "lavfi", "-i", "color=red:s=64x64", "-frames:v", "1", cover)
    attached = ("-map", 0, "-map", 1, "-c", "copy", "-disposition:v:0", "attached_pic")
    ffmpeg("-i", sound, "-i", cover, *attached, song)
    assert read(song, 0.1, 0.9, frames=1, size=32, rate=16_000).frames is None


@pytest.mark.parametrize(
    ("start", "end", "reason"),
    [
        (2.5, 4.0, r"the video ends at 3\.000 s, before a frame wanted at 3\.\d+ s"),
        (60.0, 61.5, r"the video ends at 3\.000 s"),
    ],
)
def test_past_the_end(plain, start, end, reason):
    with pytest.raises(MediaError, match=reason) as caught:
        read(plain, start, end, frames=4, size=32, rate=16_000)
    assert caught.value.path == str(plain)
    assert caught.value.time >= start


def test_a_tenth_of_a_second_past_the_end_is_mirrored(plain):
    past = read(plain, 2.0, 3.09, frames=30, size=32, rate=16_000)
    inside = read(plain, 2.0, 3.0, frames=30, size=32, rate=16_000)
    assert past.frame_times[-1] == pytest.approx(2.96)
    assert len(past.samples) == 17_440
    np.testing.assert_allclose(past.samples[:15_900], inside.samples[:15_900], atol=1e-6)
    assert np.abs(past.samples[-800:]).max() > 0.01


def test_a_hole_in_the_sound_is_not_filled(film, ffmpeg, tmp_path):
    path, holed = film(tmp_path / "plain.mkv", audio="flac"), tmp_path / "holed.mkv"
    ffmpeg("-i", path, "-c", "copy", "-bsf:a", "noise=drop=between(n\\,10\\,12)", holed)
    with pytest.raises(MediaError, match="there is sound only from"):
        read(holed, 0.5, 2.0, frames=2, size=32, rate=16_000)
    assert len(read(holed, 1.4, 2.4, frames=2, size=32, rate=16_000).samples) == 16_000


def test_damage_costs_what_depends_on_it(film, tmp_path):
    """Pictures from the damage to the next key frame, and nothing else."""
    path = film(tmp_path / "plain.mkv", audio=None, options={"g": "25", "bf": "0"})
    data = bytearray(path.read_bytes())
    middle = len(data) * 45 // 100
    data[middle : middle + 300] = bytes(300)
    path.write_bytes(data)
    with pytest.raises(MediaError, match=r"the video is damaged at 1\.\d+ s"):
        read(path, 1.0, 2.0, frames=10, size=32, rate=16_000)
    for start in (0.0, 2.0):
        media = read(path, start, start + 1, frames=10, size=32, rate=16_000)
        np.testing.assert_allclose(numbers(media), media.frame_times * 25 % 70, atol=0.4)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("missing.mp4", None, "no such file"),
        ("empty.mp4", b"", "an empty file"),
        ("text.mp4", b"this is no video\n" * 100, "not a readable media file"),
        ("words.srt", b"1\n00:00:00,000 --> 00:00:01,000\nhello\n", "neither video nor sound"),
    ],
)
def test_unreadable_files(tmp_path, name, content, reason):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    for attempt in (probe, lambda p: read(p, 0, 1, frames=1, size=32, rate=16_000)):
        with pytest.raises(MediaError, match=reason) as caught:
            attempt(path)
        assert str(path) in str(caught.value)
    with pytest.raises(MediaError, match="not a file"):
        probe(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": -0.5}, "0 <= start < end in seconds, not -0.5 to 1"),
        ({"start": math.nan}, "not nan to 1"),
        ({"end": math.inf}, "not 0 to inf"),
        ({"start": 1.0}, "not 1.0 to 1"),
        ({"frames": 0}, "frames must be at least 1, not 0"),
        ({"size": 0}, "size must be at least 1"),
        ({"rate": 0}, "rate must be at least 1"),
    ],
)
def test_impossible_requests(plain, changes, message):
    request = {"start": 0, "end": 1, "frames": 1, "size": 32, "rate": 16_000, **changes}
    start, end = request.pop("start"), request.pop("end")
    with pytest.raises(UsageError, match=re.escape(message)):
        read(plain, start, end, **request)


def test_media_checks_itself():
    with pytest.raises(ValueError, match="1 frames but 2 times"):
        Media(np.zeros((1, 2, 2, 3), np.uint8), np.zeros(2), None, None, 16_000)
    with pytest.raises(ValueError, match="come together"):
        Media(None, None, np.zeros(3, np.float32), None, 16_000)
