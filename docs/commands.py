"""Write docs/commands.md from the help of every command, so that it cannot go stale."""

import contextlib
import io
import os
import sys
from pathlib import Path

os.environ.update(COLUMNS="100", NO_COLOR="1", TERM="dumb")

from sonant.cli import COMMANDS, Group, main

PAGE = Path(__file__).with_name("commands.md")


def leaves() -> list[list[str]]:
    """The words of every command."""
    found = []
    for name, command in COMMANDS.items():
        inner = command.commands() if isinstance(command, Group) else {}
        found += [[name, word] for word in inner] or [[name]]
    return found


def help_of(words: list[str]) -> str:
    """What `sonant WORDS --help` prints."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        main([*words, "--help"])
    return "\n".join(line.rstrip() for line in text.getvalue().strip().splitlines())


def page() -> str:
    """The whole page."""
    parts = ["# Commands\n\nWritten by `make docs` from the commands' own help.\n"]
    parts += [f"## sonant {' '.join(words)}\n\n```\n{help_of(words)}\n```\n" for words in leaves()]
    return "\n".join(parts)


if __name__ == "__main__":
    text = page()
    if "--check" in sys.argv:
        sys.exit(0 if PAGE.read_text() == text else f"{PAGE} is stale: run make docs")
    PAGE.write_text(text)
