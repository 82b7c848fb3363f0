"""Errors for people: the message says what was wrong, where, and what would be right."""

from math import inf


class SonantError(Exception):
    """The work failed for a reason outside the program; the command exits with 1."""

    exit_code = 1


class UsageError(SonantError, ValueError):
    """The request itself was wrong; the command exits with 2."""

    exit_code = 2


def at_least(minimum: float, **values: float) -> None:
    """Refuse values below a minimum, by name."""
    for name, value in values.items():
        if not value >= minimum:
            raise UsageError(f"{name} must be at least {minimum}, not {value}")


def above_zero(**values: float) -> None:
    """Refuse values that are not positive or not finite, by name."""
    for name, value in values.items():
        if not value > 0:
            raise UsageError(f"{name} must be above 0, not {value}")
        if value == inf:
            raise UsageError(f"{name} must be finite, not {value}")


class TableError(UsageError):
    """A table lacks columns, holds impossible values, or belongs to another schema version."""


class MediaError(SonantError):
    """A span of a media file could not be read.

    Args:
        path: the file.
        reason: what was wrong, in words fit for a quarantine column.
        time: where in the file, in seconds on its presentation clock, if known.
    """

    def __init__(self, path: object, reason: str, time: float | None = None) -> None:
        self.path, self.reason, self.time = str(path), reason, time
        where = "" if time is None else f" at {time:.3f} s"
        super().__init__(f"{path}{where}: {reason}")

    def __reduce__(self) -> tuple[type["MediaError"], tuple[str, str, float | None]]:
        """Cross process boundaries with all three parts."""
        return MediaError, (self.path, self.reason, self.time)
