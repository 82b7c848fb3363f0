"""Sonant learns how actions sound, from narrated videos."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sonant.embed import Model

__version__ = version("sonant")


def load(run: Path | str) -> Model:
    """Load the trained model of a run folder; see `sonant.embed.Model` for what it does.

    Raises:
        UsageError: the folder holds no finished run.
    """
    from sonant.embed import load as load_run

    return load_run(Path(run))
