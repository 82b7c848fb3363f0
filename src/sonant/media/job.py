"""One shard to be written: some videos and their clips."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sonant.errors import SonantError
from sonant.files import replacing, stamp
from sonant.media.crew import Say
from sonant.media.shard import END, PackedClip, content
from sonant.media.sweep import Form, Span, sweep

BEAT = 0.2
"""Seconds between two signs of life."""
RECORDED = frozenset(["digest", "stamps", "size", "places", "reasons"])
"""What the record of a shard says."""


@dataclass(frozen=True)
class Job:
    """What a worker does: the shard, its videos and their clips."""

    shard: Path
    root: Path
    videos: Mapping[str, list[Span]]
    form: Form

    @property
    def record(self) -> Path:
        """The file that says what is in the shard; while it is not there, nothing is."""
        return self.shard.with_suffix(".json")

    def digest(self) -> str:
        """Hash of everything that the shard depends on but the videos' content."""
        rows = {video: [asdict(span) for span in spans] for video, spans in self.videos.items()}
        form = asdict(self.form)
        if not self.form.partial:  # so that shards from before there was a choice stay
            del form["partial"]
        return hashlib.sha256(json.dumps([rows, form]).encode()).hexdigest()

    def stamps(self) -> dict[str, list[int] | None]:
        """Size and time of change of every video, None for one that is not there."""
        return {video: stamp(self.root / video) for video in self.videos}

    def finished(self) -> dict[str, Any] | None:
        """The shard's record, if the shard is there and its videos have not changed since.

        A video that is gone has not changed: what was packed of it stays.

        Raises:
            SonantError: some videos have changed while others are gone, so that the shard can
                neither stay nor be made again without loss.
        """
        record = self._recorded()
        if record is None:
            return None
        then, now = record["stamps"], self.stamps()
        changed = [video for video in now if now[video] not in (None, then[video])]
        gone = [video for video in now if now[video] is None and then[video] is not None]
        if changed and gone:
            raise SonantError(
                f"{self.shard}: {changed[0]} has changed since it was packed, but {gone[0]} of the "
                "same shard is missing; bring it back, or delete the shard to go on without it"
            )
        return None if changed else record

    def _recorded(self) -> dict[str, Any] | None:
        """The record, if it is one of just this shard."""
        try:
            record = json.loads(self.record.read_text())
            size = self.shard.stat().st_size
        except (OSError, ValueError):
            return None
        if not isinstance(record, dict) or not record.keys() >= RECORDED:
            return None
        same = (record["digest"], record["size"]) == (self.digest(), size)
        return record if same else None

    def run(self, lost: Mapping[str, str], say: Say) -> None:
        """Write the shard, then its record.

        Args:
            lost: videos to leave out, and why.
            say: called with `{"video": name}` at the start of each video and with `{}` on the way.
        """
        stamps = self.stamps()
        places: dict[str, tuple[int, int]] = {}
        contents: dict[str, str] = {}
        reasons: dict[str, str] = {}
        with replacing(self.shard) as partial, partial.open("wb") as file:
            for video, spans in self.videos.items():
                say({"video": video})
                if video in lost:
                    reasons.update({span.id: lost[video] for span in spans})
                    continue
                for result in sweep(self.root / video, video, spans, self.form, _Beat(say)):
                    if isinstance(result, PackedClip):
                        data = result.to_bytes()
                        places[result.id] = file.tell(), len(data)
                        contents[result.id] = content(data)
                        file.write(data)
                    else:
                        reasons[result[0]] = result[1]
            file.write(END)
            size = file.tell()
        record = {
            "digest": self.digest(),
            "stamps": stamps,
            "size": size,
            "places": places,
            "contents": contents,
            "reasons": reasons,
        }
        with replacing(self.record) as partial:
            partial.write_text(json.dumps(record) + "\n")


class _Beat:
    """Says every now and then that there is progress."""

    def __init__(self, say: Say) -> None:
        self._say, self._last = say, time.monotonic()

    def __call__(self) -> None:
        now = time.monotonic()
        if now - self._last > BEAT:
            self._last = now
            self._say({})
