"""When certificates count as replaced."""

import os
import shutil
from pathlib import Path

from ktls_server import certificates
from ktls_server.operation.reloading import Certificates
from ktls_server.settings import Settings
from tests.operation.running import Place


def loaded(place: Place) -> Certificates:
    return Certificates(Settings(cert=(place.certificate,), key=(place.key,)))


def test_what_is_not_there_for_a_moment_has_not_changed(own_place: Place) -> None:
    watched = loaded(own_place)
    assert not watched.changed()
    aside = own_place.key.with_name("aside")
    own_place.key.rename(aside)
    assert not watched.changed()
    aside.rename(own_place.key)
    assert not watched.changed()


def test_what_was_replaced_has_changed_until_it_is_read(own_place: Place, tmp_path: Path) -> None:
    watched = loaded(own_place)
    (tmp_path / "fresh").mkdir()
    pair = certificates.certificate_in(tmp_path / "fresh")
    os.replace(pair.key, own_place.key)
    shutil.copy(pair.cert, own_place.certificate)
    assert watched.changed()
    assert watched.reload()
    assert not watched.changed()


def test_a_link_that_leads_to_another_file_counts_as_a_change(own_place: Place, tmp_path: Path) -> None:
    """As certbot renews: live/privkey.pem is a link into archive/, and is replaced by another one."""
    (tmp_path / "fresh").mkdir()
    pair = certificates.certificate_in(tmp_path / "fresh")
    live = {path: tmp_path / f"live-{path.name}" for path in (own_place.certificate, own_place.key)}
    for file, link in live.items():
        link.symlink_to(file)
    watched = Certificates(Settings(cert=(live[own_place.certificate],), key=(live[own_place.key],)))
    assert not watched.changed()
    for file, link in zip((pair.cert, pair.key), live.values(), strict=True):
        other = tmp_path / "other"
        other.symlink_to(file)
        other.replace(link)
    assert watched.changed()
    assert watched.reload()
    assert not watched.changed()
