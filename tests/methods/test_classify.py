import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sonant.checkpoint import make
from sonant.clips import Clips
from sonant.embed import embed
from sonant.encoders.conv3d import CAFFE2_EPS, FromFrames, r2plus1d_18
from sonant.errors import TableError, UsageError
from sonant.media.text import train_tokenizer
from sonant.methods.avcl import Fusion
from sonant.methods.classify import (
    Classifier,
    classes,
    classify,
    classify_small,
    classify_xdc,
    supervised_small,
)
from sonant.methods.method import Method
from sonant.train import train
from sonant.types import Batch, Stage
from toy import TINY, Toy, toy_clips


def method(clips: Clips, **arguments: object) -> Method:
    made = make(supervised_small, train_tokenizer(clips.column("text")), TINY | arguments).method
    made.attach(clips)
    return made


def batch(rows: list[int]) -> Batch:
    torch.manual_seed(0)
    n = len(rows)
    inputs = {
        "video": torch.randint(0, 256, (n, 2, 3, 32, 32), dtype=torch.uint8),
        "audio": torch.randn(n, 28, 128),
    }
    return Batch(torch.tensor(rows), inputs)


def with_labels(values: list[bool | None]) -> Clips:
    clips = toy_clips(len(values))
    place = clips.table.column_names.index("label.sounding")
    return Clips(clips.table.set_column(place, "label.sounding", [values]), clips.root)


def test_terms_are_cross_entropies_of_the_clips_labels() -> None:
    clips = toy_clips(9)
    made = method(clips, auxiliary=["verb"], auxiliary_weight=0.5)
    asked = batch([7, 2, 4])
    terms, logits = made(asked, Stage("classify", 1)), made.logits(asked)
    truth = torch.tensor([0.0, 1.0, 1.0])
    wanted = F.binary_cross_entropy_with_logits(logits["sounding"][:, 0], truth)
    torch.testing.assert_close(terms["sounding"], wanted)
    verbs = torch.tensor([2, 1, 2])
    torch.testing.assert_close(terms["verb"], 0.5 * F.cross_entropy(logits["verb"][:, :3], verbs))
    torch.testing.assert_close(made.scores(asked)["sounding"], logits["sounding"][:, 0])


def test_clips_without_a_label_do_not_count() -> None:
    made = method(with_labels([None, True, None, False]))
    terms, logits = made(batch([0, 1, 2]), Stage("classify", 1)), made.logits(batch([0, 1, 2]))
    wanted = F.binary_cross_entropy_with_logits(logits["sounding"][1, 0], torch.tensor(1.0))
    torch.testing.assert_close(terms["sounding"], wanted)
    assert float(made(batch([0, 2]), Stage("classify", 1))["sounding"].detach()) == 0


def test_labels_are_checked() -> None:
    with pytest.raises(TableError, match="no column or label 'loud'"):
        method(toy_clips(3), label="loud")
    numbered = toy_clips(3).join(
        toy_clips(3).table.select(["id"]).append_column("hits", [[0, 1, 2]])
    )
    with pytest.raises(UsageError, match=r"'hits' has values such as 2; .* true, false, 0, 1 or"):
        method(numbered, label="hits")
    with pytest.raises(UsageError, match="'verb' has values such as cut, rub, wash; the label to"):
        method(toy_clips(3), label="verb")
    with pytest.raises(UsageError, match="named once each, not sounding, verb, sounding"):
        method(toy_clips(3), auxiliary=["verb", "sounding"])
    crowd = toy_clips(300)
    names = crowd.table.select(["id"]).append_column("own", [crowd.column("id")])
    with pytest.raises(UsageError, match="'own' has 300 classes; wanted are 1 to 256"):
        method(crowd.join(names), auxiliary=["own"])
    assert classes(toy_clips(5), "verb") == ["cut", "rub", "wash"]


def test_it_learns_what_can_be_heard(tmp_path: Path) -> None:
    arguments = TINY | {"modalities": ["audio"], "epochs": 6, "batch": 16, "seed": 1}
    train(supervised_small, arguments, toy_clips(48), tmp_path / "run", media=Toy(), workers=0)
    found = embed(tmp_path / "run", toy_clips(60), tmp_path / "f", media=Toy(), workers=0)
    sounding = np.array(toy_clips(60).column("sounding"), bool)
    assert ((found.scores["sounding"] > 0) == sounding)[48:].mean() > 0.9
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["loss"] < json.loads(lines[0])["loss"]


def classifier(**more: object) -> Classifier:
    torch.manual_seed(0)
    towers = {m: torch.nn.Linear(6, 4) for m in ("audio", "video")}
    settings = {"width": 4, "label": "verb", "classes": ("cut", "rub", "wash")} | more
    return Classifier(towers, (Stage("classify", 1),), **settings)  # type: ignore[arg-type]


def rows(*index: int) -> Batch:
    torch.manual_seed(1)
    inputs = {m: torch.randn(len(index), 6) for m in ("audio", "video")}
    return Batch(torch.tensor(index), inputs)


def test_a_classifier_is_layers_over_its_towers_side_by_side() -> None:
    made = classifier(hidden=(5,), dropout=0.7, input_dropout=0.2)
    made.attach(toy_clips(9))
    names = [type(layer).__name__ for layer in made.head]
    assert names == ["Dropout", "Linear", "ReLU", "Dropout", "Linear"]
    assert [made.head[0].p, made.head[3].p] == [0.2, 0.7]
    batch, first, last = rows(7, 2, 4), made.head[1], made.head[4]
    made.eval()
    seen = torch.cat([made.towers[m](batch.inputs[m]) for m in ("audio", "video")], 1)
    hidden = (seen @ first.weight.T + first.bias).clamp(min=0)
    wanted = hidden @ last.weight.T + last.bias
    torch.testing.assert_close(made.logits(batch), wanted)
    truth = torch.tensor([2, 1, 2])  # toy clips 7 and 4 wash, 2 rubs
    (term,) = made(batch, Stage("classify", 1)).values()
    torch.testing.assert_close(term, F.cross_entropy(wanted, truth))
    torch.testing.assert_close(made.scores(batch)["verb=rub"], wanted[:, 1])
    made.train()
    assert not made.logits(batch).equal(wanted)


