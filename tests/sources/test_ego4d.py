import json
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sonant.cli import main
from sonant.clips import Clips
from sonant.errors import TableError, UsageError
from sonant.sources.ego4d import Files, Found, Rules, ego4d, located
from sonant.sources.ego4d_files import read_narrations, read_videos
from sonant.sources.folder import Window

A, B, C, D = (f"{name * 8}-38c5-4be9-8a70-{name * 12}" for name in "abcd")
VERBS = """label,group
"cut_(trim,_slice,_chop)","['cut', 'trim', 'slice', 'chop']"
"take_(pick,_grab,_get)","['take', 'pick', 'pick up', 'picks']"
wash,"['wash', 'rinse']"
"""
NOUNS = "label,group\nknife_(machete),['knife']\nplate,\"['plate', 'dish']\"\ntomato,['tomato']\n"
EGOCLIP = (
    "clip_idx\tvideo_uid\tvideo_dur\tnarration_source\tnarration_ind\tnarration_time\tclip_start\t"
    "clip_end\tclip_text\ttag_verb\ttag_noun\n"
)
SOUNDS = EGOCLIP.replace("clip_idx\t", "").replace("tag_noun\n", "tag_noun\tpositive\tclip_file\n")


def told(time: float | None, text: str, **more: Any) -> dict[str, Any]:
    return {
        "timestamp_sec": time,
        "timestamp_frame": 0,
        "_unmapped_timestamp_sec": time,
        "narration_text": text,
        "annotation_uid": "920182f7-5385-488b-99f9-caf8f0d9fe6b",
        **more,
    }


