"""Packs: what is in them, that nothing is lost, and that no crash or kill leaves a trace."""

import errno
import fcntl
import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
import tarfile
import time
from fractions import Fraction
from pathlib import Path
from shutil import copytree

import av
import fsspec
import numpy as np
import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st

from sonant.clips import Clips
from sonant.errors import MediaError, SonantError, UsageError
from sonant.media import crew, sweep
from sonant.media.decode import MediaFile
from sonant.media.events import Lost
from sonant.media.job import Job
from sonant.media.pack import Pack, pack
from sonant.media.read import read
from sonant.media.shard import PackedClip, from_wav, key, load, to_wav
from sonant.types import Clip

FORM = {"frame_rate": 5.0, "short_side": 48, "shard_size": 4}


@pytest.fixture(scope="module")
def root(film, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    film(folder / "a.mp4", seconds=4, options={"bf": "3"})
    film(folder / "b.webm", video="libvpx", audio="libopus", seconds=3)
    film(folder / "sub c.mp4", seconds=3, rate=44_100, layout="stereo", size=(64, 96))
    film(folder / "silent.mp4", audio=None, seconds=2)
    film(folder / "blind.mp4", video=None, seconds=2)
    film(folder / "d.mov", audio="pcm_s16le", seconds=2)
    (folder / "broken.mp4").write_bytes(b"nothing of a video" * 50)
    return folder


def table(root: Path, *videos: str, every: float = 0.6) -> Clips:
    """Overlapping clips of 1 s, also past the end of each 4 s."""
    rows = [
        Clip(f"{video}/{start:.1f}", video, start, start + 1, text="cut", labels={"verb": "cut"})
        for video in videos
        for start in np.arange(0.2, 4.0, every)
    ]
    return Clips.of(rows, root=root)


ALL = ["a.mp4", "b.webm", "broken.mp4", "sub c.mp4", "silent.mp4", "blind.mp4", "no.mp4", "d.mov"]


@pytest.fixture(scope="module")
def packed(root, tmp_path_factory) -> tuple[Clips, Path]:
    out = tmp_path_factory.mktemp("packs") / "all"
    return pack(table(root, *ALL), out, **FORM), out


@pytest.fixture(scope="module")
def partial(root, tmp_path_factory) -> tuple[Clips, Path]:
    out = tmp_path_factory.mktemp("packs") / "partial"
    return pack(table(root, *ALL), out, partial=True, **FORM), out


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar"))}


def test_packed_clips_are_what_read_gives(packed, root):
    clips, out = packed
    there = Pack(clips, out)
    good = np.flatnonzero(clips.column("shard") != "")
    assert len(good) == len(there) - int((clips.column("quarantine") != "").sum()) > 12
    for row in good:
        clip = clips[row]
        media = there.read(row, frames=5)
        wanted = read(root / clip.video, clip.start, clip.end, frames=5, size=48, rate=16_000)
        np.testing.assert_array_equal(media.frame_times, wanted.frame_times)
        np.testing.assert_allclose(media.samples, wanted.samples, atol=1 / 32768)
        assert media.samples_start == pytest.approx(wanted.samples_start, abs=1e-6)
        assert np.abs(media.frames.astype(int) - wanted.frames).mean() < 4  # JPEG


def test_every_bad_clip_has_its_reason(packed):
    clips, _ = packed
    reasons: dict[str, set[str]] = {}
    for video, reason in zip(clips.column("video"), clips.column("quarantine"), strict=True):
        reasons.setdefault(video, set()).add(reason)
    assert "" in reasons["a.mp4"] and "" in reasons["d.mov"]
    past = [reason for reason in reasons["b.webm"] if reason]
    assert past and all("the video ends at 3.0" in reason for reason in past)
    assert reasons["no.mp4"] == {"no such file"}
    assert reasons["silent.mp4"] == {"the file has no audio stream (packed only with --partial)"}
    assert reasons["blind.mp4"] == {"the file has no video stream (packed only with --partial)"}
    (broken,) = reasons["broken.mp4"]
    assert broken.startswith("not a readable media file")


def test_the_table_on_disk_is_the_one_returned(packed):
    clips, out = packed
    assert Pack.open(out).clips.table.equals(clips.table)
    assert clips.labels == ("verb",)


def test_with_partial_a_clip_is_what_read_gives_of_the_streams_there_are(partial, root):
    clips, out = partial
    there, packed = Pack(clips, out), set()
    for row in np.flatnonzero(np.isin(clips.column("video"), ["silent.mp4", "blind.mp4"])):
        clip, reason = clips[row], clips.column("quarantine")[row]
        try:
            wanted = read(root / clip.video, clip.start, clip.end, frames=5, size=48, rate=16_000)
        except MediaError as error:
            assert error.reason == reason
            continue
        packed.add((clip.video, clip.start))
        media = there.read(row, frames=5)
        if clip.video == "silent.mp4":
            assert media.samples is None and media.samples_start is None
            np.testing.assert_array_equal(media.frame_times, wanted.frame_times)
            assert np.abs(media.frames.astype(int) - wanted.frames).mean() < 4  # JPEG
            assert there.read(row, frames=0).frames is None
        else:
            assert media.frames is None and media.frame_times is None
            np.testing.assert_allclose(media.samples, wanted.samples, atol=1 / 32768)
            assert media.samples_start == pytest.approx(wanted.samples_start, abs=1e-6)
    assert packed == {
        (video, 0.2 + 0.6 * k) for video in ("silent.mp4", "blind.mp4") for k in (0, 1)
    }


def test_partial_changes_nothing_else(partial, packed):
    (clips, out), (whole, _) = partial, packed
    rows = ~np.isin(clips.column("video"), ["silent.mp4", "blind.mp4"])
    for column in ("quarantine", "size", "content"):
        assert list(clips.column(column)[rows]) == list(whole.column(column)[rows])
    added = len(clips.where(packed=True)) - len(whole.where(packed=True))
    assert added == 4
    assert json.loads((out / "pack.json").read_text())["partial"] is True


def test_what_a_clip_lacks_is_not_in_its_shard(partial):
    clips, out = partial
    urls = [str(path) for path in sorted(out.glob("*.tar")) if path.stat().st_size > 1024]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False))
    assert len(samples) == len(clips.where(packed=True))
    for sample in samples:
        about = json.loads(sample["json"])
        heard, seen = about["video"] != "silent.mp4", about["video"] != "blind.mp4"
        assert ("wav" in sample, "000.jpg" in sample) == (heard, seen)
        assert (about["samples_start"] is not None, about["frame_times"] is not None) == (
            heard,
            seen,
        )


