"""The data sets of labelled files: what their lists say, and what is wrong with broken ones."""

import json
from collections import Counter
from pathlib import Path

import pytest

from sonant.cli import main
from sonant.clips import Clips
from sonant.errors import TableError, UsageError
from sonant.sources import dcase2013, esc50, kinetics_sounds, kitchen20
from sonant.sources.audioset import audioset
from sonant.sources.hmdb51 import hmdb51
from sonant.sources.kinetics import kinetics
from sonant.sources.labelled import Item, Listing
from sonant.sources.ucf101 import ucf101


def write(root: Path, files: dict[str, str]) -> Path:
    for place, text in files.items():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_text(text, newline="")
    return root


def by_id(listing: Listing) -> dict[str, Item]:
    return {item.id: item for item in listing.items}


def labels(item: Item, *names: str) -> tuple[object, ...]:
    return tuple(item.labels[name] for name in names)


# ESC-50

ESC = """filename,fold,target,category,esc10,src_file,take
1-100032-A-0.wav,1,0,dog,True,100032,A
2-100210-B-36.wav,2,36,vacuum_cleaner,False,100210,B
"""


def test_esc50_has_its_classes_by_target_and_its_folds(tmp_path: Path) -> None:
    write(tmp_path, {"meta/esc50.csv": ESC, "audio/1-100032-A-0.wav": "", "audio/x.txt": ""})
    dog, cleaner = esc50.esc50(tmp_path, fold=2).items
    assert (dog.id, dog.video, dog.split) == ("1-100032-A-0", "audio/1-100032-A-0.wav", "train")
    assert labels(dog, "class", "target", "fold", "esc10", "source") == (
        "dog",
        0,
        1,
        True,
        "100032",
    )
    assert (cleaner.split, cleaner.labels["class"]) == ("test", "vacuum_cleaner")
    assert [item.split for item in esc50.esc50(tmp_path).items] == ["", ""]
    assert [item.id for item in esc50.esc50(tmp_path, esc10=True).items] == [dog.id]
    assert len(set(esc50.CLASSES)) == 50 and list(esc50.CLASSES) != sorted(esc50.CLASSES)


def test_esc50_resampled_to_another_format_is_found(tmp_path: Path) -> None:
    write(tmp_path, {"meta/esc50.csv": ESC, "audio_16k/1-100032-A-0.flac": ""})
    assert esc50.esc50(tmp_path).items[0].video == "audio_16k/1-100032-A-0.flac"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("36,vacuum", "35,vacuum", "line 3: target 35 is 'washing_machine' in ESC-50, not 'vacuum"),
        ("vacuum_cleaner", "hoover", "line 3: category 'hoover' is none of the 50 there are: dog,"),
        ("B-36.wav,2", "B-36.wav,6", "line 3: fold is '6'; wanted is a whole number from 1 to 5"),
        ("B-36.wav,2", "B-36.wav,", "line 3: fold is empty"),
        ("B-36.wav,2", "B-36.wav", "line 3: has 6 cells; wanted are 7"),
        ("False", "maybe", "line 3: esc10 'maybe' is none"),
        ("2-100210-B-36", "1-100032-A-0", "line 3: '1-100032-A-0' is listed already, in .*line 2"),
        ("src_file,take", "take,src", "wanted are filename, fold, target, category, esc10, src_f"),
    ],
)
def test_a_broken_esc50_says_where(tmp_path: Path, old: str, new: str, message: str) -> None:
    write(tmp_path, {"meta/esc50.csv": ESC.replace(old, new)})
    with pytest.raises(TableError, match=f"esc50.csv.*{message}"):
        esc50.esc50(tmp_path)


def test_folds_and_folders_that_do_not_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fold must be 1 to 5, not 6"):
        esc50.esc50(tmp_path, fold=6)
    with pytest.raises(UsageError, match=r"has no meta/esc50.csv and no esc50.csv and no esc10"):
        esc50.esc50(tmp_path)
    with pytest.raises(UsageError, match="no such folder"):
        esc50.esc50(tmp_path / "none")