def passes(*first: dict[str, Any], second: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    summaries = [{"start_sec": 0.0, "end_sec": 300.0, "summary_text": "#Summary C cooks"}]
    video: dict[str, Any] = {"status": "complete"}
    if first:
        video["narration_pass_1"] = {"narrations": list(first), "summaries": summaries}
    if second is not None:
        video["narration_pass_2"] = {"narrations": second, "summaries": []}
    return video


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A download: video files of A, B and C, what is known of A to D, and the taxonomies."""
    (tmp_path / "v2" / "full_scale").mkdir(parents=True)
    (tmp_path / "v2" / "annotations").mkdir()
    for uid in (A, B, C):
        (tmp_path / "v2" / "full_scale" / f"{uid}.mp4").touch()
    videos = [
        {"video_uid": uid, "duration_sec": 100.0, "split_em": None, "split_fho": split}
        for uid, split in ((A, "train"), (B, None), (C, None), (D, "val"))
    ]
    (tmp_path / "ego4d.json").write_text(json.dumps({"version": "v2", "videos": videos}))
    sounds = ((A, "0.0", "100.0"), (B, "", ""), (C, "0.02", ""))
    (tmp_path / "v2" / "full_scale" / "manifest.csv").write_text(
        "video_uid,canonical_audio_start_sec,canonical_audio_duration_sec,canonical_s3_location\n"
        + "".join(f"{uid},{start},{length},s3://x\n" for uid, start, length in sounds)
    )
    (tmp_path / "v2" / "annotations" / "narration_verb_taxonomy.csv").write_text(VERBS)
    (tmp_path / "v2" / "annotations" / "narration_noun_taxonomy.csv").write_text(NOUNS)
    return tmp_path


def narrated(root: Path, videos: object, rules: Rules | None = None, **more: Any) -> Found:
    path = root / "v2" / "annotations" / "narration.json"
    path.write_text(videos if isinstance(videos, str) else json.dumps(videos))
    return ego4d(located(root), rules, **more)


def tabled(root: Path, text: str, rules: Rules | None = None, **more: Any) -> Found:
    (root / "egoclip.csv").write_text(text)
    files = located(root)
    files = Files(**{**vars(files), "narrations": (root / "egoclip.csv",)})
    return ego4d(files, rules, **more)


def row(uid: str, time: object, text: str, verb: str = "[]", noun: str = "[]", at: int = 1) -> str:
    cells = (7, uid, 100.0, f"narration_pass_{at}", 3, time, 4.25, 6.5, text, verb, noun)
    return "\t".join(map(str, cells)) + "\n"


def annotated(uid: str, time: float, text: str, positive: object) -> str:
    span = (time - 0.5, time + 1.0)
    cells = (uid, 100.0, "narration_pass_1", 3, time, *span, text, "[]", "[]", positive, "x.mp4")
    return "\t".join(map(str, cells)) + "\n"


def test_both_passes_become_clips(root: Path) -> None:
    videos = {
        A: passes(told(10.0, "#C C cuts  the tomato"), second=[told(20.5, "#O man X rinses dish")]),
        C: passes(second=[told(30.0, "#C C picks up #unsure")]),
        D: {"status": "redacted"},
    }
    found = narrated(root, videos)
    first, other, unsure = found.clips
    assert first.id == f"{A}@10.000"
    assert (first.video, first.start, first.end) == (f"{A}.mp4", 9.5, 11.0)
    assert first.text == "#C C cuts  the tomato"
    assert dict(first.labels) == {
        "uid": A, "pass": "narration_pass_1", "index": 0, "time": 10.0, "wearer": True,
        "verb": "cut", "noun": "tomato", "group": "cut:tomato",
    }  # fmt: skip
    assert (other.labels["pass"], other.labels["wearer"]) == ("narration_pass_2", False)
    assert other.labels["group"] == "wash:plate"
    assert (unsure.labels["verb"], unsure.labels["noun"], unsure.labels["group"]) == (
        "take",
        None,
        None,
    )
    assert found.clips.path(first.video).is_file()
    assert (found.clips.column("quarantine") == "").all()
    assert found.counts == {
        "narration.json: videos in the file": 3,
        "narration.json: summaries, which are no clips": 1,
        "narration.json: videos without narrations, status 'redacted'": 1,
        "narration.json: narrations": 3,
        "videos": 2,
        "with #unsure, read as something": 1,
        "without a noun of the taxonomy": 1,
    }


def test_what_cannot_be_used_says_why(root: Path) -> None:
    reasons = {
        "#C C cuts the tomato": (50.0, ""),
        "#C C cuts the knife": (-2.0, "narrated before the video begins"),
        "#C C cuts the plate": (100.5, "narrated after the video ends"),
        "#C C washes the knife": (None, "the narration has no time"),
        "": (51.0, "the narration is empty"),
        "#C C cuts": (52.0, "the narration has fewer than 4 words"),
        "#C C [redacted]": (53.0, "Ego4D has taken the narration back"),
    }
    items = [told(time, text) for text, (time, _) in reasons.items()]
    items.append(told(54.0, "#C C picks the knife up", is_rejected=True))
    videos = {
        A: passes(*items),
        B: passes(told(1.0, "#C C cuts the tomato")),
        "gone": passes(told(1.0, "#C C cuts the tomato")),
    }
    found = narrated(root, videos)
    said = {clip.text: why for clip, why in zip_reasons(found.clips) if clip.labels["uid"] == A}
    taken_back = {"#C C picks the knife up": "Ego4D has taken the narration back"}
    assert said == {text: why for text, (_, why) in reasons.items()} | taken_back
    of_videos = {clip.labels["uid"]: why for clip, why in zip_reasons(found.clips)}
    assert of_videos[B] == "no audio stream, by the manifest"
    assert of_videos["gone"] == "file is missing"
    assert found.counts["videos whose files are absent"] == 1
    shorter = narrated(root, videos, Rules(shortest=3, present_only=True)).clips
    assert "gone" not in shorter.column("uid")
    assert {clip.text: why for clip, why in zip_reasons(shorter)}["#C C cuts"] == ""


def zip_reasons(clips: Clips) -> list[tuple[Any, str]]:
    return list(zip(clips, clips.column("quarantine"), strict=True))


def test_clips_at_the_edges_keep_their_length(root: Path) -> None:
    items = [told(0.1, "#C C cuts the tomato"), told(99.9, "#C C cuts the tomato")]
    first, last = narrated(root, {A: passes(*items)}, Rules(Window(1.0, 2.0))).clips
    assert (first.start, first.end, last.start, last.end) == (0.0, 3.0, 97.0, 100.0)


def test_the_same_words_at_nearly_the_same_time_are_one_narration(root: Path) -> None:
    first = [told(t, "#C C cuts the tomato") for t in (10.0, 10.2, 20.0, 30.0)]
    second = [
        told(20.3, "#c c cuts the tomato."),
        told(30.0, "#C C cuts the knife"),
        told(10.7, "#C C cuts the tomato"),
    ]
    found = narrated(root, {A: passes(*first, first[0], second=second)})
    assert found.clips.column("time").tolist() == [10.0, 10.2, 10.7, 20.0, 30.0, 30.0]
    assert found.clips.column("id").tolist()[-2:] == [f"{A}@30.000", f"{A}@30.000#2"]
    assert found.counts["said before, in another pass or file"] == 2
    apart = narrated(root, {A: passes(*first, second=second)}, Rules(apart=0.0)).clips
    assert 20.3 in apart.column("time")


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        ((0.0, 0.8, 1.6), (0.4, 1.2), [0.0, 0.8, 1.6]),
        ((0.0,), (0.2, 0.4), [0.0]),
        ((0.0, 0.2), (0.4, 0.6), [0.0, 0.2]),
        ((0.0, 0.4), (0.2, 0.95), [0.0, 0.4, 0.95]),
    ],
)
def test_words_are_repeated_only_near_a_clip_that_is_kept(
    root: Path, first: tuple[float, ...], second: tuple[float, ...], kept: list[float]
) -> None:
    of_passes = [[told(time, "#C C cuts the tomato") for time in of] for of in (first, second)]
    found = narrated(root, {A: passes(*of_passes[0], second=of_passes[1])})
    assert found.clips.column("time").tolist() == kept


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([1, 2]), st.integers(0, 40), st.sampled_from("xyz")),
        min_size=1,
        max_size=15,
    ),
    st.randoms(),
)
def test_the_order_in_a_file_does_not_matter(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int, str]], random: Any
) -> None:
    folder = tmp_path_factory.mktemp("order")
    lines = [
        f"{A}\tnarration_pass_{at}\t{index}\t{time / 10}\t#C C cuts {text}\n"
        for index, (at, time, text) in enumerate(dict.fromkeys(rows))
    ]
    head = "video_uid\tnarration_source\tnarration_ind\tnarration_time\tclip_text\n"

    def made() -> Clips:
        (folder / "some.csv").write_text(head + "".join(lines))
        return ego4d(Files(folder, (folder / "some.csv",))).clips

    before = made()
    random.shuffle(lines)
    assert made().table.equals(before.table)
    kept = list(zip(*(before.column(name) for name in ("text", "time", "pass")), strict=True))
    for text, time, at in kept:
        assert not [
            t for words, t, of in kept if words == text and of != at and abs(t - time) < 0.5
        ]
    for _, tenth, text in rows:  # what is left out has a kept one nearby
        words = f"#C C cuts {text}"
        near = [t for said, t, of in kept if said == words and abs(t - tenth / 10) < 0.5]
        assert near


def test_egoclip_with_its_tags(root: Path) -> None:
    text = EGOCLIP + row(A, 10.0, "#C C holds a machete", "[2]", "[1, 0]")
    text += row(A, 20.0, "#C C holds a machete") + row(C, 5.0, "#C C slices it", "[7]", "[]")
    found = tabled(root, text)
    tagged, words, beyond = found.clips
    assert tagged.labels["group"] == "wash:plate"
    assert (words.labels["verb"], words.labels["noun"]) == (None, "knife")
    assert (beyond.labels["verb"], beyond.labels["index"]) == ("cut", 3)
    assert found.counts["with a verb tag beyond the taxonomy's 3"] == 1
    untagged = tabled(root, text, Rules(tags=False)).clips
    assert untagged[0].labels["noun"] == "knife"
    assert (tagged.start, tagged.end) == (9.5, 11.0)
    own = tabled(root, text, Rules(own_spans=True)).clips[0]
    assert (own.start, own.end) == (4.25, 6.5)


def test_commas_and_quotes_are_read_too(root: Path) -> None:
    text = 'video_uid,narration_time,clip_text\n{},1.5,"#C C cuts a ""plate"", then a knife"\n'
    (clip,) = tabled(root, text.format(A)).clips
    assert clip.text == '#C C cuts a "plate", then a knife'
    assert (clip.labels["pass"], clip.labels["noun"]) == (None, "plate")


def test_a_video_shorter_than_a_clip_has_none(root: Path) -> None:
    items = [told(50.0, "#C C cuts the tomato")]
    found = narrated(root, {A: passes(*items)}, Rules(Window(60.0, 60.0)))
    assert found.clips.column("quarantine").tolist() == ["the clip ends after its video"]


def test_times_that_are_none_are_quarantined(root: Path) -> None:
    found = tabled(root, EGOCLIP + row(A, "soon", "#C C cuts it") + row(A, 2, "#C C cuts it"))
    assert sorted(found.clips.column("quarantine")) == ["", "the narration has no time"]


@pytest.mark.parametrize("time", ["1" + "0" * 400, "1e400", "-1e400", "NaN", "2e9", "-2e9", "null"])
def test_numbers_too_large_to_be_times_are_quarantined(root: Path, time: str) -> None:
    text = json.dumps({A: passes(*[told(4.25, "#C C cuts it")] * 2, told(5.0, "#C C cuts"))})
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # inf - inf, or a cast of it
        rules = Rules(Window(0.5, 1.0), chunk=60.0)
        found = narrated(root, text.replace("4.25", time), rules)
        rows = row(A, time, "#C C cuts it") * 2 + row(A, 5.0, "#C C cuts")
        table = tabled(root, EGOCLIP + rows, rules)
    reasons = {"the narration has no time", "the narration has fewer than 4 words"}
    for clips in (found.clips, table.clips):
        assert set(clips.column("id")) == {f"{A}@nan", f"{A}@nan#2", f"{A}@5.000"}
    assert set(narrated(root, text.replace("4.25", time)).clips.column("quarantine")) == reasons


def test_redacted_narrations_have_another_form(root: Path) -> None:
    item = {"time": 4.0, "text": "#C C cuts the tomato", "_clip_time_start": 3.0}
    path = root / "all_narrations_redacted.json"
    videos = {A: {"narrations": [item], "summaries": [{"text": "cooks"}]}}
    path.write_text(json.dumps({"date": "x", "videos": videos, "version": "v2"}, indent=1))
    found = ego4d(Files(root / "v2" / "full_scale", (path,)))
    assert [(clip.id, clip.start) for clip in found.clips] == [(f"{A}@4.000", 3.5)]
    assert found.counts[f"{path.name}: summaries, which are no clips"] == 1


def test_annotations_are_the_truth_and_the_test(root: Path) -> None:
    rows = [
        annotated(A, 10.0, "#C C cuts the tomato", "1.0"),
        annotated(A, 20.0, "#C C cut it", ""),
    ]
    rows += [annotated(C, 5.0 + t, f"#C C washes knife {t}", t % 2) for t in range(3)]
    (root / "positive.csv").write_text(SOUNDS + "".join(rows))
    path = root / "v2" / "annotations" / "narration.json"
    path.write_text(
        json.dumps(
            {
                A: passes(
                    told(10.0, "#C C cuts the tomato"), told(40.0, "#C C cuts the tomato"),
                    second=[told(9.8, "#C C cuts the tomato")],
                ),
                "e": passes(told(1.0, "#C C cuts the tomato")),
                D: passes(told(1.0, "#C C cuts the tomato")),
            }
        )
    )  # fmt: skip
    files = Files(**{**vars(located(root)), "annotations": root / "positive.csv"})
    found = ego4d(files, val=2)
    table = {(clip.labels["uid"], clip.labels["time"]): clip for clip in found.clips}
    truth = {key: clip.labels["sounding"] for key, clip in table.items() if clip.split != "train"}
    assert truth == {(A, 10.0): True, (C, 5.0): False, (C, 6.0): True, (C, 7.0): False}
    splits = {key[0]: clip.split for key, clip in table.items()}
    assert splits == {A: "val", C: "test", "e": "train"}
    assert found.counts["of annotated videos, but not annotated: left out"] == 2
    assert found.counts["of videos that Ego4D's benchmarks hold out: left out"] == 1
    more = ego4d(files, Rules(benchmarks=True), val=2).clips
    assert D in more.column("uid")


def test_no_video_of_the_annotations_is_for_training(root: Path) -> None:
    """Not those either of which nothing is labelled."""
    rows = [annotated(A, 10.0, "#C C cuts it", 1), annotated(C, 10.0, "#C C cuts it", 0)]
    rows += [annotated(B, 10.0, "#C C cuts the plate", "")]
    path = root / "positive.csv"
    path.write_text(SOUNDS + "".join(rows))
    narrations = root / "v2" / "annotations" / "narration.json"
    narrations.write_text(
        json.dumps({uid: passes(told(50.0, "#C C cuts the tomato")) for uid in (B, "e")})
    )
    files = Files(**{**vars(located(root)), "annotations": path})
    found = ego4d(files, val=1)
    splits = {clip.labels["uid"]: clip.split for clip in found.clips}
    assert {uid for uid, split in splits.items() if split == "train"} == {"e"}
    assert set(splits) == {A, C, "e"}
    assert found.counts["of annotated videos, but not annotated: left out"] == 2
    path.write_text(EGOCLIP + row(A, 10.0, "#C C cuts it"))
    with pytest.raises(TableError, match=r"positive.csv: lacks positive; wanted are video_uid"):
        ego4d(files)
    path.write_text(SOUNDS + rows[-1])
    with pytest.raises(TableError, match=r"positive is empty in all 1 rows; wanted is 1 where"):
        ego4d(files)


def test_clips_can_be_chosen_before_their_videos_are_there(root: Path) -> None:
    videos = {
        f"v{name}": passes(*(told(float(t), f"#C C cuts it {t}") for t in range(9)))
        for name in range(10)
    }
    message = (
        "--train 14: only 0 of 63 training clips can be used; of 63 the reason is: "
        "file is missing; --absent-usable chooses before"
    )
    with pytest.raises(UsageError, match=message):
        narrated(root, videos, train=14)
    usable = Rules(absent_usable=True)
    before = narrated(root, videos, usable, train=14)
    assert (before.clips.column("quarantine") == "").all()
    assert len(before.clips.where(split="train")) == 14
    for uid in set(before.clips.column("uid")):
        (root / "v2" / "full_scale" / f"{uid}.mp4").touch()
    after = narrated(root, videos, usable, train=14)
    assert after.clips.table.equals(before.clips.table)
    assert "videos whose files are absent" not in after.counts
    with pytest.raises(UsageError, match="left out or usable, not both"):
        Rules(present_only=True, absent_usable=True)


def test_a_folder_without_the_videos_is_refused(root: Path) -> None:
    videos = {"gone": passes(told(1.0, "#C C cuts the tomato"))}
    with pytest.raises(UsageError, match=r"full_scale: has none of the 1 videos, .* gone.mp4"):
        narrated(root, videos, Rules(present_only=True))
    with pytest.raises(UsageError, match="nosuch: no such folder of videos"):
        ego4d(Files(root / "nosuch", (root / "v2" / "annotations" / "narration.json",)))


def test_a_narration_has_one_truth(root: Path) -> None:
    path = root / "positive.csv"
    rows = [annotated(A, 10.0, "#C C cuts the tomato", 1), annotated(C, 1.0, "#C C cuts it", 0)]
    path.write_text(SOUNDS + "".join([*rows, rows[0]]))
    files = Files(root / "v2" / "full_scale", annotations=path)
    assert len(ego4d(files, val=1).clips) == 2
    path.write_text(SOUNDS + "".join([*rows, rows[0].replace("\t1\t", "\t0\t")]))
    with pytest.raises(TableError, match=rf"video {A} at 10.000 s is annotated twice"):
        ego4d(files, val=1)


def test_held_out_videos_take_no_place_in_the_splits(root: Path) -> None:
    videos = {uid: passes(told(1.0, "#C C cuts the tomato")) for uid in (A, B, C, D)}
    clips = narrated(root, videos).clips
    assert Counter(clips.column("split")) == {"train": 1, "val": 1, "test": 1}
    assert len(narrated(root, {D: videos[D]}).clips) == 0


def test_without_annotations_videos_are_dealt_into_splits(root: Path) -> None:
    videos = {f"v{n}": passes(told(1.0, "#C C cuts it"), told(9.0, "#C C cuts")) for n in range(20)}
    clips = narrated(root, videos).clips
    splits = {uid: set(clips.column("split")[clips.column("uid") == uid]) for uid in videos}
    assert Counter(split for (split,) in splits.values()) == {"train": 14, "val": 2, "test": 4}
    assert narrated(root, videos, seed=1).clips.digest() != clips.digest()
    assert narrated(root, videos).clips.digest() == clips.digest()


def test_training_clips_are_chosen_over_videos_and_verbs(root: Path) -> None:
    videos = {}
    for name in range(10):
        uid = f"v{name}"
        (root / "v2" / "full_scale" / f"{uid}.mp4").touch()
        items = [told(float(t), f"#C C cuts the tomato {t}") for t in range(20)]
        videos[uid] = passes(*items, told(50.0, "#C C washes it"), told(60.0, "#C C wash"))
    found = narrated(root, videos, train=14)
    training = found.clips.where(split="train", quarantined=False)
    assert len(found.clips.where(split="train", quarantined=True)) == 7
    assert Counter(training.column("uid").tolist()) == dict.fromkeys(training.column("uid"), 2)
    assert Counter(training.column("verb").tolist()) == {"cut": 7, "wash": 7}
    assert len(found.clips.where(split="test")) == 2 * 22
    with pytest.raises(
        UsageError, match=r"--train 1000: only 147 of 154 .* 7 the reason is: the n"
    ):
        narrated(root, videos, train=1000)


def test_videos_cut_into_files(root: Path) -> None:
    chunks = root / "chunks"
    for place in (f"{A}/0.mp4", f"{A}/1.mp4"):
        (chunks / place).parent.mkdir(parents=True, exist_ok=True)
        (chunks / place).touch()
    times = (10.0, 29.5, 40.0, 70.0)
    path = root / "narration.json"
    path.write_text(json.dumps({A: passes(*(told(t, "#C C cuts the tomato") for t in times))}))
    clips = ego4d(Files(chunks, (path,)), Rules(chunk=30.0)).clips
    assert clips.column("video").tolist() == [f"{A}/{k}.mp4" for k in (0, 0, 1, 2)]
    assert clips.column("start").tolist() == [9.5, 29.0, 9.5, 9.5]
    assert clips.column("quarantine").tolist() == [
        "",
        "the clip lies in two files of its video",
        "",
        "file is missing",
    ]
    with pytest.raises(UsageError, match=r"files of 1 s hold no clip of 1.5 s"):
        Rules(chunk=1.0)


def test_a_video_that_is_there_twice_needs_a_choice(root: Path) -> None:
    (root / "v2" / "full_scale" / "again").mkdir()
    (root / "v2" / "full_scale" / "again" / f"{A}.mp4").touch()
    with pytest.raises(UsageError, match=f"has video {A} twice, as {A}.mp4 and again/{A}.mp4"):
        narrated(root, {A: passes(told(1.0, "#C C cuts the tomato"))})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"line 1, column 1: is no JSON of narrations: wanted is '\{', there is the end"),
        ("[]", r"wanted is '\{', there is '\[\]'"),
        ('{"a": {"narration_pass_1": {"narrations": [1}}}', "in a: Expecting ',' delimiter"),
        ('{"a": {},\n "b": tru}', "line 2, column 7: .* in b: Expecting value"),
        ('{"a": {}', "wanted is ',', there is the end of the file"),
        ('{"a" {}}', r"wanted is ':', there is '\{\}\}'"),
        ('{"a": [1, 2]}', r"'a' is \[1, 2\]; wanted are its narrations"),
        ('{"a": {"narration_pass_1": 3}}', "a, narration_pass_1 is 3; wanted are narrations"),
        ('{"a": {"narration_pass_2": {"narrations": []}}}', "no narrations in it"),
        ('{"a": {"narration_pass_2": {"narrations": {"x": 1}}}}', r"narrations are .*; wanted is"),
        (
            '{"a": {"narration_pass_2": {"narrations": [{"timestamp_sec": 1}]}}}',
            "a, narration_pass_2, narration 0 is .*; wanted are timestamp_sec, a number, and",
        ),
        (
            '{"a": {"narration_pass_1": {"narrations": [{"timestamp_sec": "1", '
            '"narration_text": "x"}]}}}',
            "a, narration_pass_1, narration 0 is",
        ),
        (
            '{"a": {"narration_pass_1": {"narrations": [{"timestamp_sec": 1, '
            '"narration_text": 5}]}}}',
            "narration 0 is",
        ),
        *(
            (
                '{"a": {"narration_pass_2": {"narrations": [{"time": 1, "text": "x"}, '
                f'{{"timestamp_sec": {time}, "narration_text": "x"}}]}}}}}}',
                r"a, narration_pass_2, narration 1 is .*; wanted are timestamp_sec, a number, and",
            )
            for time in ('"abc"', '""', '"nan"', "true", "[1]", "{}")
        ),
        (
            '{"a": {"narration_pass_1": {"narrations": [{"timestamp_sec": 1, '
            '"narration_text": "cuts \\ud83d"}]}}}',
            r"'cuts \\ud83d' is no text: surrogates not allowed; wanted are whole characters",
        ),
        (
            '{"a": {"narration_pass_1": {"summaries": 5, "narrations": []}}}',
            "a, summaries are 5; wanted is a list",
        ),
    ],
)
def test_broken_narrations_say_where(root: Path, text: str, message: str) -> None:
    with pytest.raises(TableError, match=rf"narration.json.*{message}"):
        narrated(root, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "video_uid\ttext\n",
            "lacks narration_time, clip_text; wanted are .*there are video_uid, ",
        ),
        (EGOCLIP + "\t".join("abc") + "\n", "egoclip.csv: not a readable table: .*Row #2"),
        (EGOCLIP + row(A, 1, "x") + row("", 1, "x"), "row 2 below the header: video_uid is empty"),
        (EGOCLIP + row(A, 1, "x", "93"), r"row 1 below the header: tag_verb is '93'; wanted is a"),
        (
            EGOCLIP + row(A, 1, "x") + row(A, 1, "x", "[]", f"[{'9' * 30}, 1]"),
            r"row 2 below the header: tag_noun is '\[9{30}, 1\]'; wanted is a list of numbers",
        ),
        *(
            (
                EGOCLIP + row(A, 1, "x") + row(A, 1, "x").replace("\t3\t", f"\t{place}\t"),
                rf"row 2 below the header: narration_ind is '{place}'; wanted is a whole number",
            )
            for place in ("1e30", "-1e30", "9223372036854775808", "2.5", "first", "inf", "nan")
        ),
        ("", "not a readable table"),
    ],
)
def test_broken_tables_say_where(root: Path, text: str, message: str) -> None:
    with pytest.raises(TableError, match=message):
        tabled(root, text)


def test_broken_truth_and_videos_say_where(root: Path) -> None:
    path = root / "positive.csv"
    path.write_text(SOUNDS + annotated(A, 1.0, "x", "1.0") + annotated(A, 2.0, "y", "maybe"))
    files = Files(root, annotations=path)
    with pytest.raises(
        TableError, match=r"row 2 below the header: positive is 'maybe'; wanted is 1"
    ):
        ego4d(files)
    with pytest.raises(UsageError, match="no narrations there"):
        ego4d(Files(root))
    with pytest.raises(TableError, match=r"none.csv: no such file"):
        ego4d(Files(root, (root / "none.csv",)))
    with pytest.raises(TableError, match=r"none.json: cannot be read"):
        ego4d(Files(root, (root / "none.json",)))
    with pytest.raises(UsageError, match="no such folder"):
        located(root / "none")
    (root / "v2" / "full_scale" / "manifest.csv").write_text("video_uid,duration_sec\n")
    with pytest.raises(TableError, match=r"manifest.csv: lacks canonical_audio_start_sec, canon"):
        narrated(root, {A: passes(told(1.0, "#C C cuts the tomato"))})
    with pytest.raises(TableError, match=r"^none.json: cannot be read"):
        read_videos(Path("none.json"), None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", r"it is \[\]"),
        ("[" * 100_000, "maximum recursion depth exceeded"),
        ("{}", r"it is \{\}"),
        ('{"videos": 3}', r"it is \{'videos': 3\}"),
        ('{"videos": [{"video_uid": "a"}, 7]}', "video 1 of it is 7"),
        ('{"videos": [{"video_uid": ["a"]}]}', r"video 0 of it is \{'video_uid': \['a'\]\}"),
        ('{"videos": [{"video_uid": "a", "video_metadata": 5}]}', "video_metadata of a is 5"),
        ('{"videos": [{"video_uid": "a", "video_metadata": "x"}]}', "video_metadata of a is 'x'"),
        *(
            (f'{{"videos": [{{"video_uid": "a", "duration_sec": {wrong}}}]}}', message)
            for wrong, message in (
                ('"long"', "duration_sec of a is 'long'"),
                ("1" + "0" * 400, r"duration_sec of a is 10{116}\.\.\."),
                ("1e400", "duration_sec of a is inf"),
                ("-5", "duration_sec of a is -5"),
                ("true", "duration_sec of a is True"),
                ("1" * 5000, "Exceeds the limit"),
            )
        ),
    ],
)
def test_what_is_not_ego4d_json_says_why(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "ego4d.json").write_text(text)
    said = r"is not Ego4D's ego4d.json, a list `videos` of video_uid and duration_sec, seconds or "
    with pytest.raises(TableError, match=rf"{said}null: {message}"):
        read_videos(tmp_path / "ego4d.json", None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(),
    lambda of: st.lists(of, max_size=2) | st.dictionaries(st.text(), of, max_size=2),
    max_leaves=3,
)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_whatever_json_holds_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Files as they should be, in which anything may stand anywhere."""

    def perhaps(value: object) -> object:
        return data.draw(JSON) if data.draw(st.integers(0, 4)) == 0 else value

    item = perhaps({"timestamp_sec": perhaps(1.5), "narration_text": perhaps("cuts")})
    of_pass = perhaps({"narrations": perhaps([item, item]), "summaries": perhaps([])})
    about = perhaps({"audio_start_sec": perhaps(0.0)})
    video = {"video_uid": perhaps("u"), "duration_sec": perhaps(9.5), "video_metadata": about}
    path = tmp_path_factory.mktemp("any") / "any.json"
    for read, whole in (
        (read_narrations, perhaps({"u": perhaps({"narration_pass_1": of_pass})})),
        (lambda path: read_videos(path, None), perhaps({"videos": perhaps([perhaps(video)])})),
    ):
        path.write_text(json.dumps(whole))
        try:
            read(path)
        except TableError as error:
            assert str(error).startswith(str(path))


def test_the_command_says_what_it_read_and_found(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = root / "v2" / "annotations" / "narration.json"
    videos = {A: passes(told(1.0, "#C C cuts the tomato"), told(1.0, "#C C cuts the tomato"))}
    path.write_text(json.dumps(videos))
    out = root / "clips.parquet"
    words = ["index", "ego4d", str(root), "--out", str(out), "--before", "0.25"]
    assert main(words) == 0
    said = "".join(capsys.readouterr().out.split())
    assert "saidbefore,inanotherpassorfile1" in said
    assert f"{root}/v2/annotations/narration_verb_taxonomy.csv" in said
    assert [clip.start for clip in Clips.read(out)] == [0.75]
    written = out.stat().st_mtime_ns
    assert main(words) == 0
    assert "no file has changed" in capsys.readouterr().out
    assert out.stat().st_mtime_ns == written
    (root / "v2" / "full_scale" / f"{D}.mp4").touch()
    assert main([*words, "--train", "2"]) == 2
    assert "--train 2: only 0 of 0 training clips can be used" in capsys.readouterr().err
    assert main(words) == 0
    assert out.stat().st_mtime_ns != written
