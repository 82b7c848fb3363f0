"""Published weights: state dicts made by the published rules, in files as they are published."""

import hashlib
import pickle
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import torch

from film_networks import random_state, video_maps, video_shapes
from sonant.encoders import released as module
from sonant.encoders.conv3d import avcl_r3d, r2plus1d_18, r3d_18
from sonant.encoders.released import RELEASES, Release, Sight, fetch, hash_in, load, released
from sonant.errors import SonantError, UsageError

PLANES = 8


def xdc_like(path: Path, *, classes: int | None = None, midplanes: str = "per_conv") -> Path:
    """A file as XDC's: no head, no counters; its name ends in its hash."""
    shapes = video_shapes(
        "r2plus1d", midplanes, planes=PLANES, classes=classes, counters=classes is not None
    )
    torch.save(random_state(shapes), path)
    return path.rename(path.with_name(f"xdc-{sha(path)[:8]}.pth"))


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def narrow(classes=None):
    return r2plus1d_18("per_conv", classes, planes=PLANES, eps=1e-3)


@pytest.fixture
def release(tmp_path, monkeypatch):
    """A release whose URL leads to a file on this disk, and an empty cache."""
    (tmp_path / "net").mkdir()
    file = xdc_like(tmp_path / "net" / "weights.pth", classes=400)
    monkeypatch.setitem(module.RELEASES, "tiny", Release(file.as_uri(), narrow, Sight(2, 4.0)))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    return file


@pytest.mark.parametrize("name", RELEASES)
def test_every_release_has_a_hash_in_its_name(name):
    assert len(hash_in(RELEASES[name].url)) == 8
    assert RELEASES[name].url.startswith("https://")