def test_partial_and_whole_packs_do_not_mix(partial, packed, root):
    with pytest.raises(UsageError, match="holds a pack with partial False, not True"):
        pack(table(root, *ALL), packed[1], partial=True, **FORM)
    with pytest.raises(UsageError, match="holds a pack with partial True, not False"):
        pack(table(root, *ALL), partial[1], **FORM)


def test_a_pack_from_before_partial_is_a_whole_one(film, tmp_path):
    """Neither its pack.json nor the digest of its shards knows the setting."""
    film(tmp_path / "a.mp4", seconds=2)
    film(tmp_path / "mute.mp4", seconds=2, audio=None)
    clips, out = table(tmp_path, "a.mp4", "mute.mp4", every=2), tmp_path / "pack"
    before = pack(clips, out, **FORM)
    about = json.loads((out / "pack.json").read_text())
    assert about.pop("partial") is False
    (out / "pack.json").write_text(json.dumps(about))
    rows = {
        video: [
            {"id": f"{video}/{start}", "start": start, "end": start + 1} for start in (0.2, 2.2)
        ]
        for video in ("a.mp4", "mute.mp4")
    }
    form = {"rate": 16_000, "frame_rate": 5.0, "short_side": 48, "quality": 90}
    record = json.loads((out / "00000.json").read_text())
    assert record["digest"] == hashlib.sha256(json.dumps([rows, form]).encode()).hexdigest()
    written = (out / "00000.tar").stat().st_mtime_ns
    assert pack(clips, out, **FORM).table.equals(before.table)
    assert (out / "00000.tar").stat().st_mtime_ns == written
    with pytest.raises(UsageError, match="holds a pack with partial False, not True"):
        pack(clips, out, partial=True, **FORM)


