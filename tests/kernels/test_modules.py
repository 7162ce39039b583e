"""What a lane loads, and in what order."""

import lzma
from pathlib import Path

import pytest

from tests.kernels.modules import dependencies, load_order, module_name, modules_to_load

# gcm <- tls and ghash <- gcm, as in Linux 6.1; a .modinfo section is NUL-terminated "name=value" strings.
GRAPH = {"tls": ("gcm",), "gcm": ("ghash_generic",), "ghash_generic": ("gf128mul",), "gf128mul": (), "ctr": ()}


def modinfo(*fields: str) -> bytes:
    return b"\x7fELF\0" + b"".join(field.encode() + b"\0" for field in fields) + b"\0\0"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (["license=GPL", "depends=gf128mul", "name=ghash_generic"], ("gf128mul",)),
        (["depends=libpoly1305,chacha-x86_64"], ("libpoly1305", "chacha_x86_64")),
        (["depends="], ()),
        (["softdepends=other"], ()),
        ([], ()),
    ],
)
def test_a_module_names_its_dependencies(fields: list[str], expected: tuple[str, ...]) -> None:
    assert dependencies(modinfo("x=y", *fields)) == expected


def test_dependencies_load_first_and_only_once() -> None:
    assert load_order(["gcm", "ctr", "tls"], GRAPH.get) == ["gf128mul", "ghash_generic", "gcm", "ctr", "tls"]


def test_names_that_are_no_module_of_this_kernel_are_left_out() -> None:
    assert load_order(["aesni_intel", "ctr"], GRAPH.get) == ["ctr"]


@pytest.mark.parametrize("file", ["ghash-generic.ko", "ghash-generic.ko.xz", "ghash_generic.ko"])
def test_a_module_has_one_name_however_its_file_is_called(file: str) -> None:
    assert module_name(Path("kernel/crypto") / file) == "ghash_generic"


def test_compressed_modules_are_unpacked_once_and_in_order(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net/tls.ko.xz").write_bytes(lzma.compress(modinfo("a=b", "depends=gcm")))
    (tmp_path / "gcm.ko").write_bytes(modinfo("a=b", "depends="))
    (tmp_path / "vendor.ko").write_bytes(modinfo("a=b", "depends="))
    expected = (str(tmp_path / "gcm.ko"), str(tmp_path / "net/tls.ko"))
    assert modules_to_load(tmp_path) == expected
    assert modules_to_load(tmp_path) == expected
    assert (tmp_path / "net/tls.ko").read_bytes() == modinfo("a=b", "depends=gcm")
