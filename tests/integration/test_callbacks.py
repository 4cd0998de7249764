"""History, display and audit in real ansible-playbook runs, in a folder of their own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.workspace import wait_until
from swiftdeploy import history

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent

CONFIG = f"""
[defaults]
inventory = inventory.ini
roles_path = {ROOT}/roles
library = {ROOT}/library:library
module_utils = {ROOT}/module_utils
action_plugins = {ROOT}/action_plugins
callback_plugins = {ROOT}/callback_plugins
stdout_callback = swiftdeploy
callbacks_enabled = swiftdeploy_history
interpreter_python = {sys.executable}
localhost_warning = false
nocows = true
"""
# Nothing listens on the discard port.
INVENTORY = """
[up]
web1 ansible_connection=local
web2 ansible_connection=local
web3 ansible_connection=local
[down]
lost ansible_host=127.0.0.1 ansible_port=9 ansible_connection=ssh
"""
CRASHING_MODULE = """#!/usr/bin/python
from ansible.module_utils.basic import AnsibleModule
AnsibleModule(argument_spec={})
raise RuntimeError("boom")
"""
WARNING_MODULE = """#!/usr/bin/python
from ansible.module_utils.basic import AnsibleModule
module = AnsibleModule(argument_spec={}, supports_check_mode=True)
module.warn("be careful")
module.deprecate("this is the old way", version="99.0", collection_name="ansible.builtin")
module.exit_json(changed=False)
"""
RECORD = """
- hosts: "{{ target | default('web1') }}"
  gather_facts: false
  tasks:
    - name: Say that OPA is ready
      swiftdeploy_step:
        msg: OPA ready
    - name: Record the deploy
      ansible.builtin.include_role:
        name: record
      vars:
        record_event: deploy
        record_run_id: "{{ run_id | default('run-1') }}"
        record_fields: {service: app, version: "1.0.0", mode: stable, duration_s: 4.12, error_rate: 0.0, note: extra}
        record_summary: "Deployment successful  {{ inventory_hostname }}  v1.0.0 (stable)  4.1 s"
"""

AUDIT = """
- hosts: localhost
  connection: local
  gather_facts: false
  roles:
    - role: audit
"""


@dataclass
class Run:
    """How an ansible run ended and what it printed, both streams."""

    status: int
    out: str

    def lines(self) -> list[str]:
        return self.out.splitlines()


class Project:
    """A folder with a configuration, an inventory and playbooks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.history = folder / "history.jsonl"
        (folder / "ansible.cfg").write_text(CONFIG)
        (folder / "inventory.ini").write_text(INVENTORY)
        (folder / "library").mkdir()
        (folder / "library" / "crash.py").write_text(CRASHING_MODULE)
        (folder / "library" / "careful.py").write_text(WARNING_MODULE)

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "SWIFTDEPLOY_"))}
        return {
            **kept,
            "ANSIBLE_CONFIG": str(self.folder / "ansible.cfg"),
            "ANSIBLE_LOCAL_TEMP": str(self.folder / ".tmp"),
            "LC_ALL": "C.UTF-8",
            **more,
        }

    def start(self, playbook: str, *options: str, **environment: str) -> subprocess.Popen[str]:
        path = self.folder / "play.yml"
        path.write_text(playbook)
        return subprocess.Popen(
            [str(BIN / "ansible-playbook"), str(path), *options],
            cwd=self.folder,
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def play(self, playbook: str, *options: str, **environment: str) -> Run:
        process = self.start(playbook, *options, **environment)
        out, _none = process.communicate(timeout=120)
        assert "Traceback" not in out, out
        assert "Callback dispatch" not in out, out
        return Run(process.returncode, out)

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.history.read_text().splitlines()]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def plays(tasks: str, hosts: str = "web1") -> str:
    indented = "\n".join(f"    {line}" for line in tasks.strip().splitlines())
    return f"- hosts: {hosts}\n  gather_facts: false\n  tasks:\n{indented}\n"


# --------------------------------------------------------------------------------------------- recording


