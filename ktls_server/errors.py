"""Every exception that this project raises on purpose.

The first level says who is to blame, a leaf which stage failed. Messages never hold secrets, and never bytes from the
network as they came.
"""

import os


class KtlsServerError(Exception):
    """Base of all of them."""


class PeerError(KtlsServerError):
    """The client broke a rule or went away. It costs that connection and is not worth more than a debug line."""


class SystemRefusal(KtlsServerError):
    """The kernel, the file system or the TLS library refused. The message says what to do about it."""


class ConfigurationError(KtlsServerError):
    """What the user asked for cannot be. The message names the option, the value, where it came from, and the cure."""


class HandshakeFailed(PeerError):
    """The TLS handshake did not complete; `reason` is a short constant fit for a metric's label."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"TLS handshake failed: {reason}")
        self.reason = reason


class ConnectionLost(PeerError):
    """The client closed, reset or cut the connection, or broke the TLS record protocol."""


class BadRequest(PeerError):
    """The request cannot be answered as it stands.

    Takes the status to answer with (RFC 9110 section 15) and whether the bytes that follow can still be trusted to be
    the next request.
    """

    def __init__(self, status: int, explanation: str, *, close: bool = True) -> None:
        super().__init__(f"{status}: {explanation}")
        self.status = status
        self.explanation = explanation
        self.close = close


class TryLater(BadRequest):
    """The request cannot be answered now, because too many like it wait already: 503.

    `retry_after` is the number of whole seconds for the Retry-After field (RFC 9110 section 10.2.3). The connection can be
    used again.
    """

    def __init__(self, explanation: str, *, retry_after: int) -> None:
        super().__init__(503, explanation, close=False)
        self.retry_after = retry_after


class KernelTlsUnavailable(SystemRefusal):
    """The kernel cannot take this connection's records.

    `reason` is a short sentence for the log; `cure`, where one is known, says what to do. The message has both.
    """

    def __init__(self, reason: str, cure: str = "") -> None:
        super().__init__(f"{reason}: {cure}" if cure else reason)
        self.reason = reason
        self.cure = cure


class FileUnavailable(SystemRefusal):
    """The folder has nothing to give for a path; `status` says how to put it: 403, 404, or 503 when short of descriptors."""

    def __init__(self, status: int) -> None:
        super().__init__(f"no file to serve: {status}")
        self.status = status


class FileChanged(SystemRefusal):
    """A file shrank while it was being sent: the promised Content-Length cannot be kept, the connection must end."""


class FrameSpoilt(SystemRefusal):
    """A file changed or failed while it was sent in frames: the last frame holds zeros, its stream has to be reset.

    `sent` is how many frames are complete, the spoilt one included; `errno` 0 stands for a file that became shorter.
    """

    def __init__(self, sent: int, code: int) -> None:
        super().__init__(os.strerror(code) if code else "a file became shorter while it was being sent")
        self.sent = sent
        self.errno = code


class FileUnreadable(SystemRefusal):
    """A file could not be read while it was being sent (EIO, ESTALE): the response cannot be completed.

    It is the storage's fault, neither the client's nor ours. `errno` is the kernel's.
    """

    def __init__(self, code: int) -> None:
        super().__init__(f"a file could not be read: {os.strerror(code)}")
        self.errno = code


class Interrupted(KtlsServerError):
    """The server wants a connection to end that waits for its peer: its time is over, or its place is needed."""


class BadRecordMac(PeerError):
    """A record does not open under the key and the sequence number that it has to open with (RFC 8446 section 5.2)."""
