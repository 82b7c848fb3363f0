"""Which epoch is best, by clips that are not learned from."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sonant.clips import Clips
from sonant.data import Array, Examples, Reader, Request, loader, to_device
from sonant.distributed import device, gather, rank, ranks
from sonant.errors import UsageError
from sonant.methods.method import Method
from sonant.sources.folds import recordings

PART = 64
"""Clips that a rank looks at together."""


@dataclass(frozen=True)
class Validation:
    """Clips that choose the epoch whose weights a stage ends with.

    Args:
        clips: none of them quarantined, none of them learned from.
        media: reads them by their row in `clips`, such as a pack of them.
    """

    clips: Clips
    media: Reader

    def check(self, method: Method, learned: Clips) -> None:
        """Refuse clips that cannot choose.

        Args:
            method: whose merit chooses.
            learned: the training clips.

        Raises:
            UsageError: there are no clips, or bad ones, or some are learned from; or the method has
                no measure.
        """
        if type(method).merit is Method.merit:
            raise UsageError(
                f"{type(method).__name__} has no measure of its own that could choose the best "
                "epoch; it is trained to the last one"
            )
        if not len(self.clips) or (self.clips.column("quarantine") != "").any():
            raise UsageError("the best epoch is chosen by clips, at least one, none quarantined")
        if both := sorted(set(self.clips.column("id")) & set(learned.column("id"))):
            raise UsageError(
                f"{len(both)} of the clips that are to choose the best epoch are learned from, the "
                f"first is {both[0]!r}"
            )
        if both := sorted(set(recordings(self.clips)) & set(recordings(learned))):
            raise UsageError(
                f"{len(both)} recordings are learned from and choose the best epoch too, the "
                f"first is {both[0]!r}; deal whole ones"
            )


class Chooser:
    """Keeps the weights of a stage's best epoch; of equal ones, the earlier's.

    Args:
        method: that is trained.
        examples: of the validation clips.
        workers: processes a rank that decode ahead.
    """

    def __init__(self, method: Method, examples: Examples, workers: int) -> None:
        self.method, self.examples, self.workers = method, examples, workers
        self.best: dict[str, Any] = {}
        """`epoch`, `merit` and `model`; empty before a stage's first epoch has ended."""

    def judge(self, epoch: int) -> dict[str, Any]:
        """Look at the method, which is in evaluation mode, after an epoch; on every rank alike.

        Returns:
            `validation`, the merit, and whether it is the `best` so far.
        """
        merit = self.merit()
        best = not self.best or merit > self.best["merit"]
        if best:
            state = self.method.state_dict().items()
            model = {name: x.detach().cpu().clone() for name, x in state}
            self.best = {"epoch": epoch, "merit": merit, "model": model}
        return {"validation": merit, "best": best}

    def merit(self) -> float:
        """How good the method is now."""
        return self.method.merit(self._scores(), self.examples.clips)

    def restore(self) -> str:
        """Give the method the weights of the best epoch, forget them, and say which it was."""
        best, self.best = self.best, {}
        self.method.load_state_dict(best["model"])
        return f"weights of epoch {best['epoch'] + 1}, the best: validation {best['merit']:.4f}"

    def _scores(self) -> dict[str, Array]:
        """The method's own scores of all clips. Ranks share them out; one may be seen twice."""
        n = len(self.examples)
        each = -(-n // ranks())
        mine = np.resize(np.arange(n), each * ranks())[rank() :: ranks()]
        asked = [Request(mine[first : first + PART]) for first in range(0, each, PART)]
        parts = []
        with torch.no_grad():
            for batch in loader(self.examples, asked, workers=self.workers):
                scores = self.method.scores(to_device(batch, device()))
                parts.append(torch.stack([x.double() for x in scores.values()], 1))
        if self.examples.kept is not None:
            self.examples.kept.save(rank())
        rows = gather(torch.from_numpy(mine).to(device())).cpu().numpy()
        seen = gather(torch.cat(parts)).cpu().numpy()
        found = np.empty((n, seen.shape[1]))
        found[rows] = seen
        return dict(zip(scores, found.T, strict=True))
