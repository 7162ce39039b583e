"""The request path with the suite's own requests, changed at random: a short run. `make fuzz` is the long one."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from tests.fuzz.mutation import mutations
from tests.fuzz.target import RequestPath, seeds

INPUTS = 1000
"""A few seconds. The same ones each time: a suite is no place for surprises."""


@pytest.fixture
def request_path(tmp_path: Path) -> Iterator[RequestPath]:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = RequestPath(folder)
    yield path
    path.close()


def test_the_requests_of_the_tables_keep_what_must_hold(request_path: RequestPath) -> None:
    assert sum(request_path.check(data) for data in seeds()) > len(seeds()) // 2


def test_almost_requests_keep_what_must_hold(request_path: RequestPath) -> None:
    answers = sum(request_path.check(data) for data in islice(mutations(seeds(), random.Random(3)), INPUTS))
    assert answers > INPUTS // 2, "too few of them are understood to test much"
