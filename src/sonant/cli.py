"""The command `sonant`: each command is a function here, its flags are the function's signature.

Exit codes: 0 done, 1 the work failed or training was told to end and saved, 2 wrong use, 130
interrupted, 143 told to end.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import re
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, get_type_hints

import tyro
from rich.console import Console
from rich.table import Table

from sonant import __version__
from sonant.clips import Clips
from sonant.errors import SonantError, UsageError
from sonant.features import Features
from sonant.files import why

Command = Callable[..., None]
console = Console(quiet=os.environ.get("RANK", "0") != "0")
"""Under torchrun, the first process speaks for all."""


Root = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="ROOT")]
Out = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
ClipTable = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CLIPS")]
PackFolder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PACK")]
RunFolder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
Report = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="REPORT")]


def index_folder(
    root: Root,
    *,
    narrations: Path | None = None,
    labels: Path | None = None,
    out: Path = Path("clips.parquet"),
    before: float = 0.5,
    after: float = 1.0,
    stride: float | None = None,
    seed: int = 0,
    workers: int = 2,
) -> None:
    """Make the clip table of a folder of videos.

    Args:
        root: the folder; videos are looked for at any depth.
        narrations: CSV with columns video, time (or start and end) and text; id, split and labels
            as you like. Without it, every video is cut into windows.
        labels: a second CSV with columns video and time, matching the narrations, and labels.
        out: the clip table to write.
        before: seconds of the clip before the narrated time.
        after: seconds of the clip after it.
        stride: seconds between un-narrated windows; a window's length if not given.
        seed: of the split into train, val and test, which is by video.
        workers: processes that look into the videos.
    """
    from sonant.sources.folder import Window, folder

    clips = folder(
        root,
        narrations=narrations,
        labels=labels,
        window=Window(before, after),
        stride=stride,
        seed=seed,
        workers=workers,
    )
    write_clips(clips, out)


def index_world(
    root: Root,
    *,
    out: Path = Path("clips.parquet"),
    before: float = 0.5,
    after: float = 1.0,
    seed: int = 0,
    workers: int = 2,
) -> None:
    """Make the clip table of a world that `sonant world` wrote, its truth as labels.

    Args:
        root: the world's folder.
        out: the clip table to write.
        before: seconds of the clip before the narrated time.
        after: seconds of the clip after it.
        seed: of the split into train, val and test, which is by video.
        workers: processes that look into the videos.
    """
    if not (root / "truth.csv").is_file():
        raise UsageError(f"{root}: no truth.csv there; `sonant world {root}` makes a world")
    index_folder(
        root,
        narrations=root / "narrations.csv",
        labels=root / "truth.csv",
        out=out,
        before=before,
        after=after,
        seed=seed,
        workers=workers,
    )


def world(
    out: Out,
    *,
    videos: int = 60,
    seed: int = 0,
    workers: int = 2,
    check: bool = False,
) -> None:
    """Write the synthetic narrated world: video files, narrations, and the truth apart from them.

    Args:
        out: folder to write to; videos that are there already stay.
        videos: how many, of one to three minutes each.
        seed: the same seed makes the same content.
        workers: processes.
        check: instead, make a fresh world of about 16,000 clips, train small supervised heads on
            it and print how it meets what docs/world.md demands of it (half an hour).
    """
    if check:
        from sonant.world_check import check as check_world

        check_world(out, seed=seed)
        return
    from sonant.sources.world import world as make_world

    make_world(out, videos=videos, seed=seed, workers=workers)


def pack(
    clips: ClipTable,
    out: Out,
    *,
    frame_rate: float = 16.0,
    short_side: int = 112,
    rate: int = 16000,
    workers: int = 2,
) -> None:
    """Decode every video once and write its clips to shards that training can read at random.

    Args:
        clips: a clip table.
        out: folder for the shards and for clips.parquet, the table with the clips' places in them.
        frame_rate: frames kept a second.
        short_side: pixels of the frames' shorter side.
        rate: samples a second of the kept sound, in hertz.
        workers: processes.
    """
    from sonant.media.pack import pack as pack_clips

    packed = pack_clips(
        Clips.read(clips),
        out,
        frame_rate=frame_rate,
        short_side=short_side,
        rate=rate,
        workers=workers,
    )
    show_quarantine(packed)
    console.print(f"{len(packed.where(packed=True))} clips packed in {out}")


def embed(
    run: RunFolder,
    pack: PackFolder,
    out: Out,
    *,
    batch: int = 64,
    workers: int = 2,
) -> None:
    """Write the embeddings of a pack's clips as a table of features.

    Args:
        run: folder of a trained run.
        pack: folder of a pack.
        out: the Parquet file to write.
        batch: clips at a time; it does not change the result.
        workers: processes that decode ahead.
    """
    from sonant.embed import embed as embed_clips
    from sonant.media.pack import Pack

    media = Pack.open(pack)
    show_quarantine(media.clips)
    features = embed_clips(run, media.clips, out, media=media, batch=batch, workers=workers)
    console.print(f"{len(features)} clips embedded in {out}")


def score_discovery(
    pack: PackFolder,
    *,
    features: tuple[str, ...],
    baselines: tuple[str, ...] = (),
    trivial: bool = False,
    split: str = "test",
    reference_split: str = "train",
    temperature: float = 0.07,
    out: Path = Path("report.json"),
    scores: Path | None = None,
    seed: int = 0,
) -> None:
    """Judge which clips' actions sound: ROC and PR areas, or bare scores where there is no truth.

    Args:
        pack: folder of a pack.
        features: NAME=FILE of each model's features; the first is compared with the others.
        baselines: NAME=FILE of features whose own scores are rows too, such as a supervised head's.
        trivial: measure loudness, flux, motion and the like as rows too.
        split: the clips to judge; "all" for all of them.
        reference_split: the clips that double-centred and PMI scores compare with; "all" for the
            judged ones themselves.
        temperature: of the PMI score, the training's.
        out: the report to write.
        scores: a Parquet file for the first model's score of every clip.
        seed: of the bootstrap over videos.
    """
    from sonant import report
    from sonant.media.pack import Pack
    from sonant.tasks.agreement import agreement, examples
    from sonant.tasks.discovery import discovery
    from sonant.tasks.trivial import trivial as measure

    asked = (features, baselines, trivial, split, reference_split, temperature, seed)
    made_from = {"discovery": _key(asked, pack, *named(features + baselines).values())}
    if report.holds(out, made_from) and (scores is None or scores.is_file()):
        console.print(report.discovery_table(report.read(out)))
        return
    clips = Pack.open(pack).clips
    models, beside = features_of(clips, features), features_of(clips, baselines)
    measured = measure(clips, pack, pack / "trivial.parquet")
    chosen = None if split == "all" else split
    bank = None if reference_split == "all" else reference_split
    found = discovery(
        models,
        clips,
        split=chosen,
        reference_split=bank,
        temperature=temperature,
        baselines=beside | ({"trivial": measured} if trivial else {}),
        seed=seed,
    )
    scored = agreement(
        next(iter(models.values())),
        clips,
        split=chosen,
        reference_split=bank,
        temperature=temperature,
    )
    if scores is not None:
        scored.write(scores)
    pair = "AV raw" if "AV raw" in scored.scores else "AL raw"
    shown = examples(scored, clips, measured, score=pair)
    report.save(out, clips=clips, discovery=found, examples=shown, made_from=made_from)
    console.print(report.discovery_table(report.read(out)))


def score_retrieval(
    pack: PackFolder,
    *,
    features: tuple[str, ...],
    split: str = "test",
    reference_split: str = "train",
    centred: bool = False,
    more_than: int = 2,
    out: Path = Path("report.json"),
    seed: int = 0,
) -> None:
    """Judge how well sound, sight and narration of like actions find each other.

    Args:
        pack: folder of a pack.
        features: NAME=FILE of each model's features.
        split: the clips to judge; "all" for all of them.
        reference_split: the clips that centred similarities compare with; "all" for the judged.
        centred: take off each clip's mean similarity with the reference.
        more_than: sounding clips that a verb-noun group needs more of.
        out: the report to write, or to add to.
        seed: of the halves, the permutations and the bootstrap.
    """
    from sonant import report
    from sonant.media.pack import Pack
    from sonant.tasks.retrieval import retrieval

    asked = (features, split, reference_split, centred, more_than, seed)
    made_from = {"retrieval": _key(asked, pack, *named(features).values())}
    if report.holds(out, made_from):
        console.print(report.retrieval_table(report.read(out)))
        return
    clips = Pack.open(pack).clips
    found = retrieval(
        features_of(clips, features),
        clips,
        split=None if split == "all" else split,
        reference_split=None if reference_split == "all" else reference_split,
        centred=centred,
        more_than=more_than,
        seed=seed,
    )
    report.save(out, clips=clips, retrieval=found, made_from=made_from)
    console.print(report.retrieval_table(report.read(out)))


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


def named(pairs: tuple[str, ...]) -> dict[str, Path]:
    """NAME=FILE arguments as a dict."""
    split = [pair.partition("=") for pair in pairs]
    if wrong := [pair for pair, (name, _, path) in zip(pairs, split, strict=True) if not path]:
        raise UsageError(f"{wrong[0]!r} is not of the form NAME=FILE, such as mc3=features.parquet")
    names = [name for name, _, _ in split]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"{repeated[0]!r} is the name of more than one file; names are unique")
    return {name: Path(path) for name, _, path in split}


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


def _key(asked: object, pack: Path, *features: Path) -> str:
    """Hash of what a score is asked for and of the files that it is made from."""
    hash = hashlib.sha256(f"{__version__} {asked!r}".encode())
    for path in (pack / "clips.parquet", *features):
        if not path.is_file():
            raise UsageError(f"{path}: no such file")
        hash.update(hashlib.sha256(path.read_bytes()).digest())
    return hash.hexdigest()


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


def trainings() -> dict[str, Command]:
    """A command for each recipe, and one that does a run again."""
    from sonant.train import RECIPES

    return {name: _training(recipe) for name, recipe in RECIPES.items()} | {"again": train_again}


def train_again(
    run: RunFolder,
    pack: PackFolder,
    out: Out,
    *,
    split: str = "train",
    workers: int = 2,
    cache: bool = True,
) -> None:
    """Do a recorded run again: its recipe with its arguments, on the clips of a pack.

    Args:
        run: folder of the run to do again.
        pack: folder of the pack to train on.
        out: folder of the new run.
        split: the clips to train on.
        workers: processes that decode ahead.
        cache: keep decoded clips in PACK/cache, about 200 kB each for small towers.
    """
    from sonant.checkpoint import check_same_data, recorded
    from sonant.media.pack import Pack

    recipe, arguments = recorded(run)
    check_same_data(run, Pack.open(pack).clips.where(split=split, packed=True, quarantined=False))
    train(recipe, arguments, pack, out, split=split, workers=workers, cache=cache)


def train(
    recipe: Callable[..., Any],
    arguments: Mapping[str, Any],
    pack: Path,
    run: Path,
    *,
    split: str,
    workers: int,
    cache: bool,
) -> None:
    """Train a recipe on the good clips of one split of a pack."""
    from sonant.media.pack import Pack
    from sonant.train import train as train_run

    clips = Pack.open(pack).clips.where(split=split, packed=True, quarantined=False)
    media = Pack(clips, pack)
    kept = pack / "cache" if cache else None
    train_run(recipe, arguments, clips, run, media=media, workers=workers, cache=kept)
    console.print(f"trained in {run}")


def _training(recipe: Callable[..., Any]) -> Command:
    """The command of a recipe: the pack, the run, and the recipe's own keyword arguments."""

    def command(
        *, pack: Path, run: Path, split: str, workers: int, cache: bool, **arguments: Any
    ) -> None:
        train(recipe, arguments, pack, run, split=split, workers=workers, cache=cache)

    hints = get_type_hints(recipe)
    own = list(inspect.signature(recipe).parameters.values())[1:]
    added = {
        "pack": (PackFolder, inspect.Parameter.empty),
        "run": (RunFolder, inspect.Parameter.empty),
        "split": (str, "train"),
        "workers": (int, 2),
        "cache": (bool, True),
    }
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter(name, keyword, annotation=kind, default=default)
        for name, (kind, default) in added.items()
    ] + [p.replace(annotation=hints[p.name]) for p in own]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__doc__ = re.sub(r"\n +tokenizer: .*", TRAIN_ARGUMENTS, inspect.getdoc(recipe) or "")
    return command


