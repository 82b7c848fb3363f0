"""All clips of one video, cut in a single pass over it."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

from sonant.errors import MediaError
from sonant.media.decode import MediaFile
from sonant.media.display import SHAPES, Scaler, Screen
from sonant.media.events import EDGE, Damage, Event, Lost, Picture, Sound
from sonant.media.frames import centres
from sonant.media.read import PREROLL
from sonant.media.shard import PackedClip, to_jpeg
from sonant.media.sound import MARGIN, SoundTrack

WORTH_A_JUMP = 5.0
"""Seconds of video that must be left out to pay for a seek and for opening the file for it."""


@dataclass(frozen=True, slots=True)
class Span:
    """A clip to cut, in seconds on the video's clock."""

    id: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Form:
    """What is kept of a clip."""

    rate: int
    """Samples of sound per second."""
    frame_rate: float
    """Frames per second; a clip has at least one."""
    short_side: int
    """Pixels of the frames' short side."""
    quality: int
    """JPEG quality, 1 to 95."""
    partial: bool = False
    """Whether clips of a file without sound or without pictures are kept with what there is."""

    def frames(self, span: Span) -> int:
        """How many frames a clip has."""
        return max(1, round((span.end - span.start) * self.frame_rate))


def sweep(
    path: Path, video: str, spans: Sequence[Span], form: Form, beat: Callable[[], None]
) -> Iterator[PackedClip | tuple[str, str]]:
    """Cut clips out of a video while it is decoded once, from front to back.

    Stretches without clips are jumped over where the file's index says that it pays.

    Args:
        path: the file.
        video: its name in the clip table.
        spans: the clips.
        form: what to keep of each.
        beat: called again and again while there is progress.

    Yields:
        Each clip, or (id, reason) where it cannot be had; in the order in which they end.
    """
    ordered = sorted(spans, key=lambda span: (span.end, span.start, span.id))
    given: set[str] = set()
    try:
        with MediaFile(path) as file:
            for kind, stream in (("video", file.video), ("audio", file.audio)):
                if stream is None and not form.partial:
                    reason = f"the file has no {kind} stream (packed only with --partial)"
                    raise MediaError(path, reason)
            for start, group in _groups(file, ordered):
                cut = _Sweep(file, video, group, form)
                with _events(file, start) as events:
                    for result in cut.results(events, beat):
                        given.add(result.id if isinstance(result, PackedClip) else result[0])
                        yield result
    except (MediaError, MemoryError) as error:
        reason = error.reason if isinstance(error, MediaError) else "it takes too much memory"
        yield from ((span.id, reason) for span in ordered if span.id not in given)


def _groups(file: MediaFile, ordered: Sequence[Span]) -> list[tuple[float, list[Span]]]:
    """Spans that are cut in one go, and before each group where to jump to: 0 for nowhere.

    A jump pays where the key frame that it lands on is well past the end of all spans before.
    """
    starts = [span.start for span in reversed(ordered)]
    groups: list[tuple[float, list[Span]]] = []
    reached = 0.0
    for span, start in zip(ordered, reversed([*accumulate(starts, min)]), strict=True):
        if file.key_frame_before(start) > reached + WORTH_A_JUMP:
            groups.append((start, []))
        elif not groups:
            groups.append((0.0, []))
        groups[-1][1].append(span)
        reached = max(reached, span.end)
    return groups


@contextmanager
def _events(file: MediaFile, start: float) -> Iterator[Iterator[Event]]:
    """What is seen and heard from the front, or else from before `start` on.

    Then each stream is sought by itself, as `read` does it: few files begin both together.
    """
    if not start:
        yield file.events()
        return
    if file.audio is None:
        yield file.events_around(start, "video")
        return
    with MediaFile(file.path) as sounds:
        heard = sounds.events_around(max(0.0, start - PREROLL), "audio")
        seen = file.events_around(start, "video")
        yield heapq.merge(seen, heard, key=lambda event: event.time)


