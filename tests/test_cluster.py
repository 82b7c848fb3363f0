import logging
import math
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs
from sklearn.decomposition import PCA
from torch import Tensor

import sonant.cluster as cluster
from sonant.cluster import Clusters, Preparation, kmeans, nearest, preparation, sinkhorn
from sonant.distributed import rank, ranks
from sonant.errors import UsageError

Array = NDArray[Any]
K = 7


def blobs(rows: int, width: int, centres: int, spread: float = 1.0, seed: int = 0) -> Tensor:
    x, _ = make_blobs(rows, width, centers=centres, cluster_std=spread, random_state=seed)
    return torch.from_numpy(x).float()


def squares(x: Tensor, centroids: Tensor) -> Tensor:
    """Squared distances [n, k], one by one, in float64."""
    return (x.double()[:, None] - centroids.double()).square().sum(-1)


def lloyd(x: Array, centroids: Array, iterations: int) -> tuple[Array, Array, list[float]]:
    """The textbook's k-means; it has no answer to empty clusters."""
    objective = []
    for step in range(iterations + 1):
        distances = ((x[:, None] - centroids) ** 2).sum(-1)
        labels = distances.argmin(1)
        objective.append(distances.min(1).sum())
        if step < iterations:
            centroids = np.stack([x[labels == j].mean(0) for j in range(len(centroids))])
    return centroids, labels, objective[1:]


@st.composite
def features(draw: st.DrawFn) -> tuple[Tensor, int]:
    """Rows with many ties and repetitions, and a k that they have."""
    rows, width = draw(st.integers(2, 40)), draw(st.integers(1, 5))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.sampled_from([2, 5, 1000]))
    scale, offset = draw(st.sampled_from([1e-3, 1.0, 1e3])), draw(st.sampled_from([0.0, 50.0]))
    x = torch.from_numpy(random.integers(0, levels, (rows, width)) * scale + offset).float()
    there = len(x.unique(dim=0))
    return x, draw(st.integers(1, min(there, 8)))


@settings(max_examples=60, deadline=None)
@given(features(), st.sampled_from(["plusplus", "random"]), st.integers(0, 5))
def test_what_is_always_so(data: tuple[Tensor, int], start: Any, seed: int) -> None:
    x, k = data
    if (x == x[0]).all():
        return
    found = kmeans(x, k, seed=seed, iterations=6, start=start)
    spread = float((x.double() - x.double().mean(0)).square().sum())
    assert found.centroids.shape == (k, x.shape[1])
    assert found.objective.shape == (6,)
    assert (found.objective.diff() <= 1e-12 * spread).all()
    assert sorted(found.assignments.unique().tolist()) == list(range(k))
    distances, rows = squares(x, found.centroids), torch.arange(len(x))
    rounding = 1e-5 * x.abs().max() ** 2
    assert (distances[rows, found.assignments] <= distances.amin(1) + rounding).all()
    explicit = float(distances[rows, found.assignments].sum())
    assert float(found.objective[-1]) == pytest.approx(explicit, abs=float(len(x) * rounding))


def test_iterations_are_those_of_the_textbook() -> None:
    x = blobs(500, 6, 12, spread=3.0).double()
    start = x[:K].clone()
    centroids, labels, objective = lloyd(x.numpy(), start.numpy(), 9)
    found = kmeans(x, K, seed=0, iterations=9, start=start)
    np.testing.assert_allclose(found.centroids, centroids, atol=1e-10)
    np.testing.assert_array_equal(found.assignments, labels)
    np.testing.assert_allclose(found.objective, objective, rtol=1e-12)


def test_means_at_the_end_stay() -> None:
    x = blobs(300, 3, K)
    found = kmeans(x, K, seed=0, iterations=50)
    for j in range(K):
        torch.testing.assert_close(found.centroids[j], x[found.assignments == j].mean(0))
    assert (found.objective[10:] == found.objective[-1]).all()
    again = kmeans(x, K, seed=0, iterations=3, start=found.centroids)
    torch.testing.assert_close(again.centroids, found.centroids)
    assert torch.equal(again.assignments, found.assignments)


FEATURES = {
    "apart": (lambda: blobs(2000, 8, 20), 20),
    "blurred": (lambda: blobs(2000, 2, 30, spread=0.6), 30),
    "uneven": (lambda: torch.cat([blobs(n, 6, 3, seed=n) for n in (900, 300, 90, 30)]), 12),
    "none": (lambda: torch.randn(1500, 16, generator=torch.Generator().manual_seed(0)), 20),
}


