"""Accept-Encoding and Accept: tables of cases, and properties against a plain reading of RFC 9110 section 12.5.3."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktls_server.semantics.negotiation import acceptable_codings, accepts_html, prefers_json

BR, ZSTD, GZIP = b"br", b"zstd", b"gzip"


@pytest.mark.parametrize(
    ("value", "wanted", "identity"),
    [
        (b"gzip, deflate, br, zstd", (BR, ZSTD, GZIP), True),
        (b"gzip", (GZIP,), True),
        (b"GZip", (GZIP,), True),
        (b"x-gzip", (GZIP,), True),
        (b"br;q=0.5, gzip;q=0.8", (GZIP, BR), True),
        (b"br;q=0.5,gzip;q=0.5", (BR, GZIP), True),
        (b"gzip;q=0.001, br;q=0.002", (BR, GZIP), True),
        (b"gzip ; q=1.0 , br ; Q=0.9", (GZIP, BR), True),
        (b"gzip;q=0", (), True),
        (b"gzip;q=0.000", (), True),
        (b"", (), True),
        (b"identity", (), True),
        (b"identity, gzip", (GZIP,), True),
        (b"identity, gzip;q=0.5", (), True),
        (b"identity;q=0.5, gzip;q=0.5, br;q=0.4", (GZIP,), True),
        (b"identity;q=0", (), False),
        (b"identity;q=0, gzip", (GZIP,), False),
        (b"*", (BR, ZSTD, GZIP), True),
        (b"*;q=0", (), False),
        (b"*;q=0, identity", (), True),
        (b"gzip, *;q=0", (GZIP,), False),
        (b"br;q=0, *", (ZSTD, GZIP), True),
        (b"gzip;q=0.3, *;q=0.5", (BR, ZSTD), True),
        (b"deflate, compress", (), True),
        # malformed elements are left out, the others stay
        (b"gzip;q=2, br", (BR,), True),
        (b"gzip;q=0.1234, br", (BR,), True),
        (b"gzip;q=, br", (BR,), True),
        (b"gzip;q=-1", (), True),
        (b"gzip br", (), True),
        (b",,gzip,,", (GZIP,), True),
    ],
)
def test_what_accept_encoding_wants(value: bytes, wanted: tuple[bytes, ...], identity: bool) -> None:
    assert acceptable_codings(value) == (wanted, identity)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"application/json", True),
        (b"application/json, text/html;q=0.9", True),
        (b"application/json; charset=utf-8", True),
        (b"application/*", True),
        (b"text/html, application/json", False),
        (b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", False),
        (b"application/json;q=0.5, */*;q=0.1", True),
        (b"application/json;q=0.5, */*", False),
        (b"*/*", False),
        (b"application/json;q=0", False),
        (b"", False),
        (b"json", False),
    ],
)
def test_when_a_listing_is_json(value: bytes, expected: bool) -> None:
    assert prefers_json(value) is expected


def test_a_browser_that_navigates_names_html_and_a_script_does_not() -> None:
    assert accepts_html(b"text/html,application/xhtml+xml,*/*;q=0.8")
    assert not accepts_html(b"*/*")
    assert not accepts_html(None)


names = st.sampled_from(["br", "zstd", "gzip", "identity", "*", "deflate"])
weights = st.none() | st.integers(0, 1000)


@given(st.dictionaries(names, weights, max_size=6))
def test_codings_are_those_a_plain_reading_accepts_best_first(asked: dict[str, int | None]) -> None:
    value = ", ".join(
        name if weight is None else f"{name};q={weight // 1000}.{weight % 1000:03}" for name, weight in asked.items()
    )
    quality = {name: 1.0 if weight is None else weight / 1000 for name, weight in asked.items()}

    def quality_of(coding: str) -> float | None:
        return quality.get(coding, quality.get("*"))

    wanted, identity = acceptable_codings(value.encode())
    assert identity is (quality_of("identity") != 0)
    for coding in ("br", "zstd", "gzip"):
        acceptable = bool(quality_of(coding)) and (quality_of(coding) or 0) >= (quality_of("identity") or 0)
        assert (coding.encode() in wanted) is acceptable
    ranks = [(-(quality_of(coding.decode()) or 0), [BR, ZSTD, GZIP].index(coding)) for coding in wanted]
    assert ranks == sorted(ranks)


@given(st.binary(max_size=60))
def test_no_field_value_breaks_the_parsers(value: bytes) -> None:
    assert set(acceptable_codings(value).wanted) <= {BR, ZSTD, GZIP}
    assert prefers_json(value) in (True, False)
