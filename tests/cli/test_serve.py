"""`ktls-server serve`: from arguments to the server, and what it announces."""

from __future__ import annotations

import ipaddress
import os
import pty
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ktls_server.certificates import CertificatePair
from ktls_server.cli.addresses import own_addresses
from ktls_server.cli.announcement import announce, startup_facts
from ktls_server.errors import ConfigurationError
from ktls_server.settings import BoundServer, Settings
from tests.cli.conftest import Command
from tests.test_certificates import foreign_pair

BOUND = BoundServer(("https://127.0.0.1:40123/",), "kernel TLS: AES-128-GCM, AES-256-GCM, ChaCha20")


@dataclass
class FakeServer:
    """Stands for the server: keeps the settings it was started with, and announces at once."""

    started: list[Settings] = field(default_factory=list)

    def run(self, settings: Settings, announce: Callable[[BoundServer], None]) -> None:
        self.started.append(settings)
        announce(BOUND)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    fake = FakeServer()
    monkeypatch.setattr("ktls_server.server.run", fake.run)
    return fake


def test_arguments_environment_and_file_reach_the_server(
    command: Command, server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "server.toml").write_text("http_port = 8080\nlisting = true\nspa = true\n")
    monkeypatch.setenv("KTLS_SERVER_CONFIG", str(tmp_path / "server.toml"))
    monkeypatch.setenv("KTLS_SERVER_WORKERS", "2")
    outcome = command("serve", tmp_path, "--port", "0", "--index", "a.html", "--index", "b.html", "--no-spa")
    assert outcome.status == 0, outcome.err
    (settings,) = server.started
    assert (settings.directory, settings.port, settings.http_port, settings.workers) == (tmp_path, 0, 8080, 2)
    assert (settings.listing, settings.spa, settings.index) == (True, False, ("a.html", "b.html"))


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("http_port: cannot listen on ::1 port 80: why", "--http-port: cannot listen on ::1 port 80: why"),
        ("directory: 'x': why", "DIRECTORY: 'x': why"),
        ("--ktls require: why", "--ktls require: why"),
        ("nothing: of ours", "nothing: of ours"),
    ],
)
def test_what_the_server_refuses_is_told_by_the_options_own_name(
    command: Command, monkeypatch: pytest.MonkeyPatch, said: str, shown: str
) -> None:
    def refuse(*arguments: object) -> None:
        raise ConfigurationError(said)

    monkeypatch.setattr("ktls_server.server.run", refuse)
    outcome = command("serve", "--cert", "/dev/null")
    assert (outcome.status, outcome.err) == (2, f"ktls-server: {shown}\n")


def test_the_current_folder_is_served_by_default(command: Command, server: FakeServer) -> None:
    assert command("serve").status == 0
    assert server.started[0].directory == Path(".")


def test_a_wrong_option_is_answered_before_anything_starts(command: Command, server: FakeServer) -> None:
    outcome = command("serve", "--port", "http")
    assert outcome.status == 2
    assert outcome.err == (
        "ktls-server: --port (command line): 'http' is not accepted; it takes a whole number from 0 to 65535\n"
    )
    assert server.started == []


def test_without_a_certificate_one_is_made_in_the_cache_folder(command: Command, server: FakeServer) -> None:
    outcome = command("serve")
    folder = Path(os.environ["XDG_CACHE_HOME"], "ktls-server")
    (settings,) = server.started
    assert (settings.cert, settings.key) == ((folder / "cert.pem",), (folder / "key.pem",))
    assert f"trust: curl --cacert {folder / 'cert.pem'} https://127.0.0.1:40123/\n" in outcome.out
    assert settings.key[0].stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("host", "names"), [("0.0.0.0", ()), ("::", ()), ("192.0.2.7", ("192.0.2.7",)), ("one.test", ("one.test",))]
)
def test_the_certificate_is_for_the_host_too_unless_that_stands_for_all(
    command: Command, server: FakeServer, monkeypatch: pytest.MonkeyPatch, host: str, names: tuple[str, ...]
) -> None:
    asked: list[object] = []

    def development_certificate(folder: Path, names: tuple[str, ...], authority: object) -> CertificatePair:
        asked.append(names)
        return CertificatePair(folder / "cert.pem", folder / "key.pem")

    monkeypatch.setattr("ktls_server.certificates.development_certificate", development_certificate)
    assert command("serve", "--host", host).status == 0
    assert asked == [names]


