"""What becomes of workers that end before their work is done."""

import atexit
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from sonant.media import crew


@dataclass(frozen=True)
class Ending:
    """A job at whose video the worker ends by itself, and takes its time for that."""

    videos: tuple[str, ...] = ("a",)

    def run(self, lost: Mapping[str, str], say: crew.Say) -> Mapping[str, str]:
        say({"video": "a"})
        if not lost:
            atexit.register(time.sleep, 0.5)
            sys.exit(3)
        return lost


def test_a_worker_that_ends_by_itself_is_not_said_to_have_been_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2])  # for the worker to find the job
    lost = crew.run([Ending()], workers=1, patience=60.0, title="end")
    assert lost == [{"a": "the decoder stopped with code 3"}]