def test_with_partial_what_is_damaged_or_has_neither_stays_in_quarantine(film, tmp_path):
    whole = film(tmp_path / "mute.mkv", seconds=3, audio=None).read_bytes()
    middle = len(whole) // 2
    (tmp_path / "hurt.mkv").write_bytes(whole[:middle] + b"\x55" * 900 + whole[middle + 900 :])
    (tmp_path / "words.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nhello\n")
    rows = [Clip(f"{k}", "hurt.mkv", k, k + 1) for k in (0.0, 1.0, 2.0)]
    clips = Clips.of([*rows, Clip("x", "words.srt", 0, 1)], root=tmp_path)
    reasons = pack(clips, tmp_path / "pack", partial=True, **FORM).column("quarantine")
    assert reasons[0] == "" and any("damaged" in reason for reason in reasons[1:3])
    assert reasons[3] == "it holds neither video nor sound"


def test_webdataset_reads_the_shards(packed):
    clips, out = packed
    urls = [str(path) for path in sorted(out.glob("*.tar")) if path.stat().st_size > 1024]
    samples = list(
        webdataset.WebDataset(urls, shardshuffle=False, empty_check=False).decode("rgb8")
    )
    good = clips.where(packed=True)
    assert {sample["json"]["id"] for sample in samples} == set(good.column("id"))
    there = Pack(good, out)
    rows = {id: row for row, id in enumerate(good.column("id"))}
    for sample in samples:
        media = there.read(rows[sample["json"]["id"]], frames=5)
        for k, frame in enumerate(media.frames):
            np.testing.assert_array_equal(sample[f"{k:03}.jpg"], frame)
        assert len(sample["wav"]) == 44 + 2 * len(media.samples)


