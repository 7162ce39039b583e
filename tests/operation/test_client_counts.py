"""Connections of one client, counted over all workers: by processes that were forked from one, as the workers are."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktls_server.net.addresses import client_of
from ktls_server.operation import client_counts
from ktls_server.operation.client_counts import ClientCounts
from tests.operation.forking import in_a_child


def test_one_process_alone_counts_exactly_and_shares_nothing() -> None:
    counts = ClientCounts(1)
    counts.enter(0)
    for number in range(20_000):
        counts.add(f"10.0.{number // 256}.{number % 256}")
    assert {counts.count(f"10.0.{number // 256}.{number % 256}") for number in range(20_000)} == {1}
    assert counts._memory is None


def test_every_worker_sees_the_connections_of_all() -> None:
    counts = ClientCounts(3)

    def count_as(place: int, connections: int) -> None:
        counts.enter(place)
        for _ in range(connections):
            counts.add("192.0.2.1")
        counts.add("192.0.2.2")
        counts.remove("192.0.2.2")

    assert in_a_child(lambda: count_as(1, 5)) == 0
    assert in_a_child(lambda: count_as(2, 7)) == 0
    count_as(0, 1)
    assert counts.count("192.0.2.1") == 13
    assert counts.count("192.0.2.2") == 0


def test_who_takes_the_place_of_a_dead_worker_begins_at_zero() -> None:
    counts = ClientCounts(2)

    def die() -> None:
        counts.enter(1)
        counts.add("192.0.2.1")
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_a_child(die) == -signal.SIGKILL
    counts.enter(0)
    assert counts.count("192.0.2.1") == 1
    assert in_a_child(lambda: counts.enter(1)) == 0
    assert counts.count("192.0.2.1") == 0
    assert in_a_child(die) == -signal.SIGKILL
    counts.clear(1)
    assert counts.count("192.0.2.1") == 0


def test_a_worker_forgets_what_its_parent_counted() -> None:
    counts = ClientCounts(2)
    counts.enter(0)
    counts.add("192.0.2.1")
    counts.enter(0)
    assert counts.count("192.0.2.1") == 0
    counts.add("192.0.2.1")
    counts.remove("192.0.2.1")
    assert not counts._own


@settings(deadline=None)
@given(steps=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30), st.booleans())))
def test_no_count_is_below_the_truth(steps: list[tuple[int, int, bool]]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(client_counts, "CELLS", 8)
        monkeypatch.setattr(client_counts, "_CELL_BITS", 3)
        monkeypatch.setattr(client_counts, "_REGION_BYTES", client_counts.ROWS * 8 * 4)
        counts = ClientCounts(3)
        truth: dict[tuple[int, str], int] = {}
        for place, number, more in steps:
            client = f"192.0.2.{number}"
            counts._place = place
            here = truth.get((place, client), 0)
            if more:
                counts.add(client)
                truth[place, client] = here + 1
            elif here:
                counts.remove(client)
                truth[place, client] = here - 1
        counts._place, counts._own = 0, type(counts._own)()
        for (place, client), _ in truth.items():
            others = sum(n for (where, who), n in truth.items() if who == client and where)
            assert counts.count(client) >= others, (place, client)
        for (place, client), left in list(truth.items()):
            counts._place = place
            for _ in range(left):
                counts._own[client] += 1
                counts.remove(client)
        assert counts._cells is not None
        assert set(counts._cells) == {0}


def test_addresses_cannot_be_chosen_to_share_counters() -> None:
    """The key is drawn for each server."""
    one, other = ClientCounts(2), ClientCounts(2)
    addresses = [f"192.0.2.{number}" for number in range(50)]
    assert [one._cells_of(a, 0) for a in addresses] != [other._cells_of(a, 0) for a in addresses]
    cells = one._cells_of("192.0.2.1", 1)
    assert [cell // client_counts.CELLS for cell in cells] == [4, 5, 6, 7], "one in each row of the region"


def test_the_memory_of_a_worker_is_bounded() -> None:
    counts = ClientCounts(4)
    assert counts._memory is not None
    assert len(counts._memory) == 4 * 256 * 1024


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "20010db8000100"),
        ("2001:db8:1:ff::1", "20010db8000100"),
        ("2001:db8:1:100::1", "20010db8000101"),
        ("fe80::1%eth0", "fe80" + "0" * 27 + "1"),
        ("fe80::2%eth0", "fe80" + "0" * 27 + "2"),
        ("febf::1", "febf" + "0" * 27 + "1"),
        ("fec0::1", "fec0" + "0" * 10),
    ],
)
def test_a_client_is_an_address_or_what_one_customer_is_given(address: str, client: str) -> None:
    assert client_of(address) == client
