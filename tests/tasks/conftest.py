"""A small clip table with truth, and features that hear it: what the tasks are tested on."""

from pathlib import Path

import numpy as np
import pytest

from sonant.clips import Clips
from sonant.features import Features
from sonant.types import Clip

VERBS = {"wash": 0.9, "cut": 0.7, "rub": 0.4, "hold": 0.1}
NOUNS = ("cup", "board", "cloth")


@pytest.fixture(scope="session")
def table() -> Clips:
    """10 test and 10 training videos of 12 clips; sounding by verb, the rest in cases II to IV."""
    rng = np.random.default_rng(0)
    rows = []
    for video in range(20):
        for place in range(12):
            verb, noun = list(VERBS)[rng.integers(4)], NOUNS[rng.integers(3)]
            sounding = bool(rng.random() < VERBS[verb])
            case = "I" if sounding else ("II", "III", "IV")[rng.integers(3)]
            row = Clip(
                id=f"v{video}:{place}",
                video=f"v{video}.mp4",
                start=place * 2.0,
                end=place * 2.0 + 1.5,
                text=f"{verb} {noun}",
                split="test" if video < 10 else "train",
                labels={"verb": verb, "noun": noun, "sounding": sounding, "case": case},
            )
            rows.append(row)
    return Clips.of(rows, root=Path("/videos"))


def embeddings(table: Clips, *, strength: float, seed: int) -> Features:
    rng = np.random.default_rng(seed)
    groups = {text: rng.normal(size=8) for text in sorted(set(table.column("text")))}
    shared = strength * np.array([groups[text] for text in table.column("text")])
    heard = table.column("sounding")[:, None]
    noise = rng.normal(size=(3, len(table), 8))
    return Features.of(
        table.column("id").tolist(),
        {
            "audio": shared * heard + noise[0],
            "video": shared + noise[1],
            "text": shared + noise[2] / 10,
        },
        run=f"strength {strength}",
        data=table.digest(),
    )


@pytest.fixture(scope="session")
def model(table: Clips) -> Features:
    """Embeddings of a clip's group; sound has it only when the action sounds."""
    return embeddings(table, strength=1, seed=1)


@pytest.fixture(scope="session")
def untrained(table: Clips) -> Features:
    """Noise."""
    return embeddings(table, strength=0, seed=2)


@pytest.fixture(scope="session")
def trivial(table: Clips) -> Features:
    """Two scores that know nothing."""
    levels = np.random.default_rng(3).normal(size=(2, len(table)))
    names = ("loudness mean", "motion energy")
    return Features.of(table.column("id").tolist(), scores=dict(zip(names, levels, strict=True)))


@pytest.fixture(scope="session")
def collapsed(table: Clips) -> Features:
    """A model to which all sounds are one, all pictures another, all narrations a third."""
    random = np.random.default_rng(5)
    points = {m: random.standard_normal(37).astype(np.float32) for m in ("audio", "video", "text")}
    rows = {m: np.tile(x / np.linalg.norm(x), (len(table), 1)) for m, x in points.items()}
    return Features.of(list(table.column("id")), rows)  # type: ignore[arg-type]
