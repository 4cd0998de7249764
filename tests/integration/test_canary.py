"""A canary beside the stable release: its share, its steps, its way back. Real nginx, OPA and service."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from support.workspace import Ran, Workspace, wait_until

STEPS = "  steps: [10, 50]\n  probe_requests: 40"
LONG = STEPS + "\n  window_seconds: 120"
TO_CANARY = {"X-SwiftDeploy-Slot": "canary"}
TO_STABLE = {"X-SwiftDeploy-Slot": "stable"}


def versions(workspace: Workspace, count: int, headers: dict[str, str] | None = None, workers: int = 8) -> Counter[str]:
    """How many of ``count`` requests each version answered; each must be answered well."""

    def some(number: int) -> Counter[str]:
        found: Counter[str] = Counter()
        with requests.Session() as session:
            for _ in range(number):
                answer = session.get(workspace.url, headers=headers, timeout=10)
                assert answer.status_code == 200, answer.text
                found[answer.json()["version"]] += 1
        return found

    with ThreadPoolExecutor(workers) as pool:
        return sum(pool.map(some, [count // workers] * workers), Counter())


def routing(workspace: Workspace) -> dict[str, Any]:
    """What nginx says of its own configuration."""
    found: dict[str, Any] = workspace.get("/_swiftdeploy/routing").json()
    return found


def host_state(workspace: Workspace) -> dict[str, Any]:
    """What the host remembers."""
    (path,) = workspace.folder.glob(".swiftdeploy/*/state.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def canary_weight(workspace: Workspace) -> int:
    """Percent that nginx gives the slot that is not live."""
    found = routing(workspace)
    return int(sum(weight for slot, weight in found["weights"].items() if slot != found["live"]))


def set_chaos(workspace: Workspace, headers: dict[str, str], **body: Any) -> None:
    """Inject a fault into the release that ``headers`` choose."""
    answer = requests.post(f"{workspace.url}/chaos", json=body, headers=headers, timeout=10)
    assert answer.status_code == 200, answer.text


@contextmanager
def promoting(workspace: Workspace, *arguments: str) -> Iterator[Future[Ran]]:
    """A promotion to canary that runs meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(workspace.play, "promote", "-e", "mode=canary", *arguments)


def test_a_canary_gets_its_percentage_and_then_all(deployed: Workspace) -> None:
    deployed.write_manifest("2.0.0", canary="  weight: 10")
    ran = deployed.play("promote", "-e", "mode=canary").ok()
    assert "v2.0.0 (canary) has 10 % of the traffic" in ran.out
    found = versions(deployed, 10_000)
    assert found["1.0.0"] + found["2.0.0"] == 10_000
    assert 900 <= found["2.0.0"] <= 1100
    assert versions(deployed, 40, TO_CANARY) == {"2.0.0": 40}
    assert versions(deployed, 40, TO_STABLE) == {"1.0.0": 40}
    assert deployed.last("promote")["weight"] == 10

    again = deployed.play("deploy").ok()
    assert "Nothing to change" in again.out
    assert canary_weight(deployed) == 10

    canary_slot = host_state(deployed)["canary"]["slot"]
    deployed.play("promote", "-e", "mode=stable").ok()
    assert versions(deployed, 40) == {"2.0.0": 40}
    judged = deployed.last("promote")["policy"]["canary"]["checked"]
    assert judged["slot"] == canary_slot
    assert judged["baseline_status"] == "measured"
    assert host_state(deployed)["canary"] is None


