"""Proves that the running kernel encrypts and decrypts TLS records: `python -m tests.kernels.ktls_check`.

A loopback TCP pair is keyed by hand (no handshake, no OpenSSL, nothing of ktls_server), bytes go through it, and the
kernel's own counters have to move. Where this passes and the suite fails, the kernel is not to blame.
"""

import os
import socket
import struct
import sys
from pathlib import Path

TLS_STAT = Path("/proc/net/tls_stat")

# linux/tcp.h, linux/socket.h, linux/tls.h
TCP_ULP, SOL_TLS, TLS_TX, TLS_RX = 31, 282, 1, 2
TLS_1_3_VERSION = 0x0304
# cipher name: TLS_CIPHER_*, then the sizes of iv, key, salt in struct tls12_crypto_info_*
CIPHERS = {"AES-128-GCM": (51, 8, 16, 4), "AES-256-GCM": (52, 8, 32, 4), "ChaCha20-Poly1305": (54, 12, 32, 0)}
REC_SEQ_SIZE = 8


def counters() -> dict[str, int]:
    """Return /proc/net/tls_stat by counter name; empty where the kernel has no kernel TLS."""
    if not TLS_STAT.exists():
        return {}
    return {name: int(value) for name, value in (line.split() for line in TLS_STAT.read_text().splitlines())}


def connected_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    return client, server


def crypto_info(cipher: str) -> bytes:
    number, *sizes = CIPHERS[cipher]
    secrets = b"".join(os.urandom(size) for size in sizes)
    return struct.pack("=HH", TLS_1_3_VERSION, number) + secrets + bytes(REC_SEQ_SIZE)


def check(cipher: str) -> None:
    """Send bytes through a keyed pair. Raises OSError where the kernel refuses, AssertionError where it pretends."""
    client, server = connected_pair()
    with client, server:
        for sock in (client, server):
            sock.setsockopt(socket.IPPROTO_TCP, TCP_ULP, b"tls")
        before = counters()
        info = crypto_info(cipher)
        server.setsockopt(SOL_TLS, TLS_TX, info)
        client.setsockopt(SOL_TLS, TLS_RX, info)
        message = os.urandom(10_000)
        server.sendall(message)
        received = b""
        while len(received) < len(message):
            received += client.recv(len(message))
        after = counters()
    if received != message:
        raise AssertionError(f"{cipher}: other bytes came out than went in")
    for counter in ("TlsTxSw", "TlsRxSw"):
        if after[counter] != before[counter] + 1:
            raise AssertionError(f"{cipher}: {counter} went from {before[counter]} to {after[counter]}")


def main() -> int:
    """Check every cipher, print a line for each, and return 0 if all of them work."""
    print(f"kernel {os.uname().release}")
    failed = False
    for cipher in CIPHERS:
        try:
            check(cipher)
        except (OSError, AssertionError) as error:
            failed = True
            print(f"  {cipher}: {error}")
        else:
            print(f"  {cipher}: encrypted and decrypted by the kernel")
    print("  " + ", ".join(f"{name} {value}" for name, value in counters().items() if value))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
