"""How a connection ends: with close_notify after all that was promised, without it where something is missing.

That is how a client can tell the end from a cut (RFC 8446 section 6.1).
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.server.running import Server, Variant
from tests.server.site import SMALL
from tests.tls.conftest import Connect, ConnectTo
from tests.tls.wire_client import CLOSE_NOTIFY, WARNING, WireClient, get_request

each_version = pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])


def expect_orderly_end(client: WireClient) -> None:
    ending = client.ending()
    assert (ending.data, ending.alerts, ending.reset) == (b"", [(WARNING, CLOSE_NOTIFY)], False)


@pytest.mark.kernel_matrix("close_notify at the end")
@each_version
def test_after_the_last_response(connect: Connect, version: str) -> None:
    client = connect(version)
    assert client.get("/small.txt", "Connection: close").body == SMALL
    expect_orderly_end(client)


@pytest.mark.kernel_matrix("close_notify at the end")
@each_version
def test_when_nothing_was_asked_for_too_long(
    servers: Callable[[Variant], Server], variant: Variant, connect_to: ConnectTo, version: str
) -> None:
    client = connect_to(servers(replace(variant, options=(*variant.options, "--keepalive-timeout", "1"))), version)
    assert client.get("/small.txt").body == SMALL
    expect_orderly_end(client)


@pytest.mark.kernel_matrix("close_notify at the end")
@each_version
def test_when_the_server_stops(
    start_server: Callable[[Variant], Server], variant: Variant, connect_to: ConnectTo, version: str
) -> None:
    server = start_server(variant)
    client = connect_to(server, version)
    assert client.get("/small.txt").body == SMALL
    assert server.terminate() == 0
    expect_orderly_end(client)


@pytest.mark.kernel_matrix("no close_notify after a cut")
@each_version
def test_a_download_that_the_server_cuts_short_does_not_end_in_order(
    start_server: Callable[[Variant], Server], variant: Variant, connect_to: ConnectTo, big: bytes, version: str
) -> None:
    server = start_server(replace(variant, options=(*variant.options, "--grace", "0")))
    client = connect_to(server, version)
    client.send(get_request("/big.bin"))
    client.read_head()
    assert client.read(1000) == big[:1000]
    assert server.terminate() == 0
    with pytest.raises((ConnectionResetError, AssertionError), match=r"reset|within a record"):
        client.read(len(big))
    assert client.alerts == []