TRAIN_ARGUMENTS = """
    pack: folder of the pack to train on.
    run: folder of the run; one that was interrupted goes on, a finished one is left alone.
    split: the clips to train on.
    workers: processes that decode ahead.
    cache: keep decoded clips in PACK/cache, about 200 kB each for small towers."""


@dataclass(frozen=True)
class Group:
    """Commands under a common word; made only when the word is used, since some import torch."""

    about: str
    commands: Callable[[], Mapping[str, Command]]


COMMANDS: Mapping[str, Command | Group] = {
    "world": world,
    "index": Group(
        "Make the clip table of a data set.",
        lambda: {"folder": index_folder, "world": index_world},
    ),
    "pack": pack,
    "train": Group("Train a method by its recipe.", trainings),
    "embed": embed,
    "score": Group(
        "Judge features by a task.",
        lambda: {"discovery": score_discovery, "retrieval": score_retrieval},
    ),
    "report": make_report,
    "demo": demo,
    "doctor": doctor,
}


def write_clips(clips: Clips, out: Path) -> None:
    """Write a clip table and say what is in it."""
    clips.write(out)
    show_quarantine(clips)
    console.print(f"{len(clips)} clips of {len(set(clips.column('video')))} videos in {out}")


def show_quarantine(clips: Clips) -> None:
    """Print the clips that cannot be used, by reason."""
    bad = clips.where(quarantined=True)
    if not len(bad):
        return
    table = Table(title=f"{len(bad)} of {len(clips)} clips in quarantine", title_justify="left")
    table.add_column("reason")
    table.add_column("clips", justify="right")
    table.add_column("the first", overflow="fold")
    groups: dict[str, list[str]] = {}
    for id, reason in zip(bad.column("id"), bad.column("quarantine"), strict=True):
        groups.setdefault(reason, []).append(id)
    for reason, ids in sorted(groups.items(), key=lambda item: -len(item[1])):
        table.add_row(reason, str(len(ids)), ids[0])
    console.print(table)


class Terminated(BaseException):
    """SIGTERM came; raised so that open files, folders and workers are left in order."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
    try:
        return _dispatch("sonant", COMMANDS, words)
    except UsageError as error:
        return _fail(error, 2)
    except SonantError as error:
        return _fail(error, 1)
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
    tyro.cli(command, args=words[1:], prog=prog)
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
