import json
from pathlib import Path

import pytest
import torch
from torch import nn

from sonant.checkpoint import RECORD, Checkpoint, load_weights, recorded, save_weights
from sonant.errors import SonantError, UsageError


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


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ("{", "not the record of a run"),
        ("{}", "not the record of a run"),
        ("3", "not the record of a run"),
        (
            json.dumps(dict.fromkeys(RECORD, "") | {"recipe": "sonant.no:way"}),
            "sonant.no:way is not here",
        ),
    ],
)
def test_records_that_lead_nowhere_are_refused(tmp_path: Path, record: str, said: str) -> None:
    with pytest.raises(UsageError, match="no run there"):
        recorded(tmp_path)
    (tmp_path / "record.json").write_text(record)
    with pytest.raises(UsageError, match=said):
        recorded(tmp_path)
