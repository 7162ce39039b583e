"""The paths that must never lead out of the root, and the things that must never be opened, over both ways to resolve."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ktls_server.errors import FileUnavailable
from ktls_server.files import resolve
from ktls_server.files.resolve import MAX_SYMLINKS, Root

INSIDE = b"inside"
OUTSIDE = b"outside: must never be seen"


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A root with a secret beside it."""
    (tmp_path / "secret").write_bytes(OUTSIDE)
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "secret").write_bytes(OUTSIDE)
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    (root / "file").write_bytes(INSIDE)
    (root / "a" / "b" / "file").write_bytes(INSIDE)
    return root


@pytest.fixture(params=["openat2", "walk"])
def root(request: pytest.FixtureRequest, folder: Path) -> Iterator[Root]:
    """Both ways; every test also proves that it left no descriptor behind."""
    before = open_descriptors()
    root = Root(folder, openat2=request.param == "openat2")
    yield root
    root.close()
    assert open_descriptors() == before


def read(root: Root, path: bytes) -> bytes:
    fd = root.open_file(root.find(path), path)
    try:
        return os.read(fd, 1000)
    finally:
        os.close(fd)


def refused(root: Root, path: bytes) -> int:
    with pytest.raises(FileUnavailable) as caught:
        read(root, path)
    return caught.value.status


def test_this_kernel_has_openat2_so_that_both_ways_are_tested() -> None:
    number = resolve.SYS_openat2
    how = (ctypes.c_uint64 * 3)(os.O_PATH, 0, resolve.RESOLVE_BENEATH)
    fd = ctypes.CDLL(None).syscall(number, -100, b".", ctypes.byref(how), ctypes.sizeof(how))
    assert fd >= 0
    os.close(fd)


@pytest.mark.parametrize("path", [b"file", b"a/b/file", b"a/../file", b"./a//b/./file"])
def test_a_file_inside_is_found(root: Root, path: bytes) -> None:
    assert read(root, path) == INSIDE


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("file", b"link"),
        ("a/b/file", b"link"),
        ("a/b", b"link/file"),
        ("a/b/../../a/b/file", b"link"),
        (".", b"link/a/b/file"),
    ],
)
def test_a_relative_symlink_that_stays_inside_is_followed(root: Root, folder: Path, target: str, path: bytes) -> None:
    (folder / "link").symlink_to(target)
    assert read(root, path) == INSIDE


def test_a_symlink_below_may_climb_as_far_as_the_root(root: Root, folder: Path) -> None:
    (folder / "a" / "b" / "link").symlink_to("../../file")
    assert read(root, b"a/b/link") == INSIDE


def test_an_absolute_symlink_back_into_the_root_is_followed(root: Root, folder: Path) -> None:
    (folder / "a" / "absolute").symlink_to(folder / "a" / "b")
    (folder / "itself").symlink_to(folder)
    assert read(root, b"a/absolute/file") == INSIDE
    assert read(root, b"itself/itself/a/absolute/file") == INSIDE


def test_the_root_may_itself_be_a_symlink_and_be_named_by_either_name(folder: Path) -> None:
    alias = folder.parent / "alias"
    alias.symlink_to(folder)
    (folder / "by_alias").symlink_to(alias / "file")
    (folder / "by_name").symlink_to(folder / "file")
    root = Root(alias)
    assert read(root, b"by_alias") == INSIDE
    assert read(root, b"by_name") == INSIDE
    root.close()


@pytest.mark.parametrize(
    "path",
    [
        b"../secret",
        b"a/../../secret",
        b"a/b/../../../secret",
        b"/etc/passwd",
        b"..",
        b"file\0.html",
        b"file/",
        b"file/x",
        b"nothing",
        b"nothing/file",
        b"a" * 256,
        b"a/" * 5000,
    ],
)
def test_a_path_that_leads_out_or_nowhere_is_not_found(root: Root, path: bytes) -> None:
    assert refused(root, path) == 404


