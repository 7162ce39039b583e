"""A whole connection: against h2 as the client, and against itself with the bytes cut elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktls_server.http2.endpoint import Endpoint
from ktls_server.http2.events import DataReceived, Event, HeadTooLarge, RequestEnded, RequestReceived, StreamReset
from ktls_server.http2.faults import ErrorCode
from ktls_server.http2.header_blocks import ResponseHeads
from ktls_server.http2.request_heads import RememberedRequests
from tests.http2 import wire

HEADS = ResponseHeads([(b"server", b"ours")])


def content(path: bytes, size: int) -> bytes:
    return (path * (size // len(path) + 1))[:size]


class Server:
    """What a conversation does with an endpoint: a body of the size that the path names, echoing nothing."""

    def __init__(self) -> None:
        self.endpoint = Endpoint(4096, RememberedRequests())
        self.bodies: dict[int, bytes] = {}
        self.sent: dict[int, int] = {}
        self.requests: dict[int, tuple[bytes, bytes]] = {}
        self.received: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.now = 0.0

    def receive(self, data: bytes) -> bytes:
        self.now += 0.1
        out = b""
        for event in self.endpoint.receive(data, self.now):
            out += self.on(event)
        return out + self.endpoint.take_output()

    def on(self, event: Event) -> bytes:
        match event:
            case RequestReceived(stream, head, ends):
                self.requests[stream] = head.request.method, head.request.target
                self.received[stream] = b""
                if ends:
                    self.ended.add(stream)
                size = int(head.request.target[1:])
                block = HEADS.head(200, [(b"X-Path", head.request.target)], size, 0)
                if size == 0:
                    return self.endpoint.send_headers(stream, block, end_stream=True)
                self.bodies[stream] = content(head.request.target, size)
                self.sent[stream] = 0
                out = self.endpoint.send_headers(stream, block, end_stream=False)
                self.endpoint.body_ready(stream)
                return out
            case DataReceived(stream, data, ends):
                self.received[stream] += data
                self.endpoint.give_back(stream, len(data))
                if ends:
                    self.ended.add(stream)
            case RequestEnded(stream, _):
                self.ended.add(stream)
            case StreamReset(stream, _, _, _):
                self.bodies.pop(stream, None)
            case _:
                pass
        return b""

    def send(self, max_frames: int) -> bytes:
        """One turn."""
        stream = self.endpoint.next_stream()
        if stream is None:
            return b""
        body, sent = self.bodies[stream], self.sent[stream]
        out = b""
        for header, size in self.endpoint.plan_data(stream, len(body) - sent, max_frames, end_stream=True):
            out += header + body[sent : sent + size]
            sent += size
        assert sent > self.sent[stream]
        self.endpoint.data_sent(stream, sent - self.sent[stream], end_stream=sent == len(body))
        self.sent[stream] = sent
        if sent == len(body):
            del self.bodies[stream]
        return out


@dataclass
class Client:
    """h2, and what it got."""

    h2: h2.connection.H2Connection = field(
        default_factory=lambda: h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, header_encoding=None)
        )
    )
    statuses: dict[int, bytes] = field(default_factory=dict)
    bodies: dict[int, bytes] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    unread: dict[int, int] = field(default_factory=dict)
    resets: dict[int, int] = field(default_factory=dict)

    def receive(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                assert event.headers is not None
                assert event.stream_id is not None
                self.statuses[event.stream_id] = bytes(dict(event.headers)[b":status"])
                self.bodies[event.stream_id] = b""
            elif isinstance(event, h2.events.DataReceived):
                assert event.stream_id is not None
                assert event.flow_controlled_length is not None
                self.bodies[event.stream_id] += event.data or b""
                self.unread[event.stream_id] = self.unread.get(event.stream_id, 0) + event.flow_controlled_length
            elif isinstance(event, h2.events.StreamEnded):
                assert event.stream_id is not None
                self.ended.add(event.stream_id)
            elif isinstance(event, h2.events.StreamReset):
                assert event.stream_id is not None
                self.resets[event.stream_id] = int(event.error_code or 0)
            else:
                assert not isinstance(event, h2.events.ConnectionTerminated), event

    def read(self, stream: int) -> None:
        """Give back what came on a stream."""
        count = self.unread.pop(stream, 0)
        if count and stream not in self.resets:
            self.h2.acknowledge_received_data(count, stream)


_actions = st.one_of(
    st.tuples(st.just("get"), st.sampled_from([0, 1, 100, 16375, 16376, 70_000, 300_000]), st.booleans()),
    st.tuples(st.just("post"), st.sampled_from([0, 1, 50_000, 200_000]), st.booleans()),
    st.tuples(st.just("turn"), st.integers(1, 5), st.booleans()),
    st.tuples(st.just("read"), st.integers(0, 5), st.booleans()),
    st.tuples(st.just("reset"), st.integers(0, 5), st.booleans()),
    st.tuples(st.just("initial window"), st.sampled_from([0, 1, 1000, 65535, 100_000]), st.booleans()),
    st.tuples(st.just("frame size"), st.sampled_from([16384, 20_000, 100_000]), st.booleans()),
    st.tuples(st.just("ping"), st.just(0), st.booleans()),
)


@settings(deadline=None, max_examples=150)
@given(st.lists(_actions, max_size=40))
def test_everything_arrives_at_h2_byte_for_byte(actions: list[tuple[str, int, bool]]) -> None:
    server, client = Server(), Client()
    client.h2.initiate_connection()
    asked: dict[int, int] = {}
    uploads: dict[int, bytearray] = {}
    posted: dict[int, bytes] = {}

    def exchange() -> None:
        data = client.h2.data_to_send()
        cut = len(data) // 3
        client.receive(server.receive(data[:cut]) + server.receive(data[cut:]))

    def upload() -> None:
        for stream, rest in list(uploads.items()):
            if stream in client.resets:
                del uploads[stream]
                continue
            piece = bytes(rest[: min(client.h2.local_flow_control_window(stream), 16384)])
            del rest[: len(piece)]
            client.h2.send_data(stream, piece, end_stream=not rest)
            if not rest:
                del uploads[stream]

    exchange()
    for action, number, flag in actions:
        streams = sorted(asked)
        match action:
            case "get" | "post":
                stream = client.h2.get_next_available_stream_id()
                asked[stream] = number
                fields = [(b":method", action.upper().encode()), (b":scheme", b"https"), (b":authority", b"a.example")]
                fields += [(b":path", b"/%d" % (number if action == "get" else 5)), (b"x-flag", b"%d" % flag)]
                fields += [(b"cookie", b"a=1"), (b"cookie", b"b=2")] if flag else []
                client.h2.send_headers(stream, fields, end_stream=action == "get")
                if action == "post":
                    asked[stream] = 5
                    posted[stream] = content(b"up", number)
                    uploads[stream] = bytearray(posted[stream])
            case "turn":
                client.receive(server.send(number))
                upload()
            case "read" if streams:
                client.read(streams[number % len(streams)])
            case "reset" if streams and flag:
                stream = streams[number % len(streams)]
                if stream not in client.ended and stream not in client.resets:
                    client.h2.reset_stream(stream, 8)
                    client.resets[stream] = 8
                    uploads.pop(stream, None)
                    client.unread.pop(stream, None)
            case "initial window":
                client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: number})
            case "frame size":
                client.h2.update_settings({h2.settings.SettingCodes.MAX_FRAME_SIZE: number})
            case "ping":
                client.h2.ping(b"12345678")
        exchange()
    client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 65535})
    for _ in range(2000):
        # To the end, with a client that reads. Streams that were reset have not given their part of the window back.
        upload()
        exchange()
        client.receive(server.send(4))
        for stream in list(client.unread):
            client.read(stream)
        if client.h2.inbound_flow_control_window < 30_000:
            client.h2.increment_flow_control_window(65535)
        if not uploads and not server.bodies and client.ended | set(client.resets) >= set(asked):
            break
    assert client.ended | set(client.resets) == set(asked)
    for stream, size in asked.items():
        if stream in client.resets:
            continue
        assert client.statuses[stream] == b"200"
        assert client.bodies[stream] == content(b"/%d" % size, size)
        assert server.received[stream] == posted.get(stream, b"")
        assert stream in server.ended
    assert server.endpoint.open_streams == 0
    assert not server.endpoint.is_over


# Bytes that are cut elsewhere

_payloads = st.one_of(
    st.just(b""), st.binary(max_size=12), st.just(wire.block(wire.GET)), st.just(bytes(8)), st.just(wire.number(70000))
)
_frames = st.one_of(
    st.builds(
        wire.frame,
        st.sampled_from([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 99]),
        st.sampled_from([0, 1, 4, 5, 8, 0x25, 0xFF]),
        st.sampled_from([0, 1, 2, 3, 5]),
        _payloads,
    ),
    st.builds(
        wire.headers, st.sampled_from([1, 3, 5, 7]), st.just(wire.POST), end=st.booleans(), end_headers=st.booleans()
    ),
    st.builds(wire.data, st.sampled_from([1, 3, 5, 7]), st.binary(max_size=100), end=st.booleans()),
    st.builds(wire.continuation, st.sampled_from([1, 3, 5, 7])),
    st.builds(wire.rst_stream, st.sampled_from([1, 3])),
    st.builds(wire.window_update, st.sampled_from([0, 1, 3]), st.sampled_from([1, 2**31 - 1])),
    st.just(wire.settings((4, 0))),
    st.just(wire.ping()),
)


@settings(deadline=None, max_examples=500)
@given(st.lists(_frames, max_size=12), st.lists(st.integers(0, 500), max_size=4), st.binary(max_size=5))
def test_how_bytes_are_cut_makes_no_difference(frames: list[bytes], cuts: list[int], rest: bytes) -> None:
    whole = wire.OPENING + b"".join(frames) + rest
    at = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    outcomes = []
    for pieces in (
        [whole],
        [whole[index : index + 1] for index in range(len(whole))],
        [whole[start:end] for start, end in pairwise(at)],
    ):
        endpoint = wire.endpoint()
        events = [event for piece in pieces for event in endpoint.receive(piece, 1.0)]
        outcomes.append((events, endpoint.take_output(), endpoint.is_over, endpoint.open_streams))
        # What was reported and did not end is open, and nothing else is.
        opened = {event.stream_id for event in events if isinstance(event, RequestReceived | HeadTooLarge)}
        gone = {event.stream_id for event in events if isinstance(event, StreamReset)}
        assert set(endpoint._streams) == opened - gone
    assert outcomes[0] == outcomes[1] == outcomes[2]


# Requests


def requested(*fields: tuple[bytes, bytes], endpoint: Endpoint | None = None, stream: int = 1) -> RequestReceived:
    endpoint = endpoint or wire.connected()
    (event,) = endpoint.receive(wire.headers(stream, fields), 0.0)
    assert isinstance(event, RequestReceived)
    return event


def test_a_request_is_the_one_that_http_1_makes() -> None:
    event = requested(*wire.GET, (b"accept", b"a"), (b"accept", b"b"), (b"cookie", b"c=1"), (b"cookie", b"d=2"))
    request = event.head.request
    assert (request.method, request.target, request.version, request.keep_alive) == (b"GET", b"/", b"2.0", True)
    assert request.headers_untrusted == [
        (b"host", b"a.example"),
        (b"accept", b"a"),
        (b"accept", b"b"),
        (b"cookie", b"c=1; d=2"),
    ]
    assert request.header_list(b"accept") == b"a, b"


def test_a_connect_request_has_its_authority_as_target() -> None:
    head = requested((b":method", b"CONNECT"), (b":authority", b"a.example:443")).head
    assert (head.request.method, head.request.target, head.scheme) == (b"CONNECT", b"a.example:443", b"")


def test_the_same_fields_are_the_same_request_on_any_connection() -> None:
    requests = RememberedRequests()
    found = []
    for _ in range(2):
        endpoint = Endpoint(4096, requests)
        endpoint.receive(wire.OPENING, 0.0)
        found += [requested(*wire.GET, endpoint=endpoint, stream=stream).head for stream in (1, 3)]
    assert found[0] is found[1] is found[2] is found[3]


@pytest.mark.parametrize("secret", [b"cookie", b"authorization"])
def test_a_request_with_a_secret_is_not_remembered(secret: bytes) -> None:
    requests = RememberedRequests()
    endpoint = Endpoint(4096, requests)
    endpoint.receive(wire.OPENING, 0.0)
    heads = [requested(*wire.GET, (secret, b"s"), endpoint=endpoint, stream=stream).head for stream in (1, 3)]
    assert heads[0] == heads[1]
    assert heads[0] is not heads[1]
    assert not requests._heads


def test_requests_are_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RememberedRequests, "MAX_REQUESTS", 2)
    requests = RememberedRequests()
    for path in (b"/1", b"/2", b"/1", b"/3"):
        requests.parse((*wire.GET[:3], (b":path", path)))
    assert [head.request.target for head in requests._heads.values()] == [b"/1", b"/3"]


def test_a_memo_does_not_outlive_the_limit_of_the_list() -> None:
    endpoint = wire.connected(max_header_list_bytes=1024)
    large = wire.headers(1, (*wire.GET, (b"a", b"x" * 1000)))
    for stream in (1, 3):
        events = endpoint.receive(large[:5] + wire.number(stream) + large[9:], 0.0)
        assert [wire.event_in_words(event) for event in events] == [f"too large {stream} end"]


# Priorities


def test_the_priority_of_a_request() -> None:
    endpoint = wire.connected()
    endpoint.receive(wire.priority_update(3, b"u=0"), 0.0)
    for stream, value in ((1, b"u=5, i"), (3, b"u=6"), (5, b"nonsense=")):
        requested(*wire.GET, (b"priority", value), endpoint=endpoint, stream=stream)
        endpoint.send_headers(stream, b"\x88", end_stream=False)
    for stream in (1, 3, 5):
        endpoint.body_ready(stream)
    order = []
    for _ in range(3):
        stream = endpoint.next_stream() or 0
        order.append(stream)
        endpoint.data_header(stream, 10, end_stream=True)
    assert order == [3, 5, 1]
    assert endpoint.next_stream() is None


def test_a_body_that_waits_is_passed_over() -> None:
    endpoint = wire.connected()
    for stream in (1, 3):
        requested(*wire.GET, endpoint=endpoint, stream=stream)
        endpoint.send_headers(stream, b"\x88", end_stream=False)
        endpoint.body_ready(stream)
    endpoint.body_waits(1)
    assert endpoint.next_stream() == 3
    endpoint.receive(wire.window_update(1, 10), 0.0)
    assert endpoint.next_stream() == 3
    endpoint.receive(wire.priority_update(1, b"u=0"), 0.0)
    endpoint.body_ready(1)
    assert endpoint.next_stream() == 1
    endpoint.body_waits(99)


# Sending


def test_our_settings_come_first() -> None:
    sent = list(wire.cut_frames(wire.endpoint(5000).take_output()))
    assert sent == [(4, 0, 0, wire.settings((3, 100), (6, 5000), (9, 1))[9:])]


def test_the_first_block_empties_our_table() -> None:
    endpoint = wire.connected()
    blocks = []
    for stream in (1, 3):
        requested(*wire.GET, endpoint=endpoint, stream=stream)
        blocks.append(endpoint.send_headers(stream, b"\x88", end_stream=True)[9:])
    assert blocks == [b"\x20\x88", b"\x88"]


def test_planned_frames() -> None:
    endpoint = wire.connected()
    requested(*wire.GET, endpoint=endpoint)
    endpoint.send_headers(1, b"\x88", end_stream=False)

    def sizes(left: int, most: int) -> list[tuple[int, bool]]:
        planned = endpoint.plan_data(1, left, most, end_stream=True)
        return [(size, header[4] == 1) for header, size in planned]

    assert sizes(1, 4) == [(1, True)]
    assert sizes(16375, 4) == [(16375, True)]
    assert sizes(16376, 4) == [(16375, False), (1, True)]
    assert sizes(16376, 1) == [(16375, False)]
    assert sizes(2 * 16375, 2) == [(16375, False), (16375, True)]
    assert sizes(10**10, 50) == [(16375, False)] * 4 + [(35, False)]
    assert [header[4] for header, _ in endpoint.plan_data(1, 5, 4, end_stream=False)] == [0]
    endpoint.receive(wire.settings((5, 2**24 - 1), (4, 2**31 - 1)) + wire.window_update(0, 2**31 - 1 - 65535), 0.0)
    assert endpoint.frame_payload == 2**20 - 9
    assert sizes(2**20, 50) == [(2**20 - 9, False), (9, True)]
    endpoint.data_sent(1, endpoint.window(1) + 2**20, end_stream=False)
    assert sizes(1, 1) == []


def test_what_is_planned_holds_the_window_of_the_connection() -> None:
    endpoint = wire.connected()
    for stream in (1, 3):
        requested(*wire.GET, endpoint=endpoint, stream=stream)
        endpoint.send_headers(stream, b"\x88", end_stream=False)
        endpoint.body_ready(stream)
    assert len(endpoint.plan_data(1, 10**6, 3, end_stream=True)) == 3
    endpoint.receive(wire.rst_stream(1), 0.0)
    assert endpoint.window(3) == 65535 - 3 * 16375
    assert endpoint.next_stream() == 3
    endpoint.data_header(3, 16375, end_stream=False)
    endpoint.data_header(3, 35, end_stream=False)
    assert endpoint.next_stream() is None
    endpoint.data_sent(1, 16375, end_stream=False)
    assert endpoint.window(3) == 2 * 16375, "what was not sent after all"
    assert endpoint.next_stream() == 3


def test_5_gib_go_through_one_stream() -> None:
    endpoint = wire.connected()
    requested(*wire.GET, endpoint=endpoint)
    endpoint.send_headers(1, b"\x88", end_stream=False)
    endpoint.body_ready(1)
    left, now = 5 * 2**30, 0.0
    endpoint.receive(wire.settings((5, 2**24 - 1)), 0.0)
    while left:
        if endpoint.next_stream() is None:
            now += 0.01
            assert endpoint.receive(wire.window_update(0, 2**29) + wire.window_update(1, 2**29), now) == []
        count = sum(size for _, size in endpoint.plan_data(1, left, 50, end_stream=True))
        left -= count
        endpoint.data_sent(1, count, end_stream=left == 0)
    assert endpoint.open_streams == 0


def test_a_stream_that_was_reset_while_its_frames_were_sent() -> None:
    endpoint = wire.connected()
    requested(*wire.GET, endpoint=endpoint)
    endpoint.send_headers(1, b"\x88", end_stream=False)
    endpoint.body_ready(1)
    endpoint.plan_data(1, 1000, 1, end_stream=True)
    endpoint.receive(wire.rst_stream(1), 0.0)
    endpoint.data_sent(1, 1000, end_stream=True)
    assert endpoint.window(1) == 0
    assert endpoint.next_stream() is None
    requested(*wire.GET, endpoint=endpoint, stream=3)
    assert endpoint.window(3) == 65535 - 1000, "the connection's window is used all the same"
    endpoint.give_back(1, 10)
    endpoint.reset(1, ErrorCode.CANCEL)
    assert endpoint.take_output() == b""


def test_an_early_answer_asks_the_client_to_stop() -> None:
    endpoint = wire.connected()
    endpoint.receive(wire.headers(1, wire.POST, end=False), 0.0)
    endpoint.send_headers(1, b"\x88", end_stream=True)
    endpoint.reset(1, ErrorCode.NO_ERROR)
    assert wire.frames_in_words(endpoint.take_output()) == ["RST_STREAM 1 NO_ERROR"]
    assert endpoint.receive(wire.data(1), 0.0) == []
    assert endpoint.open_streams == 0


def test_what_must_not_be_sent() -> None:
    endpoint = wire.connected()
    with pytest.raises(KeyError):
        endpoint.send_headers(1, b"\x88", end_stream=True)
    endpoint.receive(wire.headers(1, wire.POST, end=False), 0.0)
    endpoint.send_headers(1, b"\x88", end_stream=True)
    with pytest.raises(AssertionError):
        endpoint.send_headers(1, b"\x88", end_stream=True)
    with pytest.raises(AssertionError):
        endpoint.data_header(1, 1, end_stream=True)
    requested(*wire.GET, endpoint=endpoint, stream=3)
    with pytest.raises(AssertionError):
        endpoint.data_header(3, 16385, end_stream=True)


# Receiving


def test_an_upload_is_given_window_as_it_is_used() -> None:
    endpoint = wire.connected()
    endpoint.receive(wire.headers(1, wire.POST, end=False), 0.0)
    for _ in range(3):
        endpoint.receive(wire.data(1, bytes(16000), pad=255), 0.0)
    assert endpoint.take_output() == b"", "padding alone is too little to tell"
    endpoint.give_back(1, 48000)
    assert wire.frames_in_words(endpoint.take_output()) == [
        f"WINDOW_UPDATE {stream} {48000 + 3 * 256}" for stream in (0, 1)
    ]
    endpoint.receive(wire.data(1, bytes(16000)) * 3 + wire.headers(1, ()), 0.0)
    endpoint.give_back(1, 48000)
    assert wire.frames_in_words(endpoint.take_output()) == ["WINDOW_UPDATE 0 48000"], "the stream gets no more"


def test_more_than_the_window_of_a_stream() -> None:
    endpoint = wire.connected()
    endpoint.receive(wire.headers(1, wire.POST, end=False) + wire.headers(3, wire.POST, end=False), 0.0)
    endpoint.receive(wire.data(1, bytes(16384)) * 3 + wire.data(1, bytes(16383)), 0.0)
    endpoint.give_back(99, 65535)  # to the connection alone, as for a stream that is gone
    endpoint.take_output()
    events = endpoint.receive(wire.data(1, b"x", end=True) + wire.data(3), 0.0)
    assert [wire.event_in_words(event) for event in events] == ["we reset 1 FLOW_CONTROL_ERROR", "data 3 64"]
    assert wire.frames_in_words(endpoint.take_output()) == ["RST_STREAM 1 FLOW_CONTROL_ERROR"]


def test_what_is_known_of_a_stream_and_of_a_block() -> None:
    endpoint = wire.connected()
    assert (endpoint.is_in_block, endpoint.is_open(1)) == (False, False)
    endpoint.receive(wire.headers(1, end_headers=False), 0.0)
    assert [endpoint.is_in_block, endpoint.is_open(1)] == [True, False]
    endpoint.receive(wire.continuation(1), 0.0)
    assert [endpoint.is_in_block, endpoint.is_open(1)] == [False, True]


def test_acknowledgement_of_settings() -> None:
    endpoint = wire.endpoint()
    assert not endpoint.are_settings_acknowledged
    endpoint.receive(wire.OPENING, 0.0)
    assert endpoint.are_settings_acknowledged


# The end


def test_an_orderly_end() -> None:
    endpoint = wire.connected()
    requested(*wire.GET, endpoint=endpoint)
    endpoint.announce_shutdown()
    endpoint.ping(b"leave me")
    assert wire.frames_in_words(endpoint.take_output()) == [f"GOAWAY {2**31 - 1} NO_ERROR", "PING leave me"]
    requested(*wire.GET, endpoint=endpoint, stream=3)
    (pong,) = endpoint.receive(wire.ping(b"leave me", ack=True), 0.0)
    assert wire.event_in_words(pong) == "pong leave me"
    endpoint.shut_down()
    assert wire.frames_in_words(endpoint.take_output()) == ["GOAWAY 3 NO_ERROR"]
    assert endpoint.receive(wire.headers(5), 0.0) == []
    endpoint.shut_down()
    assert wire.frames_in_words(endpoint.take_output()) == ["GOAWAY 3 NO_ERROR"], "no promise about stream 5"
    assert endpoint.open_streams == 2
    for stream in (1, 3):
        endpoint.send_headers(stream, b"\x88", end_stream=True)
    assert endpoint.open_streams == 0
    (failed,) = endpoint.receive(wire.data(0), 0.0)
    assert wire.event_in_words(failed).startswith("failed")
    assert wire.frames_in_words(endpoint.take_output())[-1].startswith("GOAWAY 3 ")


def test_an_end_of_our_own() -> None:
    endpoint = wire.connected()
    endpoint.close(ErrorCode.INADEQUATE_SECURITY)
    endpoint.close(ErrorCode.INTERNAL_ERROR)
    assert wire.frames_in_words(endpoint.take_output()) == ["GOAWAY 0 INADEQUATE_SECURITY"]
    assert endpoint.is_over
    assert endpoint.receive(wire.headers(1), 0.0) == []


def test_an_idle_connection_holds_nothing_of_what_came() -> None:
    endpoint = wire.connected()
    requested(*wire.GET, (b"authorization", b"secret"), endpoint=endpoint)
    assert (endpoint._events, endpoint._reader._buffer) == ([], b"")


def test_an_idle_connection_can_give_memory_back() -> None:
    endpoint = wire.connected()
    requested(*wire.GET, endpoint=endpoint)
    endpoint.forget_memos()
    assert not endpoint._decoder._known_blocks
    requested(*wire.GET, endpoint=endpoint, stream=3)
