import os
import subprocess
import sys
import threading
from dataclasses import replace
from itertools import chain
from multiprocessing import active_children
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sonant.clips import Clips
from sonant.data import (
    Cache,
    Examples,
    Request,
    Views,
    _meanwhile,
    loader,
    order,
    requests,
    to_device,
)
from sonant.errors import SonantError, UsageError
from sonant.media.read import Media
from sonant.media.text import train_tokenizer
from sonant.types import Batch, Modality
from toy import SECONDS, Toy, packed_toys, toy_clips

ALL = ("audio", "video", "text")


def views(jitter: int = 2) -> Views:
    tokenizer = train_tokenizer(toy_clips(6).column("text"))
    return Views(tokenizer=tokenizer, frames=2, size=32, jitter=jitter, seconds=0.3, tokens=6)


class Deaf(Toy):
    """Row 3 has no sound."""

    def read(self, row: int, *, frames: int, film: slice = slice(None)) -> Media:
        media = super().read(row, frames=frames, film=film)
        if row != 3:
            return media
        return Media(media.frames, media.frame_times, None, None, media.rate)


class Some(Toy):
    """Some of the toys, as rows 0, 1, ..."""

    def __init__(self, rows: list[int]) -> None:
        super().__init__()
        self.rows = rows

    def read(self, row: int, *, frames: int, film: slice = slice(None)) -> Media:
        return super().read(self.rows[row], frames=frames, film=film)


@given(st.integers(0, 300), st.integers(0, 9), st.integers(0, 9))
def test_order_is_a_permutation_and_a_function(n: int, seed: int, epoch: int) -> None:
    rows = order(n, seed=seed, stage="align", epoch=epoch)
    assert sorted(rows) == list(range(n))
    assert np.array_equal(rows, order(n, seed=seed, stage="align", epoch=epoch))


def test_order_differs_by_seed_stage_and_epoch() -> None:
    ways = [(0, "align", 0), (1, "align", 0), (0, "refine", 0), (0, "align", 1)]
    orders = [order(100, seed=s, stage=t, epoch=e) for s, t, e in ways]
    assert len({tuple(rows) for rows in orders}) == 4


