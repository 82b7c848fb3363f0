"""A run on disk: its record and recipe, where it can go on, and its weights."""

import hashlib
import importlib
import inspect
import io
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from sonant.clips import Clips
from sonant.data import FRONT_END
from sonant.errors import SonantError, UsageError
from sonant.files import damage, replacing
from sonant.media.text import Tokenizer
from sonant.methods.method import Method, Recipe
from sonant.types import Modality, Stage

RecipeFunction = Callable[..., Recipe]

VERSION = 1

RECORD = ("recipe", "arguments", "clips", "data", "labels", "packed", "front_end")
"""What a record holds at least."""


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run between two steps.

    Order, augmentation and random numbers are functions of the position, so they are not in it.
    """

    stage: int
    """Number of the stage; that of stages if the run is done."""
    step: int
    """Steps done in this stage."""
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    """Empty before a stage's first step."""
    log: int
    """Bytes of the log that belong to the steps done."""
    best: dict[str, Any] = field(default_factory=dict)
    """Of the best epoch so far, where validation chooses one: `epoch`, `merit` and `model`."""
    version: int = VERSION

    def write(self, path: Path) -> None:
        """Write, whole or not at all."""
        whole = io.BytesIO()
        torch.save({part.name: getattr(self, part.name) for part in fields(self)}, whole)
        with replacing(path) as partial:
            partial.write_bytes(whole.getbuffer())

    @classmethod
    def read(cls, path: Path) -> "Checkpoint":
        """Read what `write` wrote, on to the processor.

        Raises:
            SonantError: the file is damaged.
            UsageError: it is no checkpoint, or of another version.
        """
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # foreign bytes fail to unpickle in every way there is
            raise SonantError(
                f"{path}: not a readable checkpoint: {damage(path, error)}; the run cannot go on "
                "from it: begin in a new folder"
            ) from error
        if not isinstance(found, dict) or found.get("version") != VERSION:
            version = found.get("version") if isinstance(found, dict) else None
            raise UsageError(
                f"{path}: is of version {version}; this sonant goes on from checkpoints of version "
                f"{VERSION}: begin in a new folder"
            )
        there: dict[str, Any] = {"best": {}, **found}  # once there was no validation
        wanted = {part.name for part in fields(cls)}
        if differing := sorted(map(str, there.keys() ^ wanted)):
            raise UsageError(
                f"{path}: not a checkpoint of sonant, whose parts are {', '.join(sorted(wanted))}; "
                f"what it lacks, or has beside them: {', '.join(differing)}"
            )
        return cls(**there)


def save_weights(model: nn.Module, path: Path, *, without: Collection[str] = ()) -> None:
    """Write a model's parameters and buffers, but for some, as safetensors, whole or not at all.

    What two names share is written for both.
    """
    weights, places = dict[str, Tensor](), set[int]()
    for name, x in model.state_dict().items():
        if name not in without:
            tensor = x.detach().cpu().contiguous()
            weights[name] = tensor.clone() if tensor.data_ptr() in places else tensor
            places.add(tensor.data_ptr())
    with replacing(path) as partial:
        partial.write_bytes(save(weights))


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill a model with what `save_weights` wrote.

    Raises:
        UsageError: the file is missing, or of a model of another shape.
        SonantError: the file is damaged.
    """
    fill(model, _weights(path), path)


def load_towers(method: Method, path: Path) -> str:
    """Fill those towers of a method that are among the weights of a run, whatever its method.

    So is what else the method inherits, all of which must be there.

    Returns:
        Which were taken and which were not, in words.

    Raises:
        UsageError: the file is missing, holds none of the towers, towers of another shape, or not
            one that is never trained.
        SonantError: the file is damaged.
    """
    weights = _weights(path)
    found = [m for m in method.modalities if any(_of_tower(m, name) for name in weights)]
    if not found:
        raise UsageError(f"{path}: holds no tower of {', '.join(method.modalities)} to begin with")
    fresh = [m for m in method.modalities if m not in found]
    moved = [s for s in method.stages if s.train is None or s.train & set(fresh)]
    if fresh and not moved:
        raise UsageError(
            f"{path}: holds no tower of {', '.join(fresh)}, and nothing would train one: name the "
            "modalities that it has"
        )
    for modality in found:
        prefix = f"towers.{modality}."
        mine = {
            name.removeprefix(prefix): x for name, x in weights.items() if _of_tower(modality, name)
        }
        fill(method.towers[modality], mine, path)
    for name in method.inherited:
        mine = {
            place.removeprefix(f"{name}."): x
            for place, x in weights.items()
            if place.startswith(f"{name}.")
        }
        if not mine:
            raise UsageError(f"{path}: holds no {name} to begin with")
        fill(method.get_submodule(name), mine, path)
    told = "".join(f", {name}" for name in method.inherited)
    told = f"towers of {', '.join(found)}{told} from {path}"
    if fresh:
        told += f"; {', '.join(fresh)} is not there and begins anew"
    taken = {*(f"towers.{modality}" for modality in found), *method.inherited}
    if left := sorted({_part(name) for name in weights} - taken):
        told += f"; left there: {', '.join(left)}"
    return told


def words_of(path: Path) -> Tokenizer | None:
    """The tokenizer that a text tower among the weights of a run reads; None without such a tower.

    Raises:
        UsageError: the file is missing, or its run's tokenizer.json does not lie beside it.
        SonantError: the file is damaged.
    """
    if not any(_of_tower("text", name) for name in _weights(path)):
        return None
    beside = path.with_name("tokenizer.json")
    if not beside.is_file():
        raise UsageError(
            f"{path}: holds a text tower, and no tokenizer.json lies beside it, which says what "
            "the tower's words are; give the weights in the folder of their run"
        )
    return Tokenizer.read(beside)


def _part(name: str) -> str:
    """The part of a method that a tensor belongs to: a tower, or what stands beside them."""
    first, *rest = name.split(".")
    return f"towers.{rest[0]}" if first == "towers" else first


def _of_tower(modality: Modality, name: str) -> bool:
    return name.startswith(f"towers.{modality}.")


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes.

    Raises:
        UsageError: there is no such file.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UsageError(f"{path}: no such weights; is the run finished?")
    try:
        return load_file(path)
    except Exception as error:  # the library's own error type is private
        raise SonantError(
            f"{path}: not readable as safetensors: {damage(path, error)}; wanted are weights that "
            "a run left, such as refine.safetensors"
        ) from error


def fill(model: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Load a state into a model of exactly its shape.

    Raises:
        UsageError: names or shapes differ; the message says which.
    """
    wanted = {name: tuple(x.shape) for name, x in model.state_dict().items()}
    there = {name: tuple(x.shape) for name, x in weights.items()}
    differing = [
        name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name)
    ]
    if differing:
        lines = [
            f"  {name}: {there.get(name, 'missing')} in the file, {wanted.get(name, 'none')} wanted"
            for name in sorted(differing)[:5]
        ]
        more = f"\n  and {len(differing) - 5} more" if len(differing) > 5 else ""
        raise UsageError(f"{path}: is of a model of another shape:\n" + "\n".join(lines) + more)
    model.load_state_dict(weights)


