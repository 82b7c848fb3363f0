"""Explanations to look at: a film with heat over its frames, and a sheet of both modalities."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from sonant.data import Views
from sonant.errors import SonantError
from sonant.explain.clip import Explanation, Heat
from sonant.files import replacing
from sonant.media.read import Media
from sonant.report.films import film

Array = np.ndarray[Any, Any]

SHORT_SIDE = 336
"""Pixels of a film's frames."""
STRIP = 96
"""Pixels of the spectrogram under them."""
STRONGEST = 0.7
"""How much of the picture the highest heat covers."""
DIM = 0.45
"""What is left of the light where the model does not look at all: beyond its square and seconds."""
WINDOW = 0.025
"""Seconds of sound that a column of a spectrogram stands for, at least."""
COLUMNS = 8
"""Most frames of a sheet."""
CMAP = "inferno"
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "text.parse_math": False,
    "axes.titlesize": 9,
}
MEANING = {
    "AV": "cosine of sound and pictures",
    "AL": "cosine of sound and narration",
    "VL": "cosine of pictures and narration",
}


def write_film(explanation: Explanation, media: Media, views: Views, out: Path) -> Path:
    """Write the clip as an mp4 (H.264, AAC) with heat over its frames, and its own sound.

    What the model does not see of the frames is dark, and so are frames before and after those that
    it sees. Between these, heat goes over from one to the next. Under them runs the spectrogram
    with its heat, black where nothing is heard, and a line where the film is. Where a modality was
    not looked into, it is shown without heat.

    Args:
        explanation: of the clip.
        media: the same clip, with as many frames as the film is to have.
        views: of the model.
        out: the file.

    Raises:
        SonantError: the clip has no pictures, or the file cannot be written.
    """
    if media.frames is None or media.frame_times is None:
        raise SonantError(f"clip {explanation.id!r} has no pictures to make a film of")
    shown = _enlarged(media.frames)
    heat = explanation.heats.get("video")
    if heat is not None:
        seen = np.ones(len(shown), bool)
        if views.film:
            seen = _covered(heat, media.frame_times, 0.0)
        shown = _heated(shown, _at(heat, media.frame_times), seen, views)
    if "audio" in explanation.heats:
        shown = _over_strip(shown, explanation.heats["audio"], media)
    whole = film(Media(shown, media.frame_times, media.samples, media.samples_start, media.rate))
    with replacing(out) as partial:
        partial.write_bytes(whole)
    return out


def write_sheet(explanation: Explanation, out: Path, *, run: str = "") -> Path:
    """Write a PNG: frames as the model sees them, the same with heat, the spectrogram with heat.

    Args:
        explanation: of the clip.
        out: the file.
        run: name of the model, for the head.

    Raises:
        SonantError: the file cannot be written.
    """
    video, audio = explanation.heats.get("video"), explanation.heats.get("audio")
    heights = ([2.3] if video else []) + ([1.7] if audio else [])
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11.5, 1.15 + 1.2 * sum(heights)), dpi=110, layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(_head(explanation, run), x=0.01, ha="left", fontsize=10)
        parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False).ravel()
        if video is not None:
            _frames(parts[0], video)
        if audio is not None:
            _spectrogram(parts[-1], audio, video)
        whole = io.BytesIO()
        figure.savefig(whole, format="png", metadata={"Software": None})
    with replacing(out) as partial:
        partial.write_bytes(whole.getvalue())
    return out


def blended(pixels: Array, heat: Array) -> Array:
    """Grey pictures [..., 3] with heat [...] over them in colour, uint8: the hotter, the denser."""
    grey = (pixels[..., :3] @ np.array([0.299, 0.587, 0.114]))[..., None]
    share = STRONGEST * heat[..., None]
    colours = 255 * mpl.colormaps[CMAP](heat)[..., :3]
    return np.asarray(np.rint((1 - share) * grey + share * colours), np.uint8)


def _head(explanation: Explanation, run: str) -> str:
    said = f" “{explanation.text}”" if explanation.text else ""
    meaning = MEANING.get(explanation.target, "the model's own score")
    line = f"{explanation.target}, {meaning}: {explanation.value:.2f}".replace("-", "−")
    return (
        f"{explanation.id}{said}\n{line}   ·   {run}" if run else f"{explanation.id}{said}\n{line}"
    )


def _frames(part: Any, heat: Heat) -> None:
    """Frames as they are, under them with heat, and their seconds."""
    shown = np.unique(np.linspace(0, len(heat.seen) - 1, COLUMNS).round().astype(int))
    grid = part.subplots(2, len(shown), squeeze=False)
    for column, frame in enumerate(shown):
        pixels, values = heat.seen[frame], heat.values[frame]
        for axes, picture in zip(grid[:, column], (pixels, blended(pixels, values)), strict=True):
            axes.imshow(picture)
            axes.set(xticks=[], yticks=[])
        label = f"{heat.seconds[frame]:.2f} s\nup to {values.max():.2f}"
        grid[1, column].set_xlabel(label)
    grid[0, 0].set_ylabel("seen")
    grid[1, 0].set_ylabel(f"heat\n{heat.layer}")