def test_xdcs_weights_give_what_the_published_network_gives(tmp_path):
    path = xdc_like(tmp_path / "w.pth")
    network = narrow(classes=5)
    head = network.fc.weight.clone()
    loaded = load(network, path, sha256=path.stem[-8:])
    x = torch.randn(2, 3, 4, 24, 24)
    maps = video_maps(x, torch.load(path), eps=1e-3)
    ours = network.eval().maps(x)
    torch.testing.assert_close(ours["pool"], maps["mean"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours["conv4"], maps["layer3"], atol=1e-4, rtol=1e-4)
    assert torch.equal(network.fc.weight, head)
    assert (loaded.aside, loaded.fresh) == ((), ("fc.bias", "fc.weight"))
    assert loaded.sha256 == sha(path)
    assert len(loaded.taken) == len(torch.load(path))
    assert str(loaded).endswith("tensors taken; not in it: fc.bias, fc.weight")


def test_a_head_is_taken_or_left(tmp_path):
    path = xdc_like(tmp_path / "w.pth", classes=6)
    state = torch.load(path)
    with_head, without, other = narrow(6), narrow(), narrow(4)
    assert load(with_head, path, head=True).aside == ()
    assert torch.equal(with_head.fc.weight, state["fc.weight"])
    assert with_head.layer1[0].conv1[1].num_batches_tracked == 7
    assert load(without, path).aside == ("fc.bias", "fc.weight")
    assert load(other, path).fresh == ("fc.bias", "fc.weight")
    with pytest.raises(UsageError, match=r"fc.weight is \[6, 64\], in the network \[4, 64\]"):
        load(other, path, head=True)
    with pytest.raises(UsageError, match="no place in a network without one"):
        load(without, path, head=True)
    with pytest.raises(UsageError, match=r"fc\.bias is not in it"):
        load(narrow(6), xdc_like(tmp_path / "v.pth"), head=True)


@pytest.mark.parametrize("theirs", ["per_block", "per_conv"])
def test_the_other_midplanes_are_refused_with_a_hint_and_change_nothing(tmp_path, theirs):
    path = xdc_like(tmp_path / "w.pth", midplanes=theirs)
    ours = "per_conv" if theirs == "per_block" else "per_block"
    network = r2plus1d_18(ours, planes=PLANES)
    before = {name: x.clone() for name, x in network.state_dict().items()}
    with pytest.raises(UsageError) as caught:
        load(network, path)
    assert "layer2.0.conv2.0.0.weight is [" in str(caught.value)
    assert "and 14 more" in str(caught.value)
    assert "how midplanes are counted" in str(caught.value)
    assert all(torch.equal(x, before[name]) for name, x in network.state_dict().items())


def test_another_networks_weights_are_refused(tmp_path):
    path = xdc_like(tmp_path / "w.pth")
    with pytest.raises(UsageError) as caught:
        load(r3d_18(planes=PLANES), path)
    assert "layer1.0.conv1.0.weight is not in it" in str(caught.value)
    assert "midplanes" not in str(caught.value)
    with pytest.raises(
        UsageError, match=r"layer1.0.conv1.0.0.weight is in it, but not of the network"
    ):
        load(avcl_r3d(planes=PLANES), path)


def test_released_weights_are_fetched_once_and_known_by_their_hash(release, monkeypatch, tmp_path):
    network, loaded = released("tiny", 5)
    assert network.fc.out_features == 5
    assert network.plan.eps == 1e-3
    assert loaded.path == tmp_path / "home" / "hub" / "checkpoints" / release.name
    release.unlink()
    again, _ = released("tiny", 400, head=True)
    assert torch.equal(again.layer4[1].conv2[0][3].weight, network.layer4[1].conv2[0][3].weight)
    loaded.path.write_bytes(b"damaged")
    with pytest.raises(SonantError, match=r"cannot be fetched: .*can be given by its path"):
        released("tiny")


def test_the_hub_may_have_the_file_under_its_published_name(release, tmp_path, monkeypatch):
    asked = []

    def download(repository, name, **_):
        asked.append((repository, name))
        return str(release)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    _, loaded = released("tiny", path="owner/copies")
    assert loaded.path == release
    assert asked == [("owner/copies", RELEASES["tiny"].url.rsplit("/", 1)[-1])]
    with pytest.raises(UsageError, match="no such file or folder, and no Hugging Face id"):
        released("tiny", path=str(tmp_path / "none.pth"))


def test_a_file_at_hand_must_be_the_released_one(release, tmp_path):
    _, loaded = released("tiny", path=release)
    assert loaded.path == release
    other = xdc_like(tmp_path / "w.pth")
    with pytest.raises(UsageError, match="another file: its SHA-256 is"):
        released("tiny", path=other)
    with pytest.raises(UsageError, match="no such file of weights"):
        released("tiny", path=tmp_path / "none.pth")
    with pytest.raises(UsageError, match="no released weights 'xdc'; there are xdc-ig65m-kinetics"):
        released("xdc")


def test_what_comes_with_another_hash_is_not_kept(release, tmp_path):
    url = release.with_name("xdc-00000000.pth")
    release.rename(url)
    with pytest.raises(SonantError, match="damaged on its way"):
        fetch(url.as_uri())
    assert list((tmp_path / "home").rglob("*.pth*")) == []
    with pytest.raises(UsageError, match="8 or more digits of its SHA-256"):
        fetch("https://example.org/weights.pth")


class Trap:
    """Runs when it is unpickled by someone who trusts it."""

    def __reduce__(self):
        return (Path.touch, (Path("sprung"),))


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"", SonantError, "not readable as PyTorch weights: it is empty; wanted are tensors"),
        (b"<html>404</html>", SonantError, "not readable as PyTorch weights: it is a web page"),
        (b"hello this\nis", SonantError, r"it is a text that begins with 'hello this\\nis';"),
        ("video,\tä ö\n".encode() * 9, SonantError, "it is a text that begins with 'video,"),
        (b"version https://git-lfs.github.com/spec/v1\noid", SonantError, "Git LFS's note of"),
        (bytes(5000), SonantError, "it is damaged, cut off, or of another kind; wanted"),
        (b"PK\x03\x04...", SonantError, "it is damaged, cut off, or of another kind; wanted"),
        ({"layer1": Trap()}, SonantError, r"it wants [\w.]+ to be called, and no code of"),
        ([torch.zeros(1)], UsageError, "holds a list, not tensors by name"),
        ({"model": {"stem": torch.zeros(1)}, "epoch": 3}, UsageError, "by name: model, epoch;"),
    ],
    ids=["empty", "html", "text", "utf-8", "lfs", "zeros", "zip", "code", "list", "training state"],
)
def test_files_of_other_kinds_are_refused(tmp_path, monkeypatch, content, error, message):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "w.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(error, match=message):
        load(narrow(), path)
    assert not Path("sprung").exists()


def test_the_trap_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Trap()))
    assert Path("sprung").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["xdc-audioset", "torchvision-mc3-18", "ig65m-8"])
def test_full_sized_files_fill_the_networks_of_their_names(tmp_path, monkeypatch, name):
    shapes = {
        "xdc-audioset": video_shapes("r2plus1d", "per_conv", classes=None, counters=False),
        "torchvision-mc3-18": video_shapes("mc3"),
        "ig65m-8": video_shapes("r2plus1d", "per_conv", depth=34, classes=359),
    }[name]
    path = tmp_path / "w.pth"
    torch.save({n: torch.zeros(s) for n, s in shapes.items()}, path)
    url = f"https://example.org/w-{sha(path)[:8]}.pth"
    monkeypatch.setitem(module.RELEASES, name, replace(RELEASES[name], url=url))
    network, loaded = released(name, path=path)
    assert len(loaded.taken) + len(loaded.aside) == len(shapes)
    assert all(not x.any() for x in network.state_dict().values())
