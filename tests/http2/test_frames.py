"""Framing: against a plain reference, and against hyperframe, which h2 uses."""

from itertools import pairwise

import hyperframe.frame
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktls_server.http2 import frames
from ktls_server.http2.faults import ConnectionFault, ErrorCode
from ktls_server.http2.frames import FrameReader, Setting
from tests.http2 import wire

FRAMES = st.lists(
    st.tuples(st.integers(0, 255), st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary(max_size=50)), max_size=6
)


def read(reader: FrameReader, pieces: list[bytes]) -> list[frames.Frame]:
    found = []
    for piece in pieces:
        reader.feed(piece)
        while (one := reader.next_frame()) is not None:
            found.append(one)
    return found


@settings(deadline=None)
@given(FRAMES, st.lists(st.integers(0, 400), max_size=5), st.binary(max_size=8))
def test_a_stream_is_cut_as_the_reference_cuts_it(
    sent: list[tuple[int, int, int, bytes]], cuts: list[int], rest: bytes
) -> None:
    encoded = wire.PREFACE + b"".join(wire.frame(*one) for one in sent)
    expected = [(kind, flags, stream & 0x7FFFFFFF, payload) for kind, flags, stream, payload in sent]
    assert list(wire.cut_frames(encoded[24:])) == sent
    whole = encoded + rest
    at = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    for pieces in (
        [whole],
        [whole[index : index + 1] for index in range(len(whole))],
        [whole[start:end] for start, end in pairwise(at)],
    ):
        assert read(FrameReader(), pieces) == expected


def test_a_frame_that_is_too_long_is_refused_before_it_came() -> None:
    reader = FrameReader()
    reader.feed(wire.PREFACE + wire.ping() + wire.frame(0, 0, 1, length=16385))
    assert reader.next_frame() is not None
    with pytest.raises(ConnectionFault) as caught:
        reader.next_frame()
    assert caught.value.code is ErrorCode.FRAME_SIZE_ERROR


@pytest.mark.parametrize("at", range(24))
def test_the_preface_is_refused_at_the_first_byte_that_differs(at: int) -> None:
    reader = FrameReader()
    if at:
        reader.feed(wire.PREFACE[:at])
    with pytest.raises(ConnectionFault):
        reader.feed(b"x")


@settings(deadline=None)
@given(
    st.integers(1, 2**31 - 1),
    st.binary(max_size=200),
    st.integers(10, 50),
    st.booleans(),
)
def test_field_blocks_are_split_where_they_must(stream: int, block: bytes, size: int, end: bool) -> None:
    sent = list(wire.cut_frames(frames.headers_frames(stream, block, size, end_stream=end)))
    assert b"".join(payload for *_, payload in sent) == block
    assert [kind for kind, *_ in sent] == [1] + [9] * (len(sent) - 1)
    assert all(0 < len(payload) <= size for *_, payload in sent) or block == b""
    assert [bool(flags & 4) for _, flags, *_ in sent] == [False] * (len(sent) - 1) + [True]
    assert [flags & 1 for _, flags, *_ in sent] == [end] + [0] * (len(sent) - 1)
    assert {one[2] for one in sent} == {stream}


def by_hyperframe(encoded: bytes) -> hyperframe.frame.Frame:
    found, length = hyperframe.frame.Frame.parse_frame_header(memoryview(encoded[:9]))
    assert length == len(encoded) - 9
    found.parse_body(memoryview(encoded[9:]))
    return found


def test_builders_as_hyperframe_reads_them() -> None:
    reset = by_hyperframe(frames.rst_stream_frame(7, ErrorCode.CANCEL))
    assert isinstance(reset, hyperframe.frame.RstStreamFrame)
    assert (reset.stream_id, reset.error_code) == (7, 8)
    goaway = by_hyperframe(frames.goaway_frame(2**31 - 1, ErrorCode.ENHANCE_YOUR_CALM))
    assert isinstance(goaway, hyperframe.frame.GoAwayFrame)
    assert (goaway.last_stream_id, goaway.error_code) == (2**31 - 1, 11)
    pong = by_hyperframe(frames.ping_frame(b"abcdefgh", ack=True))
    assert isinstance(pong, hyperframe.frame.PingFrame)
    assert (pong.opaque_data, set(pong.flags)) == (b"abcdefgh", {"ACK"})
    ping = by_hyperframe(frames.ping_frame(b"abcdefgh", ack=False))
    assert not set(ping.flags)
    update = by_hyperframe(frames.window_update_frame(3, 2**31 - 1))
    assert isinstance(update, hyperframe.frame.WindowUpdateFrame)
    assert (update.stream_id, update.window_increment) == (3, 2**31 - 1)
    ours = by_hyperframe(frames.settings_frame({Setting.MAX_CONCURRENT_STREAMS: 5, Setting.MAX_HEADER_LIST_SIZE: 6}))
    assert isinstance(ours, hyperframe.frame.SettingsFrame)
    assert (ours.settings, set(ours.flags)) == ({3: 5, 6: 6}, set())
    assert set(by_hyperframe(frames.SETTINGS_ACK).flags) == {"ACK"}


@pytest.mark.parametrize("length", [0, 1, 255, 256, 16375, 2**16, 2**24 - 1])
def test_a_header_goes_without_its_payload(length: int) -> None:
    header = frames.frame_header(length, frames.FrameType.DATA, frames.END_STREAM, 2**31 - 1)
    assert len(header) == frames.HEADER_BYTES
    found, size = hyperframe.frame.Frame.parse_frame_header(memoryview(header))
    assert isinstance(found, hyperframe.frame.DataFrame)
    assert (size, found.stream_id, set(found.flags)) == (length, 2**31 - 1, {"END_STREAM"})
