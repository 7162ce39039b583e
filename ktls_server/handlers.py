"""Handlers: from a request to a response. The files of a folder, and the gate in front of them.

`files/site.py` makes the answers, `access.py` knows who may come in; here the one asks the other.
"""

from __future__ import annotations

from collections.abc import Awaitable

from .access import PasswordGate
from .accesslog import LoggedConnection
from .errors import TryLater
from .exchange import Handler
from .files.site import Site
from .net.addresses import client_of
from .semantics.messages import Request, Response

_UNAUTHORIZED = "This folder needs a name and a password."


class FilesHandler:
    """`Handler` of one folder. With a gate, nothing is looked up on disk for a client that is not let in.

    OPTIONS is answered without a password: it says nothing of the files, and browsers ask it before they send one.
    """

    def __init__(self, site: Site, gate: PasswordGate | None = None) -> None:
        self.site = site
        self._gate = gate

    @property
    def handler(self) -> Handler:
        """What to call for each request: without a gate the site itself."""
        return self if self._gate is not None else self.site.handle

    def __call__(self, request_untrusted: Request, client: LoggedConnection) -> Response | Awaitable[Response]:
        gate = self._gate
        if gate is None or request_untrusted.method == b"OPTIONS":
            return self.site.handle(request_untrusted)
        try:
            verdict = gate.judge(request_untrusted.header(b"authorization"), client_of(client.remote))
        except TryLater as refusal:
            return self._try_later(request_untrusted, refusal)
        if verdict is True:
            return self.site.handle(request_untrusted)
        if verdict is False:
            return self._unauthorized(request_untrusted)
        return self._respond_when_judged(request_untrusted, verdict)

    async def _respond_when_judged(self, request_untrusted: Request, verdict: Awaitable[bool]) -> Response:
        try:
            is_let_in = await verdict
        except TryLater as refusal:
            return self._try_later(request_untrusted, refusal)
        if not is_let_in:
            return self._unauthorized(request_untrusted)
        response = self.site.handle(request_untrusted)
        return response if isinstance(response, Response) else await response

    def _unauthorized(self, request_untrusted: Request) -> Response:
        return self.site.error(401, _UNAUTHORIZED, close=False, request=request_untrusted)

    def _try_later(self, request_untrusted: Request, refusal: TryLater) -> Response:
        response = self.site.error(503, refusal.explanation, close=False, request=request_untrusted)
        headers = [field for field in response.headers if field[0] != b"Retry-After"]
        response.headers = [*headers, (b"Retry-After", b"%d" % refusal.retry_after)]
        return response
