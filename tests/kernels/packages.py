"""Debian packages, downloaded and extracted without being installed, from the archive that this machine already uses.

apt gets a configuration of its own below `.cache/kernels`: the machine's sources and lists stay as they are, no root
is needed, and the same release is found on every Debian, whatever it runs itself. apt checks the signatures.
"""

import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.kernels.errors import LaneUnavailable

PROJECT = Path(__file__).resolve().parents[2]
CACHE = PROJECT / ".cache" / "kernels"
ARCHIVE_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
DEFAULT_ARCHIVE = "http://deb.debian.org/debian"
SECURITY_SUFFIX = "-security"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a lane's packages come from: `choose` picks them from the names that the suites hold."""

    suites: tuple[str, ...]
    choose: Callable[[Iterable[str]], list[str]]


def archive_of(repository_uris: Iterable[str], suite: str) -> str:
    """Return the URI for a suite, given the URIs that the machine's own apt is configured with (pure).

    Debian keeps security suites in an archive of their own, `debian-security` beside `debian` on every mirror.
    """
    wanted = "/debian-security" if suite.endswith(SECURITY_SUFFIX) else "/debian"
    for uri in repository_uris:
        if uri.rstrip("/").endswith(wanted):
            return uri.rstrip("/")
    return DEFAULT_ARCHIVE.removesuffix("/debian") + wanted


def fetch(name: str, source: Source) -> Path:
    """Return the directory that the packages of `source` are extracted in, downloading them the first time."""
    extracted = CACHE / name
    if extracted.exists():
        return extracted
    if platform.machine() != "x86_64":
        raise LaneUnavailable(f"The lanes' kernels are for x86_64; this machine is {platform.machine()}.")
    for tool in ("apt-get", "apt-cache", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise LaneUnavailable(f"{tool} is missing: the lanes' kernels are Debian packages, this is no Debian.")
    if not ARCHIVE_KEYRING.exists():
        raise LaneUnavailable(f"{ARCHIVE_KEYRING} is missing. Mend it with: apt-get install debian-archive-keyring")
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{name}.", dir=CACHE) as directory:
        apt = PrivateApt(Path(directory), source.suites)
        say(f"looking for the {name} kernel in {', '.join(source.suites)}")
        apt.run("apt-get", "update")
        packages = source.choose(apt.run("apt-cache", "pkgnames").split())
        if not packages:
            raise LaneUnavailable(f"The {name} kernel is in none of {', '.join(source.suites)}.")
        say(f"downloading {', '.join(packages)}")
        apt.run("apt-get", "download", *packages)
        root = Path(directory) / "root"
        for archive in sorted(Path(directory).glob("*.deb")):
            subprocess.run(["dpkg-deb", "--extract", archive, root], check=True)
        root.chmod(0o755)
        try:
            root.rename(extracted)
        except OSError:
            # Another process has been quicker.
            if not extracted.exists():
                raise
    return extracted


class PrivateApt:
    """apt with sources, lists and cache of its own, all below one directory."""

    def __init__(self, directory: Path, suites: tuple[str, ...]) -> None:
        self.directory = directory
        for needed in ("state/lists/partial", "cache/archives/partial"):
            (directory / needed).mkdir(parents=True)
        configured = subprocess.run(
            ["apt-get", "indextargets", "--format", "$(REPO_URI)"], check=False, capture_output=True, text=True
        )
        uris = list(dict.fromkeys(configured.stdout.split()))
        lines = [f"deb [signed-by={ARCHIVE_KEYRING}] {archive_of(uris, suite)} {suite} main\n" for suite in suites]
        (directory / "sources.list").write_text("".join(lines), encoding="utf-8")

    def run(self, tool: str, *arguments: str) -> str:
        """Run one of apt's tools and return its output."""
        options = {
            "Dir::Etc::SourceList": self.directory / "sources.list",
            "Dir::Etc::SourceParts": "-",
            "Dir::State": self.directory / "state",
            "Dir::Cache": self.directory / "cache",
            # Else root's apt-get drops to a user who may not write here.
            "APT::Sandbox::User": "root",
        }
        command = [tool, *(word for name, value in options.items() for word in ("-o", f"{name}={value}")), *arguments]
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=self.directory)
        if done.returncode != 0:
            raise LaneUnavailable(
                f"{tool} {' '.join(arguments)} failed:\n{done.stderr.strip()}\n"
                "If the archive cannot be reached, `apt-get update` fails likewise: mend that first, then try again."
            )
        return done.stdout


def say(message: str) -> None:
    """Tell what is taking the time, on standard error: standard output belongs to the command."""
    print(f"tests.kernels: {message}", file=sys.stderr, flush=True)
