"""PID 1 of the guest: makes the bare kernel a machine, runs the job, powers off.

The root file system is the host's, so no program of a distribution's boot is needed, nor wanted: mounts, modules and
the loopback interface are set up by system calls from here (the host may have neither kmod nor iproute2).

Whatever happens, the machine is powered off; a guest that dies earlier leaves no status file, which the host reports.
"""

import ctypes
import errno
import fcntl
import os
import resource
import socket
import struct
import subprocess
import sys
import traceback
from pathlib import Path

from tests.kernels.errors import EXIT_STATUS_NOT_RUN
from tests.kernels.job import STATUS, STDERR, STDOUT, Job

MS_NOSUID, MS_NODEV = 2, 4  # linux/mount.h
SIOCGIFFLAGS, SIOCSIFFLAGS = 0x8913, 0x8914  # linux/sockios.h
IFF_UP = 1  # linux/if.h
SYS_FINIT_MODULE = 313  # x86_64, asm/unistd_64.h; the lanes' kernels are all of that architecture
LINUX_REBOOT_CMD_POWER_OFF = 0x4321FEDC  # linux/reboot.h

# Enough for ten thousand connections, both ends of each in one process, with room to spare.
OPEN_FILES = 65536

# The guest's own memory, not the host's disk: tests that write big files leave nothing behind, and get a file system
# with the full semantics (hostfs has some quirks, see docs/testing.md). /tmp itself stays the host's, as the
# checkout may lie below it.
TEMPORARY_DIRECTORY = "/run/tmp"

libc = ctypes.CDLL(None, use_errno=True)


def check_call(result: int, what: str) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


def mount(file_system: str, directory: str, options: str = "", flags: int = MS_NOSUID | MS_NODEV) -> None:
    os.makedirs(directory, exist_ok=True)
    arguments = (file_system.encode(), directory.encode(), file_system.encode(), flags, options.encode())
    check_call(libc.mount(*arguments), f"mount -t {file_system} {directory}")


def mount_file_systems() -> None:
    mount("proc", "/proc")
    mount("sysfs", "/sys")
    # A kernel with CONFIG_DEVTMPFS_MOUNT has done this one already.
    if not os.path.ismount("/dev"):
        mount("devtmpfs", "/dev", "mode=0755", flags=MS_NOSUID)
    for name, target in {"fd": "", "stdin": "/0", "stdout": "/1", "stderr": "/2"}.items():
        os.symlink(f"/proc/self/fd{target}", f"/dev/{name}")
    mount("devpts", "/dev/pts", "ptmxmode=0666", flags=MS_NOSUID)
    mount("tmpfs", "/dev/shm", "mode=1777")
    mount("tmpfs", "/run", "mode=0755")
    mount("tmpfs", TEMPORARY_DIRECTORY, "mode=1777,size=75%")


def bring_up_loopback() -> None:
    """Set `lo` up; the kernel gives it 127.0.0.1 and ::1 by itself."""
    request = struct.Struct("16sH14x")  # struct ifreq with ifr_flags
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        _, flags = request.unpack(fcntl.ioctl(sock, SIOCGIFFLAGS, request.pack(b"lo", 0)))
        fcntl.ioctl(sock, SIOCSIFFLAGS, request.pack(b"lo", flags | IFF_UP))


def load_modules(paths: tuple[str, ...]) -> None:
    """Load each module, in the order given. One for hardware that is not there (ENODEV) is passed over."""
    for path in paths:
        with open(path, "rb") as module:
            try:
                check_call(libc.syscall(SYS_FINIT_MODULE, module.fileno(), b"", 0), f"load {path}")
            except OSError as error:
                if error.errno not in (errno.ENODEV, errno.EEXIST):
                    raise


def run(job: Job, stdout: int, stderr: int) -> int:
    """Run the job's command and return its exit status as a shell would, reaping PID 1's orphans meanwhile."""
    try:
        process = subprocess.Popen(
            job.command,
            cwd=job.working_directory,
            env={"TMPDIR": TEMPORARY_DIRECTORY, **job.environment},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
    except (FileNotFoundError, NotADirectoryError) as error:
        os.write(stderr, f"{error}\n".encode())
        return 127
    while True:
        pid, wait_status = os.wait()
        if pid == process.pid:
            code = os.waitstatus_to_exitcode(wait_status)
            return code if code >= 0 else 128 - code


def open_output(run_directory: Path, name: str) -> int:
    """Open an output file so that the host sees each write at once, and not when the guest's page cache is flushed."""
    return os.open(run_directory / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_SYNC, 0o600)


def main(run_directory: Path) -> None:
    stdout, stderr, status = (open_output(run_directory, name) for name in (STDOUT, STDERR, STATUS))
    try:
        exit_status = EXIT_STATUS_NOT_RUN
        try:
            job = Job.read_from(run_directory)
            mount_file_systems()
            load_modules(job.modules)
            bring_up_loopback()
            socket.sethostname("localhost")
            resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
            exit_status = run(job, stdout, stderr)
        except Exception:
            os.write(stderr, traceback.format_exc().encode())
        os.write(status, str(exit_status).encode())
    finally:
        os.sync()
        libc.reboot(LINUX_REBOOT_CMD_POWER_OFF)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
