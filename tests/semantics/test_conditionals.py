"""Preconditions: a table of cases, and properties against a transcription of RFC 9110 section 13.2.2."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktls_server.semantics.conditionals import Verdict, evaluate, range_applies
from ktls_server.semantics.dates import format_http_date

ETAG = b'"v2"'
MODIFIED = 784111777
AT = b"Sun, 06 Nov 1994 08:49:37 GMT"
BEFORE = b"Sun, 06 Nov 1994 08:49:36 GMT"
AFTER = b"Sun, 06 Nov 1994 08:49:38 GMT"

GO, SAME, FAILED = Verdict.PROCEED, Verdict.NOT_MODIFIED, Verdict.FAILED


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, GO),
        ({b"if-none-match": ETAG}, SAME),
        ({b"if-none-match": b'W/"v2"'}, SAME),
        ({b"if-none-match": b'"v1", W/"v2" , "v3"'}, SAME),
        ({b"if-none-match": b', ,"v1",,"v2",'}, SAME),
        ({b"if-none-match": b"*"}, SAME),
        ({b"if-none-match": b'"v1"'}, GO),
        ({b"if-none-match": b'"a,b", "v"'}, GO),
        ({b"if-none-match": b'"a, \\"v2\\""'}, GO),
        ({b"if-none-match": b"v2"}, GO),
        ({b"if-none-match": b'w/"v2"'}, GO),
        ({b"if-none-match": b'"v2" "v1"'}, GO),
        ({b"if-none-match": b'"v1", *'}, GO),
        ({b"if-none-match": b""}, GO),
        ({b"if-modified-since": AT}, SAME),
        ({b"if-modified-since": AFTER}, SAME),
        ({b"if-modified-since": BEFORE}, GO),
        ({b"if-modified-since": b"garbage"}, GO),
        # If-None-Match is the finer word: the date beside it is ignored
        ({b"if-none-match": b'"v1"', b"if-modified-since": AFTER}, GO),
        ({b"if-none-match": ETAG, b"if-modified-since": BEFORE}, SAME),
        ({b"if-match": ETAG}, GO),
        ({b"if-match": b"*"}, GO),
        ({b"if-match": b'"v1", "v2"'}, GO),
        ({b"if-match": b'W/"v2"'}, FAILED),
        ({b"if-match": b'"v1"'}, FAILED),
        ({b"if-match": b"garbage"}, FAILED),
        ({b"if-match": b""}, FAILED),
        ({b"if-unmodified-since": AT}, GO),
        ({b"if-unmodified-since": AFTER}, GO),
        ({b"if-unmodified-since": BEFORE}, FAILED),
        ({b"if-unmodified-since": b"garbage"}, GO),
        ({b"if-match": ETAG, b"if-unmodified-since": BEFORE}, GO),
        ({b"if-match": b'"v1"', b"if-none-match": ETAG}, FAILED),
        ({b"if-match": ETAG, b"if-none-match": ETAG}, SAME),
        ({b"if-unmodified-since": BEFORE, b"if-none-match": ETAG}, FAILED),
    ],
)
def test_what_preconditions_come_to(fields: dict[bytes, bytes], expected: Verdict) -> None:
    assert evaluate(fields, ETAG, MODIFIED) is expected


def test_without_a_modification_date_conditions_on_it_are_ignored() -> None:
    assert evaluate({b"if-modified-since": AFTER}, ETAG, None) is GO
    assert evaluate({b"if-unmodified-since": BEFORE}, ETAG, None) is GO


@pytest.mark.parametrize(
    ("if_range", "applies"),
    [
        (ETAG, True),
        (b'W/"v2"', False),
        (b'"v1"', False),
        (b'"v1", "v2"', False),
        (b"*", False),
        (AT, True),
        (BEFORE, False),
        (AFTER, False),
        (b"garbage", False),
        (b"", False),
    ],
)
def test_if_range_takes_the_same_strong_tag_or_the_exact_date(if_range: bytes, applies: bool) -> None:
    assert range_applies(if_range, ETAG, MODIFIED, MODIFIED + 2) is applies


Tag = tuple[bool, str]  # weak, opaque
tags = st.tuples(st.booleans(), st.sampled_from(["v1", "v2", "v3", "", "a,b", "W/"]))
tag_lists = st.none() | st.just("*") | st.lists(tags, min_size=1, max_size=4)
dates = st.none() | st.integers(MODIFIED - 2, MODIFIED + 2)


def written(value: str | list[Tag]) -> bytes:
    if isinstance(value, str):
        return value.encode()
    return b", ".join(b'%s"%s"' % (b"W/" if weak else b"", opaque.encode()) for weak, opaque in value)


def reference(
    if_match: str | list[Tag] | None,
    if_unmodified_since: int | None,
    if_none_match: str | list[Tag] | None,
    if_modified_since: int | None,
) -> Verdict:
    """RFC 9110 section 13.2.2, step by step, for a GET of an unchanged `"v2"`."""
    if if_match is not None:  # 1.
        if not (isinstance(if_match, str) or (False, "v2") in if_match):
            return FAILED
    elif if_unmodified_since is not None and if_unmodified_since < MODIFIED:  # 2.
        return FAILED
    if if_none_match is not None:  # 3.
        if isinstance(if_none_match, str) or "v2" in [opaque for _, opaque in if_none_match]:
            return SAME
    elif if_modified_since is not None and if_modified_since >= MODIFIED:  # 4.
        return SAME
    return GO


@given(tag_lists, dates, tag_lists, dates)
def test_the_order_of_evaluation_is_that_of_the_rfc(
    if_match: str | list[Tag] | None,
    if_unmodified_since: int | None,
    if_none_match: str | list[Tag] | None,
    if_modified_since: int | None,
) -> None:
    fields = {}
    if if_match is not None:
        fields[b"if-match"] = written(if_match)
    if if_unmodified_since is not None:
        fields[b"if-unmodified-since"] = format_http_date(if_unmodified_since)
    if if_none_match is not None:
        fields[b"if-none-match"] = written(if_none_match)
    if if_modified_since is not None:
        fields[b"if-modified-since"] = format_http_date(if_modified_since)
    expected = reference(if_match, if_unmodified_since, if_none_match, if_modified_since)
    assert evaluate(fields, ETAG, MODIFIED) is expected


@given(st.binary(max_size=60))
def test_no_field_value_breaks_the_evaluation_or_matches_by_accident(value: bytes) -> None:
    expected_match = ETAG in value or value == b"*"
    if not expected_match:
        assert evaluate({b"if-none-match": value}, ETAG, MODIFIED) is GO
        assert evaluate({b"if-match": value}, ETAG, MODIFIED) is FAILED
    assert range_applies(value, ETAG, MODIFIED, MODIFIED + 2) is (value == ETAG)


def test_a_long_list_of_broken_tags_takes_no_longer_than_its_length() -> None:
    """The list is matched by a regular expression: one that backtracks would not come back from this."""
    assert evaluate({b"if-none-match": b'"a",' * 20000 + b"!"}, ETAG, MODIFIED) is GO
    assert evaluate({b"if-none-match": b" ," * 20000 + b"!"}, ETAG, MODIFIED) is GO


def test_a_date_is_no_strong_validator_within_its_own_second() -> None:
    """RFC 9110 8.8.2.2: the file could have changed twice in it."""
    date = format_http_date(MODIFIED)
    assert [range_applies(date, ETAG, MODIFIED, MODIFIED + age) for age in (0, 1, 2)] == [False, False, True]
    assert range_applies(ETAG, ETAG, MODIFIED, MODIFIED), "a tag is"