@pytest.mark.data
def test_the_real_esc10(sonant_data: Path) -> None:
    items = esc50.esc50(sonant_data / "esc10", fold=3).items
    assert Counter(item.labels["fold"] for item in items) == dict.fromkeys(range(1, 6), 80)
    assert Counter(item.labels["class"] for item in items) == dict.fromkeys(esc50.ESC10, 40)
    assert {item.split for item in items if item.labels["fold"] == 3} == {"test"}
    assert Counter(item.split for item in items) == {"train": 320, "test": 80}
    assert all((sonant_data / "esc10" / item.video).is_file() for item in items)


# Kitchen20

KITCHEN = """file,category,target,fold,take,source_id
audio/0-1-A-0.ogg,blender,0,1,A,1
audio/1-1-B-0.ogg,blender,0,2,B,1
audio/0-2-A-2.ogg,fridge,2,1,A,2
"""


def test_kitchen20_keeps_a_recording_in_one_fold(tmp_path: Path) -> None:
    write(tmp_path, {"kitchen20.csv": KITCHEN})
    first, second, fridge = kitchen20.kitchen20(tmp_path, fold=1, folds=2).items
    assert labels(first, "class", "target", "source", "fold") == ("blender", 0, "1", 1)
    assert second.labels["fold"] == 2
    assert first.labels["source_fold"] == second.labels["source_fold"]
    assert first.split == second.split != fridge.split
    own = "category,fold,orig_idx,path,take,target\nfridge,0,7,audio/x.wav,A,2\n"
    more = own + "sweep,0,8,audio/y.wav,A,19\n"
    write(tmp_path, {"kitchen20.csv": more})
    assert kitchen20.kitchen20(tmp_path, folds=2).items[0].labels["source"] == "7"


def test_a_broken_kitchen20_says_where(tmp_path: Path) -> None:
    for old, new, message in (
        ("fridge,2", "fridge,3", "line 4: target 3 is 'microwave' in Kitchen20, not 'fridge'"),
        ("source_id", "from", "wanted is source_id or orig_idx"),
        ("fridge", "kettle", "line 4: category 'kettle' is none of the 20"),
    ):
        write(tmp_path, {"kitchen20.csv": KITCHEN.replace(old, new)})
        with pytest.raises(TableError, match=message):
            kitchen20.kitchen20(tmp_path, folds=2)
    write(tmp_path, {"kitchen20.csv": KITCHEN})
    with pytest.raises(UsageError, match="2 recordings cannot make 5 folds"):
        kitchen20.kitchen20(tmp_path)
    with pytest.raises(UsageError, match="fold must be 1 to 5, not 0"):
        kitchen20.kitchen20(tmp_path, fold=0)


@pytest.mark.data
def test_the_real_kitchen20_leaks_and_its_source_folds_do_not(sonant_data: Path) -> None:
    items = kitchen20.kitchen20(sonant_data / "kitchen20", fold=2).items
    assert len(items) == 773

    def spread(name: str) -> int:
        pairs = {labels(item, "source", name) for item in items}
        return max(Counter(source for source, _ in pairs).values())

    assert spread("fold") > 1
    assert spread("source_fold") == 1
    sizes = Counter(item.labels["source_fold"] for item in items)
    assert max(sizes.values()) - min(sizes.values()) < 0.05 * len(items)
    folds = Counter(name for name, _ in {labels(item, "class", "source_fold") for item in items})
    assert folds == {name: 4 if name == "juicer" else 5 for name in kitchen20.CLASSES}
    assert all((sonant_data / "kitchen20" / item.video).is_file() for item in items)


# DCASE 2013


