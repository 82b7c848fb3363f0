"""One media file from front to back: pictures, sound and damage, all on one clock.

`read` and `pack` share this, so that a packed clip shows and sounds as the file itself.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Discard, Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from sonant.errors import MediaError
from sonant.files import why
from sonant.media.events import TICK, Damage, Event, Kind, Picture, Sound, kind_of
from sonant.media.sound import mono

SEEK_BACK = (0.0, 2.0, 10.0, 60.0)
"""Seconds by which a seek is sent ahead of its target, one after the other, until it lands."""
LOOK_AHEAD = 24
"""Packets read ahead of the decoder, to know when the next picture comes on display."""
FIRST_FRAMES = 64
VORBIS_STEP = 0.004
"""Seconds by which the length of Vorbis packets must change to be told from rounded stamps."""
STALL = 30.0
"""Seconds after which a file system that does not answer is an error."""
LAST_STAMP = 1 << 62
MOST_PIXELS = 1 << 26
MOST_HEADERS = 1 << 20
SQUARE = 0.02
"""Pixels this close to square are taken as square: encoders round the shape of the picture."""


class MediaFile:
    """An open media file whose times count from its first frame or sample, whichever is earlier.

    Args:
        path: a video or sound file.

    Raises:
        MediaError: the file is missing, unreadable, or has neither pictures nor sound.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.origin = 0.0
        self._waiting: deque[Event] = deque()
        self._next: dict[Kind, float] = {}
        self._wanted: Sequence[float] | None = None
        self._stamped_at_end = False
        self._container = _open(self.path)
        try:
            self._begin()
            self._stamped_at_end = self.audio is not None and _stamped_at_end(self.path, self.audio)
            self.origin = self._find_origin()
        except BaseException:
            self.close()
            raise
        early = [replace(event, time=event.time - self.origin) for event in self._waiting]
        self._waiting = deque(early)

    def __enter__(self) -> MediaFile:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; done twice, it does no harm."""
        self._container.close()

    @property
    def pixel_shape(self) -> float:
        """Width of a pixel over its height."""
        shape = self.video.sample_aspect_ratio if self.video else None
        return float(shape) if shape and abs(shape - 1) > SQUARE else 1.0

    def first_picture(self) -> Picture | None:
        """The first picture of a file that was just opened, if it can be decoded."""
        return next((event for event in self._waiting if isinstance(event, Picture)), None)

    def duration(self) -> float:
        """Seconds to the end of the file: as it says, or else found by reading all of it."""
        if self._container.duration:
            claimed = (self._container.start_time or 0) + self._container.duration
            return claimed / av.time_base - self.origin
        end, read = 0.0, 0
        # A file that is damaged lasts for as long as it can be read.
        with _open(self.path) as container, suppress(FFmpegError):
            streams = [stream for stream in _choose(self.path, container) if stream is not None]
            for packet in container.demux(*streams):
                read += packet.size
                if read > self._most_bytes:
                    break
                if packet.pts is not None:
                    end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        return end - self.origin

    def only_show(self, times: Sequence[float]) -> None:
        """Leave out pictures that are on display at none of these times (ascending).

        Only such are left out as no other picture is made from, and as the decoder can skip.
        """
        self._wanted = times

    def key_frame_before(self, time: float) -> float:
        """About when the last key frame up to a time is shown; 0 where the file has no index."""
        if self.video is None or self.video.time_base is None:
            return 0.0
        index, tick = self.video.index_entries, float(self.video.time_base)
        place = index.search_timestamp(int(min((time + self.origin) / tick, LAST_STAMP)))
        return 0.0 if place < 0 else index[place].timestamp * tick - self.origin

    def events(self) -> Iterator[Event]:
        """Everything from here to the end of the file."""
        while self._waiting or self._advance():
            if self._waiting:
                yield self._waiting.popleft()

    def events_around(self, time: float, kind: Kind) -> Iterator[Event]:
        """Everything of one kind, from a picture or sound at or before `time` on.

        Where nothing lies before that time, from the first there is. Seeking is not trusted: where
        the file lands too late it is sent back further, and at last to its beginning.
        """
        for back in SEEK_BACK:
            if time - back <= 0 or not self._seek(time - back, kind):
                break
            while (first := self._first_time()) is None and self._advance():
                pass
            if first is not None and first <= time + TICK:
                return self.events()
        self._container.close()
        self._container = _open(self.path)
        self._begin(kind)
        return self.events()

    def _begin(self, *kinds: Kind) -> None:
        self.video, self.audio = _choose(self.path, self._container)
        there: dict[Kind, VideoStream | AudioStream | None]
        there = {"video": self.video, "audio": self.audio}
        self._streams = {kind: stream for kind, stream in there.items() if stream is not None}
        self._restart(*(kinds or self._streams))

    def _restart(self, *kinds: Kind) -> None:
        self._waiting.clear()
        self._next.clear()
        self._kinds, self._broken = kinds, ""
        self._bytes_left = self._most_bytes = 2 * self._container.size + MOST_HEADERS
        self._packets = self._demuxed([self._streams[kind] for kind in kinds])
        self._stamps: deque[int] = deque(maxlen=2 * LOOK_AHEAD)
        self._ahead: deque[Packet[Any]] = deque(islice(self._packets, LOOK_AHEAD))

    def _seek(self, time: float, kind: Kind) -> bool:
        stream = self._streams[kind]
        assert stream.time_base is not None
        try:
            self._container.seek(int((time + self.origin) / stream.time_base), stream=stream)
        except (FFmpegError, OverflowError):
            return False
        self._restart(kind)
        return True

    def _first_time(self) -> float | None:
        times = (event.time for event in self._waiting if not isinstance(event, Damage))
        return next(times, None)

    def _find_origin(self) -> float:
        firsts: dict[Kind, float] = {}
        latest = -math.inf
        while len(firsts) < len(self._streams) and latest < min(firsts.values(), default=0) + 1:
            if not self._advance():
                break
            for event in self._waiting:
                firsts.setdefault(kind_of(event), event.time)
                latest = max(latest, event.time)
        return min(firsts.values(), default=0.0)

    def _demuxed(self, streams: list[VideoStream | AudioStream]) -> Iterator[Packet[Any]]:
        packets = self._container.demux(*streams)
        while True:
            try:
                packet = next(packets, None)
            except (FFmpegError, OSError) as error:
                self._broken = _reason(error)
                return
            if packet is None:
                return
            self._bytes_left -= packet.size
            if self._bytes_left < 0:
                raise MediaError(self.path, "its index points to the same data again and again")
            if packet.stream is self.video and packet.pts is not None:
                self._stamps.append(packet.pts)
            yield packet

    def _advance(self) -> bool:
        """Decode one packet into events; False at the end of the file."""
        self._ahead.extend(islice(self._packets, 1))
        if self._ahead:
            packet = self._ahead.popleft()
            if self._wanted is not None and packet.stream is self.video:
                self._skip_unless_shown(packet, self.video.codec_context, self._wanted)
            self._waiting.extend(self._decoded(packet))
            return True
        if self._broken:
            last = [(kind, self._next.get(kind, 0.0)) for kind in self._kinds]
            self._waiting.extend(Damage(time, kind, self._broken) for kind, time in last)
            self._broken = ""
            return True
        return False

    def _skip_unless_shown(
        self, packet: Packet[Any], decoder: VideoCodecContext, wanted: Sequence[float]
    ) -> None:
        if packet.pts is None:
            return
        tick = float(packet.time_base)
        next_stamp = min((stamp for stamp in self._stamps if stamp > packet.pts), default=math.inf)
        first = bisect_left(wanted, packet.pts * tick - self.origin - TICK)
        shown = first < len(wanted) and wanted[first] < next_stamp * tick - self.origin + TICK
        decoder.skip_frame = "DEFAULT" if shown else "NONREF"

    def _decoded(self, packet: Packet[Any]) -> Iterator[Event]:
        kind: Kind = packet.stream.type
        try:
            frames = packet.decode()
        except (FFmpegError, OSError) as error:
            yield Damage(self._packet_time(packet, kind), kind, _reason(error))
            return
        for frame in frames:
            yield from self._event(frame)

    def _packet_time(self, packet: Packet[Any], kind: Kind) -> float:
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is None:
            return self._next.get(kind, 0.0)
        return float(stamp * packet.time_base) - self.origin

    def _event(self, frame: VideoFrame | AudioFrame) -> Iterator[Event]:
        kind: Kind = "video" if isinstance(frame, VideoFrame) else "audio"
        if frame.time is not None:
            time = frame.time - self.origin
        elif kind in self._next:
            time = self._next[kind]
        else:
            return
        if frame.is_corrupt:
            yield Damage(time, kind, "a frame is damaged")
        elif isinstance(frame, VideoFrame):
            duration = float(frame.duration * (frame.time_base or 0))
            self._next[kind] = time + duration
            yield Picture(time, duration, frame)
        elif frame.samples:
            length = frame.samples / frame.sample_rate
            begin = time - length if self._stamped_at_end and frame.time is not None else time
            self._next[kind] = begin + length
            yield Sound(begin, mono(frame), frame.sample_rate)


def _open(path: Path) -> InputContainer:
    try:
        there = path.exists()
    except OSError as error:
        raise MediaError(path, why(error)) from error
    if not there:
        raise MediaError(path, "no such file")
    if not path.is_file():
        raise MediaError(path, "not a file")
    if path.stat().st_size == 0:
        raise MediaError(path, "an empty file")
    try:
        return av.open(str(path), timeout=(STALL, STALL), metadata_errors="ignore")
    except (FFmpegError, OSError, ValueError) as error:
        raise MediaError(path, f"not a readable media file: {_reason(error)}") from error


def _choose(path: Path, container: InputContainer) -> tuple[VideoStream | None, AudioStream | None]:
    """The best stream of each kind; cover art is no video. All others are discarded unread."""
    videos = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    best = container.streams.best("video")
    video = next((stream for stream in videos if stream is best), videos[0] if videos else None)
    sound = container.streams.best("audio")
    audio = sound if isinstance(sound, AudioStream) else None
    if video is None and audio is None:
        raise MediaError(path, "it holds neither video nor sound")
    for stream in container.streams:
        if stream is not video and stream is not audio:
            stream.discard = Discard.all
        elif stream.codec_context is None:
            raise MediaError(path, f"there is no decoder for its {stream.type}")
        else:
            stream.codec_context.thread_count = 1
    if video is not None:
        video.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
    return video, audio


def _stamped_at_end(path: Path, audio: AudioStream) -> bool:
    """Whether a Vorbis stream's packets bear the time of their end, as some WebM writers do it.

    That shows where the length of packets first changes.
    """
    if audio.codec_context.name != "vorbis":
        return False
    with _open(path) as container:
        if container.format.name == "ogg":
            return False
        frames = islice(container.decode(container.streams[audio.index]), FIRST_FRAMES)
        try:
            known = [
                (frame.time, frame.samples / frame.sample_rate)
                for frame in frames
                if isinstance(frame, AudioFrame) and frame.time is not None
            ]
        except FFmpegError:
            return False
    for (before, old), (time, new) in pairwise(known):
        if abs(new - old) > VORBIS_STEP:
            return bool(abs(time - before - new) < abs(time - before - old))
    return False


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
