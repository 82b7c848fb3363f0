"""Processes that look into media files, and outlive no crash but their own.

Decoders are C code that reads untrusted bytes: they may crash or never return. So each worker is a
process of its own that says on its standard output which video it begins and that it is getting on.
One that dies or falls silent is replaced; the video it was at is left out, with the reason.
"""

from __future__ import annotations

import json
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sonant.errors import SonantError
from sonant.processes import die_with_parent

START = 120.0
"""Seconds that a worker may take to come up."""
ENDING = 10.0
"""Seconds that a worker may take to end once it says nothing more."""
COMMAND = (sys.executable, "-P", "-c", "from sonant.media.crew import work; work()")

Say = Callable[[Mapping[str, Any]], None]


class Job(Protocol):
    """Some videos to be looked into by one worker; it must survive pickling."""

    @property
    def videos(self) -> Collection[str]:
        """Names of the videos."""

    def run(self, lost: Mapping[str, str], say: Say) -> Any:
        """Do it, in the worker.

        Args:
            lost: videos to leave out, and why.
            say: to be called with `{"video": name}` at the start of each video and, where one may
                take long, with `{}` on the way.

        Returns:
            Anything that JSON can hold.
        """


def run(jobs: Sequence[Job], *, workers: int, patience: float, title: str) -> list[Any]:
    """What the jobs return, in their order, while a bar on standard error shows the progress.

    Args:
        jobs: what to do.
        workers: processes, each at one job at a time.
        patience: seconds without progress after which a video is given up.
        title: of the bar.

    Raises:
        SonantError: a job failed for another reason than its videos.
    """
    if not jobs:
        return []
    columns = (
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("videos"),
        TimeRemainingColumn(),
    )
    workers = min(workers, len(jobs))
    crew = Crew(workers, patience)
    with (
        Progress(*columns, console=Console(stderr=True)) as progress,
        crew,
        ThreadPoolExecutor(workers) as threads,
    ):
        task = progress.add_task(title, total=sum(len(job.videos) for job in jobs))
        begun: set[tuple[int, str]] = set()

        def begin(number: int, video: str) -> None:
            begun.add((number, video))
            progress.update(task, completed=len(begun) - 1)

        futures = [threads.submit(crew.do, job, partial(begin, k)) for k, job in enumerate(jobs)]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            crew.stop()
            raise
        progress.update(task, completed=len(begun))
    return [future.result() for future in futures]


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

    def do(self, job: Job, began: Callable[[str], None]) -> Any:
        """Have a job done; blocks. Safe to call from as many threads as there are workers.

        Args:
            job: what to do.
            began: called with each video when it is begun; again where it had to be begun again.

        Returns:
            What the job returns.

        Raises:
            SonantError: it cannot be done.
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
                    return worker.do(job, lost, began)
                except _WorkerLostError as error:
                    if not error.video or error.video in lost:
                        raise SonantError(f"a worker {error}") from error
                    lost[error.video] = f"the decoder {error}"
                    worker = None
            raise SonantError("the work was stopped")
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
            env={**os.environ, "PYTHONPATH": path},
        )
        self._patience = patience

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _end(self) -> None:
        """Have it end; one that is ending anyway is let, so that its exit code says why."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(ENDING)
        self.kill()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def do(self, job: Job, lost: Mapping[str, str], began: Callable[[str], None]) -> Any:
        video, patience = "", max(START, self._patience)
        answer = self._ask(pickle.dumps((job, lost)), patience)
        while "done" not in answer:
            if "failed" in answer:
                raise SonantError(answer["failed"])
            if answer:
                video, patience = answer["video"], self._patience
                began(video)
            answer = self._ask(b"", patience, video)
        return answer["done"]

    def _ask(self, question: bytes, patience: float, video: str = "") -> dict[str, Any]:
        """Send a question, if there is one, and wait for the next answer."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        watchdog = threading.Timer(patience, self._process.kill)
        watchdog.start()
        asked = time.monotonic()
        try:
            stdin.write(question)
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = b""
        finally:
            watchdog.cancel()
        if line.endswith(b"\n"):
            return dict(json.loads(line))
        silent = time.monotonic() - asked >= patience
        self._end()
        if silent:
            raise _WorkerLostError(video, f"made no progress for {patience:g} s")
        raise _WorkerLostError(video, _ending(self._process.returncode))


def work() -> None:
    """What a worker does: jobs come in pickled, signs of life and results go out as JSON lines."""
    die_with_parent()
    # Whatever a library may print must not end up among the answers.
    with os.fdopen(0, "rb") as questions, os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)

        def say(answer: Mapping[str, Any]) -> None:
            try:
                print(json.dumps(answer), file=answers, flush=True)
            except BrokenPipeError:  # nobody listens any more
                os.dup2(os.open(os.devnull, os.O_WRONLY), answers.fileno())
                sys.exit(1)

        while questions.peek(1):
            job, lost = pickle.load(questions)
            try:
                say({"done": job.run(lost, say)})
            except SonantError as error:
                say({"failed": str(error)})


def _ending(code: int) -> str:
    return f"crashed ({signal.Signals(-code).name})" if code < 0 else f"stopped with code {code}"
