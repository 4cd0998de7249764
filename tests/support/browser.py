"""A page in a real Chromium without a window: what it looks like, what it asks the network for, what axe-core finds.

``python tests/support/browser.py REPORT.html FOLDER`` writes light.png, dark.png and narrow.png.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

SCRIPT = Path(__file__).with_name("chromium.sh")
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
WIDE, NARROW = (1280, 900), (360, 740)
# Name of a look: colour scheme, size of the window (in print what a page of A4 has inside its margins), medium.
LOOKS: dict[str, tuple[str, tuple[int, int], str]] = {
    "light": ("light", WIDE, "screen"),
    "dark": ("dark", WIDE, "screen"),
    "narrow": ("light", NARROW, "screen"),
    "narrow-dark": ("dark", NARROW, "screen"),
    "print": ("light", (1032, 704), "print"),
}


@dataclass
class Seen:
    """What a page did while it was shown."""

    page: Page
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def violations(self) -> list[dict[str, Any]]:
        """What axe-core finds by the rules of WCAG 2.2 A and AA: id, help and the elements of each."""
        # The page allows no script, so axe is put in from outside it, as an extension would be.
        options = {"runOnly": {"type": "tag", "values": TAGS}, "resultTypes": ["violations"], "preload": False}
        found = Axe().run(self.page, options=options)
        return [
            {"id": one["id"], "help": one["help"], "where": [node["html"][:200] for node in one["nodes"][:5]]}
            for one in found.response["violations"]
        ]

    def overflow(self) -> int:
        """By how many pixels the page is wider than the window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A running Chromium. Fails where none can be had."""
    done = subprocess.run([str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with sync_playwright() as player:
        # As root, where tests run, there is no sandbox; the pages are files of ours.
        browser = player.chromium.launch(executable_path=done.stdout.strip(), args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def shown(browser: Browser, path: Path, look: str) -> Iterator[Seen]:
    """The file at ``path`` in one of the looks."""
    scheme, (width, height), medium = LOOKS[look]
    context = browser.new_context(
        color_scheme=scheme, viewport={"width": width, "height": height}, reduced_motion="reduce"
    )  # type: ignore[arg-type]
    try:
        page = context.new_page()
        seen = Seen(page)
        page.on("console", lambda message: seen.console.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: seen.console.append(f"error: {error}"))
        page.on("request", lambda request: seen.requests.append(request.url))
        page.emulate_media(media=medium)  # type: ignore[arg-type]
        page.goto(path.resolve().as_uri(), wait_until="load")
        yield seen
    finally:
        context.close()


def pictures(
    browser: Browser, path: Path, folder: Path, looks: tuple[str, ...] = ("light", "dark", "narrow")
) -> list[Path]:
    """A PNG of the top of the page in each look; small enough for a repository."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for look in looks:
        with shown(browser, path, look) as seen:
            made.append(folder / f"{look}.png")
            height = 1640 if LOOKS[look][1] == WIDE else 1400
            clip = {"x": 0, "y": 0, "width": LOOKS[look][1][0], "height": height}
            seen.page.screenshot(path=made[-1], full_page=True, clip=clip)  # type: ignore[arg-type]
    return made


if __name__ == "__main__":
    with chromium() as running:
        for picture in pictures(running, Path(sys.argv[1]), Path(sys.argv[2])):
            print(f"{picture}  {picture.stat().st_size // 1024} KB")
