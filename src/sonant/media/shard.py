"""The bytes of a packed clip: a few members of a tar file that lie next to each other.

    <key>.json      id, video, start, end, rate, samples_start, frame_times
    <key>.wav       mono sound, 16 bit
    <key>.000.jpg   the frames, in order; one that is the picture of the frame before is left out

Of a clip without sound there is no .wav, and `samples_start` is null; of one without pictures there
is no .jpg, and `frame_times` is null.

WebDataset reads the same files: all members of a key are one sample. They hold no dates and no
owners, so that the same clip is always the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import tarfile
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from sonant.media.events import Samples
from sonant.media.frames import Pixels, Times
from sonant.media.read import Media

Pcm = np.ndarray[Any, np.dtype[np.int16]]

BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)
"""What closes a tar file."""
LONGEST_KEY = 80
FULL_SCALE = 1 << 15
WAV_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")


@dataclass(frozen=True, slots=True)
class PackedClip:
    """What is written of one clip. Of what its file does not have, both fields are None."""

    id: str
    video: str
    start: float
    end: float
    frame_times: Sequence[float] | None
    jpegs: Sequence[bytes] | None
    samples_start: float | None
    samples: Samples | None
    rate: int

    def to_bytes(self) -> bytes:
        """Members of a tar file, in whole blocks."""
        about = {
            "id": self.id,
            "video": self.video,
            "start": self.start,
            "end": self.end,
            "rate": self.rate,
            "samples_start": self.samples_start,
            "frame_times": None if self.frame_times is None else list(self.frame_times),
        }
        name = key(self.id)
        parts = [_member(f"{name}.json", json.dumps(about).encode())]
        if self.samples is not None:
            parts.append(_member(f"{name}.wav", to_wav(self.samples, self.rate)))
        if self.jpegs is not None and self.frame_times is not None:
            parts += [
                _member(f"{name}.{k:03}.jpg", jpeg)
                for k, jpeg in enumerate(self.jpegs)
                if not k or self.frame_times[k] > self.frame_times[k - 1]
            ]
        return b"".join(parts)


def load(data: bytes, id: str, frames: int, film: slice = slice(None)) -> Media:
    """Sound and some frames of a clip, from the bytes that `to_bytes` made; None of what it lacks.

    Args:
        data: all bytes of the clip.
        id: the clip that is expected there.
        frames: how many frames: those nearest to the middles of so many equal parts of the clip;
            for 0, no picture is decoded, and `frames` and `frame_times` are None.
        film: which of those frames are decoded.

    Raises:
        ValueError: the bytes are of another clip or of no clip at all.
    """
    members = _members(data)
    about = json.loads(bytes(members["json"]))
    if about["id"] != id:
        raise ValueError(f"there lies clip {about['id']!r}")
    pictures: Pixels | None = None
    shown: Times | None = None
    if frames and about["frame_times"] is not None:
        times = np.array(about["frame_times"])
        middles = (2 * np.arange(frames) + 1) * len(times) // (2 * frames)
        stored = np.searchsorted(times, times[middles[film]])
        pictures, shown = np.stack([_pixels(members[f"{k:03}.jpg"]) for k in stored]), times[stored]
    heard = about["samples_start"] is not None
    return Media(
        frames=pictures,
        frame_times=shown,
        samples=from_wav(members["wav"]) if heard else None,
        samples_start=about["samples_start"],
        rate=about["rate"],
    )


def content(data: bytes) -> str:
    """A hash of a packed clip's bytes, as the column `content` of clip tables has it."""
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def key(id: str) -> str:
    """A clip's name inside a shard: no dots (WebDataset splits there), no folders, never too long.

    Different ids have different keys.
    """
    name = urllib.parse.quote(id, safe="").replace(".", "%2E")
    if len(name) <= LONGEST_KEY:
        return name
    digest = hashlib.sha256(id.encode()).hexdigest()[:32]
    return f"{name[: LONGEST_KEY - len(digest) - 1]}-{digest}"


def to_wav(samples: Samples, rate: int) -> bytes:
    """A mono 16-bit WAV file; what is louder than full scale is cut off."""
    scaled = np.rint(samples * np.float32(FULL_SCALE))
    pcm: bytes = np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1).astype("<i2").tobytes()
    header = WAV_HEADER.pack(
        *(b"RIFF", WAV_HEADER.size - 8 + len(pcm), b"WAVE"),
        *(b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16),
        *(b"data", len(pcm)),
    )
    return header + pcm


def from_wav(wav: memoryview | bytes) -> Samples:
    """Samples within -1 to 1 of a file that `to_wav` made."""
    pcm: Pcm = np.frombuffer(wav, "<i2", offset=WAV_HEADER.size)
    return pcm * np.float32(1 / FULL_SCALE)


def to_jpeg(pixels: Pixels, quality: int) -> bytes:
    """One frame [H, W, 3] as a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return file.getvalue()


def _pixels(jpeg: memoryview) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(jpeg)))


def _member(name: str, data: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    header: bytes = info.tobuf(tarfile.USTAR_FORMAT)
    return header + data + bytes(-len(data) % BLOCK)


def _members(data: bytes) -> dict[str, memoryview]:
    """Member contents by what follows the key in their names."""
    members: dict[str, memoryview] = {}
    view, at = memoryview(data), 0
    while at < len(data):
        name = data[at : data.index(b"\0", at)].decode()
        size = int(data[at + 124 : at + 135], 8)
        at += BLOCK
        members[name.partition(".")[2]] = view[at : at + size]
        at += -(-size // BLOCK) * BLOCK
    return members
