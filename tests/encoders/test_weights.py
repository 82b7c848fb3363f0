import pickle
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from published import OURS, SIZES, as_published, scattered, tower_of_egovlp
from sonant.encoders.ast import AST
from sonant.encoders.distilbert import DistilBERT
from sonant.encoders.timesformer import TimeSformer
from sonant.encoders.weights import (
    load_ast,
    load_distilbert,
    load_egovlp,
    load_timesformer,
    read_weights,
)
from sonant.errors import SonantError, UsageError

VIDEO = {**OURS, "size": 32, "patch": 8}
AUDIO = {**OURS, "bins": 32, "patch": 8, "stride": 5}
TEXT = {**OURS, "vocabulary": 50, "tokens": 12}


def text_tower(prefix: str = "") -> dict[str, Tensor]:
    from transformers import DistilBertConfig, DistilBertModel

    config = DistilBertConfig(
        vocab_size=50, max_position_embeddings=12, dim=24, n_layers=2, n_heads=3, hidden_dim=40
    )
    return {prefix + name: x for name, x in scattered(DistilBertModel(config)).state_dict().items()}


def video_tower(frames: int = 6, places: int = 16) -> dict[str, Tensor]:
    return tower_of_egovlp(
        width=24, depth=2, hidden=40, frames=frames, places=places, patch=8, device="cpu"
    )


def egovlp(width: int = 16, frames: int = 6) -> dict[str, Tensor]:
    """All that a checkpoint of EgoVLP calls its state_dict."""
    state = {"video_model." + name: x for name, x in video_tower(frames).items()}
    state |= text_tower("text_model.")
    for name in ("txt_proj.1", "vid_proj.0"):
        state |= {f"{name}.weight": torch.randn(width, 24), f"{name}.bias": torch.randn(width)}
    return {"module." + name: x for name, x in state.items()}


class Configuration:
    """Like EgoVLP's ConfigParser: an object in the checkpoint, of a class that readers lack."""

    def __init__(self) -> None:
        self.save_dir = Path("results")
        self.raw = {"arch": {"type": "FrozenInTime"}}
        self.best = np.float64(3)
        self.counts = defaultdict(int, {"seen": 3})