def test_a_run_is_recorded_and_shown_in_two_lines(project: Project) -> None:
    run = project.play(RECORD)
    assert run.status == 0
    step, summary = run.lines()
    assert step.split() == ["✓", "web1", "OPA", "ready", step.split()[-2], "s"]
    assert summary == "Deployment successful  web1  v1.0.0 (stable)  4.1 s"
    (record,) = project.records()
    expected = {
        "event": "deploy",
        "run_id": "run-1",
        "host": "web1",
        "service": "app",
        "version": "1.0.0",
        "mode": "stable",
        "duration_s": 4.12,
        "error_rate": 0.0,
        "note": "extra",
        "reason": None,
    }
    assert {key: record[key] for key in expected} == expected
    assert "@" in record["actor"]
    assert not {"summary", "check", "history_path"} & set(record)
    assert history.verify(project.history).ok


def test_every_host_of_a_play_gets_its_record(project: Project) -> None:
    assert project.play(RECORD, "-e", "target=up").status == 0
    assert sorted(record["host"] for record in project.records()) == ["web1", "web2", "web3"]
    assert history.verify(project.history).ok


def test_check_mode_records_nothing(project: Project) -> None:
    run = project.play(RECORD, "--check")
    assert run.status == 0
    assert run.lines()[-1] == "check mode: nothing was changed"
    assert not project.history.exists()


def test_verbose_is_ansibles_own_output_with_the_summary_added(project: Project) -> None:
    run = project.play(RECORD, "-v")
    assert run.status == 0
    assert "TASK [Say that OPA is ready]" in run.out
    assert "PLAY RECAP" in run.out
    assert run.lines()[-1] == "Deployment successful  web1  v1.0.0 (stable)  4.1 s"
    assert "✓" not in run.out


@pytest.mark.parametrize("wrong", ["/nonexistent/history.jsonl", "{folder}", "{folder}/ansible.cfg", "/dev/full"])
def test_a_run_whose_record_cannot_be_written_fails_and_says_why(project: Project, wrong: str) -> None:
    path = wrong.format(folder=project.folder)
    config = (project.folder / "ansible.cfg").read_bytes()
    run = project.play(RECORD, SWIFTDEPLOY_HISTORY=path)
    assert run.status != 0
    assert f"the deploy itself went through, but its record could not be written: cannot write the history {path}" in (
        run.out
    )
    assert run.lines()[-1].startswith("FAILED  web1")
    assert "Deployment successful" not in run.out
    assert (project.folder / "ansible.cfg").read_bytes() == config


def test_a_run_without_the_history_callback_fails(project: Project) -> None:
    run = project.play(RECORD, ANSIBLE_CALLBACKS_ENABLED="timer")
    assert run.status != 0
    assert "See that the callback swiftdeploy_history is enabled" in run.out
    assert not project.history.exists()


def test_the_history_can_be_elsewhere_by_setting_environment_or_role(project: Project) -> None:
    with (project.folder / "ansible.cfg").open("a") as config:
        config.write("[swiftdeploy]\nhistory = by-setting.jsonl\n")
    assert project.play(RECORD).status == 0
    assert project.play(RECORD, SWIFTDEPLOY_HISTORY="by-environment.jsonl").status == 0
    assert project.play(RECORD, "-e", f"record_history_path={project.folder}/by-role.jsonl").status == 0
    for name in ("by-setting", "by-environment", "by-role"):
        assert history.verify(project.folder / f"{name}.jsonl").records == 1
    assert not project.history.exists()


def test_the_history_can_be_set_for_each_host_in_the_inventory_or_for_all_with_e(project: Project) -> None:
    with (project.folder / "inventory.ini").open("a") as inventory:
        inventory.write('\n[all:vars]\nswiftdeploy_history="logs/{{ inventory_hostname }}.jsonl"\n')
    (project.folder / "logs").mkdir()
    (project.folder / "below").mkdir()
    assert project.play(RECORD, "-e", "target=web1,web2", SWIFTDEPLOY_HISTORY="by-environment.jsonl").status == 0
    assert project.play(RECORD, "-e", "swiftdeploy_history=below/h.jsonl", "-e", "run_id=run-2").status == 0
    assert [record["host"] for record in history.read(project.folder / "logs" / "web2.jsonl")] == ["web2"]
    assert history.verify(project.folder / "logs" / "web1.jsonl").records == 1
    assert history.verify(project.folder / "below" / "h.jsonl").records == 1
    audited = project.play(AUDIT, "-e", "swiftdeploy_history=below/h.jsonl")
    last = next(history.read(project.folder / "below" / "h.jsonl"))
    assert f"h.jsonl is whole: 1 record; the last line is 1 with hash {last['hash']}" in audited.out
    assert not project.history.exists()
    wrong = project.play(AUDIT, "-e", "swiftdeploy_history=none/h.jsonl")
    assert wrong.status != 0
    assert "its folder does not exist. Create it or give another path" in wrong.out


