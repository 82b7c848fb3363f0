"""What `sonant demo` does, as the commands that a person would type."""

from __future__ import annotations

from pathlib import Path

HEADS = {"audio": ["audio"], "video": ["video"], "audio and video": ["audio", "video"]}
"""The supervised rows: name to what they may look at."""


def commands(out: Path, *, videos: int, seed: int) -> list[list[str]]:
    """Every command from an empty folder to report.html, as words after `sonant`."""
    world, clips, pack = out / "world", out / "clips.parquet", out / "pack"
    runs = {name: out / "runs" / name.replace(" ", "-") for name in ("MC3", "untrained", *HEADS)}
    chance = ["--seed", str(seed)]
    untrained = ["--align-epochs", "0", "--refine-epochs", "0"]
    steps = [
        ["world", world, "--videos", str(videos), *chance],
        ["index", "world", world, "--out", clips],
        ["pack", clips, pack],
        ["train", "mc3-small", pack, runs["MC3"], *chance],
        ["train", "mc3-small", pack, runs["untrained"], *untrained, *chance],
    ]
    for name, modalities in HEADS.items():
        head = ["train", "supervised-small", pack, runs[name], "--modalities", *modalities]
        steps.append([*head, *chance])
    made = {name: run / "features.parquet" for name, run in runs.items()}
    steps += [["embed", runs[name], pack, made[name]] for name in runs]
    models = [f"{name}={made[name]}" for name in ("MC3", "untrained")]
    heads = [f"supervised, {name}={made[name]}" for name in HEADS]
    found = out / "report.json"
    features, log = ["--features", *models], runs["MC3"] / "log.jsonl"
    rows = [*features, "--baselines", *heads, "--trivial"]
    steps += [
        ["score", "discovery", pack, *rows, "--out", found],
        ["score", "retrieval", pack, *features, "--out", found],
        ["report", found, out / "report.html", "--pack", pack, "--logs", f"MC3={log}"],
    ]
    return [[str(word) for word in step] for step in steps]