@pytest.mark.parametrize("name", FEATURES)
def test_objective_is_that_of_scikit_learn_and_faiss_or_less(name: str) -> None:
    made, k = FEATURES[name]
    x, seeds = made(), range(4)
    ours = [float(kmeans(x, k, seed=s, iterations=25).objective[-1]) for s in seeds]
    learned = [
        KMeans(k, n_init=1, max_iter=25, tol=0, random_state=s).fit(x.numpy()).inertia_
        for s in seeds
    ]
    theirs = []
    for s in seeds:
        other = faiss.Kmeans(x.shape[1], k, niter=25, seed=s, max_points_per_centroid=len(x))
        other.cp.min_points_per_centroid = 1
        other.train(x.numpy())
        theirs.append(other.obj[-1])
    assert np.mean(ours) <= 1.005 * min(np.mean(learned), np.mean(theirs))
    assert min(ours) <= 1.005 * min(*learned, *theirs)


def test_restarts_take_the_best() -> None:
    x = blobs(600, 2, 25, spread=0.8)
    each = [float(kmeans(x, 25, seed=3, restarts=r, start="random").objective[-1]) for r in (1, 5)]
    assert each[1] < each[0]


def test_the_same_seed_gives_the_same_bits() -> None:
    x = blobs(400, 5, 9, spread=4.0)
    first, again, other = (kmeans(x, K, seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.centroids, other.centroids)


@pytest.mark.parametrize("start", ["plusplus", "random"])
def test_the_order_of_rows_does_not_matter(start: Any) -> None:
    x = blobs(3000, 5, 9, spread=4.0)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    plain, mixed = (kmeans(rows, K, seed=0, start=start) for rows in (x, x[order]))
    torch.testing.assert_close(mixed.centroids, plain.centroids, atol=1e-6, rtol=1e-6)
    assert torch.equal(mixed.assignments, plain.assignments[order])


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 60), st.integers(2, 9), st.sampled_from([0.0, 1e3]), st.sampled_from([1, 1e-6])
)
def test_float64_decides_where_float32_cannot(
    width: int, k: int, offset: float, apart: float
) -> None:
    random = np.random.default_rng(width + k)
    centroids = torch.from_numpy(offset + random.standard_normal((k, width)) * apart)
    x = torch.from_numpy(offset + random.standard_normal((200, width)) * apart).float()
    want = squares(x, centroids)
    for precision in ("highest", "medium"):
        torch.set_float32_matmul_precision(precision)
        try:
            labels = cluster._finder(centroids)(x)
        finally:
            torch.set_float32_matmul_precision("highest")
        chosen = want[torch.arange(len(x)), labels]
        assert (chosen <= want.amin(1) + 2e-12 * (want.amin(1) + apart * abs(offset))).all()


def test_an_outlier_does_not_blur_the_others() -> None:
    x = torch.cat([blobs(500, 5, K, spread=3.0), torch.full((1, 5), 1e6)]).double()
    found = kmeans(x, K + 1, seed=0)
    assert (found.objective.diff() <= 1e-6 * found.objective[0]).all()
    distances = squares(x, found.centroids)
    chosen = distances[torch.arange(len(x)), found.assignments]
    assert (chosen <= distances.amin(1) * (1 + 1e-4)).all()


def test_empty_clusters_split_others(caplog: pytest.LogCaptureFixture) -> None:
    x = blobs(300, 3, 5)
    start = torch.cat([x[:2], torch.full((3, 3), 1e4) + torch.arange(3)[:, None]])
    with caplog.at_level(logging.INFO, "sonant.cluster"):
        found = kmeans(x, 5, seed=0, iterations=12, start=start)
    assert "3 of 5 clusters had no rows" in caplog.text
    assert found.assignments.bincount(minlength=5).min() > 0
    assert (found.objective.diff() <= 0).all()
    once = kmeans(x, 5, seed=0, iterations=1, start=start)
    assert once.assignments.bincount(minlength=5).min() > 0


def test_as_many_clusters_as_rows() -> None:
    x = torch.arange(12.0).reshape(6, 2)
    found = kmeans(x, 6, seed=0)
    assert sorted(found.assignments.tolist()) == list(range(6))
    assert float(found.objective[-1]) == pytest.approx(0, abs=1e-9)


