"""docs/architecture.md against the code: who may import whom, who knows asyncio, and that no module is left out."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import ktls_server

PACKAGE = Path(ktls_server.__file__).parent
DOCUMENT = PACKAGE.parent / "docs" / "architecture.md"

LEAVES = {"keys", "semantics", "certificates", "passwords", "net", "processors", "counters"}

MAY_IMPORT = {
    **{leaf: set[str]() for leaf in LEAVES},
    "errors": set[str](),
    "kernel": {"keys"},
    "files": {"semantics"},
    "settings": {"processors"},
    "accesslog": {"semantics"},
    "access": {"passwords"},
    "handshake": {"keys", "settings", "net"},
    "transport": {"kernel", "keys", "handshake", "net"},
    "exchange": {"accesslog", "counters", "net", "semantics", "settings", "transport"},
    "http1": {"exchange", "net", "semantics", "transport"},
    "http2": {"exchange", "net", "semantics", "transport"},
    "handlers": {"access", "accesslog", "exchange", "files", "net", "semantics"},
    "beginning": {"accesslog", "counters", "exchange", "handshake", "keys", "net", "transport"},
    "connection": {"accesslog", "exchange", "net", "transport"},
}
BELOW_OPERATION = set(MAY_IMPORT)
MAY_IMPORT |= {
    "operation": BELOW_OPERATION,
    "server": {"operation", "settings"},
    "acceptor": {"net", "handshake", "transport", "kernel", "keys", "settings"},
    "bench": BELOW_OPERATION | {"operation", "server", "acceptor"},
    "cli": BELOW_OPERATION | {"operation", "server", "acceptor", "bench"},
    "__main__": {"cli"},
}
KNOW_ASYNCIO = {"net", "access", "http1", "http2", "connection", "operation", "server", "acceptor", "bench"}
PURE = {
    module
    for package in ("http1", "http2", "semantics")
    for module in (PACKAGE / package).glob("*.py")
    if module.name != "conversation.py"
}


def _modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def _part_of(module: Path) -> str:
    """The package or top module that it belongs to."""
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(module: Path) -> Iterator[str]:
    """Absolute names of what it imports, wherever in it."""
    package = ["ktls_server", *module.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base += [node.module] if node.module else []
            yield from (".".join([*base, name.name]) for name in node.names)


@pytest.mark.parametrize("module", _modules(), ids=lambda module: str(module.relative_to(PACKAGE)))
def test_a_module_imports_only_what_its_package_may(module: Path) -> None:
    part = _part_of(module)
    if part == "__init__":
        return
    allowed = MAY_IMPORT[part] | {part, "errors", "__version__"}
    imported = {name.split(".")[1] for name in _imports(module) if name.startswith("ktls_server.")}
    assert imported <= allowed


def test_inside_the_package_imports_are_relative() -> None:
    absolute = re.compile(r"^\s*(from|import) ktls_server\b", re.MULTILINE)
    assert [module for module in _modules() if absolute.search(module.read_text(encoding="utf-8"))] == []


def test_only_those_that_wait_know_asyncio() -> None:
    assert {_part_of(module) for module in _modules() if "asyncio" in _imports(module)} == KNOW_ASYNCIO


@pytest.mark.parametrize("module", sorted(PURE), ids=lambda module: str(module.relative_to(PACKAGE)))
def test_of_a_version_of_http_only_the_conversation_waits(module: Path) -> None:
    assert "asyncio" not in _imports(module)
    above = {"net", "transport", "exchange", "connection"}
    assert not {name.split(".")[1] for name in _imports(module) if name.startswith("ktls_server.")} & above


def test_the_document_has_the_same_import_rules() -> None:
    section = DOCUMENT.read_text(encoding="utf-8").partition("## Who may import whom")[2].partition("\n## ")[0]
    documented: dict[str, tuple[set[str], str]] = {}
    for names, allowed, asyncio in re.findall(r"^\| (`.*?) \| (.*?) \| (yes|no) \|$", section, re.MULTILINE):
        for name in re.findall(r"`(\w+)`", names):
            documented[name] = (set(re.findall(r"`(\w+)`", allowed)), asyncio)
    in_words = {"operation", "bench", "cli"}  # "all of the above" and the like
    assert {name: allowed for name, (allowed, _) in documented.items() if name not in in_words} == {
        name: allowed for name, allowed in MAY_IMPORT.items() if name not in in_words | {"errors", "__main__"}
    }
    assert {name for name, (_, asyncio) in documented.items() if asyncio == "yes"} == KNOW_ASYNCIO


def test_the_document_names_every_module() -> None:
    section = DOCUMENT.read_text(encoding="utf-8").partition("## Modules")[2].partition("\n## ")[0]
    documented = re.findall(r"`([\w/]+\.py)`", section)
    modules = {str(module.relative_to(PACKAGE)) for module in _modules()}
    assert set(documented) == {name for name in modules if not name.endswith("__init__.py")}
