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
# Twice what makes evidence enough: on a busy machine some end after the refresh they were sent for.
PROBES = 40
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
    words = [
        str(Path(sys.executable).parent / "ansible-playbook"),
        "status.yml",
        "-e",
        "interval=1",
        "-e",
        f"probes={PROBES}",
    ]
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


def folded(words: str) -> str:
    """A pattern for ``words`` that are folded anywhere, as a path is, and go on behind the mark of their paragraph."""
    return r"\s*".join(re.escape(letter) for letter in words if not letter.isspace()) + r"\s*"


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


@pytest.fixture
def watched(deployed: Workspace) -> Iterator[Workspace]:
    """The deployed workspace. Nothing that a test has left behind goes on watching it."""
    yield deployed
    for number in runs_of(deployed):
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


@in_process
def test_a_person_watches(watched: Workspace) -> None:
    folder = hosts(watched)
    with watching(watched, "-i", str(folder), "--limit", f"localhost,{LATE}", columns=80, lines=24) as screen:
        screen.until(
            rf"✗  {LATE[:8]}.* no answer",
            "● live",
            folded("The module interpreter '") + "[^']+" + folded("' was not found"),
        )
        # It comes back by itself when it can answer.
        get_python(folder)
        small = screen.until(
            r"SwiftDeploy .* 2 hosts: 2 ok ",
            r"✓  localhost +blue +● live +v1\.0\.0 .*100 % +\d+\.\d +0\.00 % +(\d+ ms +)*\d+ ms\n",
            r"req/s .*[▁-█] [\d.]+  errors .*▁ 0\.00 %  P99 .*[▁-█] \d+ ms  5 min max",
            "✓ policy infrastructure allowed  ✓ policy canary allowed",
            r"last events\n.* deploy +v1\.0\.0 \(stable\)",
        )
        screen.keep("healthy-80", small)
        screen.resize(200, 50)
        large = screen.until(
            r"P50 +P95 +P99 +chaos +up +req/s 5 min +errors 5 min +P99 5 min",
            r"✓  localhost .* none +\d+ (s|min) .*[▁-█]",
        )
        screen.keep("healthy-200", large)
        assert "\x1b[" in screen.ansi()
        ended(screen)


@in_process
def test_a_program_watches(watched: Workspace) -> None:
    folder = hosts(watched)
    watched.write_manifest("3.0.0")
    limited = ("-i", str(folder), "--limit", f"localhost,{DEAD}")
    ran = watched.play("status", *limited, "-e", "once=true", "-e", "format=json", "-e", f"probes={PROBES}").failed()
    document = json.loads(ran.out)
    assert (document["schema"], document["asked"], document["answered"]) == (1, 2, 1)
    dead, live = document["hosts"]
    assert dead["unanswered"]["why"] == "ssh: connect to host 127.0.0.1 port 1: Connection refused"
    assert (live["drift"], live["state"]) == ("manifest 3.0.0, runs 1.0.0", "attention")
    (slot,) = [slot for slot in live["slots"] if slot["live"]]
    assert (slot["state"], slot["version"], slot["weight"]) == ("live", "1.0.0", 100)
    assert slot["p99_latency_ms"] > 0
    assert f"FAILED  {DEAD}  ssh: connect to host 127.0.0.1 port 1: Connection refused" in ran.err

    process = subprocess.Popen(
        command(watched, "-e", "format=json"),
        cwd=watched.folder,
        env={**os.environ, "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline()) for _refresh in range(2)]
        # Right behind a line, so that a worker may still hold what it has handed that over with.
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=tmux.PATIENCE)
    finally:
        process.kill()
    assert [(line["schema"], line["host"], line["answered"]) for line in lines] == [(1, "localhost", True)] * 2
    assert lines[0]["at"] < lines[1]["at"]
    assert all(json.loads(line) for line in rest.splitlines())
    assert (process.returncode, errors) == (0, "")

    before = len(watched.history())
    many = watched.play("status", "-i", str(folder), "--forks", "2").failed()
    assert "3 hosts are asked for" in many.out
    assert "--forks 3, or look once with -e once=true." in many.out
    assert len(watched.history()) == before


@in_process
def test_what_is_wrong_is_seen_at_once(watched: Workspace) -> None:
    watched.write_manifest("2.0.0", canary="  weight: 50")
    watched.play("promote", "-e", "mode=canary").ok()
    watched.play("chaos", "-e", "chaos=error", "-e", "rate=1").ok()
    folder = hosts(watched)
    before = len(watched.history())
    with watching(watched, "-i", str(folder), "--limit", f"localhost,{DEAD}", columns=200, lines=50) as screen:
        large = screen.until(
            r"green +◆ canary +v2\.0\.0 +canary +50 % .*error ",
            r"✗ policy canary denied: ",
            r" error rate is [\d.]+ %, maximum is 1\.00 %",
            "→ ansible-playbook rollback.yml --limit localhost  goes back",
            r"✗ no answer since [\d:]+ \(\d+ (s|min)\): ssh: connect to host 127\.0\.0\.1 port 1: .*refused",
        )
        marks = [line.split()[:2] for line in large.splitlines() if line.startswith(("✗", "✓", "!"))]
        assert marks == [["✗", "localhost"], ["✗", DEAD]]
        screen.keep("failing-200", large)
        screen.resize(80, 24)
        small = screen.until(r"req/s +errors +P99\n", r"◆ canary +v2\.0\.0 .*50 % +[\d.]+ +\d+\.\d\d % +\d+ ms\n")
        assert max(map(len, small.splitlines())) <= 80
        screen.keep("failing-80", small)
        ended(screen)
    # Nothing goes on when the terminal is closed.
    with watching(watched, columns=80, lines=24) as screen:
        screen.until("● live")
        assert runs_of(watched)
    wait_until(lambda: not runs_of(watched), "the run to end with its terminal", tmux.PATIENCE)
    records = [record for record in watched.history()[before:] if record["event"] == "status_scrape"]
    gone = [record for record in records if record["host"] == DEAD]
    assert gone
    for record in gone:
        assert record["reason"] == "no answer: ssh: connect to host 127.0.0.1 port 1: Connection refused"
        assert (record["answered"], record["error_rate"], record["req_per_sec"]) == (False, None, None)
    assert any(record.get("canary", {}).get("error_rate") for record in records)