def test_frames_are_sampled_at_the_middles(packed):
    clips, out = packed
    there = Pack(clips, out)
    row = int(np.flatnonzero(clips.column("shard") != "")[0])
    everything = there.read(row, frames=5)
    for frames, wanted in [(1, [2]), (2, [1, 3]), (3, [0, 2, 4]), (10, np.arange(10) // 2)]:
        media = there.read(row, frames=frames)
        np.testing.assert_array_equal(media.frame_times, everything.frame_times[wanted])
        np.testing.assert_array_equal(media.frames, everything.frames[wanted])


@pytest.mark.parametrize("kind", ["wav", "jpg"])
def test_bytes_that_changed_since_they_were_packed_are_refused(packed, tmp_path, kind):
    clips, out = packed
    there = Pack(clips, copytree(out, tmp_path / "copy"))
    row, other = np.flatnonzero(clips.column("shard") != "")[:2].tolist()
    shard, offset = (clips.column(name)[row] for name in ("shard", "offset"))
    whole = bytearray((tmp_path / "copy" / shard).read_bytes())
    at = whole.index(f".{kind}".encode(), offset) + 1024
    whole[at] ^= 1
    (tmp_path / "copy" / shard).write_bytes(whole)
    for _ in range(2):
        with pytest.raises(SonantError, match="these are not the bytes that were packed; does the"):
            there.read(row, frames=5)
    assert there.read(other, frames=5).frames is not None


def test_a_finished_pack_is_not_written_to(packed, root):
    clips, out = packed
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    again = pack(table(root, *ALL), out, **FORM)
    assert again.table.equals(clips.table)
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_sound_alone_is_read_without_decoding_a_picture(packed, monkeypatch):
    clips, out = packed
    there = Pack(clips, out)
    whole = there.read(0, frames=5)
    monkeypatch.setattr("sonant.media.shard._pixels", None)
    media = there.read(0, frames=0)
    assert media.frames is None and media.frame_times is None
    np.testing.assert_array_equal(media.samples, whole.samples)
    with pytest.raises(UsageError, match="frames must be 0 or more, not -1"):
        there.read(0, frames=-1)


def test_remote_and_pickled_packs_read_the_same(packed):
    clips, out = packed
    row = int(np.flatnonzero(clips.column("shard") != "")[-1])
    here = Pack(clips, out)
    memory = fsspec.filesystem("memory")
    memory.put(str(out) + "/", "/packs/all/", recursive=True)
    for other in (Pack(clips, "memory://packs/all"), pickle.loads(pickle.dumps(here))):
        np.testing.assert_array_equal(
            other.read(row, frames=2).frames, here.read(row, frames=2).frames
        )


def test_a_pack_opens_at_any_address(packed):
    clips, out = packed
    fsspec.filesystem("memory").put(str(out) + "/", "/packs/open/", recursive=True)
    there = Pack.open("memory://packs/open/")
    assert there.clips.table.equals(clips.table)
    np.testing.assert_array_equal(
        there.read(0, frames=2).frames, Pack.open(out).read(0, frames=2).frames
    )
    with pytest.raises(UsageError, match=r"memory://none/clips.parquet: cannot be fetched"):
        Pack.open("memory://none")
    with pytest.raises(UsageError, match=r"nowhere://p/clips.parquet: .*nowhere"):
        Pack.open("nowhere://p")


def test_by_default_fewer_frames_are_evenly_spaced_and_those_of_read(film, tmp_path):
    path = film(tmp_path / "a.mp4", seconds=3)
    clips = Clips.of([Clip("x", "a.mp4", 0.9, 2.4)], root=tmp_path)
    there = Pack(pack(clips, tmp_path / "pack"), tmp_path / "pack")
    packed = there.read(0, frames=24).frame_times
    for frames in (4, 6, 8, 12):
        places = np.searchsorted(packed, there.read(0, frames=frames).frame_times)
        assert set(np.diff(places)) == {24 // frames}
    wanted = read(path, 0.9, 2.4, frames=8, size=112, rate=16_000)
    np.testing.assert_array_equal(there.read(0, frames=8).frame_times, wanted.frame_times)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("a.mp4", {"options": {"bf": "3"}, "layout": "stereo", "delay": 0.4}),
        ("a.mp4", {"options": {"x264-params": "open-gop=1:bframes=3"}, "rate": 44_100}),
        ("a.mov", {"audio": "pcm_s16le"}),
    ],
)
def test_stretches_without_clips_are_jumped_over(film, tmp_path, name, settings):
    path = film(tmp_path / name, seconds=24, size=(64, 32), flashes=[11.0], **settings)
    starts = [0.3, 1.0, 10.4, 10.5, 22.1, 23.8, 60.0, 1e300]
    spans = [sweep.Span(f"{start}", start, start + 1) for start in starts]
    form, beats = sweep.Form(16_000, 5, 32, 90), []
    found = list(sweep.sweep(path, name, spans, form, lambda: beats.append(1)))
    with MediaFile(path) as file:
        assert len(beats) < sum(1 for _ in file.events()) / 2
    for start, clip in zip(starts[:5], found, strict=False):
        media = load(clip.to_bytes(), f"{start}", 5)
        wanted = read(path, start, start + 1, frames=5, size=32, rate=16_000)
        np.testing.assert_array_equal(media.frame_times, wanted.frame_times)
        np.testing.assert_allclose(media.samples, wanted.samples, atol=1 / 32768)
        assert np.abs(media.frames.astype(int) - wanted.frames).mean() < 4  # JPEG
    assert [reason.partition(" at 2")[0] for _, reason in found[5:]] == ["the video ends"] * 3


def test_with_partial_stretches_of_silent_pictures_are_jumped_over(film, tmp_path):
    path = film(tmp_path / "a.mp4", seconds=24, size=(64, 32), audio=None, options={"bf": "3"})
    spans = [sweep.Span(f"{start}", start, start + 1) for start in (0.3, 10.4, 22.1)]
    form, beats = sweep.Form(16_000, 5, 32, 90, partial=True), []
    found = list(sweep.sweep(path, "a.mp4", spans, form, lambda: beats.append(1)))
    with MediaFile(path) as file:
        assert len(beats) < sum(1 for _ in file.events()) / 2
    for span, clip in zip(spans, found, strict=True):
        media = load(clip.to_bytes(), span.id, 5)
        wanted = read(path, span.start, span.end, frames=5, size=32, rate=16_000)
        np.testing.assert_array_equal(media.frame_times, wanted.frame_times)


def test_a_picture_that_stays_is_stored_once(film, tmp_path):
    path = film(tmp_path / "a.mp4", seconds=3, stamps=lambda index: index * 200)
    clips = Clips.of([Clip("x", "a.mp4", 0.5, 2.0)], root=tmp_path)
    there = Pack(pack(clips, tmp_path / "pack"), tmp_path / "pack")
    with tarfile.open(tmp_path / "pack" / "00000.tar") as shard:
        assert sum(name.endswith(".jpg") for name in shard.getnames()) == 8
    media = there.read(0, frames=24)
    wanted = read(path, 0.5, 2.0, frames=24, size=112, rate=16_000)
    np.testing.assert_array_equal(media.frame_times, wanted.frame_times)
    assert np.abs(media.frames.astype(int) - wanted.frames).mean() < 4  # JPEG


def test_pictures_that_change_their_shape_are_refused_as_by_read(film, tmp_path):
    wide, tall = (
        film(tmp_path / name, seconds=2, size=size, audio=None, options={"bf": "0"}).read_bytes()
        for name, size in (("wide.h264", (128, 64)), ("tall.h264", (64, 128)))
    )
    (tmp_path / "both.h264").write_bytes(wide + tall)
    path = with_sound(tmp_path / "both.h264", tmp_path / "both.mkv")
    rows = [Clip(f"{start}", path.name, start, start + 1) for start in (0.5, 1.5, 2.5)]
    packed = pack(Clips.of(rows, root=tmp_path), tmp_path / "pack", **FORM)
    reason = "the pictures change their shape within the span"
    assert list(packed.column("quarantine")) == ["", reason, ""]
    with pytest.raises(MediaError, match=reason):
        read(path, 1.5, 2.5, frames=5, size=48, rate=16_000)


def with_sound(raw: Path, path: Path) -> Path:
    """A raw H.264 stream at 25 pictures a second in a container, beside silence of 4 s."""
    with av.open(str(raw), format="h264") as file, av.open(str(path), "w") as container:
        pictures = container.add_stream_from_template(file.streams.video[0])
        sound = container.add_stream("pcm_s16le", 16_000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 64_000), np.int16), "s16", "mono")
        silence.sample_rate = 16_000
        container.mux([*sound.encode(silence), *sound.encode()])
        for index, packet in enumerate(packet for packet in file.demux() if packet.size):
            packet.pts = packet.dts = index
            packet.time_base, packet.stream = Fraction(1, 25), pictures
            container.mux(packet)
    return path