@pytest.mark.parametrize(
    "target",
    [
        "../secret",
        "a/../../secret",
        "../root/../secret",
        "/etc/passwd",
        "../private/secret",
        "{parent}/secret",
        "{root}/../secret",
        "{root}extra/secret",
        "{root}/nothing",
        "/proc/self/root/etc/passwd",
        "/proc/self/cwd",
    ],
)
def test_a_symlink_that_leads_out_is_not_found(root: Root, folder: Path, target: str) -> None:
    (folder.parent / "rootextra").mkdir()
    (folder.parent / "rootextra" / "secret").write_bytes(OUTSIDE)
    (folder / "extra").mkdir()
    (folder / "extra" / "secret").write_bytes(INSIDE)
    (folder / "link").symlink_to(target.format(parent=folder.parent, root=folder))
    (folder / "a" / "hop").symlink_to("../link")
    assert refused(root, b"link") == 404
    assert refused(root, b"a/hop") == 404


def test_a_folder_symlink_that_leads_out_cannot_be_entered(root: Root, folder: Path) -> None:
    (folder / "link").symlink_to("../private")
    (folder / "up").symlink_to("..")
    assert refused(root, b"link/secret") == 404
    assert refused(root, b"up/secret") == 404
    assert refused(root, b"up/root/file") == 404


def test_a_chain_of_forty_symlinks_is_followed_and_one_more_is_not(root: Root, folder: Path) -> None:
    (folder / "link0").symlink_to("file")
    for number in range(1, MAX_SYMLINKS + 1):
        (folder / f"link{number}").symlink_to(f"link{number - 1}")
    assert read(root, b"link%d" % (MAX_SYMLINKS - 1)) == INSIDE
    assert refused(root, b"link%d" % MAX_SYMLINKS) == 404


def test_a_symlink_to_itself_ends(root: Root, folder: Path) -> None:
    (folder / "loop").symlink_to("loop")
    (folder / "deeper").symlink_to("deeper/deeper")
    assert refused(root, b"loop") == 404
    assert refused(root, b"deeper") == 404


def test_symlinks_that_multiply_end(root: Root, folder: Path) -> None:
    """Each doubles the path: 2^30 components without a bound on symlinks."""
    (folder / "d0").symlink_to("a/..")
    for number in range(1, 31):
        (folder / f"d{number}").symlink_to(f"d{number - 1}/d{number - 1}")
    assert refused(root, b"d30/file") == 404


@pytest.mark.parametrize(
    "name", [b"caf\xc3\xa9", b"caf\xe9", b"\xff\xfe", b"new\nline", b"back\\slash", b" ", b"%2e%2e"]
)
def test_names_are_bytes_in_any_encoding(root: Root, folder: Path, name: bytes) -> None:
    with open(os.path.join(os.fsencode(folder), name), "wb") as file:
        file.write(INSIDE)
    assert read(root, name) == INSIDE


def test_a_folder_is_found_but_not_opened_as_a_file(root: Root) -> None:
    for path in (b"a", b"a/", b"", b"."):
        found = root.find(path)
        assert stat.S_ISDIR(found.stat.st_mode)
        with pytest.raises(FileUnavailable):
            root.open_file(found, path)


def test_a_fifo_is_never_opened(root: Root, folder: Path) -> None:
    """A writer would see a reader come: opening for writing without waiting fails with ENXIO while there is none."""
    os.mkfifo(folder / "fifo")
    seen = threading.Event()
    unexpected: set[int | None] = set()
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            try:
                os.close(os.open(folder / "fifo", os.O_WRONLY | os.O_NONBLOCK))
                seen.set()
            except OSError as error:
                unexpected.update({error.errno} - {errno.ENXIO})

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(200):
        assert refused(root, b"fifo") == 404
    stop.set()
    watcher.join()
    assert not seen.is_set()
    assert not unexpected


def test_a_socket_is_never_opened(root: Root, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)  # a socket's address has room for 108 bytes only
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        assert refused(root, b"socket") == 404


def test_a_device_is_never_opened(folder: Path) -> None:
    root = Root(Path("/dev"))
    assert refused(root, b"null") == 404
    root.close()


