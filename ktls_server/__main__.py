"""What runs as `ktls-server` and `python -m ktls_server`.

Importing the command line takes a tenth of a second. Ctrl-C in that time ends the process as it ends any program, and not
with a traceback out of an import.
"""

from __future__ import annotations

import signal


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; never returns normally, raises SystemExit."""
    handler = signal.getsignal(signal.SIGINT)
    # A shell starts background jobs with SIGINT ignored: that stays.
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from .cli import main as run

    signal.signal(signal.SIGINT, handler)
    run(arguments)


if __name__ == "__main__":
    main()
