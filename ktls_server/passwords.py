"""Names and passwords from an htpasswd file, checked against HTTP Basic credentials (RFC 7617).

Only bcrypt and argon2 hashes, both verified by libraries: the other kinds that htpasswd knows (crypt, MD5, SHA-1, plain
text) are guessed by the billion a second. Verifying is slow on purpose, so `Authenticator.verify` belongs on another
thread (both libraries release the GIL); `access.py` runs it there and remembers its verdicts. This module remembers none.

The time of a refusal does not tell which names exist. Hashes of different cost may stand in one file, so a refusal costs
one verification of each cost that occurs there, whatever name was given.
"""

from __future__ import annotations

import base64
import binascii
import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeAlias

from .errors import ConfigurationError

_log = logging.getLogger(__name__)

HashKind: TypeAlias = Literal["argon2id", "bcrypt"]

# bcrypt itself reads no more than 72 bytes; argon2 has no such limit, but nobody types so much.
_BCRYPT_BYTES: Final = 72
_LONGEST_PASSWORD: Final = 1024

_BCRYPT = re.compile(rb"\$2[aby]\$(0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}")
_BASIC = re.compile(rb"basic +([A-Za-z0-9+/]+={0,2}) *", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client says of itself."""

    user_untrusted: bytes
    password_untrusted: bytes = field(repr=False)


def credentials_of(authorization_untrusted: bytes | None) -> Credentials | None:
    """User and password as bytes (RFC 7617 section 2), or None for another scheme or for what is malformed."""
    match = _BASIC.fullmatch(authorization_untrusted or b"")
    if match is None:
        return None
    try:
        user, colon, password = base64.b64decode(match[1], validate=True).partition(b":")
    except binascii.Error:
        return None
    if not colon or len(password) > _LONGEST_PASSWORD or b"\0" in password:
        return None
    return Credentials(user, password)


@dataclass(frozen=True, slots=True)
class PasswordHash:
    """The hash of one password. Hashes of equal `cost` take equally long to verify."""

    text: bytes = field(repr=False)
    cost: tuple[object, ...]
    verify: Callable[[bytes], bool] = field(repr=False)


class Authenticator:
    """Decides by an Authorization header whether its sender may come in. Made by `load`, and never changed."""

    def __init__(self, hashes: dict[bytes, PasswordHash]) -> None:
        self._hashes = hashes
        # One hash of each cost: a refusal verifies against all of them.
        self._of_each_cost = {hashed.cost: hashed for hashed in hashes.values()}

    def __repr__(self) -> str:
        return f"<Authenticator of {len(self._hashes)} users>"

    def hash_of(self, user: bytes) -> bytes | None:
        """The user's hash as it stands in the file, None for a name that is not there."""
        hashed = self._hashes.get(user)
        return None if hashed is None else hashed.text

    def verify(self, authorization_untrusted: bytes | None) -> bool:
        """The answer, however long it takes. May run on several threads at once."""
        credentials = credentials_of(authorization_untrusted)
        if credentials is None:
            return False
        password = credentials.password_untrusted
        own = self._hashes.get(credentials.user_untrusted)
        if own is not None and own.verify(password):
            return True
        for cost, other in self._of_each_cost.items():
            if own is None or cost != own.cost:
                other.verify(password)
        return False


def load(path: Path) -> Authenticator:
    """Read an htpasswd file: `name:hash` a line, empty lines and `#` comments skipped.

    Raises ConfigurationError with the line's number for a line or a kind of hash that is not accepted.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"--auth-file {path}: cannot be read: {error.strerror}") from error
    hashes: dict[bytes, PasswordHash] = {}
    for number, line in enumerate(content.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith(b"#"):
            continue
        user, colon, text = stripped.partition(b":")
        if not colon or not user:
            raise ConfigurationError(f"{path}, line {number}: a line is name:hash")
        if user in hashes:
            raise ConfigurationError(f"{path}, line {number}: this name has a line already")
        hashed = _password_hash(text)
        if hashed is None:
            raise ConfigurationError(
                f"{path}, line {number}: the hash is neither bcrypt ($2y$...) nor argon2 ($argon2id$...);"
                " set the password anew with ktls-server password"
            )
        hashes[user] = hashed
    if not hashes:
        raise ConfigurationError(f"--auth-file {path}: names nobody; add a user with ktls-server password")
    return Authenticator(hashes)


class PasswordFile:
    """An htpasswd file that is read again while the server runs. A forked process goes on with what its parent knew."""

    def __init__(self, path: Path, user: str | None = None) -> None:
        """`user` is `--user`, for the messages. Raises ConfigurationError."""
        self._path = path
        self._user = user
        # Looked at before the file is read: a file that is replaced in between counts as changed.
        self._state = self._look((0, 0, 0))
        self.authenticator = load(path)

    def warn_if_unreadable(self) -> None:
        """Say, once root is given up, that the file cannot be read again. It is in use all the same."""
        if not os.access(self._path, os.R_OK):
            _log.warning(
                "user %s cannot read %s: when passwords change, restart the server, or let that user read it",
                self._user,
                self._path,
            )

    def changed(self) -> bool:
        """Whether the file was changed or replaced since it was last read."""
        return self._look(self._state) != self._state

    def reload(self) -> bool:
        """Read the file again; False where it holds a mistake, and then the old names and passwords stay, all of them."""
        self._state = self._look(self._state)
        try:
            self.authenticator = load(self._path)
        except ConfigurationError as error:
            cure = f"; --user {self._user} has to be able to read the file, or restart the server" if self._user else ""
            _log.error("the passwords stay as they were: %s%s", error, cure)
            return False
        _log.info("passwords read again")
        return True

    def _look(self, otherwise: tuple[int, int, int]) -> tuple[int, int, int]:
        """A file that cannot be looked at has not changed: it is just being replaced, or out of reach without root."""
        try:
            status = self._path.stat()
        except OSError:
            return otherwise
        return status.st_mtime_ns, status.st_ino, status.st_size


def _password_hash(text: bytes) -> PasswordHash | None:
    """The libraries are imported for the kinds that occur."""
    match = _BCRYPT.fullmatch(text)
    if match is not None:
        return PasswordHash(text, ("bcrypt", match[1]), lambda password: _verify_bcrypt(text, password))
    if not text.startswith(b"$argon2") or not text.isascii():
        return None
    import argon2

    try:
        parameters = argon2.extract_parameters(text.decode("ascii"))
    except argon2.exceptions.InvalidHashError:
        return None
    hasher = argon2.PasswordHasher()

    def verify(password: bytes) -> bool:
        try:
            return hasher.verify(text, password)
        except argon2.exceptions.VerificationError:
            return False

    cost = (parameters.type, parameters.time_cost, parameters.memory_cost, parameters.parallelism)
    return PasswordHash(text, cost, verify)


def _verify_bcrypt(text: bytes, password: bytes) -> bool:
    """bcrypt reads 72 bytes. A longer password is wrong whatever these are, and its refusal takes as long as any other."""
    import bcrypt

    matches = bcrypt.checkpw(password[:_BCRYPT_BYTES], text)
    return matches and len(password) <= _BCRYPT_BYTES


def hash_password(password: str, kind: HashKind = "argon2id") -> str:
    """A salted hash for a line of the file. Raises ConfigurationError for a password that the kind cannot hold."""
    encoded = password.encode()
    longest = _BCRYPT_BYTES if kind == "bcrypt" else _LONGEST_PASSWORD
    if not encoded or len(encoded) > longest or b"\0" in encoded:
        raise ConfigurationError(f"a password for {kind} has 1 to {longest} bytes, and no NUL")
    if kind == "bcrypt":
        import bcrypt

        return bcrypt.hashpw(encoded, bcrypt.gensalt(rounds=12)).decode("ascii")
    import argon2

    # OWASP's password storage cheat sheet, the second of its equal choices: 19 MiB, so that some logins at the same
    # time do not exhaust a small container, as 64 MiB each (RFC 9106's second choice) would.
    return argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1).hash(encoded)


def set_password(path: Path, user: str, hashed: str) -> bool:
    """Write the user's line, in place of the one that is there; other lines stay. True if the user is new.

    The file appears complete or not at all; a new one is readable by its owner only. Raises ConfigurationError.
    """
    if not user or ":" in user or user != user.strip() or not user.isprintable() or user.startswith("#"):
        raise ConfigurationError(f"{user!r} cannot be a name: not empty, no colon, no # or space at its ends")
    target = path.resolve()
    line = f"{user}:{hashed}".encode()
    try:
        lines = target.read_bytes().splitlines() if target.exists() else []
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o600
        prefix = user.encode() + b":"
        places = [place for place, present in enumerate(lines) if present.strip().startswith(prefix)]
        if places:
            lines[places[0]] = line
        else:
            lines.append(line)
        _replace(target, b"".join(present + b"\n" for present in lines), mode)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be written: {error.strerror}") from error
    return not places


def _replace(path: Path, content: bytes, mode: int) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
