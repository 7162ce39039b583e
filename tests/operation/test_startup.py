"""What happens around the start: sockets and news from systemd, another user, the redirect, the numbers."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.operation.running import Place, Running, fetch, metric, running, scrape
from tests.waiting import WAIT_SECONDS, eventually

AS_SYSTEMD = (
    sys.executable,
    "-c",
    "import fcntl, os, sys\n"
    "given = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 100) for number in sys.argv[1].split(',')]\n"
    "for place, descriptor in enumerate(given):\n"
    "    os.dup2(descriptor, 3 + place, inheritable=True)\n"
    "os.environ['LISTEN_PID'] = str(os.getpid())\n"
    "os.execv(sys.argv[2], sys.argv[2:])\n",
)
"""Puts the descriptors where sd_listen_fds(3) says, and becomes the server."""


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_sockets_handed_over_by_systemd_are_used_by_their_names(place: Place, workers: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as https, socket.create_server(("127.0.0.1", 0)) as http:
        given = f"{https.fileno()},{http.fileno()}"
        with running(
            place,
            *("--workers", workers),
            prefix=(*AS_SYSTEMD, given),
            environment={"LISTEN_FDS": "2", "LISTEN_FDNAMES": "web:http"},
            pass_fds=(https.fileno(), http.fileno()),
            port=None,
        ) as server:
            assert server.port == https.getsockname()[1]
            assert server.redirect_port == http.getsockname()[1]
            assert await fetch(server) == b"hello"
            server.stop()
        # The sockets are systemd's: a client that comes while nobody serves waits for the next server.
        socket.create_connection(https.getsockname()).close()


def test_a_handed_over_socket_that_does_not_listen_is_refused(place: Place) -> None:
    with socket.socket() as idle:
        command = [*AS_SYSTEMD, str(idle.fileno()), sys.executable, "-m", "ktls_server", "serve", str(place.site)]
        done = subprocess.run(
            [*command, "--cert", str(place.certificate), "--key", str(place.key)],
            env={**os.environ, "LISTEN_FDS": "1"},
            pass_fds=(idle.fileno(),),
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert "no listening TCP socket" in done.stderr


@pytest.mark.parametrize(("workers", "abstract"), [("1", False), ("2", True)])
def test_systemd_is_told_of_start_reload_and_stop(place: Place, tmp_path: Path, workers: str, abstract: bool) -> None:
    name = f"\0ktls_server test {os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(30)
        manager.bind(name)
        environment = {"NOTIFY_SOCKET": name.replace("\0", "@")}
        with running(place, "--workers", workers, environment=environment) as server:
            assert manager.recv(1000) == b"READY=1"
            server.signal(signal.SIGHUP)
            reloading = manager.recv(1000).splitlines()
            assert reloading[0] == b"RELOADING=1"
            assert reloading[1].removeprefix(b"MONOTONIC_USEC=").isdigit()
            assert manager.recv(1000) == b"READY=1"
            server.signal(signal.SIGTERM)
            assert manager.recv(1000) == b"STOPPING=1"
            assert server.wait() == 0
            manager.setblocking(False)
            with pytest.raises(BlockingIOError):
                manager.recv(1000)


def status_of(pid: int) -> dict[str, str]:
    """The fields of proc_pid_status(5)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def free_port_of_root() -> int:
    """Below 1024, where only root may listen (ip(7), ip_unprivileged_port_start)."""
    for port in range(1023, 511, -1):
        with contextlib.suppress(OSError):
            socket.create_server(("127.0.0.1", port)).close()
            return port
    raise AssertionError("no port is free")


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_root_becomes_another_user_in_every_process(workers: str) -> None:
    """Where the tests do not run as root, that it says so."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        place = Place.make(Path(folder))
        if os.geteuid():
            with (
                pytest.raises(AssertionError, match="only root can become another user"),
                running(place, "--user", "nobody", "--workers", workers),
            ):
                pass
            return
        # As certbot keeps it: nobody but root may even look at the files.
        place.certificate.parent.chmod(0o700)
        with running(place, "--user", "nobody", "--workers", workers, port=free_port_of_root()) as server:
            # Each worker has looked for a new certificate before it accepts.
            assert await fetch(server) == b"hello"
            (warning,) = server.errors().splitlines()
            assert f"user nobody cannot read {place.certificate}, {place.key}: when they are renewed" in warning
            for fields in map(status_of, (server.pid, *server.workers())):
                assert set(fields["Uid"].split()).isdisjoint({"0"})
                assert set(fields["Gid"].split() + fields["Groups"].split()).isdisjoint({"0"})
                assert int(fields["CapEff"], 16) == 0
            server.signal(signal.SIGHUP)
            eventually(lambda: "--user nobody has to be able to read them" in server.errors(), "the explanation")
            assert await fetch(server) == b"hello"
            server.stop()


def redirect_of(server: Running, path: str) -> tuple[int, str]:
    """Status and Location."""

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: object) -> None:
            return None

    opener = urllib.request.build_opener(Stay)
    with pytest.raises(urllib.error.HTTPError) as caught:
        opener.open(f"http://localhost:{server.redirect_port}{path}", timeout=WAIT_SECONDS)
    with caught.value as answer:
        return answer.code, answer.headers["Location"]


def test_the_redirect_and_the_numbers_are_served_beside(place: Place, loop: str) -> None:
    with running(place, "--loop", loop, "--http-port", "0", "--metrics-port", "0") as server:
        assert redirect_of(server, "/a%20b?c=d") == (301, f"https://localhost:{server.port}/a%20b?c=d")
        eventually(
            lambda: metric(scrape(server.metrics_port)[1], "ktls_redirects_total", status="301") == 1, "the count"
        )
        assert scrape(server.metrics_port, "/healthz") == (200, "ok\n")
        assert scrape(server.metrics_port, "/")[0] == 404
        server.stop()


@pytest.mark.parametrize(
    ("public_port", "location"), [("443", "https://localhost/"), ("9443", "https://localhost:9443/")]
)
def test_the_redirect_leads_to_the_port_that_clients_know(place: Place, public_port: str, location: str) -> None:
    with running(place, "--http-port", "0", "--public-port", public_port) as server:
        assert redirect_of(server, "/") == (301, location)
        server.stop()


def test_health_is_denied_while_no_event_loop_turns(place: Place) -> None:
    with running(place, "--workers", "2", "--metrics-port", "0") as server:
        stopped, *_ = server.workers()
        os.kill(stopped, signal.SIGSTOP)
        # The other one answers, and is alive.
        for _ in range(4):
            assert scrape(server.metrics_port, "/healthz") == (200, "ok\n")
        os.kill(stopped, signal.SIGCONT)
        server.stop()


def test_a_worker_that_cannot_start_ends_the_start_with_its_reason(place: Place) -> None:
    command = [sys.executable, "-m", "ktls_server", "serve", str(place.site), "--port", "1", "--workers", "2"]
    done = subprocess.run(
        [*command, "--cert", str(place.certificate), "--key", str(place.key), "--host", "192.0.2.1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "192.0.2.1" in done.stderr
    assert "Traceback" not in done.stderr


WITHOUT_PROC = ("unshare", "--map-root-user", "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh")


async def test_where_proc_is_missing_openssl_encrypts(place: Place) -> None:
    with running(place, prefix=WITHOUT_PROC) as server:
        assert await fetch(server) == b"hello"
        assert await fetch(server, "/middle.bin") == (place.site / "middle.bin").read_bytes()
        os.kill(server.process.pid, signal.SIGHUP)
        eventually(lambda: "certificates read again" in server.errors(), "the reload")
        assert await fetch(server) == b"hello"
        assert "OpenSSL encrypts for all connections, which costs more; mount /proc" in server.errors()
        assert "Traceback" not in server.errors()
