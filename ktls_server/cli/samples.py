"""What a running server's `/metrics` say: fetched, read into a `Sample`, and two samples turned into rates.

The metrics are asked for as Prometheus does. Whoever answers there need not be our server: what it says is read within
bounds, and its labels reach the terminal as printable characters only.
"""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

from ..errors import ConfigurationError, SystemRefusal

if TYPE_CHECKING:
    from prometheus_client.samples import Sample as Line

_TIMEOUT_SECONDS = 5.0
_MAX_BYTES = 4 << 20
"""A worker takes about 2 KiB: hundreds of them fit."""

Counts: TypeAlias = dict[str, float]


@dataclass(slots=True)
class WorkerSample:
    """How one process is."""

    open_connections: float = 0
    connection_tasks: float = 0
    resident_memory_bytes: float = 0
    open_fds: float = 0
    silence_seconds: float = 0
    longest_turn_seconds: float = 0
    restarts: float = 0


@dataclass(slots=True)
class Sample:
    """Everything at one time. Counters are since the server's start, over all workers."""

    taken_at: float = 0.0
    """By the monotonic clock."""
    accepted: float = 0
    accept_pauses: float = 0
    connections: Counts = field(default_factory=dict)
    """By path, TLS version and cipher: "kernel TLSv1.3 AES-128-GCM"."""
    open_connections: Counts = field(default_factory=dict)
    """By stage."""
    responses: Counts = field(default_factory=dict)
    redirects: Counts = field(default_factory=dict)
    body_bytes: Counts = field(default_factory=dict)
    """By path."""
    refused: Counts = field(default_factory=dict)
    timeouts: Counts = field(default_factory=dict)
    handshake_failures: Counts = field(default_factory=dict)
    key_updates: Counts = field(default_factory=dict)
    blocked_connections: float = 0
    waiting_passwords: float = 0
    certificate_days_left: float | None = None
    workers: dict[str, WorkerSample] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; the keys are stable. Whole numbers are printed as such."""
        plain = asdict(self)
        del plain["taken_at"]
        converted = _whole(plain)
        assert isinstance(converted, dict)
        return converted

    def limits(self) -> Counts:
        """Everything that struck: places refused, time limits, pauses of accepting."""
        found = {f"refused {name}": count for name, count in self.refused.items()}
        found |= {f"timeout {name}": count for name, count in self.timeouts.items()}
        return found | ({"accept pauses": self.accept_pauses} if self.accept_pauses else {})


def _whole(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _whole(each) for key, each in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


_BY_LABEL = {
    "ktls_responses_total": ("responses", "status"),
    "ktls_redirects_total": ("redirects", "status"),
    "ktls_response_body_bytes_total": ("body_bytes", "path"),
    "ktls_connections_refused_total": ("refused", "limit"),
    "ktls_timeouts_total": ("timeouts", "stage"),
    "ktls_handshake_failures_total": ("handshake_failures", "reason"),
    "ktls_key_updates_total": ("key_updates", "kind"),
}
_SUMS = {
    "ktls_connections_accepted_total": "accepted",
    "ktls_accept_pauses_total": "accept_pauses",
    "ktls_blocked_connections": "blocked_connections",
    "ktls_waiting_passwords": "waiting_passwords",
}
_OF_A_WORKER = {
    "ktls_worker_connection_tasks": "connection_tasks",
    "ktls_worker_resident_memory_bytes": "resident_memory_bytes",
    "ktls_worker_open_fds": "open_fds",
    "ktls_worker_silence_seconds": "silence_seconds",
    "ktls_worker_longest_turn_seconds": "longest_turn_seconds",
    "ktls_worker_restarts_total": "restarts",
}


def read(text_untrusted: str) -> Sample:
    """What the text says. Raises ValueError where it is not the metrics of this server."""
    from prometheus_client.parser import text_string_to_metric_families

    sample = Sample(time.monotonic())
    workers: defaultdict[str, WorkerSample] = defaultdict(WorkerSample)
    for family in text_string_to_metric_families(text_untrusted):
        for line in family.samples:
            _take(sample, workers, line)
    if not workers:
        raise ValueError("no worker")
    sample.workers = dict(sorted(workers.items(), key=lambda item: (len(item[0]), item[0])))
    for attribute, _ in _BY_LABEL.values():
        setattr(sample, attribute, dict(sorted(getattr(sample, attribute).items())))
    return sample


def _take(sample: Sample, workers: defaultdict[str, WorkerSample], line: Line) -> None:
    name, value = line.name, line.value
    labels = {label: _printable(said) for label, said in line.labels.items()}
    if name in _BY_LABEL:
        attribute, label = _BY_LABEL[name]
        _add(getattr(sample, attribute), labels.get(label, ""), value)
    elif name in _SUMS:
        setattr(sample, _SUMS[name], getattr(sample, _SUMS[name]) + value)
    elif name in _OF_A_WORKER:
        setattr(workers[labels.get("worker", "")], _OF_A_WORKER[name], value)
    elif name == "ktls_connections_total":
        _add(sample.connections, " ".join(labels.get(key, "") for key in ("path", "version", "cipher")), value)
    elif name == "ktls_open_connections":
        _add(sample.open_connections, labels.get("stage", ""), value)
        workers[labels.get("worker", "")].open_connections += value
    elif name == "ktls_certificate_days_left":
        known = sample.certificate_days_left
        sample.certificate_days_left = value if known is None else min(known, value)


def _add(counts: Counts, key: str, value: float) -> None:
    counts[key] = counts.get(key, 0) + value


def _printable(text_untrusted: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text_untrusted)


def rates(before: Mapping[str, float], now: Mapping[str, float], seconds: float) -> Counts:
    """By the second. A counter that fell belongs to a server that started anew: it counts from 0."""
    found = {}
    for key, count in now.items():
        earlier = before.get(key, 0)
        found[key] = (count - earlier if count >= earlier else count) / max(seconds, 0.001)
    return found


def metrics_url(address: str) -> str:
    """From what a person types: a port, HOST:PORT, or a URL. Raises ConfigurationError."""
    text = f"127.0.0.1:{address}" if address.isascii() and address.isdecimal() else address
    text = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid or any(character.isspace() or not character.isprintable() for character in text):
        raise ConfigurationError(
            f"{address!r} is neither a port nor a URL of metrics; give the port that --metrics-port has: ktls-server top 9100"
        )
    return text if parts.path not in ("", "/") else parts._replace(path="/metrics").geturl()


def fetch(url: str) -> Sample:
    """Ask the server. Raises SystemRefusal where it does not answer, or somebody else does."""
    # A proxy is for the internet; metrics are of this machine or its network.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    start = "start it with --metrics-port, and give that port"
    try:
        with opener.open(url, timeout=_TIMEOUT_SECONDS) as answer:
            text = answer.read(_MAX_BYTES).decode("utf-8", "replace")
        return read(text)
    except urllib.error.HTTPError as error:
        error.close()
        raise SystemRefusal(f"{url} is not the metrics of a ktls-server (status {error.code}); {start}") from error
    except ValueError as error:
        raise SystemRefusal(f"{url} is not the metrics of a ktls-server; {start}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        words = (reason.strerror if isinstance(reason, OSError) else "") or str(reason) or type(reason).__name__
        raise SystemRefusal(f"no server answers at {url} ({_printable(words)}); {start}") from error
