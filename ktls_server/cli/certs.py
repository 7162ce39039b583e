"""`ktls-server certs`: a certificate for development in a folder of the user's choice."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("certs")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=".certs", metavar="[FOLDER]")
@click.option("--name", "names", multiple=True, metavar="NAME", help="One more host name or address. Repeatable.")
def command(folder: Path, names: tuple[str, ...]) -> None:
    """Write cert.pem and key.pem to FOLDER (by default .certs, which the server hides like every name with a dot).

    The certificate is for localhost, 127.0.0.1 and ::1, and for what --name adds. One that is there and still good is
    kept; one that this command did not make is never touched.
    """
    import shlex

    from ..certificates import authority_in, certificate_in, is_issued
    from ..settings import Settings
    from ..settings.exposure import would_be_served
    from .trust import why_not_issued

    authority = authority_in()
    pair = certificate_in(folder, names, authority)
    click.echo(f"{'made' if pair.created else 'still good'}: {pair.cert} and {pair.key}")
    cert, key = shlex.quote(str(pair.cert)), shlex.quote(str(pair.key))
    # The current folder is served where none is named, and refused where it would give the key away.
    served = "FOLDER " if would_be_served(pair.key, Settings()) else ""
    click.echo(f"serve: ktls-server serve {served}--cert {cert} --key {key}")
    click.echo(f"trust: curl --cacert {cert} https://localhost:8443/")
    if authority is not None and not is_issued(pair.cert, authority):
        click.echo(f"note: {why_not_issued(authority, pair.cert)}")
