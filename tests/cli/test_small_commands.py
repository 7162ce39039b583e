"""`certs`, `password`, `compress`, and the options reference."""

from __future__ import annotations

import gzip
import io
import shlex
import sys
import tomllib
from pathlib import Path

import pytest

from ktls_server import passwords
from ktls_server.cli.reference import reference, table
from ktls_server.settings import OPTIONS, Settings
from ktls_server.settings.exposure import would_be_served
from tests.cli.conftest import Command

DOCUMENT = Path(__file__).parents[2] / "docs" / "options.md"


# certs


def test_certs_writes_a_pair_once(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    outcome = command("certs", folder, "--name", "one.test", "--name", "192.0.2.7")
    assert outcome.status == 0
    assert outcome.out.startswith(f"made: {folder}/cert.pem and {folder}/key.pem\n")
    assert (folder / "key.pem").stat().st_mode & 0o777 == 0o600
    assert command("certs", folder).out.startswith("still good: ")


def serve_command(output: str) -> list[str]:
    (line,) = [line for line in output.splitlines() if line.startswith("serve: ")]
    return shlex.split(line.removeprefix("serve: "))


@pytest.mark.parametrize("arguments", [(), ("certificates in use",)])
def test_the_command_that_certs_prints_serves_without_giving_the_key_away(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    started: list[Settings] = []
    monkeypatch.setattr("ktls_server.server.run", lambda settings, announce: started.append(settings))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "public").mkdir()
    program, *words = serve_command(command("certs", *arguments).out)
    assert program == "ktls-server"
    words = ["public" if word == "FOLDER" else word for word in words]
    outcome = command(*words)
    assert (outcome.status, outcome.err) == (0, "")
    (settings,) = started
    assert not would_be_served(settings.key[0], settings)


def test_certs_and_serve_with_their_defaults_keep_the_key_private(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Settings] = []
    monkeypatch.setattr("ktls_server.server.run", lambda settings, announce: started.append(settings))
    monkeypatch.chdir(tmp_path)
    assert command("certs").status == 0
    assert command("serve").status == 0
    (settings,) = started
    assert [path.name for path in tmp_path.rglob("key.pem")] == ["key.pem"]
    assert not any(would_be_served(path, settings) for path in tmp_path.rglob("key.pem"))
    assert command("certs", "certs").status == 0
    outcome = command("serve")
    assert outcome.status == 2
    assert "certs/key.pem" in outcome.err


def test_certs_leaves_a_foreign_key_alone(command: Command, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("precious")
    outcome = command("certs", tmp_path)
    assert outcome.status == 2
    assert "did not make" in outcome.err
    assert (tmp_path / "key.pem").read_text() == "precious"


# password


@pytest.mark.parametrize(("arguments", "prefix"), [((), "$argon2id$"), (("--hash", "bcrypt"), "$2b$12$")])
def test_password_from_standard_input_opens_the_folder(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], prefix: str
) -> None:
    file = tmp_path / "htpasswd"
    monkeypatch.setattr(sys, "stdin", io.StringIO("top secret\nanother line\n"))
    outcome = command("password", file, "ann", "--stdin", *arguments)
    assert (outcome.status, outcome.out) == (0, f"added: ann in {file}\n")
    assert file.read_text().startswith(f"ann:{prefix}")
    assert passwords.load(file).verify(b"Basic YW5uOnRvcCBzZWNyZXQ=")


def test_password_asks_twice_and_shows_nothing(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, dict[str, object]]] = []

    def prompt(text: str, **how: object) -> str:
        asked.append((text, how))
        return "top secret"

    monkeypatch.setattr("click.prompt", prompt)
    outcome = command("password", tmp_path / "htpasswd", "ann")
    assert asked == [("Password", {"hide_input": True, "confirmation_prompt": True})]
    assert "secret" not in outcome.out + outcome.err + (tmp_path / "htpasswd").read_text()


def test_an_empty_password_is_refused(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert command("password", tmp_path / "htpasswd", "ann", "--stdin").status == 2
    assert not (tmp_path / "htpasswd").exists()


# compress


def test_compress_writes_siblings_once_and_says_what_it_did(command: Command, tmp_path: Path) -> None:
    page = b"<p>again and again</p>\n" * 500
    (tmp_path / "index.html").write_bytes(page)
    (tmp_path / "photo.jpg").write_bytes(page)
    outcome = command("compress", tmp_path, "--jobs", "2")
    assert (outcome.status, outcome.err) == (0, "")
    after = sum((tmp_path / f"index.html.{extension}").stat().st_size for extension in ("br", "gz", "zst"))
    assert outcome.out == f"3 written: {3 * len(page):,} bytes have become {after:,}\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "index.html",
        "index.html.br",
        "index.html.gz",
        "index.html.zst",
        "photo.jpg",
    ]
    assert gzip.decompress((tmp_path / "index.html.gz").read_bytes()) == page
    assert command("compress", tmp_path).out == "0 written\n"


def test_compress_names_what_it_could_not_do(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ktls_server.files import compress

    (tmp_path / "index.html").write_bytes(b"again " * 1000)
    monkeypatch.setattr(
        compress, "compress_file", lambda work, progress: compress.Result(compress.Outcome.UNREADABLE, 0)
    )
    outcome = command("compress", tmp_path)
    assert outcome.status == 1
    assert outcome.out == "0 written, 3 cannot be read or written\n"
    assert outcome.err == f"cannot be read or written: {tmp_path / 'index.html'}\n"


def test_compress_refuses_what_is_no_folder(command: Command, tmp_path: Path) -> None:
    assert command("compress", tmp_path / "missing").status == 2


# The options reference


def test_the_options_reference_is_what_the_code_says() -> None:
    assert DOCUMENT.read_text() == reference(), "write it anew: python -m ktls_server.cli.reference > docs/options.md"


def test_the_table_in_the_readme_is_what_the_code_says() -> None:
    readme = DOCUMENT.parents[1] / "README.md"
    assert table() in readme.read_text(), "paste it anew: python -m ktls_server.cli.reference --table"


def test_the_reference_has_every_option_that_is_not_hidden() -> None:
    text = reference()
    for option in OPTIONS:
        assert (f"`{option.environment_variable}`" in text) is not option.hidden


def test_every_toml_example_of_the_reference_means_what_its_command_line_example_means() -> None:
    marker = ", in TOML `"
    examples = [line.rpartition(marker)[2].removesuffix("`") for line in reference().splitlines() if marker in line]
    shown = [option for option in OPTIONS if not option.hidden and option.name != "config"]
    for option, example in zip(shown, examples, strict=True):
        ((name, value),) = tomllib.loads(example).items()
        assert name == option.name
        assert option.kind.read(value) == option.kind.read(option.example)
