import io
import json
import re
from html.parser import HTMLParser
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageColor
from rich.console import Console

from sonant import report as module
from sonant.clips import Clips
from sonant.errors import SonantError, TableError, UsageError
from sonant.features import Features
from sonant.media.read import Media
from sonant.report import (
    calibration_table,
    clusters_table,
    concepts_table,
    discovery_table,
    figures,
    read,
    report,
    retrieval_table,
    save,
    sheet,
)
from sonant.report.films import film, poster, still
from sonant.report.sheet import contact_sheet
from sonant.tasks.agreement import agreement, examples
from sonant.tasks.calibration import calibration
from sonant.tasks.clusters import clusters
from sonant.tasks.discovery import discovery
from sonant.tasks.retrieval import retrieval
from sonant.types import Clip

RNG = np.random.default_rng(0)
EVIL = '<script src="http://evil.example/x.js"></script> & "quotes"'


def table(*, truth: bool = True) -> Clips:
    rows = []
    for i in range(96):
        sounding = bool(RNG.random() < 0.5)
        case = "I" if sounding else ("II", "III", "IV", "none")[i % 4]
        labels = {"verb": "ab"[i % 2], "noun": "x", "sounding": sounding, "case": case}
        split = "test" if i % 12 < 6 else "train"
        text = f"#C C does {i} {EVIL}"
        rows.append(
            Clip(
                f"c{i}", f"v{i % 12}.mp4", i * 2, i * 2 + 1.5, text, split, labels if truth else {}
            )
        )
    bad = Clip("bad", "v0.mp4", 500, 501, "", "test")
    return Clips.of([*rows, bad], root=Path("/")).quarantined({"bad": "after its end <1 s>"})


def features(clips: Clips) -> Features:
    good = clips.where(quarantined=False)
    e = RNG.normal(size=(3, len(good), 4))
    return Features.of(
        good.column("id").tolist(), dict(zip(("audio", "video", "text"), e, strict=True))
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with everything in it, and a training log."""
    folder = tmp_path_factory.mktemp("report")
    clips = table()
    mc3, untrained = features(clips), features(clips)
    ids = mc3.ids.tolist()
    loud = Features.of(ids, scores={"loudness mean": RNG.normal(size=len(ids)) - 30})
    models = {"MC3": mc3, "untrained": untrained}
    shown = examples(agreement(mc3, clips), clips, loud, loudest=1, count=3)
    save(
        folder / "report.json",
        clips=clips,
        discovery=discovery(models, clips, baselines={"trivial": loud}, resamples=20),
        retrieval=retrieval(models, clips, resamples=20),
        examples=shown,
    )
    (folder / "record.json").write_text('{"recipe": "methods.mc3:mc3_small"}')
    lines = [
        {"stage": stage, "step": step, "terms": {"contrastive": 5 - step / 100}, **more}
        for stage, steps in (("align", 120), ("refine", 60))
        for step in range(steps)
        for more in [
            {"cosine": {"audio-video": 0.1}, "rank": {"audio": 9.0}} if step % 9 == 0 else {}
        ]
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def media(*, height: int = 24, width: int = 31) -> Media:
    frames = RNG.integers(0, 255, (16, height, width, 3), np.uint8)
    times = 3.0 + np.repeat(np.arange(8) * 0.125 + 0.0625, 2)
    wave = np.sin((np.arange(16_000) / 400) ** 2).astype(np.float32)
    return Media(frames, times, wave, 3.0, 16_000)


class Shelf:
    """Stands for a pack of the report's clips."""

    folder = "shelf"

    def __init__(self, clips: Clips) -> None:
        self.clips = clips

    def read(self, row: int, *, frames: int) -> Media:
        return media()


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.Pack, "open", lambda folder: Shelf(table()))