def test_dcase2013_is_named_by_its_classes(tmp_path: Path) -> None:
    nested = "set1/scenes_stereo/scenes_stereo"
    files = {f"{nested}/busystreet07.wav": "", f"{nested}/._bus01.wav": "", f"{nested}/a.txt": ""}
    write(tmp_path, {**files, "set1/scenes_stereo_testset/busystreet07.wav": ""})
    found = by_id(dcase2013.dcase2013(tmp_path))
    assert {id: item.split for id, item in found.items()} == {
        "train/busystreet07": "train",
        "test/busystreet07": "test",
    }
    assert {item.labels["class"] for item in found.values()} == {"busystreet"}
    write(tmp_path, {"set1/scenes_stereo/beach01.wav": ""})
    with pytest.raises(TableError, match=r"beach01.wav: is not named by a class"):
        dcase2013.dcase2013(tmp_path)
    (tmp_path / "set1/scenes_stereo/beach01.wav").unlink()
    (tmp_path / "set1/scenes_stereo_testset/busystreet07.wav").unlink()
    with pytest.raises(UsageError, match="no recordings in a folder scenes_stereo_testset"):
        dcase2013.dcase2013(tmp_path)


# UCF101

UCF = {
    "classInd.txt": "1 ApplyEyeMakeup\r\n2 HandstandPushups\r\n",
    "trainlist01.txt": "ApplyEyeMakeup/v_A_g08_c01.avi 1\r\nHandstandPushups/v_H_g01_c01.avi 2\r\n",
    "testlist01.txt": "ApplyEyeMakeup/v_A_g01_c01.avi\r\n",
    "trainlist02.txt": "ApplyEyeMakeup/v_A_g01_c01.avi 1\n",
    "testlist02.txt": "ApplyEyeMakeup/v_A_g08_c01.avi\nHandstandPushups/v_H_g01_c01.avi\n",
}


def ucf(root: Path, **changed: str) -> Path:
    files = UCF | {f"{name}.txt": text for name, text in changed.items()}
    return write(root, {f"ucfTrainTestlist/{name}": text for name, text in files.items()})


