"""A path's figures are printed under its name only if the kernel's counters agree."""

import pytest

from ktls_server.bench import path_check
from ktls_server.bench.path_check import check_path, keyed_connections
from ktls_server.errors import SystemRefusal


@pytest.mark.parametrize(("kernel", "connections", "keyed"), [(True, 8, 8), (True, 8, 9), (False, 8, 0)])
def test_a_path_that_the_counters_confirm_passes(kernel: bool, connections: int, keyed: int) -> None:
    check_path("server", kernel=kernel, connections=connections, keyed=keyed)


@pytest.mark.parametrize(("kernel", "connections", "keyed"), [(True, 8, 7), (True, 8, 0), (False, 8, 1)])
def test_a_path_that_the_counters_deny_is_refused_by_name(kernel: bool, connections: int, keyed: int) -> None:
    with pytest.raises(SystemRefusal, match=r"^server: .*TlsTxSw"):
        check_path("server", kernel=kernel, connections=connections, keyed=keyed)


def test_connections_encrypted_by_a_network_card_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path_check, "tls_stat", lambda: {"TlsTxSw": 3, "TlsTxDevice": 2, "TlsRxSw": 7})
    assert keyed_connections() == 5


def test_a_kernel_without_kernel_tls_has_keyed_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path_check, "tls_stat", dict)
    assert keyed_connections() == 0