def test_a_client_with_a_cookie_stays_with_its_release(deployed: Workspace) -> None:
    sticky = STEPS + "\n  sticky: {cookie: shop_client}"
    deployed.write_manifest("2.0.0", canary=sticky)
    deployed.play("promote", "-e", "mode=canary", "-e", "pause_at=10").ok()
    clients = []
    for _ in range(300):
        first = requests.get(deployed.url, timeout=10)
        assert "HttpOnly" in first.headers["Set-Cookie"]
        clients.append((dict(first.cookies), first.json()["version"]))
    # Ten of a hundred, within six standard deviations.
    assert 0 < sum(version == "2.0.0" for _cookies, version in clients) <= 61
    for cookies, version in clients:
        answer = requests.get(deployed.url, cookies=cookies, timeout=10)
        assert answer.json()["version"] == version
        assert "Set-Cookie" not in answer.headers
    deployed.play("promote", "-e", "mode=canary", "-e", "resume=true", "-e", "pause_at=50").ok()
    later = [requests.get(deployed.url, cookies=cookies, timeout=10).json()["version"] for cookies, _ in clients]
    # Nobody goes back while the share grows.
    assert all(now == "2.0.0" for (_cookies, was), now in zip(clients, later, strict=True) if was == "2.0.0")
    assert 98 <= later.count("2.0.0") <= 202


def test_a_client_with_a_header_stays_with_its_release(deployed: Workspace) -> None:
    deployed.write_manifest("2.0.0", canary="  weight: 50\n  sticky: {header: X-User-Id}")
    deployed.play("promote", "-e", "mode=canary").ok()
    found = {user: versions(deployed, 4, {"X-User-Id": user}, workers=2) for user in map(str, range(60))}
    assert all(len(seen) == 1 for seen in found.values())
    assert 8 <= sum("2.0.0" in seen for seen in found.values()) <= 52
    assert versions(deployed, 40, workers=1) == {"1.0.0": 20, "2.0.0": 20}


def test_a_canary_walks_its_steps_with_a_decision_at_each(deployed: Workspace) -> None:
    deployed.write_manifest("2.0.0", canary=STEPS)
    before = len(deployed.history())
    ran = deployed.play("promote", "-e", "mode=canary", "-e", "pause_at=10").ok()
    assert "canary step 1/1  10 %" in ran.out
    assert "Canary paused" in ran.out
    assert canary_weight(deployed) == 10
    assert "mode: stable" in (deployed.folder / "manifest.yaml").read_text()
    shown = deployed.play("status", "-e", "once=true").ok()
    assert "has 10 %: promote.yml -e mode=canary -e resume=true goes on" in shown.out

    deployed.play("promote", "-e", "mode=canary", "-e", "resume=true").ok()
    assert versions(deployed, 40) == {"2.0.0": 40}
    assert "mode: canary" in (deployed.folder / "manifest.yaml").read_text()
    steps = [record for record in deployed.history()[before:] if record["event"] == "promote_step"]
    assert [record["weight"] for record in steps] == [10, 10, 50]
    for record in steps:
        decision = record["policy"]["canary"]
        assert decision["outcome"] == "allowed"
        assert decision["checked"]["requests"] >= 20
        assert decision["checked"]["baseline_requests"] >= 20


def test_a_canary_that_turns_bad_gives_everything_back(deployed: Workspace) -> None:
    deployed.write_manifest("2.0.0", canary=STEPS)
    with promoting(deployed) as running:
        wait_until(lambda: canary_weight(deployed) == 50, "the second step", 120)
        set_chaos(deployed, TO_CANARY, mode="error", rate=0.9)
        ran = running.result().failed()
    assert "DENIED" in ran.text
    assert "error rate is" in ran.text
    assert "(v1.0.0) has all traffic again" in ran.text
    assert versions(deployed, 40) == {"1.0.0": 40}
    record = deployed.last("promote_blocked")
    assert record["weight"] == 50
    assert record["policy"]["canary"]["outcome"] == "denied"
    state = host_state(deployed)
    assert state["canary"] is None
    assert state["slots"]["green" if state["live"] == "blue" else "blue"] is None
    assert "mode: stable" in (deployed.folder / "manifest.yaml").read_text()


