"""HTTP dates in their three forms (RFC 9110 section 5.6.7)."""

from __future__ import annotations

from email.utils import formatdate, parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktls_server.semantics.dates import format_http_date, parse_http_date

END_OF_9999 = 253402300799


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        # the RFC's own example, thrice
        (b"Sun, 06 Nov 1994 08:49:37 GMT", 784111777),
        (b"Sunday, 06-Nov-94 08:49:37 GMT", 784111777),
        (b"Sun Nov  6 08:49:37 1994", 784111777),
        (b"Thu, 01 Jan 1970 00:00:00 GMT", 0),
        (b"Tue, 29 Feb 2000 12:00:00 GMT", 951825600),
        (b"Fri, 30 Jun 1972 23:59:60 GMT", 78796800),  # a leap second
        (b"Sun Nov 16 08:49:37 2025", 1763282977),
        # no dates
        (b"", None),
        (b"0", None),
        (b"yesterday", None),
        (b"Sun, 06 Nov 1994 08:49:37", None),
        (b"Sun, 06 Nov 1994 08:49:37 UTC", None),
        (b"Sun, 06 Nov 1994 08:49:37 +0000", None),
        (b"sun, 06 nov 1994 08:49:37 gmt", None),
        (b"Sun, 6 Nov 1994 08:49:37 GMT", None),
        (b"Mon, 29 Feb 1999 12:00:00 GMT", None),
        (b"Sun, 00 Nov 1994 08:49:37 GMT", None),
        (b"Sun, 06 Nov 1994 24:00:00 GMT", None),
        (b"Sun, 06 Nov 1994 08:60:00 GMT", None),
        (b"Sat, 01 Jan 0000 00:00:00 GMT", None),
        (b"Sun, 06 Nov 1994 08:49:37 GMT; length=5", None),
    ],
)
def test_what_a_date_field_says(value: bytes, seconds: int | None) -> None:
    assert parse_http_date(value) == seconds


@given(st.integers(0, END_OF_9999))
def test_dates_are_written_as_the_standard_library_writes_them_and_read_back(seconds: int) -> None:
    value = format_http_date(seconds)
    assert value.decode("ascii") == formatdate(seconds, usegmt=True)
    assert parse_http_date(value) == seconds
    assert parsedate_to_datetime(value.decode("ascii")).timestamp() == seconds


def test_a_two_digit_year_is_never_more_than_fifty_years_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ktls_server.semantics.dates.time.gmtime", lambda: _Year(2026))
    parse_http_date.cache_clear()
    in_2076 = parse_http_date(b"Wednesday, 01-Jan-76 00:00:00 GMT")
    in_1977 = parse_http_date(b"Saturday, 01-Jan-77 00:00:00 GMT")
    parse_http_date.cache_clear()
    assert (in_2076, in_1977) == (3345062400, 220924800)


class _Year:
    def __init__(self, year: int) -> None:
        self.tm_year = year


@given(st.binary(max_size=40))
def test_no_field_value_breaks_the_parser(value: bytes) -> None:
    assert parse_http_date(value) is None
