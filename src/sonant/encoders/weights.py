"""Others' checkpoints into these encoders.

A published checkpoint names its tensors in one of a few ways, `Layout`s. Its tensors are renamed to
ours, made to fit where they are tables of places, checked all together, and only then taken.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from sonant.encoders import ast, timesformer
from sonant.encoders.ast import AST
from sonant.encoders.distilbert import DistilBERT
from sonant.encoders.timesformer import Times, TimeSformer
from sonant.errors import SonantError, UsageError
from sonant.files import damage
from sonant.hub import fetch

Weights = Mapping[str, Tensor]
Source = str | Path | Weights
"""A local file or folder, a Hugging Face id with or without "@revision", or tensors by name."""

Fit = Callable[[Tensor], tuple[Tensor, str]]
"""Makes a tensor fit, and says how."""

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
NESTS = ("state_dict", "model_state", "model", "module")
"""What checkpoints call the part that holds the tensors."""

HEADS = re.compile(
    r"(head|head_dist|fc|pre_logits\.fc|pooler\.dense)\.(weight|bias)"
    r"|embeddings\.(position_ids|mask_token)"
)
"""What lies beside an encoder's own tensors, and is never wanted."""

_VIT = {
    "cls_token": "cls",
    "dist_token": "distillation",
    "pos_embed": "places",
    "patch_embed.proj": "patches",
    "blocks.#.norm1": "blocks.#.norm1",
    "blocks.#.attn.qkv": "blocks.#.attention.qkv",
    "blocks.#.attn.proj": "blocks.#.attention.out",
    "blocks.#.norm2": "blocks.#.norm2",
    "blocks.#.mlp.fc1": "blocks.#.mlp.0",
    "blocks.#.mlp.fc2": "blocks.#.mlp.2",
    "norm": "norm",
}
_FROZEN = _VIT | {
    "temporal_embed": "times",
    "blocks.#.norm3": "blocks.#.norm_time",
    "blocks.#.timeattn.qkv": "blocks.#.time.qkv",
    "blocks.#.timeattn.proj": "blocks.#.time.out",
}
_HUB_VIT = {
    "embeddings.cls_token": "cls",
    "embeddings.distillation_token": "distillation",
    "embeddings.position_embeddings": "places",
    "embeddings.patch_embeddings.projection": "patches",
    "encoder.layer.#.layernorm_before": "blocks.#.norm1",
    "encoder.layer.#.attention.attention.query": "blocks.#.attention.q",
    "encoder.layer.#.attention.attention.key": "blocks.#.attention.k",
    "encoder.layer.#.attention.attention.value": "blocks.#.attention.v",
    "encoder.layer.#.attention.output.dense": "blocks.#.attention.out",
    "encoder.layer.#.layernorm_after": "blocks.#.norm2",
    "encoder.layer.#.intermediate.dense": "blocks.#.mlp.0",
    "encoder.layer.#.output.dense": "blocks.#.mlp.2",
    "layernorm": "norm",
}
_HUB_TIMESFORMER = _HUB_VIT | {
    "embeddings.time_embeddings": "times",
    "encoder.layer.#.attention.attention.qkv": "blocks.#.attention.qkv",
    "encoder.layer.#.temporal_layernorm": "blocks.#.norm_time",
    "encoder.layer.#.temporal_attention.attention.qkv": "blocks.#.time.qkv",
    "encoder.layer.#.temporal_attention.output.dense": "blocks.#.time.out",
    "encoder.layer.#.temporal_dense": "blocks.#.time_out",
}
_NEW_HUB_VIT = {name: ours for name, ours in _HUB_VIT.items() if "encoder" not in name} | {
    "layers.#.layernorm_before": "blocks.#.norm1",
    "layers.#.attention.q_proj": "blocks.#.attention.q",
    "layers.#.attention.k_proj": "blocks.#.attention.k",
    "layers.#.attention.v_proj": "blocks.#.attention.v",
    "layers.#.attention.o_proj": "blocks.#.attention.out",
    "layers.#.layernorm_after": "blocks.#.norm2",
    "layers.#.mlp.fc1": "blocks.#.mlp.0",
    "layers.#.mlp.fc2": "blocks.#.mlp.2",
}
_HUB_DISTILBERT = {
    "embeddings.word_embeddings": "words",
    "embeddings.position_embeddings": "places",
    "embeddings.LayerNorm": "norm",
    "transformer.layer.#.attention.q_lin": "blocks.#.attention.q",
    "transformer.layer.#.attention.k_lin": "blocks.#.attention.k",
    "transformer.layer.#.attention.v_lin": "blocks.#.attention.v",
    "transformer.layer.#.attention.out_lin": "blocks.#.attention.out",
    "transformer.layer.#.sa_layer_norm": "blocks.#.norm1",
    "transformer.layer.#.ffn.lin1": "blocks.#.mlp.0",
    "transformer.layer.#.ffn.lin2": "blocks.#.mlp.2",
    "transformer.layer.#.output_layer_norm": "blocks.#.norm2",
}
_APART = re.compile(r"(.*attention\.)([qkv])(\..*)")
_TIME = re.compile(r"times|blocks\.\d+\.(norm_time|time|time_out)\..*")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How published checkpoints of one kind name their tensors."""

    name: str
    names: Mapping[str, str]
    """Theirs to ours, without ".weight" and ".bias"; # is a block's number, "" the whole."""
    prefixes: tuple[str, ...] = ("",)
    """What may stand before all of them; names without it are of other parts."""
    lacks: re.Pattern[str] | None = None
    """Ours that no such checkpoint has."""

    def translated(self, weights: Weights, prefix: str, wanted: Weights) -> dict[str, str]:
        """Theirs to ours, of those that are in the layout and wanted."""
        found = {}
        for name in weights:
            ours = self._ours(name.removeprefix(prefix)) if name.startswith(prefix) else None
            if ours and _APART.sub(r"\1qkv\3", ours) in wanted:
                found[name] = ours
        return found

    def _ours(self, name: str) -> str | None:
        stem, leaf = re.fullmatch(r"(.*?)((?:\.weight|\.bias)?)", name).groups()  # type: ignore[union-attr]
        number = re.search(r"\.(\d+)\.", stem)
        general = re.sub(r"\.\d+\.", ".#.", stem, count=1)
        ours = self.names.get(general)
        if ours is None:
            return None
        return (ours.replace("#", number[1] if number else "") + leaf).removeprefix(".")


