"""Header compression against hpack alone: what is kept never changes what a block means, and no secret is kept."""

from collections.abc import Iterable, Sequence

import pytest
from hpack import Decoder, Encoder, HPACKError, OversizedHeaderListError
from hypothesis import given, settings
from hypothesis import strategies as st

from ktls_server.http2 import header_blocks
from ktls_server.http2.faults import ConnectionFault, ErrorCode
from ktls_server.http2.header_blocks import (
    SECRET_FIELDS,
    Field,
    HeaderDecoder,
    ResponseHeads,
    encode_field,
    encode_fields,
)
from tests.http2.wire import GET, block

MAX_LIST_BYTES = 1000


class Tight(HeaderDecoder[Sequence[Field]]):
    """Keeps so little that things have to make room for each other."""

    __slots__ = ()
    MAX_BLOCKS = 2  # type: ignore[misc]
    MAX_LIST_BYTES = 300  # type: ignore[misc]


NAMES = st.sampled_from(
    [b":method", b":path", b":authority", b"accept", b"cookie", b"authorization", b"a", b"x-long-name", b"user-agent"]
)
VALUES = st.one_of(
    st.sampled_from(
        [b"GET", b"/", b"/index.html", b"", b"a.example", b"secret", b"x" * 130, b"\xff\0 " * 9, b"v" * 300]
    ),
    st.binary(max_size=6),
)
FIELDS = st.lists(st.tuples(NAMES, VALUES, st.booleans()), max_size=5)
"""Name, value, and whether hpack's encoder is to put it in as never indexed."""

_literals = st.lists(st.tuples(NAMES, VALUES), max_size=4).map(block)
"""Without indexing, which hpack's encoder never writes."""
_indices = st.lists(st.integers(0x80, 0xC4), max_size=4).map(bytes)
"""References into both tables, right or wrong."""
_size_updates = st.sampled_from([b"\x20", b"\x3f\x00", b"\x3f\xe1\x1f", b"\x3f\xe1\x00"])


@st.composite
def block_sequences(draw: st.DrawFn) -> list[bytes]:
    """What one peer sends: blocks by hpack, parts made by hand, blocks that come again, and some that are spoilt."""
    encoder = Encoder()
    blocks: list[bytes] = [b""]
    for _ in range(draw(st.integers(1, 12))):
        kind = draw(st.integers(0, 6))
        if kind <= 1:
            if draw(st.integers(0, 5)) == 0:
                encoder.header_table_size = draw(st.sampled_from([0, 40, 100, 4096]))
            blocks.append(encoder.encode(draw(FIELDS), huffman=draw(st.booleans())))
        elif kind == 2:
            blocks.append(draw(_literals) + draw(_indices))
        elif kind == 3:
            blocks.append(draw(_size_updates) + draw(_literals))
        elif kind == 4 and draw(st.integers(0, 3)) == 0:
            spoilt = bytearray(draw(st.sampled_from(blocks)) + b"\0")
            spoilt[draw(st.integers(0, len(spoilt) - 1))] = draw(st.integers(0, 255))
            blocks.append(bytes(spoilt[: draw(st.integers(0, len(spoilt)))]))
        else:
            blocks.append(draw(st.sampled_from(blocks)))
    return blocks


def by_hpack(decoder: Decoder, encoded: bytes) -> list[Field] | ErrorCode:
    try:
        return [(bytes(name), bytes(value)) for name, value in decoder.decode(encoded, raw=True)]
    except OversizedHeaderListError:
        return ErrorCode.ENHANCE_YOUR_CALM
    except HPACKError:
        return ErrorCode.COMPRESSION_ERROR


def by_us(decoder: HeaderDecoder[Sequence[Field]], encoded: bytes) -> list[Field] | ErrorCode:
    """As the endpoint does it: recall, else decode, and remember."""
    known = decoder.recall(encoded)
    if known is not None:
        return list(known)
    try:
        fields = decoder.decode(encoded)
    except ConnectionFault as fault:
        return fault.code
    assert decoder.list_bytes == sum(len(name) + len(value) + 32 for name, value in fields)
    if decoder.is_repeatable:
        decoder.remember(encoded, fields)
    return list(fields)


@settings(deadline=None, max_examples=600)
@given(block_sequences())
def test_what_is_kept_never_changes_what_a_block_means(blocks: list[bytes]) -> None:
    plain = Decoder(max_header_list_size=MAX_LIST_BYTES)
    ours: HeaderDecoder[Sequence[Field]] = HeaderDecoder(MAX_LIST_BYTES)
    tight = Tight(MAX_LIST_BYTES)
    for encoded in blocks:
        expected = by_hpack(plain, encoded)
        assert by_us(ours, encoded) == expected
        assert by_us(tight, encoded) == expected
        if isinstance(expected, ErrorCode):
            return  # the connection ends
        table = ours._decoder.header_table
        assert list(table.dynamic_entries) == list(plain.header_table.dynamic_entries)
        assert table.maxsize == plain.header_table.maxsize
        assert len(tight._known_blocks) <= 2


