"""`ktls-server bench`, shortened: real servers, real clients, whatever path this kernel has."""

import contextlib
import importlib.util
import json
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ktls_server.bench.run import KERNEL, PLAIN_READ, PLAIN_SENDFILE, USERSPACE
from ktls_server.bench.server_process import ServerProcess
from ktls_server.certificates import certificate_in
from ktls_server.cli.bench import command
from ktls_server.errors import ConfigurationError, SystemRefusal
from ktls_server.kernel.probe import probe

SHORT = ("--concurrency", "2", "--requests", "6", "--rounds", "2")


@pytest.fixture(scope="module")
def kernel_tls(kernel_tls_required: bool) -> bool:
    """Whether the kernel path has to be measured here."""
    abilities = probe()
    if kernel_tls_required and not abilities.available:
        pytest.fail(f"--ktls-kernel was given, but {abilities.describe()}")
    return abilities.available


def bench(*options: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "ktls_server", "bench", "--json", *options], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome


def check_result(result: dict[str, Any], size: int, agreed: str) -> None:
    """The load was put on, over connections that the right side encrypted, and cost something."""
    assert result["agreed"] == agreed
    assert result["connections"] == 4
    assert result["connections_encrypted_by_kernel"] == (4 if result["name"] == KERNEL else 0)
    assert result["peak_resident_bytes"] > 1 << 20
    figures = result["figures"]
    assert len(figures["cpu_seconds_per_gb"]["rounds"]) == 2
    bytes_per_request = figures["megabytes_per_second"]["rounds"][0] * 1e6 / figures["requests_per_second"]["rounds"][0]
    assert bytes_per_request == pytest.approx(size)
    assert 0 < figures["latency_p50_ms"]["median"] <= figures["latency_p99_ms"]["median"]


def test_both_paths_are_measured_where_the_kernel_has_both_and_else_the_reason_is_said(
    kernel_tls: bool, tmp_path: Path
) -> None:
    outcome = bench("--size", "64K", "--size", "1000", *SHORT, "--plot", str(tmp_path / "plot.svg"))
    assert [one["size"] for one in outcome["measurements"]] == [65536, 1000]
    for measurement in outcome["measurements"]:
        names = [result["name"] for result in measurement["results"]]
        assert names == ([USERSPACE, KERNEL] if kernel_tls else [USERSPACE])
        for result in measurement["results"]:
            check_result(result, measurement["size"], "TLSv1.3 TLS_AES_128_GCM_SHA256")
    assert any("was not measured" in note for note in outcome["notes"]) == (not kernel_tls)
    assert USERSPACE in (tmp_path / "plot.svg").read_text()


def test_version_cipher_and_loop_can_be_chosen(kernel_tls: bool) -> None:
    outcome = bench("--size", "1K", *SHORT, "--tls", "1.2", "--cipher", "aes-256-gcm", "--loop", "asyncio")
    results = outcome["measurements"][0]["results"]
    assert len(results) == 1 + kernel_tls
    for result in results:
        check_result(result, 1024, "TLSv1.2 ECDHE-ECDSA-AES256-GCM-SHA384")
    assert outcome["load"]["loop"] == "asyncio"


def test_the_ladder_has_its_four_rungs_where_the_kernel_has_the_last(kernel_tls: bool) -> None:
    outcome = bench("--ladder", "--size", "300K", *SHORT)
    results = outcome["measurements"][0]["results"]
    rungs = [PLAIN_READ, PLAIN_SENDFILE, USERSPACE, KERNEL]
    assert [result["name"] for result in results] == (rungs if kernel_tls else rungs[:-1])
    for result in results:
        plain = result["name"] in (PLAIN_READ, PLAIN_SENDFILE)
        check_result(result, 300 << 10, "no TLS" if plain else "TLSv1.3 TLS_AES_128_GCM_SHA256")


def test_a_server_that_already_runs_is_loaded_by_its_url(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "file.txt").write_bytes(b"x" * 2000)
    pair = certificate_in(tmp_path / "certificate")
    serve = (sys.executable, "-m", "ktls_server", "serve", str(tmp_path / "site"), "--port", "0", "--access-log", "off")
    server = ServerProcess([*serve, "--cert", str(pair.cert), "--key", str(pair.key)])
    with contextlib.closing(server):
        outcome = bench("--url", server.url + "file.txt", *SHORT)
        missing = CliRunner().invoke(command, ["--url", server.url + "nothing.txt", *SHORT])
    (result,) = outcome["measurements"][0]["results"]
    assert result["name"] == "server"
    assert result["figures"]["cpu_seconds_per_gb"] is None
    assert result["figures"]["requests_per_second"]["median"] > 0
    assert any("not known" in note for note in outcome["notes"])
    assert isinstance(missing.exception, SystemRefusal)
    assert "404" in str(missing.exception)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--requests", "9", "--duration", "1"], "--requests: --duration is given, too"),
        (["--requests", "2", "--concurrency", "3"], "--requests 2: is less than one for each of 3"),
        (["--url", "https://localhost/", "--size", "1K"], "--size: has no meaning with --url"),
        (["--url", "https://localhost/", "--ladder"], "--ladder: has no meaning with --url"),
        (["--url", "localhost:8443"], "--url localhost:8443: does not begin with"),
        (["--ladder", "--size", "1K", "--size", "2K"], "--size: the ladder is climbed with one file"),
        (["--plot", "plot.pdf"], "--plot plot.pdf: the name has to end in .png or .svg"),
    ],
)
def test_what_cannot_be_measured_together_is_refused_by_name(options: list[str], words: str) -> None:
    refused = CliRunner().invoke(command, options)
    assert isinstance(refused.exception, ConfigurationError)
    assert words in str(refused.exception)


@pytest.mark.parametrize("size", ["0", "-1", "12X", "1.5M", ""])
def test_a_size_that_is_none_is_refused(size: str) -> None:
    assert "is not a size such as" in CliRunner().invoke(command, ["--size", size]).output


def test_a_file_that_finds_no_room_is_refused_with_the_way_out() -> None:
    def no_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    done = subprocess.run(
        [sys.executable, "-m", "ktls_server", "bench", "--size", "2M", *SHORT],
        preexec_fn=no_room,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "a file of 2097152 bytes cannot be made" in done.stderr
    assert "TMPDIR" in done.stderr


@pytest.mark.parametrize(("module", "options"), [("httpx", []), ("matplotlib", ["--plot", "plot.png"])])
def test_a_missing_extra_is_named_with_the_line_that_installs_it(
    module: str, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else find_spec(name))
    refused = CliRunner().invoke(command, options)
    assert isinstance(refused.exception, ConfigurationError)
    assert f"{module}, which is not installed: pip install {module}" in str(refused.exception)
