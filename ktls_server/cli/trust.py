"""`ktls-server trust`: a local authority, in the stores of this machine's clients, so that no browser warns."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import ConfigurationError, SystemRefusal

if TYPE_CHECKING:
    from ..certificates import Authority
    from .trust_stores import Store


@click.command("trust")
@click.option(
    "--name",
    "names",
    multiple=True,
    metavar="NAME",
    help="One more host name, with all names below it, or address that the authority may sign for. Repeatable.",
)
@click.option("--remove", is_flag=True, help="Take the authority out of every store, and delete it.")
@click.option("--status", "--dry-run", "only_status", is_flag=True, help="Say what would be done, and change nothing.")
def command(names: tuple[str, ...], remove: bool, only_status: bool) -> None:
    """Make browsers and programs on this machine accept the development certificate without a warning.

    Makes an authority of your own once, and adds it to the stores of the system, of Firefox and Chromium, and of Java. It
    can sign for localhost, private addresses, and what --name adds; its key never leaves your data folder. From then on it
    issues the certificates of ktls-server serve and ktls-server certs.

    Exit status 0 if every store that was found is as it should be, 1 if not.
    """
    from .. import certificates

    if remove and names:
        raise ConfigurationError("--remove and --name do not go together; give one of them")
    _require_own_home()
    stores = _stores()
    authority = certificates.authority_in()
    if only_status:
        finished = _tell(authority, names, stores, remove=remove)
    elif remove:
        finished = _remove(authority, stores)
    else:
        finished = _trust(authority, names, stores)
    raise SystemExit(0 if finished else 1)


def _stores() -> list[Store]:
    from .trust_stores import find_stores

    return find_stores(Path.home())


def _require_own_home() -> None:
    """`sudo` may keep HOME: root would leave files in it that its owner cannot use."""
    home = Path.home()
    try:
        owner = home.stat().st_uid
    except OSError as error:
        raise SystemRefusal(f"the home folder {home} cannot be used ({error.strerror}); set HOME") from error
    if owner != os.geteuid():
        raise ConfigurationError(
            f"the home folder {home} is another user's; run this command without sudo: it says what root has to do"
        )


def _tell(authority: Authority | None, names: Sequence[str], stores: list[Store], *, remove: bool) -> bool:
    from ..certificates import is_good_authority

    if authority is None:
        click.echo("authority: none" if remove else "authority: none; one would be made")
    elif remove:
        click.echo(f"authority: {authority.path}; it would be deleted")
    else:
        _describe(authority, "" if is_good_authority(authority, names) else "; it would be replaced")
    for store in stores:
        if authority is not None and store.holds(authority):
            click.echo(f"trusted: {store.label}{'; it would be removed' if remove else ''}")
        else:
            click.echo(f"not trusted: {store.label}{'' if remove else '; it would be added'}")
    if remove:
        return authority is None
    return authority is not None and is_good_authority(authority, names) and all(s.holds(authority) for s in stores)


def _describe(authority: Authority, what_next: str = "") -> None:
    click.echo(f"authority: {authority.path}, until {authority.end:%Y-%m-%d}{what_next}")
    click.echo(f"signs for: {', '.join(authority.names())}")
    click.echo(f"SHA-256: {authority.fingerprint()}")


def _trust(authority: Authority | None, names: Sequence[str], stores: list[Store]) -> bool:
    from ..certificates import is_good_authority, make_authority

    if authority is not None and not is_good_authority(authority, names):
        # The old one first: whoever stops us in between finds it again, and nothing is trusted that is forgotten.
        clean = _change_each(stores, "removed the old one", "no old one", lambda store: store.remove(authority))
        if not clean:
            raise SystemRefusal("the old authority was kept, for it is still trusted; mend that, then run this again")
    again = make_authority(names=names)
    click.echo("made: a new authority" if again.created else "still good: the authority")
    _describe(again)
    finished = _change_each(stores, "trusted", "trusted already", lambda store: store.add(again))
    click.echo("undo: ktls-server trust --remove")
    return finished


def _remove(authority: Authority | None, stores: list[Store]) -> bool:
    from ..certificates import remove_authority

    if authority is None:
        click.echo("there is no authority: nothing to remove")
        return True
    finished = _change_each(stores, "removed", "not there", lambda store: store.remove(authority))
    remove_authority(authority, keep_certificate=not finished)
    if finished:
        click.echo(f"deleted: {authority.folder}")
    else:
        click.echo("deleted: the authority's key; its certificate is kept until no store trusts it")
    return finished


def _change_each(stores: list[Store], done: str, nothing_done: str, change: Callable[[Store], bool]) -> bool:
    """One line a store, on standard error where it failed. Whether all are as they should be."""
    finished = True
    for store in stores:
        try:
            click.echo(f"{done if change(store) else nothing_done}: {store.label}")
        except SystemRefusal as error:
            finished = False
            click.echo(f"ktls-server: {store.label}: {error}", err=True)
    return finished


def why_not_issued(authority: Authority, cert: Path) -> str:
    """Why a certificate was not issued by the authority that is there, and the command that mends it."""
    from ..certificates import names_in

    foreign = [name for name in names_in(cert) if not authority.permits([name])]
    command = shlex.join(["ktls-server", "trust", *(word for name in foreign for word in ("--name", name))])
    if foreign:
        return f"your authority may not sign for {', '.join(foreign)}, so browsers warn; {command}"
    return f"your authority cannot sign any more, so browsers warn; {command}"