def test_a_frame_that_cannot_be_converted_costs_its_own_clips(film, tmp_path, monkeypatch):
    path = film(tmp_path / "a.mp4", seconds=3)
    pixels = sweep.Scaler.pixels

    def fragile(self, frame):
        if 1.4 < frame.time < 1.6:
            raise Lost("a frame cannot be converted: odd", frame.time)
        return pixels(self, frame)

    monkeypatch.setattr(sweep.Scaler, "pixels", fragile)
    spans = [sweep.Span(f"{start}", start, start + 1) for start in (0.0, 1.0, 1.2, 1.8)]
    results = list(sweep.sweep(path, "a.mp4", spans, sweep.Form(16_000, 5, 48, 90), lambda: None))
    reason = "a frame cannot be converted: odd"
    assert [result for result in results if isinstance(result, tuple)] == [
        ("1.0", reason),
        ("1.2", reason),
    ]
    assert [result.id for result in results if not isinstance(result, tuple)] == ["0.0", "1.8"]


def test_reading_what_is_not_there(packed, tmp_path):
    clips, out = packed
    bad = int(np.flatnonzero(clips.column("video") == "no.mp4")[0])
    with pytest.raises(UsageError, match=r"clip 'no.mp4/0.2' \(row \d+\) is in no shard: no such"):
        Pack(clips, out).read(bad, frames=2)
    with pytest.raises(SonantError, match=r"00000.tar: clip 'a.mp4/0.2' cannot be read at byte 0"):
        Pack(clips, tmp_path).read(0, frames=2)
    wrong = clips.where(packed=True)
    places = dict.fromkeys(wrong.column("id"), ("00000.tar", 512, 5000))
    with pytest.raises(
        SonantError, match=r"does the shard belong to this table.*delete the shard and pack again"
    ):
        Pack(wrong.with_packed(places), out).read(0, frames=2)


