"""Shape checks for every test, and the folder of real data."""

import os
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

# Some tests fork, and the threads of OpenMP do not survive that.
torch.set_num_threads(1)

# Under this hook, every annotated shape in these modules is a check.
SHAPED = ["encoders", "methods", "metrics", "objectives", "distributed", "data", "log"]
install_import_hook([f"sonant.{module}" for module in SHAPED], "beartype.beartype").__enter__()


@pytest.fixture(scope="session")
def sonant_data() -> Path:
    """The real data; see its README. Continuous integration fails if this skips."""
    folder = os.environ.get("SONANT_DATA")
    if not folder:
        pytest.skip("needs real data: set SONANT_DATA to its folder")
    path = Path(folder)
    if not (path / "odd_videos").is_dir():
        pytest.fail(f"SONANT_DATA={folder} has no folder odd_videos")
    return path
