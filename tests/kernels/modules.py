"""Which kernel modules a lane loads, and in what order (pure but for reading the files).

Debian's kernel packages leave `modules.dep` to depmod(8) at installation, and nothing is installed here. Each module
names its dependencies itself, in its `.modinfo` section (`depends=a,b`), so the order comes from there.
"""

import lzma
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

# tls_sw asks the crypto API for "gcm(aes)", "rfc7539(chacha20,poly1305)" and the like by name; without modprobe in the
# guest nothing would load on demand. Names that a kernel has built in, or has not at all, are passed over: which of
# several implementations exists differs from kernel to kernel, and the lane's self-test proves that the ciphers work.
WANTED_MODULES = (
    "aes_generic",
    "aesni_intel",
    "ghash_generic",
    "ghash_clmulni_intel",
    "ctr",
    "crypto_null",
    "gcm",
    "ccm",
    "chacha",
    "chacha_generic",
    "chacha_x86_64",
    "poly1305_generic",
    "poly1305_x86_64",
    "chacha20poly1305",
    "tls",
    # For ::1.
    "ipv6",
)


def module_name(path: Path) -> str:
    """Return the kernel's name for a module file: `ghash-generic.ko.xz` is `ghash_generic`."""
    return path.name.split(".", 1)[0].replace("-", "_")


def dependencies(module: bytes) -> tuple[str, ...]:
    """Return what an uncompressed module file says that it depends on."""
    found = re.search(rb"\0depends=([^\0]*)\0", module)
    if found is None or not found[1]:
        return ()
    return tuple(name.replace("-", "_") for name in found[1].decode("ascii").split(","))


def load_order(wanted: Iterable[str], dependencies_of: Callable[[str], tuple[str, ...] | None]) -> list[str]:
    """Return `wanted` and what it depends on, each once and after its own dependencies.

    `dependencies_of` returns None for a name that is no module of this kernel: that one is left out.
    """
    order: list[str] = []

    def visit(name: str) -> None:
        needed = dependencies_of(name)
        if needed is None or name in order:
            return
        for dependency in needed:
            visit(dependency)
        order.append(name)

    for name in wanted:
        visit(name)
    return order


def modules_to_load(module_directory: Path) -> tuple[str, ...]:
    """Return the paths of the modules to load, in order, from an extracted kernel's module directory.

    Compressed modules are unpacked beside themselves: not every kernel can do that when it loads them.
    """
    files = {module_name(path): path for path in module_directory.rglob("*.ko*") if path.suffix in (".ko", ".xz")}

    def dependencies_of(name: str) -> tuple[str, ...] | None:
        return dependencies(uncompressed(files[name]).read_bytes()) if name in files else None

    return tuple(str(uncompressed(files[name])) for name in load_order(WANTED_MODULES, dependencies_of))


def uncompressed(path: Path) -> Path:
    if path.suffix != ".xz":
        return path
    plain = path.with_suffix("")
    if not plain.exists():
        partial = path.with_suffix(f".partial-{os.getpid()}")
        partial.write_bytes(lzma.decompress(path.read_bytes()))
        partial.rename(plain)
    return plain
