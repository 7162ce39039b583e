"""All that is made once, before there are workers: what can go wrong at start-up has gone wrong here, or will not.

The order matters: the kernel is asked, ports are bound, keys and passwords are read, then root's rights are given up, and
the folder is opened with what is left.
"""

from __future__ import annotations

import contextlib
import logging
import resource
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from ..errors import ConfigurationError, SystemRefusal
from ..files.site import Site, SiteOptions
from ..kernel.probe import KernelTls, probe
from ..net import listening
from ..passwords import PasswordFile
from ..settings import BoundServer, Settings
from . import privileges, systemd
from .client_counts import ClientCounts
from .reloading import Certificates
from .scoreboard import Scoreboard

_log = logging.getLogger(__name__)

SPARE_DESCRIPTORS: Final = 64
"""What a process opens beside its connections: listeners, logs, the folder that it serves, files that it looks at."""

DESCRIPTORS_OF_A_CONNECTION: Final = 2
"""The socket, and the file that is being sent on it."""


Elsewhere: TypeAlias = Callable[[Callable[[], object]], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Prepared:
    """What every worker starts from. Sockets and memory are shared by all that are forked after it was made."""

    settings: Settings
    kernel: KernelTls
    listeners: list[socket.socket]
    redirect_listeners: list[socket.socket]
    metrics_listeners: list[socket.socket]
    certificates: Certificates
    passwords: PasswordFile | None
    scoreboard: Scoreboard | None
    client_counts: ClientCounts

    def bound(self) -> BoundServer:
        """Where it listens and who encrypts, for people."""
        return BoundServer(
            _urls("https", self.listeners),
            self.kernel.describe(),
            _urls("http", self.redirect_listeners),
            tuple(f"{url}metrics" for url in _urls("http", self.metrics_listeners)),
        )

    def close_listeners(self) -> None:
        """Refuse connections from now on, once every process that shares the listeners has done so."""
        for listener in (*self.listeners, *self.redirect_listeners, *self.metrics_listeners):
            listener.close()


def prepare(settings: Settings) -> Prepared:
    """Probe, bind, read, become `--user`. Raises ConfigurationError or SystemRefusal."""
    kernel = KernelTls(reason="switched off (--ktls off)") if settings.ktls == "off" else probe()
    if settings.ktls == "require" and not kernel.available:
        cure = f": {kernel.cure}" if kernel.cure else ""
        raise SystemRefusal(f"--ktls require: {kernel.reason}{cure}; `ktls-server doctor` tells more")
    if settings.user is not None:
        privileges.find(settings.user)
    _raise_descriptor_limit(settings)
    certificates = Certificates(settings)
    passwords = PasswordFile(settings.auth_file, settings.user) if settings.auth_file is not None else None
    listeners, redirect_listeners, metrics_listeners = _bind(settings)
    scoreboard = Scoreboard(settings.workers) if metrics_listeners else None
    if settings.user is not None:
        privileges.drop(settings.user)
        certificates.warn_of_unreadable()
        if passwords is not None:
            passwords.warn_if_unreadable()
    open_site(settings).close()
    return Prepared(
        settings,
        kernel,
        listeners,
        redirect_listeners,
        metrics_listeners,
        certificates,
        passwords,
        scoreboard,
        ClientCounts(settings.workers),
    )


def _urls(scheme: str, listeners: list[socket.socket]) -> tuple[str, ...]:
    return tuple(
        f"{scheme}://{listening.url_host(listener.getsockname()[0])}:{listening.port_of(listener)}/"
        for listener in listeners
    )


def _bind(settings: Settings) -> tuple[list[socket.socket], list[socket.socket], list[socket.socket]]:
    """The listeners for TLS, for redirects and for metrics; those that systemd hands over take the place of our own."""
    given = systemd.take_sockets()
    redirects, metrics = given.pop("http", []), given.pop("metrics", [])
    listeners = [listening.adopt(listener) for taken in given.values() for listener in taken]
    if not listeners:
        listeners = listening.bind(settings.host, settings.port)
    redirects = [listening.adopt(listener) for listener in redirects]
    if not redirects and settings.http_port is not None:
        redirects = listening.bind(settings.host, settings.http_port, option="http_port")
    metrics = [listening.adopt(listener) for listener in metrics]
    if not metrics and settings.metrics_port is not None:
        metrics = listening.bind(settings.metrics_host, settings.metrics_port, option="metrics_port")
    return listeners, redirects, metrics


def _raise_descriptor_limit(settings: Settings) -> None:
    """The soft limit is low for programs that use select(2), as systemd advises; a server may take the hard one."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return
    fitting = max(0, limit - SPARE_DESCRIPTORS) // DESCRIPTORS_OF_A_CONNECTION
    if fitting < settings.max_connections:
        # Most connections send no file at a given moment: the limit is low only where not even those fit.
        level = logging.WARNING if limit < settings.max_connections + SPARE_DESCRIPTORS else logging.DEBUG
        _log.log(
            level,
            "the limit of %d open files is enough for %d downloads at one time, not for --max-connections %d;"
            " raise LimitNOFILE= or ulimit -n to %d, or lower --max-connections to %d",
            limit,
            fitting,
            settings.max_connections,
            settings.max_connections * DESCRIPTORS_OF_A_CONNECTION + SPARE_DESCRIPTORS,
            max(1, fitting),
        )


def open_site(settings: Settings, elsewhere: Elsewhere | None = None) -> Site:
    """The folder that is served. Raises ConfigurationError where it cannot be opened.

    `elsewhere` runs a function on another thread, for what would hold up the event loop.
    """
    options = SiteOptions(
        root=settings.directory,
        index=settings.index,
        listing=settings.listing,
        hidden_files=settings.hidden_files,
        spa=settings.spa,
        cache_control=settings.cache_control,
        headers=settings.header,
        hsts=settings.hsts,
        csp=settings.csp,
        cors=settings.cors,
        precompressed=settings.precompressed,
        elsewhere=elsewhere,
    )
    try:
        return Site(options)
    except OSError as error:
        raise ConfigurationError(f"directory: {str(settings.directory)!r}: {error.strerror}") from None


def reopen_site(settings: Settings, site: Site, elsewhere: Elsewhere | None = None) -> Site:
    """The folder that the path leads to now: a deployment may have changed the link that it is.

    Where the path leads to no folder that can be opened, says so and goes on with `site`. Else the caller closes `site`, once
    nobody uses it any more.
    """
    try:
        return open_site(settings, elsewhere)
    except ConfigurationError as error:
        _log.error("the served folder stays as it was: %s", error)
        return site
