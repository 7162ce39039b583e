"""Which packages a lane takes, and from which archive."""

import pytest

from tests.kernels import qemu, uml
from tests.kernels.packages import archive_of

MIRROR = ["http://mirror.example/debian-security/", "http://mirror.example/debian/"]


@pytest.mark.parametrize(
    ("configured", "suite", "expected"),
    [
        (MIRROR, "bookworm", "http://mirror.example/debian"),
        (MIRROR, "trixie-backports", "http://mirror.example/debian"),
        (MIRROR, "bookworm-security", "http://mirror.example/debian-security"),
        (["http://archive.ubuntu.com/ubuntu/"], "bookworm", "http://deb.debian.org/debian"),
        ([], "bookworm-security", "http://deb.debian.org/debian-security"),
    ],
)
def test_packages_come_from_the_mirror_that_the_machine_uses(configured: list[str], suite: str, expected: str) -> None:
    assert archive_of(configured, suite) == expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ["linux-image-6.12.99+deb12-cloud-amd64", "linux-image-6.12.101+deb12-cloud-amd64"],
            ["linux-image-6.12.101+deb12-cloud-amd64"],
        ),
        (["linux-image-6.12.117+deb12-cloud-amd64-dbg", "linux-image-6.12.117+deb12-cloud-amd64-unsigned"], []),
        (["linux-image-6.12.117+deb12-rt-amd64", "linux-image-6.1.0-40-cloud-amd64"], []),
    ],
)
def test_the_6_12_lane_takes_the_newest_signed_cloud_kernel(names: list[str], expected: list[str]) -> None:
    assert qemu.SOURCES["qemu-6.12"].choose(names) == expected


def test_the_7_lane_takes_the_newest_kernel_that_has_its_modules() -> None:
    names = [
        "linux-binary-7.2.12+deb13-cloud-amd64",
        "linux-modules-7.2.12+deb13-cloud-amd64",
        "linux-binary-7.10.1+deb13-cloud-amd64",
        "linux-modules-7.9.4+deb13-cloud-amd64",
        "linux-binary-7.9.4+deb13-cloud-amd64",
    ]
    assert qemu.SOURCES["qemu-7"].choose(names) == [
        "linux-binary-7.9.4+deb13-cloud-amd64",
        "linux-modules-7.9.4+deb13-cloud-amd64",
    ]


def test_the_user_mode_linux_lane_takes_the_one_package() -> None:
    assert uml.PACKAGES.choose(["user-mode-linux-doc", "user-mode-linux"]) == ["user-mode-linux"]
