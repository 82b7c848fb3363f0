from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler, normalize
from sklearn.svm import LinearSVC

import sonant.tasks.probe as module
from sonant.clips import Clips
from sonant.errors import UsageError
from sonant.features import Features
from sonant.report import read as read_report
from sonant.report import save
from sonant.report.recognition import probe_table
from sonant.sources.esc50 import esc50
from sonant.tasks.probe import probe
from sonant.types import Clip

CLASSES = ("bark", "rain", "bell")
RECORDINGS, WINDOWS = 36, 3


def table(**more: list[Any]) -> Clips:
    rows = [
        Clip(
            f"r{r}@{w}", f"{r}.wav", float(w), w + 1.0, "", "",
            {"class": CLASSES[r % 3], "recording": f"r{r}", "fold": 1 + r // 3 % 3}
            | {name: values[r] for name, values in more.items()},
        )
        for r in range(RECORDINGS)
        for w in range(WINDOWS)
    ]  # fmt: skip
    return Clips.of(rows, root=Path())


CLIPS = table()
TRUTH = np.repeat(np.arange(RECORDINGS) % 3, WINDOWS)
FOLD = np.repeat(1 + np.arange(RECORDINGS) // 3 % 3, WINDOWS)


def vectors(noise: float, seed: int = 0) -> np.ndarray[Any, Any]:
    random = np.random.default_rng(seed)
    means = 2.0 * np.eye(3, 5)[TRUTH]
    return means + noise * random.standard_normal((len(CLIPS), 5))


def features(x: np.ndarray[Any, Any], clips: Clips = CLIPS) -> Features:
    return Features.of(list(clips.column("id")), {"audio": x})


@pytest.mark.parametrize("classifier", ["svm", "logistic"])
def test_it_is_scikit_learns_averaged_over_windows(classifier: Any) -> None:
    x = vectors(1.5)
    found = probe({"m": features(x)}, CLIPS, by=("fold",), classifier=classifier, costs=(0.5,),
                  resamples=5)  # fmt: skip
    right = []
    for fold in (1, 2, 3):
        made = (
            LinearSVC(C=0.5, random_state=0, max_iter=10_000)
            if classifier == "svm"
            else LogisticRegression(C=0.5, max_iter=10_000)
        )
        of_unit_length = normalize(x.astype(np.float32).astype(np.float64))
        made.fit(of_unit_length[fold != FOLD], TRUTH[fold != FOLD])
        scores = made.decision_function(of_unit_length[fold == FOLD])
        means = scores.reshape(-1, WINDOWS, 3).mean(1)
        right.append(np.mean(means.argmax(1) == TRUTH[fold == FOLD][::WINDOWS]))
    (row,) = found.rows
    assert_allclose([part.top1 for part in row.parts], right)
    assert 0.4 < np.mean(right) < 1
    assert_allclose(
        [row.mean["top1"], row.deviation["top1"]], [np.mean(right), np.std(right, ddof=1)]
    )
    assert row.whole.measures["top1"].value == pytest.approx(np.mean(right))
    assert [part.test for part in row.parts] == [12, 12, 12]
    assert found.folds == ["fold 1", "fold 2", "fold 3"]


def test_standard_scaling_is_learned_from_the_training_part() -> None:
    x = vectors(2.0) * np.array([1, 100, 1, 1, 0.01])
    found = probe({"m": features(x)}, CLIPS, by=("fold",), classifier="logistic", costs=(1.0,),
                  scale="standard", resamples=5)  # fmt: skip
    x = x.astype(np.float32).astype(np.float64)
    scaler = StandardScaler().fit(x[FOLD != 2])
    made = LogisticRegression(C=1.0, max_iter=10_000)
    made.fit(scaler.transform(x[FOLD != 2]), TRUTH[FOLD != 2])
    scores = made.decision_function(scaler.transform(x[FOLD == 2]))
    right = scores.reshape(-1, WINDOWS, 3).mean(1).argmax(1) == TRUTH[FOLD == 2][::WINDOWS]
    assert found.rows[0].parts[1].top1 == pytest.approx(right.mean())


def test_c_never_sees_the_judged_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the judged clips are, C and the classifier are the same; groups are never torn."""
    chosen = []
    for seed in (1, 2):
        x = vectors(2.0)
        x[FOLD == 1] = np.random.default_rng(seed).standard_normal((np.sum(FOLD == 1), 5))
        found = probe({"m": features(x)}, CLIPS, by=("fold",), resamples=2)
        chosen.append((found.rows[0].parts[0].cost, found.rows[0].parts[0].inner))
    assert chosen[0] == chosen[1]
    assert len(chosen[0][1]) == len(module.COSTS)
    seen: list[tuple[set[str], set[str]]] = []
    scores = module._scores

    def watched(x: Any, ask: Any, train: Any, test: Any, *more: Any) -> Any:
        seen.append((set(ask.groups[train]), set(ask.groups[test])))
        return scores(x, ask, train, test, *more)

    monkeypatch.setattr(module, "_scores", watched)
    sources = table(source=[f"s{r // 9}" for r in range(RECORDINGS)])
    probe({"m": features(vectors(1.0), sources)}, sources, by=("fold",), costs=(0.1, 1.0),
          inner=3, apart="source", resamples=2)  # fmt: skip
    inside = [(a, b) for a, b in seen if len(a | b) <= 4 and not (a >= b)]
    assert len(inside) == 3 * 3 * 2, "3 folds, 3 inner parts, 2 values of C"
    assert all(not a & b for a, b in inside)


def test_features_that_say_nothing_are_at_chance() -> None:
    found = probe({"m": features(np.ones((len(CLIPS), 4)))}, CLIPS, by=("fold",), costs=(1.0,),
                  classifier="logistic", resamples=2)  # fmt: skip
    assert found.rows[0].mean["top1"] == pytest.approx(1 / 3)
    assert [row.measures["top1"].value for row in found.chance] == pytest.approx([1 / 3, 1 / 3])


def test_chance_is_that_of_the_judged_recordings() -> None:
    parts = ["test" if r < 4 else "train" for r in range(RECORDINGS)]
    clips = table(part=parts)
    found = probe({"m": features(vectors(0.5), clips)}, clips, by=("part",), costs=(1.0,),
                  resamples=2)  # fmt: skip
    assert (found.recordings, found.rows[0].whole.recordings) == (4, 4)
    assert [row.measures["top1"].value for row in found.chance] == pytest.approx([1 / 3, 1 / 2])


def test_silence_may_be_zeros_and_missing_features_are_said() -> None:
    x = vectors(0.5)
    x[0] = 0.0
    x[1] = np.nan
    found = probe({"m": features(x)}, CLIPS, by=("fold",), costs=(1.0,), resamples=2)
    assert found.notes == ["m: 1 of 108 clips have no features: left out."]
    assert found.rows[0].mean["top1"] > 0.9


def test_classes_that_are_scarce_or_new_are_told_of() -> None:
    """One clip of a class is in one inner part alone; one that was never learned is never right."""
    rows = [
        Clip(f"c{n}", f"v{n}", 0, 1, "", split, {"class": name})
        for n, (split, name) in enumerate(
            [("train", "a"), *[("train", "b")] * 5, ("test", "a"), ("test", "c")]
        )
    ]
    clips = Clips.of(rows, root=".")
    x = np.array([[float(row.labels["class"] == "a"), 1.0] for row in rows])
    found = probe({"m": features(x, clips)}, clips, inner=3, costs=(100.0, 1000.0))
    assert any("never learned, so never right: c" in note for note in found.notes)
    assert found.rows[0].parts[0].top1 == 0.5
    one = Clips.of([rows[0], rows[1], rows[6]], root=".")
    with pytest.raises(UsageError, match="m, split: too few recordings to choose C from"):
        probe({"m": features(x[[0, 1, 6]], one)}, one)


def test_bad_requests_are_refused() -> None:
    good = features(vectors(1.0))
    torn = CLIPS.join(
        CLIPS.table.select(["id"]).append_column("part", [[i % 2 for i in range(len(CLIPS))]])
    )
    with pytest.raises(UsageError, match="part 0: 36 of the judged recordings are learned from"):
        probe({"m": good}, torn, by=("part",))
    with pytest.raises(UsageError, match="costs must be above 0, not 0"):
        probe({"m": good}, CLIPS, by=("fold",), costs=(0.0, 1.0))
    for cost, said in ((float("nan"), "above 0, not nan"), (float("inf"), "finite, not inf")):
        with pytest.raises(UsageError, match=f"costs must be {said}"):
            probe({"m": good}, CLIPS, by=("fold",), costs=(1.0, cost))
    with pytest.raises(UsageError, match="at least one model, one modality"):
        probe({"m": good}, CLIPS, by=("fold",), modalities=())
    with pytest.raises(UsageError, match="no features of 'video'"):
        probe({"m": good}, CLIPS, by=("fold",), modalities=("video",))


def test_the_report_holds_it(tmp_path: Path) -> None:
    found = probe({"m": features(vectors(0.5))}, CLIPS, by=("fold",), costs=(1.0,), resamples=5)
    save(tmp_path / "report.json", clips=CLIPS, probe=found)
    shown = probe_table(read_report(tmp_path / "report.json"))
    assert [str(cell) for cell in shown.columns[0].cells][1:4] == [
        "  fold 1",
        "  fold 2",
        "  fold 3",
    ]
    assert list(shown.columns[3].cells)[-2] == "33.3"


def wave(path: Path) -> Any:
    """All of a mono file at 16 kHz."""
    with av.open(path) as file:
        return np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])


@pytest.mark.data
@pytest.mark.science
def test_yamnet_tells_the_sounds_of_esc10_apart_on_the_official_folds(sonant_data: Path) -> None:
    """93.2 % is what a linear probe on its 521 outputs is known to reach."""
    locked = pytest.importorskip("sonant.encoders.locked")
    pytest.importorskip("ai_edge_litert")
    yamnet = locked.YamNet(sonant_data / "yamnet" / "yamnet_spectra_in.tflite")
    listing = esc50(sonant_data / "esc10")
    rows = [
        Clip(item.id, item.video, 0.0, 1.0, "", "", item.labels)
        for item in listing.items
    ]  # fmt: skip
    clips = Clips.of(rows, root=sonant_data)
    logits = [yamnet.logits(wave(listing.root / row.video)) for row in rows]
    posteriors = np.stack([(1 / (1 + np.exp(-x))).mean(0) for x in logits])
    found = probe(
        {"posteriors": features(posteriors, clips)}, clips, by=("fold",), classifier="logistic",
        scale="standard", costs=(0.1,),
    )  # fmt: skip
    assert found.rows[0].mean["top1"] >= 0.932
    found = probe(
        {"logits": features(np.stack([x.mean(0) for x in logits]), clips)}, clips, by=("fold",),
        apart="source",
    )  # fmt: skip
    assert found.rows[0].mean["top1"] >= 0.95
