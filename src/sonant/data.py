"""Clips to batches: how media become tensors, in which order, and by whom.

The order of clips, the parts of the ranks and the augmentation are pure functions of seed, stage
and epoch: a run that goes on needs nothing else to see what it would have seen.
"""

import fcntl
import hashlib
import math
import mmap
import os
import platform
import shutil
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast, runtime_checkable
from weakref import WeakSet

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sonant.clips import LENGTH_SLACK, Clips
from sonant.errors import SonantError, UsageError, above_zero, at_least
from sonant.files import replacing, why
from sonant.media.audio import (
    AST_BINS,
    AST_RATE,
    AST_SHIFT,
    AST_WINDOW,
    cut_or_pad,
    log_mel,
    normalise_ast,
    resample,
)
from sonant.media.frames import centre_crop, random_rectangle, resize, scaled_part
from sonant.media.read import Media
from sonant.media.text import Tokenizer, clean
from sonant.processes import die_with_parent, several_machines
from sonant.types import Batch, Modality

FRONT_END = 2
"""Version of what `Views` makes of media: what was kept or learned by another does not go on."""

LOOKS = 8
"""Most clips that are looked at before training, to see whether the pack fits the views."""

MADE, ABSENT = 1, 2
"""Marks of the cache: a row is there, or its clip was looked at and lacks the modality."""

Array = NDArray[Any]
Arrays = dict[Modality, Array]
Shapes = dict[Modality, tuple[type, tuple[int, ...]]]
"""Type and shape of one clip's array."""

WHOLE = slice(None)
"""All of a clip's frames."""

There = dict[Modality, Array]
"""Booleans [n]: which rows have a modality."""


@runtime_checkable
class Reader(Protocol):
    """Where the media of a clip table's rows come from: a pack, or whatever reads like one."""

    def read(self, row: int, *, frames: int, film: slice = WHOLE) -> Media:
        """Sound, and frames from the midpoints of so many equal parts of the clip; 0 wants none.

        Of these frames, those that `film` cuts out.
        """
        ...