def test_packing_again_does_nothing_and_repairs_what_is_gone(packed, root, tmp_path):
    clips, out = packed
    before = {path: path.stat().st_mtime_ns for path in out.glob("0*")}
    again = pack(table(root, *ALL), out, **FORM)
    assert again.table.equals(clips.table)
    assert {path: path.stat().st_mtime_ns for path in out.glob("0*")} == before
    wanted = shards(out)
    (out / "00000.json").unlink()
    (out / "00001.tar").write_bytes(b"half a shard")
    pack(table(root, *ALL), out, workers=1, **FORM)
    assert shards(out) == wanted


def test_a_video_that_comes_back_is_packed(film, tmp_path):
    film(tmp_path / "first.mp4", seconds=2)
    clips = table(tmp_path, "first.mp4", "second.mp4", every=2)
    before = pack(clips, tmp_path / "pack", **FORM)
    assert list(before.column("quarantine")[2:]) == ["no such file"] * 2
    film(tmp_path / "second.mp4", seconds=2)
    after = pack(clips, tmp_path / "pack", **FORM)
    assert after.column("quarantine")[2] == ""


def test_another_soundtrack_of_the_same_size_is_noticed(film, tmp_path):
    clips, out = table(tmp_path, "a.mov", every=2), tmp_path / "pack"
    packs = []
    for clicks in ([], [0.5], []):
        film(tmp_path / "a.mov", seconds=2, audio="pcm_s16le", clicks=clicks)
        packs.append(pack(clips, out, **FORM))
    assert len({tuple(packed.column("size")) for packed in packs}) == 1
    silent, clicking, again = (packed.packed_digest() for packed in packs)
    assert silent == again != clicking
    data = (out / "00000.tar").read_bytes()[: packs[-1].column("size")[0]]
    assert packs[-1].column("content")[0] == hashlib.blake2b(data, digest_size=8).hexdigest()
    assert packs[-1].column("content")[1] == ""  # past the end, and so not packed


def test_a_finished_pack_stays_while_its_videos_are_away(film, tmp_path):
    (tmp_path / "videos").mkdir()
    for name in ("a.mp4", "b.mp4"):
        film(tmp_path / "videos" / name, seconds=2)
    clips, out = table(tmp_path / "videos", "a.mp4", "b.mp4", every=2), tmp_path / "pack"
    before, there = pack(clips, out, **FORM), shards(out)
    (tmp_path / "videos" / "a.mp4").unlink()
    assert pack(clips, out, **FORM).table.equals(before.table)
    film(tmp_path / "videos" / "b.mp4", seconds=1.5)
    with pytest.raises(
        SonantError, match=r"00000.tar: b.mp4 has changed .* but a.mp4 of the same shard is missing"
    ):
        pack(clips, out, **FORM)
    (tmp_path / "videos").rename(tmp_path / "away")
    assert pack(clips, out, **FORM).table.equals(before.table)
    assert shards(out) == there
    (out / "00000.json").unlink()
    with pytest.raises(SonantError, match="videos: the folder of the videos is not there"):
        pack(clips, out, **FORM)
    with pytest.raises(SonantError, match="videos: the folder of the videos is not there"):
        pack(clips, tmp_path / "new", **FORM)
    assert shards(out) == there and not (tmp_path / "new").exists()


