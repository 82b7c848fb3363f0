from itertools import pairwise

import numpy as np
import pytest

from sonant.clips import Clips
from sonant.errors import UsageError
from sonant.features import Features
from sonant.metrics import agreement as formulas
from sonant.tasks import agreement as task
from sonant.tasks.agreement import agreement, examples


def test_every_clip_of_the_split_is_scored(table: Clips, model: Features) -> None:
    scores = agreement(model, table, temperature=0.1)
    assert scores.ids.tolist() == table.where(split="test").column("id").tolist()
    names = [f"{pair} {score}" for pair in ("AV", "AL") for score in ("raw", "centred", "pmi")]
    assert list(scores.scores) == names
    assert (scores.run, scores.data) == (model.run, model.data)
    test = table.column("split") == "test"
    for pair, other in (("AV", "video"), ("AL", "text")):
        x, y = (formulas.unit(model.matrix(name)) for name in ("audio", other))
        parts = x[test], y[test], x[~test], y[~test]
        np.testing.assert_allclose(scores.scores[f"{pair} raw"], (x * y).sum(1)[test], atol=1e-6)
        np.testing.assert_allclose(
            scores.scores[f"{pair} centred"], formulas.centred(*parts), atol=1e-6
        )
        np.testing.assert_allclose(
            scores.scores[f"{pair} pmi"], formulas.pmi(*parts, 0.1), atol=1e-4
        )


def test_a_large_bank_is_thinned_evenly(
    table: Clips, model: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task, "BANK", 13)
    judged = table.where(split="test")
    reference, words = task.bank(model, table, judged, "train")
    assert words == "13 of the 120 clips of split train"
    assert reference.ids[[0, -1]].tolist() == ["v10:0", "v19:11"]
    assert len(set(reference.ids)) == 13


def test_without_a_reference_the_judged_clips_are_it(table: Clips, model: Features) -> None:
    judged = table.where(split="test")
    reference, words = task.bank(model, table, judged, None)
    assert words == "the 120 judged clips themselves"
    assert reference.ids.tolist() == judged.column("id").tolist()


def test_a_reference_that_is_not_there_is_no_other(table: Clips, model: Features) -> None:
    judged = table.where(split="test")
    with pytest.raises(UsageError, match="'val'; the splits there are: 'test', 'train'"):
        task.bank(model, table, judged, "val")
    with pytest.raises(UsageError, match="none of the 120 good clips of split 'train'"):
        task.bank(model.of_clips(judged.column("id")), table, judged, "train")


def test_a_missing_modality_has_no_columns(table: Clips, model: Features) -> None:
    ids = table.column("id").tolist()
    audio, video = model.matrix("audio"), model.matrix("video")
    silent = Features.of(
        ids, {"audio": audio, "video": video, "text": np.full((len(ids), 8), np.nan)}
    )
    assert list(agreement(silent, table).scores) == ["AV raw", "AV centred", "AV pmi"]
    some = audio.copy()
    some[:5] = np.nan
    scores = agreement(Features.of(ids, {"audio": some, "video": video}), table).scores
    for values in scores.values():
        assert np.isnan(values).tolist() == [True] * 5 + [False] * 115
    with pytest.raises(UsageError, match=r"among the 120 clips none has both.*of video"):
        agreement(Features.of(ids, {"video": video}), table)


def test_widths_must_agree(table: Clips, model: Features) -> None:
    ids = table.column("id").tolist()
    with pytest.raises(UsageError, match="different widths, 8 and 5"):
        agreement(
            Features.of(ids, {"audio": model.matrix("audio"), "video": np.ones((len(ids), 5))}),
            table,
        )


def test_examples_are_loud_and_extreme(table: Clips, model: Features, trivial: Features) -> None:
    scores = agreement(model, table)
    shown = examples(scores, table, trivial, loudest=0.5, count=5)
    levels = trivial.of_clips(scores.ids).scores["loudness mean"]
    loud = levels >= np.sort(levels)[60]
    rising = np.sort(scores.scores["AV raw"][loud])
    assert [one.score for one in shown["agreeing"]] == rising[::-1][:5].tolist()
    assert [one.score for one in shown["disagreeing"]] == rising[:5].tolist()
    first = shown["agreeing"][0]
    clip = next(clip for clip in table if clip.id == first.id)
    assert (first.text, first.case) == (clip.text, clip.labels["case"])
    assert first.sounding == clip.labels["sounding"]


def test_examples_do_not_overlap_or_repeat(
    table: Clips, model: Features, trivial: Features
) -> None:
    near = table.table.set_column(
        table.table.column_names.index("end"),
        "end",
        [[end + 1.0 for end in table.column("end").tolist()]],
    )
    shown = examples(agreement(model, table), Clips(near, table.root), trivial, loudest=1, count=99)
    ids = [one.id for ones in shown.values() for one in ones]
    assert len(set(ids)) == len(ids)
    for ones in shown.values():
        spans = sorted((one.video, one.start, one.end) for one in ones)
        assert all(a[0] != b[0] or a[2] <= b[1] for a, b in pairwise(spans))
    with pytest.raises(UsageError, match=r"\(0, 1\], not 2"):
        examples(agreement(model, table), table, trivial, loudest=2)
    with pytest.raises(UsageError, match="no score 'AV'; there are AV raw"):
        examples(agreement(model, table), table, trivial, score="AV")