def test_the_status_shows_the_events_of_the_history_that_is_set(project: Project) -> None:
    (project.folder / "below").mkdir()
    options = ("-e", "swiftdeploy_history=below/h.jsonl")
    assert project.play(RECORD, *options).status == 0
    look = """
- name: Look at nothing
  swiftdeploy_status:
    watch: {format: text, once: true, interval: 5, forks: 5, hosts: [web1]}
"""
    assert re.search(r"last events\n.* deploy +v1\.0\.0 \(stable\)", project.play(plays(look), *options).out)
    assert "last events" not in project.play(plays(look)).out


def test_what_could_not_be_recorded_is_refused_before_it_is_begun(project: Project) -> None:
    playbook = plays("- name: Check that it can be recorded\n  swiftdeploy_history: {state: writable}")
    assert project.play(playbook).status == 0
    missing = project.play(playbook, "-e", "swiftdeploy_history=none/h.jsonl")
    assert missing.status != 0
    assert f"cannot write the history {project.folder}/none/h.jsonl: its folder does not exist" in missing.out
    assert "Nothing was changed: what cannot be recorded is not begun" in missing.out
    odd = project.play(playbook, SWIFTDEPLOY_HISTORY_MAX_SIZE="lots")
    assert odd.status != 0
    assert "is 'lots'; it must be a number of bytes, or a number with K, M or G, for example 64M" in odd.out
    assert not project.history.exists()


def test_a_file_is_closed_at_the_limit_and_closed_files_are_archived(project: Project) -> None:
    for number in range(3):
        assert project.play(RECORD, "-e", f"run_id=run-{number}", SWIFTDEPLOY_HISTORY_MAX_SIZE="100").status == 0
    closed = sorted(path.name for path in project.folder.glob("history.jsonl.0*"))
    assert closed == ["history.jsonl.000000000001-000000000001", "history.jsonl.000000000002-000000000002"]
    (project.folder / "old").mkdir()
    moved = project.play(AUDIT, "-e", "archive=old")
    assert moved.status == 0
    assert "2 closed files of history.jsonl moved to" in moved.out
    assert sorted(path.name for path in (project.folder / "old").iterdir()) == closed
    assert "it starts at line 3, the earlier ones were archived" in project.play(AUDIT).out


def test_items_retries_and_failures_with_an_event_are_recorded_once_each(project: Project) -> None:
    tasks = """
- name: Announce each
  swiftdeploy_event:
    event: chaos
    fields: {chaos: "{{ item }}"}
  loop: [slow, error]
- name: Refresh
  swiftdeploy_event:
    event: status_scrape
    fields: {service: app}
  register: refreshed
  retries: 2
  delay: 0
  until: false
  ignore_errors: true
- name: Announce and fail
  swiftdeploy_event:
    event: deploy_failed
  failed_when: true
  ignore_errors: true
"""
    run = project.play(plays(tasks))
    assert run.status == 0
    events = [record["event"] for record in project.records()]
    assert events == ["chaos", "chaos", "status_scrape", "status_scrape", "status_scrape", "deploy_failed"]
    assert history.verify(project.history).ok


def test_playbooks_at_once_keep_one_whole_chain(project: Project) -> None:
    """Three playbooks with three hosts each, all writing to one history."""
    project.play(RECORD, "-e", "target=up", "-e", "run_id=first")
    running = [project.start(RECORD, "-e", "target=up", "-e", f"run_id=run-{number}") for number in range(3)]
    outputs = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], outputs
    assert history.verify(project.history) == history.VerifyResult(ok=True, records=12)
    recorded = {(record["run_id"], record["host"]) for record in project.records()}
    assert len(recorded) == 12


