"""What can keep a command from running on a lane's kernel."""


class LaneUnavailable(Exception):
    """The lane's kernel cannot be had on this machine: a tool, a package or a kernel feature is missing.

    The message says what is missing and ends with the one command that mends it, where there is one.
    """


class LaneFailed(Exception):
    """The kernel was there but did not run the command to its end: it did not boot, crashed, or ran out of time."""

    def __init__(self, message: str, *, exit_status: int) -> None:
        super().__init__(message)
        self.exit_status = exit_status


# As docker(1) and timeout(1) have them, so that neither is mistaken for pytest's own 0 to 5.
EXIT_STATUS_NOT_RUN = 125
EXIT_STATUS_TIMED_OUT = 124
