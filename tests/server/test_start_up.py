"""Starting: what is announced can be used as it stands, and what cannot be is said in one line that tells the cure."""

import os
import shlex
import ssl
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ktls_server.kernel.probe import KernelTls
from tests.server.clients import Client, client_context, curl
from tests.server.conftest import StartServer
from tests.server.running import START_SECONDS, Server, Variant, environment
from tests.server.site import SMALL


def refused(directory: Path, cache: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """A server that is not expected to start: its exit status and output."""
    command = [sys.executable, "-m", "ktls_server", "serve", str(directory), *options]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment(cache), timeout=START_SECONDS
    )


@pytest.fixture
def running(servers: Callable[[Variant], Server]) -> Server:
    """A server: any, as none of what is asked here depends on the path or the loop."""
    return servers(Variant("userspace", "uvloop"))


def assert_one_line(text: str) -> None:
    assert text.startswith("ktls-server: ")
    assert text.count("\n") == 1, text


def test_ktls_require_starts_where_the_kernel_can_and_says_what_to_do_where_not(
    start_server: StartServer, site: Path, cache: Path, kernel_tls: KernelTls
) -> None:
    if kernel_tls.available:
        server = start_server(Variant("kernel", "uvloop", ("--ktls", "require")))
        with Client(server) as client:
            assert client.get("/small.txt").body == SMALL
        assert server.logged("/small.txt")[0]["tx"] == "kernel"
    else:
        done = refused(site, cache, "--port", "0", "--ktls", "require")
        assert (done.returncode, done.stdout) == (1, "")
        assert_one_line(done.stderr)
        assert kernel_tls.reason in done.stderr
        assert kernel_tls.cure in done.stderr


def test_a_port_that_is_taken_is_named_with_a_way_out(running: Server, cache: Path) -> None:
    done = refused(running.directory, cache, "--port", str(running.port))
    assert (done.returncode, done.stdout) == (2, "")
    assert_one_line(done.stderr)
    assert str(running.port) in done.stderr
    assert "--port 0" in done.stderr


@pytest.mark.parametrize(
    ("options", "named"),
    [
        pytest.param(("--cert", "/absent/cert.pem"), "/absent/cert.pem", id="no such certificate"),
        pytest.param(("--cert", "/dev/null"), "/dev/null", id="a certificate file with nothing in it"),
        pytest.param(("--ciphers", "NONSENSE"), "NONSENSE", id="ciphers that OpenSSL does not know"),
        pytest.param(("--host", "203.0.113.1"), "203.0.113.1", id="an address of another machine"),
    ],
)
def test_what_cannot_be_used_is_named(site: Path, tmp_path: Path, options: tuple[str, str], named: str) -> None:
    # A certificate of its own: the running servers would take up the one that is made for another name.
    done = refused(site, tmp_path, "--port", "0", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert_one_line(done.stderr)
    assert named in done.stderr


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, cache: Path) -> None:
    done = refused(tmp_path / "absent", cache, "--port", "0")
    assert (done.returncode, done.stdout) == (2, "")
    assert str(tmp_path / "absent") in done.stderr


def test_port_0_picks_another_free_port_for_each(start_server: StartServer) -> None:
    first, second = (start_server(Variant("userspace", loop)) for loop in ("uvloop", "asyncio"))
    assert first.port != second.port
    for server in (first, second):
        with Client(server) as client:
            assert client.get("/small.txt").body == SMALL


def test_the_announced_command_fetches_the_announced_url(running: Server) -> None:
    command = shlex.split(running.facts["trust"])
    assert command[0] == "curl"
    assert running.facts["url"] in command
    done = subprocess.run([*command, "--silent", "--show-error"], capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert b"<title>Hello</title>" in done.stdout
    assert running.facts["directory"] == str(running.directory)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_the_development_certificate_passes_the_strict_checks_of_python_3_13(running: Server, host: str) -> None:
    context = client_context(running)
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    assert context.check_hostname
    with Client(running, context=context, name=host) as client:
        assert client.get("/small.txt").body == SMALL


def test_the_development_certificate_is_good_for_no_other_name(running: Server) -> None:
    with pytest.raises(ssl.SSLCertVerificationError), Client(running, name="example.org"):
        pass


def test_curl_trusts_the_development_certificate_by_its_addresses(running: Server) -> None:
    for host in ("localhost", "127.0.0.1"):
        assert curl(running, f"https://{host}:{running.port}/small.txt").stdout == SMALL


def test_the_private_key_is_readable_by_its_owner_only(running: Server) -> None:
    key = running.certificate.parent / "key.pem"
    assert stat.S_IMODE(os.stat(key).st_mode) == 0o600
