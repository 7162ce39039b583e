"""The built-in pages for errors: one readable sentence, as HTML for people and as a line of text for programs."""

from __future__ import annotations

import html
from http import HTTPStatus

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{status} {phrase}</title>
<h1>{status} {phrase}</h1>
<p>{explanation}</p>
</html>
"""

HTML = b"text/html; charset=utf-8"
TEXT = b"text/plain; charset=utf-8"

EXPLANATIONS = {
    403: "This file cannot be read.",
    404: "There is nothing here.",
    500: "Something went wrong on the server. Its log says what.",
    503: "The server has too many files open. Try again in a moment.",
}


def error_page(status: int, explanation: str, *, as_html: bool) -> tuple[bytes, bytes]:
    """The Content-Type and the body. `explanation` is our own sentence, never the client's bytes."""
    phrase = HTTPStatus(status).phrase
    if as_html:
        page = _PAGE.format(status=status, phrase=html.escape(phrase), explanation=html.escape(explanation))
        return HTML, page.encode("utf-8")
    return TEXT, f"{status} {phrase}: {explanation}\n".encode()
