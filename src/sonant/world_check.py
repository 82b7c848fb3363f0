"""Does a fresh draw of the narrated world meet what is demanded of it? `sonant world --check`.

A world in which sound alone, sight alone or a single number tells which actions sound would let
every method look good. So the demands of docs/world.md are measured on files: small supervised
heads say how much each modality gives away, the other rows what the laws came to.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sonant.checkpoint import RecipeFunction
from sonant.clips import Clips
from sonant.embed import embed
from sonant.errors import SonantError
from sonant.features import Features
from sonant.files import replacing
from sonant.media.pack import Pack, pack
from sonant.methods.classify import supervised_small
from sonant.methods.mc3 import mc3_small
from sonant.metrics.ranking import roc_auc
from sonant.sources.folder import folder
from sonant.sources.world import laws, world
from sonant.tasks.trivial import trivial
from sonant.train import train

Array = np.ndarray[Any, Any]

FRACTIONS = {"train": 0.75, "test": 0.25}
EPOCHS = 6
"""Of every head, and of the alignment that the verb probe looks at."""
TABLE_1 = {
    "wash": 0.90,
    "close": 0.82,
    "cut": 0.77,
    "drop": 0.64,
    "stir": 0.64,
    "wipe": 0.53,
    "rub": 0.39,
    "touch": 0.27,
    "lift": 0.19,
    "hold": 0.09,
}
"""How often the actions of a verb sound in Ego4D (MC3, Table 1)."""


@dataclass(frozen=True)
class Demand:
    """A quantity, the bounds it must keep, and what it came to on so many clips."""

    quantity: str
    low: float | None
    high: float | None
    reached: float
    clips: int

    @property
    def met(self) -> bool:
        """Whether it lies within its bounds."""
        above = self.low is None or self.reached >= self.low
        return above and (self.high is None or self.reached <= self.high)

    @property
    def demand(self) -> str:
        """The bounds in words."""
        if self.high is None:
            return f"at least {self.low:g}"
        if self.low is None:
            return f"at most {self.high:g}"
        return f"{self.low:g} to {self.high:g}"


def check(out: Path, *, videos: int = 440, seed: int = 0, workers: int = 2) -> list[Demand]:
    """Draw a world, pack it, train the heads, and compare with every demand.

    Everything is kept in `out`, and what is there is not done again. The table is printed, and
    written to check.json and check.md.

    Args:
        out: folder for the world, its pack, the runs and the table.
        videos: of the draw; a quarter of them, which are for testing, should give 4,000 clips.
        seed: of the world and the training.
        workers: processes.

    Returns:
        The rows of the table.

    Raises:
        SonantError: some demand is not met.
    """
    clips = _packed(out, videos, seed, workers)
    demands = [
        *_trivial(clips, out, workers),
        *_supervised(clips, out, seed, workers),
        *_counted(clips),
    ]
    _show(demands, out)
    if missed := [demand.quantity for demand in demands if not demand.met]:
        raise SonantError(f"{laws.NAME} misses {len(missed)} of its demands: {', '.join(missed)}")
    return demands


def _packed(out: Path, videos: int, seed: int, workers: int) -> Clips:
    """The good clips of a fresh draw, with train and test marked by video."""
    root = out / "world"
    world(root, videos=videos, seed=seed, workers=workers)
    clips = folder(
        root,
        narrations=root / "narrations.csv",
        labels=root / "truth.csv",
        fractions=FRACTIONS,
        seed=seed,
        workers=workers,
    )
    packed = pack(clips, out / "pack", workers=workers)
    return packed.where(packed=True, quarantined=False)


def _trivial(clips: Clips, out: Path, workers: int) -> Iterator[Demand]:
    """Single numbers must not give the label away; over all clips, since nothing is trained."""
    bounds: dict[str, tuple[float | None, float]] = {
        "loudness mean": (0.45, 0.56),
        "loudness max": (0.45, 0.56),
        "log-mel deviation": (None, 0.62),
        "spectral flux max": (None, 0.62),
        "motion energy": (None, 0.65),
    }
    found = trivial(clips, out / "pack", out / "trivial.parquet", workers=workers)
    truth = clips.column("sounding")
    for name, (low, high) in bounds.items():
        yield Demand(f"{name}, ROC", low, high, roc_auc(truth, found.scores[name]), len(clips))


def _supervised(clips: Clips, out: Path, seed: int, workers: int) -> Iterator[Demand]:
    """What heads that are told the truth reach on the test clips, and the probe of verbs."""
    made, test = _Runs(clips, out, seed, workers), clips.where(split="test")
    truth, n = test.column("sounding"), len(test)
    audio, video, both, helped = (
        roc_auc(truth, made.head(name, modalities, auxiliary).scores["sounding"])
        for name, modalities, auxiliary in (
            ("audio", ["audio"], []),
            ("video", ["video"], []),
            ("both", ["audio", "video"], []),
            ("both-verbs", ["audio", "video"], ["verb"]),
        )
    )
    single = max(audio, video)
    yield Demand("supervised audio only, ROC", None, 0.70, audio, n)
    yield Demand("supervised video only, ROC", None, 0.72, video, n)
    yield Demand("supervised audio and video, gain", 0.05, None, both - single, n)
    yield Demand("the same with verb labels too, gain", 0.08, None, helped - single, n)
    yield Demand("the same with verb labels too, ROC", 0.85, None, helped, n)
    yield Demand("verb prior, ROC", None, 0.77, _verb_prior(clips), n)
    yield Demand("linear verb probe of aligned video", 0.60, None, made.verb_probe(), n)


@dataclass(frozen=True)
class _Runs:
    """Trainings on the train split, each in its folder of `out`."""

    clips: Clips
    out: Path
    seed: int
    workers: int

    def head(self, name: str, modalities: list[str], auxiliary: list[str]) -> Features:
        """A supervised head's features of the test clips."""
        arguments = {"modalities": modalities, "auxiliary": auxiliary, "epochs": EPOCHS}
        self._train(supervised_small, arguments, name)
        return self._embed(name, "test")

    def verb_probe(self) -> float:
        """Accuracy of a linear classifier of what is done, on video aligned without labels."""
        self._train(mc3_small, {"align_epochs": EPOCHS, "refine_epochs": 0}, "align")
        x, y = {}, {}
        for split in FRACTIONS:
            x[split] = self._embed("align", split).matrix("video")
            y[split] = self.clips.where(split=split).column("done_verb").astype(str)
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
        probe.fit(x["train"], y["train"])
        return float(probe.score(x["test"], y["test"]))

    def _train(self, recipe: RecipeFunction, arguments: Mapping[str, Any], name: str) -> None:
        clips = self.clips.where(split="train")
        train(
            recipe,
            {**arguments, "seed": self.seed},
            clips,
            self.out / "runs" / name,
            media=Pack(clips, self.out / "pack"),
            workers=self.workers,
            cache=self.out / "cache",
        )

    def _embed(self, name: str, split: str) -> Features:
        clips, run = self.clips.where(split=split), self.out / "runs" / name
        media = Pack(clips, self.out / "pack")
        return embed(
            run, clips, run / f"{split}.parquet", media=media, workers=self.workers
        ).of_clips(clips.column("id"))


