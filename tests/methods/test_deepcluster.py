"""SDC, MDC, CDC, XDC: who learns whose clusters, and what a run of rounds keeps."""

import hashlib
import json
import math
import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from shutil import copyfile
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sonant.assignments import read_assignment
from sonant.checkpoint import RecipeFunction, check_same_files, load_towers, make
from sonant.clips import Clips
from sonant.data import Examples, Request, requests
from sonant.embed import embed, load
from sonant.encoders.resnet import AudioResNet
from sonant.errors import TableError, UsageError
from sonant.media.audio import xdc as front_end
from sonant.media.read import Media
from sonant.media.text import train_tokenizer
from sonant.methods.deepcluster import (
    DeepCluster,
    Policy,
    Rounds,
    concatenated,
    crossed,
    evenly,
    mdc_small,
    multi_head,
    same_modality_small,
    sdc_small,
    single,
    xdc,
    xdc_final_small,
    xdc_small,
)
from sonant.methods.method import Opening
from sonant.methods.moments import Moments, SharedBatchNorm2d
from sonant.methods.pairs import av_small
from sonant.metrics.clustering import nmi
from sonant.train import RECIPES, train
from sonant.types import Batch, Modality, Stage
from toy import RATE, SECONDS, TINY, Toy, toy_clips

N = 24
CLIPS = 18
TWO = {"rounds": 2, "epochs": 2, "audio_clusters": 3, "video_clusters": 4}
FEW = TINY | TWO
NARROW = {"planes": 4, "frames": 2, "frame_rate": 20.0, "size": 32, "jitter": 2}
NARROW |= {"seconds": SECONDS, "mel": 8, "batch": 8}
AUDIO, VIDEO = np.arange(N) % 3, np.arange(N) // 3 % 4
"""To which of 3 and of 4 clusters the sound and the pictures of made-up clips belong."""


def seen() -> dict[Modality, Tensor]:
    """Features that lie in clusters far from each other, of different lengths."""
    random = torch.Generator().manual_seed(0)
    centres = 9 * torch.randn(2, 4, 5, generator=random)
    near = 0.01 * torch.randn(2, N, 5, generator=random)
    return {"video": centres[0, VIDEO] + near[0], "audio": 100 * (centres[1, AUDIO] + near[1])}


def method(policy: Policy, encoders: Sequence[Modality] = ("video", "audio"), **more: Any) -> Any:
    """On towers that hand through what they are given."""
    torch.manual_seed(0)
    rounds = Rounds(**({"rounds": 3, "epochs": 1} | more))
    made = DeepCluster(
        {m: nn.Identity() for m in encoders},
        rounds.stages,
        routes=policy(encoders),
        clusters={"audio": 3, "video": 4, "video+audio": 12},
        width=5,
        rounds=rounds,
    )
    made.attach(toy_clips(N))
    return made


def begun(made: Any, number: int = 0, x: Mapping[str, Tensor] | None = None) -> Opening:
    opening: Opening = made.begin(made.stages[number], lambda: seen() if x is None else x)
    return opening


def labels(made: Any, source: str) -> Any:
    return made.get_buffer(f"labels_{source}").numpy()


PAPER: dict[Policy, dict[str, list[Any]]] = {
    single: {"video": [VIDEO], "audio": [AUDIO]},
    multi_head: {"video": [VIDEO, AUDIO], "audio": [AUDIO, VIDEO]},
    concatenated: {"video": [4 * AUDIO + VIDEO], "audio": [4 * AUDIO + VIDEO]},
    crossed: {"video": [AUDIO], "audio": [VIDEO]},
}
"""Section 3: what each encoder is to predict, one head a list entry."""


