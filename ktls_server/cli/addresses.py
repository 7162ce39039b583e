"""The addresses of this machine that others can reach it at: what `0.0.0.0` and `::` stand for."""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

_SIOCGIFADDR = 0x8915
"""linux/sockios.h: the IPv4 address of an interface, in a struct ifreq of 40 bytes (netdevice(7))."""


def own_addresses(family: socket.AddressFamily) -> list[str]:
    """Every interface's address, without loopback and link-local ones."""
    found = _ipv4() if family == socket.AF_INET else _ipv6(Path("/proc/net/if_inet6"))
    addresses = [ipaddress.ip_address(address) for address in found]
    usable = [str(each) for each in addresses if not each.is_loopback and not each.is_link_local]
    return list(dict.fromkeys(usable))


def _ipv4() -> Iterator[str]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(sock, _SIOCGIFADDR, struct.pack("16s24x", name.encode()))
            except OSError:
                continue  # It has none.
            yield socket.inet_ntop(socket.AF_INET, answer[20:24])


def _ipv6(table: Path) -> Iterator[str]:
    try:
        lines = table.read_text(encoding="ascii").splitlines()
    except OSError:
        return  # No IPv6, or no /proc.
    for line in lines:
        yield socket.inet_ntop(socket.AF_INET6, bytes.fromhex(line.split()[0]))