def test_a_torn_line_is_set_aside_by_the_next_run(project: Project) -> None:
    project.play(RECORD)
    with project.history.open("ab") as out:
        out.write(b'{"seq":2,"timest')
    assert project.play(RECORD, "-e", "run_id=run-2").status == 0
    first, second = project.records()
    assert (project.folder / second["torn"]).read_bytes() == b'{"seq":2,"timest'
    assert second["prev"] == first["hash"]


def test_a_host_lost_in_the_middle_is_shown_and_recorded_as_failed(project: Project) -> None:
    tasks = """
- name: Begin
  swiftdeploy_step:
    context: {event: promote, run_id: run-7, service: app, version: "2.0.0", mode: canary}
- name: Reach the host
  ansible.builtin.ping:
"""
    run = project.play(plays(tasks, hosts="lost"), ANSIBLE_TIMEOUT="5")
    assert run.status != 0
    assert run.lines()[-2].startswith("UNREACHABLE  lost  ")
    assert run.lines()[-1].startswith("  next: ansible lost -m ansible.builtin.ping -vvv")
    (record,) = project.records()
    assert (record["event"], record["host"], record["run_id"]) == ("promote_failed", "lost", "run-7")
    assert record["reason"].startswith("unreachable: ")
    assert record["version"] == "2.0.0"


# --------------------------------------------------------------------------------- runs that are interrupted

# Waits in the middle of the operation until the file `go` is there.
WAITING = plays("""
- name: Begin
  swiftdeploy_step:
    msg: manifest read
    context: {event: deploy, run_id: run-7, actor: ada@control, service: app, version: "2.0.0", mode: stable}
- name: Start the release in green
  ansible.builtin.command:
    chdir: "{{ playbook_dir }}"
    argv: [sh, -c, "touch waiting; while [ ! -e go ]; do sleep 0.1; done"]
""")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["killed", "Ctrl-C"])
def test_an_interrupted_run_is_recorded_once_by_itself_or_by_the_next(project: Project, how: signal.Signals) -> None:
    process = project.start(WAITING)
    try:
        wait_until((project.folder / "waiting").exists, "the task to run", 60)
        process.send_signal(how)
        out, _none = process.communicate(timeout=60)
    finally:
        # Lets the module on the host end by itself.
        (project.folder / "go").touch()
    assert process.returncode != 0
    assert "Traceback" not in out
    assert project.history.exists() == (how == signal.SIGINT)
    again = project.play(AUDIT)
    assert again.status == 0
    told = project.play(RECORD)
    assert told.status == 0
    interrupted, recorded = project.records()
    assert (interrupted["event"], interrupted["run_id"], interrupted["host"]) == ("deploy_interrupted", "run-7", "web1")
    word = "at" if how == signal.SIGINT else "after"
    assert re.fullmatch(rf"interrupted {word} 20\S+Z while: Start the release in green", interrupted["reason"])
    assert (interrupted["actor"], interrupted["version"]) == ("ada@control", "2.0.0")
    assert recorded["event"] == "deploy"
    assert list((project.folder / "history.jsonl.open").iterdir()) == []


def test_an_operation_that_ends_without_a_word_is_recorded(project: Project) -> None:
    """A host that Ansible drops from the play because of another one."""
    playbook = plays(
        """
- name: Begin
  swiftdeploy_step:
    context: {event: deploy, run_id: run-7, service: app}
- name: Break on one host
  ansible.builtin.fail: {msg: broken}
  when: inventory_hostname == 'web1'
""",
        hosts="web1,web2",
    ).replace("gather_facts: false", "gather_facts: false\n  any_errors_fatal: true")
    assert project.play(playbook).status != 0
    assert sorted((record["event"], record["host"]) for record in project.records()) == [
        ("deploy_interrupted", "web1"),
        ("deploy_interrupted", "web2"),
    ]
    assert all("the run ended at 20" in record["reason"] for record in project.records())


