"""What an option accepts: a reader from text or a TOML value to the value that `Settings` holds.

`read` takes what it returns, too (reading twice changes nothing), so the same method checks a `Settings` that was made
in Python. It raises ValueError; a message in it adds to what `accepts` says.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from ..processors import usable_processors
from .rule_values import CacheRule, HeaderRule, field_value

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_LARGEST = 2**63 - 1
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?")


class NotAccepted(ValueError):
    """One of several values is not accepted: `part`, as it was written."""

    def __init__(self, part: object, detail: str) -> None:
        super().__init__(detail)
        self.part = part


class Kind(ABC):
    """How one value is read. `metavar` stands for it in `--help`, `accepts` in error messages and the reference."""

    metavar: str
    accepts: str
    choices: tuple[str, ...] = ()
    is_path = False
    is_flag = False
    repeatable = False

    @abstractmethod
    def read(self, raw: object) -> object:
        """The value, from text, a TOML value, or itself. Raises ValueError."""

    def relative_to(self, value: object, folder: Path) -> object:
        """The value as meant by a configuration file in `folder`: only paths differ."""
        return value


class Text(Kind):
    """Text that `check` lets through; it returns the text to keep, or raises ValueError."""

    def __init__(self, metavar: str, accepts: str, check: Callable[[str], str] = str) -> None:
        self.metavar = metavar
        self.accepts = accepts
        self._check = check

    def read(self, raw: object) -> str:
        if not isinstance(raw, str) or not raw.isprintable() or not raw.strip():
            raise ValueError
        return self._check(raw)


class Choice(Kind):
    """One word of a few."""

    def __init__(self, *choices: str) -> None:
        self.choices = choices
        self.metavar = "|".join(choices)
        self.accepts = "one of " + ", ".join(choices)

    def read(self, raw: object) -> str:
        if not isinstance(raw, str) or raw not in self.choices:
            raise ValueError
        return raw


class Flag(Kind):
    """Yes or no."""

    metavar = ""
    accepts = "true or false"
    is_flag = True

    def read(self, raw: object) -> bool:
        if isinstance(raw, bool):
            return raw
        if isinstance(raw, str) and raw.lower() in _TRUE | _FALSE:
            return raw.lower() in _TRUE
        raise ValueError


class Integer(Kind):
    """A whole number within bounds."""

    def __init__(self, minimum: int, maximum: int = _LARGEST, *, metavar: str = "N", unit: str = "") -> None:
        self.minimum = minimum
        self.maximum = maximum
        self.metavar = metavar
        bounds = f"from {minimum}" if maximum == _LARGEST else f"from {minimum} to {maximum}"
        self.accepts = f"a whole number {bounds}" + (f", in {unit}" if unit else "")

    def read(self, raw: object) -> int:
        if isinstance(raw, bool) or not isinstance(raw, int | str):
            raise ValueError
        value = int(raw)
        if not self.minimum <= value <= self.maximum:
            raise ValueError
        return value


class Workers(Integer):
    """A number of processes, or `auto`: one for each processor that this process may run on."""

    def __init__(self) -> None:
        super().__init__(1, 1024)
        self.metavar = "N|auto"
        self.accepts += ", or auto"

    def read(self, raw: object) -> int:
        return usable_processors() if raw == "auto" else super().read(raw)


class Seconds(Kind):
    """A time in seconds, fractions allowed."""

    metavar = "SECONDS"

    def __init__(self, minimum: float, maximum: float) -> None:
        self.minimum = minimum
        self.maximum = maximum
        self.accepts = f"seconds from {minimum:g} to {maximum:g}"

    def read(self, raw: object) -> float:
        if isinstance(raw, bool) or not isinstance(raw, int | float | str):
            raise ValueError
        value = float(raw)
        if not self.minimum <= value <= self.maximum:
            raise ValueError
        return value


class FilePath(Kind):
    """A path; whether the file is there is looked at when all options are known."""

    is_path = True

    def __init__(self, metavar: str = "FILE") -> None:
        self.metavar = metavar
        self.accepts = "a path"

    def read(self, raw: object) -> Path:
        if not isinstance(raw, str | Path) or not str(raw) or "\0" in str(raw):
            raise ValueError
        return Path(raw).expanduser()

    def relative_to(self, value: object, folder: Path) -> object:
        assert isinstance(value, Path)
        return folder / value


class Ruled(Kind):
    """A rule with a glob, see rule_values.py."""

    def __init__(self, rule: type[CacheRule | HeaderRule], metavar: str) -> None:
        self.metavar = metavar
        self.accepts = metavar
        self._rule = rule

    def read(self, raw: object) -> CacheRule | HeaderRule:
        if isinstance(raw, self._rule):
            return raw
        if not isinstance(raw, str):
            raise ValueError
        return self._rule.parse(raw)


class Several(Kind):
    """Values of one kind: the option may be repeated; an array in TOML; one on each line in an environment variable."""

    repeatable = True

    def __init__(self, each: Kind, *, at_most: int = 1000) -> None:
        self.each = each
        self.metavar = each.metavar
        self.accepts = each.accepts
        self.is_path = each.is_path
        self._at_most = at_most

    def read(self, raw: object) -> tuple[object, ...]:
        parts: object = raw.splitlines() if isinstance(raw, str) else raw
        if not isinstance(parts, list | tuple) or len(parts) > self._at_most:
            raise ValueError
        return tuple(self._read(part) for part in parts)

    def _read(self, part: object) -> object:
        try:
            return self.each.read(part)
        except ValueError as error:
            raise NotAccepted(part, str(error)) from None

    def relative_to(self, value: object, folder: Path) -> object:
        assert isinstance(value, tuple)
        return tuple(self.each.relative_to(part, folder) for part in value)


def _file_name(text: str) -> str:
    if "/" in text or text in (".", ".."):
        raise ValueError("a name, not a path")
    return text


def _origin(text: str) -> str:
    """As the Fetch standard serializes an origin: lower case, no path. `null` is one, too, and means nobody in particular."""
    if text not in ("*", "null") and not _ORIGIN.fullmatch(text):
        raise ValueError("an origin has a scheme, a host, perhaps a port, and no path: https://example.org")
    return text


FLAG = Flag()
FILE_NAME = Text("NAME", "a file name", _file_name)
PORT = Integer(1, 65535, metavar="PORT")
# 0 asks the kernel for a free port.
LISTENING_PORT = Integer(0, 65535, metavar="PORT")
ORIGIN = Text("ORIGIN", "* or one origin, like https://example.org", _origin)
HEADER_VALUE = Text("VALUE", "a header value: visible ASCII, without line breaks", field_value)
