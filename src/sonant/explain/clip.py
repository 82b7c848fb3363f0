"""One clip explained: heat with the seconds, places and pitches that it belongs to."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from sonant.clips import Clips
from sonant.data import Arrays, Reader, Views, to_batch, to_device
from sonant.distributed import device
from sonant.embed import Model
from sonant.errors import SonantError, UsageError
from sonant.explain.maps import BEST, PAIRS, Found, Looked, default_target, find, needed
from sonant.media.audio import (
    AST_BINS,
    AST_HIGH,
    AST_LOW,
    AST_RATE,
    AST_SHIFT,
    AST_WINDOW,
    AVCL_BINS,
    AVCL_HOP,
    AVCL_RATE,
    AVCL_WINDOW,
    VMZ_BINS,
    VMZ_RATE,
    VMZ_WINDOW,
    mel_centres,
)
from sonant.media.read import Media
from sonant.methods.films import MIDDLE, MIDDLE_HOP, SoundPicture
from sonant.methods.moments import Moment
from sonant.types import Batch, Modality

Array = np.ndarray[Any, Any]
NEAR = 3
"""Ids that are named where one is not found."""


@dataclass(frozen=True, eq=False)
class Heat:
    """Where in a clip's pictures or sound a tower looked.

    Args:
        values: in 0 to 1: [time, height, width] over the square that the model sees, or [time,
            bins] over its spectrogram.
        seconds: of the frames, or of the spectrogram's middles [time], on the file's clock.
        hertz: centres of the bins; None of pictures, and where they are not known.
        seen: what the model was given, of the same shape: frames uint8 [time, height, width, 3], or
            the spectrogram.
        layer: whose map it is.
        cells: how many the map itself has.
        peak: the highest before it was made 1; 0 if nothing there speaks for the target.
    """

    values: Float[Array, "time ..."]
    seconds: Float[Array, "time"]
    hertz: Float[Array, "bins"] | None
    seen: Array
    layer: str
    cells: tuple[int, ...]
    peak: float

    def place(self) -> tuple[float, ...]:
        """Where it is highest, in frames and pixels or bins; the middle, of several such places."""
        time = int(self.values.reshape(len(self.values), -1).max(1).argmax())
        rest = np.argwhere(self.values[time] == self.values.max()).mean(0)
        return (float(time), *rest.tolist())

    def told(self) -> str:
        """That place in words."""
        if not self.peak > 0:
            return "nowhere: nothing in this map speaks for it"
        time, *rest = self.place()
        when = f"at {self.seconds[int(time)]:.2f} s"
        if self.values.ndim == 3:
            down, across = (
                (at + 0.5) / n for at, n in zip(rest, self.values.shape[1:], strict=True)
            )
            return f"{when}, {across:.0%} from the left and {down:.0%} from the top"
        if self.hertz is None:
            return f"{when}, bin {rest[0]:.0f} of {self.values.shape[1]}"
        pitch = float(np.interp(rest[0], np.arange(len(self.hertz)), self.hertz))
        return f"{when}, around {pitch:.0f} Hz"


@dataclass(frozen=True, eq=False)
class Explanation:
    """A clip, what was asked of it, what it has of that, and where each tower looked for it."""

    id: str
    text: str
    target: str
    value: float
    heats: dict[Modality, Heat]

    def told(self) -> str:
        """In lines: the value, and where each tower looked."""
        names = {"video": "looked", "audio": "listened"}
        lines = [f"{self.id}: {self.target} {self.value:.3f}"]
        for modality, heat in self.heats.items():
            cells = " x ".join(map(str, heat.cells))
            lines.append(f"  {names[modality]} {heat.told()} ({heat.layer}, {cells} cells)")
        return "\n".join(lines)


def explain(
    model: Model,
    clips: Clips,
    media: Reader,
    id: str,
    *,
    target: str = "",
    at: Mapping[Modality, str] | None = None,
    pooled: bool = True,
) -> Explanation:
    """Where a model looked in one clip; `target`, `at` and `pooled` as in `maps.find`.

    Raises:
        UsageError: there is no such clip, target, layer, or tower to look into.
        SonantError: the clip cannot be read, or lacks a modality that the target is made of.
    """
    row = row_of(clips, id)
    seen = media.read(row, frames=model.views.frames, film=model.views.part(None))
    clip = clips[row]
    batch = batch_of(model, [seen], [clip.text], [id], target)
    found = find(model, batch, target=target, at=at, pooled=pooled)
    heats = {
        modality: _heat(model.views, seen, batch, modality, looked)
        for modality, looked in found.looked.items()
    }
    return Explanation(id, clip.text, _name(model, batch, found), float(found.value[0]), heats)


def row_of(clips: Clips, id: str) -> int:
    """The row of a clip.

    Raises:
        UsageError: there is none of that id; the message names those most like it.
    """
    ids = clips.column("id")
    rows = np.flatnonzero(ids == id)
    if not len(rows):
        near = get_close_matches(id, ids.tolist(), NEAR, 0.0)
        raise UsageError(f"no clip {id!r} there; the nearest are {', '.join(map(repr, near))}")
    if reason := clips.column("quarantine")[rows[0]]:
        raise UsageError(f"clip {id!r} is in quarantine: {reason}")
    return int(rows[0])


def batch_of(
    model: Model, media: list[Media], texts: list[str], ids: list[str], target: str
) -> Batch:
    """Clips as a model's inputs: what the target wants of them, and all that it has without one.

    Raises:
        SonantError: a clip lacks something of it.
    """
    clips = [inputs_of(model.views, *pair) for pair in zip(media, texts, strict=True)]
    wanted = needed(model.method, target or _default(model, clips))
    for id, clip in zip(ids, clips, strict=True):
        if missing := [m for m in wanted if m not in clip]:
            said = {"audio": "sound", "video": "pictures", "text": "narration"}
            raise SonantError(
                f"clip {id!r} has no {' and no '.join(said[m] for m in missing)}, and "
                f"{target or 'what this model is asked'} is made of {', '.join(wanted)}"
            )
    return Batch(*_tensors(model.views, clips, wanted))


def inputs_of(views: Views, media: Media, text: str) -> Arrays:
    """What a model is given of a clip: the arrays of the modalities that it has."""
    found: Arrays = {}
    if media.samples is not None:
        found["audio"] = views.heard(views.audio(media.samples, media.rate))
    if media.frames is not None:
        found["video"] = views.middle(views.video(media.frames))
    words = views.text([text])
    if views.says(words)[0]:
        found["text"] = words[0]
    return found


@dataclass(frozen=True)
class FrontEnd:
    """How a spectrogram divides a sound: windows and hops in seconds, bins in hertz.

    Args:
        window: of each frame.
        hop: from one to the next.
        low: where the first triangle begins.
        high: where the last one ends.
        bins: triangles.
        stretched: the frames and bins that this gives are brought to the spectrogram's.
        middle: seconds that are heard, of the clip's middle; 0 is all of it.
    """

    window: float
    hop: float
    low: float
    high: float
    bins: int
    stretched: bool = True
    middle: float = 0.0


def front_end(views: Views) -> FrontEnd | None:
    """That of views; None if what they make of sound is no spectrogram, or one not known here."""
    if isinstance(views, SoundPicture):
        if views.sound == "wave":
            return None
        hop, middle = (MIDDLE_HOP, MIDDLE) if views.sound == "middle" else (AVCL_HOP, 0.0)
        return FrontEnd(AVCL_WINDOW, hop, 0, AVCL_RATE / 2, AVCL_BINS, middle=middle)
    if isinstance(views, Moment):
        return FrontEnd(VMZ_WINDOW, views.hop, 0, VMZ_RATE / 2, VMZ_BINS)
    if type(views) is Views:
        window, hop = AST_WINDOW / AST_RATE, AST_SHIFT / AST_RATE
        return FrontEnd(window, hop, AST_LOW, AST_HIGH, AST_BINS, stretched=False)
    return None


def sound_axes(
    views: Views, media: Media, size: tuple[int, int]
) -> tuple[Float[Array, "time"], Float[Array, "bins"] | None]:
    """Seconds of a spectrogram's frames, the middles of their windows, and hertz of its bins.

    Where the front end is not known, the rows are taken to share the sound evenly, and there are no
    hertz.
    """
    assert media.samples is not None
    assert media.samples_start is not None
    heard, begin = min(len(media.samples) / media.rate, views.seconds), media.samples_start
    known = front_end(views)
    if known is None:
        return begin + (np.arange(size[0]) + 0.5) * heard / size[0], None
    if known.middle:
        begin += max(0.0, heard - known.middle) / 2
        heard = min(heard, known.middle)
    count, bins = 1 + int((heard - known.window) / known.hop + 1e-6), known.bins
    unheard = views.unheard if isinstance(views, SoundPicture) else 0
    frames, pitches = (unheard // 2 + np.arange(side, dtype=float) for side in size)
    if known.stretched:
        frames = (frames + 0.5) * count / (size[0] + unheard) - 0.5
        pitches = (pitches + 0.5) * bins / (size[1] + unheard) - 0.5
    hertz = np.interp(pitches, np.arange(bins), mel_centres(known.low, known.high, bins))
    return begin + frames * known.hop + known.window / 2, hertz


def frames_seen(views: Views, frames: int) -> NDArray[np.int64]:
    """Which of a clip's frames the model sees: numbered, they are put before the views."""
    number = np.arange(frames)
    digits = np.stack([number // 256, number % 256, 0 * number], 1).astype(np.uint8)
    side = views.kept_size
    shown = views.middle(np.broadcast_to(digits[..., None, None], (frames, 3, side, side)))
    return shown[:, 0, 0, 0].astype(np.int64) * 256 + shown[:, 1, 0, 0]


def _heat(views: Views, media: Media, batch: Batch, modality: Modality, looked: Looked) -> Heat:
    values, hertz = looked.heat[0], None
    seen = batch.inputs[modality][0].cpu().numpy()
    if modality == "audio":
        seconds, hertz = sound_axes(views, media, (values.shape[0], values.shape[1]))
    else:
        assert media.frame_times is not None
        seconds = media.frame_times[frames_seen(views, len(media.frame_times))]
        seen = seen.transpose(0, 2, 3, 1)
    return Heat(values, seconds, hertz, seen, looked.layer, looked.cells, float(looked.peak[0]))


def _name(model: Model, batch: Batch, found: Found) -> str:
    """The target; of the best score, which that is."""
    if found.target != BEST:
        return found.target
    with torch.no_grad():
        scores = model.method.scores(to_device(batch, device()))
    return max(scores, key=lambda name: float(scores[name][0]))


def _default(model: Model, clips: list[Arrays]) -> str:
    """The target where none is given; of clips without all modalities no scores are asked."""
    method = model.method
    if all(m in clip for m in method.modalities for clip in clips):
        return default_target(method, Batch(*_tensors(model.views, clips, method.modalities)))
    return next((name for name, pair in PAIRS.items() if {*pair} <= {*method.modalities}), BEST)


def _tensors(
    views: Views, clips: list[Arrays], modalities: Iterable[Modality]
) -> tuple[Tensor, dict[Modality, Tensor]]:
    made = {m: views.encoded(m, np.stack([clip[m] for clip in clips])) for m in modalities}
    batch = to_batch(np.arange(len(clips)), made)
    return batch.index, batch.inputs
