"""One folder and one certificate for all servers of these tests."""

from pathlib import Path

import pytest

from tests.operation.running import Place


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place.make(tmp_path_factory.mktemp("operation"))


@pytest.fixture
def own_place(tmp_path: Path) -> Place:
    """With certificates that the test may change."""
    return Place.make(tmp_path)


@pytest.fixture(params=["uvloop", "asyncio"])
def loop(request: pytest.FixtureRequest) -> str:
    """Every event loop, as an option's value."""
    name: str = request.param
    return name
