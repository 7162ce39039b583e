"""Error codes (RFC 9113 section 7), and the two ways in which a peer breaks the protocol (section 5.4).

Both faults stay inside this package: `Endpoint.receive` turns a `StreamFault` into RST_STREAM and a `ConnectionFault`
into GOAWAY. A `label` is a short constant, fit for a metric; it never holds bytes from the network.
"""

from __future__ import annotations

import enum

from ..errors import PeerError


class ErrorCode(enum.IntEnum):
    """RFC 9113 section 7."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


class ConnectionFault(PeerError):
    """A connection error (section 5.4.1): the whole connection ends with `code`."""

    def __init__(self, code: ErrorCode, label: str) -> None:
        super().__init__(f"HTTP/2 connection error {code.name}: {label}")
        self.code = code
        self.label = label


class StreamFault(PeerError):
    """A stream error (section 5.4.2): one stream ends with `code`, the others go on."""

    def __init__(self, code: ErrorCode, label: str) -> None:
        super().__init__(f"HTTP/2 stream error {code.name}: {label}")
        self.code = code
        self.label = label
