"""All that is learned and embedded lies on one device: on an accelerator that refuses to mix."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from accelerator import NAME, exchange, mix, on_device, train_toys
from sonant.features import Features
from toy import SECONDS

NETWORKS = {"planes": 4, "frames": 2, "size": 32, "jitter": 2, "batch": 8, "seconds": SECONDS}
FILMS = NETWORKS | {"frame_rate": 2 / SECONDS, "mel": 32, "mel_crop": 32, "joint": 8}
MOMENTS = NETWORKS | {"frame_rate": 20 / SECONDS, "mel": 20}
TRAININGS: list[tuple[str, dict[str, Any]]] = [
    ("mc3-small", {}),
    ("mc3-small", {"chunk": 4}),
    ("relational-small", {"groups": ["verb"], "align_share": 0.0}),
    ("imagebind-small", {}),
    ("cm-acc-small", {}),
    ("avcl", FILMS | {"layers": ["conv3", "pool"]}),
    ("avcl-small", {}),
    ("moco-small", {}),
    ("byol-small", {}),
    ("simsiam-small", {}),
    ("barlow-twins-small", {}),
    ("iic-small", {}),
    ("sdc-small", {}),
    ("cdc-small", {}),
    ("xdc", MOMENTS),
    ("avts-small", {}),
    ("supervised-small", {"label": "sounding"}),
    ("classify", FILMS | {"label": "verb", "fusion": True, "hidden": [8]}),
]


def learned_alike(name: str, given: dict[str, Any], folder: Path, ranks: int) -> None:
    here, away = folder / "here", folder / "away"
    for place, device in ((here, "cpu"), (away, NAME)):
        on_device(partial(train_toys, name, given, place, device), device, ranks=ranks)
    wanted = Features.read(here / "features.parquet")
    found = Features.read(away / "features.parquet")
    for modality in wanted.modalities:
        np.testing.assert_allclose(
            found.matrix(modality), wanted.matrix(modality), atol=1e-3, rtol=0
        )


@pytest.mark.slow
@pytest.mark.parametrize(("name", "given"), TRAININGS, ids=[name for name, _ in TRAININGS])
def test_an_accelerator_learns_what_a_processor_does(
    name: str, given: dict[str, Any], tmp_path: Path
) -> None:
    learned_alike(name, given, tmp_path, 1)


TOGETHER = [
    ("mc3-small", {}),
    ("mc3-small", {"chunk": 4}),
    ("relational-small", {"groups": ["verb"], "align_share": 0.0}),
    ("cm-acc-small", {}),
    ("iic-small", {}),
    ("xdc-small", {}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "given"), TOGETHER, ids=[name for name, _ in TOGETHER])
def test_two_accelerators_learn_what_two_processors_do(
    name: str, given: dict[str, Any], tmp_path: Path
) -> None:
    learned_alike(name, given, tmp_path, 2)


def test_what_is_of_two_devices_is_refused() -> None:
    on_device(mix, NAME)


def test_processes_exchange_what_lies_on_accelerators() -> None:
    on_device(exchange, NAME, ranks=2)
