"""The kernel encrypts (`TLS_TX`) and, where it is asked to, decrypts (`TLS_RX`).

From the installation on, whatever is written to the socket is plaintext for the kernel to seal, and files go by sendfile.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Callable, Sequence
from typing import Final

from ..errors import ConnectionLost, FrameSpoilt, KernelTlsUnavailable
from ..handshake.records import MAX_PLAINTEXT_BYTES
from ..handshake.session import Session
from ..kernel import sockets
from ..kernel.crypto_info import pack
from ..keys.schedule import RecordKey
from ..net.channel import Channel
from ..net.pipes import Pipe
from .interface import Frame
from .reading import BAD_RECORD_MAC, END_OF_STREAM, PROTOCOL_VERSION, RECORD_OVERFLOW, RecordRefused
from .userspace import UserspaceOpener
from .writer import send_frame_in_parts

_log = logging.getLogger(__name__)

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_PIPED_FRAME_BYTES: Final = 64 * 1024
"""Frames up to this size go through a pipe, several for each call. Larger ones cost little by themselves."""


class KernelSealer:
    """`Sealer` over a socket that the kernel encrypts on."""

    __slots__ = ("_channel", "_pipe", "_secret", "_send", "_suite", "can_update")

    path = "kernel"

    def __init__(self, channel: Channel, session: Session, *, can_rekey: bool) -> None:
        """Install the key. Raises KernelTlsUnavailable, and the socket then goes on sending what it is given.

        All that userspace has encrypted is out already: from now on whatever is written gets encrypted.
        """
        assert session.suite is not None
        self._channel = channel
        self._pipe: Pipe | None = None
        self._send = channel.sock.send
        self._suite = session.suite
        self._secret = session.server_secret()
        self.can_update = can_rekey and self._secret is not None
        info = pack(self._suite, session.server_key(), session.transmit_sequence, session.transmit_explicit_nonce)
        sockets.attach(channel.sock)
        if session.max_plaintext_bytes < MAX_PLAINTEXT_BYTES:
            _require_payload_limit(channel.sock, info, session.max_plaintext_bytes)
        else:
            sockets.install_transmit(channel.sock, info)

    def write(self, data: bytes, *, more: bool) -> int:
        if self._pipe is not None and not self.flush():
            return 0
        while True:
            try:
                sent = self._send(data, socket.MSG_MORE if more else 0)
            except (BlockingIOError, InterruptedError):
                return 0
            except OSError as error:
                if not _is_about_receiving(error):
                    raise ConnectionLost("the connection broke while writing") from error
            else:
                self._channel.sent += sent
                return sent

    def flush(self) -> bool:
        """What was put into the pipe goes on its way."""
        pipe = self._pipe
        if pipe is None:
            return True
        channel = self._channel
        while pipe.held:
            try:
                moved = os.splice(pipe.read_fd, channel.fd, pipe.held, flags=os.SPLICE_F_NONBLOCK)
            except (BlockingIOError, InterruptedError):
                return False
            except OSError as error:
                if _is_about_receiving(error):
                    continue
                self.close()
                raise ConnectionLost("the connection broke while sending a file") from error
            pipe.held -= moved
            channel.sent += moved
            # After a RST, Linux 6.1 says EPIPE once and then takes bytes again.
            if not moved or (pipe.held and channel.is_broken()):
                self.close()
                raise ConnectionLost("the connection broke while sending a file")
        self.close()
        return True

    def close(self) -> None:
        """Close the pipe that holds bytes of this connection, if there is one."""
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            pipe.close()

    async def send_frames(self, frames: Sequence[Frame], fd: int, offset: int) -> int:
        channel = self._channel
        while not self.flush():
            await channel.writable()
        if frames[0].payload_bytes > _PIPED_FRAME_BYTES:
            return await send_frame_in_parts(self, channel, frames[0], fd, offset)
        try:
            pipe = self._pipe = Pipe()
        except OSError:
            return await send_frame_in_parts(self, channel, frames[0], fd, offset)
        sent, spoilt = _fill(pipe, frames, fd, offset)
        if not sent:
            self.close()
            return await send_frame_in_parts(self, channel, frames[0], fd, offset)
        self.flush()
        if spoilt is not None:
            raise spoilt
        return sent

    async def send_file(self, fd: int, offset: int, count: int) -> int:
        channel = self._channel
        while True:
            try:
                sent = await channel.send_file_part(fd, offset, count)
            except ConnectionLost as loss:
                if not _is_about_receiving(loss.__cause__):
                    raise
                continue
            if sent < count and channel.is_broken():
                raise ConnectionLost("the connection broke while sending a file")
            return sent

    def control(self, content_type: int, content: bytes) -> int:
        if self._pipe is not None and not self.flush():
            return 0
        try:
            return sockets.send_control(self._channel.sock, content_type, content)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            raise ConnectionLost("the connection broke while writing") from error

    def update(self) -> None:
        assert self._secret is not None
        _change_key(sockets.install_transmit, self._channel.sock, pack(self._suite, self._secret.advance(), 0))


def _fill(pipe: Pipe, frames: Sequence[Frame], fd: int, offset: int) -> tuple[int, FrameSpoilt | None]:
    """Put as many whole frames as fit into an empty pipe; returns how many, and what happened to the last one's file."""
    free = pipe.slots
    sent = 0
    for header, size in frames:
        # A header takes a buffer of its own, and a file's bytes one for each page that they touch.
        free -= 2 + (size + _PAGE_BYTES - 1) // _PAGE_BYTES
        if free < 0:
            break
        pipe.held += os.write(pipe.write_fd, header)
        done, code = 0, 0
        while done < size:
            try:
                moved = os.splice(fd, pipe.write_fd, size - done, offset_src=offset + done)
            except OSError as error:
                code = error.errno or 0
                break
            if not moved:
                break
            done += moved
        pipe.held += done
        offset += done
        sent += 1
        if done < size:
            pipe.held += os.write(pipe.write_fd, bytes(size - done))
            return sent, FrameSpoilt(sent, code)
    return sent, None