# Of two that name as many tensors the first is meant: a video model has more than an image model.
_IMAGE_LAYOUTS = tuple(
    Layout(name=f"an image model of {whose}", names=names, prefixes=prefixes, lacks=_TIME)
    for whose, names, prefixes in (
        ("timm", _VIT, ("",)),
        ("transformers", _HUB_VIT, ("vit.", "deit.", "")),
        ("transformers", _NEW_HUB_VIT, ("vit.", "deit.", "")),
    )
)
TIMESFORMER_OF_KINETICS = "TimeSformer of transformers"
"""The layout whose weights were trained on frames with Kinetics' colours."""
_VIDEO_LAYOUTS = (
    *_IMAGE_LAYOUTS,
    Layout(name="EgoVLP's video tower", names=_FROZEN, prefixes=("video_model.", "")),
    Layout(name=TIMESFORMER_OF_KINETICS, names=_HUB_TIMESFORMER, prefixes=("timesformer.", "")),
)
_AUDIO_PREFIXES = ("audio_spectrogram_transformer.", "deit.", "")
_AUDIO_LAYOUTS = (
    Layout(name="AST's own, or DeiT of timm", names=_VIT, prefixes=("v.", "")),
    Layout(name="AST or DeiT of transformers", names=_HUB_VIT, prefixes=_AUDIO_PREFIXES),
    Layout(name="AST or DeiT of transformers", names=_NEW_HUB_VIT, prefixes=_AUDIO_PREFIXES),
)
_TEXT_LAYOUTS = (
    Layout(
        name="DistilBERT of transformers",
        names=_HUB_DISTILBERT,
        prefixes=("distilbert.", "text_model.", ""),
    ),
)
_VIDEO_HEAD = (Layout(name="EgoVLP's video head", names={"0": ""}, prefixes=("vid_proj.",)),)
_TEXT_HEAD = (Layout(name="EgoVLP's text head", names={"1": ""}, prefixes=("txt_proj.",)),)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was taken of a checkpoint and what was not; as a string, for people."""

    source: str
    layout: str
    """Whose names the checkpoint has."""
    taken: tuple[str, ...]
    """Our tensors that were filled."""
    fitted: Mapping[str, str] = field(default_factory=dict)
    """Those of them that were made to fit, and how."""
    fresh: tuple[str, ...] = ()
    """Our tensors that no such checkpoint has; they stay as they were."""
    missing: tuple[str, ...] = ()
    """Our tensors that this one should have and has not; they stay as they were."""
    misfits: Mapping[str, str] = field(default_factory=dict)
    """Our tensors that are of another shape there, and which; they stay as they were."""
    unused: tuple[str, ...] = ()
    """Its tensors that we have no place for."""
    beside: tuple[str, ...] = ()
    """Its tensors that belong to no encoder: heads, other towers."""

    @property
    def whole(self) -> bool:
        """Whether nothing is missing, of another shape, or without a place."""
        return not (self.missing or self.misfits or self.unused)

    def __str__(self) -> str:
        ours = len(self.taken) + len(self.fresh) + len(self.missing) + len(self.misfits)
        lines = [f"{self.source} ({self.layout}): {len(self.taken)} of {ours} tensors taken"]
        lines += [f"  made to fit: {name}: {how}" for name, how in self.fitted.items()]
        lines += [f"  of another shape: {name}: {how}" for name, how in self.misfits.items()]
        for said, names in (
            ("missing there", self.missing),
            ("no place here for", self.unused),
            ("never in such a checkpoint, left as initialised", self.fresh),
            ("beside the encoder, left out", self.beside),
        ):
            lines += [f"  {said}: {_grouped(names)}"] if names else []
        return "\n".join(lines)


def load_timesformer(
    model: TimeSformer, source: Source, *, times: Times = "first", strict: bool = True
) -> Report:
    """Fill a TimeSformer from EgoVLP, a TimeSformer of transformers, or an image model (ViT).

    EgoVLP's is "frozen" and wants ImageNet's colours; facebook/timesformer-base-finetuned-k400 is
    "plain" and wants Kinetics'. From an image model only what is not of time is taken.

    Args:
        model: of the checkpoint's attention, width, depth and patches.
        source: see `Source`.
        times: how a temporal table of another length is made to fit; see `timesformer.fit_times`. A
            spatial one of another size is interpolated.
        strict: refuse a checkpoint that lacks tensors, has others, or has them in other shapes.

    Raises:
        UsageError: none of those checkpoints, or with `strict` one that does not fit whole; the
            model is then as it was.
        SonantError: the file is damaged, or the hub cannot be reached.
    """
    weights, said = _opened(source)
    return _load_video(model, weights, said, times, strict)


def _load_video(
    model: TimeSformer, weights: Weights, source: str, times: Times, strict: bool
) -> Report:
    side = round((model.places.shape[1] - 1) ** 0.5)

    def time(x: Tensor) -> tuple[Tensor, str]:
        kept = "the first" if x.shape[1] > model.frames else "then zeros"
        said = {"first": kept, "nearest": "nearest", "linear": "interpolated"}
        how = f"{x.shape[1]} frames to {model.frames}, {said[times]}"
        return timesformer.fit_times(x, model.frames, times), how

    def place(x: Tensor) -> tuple[Tensor, str]:
        how = f"{x.shape[1] - 1} places to {side} x {side}, interpolated"
        return timesformer.fit_places(x, side), how

    fits = {"times": time, "places": place}
    return _load(model, weights, _VIDEO_LAYOUTS, source, strict=strict, fits=fits)


def load_ast(
    model: AST,
    source: Source,
    *,
    channels: Literal["sum", "mean"] = "sum",
    strict: bool = True,
) -> Report:
    """Fill an AST from another, of transformers or its authors', or from a distilled DeiT.

    A DeiT is an image model: its patches' three colours become one channel, and its square of
    places is cut and interpolated to the spectrogram's (sec. 2.2 of the paper).

    Args:
        model: of the checkpoint's width, depth and patches; of an AST's, also of its bins and
            stride.
        source: see `Source`.
        channels: the paper says that the colours' weights are averaged, its code sums them.
        strict: refuse a checkpoint that lacks tensors, has others, or has them in other shapes.

    Raises:
        UsageError: none of those checkpoints, or with `strict` one that does not fit whole; the
            model is then as it was.
        SonantError: the file is damaged, or the hub cannot be reached.
    """

    def patch(x: Tensor) -> tuple[Tensor, str]:
        one = x.sum(1, keepdim=True) if channels == "sum" else x.mean(1, keepdim=True)
        return one, f"the {channels} of {x.shape[1]} channels"

    def place(x: Tensor) -> tuple[Tensor, str]:
        grid = _grid(x.shape[1] - ast.FIRST, None if image else model.grid[0])
        how = f"{grid[0]} x {grid[1]} places to {model.grid[0]} x {model.grid[1]}"
        return ast.fit_places(x, grid, model.grid), how

    weights, said = _opened(source)
    image = any(x.ndim == 4 and x.shape[1] == 3 for x in weights.values())
    fits = {"patches.weight": patch, "places": place}
    return _load(model, weights, _AUDIO_LAYOUTS, said, strict=strict, fits=fits)


def load_distilbert(model: DistilBERT, source: Source, *, strict: bool = True) -> Report:
    """Fill a DistilBERT from one of transformers, such as distilbert-base-uncased, or EgoVLP's.

    Args:
        model: of the checkpoint's vocabulary, tokens, width and depth.
        source: see `Source`.
        strict: refuse a checkpoint that lacks tensors, has others, or has them in other shapes.

    Raises:
        UsageError: none of those checkpoints, or with `strict` one that does not fit whole; the
            model is then as it was.
        SonantError: the file is damaged, or the hub cannot be reached.
    """
    weights, said = _opened(source)
    return _load(model, weights, _TEXT_LAYOUTS, said, strict=strict)


def load_egovlp(
    source: Source,
    *,
    video: TimeSformer,
    text: DistilBERT,
    video_head: nn.Linear | None = None,
    text_head: nn.Linear | None = None,
    times: Times = "first",
    strict: bool = True,
) -> dict[str, Report]:
    """Fill both towers from EgoVLP's checkpoint, which is read once.

    Args:
        source: egovlp.pth, or another checkpoint of that project; see `Source`.
        video: with "frozen" attention.
        text: an encoder that ends in a ReLU, as EgoVLP's text tower does before its head.
        video_head: linear layer into the shared space, filled if the widths are EgoVLP's (256).
        text_head: likewise.
        times: as in `load_timesformer`.
        strict: refuse a checkpoint that does not fill the towers whole.

    Returns:
        A report for each of "video", "text", "video_head" and "text_head" that was given.

    Raises:
        UsageError: no checkpoint of EgoVLP, or with `strict` one that does not fit whole.
        SonantError: the file is damaged.
    """
    weights, said = _opened(source)
    parts = {
        name: {key: x for key, x in weights.items() if key.startswith(f"{name}_model.")}
        for name in ("video", "text")
    }
    if not all(parts.values()):
        raise UsageError(
            f"{said}: not a checkpoint of EgoVLP, whose names begin with video_model. and "
            f"text_model.: it names {_grouped(weights)}"
        )
    reports = {
        "video": _load_video(video, parts["video"], said, times, strict),
        "text": _load(text, parts["text"], _TEXT_LAYOUTS, said, strict=strict),
    }
    if video_head is not None:
        reports["video_head"] = _load(video_head, weights, _VIDEO_HEAD, said, strict=False)
    if text_head is not None:
        reports["text_head"] = _load(text_head, weights, _TEXT_HEAD, said, strict=False)
    return reports


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, without wrappers' prefixes; it runs none of its code.

    Objects that a checkpoint holds beside its tensors, such as EgoVLP's configuration, are passed
    over unread.

    Raises:
        UsageError: it holds no tensors.
        SonantError: it is damaged, or not made by torch.save or safetensors.
    """
    try:
        found = load_file(path) if path.suffix == ".safetensors" else _unpickled(path)
    except Exception as error:  # foreign bytes fail to unpickle in every way there is
        raise SonantError(
            f"{path}: not readable as weights: {damage(path, error)}; wanted is a checkpoint that "
            "torch.save or safetensors wrote"
        ) from error
    tensors = _unnested(found, path)
    while tensors and all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): x for name, x in tensors.items()}
    return {name.replace("_orig_mod.", ""): x for name, x in tensors.items()}


