"""Weights that XDC, IG-65M and torchvision have published, in networks of `sonant.encoders.conv3d`.

Files are the PyTorch kind, read without running any code in them. A file from the net is known by
its SHA-256, whose first digits its name ends in (torch hub's custom), and kept where torch hub
keeps its own.
"""

import hashlib
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path

import torch
from torch import Tensor, nn

from sonant import hub
from sonant.encoders.conv3d import (
    CAFFE2_EPS,
    VideoResNet,
    mc3_18,
    r2plus1d_18,
    r2plus1d_34,
    r3d_18,
)
from sonant.errors import SonantError, UsageError
from sonant.files import damage, replacing

HEAD = "fc."
COUNTER = "num_batches_tracked"
"""Of batch norms; files from before it, and those that come from Caffe2, have none."""
SHOWN = 4
"""Most tensors of a kind that a complaint names."""


@dataclass(frozen=True)
class Sight:
    """What weights were trained to see.

    Args:
        frames: a clip.
        frame_rate: of these frames, a second.
        size: pixels a side of the square in the middle.
        short_side: pixels that frames are scaled to before the square is cut.
    """

    frames: int
    frame_rate: float
    size: int = 112
    short_side: int = 128


@dataclass(frozen=True)
class Release:
    """Weights that others have published.

    Args:
        url: of a file whose name ends, before its suffix, in the first digits of its SHA-256.
        build: makes the network that they fit, given the number of classes of its head.
        sight: what they were trained to see.
    """

    url: str
    build: Callable[[int | None], VideoResNet]
    sight: Sight


_XDC = "https://github.com/HumamAlwassel/XDC/releases/download/model_weights/r2plus1d_18_"
_IG65M = "https://github.com/moabitcoin/ig65m-pytorch/releases/download/v1.0.0/r2plus1d_34_clip"
_TORCHVISION = "https://download.pytorch.org/models/"
_xdc = partial(r2plus1d_18, "per_conv", eps=CAFFE2_EPS)
_ig65m = partial(r2plus1d_34, "per_conv", eps=CAFFE2_EPS)
_WIDE = Sight(32, 30.0, size=224, short_side=256)
_SHORT, _LONG, _KINETICS = Sight(8, 30.0), Sight(32, 30.0), Sight(16, 15.0)

RELEASES = {
    "xdc-ig65m-kinetics": Release(f"{_XDC}xdc_ig65m_kinetics-f24f6ffb.pth", _xdc, _WIDE),
    "xdc-ig65m-random": Release(f"{_XDC}xdc_ig65m_random-189d23f4.pth", _xdc, _WIDE),
    "xdc-audioset": Release(f"{_XDC}xdc_audioset-f29ffe8f.pth", _xdc, _WIDE),
    "xdc-supervised-kinetics": Release(f"{_XDC}fs_kinetics-622bdad9.pth", _xdc, _WIDE),
    "xdc-supervised-imagenet": Release(f"{_XDC}fs_imagenet-ff446670.pth", _xdc, _WIDE),
    "ig65m-8": Release(f"{_IG65M}8_ig65m_from_scratch-9bae36ae.pth", _ig65m, _SHORT),
    "ig65m-32": Release(f"{_IG65M}32_ig65m_from_scratch-449a7af9.pth", _ig65m, _LONG),
    "ig65m-8-kinetics": Release(f"{_IG65M}8_ft_kinetics_from_ig65m-0aa0550b.pth", _ig65m, _SHORT),
    "ig65m-32-kinetics": Release(f"{_IG65M}32_ft_kinetics_from_ig65m-ade133f1.pth", _ig65m, _LONG),
    "torchvision-r2plus1d-18": Release(
        f"{_TORCHVISION}r2plus1d_18-91a641e6.pth", partial(r2plus1d_18, "per_block"), _KINETICS
    ),
    "torchvision-r3d-18": Release(f"{_TORCHVISION}r3d_18-b3b3357e.pth", r3d_18, _KINETICS),
    "torchvision-mc3-18": Release(f"{_TORCHVISION}mc3_18-a90a0ba3.pth", mc3_18, _KINETICS),
}
"""By name; all want frames normalised by `conv3d.MEAN` and `DEVIATION`. XDC's (and its supervised
rivals) have no head; torchvision's and `-kinetics` have one of 400 classes, `ig65m-8` of 359 and
`ig65m-32` of 487. XDC's are those that its Table 7 fine-tunes, of 32 frames; its ablations have 8.
How large frames were before the square was cut, and IG-65M's rate, are VMZ's settings."""


