"""A canary beside the stable release: its share, its steps, its way back. Real nginx, OPA and service."""

from __future__ import annotations

import contextlib
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

from conftest import in_docker, in_process
from support.workspace import Ran, Workspace, wait_until

STEPS = "  steps: [10, 50]\n  probe_requests: 40"
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
    answer = requests.post(f"{workspace.url}/chaos", json=body, headers={**workspace.host_key, **headers}, timeout=10)
    assert answer.status_code == 200, answer.text


@contextmanager
def promoting(workspace: Workspace, *arguments: str) -> Iterator[Future[Ran]]:
    """A promotion to canary that runs meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(workspace.play, "promote", "-e", "mode=canary", *arguments)


def reached(workspace: Workspace, weight: int, running: Future[Ran]) -> None:
    """Wait until the canary has ``weight`` percent; a failure when the promotion ends before."""

    def there() -> bool:
        assert not running.done(), running.result().text
        return canary_weight(workspace) == weight

    wait_until(there, f"the canary to have {weight} %", 120)


def held_long(workspace: Workspace) -> None:
    """A canary that is at 10 % and, when it is gone on with, is looked at for minutes."""
    workspace.write_manifest("2.0.0", canary=STEPS, services="  healthcheck: {interval: 1s, timeout: 1s}")
    workspace.play("promote", "-e", "mode=canary", "-e", "pause_at=10").ok()
    set_window(workspace, 120)


class Looking:
    """A promotion that is gone on with, once it has looked at the canary for the first time."""

    def __init__(self, workspace: Workspace) -> None:
        words = [str(Path(sys.executable).parent / "ansible-playbook"), "promote.yml", "-e", "mode=canary"]
        extra = {"swiftdeploy_runtime": workspace.runtime, **workspace.extra}
        kept = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
        self.run = subprocess.Popen(
            [*words, "-e", "resume=true", "-e", json.dumps(extra)],
            cwd=workspace.folder,
            env={**kept, "NO_COLOR": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.text = ""

    def __enter__(self) -> Looking:
        assert self.run.stdout is not None
        for line in iter(self.run.stdout.readline, ""):
            self.text += line
            if "canary step 1/2" in line:
                return self
        raise AssertionError(self.text)

    def interrupt(self) -> None:
        """Ctrl-C until it ends, as a person would: Ansible loses one that comes while it forks."""
        for _ in range(6):
            self.run.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.run.wait(20)
                return

    def end(self) -> str:
        """All it printed, once it has ended as not done."""
        out, _err = self.run.communicate(timeout=180)
        self.text += out
        assert self.run.returncode != 0, self.text
        return self.text

    def __exit__(self, *_error: object) -> None:
        self.run.kill()
        self.run.communicate()


def set_window(workspace: Workspace, seconds: int) -> None:
    """Change the window in the manifest."""
    path = workspace.folder / "manifest.yaml"
    path.write_text(path.read_text().replace("window_seconds: 2", f"window_seconds: {seconds}"))


@in_process
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


@in_process
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


@in_process
def test_a_client_with_a_header_stays_with_its_release(deployed: Workspace) -> None:
    deployed.write_manifest("2.0.0", canary="  weight: 50\n  sticky: {header: X-User-Id}")
    deployed.play("promote", "-e", "mode=canary").ok()
    found = {user: versions(deployed, 4, {"X-User-Id": user}, workers=2) for user in map(str, range(60))}
    assert all(len(seen) == 1 for seen in found.values())
    assert 8 <= sum("2.0.0" in seen for seen in found.values()) <= 52
    assert versions(deployed, 40, workers=1) == {"1.0.0": 20, "2.0.0": 20}


@in_docker
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


@in_process
def test_a_canary_that_turns_bad_gives_everything_back(deployed: Workspace) -> None:
    deployed.write_manifest("2.0.0", canary=STEPS)
    with promoting(deployed) as running:
        reached(deployed, 50, running)
        set_chaos(deployed, TO_CANARY, mode="error", rate=0.9)
        ran = running.result().failed()
    assert "DENIED" in ran.text
    assert "error rate is" in ran.text
    assert "(v1.0.0) has all traffic again" in ran.text
    assert versions(deployed, 40) == {"1.0.0": 40}
    record = deployed.last("promote_blocked")
    assert record["weight"] == 50
    assert record["timings"]["back_s"] > 0
    assert record["policy"]["canary"]["outcome"] == "denied"
    state = host_state(deployed)
    assert state["canary"] is None
    assert state["slots"]["green" if state["live"] == "blue" else "blue"] is None
    assert "mode: stable" in (deployed.folder / "manifest.yaml").read_text()


@in_process
def test_a_plainly_broken_canary_is_not_held_for_the_whole_window(deployed: Workspace) -> None:
    held_long(deployed)
    with Looking(deployed) as looking:
        set_chaos(deployed, TO_CANARY, mode="error", rate=1)
        # A tenth of them, as nobody chooses what is evidence.
        for _ in range(400):
            requests.get(deployed.url, timeout=10)
        looking.end()
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


@in_docker
def test_a_canary_that_hangs_gives_everything_back(deployed: Workspace) -> None:
    held_long(deployed)
    with Looking(deployed) as looking:
        thaw = freeze(deployed, host_state(deployed)["canary"]["slot"])
        try:
            # It can stop only when it is not frozen any more.
            wait_until(lambda: canary_weight(deployed) == 0, "the way back", 60)
        finally:
            thaw()
        text = looking.end()
    assert "became unhealthy at 10 %" in text
    assert "The canary's last lines" in text
    assert versions(deployed, 40) == {"1.0.0": 40}
    assert deployed.last("promote_failed")["weight"] == 10


@in_process
def test_a_canary_that_has_died_meanwhile_is_not_gone_on_with(deployed: Workspace) -> None:
    rest = "  healthcheck: {interval: 1s, timeout: 1s, start_timeout: 5s}"
    deployed.write_manifest("2.0.0", canary=STEPS, services=rest)
    deployed.play("promote", "-e", "mode=canary", "-e", "pause_at=10").ok()
    thaw = freeze(deployed, host_state(deployed)["canary"]["slot"])
    try:
        with promoting(deployed, "-e", "resume=true") as running:
            wait_until(lambda: canary_weight(deployed) == 0, "the way back", 120)
            thaw()
            ran = running.result().failed()
    finally:
        thaw()
    assert "was not healthy" in ran.text
    assert "(v1.0.0) has all traffic again" in ran.text
    assert versions(deployed, 40) == {"1.0.0": 40}


@in_process
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


@in_process
def test_a_bad_day_of_the_whole_service_is_not_the_canarys_fault(deployed: Workspace) -> None:
    deployed.play("promote", "-e", "mode=canary").ok()
    deployed.write_manifest("2.0.0", mode="canary", canary="  steps: [50]\n  probe_requests: 24")
    set_window(deployed, 8)
    thresholds = deployed.folder / "policies" / "thresholds" / "data.yaml"
    shipped = thresholds.read_text()
    thresholds.write_text(shipped.replace("p99_latency_ms: {max: 8000}", "p99_latency_ms: {max: 900}"))
    try:
        with promoting(deployed) as running:
            reached(deployed, 50, running)
            for headers in (TO_STABLE, TO_CANARY):
                set_chaos(deployed, headers, mode="slow", duration=2)
            running.result().ok()
    finally:
        thresholds.write_text(shipped)
    step = deployed.last("promote_step")["policy"]["canary"]
    assert step["checked"]["p99_latency_ms"] > 900
    assert "p99_latency_ms" in step["checked"]["excused"]


@in_process
def test_ctrl_c_leaves_a_described_state_and_a_way_back(deployed: Workspace) -> None:
    held_long(deployed)
    with Looking(deployed) as looking:
        looking.interrupt()
        looking.end()
    assert canary_weight(deployed) == 10
    shown = deployed.play("status", "-e", "once=true").ok()
    assert "has 10 %" in shown.out
    assert "rollback.yml goes back" in shown.out
    back = deployed.play("rollback").ok()
    assert "Rollback successful" in back.out
    assert deployed.last("lock_broken")["reason"].startswith("the process of its holder is gone")
    assert versions(deployed, 40) == {"1.0.0": 40}


@in_process
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


@in_process
def test_a_dry_run_tells_the_steps_and_starts_nothing(deployed: Workspace) -> None:
    deployed.write_manifest("2.0.0", canary=STEPS)
    before = host_state(deployed)
    ran = deployed.play("promote", "-e", "mode=canary", "--check", "--diff").ok()
    assert "would hold 10 %, 50 % for 2" in ran.out
    assert host_state(deployed) == before
    assert versions(deployed, 8) == {"1.0.0": 8}


@in_process
def test_a_rollback_goes_to_any_kept_release(deployed: Workspace) -> None:
    for version in ("3.1.0", "3.2.0"):
        deployed.write_manifest(version)
        deployed.play("deploy").ok()
    kept = {entry["version"]: entry["id"] for entry in host_state(deployed)["releases"]}
    ran = deployed.play("rollback", "-e", f"release={kept['1.0.0']}").ok()
    assert "Rollback successful  localhost  v1.0.0 (stable)" in ran.out
    assert deployed.last("rollback")["version"] == "1.0.0"
    assert versions(deployed, 8) == {"1.0.0": 8}
    unknown = deployed.play("rollback", "-e", "release=nonsense").failed()
    assert "keeps no release nonsense" in unknown.text
    assert kept["3.2.0"] in unknown.text
    assert versions(deployed, 8) == {"1.0.0": 8}


@in_process
def test_a_deploy_of_another_release_ends_the_canary(deployed: Workspace) -> None:
    deployed.write_manifest("2.0.0", canary="  weight: 10")
    deployed.play("promote", "-e", "mode=canary").ok()
    deployed.write_manifest("4.0.0", canary="  weight: 10")
    ran = deployed.play("deploy").ok()
    assert "ended the canary" in ran.out
    assert versions(deployed, 40) == {"4.0.0": 40}
    assert host_state(deployed)["canary"] is None