def test_a_wrong_use_is_told_in_one_line(project: Project) -> None:
    tasks = """
- name: Take a field that is not theirs
  swiftdeploy_event:
    event: deploy
    fields: {seq: 5}
"""
    run = project.play(plays(tasks))
    assert run.status != 0
    assert run.lines()[-2:] == [
        "FAILED  web1  fields of 'deploy' may not hold seq: the history sets these itself",
        "  next: correct that and run the same command again; -v shows every task",
    ]
    assert not project.history.exists()


# ----------------------------------------------------------------------------------------------- display


def test_a_denied_run_shows_the_reasons_and_not_the_failure_behind_them(project: Project) -> None:
    tasks = """
- block:
    - name: Ask OPA
      ansible.builtin.fail: {msg: internal words}
  rescue:
    - name: Record the denial
      ansible.builtin.include_role:
        name: record
      vars:
        record_event: deploy_blocked
        record_summary: |
          DENIED  web1  P99 latency is 620 ms, maximum is 500 ms
          DENIED  web1  error rate is 5 %, maximum is 1 %
    - name: Stop
      ansible.builtin.fail: {msg: the deploy was blocked}
"""
    run = project.play(plays(tasks))
    assert run.status != 0
    cross, *rest = run.lines()
    assert cross.split()[:4] == ["✗", "web1", "Ask", "OPA"]
    assert rest == [
        "DENIED  web1  P99 latency is 620 ms, maximum is 500 ms",
        "DENIED  web1  error rate is 5 %, maximum is 1 %",
    ]


def test_a_failed_task_shows_what_and_why_without_paths(project: Project) -> None:
    tasks = """
- name: Skipped
  ansible.builtin.fail: {msg: never}
  when: false
- name: Ignored
  ansible.builtin.fail: {msg: not so bad}
  ignore_errors: true
- name: Start the release
  ansible.builtin.fail:
    msg: "port 8080 is taken\\nstop the program that has it"
"""
    run = project.play(plays(tasks))
    assert run.status != 0
    cross, *rest = run.lines()
    assert re.fullmatch(r"✗ web1  Start the release +[\d. mins]+", cross)
    assert rest == ["FAILED  web1  port 8080 is taken", "  stop the program that has it"]


def test_a_crashed_module_is_an_internal_error_in_one_line(project: Project) -> None:
    run = project.play(plays("- name: Ask OPA\n  crash:"))
    assert run.status != 0
    assert run.lines()[-1].startswith("FAILED  web1  internal error in Ask OPA: boom")


def test_differences_are_shown_with_diff(project: Project) -> None:
    tasks = """
- name: Render nginx
  ansible.builtin.copy:
    content: "listen 8080;\\n"
    dest: "{{ playbook_dir }}/nginx.conf"
    mode: "0644"
"""
    run = project.play(plays(tasks), "--check", "--diff")
    assert run.status == 0
    assert "± web1  Render nginx" in run.lines()
    assert "+listen 8080;" in run.lines()
    assert not (project.folder / "nginx.conf").exists()


def test_an_interrupted_run_still_shows_what_failed(project: Project) -> None:
    tasks = """
- name: Start the release
  ansible.builtin.fail: {msg: port 8080 is taken}
  when: inventory_hostname == 'web1'
- name: Go on
  swiftdeploy_step: {msg: still going}
- name: Wait
  ansible.builtin.command:
    chdir: "{{ playbook_dir }}"
    argv: [sh, -c, "touch waiting; while [ ! -e go ]; do sleep 0.1; done"]
"""
    process = project.start(plays(tasks, hosts="web1,web2"))
    assert process.stdout is not None
    try:
        assert process.stdout.readline().startswith("✗ web1  Start the release")
        assert "still going" in process.stdout.readline()
        # Python loses an interrupt that arrives while it forks; once the task runs, nothing forks any more.
        wait_until((project.folder / "waiting").exists, "the task to run", 60)
        process.send_signal(signal.SIGINT)
        rest, _none = process.communicate(timeout=60)
    finally:
        # Lets the module on the host end by itself.
        (project.folder / "go").touch()
    assert process.returncode != 0
    assert "FAILED  web1  port 8080 is taken" in rest
    assert "Traceback" not in rest


