"""What can keep a command from running in a tree."""


class TreeUnavailable(Exception):
    """The tree cannot be made or entered here. The message says what is missing, and how to mend it where that is known."""


EXIT_STATUS_NOT_RUN = 125
EXIT_STATUS_TIMED_OUT = 124
"""As in `tests.kernels`, and different from pytest's own 0 to 5."""