@settings(max_examples=50)
@given(
    n=st.integers(0, 60),
    per_rank=st.integers(1, 5),
    ranks=st.sampled_from([1, 2, 4]),
    epochs=st.integers(0, 3),
    data=st.data(),
)
def test_ranks_share_each_batch_and_going_on_changes_nothing(
    n: int, per_rank: int, ranks: int, epochs: int, data: st.DataObject
) -> None:
    batch = per_rank * ranks
    steps = epochs * (n // batch)

    def asked(rank: int, ranks: int, first: int = 0) -> list[list[int]]:
        made = requests(
            n,
            batch=batch,
            epochs=epochs,
            seed=0,
            stage="align",
            first=first,
            rank=rank,
            ranks=ranks,
        )
        return [list(request.rows) for request in made]

    whole = asked(0, 1)
    assert len(whole) == steps
    parts = [asked(rank, ranks) for rank in range(ranks)]
    for step, rows in enumerate(whole):
        shares = [part[step] for part in parts]
        assert all(len(share) == per_rank for share in shares)
        assert sorted(chain(*shares)) == sorted(rows)
    for epoch in range(epochs):
        seen = list(chain(*whole[epoch * (n // batch) : (epoch + 1) * (n // batch)]))
        assert len(set(seen)) == len(seen) == n - n % batch
    first = data.draw(st.integers(0, steps))
    assert asked(0, 1, first) == whole[first:]


def test_batches_have_the_shapes_of_the_views() -> None:
    v, clips = views(), toy_clips(12)
    request = Request(np.array([3, 0, 5]))
    (batch,) = loader(Examples(clips, Toy(), v, ALL), [request], workers=0)
    assert batch.index.tolist() == [3, 0, 5]
    assert batch.inputs["audio"].shape == (3, 28, 128)
    assert batch.inputs["video"].shape == (3, 2, 3, 32, 32)
    assert batch.inputs["text"].shape == (3, 6)
    text = batch.inputs["text"].numpy()
    assert [v.tokenizer.decode(row) for row in text] == [
        "cuts the pot",
        "cuts the cup",
        "rubs the pot",
    ]


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_and_cache_change_nothing_but_the_time(tmp_path: Path, workers: int) -> None:
    clips, v = toy_clips(12), views()
    asked = list(requests(12, batch=4, epochs=2, seed=0, stage="align"))
    plain = list(loader(Examples(clips, Toy(), v, ALL), asked, workers=0))
    cached = Examples(clips, Toy(), v, ALL, cache=tmp_path)
    for kept in (plain, list(loader(cached, asked, workers=workers))):
        for one, other in zip(plain, kept, strict=True):
            assert one.index.equal(other.index)
            assert all(one.inputs[m].equal(other.inputs[m]) for m in ALL)
    cached.kept.save(rank=0)
    toy = Toy()
    again = list(loader(Examples(clips, toy, v, ALL, cache=tmp_path), asked, workers=0))
    assert toy.reads == 0
    assert all(
        x.inputs["video"].equal(y.inputs["video"]) for x, y in zip(plain, again, strict=True)
    )


def test_what_was_not_saved_to_the_cache_is_made_again(tmp_path: Path) -> None:
    request = Request(np.arange(4))
    first = Examples(toy_clips(12), Toy(), views(), ALL, cache=tmp_path)
    first.make(request)
    first.kept.arrays["audio"][1] = 7.0
    toy = Toy()
    second = Examples(toy_clips(12), toy, views(), ALL, cache=tmp_path)
    assert not (second.batch(request)[0]["audio"] == 7).any()
    assert toy.reads == 4


@pytest.mark.parametrize("change", ["cut", "longer", "other", "gone", "marks"])
def test_a_damaged_cache_is_made_anew(tmp_path: Path, change: str) -> None:
    request = Request(np.arange(4))
    first = Examples(toy_clips(12), Toy(), views(), ALL, cache=tmp_path)
    wanted, _ = first.batch(request)
    first.kept.save(rank=0)
    file = first.kept.folder / "video.npy"
    if change == "cut":
        os.truncate(file, 1000)
    elif change == "longer":
        os.truncate(file, file.stat().st_size + 1)
    elif change == "other":
        np.save(file, np.zeros(7))
    elif change == "gone":
        file.unlink()
    else:
        os.truncate(first.kept.folder / "video.0.npy", 130)
    toy = Toy()
    found, _ = Examples(toy_clips(12), toy, views(), ALL, cache=tmp_path).batch(request)
    assert toy.reads == 4
    assert all(np.array_equal(found[m], wanted[m]) for m in ALL)


def test_other_views_and_other_clips_have_another_cache(tmp_path: Path) -> None:
    ways = [(toy_clips(12), views()), (toy_clips(9), views()), (toy_clips(12), views(1))]
    ways += [(packed_toys(12), views()), (packed_toys(12, size=1024), views())]
    for clips, v in ways:
        assert Examples(clips, Toy(), v, ALL, cache=tmp_path).kept
    assert len(list(tmp_path.iterdir())) == 5


def test_parts_of_a_table_share_a_cache(tmp_path: Path) -> None:
    """Two at once, each of which makes what the other has not told of."""
    whole, v = toy_clips(12), views()

    def part(rows: list[int]) -> tuple[Examples, Toy]:
        mask, media = np.isin(np.arange(12), rows), Some(rows)
        return Examples(whole.where(mask), media, v, ALL, Cache(tmp_path, whole)), media

    (first, _), (second, _) = part([0, 1, 2, 5]), part([4, 5, 7])
    for one in (first, second):
        one.make(Request(np.arange(len(one))))
    for one in (first, second):
        one.kept.save(rank=0)
    asked = Request(np.arange(5))
    third, media = part([1, 2, 4, 7, 9])
    found, _ = third.batch(asked)
    assert media.reads == 1, "clip 9 alone"
    plain = Examples(whole, Toy(), v, ALL).batch(Request(np.array([1, 2, 4, 7, 9])))[0]
    assert all(np.array_equal(found[m], plain[m]) for m in ALL)
    with pytest.raises(KeyError):
        assert Examples(whole, Toy(), v, ALL, Cache(tmp_path, first.clips)).kept


def test_clips_without_pictures_are_not_told_to_ask_for_fewer_frames() -> None:
    class Blind(Toy):
        def read(self, row: int, *, frames: int, film: slice = slice(None)) -> Media:
            return super().read(row, frames=0)

    with pytest.raises(UsageError, match="clip 'c0' and others that were looked at have no pict"):
        Examples(toy_clips(12), Blind(), views(), ALL).check_media()


def test_a_cache_that_cannot_be_kept_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    said = r"cache/\w+: decoded clips cannot be kept there \(a part of .*`--no-cache` decodes"
    examples = Examples(toy_clips(12), Toy(), views(), ALL, cache=tmp_path / "cache")
    with pytest.raises(SonantError, match=said):
        list(loader(examples, [Request(np.arange(4))], workers=0))


class Asked(Toy):
    """Notes how many frames are asked for."""

    def read(self, row: int, *, frames: int, film: slice = slice(None)) -> Media:
        self.frames = frames
        return super().read(row, frames=frames, film=film)


@pytest.mark.parametrize(("modalities", "frames"), [(ALL, 2), (("audio",), 0), (("video",), 2)])
def test_pictures_are_decoded_for_those_who_look(
    modalities: tuple[Modality, ...], frames: int
) -> None:
    asked = Asked()
    assert set(Examples(toy_clips(3), asked, views(), modalities).available(0)) == set(modalities)
    assert asked.frames == frames


class Packed(Toy):
    """Clips of which so many frames were packed, at a side of 36 pixels; the first is smaller."""

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.frames = frames

    def read(self, row: int, *, frames: int, film: slice = slice(None)) -> Media:
        whole = super().read(row, frames=self.frames)
        chosen = (2 * np.arange(frames) + 1) * self.frames // (2 * frames)
        pixels = whole.frames[chosen, : 36 if row else 20]
        return Media(pixels, whole.frame_times[chosen], whole.samples, 0.0, whole.rate)


def test_views_larger_than_the_pack_are_refused_before_training() -> None:
    def check(jitter: int, frames: int, modalities: tuple[Modality, ...] = ALL) -> None:
        Examples(toy_clips(12), Packed(frames), views(jitter), modalities).check_media()

    check(2, frames=2)
    check(2, frames=5)
    check(3, frames=1, modalities=("audio", "text"))
    with pytest.raises(UsageError, match=r"1 different frames and 2 are wanted.*`--frame-rate`"):
        check(2, frames=1)
    with pytest.raises(UsageError, match=r"36 pixels and 38 are wanted .*`--short-side`"):
        check(3, frames=2)


def test_clips_of_another_length_than_the_views_are_refused() -> None:
    def check(seconds: float, modalities: tuple[Modality, ...] = ALL, longer: bool = False) -> None:
        clips = toy_clips(12)
        if longer:
            ends = clips.column("end") + np.eye(12)[7]
            place = clips.table.column_names.index("end")
            clips = type(clips)(clips.table.set_column(place, "end", [ends]), clips.root)
            Examples(clips.quarantined({"c7": "damaged"}), Toy(), v(seconds), ALL).check_lengths()
        Examples(clips, Toy(), v(seconds), modalities).check_lengths()

    def v(seconds: float) -> Views:
        return replace(views(), seconds=seconds)

    check(SECONDS)
    check(SECONDS + 0.004)
    check(9.0, ("text",))
    said = r"12 of 12 clips are not of the 1\.5 s .* 'c0' of 0\.3 s: train with `--seconds 0\.3`"
    for modalities in (ALL, ("audio",), ("video", "text")):
        with pytest.raises(UsageError, match=said):
            check(1.5, modalities)
    with pytest.raises(UsageError, match=r"not of the 0\.29 s"):
        check(0.29)
    with pytest.raises(UsageError, match=r"1 of 12 .* 'c7' of 1\.3 s: index clips of 0\.3 s"):
        check(SECONDS, longer=True)


@pytest.mark.parametrize("wrong", [{"frames": 0}, {"size": 0}, {"jitter": -1}, {"seconds": 0.0}])
def test_impossible_views_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(wrong))} must be"):
        replace(views(), **wrong)


def test_modalities_are_kept_apart(tmp_path: Path) -> None:
    request, toy = Request(np.arange(4)), Toy()
    both = Examples(toy_clips(12), toy, views(), ("audio", "video"), cache=tmp_path)
    both.make(request)
    both.kept.save(rank=1)
    Examples(toy_clips(12), toy, views(), ("audio",), cache=tmp_path).make(request)
    assert toy.reads == 4


def test_augmentation_is_a_function_of_seed_epoch_and_clip() -> None:
    v = views(jitter=4)
    pixels = np.arange(2 * 3 * 40 * 40, dtype=np.uint8).reshape(2, 3, 40, 40)
    crops = [v.moved(pixels, np.random.default_rng(seed)) for seed in range(40)]
    assert all(crop.shape == (2, 3, 32, 32) for crop in crops)
    assert len({crop.tobytes() for crop in crops}) > 20
    assert np.array_equal(crops[3], v.moved(pixels, np.random.default_rng(3)))
    assert np.array_equal(v.middle(pixels), pixels[..., 4:36, 4:36])
    still = views(jitter=0)
    assert np.array_equal(still.moved(pixels, np.random.default_rng(0)), pixels)


def test_a_random_rectangle_is_scaled_to_the_square() -> None:
    """Frames whose red is the column and whose green is the row tell what was taken of them."""
    v = replace(views(jitter=4), least_area=0.5)
    rows, columns = (np.indices((40, 40)) * 6).astype(np.uint8)
    pixels = np.stack([columns, rows, np.zeros_like(rows)])[None].repeat(2, 0)
    crops = [v.moved(pixels, np.random.default_rng(seed)) for seed in range(200)]
    assert all(crop.shape == (2, 3, 32, 32) and crop.dtype == np.uint8 for crop in crops)
    assert np.array_equal(crops[3], v.moved(pixels, np.random.default_rng(3)))
    slopes = [
        (np.diff(crop[0, of].mean(of).astype(float)).mean() * 32 / 6)
        for of in (0, 1)
        for crop in crops
    ]
    widths, heights = np.split(np.array(slopes), 2)
    assert 0.4 < (widths < 0).mean() < 0.6, "half of them are mirrored"
    assert (heights > 0).all(), "none is turned over"
    areas, shapes = np.abs(widths) * heights / 1600, np.abs(widths) / heights
    assert (areas.min(), areas.max()) == (pytest.approx(0.5, abs=0.06), pytest.approx(1, abs=0.06))
    assert areas.mean() == pytest.approx(0.75, abs=0.06)
    assert 0.7 < shapes.min() < 0.9
    assert 1.1 < shapes.max() < 1.4
    assert np.array_equal(v.middle(pixels), pixels[..., 4:36, 4:36])


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_the_least_area_is_a_share(share: float) -> None:
    with pytest.raises(UsageError, match=r"least.area"):
        replace(views(), least_area=share)


def test_sound_is_cut_and_padded() -> None:
    v = views()
    wave = np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    long, short = v.audio(wave, 16000), v.audio(wave[:1600], 16000)
    assert long.shape == short.shape == (28, 128)
    assert np.array_equal(long, v.audio(wave[:4800], 16000))
    assert len({float(x) for x in short[10:].ravel()}) == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_training_refuses_a_clip_without_sound(workers: int) -> None:
    examples = Examples(toy_clips(12), Deaf(), views(), ALL)
    with pytest.raises(SonantError, match=r"clip 'c3' \(row 3\) has no audio; this method takes"):
        list(loader(examples, [Request(np.arange(4))], workers=workers))


def test_an_error_leaves_no_workers_behind() -> None:
    """Those that are left until they are collected take twenty seconds to end."""
    asked = [Request(np.array([row])) for row in range(60)]
    others = set(active_children())
    with pytest.raises(SonantError, match="clip 'c3'") as error:
        list(loader(Examples(toy_clips(60), Deaf(), views(), ALL), asked, workers=2))
    assert not set(active_children()) - others and error.tb is not None


def texts(clips: Clips, said: list[str]) -> Clips:
    column = clips.table.column_names.index("text")
    return Clips(clips.table.set_column(column, "text", [said]), clips.root)


class Poor(Toy):
    """Of every four clips the second has no sound, the third no pictures, the fourth neither."""

    def read(self, row: int, *, frames: int, film: slice = slice(None)) -> Media:
        m = super().read(row, frames=frames, film=film)
        seen, heard = row % 4 < 2, row % 4 in (0, 2)
        pictures = (m.frames, m.frame_times) if seen else (None, None)
        return Media(*pictures, *((m.samples, 0.0) if heard else (None, None)), m.rate)


def poor_clips(n: int) -> Clips:
    """Clips of which the last has no narration."""
    return texts(toy_clips(n), ["#C C" if i == n - 1 else "cuts" for i in range(n)])


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cached", [False, True])
def test_what_a_clip_lacks_is_zeros_and_marked(tmp_path: Path, workers: int, cached: bool) -> None:
    asked = [Request(np.arange(4), (0,)), Request(np.arange(4, 8), (0,)), Request(np.array([0]))]
    cache = tmp_path if cached else None
    poor = Examples(poor_clips(8), Poor(), views(), ALL, cache=cache, partial=True)
    rich = Examples(toy_clips(8), Toy(), views(), ALL, partial=True)
    for _ in range(2):
        for one, whole in zip(
            loader(poor, asked, workers=workers), loader(rich, asked, workers=0), strict=True
        ):
            rows = one.index.numpy()
            assert list(one.there) == list(whole.there) == list(ALL)
            assert one.there["audio"].tolist() == [row % 4 in (0, 2) for row in rows]
            assert one.there["video"].tolist() == [row % 4 < 2 for row in rows]
            assert one.there["text"].tolist() == [row != 7 for row in rows]
            for m in ALL:
                there = one.there[m]
                assert whole.there[m].all()
                assert one.inputs[m].shape == whole.inputs[m].shape
                assert one.inputs[m].dtype == whole.inputs[m].dtype
                assert not one.inputs[m][~there].any()
                assert m == "text" or one.inputs[m][there].equal(whole.inputs[m][there])


def test_the_cache_remembers_what_clips_lack(tmp_path: Path) -> None:
    def examples(partial: bool, toy: Toy) -> Examples:
        return Examples(toy_clips(8), toy, views(), ALL, cache=tmp_path, partial=partial)

    first, request = examples(True, Poor()), Request(np.arange(6))
    wanted, there = first.batch(request)
    first.kept.save(rank=0)
    toy = Toy()
    again = examples(True, toy)
    found, still = again.batch(request)
    assert toy.reads == 0
    assert all(np.array_equal(found[m], wanted[m]) for m in ALL)
    assert all(np.array_equal(still[m], there[m]) for m in ALL)
    again.batch(Request(np.array([6, 7])))
    assert toy.reads == 2
    with pytest.raises(SonantError, match=r"clip 'c3' \(row 3\) has no audio and no video"):
        examples(False, toy).batch(Request(np.array([0, 3])))


def test_a_row_that_was_marked_but_not_saved_is_looked_at_again(tmp_path: Path) -> None:
    """Whether it was there or not: marks reach the disk only after the rows."""
    Examples(toy_clips(8), Poor(), views(), ALL, cache=tmp_path, partial=True).make(
        Request(np.arange(8))
    )
    toy = Poor()
    again = Examples(toy_clips(8), toy, views(), ALL, cache=tmp_path, partial=True)
    again.batch(Request(np.arange(8)))
    assert toy.reads == 8


def test_batches_go_to_a_device_with_what_is_there() -> None:
    examples = Examples(poor_clips(8), Poor(), views(), ALL, partial=True)
    (batch,) = loader(examples, [Request(np.arange(4))], workers=0)
    moved = to_device(batch, torch.device("meta"))
    assert {m: x.device.type for m, x in moved.there.items()} == dict.fromkeys(ALL, "meta")


def test_sound_that_was_packed_with_less_than_is_heard_is_told() -> None:
    clips = toy_clips(12)
    assert Examples(clips, Toy(), views(), ALL).check_media() == ""
    high = replace(views(), rate=24_000)
    said = Examples(clips, Toy(), high, ALL).check_media()
    assert "heard at 24000 samples a second and was packed with 16000" in said
    assert "nothing lies above 8000 Hz (`sonant pack --rate 24000`)" in said
    assert Examples(clips, Toy(), high, ("video",)).check_media() == ""


def test_a_modality_that_no_clip_has_is_named() -> None:
    def check(media: Toy, modalities: tuple[Modality, ...] = ALL, said: str = "cuts") -> Toy:
        clips = texts(toy_clips(40), [said] * 40)
        examples = Examples(clips, media, views(), modalities, partial=True)
        examples.check_text()
        examples.check_media()
        return media

    class Late(Poor):
        """Only clip 20 has all."""

        def read(self, row: int, *, frames: int, film: slice = slice(None)) -> Media:
            return super().read(row if row == 20 else 3, frames=frames)

    class Mute(Poor):
        def read(self, row: int, *, frames: int, film: slice = slice(None)) -> Media:
            return super().read(1, frames=frames)

    class Blind(Poor):
        def read(self, row: int, *, frames: int, film: slice = slice(None)) -> Media:
            return super().read(2, frames=frames)

    assert check(Toy()).reads == 1
    assert check(Late()).reads > 8
    assert check(Mute(), ("video", "text")).reads == 1
    with pytest.raises(UsageError, match="none of the 40 clips has sound; this method learns from"):
        check(Mute())
    with pytest.raises(UsageError, match="none of the 40 clips has pictures"):
        check(Blind())
    with pytest.raises(UsageError, match="none of the 40 clips has narration"):
        check(Toy(), said="#C C")


def test_clips_without_words_are_named() -> None:
    mute = texts(toy_clips(12), ["#C C" if i in (4, 7) else "cuts" for i in range(12)])
    with pytest.raises(UsageError, match=r"2 of 12 clips have no narration, the first is 'c4'"):
        Examples(mute, Toy(), views(), ALL).check_text()
    Examples(mute, Toy(), views(), ("audio", "video")).check_text()
    Examples(mute, Toy(), views(), ALL, partial=True).check_text()


@pytest.mark.slow
@pytest.mark.parametrize("sleep", [0.0, 60.0])
def test_a_program_that_fails_does_not_wait_for_its_workers(sleep: float) -> None:
    """Which leave SIGTERM to it: those that look for work, and one that is stuck in a clip."""
    code = f"""
import time
from test_data import *
class Slow(Toy):
    def read(self, row, *, frames, film=slice(None)):
        time.sleep({sleep} if row == 5 else 0)
        return super().read(row, frames=frames, film=film)
asked = [Request(np.array([row])) for row in range(12)]
batches = loader(Examples(toy_clips(12), Slow(), views(), ALL), asked, workers=2)
print(next(batches).index.tolist(), flush=True)
raise KeyError("a mistake")
"""
    made = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert (made.returncode, made.stdout) == (1, "[0]\n"), made.stderr
    assert "a mistake" in made.stderr


def test_processes_learn_what_others_have_put_into_the_cache(tmp_path: Path) -> None:
    clips, v = toy_clips(12), views()
    media = Toy()
    first, second = (Examples(clips, toy, v, ALL, cache=tmp_path) for toy in (Toy(), media))
    assert second.kept.lacks(3)
    wanted, _ = first.batch(Request(np.arange(4)))
    first.kept.save(rank=0)
    second.kept.learn()
    found, _ = second.batch(Request(np.arange(4)))
    assert media.reads == 0
    assert all(np.array_equal(found[m], wanted[m]) for m in ALL)


def test_machines_have_caches_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def folder() -> Path:
        return Examples(toy_clips(12), Toy(), views(), ALL, cache=tmp_path).kept.folder

    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    shared = folder()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr("platform.node", lambda: "node7")
    assert folder() == shared / "of node7"


def test_a_cache_without_room_says_how_much_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=10**4))
    said = r"kept there \(12 clips take .* GB, and 1e-05 GB are free\); `--no-cache`"
    with pytest.raises(SonantError, match=said):
        assert Examples(toy_clips(12), Toy(), views(), ALL, cache=tmp_path).kept
    assert not list(tmp_path.rglob("*.npy"))


def test_the_next_batch_is_finished_while_one_is_used() -> None:
    begun = [threading.Event() for _ in range(3)]

    def finish(request: Request, number: int) -> Batch:
        begun[number].set()
        if number == 2:
            raise SonantError("a clip cannot be read")
        return Batch(torch.tensor([number]), {})

    request = Request(np.arange(1))
    batches = _meanwhile(finish, ((request, number) for number in range(3)))
    for number in range(2):
        assert next(batches).index.tolist() == [number]
        assert begun[number + 1].wait(60)
    with pytest.raises(SonantError, match="a clip cannot be read"):
        next(batches)
