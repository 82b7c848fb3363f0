"""Published files: on this disk, or from the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from sonant.errors import SonantError, UsageError

_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?(@[\w./-]+)?")
_FILES = {".bin", ".ckpt", ".json", ".pt", ".pth", ".pyth", ".safetensors", ".txt"}


def fetch(source: str | Path, names: Sequence[str]) -> Path:
    """A file here: `source` itself, or the first of `names` in the folder or repository it names.

    What comes from the hub is kept in its cache; HF_HUB_OFFLINE=1 looks nowhere else.

    Args:
        source: path of a file or folder, or a Hugging Face id, "name", "owner/name" or
            "owner/name@revision".
        names: the files that will do, best first.

    Raises:
        UsageError: no such file, folder or repository, or none of the names in it.
        SonantError: the hub cannot be reached, or refuses.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        return _in_folder(path, names)
    if isinstance(source, Path) or path.suffix in _FILES or not _ID.fullmatch(source):
        raise UsageError(
            f"{source}: no such file or folder, and no Hugging Face id "
            '("name", "owner/name" or "owner/name@revision")'
        )
    repository, _, revision = source.partition("@")
    return _from_hub(repository, revision or "main", names)


def _in_folder(folder: Path, names: Sequence[str]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UsageError(f"{folder}: none of {', '.join(names)} is in that folder")


def _from_hub(repository: str, revision: str, names: Sequence[str]) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        LocalEntryNotFoundError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    where = f"{repository} (revision {revision}) on the Hugging Face hub"
    absent: list[Exception] = []
    for name in names:
        lost = any(isinstance(error, LocalEntryNotFoundError) for error in absent)
        try:
            return Path(hf_hub_download(repository, name, revision=revision, local_files_only=lost))
        except (RemoteEntryNotFoundError, LocalEntryNotFoundError) as error:
            absent.append(error)
        except (RepositoryNotFoundError, RevisionNotFoundError) as error:
            raise UsageError(f"{where}: not there, or not for everyone") from error
        except (OSError, ValueError) as error:
            raise SonantError(f"{where}: cannot be fetched: {_line(error)}") from error
    if all(isinstance(error, RemoteEntryNotFoundError) for error in absent):
        raise UsageError(f"{where}: has none of {', '.join(names)}")
    raise SonantError(
        f"{where}: the hub cannot be reached, and its cache here has none of {', '.join(names)}: "
        "fetch the file elsewhere and give its path"
    ) from absent[-1]


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
