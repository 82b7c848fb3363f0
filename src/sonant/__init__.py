"""Sonant learns how actions sound, from narrated videos."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sonant.embed import Model

__version__ = version("sonant")


def load(run: Path | str, calibration: Path | str | None = None) -> Model:
    """Load the trained model of a run folder; see `sonant.embed.Model` for what it does.

    Args:
        run: the folder.
        calibration: what makes its scores probabilities, if not the run's own calibration.json.

    Raises:
        UsageError: the folder holds no finished run, or the calibration is not of its weights.
    """
    from sonant.embed import load as load_run

    return load_run(Path(run), None if calibration is None else Path(calibration))