def _spectrogram(part: Any, heat: Heat, video: Heat | None) -> None:
    axes: Axes = part.subplots()
    step = heat.seconds[1] - heat.seconds[0] if len(heat.seconds) > 1 else 1.0
    bins = heat.values.shape[1]
    extent = (heat.seconds[0] - step / 2, heat.seconds[-1] + step / 2, -0.5, bins - 0.5)
    picture = blended(_grey(heat.seen), heat.values).transpose(1, 0, 2)
    axes.imshow(picture, aspect="auto", origin="lower", extent=extent, interpolation="nearest")
    axes.set(xlabel="seconds", ylabel=f"sound, heat\n{heat.layer}")
    if heat.hertz is None:
        axes.set_ylabel(f"sound, heat\n{heat.layer}\nbin")
    else:
        low, high = heat.hertz[0], heat.hertz[-1]
        marks = [hz for hz in (250, 500, 1000, 2000, 4000, 8000) if low <= hz <= high]
        places = np.interp(marks, heat.hertz, np.arange(bins))
        axes.set_yticks(places, [f"{hz} Hz" for hz in marks])
    for second in () if video is None else video.seconds:
        axes.axvline(second, color="white", linewidth=0.6, linestyle=":", alpha=0.7)
    scale = part.colorbar(mpl.cm.ScalarMappable(cmap=CMAP), ax=axes, pad=0.01, fraction=0.03)
    scale.set_label("heat, of its highest")


def _grey(spectrogram: Array) -> Array:
    """A spectrogram as a picture [time, bins, 3] in 0 to 255, from its lowest to its highest."""
    low, high = float(spectrogram.min()), float(spectrogram.max())
    grey = 255 * (spectrogram - low) / max(high - low, 1e-9)
    return np.repeat(grey[..., None], 3, -1)


def _enlarged(frames: Array) -> Array:
    """Frames with a short side of `SHORT_SIDE`, of even sizes."""
    height, width = frames.shape[1:3]
    scale = SHORT_SIDE / min(height, width)
    size = (round(width * scale / 2) * 2, round(height * scale / 2) * 2)
    return _resized(frames, size)


def _resized(pictures: Array, size: tuple[int, int]) -> Array:
    """Pictures, or maps in floats, at (width, height), in straight lines."""
    resized = [Image.fromarray(one).resize(size, Image.Resampling.BILINEAR) for one in pictures]
    return np.stack([np.asarray(one) for one in resized])


def _at(heat: Heat, times: Array) -> Array:
    """Heat [times, ...] at other seconds than the frames', in straight lines between them."""
    seconds, values = heat.seconds, heat.values
    after = np.clip(np.searchsorted(seconds, times), 1, max(1, len(seconds) - 1))
    before, after = after - 1, np.minimum(after, len(seconds) - 1)
    width = np.maximum(seconds[after] - seconds[before], 1e-9)
    share = np.clip((times - seconds[before]) / width, 0, 1).astype(np.float32)
    share = share.reshape(-1, *[1] * (values.ndim - 1))
    found: Array = (1 - share) * values[before] + share * values[after]
    return found


def _covered(heat: Heat, times: Array, least: float) -> Array:
    """Which of some seconds the model's frames or windows stand for: half a step to either side.

    Args:
        heat: of what the model sees; a single frame stands for all of the clip.
        times: seconds.
        least: seconds of a step at least.
    """
    seconds = heat.seconds
    if len(seconds) == 1:
        return np.ones(len(times), bool)
    step = max(float(seconds[-1] - seconds[0]) / (len(seconds) - 1), least)
    covered: Array = (times >= seconds[0] - step / 2) & (times <= seconds[-1] + step / 2)
    return covered


def _heated(frames: Array, heat: Array, seen: Array, views: Views) -> Array:
    """Frames with heat over the square that the model sees, dark around it and where it sees none.

    Args:
        frames: of the film.
        heat: of each frame.
        seen: which frames the model sees.
        views: of the model.
    """
    height, width = frames.shape[1:3]
    side = round(min(height, width) * views.size / views.kept_size)
    top, left = (height - side) // 2, (width - side) // 2
    found = np.asarray(frames * DIM, np.uint8)
    square = frames[seen, top : top + side, left : left + side]
    if seen.any():
        hot = blended(square, _resized(heat[seen], (side, side)))
        found[seen, top : top + side, left : left + side] = hot
    return found


def _over_strip(frames: Array, heat: Heat, media: Media) -> Array:
    """Frames over the spectrogram, from the first sample to the last, and where the film is."""
    assert media.frame_times is not None
    assert media.samples is not None
    assert media.samples_start is not None
    width = frames.shape[2]
    length = len(media.samples) / media.rate
    columns = media.samples_start + (np.arange(width) + 0.5) * length / width
    nearest = np.abs(columns[:, None] - heat.seconds).argmin(1)
    picture = blended(_grey(heat.seen), heat.values)[nearest].transpose(1, 0, 2)[::-1]
    picture[:, ~_covered(heat, columns, WINDOW)] = 0
    strip = np.asarray(Image.fromarray(picture).resize((width, STRIP), Image.Resampling.BILINEAR))
    strips = np.repeat(strip[None], len(frames), 0)
    at = np.abs(columns - np.asarray(media.frame_times)[:, None]).argmin(1)
    for number, column in enumerate(at):
        strips[number, :, max(0, column - 1) : column + 1] = 255
    return np.concatenate([frames, strips], 1)
