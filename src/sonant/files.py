"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sonant.errors import SonantError

_REASONS = {
    errno.ENOSPC: "no space left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EACCES: "the folder may not be written",
    errno.EPERM: "the folder may not be written",
    errno.EROFS: "the disk is read-only",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EEXIST: "a part of the path is a file, not a folder",
    errno.EISDIR: "it is a folder",
}


def why(error: OSError) -> str:
    """What an error of the file system means, in words."""
    return _REASONS.get(error.errno or 0, error.strerror or str(error))


def stamp(path: Path) -> list[int] | None:
    """Size in bytes and time of change in nanoseconds; None for what is not there.

    A file whose stamp is the same is taken as the same file.
    """
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to, and move it there once the block has succeeded.

    Parent folders are made. A failure leaves the old file, if any, and no partial one.

    Raises:
        SonantError: the disk is full, or the path cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise SonantError(f"{path}: cannot be written: {why(error)}") from error
    finally:
        if partial.exists():
            partial.unlink()
