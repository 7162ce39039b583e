# ruff: noqa: RUF009 - option() returns dataclasses.field()
"""The table of options: the fields of `Settings`, each with its kind, default, help and group.

Adding an option is adding a field here: command line, environment variable, TOML key and docs/options.md follow.
Numbers explain themselves in their help or in the comment above. Checks that concern one value are in its kind; checks
between options are in loading.py, where it is known who asked for what.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from ..errors import ConfigurationError
from .kinds import (
    FILE_NAME,
    FLAG,
    HEADER_VALUE,
    LISTENING_PORT,
    ORIGIN,
    PORT,
    Choice,
    FilePath,
    Integer,
    Kind,
    Ruled,
    Seconds,
    Several,
    Text,
    Workers,
)
from .rule_values import CacheRule, HeaderRule

KtlsMode: TypeAlias = Literal["auto", "require", "off"]
KtlsReceiveMode: TypeAlias = Literal["auto", "on", "off"]
EventLoop: TypeAlias = Literal["uvloop", "asyncio"]
AccessLogFormat: TypeAlias = Literal["off", "common", "combined", "json"]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]
ClientAuthentication: TypeAlias = Literal["required", "optional"]
TlsVersion: TypeAlias = Literal["1.2", "1.3"]

# Mozilla's "intermediate" profile (https://wiki.mozilla.org/Security/Server_Side_TLS) without the DHE suites, which
# need parameters of their own and which every client with TLS 1.2 and ECDHE does without.
MOZILLA_INTERMEDIATE = ":".join(
    f"ECDHE-{authentication}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for authentication in ("ECDSA", "RSA")
)

# RFC 8446 and RFC 9846 section 5.5: 2^24.5 full-size records for AES-GCM. Rounded down to the power of two below, so
# that the records of a response that has begun still fit.
AEAD_RECORD_LIMIT = 2**24

SERVING, TLS, KERNEL, FILES, HEADERS, LIMITS, OPERATION = (
    "What and where",
    "Certificates and TLS",
    "Kernel TLS",
    "Files and folders",
    "Response headers and access",
    "Limits",
    "Running it",
)
GROUPS = (SERVING, TLS, KERNEL, FILES, HEADERS, LIMITS, OPERATION)


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table. `name` is the field of `Settings` and the TOML key, `example` a value as text."""

    name: str
    default: object
    kind: Kind
    group: str
    help: str
    example: str
    hidden: bool = False

    @property
    def flag(self) -> str:
        """As on the command line; `directory` is the one positional argument."""
        return "DIRECTORY" if self.name == "directory" else "--" + self.name.replace("_", "-")

    @property
    def environment_variable(self) -> str:
        return "KTLS_SERVER_" + self.name.upper()

    def check(self, value: object) -> object:
        """The value as `Settings` holds it; None passes where None is the default. Raises ValueError."""
        return None if value is None and self.default is None else self.kind.read(value)