class Harmful:
    """Its pickle runs code that writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return exec, (f"open({str(self.path)!r}, 'w')",)


def test_egovlps_checkpoint_fills_both_towers_and_heads(tmp_path: Path) -> None:
    state, path = egovlp(), tmp_path / "egovlp.pth"
    harm = Harmful(tmp_path / "harm")
    whole = {"arch": "FrozenInTime", "state_dict": state, "config": Configuration(), "more": harm}
    torch.save({**whole, "optimizer": {"state": {0: {"step": torch.ones(1)}}}}, path)
    video, text = TimeSformer(frames=4, **VIDEO), DistilBERT(**TEXT)
    heads = nn.Linear(24, 16), nn.Linear(24, 16)
    reports = load_egovlp(path, video=video, text=text, video_head=heads[0], text_head=heads[1])
    assert not (tmp_path / "harm").exists()
    assert list(reports) == ["video", "text", "video_head", "text_head"]
    assert all(report.whole for report in reports.values())
    assert torch.equal(video.times, state["module.video_model.temporal_embed"][:, :4])
    key = "video_model.blocks.1.timeattn.qkv.weight"
    assert torch.equal(video.blocks[1].time.qkv.weight, state["module." + key])
    parts = [state[f"module.text_model.transformer.layer.1.attention.{x}_lin.bias"] for x in "qkv"]
    assert torch.equal(text.blocks[1].attention.qkv.bias, torch.cat(parts))
    assert torch.equal(heads[0].weight, state["module.vid_proj.0.weight"])
    assert torch.equal(heads[1].bias, state["module.txt_proj.1.bias"])
    assert str(reports["video"]) == (
        f"{path} (EgoVLP's video tower): 43 of 43 tensors taken\n"
        "  made to fit: times: 6 frames to 4, the first"
    )


def test_heads_of_another_width_stay_as_they_were() -> None:
    head = nn.Linear(24, 8)
    before = head.weight.clone()
    state = {name.removeprefix("module."): x for name, x in egovlp().items()}
    reports = load_egovlp(
        state, video=TimeSformer(frames=6, **VIDEO), text=DistilBERT(**TEXT), text_head=head
    )
    assert list(reports) == ["video", "text", "text_head"]
    assert "of another shape: weight: (16, 24) there, (8, 24) wanted" in str(reports["text_head"])
    assert torch.equal(head.weight, before)


def test_one_tower_of_egovlp_alone() -> None:
    state = {name.removeprefix("module."): x for name, x in egovlp().items()}
    report = load_timesformer(TimeSformer(frames=9, **VIDEO), state)
    assert report.layout == "EgoVLP's video tower"
    assert report.fitted == {"times": "6 frames to 9, then zeros"}
    assert "text_model.embeddings.LayerNorm.weight" in report.beside
    assert load_distilbert(DistilBERT(**TEXT), state).whole


def test_a_larger_picture_has_its_places_interpolated() -> None:
    model = TimeSformer(frames=6, **{**VIDEO, "size": 48})
    report = load_timesformer(model, video_tower(), times="linear")
    assert report.fitted == {"places": "16 places to 6 x 6, interpolated"}
    before = model.state_dict()
    report = load_timesformer(model, video_tower(places=15), strict=False)
    assert report.misfits["places"].endswith("15 places are not those of a square")
    assert all(torch.equal(model.state_dict()[name], x) for name, x in before.items())


def test_the_wrong_attention_is_refused_and_changes_nothing() -> None:
    model = TimeSformer(attention="plain", frames=6, **VIDEO)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    with pytest.raises(UsageError, match=r"missing there: blocks\.\*\.time_out\.weight \(2\)"):
        load_timesformer(model, video_tower())
    assert all(torch.equal(model.state_dict()[name], x) for name, x in before.items())
    report = load_timesformer(model, video_tower(), strict=False)
    assert len(report.taken) == 43
    assert len(report.missing) == 4
    assert torch.equal(model.blocks[0].time.qkv.bias, video_tower()["blocks.0.timeattn.qkv.bias"])


def test_what_has_no_place_is_refused_and_named() -> None:
    state = {**text_tower(), "embeddings.token_type_embeddings.weight": torch.ones(2, 24)}
    with pytest.raises(UsageError, match=r"no place here for: embeddings\.token_type_embeddings"):
        load_distilbert(DistilBERT(**TEXT), state)
    del state["transformer.layer.0.attention.k_lin.weight"]
    report = load_distilbert(DistilBERT(**TEXT), state, strict=False)
    assert report.missing == ("blocks.0.attention.qkv.weight",)
    with pytest.raises(UsageError, match=r"names embeddings\.word_embeddings\.weight"):
        load_ast(AST(**AUDIO), text_tower())
    with pytest.raises(UsageError, match=r"not a checkpoint of EgoVLP.*it names cls_token"):
        load_egovlp(video_tower(), video=TimeSformer(**VIDEO), text=DistilBERT(**TEXT))


@pytest.mark.parametrize("wrapped", ["", "distilbert."])
def test_what_transformers_saves_is_read_from_its_folder(tmp_path: Path, wrapped: str) -> None:
    from transformers import DistilBertConfig, DistilBertForMaskedLM, DistilBertModel

    kind = DistilBertForMaskedLM if wrapped else DistilBertModel
    config = DistilBertConfig(
        vocab_size=50, max_position_embeddings=12, dim=24, n_layers=2, n_heads=3, hidden_dim=40
    )
    theirs = scattered(kind(config))
    theirs.save_pretrained(tmp_path)
    ours = DistilBERT(relu=False, **TEXT).eval()
    report = load_distilbert(ours, str(tmp_path))
    assert ("vocab_transform.weight" in report.beside) == bool(wrapped)
    ids = torch.tensor([[1, 2, 3]])
    expected = theirs.base_model(ids).last_hidden_state[:, 0]
    torch.testing.assert_close(ours(ids), expected, atol=1e-5, rtol=0)


def test_audio_models_under_all_their_names(tmp_path: Path) -> None:
    from transformers import ASTConfig, ASTForAudioClassification

    theirs = scattered(
        ASTForAudioClassification(
            ASTConfig(
                **SIZES,
                intermediate_size=40,
                patch_size=8,
                frequency_stride=5,
                time_stride=5,
                max_length=43,
                num_mel_bins=32,
            )
        )
    )
    theirs.save_pretrained(tmp_path / "saved")
    own = {f"module.v.{name}": x for name, x in authors(theirs.base_model.state_dict()).items()}
    torch.save({**own, "module.mlp_head.1.weight": torch.ones(3)}, tmp_path / "ast.pth")
    models = []
    for source in (as_published(theirs), theirs.state_dict(), tmp_path / "saved"):
        models.append(AST(frames=43, **AUDIO).eval())
        assert "classifier.dense.weight" in load_ast(models[-1], source).beside
    models.append(AST(frames=43, **AUDIO).eval())
    assert load_ast(models[-1], tmp_path / "ast.pth").beside == ("mlp_head.1.weight",)
    sound = torch.randn(1, 43, 32)
    expected = theirs.base_model(sound).pooler_output
    for model in models:
        torch.testing.assert_close(model(sound), expected, atol=2e-5, rtol=0)


def authors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of an AST under its authors' names, which are timm's."""
    renamed = {}
    for name, x in with_qkv_joined(state).items():
        for old, new in {
            "embeddings.cls_token": "cls_token",
            "embeddings.distillation_token": "dist_token",
            "embeddings.position_embeddings": "pos_embed",
            "embeddings.patch_embeddings.projection": "patch_embed.proj",
            "layernorm_before": "norm1",
            "layernorm_after": "norm2",
            "layernorm": "norm",
            "attention.o_proj": "attn.proj",
            "layers.": "blocks.",
        }.items():
            name = name.replace(old, new)
        renamed[name] = x
    return renamed


