"""Merge the four sources of options into one checked `Settings`: command line, environment, TOML file, defaults.

The first source that names an option wins. Every error says which source, which name and which value, and what would be
accepted. A name that no option has is an error, too: a misspelt `auth_file` must not serve a folder to everyone.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import ConfigurationError
from .exposure import PEM_KEY, served_private_key, would_be_served
from .kinds import NotAccepted
from .options import OPTIONS, Option, Settings

_PREFIX = "KTLS_SERVER_"

# What a kubelet sets in every container for a Service named ktls-server, or ktls-server-NAME (kubernetes.io: "Accessing
# Services, Environment variables"). The last form is also the name of an option, so its value decides.
_KUBERNETES_NAME = re.compile(
    r"(?:\w+_)?(?:SERVICE_(?:HOST|PORT(?:_\w+)?)|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)"
)
_KUBERNETES_LINK = re.compile(r"(?:tcp|udp|sctp)://\S+:\d+")

_CERTIFICATE_LINE = re.compile(rb"(?m)^-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----")
_KEY_LINE = re.compile(b"(?m)^" + PEM_KEY)
_DER_SEQUENCE = b"\x30"
_FROM_DER = {
    "certificate": "; if it is in DER form: openssl x509 -inform der -in {path} -out cert.pem",
    "private key": "; if it is in DER form: openssl pkey -inform der -in {path} -out key.pem",
}

_BY_NAME = {option.name: option for option in OPTIONS}


@dataclass(frozen=True, slots=True)
class _Given:
    """A value as it was written, and where: `place` begins an error message."""

    raw: object
    place: str
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class Sources:
    """Where options may come from. `command_line` maps option names to text (True or False for flags), without those
    that were not given; `environment` is `os.environ` or the like."""

    command_line: Mapping[str, object] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


def load(sources: Sources, note: Callable[[str], None] = lambda text: None) -> Settings:
    """The settings that the sources ask for together. Raises ConfigurationError.

    `note` is called with a sentence for the user about what was ignored.
    """
    ours, kubernetes = _split_environment(sources.environment)
    if kubernetes:
        note(
            f"{', '.join(sorted(kubernetes))}: set by Kubernetes for a Service of that name, not an option, and ignored;"
            " write 'enableServiceLinks: false' in the pod's spec"
        )
    given = _environment(ours) | _command_line(sources.command_line)
    if "config" in given:
        config = _value(_BY_NAME["config"], given["config"])
        assert isinstance(config, Path)
        given = _toml_file(config) | given
    values = {name: _value(_BY_NAME[name], value) for name, value in given.items()}
    # The table gives each field its type; mypy cannot follow it through the mapping.
    settings = Settings(**values)  # type: ignore[arg-type]
    for name, conflict in _conflicts(settings, given.keys()):
        place = given[name].place if name in given else f"{_BY_NAME[name].flag} (default)"
        raise ConfigurationError(f"{place}: {conflict}")
    return settings


def _command_line(given: Mapping[str, object]) -> dict[str, _Given]:
    return {name: _Given(raw, f"{_BY_NAME[name].flag} (command line)") for name, raw in given.items()}


def _split_environment(environment: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """The variables of this program: those that somebody set, and those that Kubernetes made for a Service.

    An empty variable counts as not set: compose files write `NAME: ${NAME:-}`.
    """
    ours: dict[str, str] = {}
    kubernetes: dict[str, str] = {}
    for variable, text in environment.items():
        if variable.startswith(_PREFIX) and text:
            name = variable.removeprefix(_PREFIX)
            link = name.endswith("PORT") and _KUBERNETES_LINK.fullmatch(text)
            (kubernetes if link or _KUBERNETES_NAME.fullmatch(name) else ours)[variable] = text
    return ours, kubernetes


def _environment(environment: Mapping[str, str]) -> dict[str, _Given]:
    given = {}
    for variable, text in environment.items():
        name = variable.removeprefix(_PREFIX).lower()
        if name not in _BY_NAME or variable != variable.upper():
            hint = _closest(name, [option.name for option in OPTIONS])
            suggestion = f"; did you mean {_PREFIX}{hint.upper()}?" if hint else "; see ktls-server serve --help"
            raise ConfigurationError(f"{variable} (environment): there is no such option{suggestion}")
        given[name] = _Given(text, f"{variable} (environment)")
    return given


def _toml_file(path: Path) -> dict[str, _Given]:
    import tomllib

    try:
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except OSError as error:
        raise ConfigurationError(f"--config {path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"--config {path}: is not UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: is not valid TOML: {error}") from error
    given = {}
    for key, raw in document.items():
        place = f"{path}, line {_line_of(key, text)}, {key}"
        if isinstance(raw, dict):
            raise ConfigurationError(f"{place}: is a table, and options stand at the top of the file, without one")
        if key not in _BY_NAME or key == "config":
            hint = _closest(key, [option.name for option in OPTIONS if option.name != "config"])
            suggestion = f"; did you mean {hint}?" if hint else "; see ktls-server serve --help"
            raise ConfigurationError(f"{place}: there is no such option for a configuration file{suggestion}")
        given[key] = _Given(raw, place, path.parent)
    return given


def _line_of(key: str, text: str) -> int:
    """The line that sets a top-level key; tomllib does not tell. 1 where the key is written in an unusual way."""
    pattern = re.compile(rf"""^\s*\[?\s*["']?{re.escape(key)}["']?\s*[=.\]]""", re.MULTILINE)
    match = pattern.search(text)
    return text.count("\n", 0, match.end()) + 1 if match else 1


def _closest(name: str, names: list[str]) -> str | None:
    matches = difflib.get_close_matches(name.lower().replace("-", "_"), names, n=1, cutoff=0.6)
    return matches[0] if matches else None


def _value(option: Option, given: _Given) -> object:
    try:
        value = option.kind.read(given.raw)
    except ValueError as error:
        # int() and float() explain themselves in words for programmers; the kinds' own messages add something.
        raw = error.part if isinstance(error, NotAccepted) else given.raw
        detail = str(error)
        reason = f" ({detail})" if detail and "literal" not in detail and "could not convert" not in detail else ""
        raise ConfigurationError(
            f"{given.place}: {raw!r} is not accepted{reason}; it takes {option.kind.accepts}"
        ) from None
    return value if given.folder is None else option.kind.relative_to(value, given.folder)


def _conflicts(settings: Settings, given: Set[str]) -> Iterator[tuple[str, str]]:
    """What cannot be, although each value alone can: (the option to blame, the rest of the message)."""
    if "client_auth" in given and settings.client_ca is None:
        yield "client_auth", "no client is asked for a certificate without --client-ca; name the authorities' file"
    if not settings.directory.is_dir():
        what = "is not a folder" if settings.directory.exists() else "does not exist"
        yield "directory", f"{str(settings.directory)!r} {what}; name the folder to serve"
    if settings.key and len(settings.key) != len(settings.cert):
        yield (
            "key",
            f"{len(settings.key)} keys for {len(settings.cert)} certificates; give one --key for each --cert,"
            " in the same order, or none where the certificate files hold their keys",
        )
    for name in ("cert", "key", "client_ca", "auth_file"):
        value = getattr(settings, name)
        for path in value if isinstance(value, tuple) else (value,):
            if path is not None and not os.access(path, os.R_OK):
                yield name, f"{str(path)!r} {'cannot be read' if path.exists() else 'does not exist'}"
    yield from _exposed_secrets(settings)
    yield from _files_of_another_kind(settings)
    ports = [("port", settings.port), ("http_port", settings.http_port), ("metrics_port", settings.metrics_port)]
    seen: dict[int, str] = {}
    for name, port in ports:
        if port and port in seen:
            yield name, f"{port} is the port of {_BY_NAME[seen[port]].flag} already; choose another"
        elif port:
            seen[port] = name
    if settings.groups is not None and ":" in settings.groups:
        import ssl

        if not hasattr(ssl.SSLContext, "set_groups"):
            yield "groups", f"{settings.groups!r} names several groups, which needs Python 3.15; name one"


def _files_of_another_kind(settings: Settings) -> Iterator[tuple[str, str]]:
    """Files for OpenSSL that hold nothing of what is looked for there: its own words for that are "[SSL] PEM lib"."""
    for name, what, line in (
        ("cert", "certificate", _CERTIFICATE_LINE),
        ("key", "private key", _KEY_LINE),
        ("client_ca", "certificate", _CERTIFICATE_LINE),
    ):
        value = getattr(settings, name)
        for path in value if isinstance(value, tuple) else (value,):
            # Only of files: what is read from a pipe is gone.
            if path is None or not path.is_file():
                continue
            content = path.read_bytes()
            if not line.search(content):
                cure = (
                    "" if not content.startswith(_DER_SEQUENCE) else _FROM_DER[what].format(path=shlex.quote(str(path)))
                )
                yield name, f"{str(path)!r} holds no {what} in PEM form, which is text and begins with -----BEGIN{cure}"


def _exposed_secrets(settings: Settings) -> Iterator[tuple[str, str]]:
    """Files with secrets that a request could reach. A certificate file holds a key if no --key is given."""
    for name in ("key" if settings.key else "cert", "auth_file"):
        value = getattr(settings, name)
        for path in value if isinstance(value, tuple) else (value,):
            if path is not None and would_be_served(path, settings):
                yield name, f"{str(path)!r} lies in the folder that is served: anybody could download it; move it away"
    if not settings.private_keys:
        found = served_private_key(settings)
        if found is not None:
            yield (
                "directory",
                f"{str(found)!r} is a private key in the folder that is served: anybody could download it; move it"
                " away, or give --private-keys if it is for everybody",
            )
