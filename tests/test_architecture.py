"""Imports point one way, and what evaluates never loads torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sonant

PACKAGE = Path(sonant.__file__).parent
LAYERS = [
    {"errors"},
    {"types", "files", "hub", "processes"},
    {"clips", "features"},
    {"assignments", "media"},
    {"data", "sources", "metrics"},
    {"objectives", "distributed", "encoders"},
    {"cluster"},
    {"methods", "tasks"},
    {"schedule", "checkpoint", "log", "chunks", "validation"},
    {"train", "report"},
    {"embed"},
    {"world_check", "demo", "doctor", "bench", "explain"},
    {"cli"},
    {"__main__"},
]
TORCHLESS = [
    "assignments",
    "clips",
    "features",
    "media.read",
    "media.pack",
    "sources.folder",
    "sources.world",
]
TORCHLESS += [
    "metrics.ranking",
    "tasks.discovery",
    "tasks.retrieval",
    "tasks.trivial",
    "tasks.calibration",
    "tasks.clusters",
    "tasks.recognition",
    "tasks.probe",
    "report.sheet",
    "tasks.annotations",
    "sources.ego4d",
    "sources.audioset",
    "sources.kinetics_sounds",
    "sources.windows",
    "report",
    "cli",
]


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sonant."):
            found.add((node.module or "").split(".")[1])
        if isinstance(node, ast.ImportFrom) and node.module == "sonant":
            found.update(name.name for name in node.names)
    return {
        name for name in found if (PACKAGE / name).exists() or (PACKAGE / f"{name}.py").exists()
    }


def test_every_module_has_a_layer() -> None:
    there = {part(path) for path in PACKAGE.rglob("*.py")} - {"__init__"}
    assert there == set.union(*LAYERS)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_imports_point_down(path: Path) -> None:
    if part(path) == "__init__":
        return
    height = {name: level for level, layer in enumerate(LAYERS) for name in layer}
    above = {
        name for name in imported(path) if height[name] >= height[part(path)] and name != part(path)
    }
    assert not above, f"{path.name} imports {above}, which are not below it"


@pytest.mark.slow
def test_evaluation_does_not_load_torch() -> None:
    modules = "; ".join(f"import sonant.{name}" for name in TORCHLESS)
    code = f"import sys; {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