def with_qkv_joined(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Queries, keys and values as one."""
    joined = {name: x for name, x in state.items() if not any(f".{p}_proj" in name for p in "qkv")}
    for name in state:
        if ".q_proj" in name:
            parts = [state[name.replace("q_proj", f"{p}_proj")] for p in "qkv"]
            joined[name.replace("attention.q_proj", "attn.qkv")] = torch.cat(parts)
    return joined


@pytest.mark.parametrize("channels", ["sum", "mean"])
def test_an_image_model_becomes_an_audio_model(channels: str) -> None:
    from transformers import DeiTConfig, DeiTModel

    config = DeiTConfig(**SIZES, intermediate_size=40, image_size=48, patch_size=8)
    state = as_published(scattered(DeiTModel(config)))
    model = AST(frames=63, **AUDIO)
    assert model.grid == (5, 12)
    report = load_ast(model, state, channels=channels)
    assert report.fitted == {
        "places": "6 x 6 places to 5 x 12",
        "patches.weight": f"the {channels} of 3 channels",
    }
    assert report.beside == ("pooler.dense.weight", "pooler.dense.bias")
    colours = state["embeddings.patch_embeddings.projection.weight"]
    one = colours.sum(1, keepdim=True) if channels == "sum" else colours.mean(1, keepdim=True)
    torch.testing.assert_close(model.patches.weight.detach(), one)


def test_ten_seconds_become_one_and_a_half() -> None:
    long, short = AST(frames=1024, **{**AUDIO, "bins": 128}), AST(**{**AUDIO, "bins": 128})
    report = load_ast(short, as_ours(long))
    assert report.fitted == {"places": "25 x 204 places to 25 x 29"}
    grid = long.places[0, 2:].reshape(25, 204, 24)[:, 102 - 14 : 102 - 14 + 29]
    assert torch.equal(short.places[0, 2:], grid.reshape(-1, 24))


def test_a_table_of_other_rows_is_refused() -> None:
    state = as_ours(AST(frames=149, **{**AUDIO, "stride": 7}))
    with pytest.raises(UsageError, match=r"places: .*84 places are not 5 rows"):
        load_ast(AST(frames=149, **AUDIO), state)


def as_ours(model: AST) -> dict[str, Tensor]:
    """Our AST under its authors' names."""
    names = {"places": "pos_embed", "cls": "cls_token", "distillation": "dist_token"}
    names |= {"patches.weight": "patch_embed.proj.weight", "patches.bias": "patch_embed.proj.bias"}
    parts = {"attention.qkv": "attn.qkv", "attention.out": "attn.proj"}
    parts |= {"mlp.0": "mlp.fc1", "mlp.2": "mlp.fc2"}
    renamed = {}
    for name, x in model.state_dict().items():
        for ours, theirs in parts.items():
            name = name.replace(ours, theirs)
        renamed[names.get(name, name)] = x
    return renamed


def test_the_published_shapes_fill_the_full_sizes() -> None:
    from transformers import (
        ASTConfig,
        ASTForAudioClassification,
        DeiTConfig,
        DeiTForImageClassificationWithTeacher,
        DistilBertConfig,
        DistilBertForMaskedLM,
        TimesformerConfig,
        TimesformerForVideoClassification,
    )

    with torch.device("meta"):
        tower = tower_of_egovlp(
            width=768, depth=12, hidden=3072, frames=16, places=196, patch=16, device="meta"
        )
        deit = DeiTForImageClassificationWithTeacher(DeiTConfig(image_size=384))
        reports = [
            load_timesformer(TimeSformer(frames=4), tower),
            load_timesformer(
                TimeSformer(attention="plain", frames=4),
                TimesformerForVideoClassification(TimesformerConfig()).state_dict(),
                times="nearest",
            ),
            load_ast(AST(), as_published(ASTForAudioClassification(ASTConfig()))),
            load_ast(AST(), as_published(deit)),
            load_distilbert(DistilBERT(), DistilBertForMaskedLM(DistilBertConfig()).state_dict()),
        ]
    assert [report.fitted for report in reports] == [
        {"times": "16 frames to 4, the first"},
        {"times": "8 frames to 4, nearest"},
        {"places": "12 x 101 places to 12 x 14"},
        {"places": "24 x 24 places to 12 x 14", "patches.weight": "the sum of 3 channels"},
        {},
    ]
    assert [len(report.taken) for report in reports] == [223, 247, 151, 151, 76]


def test_files_of_every_kind_are_read(tmp_path: Path) -> None:
    state = video_tower()
    save_file(state, tmp_path / "model.safetensors")
    torch.save({"model": state}, tmp_path / "new.pth")
    torch.save(state, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    compiled = {f"module._orig_mod.{name}": x for name, x in state.items()}
    torch.save({"model_state": compiled, "epoch": 3}, tmp_path / "compiled.pyth")
    for name in ("model.safetensors", "new.pth", "old.bin", "compiled.pyth"):
        found = read_weights(tmp_path / name)
        assert found.keys() == state.keys()
        assert all(torch.equal(found[key], x) for key, x in state.items())
    assert load_timesformer(TimeSformer(frames=6, **VIDEO), tmp_path).whole


def test_damaged_and_harmful_files_are_refused(tmp_path: Path) -> None:
    torch.save({"model": video_tower()}, tmp_path / "cut.pth")
    whole = (tmp_path / "cut.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "page.bin").write_text("<html>not found</html>")
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "text.safetensors").write_text("version https://git-lfs.github.com/spec/v1")
    (tmp_path / "pickle.bin").write_bytes(pickle.dumps(Harmful(tmp_path / "harm"), 2))
    for name, said in {
        "cut.pth": "it is damaged, cut off, or of another kind; wanted is a checkpoint",
        "page.bin": "it is a web page",
        "empty.pt": "it is empty",
        "text.safetensors": "it is Git LFS's note of a file, and not that file",
        "pickle.bin": "it ",
    }.items():
        with pytest.raises(SonantError, match=f"{name}: not readable as weights: {said}"):
            read_weights(tmp_path / name)
    assert not (tmp_path / "harm").exists()
    pickle.loads(pickle.dumps(Harmful(tmp_path / "harm")))  # what plain unpickling would do
    assert (tmp_path / "harm").exists()
    torch.save({"epoch": 3, "config": Configuration()}, tmp_path / "none.pt")
    with pytest.raises(UsageError, match="no tensors by name; there is config, epoch"):
        read_weights(tmp_path / "none.pt")
    torch.save(Configuration(), tmp_path / "object.pt")
    with pytest.raises(UsageError, match="holds no tensors by name"):
        read_weights(tmp_path / "object.pt")