def option(default: object, kind: Kind, group: str, help: str, *, example: str, hidden: bool = False) -> Any:
    """A field of `Settings` that is an option, too; see `Option`."""
    metadata = {"kind": kind, "group": group, "help": help, "example": example, "hidden": hidden}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the server was asked to do. Made by `load`, or in Python by keyword; either way each value was checked.

    Raises ConfigurationError for a value that its option does not accept.
    """

    directory: Path = option(Path("."), FilePath("DIRECTORY"), SERVING, "The folder to serve.", example="public")
    host: str = option(
        "127.0.0.1",
        Text("ADDRESS", "an address or a host name"),
        SERVING,
        "Address to listen on. 0.0.0.0 is every IPv4 address of this machine, :: every address.",
        example="0.0.0.0",
    )
    port: int = option(
        8443, LISTENING_PORT, SERVING, "Port to listen on. 0 picks a free one and prints it.", example="443"
    )
    http_port: int | None = option(
        None,
        LISTENING_PORT,
        SERVING,
        "Listen here for plain HTTP, too, only to redirect to HTTPS.",
        example="80",
    )
    public_port: int | None = option(
        None,
        PORT,
        SERVING,
        "Where clients reach --port, if that is another port: behind a container's published port, or port forwarding."
        " Redirects from --http-port lead there.",
        example="443",
    )
    config: Path | None = option(
        None,
        FilePath(),
        SERVING,
        "A TOML file with any of these options.",
        example="/etc/ktls-server.toml",
    )

    cert: tuple[Path, ...] = option(
        (),
        Several(FilePath()),
        TLS,
        "Certificate chain (PEM). Repeat for more names or key types: the client's SNI chooses. Without one, a"
        " certificate for localhost is made and kept in the cache folder.",
        example="/etc/ssl/example.org.pem",
    )
    key: tuple[Path, ...] = option(
        (),
        Several(FilePath()),
        TLS,
        "Private key (PEM), in the order of --cert. Leave all out when each certificate file holds its key.",
        example="/etc/ssl/private/example.org.key",
    )
    tls_min: TlsVersion = option(
        "1.2", Choice(*get_args(TlsVersion)), TLS, "Oldest TLS version to accept.", example="1.3"
    )
    ciphers: str = option(
        MOZILLA_INTERMEDIATE,
        Text("LIST", "an OpenSSL cipher list"),
        TLS,
        "Cipher suites for TLS 1.2, as OpenSSL names them; the default is Mozilla's intermediate profile. TLS 1.3"
        " always offers its AES-GCM and ChaCha20-Poly1305 suites.",
        example="ECDHE-ECDSA-AES128-GCM-SHA256",
    )
    groups: str | None = option(
        None,
        Text("LIST", "key exchange groups, separated by colons"),
        TLS,
        "Key exchange groups, best first. X25519, P-256, P-384 and P-521, or any other that OpenSSL has. Before Python"
        " 3.15 only one can be named. The default is OpenSSL's own choice, which these four are part of.",
        example="X25519",
    )
    client_ca: Path | None = option(
        None,
        FilePath(),
        TLS,
        "Ask clients for a certificate, issued by one of the authorities in this file (PEM).",
        example="/etc/ssl/clients.pem",
    )
    client_auth: ClientAuthentication = option(
        "required",
        Choice(*get_args(ClientAuthentication)),
        TLS,
        "With --client-ca: whether a client without a certificate is turned away.",
        example="optional",
    )

    http2: bool = option(
        False,
        FLAG,
        TLS,
        "Offer HTTP/2 to clients that know it. Files go out by sendfile below its frames.",
        example="true",
    )

    ktls: KtlsMode = option(
        "auto",
        Choice(*get_args(KtlsMode)),
        KERNEL,
        "auto: the kernel encrypts where it can, this process elsewhere. require: refuse to start where the kernel cannot."
        " off: always this process.",
        example="require",
    )
    ktls_rx: KtlsReceiveMode = option(
        "auto",
        Choice(*get_args(KtlsReceiveMode)),
        KERNEL,
        "on: the kernel decrypts requests, too, on kernels that can follow key updates (Linux 6.14 and later). off: this"
        " process does. auto is off: the kernel does not take every lawful sequence of records yet.",
        example="on",
    )
    aead_record_limit: int = option(
        AEAD_RECORD_LIMIT,
        Integer(1, AEAD_RECORD_LIMIT, metavar="RECORDS", unit="records"),
        KERNEL,
        "Records under one key before it is changed or the connection closed (RFC 9846 section 5.5). For tests.",
        hidden=True,
        example="1000",
    )

    index: tuple[str, ...] = option(
        ("index.html",),
        Several(FILE_NAME),
        FILES,
        "File that stands for its folder. Repeat for several: the first that exists is used.",
        example="index.htm",
    )
    listing: bool = option(False, FLAG, FILES, "Show what is in a folder that has no index file.", example="true")
    hidden_files: bool = option(False, FLAG, FILES, "Serve files whose name begins with a dot, too.", example="true")
    private_keys: bool = option(
        False,
        FLAG,
        FILES,
        "Serve private keys that lie in the folder, too. Without it the server refuses to start where it finds one.",
        example="true",
    )
    spa: bool = option(
        False,
        FLAG,
        FILES,
        "Answer with the top folder's index file where nothing is found (single-page applications).",
        example="true",
    )
    precompressed: bool = option(
        True,
        FLAG,
        FILES,
        "Send FILE.br, FILE.zst or FILE.gz instead of FILE to clients that accept it.",
        example="false",
    )

    cache_control: tuple[CacheRule, ...] = option(
        (),
        Several(Ruled(CacheRule, "GLOB=VALUE")),
        HEADERS,
        "Cache-Control for the files that match. Repeatable: the first match counts.",
        example="assets/**=max-age=31536000, immutable",
    )
    header: tuple[HeaderRule, ...] = option(
        (),
        Several(Ruled(HeaderRule, "GLOB=NAME: VALUE")),
        HEADERS,
        "A header for the files that match. Repeatable.",
        example="*.html=Referrer-Policy: no-referrer",
    )
    hsts: str | None = option(
        None,
        HEADER_VALUE,
        HEADERS,
        "Strict-Transport-Security for every response.",
        example="max-age=63072000",
    )
    csp: str | None = option(
        None,
        HEADER_VALUE,
        HEADERS,
        "Content-Security-Policy for every response.",
        example="default-src 'self'",
    )
    cors: str | None = option(
        None,
        ORIGIN,
        HEADERS,
        "Access-Control-Allow-Origin: * or one origin.",
        example="https://example.org",
    )
    auth_file: Path | None = option(
        None,
        FilePath(),
        HEADERS,
        "Ask for a name and a password from this htpasswd file (bcrypt or argon2); see ktls-server password.",
        example="/etc/ktls-server.htpasswd",
    )

    # Each connection costs about 30 KiB: ten thousand are 300 MB, and fit the descriptor limit that systemd gives.
    max_connections: int = option(
        10_000,
        Integer(1),
        LIMITS,
        "Connections at one time, in each worker. The one that has been idle longest makes room; where none is idle,"
        " more wait.",
        example="2000",
    )
    # A household or an office behind one address, with six connections for each browser; a single host cannot take all.
    max_connections_per_address: int = option(
        256,
        Integer(1),
        LIMITS,
        "Connections at one time from one address (IPv6: from one /56), over all workers; more are closed.",
        example="32",
    )
    # A handshake costs about a millisecond of CPU: 256 at once are a quarter of a second of work in the queue.
    max_handshakes: int = option(
        256, Integer(1), LIMITS, "Handshakes under way at one time; past it the oldest is ended.", example="64"
    )
    # Five round trips at the two seconds of a bad satellite or mobile line.
    handshake_timeout: float = option(
        10.0,
        Seconds(0.01, 3600),
        LIMITS,
        "A client must have finished its TLS handshake in this time.",
        example="5",
    )
    # One round trip in practice. Against slowloris it is the whole head that counts, not the pause between bytes.
    head_timeout: float = option(
        10.0,
        Seconds(0.01, 3600),
        LIMITS,
        "A request's head must arrive in this time, counted from its first byte.",
        example="5",
    )
    # nginx's keepalive_timeout; browsers close after 60 to 300 seconds by themselves.
    keepalive_timeout: float = option(
        75.0,
        Seconds(0.01, 86400),
        LIMITS,
        "An idle connection is closed after this time.",
        example="15",
    )
    send_timeout: float = option(
        30.0,
        Seconds(0.01, 3600),
        LIMITS,
        "A response of which the client takes nothing for this time is cut.",
        example="60",
    )
    # Half of what a 9600 baud modem took, as in Apache's mod_reqtimeout; slower is someone holding connections.
    min_rate: int = option(
        500,
        Integer(0, metavar="BYTES", unit="bytes per second; 0 sets no minimum"),
        LIMITS,
        "A client that takes less than this per second, averaged over --send-timeout, is cut. 0 sets no minimum.",
        example="10000",
    )
    # Ten times nginx's keepalive_requests: bounds what one connection can gather, costs a handshake in ten thousand.
    max_requests: int = option(
        10_000, Integer(1), LIMITS, "Requests on one connection before it is closed.", example="1000"
    )
    # nginx's large_client_header_buffers (4 x 8 KiB); browsers with many cookies stay under 16 KiB.
    max_head_bytes: int = option(
        32_768,
        Integer(1024, 2**24, metavar="BYTES", unit="bytes"),
        LIMITS,
        "A request whose line and headers are longer is refused.",
        example="16384",
    )

    loop: EventLoop = option("uvloop", Choice(*get_args(EventLoop)), OPERATION, "Event loop.", example="asyncio")
    workers: int = option(
        1,
        Workers(),
        OPERATION,
        "Processes that share the port. auto: one for each processor that may be used.",
        example="auto",
    )
    user: str | None = option(
        None,
        Text("NAME", "a user's name"),
        OPERATION,
        "Become this user once the port and the keys are open.",
        example="www-data",
    )
    grace: float = option(
        30.0,
        Seconds(0, 86400),
        OPERATION,
        "After SIGTERM, time for responses in flight; then they are cut.",
        example="60",
    )
    access_log: AccessLogFormat = option(
        "common",
        Choice(*get_args(AccessLogFormat)),
        OPERATION,
        "One line for each response, on standard output. json names the TLS version, the cipher and the path it took.",
        example="json",
    )
    log_level: LogLevel = option(
        "info",
        Choice(*get_args(LogLevel)),
        OPERATION,
        "What goes to standard error: debug tells why each connection ended.",
        example="debug",
    )
    metrics_port: int | None = option(
        None,
        LISTENING_PORT,
        OPERATION,
        "Serve Prometheus metrics and a health check on this port, by plain HTTP.",
        example="9100",
    )
    metrics_host: str = option(
        "127.0.0.1",
        Text("ADDRESS", "an address or a host name"),
        OPERATION,
        "Address for --metrics-port.",
        example="::1",
    )

    def __post_init__(self) -> None:
        for row in OPTIONS:
            value = getattr(self, row.name)
            try:
                accepted = row.check(value) == value
            except ValueError:
                accepted = False
            if not accepted:
                raise ConfigurationError(f"{row.name}: {value!r} is not accepted; it takes {row.kind.accepts}")


OPTIONS = tuple(
    Option(name=field.name, default=field.default, **field.metadata) for field in dataclasses.fields(Settings)
)


@dataclass(frozen=True, slots=True)
class BoundServer:
    """What the server tells the command line once it listens: where, and which TLS path new connections get and why.

    `tls_path` is a sentence such as `kernel TLS: AES-128-GCM, AES-256-GCM, ChaCha20` or
    `userspace: the kernel has no tls module (ENOENT)`.
    """

    urls: tuple[str, ...]
    tls_path: str
    redirect_urls: tuple[str, ...] = ()
    metrics_urls: tuple[str, ...] = ()
