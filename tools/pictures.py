"""The README's pictures, from the real thing: docs/pictures/status.svg and docs/pictures/report-*.png.

Run it by `make pictures`. It deploys a service in the process runtime, gives a canary a quarter of the traffic, makes
it fail, and takes what status.yml shows in a terminal; then it writes the report of the example week and opens it in a
browser.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import requests

from support import browser, example_history, frames, tmux
from support.workspace import CACHE, REPOSITORY, Workspace
from swiftdeploy import report

PICTURES = REPOSITORY / "docs" / "pictures"
COLUMNS, LINES = 118, 26
# Clients each second, and refreshes to see before the picture is taken.
RATE = 20
REFRESHES = 25


@contextmanager
def clients(url: str) -> Iterator[None]:
    """Somebody who uses the service."""
    over = threading.Event()

    def work() -> None:
        with requests.Session() as session:
            while not over.wait(1 / RATE):
                with suppress(requests.RequestException):
                    session.get(url, timeout=5)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def terminal(workspace: Workspace) -> str:
    """What status.yml shows of a canary that fails, as ANSI."""
    extra = {"swiftdeploy_runtime": "process", "parts_cache_dir": str(CACHE / "parts")}
    words = [str(Path(sys.executable).parent / "ansible-playbook"), "status.yml", "-e", "interval=1"]
    words += ["-e", json.dumps(extra)]
    given = {name: os.environ[name] for name in ("PYTHONPATH", "ANSIBLE_HOME") if name in os.environ}
    with tmux.session(workspace.folder, words, given, COLUMNS, LINES) as screen:
        screen.until("canary allowed")
        for _refresh in range(REFRESHES):
            before = screen.text()
            tmux.wait_until(lambda before=before: screen.text() != before, "the next refresh")
        workspace.play("chaos", "-e", "chaos=error", "-e", "rate=0.3").ok()
        screen.until("canary denied")
        for _refresh in range(REFRESHES):
            before = screen.text()
            tmux.wait_until(lambda before=before: screen.text() != before, "the next refresh")
        return screen.ansi()


def dashboard(folder: Path) -> None:
    """docs/pictures/status.svg."""
    workspace = Workspace(folder, "process")
    workspace.name = "shop"
    workspace.write_manifest("1.4.0", canary="  weight: 25\n  probe_requests: 0")
    try:
        workspace.play("deploy").ok()
        with clients(workspace.url):
            workspace.write_manifest("1.5.0", canary="  weight: 25\n  probe_requests: 0")
            workspace.play("promote", "-e", "mode=canary").ok()
            picture = frames.svg(terminal(workspace), "ansible-playbook status.yml", COLUMNS)
    finally:
        workspace.clear("-e", "break_lock=true")
    # A picture asks nobody for a font.
    picture = re.sub(r"@font-face\s*{.*?}\s*", "", picture, flags=re.DOTALL)
    (PICTURES / "status.svg").write_text(picture)


def page(folder: Path) -> None:
    """docs/pictures/report-light.png and so on."""
    history = folder / "history.jsonl"
    example_history.write(history)
    path = folder / "audit_report.html"
    path.write_text(report.make(history).html)
    with browser.chromium() as running:
        for made in browser.pictures(running, path, folder / "pictures"):
            made.rename(PICTURES / f"report-{made.name}")
        for look in ("light", "dark"):
            with browser.shown(running, path, look) as seen:
                seen.page.locator("figure").first.screenshot(path=PICTURES / f"charts-{look}.png")


if __name__ == "__main__":
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        dashboard(Path(temporary) / "clone")
        page(Path(temporary))
    for made in sorted(PICTURES.iterdir()):
        print(f"{made.relative_to(REPOSITORY)}  {made.stat().st_size // 1024} KB")
