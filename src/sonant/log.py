"""What a run says of itself while it trains: a line of JSON a step, a bar, a line an epoch."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from jaxtyping import Float
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from torch import Tensor

from sonant.errors import SonantError
from sonant.files import why
from sonant.types import Embeddings, Modality

Line = dict[str, Any]


class Log:
    """A file of JSON lines and a progress bar; on ranks other than the first, neither.

    Args:
        path: the file; None writes and shows nothing.
        keep: bytes at its start that stay; what follows was of steps that will be done again.
    """

    def __init__(self, path: Path | None, *, keep: int) -> None:
        self._path = path
        with self._told():
            self._file = None if path is None else path.open("ab")
            if self._file is not None:
                self._file.truncate(min(keep, self._file.tell()))
                self._file.seek(0, os.SEEK_END)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[said]}"),
            console=Console(stderr=True),
            disable=path is None,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> "Log":
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._bar.stop()
        try:
            with self._told():
                if self._file is not None:
                    self._file.close()
        except SonantError:
            if error is None:
                raise

    def begin(self, stage: str, *, done: int, steps: int) -> None:
        """Show a new stage."""
        self._task = self._bar.add_task(stage, total=steps, completed=done, said="")

    def step(self, line: Line) -> None:
        """Append a line, and move the bar."""
        if self._file is not None:
            with self._told():
                self._file.write(json.dumps(line).encode() + b"\n")
                self._file.flush()
        if self._task is not None:
            self._bar.update(self._task, advance=1, said=f"loss {line['loss']:.3f}")

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if self._file is not None:
            self._bar.console.print(text, highlight=False)

    def position(self) -> int:
        """Bytes written so far, all of them on disk once this returns."""
        if self._file is None:
            return 0
        with self._told():
            os.fsync(self._file.fileno())
            return self._file.tell()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What goes wrong with the file, in words."""
        try:
            yield
        except OSError as error:
            raise SonantError(f"{self._path}: cannot be written: {why(error)}") from error


def agreement(e: Embeddings, there: Mapping[Modality, Tensor] | None = None) -> Line:
    """How embeddings of a batch lie: what to watch for collapse.

    `cosine` holds for each pair of modalities the mean cosine of clips with themselves, `others`
    that of clips with other clips, and `rank` each modality's effective rank; each of the clips
    that have what it is about.

    Args:
        e: unit rows for each modality.
        there: for modalities that some clips lack, which clips have them, bool [clips].
    """
    everyone = torch.ones(len(next(iter(e.values()))), dtype=torch.bool)
    has = {m: (there or {}).get(m, everyone).cpu() for m in e}
    cosines = {}
    for i, j in combinations(e, 2):
        both = has[i] & has[j]
        cosines[f"{i}-{j}"] = e[i].cpu()[both] @ e[j].cpu()[both].T
    others = {pair: c[~torch.eye(len(c), dtype=torch.bool)] for pair, c in cosines.items()}
    return {
        "cosine": {pair: _round(c.diagonal().mean()) for pair, c in cosines.items() if len(c)},
        "others": {pair: _round(c.mean()) for pair, c in others.items() if len(c)},
        "rank": {m: _round(effective_rank(x.cpu()[has[m]])) for m, x in e.items() if has[m].any()},
    }


def effective_rank(x: Float[Tensor, "clips width"]) -> Float[Tensor, ""]:
    """Exponential of the entropy of the singular values' shares (Roy and Vetterli, 2007).

    From 1 (all rows on one line) to the lesser of clips and width.
    """
    share = torch.linalg.svdvals(x)
    share = share / share.sum().clamp(min=torch.finfo(x.dtype).tiny)
    rank: Tensor = torch.special.entr(share).sum().exp()
    return rank


def _round(x: Tensor) -> float:
    return round(float(x), 5)
