"""Range fields: a table of cases, and properties against a reference that thinks in sets of positions."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktls_server.semantics.ranges import MAX_RANGES, ByteRange, content_range, multipart, parse_ranges

FIVE_GIB = 5 * 1024**3


@pytest.mark.parametrize(
    ("field", "length", "expected"),
    [
        # RFC 9110 section 14.1.2 has these for 10000 bytes
        (b"bytes=0-499", 10000, [(0, 500)]),
        (b"bytes=500-999", 10000, [(500, 500)]),
        (b"bytes=-500", 10000, [(9500, 500)]),
        (b"bytes=9500-", 10000, [(9500, 500)]),
        (b"bytes=0-0,-1", 10000, [(0, 1), (9999, 1)]),
        (b"bytes= 0-999, 4500-5499, -1000", 10000, [(0, 1000), (4500, 1000), (9000, 1000)]),
        (b"bytes=500-600,601-999", 10000, [(500, 500)]),
        (b"bytes=500-700,601-999", 10000, [(500, 500)]),
        # ends past the end
        (b"bytes=0-", 3, [(0, 3)]),
        (b"bytes=1-100", 3, [(1, 2)]),
        (b"bytes=-100", 3, [(0, 3)]),
        (b"bytes=2-2", 3, [(2, 1)]),
        # nothing to give: 416
        (b"bytes=3-", 3, []),
        (b"bytes=3-4,7-9", 3, []),
        (b"bytes=-0", 3, []),
        (b"bytes=0-", 0, []),
        (b"bytes=-0", 0, []),
        # one of several can be satisfied
        (b"bytes=5-6,0-0", 3, [(0, 1)]),
        # the empty file has no way to be sent as a suffix of itself
        (b"bytes=-5", 0, None),
        # the order asked for is kept where nothing is joined
        (b"bytes=8-9,0-1", 10, [(8, 2), (0, 2)]),
        (b"bytes=8-9,0-1,7-8", 10, [(7, 3), (0, 2)]),
        # list syntax
        (b"bytes=,,0-0 ,\t2-2,", 3, [(0, 1), (2, 1)]),
        (b"BYTES=0-0", 3, [(0, 1)]),
        # malformed, or not ours: ignored
        (b"", 3, None),
        (b"bytes", 3, None),
        (b"bytes=", 3, None),
        (b"bytes=,", 3, None),
        (b"bytes=-", 3, None),
        (b"bytes=a-b", 3, None),
        (b"bytes=1", 3, None),
        (b"bytes=2-1", 3, None),
        (b"bytes=0-0,2-1", 3, None),
        (b"bytes=--1", 3, None),
        (b"bytes=0--1", 3, None),
        (b"bytes=+0-1", 3, None),
        (b"bytes=0 - 1", 3, None),
        (b"bytes=0x0-0x1", 3, None),
        (b"bytes=0-1;", 3, None),
        (b"bytes =0-1", 3, None),
        (b"lines=0-1", 3, None),
        ("bytes=0-١".encode(), 3, None),
        # past 4 GiB
        (b"bytes=4294967296-4294967297", FIVE_GIB, [(2**32, 2)]),
        (b"bytes=-1", FIVE_GIB, [(FIVE_GIB - 1, 1)]),
        (b"bytes=4294967295-", FIVE_GIB, [(2**32 - 1, FIVE_GIB - 2**32 + 1)]),
        # numbers longer than any offset
        (b"bytes=0-" + b"9" * 5000, 3, [(0, 3)]),
        (b"bytes=" + b"9" * 5000 + b"-", 3, []),
        (b"bytes=-" + b"9" * 5000, 3, [(0, 3)]),
        (b"bytes=" + b"0" * 5000 + b"1-2", 3, [(1, 2)]),
        (b"bytes=18446744073709551616-", 3, []),
    ],
)
def test_what_a_range_field_asks_for(field: bytes, length: int, expected: list[tuple[int, int]] | None) -> None:
    assert parse_ranges(field, length) == expected


def test_as_many_ranges_as_the_limit_are_heeded_and_one_more_is_not() -> None:
    field = b"bytes=" + b",".join(b"%d-%d" % (2 * index, 2 * index) for index in range(MAX_RANGES))
    assert len(parse_ranges(field, 10000) or ()) == MAX_RANGES
    assert parse_ranges(field + b",9000-9000", 10000) is None


def test_the_apache_killer_gets_the_file_once() -> None:
    """CVE-2011-3192: many ranges that all overlap."""
    field = b"bytes=0-," + b",".join(b"5-%d" % last for last in range(5, MAX_RANGES + 4))
    assert parse_ranges(field, 1000) == [(0, 1000)]


specs = st.one_of(
    st.tuples(st.integers(0, 40), st.integers(0, 40)),
    st.tuples(st.integers(0, 40), st.none()),
    st.tuples(st.none(), st.integers(0, 40)),
)


def written(spec: tuple[int | None, int | None]) -> bytes:
    first, last = spec
    return b"%s-%s" % (b"" if first is None else b"%d" % first, b"" if last is None else b"%d" % last)


def positions(spec: tuple[int | None, int | None], length: int) -> set[int]:
    """The positions that one range names, counted out."""
    first, last = spec
    everything = list(range(length))
    if first is None:
        return set(everything[-last:]) if last else set()
    return {position for position in everything if position >= first and (last is None or position <= last)}


@given(st.lists(specs, min_size=1, max_size=8), st.integers(0, 32))
def test_ranges_cover_exactly_what_was_asked_once_and_in_order(
    asked: list[tuple[int | None, int | None]], length: int
) -> None:
    result = parse_ranges(b"bytes=" + b",".join(written(spec) for spec in asked), length)
    if any(first is not None and last is not None and last < first for first, last in asked):
        assert result is None
        return
    if length == 0 and any(first is None and last for first, last in asked):
        assert result is None
        return
    assert result is not None
    sent = [position for offset, size in result for position in range(offset, offset + size)]
    assert len(sent) == len(set(sent))
    assert set(sent) == set().union(*(positions(spec, length) for spec in asked))
    assert all(size > 0 and offset >= 0 and offset + size <= length for offset, size in result)
    # Each part stands where the first range that it serves stood.
    first_asked = [
        min(index for index, spec in enumerate(asked) if positions(spec, length) & set(range(offset, offset + size)))
        for offset, size in result
    ]
    assert first_asked == sorted(first_asked)


@given(st.binary(max_size=60), st.integers(0, 1000))
def test_no_field_value_breaks_the_parser(field: bytes, length: int) -> None:
    for value in (field, b"bytes=" + field):
        for offset, size in parse_ranges(value, length) or ():
            assert 0 <= offset < offset + size <= length


def test_a_multipart_body_can_be_read_back_and_its_length_is_right() -> None:
    content = bytes(range(256)) * 4
    form = multipart([ByteRange(1000, 24), ByteRange(0, 10)], len(content), b"text/plain; charset=utf-8")
    body = b"".join(head + content[offset : offset + size] for head, (offset, size) in form.parts) + form.tail
    assert len(body) == form.length
    boundary = form.content_type.removeprefix(b"multipart/byteranges; boundary=")
    assert re.fullmatch(rb"[0-9a-f]{32}", boundary)
    preamble, first, second, epilogue = body.split(b"--" + boundary)
    assert (preamble, epilogue) == (b"", b"--\r\n")
    assert first == (
        b"\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Range: bytes 1000-1023/1024\r\n\r\n"
        + content[1000:1024]
        + b"\r\n"
    )
    assert second.endswith(b"Content-Range: bytes 0-9/1024\r\n\r\n" + content[:10] + b"\r\n")


def test_content_range_names_the_last_position_not_the_end() -> None:
    assert content_range(ByteRange(0, 500), 1234) == b"bytes 0-499/1234"