def defaults(recipe: RecipeFunction) -> dict[str, Any]:
    """A recipe's arguments, as a run records them, with their defaults.

    Those that it keeps together in a dataclass, such as its parts, stand beside the others.
    """
    found: dict[str, Any] = {}
    for name, default in _keywords(recipe).items():
        found |= asdict(default) if _is_group(default) else {name: default}
    return found


def make(recipe: RecipeFunction, tokenizer: Tokenizer, arguments: Mapping[str, Any]) -> Recipe:
    """Call a recipe.

    Args:
        recipe: the function.
        tokenizer: its first argument.
        arguments: others, as `defaults` names them.

    Raises:
        UsageError: it takes no such arguments.
    """
    known = defaults(recipe)
    if unknown := sorted(arguments.keys() - known.keys()):
        raise UsageError(
            f"{recipe.__name__}: takes no {', '.join(unknown)}; it takes {', '.join(known)}"
        )
    # JSON, in which runs record them, knows lists alone.
    given = known | {
        name: tuple(value) if isinstance(value, list) and isinstance(known[name], tuple) else value
        for name, value in arguments.items()
    }
    keywords = {
        name: type(default)(**{part: given[part] for part in asdict(default)})
        if _is_group(default)
        else given[name]
        for name, default in _keywords(recipe).items()
    }
    return recipe(tokenizer, **keywords)


def _keywords(recipe: RecipeFunction) -> dict[str, Any]:
    parameters = list(inspect.signature(recipe).parameters.values())[1:]
    return {parameter.name: parameter.default for parameter in parameters}


def _is_group(default: Any) -> bool:
    return is_dataclass(default) and not isinstance(default, type)


def read_record(run: Path) -> dict[str, Any]:
    """What record.json says of a run.

    Raises:
        UsageError: there is none, or it is no record of a run.
    """
    path = run / "record.json"
    if not path.is_file():
        raise UsageError(f"{run}: no run there (no record.json); `sonant train` makes one")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        missing = [name for name in RECORD if name not in record]
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path}: not the record of a run: {error}") from error
    if missing:
        raise UsageError(f"{path}: not the record of a run: it lacks {', '.join(missing)}")
    for name, kind, said in (("recipe", str, "a string"), ("arguments", dict, "an object")):
        if not isinstance(record[name], kind):
            raise UsageError(f"{path}: not the record of a run: {name!r} is not {said}")
    return dict(record)


def recorded(run: Path) -> tuple[RecipeFunction, dict[str, Any]]:
    """The recipe that a run was made by, and its arguments.

    Raises:
        UsageError: the folder holds no run of a recipe that is installed.
    """
    record = read_record(run)
    module, _, name = record["recipe"].partition(":")
    try:
        recipe = getattr(importlib.import_module(module), name)
        inspect.signature(recipe)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise UsageError(f"{run}: its recipe {record['recipe']!r} is not here: {error}") from error
    return recipe, record["arguments"]


