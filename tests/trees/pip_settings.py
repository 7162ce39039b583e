"""How pip reaches its index on this machine, for the pip inside a tree.

The settings are read from the machine when a tree is entered, and given to pip in environment variables. Nothing of them is
written into the tree or the project.
"""

import ast
from collections.abc import Mapping
from pathlib import Path

AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
INSIDE_AUTHORITIES = "/run/authorities.crt"

PASSED_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries")
"""Settings that mean the same in the tree. Paths of this machine (find-links, constraint) do not."""

PASSED_VARIABLES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


def pip_environment(configuration: str, host: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for pip in the tree, given what `pip config list` prints here (pure).

    pip prints one setting a line, `global.timeout='30'`, the strongest source last.
    """
    environment = {name: host[name] for name in PASSED_VARIABLES if name in host}
    for line in configuration.splitlines():
        name, equals, quoted = line.partition("=")
        setting = name.rpartition(".")[2]
        if not equals or setting not in PASSED_SETTINGS:
            continue
        words = [word for word in str(ast.literal_eval(quoted)).split() if not word.startswith("file:")]
        if words:
            environment[f"PIP_{setting.upper().replace('-', '_')}"] = " ".join(words)
    return environment | {"PIP_CERT": INSIDE_AUTHORITIES, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
