"""What a recipe needs beside its method: towers, what they look at, how they are optimised."""

import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol, runtime_checkable

from torch import nn

from sonant.data import Views
from sonant.encoders.ast import AST
from sonant.encoders.distilbert import DistilBERT
from sonant.encoders.small import LEAST_SIZE, SmallAudio, SmallText, SmallVideo
from sonant.encoders.timesformer import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    KINETICS_MEAN,
    KINETICS_STD,
    Times,
    TimeSformer,
)
from sonant.encoders.weights import (
    TIMESFORMER_OF_KINETICS,
    Report,
    load_ast,
    load_distilbert,
    load_egovlp,
    load_timesformer,
)
from sonant.errors import UsageError, at_least
from sonant.media.text import Tokenizer
from sonant.methods.method import Method, Precision, Recipe, Tower, drawn_by
from sonant.types import MODALITIES, Modality

COLOURS = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "kinetics": (KINETICS_MEAN, KINETICS_STD),
}
"""Mean and deviation of red, green and blue in 0 to 1."""
LONGEST_TEXT = 512
"""Tokens that DistilBERT has places for."""


@runtime_checkable
class Parts(Protocol):
    """One size of towers with all that goes with it."""

    @property
    def width(self) -> int:
        """Of the shared space."""
        ...

    @property
    def seed(self) -> int:
        """Of the weights, the order and the crops."""
        ...

    def towers(
        self, tokenizer: Tokenizer, modalities: Iterable[Modality] = MODALITIES
    ) -> dict[Modality, nn.Module]:
        """A tower for each of the modalities, initialised from the seed alone."""
        ...

    def recipe(
        self, tokenizer: Tokenizer, method: Method, learning_rates: Sequence[float]
    ) -> Recipe:
        """The method with its views and the way it is optimised; a peak rate for each stage."""
        ...


@dataclass(frozen=True, kw_only=True)
class Small:
    """Small towers, for a processor."""

    frames: int = 8
    """of video a clip."""
    size: int = 64
    """pixels a side."""
    jitter: int = 4
    """most pixels that the crop moves in training; the mirror is thrown in."""
    seconds: float = 1.5
    """length of a clip's sound."""
    tokens: int = 16
    """longest narration; the rest is cut off."""
    width: int = 128
    """of the shared space."""
    batch: int = 128
    """clips a step over all ranks."""
    chunk: int = 0
    """clips that a rank embeds at once, for batches that do not fit; 0: its part of the batch."""
    weight_decay: float = 0.0
    """of AdamW."""
    precision: Precision = "fp32"
    """of the towers in training."""
    seed: int = 0
    """of the weights, the order and the crops."""

    def towers(
        self, tokenizer: Tokenizer, modalities: Iterable[Modality] = MODALITIES
    ) -> dict[Modality, nn.Module]:
        """A small tower for each of the modalities, initialised from the seed alone.

        A modality's tower is the same whichever others are wanted.

        Raises:
            UsageError: a size is out of range, such as that of pictures too small for the tower.
        """
        wanted = list(modalities)
        at_least(1, width=self.width, tokens=self.tokens)
        at_least(0, seed=self.seed)
        if "video" in wanted:
            at_least(LEAST_SIZE, size=self.size)
        with drawn_by(self.seed):
            made: dict[Modality, nn.Module] = {
                "audio": Tower(SmallAudio(), self.width),
                "video": Tower(SmallVideo(), self.width),
                "text": Tower(SmallText(vocabulary=tokenizer.size, tokens=self.tokens), self.width),
            }
        return {modality: made[modality] for modality in wanted}

    def recipe(
        self, tokenizer: Tokenizer, method: Method, learning_rates: Sequence[float]
    ) -> Recipe:
        """The method with its views and the way it is optimised; a peak rate for each stage."""
        return Recipe(
            method=method,
            views=Views(
                tokenizer=tokenizer,
                frames=self.frames,
                size=self.size,
                jitter=self.jitter,
                seconds=self.seconds,
                tokens=self.tokens,
            ),
            batch=self.batch,
            chunk=self.chunk,
            learning_rates=learning_rates,
            weight_decay=self.weight_decay,
            precision=self.precision,
            seed=self.seed,
        )


