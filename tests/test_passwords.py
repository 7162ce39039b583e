"""htpasswd files: which are accepted, who comes in, and what is remembered."""

from __future__ import annotations

import base64
from pathlib import Path

import bcrypt
import pytest
from argon2 import PasswordHasher
from hypothesis import given
from hypothesis import strategies as st

from ktls_server import passwords
from ktls_server.errors import ConfigurationError
from ktls_server.passwords import Authenticator, hash_password, load, set_password

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
    assert authenticator.check_cached(authorization) is False
    assert authenticator.verify(authorization) is False


def test_the_scheme_is_case_insensitive(tmp_path: Path) -> None:
    authenticator = loaded(tmp_path, f"ann:{BCRYPT}\n")
    for scheme in (b"basic", b"BASIC", b"Basic "):
        assert authenticator.verify(basic(b"ann:secret", scheme))


@given(authorization=st.one_of(st.binary(), st.binary().map(basic), st.binary().map(lambda sent: b"Basic " + sent)))
def test_no_header_makes_it_raise(authorization: bytes) -> None:
    authenticator = Authenticator({b"ann": lambda password: False})
    assert authenticator.verify(authorization) is False


def counting(answers: dict[bytes, bytes]) -> tuple[Authenticator, list[bytes]]:
    """An authenticator whose slow verifications are noted."""
    asked: list[bytes] = []

    def verifier(user: bytes, right: bytes) -> passwords._Verify:
        def verify(password: bytes) -> bool:
            asked.append(user)
            return password == right

        return verify

    return Authenticator({user: verifier(user, right) for user, right in answers.items()}), asked


def test_a_verified_password_is_not_verified_again() -> None:
    authenticator, asked = counting({b"ann": b"1", b"bob": b"2"})
    assert authenticator.check_cached(basic(b"bob:2")) is None
    assert authenticator.verify(basic(b"bob:2"))
    assert authenticator.check_cached(basic(b"bob:2")) is True
    assert authenticator.check_cached(basic(b"bob:2", b"BASIC")) is True
    assert authenticator.verify(basic(b"bob:2"))
    assert asked == [b"bob"]


def test_a_wrong_password_is_verified_each_time_and_never_remembered() -> None:
    authenticator, asked = counting({b"ann": b"1"})
    for attempt in range(50):
        assert not authenticator.verify(basic(b"ann:wrong%d" % attempt))
    assert authenticator.check_cached(basic(b"ann:wrong1")) is None
    assert len(asked) == 50
    assert authenticator._verified == set()


def test_an_unknown_user_costs_a_verification_too_and_stays_outside() -> None:
    authenticator, asked = counting({b"ann": b"1"})
    assert not authenticator.verify(basic(b"nobody:1")), "ann's password does not open for others"
    assert asked == [b"ann"]
    assert authenticator.check_cached(basic(b"nobody:1")) is None


def test_what_is_remembered_and_shown_holds_no_password() -> None:
    authenticator, _ = counting({b"ann": b"topsecret"})
    authenticator.verify(basic(b"ann:topsecret"))
    (digest,) = authenticator._verified
    assert len(digest) == 32
    assert b"topsecret" not in digest
    assert "topsecret" not in repr(authenticator)
    other, _ = counting({b"ann": b"topsecret"})
    other.verify(basic(b"ann:topsecret"))
    assert other._verified != authenticator._verified, "each process has a secret of its own"


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