def test_spherical_means_have_length_1() -> None:
    x = blobs(400, 5, 9, spread=4.0)
    found = kmeans(x, K, seed=0, spherical=True)
    torch.testing.assert_close(found.centroids.norm(dim=1), torch.ones(K))
    assert (found.objective.diff() <= 0).all()
    cosine = torch.nn.functional.normalize(x, dim=1) @ found.centroids.T
    assert torch.equal(cosine.argmax(1), found.assignments)
    assert float(found.objective[-1]) == pytest.approx(float((2 - 2 * cosine.amax(1)).sum()), 1e-4)
    scaled = kmeans(x * torch.rand(len(x), 1).add(0.5), K, seed=0, start=found.centroids)
    assert scaled.centroids.norm(dim=1).max() > 1.5


def test_preparation_is_that_of_scikit_learn() -> None:
    x = torch.randn(500, 9, generator=torch.Generator().manual_seed(0)) @ torch.randn(9, 9) + 3
    for whiten in (False, True):
        want = torch.from_numpy(PCA(4, whiten=whiten, svd_solver="full").fit_transform(x.double()))
        found = preparation(x, pca=4, whiten=whiten)(x.double())
        torch.testing.assert_close(found.abs(), want.abs(), atol=1e-6, rtol=1e-6)
    unit = preparation(x, pca=4, whiten=True, unit=True)(x)
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(500))
    torch.testing.assert_close(
        preparation(x, whiten=True)(x).T.cov(), torch.eye(9), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(preparation(x, unit=True)(x), x / x.norm(dim=1, keepdim=True))


def test_centroids_are_in_the_prepared_space() -> None:
    x = blobs(300, 6, K)
    prepare = preparation(x, pca=3, whiten=True)
    found = kmeans(x, K, seed=0, prepare=prepare)
    plain = kmeans(prepare(x), K, seed=0, start=found.centroids)
    torch.testing.assert_close(plain.centroids, found.centroids, atol=1e-5, rtol=1e-5)
    again = nearest(x, found.centroids, prepare=prepare)
    assert torch.equal(again.assignments, found.assignments)
    want = squares(prepare(x), found.centroids).amin(1)
    torch.testing.assert_close(again.distances, want)


class Watched:
    """Rows on a disk, which tells how many are read at once."""

    def __init__(self, x: Array) -> None:
        self.x, self.shape, self.most, self.passes = x, x.shape, 0, 0

    def __getitem__(self, rows: Any) -> Array:
        read = self.x[rows]
        self.most = max(self.most, len(read))
        self.passes += len(read)
        return read


def test_rows_are_read_in_blocks(tmp_path: Path) -> None:
    x = blobs(5000, 6, K).half()
    np.save(tmp_path / "x.npy", x.numpy())
    there = Watched(np.load(tmp_path / "x.npy", mmap_mode="r"))
    found = kmeans(there, K, seed=0, iterations=5)
    assert there.most == cluster._BLOCK
    assert there.passes <= 5000 * (3 + 2 * cluster.ROUNDS + 1 + 5)
    plain = x.numpy()
    others = [x, x.float(), x.float().numpy(), np.asfortranarray(plain), plain.astype(">f2")]
    for other in (*others, plain[::-1].copy()[::-1]):
        same = kmeans(other, K, seed=0, iterations=5)
        assert all(torch.equal(a, b) for a, b in zip(same, found, strict=True))
    assert found.centroids.dtype == torch.float32
    assert kmeans(x.double(), K, seed=0).centroids.dtype == torch.float64


def test_a_share_is_said_and_the_rest_assigned(caplog: pytest.LogCaptureFixture) -> None:
    x = blobs(4000, 4, K)
    there = Watched(x.numpy())
    with caplog.at_level(logging.INFO, "sonant.cluster"):
        found = kmeans(there, K, seed=0, share=0.25)
    learned = int(caplog.text.split("learned from ")[1].split(" of 4000")[0])
    assert 900 < learned < 1100
    assert len(found.assignments) == 4000
    whole = kmeans(x, K, seed=0)
    assert float(squares(x, found.centroids).amin(1).sum()) < 1.02 * float(whole.objective[-1])
    assert float(found.objective[-1]) < 0.3 * float(whole.objective[-1])


def test_chances_are_alike_even_for_flags() -> None:
    x = torch.tensor([[(i >> bit) & 1 for bit in range(11)] for i in range(2048)]).float()
    blocks = cluster.Blocks(x)
    drawn = []
    for seed in range(20):
        multipliers = cluster._multipliers(blocks, torch.Generator().manual_seed(seed))
        hashes, chances = cluster._chances(x, multipliers)
        assert len(hashes.unique()) == 2048
        gaps = chances.sort().values - torch.arange(0.5, 2048) / 2048
        drawn.append(float(gaps.abs().max()) * math.sqrt(2048))
    assert np.median(drawn) < 1.2, "Kolmogorov's statistic has a median of 0.83"


def sharded(name: str) -> Tensor:
    """This rank's rows: dealt in turn, in unequal parts, or all to one."""
    x = blobs(700, 6, 12, spread=4.0)
    return {
        "in turn": x[rank() :: ranks()],
        "unequal": x[rank() ** 2 * 700 // ranks() ** 2 : (rank() + 1) ** 2 * 700 // ranks() ** 2],
        "all to the last": x if rank() == ranks() - 1 else x[:0],
    }[name]


def clustered() -> dict[str, Clusters]:
    """All that must not depend on the number of ranks."""
    lost = torch.cat([blobs(5, 6, 5), torch.full((2, 6), 1e3)])
    found = {way: kmeans(sharded(way), K, seed=0) for way in ("in turn", "unequal")}
    x = sharded("in turn")
    found["all to the last"] = kmeans(sharded("all to the last"), K, seed=1, start="random")
    found["empty"] = kmeans(x, K, seed=0, iterations=4, start=lost)
    found["share"] = kmeans(x, K, seed=0, share=0.5, restarts=2)
    found["share of the last"] = kmeans(sharded("all to the last"), K, seed=0, share=0.5)
    prepare = preparation(x, pca=3, whiten=True, unit=True)
    found["prepared"] = kmeans(x, K, seed=0, prepare=prepare, spherical=True)
    return found


def refused() -> list[str]:
    """What ranks say of rows that only one of them has, or that fit no other's."""
    x, said = blobs(700, 6, 12), []
    broken = x.clone()
    broken[9, 2] = math.nan
    only = [x, broken][rank() % 2]
    for rows, k in ((only, K), (x[:, : 6 - rank()], K), (x[:1].repeat(5, 1), 2), (x[:3], 50)):
        with pytest.raises(UsageError) as caught:
            kmeans(rows, k, seed=0)
        said.append(str(caught.value))
    return said


def one_rank(number: int, count: int, folder: Path) -> None:
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=number, world_size=count)
    found = {name: tuple(each) for name, each in clustered().items()}
    torch.save((found, refused()), folder / f"{number}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_ranks_find_what_one_process_finds(count: int, tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=one_rank, args=(i, count, tmp_path)) for i in range(count)]
    for process in processes:
        process.start()
    alone = clustered()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * count
    parts = [torch.load(tmp_path / f"{i}.pt", weights_only=True) for i in range(count)]
    for name, (centroids, labels, objective) in alone.items():
        for found, _ in parts:
            torch.testing.assert_close(found[name][0], centroids, atol=1e-6, rtol=1e-6)
            torch.testing.assert_close(found[name][2], objective, rtol=1e-6, atol=0)
        dealt = torch.cat([found[name][1] for found, _ in parts])
        order = torch.arange(len(labels))
        if name not in ("unequal", "all to the last", "share of the last"):
            order = torch.cat([order[i::count] for i in range(count)])
        assert torch.equal(dealt, labels[order])
    for _, said in parts:
        assert said == parts[0][1]
    assert "row 9 of the 700 of rank 1" in said[0]
    assert f"[{', '.join(str(6 - i) for i in range(count))}] numbers wide" in said[1]
    assert f"all {5 * count} rows" in said[2]
    assert f"k=50 clusters wanted of {3 * count} rows" in said[3]


def changed(x: Tensor, row: int, value: float) -> Tensor:
    x = x.clone()
    x[row] = value
    return x


X = blobs(1500, 3, 4)
BAD: dict[str, tuple[Callable[[], object], str]] = {
    "k": (lambda: kmeans(X, 0, seed=0), "k must be at least 1, not 0"),
    "more k than rows": (lambda: kmeans(X, 1501, seed=0), "k=1501 clusters wanted of 1500 rows"),
    "no rows": (lambda: kmeans(X[:0], 1, seed=0), "k=1 clusters wanted of 0 rows"),
    "few rows": (lambda: kmeans(X[:4].repeat(9, 1), 5, seed=0), "only 4 rows differ"),
    "few rows, at random": (
        lambda: kmeans(X[:4].repeat(9, 1), 5, seed=0, start="random"),
        "only 4 rows differ",
    ),
    "few directions": (
        lambda: kmeans(X[:1] * torch.arange(1.0, 9)[:, None], 2, seed=0, spherical=True),
        "all 8 rows of the features are equal",
    ),
    "few rows, given": (
        lambda: kmeans(X[:4].repeat(9, 1), 5, seed=0, start=X[:5]),
        "only 4 rows differ",
    ),
    "NaN": (
        lambda: kmeans(changed(X, 1200, math.nan), 2, seed=0),
        "row 1200 of the features is not finite",
    ),
    "infinity": (
        lambda: kmeans(changed(X, 3, math.inf), 2, seed=0),
        "row 3 of the features is not finite",
    ),
    "NaN to assign": (lambda: nearest(changed(X, 3, math.nan), X[:2]), "row 3 of the features"),
    "no direction": (
        lambda: kmeans(changed(X, 7, 0), 2, seed=0, spherical=True),
        "row 7 of the features has no direction; so it is with 1 of 1500",
    ),
    "collapsed": (lambda: kmeans(X[:1].repeat(9, 1), 2, seed=0), "all 9 rows of the features are"),
    "whole array": (lambda: kmeans(X.int().numpy(), 2, seed=0), "features are int32"),
    "whole numbers": (lambda: kmeans(X.int(), 2, seed=0), "features are torch.int32"),
    "one row": (lambda: kmeans(X[0], 1, seed=0), r"have the shape \(3,\)"),
    "share": (lambda: kmeans(X, 2, seed=0, share=0.0), "share must be above 0 and at most 1"),
    "small share": (lambda: kmeans(X, 99, seed=0, share=0.01), "of 1500 rows leaves"),
    "iterations": (lambda: kmeans(X, 2, seed=0, iterations=0), "iterations must be at least 1"),
    "start": (lambda: kmeans(X, 2, seed=0, start="best"), "one of plusplus, random, not 'best'"),  # type: ignore[arg-type]
    "given": (lambda: kmeans(X, 2, seed=0, start=X[:3]), r"wanted finite ones \[2, 3\]"),
    "pca": (lambda: preparation(X, pca=4), "keep at most pca=3"),
    "flat": (lambda: preparation(X.repeat(1, 2), whiten=True), "vary in 3 directions"),
    "scores": (lambda: sinkhorn(torch.zeros(3)), "wanted numbers"),
    "shares": (lambda: sinkhorn(torch.zeros(3, 2), shares=torch.tensor([1.0, 0])), "above 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name: str) -> None:
    work, message = BAD[name]
    with pytest.raises(UsageError, match=message):
        work()


def test_one_row_is_a_cluster() -> None:
    found = kmeans(X[:1], 1, seed=0)
    torch.testing.assert_close(found.centroids, X[:1])
    assert found.assignments.tolist() == [0]


def knopp(scores: Array, sharpness: float, shares: Array) -> Array:
    """Sinkhorn and Knopp's scaling as it is written, until nothing moves."""
    n, k = scores.shape
    kernel = np.exp(sharpness * scores)
    rows, columns = np.ones(n), np.ones(k)
    for _ in range(5000):
        rows = 1 / (kernel @ columns)
        columns = n * shares / (kernel.T @ rows)
    return rows[:, None] * kernel * columns


@pytest.mark.parametrize("shares", [[0.25] * 4, [0.1, 0.2, 0.3, 0.4]])
def test_balanced_labels_are_those_of_sinkhorn_and_knopp(shares: list[float]) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(60, 4, generator=generator, dtype=torch.float64).log_softmax(1)
    given = torch.tensor(shares, dtype=torch.float64)
    found = sinkhorn(scores, sharpness=5.0, shares=given, tolerance=1e-12, iterations=20_000)
    np.testing.assert_allclose(found, knopp(scores.numpy(), 5.0, given.numpy()), atol=1e-9)
    torch.testing.assert_close(found.sum(1), torch.ones(60).double())
    torch.testing.assert_close(found.sum(0), 60 * given)
    torch.testing.assert_close(sinkhorn(scores + 3, sharpness=5.0), sinkhorn(scores, sharpness=5.0))


def test_sinkhorn_balances_what_argmax_does_not() -> None:
    scores = torch.randn(400, 8, generator=torch.Generator().manual_seed(0)) * 0.3
    scores[:, 0] += 2
    assert scores.argmax(1).bincount(minlength=8)[0] == 400
    sizes = sinkhorn(scores.log_softmax(1)).argmax(1).bincount(minlength=8)
    assert sizes.min() >= 35
    assert sizes.max() <= 65


def test_no_preparation_is_none() -> None:
    assert torch.equal(Preparation()(X), X)


def test_rows_that_differ_by_too_little_end() -> None:
    """Redrawn for ever: what is a row of its own to one sum is none to another."""
    rows = torch.tensor([[0.0], [1e-9], [1.0], [1 + 1e-9]], dtype=torch.float64)
    with pytest.raises(UsageError, match="have no row however often they are drawn"):
        kmeans(rows, 3, seed=0, iterations=5, start="random")
