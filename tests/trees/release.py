"""Which release a tree holds, and what has to be in it."""

from collections.abc import Iterable
from dataclasses import dataclass

from tests.kernels.packages import ARCHIVE_KEYRING, archive_of


@dataclass(frozen=True, slots=True)
class Release:
    """A Debian release. `python` and `openssl` are the versions that it is wanted for: with others the lane fails."""

    name: str
    suites: tuple[str, ...]
    packages: tuple[str, ...]
    python: str
    openssl: str


DEBIAN_13 = Release(
    name="debian-13",
    suites=("trixie", "trixie-updates", "trixie-security"),
    packages=("ca-certificates", "curl", "openssl", "python3", "python3-venv"),
    python="3.13",
    openssl="3.5",
)


def sources(release: Release, repository_uris: Iterable[str]) -> list[str]:
    """Return the lines of sources.list, on the mirror that the machine's own apt uses (pure)."""
    uris = list(repository_uris)
    return [f"deb [signed-by={ARCHIVE_KEYRING}] {archive_of(uris, suite)} {suite} main" for suite in release.suites]