@settings(deadline=None, max_examples=300)
@given(block_sequences())
def test_no_secret_is_kept(blocks: list[bytes]) -> None:
    decoder: HeaderDecoder[Sequence[Field]] = HeaderDecoder(MAX_LIST_BYTES)
    for encoded in blocks:
        fields = by_us(decoder, encoded)
        if isinstance(fields, ErrorCode):
            return
        kept = [field for known in decoder._known_blocks.values() for field in known]
        assert not {name for name, _ in kept} & SECRET_FIELDS
        if any(name in SECRET_FIELDS for name, _ in fields):
            assert decoder.has_secret


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=5))
def test_any_bytes_are_decoded_or_refused(blocks: list[bytes]) -> None:
    plain = Decoder(max_header_list_size=MAX_LIST_BYTES)
    ours: HeaderDecoder[Sequence[Field]] = HeaderDecoder(MAX_LIST_BYTES)
    for encoded in blocks:
        expected = by_hpack(plain, encoded)
        assert by_us(ours, encoded) == expected
        if isinstance(expected, ErrorCode):
            return


def test_a_block_that_comes_again_is_recalled_until_the_table_changes() -> None:
    decoder: HeaderDecoder[str] = HeaderDecoder(MAX_LIST_BYTES)
    changing = b"\x40\x01a\x01b"
    repeatable = []
    for encoded in (changing, b"\xbe\x82"):
        decoder.decode(encoded)
        repeatable.append(decoder.is_repeatable)
    assert repeatable == [False, True]
    decoder.remember(b"\xbe\x82", "seen")
    assert decoder.recall(b"\xbe\x82") == "seen"
    assert list(decoder.decode(b"\x40\x01c\x01d")) == [(b"c", b"d")]
    assert decoder.recall(b"\xbe\x82") is None
    assert list(decoder.decode(b"\xbe\x82")) == [(b"c", b"d"), (b":method", b"GET")]
    decoder.remember(b"\xbe\x82", "seen")
    decoder.decode(b"\x20")  # the table is emptied
    assert decoder.recall(b"\xbe\x82") is None


@pytest.mark.parametrize("field", [(b"cookie", b"s"), (b"authorization", b"s"), (b"proxy-authorization", b"s")])
def test_a_block_with_a_secret_is_not_repeatable(field: Field) -> None:
    decoder: HeaderDecoder[str] = HeaderDecoder(MAX_LIST_BYTES)
    decoder.decode(block((*GET, field)))
    assert (decoder.is_repeatable, decoder.has_secret) == (False, True)
    decoder.decode(b"\x40" + block((field,))[1:])  # into the table
    decoder.decode(b"\xbe")
    assert (decoder.is_repeatable, decoder.has_secret) == (False, True)
    assert not decoder._known_blocks


@pytest.mark.parametrize("first", [b"\x1f\x08", b"\x0f\x08", b"\x11"], ids=["both", "by its name", "by its bits"])
def test_no_string_of_a_secret_is_kept(first: bytes) -> None:
    decoder: HeaderDecoder[str] = HeaderDecoder(MAX_LIST_BYTES)
    header_blocks._decode_kept.cache_clear()
    ((_, value),) = decoder.decode(first + b"\x82\x42\xdf")
    assert (value, decoder.has_secret) == (b"s-", True)
    assert header_blocks._decode_kept.cache_info().currsize == 0


def test_a_field_that_is_never_indexed_is_a_secret() -> None:
    decoder: HeaderDecoder[str] = HeaderDecoder(MAX_LIST_BYTES)
    decoder.decode(b"\x10" + block(((b"x-token", b"s"),))[1:])
    assert (decoder.is_repeatable, decoder.has_secret) == (False, True)


def test_a_small_block_cannot_become_a_large_list() -> None:
    decoder: HeaderDecoder[str] = HeaderDecoder(MAX_LIST_BYTES)
    decoder.decode(b"\x40\x01a" + block(((b"", b"x" * 600),))[2:])
    with pytest.raises(ConnectionFault) as caught:
        decoder.decode(b"\xbe" * 100)
    assert (caught.value.code, caught.value.label) == (ErrorCode.ENHANCE_YOUR_CALM, "header list size")


@pytest.mark.parametrize("first_bits", [b"\0", b"\x40"], ids=["literals", "with indexing"])
def test_a_list_of_just_the_largest_size(first_bits: bytes) -> None:
    largest = first_bits + block(((b"a", b"x" * (MAX_LIST_BYTES - 33)),))[1:]
    decoder: HeaderDecoder[str] = HeaderDecoder(MAX_LIST_BYTES)
    decoder.decode(largest)
    assert decoder.list_bytes == MAX_LIST_BYTES
    with pytest.raises(ConnectionFault, match="ENHANCE_YOUR_CALM"):
        decoder.decode(first_bits + block(((b"a", b"x" * (MAX_LIST_BYTES - 32)),))[1:])


