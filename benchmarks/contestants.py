"""How each server of the comparison is started: one process that works, TLS 1.3 by OpenSSL's or its own defaults.

Each serves the same folder and has no access log, as nobody pays for one here. A program that is missing is a name and a
reason, never silence.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ktls_server.kernel.probe import KernelTls

APPLICATIONS = Path(__file__).with_name("applications.py")
PYTHON_PEERS = ("aiohttp", "aiofastnet", "uvicorn", "starlette", "granian", "uvloop", "httptools")
IDLE_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Site:
    """What all of them serve: `folder`/static, with one P-256 certificate. `scratch` is for their configuration."""

    folder: Path
    scratch: Path
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Contestant:
    """A server that can run here. `command` takes the port; `kernel` tells who has to encrypt."""

    name: str
    version: str
    kernel: bool
    command: Callable[[int], list[str]]


@dataclass(frozen=True, slots=True)
class Missing:
    """A server that cannot, and why."""

    name: str
    reason: str


def contestants(site: Site, kernel: KernelTls, peers_python: Path | None) -> Iterator[Contestant | Missing]:
    """All of them, with the kernel path where this kernel has one. `peers_python` is the environment of the Python peers."""
    yield from _ours(site, kernel)
    yield from _nginx(site, kernel)
    yield from _lighttpd(site)
    if peers_python is None:
        for name in ("aiohttp", "uvicorn + Starlette", "granian"):
            yield Missing(name, "not installed: `make bench-peers` makes an environment for it")
        peers_python = Path(sys.executable)
    else:
        yield from _python_peers(site, kernel, peers_python)
    yield Contestant(
        "http.server over ssl",
        sys.version.split()[0],
        False,
        _application("http_server", site, peers_python),
    )


def _ours(site: Site, kernel: KernelTls) -> Iterator[Contestant | Missing]:
    from ktls_server import __version__

    for loop in ("uvloop", "asyncio"):
        for path, mode in (("kernel", "require"), ("userspace", "off")):
            name = f"ktls_server, {loop}" + (", kTLS" if path == "kernel" else "")
            if path == "kernel" and not kernel.available:
                yield Missing(name, kernel.reason)
                continue

            def command(port: int, loop: str = loop, mode: str = mode) -> list[str]:
                return [
                    *(sys.executable, "-m", "ktls_server", "serve", str(site.folder)),
                    *("--port", str(port), "--cert", str(site.certificate), "--key", str(site.key)),
                    *("--loop", loop, "--ktls", mode, "--access-log", "off"),
                    *("--keepalive-timeout", str(IDLE_SECONDS), "--max-requests", "100000000"),
                    *("--max-connections-per-address", "100000"),
                ]

            yield Contestant(name, __version__, path == "kernel", command)


def _nginx(site: Site, kernel: KernelTls) -> Iterator[Contestant | Missing]:
    program = _find("nginx")
    if program is None:
        for name in ("nginx", "nginx, kTLS"):
            yield Missing(name, "not installed: apt-get install nginx")
        return
    version = _version([program, "-v"], r"nginx/(\S+)")
    yield Contestant("nginx", version, False, _nginx_command(site, program, kernel=False))
    if kernel.available:
        yield Contestant("nginx, kTLS", version, True, _nginx_command(site, program, kernel=True))
    else:
        yield Missing("nginx, kTLS", kernel.reason)


def _nginx_command(site: Site, program: str, *, kernel: bool) -> Callable[[int], list[str]]:
    def command(port: int) -> list[str]:
        scratch = site.scratch / f"nginx-{port}"
        scratch.mkdir()
        temporary = "".join(
            f"{kind}_temp_path {scratch}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        user = "user root;" if os.geteuid() == 0 else ""
        configuration = scratch / "nginx.conf"
        configuration.write_text(
            f"""{user} daemon off; worker_processes 1; worker_rlimit_nofile 16384;
            pid {scratch}/pid; error_log {scratch}/error.log;
            events {{ worker_connections 8192; }}
            http {{
                {temporary} access_log off; sendfile on; tcp_nopush on; keepalive_timeout {IDLE_SECONDS};
                keepalive_requests 100000000; types {{ }} default_type application/octet-stream;
                server {{
                    listen 127.0.0.1:{port} ssl backlog=4096; root {site.folder};
                    ssl_certificate {site.certificate}; ssl_certificate_key {site.key};
                    ssl_protocols TLSv1.2 TLSv1.3;
                    {"ssl_conf_command Options KTLS;" if kernel else ""}
                }}
            }}""",
            encoding="utf-8",
        )
        return [program, "-c", str(configuration), "-e", f"{scratch}/error.log"]

    return command


def _lighttpd(site: Site) -> Iterator[Contestant | Missing]:
    program = _find("lighttpd")
    if program is None:
        yield Missing("lighttpd", "not installed: apt-get install lighttpd")
        return
    # Where the package has them, also when it was extracted and not installed.
    modules = Path(program).resolve().parents[1] / "lib" / "lighttpd"
    if not (modules / "mod_openssl.so").exists():
        yield Missing("lighttpd", "its TLS module is not installed: apt-get install lighttpd-mod-openssl")
        return

    def command(port: int) -> list[str]:
        configuration = site.scratch / f"lighttpd-{port}.conf"
        configuration.write_text(
            f"""server.document-root = "{site.folder}"
            server.bind = "127.0.0.1"
            server.port = {port}
            server.modules = ("mod_openssl")
            server.max-keep-alive-requests = 100000000
            server.max-keep-alive-idle = {IDLE_SECONDS}
            server.max-fds = 16384
            ssl.engine = "enable"
            ssl.pemfile = "{site.certificate}"
            ssl.privkey = "{site.key}"
            ssl.openssl.ssl-conf-cmd = ("Options" => "-KTLS")
            """,
            encoding="utf-8",
        )
        return [program, "-D", "-f", str(configuration), "-m", str(modules)]

    yield Contestant("lighttpd", _version([program, "-v"], r"lighttpd/(\S+)"), False, command)


def _python_peers(site: Site, kernel: KernelTls, python: Path) -> Iterator[Contestant | Missing]:
    versions = _package_versions(python)
    for name, application, packages, in_kernel in (
        ("aiohttp, asyncio", "aiohttp_asyncio", ("aiohttp",), False),
        ("aiohttp, uvloop", "aiohttp_uvloop", ("aiohttp",), False),
        ("aiohttp, aiofastnet", "aiohttp_aiofastnet", ("aiohttp", "aiofastnet"), False),
        ("aiohttp, aiofastnet, kTLS", "aiohttp_aiofastnet_ktls", ("aiohttp", "aiofastnet"), True),
        ("uvicorn + Starlette", "starlette_uvicorn", ("uvicorn", "starlette"), False),
    ):
        absent = [package for package in packages if package not in versions]
        if absent:
            yield Missing(name, f"not installed: {', '.join(absent)}")
        elif in_kernel and not kernel.available:
            yield Missing(name, kernel.reason)
        else:
            version = ", ".join(versions[package] for package in packages)
            yield Contestant(name, version, in_kernel, _application(application, site, python))
    if "granian" not in versions:
        yield Missing("granian", "not installed: granian")
        return

    def granian(port: int) -> list[str]:
        return [
            *(str(python.with_name("granian")), "--interface", "asgi", "--http", "1", "--no-ws", "--workers", "1"),
            *("--host", "127.0.0.1", "--port", str(port), "--log-level", "error", "--no-access-log"),
            *("--ssl-certificate", str(site.certificate), "--ssl-keyfile", str(site.key)),
            *("--static-path-route", "/static", "--static-path-mount", str(site.folder / "static")),
            *("--working-dir", str(APPLICATIONS.parent), "applications:never_called"),
        ]

    yield Contestant("granian", versions["granian"], False, granian)


def _application(name: str, site: Site, python: Path) -> Callable[[int], list[str]]:
    def command(port: int) -> list[str]:
        arguments = (name, site.folder, port, site.certificate, site.key)
        return [str(python), str(APPLICATIONS), *map(str, arguments)]

    return command


def _find(program: str) -> str | None:
    # Debian keeps servers where only root's PATH has them.
    return shutil.which(program, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin")


def _version(command: list[str], pattern: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(pattern, done.stdout + done.stderr)
    return found[1] if found else "unknown"


def _package_versions(python: Path) -> dict[str, str]:
    script = (
        "import sys, importlib.metadata as metadata\n"
        "for name in sys.argv[1:]:\n"
        "    try: print(name, metadata.version(name))\n"
        "    except metadata.PackageNotFoundError: pass\n"
    )
    done = subprocess.run([str(python), "-c", script, *PYTHON_PEERS], capture_output=True, text=True, check=True)
    return dict(line.split() for line in done.stdout.splitlines())
