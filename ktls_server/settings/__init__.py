"""Every option of the server, defined once, and the frozen `Settings` that the rest of the package reads.

`kinds` says what text an option accepts, `options` is the table (the fields of `Settings`), `loading` merges command
line, environment, TOML file and defaults. The command line, `--help`, the TOML keys, the environment variables and
docs/options.md are all derived from that table. Nothing here imports asyncio, ssl or the command line.
"""

from .loading import Sources, load
from .options import (
    OPTIONS,
    BoundServer,
    Option,
    Settings,
)
from .rule_values import CacheRule, HeaderRule

__all__ = ["OPTIONS", "BoundServer", "CacheRule", "HeaderRule", "Option", "Settings", "Sources", "load"]