class _Unread:
    """Stands for any object of a checkpoint that is no tensor: it takes what it is given."""

    def __init__(self, *_: Any) -> None:
        """Keep nothing."""

    def __setstate__(self, state: Any) -> None:
        """Keep nothing."""


def _empty(*_: Any) -> dict[Any, Any]:
    """Stands for a defaultdict, which is filled like a dictionary."""
    return {}


def _unpickled(path: Path) -> Any:
    zipped = path.open("rb").read(2) == b"PK"  # what torch < 1.6 wrote is not, nor can be mapped
    names = get_unsafe_globals_in_checkpoint(path) if zipped else []
    stand_ins: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
        (_empty if name == "collections.defaultdict" else _Unread, name) for name in names
    ]
    with safe_globals(stand_ins):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)


def _unnested(found: Any, path: Path) -> dict[str, Tensor]:
    """The part of a checkpoint that holds tensors."""
    if not isinstance(found, Mapping):
        raise UsageError(f"{path}: holds no tensors by name")
    tensors = {str(name): x for name, x in found.items() if isinstance(x, Tensor)}
    inner = next((found[name] for name in NESTS if isinstance(found.get(name), Mapping)), None)
    if inner is not None and not tensors:
        return _unnested(inner, path)
    if not tensors:
        parts = ", ".join(sorted(map(str, found))) or "nothing"
        raise UsageError(f"{path}: holds no tensors by name; there is {parts}")
    return tensors


