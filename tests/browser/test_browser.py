"""What a person sees: a real browser on the listing, on a page with pictures, in the middle of a video, and back again.

Each test ends with a look at what the browser complained about, and at the hosts that it asked: nothing, and only ours.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from ktls_server.kernel.probe import probe
from tests.browser.chromium import CURE, chromium, installed
from tests.browser.webm import vp8_frame, webm
from tests.files.test_listing import ANY_NAMES
from tests.server.running import Server, Variant, environment
from tests.waiting import eventually

SECONDS, WIDTH, HEIGHT, PADDING = 40, 64, 48, 1 << 20
"""40 MiB of video: more than a browser reads ahead."""

_PICTURE = """([red, width, height]) => {
    const canvas = document.createElement("canvas")
    canvas.width = width; canvas.height = height
    const context = canvas.getContext("2d")
    context.fillStyle = `rgb(${red}, 0, 0)`
    context.fillRect(0, 0, width, height)
    return canvas.toDataURL("image/webp", 0.9)
}"""
_RED_OF_VIDEO = """() => {
    const canvas = document.createElement("canvas")
    canvas.width = 1; canvas.height = 1
    const context = canvas.getContext("2d")
    context.drawImage(document.querySelector("video"), 0, 0, 1, 1)
    return context.getImageData(0, 0, 1, 1).data[0]
}"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one of everything; the video is made when there is a browser to make its pictures."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "favicon.ico").write_bytes(b"")
    (folder / "small.txt").write_text("small")
    (folder / "large.txt").write_text("large" * 10_000)
    os.utime(folder / "large.txt", (1, 1))
    (folder / "odd").mkdir()
    for name in ANY_NAMES:
        with open(os.path.join(bytes(folder / "odd"), name + b".txt"), "wb") as file:
            file.write(b"this is " + name.hex().encode())
    (folder / "pictures").mkdir()
    for color in ("teal", "coral"):
        (folder / "pictures" / f"{color}.svg").write_text(
            '<svg xmlns="http://www.w3.org/2000/svg" width="30" height="20">'
            f'<rect width="30" height="20" fill="{color}"/></svg>'
        )
    (folder / "pictures" / "index.html").write_text(
        '<!doctype html><title>Pictures</title><link rel="stylesheet" href="style.css">'
        '<h1>Pictures</h1><img src="teal.svg"><img src="coral.svg"><a href="../video.html">to the video</a>'
    )
    (folder / "pictures" / "style.css").write_text("h1 { color: rgb(1, 2, 3) }")
    (folder / "video.html").write_text('<!doctype html><title>Video</title><video src="video.webm" controls></video>')
    return folder