def test_a_certificate_for_another_host_leaves_that_for_localhost_as_it_is(
    command: Command, server: FakeServer
) -> None:
    for host in ("127.0.0.1", "192.0.2.7", "one.test", "localhost", "192.0.2.7"):
        command("serve", "--host", host)
    outcome = command("serve", "--host", "../one.test")
    assert outcome.status == 2
    assert "'../one.test' is neither a host name nor an address" in outcome.err
    folder = Path(os.environ["XDG_CACHE_HOME"], "ktls-server")
    folders = [settings.cert[0].parent for settings in server.started]
    assert folders == [folder, folder / "192.0.2.7", folder / "one.test", folder, folder / "192.0.2.7"]
    assert len({settings.cert[0].read_bytes() for settings in server.started}) == 3
    assert all(each.stat().st_mode & 0o777 == 0o700 for each in folders)


def test_with_a_certificate_none_is_made(command: Command, server: FakeServer) -> None:
    outcome = command("serve", "--cert", "/dev/null")
    assert "certificate: /dev/null\n" in outcome.out
    assert "trust:" not in outcome.out
    assert os.listdir(os.environ["XDG_CACHE_HOME"]) == []


@pytest.mark.parametrize(("days", "complaints"), [(-1, 1), (1, 0)])
def test_a_certificate_that_has_ended_is_logged_at_the_start(
    command: Command,
    server: FakeServer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    days: int,
    complaints: int,
) -> None:
    foreign_pair(tmp_path, days=days)
    assert command("serve", "--cert", tmp_path / "cert.pem", "--key", tmp_path / "key.pem").status == 0
    said = [record.getMessage() for record in caplog.records if "was valid until" in record.getMessage()]
    assert len(said) == complaints
    assert all(str(tmp_path / "cert.pem") in message for message in said)


def test_the_made_key_is_never_put_where_it_would_be_served(
    command: Command, server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    outcome = command("serve", tmp_path)
    assert outcome.status == 2
    assert "lies in the folder that is served" in outcome.err
    assert list(tmp_path.iterdir()) == []

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))
    assert command("serve", tmp_path).status == 0
    assert command("serve", tmp_path, "--hidden-files").status == 2


# The announcement


def test_in_a_pipe_the_announcement_is_one_key_and_value_a_line(
    command: Command, server: FakeServer, tmp_path: Path
) -> None:
    (tmp_path / "index.html").touch()
    outcome = command("serve", tmp_path, "--cert", "/dev/null")
    assert outcome.out == (
        "url: https://127.0.0.1:40123/\n"
        f"directory: {tmp_path}\n"
        "tls: kernel TLS: AES-128-GCM, AES-256-GCM, ChaCha20\n"
        "certificate: /dev/null\n"
    )
    assert outcome.err == ""


def test_with_a_json_access_log_standard_output_is_left_to_json(command: Command, server: FakeServer) -> None:
    outcome = command("serve", "--cert", "/dev/null", "--access-log", "json")
    assert outcome.out == ""
    assert outcome.err.startswith("url: https://127.0.0.1:40123/\n")


def test_every_url_is_named_and_the_trust_line_can_be_pasted() -> None:
    bound = BoundServer(("https://127.0.0.1:1/", "https://[::1]:1/"), "userspace: why")
    facts = startup_facts(Settings(), bound, Path("/home/ann/my cache/cert.pem"))
    assert [value for key, value in facts if key == "url"] == list(bound.urls)
    assert dict(facts)["trust"] == "curl --cacert '/home/ann/my cache/cert.pem' https://127.0.0.1:1/"


@pytest.mark.parametrize("address", ["0.0.0.0", "[::]"])
def test_all_addresses_are_trusted_by_the_name_that_the_certificate_has(address: str) -> None:
    facts = startup_facts(Settings(), BoundServer((f"https://{address}:1/",), "userspace: why"), Path("cert.pem"))
    assert dict(facts)["trust"] == "curl --cacert cert.pem https://localhost:1/"


