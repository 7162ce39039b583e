"""Settings: four sources, one precedence, and errors that say where, what and what instead."""

from __future__ import annotations

import dataclasses
import os
import socket
import typing
from pathlib import Path

import pytest

from ktls_server.errors import ConfigurationError
from ktls_server.processors import usable_processors
from ktls_server.settings import OPTIONS, CacheRule, HeaderRule, Option, Settings, Sources, load
from ktls_server.settings.exposure import would_be_served
from ktls_server.settings.options import GROUPS


def load_toml(folder: Path, text: str, **command_line: object) -> Settings:
    file = folder / "server.toml"
    file.write_text(text)
    return load(Sources({"config": str(file), **command_line}, {}))


def error_of(command_line: dict[str, object], environment: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(Sources(command_line, environment or {}))
    return str(caught.value)


def toml_error(folder: Path, text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_toml(folder, text)
    return str(caught.value)


def by_name(option: Option) -> str:
    return option.name


# The table


@pytest.mark.parametrize("option", OPTIONS, ids=by_name)
def test_every_default_and_example_is_accepted_by_its_own_option(option: Option) -> None:
    assert option.check(option.default) == option.default
    example = option.kind.read(option.example)
    assert option.kind.read(example) == example
    if not option.kind.is_flag and option.name != "aead_record_limit":
        assert example != option.default, "an example that repeats the default shows nothing"


@pytest.mark.parametrize("option", OPTIONS, ids=by_name)
def test_every_value_has_the_type_that_settings_declares(option: Option) -> None:
    declared = typing.get_type_hints(Settings)[option.name]
    for value in (option.default, option.kind.read(option.example)):
        assert fits(value, declared), f"{value!r} is not a {declared}"


def fits(value: object, declared: object) -> bool:
    arguments = typing.get_args(declared)
    match typing.get_origin(declared):
        case typing.Literal:
            return value in arguments
        case None:
            return declared is type(value) or (isinstance(declared, type) and isinstance(value, declared))
        case origin if origin is tuple:
            return isinstance(value, tuple) and all(fits(part, arguments[0]) for part in value)
        case _:
            return any(fits(value, argument) for argument in arguments)


def test_every_option_has_a_help_sentence_and_a_group_that_is_shown() -> None:
    for option in OPTIONS:
        assert option.help.endswith("."), option.name
        assert option.group in GROUPS, option.name


def test_settings_made_in_python_are_checked_as_well() -> None:
    assert Settings(port=0, head_timeout=0.5).port == 0
    for wrong in ({"port": 70000}, {"port": "80"}, {"ktls": "yes"}, {"listing": 1.5}, {"max_connections": 0}):
        with pytest.raises(ConfigurationError, match=next(iter(wrong))):
            Settings(**wrong)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().port = 1  # type: ignore[misc]


# Precedence


def test_the_command_line_wins_over_the_environment_over_the_file_over_the_default(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text("port = 1\nhttp_port = 2\nmetrics_port = 3\n")
    environment = {"KTLS_SERVER_CONFIG": str(file), "KTLS_SERVER_PORT": "11", "KTLS_SERVER_HTTP_PORT": "12"}
    settings = load(Sources({"port": "21"}, environment))
    assert (settings.port, settings.http_port, settings.metrics_port) == (21, 12, 3)
    assert settings.host == "127.0.0.1"


def test_a_repeatable_option_is_replaced_as_a_whole_by_the_stronger_source(tmp_path: Path) -> None:
    settings = load_toml(tmp_path, 'index = ["a.html", "b.html"]\n', index=("c.html",))
    assert settings.index == ("c.html",)


def test_other_peoples_environment_variables_are_ignored() -> None:
    assert load(Sources({}, {"PATH": "/bin", "_KTLS_SERVER_COMPLETE": "x"})) == Settings()


# How values are written


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("port", "0", 0),
        ("listing", "yes", True),
        ("listing", "TRUE", True),
        ("listing", "1", True),
        ("precompressed", "off", False),
        ("precompressed", "no", False),
        ("grace", "2.5", 2.5),
        ("workers", "3", 3),
        ("workers", "auto", usable_processors()),
        ("index", "index.html\nindex.htm", ("index.html", "index.htm")),
        ("cache_control", "*.css=max-age=60", (CacheRule("*.css", "max-age=60"),)),
        ("header", "*.html=Link: </a=b>; rel=x", (HeaderRule("*.html", "Link", "</a=b>; rel=x"),)),
        ("header", "*=A: 1\n*=B: 2", (HeaderRule("*", "A", "1"), HeaderRule("*", "B", "2"))),
        ("csp", "default-src 'self'; img-src *", "default-src 'self'; img-src *"),
        *(("cors", origin, origin) for origin in ("*", "null", "https://a.test", "http://[::1]:8080", "app+x://id")),
    ],
)
def test_an_environment_variable_reads_as(name: str, text: str, value: object) -> None:
    settings = load(Sources({}, {f"KTLS_SERVER_{name.upper()}": text}))
    assert getattr(settings, name) == value


def test_an_empty_environment_variable_counts_as_not_set() -> None:
    assert load(Sources({}, {"KTLS_SERVER_HTTP_PORT": "", "KTLS_SERVER_PORT": ""})) == Settings()


def test_toml_values_have_their_own_types(tmp_path: Path) -> None:
    settings = load_toml(
        tmp_path,
        'port = 0\ngrace = 2\nhead_timeout = 0.25\nlisting = true\nindex = ["a", "b"]\nhsts = "max-age=1"',
    )
    assert (settings.port, settings.grace, settings.head_timeout, settings.listing) == (0, 2.0, 0.25, True)
    assert (settings.index, settings.hsts) == (("a", "b"), "max-age=1")


def test_relative_paths_in_a_file_start_at_the_files_folder(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    put(tmp_path / "cert.pem", CHAIN)
    settings = load_toml(tmp_path, 'directory = "site"\ncert = ["cert.pem"]\nkey = ["/dev/null"]\n')
    assert settings.directory == tmp_path / "site"
    assert settings.cert == (tmp_path / "cert.pem",)
    assert settings.key == (Path("/dev/null"),)


# Errors


@pytest.mark.parametrize(
    ("name", "text", "accepted"),
    [
        ("port", "http", "a whole number from 0 to 65535"),
        ("port", "65536", "a whole number from 0 to 65535"),
        ("port", "-1", "a whole number from 0 to 65535"),
        ("ktls", "on", "one of auto, require, off"),
        ("listing", "maybe", "true or false"),
        ("grace", "soon", "seconds from 0 to 86400"),
        ("grace", "nan", "seconds from 0 to 86400"),
        ("head_timeout", "0", "seconds from 0.01 to 3600"),
        ("workers", "0", "a whole number from 1 to 1024, or auto"),
        ("max_head_bytes", "10", "in bytes"),
        ("host", "a\nb", "an address or a host name"),
        ("index", "sub/index.html", "a name, not a path"),
        ("index", "..", "a name, not a path"),
        ("hsts", "max-age=1\r\nX: y", "a header value"),
        ("csp", "default-src ‘self’", "a header value"),
        ("cors", "x y", "* or one origin, like https://example.org"),
        ("cors", "https://example.org/", "no path"),
        ("cors", "https://a.test, https://b.test", "one origin"),
        ("cors", "https://Example.org", "one origin"),
        ("cors", "example.org", "one origin"),
        ("cache_control", "max-age", "GLOB=VALUE"),
        ("cache_control", "*.css=", "GLOB=VALUE"),
        ("header", "*.css=no colon", "GLOB=NAME: VALUE"),
        ("header", "*=Content-Length: 3", "the server writes Content-Length itself"),
        ("header", "*=Bad Name: x", "GLOB=NAME: VALUE"),
    ],
)
def test_a_value_that_is_not_accepted_is_named_with_its_place_and_what_is(name: str, text: str, accepted: str) -> None:
    option = next(option for option in OPTIONS if option.name == name)
    raw: object = (text,) if option.kind.repeatable else text
    message = error_of({name: raw})
    assert message.startswith(f"{option.flag} (command line): ")
    assert f": {text!r} is not accepted" in message
    assert accepted in message
    assert "\n" not in message


def test_of_several_values_the_wrong_one_is_named(tmp_path: Path) -> None:
    message = error_of({"index": ("index.html", "sub/index.html")})
    assert message.startswith("--index (command line): 'sub/index.html' is not accepted (a name, not a path)")
    assert "KTLS_SERVER_INDEX (environment): 'a/b' is not" in error_of({}, {"KTLS_SERVER_INDEX": "index.html\na/b"})
    assert "index: 1 is not accepted" in toml_error(tmp_path, 'index = ["index.html", 1]')


def test_a_wrong_value_in_the_environment_is_named_by_its_variable() -> None:
    assert error_of({}, {"KTLS_SERVER_PORT": "x"}).startswith("KTLS_SERVER_PORT (environment): 'x' is not accepted; ")


@pytest.mark.parametrize("name", ["header", "cache_control"])
def test_a_rule_can_never_split_a_response_head(name: str) -> None:
    for smuggled in ("\r\nSet-Cookie: a=b", "\nX: y", "\0", "\x1b[31m", "\u2028", "é"):
        error_of({name: (f"*=X-Name: value{smuggled}",)})


@pytest.mark.parametrize(
    ("text", "line", "key", "rest"),
    [
        ("\n# a comment\nport = 70000\n", 3, "port", "70000 is not accepted"),
        ("host = 'a'\n  listing = 'maybe'", 2, "listing", "it takes true or false"),
        ("port = true", 1, "port", "True is not accepted"),
        ("index = [1]", 1, "index", "a file name"),
        ("grace = 1979-05-27", 1, "grace", "it takes seconds"),
        ("max-head-bytes = 1", 1, "max-head-bytes", "did you mean max_head_bytes?"),
        ('[limits]\nhost = "a"', 1, "limits", "options stand at the top of the file"),
        ("tls.min = '1.2'", 1, "tls", "options stand at the top of the file"),
        ("auth_fil = 'x'", 1, "auth_fil", "did you mean auth_file?"),
        ("config = 'x'", 1, "config", "there is no such option for a configuration file"),
    ],
)
def test_an_error_in_the_file_names_file_line_and_key(
    tmp_path: Path, text: str, line: int, key: str, rest: str
) -> None:
    message = toml_error(tmp_path, text)
    assert message.startswith(f"{tmp_path / 'server.toml'}, line {line}, {key}: ")
    assert rest in message


def test_a_file_that_is_no_toml_is_named_with_the_parsers_line(tmp_path: Path) -> None:
    message = toml_error(tmp_path, "port = 1\nport 2\n")
    assert str(tmp_path / "server.toml") in message
    assert "line 2" in message


def test_a_file_that_is_missing_or_binary_is_named(tmp_path: Path) -> None:
    assert "No such file" in error_of({"config": str(tmp_path / "nowhere.toml")})
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    assert "UTF-8" in error_of({"config": str(tmp_path / "binary")})


def test_a_misspelt_environment_variable_is_an_error_with_a_hint() -> None:
    assert "did you mean KTLS_SERVER_AUTH_FILE?" in error_of({}, {"KTLS_SERVER_AUTHFILE": "x"})
    assert "no such option" in error_of({}, {"KTLS_SERVER_QQQQ": "x"})
    assert "did you mean KTLS_SERVER_PORT?" in error_of({}, {"KTLS_SERVER_port": "1"})


def kubelet_variables(service: str, address: str, port_name: str, port: int) -> dict[str, str]:
    """What a kubelet sets in every container of the namespace for one Service with one port (pkg/kubelet/envvars)."""
    prefix = service.upper().replace("-", "_")
    link = f"{prefix}_PORT_{port}_TCP"
    return {
        f"{prefix}_SERVICE_HOST": address,
        f"{prefix}_SERVICE_PORT": str(port),
        f"{prefix}_SERVICE_PORT_{port_name.upper().replace('-', '_')}": str(port),
        f"{prefix}_PORT": f"tcp://{address}:{port}",
        link: f"tcp://{address}:{port}",
        f"{link}_PROTO": "tcp",
        f"{link}_PORT": str(port),
        f"{link}_ADDR": address,
    }


@pytest.mark.parametrize("service", ["ktls-server", "ktls-server-metrics", "ktls-server-http"])
def test_the_variables_that_kubernetes_makes_for_a_service_are_ignored_with_one_note(service: str) -> None:
    notes: list[str] = []
    environment = {**kubelet_variables(service, "10.96.0.7", "https", 443), "KTLS_SERVER_GRACE": "5"}
    settings = load(Sources({}, environment), notes.append)
    assert settings == Settings(grace=5.0)
    (note,) = notes
    assert "KTLS_SERVER_" in note
    assert "Kubernetes" in note
    assert "enableServiceLinks: false" in note


def test_a_port_that_the_pod_sets_itself_counts_beside_the_variables_of_kubernetes() -> None:
    environment = {**kubelet_variables("ktls-server", "fd00::7", "https", 443), "KTLS_SERVER_PORT": "9443"}
    assert load(Sources({}, environment)).port == 9443


def test_without_variables_of_kubernetes_nothing_is_noted() -> None:
    notes: list[str] = []
    load(Sources({}, {"KTLS_SERVER_GRACE": "5", "KUBERNETES_SERVICE_HOST": "10.96.0.1"}), notes.append)
    assert notes == []


@pytest.mark.parametrize(
    "variable", ["KTLS_SERVER_SERVICE_HOSTS", "KTLS_SERVER_PORT_443", "KTLS_SERVER_PORT_443_TCP_X", "KTLS_SERVER_POR"]
)
def test_what_only_resembles_the_variables_of_kubernetes_is_an_error(variable: str) -> None:
    assert "there is no such option" in error_of({}, {variable: "tcp://10.96.0.7:443"})


@pytest.mark.parametrize("text", ["tcp:/10.96.0.7:443", "10.96.0.7", "http://10.96.0.7:443"])
def test_a_port_that_no_kubelet_writes_is_an_error(text: str) -> None:
    assert "is not accepted" in error_of({}, {"KTLS_SERVER_PORT": text})


# Conflicts


def test_a_folder_that_is_not_there_is_refused_with_its_place(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert error_of({"directory": str(missing)}) == (
        f"DIRECTORY (command line): '{missing}' does not exist; name the folder to serve"
    )
    assert "line 1, directory: " in toml_error(tmp_path, 'directory = "server.toml"')


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    for name in ("cert", "key", "client_ca", "auth_file"):
        path = str(tmp_path / "missing")
        given: dict[str, object] = {name: (path,) if name in ("cert", "key") else path}
        if name == "key":
            given["cert"] = ("/dev/null",)
        assert f"'{path}' does not exist" in error_of(given)


def test_keys_must_match_certificates_in_number() -> None:
    null = "/dev/null"
    assert "1 keys for 2 certificates" in error_of({"cert": (null, null), "key": (null,)})
    assert load(Sources({"cert": (null, null)}, {})).key == ()


def test_one_port_is_not_given_to_two_listeners() -> None:
    message = error_of({"port": "8443", "metrics_port": "8443"})
    assert message.startswith("--metrics-port (command line): 8443 is the port of --port already")
    assert load(Sources({"port": "0", "metrics_port": "0"}, {})).port == 0


def test_asking_for_client_certificates_needs_the_authorities() -> None:
    for word in ("required", "optional"):
        assert "--client-ca" in error_of({"client_auth": word})
    assert load(Sources({"client_auth": "optional", "client_ca": "/dev/null"}, {})).client_auth == "optional"


@pytest.mark.parametrize(("name", "given_as"), [("key", "key.pem"), ("cert", "cert.pem"), ("auth_file", "htpasswd")])
def test_secrets_in_the_served_folder_are_refused(tmp_path: Path, name: str, given_as: str) -> None:
    path = tmp_path / given_as
    path.touch()
    secret: object = (str(path),) if name != "auth_file" else str(path)
    given: dict[str, object] = {"directory": str(tmp_path), name: secret}
    if name == "key":
        given["cert"] = ("/dev/null",)
    message = error_of(given)
    assert str(path) in message
    assert "anybody could download" in message


def test_secrets_that_no_request_can_reach_are_left_alone(tmp_path: Path) -> None:
    hidden = tmp_path / ".private"
    hidden.mkdir()
    (hidden / "htpasswd").touch()
    given = {"directory": str(tmp_path), "auth_file": str(hidden / "htpasswd")}
    assert load(Sources(given, {})).auth_file == hidden / "htpasswd"
    assert "anybody could download" in error_of({**given, "hidden_files": True})
    # A certificate without its key is public.
    put(tmp_path / "cert.pem", CHAIN)
    load(Sources({"directory": str(tmp_path), "cert": (str(tmp_path / "cert.pem"),), "key": ("/dev/null",)}, {}))


KEY = "-----BEGIN PRIVATE KEY-----\nMC4CAQ\n-----END PRIVATE KEY-----\n"
CHAIN = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n" * 3


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("certs/key.pem", KEY),
        ("deep/er/tls.KEY", KEY.replace("PRIVATE", "ENCRYPTED PRIVATE")),
        ("bundle.pem", CHAIN + KEY.replace("PRIVATE", "EC PRIVATE")),
        ("id_ed25519", KEY.replace("PRIVATE", "OPENSSH PRIVATE")),
        ("putty.ppk", "PuTTY-User-Key-File-3: ssh-ed25519\n"),
        (".well-known/key.pem", KEY),
    ],
)
def test_a_private_key_in_the_served_folder_keeps_the_server_from_starting(
    tmp_path: Path, name: str, text: str
) -> None:
    path = put(tmp_path / name, text)
    message = error_of({"directory": str(tmp_path)})
    assert message.startswith("DIRECTORY (command line): ")
    assert str(path) in message
    assert "--private-keys" in message
    assert load(Sources({"directory": str(tmp_path), "private_keys": True}, {})).private_keys


def test_private_keys_that_no_request_can_reach_are_left_alone(tmp_path: Path) -> None:
    put(tmp_path / ".certs" / "key.pem", KEY)
    put(tmp_path / ".well-known" / ".key.pem", KEY)
    load(Sources({"directory": str(tmp_path)}, {}))
    assert "is a private key" in error_of({"directory": str(tmp_path), "hidden_files": True})


def test_what_is_no_private_key_is_served_whatever_its_name(tmp_path: Path) -> None:
    put(tmp_path / "cert.pem", CHAIN)
    put(tmp_path / "translation.key", "word = -----BEGIN PRIVATE KEY-----\n")
    put(tmp_path / "how-to-make-keys.html", KEY)
    put(tmp_path / ".well-known" / "acme-challenge" / "token", "token.thumbprint")
    os.mkfifo(tmp_path / "pipe.pem")
    (tmp_path / "loop.pem").symlink_to("loop.pem")
    assert load(Sources({"directory": str(tmp_path)}, {})).directory == tmp_path


def test_a_link_counts_as_what_it_leads_to(tmp_path: Path) -> None:
    key = put(tmp_path / "outside" / "key.pem", KEY)
    site = tmp_path / "site"
    site.mkdir()
    (site / "key.pem").symlink_to(key)
    load(Sources({"directory": str(site)}, {}))
    put(site / ".hidden" / "key.pem", KEY)
    (site / "seen.pem").symlink_to(".hidden/key.pem")
    assert str(site / "seen.pem") in error_of({"directory": str(site)})


@pytest.mark.parametrize(
    ("content", "cure"), [(b"", ""), (b"garbage\n", ""), (b"\x30\x82\x01\x0a\xff", "openssl"), (KEY.encode(), "")]
)
@pytest.mark.parametrize("name", ["cert", "client_ca"])
def test_a_file_without_a_certificate_is_named(tmp_path: Path, name: str, content: bytes, cure: str) -> None:
    path = tmp_path / "my cert"
    path.write_bytes(content)
    message = error_of({name: (str(path),) if name == "cert" else str(path)})
    assert f"'{path}' holds no certificate in PEM form" in message
    assert (f"openssl x509 -inform der -in '{path}'" in message) is bool(cure)
    assert "\n" not in message


def test_a_file_without_a_key_is_named(tmp_path: Path) -> None:
    cert, key = put(tmp_path / "cert.pem", CHAIN), put(tmp_path / "key.pem", CHAIN)
    message = error_of({"cert": (str(cert),), "key": (str(key),)})
    assert message.startswith("--key (command line): ")
    assert f"'{key}' holds no private key in PEM form" in message
    put(key, "-----BEGIN EC PARAMETERS-----\nBgg=\n-----END EC PARAMETERS-----\n" + KEY)
    assert load(Sources({"cert": (str(cert),), "key": (str(key),)}, {})).key == (key,)


def test_the_search_for_private_keys_is_bounded_and_begins_at_the_top(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        put(tmp_path / "many" / str(number), "")
    put(tmp_path / "key.pem", KEY)
    monkeypatch.setattr("ktls_server.settings.exposure.MAX_ENTRIES", 10)
    assert str(tmp_path / "key.pem") in error_of({"directory": str(tmp_path)})
    (tmp_path / "key.pem").rename(tmp_path / "many" / "key.pem")
    monkeypatch.setattr("ktls_server.settings.exposure.MAX_ENTRIES", 1)
    load(Sources({"directory": str(tmp_path)}, {}))


@pytest.mark.parametrize(("name", "served"), [(".cache", False), (".well-known", True), ("sub/.well-known", False)])
def test_a_folder_with_a_dot_is_hidden_unless_it_is_the_well_known_one(tmp_path: Path, name: str, served: bool) -> None:
    settings = Settings(directory=tmp_path)
    assert would_be_served(tmp_path / name / "key.pem", settings) is served
    assert not would_be_served(tmp_path / name / ".key.pem", settings)


def test_the_default_host_is_loopback() -> None:
    assert socket.inet_aton(Settings().host)[0] == 127


# What `--workers auto` means


@pytest.mark.parametrize(
    ("cpu_max", "processors"),
    [
        ("max 100000\n", 3),
        ("100000 100000\n", 1),
        ("150000 100000\n", 2),
        ("50000 100000\n", 1),
        ("900000 100000\n", 3),
    ],
)
def test_a_containers_quota_bounds_the_number_of_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpu_max: str, processors: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1, 5})
    file = tmp_path / "cpu.max"
    file.write_text(cpu_max)
    assert usable_processors(file) == processors
    assert usable_processors(tmp_path / "missing") == 3