class Page(HTMLParser):
    """Collects tags, and checks that they close in order."""

    VOID = frozenset({"meta", "link", "br", "use", "path", "img"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def test_the_page_is_whole_and_needs_no_network(folder: Path, tmp_path: Path, shelf: None) -> None:
    out = report(
        folder / "report.json",
        tmp_path / "page.html",
        pack="shelf",
        logs={"MC3": folder / "log.jsonl"},
    )
    text = out.read_text()
    page = Page(text)
    for _, attrs in page.tags:
        for name in ("src", "href", "xlink:href", "poster"):
            address = attrs.get(name) or "#"
            assert address.startswith(("data:", "#")), address[:80]
    assert not re.search(r"url\((?!#)|@import", text)
    assert page.all("script") == []
    assert "&lt;script src=" in text
    plots = [attrs for attrs in page.all("svg") if attrs.get("role") == "img"]
    assert len(plots) == 5
    assert all(attrs["aria-label"] for attrs in plots)
    assert len(page.all("video")) == 6
    assert all(attrs["aria-label"] for attrs in page.all("video"))
    assert len(page.all("html")) == 1
    for words in (
        "ROC AUC",
        "base rate",
        "verb prior",
        "Quarantine: 1 clips",
        "&lt;1 s&gt;",
        "seed",
    ):
        assert words in text


@pytest.mark.slow
def test_the_same_files_make_the_same_page_in_the_colours_of_its_theme(
    folder: Path, tmp_path: Path
) -> None:
    logs = {"MC3": folder / "log.jsonl"}
    paths = [tmp_path / "a.html", tmp_path / "b.html"]
    texts = [report(folder / "report.json", path, logs=logs).read_text() for path in paths]
    assert texts[0] == texts[1]
    plots = "".join(re.findall(r"<svg.*?</svg>", texts[0], flags=re.S))
    assert "var(--series-1)" in plots
    assert "var(--ink)" in plots
    assert set(re.findall(r"(?:stroke|fill): (#\w+)", plots)) <= {"#ffffff"}


def test_a_report_without_truth_has_a_page(tmp_path: Path) -> None:
    clips = table(truth=False)
    models = {"MC3": features(clips)}
    save(
        tmp_path / "report.json",
        clips=clips,
        discovery=discovery(models, clips, resamples=5),
        retrieval=retrieval(models, clips, resamples=5),
    )
    text = report(tmp_path / "report.json", tmp_path / "page.html").read_text()
    Page(text)
    assert "There is no truth" in text
    assert "ROC AUC" not in text
    printed = shown(discovery_table(read(tmp_path / "report.json")))
    assert "There is no truth" in printed
    assert "MC3" in printed


def test_parts_of_the_same_clips_come_together(tmp_path: Path) -> None:
    path, clips = tmp_path / "report.json", table()
    models = {"MC3": features(clips)}
    save(path, clips=clips, retrieval=retrieval(models, clips, resamples=5))
    assert "Which actions sound</h2>" not in page_of(path)
    with pytest.raises(TableError, match="no discovery in it; `sonant score discovery` adds it"):
        discovery_table(read(path))
    save(path, clips=clips, discovery=discovery(models, clips, resamples=5))
    found = read(path)
    assert found["discovery"]["rows"]
    assert found["retrieval"]["rows"]
    assert "Which actions sound</h2>" in page_of(path)
    other = clips.quarantined({"c1": "gone"})
    with pytest.raises(UsageError, match="says retrieval of other clips, or of clips"):
        save(path, clips=other, discovery=discovery(models, clips, resamples=5))
    assert read(path) == found
    path.write_text("{}")
    with pytest.raises(TableError, match="of schema None"):
        save(path, clips=clips)


def page_of(path: Path) -> str:
    text = report(path, path.with_name("page.html")).read_text()
    Page(text)
    return text


def test_report_is_read_back_as_plain_json(folder: Path) -> None:
    text = (folder / "report.json").read_text()
    assert "NaN" not in text
    found = read(folder / "report.json")
    assert found["clips"]["quarantine"] == [
        {"reason": "after its end <1 s>", "clips": 1, "first": "bad"}
    ]
    assert found["clips"]["splits"] == {"test": 48, "train": 48}
    chance = found["retrieval"]["rows"][0]["values"]["map"]
    assert chance["low"] is None
    assert 0 < chance["value"] < 1


def shown(table: Any) -> str:
    console = Console(width=80, file=io.StringIO(), force_terminal=False)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_tables_for_the_terminal(folder: Path) -> None:
    found = read(folder / "report.json")
    text = shown(discovery_table(found))
    row = found["discovery"]["rows"][0]["areas"]["roc_auc"]
    assert f"{row['value']:.3f}".lstrip("0") in text
    assert "…" not in text
    for words in ("MC3", "untrained", "centred", "trivial", "verb prior", "base rate"):
        assert words in text
    text = shown(retrieval_table(found))
    assert "…" not in text
    assert text.count("chance") == 4
    assert "V>A" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "of schema None"),
        ('{"schema": "sonant.report", "version": "0"}', "version 0; this sonant reads"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "report.json"
    with pytest.raises(TableError, match="no such report"):
        read(path)
    path.write_text(content)
    with pytest.raises(TableError, match=message):
        read(path)


def test_wrong_logs_and_packs_are_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "log.jsonl").write_text("step 1\n")
    for name, message in (("log.jsonl", "is no training log"), ("gone.jsonl", "no training log")):
        with pytest.raises(TableError, match=message):
            report(folder / "report.json", tmp_path / "p.html", logs={"MC3": tmp_path / name})
    other = table().where(np.arange(97) > 95)
    monkeypatch.setattr(module.Pack, "open", lambda folder: Shelf(other))
    with pytest.raises(SonantError, match="6 of the report's 6 examples are not in this pack"):
        report(folder / "report.json", tmp_path / "p.html", pack="shelf")
    assert not (tmp_path / "p.html").exists()


def test_a_film_shows_what_was_packed_at_its_times() -> None:
    y, x = np.mgrid[:24, :32]
    frames = np.stack([np.stack([8 * x, 10 * y, 0 * x + 25 * t], -1) for t in range(8)])
    clip = media()
    times = 3.03 + np.arange(8) * 0.125
    clip = Media(frames.astype(np.uint8), times, clip.samples, 3.0, 16_000)
    with av.open(io.BytesIO(film(clip))) as container:
        video, sound = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, sound.codec_context.name) == ("h264", "aac")
        shown = list(container.decode(video))
    assert [frame.time for frame in shown] == pytest.approx([0, *(times[1:] - 3.0)], abs=2e-3)
    for frame, want in zip(shown, frames, strict=True):
        assert np.abs(frame.to_ndarray(format="rgb24") - want.astype(float)).mean() < 12
    with av.open(io.BytesIO(film(clip))) as container:
        heard = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
    assert clip.samples is not None
    found = np.correlate(heard, clip.samples[4000:8000], "valid").argmax()
    assert found == pytest.approx(4000, abs=16)


