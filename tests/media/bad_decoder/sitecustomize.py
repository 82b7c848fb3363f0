"""Stands in for a decoder that crashes on one file and never returns from another."""

import os
import signal
import time

from sonant.media.decode import MediaFile

opened = MediaFile.__init__


def bad(self, path):
    if path.name == "crash.mp4":
        os.kill(os.getpid(), signal.SIGSEGV)
    if path.name == "hang.mp4":
        time.sleep(1e6)
    opened(self, path)


MediaFile.__init__ = bad
