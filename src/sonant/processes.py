"""Worker processes that do not outlive the command that started them, and where others are."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
"""Linux: the signal that a process gets when its parent has died."""


def die_with_parent() -> None:
    """Called first in a worker: a command that is killed leaves no workers behind.

    Linux does this; elsewhere workers end when they next look for work.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def several_machines() -> bool:
    """Whether torchrun has started processes on other machines, too."""
    there = int(os.environ.get("WORLD_SIZE", "1"))
    return there > int(os.environ.get("LOCAL_WORLD_SIZE", there))