@pytest.mark.parametrize("text", ["", "[]", "null", '"x"', "{}", "\xff"])
def test_side_files_of_others(film, tmp_path, text):
    film(tmp_path / "a.mp4", seconds=2)
    clips, out = table(tmp_path, "a.mp4", every=2), tmp_path / "pack"
    before = pack(clips, out, **FORM)
    (out / "00000.json").write_text(text, "latin-1")
    assert pack(clips, out, **FORM).table.equals(before.table)
    assert json.loads((out / "00000.json").read_text())["places"]
    (out / "pack.json").write_text(text, "latin-1")
    with pytest.raises(UsageError, match=r"pack.json: does not describe a pack|holds a pack with"):
        pack(clips, out, **FORM)


def test_another_pack_in_the_same_folder_is_refused(packed, root):
    _, out = packed
    with pytest.raises(UsageError, match="holds a pack with short_side 48, not 64; choose another"):
        pack(table(root, *ALL), out, **{**FORM, "short_side": 64})
    with pytest.raises(UsageError, match="clips 56, not 7, other clips"):
        pack(table(root, "a.mp4"), out, **FORM)


def test_two_packs_at_once_are_refused(packed, root):
    _, out = packed
    with (out / "pack.json").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="another process is packing into this folder"):
            pack(table(root, *ALL), out, **FORM)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"workers": 0}, "workers must be at least 1, not 0"),
        ({"quality": 96}, "quality must be at most 95, not 96"),
        ({"frame_rate": 0.0}, "frame_rate must be above 0"),
        ({"rate": 16}, "rate must be at least 1000, not 16"),
        ({"rate": 10**9}, "rate must be at most 192000, not 1000000000"),
        ({"short_side": 10**6}, "short_side must be at most 4320, not 1000000"),
        ({"frame_rate": 1e9}, "frame_rate must be at most 240, not 1000000000.0"),
        ({"frame_rate": np.inf}, "frame_rate must be finite, not inf"),
        ({"frame_rate": np.nan}, "frame_rate must be above 0, not nan"),
        ({"shard_size": 10**9}, "shard_size must be at most 1000000, not 1000000000"),
        ({"workers": 10**6}, "workers must be at most 1000, not 1000000"),
        ({"patience": np.inf}, "patience must be finite, not inf"),
    ],
)
def test_impossible_settings(root, tmp_path, setting, message):
    with pytest.raises(UsageError, match=message):
        pack(table(root, "a.mp4"), tmp_path / "pack", **setting)
    assert not (tmp_path / "pack").exists()


def test_a_folder_that_cannot_be_written(root, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SonantError, match="is a file, not a folder"):
        pack(table(root, "a.mp4"), tmp_path / "file" / "pack")


def test_a_full_disk_is_told_and_leaves_nothing(root, tmp_path, monkeypatch):
    def full(self: PackedClip) -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(PackedClip, "to_bytes", full)
    job = Job(
        tmp_path / "00000.tar",
        root,
        {"d.mov": [sweep.Span("x", 0, 1)]},
        sweep.Form(16_000, 5, 48, 90),
    )
    with pytest.raises(SonantError, match="no space left on the disk"):
        job.run({}, lambda _: None)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_decoder_that_crashes_or_hangs_costs_its_own_video(film, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent / "bad_decoder")
    for name in ("a.mp4", "crash.mp4", "hang.mp4", "z.mp4"):
        film(tmp_path / name, seconds=1.5)
    clips = table(tmp_path, "a.mp4", "crash.mp4", "hang.mp4", "z.mp4", every=9)
    packed = pack(clips, tmp_path / "pack", workers=1, patience=1.0, **FORM)
    assert list(packed.column("quarantine")) == [
        "",
        "the decoder crashed (SIGSEGV)",
        "the decoder made no progress for 1 s",
        "",
    ]
    assert len(Pack(packed, tmp_path / "pack").read(3, frames=5).frames) == 5


def test_a_pack_that_fails_leaves_no_half_shard_of_another_worker(film, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent / "bad_decoder")
    for name in ("hang.mp4", "z.mp4"):
        film(tmp_path / name, seconds=1.5)
    clips, out = table(tmp_path, "hang.mp4", "z.mp4", every=9), tmp_path / "pack"
    (out / "00001.tar").mkdir(parents=True)
    with pytest.raises(SonantError, match=r"00001.tar: is a folder, and no file"):
        pack(clips, out, workers=2, **{**FORM, "shard_size": 1})
    assert {path.name for path in out.iterdir()} == {"pack.json", "00001.tar"}


