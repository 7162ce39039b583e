"""A tree: made once and kept in `.cache/trees`, then entered as often as one likes.

    make       mmdebstrap writes the release's packages, from the mirror that this machine's apt uses
    install    inside, a virtual environment gets what the tests need, again when pyproject.toml has changed
    run        a command inside, in mount and process namespaces of its own: what it leaves running ends with it

Inside, the checkout is /project, read-only; /tmp and /run are empty, in memory. Mounts are made in the namespace, so the
tree holds none for anybody else. Needs root.
"""

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.kernels.packages import ARCHIVE_KEYRING, PROJECT
from tests.trees.errors import TreeUnavailable
from tests.trees.pip_settings import AUTHORITIES, pip_environment
from tests.trees.release import Release, sources

CACHE = PROJECT / ".cache" / "trees"
MAKING_SECONDS = 1200
INSTALLING_SECONDS = 600
INSIDE_PROJECT = "/project"
INSIDE_PYTHON = "/opt/venv/bin/python"

ENTER = """
set -eu
tree=$1 project=$2 authorities=$3
shift 3
mount -t proc proc "$tree/proc"
mount --rbind /dev "$tree/dev"
mount --rbind /sys "$tree/sys"
mount -t tmpfs tmpfs "$tree/tmp"
mount -t tmpfs tmpfs "$tree/run"
mkdir -p "$tree/project"
mount --bind "$project" "$tree/project"
mount -o remount,bind,ro "$tree/project"
cp "$authorities" "$tree/run/authorities.crt"
for file in /etc/hosts /etc/resolv.conf; do cat "$file" >"$tree$file"; done
chroot "$tree" sh -c 'cd /project && exec "$@"' sh "$@" || exit $?
"""
"""The first process of the namespaces; each step has to succeed. It stays to take the exit status of orphans."""

CHECK_VERSIONS = """
import platform, ssl, sys
print(f"Python {platform.python_version()}, {ssl.OPENSSL_VERSION}", flush=True)
found = platform.python_version(), "%d.%d.%d" % ssl.OPENSSL_VERSION_INFO[:3]
for version, wanted in zip(found, sys.argv[1:]):
    if not version.startswith(wanted + "."):
        sys.exit(f"This tree has {version} where {wanted} is wanted.")
"""

BASE_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "PYTHONUNBUFFERED": "1",
    # The checkout is read-only, and its own bytecode was compiled under another path.
    "PYTHONPYCACHEPREFIX": "/tmp/pycache",
    "HYPOTHESIS_STORAGE_DIRECTORY": "/tmp/hypothesis",
}


class Tree:
    """The tree of one release, ready to run commands in. Made by `prepare`."""

    def __init__(self, release: Release, root: Path) -> None:
        self.release = release
        self.root = root

    def run(self, command: Sequence[str], environment: Mapping[str, str], *, timeout: float) -> int:
        """Run the command in the tree and return its exit status. Raises subprocess.TimeoutExpired, with all killed."""
        enter = (
            *("unshare", "--mount", "--pid", "--fork", "--kill-child=KILL"),
            *("sh", "-c", ENTER, "sh", str(self.root), str(PROJECT), str(AUTHORITIES), *command),
        )
        done = subprocess.run(
            enter, check=False, stdin=subprocess.DEVNULL, env={**BASE_ENVIRONMENT, **environment}, timeout=timeout
        )
        return done.returncode if done.returncode >= 0 else 128 - done.returncode


def prepare(release: Release) -> Tree:
    """Return the release's tree, made and with the tests' environment installed. Raises TreeUnavailable."""
    if os.geteuid() != 0:
        raise TreeUnavailable("Entering a tree needs root: chroot and mount. Run it with sudo.")
    for tool, package in (("mmdebstrap", "mmdebstrap"), ("unshare", "util-linux"), ("chroot", "coreutils")):
        if shutil.which(tool) is None:
            raise TreeUnavailable(f"{tool} is missing. Mend it with: apt-get install {package}")
    for file, package in ((ARCHIVE_KEYRING, "debian-archive-keyring"), (AUTHORITIES, "ca-certificates")):
        if not file.exists():
            raise TreeUnavailable(f"{file} is missing. Mend it with: apt-get install {package}")
    CACHE.mkdir(parents=True, exist_ok=True)
    with _locked(CACHE / f"{release.name}.lock"):
        tree = Tree(release, _made(release))
        _check_versions(tree)
        _install(tree)
    return tree


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time makes the tree or installs into it."""
    with open(path, "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _made(release: Release) -> Path:
    root, recipe = CACHE / release.name, CACHE / f"{release.name}.recipe"
    wanted = " ".join((*release.suites, *release.packages)) + "\n"
    if root.exists() and recipe.exists() and recipe.read_text(encoding="utf-8") == wanted:
        return root
    say(f"making {root.relative_to(PROJECT)} from Debian's packages (about four minutes)")
    for old in (root, partial := root.with_suffix(".partial")):
        if old.exists():
            shutil.rmtree(old)
    configured = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)"], check=False, capture_output=True, text=True
    )
    packages = ",".join(release.packages)
    command = ["mmdebstrap", "--variant=minbase", f"--include={packages}", release.suites[0], str(partial), "-"]
    lines = sources(release, dict.fromkeys(configured.stdout.split()))
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, input="\n".join(lines), text=True, timeout=MAKING_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise TreeUnavailable(f"mmdebstrap did not end within {MAKING_SECONDS} seconds.") from error
    if done.returncode != 0:
        raise TreeUnavailable(f"mmdebstrap failed with status {done.returncode}:\n{done.stderr.strip()}")
    partial.rename(root)
    recipe.write_text(wanted, encoding="utf-8")
    return root


def _check_versions(tree: Tree) -> None:
    command = ("/usr/bin/python3", "-c", CHECK_VERSIONS, tree.release.python, tree.release.openssl)
    if tree.run(command, {}, timeout=60) != 0:
        raise TreeUnavailable(f"The tree is not what it should be. Remove it to make it anew: rm -r {tree.root}")


def _install(tree: Tree) -> None:
    """Install the tests' requirements, unless they were installed for this same pyproject.toml."""
    wanted = (PROJECT / "pyproject.toml").read_bytes()
    stamp = tree.root / "opt/venv/pyproject.toml"
    if stamp.exists() and stamp.read_bytes() == wanted:
        return
    say("installing what the tests need into the tree (about a minute)")
    machine = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=False, capture_output=True, text=True
    )
    environment = pip_environment(machine.stdout, os.environ)
    for command in (
        ("/usr/bin/python3", "-m", "venv", "/opt/venv"),
        (INSIDE_PYTHON, "-m", "pip", "install", "--quiet", "--no-cache-dir", "--editable", f"{INSIDE_PROJECT}[test]"),
    ):
        if tree.run(command, environment, timeout=INSTALLING_SECONDS) != 0:
            raise TreeUnavailable(f"{' '.join(command)} failed in the tree; its own words are above.")
    stamp.write_bytes(wanted)


def say(message: str) -> None:
    """Say on standard error what takes the time."""
    print(f"tests.trees: {message}", file=sys.stderr, flush=True)