@dataclass(frozen=True)
class Loaded:
    """What became of a file of weights.

    Args:
        path: the file.
        sha256: its hash, in full.
        taken: names of the tensors that the network now holds.
        aside: names of those in the file that it does not.
        fresh: names of the network's own that the file left as they were, but for counters.
    """

    path: Path
    sha256: str
    taken: tuple[str, ...]
    aside: tuple[str, ...]
    fresh: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{self.path} (SHA-256 {self.sha256[:8]}): {len(self.taken)} tensors taken"]
        if self.aside:
            parts.append(f"left aside: {', '.join(self.aside)}")
        if self.fresh:
            parts.append(f"not in it: {', '.join(self.fresh)}")
        return "; ".join(parts)


def released(
    name: str,
    classes: int | None = None,
    *,
    head: bool = False,
    path: Path | str | None = None,
    other: bool = False,
) -> tuple[VideoResNet, Loaded]:
    """A network with weights that others have published.

    Args:
        name: one of `RELEASES`.
        classes: scores that a linear layer on top gives; None gives features.
        head: whether that layer comes with the weights too; else it begins anew.
        path: the file, where it is here already, or, as text, the Hugging Face id of a repository
            that has it under its published name; None downloads it once from where it was
            published.
        other: whether that file may hold other weights of the same layout, such as fine-tuned ones.

    Returns:
        The network and what became of the file. It wants frames normalised by `conv3d.MEAN` and
        `conv3d.DEVIATION`: see `conv3d.FromFrames`.

    Raises:
        UsageError: no such name, a file of another content, or a head that does not fit.
        SonantError: the file cannot be fetched or read.
    """
    release = known(name)
    network = release.build(classes)
    file = _file(path, release.url)
    digits = "" if other else hash_in(release.url)
    return network, load(network, file, sha256=digits, head=head)


def fill(network: VideoResNet, weights: str) -> Loaded:
    """Give a network weights that others have published; what it has of a head stays its own.

    Args:
        network: filled in place.
        weights: one of `RELEASES`, whose published file is fetched; or NAME=FILE, for a file in
            their layout that is here, or NAME=OWNER/NAME for a Hugging Face repository.

    Raises:
        UsageError: no such name or file, or weights of another network.
        SonantError: the file cannot be fetched or read.
    """
    name, named, file = weights.partition("=")
    release = known(name)
    if named and not file:
        raise UsageError(f"{weights} names no file after the =; wanted is NAME=FILE, or NAME alone")
    digits = "" if file else hash_in(release.url)
    return load(network, _file(file or None, release.url), sha256=digits)


def _file(path: Path | str | None, url: str) -> Path:
    if path is None:
        return fetch(url)
    if isinstance(path, Path):
        return path
    return hub.fetch(path, [url.rsplit("/", 1)[-1]])


def known(name: str) -> Release:
    """A release by its name.

    Raises:
        UsageError: there is none.
    """
    if name not in RELEASES:
        raise UsageError(f"no released weights {name!r}; there are {', '.join(RELEASES)}")
    return RELEASES[name]


