"""What commands take and show alike: kinds of arguments, files by name, clip tables."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
)

from sonant import __version__
from sonant.clips import Clips
from sonant.errors import SonantError, UsageError
from sonant.features import Features
from sonant.files import demand_writable, spare

Command = Callable[..., None]
console = Console(quiet=os.environ.get("RANK", "0") != "0")
"""Under torchrun, the first process speaks for all."""

Root = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="ROOT")]
Source = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
Out = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
ClipTable = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CLIPS")]
PackFolder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PACK")]
RunFolder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
EmbedPlaces = Annotated[
    tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[RUN] PACK OUT")
]
RoundTable = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TABLE")]
Report = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="REPORT")]

RESERVED = ("base rate", "verb prior", "chance", "guessing", "commonest class")
"""Rows of a report that are no model's."""
MOST_KINDS = 15
"""Of reasons, that a table of the quarantine shows."""
_NUMBER = re.compile(r"\d+(\.\d+)?")
LOCAL_PATHS = ConstructorRegistry()
"""For tyro: what is an address is no path, and must not be taken for one."""


@LOCAL_PATHS.primitive_rule
def _local_paths(argument: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Path] | None:
    if argument.type is not Path:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=lambda words: local(words[0]),
        is_instance=lambda value: isinstance(value, Path),
        str_from_instance=lambda path: [str(path)],
    )


def local(text: str) -> Path:
    """A path on this machine.

    Raises:
        UsageError: it is an address, such as of an object store.
    """
    if "://" in text:
        raise UsageError(
            f"{text}: commands work on local folders and files; at an address, packs can be read "
            "from Python, by sonant.media.pack.Pack.open(ADDRESS)"
        )
    return Path(text)


def named(pairs: tuple[str, ...]) -> dict[str, Path]:
    """NAME=FILE arguments as a dict.

    Raises:
        UsageError: one is of another form, or names are not unique or are those of other rows.
    """
    split = [pair.partition("=") for pair in pairs]
    parts = zip(pairs, split, strict=True)
    if wrong := [pair for pair, (name, _, path) in parts if not name or not path]:
        raise UsageError(f"{wrong[0]!r} is not of the form NAME=FILE, such as mc3=features.parquet")
    names = [name for name, _, _ in split]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"{repeated[0]!r} is the name of more than one file; names are unique")
    if taken := [name for name in names if name in RESERVED]:
        raise UsageError(f"{taken[0]!r} is a row of every report: choose another name")
    return {name: local(path) for name, _, path in split}


def features_of(clips: Clips, pairs: tuple[str, ...]) -> dict[str, Features]:
    """Read NAME=FILE features, all of just these clips."""
    wanted = clips.where(quarantined=False).packed_digest()
    found = {name: Features.read(path) for name, path in named(pairs).items()}
    for name, features in found.items():
        if features.data not in ("", wanted):
            raise UsageError(
                f"{named(pairs)[name]}: holds features of other clips, or of another pack of them; "
                "`sonant embed` makes those of this pack"
            )
    return found


def key(asked: object, pack: Path, *features: Path) -> str:
    """Hash of what a score is asked for and of the files that it is made from."""
    from sonant.media.pack import table_of

    hash = hashlib.sha256(f"{__version__} {asked!r}".encode())
    for path in (table_of(pack), *features):
        if not path.is_file():
            raise UsageError(f"{path}: no such file")
        hash.update(hashlib.sha256(path.read_bytes()).digest())
    return hash.hexdigest()


def split_of(pack: Path, name: str, flag: str = "--split") -> str | None:
    """The split of that name; None for all clips.

    Raises:
        UsageError: there is no such split.
    """
    from sonant.media.pack import Pack

    if name == "all":
        return None
    there = sorted(set(Pack.open(pack).clips.column("split")) - {""})
    if name not in there:
        known = f"; {', '.join(there)} and all are to choose from"
        none = f", nor in another; {flag} all takes all clips"
        raise UsageError(f"{flag} {name}: no clip is in that split{known if there else none}")
    return name


def write_clips(out: Path, make: Callable[[], Clips], *, made_from: str) -> Clips:
    """Write a clip table, unless it is there and made from just this, and say what is in it.

    Raises:
        SonantError: no clip of it can be used.
    """
    if Clips.holds(out, made_from):
        console.print(f"no file has changed since {out} was made; delete it to make it again")
        clips = Clips.read(out)
    else:
        spare(out, "sonant.clips", "clip table")
        demand_writable(out)
        clips = make()
        clips.write(out, made_from=made_from)
    show_quarantine(clips)
    videos = set(clips.column("video")) - {""}
    console.print(f"{len(clips)} clips of {len(videos)} videos in {out}")
    demand_good(clips, out)
    return clips


def demand_good(clips: Clips, out: Path) -> None:
    """Refuse to call it a success that there is no clip to go on with.

    Raises:
        SonantError: no clip of the table can be used.
    """
    reasons = Counter(clips.column("quarantine").tolist())
    if not reasons[""]:
        why = [f"; {n} of {len(clips)}: {reason}" for reason, n in reasons.most_common(1)]
        raise SonantError(f"{out}: no clip in it can be used{''.join(why)}")


def show_quarantine(clips: Clips) -> None:
    """Print the clips that cannot be used, by kind of reason: numbers make no other kind."""
    bad = clips.where(quarantined=True)
    if not len(bad):
        return
    table = Table(title=f"{len(bad)} of {len(clips)} clips in quarantine", title_justify="left")
    table.add_column("reason")
    table.add_column("clips", justify="right")
    table.add_column("the first", overflow="fold")
    counts: Counter[str] = Counter()
    told: dict[str, set[str]] = {}
    firsts: dict[str, tuple[str, str]] = {}
    for id, reason in zip(bad.column("id"), bad.column("quarantine"), strict=True):
        kind = _NUMBER.sub("", reason)
        counts[kind] += 1
        told.setdefault(kind, set()).add(reason)
        firsts.setdefault(kind, (reason, id))
    kinds = counts.most_common()
    for kind, count in kinds[:MOST_KINDS]:
        reason, id = firsts[kind]
        if len(told[kind]) > 1:
            reason = f"such as: {reason}"
        table.add_row(Text(reason), str(count), Text(id))  # not str, which may hold rich's markup
    if others := [count for _, count in kinds[MOST_KINDS:]]:
        more = "1 more kind" if len(others) == 1 else f"{len(others)} more kinds"
        table.add_row(f"and {more}", str(sum(others)), "")
    console.print(table)
