from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import (
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
)

from sonant.errors import SonantError, UsageError
from sonant.hub import fetch

NAMES = ("model.safetensors", "pytorch_model.bin")


def test_a_file_or_the_best_file_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").touch()
    assert fetch(tmp_path, NAMES) == tmp_path / "pytorch_model.bin"
    (tmp_path / "model.safetensors").touch()
    assert fetch(str(tmp_path), NAMES) == tmp_path / "model.safetensors"
    assert fetch(tmp_path / "pytorch_model.bin", NAMES) == tmp_path / "pytorch_model.bin"
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"none of model\.safetensors, pytorch_model\.bin is in"):
        fetch(tmp_path / "empty", NAMES)


@pytest.mark.parametrize("source", ["nowhere/egovlp.pth", "a/b/c", "../x", Path("owner/name")])
def test_what_is_neither_a_file_nor_an_id_is_refused(source: str | Path) -> None:
    with pytest.raises(UsageError, match=r"no such file or folder, and no Hugging Face id"):
        fetch(source, NAMES)


def answering(monkeypatch: pytest.MonkeyPatch, *answers: Any) -> list[tuple[Any, ...]]:
    """Let the hub's client give these answers in turn; what it was asked."""
    asked, left = [], list(answers)

    def download(
        repository: str, name: str, *, revision: str, local_files_only: bool = False
    ) -> str:
        asked.append((repository, name, revision, local_files_only))
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return asked


def refusal(kind: type[Exception]) -> Exception:
    return kind.__new__(kind, "no")  # its __init__ wants a response of the hub's


def test_the_next_name_is_asked_for_where_one_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(monkeypatch, refusal(RemoteEntryNotFoundError), "/cache/pytorch_model.bin")
    assert fetch("owner/name@v1", NAMES) == Path("/cache/pytorch_model.bin")
    assert asked == [("owner/name", name, "v1", False) for name in NAMES]


def test_without_the_hub_only_the_first_name_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = [LocalEntryNotFoundError("no connection"), LocalEntryNotFoundError("no connection")]
    asked = answering(monkeypatch, *lost)
    with pytest.raises(SonantError, match=r"the hub cannot be reached.*give its path"):
        fetch("distilbert-base-uncased", NAMES)
    assert [said[3] for said in asked] == [False, True]
    answering(monkeypatch, lost[0], "/cache/pytorch_model.bin")
    assert fetch("distilbert-base-uncased", NAMES) == Path("/cache/pytorch_model.bin")


def test_what_the_hub_lacks_is_the_users_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, refusal(RepositoryNotFoundError))
    with pytest.raises(UsageError, match=r"owner/name \(revision main\).*not there"):
        fetch("owner/name", NAMES)
    answering(monkeypatch, *[refusal(RemoteEntryNotFoundError)] * 2)
    with pytest.raises(UsageError, match=r"has none of model\.safetensors, pytorch_model\.bin"):
        fetch("owner/name", NAMES)
    answering(monkeypatch, OSError("refused"))
    with pytest.raises(SonantError, match="cannot be fetched: refused"):
        fetch("owner/name", NAMES)
