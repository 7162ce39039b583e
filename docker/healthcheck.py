"""The container's HEALTHCHECK: exit status 0 if the server answers over HTTPS, 1 with a word about why if not.

Any answer but a fault of the server's (5xx) will do: an empty folder answers 404, one with passwords 401. The
certificate is not checked: it is for other names than this one. Where KTLS_SERVER_METRICS_PORT is set, /healthz there is
asked, which leaves no line in the access log and needs no client certificate.
"""

from __future__ import annotations

import http.client
import os
import ssl
import sys

_SECONDS = 4.0


def _connection() -> tuple[http.client.HTTPConnection, str]:
    """Where to ask, and for what path."""
    metrics_port = os.environ.get("KTLS_SERVER_METRICS_PORT", "")
    if metrics_port:
        return http.client.HTTPConnection("127.0.0.1", int(metrics_port), timeout=_SECONDS), "/healthz"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # Kubernetes sets it to "tcp://ADDRESS:PORT" for a Service named ktls-server; the server ignores that.
    text = os.environ.get("KTLS_SERVER_PORT", "")
    port = int(text) if text.isdecimal() else 8443
    return http.client.HTTPSConnection("127.0.0.1", port, timeout=_SECONDS, context=context), "/"


def main() -> str | None:
    """None if all is well, else what is wrong: as `sys.exit` wants it."""
    connection, path = _connection()
    try:
        connection.request("HEAD", path)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"no answer: {error}"
    finally:
        connection.close()
    return f"answered {status}" if status >= 500 else None


if __name__ == "__main__":
    sys.exit(main())