def data_record(clips: Clips, labels: Sequence[str]) -> dict[str, Any]:
    """What a record says of the clips, their labels and their media."""
    told = [clips.column(name).tolist() for name in labels]
    return {
        "clips": len(clips),
        "data": clips.digest(),
        "labels": hashlib.sha256(repr(told).encode()).hexdigest(),
        "packed": clips.packed_digest(),
        "front_end": FRONT_END,
    }


def files_record(method: Method, there: Mapping[str, Any]) -> dict[str, str | None]:
    """What a record says of the files that a method learns from: their SHA-256.

    Those that are gone since are taken for the same.

    Args:
        method: which names them.
        there: the run's record, empty if there is none.
    """
    known = there.get("files", {})
    return {
        name: file_digest(path) if path.is_file() else known.get(name)
        for name, path in method.files.items()
    }


def files_differences(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """In words, which files of the same names two records have other contents of.

    A record from before there were `files` in it can tell of none.
    """
    known = there.get("files", wanted["files"])
    return [
        f"{name}: {wanted['arguments'][name]} held something else there (SHA-256 "
        f"{known.get(name)}, now {digest})"
        for name, digest in wanted["files"].items()
        if known.get(name) != digest and there["arguments"].get(name) == wanted["arguments"][name]
    ]


def data_differences(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """In words, how what two records say of their clips differs; nothing if it does not."""
    if there["data"] != wanted["data"]:
        return [f"clips: {there['clips']} others there, {wanted['clips']} wanted"]
    said = {
        "labels": "labels: the same clips have other labels there",
        "packed": "media: the same clips were packed from other files, or otherwise, there",
        "front_end": f"front end: {there['front_end']} there, {wanted['front_end']} wanted",
    }
    return [words for name, words in said.items() if there[name] != wanted[name]]


def check_same_data(run: Path, clips: Clips) -> None:
    """Refuse clips that a recorded run was not trained on.

    Raises:
        UsageError: clips, labels or media differ, or the folder holds no run.
    """
    wanted = data_record(clips, read_run(run).method.labels)
    if differing := data_differences(read_record(run), wanted):
        raise UsageError(f"{run}: was trained on other data:\n  " + "\n  ".join(differing))


def check_same_start(run: Path, initial: Path | None) -> None:
    """Refuse weights to begin with that are not those a recorded run began with.

    Raises:
        UsageError: they are others, or missing, or the run began without.
    """
    there = read_record(run).get("initial")
    if there != (None if initial is None else file_digest(initial)):
        said = f"with weights of SHA-256 {there}" if there else "without others' weights"
        raise UsageError(f"{run}: began {said}; `--initial` names those, or nothing")


def check_same_validation(run: Path, clips: Clips | None) -> None:
    """Refuse to choose the epoch by other clips than a recorded run did.

    Raises:
        UsageError: they are others, or missing, or the run chose none.
    """
    labels = read_run(run).method.labels
    wanted = None if clips is None else data_record(clips, labels)
    if read_record(run).get("validation") != wanted:
        raise UsageError(
            f"{run}: its epoch was chosen by other clips, or was the last one; `--validation` "
            "names their split, or nothing"
        )


def check_same_files(run: Path) -> None:
    """Refuse files that a recorded run learned from and that have changed since.

    Raises:
        UsageError: one has, or the folder holds no run.
    """
    there = read_record(run)
    wanted = there | {"files": files_record(read_run(run).method, there)}
    if differing := files_differences(there, wanted):
        raise UsageError(f"{run}: was trained on other files:\n  " + "\n  ".join(differing))


def start_digest(made: Recipe) -> str:
    """SHA-256 of a method's weights and of the word pieces it reads, as they are now."""
    digest = hashlib.sha256(made.views.tokenizer.json().encode())
    for name, tensor in sorted(made.method.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def check_same_published(run: Path, digest: str) -> None:
    """Refuse weights published by others that are not those a recorded run began with.

    Args:
        run: the recorded run.
        digest: `start_digest` of what begins now.

    Raises:
        UsageError: its record has another.
    """
    if (there := read_record(run).get("began_with")) != digest:
        raise UsageError(
            f"{run}: the weights or word pieces that its arguments name have changed since: it "
            f"began with SHA-256 {there}, now they are {digest}"
        )


def read_run(run: Path) -> Recipe:
    """A run's recipe, its method as initialised.

    Raises:
        UsageError: the folder holds no run of a recipe that is installed.
    """
    recipe, arguments = recorded(run)
    return make(recipe, Tokenizer.read(run / "tokenizer.json"), arguments)


def done(run: Path, method: Method) -> bool:
    """Whether a run has the weights of its last stage; they are written after everything else."""
    return weights_path(run, method.stages[-1]).is_file()


def weights_path(run: Path, stage: Stage) -> Path:
    """Where the weights at the end of a stage lie."""
    return run / f"{stage.name}.safetensors"