def test_a_plainly_broken_canary_is_not_held_for_the_whole_window(deployed: Workspace) -> None:
    deployed.write_manifest("2.0.0", canary=LONG)
    with promoting(deployed) as running:
        wait_until(lambda: canary_weight(deployed) == 10, "the first step", 180)
        set_chaos(deployed, TO_CANARY, mode="error", rate=1)
        for _ in range(40):
            requests.get(deployed.url, headers=TO_CANARY, timeout=10)
        running.result().failed()
    checked = deployed.last("promote_blocked")["policy"]["canary"]["checked"]
    assert checked["window_seconds"] < 100


def freeze(workspace: Workspace, slot: str) -> Callable[[], None]:
    """Make the slot hang as it would in a deadlock; answers how to end that."""
    if workspace.runtime == "docker":
        name = f"swiftdeploy-{workspace.name}-{slot}"
        subprocess.run(["docker", "pause", name], check=True, capture_output=True)
        return lambda: subprocess.run(["docker", "unpause", name], check=False, capture_output=True) and None
    port = str(host_ports(workspace)[slot])
    found = [pid for pid, environment in workspace.processes().items() if environment.get("PORT") == port]
    assert found
    for pid in found:
        os.kill(pid, signal.SIGSTOP)
    return lambda: [os.kill(pid, signal.SIGCONT) for pid in found if Path(f"/proc/{pid}").exists()] and None


def host_ports(workspace: Workspace) -> dict[str, int]:
    """Ports of the slots in the process runtime."""
    return {"blue": workspace.service_port, "green": workspace.service_port + 1}


def test_a_canary_that_hangs_gives_everything_back(deployed: Workspace) -> None:
    deployed.write_manifest("2.0.0", canary=LONG, services="  healthcheck: {interval: 1s, timeout: 1s}")
    with promoting(deployed) as running:
        wait_until(lambda: canary_weight(deployed) == 10, "the first step", 180)
        thaw = freeze(deployed, host_state(deployed)["canary"]["slot"])
        try:
            # It stops only when it can: a hanging process is ended by force once its time to drain is over.
            wait_until(lambda: canary_weight(deployed) == 0, "the way back", 60)
        finally:
            thaw()
        ran = running.result().failed()
    assert "became unhealthy at 10 %" in ran.text
    assert "The canary's last lines" in ran.text
    assert versions(deployed, 40) == {"1.0.0": 40}
    assert deployed.last("promote_failed")["weight"] == 10


def test_a_canary_without_enough_evidence_waits_and_then_goes_back(deployed: Workspace) -> None:
    rest = "  steps: [10]\n  probe_requests: 20\n  min_requests: 20\n  deadline_seconds: 5"
    deployed.write_manifest("2.0.0", canary=rest)
    # The gate before the first step has evidence; the step, without probes of its own, has none.
    deployed.play("promote", "-e", "mode=canary", "-e", "pause_at=10").ok()
    deployed.write_manifest("2.0.0", canary=rest.replace("probe_requests: 20", "probe_requests: 0"))
    ran = deployed.play("promote", "-e", "mode=canary", "-e", "resume=true").failed()
    assert "waiting for evidence" in ran.out
    assert "at least 20 are needed" in ran.text
    assert "canary.deadline_seconds" in ran.text
    assert versions(deployed, 40) == {"1.0.0": 40}
    assert deployed.last("promote_blocked")["policy"]["canary"]["outcome"] == "insufficient"


def test_a_bad_day_of_the_whole_service_is_not_the_canarys_fault(deployed: Workspace) -> None:
    deployed.play("promote", "-e", "mode=canary").ok()
    rest = "  steps: [50]\n  probe_requests: 60\n  window_seconds: 8"
    deployed.write_manifest("2.0.0", mode="canary", canary=rest)
    thresholds = deployed.folder / "policies" / "thresholds" / "data.yaml"
    shipped = thresholds.read_text()
    thresholds.write_text(shipped.replace("error_rate_increase: {max: 0.01}", "error_rate_increase: {max: 0.5}"))
    try:
        with promoting(deployed) as running:
            wait_until(lambda: canary_weight(deployed) == 50, "the step", 120)
            for headers in (TO_STABLE, TO_CANARY):
                set_chaos(deployed, headers, mode="error", rate=0.2)
            running.result().ok()
    finally:
        thresholds.write_text(shipped)
    step = deployed.last("promote_step")["policy"]["canary"]
    assert step["checked"]["error_rate"] > 0.01
    assert "error_rate" in step["checked"]["excused"]


