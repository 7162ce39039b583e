"""`ktls-server serve`: settings and a certificate in, a running server out."""

from __future__ import annotations

import dataclasses
import ipaddress
import logging
from typing import TYPE_CHECKING

import click

from ..errors import ConfigurationError
from ..settings import OPTIONS
from ..settings.exposure import would_be_served
from .settings_options import SettingsCommand, settings_from

if TYPE_CHECKING:
    from ..settings import BoundServer, Settings


_log = logging.getLogger(__name__)


@click.command("serve", cls=SettingsCommand)
def command(**parameters: object) -> None:
    """Serve DIRECTORY (by default the current one) over HTTPS.

    The kernel encrypts where it can, and files go out by sendfile; ktls-server doctor tells whether it can here.
    """
    settings = settings_from(parameters)
    development_certificate = None
    if not settings.cert:
        settings = _with_development_certificate(settings)
        development_certificate = settings.cert[0]

    # Imported when all is known to be in order: a mistyped option is answered at once.
    from ..certificates import ValidityWatch
    from ..server import run
    from .announcement import announce

    def tell(bound: BoundServer) -> None:
        announce(settings, bound, development_certificate)
        for complaint in ValidityWatch(settings.cert).news():
            _log.warning("%s", complaint)

    try:
        run(settings, tell)
    except ConfigurationError as error:
        raise ConfigurationError(_with_flag(str(error))) from error


def _with_flag(message: str) -> str:
    """The server names an option by its field of Settings, `http_port: ...`; here it is `--http-port: ...`."""
    name, colon, rest = message.partition(": ")
    flags = {option.name: option.flag for option in OPTIONS}
    return f"{flags[name]}: {rest}" if colon and name in flags else message


def _with_development_certificate(settings: Settings) -> Settings:
    from .. import certificates

    folder = certificates.cache_folder()
    # Serving a home folder is usual, and its .cache is hidden.
    if would_be_served(folder, settings):
        raise ConfigurationError(
            f"{folder}, where the development certificate is kept, lies in the folder that is served;"
            " set XDG_CACHE_HOME to another, or give --cert and --key"
        )
    names = _names_of(settings.host)
    # One for each: a certificate that somebody trusts already must not change because another address is served, too.
    for name in names:
        if name not in certificates.LOCAL_NAMES and "/" not in name and not name.startswith("."):
            folder /= name
    pair = certificates.development_certificate(folder, names, certificates.authority_in())
    return dataclasses.replace(settings, cert=(pair.cert,), key=(pair.key,))


def _names_of(host: str) -> tuple[str, ...]:
    """The name that clients will use: the host itself, unless it stands for all addresses."""
    try:
        return () if ipaddress.ip_address(host).is_unspecified else (host,)
    except ValueError:
        return (host,)
