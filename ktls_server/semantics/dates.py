"""HTTP dates (RFC 9110 section 5.6.7): seconds since the epoch to and from bytes. Pure.

We write only IMF-fixdate; we read that and the two obsolete forms, as a recipient must.
"""

from __future__ import annotations

import calendar
import re
import time
from functools import lru_cache

_DAYS = (b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun")
_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")
_MONTH_NUMBER = {name: number for number, name in enumerate(_MONTHS, start=1)}

_MONTH = rb"(?P<month>" + rb"|".join(_MONTHS) + rb")"
_TIME = rb"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_SHORT_DAY = rb"(?:" + rb"|".join(_DAYS) + rb")"
_LONG_DAY = rb"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
_FORMS = (
    re.compile(_SHORT_DAY + rb", (?P<day>[0-9]{2}) " + _MONTH + rb" (?P<year>[0-9]{4}) " + _TIME + rb" GMT"),
    re.compile(_LONG_DAY + rb", (?P<day>[0-9]{2})-" + _MONTH + rb"-(?P<year>[0-9]{2}) " + _TIME + rb" GMT"),
    re.compile(_SHORT_DAY + rb" " + _MONTH + rb" (?P<day>[ 0-9][0-9]) " + _TIME + rb" (?P<year>[0-9]{4})"),
)


# 1024 dates are some 100 KiB; the modification times of a busy folder's files fit.
@lru_cache(maxsize=1024)
def format_http_date(seconds: int) -> bytes:
    """Seconds since the epoch, 0 to the end of the year 9999, as IMF-fixdate."""
    year, month, day, hour, minute, second, weekday, _, _ = time.gmtime(seconds)
    return b"%s, %02d %s %04d %02d:%02d:%02d GMT" % (
        _DAYS[weekday],
        day,
        _MONTHS[month - 1],
        year,
        hour,
        minute,
        second,
    )


@lru_cache(maxsize=256)
def parse_http_date(value_untrusted: bytes) -> int | None:
    """Seconds since the epoch, or None for what is no valid HTTP date (the field is then ignored, RFC 9110 13.1.3)."""
    for form in _FORMS:
        match = form.fullmatch(value_untrusted)
        if match is not None:
            return _seconds(match)
    return None


def _seconds(match: re.Match[bytes]) -> int | None:
    day, hour, minute, second = (int(match[name]) for name in ("day", "hour", "minute", "second"))
    month = _MONTH_NUMBER[match["month"]]
    year = int(match["year"])
    if len(match["year"]) == 2:
        year = _four_digit_year(year)
    # 60 is a leap second (RFC 5322 section 3.3); timegm counts it as the first second of the next minute, as POSIX
    # does.
    if year < 1 or not 1 <= day <= calendar.monthrange(year, month)[1] or hour > 23 or minute > 59 or second > 60:
        return None
    return calendar.timegm((year, month, day, hour, minute, second))


def _four_digit_year(two_digits: int) -> int:
    """RFC 9110 5.6.7: a year that seems more than 50 years ahead is the latest past one with the same two digits."""
    this_year = time.gmtime().tm_year
    year = this_year - this_year % 100 + two_digits
    return year - 100 if year > this_year + 50 else year
