"""Packs: what is in them, that nothing is lost, and that no crash or kill leaves a trace."""

import errno
import fcntl
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st

from sonant.clips import Clips
from sonant.errors import SonantError, UsageError
from sonant.media import crew
from sonant.media.pack import Pack, pack
from sonant.media.read import read
from sonant.media.shard import PackedClip, from_wav, key, load, to_wav
from sonant.media.sweep import Form, Span
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
    assert reasons["silent.mp4"] == {"the file has no audio stream"}
    assert reasons["blind.mp4"] == {"the file has no video stream"}
    (broken,) = reasons["broken.mp4"]
    assert broken.startswith("not a readable media file")


def test_the_table_on_disk_is_the_one_returned(packed):
    clips, out = packed
    assert Pack.open(out).clips.table.equals(clips.table)
    assert clips.labels == ("verb",)


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


def test_reading_what_is_not_there(packed, tmp_path):
    clips, out = packed
    bad = int(np.flatnonzero(clips.column("video") == "no.mp4")[0])
    with pytest.raises(UsageError, match=r"clip 'no.mp4/0.2' \(row \d+\) is in no shard: no such"):
        Pack(clips, out).read(bad, frames=2)
    with pytest.raises(SonantError, match=r"00000.tar: clip 'a.mp4/0.2' cannot be read at byte 0"):
        Pack(clips, tmp_path).read(0, frames=2)
    wrong = clips.where(packed=True)
    places = dict.fromkeys(wrong.column("id"), ("00000.tar", 512, 5000))
    with pytest.raises(SonantError, match="does the shard belong to this table"):
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
    job = crew.Job(
        tmp_path / "00000.tar", root, {"d.mov": [Span("x", 0, 1)]}, Form(16_000, 5, 48, 90)
    )
    with pytest.raises(SonantError, match="no space left on the disk"):
        job.run({}, lambda _: None)
    assert not list(tmp_path.iterdir())


BAD_DECODER = '''
"""Stands in for a decoder that crashes on one file and never returns from another."""
import os, signal, time
import sonant.media.sweep as sweep

class MediaFile(sweep.MediaFile):
    def __init__(self, path):
        if path.name == "crash.mp4":
            os.kill(os.getpid(), signal.SIGSEGV)
        if path.name == "hang.mp4":
            time.sleep(1e6)
        super().__init__(path)

sweep.MediaFile = MediaFile
'''


def test_a_decoder_that_crashes_or_hangs_costs_its_own_video(film, tmp_path, monkeypatch):
    for name in ("a.mp4", "crash.mp4", "hang.mp4", "z.mp4"):
        film(tmp_path / name, seconds=1.5)
    (tmp_path / "sitecustomize.py").write_text(BAD_DECODER)
    clips = table(tmp_path, "a.mp4", "crash.mp4", "hang.mp4", "z.mp4", every=9)
    monkeypatch.syspath_prepend(tmp_path)
    packed = pack(clips, tmp_path / "pack", workers=1, patience=1.0, **FORM)
    assert list(packed.column("quarantine")) == [
        "",
        "the decoder crashed (SIGSEGV)",
        "the decoder made no progress for 1 s",
        "",
    ]
    assert len(Pack(packed, tmp_path / "pack").read(3, frames=5).frames) == 5


PACK = """
import json, sys
from pathlib import Path
from sonant.clips import Clips
from sonant.media.pack import pack
table, out, form = sys.argv[1:]
pack(Clips.read(table), out, **json.loads(form))
"""


@pytest.mark.parametrize(
    ("sign", "count"), [("pack.json", 1), (".00000.tar.*", 1), ("0*.json", 1), ("0*.json", 3)]
)
def test_a_killed_pack_goes_on_to_the_same_bytes(packed, root, tmp_path, sign, count):
    wanted, whole = packed
    out = tmp_path / "pack"
    table(root, *ALL).write(tmp_path / "clips.parquet")
    command = [sys.executable, "-c", PACK, str(tmp_path / "clips.parquet"), str(out)]
    process = subprocess.Popen([*command, json.dumps(FORM)], start_new_session=True)
    while process.poll() is None and len(list(out.glob(sign))) < count:
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for record in out.glob("0*.json"):
        assert record.with_suffix(".tar").read_bytes() == shards(whole)[record.stem + ".tar"]
    resumed = pack(table(root, *ALL), out, **FORM)
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
