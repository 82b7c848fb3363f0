"""The command `sonant`: each command is a function here, its flags are the function's signature.

Exit codes: 0 done, 1 the work failed, 2 wrong use, 130 interrupted, 143 told to end, be it that
training has saved.
"""

from __future__ import annotations

import inspect
import re
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import tyro
from rich.console import Console
from rich.table import Table

from sonant import __version__
from sonant.cli.arguments import (
    LOCAL_PATHS,
    ClipTable,
    Command,
    EmbedPlaces,
    Out,
    Report,
    console,
    demand_good,
    local,
    named,
    show_quarantine,
)
from sonant.cli.bench import BENCH
from sonant.cli.explain import explain
from sonant.cli.index import INDEX
from sonant.cli.score import SCORE
from sonant.cli.train import trainings
from sonant.cli.transfer import transfers
from sonant.clips import Clips
from sonant.errors import SonantError, UsageError
from sonant.files import again, stamp, why
from sonant.types import Map


def world(
    out: Out,
    *,
    videos: int | None = None,
    seed: int = 0,
    workers: int = 2,
    check: bool = False,
) -> None:
    """Write the synthetic narrated world: video files, narrations, and the truth apart from them.

    Args:
        out: folder to write to; videos that are there already stay.
        videos: how many, of one to three minutes each; 60 if not given.
        seed: the same seed makes the same content.
        workers: processes.
        check: instead, make a fresh world of about 16,000 clips, train small supervised heads on
            it and print how it meets what docs/world.md demands of it (half an hour).
    """
    if check and videos is not None:
        raise UsageError(
            f"--check makes a world of its own size, and --videos {videos} asks for another: give "
            "the one or the other"
        )
    if check:
        from sonant.world_check import check as check_world

        check_world(out, seed=seed, workers=workers)
        return
    from sonant.sources.world import world as make_world

    videos = 60 if videos is None else videos
    make_world(out, videos=videos, seed=seed, workers=workers)
    console.print(f"{videos} videos in {out}")


def pack(
    clips: ClipTable,
    out: Out,
    *,
    frame_rate: float = 16.0,
    short_side: int = 112,
    rate: int = 16000,
    partial: bool = False,
    workers: int = 2,
) -> None:
    """Decode every video once and write its clips to shards that training can read at random.

    Args:
        clips: a clip table.
        out: folder for the shards and for clips.parquet, the table with the clips' places in them.
        frame_rate: frames kept a second.
        short_side: pixels of the frames' shorter side.
        rate: samples a second of the kept sound, in hertz.
        partial: pack clips of files that have sound alone or pictures alone too, without the other.
        workers: processes.
    """
    from sonant.media.pack import pack as pack_clips

    before = _shards(out)
    packed = pack_clips(
        Clips.read(clips),
        out,
        frame_rate=frame_rate,
        short_side=short_side,
        rate=rate,
        partial=partial,
        workers=workers,
    )
    show_quarantine(packed)
    said = ", as before" if before and _shards(out) == before else ""
    console.print(f"{len(packed.where(packed=True))} clips packed in {out}{said}")
    if torn := packed.torn():
        console.print(
            f"{len(torn)} videos have clips in more than one split, the first is {torn[0]}: clips "
            "of one video are alike, and so figures on them flatter",
            markup=False,
        )
    demand_good(packed, out)


def _shards(pack: Path) -> dict[str, list[int] | None]:
    return {path.name: stamp(path) for path in [*pack.glob("*.tar"), *pack.glob("*.parquet")]}


def embed(
    places: EmbedPlaces,
    *,
    weights: str | None = None,
    frames: int | None = None,
    size: int | None = None,
    layer: Map | None = None,
    batch: int = 64,
    workers: int = 2,
) -> None:
    """Write the embeddings of a pack's clips as a table of features.

    Args:
        places: folder of a trained run (none with --weights), folder of a pack, the Parquet file to
            write.
        weights: instead of a run: name of published weights, which see and do not hear, such as
            xdc-ig65m-kinetics; NAME=FILE for a file in their layout that is here, NAME=OWNER/NAME
            for a Hugging Face repository that has the published one.
        frames: of a clip that published weights see; as in their training if not given.
        size: pixels a side that published weights see; as in their training if not given.
        layer: of XDC's and AVCL's networks, write this map, all its numbers in a row, instead of
            what the network gives.
        batch: clips at a time; it does not change the result.
        workers: processes that decode ahead.
    """
    from sonant.media.pack import Pack

    run, pack, out = _embed_places(places, weights, frames, size)
    before = stamp(out)
    media = Pack.open(pack)
    show_quarantine(media.clips)
    if weights is not None:
        from sonant.embed import embed_released, pace, released_model

        name, _, file = weights.partition("=")
        model, said = released_model(name, path=file or None, frames=frames, size=size)
        console.print(said, highlight=False)
        good = Pack(media.clips.where(quarantined=False), pack)
        console.print(pace(name, model, good.clips), highlight=False)
        features = embed_released(
            model, good.clips, out, media=good, batch=batch, workers=workers, layer=layer
        )
    else:
        from sonant.embed import embed as embed_clips

        features = embed_clips(
            run,
            media.clips,
            out,
            media=media,
            batch=batch,
            workers=workers,
            cache=pack / "cache",
            layer=layer,
        )
    console.print(f"{len(features)} clips embedded in {out}{again(out, before)}")


