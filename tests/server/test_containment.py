"""Nothing outside the folder is ever served, whatever a request's target looks like. Over the real socket, byte by byte."""

from collections.abc import Callable

import pytest

from tests.server.clients import Client
from tests.server.running import Server, Variant

SECRET = b"not to be served"
"""What stands in secret.txt, beside the folder."""

TARGETS = [
    b"/../secret.txt",
    b"/folder/../../secret.txt",
    b"/./../secret.txt",
    b"/..//secret.txt",
    b"../secret.txt",
    b"/%2e%2e/secret.txt",
    b"/.%2e/secret.txt",
    b"/%2E%2E%2Fsecret.txt",
    b"/..%2fsecret.txt",
    b"/folder%2f..%2f..%2fsecret.txt",
    b"/%252e%252e/secret.txt",
    b"/..%5csecret.txt",
    b"/..\\secret.txt",
    b"/%c0%ae%c0%ae/secret.txt",
    b"//secret.txt",
    b"{absolute}",
    b"/{absolute}",
    b"/%2f{absolute}",
    b"https://localhost/../secret.txt",
    b"https://localhost/%2e%2e/secret.txt",
    b"/../secret.txt%00",
    b"/../secret.txt%00.bin",
    b"/small.txt%00/../../secret.txt",
    b"/link-out",
    b"/folder-out/secret.txt",
    b"/folder/../folder-out/secret.txt",
    b"/proc/self/environ",
    b"/folder-out/",
]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.decode("ascii"))
def test_a_target_that_leads_out_is_not_found(servers: Callable[[Variant], Server], path: str, target: bytes) -> None:
    server = servers(Variant(path, "uvloop"))
    secret = server.directory.parent / "secret.txt"
    assert secret.read_bytes() == SECRET
    with Client(server) as client:
        client.send(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % target.replace(b"{absolute}", bytes(secret)))
        answer = client.answer()
    assert answer.status in (400, 403, 404)
    assert SECRET not in answer.body


def test_a_file_inside_is_found_by_the_same_kind_of_target(servers: Callable[[Variant], Server], path: str) -> None:
    """Else the test above would hold for a server that finds nothing at all."""
    with Client(servers(Variant(path, "uvloop"))) as client:
        assert client.get("/%73mall%2etxt").status == 200
