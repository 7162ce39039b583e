"""Names and passwords from an htpasswd file, checked against HTTP Basic credentials (RFC 7617).

Only bcrypt and argon2 hashes, both verified by libraries: the other kinds that htpasswd knows (crypt, MD5, SHA-1, plain
text) are guessed by the billion a second. Verifying is slow on purpose, 20 to 300 ms of CPU: `check_cached` answers
at once for what was verified before, so that a keep-alive connection pays once; `verify` belongs on another thread
(both libraries release the GIL).

What was verified is remembered as an HMAC under a key that this process drew: never as a password.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, TypeAlias

from .errors import ConfigurationError

HashKind: TypeAlias = Literal["argon2id", "bcrypt"]
_Verify: TypeAlias = Callable[[bytes], bool]

# bcrypt itself reads no more than 72 bytes; argon2 has no such limit, but nobody types so much.
_BCRYPT_BYTES: Final = 72
_LONGEST_PASSWORD: Final = 1024

_BCRYPT = re.compile(rb"\$2[aby]\$(0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}")
_BASIC = re.compile(rb"basic +([A-Za-z0-9+/]+={0,2}) *", re.IGNORECASE)


class Authenticator:
    """Decides by an Authorization header whether its sender may come in. Made by `load`."""

    def __init__(self, verifiers: dict[bytes, _Verify]) -> None:
        self._verifiers = verifiers
        # For a user that does not exist: the answer must take as long, or it would tell which names exist.
        self._stand_in = next(iter(verifiers.values()))
        self._secret = os.urandom(32)
        # One password a user can be right, so this holds no more entries than there are users.
        self._verified: set[bytes] = set()

    def __repr__(self) -> str:
        return f"<Authenticator of {len(self._verifiers)} users>"

    def check_cached(self, authorization_untrusted: bytes | None) -> bool | None:
        """The answer, where it takes no time: False for what are no credentials, True for what was verified before.

        None says that `verify` must be asked.
        """
        credentials = _basic_credentials(authorization_untrusted)
        if credentials is None:
            return False
        return True if self._digest(*credentials) in self._verified else None

    def verify(self, authorization_untrusted: bytes | None) -> bool:
        """The answer, however long it takes. May run on several threads at once."""
        credentials = _basic_credentials(authorization_untrusted)
        if credentials is None:
            return False
        user, password = credentials
        digest = self._digest(user, password)
        if digest in self._verified:
            return True
        verifier = self._verifiers.get(user)
        right = (verifier or self._stand_in)(password) and verifier is not None
        if right:
            self._verified.add(digest)
        return right

    def _digest(self, user: bytes, password: bytes) -> bytes:
        # A name holds no colon, so the two cannot be cut differently.
        return hmac.digest(self._secret, user + b":" + password, "sha256")


def _basic_credentials(authorization_untrusted: bytes | None) -> tuple[bytes, bytes] | None:
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
    return user, password


def load(path: Path) -> Authenticator:
    """Read an htpasswd file: `name:hash` a line, empty lines and `#` comments skipped.

    Raises ConfigurationError with the line's number for a line or a kind of hash that is not accepted.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"--auth-file {path}: cannot be read: {error.strerror}") from error
    verifiers: dict[bytes, _Verify] = {}
    for number, line in enumerate(content.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith(b"#"):
            continue
        user, colon, hashed = stripped.partition(b":")
        if not colon or not user:
            raise ConfigurationError(f"{path}, line {number}: a line is name:hash")
        if user in verifiers:
            raise ConfigurationError(f"{path}, line {number}: this name has a line already")
        verifier = _verifier(hashed)
        if verifier is None:
            raise ConfigurationError(
                f"{path}, line {number}: the hash is neither bcrypt ($2y$...) nor argon2 ($argon2id$...);"
                " set the password anew with ktls-server password"
            )
        verifiers[user] = verifier
    if not verifiers:
        raise ConfigurationError(f"--auth-file {path}: names nobody; add a user with ktls-server password")
    return Authenticator(verifiers)


def _verifier(hashed: bytes) -> _Verify | None:
    """The libraries are imported for the kinds that occur."""
    if _BCRYPT.fullmatch(hashed):
        import bcrypt

        return lambda password: bcrypt.checkpw(password[:_BCRYPT_BYTES], hashed)
    if not hashed.startswith(b"$argon2") or not hashed.isascii():
        return None
    import argon2

    try:
        argon2.extract_parameters(hashed.decode("ascii"))
    except argon2.exceptions.InvalidHashError:
        return None
    hasher = argon2.PasswordHasher()

    def verify(password: bytes) -> bool:
        try:
            return hasher.verify(hashed, password)
        except argon2.exceptions.VerificationError:
            return False

    return verify


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