def _opened(source: Source) -> tuple[Weights, str]:
    if isinstance(source, Mapping):
        return source, "weights"
    return read_weights(fetch(source, HUB_FILES)), str(source)


def _load(
    model: nn.Module,
    weights: Weights,
    layouts: Iterable[Layout],
    source: str,
    *,
    strict: bool,
    fits: Mapping[str, Fit] | None = None,
) -> Report:
    wanted = model.state_dict()
    layout, prefix, names = _recognised(weights, layouts, wanted, source)
    found = _joined({ours: weights[theirs] for theirs, ours in names.items()})
    fitting, fitted, misfits = _fitting(found, wanted, fits or {})
    beside = {
        name
        for name in weights.keys() - names.keys()
        if not name.startswith(prefix) or HEADS.fullmatch(name.removeprefix(prefix))
    }
    absent = [name for name in wanted if name not in found]
    lacks = {name for name in absent if layout.lacks and layout.lacks.fullmatch(name)}
    report = Report(
        source=source,
        layout=layout.name,
        taken=tuple(fitting),
        fitted=fitted,
        fresh=tuple(name for name in absent if name in lacks),
        missing=tuple(name for name in absent if name not in lacks),
        misfits=misfits,
        unused=tuple(name for name in weights if name not in names.keys() | beside),
        beside=tuple(name for name in weights if name in beside),
    )
    if strict and not report.whole:
        raise UsageError(f"does not fit this {type(model).__name__} whole:\n{report}")
    model.load_state_dict(fitting, strict=False)
    return report


