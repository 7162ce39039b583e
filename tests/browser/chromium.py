"""Headless Chromium: the one that the distribution packages, driven by Playwright, with nothing of its own on the network."""

from __future__ import annotations

import base64
import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
CURE = "Chromium is missing: apt-get install --no-install-recommends chromium"

_OPTIONS = (
    "--no-sandbox",  # it runs as root in containers, and sees only what these tests serve
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def installed() -> str | None:
    """Where Chromium is, None where it is not."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@contextmanager
def chromium(certificate: Path) -> Iterator[Browser]:
    """A browser that trusts this one certificate beside its own authorities. Its profile is new, and gone afterwards."""
    key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    digest = hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    trust = "--ignore-certificate-errors-spki-list=" + base64.b64encode(digest).decode("ascii")
    executable = installed()
    assert executable is not None, CURE
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=[*_OPTIONS, trust])
        try:
            yield browser
        finally:
            browser.close()
