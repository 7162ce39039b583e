"""The way from http:// to https://: the same host, the same path and query, the port that speaks TLS. Pure.

Where it leads is built from parts that were checked, each by its grammar: a host name can neither split the response's
head nor smuggle in another authority, and the path always follows one. A browser sends the Host that its user asked
for, so the redirect never leads to a host that the user did not name.
"""

from __future__ import annotations

from ..errors import BadRequest
from ..semantics.host import is_valid_host
from ..semantics.messages import Request, Response
from ..semantics.target import encode_path, parse_target


def redirect(request_untrusted: Request, port: int) -> Response:
    """301 for GET and HEAD, which every client ever made follows; 308 for the others, which keeps their method and body.

    `port` is the one that clients reach the TLS listener at. Raises BadRequest.
    """
    location = b"https://%s%s%s" % (
        _host(request_untrusted),
        b"" if port == 443 else b":%d" % port,
        _path_and_query(request_untrusted.target),
    )
    status = 301 if request_untrusted.method in (b"GET", b"HEAD") else 308
    body = b"This site is served over HTTPS: %s\n" % location
    headers = [
        (b"Location", location),
        (b"Content-Type", b"text/plain; charset=utf-8"),
        # A 301 may be kept for ever (RFC 9110 section 15.4.2), and the port may change.
        (b"Cache-Control", b"no-cache"),
    ]
    return Response(status, headers, (body,), len(body), close_connection=True)


def _host(request_untrusted: Request) -> bytes:
    """The host that was asked for, without its port."""
    fields = [value for name, value in request_untrusted.headers_untrusted if name == b"host"]
    if len(fields) > 1 or (not fields and request_untrusted.version != b"1.0"):
        raise BadRequest(400, "A request names its host once.")  # RFC 9112 section 3.2
    authority = fields[0] if fields else b""
    scheme, separator, rest = request_untrusted.target.partition(b"://")
    if separator and b"/" not in scheme:
        # absolute-form: what it names takes the Host field's place (RFC 9112 section 3.2.2).
        authority = rest.partition(b"/")[0].partition(b"?")[0]
    if not is_valid_host(authority):
        raise BadRequest(400, "The Host field is not valid.")
    host = authority[: authority.index(b"]") + 1] if authority.startswith(b"[") else authority.partition(b":")[0]
    if not host:
        raise BadRequest(400, "Without a Host field there is no address to send you to.")
    return host


def _path_and_query(target_untrusted: bytes) -> bytes:
    target = parse_target(target_untrusted)
    path = b"/" if target.path == b"*" else encode_path(target.path)
    return path if target.query is None else path + b"?" + target.query
