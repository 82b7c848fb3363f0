import json
from pathlib import Path

import pytest
import torch
from torch import nn

from sonant.checkpoint import RECORD, Checkpoint, load_weights, recorded, save_weights
from sonant.errors import SonantError, UsageError
from toy import largest_file


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    model = nn.Linear(2, 3)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    there = Checkpoint(1, 7, model.state_dict(), optimizer.state_dict(), 99)
    there.write(tmp_path / "last.pt")
    back = Checkpoint.read(tmp_path / "last.pt")
    assert (back.stage, back.step, back.log) == (1, 7, 99)
    assert all(back.model[name].equal(x) for name, x in there.model.items())
    moments = back.optimizer["state"][0]["exp_avg"]
    assert moments.equal(there.optimizer["state"][0]["exp_avg"])


def test_damaged_and_foreign_checkpoints_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    path.write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(SonantError, match="not a readable checkpoint"):
        Checkpoint.read(path)
    torch.save({"version": 0}, path)
    with pytest.raises(UsageError, match="of version 0; this sonant goes on from"):
        Checkpoint.read(path)
    whole = dict.fromkeys(("stage", "step", "model", "optimizer", "log"), 0) | {"version": 1}
    torch.save(whole | {"epoch": 3}, path)
    with pytest.raises(UsageError, match=r"whose parts are best, log, model, .*beside them: epoch"):
        Checkpoint.read(path)
    for foreign in (b"", b"text", b"\x80\x02c\n", b"}q\x00", bytes(range(256))):
        path.write_bytes(foreign)
        with pytest.raises(SonantError, match=r"a readable checkpoint: it is .* in a new folder"):
            Checkpoint.read(path)


def test_a_checkpoint_for_which_there_is_no_space_is_not_begun(tmp_path: Path) -> None:
    path, state = tmp_path / "last.pt", nn.Linear(64, 64).state_dict()
    Checkpoint(0, 1, state, {}, 0).write(path)
    said = r"last\.pt: cannot be written: File too large"
    with pytest.raises(SonantError, match=said), largest_file(4096):
        Checkpoint(0, 2, state, {}, 0).write(path)
    assert Checkpoint.read(path).step == 1
    assert list(tmp_path.iterdir()) == [path]


def test_weights_of_another_shape_are_named(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(nn.Linear(2, 3), path)
    load_weights(nn.Linear(2, 3), path)
    with pytest.raises(UsageError, match=r"weight: \(3, 2\) in the file, \(3, 4\) wanted"):
        load_weights(nn.Linear(4, 3), path)
    with pytest.raises(UsageError, match=r"bias: \(3,\) in the file, none wanted"):
        load_weights(nn.Linear(2, 3, bias=False), path)
    with pytest.raises(UsageError, match="no such weights"):
        load_weights(nn.Linear(2, 3), tmp_path / "none")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(SonantError, match="not readable as safetensors"):
        load_weights(nn.Linear(2, 3), path)


def record(**parts: object) -> str:
    return json.dumps(dict.fromkeys(RECORD, "") | {"arguments": {}} | parts)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("{", "not the record of a run"),
        ("{}", "not the record of a run"),
        ("3", "not the record of a run"),
        (record(recipe=3), "'recipe' is not a string"),
        (record(arguments=[]), "'arguments' is not an object"),
        (record(recipe="sonant.no:way"), "'sonant.no:way' is not here"),
        (record(recipe="sonant.train:RECIPES"), "'sonant.train:RECIPES' is not here"),
        (record(recipe=":"), "':' is not here"),
        (record(recipe=""), "'' is not here"),
        (record(recipe=".x:y"), "'.x:y' is not here"),
    ],
)
def test_records_that_lead_nowhere_are_refused(tmp_path: Path, written: str, said: str) -> None:
    with pytest.raises(UsageError, match="no run there"):
        recorded(tmp_path)
    (tmp_path / "record.json").write_text(written)
    with pytest.raises(UsageError, match=said):
        recorded(tmp_path)
