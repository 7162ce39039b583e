"""Puts the same load on several servers in turns, and reads from the kernel what each of them used.

A subject is a running server. In each round every subject gets the load once; every other round goes through them
backwards, so that whatever else the machine does meets all of them alike. What happens before the connections stand
(handshakes, the first request) is not in the figures.
"""

from __future__ import annotations

import math
import os
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from ..errors import SystemRefusal
from ..keys.suites import SUITES, TLS_1_2, TLS_1_3, CipherKind
from .clients import ClientProcess, Job, Result
from .path_check import check_path, keyed_connections
from .processes import cpu_seconds, peak_resident_bytes

TLS_VERSIONS: Final = {"1.2": (TLS_1_2, ssl.TLSVersion.TLSv1_2), "1.3": (TLS_1_3, ssl.TLSVersion.TLSv1_3)}

GIGABYTE: Final = 1e9
"""Decimal, as networks count."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A server under load. `kernel` says who has to encrypt; None where that can only be observed.

    `pid` is 0 for a server that somebody else runs: its CPU time and memory are not known.
    """

    name: str
    url: str
    pid: int = 0
    kernel: bool | None = None


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """How much load: `seconds` or `requests` for each subject in each round; the other is 0."""

    tls: str = "1.3"
    cipher: CipherKind = CipherKind.AES_128_GCM
    concurrency: int = 8
    rounds: int = 5
    seconds: float = 2.0
    requests: int = 0

    @property
    def suites(self) -> list[str]:
        """OpenSSL's names of what the clients offer."""
        version, _ = TLS_VERSIONS[self.tls]
        return [suite.name for suite in SUITES.values() if suite.kind == self.cipher and suite.version == version]


@dataclass(frozen=True, slots=True)
class Round:
    """One subject's share of one round. Latencies in seconds, sorted."""

    requests: int
    bytes: int
    seconds: float
    latencies: tuple[float, ...] = field(repr=False)
    cpu_seconds: float | None = None

    def latency(self, percent: float) -> float:
        """The latency that `percent` of the requests did not exceed (nearest rank)."""
        return self.latencies[math.ceil(len(self.latencies) * percent / 100) - 1]


@dataclass(slots=True)
class Series:
    """All rounds of one subject with one file. `kernel_connections` is what the kernel's counters say."""

    subject: Subject
    rounds: list[Round] = field(default_factory=list)
    connections: int = 0
    kernel_connections: int = 0
    peak_bytes: int | None = None
    agreed: str = ""


def measure(
    clients: Sequence[ClientProcess], subjects: Sequence[Subject], plan: LoadPlan, tick: Callable[[str], None]
) -> list[Series]:
    """All rounds, one `Series` for each subject. `tick` is called before each share of a round with the subject's name.

    Raises SystemRefusal where a client fails, or the kernel's counters say that a subject is not what it is called.
    """
    series = [Series(subject) for subject in subjects]
    for number in range(plan.rounds):
        for one in series if number % 2 == 0 else reversed(series):
            tick(one.subject.name)
            _measure_once(clients, one, plan)
    return series


def _measure_once(clients: Sequence[ClientProcess], series: Series, plan: LoadPlan) -> None:
    subject = series.subject
    keyed_before = keyed_connections()
    for client, job in zip(clients, _jobs(subject.url, plan, len(clients)), strict=True):
        client.give(job)
    for client in clients:
        client.wait_until_ready()
    cpu_before = cpu_seconds(subject.pid) if subject.pid else 0.0
    for client in clients:
        client.go()
    results = [client.result() for client in clients]
    cpu = cpu_seconds(subject.pid) - cpu_before if subject.pid else None
    connections, keyed = sum(result["connections"] for result in results), keyed_connections() - keyed_before
    if subject.kernel is not None:
        check_path(subject.name, kernel=subject.kernel, connections=connections, keyed=keyed)
    series.rounds.append(_round(results, cpu))
    series.connections += connections
    series.kernel_connections += keyed
    series.peak_bytes = peak_resident_bytes(subject.pid) if subject.pid else None
    series.agreed = _agreement(results)


def _jobs(url: str, plan: LoadPlan, count: int) -> list[Job]:
    """The load, divided among `count` clients as evenly as can be."""
    return [
        {
            "url": url,
            "connections": connections,
            "seconds": plan.seconds,
            "requests": requests,
            "tls": TLS_VERSIONS[plan.tls][1].name,
            "ciphers": ":".join(plan.suites) if plan.tls == "1.2" else "",
        }
        for connections, requests in zip(_shares(plan.concurrency, count), _shares(plan.requests, count), strict=True)
    ]


def _shares(total: int, count: int) -> list[int]:
    return [total // count + (number < total % count) for number in range(count)]


def _round(results: Sequence[Result], cpu: float | None) -> Round:
    latencies = sorted(latency for result in results for latency in result["latencies"])
    if not latencies:
        raise SystemRefusal("no request was answered")
    return Round(
        requests=sum(result["requests"] for result in results),
        bytes=sum(result["bytes"] for result in results),
        # CLOCK_MONOTONIC is the same for all processes.
        seconds=max(result["ended"] for result in results) - min(result["started"] for result in results),
        latencies=tuple(latencies),
        cpu_seconds=cpu,
    )


def _agreement(results: Sequence[Result]) -> str:
    """The TLS version and suite that all connections agreed on."""
    return ", ".join(sorted({agreed for result in results for agreed in result["agreed"]}))


def client_count(concurrency: int) -> int:
    """Several processes, because one is busy before the server is; no more than there are processors or connections."""
    return min(concurrency, max(2, len(os.sched_getaffinity(0))))
