"""One client that takes all that it can get does not make the others wait.

Nothing is timed. What is counted is how much further the large download has moved when the small answer is there. The
client reads both in one thread, so a slow or busy machine slows the count and the server alike.
"""

import socket
from pathlib import Path

from ktls_server.net.channel import SENDFILE_BYTES
from tests.server.clients import Client, request
from tests.server.running import Server
from tests.server.site import SMALL, SPARSE_BYTES

RECEIVE_BUFFER = 256 * 1024
READ_BYTES = 256 * 1024
TURNS = 8
"""How many pieces the large download may get meanwhile: the small request needs three turns of the event loop (its bytes
are seen, its coroutine is woken, its answer is sent), and the client may look for the answer just before it comes."""
ROUNDS = 20


def most_bytes_meanwhile() -> int:
    """What was in the socket buffers when the small request was sent, and what may be sent until its answer."""
    largest_send_buffer = int(Path("/proc/sys/net/ipv4/tcp_wmem").read_text().split()[2])
    # The kernel doubles SO_RCVBUF (socket(7)).
    return largest_send_buffer + 2 * RECEIVE_BUFFER + TURNS * SENDFILE_BYTES + READ_BYTES


def drop(sock: socket.socket) -> int:
    """Take what is there, at most `READ_BYTES`, faster than any server can send it: the kernel throws it away.

    MSG_TRUNC of tcp(7); the TLS records are not even decrypted.
    """
    return len(socket.socket.recv(sock, READ_BYTES, socket.MSG_TRUNC))


def test_a_small_answer_comes_before_a_large_download_has_moved_on_far(server: Server) -> None:
    with Client(server, receive_buffer=RECEIVE_BUFFER) as large, Client(server) as small:
        assert small.get("/small.txt").body == SMALL
        large.send(request("/sparse.bin"))
        taken = drop_until(large.tls, 4 * most_bytes_meanwhile())
        for _ in range(ROUNDS):
            small.send(request("/small.txt"))
            small.tls.setblocking(False)
            meanwhile = 0
            while not has_bytes(small.tls):
                meanwhile += drop(large.tls)
            small.tls.settimeout(large.tls.gettimeout())
            assert small.answer().body == SMALL
            taken += meanwhile
            assert meanwhile <= most_bytes_meanwhile()
        assert taken < SPARSE_BYTES, "the download was over before the last answer: nothing was measured"


def drop_until(sock: socket.socket, size: int) -> int:
    """Take at least `size` bytes; returns how many."""
    taken = 0
    while taken < size:
        taken += drop(sock)
    return taken


def has_bytes(sock: socket.socket) -> bool:
    """Whether something can be read at once."""
    try:
        return bool(socket.socket.recv(sock, 1, socket.MSG_PEEK))
    except BlockingIOError:
        return False
