"""The bytes of a packed clip: a few members of a tar file that lie next to each other.

    <key>.json      id, video, start, end, rate, samples_start, frame_times
    <key>.wav       mono sound, 16 bit
    <key>.000.jpg   the frames, in order; one that is the picture of the frame before is left out

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
from sonant.media.frames import Pixels
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
    """What is written of one clip."""

    id: str
    video: str
    start: float
    end: float
    frame_times: Sequence[float]
    jpegs: Sequence[bytes]
    samples_start: float
    samples: Samples
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
            "frame_times": list(self.frame_times),
        }
        name = key(self.id)
        parts = [
            _member(f"{name}.json", json.dumps(about).encode()),
            _member(f"{name}.wav", to_wav(self.samples, self.rate)),
        ]
        parts += [
            _member(f"{name}.{k:03}.jpg", jpeg)
            for k, jpeg in enumerate(self.jpegs)
            if not k or self.frame_times[k] > self.frame_times[k - 1]
        ]
        return b"".join(parts)


def load(data: bytes, id: str, frames: int) -> Media:
    """Sound and some frames of a clip, from the bytes that `to_bytes` made.

    Args:
        data: all bytes of the clip.
        id: the clip that is expected there.
        frames: how many frames: those nearest to the middles of so many equal parts of the clip;
            for 0, no picture is decoded, and `frames` and `frame_times` are None.

    Raises:
        ValueError: the bytes are of another clip or of no clip at all.
    """
    members = _members(data)
    about = json.loads(bytes(members["json"]))
    if about["id"] != id:
        raise ValueError(f"there lies clip {about['id']!r}")
    times = np.array(about["frame_times"])
    middles = (2 * np.arange(frames) + 1) * len(times) // (2 * max(frames, 1))
    stored = np.searchsorted(times, times[middles])
    return Media(
        frames=np.stack([_pixels(members[f"{k:03}.jpg"]) for k in stored]) if frames else None,
        frame_times=times[stored] if frames else None,
        samples=from_wav(members["wav"]),
        samples_start=about["samples_start"],
        rate=about["rate"],
    )


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
