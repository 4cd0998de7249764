"""The HTML report in a real Chromium, and audit.yml that makes it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from support import browser as support
from support import example_history
from support.workspace import REPOSITORY, Ran, Workspace
from swiftdeploy import history, report

FOREIGN = "<img src=https://example.com/x.png onerror=alert(1)>" + "x" * 300


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with support.chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A week's history, and one in which a line was changed; with pages made of both."""
    place = tmp_path_factory.mktemp("report")
    example_history.write(place / "history.jsonl", minutes=240)
    (place / "whole.html").write_text(report.make(place / "history.jsonl").html)
    lines = (place / "history.jsonl").read_bytes().splitlines(keepends=True)
    lines[40] = lines[40].replace(b'"host":"web', b'"host":"wet', 1)
    (place / "broken.jsonl").write_bytes(b"".join(lines))
    short = place / "short.jsonl"
    for event in ("deploy", "status_scrape", "promote_blocked"):
        history.append(short, {"event": event, "host": "web1", "service": "shop", "p99_latency_ms": 20.0})
    (place / "short.html").write_text(report.make(short).html)
    short.write_bytes(short.read_bytes().replace(b"shop", b"ship", 1))
    (place / "broken.html").write_text(report.make(short).html)
    return place


def audit(folder: Path, *arguments: str) -> Ran:
    """Run audit.yml as a person would, from a folder of its own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    command = [str(Path(sys.executable).parent / "ansible-playbook"), str(REPOSITORY / "audit.yml"), *arguments]
    return Ran(
        subprocess.run(
            command,
            cwd=folder,
            env={**kept, "NO_COLOR": "1", "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg")},
            capture_output=True,
            text=True,
            timeout=120,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    )


# ------------------------------------------------------------------------------------------ in a browser


@pytest.mark.parametrize("look", ["light", "dark", "narrow", "print"])
@pytest.mark.parametrize("page", ["whole", "broken"])
def test_the_page_is_accessible_quiet_and_fits(chromium: Browser, folder: Path, page: str, look: str) -> None:
    path = folder / f"{page}.html"
    with support.shown(chromium, path, look) as seen:
        assert seen.overflow() <= 0
        assert seen.violations() == []
        assert seen.console == []
        assert seen.requests == [path.as_uri()]
        banner = seen.page.locator(".verdict")
        assert ("broken at line 1:" if page == "broken" else "whole") in banner.inner_text()
        assert banner.bounding_box()["y"] < 400  # type: ignore[index]


def test_in_print_nothing_is_cut(chromium: Browser, folder: Path) -> None:
    with support.shown(chromium, folder / "whole.html", "print") as seen:
        cut = """boxes => boxes.filter(box =>
                box.scrollHeight > box.clientHeight + 1 || box.scrollWidth > box.clientWidth + 1
            ).map(box => box.getAttribute('aria-labelledby'))"""
        assert seen.page.locator(".wide").evaluate_all(cut) == []


def test_on_a_phone_the_last_hash_is_whole(chromium: Browser, folder: Path) -> None:
    with support.shown(chromium, folder / "whole.html", "narrow") as seen:
        box = seen.page.locator("section.summary .table").first
        assert re.search(r", hash [0-9a-f]{64}", box.inner_text())
        assert box.evaluate("box => box.scrollWidth - box.clientWidth") <= 0


def test_long_tables_and_charts_are_scrolled_with_the_keyboard(chromium: Browser, folder: Path) -> None:
    with support.shown(chromium, folder / "whole.html", "narrow") as seen:
        for name, direction in (("timeline", "ArrowDown"), ("metrics-over-time", "ArrowRight")):
            box = seen.page.locator(f"section.{name} .wide").first
            box.focus()
            seen.page.keyboard.press(direction)
            moved = "box => box.scrollLeft + box.scrollTop > 0"
            seen.page.wait_for_function(moved, arg=box.element_handle())


def test_the_chart_takes_the_colours_of_the_scheme(chromium: Browser, folder: Path) -> None:
    def colour(look: str) -> str:
        with support.shown(chromium, folder / "whole.html", look) as seen:
            lines = seen.page.locator("svg path[stroke='var(--line)']")
            return str(lines.first.evaluate("line => getComputedStyle(line).stroke"))

    assert colour("light") == "rgb(10, 94, 194)"
    assert colour("dark") == "rgb(108, 176, 255)"


def test_what_a_record_brings_makes_no_page_of_its_own(chromium: Browser, tmp_path: Path) -> None:
    audit = report.Audit()
    answer = {"outcome": "denied", "reasons": [FOREIGN], "checked": {FOREIGN: FOREIGN}, "decision_id": FOREIGN}
    for event in ("deploy", "promote", "status_scrape", "chaos", "deploy_interrupted"):
        audit.add(
            {"event": event, "timestamp": "2026-11-02T09:00:00Z", "p99_latency_ms": 20.0, "policy": {FOREIGN: answer}}
            | dict.fromkeys(("host", "service", "version", "mode", "release", "actor", "reason", "chaos"), FOREIGN)
        )
    said = report.document.make(audit, report.VerifyResult(True, 5), FOREIGN)
    path = tmp_path / "page.html"
    path.write_text(report.html.render(said, report.charts.draw(audit)))
    with support.shown(chromium, path, "narrow") as seen:
        assert (seen.overflow(), seen.console, seen.requests) == (0, [], [path.as_uri()])
        assert seen.page.locator("img").count() == 0


def test_a_fault_put_in_on_purpose_is_found(chromium: Browser, folder: Path) -> None:
    page = (folder / "short.html").read_text()
    path = folder / "faulty.html"
    path.write_text(page.replace("--soft: #57606a", "--soft: #c9ced4").replace('<html lang="en">', "<html>"))
    with support.shown(chromium, path, "light") as seen:
        # The style is no longer the one that the policy knows; without it there are no colours to judge.
        assert any("style" in line for line in seen.console)
        assert "html-has-lang" in [one["id"] for one in seen.violations()]
    path.write_text(path.read_text().replace('http-equiv="Content-Security-Policy"', 'name="none"'))
    with support.shown(chromium, path, "light") as seen:
        assert "color-contrast" in [one["id"] for one in seen.violations()]


def test_a_request_put_in_on_purpose_is_stopped_and_without_the_policy_seen(chromium: Browser, folder: Path) -> None:
    page = (folder / "short.html").read_text()
    path = folder / "asking.html"
    path.write_text(page.replace("</main>", '<img src="http://127.0.0.1:9/x.png" alt="x"></main>'))
    with support.shown(chromium, path, "light") as seen:
        assert any("Content Security Policy" in line for line in seen.console)
    path.write_text(path.read_text().replace('http-equiv="Content-Security-Policy"', 'name="none"'))
    with support.shown(chromium, path, "light") as seen:
        assert seen.requests == [path.as_uri(), "http://127.0.0.1:9/x.png"]


def test_a_page_that_is_too_wide_is_found(chromium: Browser, folder: Path) -> None:
    path = folder / "wide.html"
    path.write_text((folder / "short.html").read_text().replace('"Content-Security-Policy"', '"none"').replace(
        "</main>", '<p style="width: 500px; max-width: none">wide</p></main>'
    ))  # fmt: skip
    with support.shown(chromium, path, "narrow") as seen:
        assert seen.overflow() > 0


def test_pictures_can_be_made(chromium: Browser, folder: Path, tmp_path: Path) -> None:
    """They are kept in the folder that SWIFTDEPLOY_PICTURES names, for the README."""
    place = Path(os.environ.get("SWIFTDEPLOY_PICTURES") or tmp_path)
    made = support.pictures(chromium, folder / "whole.html", place)
    assert [one.name for one in made] == ["light.png", "dark.png", "narrow.png"]
    assert all(5_000 < one.stat().st_size < 400_000 for one in made)


# --------------------------------------------------------------------------------------------- audit.yml


def test_audit_says_the_verdict_the_filter_and_both_paths(folder: Path) -> None:
    preview = audit(folder, "--check", "--diff", "-e", "host=web1").ok()
    assert "+# Audit report" in preview.text
    assert "<html" not in preview.text
    assert "audit_report.html: new" in preview.text
    assert not (folder / "audit_report.html").exists()

    shown = audit(folder, "-e", "since=2026-11-10", "-e", "until=2026-11-12", "-e", "host=web?").ok().text
    lines = [line for line in shown.splitlines() if line.startswith("✓")]
    assert "history.jsonl is whole" in lines[0]
    assert "since 2026-11-10 00:00:00, until 2026-11-12 23:59:59, host web?: shows" in lines[1]
    assert str(folder / "audit_report.md") in lines[2]
    assert str(folder / "audit_report.html") in lines[3]
    choice = report.choose("2026-11-10", "2026-11-12", "web?")
    expected = report.make(folder / "history.jsonl", choice)
    assert (folder / "audit_report.md").read_text() == expected.markdown
    assert (folder / "audit_report.html").read_text() == expected.html


def test_audit_of_a_changed_history_names_the_line_and_writes_both(folder: Path) -> None:
    options = ("-e", "audit_history_path=broken.jsonl", "-e", "audit_report_path=b.md", "-e", "audit_html_path=c.html")
    text = audit(folder, *options).failed().text
    assert "broken.jsonl is broken at line 41" in text
    assert "broken at line 41" in (folder / "b.md").read_text()
    assert "broken at line 41" in (folder / "c.html").read_text()


def test_a_wrong_filter_is_one_sentence(folder: Path) -> None:
    text = audit(folder, "-e", "since=yesterday").failed().text
    assert "since is 'yesterday'; give a date (2026-11-20)" in text
    same = audit(folder, "-e", "audit_report_path=x.html", "-e", "audit_html_path=x.html").failed().text
    assert "cannot both be" in same


# ------------------------------------------------------------------------------------------------ commit


def test_a_deploy_records_the_commit_that_it_was_started_from(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "repository", "process")
    git = ["git", "-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-C", str(workspace.folder)]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "one"]):
        subprocess.run([*git, *words], check=True, capture_output=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    # Ends before anything is started, and is recorded as any other.
    workspace.play("deploy", "-e", "operation_policies_dir=/nowhere").failed()
    (commit,) = [record["commit"] for record in workspace.history()]
    assert (commit["id"], commit["dirty"]) == (head, False)
    assert commit["time"].endswith("Z")
    # A rollback brings nothing new.
    workspace.play("rollback").failed()
    assert "commit" not in workspace.last("rollback_failed")
