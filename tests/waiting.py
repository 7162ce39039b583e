"""Waiting for what has to come: a test never sleeps for a time and hopes."""

import asyncio
import time
from collections.abc import Callable

WAIT_SECONDS = 90
"""How long what has to come may take to come, on an emulated machine. Nothing waits so long unless it is broken."""


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Return once `condition()` holds; fail the test, naming `what`, where it never does."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.01)


async def eventually_async(condition: Callable[[], bool], what: str) -> None:
    """As `eventually`, while other tasks go on."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        await asyncio.sleep(0.01)
