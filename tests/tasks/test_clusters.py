from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.cluster import AgglomerativeClustering, KMeans
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

from sonant.assignments import Assignment, read_assignment, spans_of, to_table
from sonant.clips import COLUMNS, Clips
from sonant.errors import TableError, UsageError
from sonant.features import Features
from sonant.tasks import clusters as module
from sonant.tasks.clusters import Cluster, Clusters, Row, assigned, clusters
from sonant.types import Clip


def group(table: Clips, model: Features, **options: Any) -> Clusters:
    return clusters({"MC3": model}, table, **{"number": 6, "permutations": 10} | options)


def only(report: Clusters) -> Row:
    (row,) = report.rows
    return row


@pytest.mark.parametrize(
    ("linkage", "metric"),
    [("ward", "euclidean"), ("average", "cosine"), ("complete", "euclidean"), ("single", "cosine")],
)
def test_clusters_are_scikit_learns_on_unit_rows(
    table: Clips, model: Features, linkage: Any, metric: Any
) -> None:
    row = only(group(table, model, grouping=linkage, metric=metric))
    test = table.where(split="test")
    x = model.of_clips(test.column("id")).matrix("video").astype(float)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    found = AgglomerativeClustering(6, linkage=linkage, metric=metric).fit_predict(x)
    assert [one.clips for one in row.clusters] == sorted(np.bincount(found))[::-1]
    assert sum(one.clips for one in row.clusters) == row.clips == 120
    for label in ("verb", "noun"):
        truth = test.column(label).astype(str)
        counts = [np.unique(truth[found == place], return_counts=True)[1] for place in range(6)]
        want = {
            "purity": sum(count.max() for count in counts) / 120,
            "ami": adjusted_mutual_info_score(truth, found),
            "ari": adjusted_rand_score(truth, found),
        }
        levels = row.measures[label]
        assert {name: levels[name].value for name in want} == pytest.approx(want)
        assert set(levels) == {"purity", "nmi", "ami", "ari", "hungarian_accuracy"}