@pytest.mark.parametrize("policy", PAPER, ids=lambda policy: policy.__name__)
def test_each_encoder_learns_what_the_paper_says(policy: Policy) -> None:
    made = method(policy)
    begun(made)
    index = torch.tensor([5, 0, 17, 3, 3])
    inputs = {m: x[index] for m, x in seen().items()}
    terms = made(Batch(index, inputs), made.stages[0])
    assert len(terms) == sum(map(len, PAPER[policy].values()))
    for encoder, truths in PAPER[policy].items():
        for source, truth in zip(made.routes[encoder], truths, strict=True):
            assert nmi(labels(made, source), truth) == pytest.approx(1)
            head = made.head(encoder, source)
            loss = 0.0
            for clip in index.tolist():
                scores = (head.weight @ seen()[encoder][clip] + head.bias).tolist()
                loss += math.log(sum(map(math.exp, scores)))
                loss -= scores[int(labels(made, source)[clip])]
            assert float(terms[f"{encoder} from {source}"].detach()) == pytest.approx(
                loss / len(index), rel=1e-4
            )


def test_towers_run_in_bf16_and_losses_do_not() -> None:
    made, ran = method(single, ["audio"]), []
    made.towers["audio"] = nn.Linear(5, 5)
    made.towers["audio"].register_forward_hook(lambda layer, x, out: ran.append(out.dtype))
    begun(made)
    with torch.autocast("cpu", torch.bfloat16):
        terms = made(Batch(torch.arange(N), {"audio": seen()["audio"]}), made.stages[0])
    assert ran == [torch.bfloat16]
    assert terms["audio from audio"].dtype == torch.float32


def test_features_side_by_side_have_length_one_each() -> None:
    made, x = method(concatenated), seen()
    rows = made.features_of("video+audio", x)
    found = rows[:]
    assert rows.shape == found.shape == (N, 10)
    assert rows[np.array([3, 5])].equal(found[[3, 5]])
    v, a = ([row / np.linalg.norm(row) for row in x[m].numpy()] for m in ("video", "audio"))
    np.testing.assert_allclose(found, np.hstack([v, a]), rtol=1e-5)
    louder = {m: 7 * y.numpy() for m, y in x.items()}
    assert made.features_of("video+audio", louder)[:].allclose(found)
    assert method(crossed).features_of("audio", x) is x["audio"]


def test_heads_begin_anew_each_round_and_nothing_else_does() -> None:
    made = method(multi_head)
    made.towers["video"] = nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5))
    begun(made)
    before = {name: x.clone() for name, x in made.state_dict().items()}
    begun(made, 1)
    changed = {name for name, x in made.state_dict().items() if not x.equal(before[name])}
    assert {name for name in changed if name.endswith("weight")} == {
        f"heads.{e}.{source}.weight" for e in ("video", "audio") for source in ("video", "audio")
    }
    rest = {f"heads.{e}.{s}.bias" for e in ("video", "audio") for s in ("video", "audio")}
    assert changed <= {n for n in changed if "weight" in n} | rest | set(made.clip_buffers)


def test_a_round_is_measured_against_the_one_before_and_known_labels() -> None:
    made = method(crossed, compared=("verb",))
    first, second = begun(made), begun(made, 1)
    sound = first.line["clusters"]["audio"]
    assert sound == {"smallest": 8, "largest": 8, "nmi": None, "purity": {"verb": 1.0}}
    assert first.line["clusters"]["video"]["purity"]["verb"] == pytest.approx(1 / 3, abs=1e-4)
    assert second.line["clusters"]["audio"]["nmi"] == 1
    assert (
        "audio in clusters of 8 to 8 clips, NMI 1.000 with those before, purity 1.000 of verb"
        in (second.said)
    )
    assert second.table is not None
    assert second.table["audio"].to_pylist() == labels(made, "audio").tolist()
    assert second.table["id"].to_pylist() == [f"c{i}" for i in range(N)]
    centres = [seen()["video"][k == VIDEO].mean(0) for k in range(4)]
    away = [
        float((x - centres[k]).square().sum()) for x, k in zip(seen()["video"], VIDEO, strict=True)
    ]
    np.testing.assert_allclose(second.table["video distance"], away, rtol=1e-3)


