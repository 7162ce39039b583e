"""What the keys are made from is nowhere to be found afterwards: not in a file, not in a log, not in the key log's memory.

The client keeps a key log of its own, so the test knows the secrets to look for.
"""

import os
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.clients import TLS_1_2, TLS_1_3, Client, client_context, request, tcp_connect
from tests.server.running import Server, Variant, environment
from tests.server.site import SMALL


def test_no_file_log_or_descriptor_holds_a_secret(
    path: str, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched, scratch = tmp_path / "watched", tmp_path / "scratch"
    for folder in (watched, watched / "home", watched / "tmp", watched / "cwd", watched / "cache", scratch):
        folder.mkdir()
    monkeypatch.chdir(watched / "cwd")
    places = {"HOME": watched / "home", "TMPDIR": watched / "tmp", "PYTHONPATH": Path(__file__).parents[2]}
    extra = [(name, str(place)) for name, place in places.items()]
    server = Server(site, scratch, Variant(path, "uvloop"), environment(watched / "cache", extra))
    try:
        secrets = secrets_of_some_connections(server, tmp_path / "client-keys")
        in_descriptors = [found for found in open_files(server.pid) if holds(found, secrets)]
    finally:
        server.stop()
    assert len(secrets) >= 6
    assert in_descriptors == []
    written = [file for folder in (watched, scratch, site) for file in folder.rglob("*") if is_small_file(file)]
    assert any(file.name == "access.log" for file in written), "the search looks in the wrong places"
    assert [file for file in written if holds(file, secrets)] == []


def secrets_of_some_connections(server: Server, key_log: Path) -> set[bytes]:
    """Connections good and bad, by a client that writes its secrets down; the secrets, as hexadecimal."""
    for version in (TLS_1_2, TLS_1_3):
        context = client_context(server, version)
        context.keylog_filename = str(key_log)
        with Client(server, context=context) as client:
            assert client.get("/small.txt").body == SMALL
            client.send(request("/absent") + b"nonsense\r\n\r\n")
            assert [client.answer().status for _ in range(2)] == [404, 400]
        with Client(server, context=context) as client:
            client.send(request("/sparse.bin"))
            client.read(100)
    with tcp_connect(server) as sock:
        sock.sendall(b"\x16\x03\x01\x00\x10nonsense and more")
    server.assert_unharmed()
    lines = key_log.read_bytes().splitlines()
    return {line.split()[2] for line in lines if line and not line.startswith(b"#")}


def open_files(pid: int) -> Iterator[Path]:
    """The server's regular files and memory files, by their descriptors."""
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        if is_small_file(entry):
            yield entry


def is_small_file(file: Path) -> bool:
    """Whether a log or a note may stand in it: the files that are served are larger, or older than the connections."""
    return file.is_file() and file.stat().st_size <= 1 << 20


def holds(file: Path, secrets: set[bytes]) -> bool:
    """Whether one of the secrets, in hexadecimal or as bytes, stands in the file."""
    content = file.read_bytes()
    return any(secret in content or bytes.fromhex(secret.decode()) in content for secret in secrets)


def test_the_search_finds_a_secret_where_there_is_one(server: Server, tmp_path: Path) -> None:
    context: ssl.SSLContext = client_context(server, TLS_1_3)
    context.keylog_filename = str(tmp_path / "keys")
    with Client(server, context=context) as client:
        client.get("/small.txt")
    (line,) = [line for line in (tmp_path / "keys").read_bytes().splitlines() if line.startswith(b"SERVER_TRAFFIC")]
    secret = line.split()[2]
    assert holds(tmp_path / "keys", {secret})
    (tmp_path / "raw").write_bytes(os.urandom(100) + bytes.fromhex(secret.decode()))
    assert holds(tmp_path / "raw", {secret})
