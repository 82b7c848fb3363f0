"""How fast `sonant.cluster.kmeans` is: against faiss and scikit-learn, on the same features.

    python benchmarks/kmeans.py --rows 240000 --out kmeans.json

Makes features [rows, width] around many more centres than clusters, so that rows keep moving, and
measures in one run, each on one thread: faiss and ours from k random rows, and scikit-learn and
ours from each one's k-means++; and ours and scikit-learn's from the same k rows, which is the
iterations alone. Nobody subsamples or stops early, and all end with an assignment of the rows (for
faiss by a search, as DeepCluster has it). They take turns, so that other work on the machine meets
all alike, and the median of the processor times counts. It ends with 1 unless ours is as fast as
faiss and 3 times as fast as scikit-learn, and its objective at most 0.5 % above theirs.

With --million it measures ours alone, from a float16 memory map of so many million rows: processor
time for each million, of one iteration and of all that is done once; and the most memory taken.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from pack import processor_seconds, tell
from sonant.cluster import kmeans

DEMANDS = {
    "faiss / ours": 1.0,
    "sklearn / ours": 3.0,
    "faiss objective": 0.995,
    "sklearn objective": 0.995,
}
"""Times as ratios; objectives of the others over ours."""
CENTRES, NOISE = 1000, 2.0


def features(rows: int, width: int, seed: int) -> NDArray[np.float32]:
    """Rows around centres of unit variance."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((CENTRES, width), dtype=np.float32)
    x = random.standard_normal((rows, width), dtype=np.float32) * np.float32(NOISE)
    x += centres[random.integers(0, CENTRES, rows)]
    return x


def ours(x: Any, k: int, iterations: int, start: Any) -> float:
    return float(kmeans(x, k, seed=0, iterations=iterations, start=start).objective[-1])


def of_faiss(x: NDArray[np.float32], k: int, iterations: int) -> float:
    rows, width = x.shape
    found = faiss.Kmeans(width, k, niter=iterations, seed=0, max_points_per_centroid=rows)
    found.train(x)
    found.index.search(x, 1)
    return float(np.asarray(found.obj)[-1])


def of_sklearn(x: NDArray[np.float32], k: int, iterations: int, init: Any) -> float:
    found = KMeans(k, init=init, n_init=1, max_iter=iterations, tol=0, random_state=0).fit(x)
    return float(found.inertia_)


def against_others(rows: int, width: int, k: int, iterations: int, repeat: int) -> dict[str, float]:
    x = features(rows, width, 0)
    given = x[np.random.default_rng(1).choice(rows, k, replace=False)]
    works: dict[str, Callable[[], float]] = {
        "ours, random": lambda: ours(x, k, iterations, "random"),
        "faiss": lambda: of_faiss(x, k, iterations),
        "ours, k-means++": lambda: ours(x, k, iterations, "plusplus"),
        "sklearn": lambda: of_sklearn(x, k, iterations, "k-means++"),
        "ours, given": lambda: ours(x, k, iterations, torch.from_numpy(given)),
        "sklearn, given": lambda: of_sklearn(x, k, iterations, given),
    }
    spent: dict[str, list[float]] = {name: [] for name in works}
    objective = {}
    for _ in range(repeat):
        for name, work in works.items():

            def note(name: str = name, work: Callable[[], float] = work) -> None:
                objective[name] = work()

            spent[name].append(processor_seconds(note))
    seconds = {name: statistics.median(each) for name, each in spent.items()}
    return {
        **{f"{name} s": value for name, value in seconds.items()},
        "faiss / ours": seconds["faiss"] / seconds["ours, random"],
        "sklearn / ours": seconds["sklearn"] / seconds["ours, k-means++"],
        "the same, given": seconds["sklearn, given"] / seconds["ours, given"],
        "faiss objective": objective["faiss"] / objective["ours, random"],
        "sklearn objective": objective["sklearn"] / objective["ours, k-means++"],
    }


def own_memory() -> float:
    """GB of this process's memory that are no pages of files (Linux)."""
    resident, shared = map(int, Path("/proc/self/statm").read_text().split()[1:3])
    return (resident - shared) * resource.getpagesize() / 2**30


def most_memory(work: Callable[[], object]) -> float:
    """GB that some work takes at its peak, beyond what there was, looked at every 20 ms."""
    done, before, most = threading.Event(), own_memory(), 0.0

    def watch() -> None:
        nonlocal most
        while not done.wait(0.02):
            most = max(most, own_memory() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    work()
    done.set()
    watcher.join()
    return most


def from_disk(millions: float, width: int, k: int) -> dict[str, float]:
    rows, size = round(millions * 1e6), 20_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.npy"
        x = np.lib.format.open_memmap(path, "w+", np.float16, (rows, width))
        for first in range(0, rows, size):
            x[first : first + size] = features(min(size, rows - first), width, first)
        x.flush()
        x = np.load(path, mmap_mode="r")
        ours(x[:size], k, 1, "random")
        memory = most_memory(lambda: ours(x, k, 1, "plusplus"))
        few, many = (processor_seconds(lambda n=n: ours(x, k, n, "plusplus")) for n in (1, 11))  # type: ignore[misc]
    an_iteration = (many - few) / 10
    return {
        "an iteration s": an_iteration / millions,
        "all around s": (few - an_iteration) / millions,
        "file GB": rows * width * 2 / 2**30,
        "memory GB": memory,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=240_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--k", type=int, default=256)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--repeat", type=int, default=3, help="runs of which the median counts")
    parser.add_argument("--million", type=float, help="measure this many million rows from disk")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    given = parser.parse_args()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    if given.million:
        return tell(from_disk(given.million, given.width, given.k), {}, given.out)
    with threadpool_limits(1):
        figures = against_others(given.rows, given.width, given.k, given.iterations, given.repeat)
    return tell(figures, DEMANDS, given.out)


if __name__ == "__main__":
    sys.exit(main())
