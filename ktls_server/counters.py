"""What happened, counted. One per process; plain numbers, so that counting costs next to nothing.

Read by the metrics endpoint. Nothing in here comes from the network but as one of a few fixed labels.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

HANDSHAKE_FAILURES: Final = frozenset(
    {
        # Ours.
        "closed",
        "oversized",
        "plain_http",
        # OpenSSL's reasons that tell an operator something (openssl/sslerr.h).
        "bad_record_mac",
        "bad_signature",
        "certificate_verify_failed",
        "decryption_failed_or_bad_record_mac",
        "http_request",
        "inappropriate_fallback",
        "no_shared_cipher",
        "no_suitable_key_share",
        "no_suitable_signature_algorithm",
        "peer_did_not_return_a_certificate",
        "protocol_error",
        "sslv3_alert_bad_certificate",
        "sslv3_alert_certificate_expired",
        "sslv3_alert_certificate_unknown",
        "sslv3_alert_handshake_failure",
        "tlsv1_alert_decrypt_error",
        "tlsv1_alert_protocol_version",
        "tlsv1_alert_unknown_ca",
        "unexpected_message",
        "unsupported_protocol",
        "version_too_low",
        "wrong_version_number",
    }
)
"""The reasons that get a label of their own; OpenSSL has hundreds, and a client may choose among them."""


@dataclass(slots=True)
class Counters:
    """Counters: they only grow, over the lives of all processes that took over from each other in one worker's place.

    `connections` by (transmit path, version, cipher), `timeouts` by stage, the others by what their names say.
    `starts` counts those processes.
    """

    starts: int = 0
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    connections: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    handshake_failures: Counter[str] = field(default_factory=Counter)
    responses: Counter[int] = field(default_factory=Counter)
    redirects: Counter[int] = field(default_factory=Counter)
    body_bytes: Counter[str] = field(default_factory=Counter)
    timeouts: Counter[str] = field(default_factory=Counter)
    key_updates: Counter[str] = field(default_factory=Counter)
    http2_errors: Counter[str] = field(default_factory=Counter)
    certificate_reloads: Counter[str] = field(default_factory=Counter)
    accept_pauses: int = 0

    def count_handshake_failure(self, reason: str) -> None:
        """One more; a reason without a label of its own counts as "other"."""
        self.handshake_failures[reason if reason in HANDSHAKE_FAILURES else "other"] += 1

    def add(self, other: Counters) -> None:
        """Add another process's numbers."""
        for name in _FIELD_NAMES:
            mine, theirs = getattr(self, name), getattr(other, name)
            if isinstance(mine, Counter):
                mine.update(theirs)
            else:
                setattr(self, name, mine + theirs)

    def to_plain(self) -> dict[str, Any]:
        """As values that JSON knows; a Counter becomes a list of pairs."""
        plain: dict[str, Any] = {}
        for name in _FIELD_NAMES:
            value = getattr(self, name)
            plain[name] = list(value.items()) if isinstance(value, Counter) else value
        return plain

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Counters:
        """What `to_plain` made, after a trip through JSON."""
        values: dict[str, Any] = {name: _counter(v) if isinstance(v, list) else v for name, v in plain.items()}
        return cls(**values)


_FIELD_NAMES: Final = tuple(field.name for field in dataclasses.fields(Counters))


def _counter(pairs: list[list[Any]]) -> Counter[Any]:
    """JSON turns the tuples among the keys into lists."""
    return Counter({tuple(key) if isinstance(key, list) else key: count for key, count in pairs})
