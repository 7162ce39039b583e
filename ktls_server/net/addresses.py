"""Addresses of clients."""

from __future__ import annotations

import socket


def client_of(address: str) -> str:
    """Who counts as one client: an IPv4 address, or an IPv6 /56, which is what one customer is usually given (RFC 6177).

    Addresses of the link are all in one network, whoever has them, and count each by itself.
    """
    if ":" not in address:
        return address
    packed = socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
    if packed[:12] == b"\0" * 10 + b"\xff\xff":
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    is_of_the_link = packed[0] == 0xFE and packed[1] & 0xC0 == 0x80
    return packed.hex() if is_of_the_link else packed[:7].hex()
