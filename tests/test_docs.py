"""What the pages say is there, is there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("tests/data/*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", page.read_text())
    dead = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not dead


def test_the_page_of_commands_is_what_the_commands_say() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "commands.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_equations_page_names_what_there_is() -> None:
    text = (ROOT / "docs" / "mc3.md").read_text()
    for name in re.findall(r"`((?:objectives|methods|sources|tasks)\.[a-z0-9_.A-Z]+)`", text):
        parts = name.split(".")
        files = [ROOT / "src/sonant" / "/".join(parts[:n]) for n in range(1, len(parts) + 1)]
        module = next((f for f in reversed(files) if f.with_suffix(".py").is_file()), None)
        assert module is not None, f"{name} is in no module"
        rest = parts[len(module.relative_to(ROOT / "src/sonant").parts) :]
        source = module.with_suffix(".py").read_text()
        for part in rest:
            assert re.search(rf"(def|class) {part}\b", source), f"{name}: no {part}"