def _verb_prior(clips: Clips) -> float:
    """ROC on test clips of how often the narrated verb sounds in training clips."""
    known, asked = clips.where(split="train"), clips.where(split="test")
    rates = {verb: _rate(known, verb) for verb in set(known.column("verb"))}
    guess = [rates.get(verb, 0.5) for verb in asked.column("verb")]
    return roc_auc(asked.column("sounding"), np.array(guess))


def _counted(clips: Clips) -> Iterator[Demand]:
    """What the laws came to, over all clips that each is about."""
    sounding, verbs = clips.column("sounding").astype(bool), clips.column("verb")
    yield _share("positives", 0.52, 0.58, sounding)
    for verb, rate in TABLE_1.items():
        yield _share(f"{verb} sounds", rate - 0.06, rate + 0.06, sounding[verbs == verb])
    same = clips.column("elsewhere") == clips.column("done_verb")
    yield _share("same verb off screen, of negatives", 0.005, 0.03, same[~sounding])
    on_screen = clips.column("visible").astype(bool) & clips.column("emitted").astype(bool)
    masked = clips.column("masked").astype(bool)
    yield _share("masked, of on-screen actions that sound", 0.10, None, masked[on_screen])


def _share(quantity: str, low: float, high: float | None, values: Array) -> Demand:
    return Demand(quantity, low, high, _mean(values), len(values))


def _rate(clips: Clips, verb: str) -> float:
    return _mean(clips.column("sounding")[clips.column("verb") == verb])


def _mean(values: Array) -> float:
    return float(np.mean(values.astype(float))) if len(values) else math.nan


def _show(demands: list[Demand], out: Path) -> None:
    """Print the table, and write it as JSON and Markdown."""
    table = Table("quantity", "demand", "reached", "clips", "met", title=f"{laws.NAME} in {out}")
    lines = ["| quantity | demand | reached | clips | met |", "|---|---|---|---|---|"]
    for one in demands:
        cells = (
            one.quantity,
            one.demand,
            f"{one.reached:.3f}",
            f"{one.clips:,}",
            "yes" if one.met else "NO",
        )
        table.add_row(*cells)
        lines.append(f"| {' | '.join(cells)} |")
    Console().print(table)
    rows = [{**asdict(one), "met": one.met} for one in demands]
    record = json.dumps({"world": laws.NAME, "demands": rows}, indent=2)
    for name, text in (("check.json", record), ("check.md", "\n".join(lines))):
        with replacing(out / name) as partial:
            partial.write_text(text + "\n", encoding="utf-8")
