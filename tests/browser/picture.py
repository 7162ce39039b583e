"""Takes the picture of the listing that the README shows: `python -m tests.browser.picture docs/images/listing.png`.

A folder as people have them is made, served by the real server, and looked at by day and by night.
"""

from __future__ import annotations

import base64
import calendar
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser

from tests.browser.chromium import chromium
from tests.server.running import Server, Variant, environment

WIDTH, HEIGHT = 690, 668
"""Of one of the two, in CSS pixels."""

KIBIBYTE, MEBIBYTE, GIBIBYTE = 1 << 10, 1 << 20, 1 << 30
FOLDERS = {"Lectures": "2026-10-12 09:15", "Photos": "2026-09-28 18:40", "Scores": "2026-11-02 20:05"}
FILES = {
    "Aufführung – Programm.pdf": (1_843_200, "2026-11-19 16:22"),
    "choir-recording-01.flac": (318 * MEBIBYTE, "2026-11-15 21:48"),
    "choir-recording-02.flac": (291 * MEBIBYTE, "2026-11-15 22:31"),
    "choir-recording-10.flac": (304 * MEBIBYTE, "2026-11-16 00:02"),
    "Concert (whole evening).mp4": (int(3.42 * GIBIBYTE), "2026-11-16 01:17"),
    "dataset-v2.parquet": (89_214_976, "2026-10-30 11:09"),
    "README.md": (2_148, "2026-11-20 08:03"),
    "rehearsal-plan.csv": (14_336, "2026-11-18 19:55"),
    "楽譜.zip": (7 * MEBIBYTE, "2026-11-02 20:11"),
}
"""Size in bytes and time of the last change."""
SHOWN = "/Music/Autumn%20concert/"


def make_folder(top: Path) -> None:
    folder = top / "Music" / "Autumn concert"
    for name in FOLDERS:
        (folder / name).mkdir(parents=True)
    for name, (size, _) in FILES.items():
        with (folder / name).open("wb") as file:
            file.truncate(size)
    for name, when in [*FOLDERS.items(), *((name, when) for name, (_, when) in FILES.items())]:
        moment = calendar.timegm(time.strptime(when, "%Y-%m-%d %H:%M"))
        os.utime(folder / name, (moment, moment))


def look(browser: Browser, url: str, scheme: Literal["light", "dark"]) -> str:
    """What a browser shows, as a data URL."""
    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=scheme, device_scale_factor=2)
    page.goto(url)
    page.get_by_text("README.md").hover()
    shown = base64.b64encode(page.screenshot()).decode("ascii")
    page.close()
    return f"data:image/png;base64,{shown}"


def main(target: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        top = Path(scratch) / "top"
        make_folder(top)
        server = Server(top, Path(scratch), Variant("userspace", "uvloop", ("--listing",)), environment(Path(scratch)))
        try:
            with chromium(server.certificate) as browser:
                images = [look(browser, server.url(SHOWN), scheme) for scheme in ("light", "dark")]
                page = browser.new_page(viewport={"width": 2 * WIDTH, "height": HEIGHT})
                page.set_content(
                    "<style>*{margin:0}body{display:flex}img{width:50%}</style>"
                    + "".join(f'<img src="{image}">' for image in images)
                )
                target.parent.mkdir(parents=True, exist_ok=True)
                page.screenshot(path=target)
        finally:
            server.stop()
    print(f"{target}: {target.stat().st_size / KIBIBYTE:.0f} KiB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