def test_a_worker_whose_command_has_died_ends_without_a_word(film, tmp_path):
    film(tmp_path / "a.mp4", seconds=2)
    spans = {"a.mp4": [sweep.Span("x", 0, 1)]}
    job = Job(tmp_path / "00000.tar", tmp_path, spans, sweep.Form(16_000, 5, 48, 90))
    pipe = subprocess.PIPE
    worker = subprocess.Popen(crew.COMMAND, stdin=pipe, stdout=pipe, stderr=pipe)
    worker.stdout.close()
    worker.stdin.write(pickle.dumps((job, {})))
    worker.stdin.close()
    assert worker.stderr.read() == b""
    worker.wait()
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it ends when it next speaks")
def test_a_worker_that_hangs_does_not_outlive_its_command(film, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "bad_decoder"), os.pathsep)
    film(tmp_path / "hang.mp4", seconds=1.5)
    table(tmp_path, "hang.mp4").write(tmp_path / "clips.parquet")
    command = [sys.executable, "-c", PACK, str(tmp_path / "clips.parquet"), str(tmp_path / "pack")]
    process = subprocess.Popen([*command, json.dumps(FORM)], stderr=subprocess.PIPE)
    while not (begun := list((tmp_path / "pack").glob(".00000.tar.*"))):
        time.sleep(0.01)
    worker = Path("/proc", begun[0].name.split(".")[3])
    process.kill()
    assert b"Traceback" not in process.communicate(timeout=60)[1]
    deadline = time.monotonic() + 60
    while worker.exists() and "State:\tZ" not in (worker / "status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


PACK = """
import json, sys
from pathlib import Path
from sonant.clips import Clips
from sonant.media.pack import pack
table, out, form = sys.argv[1:]
pack(Clips.read(table), out, **json.loads(form))
"""


@pytest.mark.parametrize(
    ("sign", "count", "kind"),
    [
        ("pack.json", 1, "packed"),
        (".00000.tar.*", 1, "packed"),
        ("0*.json", 1, "packed"),
        ("0*.json", 3, "partial"),
    ],
)
def test_a_killed_pack_goes_on_to_the_same_bytes(request, root, tmp_path, sign, count, kind):
    wanted, whole = request.getfixturevalue(kind)
    out, form = tmp_path / "pack", FORM | {"partial": kind == "partial"}
    table(root, *ALL).write(tmp_path / "clips.parquet")
    command = [sys.executable, "-c", PACK, str(tmp_path / "clips.parquet"), str(out)]
    process = subprocess.Popen([*command, json.dumps(form)], start_new_session=True)
    while process.poll() is None and len(list(out.glob(sign))) < count:
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for record in out.glob("0*.json"):
        assert record.with_suffix(".tar").read_bytes() == shards(whole)[record.stem + ".tar"]
    resumed = pack(table(root, *ALL), out, **form)
    assert resumed.table.equals(wanted.table)
    assert shards(out) == shards(whole)
    assert not list(out.glob(".*"))


@given(st.text(max_size=200), st.text(max_size=200))
def test_keys_are_safe_and_tell_ids_apart(one, other):
    assert len(key(one)) <= 80 and key(one).isascii()
    assert not set(key(one)) & set("./\\ \0")
    assert (key(one) == key(other)) == (one == other)


@given(st.lists(st.floats(-2, 2, width=32), max_size=50))
def test_wav_keeps_sound_to_16_bits(values):
    samples = np.array(values, np.float32)
    np.testing.assert_allclose(
        from_wav(to_wav(samples, 16_000)), np.clip(samples, -1, 1), atol=1 / 32768
    )


@given(st.text(max_size=100))
def test_any_id_comes_back(id):
    clip = PackedClip(id, "v", 0, 1, [], [], 0.0, np.zeros(4, np.float32), 16_000)
    with pytest.raises(ValueError, match="there lies clip"):
        load(clip.to_bytes(), id + "!", 0)