def load(network: nn.Module, path: Path, *, sha256: str = "", head: bool = False) -> Loaded:
    """Fill a network with the tensors of a PyTorch file that bear the names of its own.

    All must be there and of the same shape, but for the head (`fc`) and batch norms' counters.

    Args:
        network: filled in place.
        path: of a file that holds a state dict and nothing else.
        sha256: first digits of the hash that the file must have; "" takes any.
        head: whether the head is taken too; else the file's, if any, is left aside.

    Raises:
        UsageError: no such file, another content, or weights of another network.
        SonantError: the file cannot be read.
    """
    digest = _hash(path)
    if not digest.startswith(sha256.lower()):
        raise UsageError(f"{path}: another file: its SHA-256 is {digest[:8]}..., not {sha256}...")
    there, own = _read(path), network.state_dict()
    if head and not any(name.startswith(HEAD) for name in own):
        raise UsageError(f"{path}: its head has no place in a network without one: give classes")
    wanted = {name for name in own if head or not name.startswith(HEAD)}
    taken = sorted(wanted & there.keys())
    missing = sorted(name for name in wanted - there.keys() if not name.endswith(COUNTER))
    foreign = sorted(n for n in there.keys() - own.keys() if not n.startswith(HEAD))
    reshaped = [name for name in taken if there[name].shape != own[name].shape]
    if missing or foreign or reshaped:
        lines = _differences(own, there, missing, foreign, reshaped)
        raise UsageError("\n  ".join([f"{path}: not the weights of this network:", *lines]))
    network.load_state_dict({name: there[name] for name in taken}, strict=False)
    aside = sorted(there.keys() - set(taken))
    fresh = sorted(n for n in own.keys() - set(taken) if not n.endswith(COUNTER))
    return Loaded(path, digest, tuple(taken), tuple(aside), tuple(fresh))


def fetch(url: str) -> Path:
    """Download a file whose name ends in digits of its SHA-256, unless it is here already.

    Returns:
        Its path, in the folder that torch hub keeps (`TORCH_HOME` moves it).

    Raises:
        UsageError: a name that tells no hash.
        SonantError: it cannot be fetched, or is not what its name says.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    wanted = hash_in(url)
    if path.is_file() and _hash(path).startswith(wanted):
        return path
    with replacing(path) as partial_file:
        try:
            torch.hub.download_url_to_file(url, str(partial_file), progress=sys.stderr.isatty())
        except (OSError, HTTPException, ValueError) as error:
            raise SonantError(
                f"{url}: cannot be fetched: {error}; a copy of it that is here can be given by its "
                "path (`NAME=FILE`), or be put where it is looked for: "
                f"{path}"
            ) from error
        digest = _hash(partial_file)
        if not digest.startswith(wanted):
            raise SonantError(f"{url}: came with a SHA-256 of {digest[:8]}...: damaged on its way?")
    return path


def hash_in(url: str) -> str:
    """The first digits of the SHA-256 that a file's name ends in.

    Raises:
        UsageError: there are none.
    """
    found = re.search(r"-([0-9a-f]{8,64})\.[^./]+$", url)
    if found is None:
        raise UsageError(
            f"{url}: its name does not end in 8 or more digits of its SHA-256, as in "
            "name-0123abcd.pth"
        )
    return found[1]


def _hash(path: Path) -> str:
    if not path.is_file():
        raise UsageError(f"{path}: no such file of weights")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path) -> dict[str, Tensor]:
    """A state dict, on the processor."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # foreign bytes fail to unpickle in every way there is
        raise SonantError(
            f"{path}: not readable as PyTorch weights: {damage(path, error)}; wanted are tensors "
            "by name, as torch.save writes them"
        ) from error
    if not isinstance(found, Mapping):
        raise UsageError(f"{path}: holds a {type(found).__name__}, not tensors by name")
    if others := [str(name) for name, value in found.items() if not isinstance(value, Tensor)]:
        names = ", ".join(others[:SHOWN])
        raise UsageError(f"{path}: holds more than tensors by name: {names}; save those alone")
    return dict(found)


def _differences(
    own: Mapping[str, Tensor],
    there: Mapping[str, Tensor],
    missing: list[str],
    foreign: list[str],
    reshaped: list[str],
) -> list[str]:
    """What is wrong with a file, a line each."""
    shapes = [
        f"{name} is {list(there[name].shape)}, in the network {list(own[name].shape)}"
        for name in reshaped
    ]
    lines = _first([f"{name} is not in it" for name in missing])
    lines += _first([f"{name} is in it, but not of the network" for name in foreign])
    lines += _first(shapes)
    if reshaped and not missing + foreign and all(".0.conv2." in name for name in reshaped):
        lines.append("these differ by how midplanes are counted: try the other of the two ways")
    return lines


def _first(lines: list[str]) -> list[str]:
    more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return lines[:SHOWN] + more
