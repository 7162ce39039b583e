"""Load clients as processes: jobs, results, failures, and the one cipher suite that they offer."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ktls_server.bench.clients import ClientProcess, environment_with_suite
from ktls_server.errors import SystemRefusal

DOUBLER = """
from ktls_server.bench.clients import serve_jobs

def prepare(job):
    if job["number"] < 0:
        raise ValueError("negative")
    return lambda: {"twice": 2 * job["number"], "inverse": 1 / job["number"]}

serve_jobs(prepare)
"""
TLS_1_3_SUITES = (
    "import ssl\n"
    "ciphers = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).get_ciphers()\n"
    "print(*(cipher['name'] for cipher in ciphers if cipher['protocol'] == 'TLSv1.3'))"
)


@pytest.fixture
def doubler(tmp_path: Path) -> Iterator[ClientProcess]:
    (tmp_path / "doubler.py").write_text(DOUBLER)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    with contextlib.closing(ClientProcess("doubler", {**os.environ, "PYTHONPATH": path})) as client:
        yield client


def test_a_client_does_one_job_after_the_other(doubler: ClientProcess) -> None:
    for number in (2, 4):
        doubler.give({"number": number})
        doubler.wait_until_ready()
        doubler.go()
        assert doubler.result() == {"twice": 2 * number, "inverse": 1 / number}


def test_a_failure_before_the_load_is_told_with_its_reason(doubler: ClientProcess) -> None:
    doubler.give({"number": -1})
    with pytest.raises(SystemRefusal, match="ValueError: negative"):
        doubler.wait_until_ready()


def test_a_failure_under_load_is_told_with_its_reason(doubler: ClientProcess) -> None:
    doubler.give({"number": 0})
    doubler.wait_until_ready()
    doubler.go()
    with pytest.raises(SystemRefusal, match="ZeroDivisionError"):
        doubler.result()


def test_a_client_that_ended_is_an_error() -> None:
    with (
        contextlib.closing(ClientProcess("ktls_server.no_such_module")) as client,
        pytest.raises(SystemRefusal, match="ended"),
    ):
        client.wait_until_ready()


@pytest.mark.parametrize("suite", ["TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"])
def test_a_client_offers_the_one_suite_that_is_measured(suite: str, tmp_path: Path) -> None:
    environment = environment_with_suite(suite, tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", TLS_1_3_SUITES], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [suite]
