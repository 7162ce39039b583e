"""htpasswd files: which are accepted, who comes in, and what is remembered."""

from __future__ import annotations

import base64
import logging
from pathlib import Path

import bcrypt
import pytest
from argon2 import PasswordHasher
from hypothesis import given
from hypothesis import strategies as st

from ktls_server import passwords
from ktls_server.errors import ConfigurationError
from ktls_server.passwords import (
    Authenticator,
    PasswordFile,
    PasswordHash,
    credentials_of,
    hash_password,
    load,
    set_password,
)

# The cheapest of each kind, so that the suite does not spend its time on them.
BCRYPT = bcrypt.hashpw(b"secret", bcrypt.gensalt(rounds=4)).decode()
ARGON2 = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(b"secret")


def basic(credentials: bytes, scheme: bytes = b"Basic") -> bytes:
    return scheme + b" " + base64.b64encode(credentials)


def loaded(folder: Path, text: str) -> Authenticator:
    file = folder / "htpasswd"
    file.write_text(text)
    return load(file)


@pytest.mark.parametrize(
    "hashed",
    [BCRYPT, BCRYPT.replace("$2b$", "$2y$"), BCRYPT.replace("$2b$", "$2a$"), ARGON2],
    ids=["2b", "2y", "2a", "argon2id"],
)
def test_the_right_password_comes_in_and_no_other(tmp_path: Path, hashed: str) -> None:
    authenticator = loaded(tmp_path, f"# people\n\n  ann:{hashed}\n")
    assert authenticator.verify(basic(b"ann:secret"))
    for wrong in (b"ann:Secret", b"ann:", b"ann", b"Ann:secret", b"bob:secret", b":secret", b"", b"ann:secret\0"):
        assert not authenticator.verify(basic(wrong)), wrong


@pytest.mark.parametrize("kind", ["argon2id", "bcrypt"])
def test_hashes_made_here_are_accepted_here(tmp_path: Path, kind: passwords.HashKind) -> None:
    authenticator = loaded(tmp_path, f"ann:{hash_password('s3crét:x', kind)}\n")
    assert authenticator.verify(basic("ann:s3crét:x".encode()))
    assert not authenticator.verify(basic(b"ann:s3cret:x"))


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        b"",
        b"Basic",
        b"Basic ",
        b"Bearer abc",
        b"Basic a",
        b"Basic !!!!",
        b"Basic YW5u",
        b"Basic YW5u=OnNlY3JldA==",
    ],
)
def test_what_are_no_credentials_is_turned_away_at_once(tmp_path: Path, authorization: bytes | None) -> None:
    authenticator = loaded(tmp_path, f"ann:{BCRYPT}\n")
    assert credentials_of(authorization) is None
    assert authenticator.verify(authorization) is False


def test_the_scheme_is_case_insensitive(tmp_path: Path) -> None:
    authenticator = loaded(tmp_path, f"ann:{BCRYPT}\n")
    for scheme in (b"basic", b"BASIC", b"Basic "):
        assert authenticator.verify(basic(b"ann:secret", scheme))


@given(authorization=st.one_of(st.binary(), st.binary().map(basic), st.binary().map(lambda sent: b"Basic " + sent)))
def test_no_header_makes_it_raise(authorization: bytes) -> None:
    authenticator = Authenticator({b"ann": PasswordHash(b"", (), lambda password: False)})
    assert authenticator.verify(authorization) is False