def _recognised(
    weights: Weights, layouts: Iterable[Layout], wanted: Weights, source: str
) -> tuple[Layout, str, dict[str, str]]:
    """The layout and prefix that name most of the tensors, and theirs to ours."""
    ways = [
        (layout, prefix, layout.translated(weights, prefix, wanted))
        for layout in layouts
        for prefix in layout.prefixes
    ]
    best = max(ways, key=lambda way: len(way[2]))
    if not best[2]:
        known = ", ".join(dict.fromkeys(layout.name for layout, _, _ in ways))
        raise UsageError(
            f"{source}: not a checkpoint known here ({known}): it names {_grouped(weights)}"
        )
    return best


def _joined(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Queries, keys and values that lie apart as one tensor; the rest as it is."""
    joined = {name: x for name, x in found.items() if not _APART.fullmatch(name)}
    for name in found:
        if (apart := _APART.fullmatch(name)) and apart[2] == "q":
            parts = [found.get(f"{apart[1]}{letter}{apart[3]}") for letter in "qkv"]
            whole = [part for part in parts if part is not None]
            if len(whole) == 3:
                joined[f"{apart[1]}qkv{apart[3]}"] = torch.cat(whole)
    return joined


def _fitting(
    found: Weights, wanted: Weights, fits: Mapping[str, Fit]
) -> tuple[dict[str, Tensor], dict[str, str], dict[str, str]]:
    """Tensors of the shapes wanted, how some were made so, and why others could not be."""
    fitting: dict[str, Tensor] = {}
    fitted: dict[str, str] = {}
    misfits: dict[str, str] = {}
    for name in (name for name in wanted if name in found):
        x, how = found[name], ""
        misfit = f"{tuple(x.shape)} there, {tuple(wanted[name].shape)} wanted"
        if x.shape != wanted[name].shape and x.ndim == wanted[name].ndim and name in fits:
            try:
                x, how = fits[name](x)
            except UsageError as error:
                misfit = f"{misfit}: {error}"
        if x.shape != wanted[name].shape:
            misfits[name] = misfit
            continue
        fitting[name] = x
        fitted |= {name: how} if how else {}
    return fitting, fitted, misfits


def _grid(places: int, rows: int | None) -> tuple[int, int]:
    """Rows and columns of a table of so many rows, or of a square one."""
    rows = rows or round(places**0.5)
    if places % rows:
        raise UsageError(f"{places} places are not {rows} rows")
    return rows, places // rows


def _grouped(names: Iterable[str]) -> str:
    """Names with their numbers as *, each once with how many there are; at most twelve."""
    groups = Counter(re.sub(r"\.\d+\.", ".*.", name) for name in names)
    said = [f"{name} ({count})" if count > 1 else name for name, count in groups.items()]
    return ", ".join(said[:12]) + (f" and {len(said) - 12} more" if len(said) > 12 else "")