def test_output_is_printed_as_it_is(project: Project) -> None:
    run = project.play(plays('- name: Show the table\n  swiftdeploy_step:\n    output: "a  1\\n  b  2"'))
    assert run.status == 0
    assert run.lines() == ["a  1", "  b  2"]


def test_a_warning_is_shown_once_and_deprecations_with_v_alone(project: Project) -> None:
    playbook = plays("- name: Warn\n  careful:\n  loop: [1, 2]\n- name: Warn\n  careful:")
    run = project.play(playbook)
    assert run.status == 0
    assert run.out.count("[WARNING]: be careful") == 1
    assert "old way" not in run.out
    assert "old way" in project.play(playbook, "-v").out


def test_without_the_package_the_message_says_how_to_get_it(project: Project) -> None:
    broken = project.folder / "broken" / "swiftdeploy"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('not installed')\n")
    run = project.play(RECORD, PYTHONPATH=str(broken.parent))
    assert run.status != 0
    assert f"the Python package swiftdeploy is missing on {sys.executable}; run `make setup`" in run.out


def test_without_a_terminal_and_with_no_color_there_is_no_escape(project: Project) -> None:
    assert "\x1b" not in project.play(RECORD, NO_COLOR="1").out
    assert "\x1b[" in project.play(RECORD, "-e", "run_id=run-2", ANSIBLE_FORCE_COLOR="1").out