@pytest.fixture(scope="module")
def server(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if installed() is None:
        assert not os.environ.get("CI"), CURE
        pytest.skip(f"NOTHING IS TESTED IN A BROWSER. {CURE}")
    scratch = tmp_path_factory.mktemp("server")
    path = "kernel" if probe().available else "userspace"
    server = Server(site, scratch, Variant(path, "uvloop", ("--listing",)), environment(scratch))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def browser(server: Server, site: Path) -> Iterator[Browser]:
    # For this module only: while it runs, Playwright's event loop is this thread's.
    with chromium(server.certificate) as browser:
        page = browser.new_page()
        pictures = []
        for second in range(SECONDS):
            url: str = page.evaluate(_PICTURE, [red_at(second), WIDTH, HEIGHT])
            pictures.append(vp8_frame(base64.b64decode(url.partition(",")[2])))
        page.close()
        (site / "video.webm").write_bytes(webm(pictures, WIDTH, HEIGHT, PADDING))
        yield browser


def red_at(second: int) -> int:
    """How red the video is then."""
    return 5 + second * 6


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    """A page in a new profile, with an empty cache."""
    context = browser.new_context(base_url=server.url("/"))
    page = context.new_page()
    complaints: list[str] = []
    asked: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            complaints.append(message.text)

    page.on("console", note)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    yield page
    context.close()
    assert complaints == []
    assert asked
    assert [url for url in asked if not url.startswith(server.url("/"))] == []


def names(page: Page) -> list[str]:
    """What the listing shows, in its order."""
    return [text.strip() for text in page.locator("tbody a").all_inner_texts()]


def statuses(server: Server, path: str) -> list[object]:
    return [line["status"] for line in server.log() if line["path"] == path]


def test_the_listing_shows_what_is_there_and_leads_to_it(page: Page) -> None:
    page.goto("/")
    assert names(page) == ["odd", "pictures", "favicon.ico", "large.txt", "small.txt", "video.html", "video.webm"]
    page.get_by_text("odd").click()
    expect(page.locator("h1")).to_contain_text("odd")
    page.get_by_text("Home").click()
    page.get_by_text("small.txt").click()
    expect(page.locator("body")).to_have_text("small")


def test_the_columns_sort_the_listing(page: Page) -> None:
    page.goto("/")
    files = ["favicon.ico", "small.txt", "video.html", "large.txt", "video.webm"]
    page.get_by_role("columnheader", name="Size").get_by_role("link").click()
    assert names(page)[2:] == files
    assert page.get_by_role("columnheader", name="Size").get_attribute("aria-sort") == "ascending"
    page.get_by_role("columnheader", name="Size").get_by_role("link").click()
    assert names(page)[2:] == files[::-1]
    page.get_by_role("columnheader", name="Modified").get_by_role("link").click()
    assert names(page)[2] == "large.txt"
    page.get_by_role("columnheader", name="Name").get_by_role("link").click()
    page.get_by_role("columnheader", name="Name").get_by_role("link").click()
    assert names(page) == ["pictures", "odd", "video.webm", "video.html", "small.txt", "large.txt", "favicon.ico"]


def test_names_of_any_bytes_lead_to_their_files(page: Page) -> None:
    found = set()
    for index in range(len(ANY_NAMES)):
        page.goto("/odd/")
        links = page.locator("tbody a")
        assert links.count() == len(ANY_NAMES) + 1, "and one up"
        links.nth(index + 1).click()
        page.wait_for_url(re.compile(r"/odd/.+"))
        found.add(page.locator("body").inner_text())
    assert found == {f"this is {name.hex()}" for name in ANY_NAMES}


def test_a_page_with_pictures_comes_back_with_304s(page: Page, server: Server) -> None:
    parts = ["/pictures/", "/pictures/style.css", "/pictures/teal.svg", "/pictures/coral.svg"]

    def check() -> None:
        widths = page.locator("img").evaluate_all("images => images.map(image => image.naturalWidth)")
        assert widths == [30, 30]
        assert page.locator("h1").evaluate("title => getComputedStyle(title).color") == "rgb(1, 2, 3)"

    page.goto("/pictures/")
    check()
    page.get_by_text("to the video").click()
    page.goto("/pictures/")
    check()
    page.reload()
    check()
    for part in parts:
        eventually(lambda part=part: len(statuses(server, part)) >= 3, f"three answers for {part}")  # type: ignore[misc]
        assert statuses(server, part) == [200, 304, 304]


def test_the_listing_comes_back_with_304s(page: Page, server: Server) -> None:
    for _ in range(3):
        page.goto("/?listing-304")
        assert "small.txt" in names(page)
    eventually(lambda: len(statuses(server, "/?listing-304")) == 3, "three answers")
    assert statuses(server, "/?listing-304") == [200, 304, 304]


def test_a_video_is_sought_by_ranges(page: Page, server: Server, site: Path) -> None:
    size = (site / "video.webm").stat().st_size
    page.goto("/video.html")
    video = page.locator("video")
    for second in (0, 37, 12):
        video.evaluate(
            """(video, second) => new Promise((done, failed) => {
                video.onerror = () => failed(video.error.message)
                video.onseeked = () => done()
                video.currentTime = second
            })""",
            second + 0.5,
        )
        assert abs(page.evaluate(_RED_OF_VIDEO) - red_at(second)) < 3
    assert video.evaluate("video => video.duration") == SECONDS
    page.goto("about:blank")
    eventually(lambda: len(statuses(server, "/video.webm")) >= 3, "three answers")
    lines = [line for line in server.log() if line["path"] == "/video.webm"]
    # 304: what the browser still had of it was still right.
    assert {line["status"] for line in lines} <= {206, 304}
    asked_alone = [line for line in lines if isinstance(line["bytes"], int) and 0 < line["bytes"] < size - 36 * PADDING]
    assert asked_alone, "the last seconds were asked for by themselves"


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (375, 667)], ids=["desk", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_listing_fits_the_screen_and_the_time_of_day(
    page: Page, tmp_path: Path, scheme: str, width: int, height: int
) -> None:
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.set_viewport_size({"width": width, "height": height})
    for path in ("/", "/odd/"):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        red, green, blue = map(
            int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))
        )
        assert (red + green + blue < 200) == (scheme == "dark")
        text = map(int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).color")))
        assert (sum(text) > 500) == (scheme == "dark")
        assert page.screenshot(path=tmp_path / "listing.png")