def test_clips_of_no_known_class_do_not_count() -> None:
    made = classifier(classes=("cut", "rub"))
    made.attach(toy_clips(6))
    batch = rows(0, 1, 2)
    (term,) = made(batch, Stage("classify", 1)).values()
    known = made.logits(batch)[[0, 2]]
    torch.testing.assert_close(term, F.cross_entropy(known, torch.tensor([0, 1])))
    with pytest.raises(UsageError, match="no clip to learn from has a 'verb' among the classes"):
        classifier(classes=("a", "b")).attach(toy_clips(6))


def test_a_classifier_behind_avcls_gate_reads_what_is_gated() -> None:
    made = classifier(fusion=Fusion(4, 3))
    batch = rows(0, 1)
    a, v = (made.towers[m](batch.inputs[m]) for m in ("audio", "video"))
    v, a = made.fusion(v, a)
    torch.testing.assert_close(made.logits(batch), made.head(torch.cat([a, v], 1)))
    assert made.inherited == ("fusion",)
    with pytest.raises(UsageError, match="AVCL's gate is of audio and video"):
        Classifier({"audio": torch.nn.Linear(6, 4)}, (), width=4, label="x", classes="ab",
                   fusion=Fusion(4, 3))  # fmt: skip


def test_avcls_classifier_has_the_papers_numbers() -> None:
    arguments = {"classes": ["a", "b"], "planes": 2, "milestones": [6, 10], "epochs": 12}
    recipe = make(classify, train_tokenizer([]), arguments | {"warmup": 2 / 12, "gamma": 0.05})
    assert (recipe.momentum, recipe.weight_decay, recipe.batch) == (0.9, 5e-3, 16)
    assert (recipe.learning_rates, recipe.milestones) == ((1e-3,), (0.5, 10 / 12))
    assert [x.p for x in recipe.method.head if isinstance(x, torch.nn.Dropout)] == [0.0, 0.7]


def test_xdcs_classifier_falls_by_steps_and_trains_its_head_faster() -> None:
    recipe = make(classify_xdc, train_tokenizer([]), {"classes": ["a", "b"], "planes": 4})
    assert (recipe.batch, recipe.weight_decay, recipe.momentum) == (32, 5e-3, 0.9)
    assert (recipe.learning_rates, recipe.head_rate) == ((2.5e-4,), 10.0)
    assert (recipe.milestones, recipe.gamma) == ((0.5, 10 / 12), 0.05)
    assert recipe.method.modalities == ("video",)


def test_xdcs_networks_begin_with_published_weights(tmp_path: Path) -> None:
    torch.manual_seed(5)
    published = r2plus1d_18("per_conv", planes=4, eps=CAFFE2_EPS)
    torch.save(published.state_dict(), tmp_path / "w.pth")
    arguments = {"classes": ["a", "b"], "planes": 4, "video": f"xdc-audioset={tmp_path / 'w.pth'}"}
    recipe = make(classify_xdc, train_tokenizer([]), arguments)
    before = recipe.method.head[1].weight.clone()
    assert recipe.initialise
    assert "w.pth (SHA-256" in (said := recipe.initialise())
    assert "not in it" not in said and "aside" not in said
    film = torch.randint(256, (2, 8, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(
        recipe.method.eval().towers["video"](film), FromFrames(published).eval()(film)
    )
    assert torch.equal(recipe.method.head[1].weight, before)
    assert make(classify_xdc, train_tokenizer([]), arguments | {"video": ""}).initialise is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"video": "xdc-audio"}, "no released weights 'xdc-audio'; there are xdc-ig65m-kinetics"),
        ({"video": "xdc-audioset="}, "names no file after the ="),
        ({"video": "xdc-audioset=none.pth"}, "none.pth: no such file"),
        ({"planes": 8}, "not the weights of this network"),
        ({"modalities": ["audio"]}, "see, and this method does not"),
    ],
)
def test_published_weights_that_do_not_fit_are_refused(
    given: dict[str, object], said: str, tmp_path: Path
) -> None:
    torch.save(r2plus1d_18("per_conv", planes=4).state_dict(), tmp_path / "w.pth")
    arguments = {"classes": ["a", "b"], "planes": 4, "video": f"xdc-audioset={tmp_path / 'w.pth'}"}
    recipe = make(classify_xdc, train_tokenizer([]), arguments | given)
    assert recipe.initialise
    with pytest.raises(UsageError, match=said):
        recipe.initialise()


def test_impossible_classifiers_are_refused() -> None:
    tokenizer = train_tokenizer([])
    for arguments, said in (
        ({"classes": ["a"]}, "classes of 'class' are two or more different ones, not 'a'"),
        ({"classes": ["a", "b", "a"]}, "classes of 'class' are two or more different ones"),
        ({"dropout": 1.0}, "dropout must be 0 or more and below 1, not 1"),
        ({"hidden": [0]}, "widths of layers must be at least 1, not 0"),
        ({"head_rate": 0.0}, "head_rate must be above 0"),
        ({"modalities": []}, "wants at least one modality"),
    ):
        with pytest.raises(UsageError, match=said):
            make(classify_small, tokenizer, {"classes": ["a", "b"]} | arguments)
