"""The `uml` lane: User Mode Linux, a Linux kernel that is an ordinary process of the host.

Native speed but for system calls and for the kernel's generic C crypto; boots in about two seconds; needs neither
root nor KVM. It is the lane that the suite runs on where the machine's own kernel has no kernel TLS.
"""

import resource
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tests.kernels.machine import Lane, Start
from tests.kernels.modules import modules_to_load
from tests.kernels.packages import CACHE, Source, fetch

PACKAGE = "user-mode-linux"
PACKAGES = Source(suites=("bookworm",), choose=lambda names: [name for name in names if name == PACKAGE])


def prepare(memory_mib: int) -> Lane:
    """Get the kernel and describe how to boot it with so much memory."""
    root = fetch("uml", PACKAGES)
    kernel = root / "usr/bin/linux.uml"

    def boot(start: Start, run_directory: Path, init: Path) -> subprocess.Popen[bytes]:
        # hostfs keeps a file of the host open for every inode that the guest knows.
        _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))
        return start(command_line(kernel, init, run_directory, memory_mib))

    return Lane(modules=modules_to_load(root / "usr/lib/uml/modules"), boot=boot)


def command_line(kernel: Path, init: Path, run_directory: Path, memory_mib: int) -> list[str]:
    return [
        "env",
        f"TMPDIR={memory_directory(memory_mib)}",
        str(kernel),
        "root=/dev/root",
        "rootfstype=hostfs",
        "rootflags=/",
        "rw",
        f"mem={memory_mib}M",
        f"init={init}",
        f"uml_dir={run_directory}",
        "con=null",
        "con0=null,fd:1",
        "quiet",
    ]


def memory_directory(memory_mib: int, candidates: Iterable[Path] = (Path("/dev/shm"), CACHE)) -> Path:
    """Return the first directory with room for the guest's memory, which is a deleted file on the host.

    /dev/shm is the fastest, but a container's often has 64 MiB; past its end the guest would die by SIGBUS.
    """
    *preferred, last = candidates
    for directory in preferred:
        if directory.is_dir() and shutil.disk_usage(directory).free > memory_mib << 20:
            return directory
    return last
