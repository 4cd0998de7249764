"""What a person sees in a terminal: real runs of ansible-playbook in a pseudo terminal, read off its screen."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pyte
import pytest

from integration.test_callbacks import BIN, Project
from support.workspace import CACHE, Workspace

HOSTS = 10
STEPS = 30
# web1 waits for the test while the others make the run fork all the time.
PLAYBOOK = """
- hosts: all
  gather_facts: false
  strategy: free
  tasks:
    - name: Begin
      swiftdeploy_step:
        context: {event: deploy, run_id: run-1, service: app, version: "1.0.0", mode: stable}
    - name: Wait for the test
      ansible.builtin.command:
        chdir: "{{ playbook_dir }}"
        argv: [sh, -c, "touch waiting; while [ ! -e go ]; do sleep 0.05; done"]
      when: inventory_hostname == 'web1'
"""


class Terminal:
    """A program in a terminal of its own, and its screen as a person sees it."""

    def __init__(self, words: list[str], folder: Path, environment: dict[str, str], columns: int = 100) -> None:
        self.screen = pyte.HistoryScreen(columns, 40, history=100_000)
        self.raw = b""
        self._stream = pyte.ByteStream(self.screen)
        self.status: int | None = None
        # The child reads it when it begins, so it has its size before.
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            try:
                termios.tcsetwinsize(0, (40, columns))
                os.chdir(folder)
                os.execve(words[0], words, {**environment, "TERM": "xterm-256color"})
            finally:
                os._exit(127)

    def lines(self) -> list[str]:
        """Everything printed so far, from the first line on."""
        above = ["".join(cell.data for _x, cell in sorted(row.items())) for row in self.screen.history.top]
        return [line.rstrip() for line in [*above, *self.screen.display] if line.strip()]

    def until(self, condition: Callable[[list[str]], bool], seconds: float = 120) -> list[str]:
        """Feed the screen until it fulfils a condition; the lines then."""
        deadline = time.monotonic() + seconds
        while not condition(self.lines()):
            assert time.monotonic() < deadline, self.lines()
            assert self._read(), f"ended before: {self.lines()}"
        return self.lines()

    def _read(self) -> bool:
        if not select.select([self._master], [], [], 0.2)[0]:
            return True
        try:
            data = os.read(self._master, 65536)
        except OSError:
            return False
        self.raw += data
        self._stream.feed(data)
        return bool(data)

    def press(self, key: bytes) -> None:
        os.write(self._master, key)

    def end(self) -> list[str]:
        """Wait for the end; the lines then."""
        while self._read():
            pass
        self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self._master)
        return self.lines()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path)
    names = [f"web{number} ansible_connection=local" for number in range(1, HOSTS + 1)]
    (made.folder / "inventory.ini").write_text("\n".join([*names, ""]))
    return made


def start(project: Project, playbook: str) -> Terminal:
    (project.folder / "play.yml").write_text(playbook)
    words = [str(BIN / "ansible-playbook"), "play.yml", "-f", str(HOSTS)]
    return Terminal(words, project.folder, project.environment())


def test_a_line_that_comes_and_goes_leaves_nothing_behind_while_many_tasks_fork(project: Project) -> None:
    steps = "".join(
        f"    - swiftdeploy_step: {{msg: 'step {number}'}}\n      when: inventory_hostname != 'web1'\n"
        for number in range(STEPS)
    )
    terminal = start(project, PLAYBOOK + steps)

    def drawn(lines: list[str]) -> bool:
        return bool(lines) and re.fullmatch(r". {2}web1 +Wait for the test +[\d mins]+", lines[-1]) is not None

    terminal.until(drawn)
    # It stays below what the others print.
    terminal.until(lambda lines: drawn(lines) and len(lines) == (HOSTS - 1) * STEPS + 1)
    (project.folder / "go").touch()
    lines = terminal.end()
    assert terminal.status == 0, lines
    assert len(lines) == (HOSTS - 1) * STEPS
    wrong = [line for line in lines if not re.fullmatch(r"✓ web\d+ +step \d+ +[\d. mins]+", line)]
    assert wrong == []
    assert b"\x1b[?25l" not in terminal.raw


def test_ctrl_c_leaves_a_clean_terminal_and_says_what_was_interrupted(project: Project) -> None:
    terminal = start(project, PLAYBOOK)
    try:
        terminal.until(lambda lines: bool(lines) and "Wait for the test" in lines[-1])
        terminal.press(b"\x03")
        lines = terminal.end()
    finally:
        (project.folder / "go").touch()
    assert terminal.status != 0
    assert not terminal.screen.cursor.hidden
    assert terminal.screen.cursor.x == 0
    assert not [line for line in lines if "Wait for the test" in line]
    assert "INTERRUPTED  web1  in the middle of deploy" in lines
    assert lines[-1].startswith("  next: run the same command again")
    assert not [line for line in lines if "Traceback" in line]


def test_it_can_be_turned_off(project: Project) -> None:
    (project.folder / "play.yml").write_text(PLAYBOOK)
    (project.folder / "go").touch()
    environment = project.environment(SWIFTDEPLOY_PROGRESS="false", NO_COLOR="1")
    terminal = Terminal([str(BIN / "ansible-playbook"), "play.yml"], project.folder, environment)
    assert terminal.end() == []
    assert b"\x1b" not in terminal.raw


def test_a_deploy_in_a_terminal(make_workspace: Callable[[str], Workspace]) -> None:
    workspace = make_workspace("process")
    extra = {"swiftdeploy_runtime": "process", "parts_cache_dir": str(CACHE / "parts"), **workspace.extra}

    def deploy() -> list[str]:
        words = [str(BIN / "ansible-playbook"), "deploy.yml", "-e", json.dumps(extra)]
        kept = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
        terminal = Terminal(words, workspace.folder, {**kept, "LC_ALL": "C.UTF-8"}, columns=90)
        lines = terminal.end()
        assert max(map(len, lines)) <= 90
        return lines

    *steps, summary, look = deploy()
    assert re.fullmatch(r"Deployment successful  localhost  v1\.0\.0 \(stable\)  [\d. mins]+", summary), steps
    assert look == f"  look: http://localhost:{workspace.port}/  next: ansible-playbook status.yml"
    # A tick, the host, what was done, how long; a long one goes on below. Nothing of a bar is left.
    assert all(re.match(r"✓ localhost  .*  +[\d.]+ (s|min.*)$| {13}\S", line) for line in steps), steps

    workspace.write_manifest(services="  healthcheck: {path: /nope, start_timeout: 2}")
    lines = deploy()
    (cross,) = [line for line in lines if line.startswith("✗")]
    assert re.fullmatch(r"✗ localhost  Start the release and wait until it is healthy +[\d. mins]+", cross)
    after = lines[lines.index(cross) + 1 :]
    assert after[0].startswith("FAILED  localhost  green was not healthy after")
    assert len([line for line in lines if "FAILED" in line]) == 1
    # What to do is said where it is known, in place of a general advice.
    assert "nothing is at /nope: set services.healthcheck.path" in " ".join(" ".join(after).split()), after

    workspace.write_manifest(services="  healthcheck: {path: /nope, start_timeout: soon}")
    cross, reason, *_more, advice = deploy()
    assert cross.startswith("✗ localhost  Load the manifest")
    assert reason.startswith("FAILED  localhost  manifest.yaml:")
    assert advice.startswith("  next: correct it; ansible-playbook validate.yml")
