"""The system calls of kernel TLS, on connected TCP sockets. Nothing else in this project makes them.

Order matters: `attach()`, then `install_transmit()` and, if wanted, `install_receive()`. A socket cannot be detached
again. Before `install_transmit()` everything that userspace encrypted must have been accepted by the socket; from then
on the kernel encrypts whatever is written. All functions work on blocking and non-blocking sockets alike.

What reading from a socket with TLS_RX can raise (`Documentation/networking/tls.rst`; a full record has to be there
before anything is decrypted, and after the first three the connection is beyond repair):

| errno | meaning | alert that fits (RFC 8446 section 6.2) |
|---|---|---|
| EBADMSG | the record did not decrypt: wrong key, tampered with, too short | bad_record_mac |
| EMSGSIZE | the record is longer than the protocol allows | record_overflow |
| EINVAL | the record's version is not the one installed | protocol_version |
| EKEYEXPIRED | the client's KeyUpdate has been read; set TLS_RX again first (Linux 6.14 and later) | none |
| EIO | a record that is not application data met `recv()` or `read()`; not from `receive()` below | none |
"""

from __future__ import annotations

import errno
import socket
import sys

from ..errors import KernelTlsUnavailable
from . import uapi

APPLICATION_DATA = 23  # ContentType, RFC 8446 section 5.1.

_RECORD_TYPE_SPACE = socket.CMSG_SPACE(1)


def attach(sock: socket.socket) -> None:
    """Put the tls protocol on top of a connected TCP socket; it still sends and receives plain bytes after that.

    Raises `KernelTlsUnavailable`: ENOENT where the kernel has no tls module and may not load one for us (it does so
    only for a process with CAP_NET_ADMIN), ENOTCONN where the connection does not stand, EEXIST the second time.
    """
    try:
        sock.setsockopt(socket.IPPROTO_TCP, uapi.TCP_ULP, uapi.TLS_ULP_NAME)
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise KernelTlsUnavailable(
                "the kernel has no tls module (ENOENT)", "run `modprobe tls` as root on the host"
            ) from error
        raise _refusal('setsockopt(TCP_ULP, "tls")', error) from error


def install_transmit(sock: socket.socket, info: bytes) -> None:
    """Have the kernel encrypt all that is sent from now on, with `info` as `crypto_info.pack` made it.

    A second call changes the key (TLS 1.3 only) on Linux 6.14 and later; before that it is refused with EBUSY. Raises
    `KernelTlsUnavailable`: EINVAL where the kernel does not know the cipher or the version, ENOENT where it has no
    implementation of the cipher loaded.
    """
    _install(sock, "TLS_TX", uapi.TLS_TX, info)


def install_receive(sock: socket.socket, info: bytes) -> None:
    """Have the kernel decrypt all that is received from now on. The same terms as for `install_transmit`.

    The next byte in the socket must be the first of record number `rec_seq`: what userspace has read is not decrypted.
    """
    _install(sock, "TLS_RX", uapi.TLS_RX, info)


def limit_payload(sock: socket.socket, size: int) -> None:
    """Have the kernel put at most `size` bytes of content (64 to 16384) into each record that it sends.

    For clients that asked for shorter records (RFC 6066 section 4, RFC 8449). Call it before the first send. Raises
    `KernelTlsUnavailable` on kernels that do not know TLS_TX_MAX_PAYLOAD_LEN (before Linux 6.19).
    """
    try:
        sock.setsockopt(uapi.SOL_TLS, uapi.TLS_TX_MAX_PAYLOAD_LEN, size.to_bytes(2, sys.byteorder))
    except OSError as error:
        raise _refusal("setsockopt(TLS_TX_MAX_PAYLOAD_LEN)", error) from error


def _install(sock: socket.socket, name: str, option: int, info: bytes) -> None:
    try:
        sock.setsockopt(uapi.SOL_TLS, option, info)
    except OSError as error:
        raise _refusal(f"setsockopt({name})", error) from error


def _refusal(step: str, error: OSError) -> KernelTlsUnavailable:
    name = errno.errorcode.get(error.errno or 0, str(error.errno))
    return KernelTlsUnavailable(f"{step} failed ({name})")


def send_control(sock: socket.socket, record_type: int, payload: bytes) -> int:
    """Send `payload` in a record of that type (21 alert, 22 handshake) on a socket with TLS_TX: bytes accepted.

    Raises BlockingIOError where a non-blocking socket is full. A short count can happen there too: send the rest with
    the same type.
    """
    return sock.sendmsg([payload], [(uapi.SOL_TLS, uapi.TLS_SET_RECORD_TYPE, bytes((record_type,)))])


def receive(sock: socket.socket, size: int) -> tuple[int, bytes] | None:
    """Read from a socket with TLS_RX: (record type, at most `size` bytes), never of two types at once.

    None is the end of the TCP stream; whether a close_notify came before it is the caller's to know. A record without
    content is not the end: it has a type (RFC 8446 section 5.1). Raises BlockingIOError where no whole record has come,
    and OSError as the table above says; an alert can still be sent then.

    Read until BlockingIOError before waiting for the socket: a KeyUpdate that came right after data lies in the kernel,
    decrypted, and poll says nothing of it (seen on Linux 7.x).
    """
    try:
        data, control, _, _ = sock.recvmsg(size, _RECORD_TYPE_SPACE)
    except BlockingIOError:
        raise
    except OSError:
        # The kernel keeps the error for the next call, which is the alert's: asking for it takes it away.
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        raise
    for level, kind, value in control:
        if level == uapi.SOL_TLS and kind == uapi.TLS_GET_RECORD_TYPE:
            return value[0], data
    return (APPLICATION_DATA, data) if data else None
