"""Processes that pack shards, and outlive no crash but their own.

Decoders are C code that reads untrusted bytes: they may crash or never return. So each worker is a
process of its own that says on its standard output which video it begins and that it is getting on.
One that dies or falls silent is replaced; the video it was at is left out, with the reason.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sonant.errors import SonantError
from sonant.files import replacing
from sonant.media.shard import END, PackedClip
from sonant.media.sweep import Form, Span, sweep

BEAT = 0.2
"""Seconds between two signs of life."""
START = 120.0
"""Seconds that a worker may take to come up."""
COMMAND = (sys.executable, "-P", "-c", "from sonant.media.crew import work; work()")


@dataclass(frozen=True)
class Job:
    """One shard to be written: some videos and their clips."""

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
        return hashlib.sha256(json.dumps([rows, asdict(self.form)]).encode()).hexdigest()

    def stamps(self) -> dict[str, list[int] | None]:
        """Size and time of change of every video, None for one that is not there."""
        return {video: _stamp(self.root / video) for video in self.videos}

    def finished(self) -> dict[str, Any] | None:
        """The shard's record, if the shard is there and its videos have not changed since."""
        try:
            record: dict[str, Any] = json.loads(self.record.read_text())
            size = self.shard.stat().st_size
        except (OSError, ValueError, KeyError):
            return None
        same = (record["digest"], record["stamps"]) == (self.digest(), self.stamps())
        return record if same and size == record["size"] else None

    def run(self, lost: Mapping[str, str], say: Callable[[Mapping[str, Any]], None]) -> None:
        """Write the shard, then its record.

        Args:
            lost: videos to leave out, and why.
            say: called with `{"video": name}` at the start of each video and with `{}` on the way.
        """
        stamps = self.stamps()
        places: dict[str, tuple[int, int]] = {}
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
            "reasons": reasons,
        }
        with replacing(self.record) as partial:
            partial.write_text(json.dumps(record) + "\n")


class Crew:
    """Worker processes that may die.

    Args:
        size: how many there are at a time.
        patience: seconds of silence after which one is killed and its video given up.
    """

    def __init__(self, size: int, patience: float) -> None:
        self._patience = patience
        self._free: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        self._all: list[_Worker] = []
        self._stopped = False
        for _ in range(size):
            self._free.put(None)

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self._all:
            worker.close()

    def stop(self) -> None:
        """Kill every worker, whatever it is doing; `do` then raises."""
        self._stopped = True
        for worker in self._all:
            worker.kill()

    def do(self, job: Job, began: Callable[[str], None]) -> None:
        """Have a shard written; blocks. Safe to call from as many threads as there are workers.

        Args:
            job: the shard.
            began: called with each video when it is begun; again where it had to be begun again.

        Raises:
            SonantError: it cannot be written.
        """
        lost: dict[str, str] = {}
        worker = self._free.get()
        try:
            while not self._stopped:
                if worker is None:
                    worker = _Worker(self._patience)
                    self._all.append(worker)
                    if self._stopped:
                        break
                try:
                    worker.do(job, lost, began)
                    return
                except _WorkerLostError as error:
                    if not error.video or error.video in lost:
                        raise SonantError(f"a pack worker {error}") from error
                    lost[error.video] = f"the decoder {error}"
                    worker = None
            raise SonantError("packing was stopped")
        finally:
            self._free.put(worker)


class _WorkerLostError(Exception):
    """A worker died or fell silent while it was at a video ("" before the first)."""

    def __init__(self, video: str, what: str) -> None:
        super().__init__(what)
        self.video = video


class _Worker:
    def __init__(self, patience: float) -> None:
        path = os.pathsep.join(entry for entry in sys.path if entry)
        self._process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        self._patience = patience
        self._silent_for = 0.0

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def do(self, job: Job, lost: Mapping[str, str], began: Callable[[str], None]) -> None:
        video, patience = "", max(START, self._patience)
        answer = self._ask({"job": _to_json(job), "lost": lost}, patience)
        while not answer.get("done"):
            if "failed" in answer:
                raise SonantError(answer["failed"])
            if answer:
                video, patience = answer["video"], self._patience
                began(video)
            answer = self._ask(None, patience, video)

    def _ask(self, question: Any, patience: float, video: str = "") -> dict[str, Any]:
        """Send a line, if there is one to send, and wait for the next answer."""
        watchdog = threading.Timer(patience, self._process.kill)
        watchdog.start()
        asked = time.monotonic()
        try:
            if question is not None:
                print(json.dumps(question), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline() if self._process.stdout else ""
        except BrokenPipeError:
            line = ""
        finally:
            watchdog.cancel()
        if line.endswith("\n"):
            return dict(json.loads(line))
        self.kill()
        if time.monotonic() - asked >= patience:
            raise _WorkerLostError(video, f"made no progress for {patience:g} s")
        raise _WorkerLostError(video, _ending(self._process.returncode))


class _Beat:
    """Says every now and then that there is progress."""

    def __init__(self, say: Callable[[Mapping[str, Any]], None]) -> None:
        self._say, self._last = say, time.monotonic()

    def __call__(self) -> None:
        now = time.monotonic()
        if now - self._last > BEAT:
            self._last = now
            self._say({})


def work() -> None:
    """What a worker does: jobs come in as lines of JSON, signs of life go out as such."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Whatever a library may print must not end up among the answers.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)

        def say(answer: Mapping[str, Any]) -> None:
            print(json.dumps(answer), file=answers, flush=True)

        for line in sys.stdin:
            question = json.loads(line)
            try:
                _from_json(question["job"]).run(question["lost"], say)
            except SonantError as error:
                say({"failed": str(error)})
            else:
                say({"done": True})


def _to_json(job: Job) -> dict[str, Any]:
    return {**asdict(job), "shard": str(job.shard), "root": str(job.root)}


def _from_json(job: Mapping[str, Any]) -> Job:
    videos = {video: [Span(**span) for span in spans] for video, spans in job["videos"].items()}
    return Job(Path(job["shard"]), Path(job["root"]), videos, Form(**job["form"]))


def _stamp(path: Path) -> list[int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _ending(code: int) -> str:
    return f"crashed ({signal.Signals(-code).name})" if code < 0 else f"stopped with code {code}"