def _require_payload_limit(sock: socket.socket, info: bytes, size: int) -> None:
    """Key a socket whose records have to be short. Raises KernelTlsUnavailable where the key is refused.

    The limit can be set only on a socket that has a key, and a key cannot be taken back: whether the kernel knows the
    limit was found out by the probe. A refusal of the limit leaves a connection that cannot be served: ConnectionLost.
    """
    sockets.install_transmit(sock, info)
    try:
        sockets.limit_payload(sock, size)
    except KernelTlsUnavailable as refusal:
        raise ConnectionLost("the kernel would not shorten its records") from refusal


def _is_about_receiving(error: BaseException | None) -> bool:
    """Whether the socket's error came from decrypting, and a send only happened to collect it.

    The kernel reports a broken record to whichever call comes next. What came before that record is still answered; the
    reader meets the record again.
    """
    return isinstance(error, OSError) and error.errno in (errno.EBADMSG, errno.EMSGSIZE)


class KernelOpener:
    """`Opener` over a socket that the kernel decrypts on; only records that are not application data are looked at here.

    Where bytes came together with the client's Finished, the kernel will never see them: the records that they belong to
    are opened in userspace, one by one, and the kernel takes over at the first boundary where none are left.
    """

    __slots__ = ("_channel", "_early", "_suite", "pending")

    def __init__(self, channel: Channel, session: Session, early: UserspaceOpener) -> None:
        """`early` holds what was read already. Raises KernelTlsUnavailable, and `early` can go on instead."""
        assert session.suite is not None
        self._channel = channel
        self._suite = session.suite
        self._early: UserspaceOpener | None = early
        # The kernel may hold a KeyUpdate that poll says nothing of: wait only after a read that found nothing.
        self.pending = True
        if not early.buffered:
            sockets.install_receive(channel.sock, pack(session.suite, session.client_key(), session.receive_sequence))
            self._early = None

    def next(self) -> tuple[int, bytes] | None:
        early = self._early
        if early is not None:
            record = early.next(at_most_one=True)
            if record is not None and record is not END_OF_STREAM and not early.buffered:
                self._early = None
                info = pack(self._suite, early.key, early.sequence)
                _change_key(sockets.install_receive, self._channel.sock, info)
            self.pending = record is not None
            return record
        try:
            record = sockets.receive(self._channel.sock, MAX_PLAINTEXT_BYTES)
        except (BlockingIOError, InterruptedError):
            self.pending = False
            return None
        except OSError as error:
            alert = _ALERT_FOR_ERRNO.get(error.errno or 0)
            if alert is None:
                raise ConnectionLost("the connection broke while reading") from error
            raise RecordRefused(alert) from error
        self.pending = True
        return END_OF_STREAM if record is None else record

    def update(self, key: RecordKey) -> None:
        if self._early is not None:
            self._early.update(key)
        else:
            _change_key(sockets.install_receive, self._channel.sock, pack(self._suite, key, 0))


_ALERT_FOR_ERRNO: Final = {
    errno.EBADMSG: BAD_RECORD_MAC,
    errno.EMSGSIZE: RECORD_OVERFLOW,
    errno.EINVAL: PROTOCOL_VERSION,
}
"""What a read from a socket with TLS_RX may fail with: see kernel/sockets.py."""


def _change_key(install: Callable[[socket.socket, bytes], None], sock: socket.socket, info: bytes) -> None:
    """Replace the key of one direction. A refusal (short of memory; a network card that encrypts) ends the connection."""
    try:
        install(sock, info)
    except KernelTlsUnavailable as refusal:
        _log.warning("a connection is cut: its key cannot be changed: %s", refusal)
        raise ConnectionLost("the kernel would not change the key") from refusal