@dataclass(slots=True)
class _Growing:
    """A clip of which some frames are there."""

    jpegs: list[bytes] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    shapes: set[tuple[int, ...]] = field(default_factory=set)
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Encoded:
    """The picture that was last made a JPEG; clips that overlap want it again."""

    time: float
    shape: tuple[int, ...]
    jpeg: bytes


class _Sweep:
    def __init__(self, file: MediaFile, video: str, spans: Sequence[Span], form: Form) -> None:
        self._video, self._spans, self._form = video, spans, form
        self._seen, self._heard = file.video is not None, file.audio is not None
        self._growing = [_Growing() for _ in spans]
        self._missing = [form.frames(span) if self._seen else 0 for span in spans]
        wanted = sorted(
            (time, place)
            for place, span in enumerate(spans)
            if self._seen
            for time in centres(span.start, span.end, form.frames(span))
        )
        self._places = [place for _, place in wanted]
        times = [time for time, _ in wanted]
        self._screen = Screen(times)
        file.only_show(times)
        self._scaler = Scaler(form.short_side, file.pixel_shape)
        self._track = SoundTrack()
        self._encoded = _Encoded(math.nan, (), b"")
        starts = [span.start for span in reversed(spans)]
        self._earliest = [*reversed([*accumulate(starts, min)]), math.inf]
        self._given = 0

    def results(
        self, events: Iterable[Event], beat: Callable[[], None]
    ) -> Iterator[PackedClip | tuple[str, str]]:
        for event in events:
            beat()
            if isinstance(event, Picture) or (isinstance(event, Damage) and event.kind == "video"):
                self._show(self._screen.feed(event))
            elif isinstance(event, Sound | Damage):
                self._track.feed(event)
            yield from self._ready()
            if self._given == len(self._spans):
                return
        self._show(self._screen.finish())
        yield from self._ready(at_end=True)

    def _show(self, answers: Iterable[tuple[int, Picture | str]]) -> None:
        for index, answer in answers:
            place = self._places[index]
            growing = self._growing[place]
            self._missing[place] -= 1
            if isinstance(answer, str):
                growing.reason = growing.reason or answer
            elif not growing.reason:
                try:
                    picture = self._encode(answer)
                except Lost as lost:
                    growing.reason = lost.reason
                else:
                    growing.times.append(picture.time)
                    growing.shapes.add(picture.shape)
                    growing.jpegs.append(picture.jpeg)

    def _encode(self, picture: Picture) -> _Encoded:
        if self._encoded.time != picture.time:
            pixels = self._scaler.pixels(picture.frame)
            jpeg = to_jpeg(pixels, self._form.quality)
            self._encoded = _Encoded(picture.time, pixels.shape, jpeg)
        return self._encoded

    def _ready(self, *, at_end: bool = False) -> Iterator[PackedClip | tuple[str, str]]:
        while self._given < len(self._spans):
            place, span = self._given, self._spans[self._given]
            heard = at_end or not self._heard or self._track.end > span.end + MARGIN
            if self._missing[place] or not heard:
                return
            self._given += 1
            yield self._finished(span, self._growing[place])
            self._growing[place] = _Growing()
            self._track.forget(self._earliest[self._given] - MARGIN - EDGE)

    def _finished(self, span: Span, growing: _Growing) -> PackedClip | tuple[str, str]:
        if growing.reason or len(growing.shapes) > 1:
            return span.id, growing.reason or SHAPES
        samples, samples_start = None, None
        if self._heard:
            try:
                samples, samples_start = self._track.cut(span.start, span.end, self._form.rate)
            except Lost as lost:
                return span.id, lost.reason
        return PackedClip(
            id=span.id,
            video=self._video,
            start=span.start,
            end=span.end,
            frame_times=growing.times if self._seen else None,
            jpegs=growing.jpegs if self._seen else None,
            samples_start=samples_start,
            samples=samples,
            rate=self._form.rate,
        )