@runtime_checkable
class Locked(Protocol):
    """A trained encoder that nothing trains: its vectors stand for the media.

    A clip's vector does not depend on the clips beside it.
    """

    width: int
    """Numbers a clip."""
    identity: str
    """Its name and a hash of its weights: other vectors have another identity."""

    def encode(self, x: Array) -> Float32[Array, "clips width"]:
        """Vectors of clips.

        Args:
            x: waves float32 [clips, samples] at the rate of the views, pixels uint8
                [clips, time, 3, size, size], or narrations as strings [clips].
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Views:
    """How media become tensors.

    Workers make an array of each clip. Where a locked encoder waits for it, it is the media
    themselves; the encoder, which may live on an accelerator, runs in the process of the training.

    Args:
        tokenizer: of narrations.
        frames: of video a clip.
        film: how many of them are seen; they follow each other, begin anywhere in training and lie
            in the middle in evaluation. 0 sees all.
        size: pixels a side of the square in the middle of a frame.
        jitter: most pixels that the square moves each way in training; 0 leaves it in the middle,
            and also leaves out the mirror.
        least_area: below 1 training sees, instead of a moved square, a random rectangle of at least
            this share of the frame's square with the jitter around it, scaled to `size`.
        seconds: of sound; what is longer is cut, what is shorter gets zeros after its log-mel.
        tokens: longest narration; the rest is cut off.
        rate: samples of sound a second that files are read with, and that a locked encoder hears.
        locked: encoders that stand before the towers; a modality without one is seen as it is.

    Raises:
        UsageError: a count is out of range, or a locked encoder would see pictures that move.
    """

    tokenizer: Tokenizer
    frames: int
    film: int = 0
    size: int
    jitter: int = 0
    least_area: float = 1.0
    seconds: float
    tokens: int
    rate: int = AST_RATE
    locked: Mapping[Modality, Locked] = field(default_factory=dict)
    fewer: ClassVar[str] = "fewer (`--frames`)"
    """What to ask for where a pack has fewer frames."""

    def __post_init__(self) -> None:
        at_least(1, frames=self.frames, size=self.size, tokens=self.tokens)
        at_least(0, jitter=self.jitter, film=self.film)
        above_zero(seconds=self.seconds, rate=self.rate, least_area=self.least_area)
        if self.film > self.frames:
            raise UsageError(
                f"clips of {self.seconds:g} s have {self.frames} frames, which hold no film of "
                f"{self.film}: ask for fewer (`--frames`), or for longer clips (`--seconds`)"
            )
        if self.least_area > 1:
            raise UsageError(f"the least area of a crop is a share, not {self.least_area:g}")
        if (self.jitter or self.least_area < 1 or self.film) and "video" in self.locked:
            raise UsageError(
                "a locked encoder sees a clip once, and all of it: jitter and film are 0 and the "
                f"least area 1, not {self.jitter}, {self.film} and {self.least_area:g}"
            )

    @property
    def identities(self) -> dict[str, str]:
        """Modality to the identity of the locked encoder before its tower."""
        return {m: self.locked[m].identity for m in sorted(self.locked)}

    @property
    def shapes(self) -> Shapes:
        """Of a clip's arrays before the crop."""
        found: Shapes = {
            "audio": (np.float32, (self.mel_frames, AST_BINS)),
            "video": (np.uint8, (self.frames, 3, self.kept_size, self.kept_size)),
            "text": (np.int64, (self.tokens,)),
        }
        return found | {m: (np.float32, (x.width,)) for m, x in self.locked.items()}

    def fits(self, seconds: Array | float) -> Any:
        """Whether clips so long show in full what they sound like, and nothing else."""
        return np.abs(np.asarray(seconds) - self.seconds) <= LENGTH_SLACK

    @property
    def kept_size(self) -> int:
        """Pixels a side before the crop."""
        return self.size + 2 * self.jitter

    @property
    def mel_frames(self) -> int:
        """Frames of log-mel in so many seconds."""
        return max(1, 1 + (round(self.seconds * AST_RATE) - AST_WINDOW) // AST_SHIFT)

    def video(self, pixels: UInt8[Array, "time h w 3"]) -> UInt8[Array, "time 3 kept kept"]:
        """The middle square, scaled so that the frame's short side fills it."""
        square = centre_crop(resize(pixels, self.kept_size), self.kept_size)
        return np.ascontiguousarray(square.transpose(0, 3, 1, 2))

    def audio(self, samples: Float32[Array, "samples"], rate: int) -> Float32[Array, "..."]:
        """Normalised log-mel [time, bins], as AST takes it; for a locked encoder a wave."""
        if "audio" in self.locked:
            wave = np.zeros(round(self.seconds * self.rate), np.float32)
            heard = resample(samples, rate, self.rate)[: wave.size]
            wave[: heard.size] = heard
            return wave
        mel = log_mel(samples[: round(self.seconds * rate)], rate, "ast")
        return normalise_ast(cut_or_pad(mel, self.mel_frames))

    def heard(
        self, picture: Float32[Array, "..."], random: np.random.Generator | None = None
    ) -> Float32[Array, "..."]:
        """What is heard of what `audio` made: all; others draw a part in training."""
        return picture

    def text(self, narrations: Sequence[str]) -> Array:
        """Ids [n, tokens]; for a locked encoder the cleaned narrations [n]."""
        if "text" in self.locked:
            return np.array([clean(narration) for narration in narrations], np.str_)
        return self.tokenizer.encode(narrations, self.tokens)

    def says(self, text: Array) -> Bool[Array, "n"]:
        """Which of what `text` made says anything."""
        return np.asarray(text != "" if "text" in self.locked else text.any(1))

    def encoded(self, modality: Modality, x: Array) -> Array:
        """What the towers read of clips [n, ...]: vectors of a locked encoder, or `x` itself.

        Raises:
            SonantError: vectors are not finite.
        """
        if modality not in self.locked:
            return x
        if not len(x):
            return np.zeros((0, self.locked[modality].width), np.float32)
        vectors = self.locked[modality].encode(x)
        if not np.isfinite(vectors).all():
            raise SonantError(f"{self.locked[modality].identity}: its vectors are not finite")
        return vectors

    def part(self, random: np.random.Generator | None) -> slice:
        """Which of a clip's frames are seen: drawn for training, the middle ones without a draw."""
        if not self.film:
            return WHOLE
        spare = self.frames - self.film
        first = spare // 2 if random is None else int(random.integers(spare + 1))
        return slice(first, first + self.film)

    def middle(
        self, video: UInt8[Array, "*n time 3 kept kept"]
    ) -> UInt8[Array, "*n film 3 size size"]:
        """What evaluation sees: the middle of the frames that are there, and of each."""
        inner = slice(self.jitter, self.jitter + self.size)
        first = max(0, video.shape[-4] - self.film) // 2 if self.film else 0
        film = slice(first, first + self.film if self.film else None)
        return video[..., film, :, inner, inner]

    def moved(
        self, video: UInt8[Array, "time 3 kept kept"], random: np.random.Generator
    ) -> UInt8[Array, "film 3 size size"]:
        """What training sees: a square moved or scaled, and mirrored half of the time.

        Args:
            video: all frames of a clip, or just those of the `part` of the same draw.
            random: the clip's.
        """
        part = self.part(random)
        if len(video) == self.frames:
            video = video[part]
        if self.least_area < 1:
            box = random_rectangle(self.kept_size, self.least_area, random)
            square = scaled_part(video.transpose(0, 2, 3, 1), box, self.size).transpose(0, 3, 1, 2)
            return square[..., ::-1] if random.integers(2) else square
        if not self.jitter:
            return video
        top, left, mirrored = random.integers(0, [2 * self.jitter + 1, 2 * self.jitter + 1, 2])
        square = video[..., top : top + self.size, left : left + self.size]
        return square[..., ::-1] if mirrored else square


def order(n: int, *, seed: int, stage: str, epoch: int) -> Int64[Array, "n"]:
    """The rows 0 to n - 1 in the order of an epoch."""
    return seeded(seed=seed, stage=stage, epoch=epoch).permutation(n)


def seeded(*, seed: int, stage: str, epoch: int) -> np.random.Generator:
    """The chance of an epoch's order."""
    return np.random.default_rng([seed, zlib.crc32(stage.encode()), epoch])


@dataclass(frozen=True)
class Request:
    """Rows of one rank's part of a batch, and the seed of their augmentation (None: none)."""

    rows: Array
    seed: tuple[int, ...] | None = None


def requests(
    n: int,
    *,
    batch: int,
    epochs: int,
    seed: int,
    stage: str,
    first: int = 0,
    rank: int = 0,
    ranks: int = 1,
    drawn: Callable[[int], Array] | None = None,
) -> Iterator[Request]:
    """One rank's requests of a stage from step `first` on; what fills no batch is left out.

    An epoch is n // batch steps. The n % batch clips at the end of its order are not seen in it;
    they are others in each epoch. Rank r takes every `ranks`-th row of a batch from the r-th on.
    The n rows of an epoch are those of `order`, or `drawn` gives them; a clip that is among them
    twice is augmented differently at each step.
    """
    steps = n // batch
    for epoch in range(epochs):
        rows = drawn(epoch) if drawn else order(n, seed=seed, stage=stage, epoch=epoch)
        again = len(np.unique(rows)) < len(rows)
        for step in range(max(0, first - epoch * steps), steps):
            part = rows[step * batch : (step + 1) * batch][rank::ranks]
            seeds = (seed, zlib.crc32(stage.encode()), epoch)
            yield Request(part, (*seeds, step) if again else seeds)


@dataclass(frozen=True)
class Cache:
    """A folder of decoded clips that several tables share, such as those of a protocol's folds."""

    folder: Path
    clips: Clips
    """All that may come there; tables with other clips cannot use it."""


class Examples:
    """The rows of a clip table as arrays.

    Args:
        clips: the rows.
        media: reads them by row.
        views: what becomes of them.
        modalities: those wanted.
        cache: folder in which decoded clips are kept for later epochs and other runs on the same
            table, or on any part of a `Cache`'s table; None decodes at each request.
        partial: take clips that lack some of the modalities too, with zeros for what they lack and
            `there` in every batch, for every wanted modality; else such a clip is an error.
    """

    def __init__(
        self,
        clips: Clips,
        media: Reader,
        views: Views,
        modalities: Sequence[Modality],
        cache: Path | Cache | None = None,
        *,
        partial: bool = False,
    ) -> None:
        self.clips, self.media, self.views = clips, media, views
        self.partial = partial
        self.modalities = tuple(modalities)
        self.ids = clips.column("id")
        self.text = views.text(list(clips.column("text")))
        self.said = views.says(self.text)
        self.cache = Cache(cache, clips) if isinstance(cache, Path) else cache

    def __len__(self) -> int:
        return len(self.clips)

    @cached_property
    def kept(self) -> "Kept | None":
        """The cache; its files are made, whole, when it is first asked for."""
        if self.cache is None:
            return None
        made: Shapes = {
            m: self.views.shapes[m]
            for m in self.modalities
            if m != "text" or m in self.views.locked
        }
        kept = self.cache.clips
        places = {id: place for place, id in enumerate(kept.column("id"))}
        rows = np.array([places[id] for id in self.ids], np.int64)
        folder = self.cache.folder / self._key(kept)
        if several_machines():
            folder /= f"of {platform.node()}"
        return Kept(folder, len(kept), made, rows)

    def check_text(self) -> None:
        """Refuse clips without a text where text is wanted; if partial, only when none has one.

        Raises:
            UsageError: some clips have none.
        """
        silent = np.flatnonzero(~self.said)
        if "text" not in self.modalities or not len(silent):
            return
        if not self.partial:
            raise UsageError(
                f"{len(silent)} of {len(self)} clips have no narration, the first is "
                f"{self.ids[silent[0]]!r} (row {silent[0]}); this method learns from clips that "
                f"have all of {', '.join(self.modalities)}: leave the others out"
            )
        if len(silent) == len(self):
            raise self._missing_everywhere("narration")

    def check_lengths(self) -> None:
        """Refuse good clips of another length than the views: pictures would outrun the sound.

        Raises:
            UsageError: some are longer or shorter.
        """
        if not {"audio", "video"} & set(self.modalities):
            return
        lengths = (self.clips.column("end") - self.clips.column("start")).astype(float)
        good = self.clips.column("quarantine") == ""
        wrong = np.flatnonzero(good & ~self.views.fits(lengths))
        if not len(wrong):
            return
        wanted, found = f"{self.views.seconds:g}", f"{lengths[wrong[0]]:.4g}"
        alike = bool(np.ptp(lengths[good]) <= LENGTH_SLACK)
        raise UsageError(
            f"{len(wrong)} of {len(self)} clips are not of the {wanted} s that this recipe was "
            f"made for, the first is {self.ids[wrong[0]]!r} of {found} s: "
            + (f"train with `--seconds {found}`, or " if alike else "")
            + f"index clips of {wanted} s (`--before` and `--after` add up to it)"
        )

    def check_media(self) -> str:
        """Refuse views that the media cannot fill without showing frames twice or enlarged.

        The best of a few clips spread over the table decides: usually the first that is looked at.
        If none of them has sound, or pictures, that is an error, too. If partial, the look goes on
        until a clip with sound and one with pictures is found, of those that are wanted.

        Returns:
            What is lacking and does no harm: a line, or nothing.

        Raises:
            UsageError: none of them has as many different frames and pixels as the views show, or
                none has sound or pictures; if partial, no clip at all has.
        """
        wanted = {"audio", "video"} & set(self.modalities)
        if not wanted:
            return ""
        v, frames, side, rate, found = self.views, 0, 0, 0, set[str]()
        for look, row in enumerate(self._looks()):
            if look >= LOOKS and wanted <= found:
                break
            media = self.media.read(row, frames=v.frames if "video" in wanted else 0)
            if media.samples is not None:
                found.add("audio")
                rate = max(rate, media.rate)
            if media.frames is not None and media.frame_times is not None:
                found.add("video")
                frames = max(frames, len(np.unique(media.frame_times)))
                side = max(side, min(media.frames.shape[1:3]))
            enough = frames >= v.frames and side >= v.kept_size
            if wanted <= found and (enough or "video" not in wanted):
                return self._note_of_rate(rate) if "audio" in wanted else ""
        for modality, name in (("audio", "sound"), ("video", "pictures")):
            if modality in wanted - found:
                raise self._missing_everywhere(name) if self.partial else self._missing(name)
        if frames < v.frames:
            raise UsageError(
                f"the packed clips have {frames} different frames and {v.frames} are wanted: ask "
                f"for {v.fewer}, or pack more with a higher `--frame-rate`"
            )
        raise UsageError(
            f"the packed frames' short side has {side} pixels and {v.kept_size} are wanted (size "
            f"{v.size} and twice the jitter of {v.jitter}): ask for less (`--size`), or pack more "
            "with a larger `--short-side`"
        )

    def _note_of_rate(self, rate: int) -> str:
        """A line if sound was packed with fewer samples a second than are heard, or nothing."""
        if rate >= self.views.rate:
            return ""
        return (
            f"sound is heard at {self.views.rate} samples a second and was packed with {rate}: "
            f"nothing lies above {rate // 2} Hz (`sonant pack --rate {self.views.rate}`)"
        )

    def _looks(self) -> Iterator[int]:
        """A few rows spread over the table, and if partial the others after them."""
        few = np.unique(np.linspace(0, len(self) - 1, LOOKS).astype(int)).tolist()
        yield from few
        if self.partial:
            yield from sorted(set(range(len(self))).difference(few))

    def _missing(self, name: str) -> UsageError:
        return UsageError(
            f"clip {self.ids[0]!r} and others that were looked at have no {name}; this "
            f"method learns from clips that have all of {', '.join(self.modalities)}"
        )

    def _missing_everywhere(self, name: str) -> UsageError:
        return UsageError(
            f"none of the {len(self)} clips has {name}; this method learns from "
            f"{', '.join(self.modalities)}, and a clip may lack some of them, but not every clip "
            "the same one"
        )

    def available(self, row: int, film: slice = WHOLE) -> Arrays:
        """One clip's arrays of those wanted modalities that it has, before their crops.

        Of a modality with a locked encoder it is what the encoder is to read. Of the frames, those
        that `film` cuts out.
        """
        found: Arrays = {}
        if "audio" in self.modalities or "video" in self.modalities:
            frames = self.views.frames if "video" in self.modalities else 0
            media = self.media.read(row, frames=frames, film=film)
            try:
                if "audio" in self.modalities and media.samples is not None:
                    found["audio"] = self.views.audio(media.samples, media.rate)
                if "video" in self.modalities and media.frames is not None:
                    found["video"] = self.views.video(media.frames)
            except UsageError as error:
                raise SonantError(f"clip {self.ids[row]!r} (row {row}): {error}") from error
        if "text" in self.modalities and self.said[row]:
            found["text"] = self.text[row]
        return found

    def decode(self, request: Request) -> dict[int, Arrays]:
        """Those of the rows that the cache lacks, or all without a cache, by row.

        A cache wants all of a clip's frames; without one, only those are read that will be seen.

        Raises:
            SonantError: a clip cannot be read, or lacks a modality and this is not partial.
        """
        rows = request.rows.tolist()
        fresh = [row for row in rows if self.kept is None or self.kept.lacks(row)]
        films = {
            row: self.views.part(_chance(request, row, "video")) if self.kept is None else WHOLE
            for row in fresh
        }
        return {row: self._taken(row, self.available(row, films[row])) for row in fresh}

    def finish(self, decoded: Mapping[int, Arrays]) -> dict[int, Arrays]:
        """What was decoded, read by the locked encoders, and put into the cache if there is one.

        Rows that came into the cache since they were decoded are left out.
        """
        fresh = [row for row in decoded if self.kept is None or self.kept.lacks(row)]
        made = {row: dict(decoded[row]) for row in fresh}
        for modality in self.views.locked:
            having = [row for row, clip in made.items() if modality in clip]
            if not having:
                continue
            seen = np.stack([made[row][modality] for row in having])
            for row, vector in zip(having, self.views.encoded(modality, seen), strict=True):
                made[row][modality] = vector
        if self.kept is not None:
            for row, clip in made.items():
                self.kept.put(row, clip)
        return made

    def make(self, request: Request) -> None:
        """Put those of the rows that the cache lacks into it."""
        if self.kept is not None:
            self.finish(self.decode(request))

    def batch(
        self, request: Request, made: Mapping[int, Arrays] | None = None
    ) -> tuple[Arrays, There]:
        """The rows' arrays side by side, and if partial which rows have what.

        Args:
            request: the rows.
            made: what `finish` gave of those of the rows that were not in the cache; None decodes
                and finishes them here.

        Raises:
            SonantError: a clip cannot be read, or lacks a modality and this is not partial.
        """
        made = self.finish(self.decode(request)) if made is None else made
        rows = request.rows.tolist()
        clips = [made[row] if row in made else self._recalled(self.kept, row) for row in rows]
        there = {m: np.array([m in clip for clip in clips], bool) for m in self.modalities}
        arrays: Arrays = {}
        for m in self.modalities:
            dtype, shape = self.views.shapes[m]
            found = [clip.get(m, np.zeros(shape, dtype)) for clip in clips]
            arrays[m] = self._crop(m, found, request)
        return arrays, there if self.partial else {}

    def _recalled(self, kept: "Kept | None", row: int) -> Arrays:
        """One clip's arrays out of the cache; words that no encoder waits for are not in it."""
        found: Arrays = {} if kept is None else kept.get(row)
        if "text" in self.modalities and "text" not in self.views.locked and self.said[row]:
            found["text"] = self.text[row]
        return self._taken(row, found)

    def _taken(self, row: int, found: Arrays) -> Arrays:
        """What was found of a clip, if that will do."""
        missing = [m for m in self.modalities if m not in found]
        if self.partial or not missing:
            return found
        raise SonantError(
            f"clip {self.ids[row]!r} (row {row}) has no {' and no '.join(missing)}; this "
            f"method takes clips that have all of {', '.join(self.modalities)}: leave such clips "
            "out (`sonant pack` without `--partial` does, of sound and pictures)"
        )

    def _crop(self, modality: Modality, found: list[Array], request: Request) -> Array:
        if modality == "text" or modality in self.views.locked:
            return np.stack(found)
        views, rows = self.views, request.rows.tolist()
        randoms = [_chance(request, row, modality) for row in rows]
        pairs = zip(found, randoms, strict=True)
        if modality == "audio":
            return np.stack([views.heard(x, random) for x, random in pairs])
        return np.stack([views.moved(x, r) if r else views.middle(x) for x, r in pairs])

    def _key(self, kept: Clips) -> str:
        v, media = self.views, kept.packed_digest()
        said = (FRONT_END, media, v.frames, v.kept_size, v.rate, v.seconds, v.identities)
        return hashlib.sha256(repr(said).encode()).hexdigest()[:16]


def _chance(request: Request, row: int, modality: Modality) -> np.random.Generator | None:
    """What draws a clip's crop: another for sound than for pictures, so that neither tells."""
    if request.seed is None:
        return None
    return np.random.default_rng([*request.seed, row, *([1] if modality == "audio" else [])])


class Kept:
    """Arrays on disk, one a modality, that processes fill row by row and share.

    A mark a row and modality says that it is made, or that the clip was looked at and lacks the
    modality. Marks are known to all processes of one loader at once, and written to disk only after
    the rows themselves: a crash costs rows, and never leaves half of one. Processes of one machine
    only: files that are mapped over a network are written page by page, and rows share pages.

    Args:
        folder: of the arrays and marks.
        rows: of every array.
        shapes: of a row, for each modality.
        places: [n] the rows that are spoken of here as 0 to n - 1.
    """

    def __init__(self, folder: Path, rows: int, shapes: Shapes, places: Array) -> None:
        self.folder, self._places = folder, places
        try:
            self.arrays: Arrays = {
                m: self._open(m, dtype, (rows, *shape)) for m, (dtype, shape) in shapes.items()
            }
        except (OSError, SonantError) as error:
            reason = why(error) if isinstance(error, OSError) else error
            raise SonantError(
                f"{folder}: decoded clips cannot be kept there ({reason}); `--no-cache` decodes "
                "them each time"
            ) from error
        self._made = {m: np.frombuffer(mmap.mmap(-1, max(1, rows)), np.uint8) for m in shapes}
        self.learn()
        self._saved = self._count()

    def lacks(self, row: int) -> bool:
        """Whether a row is still to be made, of any modality."""
        return not all(made[self._places[row]] for made in self._made.values())

    def put(self, row: int, arrays: Arrays) -> None:
        """Fill a row; a modality that `arrays` lacks, the clip lacks."""
        place = self._places[row]
        for modality, array in self.arrays.items():
            if modality in arrays:
                array[place] = arrays[modality]
            self._made[modality][place] = MADE if modality in arrays else ABSENT

    def get(self, row: int) -> Arrays:
        """What was put in a row."""
        place = self._places[row]
        return {m: x[place] for m, x in self.arrays.items() if self._made[m][place] == MADE}

    def save(self, rank: int) -> None:
        """Write to disk what there is, then that it is there; nothing if that is known."""
        if self._count() == self._saved:
            return
        made = {modality: rows.copy() for modality, rows in self._made.items()}
        for modality, rows in made.items():
            cast("np.memmap[Any, Any]", self.arrays[modality]).flush()
            path = self.folder / f"{modality}.{rank}.npy"
            there = np.maximum(rows, _marked(path, len(rows)))  # others fill the same arrays
            with replacing(path) as partial, partial.open("wb") as file:
                np.save(file, there)
        self._saved = _known(made)

    def learn(self) -> None:
        """Know what other processes have saved."""
        for modality, made in self._made.items():
            for path in self._marks(modality):
                found = _marked(path, len(made))
                np.copyto(made, found, where=found > made)

    def _count(self) -> int:
        return _known(self._made)

    def _open(self, modality: Modality, dtype: type, shape: tuple[int, ...]) -> Array:
        """Map the file; whoever finds none, or a damaged one, makes it with all its space."""
        path = self.folder / f"{modality}.npy"
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _whole(path, dtype, shape):
                for mark in self._marks(modality):
                    mark.unlink()
                _demand_room(self.folder, dtype, shape)
                with replacing(path) as partial:
                    np.lib.format.open_memmap(partial, "w+", dtype, shape)
                    with partial.open("r+b") as file:
                        os.posix_fallocate(file.fileno(), 0, partial.stat().st_size)
        return np.lib.format.open_memmap(path, "r+")

    def _marks(self, modality: Modality) -> list[Path]:
        """The files that say which rows are made, one a rank."""
        return list(self.folder.glob(f"{modality}.*.npy"))


def _demand_room(folder: Path, dtype: type, shape: tuple[int, ...]) -> None:
    """Refuse what the disk has no room for; some network disks would find out block by block."""
    size, free = np.dtype(dtype).itemsize * math.prod(shape), shutil.disk_usage(folder).free
    if size > free:
        raise SonantError(
            f"{shape[0]} clips take {size / 1e9:.3g} GB, and {free / 1e9:.3g} GB are free"
        )


def _known(made: Mapping[Modality, Array]) -> int:
    """How many marks there are."""
    return sum(int(np.count_nonzero(rows)) for rows in made.values())


def _whole(path: Path, dtype: type, shape: tuple[int, ...]) -> bool:
    """Whether a file holds just such an array; mapped to be written, a shorter one would grow."""
    try:
        there = np.lib.format.open_memmap(path, "r")
    except (FileNotFoundError, ValueError):
        return False
    right = there.dtype == np.dtype(dtype) and there.shape == shape
    return right and path.stat().st_size == cast("np.memmap[Any, Any]", there).offset + there.nbytes


def _marked(path: Path, rows: int) -> Array:
    """Which rows are made; none, if there is no such file or it is damaged."""
    try:
        made: Array = np.load(path)
    except (FileNotFoundError, ValueError, EOFError):
        return np.zeros(rows, np.uint8)
    return made if made.shape == (rows,) and made.dtype == np.uint8 else np.zeros(rows, np.uint8)


class _Work(Dataset[Any]):
    """What a worker does with a request; what it raises for people it hands over instead."""

    def __init__(self, work: Callable[[Request], Any]) -> None:
        self.work = work

    def __getitem__(self, request: Request) -> Any:
        try:
            return self.work(request)
        except SonantError as error:
            return error


def loader(examples: Examples, asked: Iterable[Request], *, workers: int) -> Iterator[Batch]:
    """The batches that are asked for, in their order, made ahead by worker processes.

    What is not for workers, such as the crops of clips from the cache, a thread does for the next
    batch while one is learned from. Without workers all is done in between.

    Raises:
        SonantError: a clip cannot be read, or lacks a modality where that is an error.
    """
    kept = examples.kept  # made before the workers are, so that they share it

    def encoded(request: Request, decoded: Mapping[int, Arrays]) -> Batch:
        return to_batch(request.rows, *examples.batch(request, examples.finish(decoded)))

    def plain(request: Request, made: tuple[Arrays, There]) -> Batch:
        return to_batch(request.rows, *made)

    def recalled(request: Request, _: object) -> Batch:
        return to_batch(request.rows, *examples.batch(request))

    finish: Callable[[Request, Any], Batch]
    work: Callable[[Request], Any]
    if examples.views.locked:
        finish, work = encoded, examples.decode
    elif kept is None:
        finish, work = plain, examples.batch
    else:
        finish, work = recalled, examples.make
    with closing(_ahead(work, asked, workers)) as made:
        if workers:
            yield from _meanwhile(finish, made)
        else:
            for request, result in made:
                yield finish(request, result)


def _meanwhile(
    finish: Callable[[Request, Any], Batch], made: Iterable[tuple[Request, Any]]
) -> Iterator[Batch]:
    """Batches in their order, each finished by a thread while the one before is used.

    Workers may be forked meanwhile, to validate: they need nothing that the thread may hold.
    """
    coming: Future[Batch] | None = None
    with ThreadPoolExecutor(1) as thread:
        for request, result in made:
            ready, coming = coming, thread.submit(lambda *of: _pinned(finish(*of)), request, result)
            if ready is not None:
                yield ready.result()
        if coming is not None:
            yield coming.result()


def _pinned(batch: Batch) -> Batch:
    """Where an accelerator fetches it while it computes."""
    if not torch.cuda.is_available():
        return batch
    inputs, there = (
        {m: x.pin_memory() for m, x in tensors.items()} for tensors in (batch.inputs, batch.there)
    )
    return Batch(batch.index.pin_memory(), inputs, there)


def _ahead(
    work: Callable[[Request], Any], asked: Iterable[Request], workers: int
) -> Generator[tuple[Request, Any], None, None]:
    """Requests with their results, which workers compute ahead.

    Results come through pipes, not in shared memory, which containers ration. Workers leave SIGTERM
    to this process; those that are there when it exits, it kills.
    """
    asked, others = list(asked), set(active_children())
    made = DataLoader(
        _Work(work),
        batch_size=None,
        sampler=asked,
        collate_fn=_same,
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_leave_signals,
    )
    results = iter(made)
    Finalize(None, _end, (WeakSet(set(active_children()) - others),), exitpriority=0)
    try:
        for request, result in zip(asked, results, strict=True):
            if isinstance(result, SonantError):
                raise result
            yield request, result
    finally:
        # An error would hold on to them, and who is collected in a cycle cannot call workers off.
        del results


def to_batch(rows: Array, arrays: Arrays, there: There | None = None) -> Batch:
    """Arrays as tensors."""
    return Batch(
        torch.from_numpy(np.asarray(rows, np.int64)), _tensors(arrays), _tensors(there or {})
    )


def _tensors(arrays: Mapping[Modality, Array]) -> dict[Modality, Tensor]:
    return {m: torch.from_numpy(np.ascontiguousarray(x)) for m, x in arrays.items()}


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on a device; itself where it is there already."""
    inputs, there = (
        {m: x.to(device, non_blocking=True) for m, x in tensors.items()}
        for tensors in (batch.inputs, batch.there)
    )
    return Batch(batch.index.to(device, non_blocking=True), inputs, there)


def _leave_signals(worker: int) -> None:
    """Being interrupted and being told to end are the trainer's to handle: it saves first."""
    die_with_parent()


def _end(workers: Iterable[BaseProcess]) -> None:
    """At exit workers are stuck, or belong to results that an error holds on to."""
    for worker in workers:
        worker.kill()


def _same(x: Any) -> Any:
    return x
