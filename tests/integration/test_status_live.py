"""status.yml in a real terminal: what a person sees of a healthy host, a failing canary and a host that is gone."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support import tmux
from support.workspace import CACHE, Workspace, wait_until

# What is the same in both runtimes is tried in one.
in_process = pytest.mark.parametrize("shared_workspace", [pytest.param("process", id="process")], indirect=True)
DEAD = "dead.example.org"
LATE = "late.example.org"
HOSTS = f"""
all:
  vars:
    ansible_connection: local
    ansible_python_interpreter: "{{{{ ansible_playbook_python }}}}"
  hosts:
    localhost:
    {DEAD}:
      ansible_connection: ssh
      ansible_host: 127.0.0.1
      ansible_port: 1
    {LATE}:
      ansible_python_interpreter: "{{{{ inventory_dir }}}}/python"
"""


def hosts(workspace: Workspace) -> Path:
    """An inventory of this machine, one that cannot be reached, and one that has no Python yet."""
    folder = workspace.folder / "inventory" / "three"
    folder.mkdir(exist_ok=True)
    (folder / "hosts.yml").write_text(HOSTS)
    variables = (workspace.folder / "inventory" / "local" / "group_vars" / "all.yml").read_text()
    (folder / "group_vars").mkdir(exist_ok=True)
    (folder / "group_vars" / "all.yml").write_text(variables)
    (folder / "python").unlink(missing_ok=True)
    return folder


def get_python(folder: Path) -> None:
    """Give the late host its Python."""
    (folder / ".python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (folder / ".python").chmod(0o755)
    (folder / ".python").rename(folder / "python")


def command(workspace: Workspace, *arguments: str) -> list[str]:
    extra = {"swiftdeploy_runtime": workspace.runtime, "parts_cache_dir": str(CACHE / "parts"), **workspace.extra}
    words = [str(Path(sys.executable).parent / "ansible-playbook"), "status.yml", "-e", "interval=1", "-e", "probes=20"]
    return [*words, "-e", json.dumps(extra), *arguments]


def runs_of(workspace: Workspace) -> list[int]:
    """The processes of Ansible that watch in this workspace."""
    found = []
    for entry in filter(lambda one: one.name.isdigit(), Path("/proc").iterdir()):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if b"status.yml" in words and (entry / "cwd").resolve() == workspace.folder.resolve():
                found.append(int(entry.name))
    return found


def environment() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PYTHONPATH", "ANSIBLE_HOME") if name in os.environ}


@contextmanager
def watching(workspace: Workspace, *arguments: str, columns: int, lines: int) -> Iterator[tmux.Session]:
    words = command(workspace, *arguments)
    with tmux.session(workspace.folder, words, environment(), columns, lines) as screen:
        yield screen


def ended(screen: tmux.Session) -> str:
    """Ctrl-C, and what is on the screen then: a shell that can be used, the last frame, how to go on."""
    assert screen.state() == (False, True)
    screen.keys("C-c")
    text = screen.until(rf"{tmux.ENDED} \d+")
    assert f"{tmux.ENDED} 0" in text, text
    assert screen.state() == (True, False)
    assert "Traceback" not in text
    assert "interrupted" not in text
    flat = text.replace("\n", "")
    assert re.search(r"Ended after \d+ refreshe?s? of \d+ hosts?, \d+ answers?; ", flat), text
    assert "go on: ansible-playbook status.yml  what happened: ansible-playbook audit.yml" in flat
    assert "● live" in text
    return text


@in_process
def test_a_person_and_a_program_watch(deployed: Workspace) -> None:
    folder = hosts(deployed)
    with watching(deployed, "-i", str(folder), "--limit", f"localhost,{LATE}", columns=80, lines=24) as screen:
        text = screen.until(rf"✗  {LATE[:8]}.* no answer.*● live")
        # A path is broken where the line ends, whatever its length.
        flat = re.sub(r"\s+", "", text)
        assert re.search(r"Themoduleinterpreter'[^']*/python'wasnotfound", flat), text
        # It comes back by itself when it can answer.
        get_python(folder)
        screen.until(r"SwiftDeploy .* 2 hosts: 2 ok ")
        small = screen.keep("healthy-80")
        assert re.search(
            r"✓  localhost +blue +● live +v1\.0\.0 .*100 % +\d+\.\d +0\.00 % +(\d+ ms +)*\d+ ms\n", small
        ), small
        assert re.search(r"req/s .*[▁-█] [\d.]+  errors .*▁ 0\.00 %  P99 .*[▁-█] \d+ ms  5 min max", small)
        assert "✓ policy infrastructure allowed  ✓ policy canary allowed" in small
        assert re.search(r"last events\n.* deploy +v1\.0\.0 \(stable\)", small)
        screen.resize(200, 50)
        screen.until(r"P50 +P95 +P99 +chaos +up +req/s 5 min +errors 5 min +P99 5 min")
        large = screen.keep("healthy-200")
        assert re.search(r"✓  localhost .* none +\d+ (s|min) .*[▁-█]", large), large
        assert "\x1b[" in screen.ansi()
        ended(screen)

    deployed.write_manifest("3.0.0")
    limited = ("-i", str(folder), "--limit", f"localhost,{DEAD}")
    ran = deployed.play("status", *limited, "-e", "once=true", "-e", "format=json").failed()
    document = json.loads(ran.out)
    assert (document["schema"], document["asked"], document["answered"]) == (1, 2, 1)
    dead, live = document["hosts"]
    assert dead["unanswered"]["why"] == "ssh: connect to host 127.0.0.1 port 1: Connection refused"
    assert (live["drift"], live["state"]) == ("manifest 3.0.0, runs 1.0.0", "attention")
    (slot,) = [slot for slot in live["slots"] if slot["live"]]
    assert (slot["state"], slot["version"], slot["weight"]) == ("live", "1.0.0", 100)
    assert slot["p99_latency_ms"] > 0
    assert f"FAILED  {DEAD}  ssh: connect to host 127.0.0.1 port 1: Connection refused" in ran.err

    with subprocess.Popen(
        command(deployed, "-e", "format=json"),
        cwd=deployed.folder,
        env={**os.environ, "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline()) for _refresh in range(2)]
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert [(line["schema"], line["host"], line["answered"]) for line in lines] == [(1, "localhost", True)] * 2
    assert lines[0]["at"] < lines[1]["at"]
    assert all(json.loads(line) for line in rest.splitlines())
    assert (process.returncode, errors) == (0, "")

    before = len(deployed.history())
    many = deployed.play("status", "-i", str(folder), "--forks", "2").failed()
    assert "3 hosts are asked for" in many.out
    assert "--forks 3, or look once with -e once=true." in many.out
    assert len(deployed.history()) == before


@in_process
def test_what_is_wrong_is_seen_at_once(deployed: Workspace) -> None:
    deployed.write_manifest("2.0.0", canary="  weight: 50")
    deployed.play("promote", "-e", "mode=canary").ok()
    deployed.play("chaos", "-e", "chaos=error", "-e", "rate=1").ok()
    folder = hosts(deployed)
    before = len(deployed.history())
    with watching(deployed, "-i", str(folder), "--limit", f"localhost,{DEAD}", columns=200, lines=50) as screen:
        screen.until(r"policy canary denied.*no answer since")
        large = screen.keep("failing-200")
        marks = [line.split()[:2] for line in large.splitlines() if line.startswith(("✗", "✓", "!"))]
        assert marks == [["✗", "localhost"], ["✗", DEAD]]
        assert re.search(r"green +◆ canary +v2\.0\.0 +canary +50 % .*error ", large)
        assert re.search(r"✗ policy canary denied: .*error rate is [\d.]+ %, maximum is 1\.00 %", large)
        assert "→ ansible-playbook rollback.yml --limit localhost  goes back" in large
        assert re.search(
            r"✗ no answer since [\d:]+ \(\d+ (s|min)\): ssh: connect to host 127\.0\.0\.1 port 1: .*refused", large
        )
        screen.resize(80, 24)
        screen.until(r"req/s +errors +P99\n")
        small = screen.keep("failing-80")
        assert max(map(len, small.splitlines())) <= 80
        assert re.search(r"◆ canary +v2\.0\.0 .*50 % +[\d.]+ +\d+\.\d\d % +\d+ ms\n", small), small
        ended(screen)
    # Nothing goes on when the terminal is closed.
    with watching(deployed, columns=80, lines=24) as screen:
        screen.until("● live")
        assert runs_of(deployed)
    wait_until(lambda: not runs_of(deployed), "the run to end with its terminal", tmux.PATIENCE)
    records = [record for record in deployed.history()[before:] if record["event"] == "status_scrape"]
    gone = [record for record in records if record["host"] == DEAD]
    assert gone
    for record in gone:
        assert record["reason"] == "no answer: ssh: connect to host 127.0.0.1 port 1: Connection refused"
        assert (record["answered"], record["error_rate"], record["req_per_sec"]) == (False, None, None)
    assert any(record.get("canary", {}).get("error_rate") for record in records)