def test_ucf101_has_its_splits_as_labels(tmp_path: Path) -> None:
    write(ucf(tmp_path), {"UCF-101/HandStandPushups/v_H_g01_c01.avi": ""})
    found = by_id(ucf101(tmp_path, split=2))
    assert list(found) == ["v_A_g08_c01", "v_H_g01_c01", "v_A_g01_c01"]
    parts = [
        labels(item, "class", "target", "split1", "split2", "split3") for item in found.values()
    ]
    assert parts == [
        ("ApplyEyeMakeup", 1, "train", "test", None),
        ("HandstandPushups", 2, "train", "test", None),
        ("ApplyEyeMakeup", 1, "test", "train", None),
    ]
    assert [item.split for item in found.values()] == ["test", "test", "train"]
    assert found["v_H_g01_c01"].video == "UCF-101/HandStandPushups/v_H_g01_c01.avi"
    assert found["v_A_g01_c01"].video == "ApplyEyeMakeup/v_A_g01_c01.avi"
    assert {item.split for item in ucf101(tmp_path).items} == {""}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("classInd", "1 A\n1 B\n", r"classInd.txt, line 2: class 1 B is there already"),
        ("classInd", "A\n", r"classInd.txt, line 1: is 'A'; wanted are number and class"),
        ("trainlist01", "Archery/v_1.avi 1\n", r"trainlist01.txt, line 1: class 'Archery' is none"),
        ("trainlist01", "v_1.avi 1\n", "'v_1.avi' is not of the form CLASS/VIDEO.avi"),
        ("trainlist01", "ApplyEyeMakeup/v_1.avi 2\n", "class ApplyEyeMakeup is 2 here, and 1 in"),
        ("trainlist01", "ApplyEyeMakeup/v_1.avi\n", "wanted are video and number"),
        ("testlist01", "ApplyEyeMakeup/v_A_g08_c01.avi\n", "is in split 1 already"),
    ],
)
def test_a_broken_ucf101_says_where(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(TableError, match=message):
        ucf101(ucf(tmp_path, **{name: text}))


def test_a_split_of_ucf101_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no trainlist03.txt and testlist03.txt"):
        ucf101(ucf(tmp_path), split=3)
    with pytest.raises(UsageError, match="split must be 1 to 3, not 4"):
        ucf101(tmp_path, split=4)


# HMDB51


def hmdb(root: Path, **changed: str) -> Path:
    files = {
        "brush_hair_test_split1": "a b_!#_0.avi 1 \nc.avi 2 \nd.avi 0 \n",
        "brush_hair_test_split2": "a b_!#_0.avi 2 \nc.avi 1 \nd.avi 1 \n",
        "brush_hair_test_split3": "a b_!#_0.avi 0 \nc.avi 0 \nd.avi 2 \n",
    } | changed
    return write(root, {f"splits/{name}.txt": text for name, text in files.items()})


def test_hmdb51_codes_are_train_test_and_neither(tmp_path: Path) -> None:
    write(hmdb(tmp_path), {"videos/brush_hair/c.avi": "", "videos/wave/c.avi": ""})
    found = by_id(hmdb51(tmp_path, split=1))
    assert {id: labels(item, "split1", "split2", "split3") for id, item in found.items()} == {
        "brush_hair/a b_!#_0": ("train", "test", None),
        "brush_hair/c": ("test", "train", None),
        "brush_hair/d": (None, "train", "test"),
    }
    assert [item.split for item in found.values()] == ["train", "test", ""]
    assert {item.labels["class"] for item in found.values()} == {"brush_hair"}
    assert found["brush_hair/c"].video == "videos/brush_hair/c.avi"
    assert found["brush_hair/d"].video == "brush_hair/d.avi"


def test_a_broken_hmdb51_says_where(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no lists CLASS_test_split1"):
        hmdb51(tmp_path)
    hmdb(tmp_path, brush_hair_test_split2="a.avi 3\n")
    with pytest.raises(TableError, match=r"split2.txt, line 1: code '3' is none of the 3"):
        hmdb51(tmp_path)
    hmdb(tmp_path, brush_hair_test_split2="a.avi 1\na.avi 2\n")
    with pytest.raises(TableError, match=r"split2.txt, line 2: a.avi is listed twice"):
        hmdb51(tmp_path)
    hmdb(tmp_path, wave_test_split1="a.avi 1\n")
    with pytest.raises(UsageError, match=r"has no wave_test_split2.txt"):
        hmdb51(tmp_path)
    hmdb(tmp_path, wave_test_split4="a.avi 1\n")
    with pytest.raises(UsageError, match=r"split4.txt: is of none of the splits 1 to 3"):
        hmdb51(tmp_path)


# Kinetics

TRAIN = """label,youtube_id,time_start,time_end,split,is_cc
playing accordion,-aB3_c,10,20,train,0
"playing guitar",whole,5,15,train,1
typing on air,gone,0,10,train,0
"""
VALIDATE = "label,youtube_id,time_start,time_end,split\nbowling,seg,0,10,validate\n"
TEST = "youtube_id,time_start,time_end,split\nsecret,1,11,test\n"


def k400(root: Path, train: str = TRAIN) -> Path:
    lists = {"annotations/train.csv": train, "annotations/val.csv": VALIDATE}
    return write(root, {**lists, "annotations/test.csv": TEST})


def test_kinetics_files_are_found_however_they_are_named(tmp_path: Path) -> None:
    places = ("train/playing_accordion/-aB3_c_000010_000020.mp4", "whole.mkv", "val/seg.webm")
    write(k400(tmp_path), dict.fromkeys(places, ""))
    found = by_id(kinetics(tmp_path))
    assert [item.video for item in found.values()] == [
        "train/playing_accordion/-aB3_c_000010_000020.mp4",
        "whole.mkv",
        "typing on air/gone_000000_000010.mp4",
        "val/seg.webm",
        "test/secret_000001_000011.mp4",
    ]
    assert [item.split for item in found.values()] == ["train", "train", "train", "val", "test"]
    assert [item.trimmed for item in found.values()] == [True, False, False, False, False]
    assert found["whole_000005_000015"].segment == (5.0, 15.0)
    assert labels(found["secret_000001_000011"], "class", "youtube") == (None, "secret")
    assert labels(found["-aB3_c_000010_000020"], "class", "youtube") == (
        "playing accordion",
        "-aB3_c",
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("10,20,train", "20,10,train", "line 2: time_end is 10 s, not after time_start 20 s"),
        ("10,20,train", "ten,20,train", "line 2: time_start is 'ten'; wanted are seconds"),
        ("10,20,train", "10,20,holdout", "line 2: split 'holdout' is none of"),
        ("playing accordion", "", "line 2: label is empty"),
        ("whole,5,15", "-aB3_c,10,20", "line 3: '-aB3_c_000010_000020' is listed already"),
        ("youtube_id", "id", "has the columns label, id"),
    ],
)
def test_a_broken_kinetics_says_where(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(TableError, match=rf"train\.csv.*{message}"):
        kinetics(k400(tmp_path, TRAIN.replace(old, new, 1)))


def test_kinetics_needs_its_lists(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has none of train.csv"):
        kinetics(tmp_path)


# Kinetics-Sounds


def test_the_lists_of_kinetics_sounds() -> None:
    sizes = {name: len(set(names)) for name, names in kinetics_sounds.CLASSES.items()}
    assert sizes == {"ks34": 34, "ks32": 32, "ks31": 31, "ks100-open": 100}
    lists = {name: set(names) for name, names in kinetics_sounds.CLASSES.items()}
    gone = {"typing", "patting", "blowing out", "dribbling ball", "stomping", "fingerpicking"}
    assert lists["ks34"] - lists["ks32"] == gone | {"mowing the lawn by pushing lawnmower"}
    assert lists["ks32"] - lists["ks31"] == {"strumming guitar"}
    assert not lists["ks31"] - lists["ks32"]
    named = {"dancing charleston", "belly dancing", "playing volleyball", "playing cricket"}
    assert lists["ks100-open"] >= lists["ks32"] | named | {"applauding", "celebrating"}


def test_kinetics_sounds_are_some_classes_of_kinetics(tmp_path: Path) -> None:
    train = TRAIN.replace("typing on air", "stomping_grapes")
    every = kinetics_sounds.kinetics_sounds(k400(tmp_path, train), classes=kinetics_sounds.KS34)
    classes = [item.labels["class"] for item in every.items]
    assert classes == ["playing accordion", "playing guitar", "stomping_grapes", "bowling"]
    assert every.needs == ("video", "audio")
    lacking = kinetics_sounds.absent(every, kinetics_sounds.KS34)
    assert {"typing", "patting"} <= set(lacking) and len(lacking) == 30
    with pytest.raises(UsageError, match=r"have no clip of juggling"):
        kinetics_sounds.kinetics_sounds(tmp_path, classes=["juggling"])


def test_classes_of_ones_own(tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text("playing guitar\n\nbowling\n")
    assert kinetics_sounds.classes_of(str(own)) == ("playing guitar", "bowling")
    own.write_text("bowling\nbowling\n")
    with pytest.raises(TableError, match=r"own.txt, line 2: 'bowling' is there already"):
        kinetics_sounds.classes_of(str(own))
    with pytest.raises(UsageError, match=r"no list of that name.*ks34, ks32, ks31, ks100-open"):
        kinetics_sounds.classes_of("ks33")


# AudioSet

SEGMENTS = """# Segments csv created Sun Mar  5 10:54:31 2017
# num_ytids=3, num_segs=3, num_unique_labels=2, num_positive_labels=4
# YTID, start_seconds, end_seconds, positive_labels
--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"
-aE2O5G5WE, 0.000, 10.000, "/m/09x0r"
whole, 20.000, 30.000, "/t/dd00088"
"""
MIDS = 'index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/t/dd00088,"Gush, of water"\n'


def test_audioset_has_its_labels_and_finds_its_files(tmp_path: Path) -> None:
    files = {"balanced_train_segments.csv": SEGMENTS, "class_labels_indices.csv": MIDS}
    files |= {"a/Y--PJHxphWEs_30000_40000.wav": "", "a/Y-aE2O5G5WE.flac": "", "v/whole.mp4": ""}
    first, second, whole = audioset(write(tmp_path, files)).items
    assert (first.id, first.split) == ("--PJHxphWEs_30000_40000", "train")
    assert labels(first, "class", "classes", "mids", "set") == (
        None,
        "Speech; Gush, of water",
        "/m/09x0r,/t/dd00088",
        "balanced",
    )
    assert labels(second, "class", "classes") == ("Speech", "Speech")
    assert [item.video for item in (first, second, whole)] == [
        "a/Y--PJHxphWEs_30000_40000.wav",
        "a/Y-aE2O5G5WE.flac",
        "v/whole.mp4",
    ]
    assert [item.trimmed for item in (first, second, whole)] == [True, False, False]
    assert whole.segment == (20.0, 30.0)


def test_audioset_reads_its_ontology_and_its_eval_set(tmp_path: Path) -> None:
    ontology = [{"id": "/m/09x0r", "name": "Speech"}, {"id": "/t/dd00088", "name": "Gush"}]
    files = {"eval_segments.csv": SEGMENTS, "ontology.json": json.dumps(ontology)}
    items = audioset(write(tmp_path, files)).items
    assert {(item.split, item.labels["set"]) for item in items} == {("test", "eval")}
    assert items[0].labels["classes"] == "Speech; Gush"
    assert items[0].video == "eval/--PJHxphWEs_30.wav"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"/m/09x0r"', '"/m/none"', "line 5: label '/m/none' is none of the 2 that have names"),
        ('"/m/09x0r"', "/m/09x0r,/t/dd00088", "line 5: has 5 cells; wanted are 4"),
        ("0.000, 10", "0.000, x", "line 5: end_seconds is 'x"),
        ('"/m/09x0r"', '""', "line 5: positive_labels is empty"),
        ("whole, 20.000, 30", "-aE2O5G5WE, 0.000, 10", "line 6: '-aE2O5G5WE_0_10000' is listed al"),
    ],
)
def test_a_broken_audioset_says_where(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = SEGMENTS.replace(old, new, 1)
    write(tmp_path, {"eval_segments.csv": text, "class_labels_indices.csv": MIDS})
    with pytest.raises(TableError, match=rf"eval_segments\.csv, {message}"):
        audioset(tmp_path)


def test_audioset_needs_lists_and_names(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has none of balanced_train_segments.csv"):
        audioset(tmp_path)
    write(tmp_path, {"eval_segments.csv": SEGMENTS, "mine.csv": SEGMENTS})
    with pytest.raises(UsageError, match=r"has no class_labels_indices.csv and no ontology.json"):
        audioset(tmp_path)
    write(tmp_path, {"ontology.json": "[1, 2]"})
    with pytest.raises(TableError, match=r"is not AudioSet's ontology.json"):
        audioset(tmp_path)
    with pytest.raises(UsageError, match=r"mine.csv: is not named as a list of AudioSet"):
        audioset(tmp_path, lists=[tmp_path / "mine.csv"])


# Commands


def test_commands_make_the_table_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, {"meta/esc50.csv": ESC})
    out = tmp_path / "clips.parquet"
    command = ["index", "esc50", str(tmp_path), "--out", str(out), "--fold", "1"]
    assert main([*command, "--workers", "1"]) == 1
    said = capsys.readouterr()
    assert "file is missing" in said.out
    assert "no clip in it can be used; 2 of 2: file is missing" in said.err
    clips = Clips.read(out)
    assert clips.column("split").tolist() == ["test", "train"]
    assert clips.column("quarantine").tolist() == ["file is missing"] * 2
    assert main(command) == 1
    said = capsys.readouterr()
    assert "no file has changed" in said.out
    assert "no clip in it can be used; 2 of 2: file is missing" in said.err
    assert main(["index", "esc50", str(tmp_path), "--fold", "9"]) == 2
    assert "fold must be 1 to 5, not 9" in capsys.readouterr().err


def test_the_command_says_which_classes_are_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "clips.parquet"
    command = ["index", "kinetics-sounds", str(k400(tmp_path)), "--classes", "ks34", "--workers"]
    assert main([*command, "1", "--out", str(out)]) == 1  # there are lists here, and no videos
    said = " ".join(capsys.readouterr().out.split())
    assert "of 34 classes, 31 are not in the lists" in said and "patting" in said
    assert len(Clips.read(out)) == 3
