"""A video for seeking: WebM with one VP8 picture a second, an index in front, and so much padding that it is not read whole.

WebM is a Matroska file (RFC 9559) and that is EBML (RFC 8794): elements of an identifier, a size and content. Browsers
make the pictures themselves: a lossy WebP image is a RIFF container around one VP8 key frame.
"""

from __future__ import annotations

import struct

EBML, EBML_DOC_TYPE = 0x1A45DFA3, 0x4282
SEGMENT, INFO, TIMESTAMP_SCALE, DURATION = 0x18538067, 0x1549A966, 0x2AD7B1, 0x4489
TRACKS, TRACK_ENTRY, TRACK_NUMBER, TRACK_UID, TRACK_TYPE, CODEC_ID = 0x1654AE6B, 0xAE, 0xD7, 0x73C5, 0x83, 0x86
VIDEO, PIXEL_WIDTH, PIXEL_HEIGHT = 0xE0, 0xB0, 0xBA
CUES, CUE_POINT, CUE_TIME, CUE_TRACK_POSITIONS, CUE_TRACK, CUE_CLUSTER_POSITION = (
    0x1C53BB6B,
    0xBB,
    0xB3,
    0xB7,
    0xF7,
    0xF1,
)
CLUSTER, TIMESTAMP, SIMPLE_BLOCK, VOID = 0x1F43B675, 0xE7, 0xA3, 0xEC

KEY_FRAME = 0x80
NANOSECONDS_PER_TICK = 1_000_000


def vp8_frame(webp: bytes) -> bytes:
    """The key frame in a lossy WebP image."""
    assert webp[:4] == b"RIFF"
    assert webp[8:12] == b"WEBP"
    place = 12
    while place < len(webp):
        kind, size = webp[place : place + 4], struct.unpack_from("<I", webp, place + 4)[0]
        if kind == b"VP8 ":
            return webp[place + 8 : place + 8 + size]
        place += 8 + size + size % 2
    raise AssertionError("the image is not lossy")


def webm(pictures: list[bytes], width: int, height: int, padding: int) -> bytes:
    """One picture (a VP8 key frame) a second, each followed by `padding` bytes that mean nothing."""
    entry = _element(
        TRACK_ENTRY,
        _number(TRACK_NUMBER, 1)
        + _number(TRACK_UID, 1)
        + _number(TRACK_TYPE, 1)
        + _element(CODEC_ID, b"V_VP8")
        + _element(VIDEO, _number(PIXEL_WIDTH, width) + _number(PIXEL_HEIGHT, height)),
    )
    duration = struct.pack(">d", len(pictures) * 1000.0)
    info = _element(INFO, _number(TIMESTAMP_SCALE, NANOSECONDS_PER_TICK) + _element(DURATION, duration))
    clusters = [
        _element(
            CLUSTER,
            _number(TIMESTAMP, second * 1000)
            + _element(SIMPLE_BLOCK, b"\x81" + struct.pack(">hB", 0, KEY_FRAME) + picture)
            + _element(VOID, bytes(padding)),
        )
        for second, picture in enumerate(pictures)
    ]
    first = len(info) + len(_element(TRACKS, entry)) + len(_cues([0] * len(clusters)))
    positions = [first + sum(map(len, clusters[:second])) for second in range(len(clusters))]
    segment = info + _element(TRACKS, entry) + _cues(positions) + b"".join(clusters)
    return _element(EBML, _element(EBML_DOC_TYPE, b"webm")) + _element(SEGMENT, segment)


def _cues(positions: list[int]) -> bytes:
    return _element(
        CUES,
        b"".join(
            _element(
                CUE_POINT,
                _number(CUE_TIME, second * 1000)
                + _element(CUE_TRACK_POSITIONS, _number(CUE_TRACK, 1) + _number(CUE_CLUSTER_POSITION, position)),
            )
            for second, position in enumerate(positions)
        ),
    )


def _element(identifier: int, content: bytes) -> bytes:
    # A size in eight bytes, of which the first only says that there are eight (RFC 8794 section 4).
    size = b"\x01" + len(content).to_bytes(7, "big")
    return identifier.to_bytes((identifier.bit_length() + 7) // 8, "big") + size + content


def _number(identifier: int, value: int) -> bytes:
    return _element(identifier, value.to_bytes(8, "big"))