def test_rounds_end_early_once_clusters_agree() -> None:
    made = method(crossed, converged=0.99)
    assert not begun(made).skip
    before = {name: x.clone() for name, x in made.state_dict().items()}
    second, third = begun(made, 1), begun(made, 2, {})
    assert second.skip and third.skip and second.table is None
    assert "settled" in second.said and "left out" in third.said
    changed = {name for name, x in made.state_dict().items() if not x.equal(before[name])}
    assert changed == {"settled"}, "heads and labels stay together"
    moved = method(crossed, converged=0.99)
    begun(moved)
    other = {m: x[torch.randperm(N)] for m, x in seen().items()}
    assert not begun(moved, 1, other).skip


def test_balanced_labels_are_balanced() -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(N, 5, generator=random) + 4 * (torch.arange(N) < 2)[:, None]
    plain, even = method(single, ["audio"]), method(single, ["audio"], assignment="sinkhorn")
    for made in (plain, even):
        begun(made, x={"audio": x})
    assert np.bincount(labels(plain, "audio")).min() == 2
    assert np.bincount(labels(even, "audio")).min() >= 6


def test_preparation_is_deepclusters() -> None:
    """One direction dwarfs the one in which clips differ by cluster, until it is whitened."""
    made = method(single, ["audio"], whiten=True, pca=2)
    random = torch.Generator().manual_seed(0)
    x = torch.zeros(N, 5)
    x[:, 0] = 1000 * torch.linspace(-1, 1, N)[torch.randperm(N, generator=random)]
    x[:, 1] = torch.from_numpy(AUDIO).float()
    begun(made, x={"audio": x})
    whitened = nmi(labels(made, "audio"), AUDIO)
    plain = method(single, ["audio"])
    begun(plain, x={"audio": x})
    assert nmi(labels(plain, "audio"), AUDIO) < 0.3 < whitened


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=60), st.integers(1, 3), st.integers(0, 999))
def test_clusters_are_shown_evenly(found: list[int], times: int, seed: int) -> None:
    clusters = np.array(found)
    random = np.random.default_rng(seed)
    rows = evenly([clusters], random)
    assert len(rows) == len(clusters)
    there = np.unique(clusters)
    shown = np.array([(clusters[rows] == k).sum() for k in there])
    assert np.ptp(shown) <= 1
    for k in there:
        assert np.ptp([(rows == row).sum() for row in np.flatnonzero(clusters == k)]) <= 1
    several = [random.permutation(clusters) for _ in range(times)]
    rows = evenly(several, random)
    assert len(rows) == len(clusters)
    for other in several:
        shown = np.array([(other[rows] == k).sum() for k in there])
        assert shown.min() >= len(rows) // times // len(there)


def test_the_order_is_a_function_of_seed_stage_epoch_and_labels() -> None:
    made = method(single, ["video"])
    begun(made)

    def order(made: Any = made, *, seed: int = 0, stage: int = 0, epoch: int = 0) -> list[int]:
        rows = made.order(N, seed=seed, stage=made.stages[stage], epoch=epoch)
        return list(map(int, rows))

    assert order() == order()
    assert order(epoch=1) != order() != order(seed=1)
    assert order(stage=1) != order()
    assert np.bincount(VIDEO[order()]).tolist() == [6, 6, 6, 6]
    made.get_buffer("labels_video").copy_(torch.tensor([0] * 20 + [1, 2, 3, 3]))
    assert np.bincount(labels(made, "video")[order()]).tolist() == [6, 6, 6, 6]
    plain = method(single, ["video"], uniform=False)
    begun(plain)
    assert sorted(order(plain)) == list(range(N))


def test_a_clip_that_is_drawn_twice_is_moved_differently() -> None:
    drawn = {"drawn": lambda epoch: np.array([0, 1, 0, 2, 0, 3, 3, 3])}
    asked = list(requests(8, batch=2, epochs=1, seed=0, stage="x", **drawn))
    assert len({request.seed for request in asked}) == 4
    once = list(requests(8, batch=2, epochs=1, seed=0, stage="x", drawn=lambda epoch: np.arange(8)))
    assert once[0].seed == once[3].seed


# Runs.