def test_listing_and_ad_hoc_still_work(project: Project) -> None:
    assert "Say that OPA is ready" in project.play(RECORD, "--list-tasks").out
    assert project.play(RECORD, "--syntax-check").status == 0
    for more in ({}, {"ANSIBLE_LOAD_CALLBACK_PLUGINS": "1"}):
        done = subprocess.run(
            [str(BIN / "ansible"), "web1", "-m", "ansible.builtin.ping", "-v"],
            cwd=project.folder,
            env=project.environment(**more),
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        assert "pong" in done.stdout


# ------------------------------------------------------------------------------------------------- audit


def test_the_audit_writes_the_report_once(project: Project) -> None:
    project.play(RECORD, "-e", "target=up")
    report = project.folder / "audit_report.md"

    preview = project.play(AUDIT, "--check", "--diff")
    assert preview.status == 0
    assert "+# Audit report" in preview.out
    assert not report.exists()

    first = project.play(AUDIT, "-v")
    assert "changed=1" in first.out
    text = report.read_bytes()
    assert b"| deploy | 3 |" in text
    assert history.verify(project.history).records == 3

    again = project.play(AUDIT, "-v")
    assert "changed=0" in again.out
    assert report.read_bytes() == text

    shown = project.play(AUDIT)
    assert "history.jsonl is whole: 3 records" in shown.out
    assert str(report) in shown.out


def test_the_audit_of_a_changed_history_writes_the_report_and_fails(project: Project) -> None:
    project.play(RECORD, "-e", "target=up")
    project.history.write_bytes(project.history.read_bytes().replace(b"1.0.0", b"1.0.1", 1))
    run = project.play(AUDIT)
    assert run.status != 0
    assert "history.jsonl is broken at line 1: hash does not fit the line" in run.out
    assert "✓" not in run.out
    assert "The history is broken at line 1" in (project.folder / "audit_report.md").read_text()


def test_the_audit_before_anything_happened_says_so(project: Project) -> None:
    run = project.play(AUDIT)
    assert run.status == 0
    assert f"no history yet at {project.history}" in run.out
    assert not (project.folder / "audit_report.md").exists()


def test_the_audit_takes_other_paths(project: Project) -> None:
    project.play(RECORD, SWIFTDEPLOY_HISTORY="elsewhere.jsonl")
    run = project.play(AUDIT, "-e", "audit_history_path=elsewhere.jsonl", "-e", "audit_report_path=other.md")
    assert run.status == 0
    assert "elsewhere.jsonl" in (project.folder / "other.md").read_text()
    bad = project.play(AUDIT, "-e", "audit_history_path=elsewhere.jsonl", "-e", "audit_report_path=none/other.md")
    assert bad.status != 0
    assert "cannot write the report" in bad.lines()[-1]


# --------------------------------------------------------------------------------------------- documents


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("module", "swiftdeploy_event"),
        ("module", "swiftdeploy_history"),
        ("module", "swiftdeploy_step"),
        ("callback", "swiftdeploy_history"),
        ("callback", "swiftdeploy_notify"),
        ("callback", "swiftdeploy"),
    ],
)
def test_the_documentation_is_shown(project: Project, kind: str, name: str) -> None:
    done = subprocess.run(
        [str(BIN / "ansible-doc"), "-t", kind, "--json", name],
        cwd=project.folder,
        env=project.environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    shown = json.loads(done.stdout)[name]
    assert shown["doc"]["short_description"]
    if kind == "module":
        assert shown["examples"].strip()
        assert set(shown["doc"]["attributes"]) == {"check_mode", "diff_mode", "idempotent"}


# ------------------------------------------------------------------------------------------ a host that lies

# Runs a module as Python does, and puts into its answer what something on the controller could act on.
LIAR = """#!{python}
import json, subprocess, sys
done = subprocess.run([{python!r}, *sys.argv[1:]], stdin=sys.stdin, capture_output=True, text=True)
answer = json.loads(done.stdout[done.stdout.index("{{"):])
forged = {{"event": "deploy", "host": "web2", "history_path": "{folder}/forged.jsonl", "summary": "forged"}}
terminal = "\\x1b]52;c;cm0gLXJmIH4=\\x07\\x1b[2Jtold\\x9b8m \\u202e" + "x" * 100000
answer.update(
    swiftdeploy_event=forged,
    swiftdeploy_context={{"event": "deploy", "host": "*"}},
    swiftdeploy_step="forged step",
    swiftdeploy_output="forged output",
    swiftdeploy_appended={{"path": "/etc/passwd", "records": [forged]}},
    swiftdeploy_watch={{"format": "text", "once": True, "interval": 5, "hosts": ["web1"], "history": "/etc/passwd"}},
    swiftdeploy_status={{}},
    add_host={{"host_name": "evil", "groups": ["evil"], "host_vars": {{"ansible_connection": "local"}}}},
    add_group="evil",
    ansible_facts={{"gate_blocked": False, "ansible_connection": "local"}},
    warnings=[terminal],
    msg=terminal,
)
print(json.dumps(answer))
"""
LIED_TO = """
- hosts: liar
  gather_facts: false
  ignore_errors: true
  tasks:
    - name: Look
      swiftdeploy_stack: {home: "{{ playbook_dir }}/home", service: app, state: log}
    - name: Measure
      swiftdeploy_metrics: {slots: [], window_seconds: 0}
    - name: Ask
      swiftdeploy_opa: {url: "http://127.0.0.1:9", queries: []}
    - name: Refresh
      swiftdeploy_files: {root: "{{ playbook_dir }}", files: []}
    - name: Tell who there is
      swiftdeploy_step:
        msg: "hosts {{ groups.all | sort | join(' ') }}, groups {{ groups | list | sort | join(' ') }}"
    - name: Look at one file
      ansible.builtin.file: {path: "{{ playbook_dir }}", state: directory}
      failed_when: true
      ignore_errors: false
"""


@pytest.mark.parametrize("options", [[], ["-v"]])
def test_a_host_that_lies_is_believed_in_nothing_but_data_of_its_own(project: Project, options: list[str]) -> None:
    liar = project.folder / "liar.py"
    liar.write_text(LIAR.format(python=sys.executable, folder=project.folder))
    liar.chmod(0o755)
    with (project.folder / "inventory.ini").open("a") as inventory:
        inventory.write(f"\n[lies]\nliar ansible_connection=local ansible_python_interpreter={liar}\n")
    run = project.play(LIED_TO, *options)
    assert run.status == 2, run.out
    assert run.out.count("told") >= (5 if options else 2), run.out
    assert not (project.folder / "forged.jsonl").exists()
    assert not project.history.exists()
    assert options or "forged" not in run.out, run.out
    assert "forged" not in [line[:6] for line in run.lines()]
    assert "hosts liar lost web1 web2 web3, groups all down lies ungrouped up" in run.out
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", run.out), run.out
    if not options:
        assert max(map(len, run.lines())) < 5000