def test_an_index_of_more_than_one_byte() -> None:
    decoder: HeaderDecoder[str] = HeaderDecoder(MAX_LIST_BYTES)
    for number in range(100):
        decoder.decode(b"\x40\x01a" + bytes((1, number)))
    assert list(decoder.decode(b"\xff\x00")) == [(b"a", bytes((99 - 127 + 62,)))]
    with pytest.raises(ConnectionFault, match="COMPRESSION_ERROR"):
        decoder.decode(b"\xff\x00" + b"\x01a\x01b")  # \x00 is not the start of a literal


@pytest.mark.parametrize("zeros", range(8))
@pytest.mark.parametrize("before", [b"\x0f", b"\x00\x01a\x7f", b"\x00\x7f"], ids=["index", "value", "name"])
def test_integers_of_many_bytes_are_hpacks_to_judge(before: bytes, zeros: int) -> None:
    encoded = before + b"\x80" * zeros + b"\x00" + b"\x01" * 127 + b"\x00" + b"\x01" * 200
    ours: HeaderDecoder[Sequence[Field]] = HeaderDecoder(MAX_LIST_BYTES)
    assert by_us(ours, encoded) == by_hpack(Decoder(max_header_list_size=MAX_LIST_BYTES), encoded)


def test_forgetting_keeps_the_table() -> None:
    decoder: HeaderDecoder[str] = HeaderDecoder(MAX_LIST_BYTES)
    decoder.decode(b"\x40\x01a\x01b")
    decoder.decode(b"\xbe" + block(GET))
    decoder.remember(b"\xbe", "seen")
    decoder.forget()
    assert decoder.recall(b"\xbe") is None
    assert list(decoder.decode(b"\xbe")) == [(b"a", b"b")]


# Encoding

RESPONSE_NAMES = st.sampled_from([b"Content-Type", b"ETag", b"x-a", b"set-cookie", b":status", b"Vary", b"Link"])


def decoded(encoded: Iterable[bytes]) -> list[list[Field]]:
    """By a decoder that allows no dynamic table, as after a client's SETTINGS_HEADER_TABLE_SIZE of 0."""
    decoder = Decoder(max_header_list_size=2**20)
    decoder.max_allowed_table_size = 0
    return [[(bytes(name), bytes(value)) for name, value in decoder.decode(b"\x20" + one, raw=True)] for one in encoded]


@settings(deadline=None)
@given(st.lists(st.tuples(RESPONSE_NAMES, VALUES | st.binary(min_size=200, max_size=400)), max_size=6))
def test_what_is_encoded_is_decoded_and_always_the_same(fields: list[Field]) -> None:
    encoded = encode_fields(fields)
    assert decoded([encoded, encode_fields(fields)]) == [[(name.lower(), value) for name, value in fields]] * 2
    assert encode_fields(fields) == encoded


def test_forms_of_fields() -> None:
    assert encode_field(b":status", b"200") == b"\x88"
    assert encode_field(b"Accept-Encoding", b"gzip, deflate") == b"\x90"
    assert encode_field(b"vary", b"\xff") == b"\x0f\x2c\x01\xff", "an indexed name, not shorter in Huffman's code"
    assert encode_field(b"Set-Cookie", b"\xff") == b"\x1f\x28\x01\xff", "never indexed"
    assert encode_field(b"~", b"\xff") == b"\x00\x01~\x01\xff"


def test_fields_of_http_1_connections_are_left_out() -> None:
    fields = [(b"Connection", b"close"), (b"Transfer-Encoding", b"chunked"), (b"a", b"b"), (b"Keep-Alive", b"x")]
    assert decoded([encode_fields(fields)]) == [[(b"a", b"b")]]


def test_a_response_head() -> None:
    heads = ResponseHeads([(b"Server", b"s")])
    head = heads.head(404, [(b"ETag", b'"x"')], 7, 784111777)
    expected = [
        (b":status", b"404"),
        (b"server", b"s"),
        (b"etag", b'"x"'),
        (b"content-length", b"7"),
        (b"date", b"Sun, 06 Nov 1994 08:49:37 GMT"),
    ]
    assert decoded([head]) == [expected]
    assert heads.head(404, [(b"ETag", b'"x"')], 7, 784111777) == head
    later = heads.head(404, [(b"ETag", b'"x"')], 7, 784111778)
    assert later != head
    assert decoded([later])[0][-1] == (b"date", b"Sun, 06 Nov 1994 08:49:38 GMT")
    assert decoded([heads.head(304, [], None, 0)])[0][0] == (b":status", b"304")
    assert b"content-length" not in dict(decoded([heads.head(304, [], None, 0)])[0])


def test_heads_are_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ResponseHeads, "MAX_HEADS", 2)
    heads = ResponseHeads()
    for length in (1, 2, 1, 3):
        heads.head(200, [], length, 0)
    assert [key[1] for key in heads._heads] == [1, 3]
    heads.head(200, [(b"Set-Cookie", b"secret")], 4, 0)
    heads.head(200, [(b"a", b"\xff" * 2000)], 5, 0)
    assert [key[1] for key in heads._heads] == [1, 3]