def run(
    folder: Path,
    recipe: RecipeFunction = xdc_small,
    media: Toy | None = None,
    clips: Clips | None = None,
    initial: Path | None = None,
    **arguments: Any,
) -> Path:
    arguments = {xdc_small: FEW, xdc: NARROW}.get(recipe, TINY) | arguments
    clips = clips or toy_clips(CLIPS)
    reader = media or Toy()
    train(recipe, arguments, clips, folder, media=reader, initial=initial, workers=0, save_every=2)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("xdc"))


def test_a_map_of_its_towers_is_embedded_whole(tmp_path: Path, trained: Path) -> None:
    """What conv5 pools to is what the tower gives; small towers have no maps."""
    folder = run(tmp_path / "run", xdc, rounds=1, epochs=0, audio_clusters=2, video_clusters=2)
    clips, files = toy_clips(3), (tmp_path / "conv5.parquet", tmp_path / "pool.parquet")
    maps = embed(folder, clips, files[0], media=Toy(), workers=0, layer="conv5")
    rows = embed(folder, clips, files[1], media=Toy(), workers=0)
    for modality in ("audio", "video"):
        x = maps.matrix(modality).reshape(3, rows.matrix(modality).shape[1], -1)
        assert x.shape[2] > 1
        pooled = x.max(2) if modality == "audio" else x.mean(2)
        pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
        assert pooled == pytest.approx(rows.matrix(modality), abs=1e-5)
    with pytest.raises(UsageError, match="no convolutional networks by stages, and have no conv5"):
        embed(trained, clips, tmp_path / "none.parquet", media=Toy(), workers=0, layer="conv5")


def test_half_precision_is_half_the_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Any] = []
    memmap = np.memmap

    def noted(*given: Any, **more: Any) -> Any:
        kept.append(memmap(*given, **more))
        return kept[-1]

    monkeypatch.setattr(np, "memmap", noted)
    for half in (False, True):
        run(tmp_path / str(half), half=half, rounds=1)
    full, halved = kept[:2], kept[2:]
    assert len(halved) == 2
    for one, other in zip(full, halved, strict=True):
        assert (one.dtype, other.dtype) == (np.float32, np.float16)
        assert 2 * other.nbytes == one.nbytes == 4 * CLIPS * 16
        assert np.array_equal(one.astype(np.float16), other)


def test_more_components_than_features_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="features of 16 numbers have no 17 components: --pca"):
        run(tmp_path / "run", pca=17)
    assert not (tmp_path / "run").exists()


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_run_logs_its_clusters_and_leaves_them_by_clip(trained: Path) -> None:
    lines = log(trained)
    assert [(line["stage"], line["step"]) for line in lines] == [
        (f"round {number}", step) for number in (1, 2) for step in range(4)
    ]
    assert [line["step"] for line in lines if "clusters" in line] == [0, 0]
    assert set(lines[0]["terms"]) == {"video from audio", "audio from video"}
    assert 0 <= lines[4]["clusters"]["audio"]["nmi"] <= 1
    for number in (1, 2):
        table = pq.read_table(trained / f"round {number}.parquet")
        assert table["id"].to_pylist() == [f"c{i}" for i in range(CLIPS)]
        assert set(table["audio"].to_pylist()) == {0, 1, 2}
        assert set(table["video"].to_pylist()) == {0, 1, 2, 3}
    last = torch.load(trained / "last.pt", weights_only=True)["model"]
    found = read_assignment(trained / "round 2.parquet", "audio").of
    assert last["labels_audio"].tolist() == list(found.values())


def test_other_methods_begin_with_its_towers(trained: Path) -> None:
    """And the weights, which hold no labels, are a model without its clips."""
    frames = np.zeros((2, 2, 40, 40, 3), np.uint8)
    found = load(trained).embed(video=frames, audio=np.zeros((2, int(SECONDS * RATE)), np.float32))
    assert {m: x.shape for m, x in found.items()} == {"audio": (2, 16), "video": (2, 16)}
    weights = trained / "round 2.safetensors"
    other = make(av_small, train_tokenizer(["cut"]), TINY).method
    load_towers(other, weights)
    for m in ("audio", "video"):
        mine = load(trained).method.towers[m].state_dict()
        assert all(x.equal(mine[name].cpu()) for name, x in other.towers[m].state_dict().items())


