"""Options and fixtures of the whole suite."""

import signal

import pytest

from tests.kernels.matrix import MARKER_DESCRIPTION

# Helpers whose assertions shall say what they compared, as those of the tests do.
pytest.register_assert_rewrite("tests.server.running", "tests.server.clients", "tests.server.dripping")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--ktls-kernel",
        action="store_true",
        help="this kernel has to have kernel TLS: a test that cannot use it fails (see python -m tests.kernels)",
    )


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A job that a shell started in the background ignores Ctrl-C, and so would every program that a test starts.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", MARKER_DESCRIPTION)


@pytest.fixture(scope="session")
def kernel_tls_required(pytestconfig: pytest.Config) -> bool:
    """Whether the run is on a kernel that has to have kernel TLS, so that its absence is a failure."""
    required: bool = pytestconfig.getoption("--ktls-kernel")
    return required
