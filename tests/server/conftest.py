"""Servers to test against: one process per variant, shared by all tests that change nothing about it.

A variant is a path (who encrypts) and an event loop. On a kernel without kernel TLS the kernel's variants do not exist,
which the report's header says, unless --ktls-kernel demands them: then they fail.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ktls_server.kernel.probe import KernelTls, probe
from tests.server.running import Server, Variant, environment
from tests.server.site import make_site

LOOPS = ("uvloop", "asyncio")

StartServer = Callable[[Variant], Server]


def paths_to_test(config: pytest.Config) -> tuple[str, ...]:
    if config.getoption("--ktls-kernel") or probe().available:
        return ("kernel", "userspace")
    return ("userspace",)


def pytest_report_header(config: pytest.Config) -> str:
    if "kernel" in paths_to_test(config):
        return "tests/server: kernel TLS and userspace TLS"
    return (
        f"tests/server: USERSPACE TLS ONLY on this kernel ({probe().reason}); "
        "`make test-ktls` runs the same tests where the kernel encrypts"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`variant`: every path on every loop. `path`: every path, on the default loop."""
    paths = paths_to_test(metafunc.config)
    if "variant" in metafunc.fixturenames:
        variants = [Variant(path, loop) for path in paths for loop in LOOPS]
        metafunc.parametrize("variant", variants, ids=str, scope="session")
    if "path" in metafunc.fixturenames:
        metafunc.parametrize("path", paths, scope="session")


@pytest.fixture(scope="session")
def kernel_tls(kernel_tls_required: bool) -> KernelTls:
    """What the running kernel can do."""
    abilities = probe()
    if kernel_tls_required:
        assert abilities.available, f"--ktls-kernel was given, but {abilities.describe()}"
    return abilities


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's cache folder, where the first server puts its development certificate."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that is served. Tests may add files of their own, under names of their own."""
    return make_site(tmp_path_factory.mktemp("top") / "site")


@pytest.fixture(scope="session")
def servers(
    site: Path, cache: Path, kernel_tls: KernelTls, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Variant], Server]]:
    """The running server of a variant, started when it is first asked for, ended, and judged, with the session."""
    running: dict[Variant, Server] = {}
    with ExitStack() as stack:

        def server_of(variant: Variant) -> Server:
            if variant not in running:
                running[variant] = Server(site, tmp_path_factory.mktemp("server"), variant, environment(cache))
                stack.callback(running[variant].stop)
            return running[variant]

        yield server_of


@pytest.fixture
def server(servers: Callable[[Variant], Server], variant: Variant) -> Iterator[Server]:
    """The server of this variant, unharmed before and after."""
    server = servers(variant)
    yield server
    server.assert_unharmed()


@pytest.fixture
def start_server(site: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """Starts a server of the test's own, which ends, and is judged, with the test."""
    with ExitStack() as stack:

        def start(variant: Variant) -> Server:
            server = Server(site, tmp_path_factory.mktemp("own"), variant, environment(cache))
            stack.callback(server.stop)
            return server

        yield start
