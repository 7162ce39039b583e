"""The `qemu-6.12` and `qemu-7` lanes: Debian's cloud kernels on an emulated machine.

Software emulation, because /dev/kvm is rarely to be had where tests run: everything takes 10 to 30 times as long, but
it is a whole x86-64 with AES-NI, and a kernel that people run. `qemu-7` is the one that can rekey (since Linux 6.14).
The host's root comes in by virtiofs, which these kernels have built in, so that no initramfs is needed.

Counting instructions makes the emulation deterministic: one virtual CPU, whose clock advances 2 ns with each guest
instruction (`-icount shift=1`). The CPU time that the guest charges to a process is then its instruction count.
"""

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.kernels.errors import EXIT_STATUS_NOT_RUN, LaneFailed, LaneUnavailable
from tests.kernels.machine import Lane, Start
from tests.kernels.modules import modules_to_load
from tests.kernels.packages import Source, fetch

QEMU = "qemu-system-x86_64"
# Two programs of one name: a part of QEMU until Debian 12, a package of its own since. Both are told not to enter
# namespaces of their own: pivot_root(2) into "/" itself is impossible (EBUSY).
VIRTIOFSD = {
    "/usr/libexec/virtiofsd": ("--shared-dir=/", "--cache=always", "--sandbox=none"),
    "/usr/lib/qemu/virtiofsd": ("-o", "source=/", "-o", "cache=always", "-o", "sandbox=chroot"),
}
VIRTIOFSD_START_SECONDS = 10

EMULATED = ("-accel", "tcg,thread=multi", "-smp", "2")
COUNTING = ("-accel", "tcg,thread=single", "-smp", "1", "-icount", "shift=1,sleep=off")


def newest(*patterns: str) -> Callable[[Iterable[str]], list[str]]:
    """Return a choice of packages: those whose names match the patterns, all of the newest version that has them all.

    The one group of each pattern is the version.
    """

    def choose(names: Iterable[str]) -> list[str]:
        by_version: dict[tuple[int, ...], list[str]] = {}
        for name in names:
            for pattern in patterns:
                if matched := re.fullmatch(pattern, name):
                    by_version.setdefault(tuple(map(int, matched[1].split("."))), []).append(name)
        complete = [version for version, found in by_version.items() if len(found) == len(patterns)]
        return sorted(by_version[max(complete)]) if complete else []

    return choose


SOURCES = {
    "qemu-6.12": Source(
        suites=("bookworm-security",),
        choose=newest(r"linux-image-(6\.12\.\d+)\+deb12-cloud-amd64"),
    ),
    # Since 7.x the kernel and its modules are packages of their own.
    "qemu-7": Source(
        suites=("trixie-backports",),
        choose=newest(
            r"linux-binary-(7\.\d+\.\d+)\+deb13-cloud-amd64", r"linux-modules-(7\.\d+\.\d+)\+deb13-cloud-amd64"
        ),
    ),
}


def prepare(name: str, memory_mib: int, *, count_instructions: bool) -> Lane:
    """Get the kernel of that name and describe how to boot it."""
    emulator, virtiofsd = find_tools()
    root = fetch(name, SOURCES[name])
    # Debian's 7.x kernels lie beside their modules, the older ones in /boot.
    kernel = next(root.glob("**/vmlinuz*"))
    emulation = COUNTING if count_instructions else EMULATED

    def boot(start: Start, run_directory: Path, init: Path) -> subprocess.Popen[bytes]:
        socket = run_directory / "virtiofs"
        daemon = start([virtiofsd, f"--socket-path={socket}", *VIRTIOFSD[virtiofsd]])
        wait_for(socket, daemon)
        return start([emulator, *emulation, *hardware(memory_mib, socket), *kernel_arguments(kernel, init)])

    return Lane(modules=modules_to_load(root), boot=boot)


def find_tools() -> tuple[str, str]:
    """Return the paths of QEMU and virtiofsd."""
    emulator = shutil.which(QEMU)
    if emulator is None:
        raise LaneUnavailable(
            f"{QEMU} is missing. Mend it with: apt-get install --no-install-recommends qemu-system-x86"
        )
    virtiofsd = next((path for path in VIRTIOFSD if Path(path).exists()), None)
    if virtiofsd is None:
        raise LaneUnavailable("virtiofsd is missing. Mend it with: apt-get install virtiofsd")
    return emulator, virtiofsd


def hardware(memory_mib: int, virtiofs_socket: Path) -> list[str]:
    """Return the emulated machine: memory shared with virtiofsd, one serial console, no disk, no network."""
    return [
        *("-cpu", "max", "-m", f"{memory_mib}M", "-nic", "none", "-no-reboot"),
        *("-display", "none", "-monitor", "none", "-serial", "stdio"),
        *("-object", f"memory-backend-memfd,id=memory,size={memory_mib}M,share=on", "-numa", "node,memdev=memory"),
        *("-chardev", f"socket,id=virtiofs,path={virtiofs_socket}"),
        *("-device", "vhost-user-fs-pci,chardev=virtiofs,tag=rootfs"),
    ]


def kernel_arguments(kernel: Path, init: Path) -> list[str]:
    command_line = f"console=ttyS0 quiet panic=-1 rootfstype=virtiofs root=rootfs rw init={init}"
    return ["-kernel", str(kernel), "-append", command_line]


def wait_for(socket: Path, daemon: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + VIRTIOFSD_START_SECONDS
    while not socket.exists():
        if daemon.poll() is not None or time.monotonic() > deadline:
            raise LaneFailed("virtiofsd did not start", exit_status=EXIT_STATUS_NOT_RUN)
        time.sleep(0.02)
