"""`sonant explain`: where a trained model looked and listened."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro

from sonant.cli.arguments import RunFolder, console
from sonant.errors import UsageError
from sonant.types import Modality

if TYPE_CHECKING:
    from sonant.media.pack import Pack

Ids = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="CLIP-ID")]
FILM_RATE = 16.0
"""Frames a second that a film has, if the pack has as many."""
LONGEST = 120
"""Characters of a file's name."""
DRAWN, SPLIT = 400, "test"
"""Clips that are measured if none are named, and what they are drawn from."""


def explain(
    run: RunFolder,
    ids: Ids = (),
    *,
    pack: Path,
    out: Path = Path("explained"),
    target: str = "",
    video_layer: str = "",
    audio_layer: str = "",
    pooled: bool = True,
    world: Path | None = None,
    clips: int | None = None,
    split: str | None = None,
    seed: int = 0,
) -> None:
    """Show where a trained model looked and listened in clips, over time.

    Convolutional towers are explained by Grad-CAM, transformers by attention roll-out. Each clip
    becomes a film in OUT, an mp4 with heat over its frames and its own sound, and a sheet, a PNG
    of frames and spectrogram.

    Args:
        run: folder of a trained run.
        ids: of the clips; with --world and without any, those that are measured are drawn from a
            split.
        pack: folder of the pack that the clips are in.
        out: folder for the films and sheets, or for measure.json.
        target: what is explained: AV, AL or VL, the agreement (cosine) of sound (A), pictures (V)
            and narration (L); one of the model's own scores, by name; or best, the highest of them.
            If none is given it is best for a model with scores, else AV.
        video_layer: of the video tower, whose map is shown; by default the last one that still has
            space and time.
        audio_layer: of the audio tower, likewise.
        pooled: weigh each channel by the mean of its gradient, as Grad-CAM does; without, each cell
            by its own (HiResCAM).
        world: the narrated world that the clips are of: draw nothing, but measure how often the map
            points at the action's own pixels and sound, which are known there.
        clips: most clips that are drawn to be measured, of those whose actions sound; 400 if not
            given.
        split: that they are drawn from, test if not given; "all" for all of them.
        seed: of that draw and of the bootstrap over videos.
    """
    from sonant.media.pack import Pack

    ids = tuple(dict.fromkeys(ids))
    _check(ids, world, clips, split)
    layers: dict[Modality, str] = {"video": video_layer, "audio": audio_layer}
    media = Pack.open(pack)
    if world is None:
        _show(run, media, ids, out, target, layers, pooled)
        return
    from sonant.explain.clip import row_of
    from sonant.explain.measure import drawn, measure, table

    rows = np.array([row_of(media.clips, id) for id in ids], int)
    if not ids:
        most = DRAWN if clips is None else clips
        rows = drawn(media.clips, split=SPLIT if split is None else split, most=most, seed=seed)
    found = measure(run, media, rows, world, target=target, at=layers, pooled=pooled, seed=seed)
    found.write(out / "measure.json")
    console.print(table(found))


def _check(ids: tuple[str, ...], world: Path | None, clips: int | None, split: str | None) -> None:
    """Refuse to explain nothing, and to draw clips where some are named."""
    if not ids and world is None:
        raise UsageError(
            "name clips to explain by their ids, or measure on the narrated world with --world ROOT"
        )
    if ids and (clips is not None or split is not None):
        raise UsageError(
            "--clips and --split are for drawing the clips that --world measures, and clips are "
            f"named here, {ids[0]!r} the first: give the one or the other"
        )


def _show(
    run: Path,
    pack: Pack,
    ids: tuple[str, ...],
    out: Path,
    target: str,
    layers: Mapping[Modality, str],
    pooled: bool,
) -> None:
    """Draw clips, and say where each was looked at."""
    from sonant.embed import load
    from sonant.explain.clip import explain as explain_clip
    from sonant.explain.clip import row_of
    from sonant.explain.pictures import write_film, write_sheet

    rows = [row_of(pack.clips, id) for id in ids]
    model = load(run)
    frames = max(model.views.frames, round(FILM_RATE * model.views.seconds))
    for id, row, name in zip(ids, rows, _names(ids), strict=True):
        found = explain_clip(model, pack.clips, pack, id, target=target, at=layers, pooled=pooled)
        console.print(found.told(), markup=False, highlight=False, soft_wrap=True)
        written = [write_sheet(found, out / f"{name}.png", run=model.name)]
        media = pack.read(row, frames=frames)
        if media.frames is not None:
            written.append(write_film(found, media, model.views, out / f"{name}.mp4"))
        paths = "  ".join(map(str, written))
        console.print(f"  {paths}", markup=False, highlight=False, soft_wrap=True)


def _names(ids: tuple[str, ...]) -> list[str]:
    """Names of files for clips; the ids, as far as they make good names, if these differ."""
    from sonant.media.shard import key

    names = [re.sub(r"[^\w.@+=-]+", "-", id)[:LONGEST] for id in ids]
    return names if len(set(names)) == len(set(ids)) else [key(id) for id in ids]