def test_ctrl_c_leaves_a_described_state_and_a_way_back(deployed: Workspace) -> None:
    deployed.write_manifest("2.0.0", canary=LONG)
    words = [str(Path(sys.executable).parent / "ansible-playbook"), "promote.yml", "-e", "mode=canary"]
    extra = {"swiftdeploy_runtime": deployed.runtime, **deployed.extra}
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    run = subprocess.Popen(
        [*words, "-e", json.dumps(extra)],
        cwd=deployed.folder,
        env=kept,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert run.stdout is not None
    try:
        wait_until(lambda: canary_weight(deployed) == 10, "the first step", 180)
        # The first look is told of: nothing forks while the window is measured.
        seen = iter(run.stdout.readline, b"")
        assert any(b"canary step 1/2" in line for line in seen)
        run.send_signal(signal.SIGINT)
        run.wait(60)
    finally:
        run.kill()
        run.stdout.close()
    assert run.returncode != 0
    assert canary_weight(deployed) == 10
    shown = deployed.play("status", "-e", "once=true").ok()
    assert "has 10 %" in shown.out
    assert "rollback.yml goes back" in shown.out
    back = deployed.play("rollback").ok()
    assert "Rollback successful" in back.out
    assert deployed.last("lock_broken")["reason"].startswith("the process of its holder is gone")
    assert versions(deployed, 40) == {"1.0.0": 40}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-e", "resume=true"], "no canary of this release to go on with"),
        (["-e", "pause_at=20"], "steps are 10, 50"),
    ],
)
def test_what_cannot_be_walked_is_refused_before_anything_starts(
    deployed: Workspace, arguments: list[str], words: str
) -> None:
    deployed.write_manifest("2.0.0", canary=STEPS)
    before = host_state(deployed)
    assert words in deployed.play("promote", "-e", "mode=canary", *arguments).failed().text
    assert host_state(deployed) == before


def test_a_dry_run_tells_the_steps_and_starts_nothing(deployed: Workspace) -> None:
    deployed.write_manifest("2.0.0", canary=STEPS)
    before = host_state(deployed)
    ran = deployed.play("promote", "-e", "mode=canary", "--check", "--diff").ok()
    assert "would hold 10 %, 50 % for 2" in ran.out
    assert host_state(deployed) == before
    assert versions(deployed, 8) == {"1.0.0": 8}


def test_a_rollback_goes_to_any_kept_release(deployed: Workspace) -> None:
    for version in ("3.1.0", "3.2.0"):
        deployed.write_manifest(version)
        deployed.play("deploy").ok()
    kept = {entry["version"]: entry["id"] for entry in host_state(deployed)["releases"]}
    ran = deployed.play("rollback", "-e", f"release={kept['1.0.0']}").ok()
    assert "v1.0.0" in ran.out
    assert versions(deployed, 8) == {"1.0.0": 8}
    unknown = deployed.play("rollback", "-e", "release=nonsense").failed()
    assert "keeps no release nonsense" in unknown.text
    assert kept["3.2.0"] in unknown.text
    assert versions(deployed, 8) == {"1.0.0": 8}


def test_a_deploy_of_another_release_ends_the_canary(deployed: Workspace) -> None:
    deployed.write_manifest("2.0.0", canary="  weight: 10")
    deployed.play("promote", "-e", "mode=canary").ok()
    deployed.write_manifest("4.0.0", canary="  weight: 10")
    ran = deployed.play("deploy").ok()
    assert "ended the canary" in ran.out
    assert versions(deployed, 40) == {"4.0.0": 40}
    assert host_state(deployed)["canary"] is None
