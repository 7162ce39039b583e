"""From settings to a running server: prepare everything once, then serve in this process, or in several.

prepare        operation/preparation.py   probe, bind, read keys, give up root
one process    operation/worker.py        an event loop that serves
several        operation/supervisor.py    forks workers, replaces those that die
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .operation import errorlog, supervisor
from .operation.preparation import prepare
from .operation.worker import new_loop, serve_alone
from .settings import BoundServer, Settings


def run(settings: Settings, announce: Callable[[BoundServer], None]) -> None:
    """Serve until SIGINT or SIGTERM. Raises ConfigurationError or SystemRefusal where it cannot start.

    `announce` is called once connections are answered.
    """
    errorlog.configure(settings.log_level)
    # Before `--user`, who may not be able to read the library's files.
    loop_factory = new_loop(settings.loop)
    prepared = prepare(settings)

    def ready() -> None:
        announce(prepared.bound())

    if settings.workers > 1:
        supervisor.run(prepared, ready)
        return
    errorlog.write_by_thread()
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(serve_alone(prepared, ready))
