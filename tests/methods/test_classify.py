import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sonant.checkpoint import make
from sonant.clips import Clips
from sonant.embed import embed
from sonant.errors import TableError, UsageError
from sonant.media.text import train_tokenizer
from sonant.methods.classify import classes, supervised_small
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