def _embed_places(
    places: tuple[str, ...], weights: str | None, frames: int | None, size: int | None
) -> tuple[Path, Path, Path]:
    """The run (that nobody looks at, with weights), the pack, and the file to write."""
    if weights is None and (frames is not None or size is not None):
        raise UsageError("--frames and --size are for --weights; a run sees what its training saw")
    if len(places) != (3 if weights is None else 2):
        wanted = "a RUN, a PACK and OUT, or, with --weights NAME, a PACK and OUT"
        raise UsageError(f"embed wants {wanted}; given are {' '.join(places) or 'none'}")
    if weights is not None and weights.endswith("="):
        raise UsageError(
            f"--weights {weights} names no file after the =; wanted is NAME=FILE, or NAME alone, "
            "which fetches the published file"
        )
    paths = [local(place) for place in places]
    pack, out = paths[-2:]
    if pack.is_file():
        raise UsageError(f"{pack}: is a file; `sonant pack` makes a pack of a clip table")
    return paths[0], pack, out


def make_report(
    found: Report,
    out: Out = Path("report.html"),
    *,
    pack: Path | None = None,
    logs: tuple[str, ...] = (),
) -> None:
    """Make one HTML page of a report: tables, curves, histograms, clips that play.

    Args:
        found: the report.json that `sonant score` wrote.
        out: the page to write; it needs no network.
        pack: folder of the pack, for the clips to play.
        logs: NAME=FILE of training logs, for their curves.
    """
    from sonant.report import report

    console.print(f"open {report(found, out, pack=pack, logs=named(logs))}")


def doctor() -> None:
    """Say what sonant finds on this machine: versions, codecs, processors, space."""
    from sonant.doctor import doctor as look

    table = Table(box=None, show_header=False)
    for name, found in look().items():
        table.add_row(name, found)
    console.print(table)


def demo(out: Out = Path("demo"), *, videos: int = 80, seed: int = 0) -> None:
    """Do everything once: make a world, train on it, score, write OUT/report.html.

    Args:
        out: folder for everything it makes; what is done already is not done again.
        videos: size of the world, in videos of one to three minutes.
        seed: of the world and of the training.
    """
    from sonant.demo import commands

    for words in commands(out, videos=videos, seed=seed):
        console.print(f"\n$ sonant {shlex.join(words)}", style="bold", soft_wrap=True)
        _dispatch("sonant", COMMANDS, words)


@dataclass(frozen=True)
class Group:
    """Commands under a common word; made only when the word is used, since some import torch."""

    about: str
    commands: Callable[[], Mapping[str, Command]]


COMMANDS: Mapping[str, Command | Group] = {
    "world": world,
    "index": Group(
        "Make the clip table of a data set.",
        lambda: INDEX,
    ),
    "pack": pack,
    "train": Group("Train a method by its recipe.", trainings),
    "transfer": Group("Fine-tune a classifier on every fold, and judge it.", transfers),
    "embed": embed,
    "score": Group(
        "Judge features by a task.",
        lambda: SCORE,
    ),
    "explain": explain,
    "report": make_report,
    "bench": Group("Train and judge a paper's whole table.", lambda: BENCH),
    "demo": demo,
    "doctor": doctor,
}


class Terminated(BaseException):
    """SIGTERM came; raised so that open files, folders and workers are left in order."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
    try:
        return _dispatch("sonant", COMMANDS, words)
    except SonantError as error:
        return _fail(error, error.exit_code)
    except OSError as error:
        return _fail(f"{error.filename or 'a file'}: {why(error)}", 1)
    except KeyboardInterrupt:
        return _fail("interrupted; the same command goes on where this stopped", 130)
    except Terminated:
        return _fail("told to end; the same command goes on where this stopped", 143)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _dispatch(prog: str, commands: Mapping[str, Command | Group], words: list[str]) -> int:
    if words == ["--version"]:
        console.print(f"sonant {__version__}", highlight=False)
        return 0
    if not words or words[0] in ("-h", "--help"):
        _help(prog, commands)
        return 0 if words else 2
    if words[0] not in commands:
        raise UsageError(f"{prog} {words[0]}: no such command; there are {', '.join(commands)}")
    command = commands[words[0]]
    prog = f"{prog} {words[0]}"
    if isinstance(command, Group):
        return _dispatch(prog, command.commands(), words[1:])
    command.__doc__ = re.sub(r"\n {8}", " ", inspect.getdoc(command) or "")
    tyro.cli(
        command,
        args=words[1:],
        prog=prog,
        config=(tyro.conf.OmitArgPrefixes,),
        registry=LOCAL_PATHS,
    )
    return 0


def _help(prog: str, commands: Mapping[str, Command | Group]) -> None:
    table = Table(box=None, show_header=False, title=f"{prog} COMMAND --help", title_justify="left")
    for name, command in commands.items():
        about = command.about if isinstance(command, Group) else inspect.getdoc(command) or ""
        table.add_row(name, about.partition("\n")[0])
    console.print(table)


def _fail(message: object, code: int) -> int:
    told = Console(stderr=True)
    told.print(f"sonant: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
    return code
