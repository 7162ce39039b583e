"""The table of tests/files/cases.py over TLS: each path, all cases of a site on one connection.

That each answer is what the case says proves the connection, too: a byte too many or too few in one answer, and the next
one is not understood.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.files.cases import CASES, SITES, Case, make_folder
from tests.server.conversation import Conversation, HttpAnswer, head_of_request
from tests.server.running import Server, Variant, environment

SiteOf = Callable[[Variant, str], "Site"]


class Site:
    """A server of one of `SITES`, the one connection to it, and what came on that."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._conversation = Conversation(server)
        self._answered: list[tuple[str, int, int]] = []

    def ask(self, target: bytes, method: bytes, fields: dict[str, str]) -> HttpAnswer:
        self._conversation.send(head_of_request(method, target, fields))
        answer = self._conversation.answer(method)
        self._answered.append((method.decode(), answer.status, len(answer.body)))
        return answer

    def end(self) -> None:
        """The server saw and did the same as the client, on the path that it was to take, and keeps nothing open."""
        with self._conversation:
            pass
        self._server.assert_unharmed()
        self._server.stop()
        lines = self._server.log()
        assert [(line["method"], line["status"], line["bytes"]) for line in lines] == self._answered
        assert {line["tx"] for line in lines} == {self._server.variant.path}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("cases"))


@pytest.fixture(scope="module")
def site_of(folder: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SiteOf]:
    """The site of that name on that path and loop; started when it is first asked for."""
    sites: dict[tuple[Variant, str], Site] = {}
    with ExitStack() as stack:

        def site_of(variant: Variant, name: str) -> Site:
            if (variant, name) not in sites:
                root, options = command_line_options(name)
                full = Variant(variant.path, variant.loop, options)
                server = Server(folder / root, tmp_path_factory.mktemp("server"), full, environment(cache))
                sites[variant, name] = Site(server)
                stack.callback(sites[variant, name].end)
            return sites[variant, name]

        yield site_of


def command_line_options(name: str) -> tuple[str, tuple[str, ...]]:
    """The folder within the folder, and the options, that make a site out of `SITES`."""
    options: list[str] = []
    root = ""
    for option, value in SITES[name].items():
        flag = "--" + option.replace("_", "-")
        match option, value:
            case "root", _:
                root = value
            case _, True:
                options.append(flag)
            case _, False:
                options.append(f"--no-{option}")
            case "headers", _:
                for glob, field, text in value:
                    options += ["--header", f"{glob}={field}: {text}"]
            case "cache_control", _:
                for glob, text in value:
                    options += [flag, f"{glob}={text}"]
            case "index", _:
                for file in value:
                    options += [flag, file]
            case _:
                options += [flag, value]
    return root, tuple(options)


PLAIN = {name: case for name, case in CASES.items() if case.site == "plain"}
OTHER = {name: case for name, case in CASES.items() if case.site != "plain"}


@pytest.mark.parametrize("case", PLAIN.values(), ids=PLAIN)
def test_plain_table_over_tls(site_of: SiteOf, variant: Variant, case: Case) -> None:
    check(site_of(variant, case.site), case)


@pytest.mark.parametrize("case", OTHER.values(), ids=OTHER)
def test_other_sites_over_tls(site_of: SiteOf, path: str, case: Case) -> None:
    """What only the site is told of makes no difference to the loop."""
    check(site_of(Variant(path, "uvloop"), case.site), case)


def check(site: Site, case: Case) -> None:
    fields = case.request_fields(lambda fields: site.ask(case.target, b"GET", fields).fields["etag"])
    answer = site.ask(case.target, case.method, fields)
    case.check(answer.status, answer.fields, answer.body)
    assert "connection" not in answer.fields
    assert {"date", "server"} <= answer.fields.keys()
