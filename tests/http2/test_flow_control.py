"""Windows, to the byte, against a plain count of what was sent and allowed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktls_server.http2.endpoint import Endpoint
from ktls_server.http2.flow_control import ReceiveWindow, SendWindow, WindowOverflow
from tests.http2 import wire

MOST = 2**31 - 1


def test_a_send_window_may_be_negative_and_may_not_overflow() -> None:
    window = SendWindow(10)
    window.widen(-30)
    assert window.size == -20
    window.widen(MOST)
    with pytest.raises(WindowOverflow):
        window.widen(21)
    assert window.size == MOST - 20
    window.widen(20)
    assert window.size == MOST


@settings(deadline=None)
@given(st.integers(1, 200), st.lists(st.tuples(st.booleans(), st.integers(0, 120)), max_size=60))
def test_a_receive_window_allows_what_it_says(size: int, steps: list[tuple[bool, int]]) -> None:
    window = ReceiveWindow(size)
    allowed, held, silent = size, 0, 0
    for comes, count in steps:
        if comes and count > allowed:
            with pytest.raises(WindowOverflow):
                window.receive(count)
        elif comes:
            window.receive(count)
            allowed -= count
            held += count
        else:
            given_back = min(count, held)
            held -= given_back
            increment = window.give_back(given_back)
            silent += given_back - increment
            allowed += increment
            assert increment == 0 or silent == 0
            assert silent * 2 < size, "half of the window at most is kept silent about"
        assert window.size == allowed
        assert allowed + held + silent == size


class Model:
    """What we may send, counted plainly."""

    def __init__(self, streams: int) -> None:
        self.initial = 65535
        self.connection = 65535
        self.streams = {1 + 2 * index: 65535 for index in range(streams)}

    def window(self, stream: int) -> int:
        return max(0, min(self.connection, self.streams[stream]))


_steps = st.tuples(
    st.sampled_from(["update", "update connection", "initial", "send", "plan"]),
    st.sampled_from([1, 3, 5]),
    st.integers(0, 120_000),
)


def frames_of(endpoint: Endpoint, stream: int, left: int, most: int) -> int:
    planned = endpoint.plan_data(stream, left, most, end_stream=False)
    assert [(int.from_bytes(header[:3], "big"), header[4]) for header, _ in planned] == [
        (size, 0) for _, size in planned
    ]
    assert all(size == endpoint.frame_payload for _, size in planned[:-1])
    return sum(size for _, size in planned)


@settings(deadline=None, max_examples=300)
@given(st.lists(_steps, max_size=40))
def test_what_may_be_sent(steps: list[tuple[str, int, int]]) -> None:
    endpoint, model = wire.connected(), Model(3)
    for stream in model.streams:
        endpoint.receive(wire.headers(stream), 0.0)
        endpoint.send_headers(stream, b"\x88", end_stream=False)
        endpoint.body_ready(stream)
    now = 0.0
    for what, stream, count in steps:
        now += 1.0
        match what:
            case "update":
                endpoint.receive(wire.window_update(stream, count + 1), now)
                model.streams[stream] += count + 1
            case "update connection":
                endpoint.receive(wire.window_update(0, count + 1), now)
                model.connection += count + 1
            case "initial":
                endpoint.receive(wire.settings((4, count)), now)
                for known in model.streams:
                    model.streams[known] += count - model.initial
                model.initial = count
            case "send":
                sent = min(count, model.window(stream), 16384)
                header = endpoint.data_header(stream, sent, end_stream=False)
                assert header == wire.frame(0, 0, stream, length=sent)
                model.connection -= sent
                model.streams[stream] -= sent
            case _:
                sent = frames_of(endpoint, stream, count + 1, 3)
                assert sent == min(count + 1, model.window(stream), 3 * 16375)
                endpoint.data_sent(stream, sent, end_stream=False)
                model.connection -= sent
                model.streams[stream] -= sent
        assert not endpoint.is_over
        assert {known: endpoint.window(known) for known in model.streams} == {
            known: model.window(known) for known in model.streams
        }
        can_send = {known for known in model.streams if model.window(known)}
        assert (endpoint.next_stream() in can_send) if can_send else endpoint.next_stream() is None
