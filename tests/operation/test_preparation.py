"""What is made once: the limit on descriptors, the password file, the served folder that is opened again."""

from __future__ import annotations

import logging
import resource
from pathlib import Path

import pytest

from ktls_server.operation import preparation
from ktls_server.operation.preparation import SPARE_DESCRIPTORS, open_site, reopen_site
from ktls_server.semantics.messages import Request, Response
from ktls_server.settings import Settings


@pytest.fixture
def hard_limit(monkeypatch: pytest.MonkeyPatch) -> int:
    """A process that may have 264 descriptors, whatever it asks for."""
    limits = [100, 200 + SPARE_DESCRIPTORS]

    def setrlimit(_what: int, wanted: tuple[int, int]) -> None:
        assert wanted[0] <= limits[1]
        limits[0] = wanted[0]

    monkeypatch.setattr(resource, "getrlimit", lambda _what: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    return limits[1]


def test_each_connection_may_need_two_descriptors(hard_limit: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    preparation._raise_descriptor_limit(Settings(max_connections=100))
    assert caplog.messages == []
    preparation._raise_descriptor_limit(Settings(max_connections=101))
    (message,) = caplog.messages
    assert f"the limit of {hard_limit} open files is enough for 100 downloads at one time" in message
    assert f"raise LimitNOFILE= or ulimit -n to {202 + SPARE_DESCRIPTORS}" in message
    assert message.endswith("lower --max-connections to 100")
    assert caplog.records[-1].levelno == logging.DEBUG, "all connections fit, if not all of them send a file"
    preparation._raise_descriptor_limit(Settings(max_connections=201))
    assert caplog.records[-1].levelno == logging.WARNING


def body_of(response: Response) -> bytes:
    assert response.status == 200
    (part,) = response.body
    assert isinstance(part, bytes)
    return part


def test_the_folder_behind_a_link_is_opened_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.html").write_text(name)
    current = tmp_path / "current"
    current.symlink_to("old")
    settings = Settings(directory=current)
    request = Request(b"GET", b"/", b"1.1", [(b"host", b"localhost")])
    site = open_site(settings)
    assert body_of(site.respond(request)) == b"old"
    current.unlink()
    assert reopen_site(settings, site) is site
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "the served folder stays as it was" in record.getMessage()
    assert str(current) in record.getMessage()
    assert body_of(site.respond(request)) == b"old"
    current.symlink_to("new")
    reopened = reopen_site(settings, site)
    assert body_of(reopened.respond(request)) == b"new"
    reopened.close()
