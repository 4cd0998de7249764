"""What a promotion rests on, from the measurement to the report, on a deployed stack."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

from conftest import in_docker
from support.workspace import Workspace

# Long enough that a sample is still of use when a busy machine has started a playbook.
WINDOW = 30.0


def samples(workspace: Workspace) -> Path:
    return workspace.folder / ".swiftdeploy" / workspace.name / "samples.json"


def set_window(workspace: Workspace, before: float, after: float) -> None:
    path = workspace.folder / "manifest.yaml"
    text = path.read_text()
    assert f"window_seconds: {before:g}\n" in text
    path.write_text(text.replace(f"window_seconds: {before:g}\n", f"window_seconds: {after:g}\n"))


@in_docker
def test_a_busy_service_is_promoted_on_the_past_window(deployed: Workspace) -> None:
    """With users on it and somebody at the status, a promotion waits for nothing."""
    set_window(deployed, 2, WINDOW)
    samples(deployed).unlink(missing_ok=True)
    end = threading.Event()
    statuses: list[int] = []

    def use() -> None:
        while not end.wait(0.2):
            statuses.append(deployed.get().status_code)

    def look() -> None:
        while not end.is_set():
            deployed.play("status", "-e", "once=true", "-e", "probes=0").ok()

    threads = [threading.Thread(target=use), threading.Thread(target=look)]
    for thread in threads:
        thread.start()
    try:
        limit = time.monotonic() + 120
        while not samples(deployed).exists():
            assert time.monotonic() < limit, "the status has kept no sample"
            time.sleep(0.1)
        begin = json.loads(samples(deployed).read_text())["samples"][0]["at"]
        # It takes a window until the window is past.
        end.wait(begin + WINDOW - time.time())
        promoted = deployed.play("promote", "-e", "mode=canary").ok()
    finally:
        end.set()
        for thread in threads:
            thread.join()

    assert set(statuses) == {200}
    assert samples(deployed).stat().st_mode & 0o777 == 0o600
    evidence = deployed.last("promote")["evidence"]
    assert (evidence["first_sample"], evidence["probes_sent"], evidence["probe_share"]) == ("kept", 0, 0)
    assert WINDOW <= evidence["window_seconds"] <= 2 * WINDOW
    # Users alone; a request that was under way at an end may be on one side of it only.
    assert evidence["requests"] >= 20
    assert abs(evidence["requests"] - evidence["proxy_seen"]) <= 2
    # The proxy's view is of the last window alone, whatever the age of the sample.
    assert abs(evidence["proxy_window_seconds"] - WINDOW) < 0.01
    assert 20 <= evidence["proxy_requests"] <= evidence["proxy_seen"]
    assert (evidence["proxy_truncated"], evidence["views_gap"]) == (False, 0)
    words = f"{evidence['requests']} requests in {evidence['window_seconds']:.1f} s up to now, 0 of "
    assert f"measured {evidence['slot']}: {words}" in promoted.out
    deployed.play("audit").ok()
    assert words in (deployed.folder / "audit_report.md").read_text()

    # Nobody is there any more: the next gate measures, and sends probes of its own.
    set_window(deployed, WINDOW, 2)
    deployed.play("promote", "-e", "mode=canary").ok()
    evidence = deployed.last("promote")["evidence"]
    assert (evidence["first_sample"], evidence["probes_sent"], evidence["probe_share"]) == ("taken", 20, 1)
    kept = {entry["release"] for entry in json.loads(samples(deployed).read_text())["samples"]}
    assert kept == {deployed.last("promote")["release"]}
