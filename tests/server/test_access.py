"""Who gets what: passwords, files that the server may not read, and things in a folder that are no files."""

from __future__ import annotations

import base64
import errno
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import argon2
import bcrypt
import pytest

from tests.server.clients import Client, request
from tests.server.conversation import Conversation
from tests.server.running import Server, Variant, environment
from tests.server.site import SMALL, content

StartServer = Callable[..., Server]


def basic(name: str, password: str) -> str:
    return "Authorization: Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


@pytest.fixture
def auth_file(tmp_path: Path) -> Path:
    """Two users, each with the least work that the hash allows: the strength of hashes is not what is tested here."""
    file = tmp_path / "htpasswd"
    bcrypt_hash = bcrypt.hashpw(b"open sesame", bcrypt.gensalt(4)).decode()
    argon2_hash = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("zupa żółwiowa")
    file.write_text(f"# who may come in\nali:{bcrypt_hash}\nzofia:{argon2_hash}\n")
    return file


def test_a_folder_with_a_password_file_opens_for_those_who_are_in_it(
    start_server: StartServer, variant: Variant, auth_file: Path
) -> None:
    server = start_server(Variant(variant.path, variant.loop, ("--auth-file", str(auth_file))))
    with Conversation(server) as conversation:

        def status(path: str, *fields: str, method: str = "GET") -> int:
            conversation.send(request(path, *fields, method=method))
            answer = conversation.answer(method.encode())
            if answer.status == 401:
                assert answer.fields["www-authenticate"] == 'Basic realm="ktls_server", charset="UTF-8"'
                assert SMALL not in answer.body
            else:
                assert "www-authenticate" not in answer.fields
            return answer.status

        assert status("/small.txt") == 401
        assert status("/small.txt", method="HEAD") == 401
        assert status("/absent") == 401, "what is there is nobody else's business"
        assert status("/folder") == 401
        assert status("/small.txt", basic("ali", "open barley")) == 401
        assert status("/small.txt", basic("baba", "open sesame")) == 401
        assert status("/small.txt", basic("zofia", "open sesame")) == 401
        assert status("/small.txt", "Authorization: Basic ???") == 401
        assert status("/small.txt", "Authorization: Bearer " + "x" * 1000) == 401
        for user in (basic("ali", "open sesame"), basic("zofia", "zupa żółwiowa")):
            assert status("/small.txt", user) == 200
            assert status("/small.txt", user) == 200
            assert status("/absent", user) == 404
        assert status("/small.txt") == 401, "the connection is nobody's"


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user can reach, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_what_the_server_may_not_read_is_forbidden_without_a_reason(
    path: str, public: Path, cache: Path, tmp_path: Path
) -> None:
    (public / "small.txt").write_bytes(SMALL)
    (public / "secret.txt").write_bytes(b"not for this server")
    (public / "closed").mkdir()
    (public / "closed" / "file.txt").write_bytes(b"not for this server")
    (public / "secret.txt").chmod(0)
    (public / "closed").chmod(0)
    # To root, who runs the tests in containers, modes mean nothing.
    user = ("--user", "nobody") if os.geteuid() == 0 else ()
    server = Server(public, tmp_path, Variant(path, "uvloop", ("--listing", *user)), environment(cache))
    try:
        with Client(server) as client:
            for target in ("/secret.txt", "/closed/", "/closed/file.txt"):
                answer = client.get(target)
                assert (answer.status, answer.body) == (403, b"403 Forbidden: This file cannot be read.\n")
            assert client.get("/small.txt").body == SMALL
            names = [entry["name"] for entry in json.loads(client.get("/", "Accept: application/json").body)["entries"]]
            assert names == ["closed", "secret.txt", "small.txt"]
        server.assert_unharmed()
    finally:
        server.stop()
        (public / "closed").chmod(0o755)


def test_what_is_no_file_is_not_found_and_not_opened(server: Server) -> None:
    fifo = server.directory / f"fifo-{os.urandom(8).hex()}"
    os.mkfifo(fifo)
    things = [fifo]
    if os.geteuid() == 0:
        device = server.directory / f"zero-{os.urandom(8).hex()}"
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # as /dev/zero, which never ends
        things.append(device)
    with Client(server) as client:
        for thing in things:
            assert client.get(f"/{thing.name}").status == 404
        assert client.get("/small.txt").body == SMALL
    with pytest.raises(OSError, match=os.strerror(errno.ENXIO)):  # fifo(7): nobody has it open for reading
        os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    for thing in things:
        thing.unlink()


@pytest.mark.parametrize(
    "ranges",
    [
        [(0, 99_999), (300_000, 700_000), (1_032_191, 1_048_575)],
        [(number * 16_384, number * 16_384 + number * 200) for number in range(64)],
        [(number, number) for number in range(1_000_000, 0, -16_000)],
    ],
    ids=["long", "around a record", "bytes"],
)
def test_the_parts_of_a_multipart_answer_are_exact(server: Server, ranges: list[tuple[int, int]]) -> None:
    """Head, file, head, file: what userspace writes and what sendfile writes alternate on one connection."""
    file = content(1 << 20)
    asked = "Range: bytes=" + ",".join(f"{first}-{last}" for first, last in ranges)
    with Client(server) as client:
        for _ in range(2):
            answer = client.get("/1048576.bin", asked)
            assert answer.status == 206
            boundary = answer.headers["content-type"].removeprefix("multipart/byteranges; boundary=").encode()
            parts = [
                b"--%b\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes %d-%d/1048576\r\n\r\n%b\r\n"
                % (boundary, first, last, file[first : last + 1])
                for first, last in ranges
            ]
            assert answer.body == b"".join([*parts, b"--%b--\r\n" % boundary])
        assert client.get("/small.txt").body == SMALL