@pytest.mark.parametrize(
    ("address", "families"), [("0.0.0.0", [socket.AF_INET]), ("[::]", [socket.AF_INET, socket.AF_INET6])]
)
def test_all_addresses_are_announced_as_those_that_this_machine_has(
    monkeypatch: pytest.MonkeyPatch, address: str, families: list[socket.AddressFamily]
) -> None:
    asked: list[socket.AddressFamily] = []

    def addresses(family: socket.AddressFamily) -> list[str]:
        asked.append(family)
        return ["192.0.2.7", "198.51.100.1"] if family == socket.AF_INET else ["2001:db8::7"]

    monkeypatch.setattr("ktls_server.cli.announcement.own_addresses", addresses)
    bound = BoundServer((f"https://{address}:8443/",), "userspace: why", (f"http://{address}:80/",))
    facts = startup_facts(Settings(), bound, Path("cert.pem"))
    urls = [value for key, value in facts if key == "url"]
    assert asked[: len(families)] == families
    assert urls[:3] == ["https://localhost:8443/", "https://192.0.2.7:8443/", "https://198.51.100.1:8443/"]
    assert urls[3:] == (["https://[2001:db8::7]:8443/"] if len(families) == 2 else [])
    assert ("redirect", "http://localhost:80/") in facts
    assert not any("0.0.0.0" in value or "[::]" in value for _, value in facts)
    assert any(key == "note" and "--host ADDRESS" in value for key, value in facts)


def test_the_addresses_of_this_machine_are_its_own() -> None:
    for family in (socket.AF_INET, socket.AF_INET6):
        for address in own_addresses(family):
            assert not ipaddress.ip_address(address).is_loopback
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.bind((address, 0))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, True),
        ({"listing": True}, False),
        ({"index": ("home.html",)}, False),
        ({"index": ("other.html", "home.html")}, False),
        ({"spa": True}, True),
    ],
)
def test_a_folder_that_shows_nothing_is_announced_with_the_option_that_lists_it(
    tmp_path: Path, settings: dict[str, object], said: bool
) -> None:
    (tmp_path / "home.html").touch()
    facts = startup_facts(Settings(directory=tmp_path, **settings), BOUND, None)  # type: ignore[arg-type]
    assert any("--listing" in value for key, value in facts if key == "note") is said


def shown_in_a_terminal(monkeypatch: pytest.MonkeyPatch, settings: Settings, certificate: Path) -> str:
    controller, terminal = pty.openpty()
    with open(terminal, "w", encoding="utf-8") as stream:
        monkeypatch.setattr("sys.stdout", stream)
        announce(settings, BOUND, certificate)
        shown = b""
        # The kernel passes on what was written in pieces; the last line is that about stopping.
        while not re.search(rb"stop\b.*\n", shown):
            shown += os.read(controller, 65536)
    os.close(controller)
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode())


def test_in_a_terminal_it_is_a_table_that_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    words = shown_in_a_terminal(monkeypatch, Settings(), Path("/cache/cert.pem")).split()
    assert {"url", "https://127.0.0.1:40123/", "AES-128-GCM,", "/cache/cert.pem"} <= set(words)


def test_a_narrow_terminal_leaves_what_is_to_be_copied_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    certificate = Path("/home/somebody/with a rather long name/.cache/ktls-server/cert.pem")
    shown = shown_in_a_terminal(monkeypatch, Settings(), certificate)
    assert f"curl --cacert '{certificate}' https://127.0.0.1:40123/\r\n" in shown


def test_a_terminal_is_told_how_to_stop_and_how_to_stop_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "30 seconds to finish, Ctrl-C again ends them at once" in shown_in_a_terminal(
        monkeypatch, Settings(), Path("cert.pem")
    )
    assert "again" not in shown_in_a_terminal(monkeypatch, Settings(grace=0.0), Path("cert.pem"))


def test_a_terminal_is_told_how_browsers_stop_warning(command: Command, tmp_path: Path) -> None:
    from ktls_server.certificates import authority_in, development_certificate, make_authority
    from ktls_server.cli.announcement import _browsers

    # The fixture has set the folders that the authority and the certificate are kept in.
    assert _browsers(None) == []
    pair = development_certificate()
    assert _browsers(pair.cert) == [
        ("browsers", "they warn; ktls-server trust, once, and those of this machine do not")
    ]
    make_authority()
    own = development_certificate(None, ["files.test"], authority_in())
    ((_, said),) = _browsers(own.cert)
    assert said == "your authority may not sign for files.test, so browsers warn; ktls-server trust --name files.test"
    make_authority(names=["files.test"])
    assert _browsers(development_certificate(None, (), authority_in()).cert) == []