class Deadly(Toy):
    """Kills this process at a read."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def read(self, row: int, *, frames: int, film: slice = slice(None)) -> Media:
        if self.reads == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(row, frames=frames, film=film)


ROUND = CLIPS + 4 * 8


@pytest.mark.parametrize(
    "at",
    [
        pytest.param(
            1 + ROUND + 5, id="while the second round's features are taken", marks=pytest.mark.slow
        ),
        pytest.param(1 + ROUND + CLIPS + 20, id="inside the second round, after a checkpoint"),
        pytest.param(1 + CLIPS + 4, id="before the first checkpoint", marks=pytest.mark.slow),
    ],
)
def test_a_run_killed_in_a_round_ends_bit_for_bit(at: int, trained: Path, tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    process = fork.Process(target=run, args=(tmp_path,), kwargs={"media": Deadly(at)})
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    run(tmp_path)
    for file in ("round 1.safetensors", "round 2.safetensors", "round 2.parquet"):
        assert (tmp_path / file).read_bytes() == (trained / file).read_bytes()
    for key in ("loss", "clusters"):
        assert [line.get(key) for line in log(tmp_path)] == [line.get(key) for line in log(trained)]


def test_a_run_that_settles_is_done(tmp_path: Path) -> None:
    run(tmp_path, rounds=4, converged=1e-9, rate=0.0)
    assert [line["stage"] for line in log(tmp_path)] == ["round 1"] * 4
    assert not (tmp_path / "round 2.parquet").exists()
    last = (tmp_path / "round 4.safetensors").read_bytes()
    media = Toy()
    run(tmp_path, media=media, rounds=4, converged=1e-9, rate=0.0)
    assert media.reads == 0
    assert (tmp_path / "round 4.safetensors").read_bytes() == last


def test_one_modality_is_enough_for_sdc(tmp_path: Path) -> None:
    one = {"rounds": 1, "epochs": 1, "audio_clusters": 3, "modalities": ("audio",)}
    run(tmp_path, sdc_small, media=Deaf(video=True), **one)
    assert set(log(tmp_path)[0]["terms"]) == {"audio from audio"}


class Deaf(Toy):
    """Clips without sound, or without pictures."""

    def __init__(self, *, video: bool = False) -> None:
        super().__init__()
        self.video = video

    def read(self, row: int, *, frames: int, film: slice = slice(None)) -> Media:
        media = super().read(row, frames=0 if self.video else frames)
        if self.video:
            return media
        return Media(media.frames, media.frame_times, None, None, media.rate)


def test_two_encoders_of_one_modality_teach_each_other(tmp_path: Path) -> None:
    arguments = {"rounds": 1, "epochs": 1, "clusters": 3}
    method = make(same_modality_small, train_tokenizer(["cut"]), TINY | arguments).method
    first, second = (
        method.get_parameter(f"{where}.head.weight")
        for where in ("towers.video", "seconds.second_video")
    )
    assert not first.equal(second), "two networks that begin alike would stay so"
    assert first.equal(
        make(xdc_small, train_tokenizer(["cut"]), FEW).method.towers["video"].head.weight
    )
    run(tmp_path, same_modality_small, **arguments)
    terms = log(tmp_path)[0]["terms"]
    assert set(terms) == {"video from second_video", "second_video from video"}
    table = pq.read_table(tmp_path / "round 1.parquet")
    assert table.column_names[2::2] == ["second_video", "video"]
    found = load(tmp_path).embed(video=np.zeros((2, 2, 40, 40, 3), np.uint8))
    assert set(found) == {"video"}


def test_the_last_clusters_train_new_encoders(trained: Path, tmp_path: Path) -> None:
    table = str(trained / "round 2.parquet")
    final = {"table": table, "clusters": 3, "epochs": 1}
    run(tmp_path / "final", xdc_final_small, **final)
    assert set(log(tmp_path / "final")[0]["terms"]) == {"video from audio"}
    state = torch.load(tmp_path / "final" / "last.pt", weights_only=True)["model"]
    assert state["labels_audio"].tolist() == list(read_assignment(Path(table), "audio").clusters)
    load(tmp_path / "final")
    with pytest.raises(UsageError, match=r"no cluster for 2 of the 20 clips.*'c18'; it is of"):
        run(tmp_path / "a", xdc_final_small, clips=toy_clips(20), **final)
    starts = pa.array(np.arange(CLIPS) + 0.1)
    column = toy_clips(CLIPS).table.column_names.index("start")
    moved = Clips(toy_clips(CLIPS).table.set_column(column, "start", starts), Path())
    with pytest.raises(TableError, match="18 of the 18 clips have an id that was clustered"):
        run(tmp_path / "moved", xdc_final_small, clips=moved, **final)
    with pytest.raises(UsageError, match="ask for `--clusters 3` or more, not 2"):
        run(tmp_path / "b", xdc_final_small, **final | {"clusters": 2})
    with pytest.raises(
        TableError, match=r"no clusters of 'text'; `--source` is one of audio, video"
    ):
        run(tmp_path / "c", xdc_final_small, **final | {"source": "text"})
    with pytest.raises(TableError, match=r"nowhere\.parquet: no such table of clusters"):
        run(tmp_path / "d", xdc_final_small, **final | {"table": "nowhere.parquet"})
    foreign = tmp_path / "foreign.parquet"
    pq.write_table(toy_clips(2).table, foreign)
    with pytest.raises(TableError, match="is no table of clusters of version 1"):
        read_assignment(foreign, "audio")


def test_a_table_of_clusters_that_changes_is_noticed(trained: Path, tmp_path: Path) -> None:
    final, table = tmp_path / "final", tmp_path / "t.parquet"
    arguments = {"table": str(table), "clusters": 3, "epochs": 0}
    copyfile(trained / "round 2.parquet", table)
    run(final, xdc_final_small, **arguments)
    record = json.loads((final / "record.json").read_text())
    assert record["files"] == {"table": hashlib.sha256(table.read_bytes()).hexdigest()}
    run(final, xdc_final_small, **arguments)
    check_same_files(final)
    copyfile(trained / "round 1.parquet", table)
    for _ in range(2):  # a run that is finished, and one that would go on
        with pytest.raises(UsageError, match=r"table: .*t\.parquet held something else there"):
            run(final, xdc_final_small, **arguments)
        (final / "final.safetensors").unlink(missing_ok=True)
    with pytest.raises(UsageError, match="was trained on other files:\n  table: "):
        check_same_files(final)


def test_a_table_that_is_gone_or_was_never_noted_is_taken_for_the_same(
    trained: Path, tmp_path: Path
) -> None:
    final, table = tmp_path / "final", tmp_path / "t.parquet"
    arguments = {"table": str(table), "clusters": 3, "epochs": 0}
    copyfile(trained / "round 2.parquet", table)
    run(final, xdc_final_small, **arguments)
    table.unlink()
    run(final, xdc_final_small, **arguments)
    copyfile(trained / "round 1.parquet", table)
    record = json.loads((final / "record.json").read_text())
    del record["files"]  # as before there were any in a record
    (final / "record.json").write_text(json.dumps(record))
    run(final, xdc_final_small, **arguments)


def test_what_cannot_be_clustered_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="19 clusters of audio wanted of 18 clips"):
        run(tmp_path / "many", audio_clusters=19)
    with pytest.raises(UsageError, match="clip 'c0' and others that were looked at have no sound"):
        run(tmp_path / "deaf", media=Deaf())
    assert not (tmp_path / "deaf").exists()
    made = method(crossed)
    bad = {m: x.clone() for m, x in seen().items()}
    bad["video"][7, 2] = torch.nan
    with pytest.raises(UsageError, match=r"round 1, clusters of video: row 7 .* not finite"):
        begun(made, x=bad)
    alike = seen() | {"audio": torch.ones(N, 5)}
    with pytest.raises(UsageError, match=r"clusters of audio: all 24 rows .* are equal"):
        begun(made, x=alike)
    with pytest.raises(UsageError, match=r"clusters of video\+audio: all rows of audio are equal"):
        begun(method(concatenated), x=alike | {"video": seen()["video"]})
    with pytest.raises(UsageError, match="keep at most pca=2"):
        begun(method(single, ["audio"], pca=5))
    with pytest.raises(UsageError, match="NMI above 0 and at most 1, not 2"):
        Rounds(converged=2.0)
    with pytest.raises(UsageError, match="of audio and video, not of text"):
        make(sdc_small, train_tokenizer(["cut"]), TINY | {"modalities": ["text"]})
    with pytest.raises(UsageError, match="each learns the clusters of one or more"):
        method(crossed, ["audio"])
    with pytest.raises(TableError, match="no column or label 'mood'"):
        method(crossed, compared=("mood",))


# The networks and views of the paper.


@pytest.mark.parametrize("geometry", ["vmz", "torchvision"])
def test_sound_may_have_either_geometry(geometry: Any) -> None:
    made = make(xdc, train_tokenizer(["cut"]), NARROW | {"geometry": geometry})
    tower = made.method.towers["audio"]
    shapes = {name: x.shape for name, x in AudioResNet(geometry, planes=4).state_dict().items()}
    assert {name: x.shape for name, x in tower.state_dict().items()} == shapes
    assert tower(torch.zeros(2, 100, 40)).shape == (2, 32)


def test_a_film_is_some_consecutive_frames_of_the_clip() -> None:
    views = make(xdc, train_tokenizer(["cut"]), NARROW).views
    video = np.zeros((6, 3, 36, 36), np.uint8) + np.arange(6, dtype=np.uint8)[:, None, None, None]
    assert views.frames == 6
    assert views.middle(video).shape == (2, 3, 32, 32)
    assert views.middle(video[None])[0, :, 0, 0, 0].tolist() == [2, 3]
    assert views.middle(video[:1]).shape == (1, 3, 32, 32)
    films = [views.moved(video, np.random.default_rng(seed)) for seed in range(50)]
    begins = {int(film[0, 0, 0, 0]) for film in films}
    assert begins == {0, 1, 2, 3, 4}
    assert all(film.shape == (2, 3, 32, 32) for film in films)
    assert all((np.diff(film[:, 0, 0, 0].astype(int)) == 1).all() for film in films)


@pytest.mark.parametrize("seed", [None, (0, 1, 2)])
def test_without_a_cache_a_film_s_frames_alone_are_read(
    tmp_path: Path, seed: tuple[int, ...] | None
) -> None:
    """And are the same ones."""
    views = make(xdc, train_tokenizer(["cut"]), NARROW).views
    read = list[int]()

    class Counted(Toy):
        def read(self, row: int, *, frames: int, film: slice = slice(None)) -> Media:
            media = super().read(row, frames=frames, film=film)
            read.append(len(media.frames))
            return media

    request = Request(np.arange(12), seed)
    found = [
        Examples(toy_clips(12), Counted(), views, ("audio", "video"), cache).batch(request)[0]
        for cache in (None, tmp_path)
    ]
    assert read == [2] * 12 + [6] * 12
    for modality in ("audio", "video"):
        np.testing.assert_array_equal(found[0][modality], found[1][modality])


def test_the_paper_s_numbers() -> None:
    made = make(xdc, train_tokenizer(["cut"]), {"planes": 4})
    v = made.views
    assert (v.frames, v.film, v.kept_size, v.size, v.seconds) == (60, 8, 256, 224, 2.0)
    assert v.shapes["audio"][1] == (100, 40)
    wave = np.random.default_rng(0).standard_normal(32_000).astype(np.float32)
    np.testing.assert_array_equal(v.audio(wave, 16_000), front_end(wave, 16_000))
    assert [stage.name for stage in made.method.stages] == [f"round {i}" for i in range(1, 7)]
    with torch.device("meta"):
        towers = Moments().towers(train_tokenizer(["cut"]))
    counts = {m: sum(p.numel() for p in tower.parameters()) for m, tower in towers.items()}
    assert counts == {"video": 33_165_639, "audio": 11_202_528}
    with pytest.raises(UsageError, match="60 frames, which hold no film of 64"):
        make(xdc, train_tokenizer(["cut"]), {"planes": 4, "frames": 64})
    with pytest.raises(UsageError, match="there is none for text"):
        Moments(planes=4).towers(train_tokenizer(["cut"]), ["text"])


def test_pictures_are_normalised_as_torch_does() -> None:
    torch.manual_seed(0)
    ours, theirs = SharedBatchNorm2d(3), nn.BatchNorm2d(3)
    for x in torch.randn(2, 4, 3, 5, 2):
        torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


@pytest.mark.slow
def test_the_paper_s_networks_train(tmp_path: Path) -> None:
    run(tmp_path, xdc, **TWO)
    assert len(log(tmp_path)) == 8


def test_every_model_of_table_1_is_a_recipe() -> None:
    names = ["sdc", "mdc", "cdc", "xdc", "same-modality", "xdc-final"]
    assert {f"{name}{small}" for name in names for small in ("", "-small")} <= RECIPES.keys()
    routes = {
        name: make(RECIPES[f"{name}-small"], train_tokenizer(["cut"]), TINY).method.routes
        for name in names[:5]
    }  # type: ignore[union-attr]
    assert routes["sdc"] == {"video": ["video"], "audio": ["audio"]}
    assert routes["mdc"] == {"video": ["video", "audio"], "audio": ["audio", "video"]}
    assert routes["cdc"] == {"video": ["video+audio"], "audio": ["video+audio"]}
    assert routes["xdc"] == {"video": ["audio"], "audio": ["video"]}
    assert routes["same-modality"] == {"video": ["second_video"], "second_video": ["video"]}
    assert mdc_small in RECIPES.values()


def shared_cause(classes: int, own: int) -> tuple[Any, dict[Modality, Tensor]]:
    """Clips of a class that both modalities show faintly, each beside a loud matter of its own."""
    random = torch.Generator().manual_seed(0)
    n = 240
    cause = torch.arange(n) % classes
    x: dict[Modality, Tensor] = {}
    for m in ("video", "audio"):
        matter = torch.randint(own, (n,), generator=random)
        told = torch.cat([F.one_hot(cause, classes), 2 * F.one_hot(matter, own)], 1).float()
        mix = torch.randn(classes + own, 16, generator=random)
        x[m] = told @ mix + 0.3 * torch.randn(n, 16, generator=random)
    return cause.numpy(), x


def agreement(policy: Policy, cause: Any, x: dict[Modality, Tensor]) -> float:
    """NMI of the last labels with the cause: the worse of the modalities'."""
    torch.manual_seed(0)
    rounds = Rounds(rounds=4, epochs=1)
    made = DeepCluster(
        {m: nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8)) for m in x},
        rounds.stages,
        routes=policy(list(x)),
        clusters={"audio": 8, "video": 8},
        width=8,
        rounds=rounds,
    )
    made.attach(toy_clips(len(cause)))
    batch = Batch(torch.arange(len(cause)), x)
    for stage in made.stages:
        with torch.no_grad():
            seen = made.survey(batch)
        made.begin(stage, _given(seen))
        learn(made, batch, stage)
    return min(nmi(labels(made, source), cause) for source in made.sources)


def _given(seen: Mapping[str, Tensor]) -> Callable[[], Mapping[str, Tensor]]:
    return lambda: seen


def learn(made: DeepCluster, batch: Batch, stage: Stage) -> None:
    optimizer = torch.optim.Adam(made.parameters(), 1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        torch.stack(list(made(batch, stage).values())).sum().backward()
        optimizer.step()


@pytest.mark.slow
def test_crossed_clusters_find_the_cause_that_modalities_share() -> None:
    cause, x = shared_cause(classes=4, own=4)
    across, within = (agreement(policy, cause, x) for policy in (crossed, single))
    assert across > 0.75
    assert within < 0.55
