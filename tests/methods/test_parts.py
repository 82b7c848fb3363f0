"""Recipes of both sizes: what they take, what they begin with."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sonant.checkpoint import defaults, make
from sonant.encoders.ast import AST
from sonant.encoders.distilbert import DistilBERT
from sonant.encoders.timesformer import FrozenBlock, PlainBlock, TimeSformer
from sonant.encoders.weights import TIMESFORMER_OF_KINETICS, Report
from sonant.errors import UsageError
from sonant.media.text import train_tokenizer
from sonant.methods import parts
from sonant.methods.mc3 import mc3, mc3_small
from sonant.methods.parts import Paper, Small
from sonant.train import RECIPES
from sonant.types import Batch, Stage
from toy import TINY

TOKENIZER = train_tokenizer(["cut the onion", "wash a cup"])


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Towers of one narrow block, so that the paper's recipe is made in no time."""
    for name in ("TimeSformer", "AST", "DistilBERT"):
        whole = getattr(parts, name)

        def narrow(whole: Any = whole, **given: Any) -> Any:
            return whole(width=12, depth=1, heads=2, hidden=12, **given)

        monkeypatch.setattr(parts, name, narrow)


def test_a_small_twin_is_its_recipe_with_other_defaults() -> None:
    own, small = defaults(mc3), defaults(mc3_small)
    assert (own["consensus_weight"], small["consensus_weight"]) == (1.0, 120.0)
    assert own.keys() - small.keys() == vars(Paper()).keys() - vars(Small()).keys()
    assert mc3_small.__doc__.splitlines()[0] == "MC3 with small towers, for a processor."
    assert mc3_small.__doc__.splitlines()[1:] == inspect.getdoc(mc3).splitlines()[1:]
    recipe = make(mc3_small, TOKENIZER, TINY | {"consensus_weight": 7.0})
    assert recipe.method.weight == 7.0


def test_every_recipe_can_be_found_again_by_its_record() -> None:
    for name, recipe in RECIPES.items():
        module, function = recipe.__module__, recipe.__qualname__
        assert getattr(__import__(module, fromlist=[function]), function) is recipe, name
        assert function.replace("_", "-").startswith(name.removesuffix("-small"))


@pytest.mark.usefixtures("short")
def test_the_papers_recipe_trains_on_what_it_says() -> None:
    arguments = {"batch": 2, "size": 32, "jitter": 0, "frames": 2, "tokens": 5, "width": 8}
    recipe = make(mc3, TOKENIZER, arguments)
    v = recipe.views
    inputs = {
        "audio": torch.randn(2, v.mel_frames, 128),
        "video": torch.zeros(2, 2, 3, 32, 32, dtype=torch.uint8),
        "text": torch.ones(2, 5, dtype=torch.int64),
    }
    terms = recipe.method(Batch(torch.arange(2), inputs), Stage("refine", 1))
    assert all(term.isfinite() for term in terms.values())
    assert recipe.precision == "bf16"
    again = make(mc3, TOKENIZER, arguments).method.state_dict()
    assert all(again[name].equal(x) for name, x in recipe.method.state_dict().items())


@pytest.mark.usefixtures("short")
def test_the_papers_parts_reach_the_encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    for kind in (TimeSformer, AST, DistilBERT):
        monkeypatch.setattr(kind, "compile", lambda self: compiled.append(type(self).__name__))
    known = {"size": 32, "frames": 3, "width": 8}
    plain = {"attention": "plain", "checkpointing": True, "compile": True, "colours": "kinetics"}
    towers = make(mc3, TOKENIZER, known | plain).method.towers
    assert sorted(compiled) == ["AST", "DistilBERT", "TimeSformer"]
    assert all(tower.encoder.checkpointing for tower in towers.values())
    video = towers["video"].encoder
    assert isinstance(video.blocks[0], PlainBlock)
    assert (video.frames, video.size) == (3, 32)
    assert video.mean.flatten().tolist() == pytest.approx([0.45] * 3)
    other = make(mc3, TOKENIZER, known).method.towers["video"].encoder
    assert isinstance(other.blocks[0], FrozenBlock)
    assert other.std.flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])
    assert not other.checkpointing


@pytest.mark.usefixtures("short")
def test_kinetics_colours_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    report = Report(source="k400", layout=TIMESFORMER_OF_KINETICS, taken=())
    asked: list[str] = []

    def load(encoder: Any, source: str, *, times: str) -> Report:
        asked.append(times)
        return report

    monkeypatch.setattr(parts, "load_timesformer", load)
    arguments = {"size": 32, "frames": 2, "width": 8, "video": "k400", "attention": "plain"}
    with pytest.raises(UsageError, match="k400: was trained on frames with Kinetics' colours"):
        make(mc3, TOKENIZER, arguments).initialise()
    assert "k400" in make(mc3, TOKENIZER, arguments | {"colours": "kinetics"}).initialise()
    assert asked == ["nearest", "nearest"]


@pytest.mark.usefixtures("short")
def test_egovlps_heads_come_with_its_towers(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: dict[str, Any] = {}

    def load(source: str, **given: Any) -> dict[str, Report]:
        taken.update(given)
        return {"video": Report(source=source, layout="EgoVLP's", taken=())}

    monkeypatch.setattr(parts, "load_egovlp", load)
    arguments = {"size": 32, "frames": 2, "video": "e.pth", "text": "e.pth"}
    recipe = make(mc3, TOKENIZER, arguments | {"vocabulary": "words"})
    assert "e.pth" in recipe.initialise()
    towers = recipe.method.towers
    assert taken["video"] is towers["video"].encoder
    assert taken["text_head"] is towers["text"].head
    assert taken["video_head"].out_features == 256


@pytest.mark.usefixtures("short")
def test_weights_are_taken_at_the_start_and_never_again(tmp_path: Path) -> None:
    arguments = {"size": 32, "frames": 2, "width": 8}
    other = make(mc3, TOKENIZER, arguments | {"seed": 5}).method.towers["audio"].encoder
    taken: list[str] = []

    def load(encoder: Any, source: str) -> Any:
        taken.append(source)
        encoder.load_state_dict(other.state_dict())
        return f"{source}: all taken"

    before, parts.load_ast = parts.load_ast, load
    try:
        recipe = make(mc3, TOKENIZER, arguments | {"audio": "ast.bin"})
        assert taken == []
        assert recipe.initialise() == "ast.bin: all taken"
    finally:
        parts.load_ast = before
    mine = recipe.method.towers["audio"].encoder.state_dict()
    assert all(x.equal(mine[name]) for name, x in other.state_dict().items())


def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(1)}, path)
    recipe = Paper(audio=str(path)).recipe
    with pytest.raises(UsageError, match=r"other.safetensors"):
        method = make(mc3_small, TOKENIZER, TINY).method
        method.towers["audio"].encoder = parts.AST(width=12, depth=1, heads=2, hidden=12)
        recipe(TOKENIZER, method, (1.0, 1.0)).initialise()


def test_text_weights_want_their_vocabulary() -> None:
    with pytest.raises(UsageError, match="distilbert-base-uncased know the word pieces"):
        Paper(text="distilbert-base-uncased")
    with pytest.raises(UsageError, match="512 tokens at most, not 600"):
        Paper(tokens=600)