def test_films_are_alike_and_odd_sizes_fit() -> None:
    clip = media(height=25, width=31)
    assert film(clip) == film(clip)
    with av.open(io.BytesIO(film(clip))) as container:
        assert (container.streams.video[0].height, container.streams.video[0].width) == (24, 30)
        assert len(list(container.decode(video=0))) == 8
    assert poster(clip)[:2] == b"\xff\xd8"
    assert poster(Media(None, None, None, None, 16_000)) == b""
    with pytest.raises(SonantError, match="without pictures and without sound"):
        film(Media(None, None, None, None, 16_000))


def test_sound_alone_plays_and_is_seen_as_its_spectrogram() -> None:
    seconds = np.arange(16_000) / 16_000
    wave = np.where(seconds < 0.5, np.sin(2 * np.pi * 300 * seconds), 0).astype(np.float32)
    clip = Media(None, None, wave, 0.0, 16_000)
    assert film(clip) == film(clip)
    with av.open(io.BytesIO(film(clip))) as container:
        assert not container.streams.video
        heard = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert len(heard) == pytest.approx(16_000, abs=2048)
    assert np.std(heard[2000:6000]) == pytest.approx(np.sqrt(0.5), abs=0.05)
    picture = still(clip)
    assert picture is not None
    grey = np.asarray(picture.convert("L")).astype(float)
    height, width = grey.shape
    bright = grey[2 * height // 3 :, : width // 2].mean()  # low pitch, first half
    assert bright > 1.2 * grey[: height // 3, : width // 2].mean()
    assert bright > 2 * grey[:, width // 2 + 4 :].mean()
    assert poster(clip)[:2] == b"\xff\xd8"
    assert still(Media(None, None, np.zeros(10, np.float32), 0.0, 16_000)) is not None


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of probabilities and clusters."""
    path, clips = tmp_path_factory.mktemp("learnt") / "report.json", table()
    models = {"MC3": features(clips), "untrained": features(clips)}
    save(
        path,
        clips=clips,
        calibration=calibration(models, clips, learn_from="train", resamples=20),
        clusters=clusters(models, clips, number=3, members=2, permutations=5),
    )
    return path


@pytest.mark.slow
def test_probabilities_and_clusters_have_their_places_in_the_page(
    learnt: Path, tmp_path: Path, shelf: None
) -> None:
    text = report(learnt, tmp_path / "page.html", pack="shelf").read_text()
    page = Page(text)
    plots = [attrs["aria-label"] for attrs in page.all("svg") if attrs.get("role") == "img"]
    assert plots == [
        f"Reliability diagram of {name}, and counts by probability" for name in ("MC3", "untrained")
    ]
    shown = [
        one["id"]
        for row in read(learnt)["clusters"]["rows"]
        for cluster in row["clusters"]
        for one in cluster["members"]
    ]
    assert len(page.all("video")) == len(shown)
    assert page.all("img") == []
    for words in ("Brier score", "ECE, equal mass", "by chance", "What is alike", "ward linkage"):
        assert words in text
    Page(report(learnt, tmp_path / "bare.html").read_text())


def test_films_of_clusters_fill_no_more_than_they_may(
    learnt: Path, tmp_path: Path, shelf: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = len(film(media()))
    monkeypatch.setattr(module, "FILM_BYTES", 3 * one)
    page = Page(report(learnt, tmp_path / "page.html", pack="shelf").read_text())
    clusters = [c for row in read(learnt)["clusters"]["rows"] for c in row["clusters"]]
    assert 2 <= len({attrs["src"] for attrs in page.all("video")}) <= 5
    assert len(page.all("img")) + len(page.all("video")) == sum(len(c["members"]) for c in clusters)
    assert all(attrs["alt"] for attrs in page.all("img"))


def test_clips_without_pictures_play_their_sound(
    learnt: Path, tmp_path: Path, shelf: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Media(None, None, media().samples, 3.0, 16_000)
    monkeypatch.setattr(Shelf, "read", lambda shelf, row, *, frames: heard if row % 2 else media())
    page = Page(report(learnt, tmp_path / "page.html", pack="shelf").read_text())
    members = [
        int(one["id"][1:])
        for row in read(learnt)["clusters"]["rows"]
        for cluster in row["clusters"]
        for one in cluster["members"]
    ]
    kinds = [attrs["src"].partition(";")[0] for attrs in page.all("video")]
    assert len(kinds) == len(members)
    assert 0 < sum(row % 2 for row in members) == kinds.count("data:audio/mp4") < len(members)
    assert not page.all("img")
    assert {f"c{row}" for row in members} <= {attrs.get("title") for attrs in page.all("p")}


def test_probabilities_and_clusters_in_the_terminal(learnt: Path) -> None:
    found = read(learnt)
    text = shown(calibration_table(found))
    for words in ("MC3", "untrained", "base rate", "ECE mass", "yes from", "platt of AV raw"):
        assert words in text
    assert f"{found['calibration']['rows'][0]['measures']['brier']['value']:.3f}"[1:] in text
    text = shown(clusters_table(found))
    for words in ("purity", "AMI", "verb", "noun", "MC3", "3 clusters"):
        assert words in text
    for table_, words in ((discovery_table, "discovery"), (retrieval_table, "retrieval")):
        with pytest.raises(TableError, match=f"no {words} in it"):
            table_(found)


def test_a_contact_sheet_shows_the_middle_frames_of_the_clusters(
    learnt: Path, tmp_path: Path
) -> None:
    found = read(learnt)["clusters"]
    shades: list[int] = []

    class Shades(Shelf):
        def read(self, row: int, *, frames: int) -> Media:
            shades.append(20 + 2 * len(shades))
            frame = np.full((1, 24, 40, 3), shades[-1], np.uint8)
            return Media(frame, np.zeros(1), None, None, 16_000)

    pack: Any = Shades(table())
    contact_sheet(found, pack, tmp_path / "a.png", name="untrained")
    row = found["rows"][1]
    assert len(shades) == sum(len(cluster["members"]) for cluster in row["clusters"])
    with Image.open(tmp_path / "a.png") as opened:
        page = np.asarray(opened.convert("RGB"))
    tall = sheet.HEIGHT + sheet.STRIP + sheet.GAP
    assert page.shape[0] == sheet.HEAD + 3 * tall + sheet.GAP
    count = iter(shades)
    for place, cluster in enumerate(row["clusters"]):
        for column, member in enumerate(cluster["members"]):
            y = sheet.HEAD + place * tall
            x = sheet.SIDE + column * (sheet.WIDTH + sheet.GAP)
            picture = page[y : y + sheet.HEIGHT, x : x + sheet.WIDTH]
            assert (picture == next(count)).all()
            bar = page[y + sheet.HEIGHT + 1, x + 1]
            colour = sheet.SOUNDS if member["sounding"] else sheet.SILENT
            assert tuple(bar) == ImageColor.getrgb(colour)
    shades.clear()
    contact_sheet(found, pack, tmp_path / "b.png", name="untrained")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with pytest.raises(UsageError, match="no clusters of 'MC4'; there are those of MC3"):
        contact_sheet(found, pack, tmp_path / "a.png", name="MC4")
    few: Any = Shelf(table().where(np.arange(97) > 95))
    with pytest.raises(SonantError, match="clips are not in this pack"):
        contact_sheet(found, few, tmp_path / "a.png")


def of_run(features: Features, run: str) -> Features:
    return Features(features.table, run, features.data)


def test_a_report_never_holds_two_models_of_one_name(tmp_path: Path) -> None:
    path, clips = tmp_path / "report.json", table()
    first, other = of_run(features(clips), "a@1"), of_run(features(clips), "b@2")
    save(
        path,
        clips=clips,
        discovery=discovery({"MC3": first}, clips, resamples=5),
        clusters=clusters({"beside": first}, clips, number=3, permutations=2),
        examples={"agreeing": []},
        made_from={"discovery": "d", "clusters": "c"},
    )
    save(path, clips=clips, retrieval=retrieval({"beside": first}, clips, resamples=5))
    assert [part for part in module.PARTS if read(path)[part]] == [
        "discovery", "retrieval", "clusters", "examples",
    ]  # fmt: skip
    save(path, clips=clips, retrieval=retrieval({"MC3": other}, clips, resamples=5))
    found = read(path)
    assert [part for part in module.PARTS if found[part]] == ["retrieval", "clusters"]
    assert found["made from"] == {"clusters": "c"}


def test_relabelled_clips_are_others(tmp_path: Path) -> None:
    path, clips = tmp_path / "report.json", table()
    models = {"MC3": features(clips)}
    save(path, clips=clips, retrieval=retrieval(models, clips, resamples=5))
    told = clips.column("sounding").tolist()
    flipped = [None if value is None else not value for value in told]
    relabelled = clips.join(pa.table({"id": clips.column("id").tolist(), "sounding": flipped}))
    assert relabelled.digest() == clips.digest()
    with pytest.raises(UsageError, match="says retrieval of other clips, or of clips"):
        save(path, clips=relabelled, discovery=discovery(models, relabelled, resamples=5))


NAMES = ("$x^$", "a[/b]", "MC3 [no consensus]")


@pytest.mark.slow
def test_any_name_can_be_shown(tmp_path: Path) -> None:
    path, clips = tmp_path / "report.json", table()
    models = dict.fromkeys(NAMES, features(clips))
    save(
        path,
        clips=clips,
        discovery=discovery(models, clips, resamples=2),
        calibration=calibration(models, clips, learn_from="train", resamples=2),
        retrieval=retrieval(models, clips, resamples=2),
        clusters=clusters(models, clips, number=3, permutations=2),
    )
    found = read(path)
    tables = (discovery_table, calibration_table, retrieval_table, clusters_table, concepts_table)
    for made in tables:
        text = shown(made(found))
        assert all(name in text for name in NAMES)
    assert "$x^$</text>" in page_of(path)


def test_curves_of_many_models_are_all_there_and_look_different(folder: Path) -> None:
    found = read(folder / "report.json")["discovery"]
    row, names = found["rows"][0], [f"row {place}" for place in range(26)]
    plot = figures.curves(found | {"rows": [row | {"name": name} for name in names]}, "AV")
    assert all(f">{name}</text>" in plot for name in names)
    looks = [str(look) for look in islice(figures._looks(), 100)]
    assert len(set(looks)) == 100
    assert [looks[place].count("'-'") for place in (5, 6)] == [1, 0]


def test_an_older_report_is_shown_and_one_of_no_clips_refused(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    found = json.loads((folder / "report.json").read_text())
    del found["made by"], found["made from"]
    path.write_text(json.dumps(found))
    assert "an older sonant" in page_of(path)
    assert not module.holds(path, {"discovery": "d"})
    del found["clips"]
    path.write_text(json.dumps(found))
    with pytest.raises(TableError, match="does not say of which clips"):
        read(path)


def test_a_log_may_end_in_the_middle_of_a_line(folder: Path, tmp_path: Path) -> None:
    log, bare, out = (tmp_path / name for name in ("log.jsonl", "report.json", "p.html"))
    save(bare, clips=table())
    whole = (folder / "log.jsonl").read_text()

    def page(text: str) -> str:
        log.write_text(text)
        return report(bare, out, logs={"MC3": log}).read_text()

    assert page(whole + '{"stage": "refi') == page(whole)
    for text, message in (
        ('{}\n{"a"\n{}\n', "at line 2: "),
        ("{}\n{}\n3\n", "at line 3: it is '3'"),
    ):
        with pytest.raises(TableError, match=message):
            page(text)
    (tmp_path / "record.json").write_text('{"recipe": ')
    with pytest.raises(TableError, match=r"record\.json: is no record: "):
        page(whole)


def test_the_page_says_what_the_sound_agrees_with(tmp_path: Path) -> None:
    path, clips = tmp_path / "report.json", table()
    whole = features(clips)
    ids = whole.ids.tolist()
    told = Features.of(ids, {m: whole.matrix(m) for m in ("audio", "text")})
    loud = Features.of(ids, scores={"loudness mean": RNG.normal(size=len(ids))})
    for model, pair, words in (
        (whole, "AV raw", "their picture"),
        (told, "AL raw", "their narration"),
    ):
        shown = examples(agreement(model, clips), clips, loud, score=pair)
        found = discovery({"MC3": model}, clips, resamples=2)
        save(path, clips=clips, discovery=found, examples=shown)
        assert f"most and least with {words} by MC3" in page_of(path)