@dataclass(frozen=True, kw_only=True)
class Paper:
    """Towers of the paper's size: TimeSformer-B/16, AST and DistilBERT (MC3, sec. 4.4)."""

    frames: int = 4
    """of video a clip; the paper gives none, EgoVLP takes 4."""
    size: int = 224
    """pixels a side."""
    jitter: int = 16
    """most pixels that the crop moves in training; the mirror is thrown in."""
    least_area: float = 0.5
    """least share of the square, jitter and all, that a random crop has in training; EgoVLP's. 1
    moves a crop of `size` instead."""
    seconds: float = 1.5
    """length of a clip's sound."""
    tokens: int = 32
    """longest narration; the rest is cut off."""
    width: int = 256
    """of the shared space."""
    attention: Literal["frozen", "plain"] = "frozen"
    """TimeSformer's as EgoVLP has it (Frozen in Time), or its own."""
    colours: Literal["imagenet", "kinetics"] = "imagenet"
    """that frames are normalised with: ImageNet's, as EgoVLP's, or Kinetics', TimeSformer's own."""
    video: str = ""
    """weights of TimeSformer, such as EgoVLP's, or of a ViT: a file, folder or Hugging Face id."""
    audio: str = ""
    """weights of AST, or of a DeiT, such as facebook/deit-base-distilled-patch16-384."""
    text: str = ""
    """weights of DistilBERT, such as EgoVLP's or distilbert-base-uncased."""
    vocabulary: str = ""
    """word pieces that the text weights know, such as distilbert-base-uncased; a file, a folder or
    a Hugging Face id. Without it they are learned from the training narrations."""
    batch: int = 256
    """clips a step over all ranks."""
    chunk: int = 0
    """clips that a rank embeds at once, for batches that do not fit; 0: its part of the batch."""
    checkpointing: bool = False
    """keep less for the backward pass, and compute it again: less memory, a third more time."""
    compile: bool = False
    """compile the towers (torch.compile)."""
    weight_decay: float = 0.0
    """of AdamW; the paper has Adam."""
    precision: Precision = "bf16"
    """of the towers in training."""
    seed: int = 0
    """of the weights, the order and the crops."""

    def __post_init__(self) -> None:
        if self.text and not self.vocabulary:
            raise UsageError(
                f"text weights {self.text} know the word pieces they were trained with: name them "
                "(`--vocabulary distilbert-base-uncased`, a file or a folder)"
            )
        if self.tokens > LONGEST_TEXT:
            raise UsageError(f"DistilBERT reads {LONGEST_TEXT} tokens at most, not {self.tokens}")

    def towers(
        self, tokenizer: Tokenizer, modalities: Iterable[Modality] = MODALITIES
    ) -> dict[Modality, nn.Module]:
        """A tower for each of the modalities, initialised from the seed alone.

        A modality's tower is the same whichever others are wanted.
        """
        at_least(1, width=self.width, tokens=self.tokens)
        at_least(0, seed=self.seed)
        again = self.checkpointing
        encoders: dict[Modality, Callable[[], AST | TimeSformer | DistilBERT]] = {
            "audio": lambda: AST(frames=self._views(tokenizer).mel_frames, checkpointing=again),
            "video": lambda: TimeSformer(
                attention=self.attention,
                frames=self.frames,
                size=self.size,
                mean=COLOURS[self.colours][0],
                std=COLOURS[self.colours][1],
                checkpointing=again,
            ),
            "text": lambda: DistilBERT(vocabulary=tokenizer.size, checkpointing=again),
        }
        made: dict[Modality, nn.Module] = {}
        for modality in modalities:
            with drawn_by(self.seed):
                encoder = encoders[modality]()
                made[modality] = Tower(encoder, self.width)
            if self.compile:
                # Not the tower: all three would share what is known of shapes, and types.
                encoder.compile()
        return made

    def recipe(
        self, tokenizer: Tokenizer, method: Method, learning_rates: Sequence[float]
    ) -> Recipe:
        """The method with its views and the way it is optimised; a peak rate for each stage."""
        return Recipe(
            method=method,
            views=self._views(tokenizer),
            batch=self.batch,
            chunk=self.chunk,
            learning_rates=learning_rates,
            weight_decay=self.weight_decay,
            precision=self.precision,
            initialise=partial(self._take, method) if self._borrowed else None,
            seed=self.seed,
        )

    def _views(self, tokenizer: Tokenizer) -> Views:
        return Views(
            tokenizer=tokenizer,
            frames=self.frames,
            size=self.size,
            jitter=self.jitter,
            least_area=self.least_area,
            seconds=self.seconds,
            tokens=self.tokens,
        )

    @property
    def _borrowed(self) -> bool:
        return bool(self.video or self.audio or self.text)

    def _take(self, method: Method) -> str:
        """Others' weights into the towers; returns what was taken, in words.

        One source of both video and text is EgoVLP's, whose heads come with it.
        """
        towers: dict[str, Any] = dict(method.towers.items())
        reports: list[Report] = []
        if self.video and self.video == self.text and {"video", "text"} <= towers.keys():
            video, text = towers["video"], towers["text"]
            heads = {"video_head": video.head, "text_head": text.head}
            found = load_egovlp(self.video, video=video.encoder, text=text.encoder, **heads)
            reports += found.values()
        else:
            if self.video and "video" in towers:
                reports.append(self._take_video(towers["video"].encoder))
            if self.text and "text" in towers:
                reports.append(load_distilbert(towers["text"].encoder, self.text))
        if self.audio and "audio" in towers:
            reports.append(load_ast(towers["audio"].encoder, self.audio))
        return "\n".join(map(str, reports))

    def _take_video(self, encoder: TimeSformer) -> Report:
        times: Times = "first" if self.attention == "frozen" else "nearest"
        report = load_timesformer(encoder, self.video, times=times)
        if report.layout == TIMESFORMER_OF_KINETICS and self.colours != "kinetics":
            raise UsageError(
                f"{self.video}: was trained on frames with Kinetics' colours: `--colours kinetics`"
            )
        return report


def small(recipe: Callable[..., Recipe], about: str, **defaults: Any) -> Callable[..., Recipe]:
    """A recipe's `twin` with small towers, in the same module and named after it."""
    name = f"{recipe.__module__}:{recipe.__name__}_small"
    return twin(recipe, name, about, parts=Small(), **defaults)


def twin(
    recipe: Callable[..., Recipe], name: str, about: str, **defaults: Any
) -> Callable[..., Recipe]:
    """The same recipe with other defaults.

    Args:
        recipe: the function.
        name: module:function, where the twin stands.
        about: the first line of its help.
        defaults: of the arguments that differ, `parts` among them.
    """

    def made(tokenizer: Tokenizer, **arguments: Any) -> Recipe:
        return recipe(tokenizer, **(defaults | arguments))

    signature = inspect.signature(recipe)
    parameters = [
        p.replace(default=defaults.get(p.name, p.default)) for p in signature.parameters.values()
    ]
    made.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    made.__annotations__ = recipe.__annotations__
    made.__doc__ = re.sub(r"\A.*", about, inspect.getdoc(recipe) or "")
    made.__module__, _, made.__qualname__ = name.partition(":")
    made.__name__ = made.__qualname__
    return made
