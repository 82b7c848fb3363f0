"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import re
from codecs import getincrementaldecoder
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sonant.errors import SonantError, UsageError

_REASONS = {
    errno.ENOSPC: "no space left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EACCES: "no permission for the file or its folder",
    errno.EPERM: "no permission for the file or its folder",
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
    except (OSError, ValueError):  # the latter of a name that no file can have
        return None
    return [status.st_size, status.st_mtime_ns]


def damage(path: Path, error: Exception) -> str:
    """Why a file of tensors cannot be read, in words, as far as it shows in its first bytes.

    Args:
        path: the file.
        error: what the library raised that tried; it speaks of its own insides.
    """
    if asked := re.search(r"GLOBAL (\w[\w.]*)", str(error)):
        return f"it wants {asked[1]} to be called, and no code of a file is run here"
    try:
        with path.open("rb") as file:
            first = file.read(40)
    except OSError as failed:
        return why(failed)
    if not first:
        return "it is empty"
    if first.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "it is a web page, perhaps one that says why there was no file to fetch"
    if first.startswith(b"version https://git-lfs"):
        return "it is Git LFS's note of a file, and not that file"
    if text := _text(first):
        return f"it is a text that begins with {text!r}"
    return "it is damaged, cut off, or of another kind"


def _text(first: bytes) -> str:
    """The first bytes of a text in UTF-8, a letter cut in two left out; "" of anything else."""
    try:
        text = getincrementaldecoder("utf-8")().decode(first)
    except UnicodeDecodeError:
        return ""
    return text if text.translate(str.maketrans("\r\n\t", "   ")).isprintable() else ""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to, and move it there once the block has succeeded.

    Parent folders are made. A failure leaves the old file, if any, and no partial one.

    Raises:
        UsageError: something that is no file is there, such as a folder or a device.
        SonantError: the disk is full, or the path cannot be written.
    """
    with _beside(path) as partial:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)


def demand_writable(path: Path) -> None:
    """Refuse a path to which `replacing` could not write: before the work, not after it.

    Parent folders are made.

    Raises:
        UsageError: something that is no file is there, such as a folder or a device.
        SonantError: the path cannot be written.
    """
    with _beside(path) as partial:
        partial.touch()


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A path beside `path` for a while, and errors in words."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        if path.exists() and not path.is_file():
            raise UsageError(f"{path}: is a {'folder' if path.is_dir() else 'device'}, and no file")
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
    except OSError as error:
        raise SonantError(f"{path}: cannot be written: {why(error)}") from error
    finally:
        if partial.exists():
            partial.unlink()


def again(path: Path, before: list[int] | None) -> str:
    """What to add to the word of success where the file has this stamp of before the work still."""
    return ", as before" if before and stamp(path) == before else ""


def spare(path: Path, mark: str, kind: str) -> None:
    """Refuse to write over what is there, unless it is one of sonant's own Parquet files.

    Args:
        path: where one is to be written.
        mark: what the metadata of its kind have.
        kind: in words.

    Raises:
        UsageError: something else is there.
    """
    import pyarrow as pa
    from pyarrow.parquet import read_metadata

    if not path.exists():
        return
    try:
        there = read_metadata(path).metadata or {}
    except (pa.ArrowException, OSError):
        there = {}
    if mark.encode() not in there:
        raise UsageError(
            f"{path}: is there already, and is no {kind} that could be written anew; give another "
            "name, or delete it"
        )