def test_a_file_that_may_not_be_read_is_forbidden(
    folder: Path, as_nobody: Callable[[Callable[[], None]], None]
) -> None:
    (folder / "file").chmod(0)
    (folder / "closed").mkdir()
    (folder / "closed" / "file").write_bytes(INSIDE)
    (folder / "closed").chmod(0)

    def look() -> None:
        for openat2 in (True, False):
            root = Root(folder, openat2=openat2)
            assert refused(root, b"file") == 403
            assert refused(root, b"closed/file") == 403
            assert read(root, b"a/b/file") == INSIDE
            root.close()

    as_nobody(look)
    (folder / "closed").chmod(0o700)


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE])
def test_running_out_of_descriptors_is_said_to_be_temporary(
    root: Root, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def no_more(*_: object, **__: object) -> int:
        raise OSError(code, "no more")

    found = root.find(b"file")
    monkeypatch.setattr(os, "open", no_more)
    with pytest.raises(FileUnavailable) as caught:
        root.open_file(found, b"file")
    assert caught.value.status == 503


def test_a_network_file_system_that_loses_a_file_costs_no_descriptor(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(_: int) -> os.stat_result:
        raise OSError(errno.ESTALE, "stale")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", stale)
        assert refused(root, b"file") == 404
        assert root.find_file(b"file") is None


def test_without_proc_the_same_file_is_opened_again(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "_PROC_SELF_FD", b"/nowhere/%d")
    assert read(root, b"a/b/file") == INSIDE


def test_without_proc_a_file_that_was_exchanged_meanwhile_is_refused(
    root: Root, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve, "_PROC_SELF_FD", b"/nowhere/%d")
    found = root.find(b"file")
    (folder / "other").write_bytes(INSIDE)
    (folder / "other").rename(folder / "file")
    with pytest.raises(FileUnavailable) as caught:
        root.open_file(found, b"file")
    assert caught.value.status == 404


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EPERM])
def test_where_openat2_is_refused_the_walk_takes_over(folder: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """As under a kernel before 5.6, or under a container's seccomp filter."""

    def refuse(*_: object) -> int:
        ctypes.set_errno(code)
        return -1

    monkeypatch.setattr(resolve, "_syscall", refuse)
    root = Root(folder)
    (folder / "link").symlink_to("../secret")
    assert read(root, b"a/b/file") == INSIDE
    assert refused(root, b"link") == 404
    assert refused(root, b"nothing") == 404
    root.close()


def test_a_root_that_is_renamed_is_still_served(root: Root, folder: Path) -> None:
    folder.rename(folder.parent / "elsewhere")
    (folder.parent / "root").mkdir()
    (folder.parent / "root" / "file").write_bytes(OUTSIDE)
    assert read(root, b"file") == INSIDE


def swapping(*swap: Callable[[], None]) -> tuple[threading.Thread, threading.Event]:
    """A thread that does the given things in turn until told to stop."""
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            for change in swap:
                change()

    thread = threading.Thread(target=run)
    thread.start()
    return thread, stop


def test_a_folder_exchanged_for_a_symlink_while_requests_run_never_leads_out(root: Root, folder: Path) -> None:
    (folder / "swap").mkdir()
    (folder / "swap" / "secret").write_bytes(INSIDE)
    (folder / "way_out").symlink_to("../private")

    def exchange() -> None:
        os.rename(folder / "swap", folder / "kept")
        os.rename(folder / "way_out", folder / "swap")

    def exchange_back() -> None:
        os.rename(folder / "swap", folder / "way_out")
        os.rename(folder / "kept", folder / "swap")

    assert_never_outside(root, b"swap/secret", exchange, exchange_back)


def test_a_folder_moved_out_of_the_root_while_a_symlink_climbs_never_leads_out(root: Root, folder: Path) -> None:
    """`deep/up/secret` is inside while `deep` is in the root, and outside while it is in the root's parent."""
    (folder / "deep" / "down").mkdir(parents=True)
    (folder / "deep" / "down" / "up").symlink_to("../../secret")
    (folder / "secret").write_bytes(INSIDE)

    def move_out() -> None:
        os.rename(folder / "deep", folder.parent / "deep")

    def move_back() -> None:
        os.rename(folder.parent / "deep", folder / "deep")

    assert_never_outside(root, b"deep/down/up", move_out, move_back)


def assert_never_outside(root: Root, path: bytes, *swap: Callable[[], None]) -> None:
    thread, stop = swapping(*swap)
    try:
        answers: list[bytes] = []
        refusals: set[int] = set()
        for attempt in range(200_000):  # far more than needed: on a busy machine the other thread may come late
            if attempt >= 2000 and answers and refusals:
                break
            try:
                answers.append(read(root, path))
            except FileUnavailable as refusal:
                refusals.add(refusal.status)
    finally:
        stop.set()
        thread.join()
    assert set(answers) <= {INSIDE}
    assert refusals == {404}
    assert answers, "the race never left the file in place: nothing was tested"