class Hashes:
    """Hashes that note who was asked for: (cost, password)."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bytes]] = []

    def make(self, cost: str, right: bytes) -> PasswordHash:
        def verify(password: bytes) -> bool:
            self.asked.append((cost, password))
            return password == right

        return PasswordHash(b"hash of " + right, (cost,), verify)


@pytest.mark.parametrize("credentials", [b"ann:x", b"bob:x", b"eve:x", b"nobody:x", b":x", b"ann :x"])
def test_a_refusal_costs_the_same_whoever_is_named(credentials: bytes) -> None:
    """One verification of each cost that the file holds: its time tells neither that a name is there nor its kind."""
    hashes = Hashes()
    cheap, dear = hashes.make("cheap", b"1"), hashes.make("dear", b"2")
    authenticator = Authenticator({b"ann": cheap, b"bob": dear, b"carl": dear, b"eve": hashes.make("cheap", b"3")})
    assert not authenticator.verify(basic(credentials))
    assert sorted(hashes.asked) == [("cheap", b"x"), ("dear", b"x")]


def test_another_users_password_opens_for_nobody_else() -> None:
    hashes = Hashes()
    authenticator = Authenticator({b"ann": hashes.make("cheap", b"1"), b"bob": hashes.make("dear", b"2")})
    for wrong in (b"ann:2", b"bob:1", b"nobody:1", b"nobody:2"):
        assert not authenticator.verify(basic(wrong)), wrong
    hashes.asked.clear()
    assert authenticator.verify(basic(b"ann:1"))
    assert hashes.asked == [("cheap", b"1")], "who comes in waits for one verification"


def test_hashes_that_take_equally_long_have_one_cost(tmp_path: Path) -> None:
    lines = {
        "bcrypt 4": (BCRYPT, bcrypt.hashpw(b"other", bcrypt.gensalt(rounds=4)).decode()),
        "bcrypt 5": (bcrypt.hashpw(b"secret", bcrypt.gensalt(rounds=5)).decode(),),
        "argon2": (ARGON2, PasswordHasher(time_cost=1, memory_cost=8, parallelism=1, salt_len=24).hash("other")),
        "argon2 twice": (PasswordHasher(time_cost=2, memory_cost=8, parallelism=1).hash("secret"),),
    }
    costs: list[tuple[object, ...]] = []
    for same in lines.values():
        found = {loaded(tmp_path, f"ann:{hashed}\n")._hashes[b"ann"].cost for hashed in same}
        assert len(found) == 1
        costs += found
    assert len(set(costs)) == len(lines)


def test_a_password_longer_than_bcrypt_reads_is_refused_and_costs_as_much_as_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = b"x" * 72
    authenticator = loaded(tmp_path, f"ann:{bcrypt.hashpw(longest, bcrypt.gensalt(rounds=4)).decode()}\n")
    assert authenticator.verify(basic(b"ann:" + longest))
    verified: list[bytes] = []
    checkpw = bcrypt.checkpw

    def noting(word: bytes, hashed: bytes) -> bool:
        verified.append(word)
        return checkpw(word, hashed)

    monkeypatch.setattr(bcrypt, "checkpw", noting)
    for extra in (b"x", b"y", b"x" * 100):
        assert not authenticator.verify(basic(b"ann:" + longest + extra))
    assert verified == [longest] * 3


def test_nothing_that_is_shown_holds_a_password_or_a_hash(tmp_path: Path) -> None:
    authenticator = loaded(tmp_path, f"ann:{BCRYPT}\n")
    credentials = credentials_of(basic(b"ann:topsecret"))
    assert credentials is not None
    shown = f"{authenticator!r} {authenticator._hashes!r} {credentials!r}"
    assert "topsecret" not in shown
    assert BCRYPT not in shown


# Files


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("ann:$apr1$5.3Nbsbv$xjVm2bBSH4Bc3.hA5mSvt0", "neither bcrypt"),
        ("ann:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "neither bcrypt"),
        ("ann:secret", "neither bcrypt"),
        ("ann:$2b$04$short", "neither bcrypt"),
        ("ann:$argon2id$v=19$m=8", "neither bcrypt"),
        ("ann:", "neither bcrypt"),
        (f"ann:{BCRYPT}:more", "neither bcrypt"),
        ("just a line", "a line is name:hash"),
        (f":{BCRYPT}", "a line is name:hash"),
        (f"bob:{BCRYPT}", "has a line already"),
    ],
)
def test_a_line_that_is_not_accepted_is_named_by_its_number_without_its_hash(
    tmp_path: Path, line: str, complaint: str
) -> None:
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        loaded(tmp_path, f"# people\nbob:{BCRYPT}\n{line}\n")
    assert f"{tmp_path / 'htpasswd'}, line 3: " in str(caught.value)
    assert line.partition(":")[2] not in str(caught.value) or not line.partition(":")[2]


def test_a_file_that_is_missing_or_names_nobody_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load(tmp_path / "missing")
    with pytest.raises(ConfigurationError, match="names nobody"):
        loaded(tmp_path, "# nobody yet\n")


def test_setting_a_password_changes_one_line_and_keeps_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "htpasswd"
    file.write_text("# people\nann:old\nbob:kept")
    file.chmod(0o640)
    assert set_password(file, "ann", "new") is False
    assert set_password(file, "carl", "first") is True
    assert file.read_text() == "# people\nann:new\nbob:kept\ncarl:first\n"
    assert file.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["htpasswd"]


def test_a_new_file_is_its_owners_only(tmp_path: Path) -> None:
    set_password(tmp_path / "htpasswd", "ann", "hash")
    assert (tmp_path / "htpasswd").stat().st_mode & 0o777 == 0o600


def test_a_link_to_the_file_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("ann:old\n")
    (tmp_path / "link").symlink_to("real")
    set_password(tmp_path / "link", "ann", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "ann:new\n"


@pytest.mark.parametrize("user", ["", "a:b", " ann", "ann ", "a\nb", "#ann"])
def test_a_name_that_would_break_the_file_is_refused(tmp_path: Path, user: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be a name"):
        set_password(tmp_path / "htpasswd", user, "hash")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_an_error_for_people(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be written"):
        set_password(tmp_path / "missing" / "htpasswd", "ann", "hash")


@pytest.mark.parametrize(("password", "kind"), [("", "argon2id"), ("a" * 73, "bcrypt"), ("a\0b", "argon2id")])
def test_a_password_that_would_be_cut_or_never_match_is_refused(password: str, kind: passwords.HashKind) -> None:
    with pytest.raises(ConfigurationError, match="1 to"):
        hash_password(password, kind)


# Read again


def written(file: Path, text: str) -> Path:
    """In place of what was there, as an editor or a deployment does it."""
    new = file.with_suffix(".new")
    new.write_text(text)
    return new.rename(file)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return written(tmp_path / "htpasswd", f"ann:{BCRYPT}\n")


def test_a_file_that_changed_is_noticed_and_read_again(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    passwords_of = PasswordFile(file)
    assert not passwords_of.changed()
    written(file, f"bob:{BCRYPT}\n")
    assert passwords_of.changed()
    with caplog.at_level(logging.INFO):
        assert passwords_of.reload()
    assert not passwords_of.changed()
    assert passwords_of.authenticator.verify(basic(b"bob:secret"))
    assert not passwords_of.authenticator.verify(basic(b"ann:secret"))
    assert caplog.messages == ["passwords read again"]


def test_a_mistake_in_the_file_keeps_all_of_the_old_one_and_is_said_once(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    passwords_of = PasswordFile(file)
    written(file, f"bob:{BCRYPT}\ncarl:plain\n")
    assert passwords_of.changed()
    assert not passwords_of.reload()
    assert not passwords_of.changed(), "the same mistake is not read every five seconds"
    assert passwords_of.authenticator.verify(basic(b"ann:secret"))
    assert not passwords_of.authenticator.verify(basic(b"bob:secret"))
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage().startswith(f"the passwords stay as they were: {file}, line 2: ")


def test_a_file_that_is_gone_has_not_changed_but_cannot_be_read_again(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    passwords_of = PasswordFile(file, user="nobody")
    file.unlink()
    assert not passwords_of.changed()
    assert not passwords_of.reload()
    assert passwords_of.authenticator.verify(basic(b"ann:secret"))
    assert "--user nobody has to be able to read the file" in caplog.messages[0]
    caplog.clear()
    passwords_of.warn_if_unreadable()
    assert f"user nobody cannot read {file}" in caplog.messages[0]