def test_kmeans_is_scikit_learns_and_takes_the_best_of_its_starts(
    table: Clips, model: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST", 100)  # which counts where all distances are needed
    row = only(group(table, model, grouping="kmeans", seed=5))
    test = table.where(split="test")
    x = model.of_clips(test.column("id")).matrix("video").astype(float)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    wanted = KMeans(6, n_init=module.STARTS, random_state=5).fit(x)
    assert [one.clips for one in row.clusters] == sorted(np.bincount(wanted.labels_))[::-1]
    again = group(table, model, grouping="kmeans", seed=5)
    assert only(again) == row


def test_clusters_are_read_by_their_commonest_labels_from_the_purest(
    table: Clips, model: Features
) -> None:
    row = only(group(table, model, labels=("verb",)))
    readings = row.purest["verb"]
    assert sorted(one.cluster for one in readings) == [1, 2, 3, 4, 5, 6]
    purities = [one.concepts[0].share for one in readings]
    assert purities == sorted(purities, reverse=True)
    for one in readings:
        cluster = row.clusters[one.cluster - 1]
        assert one.clips == cluster.clips
        assert one.concepts[0] == cluster.common["verb"]
        assert 1 <= len(one.concepts) <= 3
        assert sum(concept.share for concept in one.concepts) <= 1 + 1e-9
    weighted = sum(one.clips * one.concepts[0].share for one in readings) / row.clips
    assert weighted == pytest.approx(row.measures["verb"]["purity"].value)


def test_clusters_without_the_label_are_not_read_by_it() -> None:
    rows = [
        Clip(f"c{i}", "v.mp4", float(i), i + 0.5, "", "test", {"class": ("dog" if i < 3 else None)})
        for i in range(6)
    ]
    x = np.array([[1, 0.1 * i] if i < 3 else [-1, 0.1 * i] for i in range(6)], float)
    features = Features.of([row.id for row in rows], {"audio": x})
    report = group(
        Clips.of(rows, root=Path("/")), features, number=2, modality="audio", labels=("class",)
    )
    (reading,) = only(report).purest["class"]
    assert [(one.value, one.share) for one in reading.concepts] == [("dog", 1.0)]


def test_clusters_of_what_is_alike_beat_permuted_labels(table: Clips, model: Features) -> None:
    for levels in only(group(table, model, permutations=30)).measures.values():
        for level in levels.values():
            assert level.value > level.high > level.chance
        assert levels["ari"].chance == pytest.approx(0, abs=0.02)
        assert levels["purity"].chance > 0.25


def test_members_are_the_nearest_to_the_centre(table: Clips, model: Features) -> None:
    test = table.where(split="test")
    x = model.of_clips(test.column("id")).matrix("audio").astype(float)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    found = AgglomerativeClustering(6).fit_predict(x)
    row = only(group(table, model, modality="audio", members=3))
    sizes = np.bincount(found)
    for cluster, place in zip(row.clusters, np.argsort(-sizes, kind="stable"), strict=True):
        rows = np.flatnonzero(found == place)
        centre = x[rows].mean(0)
        cosines = x[rows] @ centre / np.linalg.norm(centre)
        best = rows[np.argsort(-cosines)][:3]
        assert [one.id for one in cluster.members] == test.column("id")[best].tolist()
        assert cluster.cosine == pytest.approx(cosines.mean())
        assert [one.cosine for one in cluster.members] == pytest.approx(np.sort(cosines)[::-1][:3])
        heard = test.column("sounding")[rows].astype(float)
        assert cluster.sounding == pytest.approx(heard.mean())
        assert cluster.videos == len(set(test.column("video")[rows]))
        verbs = test.column("verb")[rows].tolist()
        common = cluster.common["verb"]
        assert common.share == max(verbs.count(verb) for verb in set(verbs)) / len(rows)
        assert verbs.count(common.value) / len(rows) == common.share
        for one in cluster.members:
            assert " ".join(one.labels.values()) == one.text


def test_clips_that_overlap_one_shown_are_passed_over() -> None:
    starts = [0.0, 0.5, 1.4, 1.5, 9.0, 20.0]
    rows = [Clip(f"c{i}", "v.mp4", s, s + 1.5, "", "test") for i, s in enumerate(starts)]
    clips = Clips.of(rows, root=Path("/"))
    x = np.array([[1, 0.02 * i] for i in range(5)] + [[-1, 0]], float)
    report = group(clips, Features.of([row.id for row in rows], {"video": x}), number=2)
    big, small = only(report).clusters
    ids = [one.id for one in big.members]
    spans = sorted(one.start for one in big.members)
    assert np.diff(spans).min() >= 1.5
    assert ids[0] == "c2"
    assert [one.id for one in small.members] == ["c5"]
    assert (big.sounding, big.common) == (None, {})
    assert report.notes == ["No clip has the label verb.", "No clip has the label noun."]
    assert only(report).measures == {}


def test_clips_that_are_all_alike_are_not_parted(table: Clips, model: Features) -> None:
    x = np.tile([[0.6, 0.8], [0.8, 0.6]], (len(model) // 2, 1))
    alike = Features.of(model.ids.tolist(), {"video": x})
    for grouping in ("ward", "average"):
        with pytest.raises(UsageError, match="120 clips with 2 different embeddings cannot make 3"):
            group(table, alike, number=3, grouping=grouping)
    assert [one.clips for one in only(group(table, alike, number=2)).clusters] == [60, 60]


def test_labels_that_there_are_not_are_refused(table: Clips, model: Features) -> None:
    with pytest.raises(UsageError, match=r"no label 'klass' .* are verb, noun, sounding, case$"):
        group(table, model, labels=("verb", "klass"))
    bare = Clips(table.table.select(COLUMNS.names), table.root)
    with pytest.raises(UsageError, match=r"no label 'verb' to compare clusters with; .* none$"):
        group(bare, model, labels=("verb",))


def test_what_is_left_out_is_said(table: Clips, model: Features) -> None:
    video = model.matrix("video")
    video[:5] = np.nan
    some = Features.of(model.ids.tolist(), {"video": video})
    report = group(table, some)
    assert report.notes == ["MC3: 5 of 120 clips have no video: left out."]
    report = group(table, some, sample=40)
    assert only(report).clips == 40
    assert report.notes[1] == "MC3: a random sample of 40 of 115 clips is clustered."
    assert group(table, some, sample=40) == report
    members = {one.id for cluster in only(report).clusters for one in cluster.members}
    other = only(group(table, some, sample=40, seed=1)).clusters
    assert {one.id for cluster in other for one in cluster.members} != members


def test_wrong_requests_are_refused(
    table: Clips, model: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="euclidean distances, not cosine"):
        group(table, model, metric="cosine")
    with pytest.raises(UsageError, match="kmeans is of euclidean distances"):
        group(table, model, metric="cosine", grouping="kmeans")
    same = Features.of(model.ids.tolist(), {"video": np.ones((len(model), 4))})
    with pytest.raises(UsageError, match="makes 1 clusters of these 120 clips, not 6: no more of"):
        group(table, same, grouping="kmeans")
    with pytest.raises(UsageError, match="121 clusters need as many clips or more; 120 have"):
        group(table, model, number=121)
    with pytest.raises(UsageError, match="sample must be at least 1, not -3"):
        group(table, model, sample=-3)
    with pytest.raises(UsageError, match="seed must be at least 0, not -1"):
        group(table, model, seed=-1)
    with pytest.raises(UsageError, match="number must be at least 2"):
        group(table, model, number=1)
    with pytest.raises(UsageError, match="none were given"):
        clusters({}, table)
    mute = Features.of(model.ids.tolist(), {"text": model.matrix("text")})
    with pytest.raises(TableError, match="no features of 'video'"):
        group(table, mute)
    monkeypatch.setattr(module, "MOST", 100)
    with pytest.raises(UsageError, match="sample of 100 or fewer"):
        group(table, model)
    assert only(group(table, model, sample=100)).clips == 100


def test_every_clip_may_be_its_own_cluster(table: Clips, model: Features) -> None:
    row = only(group(table, model, number=120))
    assert {(one.clips, len(one.members)) for one in row.clusters} == {(1, 1)}
    assert isinstance(row.clusters[0], Cluster)
    assert row.measures["verb"]["purity"].value == 1


def round_of(table: Clips) -> Assignment:
    """A table that a round left, of the test clips."""
    ids = table.where(split="test").column("id")[::-1]
    rng = np.random.default_rng(0)
    clusters = np.array([0, 1, 3])[rng.integers(0, 3, len(ids))]  # number 2 has no clips
    return Assignment("audio", list(ids), clusters, rng.random(len(ids), np.float32))


def test_a_rounds_clusters_are_shown_as_they_are(table: Clips) -> None:
    found = round_of(table)
    report = assigned("XDC", found, table, permutations=10, members=4)
    row, of = only(report), found.of
    test = table.where(split="test")
    numbers = np.array([of[id] for id in test.column("id")])
    away = dict(zip(found.ids, found.distances.tolist(), strict=True))
    sizes = np.bincount(numbers)
    assert [one.clips for one in row.clusters] == sorted(sizes[sizes > 0])[::-1]
    truth = test.column("verb").astype(str)
    assert row.measures["verb"]["ami"].value == pytest.approx(
        adjusted_mutual_info_score(truth, numbers)
    )
    for cluster in row.clusters:
        (number,) = {of[one.id] for one in cluster.members}
        inside = [away[id] for id in test.column("id") if of[id] == number]
        assert cluster.distance == pytest.approx(np.mean(inside))
        assert cluster.cosine is None
        assert cluster.members[0].distance == pytest.approx(min(inside))
        distances = [one.distance for one in cluster.members]
        assert distances == sorted(distances, key=lambda x: x or 0)
    assert report.notes == []


def test_a_round_of_other_clips_is_refused_and_of_some_is_said(table: Clips) -> None:
    found = round_of(table)
    with pytest.raises(UsageError, match=r"none is among the \d+ clips of split train"):
        assigned("XDC", found, table, split="train")
    half = table.where(np.isin(table.column("id"), found.ids[:60]))
    report = assigned("XDC", found, half, permutations=10)
    assert only(report).clips == 60
    assert report.notes == ["60 of 120 clustered clips are not among these."]


def test_a_table_of_a_round_is_read_as_it_was_written(tmp_path: Path, table: Clips) -> None:
    found = round_of(table)
    both = {
        "audio": (found.clusters, found.distances),
        "video": (found.clusters + 1, found.distances),
    }
    path = tmp_path / "round 1.parquet"
    pq.write_table(
        to_table(found.ids, spans_of(table.where(split="test"))[::-1], both, "round 1"), path
    )
    audio, video = (read_assignment(path, source) for source in ("audio", "video"))
    assert audio.of == found.of and list(video.clusters) == list(found.clusters + 1)
    assert list(audio.distances) == list(found.distances)
    with pytest.raises(TableError, match="of several sources; `--source` is one of audio, video"):
        read_assignment(path)
    pq.write_table(
        to_table(
            found.ids,
            spans_of(table.where(split="test"))[::-1],
            {"video+audio": both["audio"]},
            "round 1",
        ),
        path,
    )
    assert read_assignment(path).source == "video+audio"


def test_clips_that_merely_have_the_same_ids_are_refused(tmp_path: Path, table: Clips) -> None:
    test, path = table.where(split="test"), tmp_path / "round 1.parquet"
    found = round_of(table)
    both = {"audio": (found.clusters, found.distances)}
    pq.write_table(to_table(found.ids, spans_of(test)[::-1], both, "round 1"), path)
    read = read_assignment(path)
    read.check(table)
    starts = table.column("start").copy()
    place = int(np.flatnonzero(table.column("id") == found.ids[3])[0])
    starts[place] += 0.25
    column = table.table.column_names.index("start")
    moved = Clips(table.table.set_column(column, "start", [starts]), table.root)
    with pytest.raises(TableError, match=f"1 of the .* the first is '{found.ids[3]}'"):
        assigned("XDC", read, moved)
