"""Posterior consensus: its mixture, its targets and its term."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sonant.checkpoint import make
from sonant.embed import load
from sonant.errors import SonantError
from sonant.media.text import train_tokenizer
from sonant.methods.posterior import (
    UNKNOWN,
    Posterior,
    posterior,
    posterior_consensus_small,
)
from sonant.objectives import contrastive
from sonant.train import train
from sonant.types import Batch, Stage
from toy import TINY, Toy, noise_batch, toy_clips

N = 6
ALIGN, REFINE = Stage("align", 1), Stage("refine", 1)


def made(**arguments: object) -> Posterior:
    tokenizer = train_tokenizer(toy_clips(N).column("text"))
    method = make(posterior_consensus_small, tokenizer, TINY | arguments).method
    assert isinstance(method, Posterior)
    method.attach(toy_clips(N))
    return method


def by_hand(method: Posterior, clips: Batch, chances: list[float]) -> float:
    """Of the clips that have a target and both modalities, pair by pair."""
    e, total = method.embed(clips), 0.0
    for other in ("video", "text"):
        losses = []
        for i, chance in enumerate(chances):
            if chance != UNKNOWN and all(x[i] for x in clips.there.values()):
                agrees = (1 + float((e["audio"][i] @ e[other][i]).detach())) / 2
                losses.append(-chance * math.log(agrees) - (1 - chance) * math.log(1 - agrees))
        total += sum(losses) / len(losses)
    return total


def test_refining_learns_the_targets_beside_all_contrasts() -> None:
    method, clips = made(posterior_weight=3.0), noise_batch()
    chances = [0.9, 0.0, 1.0, UNKNOWN, 0.3, 0.5]
    method.sounding.copy_(torch.tensor(chances))
    e = method.embed(clips)
    assert method(clips, ALIGN).keys() == {"contrastive"}
    terms = method(clips, REFINE)
    torch.testing.assert_close(terms["contrastive"], contrastive(e, 0.07))
    assert float(terms["posterior"].detach()) == pytest.approx(
        3 * by_hand(method, clips, chances), rel=1e-5
    )


def test_clips_that_lack_something_take_part_as_far_as_they_can() -> None:
    heard = torch.tensor([1, 1, 0, 1, 1, 1]).bool()
    method, clips = made(posterior_weight=1.0), noise_batch({"audio": heard})
    seen = method.survey(clips)
    assert (seen["cosine"][:, 0] < -1).tolist() == (~heard).tolist()
    opening = method.begin(REFINE, lambda: {m: x.detach() for m, x in seen.items()})
    assert opening is not None
    assert (method.sounding == UNKNOWN).tolist() == (~heard).tolist()
    wanted = by_hand(method, clips, method.sounding.tolist())
    assert float(method(clips, REFINE)["posterior"].detach()) == pytest.approx(wanted, rel=1e-5)
    method.sounding.fill_(UNKNOWN)
    assert float(method(clips, REFINE)["posterior"].detach()) == 0


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 1000), st.floats(0.2, 0.8))
def test_the_mixture_finds_two_kinds(seed: int, share: float) -> None:
    """Bayes' rule on the distributions that the cosines were drawn from."""
    random = np.random.default_rng(seed)
    high = random.random(4000) < share
    cosines = np.where(high, random.normal(0.5, 0.1, 4000), random.normal(-0.1, 0.1, 4000))
    chances, means = posterior(cosines)
    assert means == pytest.approx([-0.1, 0.5], abs=0.03)
    odds = np.log(share / (1 - share)) + ((cosines + 0.1) ** 2 - (cosines - 0.5) ** 2) / 0.02
    assert np.abs(chances - 1 / (1 + np.exp(-odds))).mean() < 0.01


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 1000), st.sampled_from([(0.3, 0.08), (0.08, 0.3)]))
def test_chances_never_fall_where_cosines_rise(seed: int, deviations: tuple[float, float]) -> None:
    """Of two normal distributions the wider one is the likelier on both sides, far out."""
    random = np.random.default_rng(seed)
    drawn = [random.normal(m, s, 1000) for m, s in zip((0.1, 0.5), deviations, strict=True)]
    cosines = np.sort(np.concatenate([*drawn, [-1.0, 1.0]]).clip(-1, 1))
    chances, (low, high) = posterior(cosines)
    assert (np.diff(chances) >= -1e-12).all()
    assert chances[0] < 0.5 < chances[-1]
    assert len(np.unique(chances[cosines >= high])) == 1
    assert len(np.unique(chances[cosines <= low])) == 1


@pytest.mark.parametrize(
    ("cosines", "said"),
    [
        ([], "there is none"),
        ([0.1, np.nan, 0.5], "there is one that is not finite"),
        ([0.5] * 9, "of 9 clips, 1 of them different, are not of two kinds"),
        ([0.1, 0.5, 0.2], "of 3 clips, 3 of them different, are not of two kinds"),
        ([*[0.5] * 99, 0.50001], "of 100 clips, 2 of them different, are not of two kinds"),
    ],
)
def test_cosines_that_are_no_two_kinds_are_refused(cosines: list[float], said: str) -> None:
    with pytest.raises(SonantError, match=said):
        posterior(np.array(cosines))


@pytest.mark.slow
def test_a_run_keeps_its_targets_to_itself(tmp_path: Path) -> None:
    arguments = TINY | {"align_epochs": 4, "refine_epochs": 1}
    train(posterior_consensus_small, arguments, toy_clips(16), tmp_path, media=Toy(), workers=0)
    state = torch.load(tmp_path / "last.pt", weights_only=True)["model"]
    assert ((state["sounding"] >= 0) & (state["sounding"] <= 1)).all()
    assert "posterior" in (tmp_path / "log.jsonl").read_text()
    assert not hasattr(load(tmp_path).method, "sounding")
