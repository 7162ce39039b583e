"""Session ticket keys: when they change, and that tickets of the generation before are still good."""

import asyncio
import contextlib
import socket
import ssl
from pathlib import Path

import pytest

from ktls_server.certificates import certificate_in
from ktls_server.handshake.context import TlsContexts
from ktls_server.handshake.driver import complete_handshake
from ktls_server.handshake.tickets import GENERATION_SECONDS, TicketGenerations, key_name_of_ticket
from ktls_server.keys.keylog import KeyLog
from ktls_server.net.channel import Channel
from ktls_server.settings import Settings

each_version = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


class Places:
    """A server's contexts, and clients that connect to it in memory."""

    def __init__(self, folder: Path, workers: int) -> None:
        pair = certificate_in(folder)
        self.contexts = TlsContexts(Settings(cert=(pair.cert,), key=(pair.key,), workers=workers))
        self.key_log = KeyLog()
        self.contexts.attach(self.key_log)

    async def connect(
        self, context: ssl.SSLContext, session: ssl.SSLSession | None = None
    ) -> tuple[bool, ssl.SSLSession | None]:
        """Whether the session was resumed, and the session to go on with."""
        near, far = socket.socketpair()
        near.setblocking(False)
        channel = Channel(near, asyncio.get_running_loop())

        def talk() -> tuple[bool, ssl.SSLSession | None]:
            with context.wrap_socket(far, server_hostname="localhost", session=session) as tls:
                tls.settimeout(0.2)
                with contextlib.suppress(TimeoutError):
                    tls.recv(1)  # the ticket of TLS 1.3 comes with the first read
                return bool(tls.session_reused), tls.session

        client = asyncio.ensure_future(asyncio.to_thread(talk))
        made = await complete_handshake(channel, self.contexts.tickets, self.key_log)
        assert made.secrets is not None
        result = await client
        channel.close()
        return result


def client(version: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    return context


@each_version
@pytest.mark.parametrize("workers", [1, 2], ids=["made when it is time", "made before the fork"])
async def test_a_ticket_is_good_for_its_generation_and_the_next(
    tmp_path: Path, version: ssl.TLSVersion, workers: int
) -> None:
    places = Places(tmp_path, workers)
    began = places.contexts.tickets._began
    context = client(version)
    _, session = await places.connect(context)
    assert (await places.connect(context, session))[0]
    places.contexts.rotate_ticket_keys(began + GENERATION_SECONDS + 1)
    assert (await places.connect(context, session))[0], "of the generation before"
    _, newer = await places.connect(context)
    places.contexts.rotate_ticket_keys(began + 2 * GENERATION_SECONDS + 1)
    assert not (await places.connect(context, session))[0], "two generations old"
    assert (await places.connect(context, newer))[0]
    places.key_log.close()


def test_keys_change_by_the_clock_alike_in_all_workers() -> None:
    made: list[ssl.SSLContext] = []

    def new() -> ssl.SSLContext:
        made.append(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        return made[-1]

    generations = TicketGenerations(new, 1000.0, 3)
    ahead, first = made[:3], made[3]
    assert generations.current is first
    generations.rotate(1000.0 + GENERATION_SECONDS - 1)
    assert generations.current is first
    generations.rotate(1000.0 + GENERATION_SECONDS)
    assert (generations.current, generations.previous) == (ahead[0], first)
    generations.rotate(1000.0 + 3 * GENERATION_SECONDS)
    assert (generations.current, generations.previous) == (ahead[2], ahead[1]), "a worker that was asleep catches up"
    assert len(made) == 4
    generations.rotate(1000.0 + 4 * GENERATION_SECONDS)
    assert generations.current is made[4], "what was made ahead is used up"
    generations.rotate(1000.0 + 40_000 * GENERATION_SECONDS)
    assert len(made) == 7, "a clock that was set by decades makes no more than two"
    assert generations.current is made[6]
    generations.rotate(900.0)
    assert generations.current is made[6], "a clock that goes back changes nothing"


@pytest.mark.parametrize("tls13", [True, False])
def test_what_is_no_ticket_has_no_key_name(tls13: bool) -> None:
    ticket = b"\x04\x00\x00\x40" + bytes(4) + (bytes(4) + b"\x01x" if tls13 else b"") + b"\x00\x20" + bytes(range(32))
    assert key_name_of_ticket(ticket, tls13=tls13) == bytes(range(16))
    for length in range(len(ticket) - 17):
        assert key_name_of_ticket(ticket[:length], tls13=tls13) == b""
    assert key_name_of_ticket(b"\x14" + ticket[1:], tls13=tls13) == b""
