import errno
import json
import os
from pathlib import Path

import pytest
import torch

from sonant.errors import SonantError
from sonant.log import Log, agreement, effective_rank
from toy import largest_file


def test_lines_after_the_position_are_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with Log(path, keep=0) as log:
        log.step({"loss": 1.0, "step": 0})
        position = log.position()
        log.step({"loss": 2.0, "step": 1})
    with Log(path, keep=position) as log:
        log.step({"loss": 3.0, "step": 1})
    assert [json.loads(line)["loss"] for line in path.read_text().splitlines()] == [1.0, 3.0]


def test_the_position_is_right_before_the_first_line_too(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"0123456789")
    with Log(path, keep=4) as log:
        assert log.position() == 4


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    with Log(None, keep=0) as log:
        log.begin("align", done=0, steps=1)
        log.step({"loss": 1.0})
        log.say("one")
        assert log.position() == 0
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told_once(tmp_path: Path) -> None:
    path, size = tmp_path / "log.jsonl", 1 << 20
    path.write_bytes(bytes(size))
    said = r"log\.jsonl: cannot be written: File too large"
    with (
        pytest.raises(SonantError, match=said) as told,
        largest_file(size),
        Log(path, keep=size) as log,
    ):
        log.step({"loss": 1.0})
    assert isinstance(told.value.__context__, OSError)
    assert told.value.__context__.__context__ is None


def test_a_log_that_does_not_reach_the_disk_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space")

    monkeypatch.setattr(os, "fsync", full)
    said = r"log\.jsonl: cannot be written: no space left"
    with pytest.raises(SonantError, match=said), Log(tmp_path / "log.jsonl", keep=0) as log:
        log.position()


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_effective_rank_of_equal_directions_is_their_number(rank: int) -> None:
    x = torch.eye(8)[torch.arange(24) % rank]
    assert float(effective_rank(x)) == pytest.approx(rank, rel=1e-5)


def test_agreement_tells_partners_from_others() -> None:
    x = torch.eye(4)
    found = agreement({"audio": x, "video": x, "text": -x})
    assert found["cosine"] == {"audio-video": 1, "audio-text": -1, "video-text": -1}
    assert found["others"] == {"audio-video": 0, "audio-text": 0, "video-text": 0}
    assert found["rank"] == {"audio": 4, "video": 4, "text": 4}
