"""The lists that data sets come with: CSV tables and lines of words, with errors that say where."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sonant.errors import TableError, UsageError


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a data set's list."""

    where: str
    """The file and the line, for errors."""
    cells: Mapping[str, str]

    def text(self, name: str) -> str:
        """A cell that is not empty.

        Raises:
            TableError: it is empty.
        """
        if not (text := self.cells[name].strip()):
            raise TableError(f"{self.where}: {name} is empty")
        return text

    def number(self, name: str) -> float:
        """Seconds, 0 or more.

        Raises:
            TableError: the cell is no such number.
        """
        try:
            value = float(self.text(name))
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= 0):
            raise TableError(f"{self.where}: {name} is {self.cells[name]!r}; wanted are seconds")
        return value

    def whole(self, name: str, least: int, most: int) -> int:
        """A whole number within bounds.

        Raises:
            TableError: the cell is no such number.
        """
        text = self.text(name)
        if not text.isdecimal() or not least <= int(text) <= most:
            raise TableError(
                f"{self.where}: {name} is {text!r}; wanted is a whole number from {least} to {most}"
            )
        return int(text)

    def one_of(self, name: str, known: Collection[str]) -> str:
        """A name that is known.

        Raises:
            TableError: the cell has none of them.
        """
        text = self.text(name)
        if text not in known:
            shown = ", ".join(list(known)[:12]) + (" ..." if len(known) > 12 else "")
            raise TableError(
                f"{self.where}: {name} {text!r} is none of the {len(known)} there are: {shown}"
            )
        return text

    def segment(self, start: str, end: str) -> tuple[float, float]:
        """Two cells in seconds, the second after the first.

        Raises:
            TableError: they are not.
        """
        begin, stop = self.number(start), self.number(end)
        if not stop > begin:
            raise TableError(f"{self.where}: {end} is {stop:g} s, not after {start} {begin:g} s")
        return begin, stop


def table(path: Path, columns: Collection[str] = (), *, names: Sequence[str] = ()) -> Iterator[Row]:
    """The rows of a CSV file.

    Args:
        path: the file.
        columns: those that must be there.
        names: of the columns, where the file has none in its first line; lines that begin with `#`
            are comments then.

    Raises:
        TableError: the file is missing or unreadable, lacks or repeats columns, has no rows, or one
            of another length than its columns.
    """
    lines = _lines(path)
    if names:
        lines = [(number, "" if line.startswith("#") else line) for number, line in lines]
    reader = csv.reader((line for _, line in lines), strict=True, skipinitialspace=bool(names))
    heads = list(names)
    empty = True
    try:
        for cells in reader:
            where = f"{path}, line {reader.line_num}"
            if not heads:
                heads = _heads(cells, columns, path)
            elif cells:
                empty = False
                if len(cells) != len(heads):
                    raise TableError(
                        f"{where}: has {len(cells)} cells; wanted are {len(heads)}: "
                        f"{', '.join(heads)}"
                    )
                yield Row(where, dict(zip(heads, cells, strict=True)))
    except csv.Error as error:
        raise TableError(f"{path}, line {reader.line_num}: not readable as CSV: {error}") from error
    if empty:
        raise TableError(f"{path}: has no rows")


def words(path: Path, names: Sequence[str], *, first: bool = False) -> Iterator[Row]:
    """The lines of a text file with so many words each; empty lines do not count.

    Args:
        path: the file.
        names: what the words are.
        first: spaces after the first word are part of the second; else those before the last word
            are part of the word before it.

    Raises:
        TableError: the file is missing, unreadable or empty, or a line has too few words.
    """
    empty = True
    for number, line in _lines(path):
        text, where = line.strip(), f"{path}, line {number}"
        if not text:
            continue
        empty = False
        split = text.split if first else text.rsplit
        cells = split(maxsplit=len(names) - 1)
        if len(cells) != len(names):
            raise TableError(f"{where}: is {text!r}; wanted are {' and '.join(names)}")
        yield Row(where, dict(zip(names, cells, strict=True)))
    if empty:
        raise TableError(f"{path}: is empty")


def _lines(path: Path) -> list[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise TableError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise TableError(f"{path}: not a readable text file: {error}") from error
    return list(enumerate(io.StringIO(text), 1))


def _heads(cells: Sequence[str], columns: Collection[str], path: Path) -> list[str]:
    if repeated := [name for name in cells if cells.count(name) > 1]:
        raise TableError(f"{path}: has the column {repeated[0]!r} more than once")
    if not set(columns) <= set(cells):
        raise TableError(
            f"{path}: has the columns {', '.join(cells)}; wanted are {', '.join(columns)}"
        )
    return list(cells)


def first_there(root: Path, *places: str) -> Path:
    """The first of some files inside a data set's folder that is there.

    Raises:
        UsageError: the folder does not exist, or none of them.
    """
    folder(root)
    for place in places:
        if (root / place).is_file():
            return root / place
    raise UsageError(f"{root}: has no {' and no '.join(places)}")


def folder(root: Path) -> Path:
    """A folder that is there.

    Raises:
        UsageError: it is not.
    """
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder")
    return root


def chosen(most: int, **value: int | None) -> int | None:
    """A number of an official split or fold, from 1; None where none is chosen.

    Raises:
        UsageError: there is no such one.
    """
    ((name, number),) = value.items()
    if number is not None and not 1 <= number <= most:
        raise UsageError(f"{name} must be 1 to {most}, not {number}")
    return number
