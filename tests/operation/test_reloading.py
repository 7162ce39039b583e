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
