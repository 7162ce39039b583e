"""The sending half of a connection: one writer, and nobody else touches it.

An exchange sends (`write`, `send`, `send_file`), one at a time. Whoever reads posts what the peer has to be told: that the
server's key changes, that a renegotiation is refused, an alert. What is posted is a handful of flags, so it is bounded and
a second request for the same thing adds nothing. It goes out

- at once, where the socket has room;
- before the next bytes of the exchange that is sending, where one is: between records, never inside one;
- else when the socket has room again, without anybody waiting for that. The connection is told by `on_blocked`, because
  from then on the peer has to read within the time limit for sending.

What userspace has sealed and the socket did not take stays in the channel, not in a coroutine: a sender may be cancelled
at any await, and the next record still follows the last one byte by byte.

The AEAD's limit is kept here: before a key has sealed as many records as it may, it is replaced (TLS 1.3), or the
connection takes no further response.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from ..errors import ConnectionLost, FileChanged, FileUnreadable, FrameSpoilt
from ..handshake.records import ALERT, CLOSE_NOTIFY, HANDSHAKE, KEY_UPDATE_NOT_REQUESTED, MAX_PLAINTEXT_BYTES
from ..net.channel import YIELD, Channel
from .interface import Frame, Sealer

EXHAUSTED: Final = -0.41
"""How far a response that has begun may exceed the record limit, as a fraction of the limit: the AEAD's own limit lies
sqrt(2) times past that."""

FILE_PARTS_PER_KEY: Final = 256
"""How often the AEAD limit is looked at while a file goes out: every GiB, where a key is good for 2^24 full records."""


_ZEROS_BYTES: Final = 64 * 1024
"""How much of a spoilt frame is filled at a time."""


def _nobody_watches(_blocked: bool) -> None:
    """Where no time limit is kept."""


class Writer:
    """Sends for one connection.

    `flush` is the sealer's: True where the kernel has all that was taken. `refused` says that the peer asked for a change of
    keys that cannot be made.
    """

    __slots__ = (
        *("_alert", "_blocked", "_channel", "_control", "_failed", "_file_part_bytes", "_key_updates"),
        *("_on_blocked", "_posted", "_record_limit", "_records_left", "refused", "_sealer", "_sealer_write"),
        "_sending",
        *("_update_cause", "_warning", "ended", "flush", "path"),
    )

    def __init__(
        self,
        channel: Channel,
        sealer: Sealer,
        record_limit: int,
        key_updates: Counter[str] | None = None,
        record_bytes: int = MAX_PLAINTEXT_BYTES,
    ) -> None:
        """`record_limit` is how many records one key may seal, `record_bytes` the most content of one record.

        `key_updates` counts the changes of the server's key, by their cause: "answer" (the client asked) or "limit" (the
        AEAD's). "refused" counts those that ended a connection instead.
        """
        self._channel = channel
        self._sealer = sealer
        self._sealer_write = sealer.write
        self._record_limit = self._records_left = record_limit
        self._file_part_bytes = max(1, record_limit // FILE_PARTS_PER_KEY) * record_bytes
        self._key_updates: Counter[str] = Counter() if key_updates is None else key_updates
        self._on_blocked: Callable[[bool], None] = _nobody_watches
        self._posted = self._blocked = self._sending = self.refused = False
        self._failed = False
        self._update_cause = ""
        self._warning = self._alert = b""
        self._control: tuple[int, bytes] | None = None
        self.path = sealer.path
        self.flush = sealer.flush
        self.ended = False

    def watch(self, on_blocked: Callable[[bool], None]) -> None:
        """Call `on_blocked` with True when what was posted has to wait for the peer to read, with False when it is out."""
        self._on_blocked = on_blocked

    @property
    def must_close(self) -> bool:
        """True once the key is nearly used up and cannot be changed, or the peer asked for a change that cannot be made."""
        return self.refused or self.ended or (self._records_left <= 0 and not self._sealer.can_update)

    # What an exchange sends

    def write(self, data: bytes, *, more: bool = False) -> int:
        """Take as many bytes of `data` as the socket has room for; returns how many.

        Where these are not all, or `flush` says that not all is out, `finish` has to follow.

        With `more` the last record may wait for what follows at once, to share a record with it.
        """
        if self._posted and not self._send_posted():
            return 0
        if self.ended:
            raise ConnectionLost("close_notify or a fatal alert has been sent")
        left = self._records_left - 2 - 2 * len(data) // MAX_PLAINTEXT_BYTES
        if left > 0:
            self._records_left = left
        elif self._spend(len(data)) and not self._send_posted():
            return 0
        return self._sealer_write(data, more=more)

    async def send(self, data: bytes, *, more: bool = False) -> None:
        """All of `data`; returns once the kernel has it, but for what waits for more."""
        await self.finish(data, self.write(data, more=more), more=more)

    async def finish(self, data: bytes, taken: int, *, more: bool = False) -> None:
        """Complete a `write` that has taken `taken` bytes of `data`."""
        sealer = self._sealer
        if taken == len(data) and sealer.flush():
            return
        self._sending = True
        try:
            while taken < len(data) or not sealer.flush():
                await self._channel.writable()
                if taken < len(data):
                    taken += self.write(data[taken:], more=more)
                    if taken < len(data):
                        await YIELD
        finally:
            self._stop_sending()

    async def send_file(self, fd: int, offset: int, count: int) -> None:
        """`count` bytes of an open file from `offset`.

        Raises FileChanged where the file has become shorter than that, FileUnreadable where it cannot be read.
        """
        sealer, channel = self._sealer, self._channel
        self._sending = True
        try:
            while count:
                part = min(count, self._file_part_bytes)
                while (self._posted or self._spend(part)) and not self._send_posted():
                    await channel.writable()
                if self.ended:
                    raise ConnectionLost("a fatal alert has been sent")
                offset_of_part = offset
                while part:
                    sent = await sealer.send_file(fd, offset, part)
                    offset += sent
                    part -= sent
                    if part and self._posted:
                        break
                    if part:
                        await YIELD
                count -= offset - offset_of_part
                if count:
                    await YIELD
            while not sealer.flush():
                await channel.writable()
        finally:
            self._stop_sending()

    async def send_frames(self, frames: Sequence[Frame], fd: int, offset: int) -> int:
        """Send a prefix of `frames`, at least one, whose payloads lie one behind the other in a file from `offset`.

        Returns how many, once the kernel has them. Raises FrameSpoilt, after the frame in question is complete.
        """
        sealer, channel = self._sealer, self._channel
        self._sending = True
        try:
            while (self._posted or self._spend(0)) and not self._send_posted():
                await channel.writable()
            if self.ended:
                raise ConnectionLost("a fatal alert has been sent")
            sent = 1
            try:
                sent = await sealer.send_frames(frames, fd, offset)
                return sent
            finally:
                self._records_left -= sum(2 + payload // MAX_PLAINTEXT_BYTES for _, payload in frames[:sent])
                while not channel.closed and not sealer.flush():
                    await channel.writable()
        finally:
            self._stop_sending()

    def _stop_sending(self) -> None:
        self._sending = False
        if self._posted or self._blocked:
            self._flush_posted()

    def _spend(self, count: int) -> bool:
        """Account for the records that `count` bytes become; True where the key has to be changed first.

        RFC 9846 section 5.5. The kernel's records may be shorter than they could be: counted as if half as long.
        """
        self._records_left -= 2 + 2 * count // MAX_PLAINTEXT_BYTES
        if self._records_left > 0:
            return False
        if self._sealer.can_update:
            self._update_cause = self._update_cause or "limit"
            self._posted = True
            return True
        if self._records_left < EXHAUSTED * self._record_limit:
            raise ConnectionLost("the key has sealed all the records that it may")
        return False

    # What others post

    def post_key_update(self) -> None:
        """The peer asked for new keys: change ours, and say so (RFC 8446 section 4.6.3).

        Where the sealer cannot change its key this ends the connection instead: `must_close`.
        """
        if self._sealer.can_update:
            self._update_cause = "answer"
            self._post()
        elif not self.refused:
            self.refused = True
            self._key_updates["refused"] += 1

    def post_warning(self, alert: bytes) -> None:
        """An alert that ends nothing: no_renegotiation in TLS 1.2."""
        self._warning = alert
        self._post()

    def post_alert(self, alert: bytes) -> None:
        """The last word: a fatal alert, or close_notify. Nothing can be sent after it; the first one counts."""
        if not self._alert and not self.ended:
            self._alert = alert
            self._post()

    def post_flush(self) -> None:
        """The sealer itself has something to send: OpenSSL wrote into its BIO."""
        self._post()

    async def close_notify(self) -> None:
        """Tell the peer that no more data comes (RFC 8446 section 6.1); returns once the kernel has all. Never twice."""
        self.post_alert(CLOSE_NOTIFY)
        await self.drain()

    async def drain(self) -> None:
        """Wait until what was posted is out."""
        self._sending = True  # What is posted meanwhile goes out here.
        try:
            while not (self._send_posted() if self._posted else self._sealer.flush()):
                await self._channel.writable()
        finally:
            self._stop_sending()

    def close(self) -> None:
        """Give back what the sealer holds for this connection, once nothing will be sent any more."""
        self._failed = True
        self._sealer.close()

    def _post(self) -> None:
        self._posted = True
        if not self._sending:
            self._flush_posted()

    def _flush_posted(self) -> None:
        """Send what is posted without waiting; where there is no room, again when there is."""
        if self._channel.closed or self._failed:
            return
        try:
            done = self._send_posted()
        except ConnectionLost:
            self._failed = True  # The reader meets the same end by itself.
            done = True
        if not done:
            self._channel.call_when_writable(self._flush_when_writable)
        if self._blocked is done:
            self._blocked = not done
            self._on_blocked(not done)

    def _flush_when_writable(self) -> None:
        if self._posted and not self._sending:
            self._flush_posted()

    def _send_posted(self) -> bool:
        """Hand over what is posted, in order; False where the socket has no room for all of it."""
        sealer = self._sealer
        while True:
            if not sealer.flush():
                return False
            if self._control is None and not self._next_control():
                self._posted = False
                return True
            assert self._control is not None
            content_type, content = self._control
            taken = sealer.control(content_type, content)
            if taken < len(content):
                self._control = content_type, content[taken:]
                return False
            self._control = None
            if content_type == HANDSHAKE:
                sealer.update()
                self._records_left = self._record_limit

    def _next_control(self) -> bool:
        if self.ended:
            return False
        if self._update_cause:
            # Further requests that come before this one is out are answered by it, too (RFC 8446 section 4.6.3).
            self._key_updates[self._update_cause] += 1
            self._update_cause = ""
            self._control = HANDSHAKE, KEY_UPDATE_NOT_REQUESTED
        elif self._warning:
            self._control, self._warning = (ALERT, self._warning), b""
        elif self._alert:
            self._control, self._alert = (ALERT, self._alert), b""
            self.ended = True
        else:
            return False
        return True


async def send_frame_in_parts(sealer: Sealer, channel: Channel, frame: Frame, fd: int, offset: int) -> int:
    """One frame by `sealer`, part by part: its header shares a record with what follows. Returns 1, as `Sealer.send_frames`.

    Raises FrameSpoilt after the frame is complete, with zeros for the bytes that the file did not give.
    """
    header, size = frame
    taken = 0
    while taken < len(header):
        taken += sealer.write(header[taken:], more=bool(size))
        if taken < len(header):
            await channel.writable()
    done = 0
    try:
        while done < size:
            done += await sealer.send_file(fd, offset + done, size - done)
            if done < size:
                await YIELD
    except (FileChanged, FileUnreadable) as error:
        while done < size:
            taken = sealer.write(bytes(min(size - done, _ZEROS_BYTES)), more=False)
            done += taken
            if not taken:
                await channel.writable()
        raise FrameSpoilt(1, error.errno if isinstance(error, FileUnreadable) else 0) from error
    return 1
