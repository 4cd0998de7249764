"""Runs over many hosts: with an operation that only pretends, and with two real stacks side by side."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.workspace import Ran, Workspace, free_port

# What the run is about is the order of hosts and what becomes of them; a deploy itself is tested elsewhere.
PRETENDS = """---
- name: Learn who runs this
  ansible.builtin.include_role:
    name: context
    rolespec_validate: false

- name: Load the manifest
  ansible.builtin.include_role:
    name: manifest

- name: Do as if
  block:
    - name: Pretend
      ansible.builtin.set_fact:
        stack_observed: {live: blue, state: {slots: {blue: {id: old}, green: null}}}
        rollout_plan: {release: {id: "{{ 'old' if operation_name == 'rollback' else 'new' }}"}}

    - name: Tell what was asked for
      swiftdeploy_step:
        msg: "{{ operation_name }} {{ operation_release }}"

    - name: Go away
      ansible.builtin.set_fact:
        gone: true
      when: inventory_hostname in lost | default([])

    - name: Be asked once more
      ansible.builtin.raw: ":"
      changed_when: false

    - name: Break
      ansible.builtin.fail:
        msg: "{{ inventory_hostname }} is not healthy\\nnext: see to it"
      when: inventory_hostname in broken[operation_name] | default([])

    - name: Keep the mode current in the manifest
      swiftdeploy_manifest:
        path: "{{ manifest_path }}"
        state: mode
        mode: "{{ operation_mode }}"
      when: operation_name == 'promote'

    - name: Sum up
      ansible.builtin.set_fact:
        operation_outcome: {fields: {changed: true, release: "{{ rollout_plan.release.id }}"}}

    - name: Record it
      ansible.builtin.include_role:
        name: record
        rolespec_validate: false
      vars:
        record_event: "{{ operation_name }}"
        record_run_id: "{{ context_run.run_id }}"
        record_fields: "{{ operation_outcome.fields }}"
        record_summary: "done  {{ inventory_hostname }}"
  rescue:
    - name: Note it
      ansible.builtin.set_fact:
        operation_event: "{{ operation_name }}_failed"
        operation_reason: "{{ ansible_failed_result.msg }}"

    - name: Record that it failed
      ansible.builtin.include_role:
        name: record
        rolespec_validate: false
      vars:
        record_event: "{{ operation_event }}"
        record_run_id: "{{ context_run.run_id }}"
        record_fields: {reason: "{{ operation_reason }}"}
        record_summary: "FAILED  {{ inventory_hostname }}"

    - name: End as not done
      ansible.builtin.fail:
        msg: "{{ operation_reason }}"
"""
ALL = ["web1", "web2", "web3", "web4", "web5"]


class Fleet:
    """Five hosts; one is off when it is named in ``off``."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        tasks = workspace.folder / "roles" / "operation" / "tasks" / "main.yml"
        tasks.write_text(PRETENDS)

    def run(
        self,
        *words: str,
        off: tuple[str, ...] = (),
        canary: tuple[str, ...] = ("web4",),
        operation: str = "deploy",
        **settings: Any,
    ) -> Ran:
        """One run; ``settings`` are variables of the inventory's."""
        off_ones = {name: {"gone": True} for name in off}
        inventory = {
            "all": {
                "hosts": {name: off_ones.get(name, {}) for name in ALL},
                "children": {"canary_hosts": {"hosts": dict.fromkeys(canary)}},
                "vars": {
                    # Nobody listens on port 1.
                    "ansible_connection": "{{ 'ssh' if gone | default(false) else 'local' }}",
                    "ansible_host": "127.0.0.1",
                    "ansible_port": 1,
                    "ansible_python_interpreter": "{{ ansible_playbook_python }}",
                    "broken": {},
                    **settings,
                },
            }
        }
        path = self.workspace.folder / "hosts.yml"
        path.write_text(yaml.safe_dump(inventory))
        (self.workspace.folder / "history.jsonl").unlink(missing_ok=True)
        (self.workspace.folder / "history.jsonl.head").unlink(missing_ok=True)
        return self.workspace.play(operation, "-i", str(path), *words)

    def asked(self, ran: Ran, operation: str, *batches: int) -> list[str]:
        """The hosts that were asked for an operation: batch by batch, by name within each, as those go side by side."""
        lines = [line.split() for line in ran.out.splitlines()]
        hosts = iter([line[1] for line in lines if len(line) > 2 and line[2] == operation])
        return [host for size in batches for host in sorted(islice(hosts, size))] + sorted(hosts)

    def record(self, event: str) -> dict[str, Any]:
        """The record of the run."""
        found = self.workspace.last(event)
        assert found["host"] == "*"
        return found


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return Fleet(Workspace(tmp_path_factory.mktemp("fleet") / "clone", "process"))


def test_canary_hosts_first_then_batches_and_one_record(fleet: Fleet) -> None:
    ran = fleet.run(swiftdeploy_serial=[1, 3]).ok()
    assert fleet.asked(ran, "deploy", 1, 1, 3) == ["web4", "web1", "web2", "web3", "web5"]
    record = fleet.record("deploy_run")
    assert (record["batches"], record["counts"]) == ([1, 1, 3], {"changed": 5})
    assert "Deployed 5 of 5 hosts" in ran.out
    assert [one["event"] for one in fleet.workspace.history()].count("deploy") == 5


def test_a_failure_stops_the_run_and_brings_back_what_was_changed(fleet: Fleet) -> None:
    ran = fleet.run(
        "-e", "on_failure=rollback", swiftdeploy_serial=2, broken={"deploy": ["web2"], "rollback": []}
    ).failed()
    assert fleet.asked(ran, "deploy", 1, 2) == ["web4", "web1", "web2"]
    # The one that failed may have switched too.
    assert fleet.asked(ran, "rollback") == ["web1", "web2", "web4"]
    record = fleet.record("deploy_run_failed")
    assert record["hosts"]["skipped"] == ["web3", "web5"]
    assert record["hosts"]["rolled_back"] == ["web1", "web2", "web4"]
    assert record["reason"] == "the run stopped because of web2 (failed)"
    assert "not begun: web3, web5" in ran.out
    assert "FAILED  web2" in ran.out


@pytest.mark.parametrize(
    ("back", "mode", "said"),
    [
        ([], "stable", "manifest.yaml says mode stable again, as before the run"),
        (["web4"], "canary", "manifest.yaml keeps the new mode, it serves on web4"),
    ],
)
def test_a_promotion_that_goes_back_takes_its_mode_out_of_the_manifest(
    fleet: Fleet, back: list[str], mode: str, said: str
) -> None:
    fleet.workspace.write_manifest()
    broken = {"promote": ["web2"], "rollback": back}
    words = ("-e", "mode=canary", "-e", "on_failure=rollback")
    ran = fleet.run(*words, operation="promote", swiftdeploy_serial=2, broken=broken).failed()
    assert said in ran.out
    assert f"  mode: {mode}\n" in (fleet.workspace.folder / "manifest.yaml").read_text()


def test_as_many_may_fail_as_is_said(fleet: Fleet) -> None:
    ran = fleet.run("-e", "max_fail=1", swiftdeploy_serial=1, broken={"deploy": ["web1"]}).failed()
    assert fleet.asked(ran, "deploy", 1, 1, 1, 1, 1) == ["web4", "web1", "web2", "web3", "web5"]
    assert fleet.record("deploy_run_failed")["counts"] == {"changed": 4, "failed": 1}


@pytest.mark.parametrize(("policy", "begun"), [("stop", []), ("skip", ["web4", "web1", "web3", "web5"])])
def test_a_host_that_is_off_stops_the_run_or_is_skipped(fleet: Fleet, policy: str, begun: list[str]) -> None:
    ran = fleet.run(off=("web2",), swiftdeploy_unreachable=policy).failed()
    assert fleet.asked(ran, "deploy", 1) == begun
    record = fleet.record("deploy_run_failed")
    assert record["hosts"]["unreachable"] == ["web2"]
    assert "UNREACHABLE  web2" in ran.out
    assert fleet.workspace.last("deploy_failed")["host"] == "web2"


def test_a_host_that_is_lost_in_the_middle_of_a_batch(fleet: Fleet) -> None:
    ran = fleet.run("-e", "on_failure=rollback", swiftdeploy_serial=2, lost=["web1"]).failed()
    assert fleet.asked(ran, "deploy", 1, 2) == ["web4", "web1", "web2"]
    assert fleet.asked(ran, "rollback") == ["web2", "web4"]
    assert fleet.record("deploy_run_failed")["hosts"]["lost"] == ["web1"]


@pytest.mark.parametrize(
    ("lost", "begun"),
    [
        # The first of two batches that Ansible does as one, and the last of three.
        ("web4", ["web4"]),
        ("web5", ["web4", "web1", "web2", "web3", "web5"]),
    ],
)
def test_a_batch_that_is_lost_as_a_whole_is_no_end(fleet: Fleet, lost: str, begun: list[str]) -> None:
    ran = fleet.run("-e", "on_failure=rollback", swiftdeploy_serial=1, lost=[lost]).failed()
    assert ran.status == 4
    assert fleet.asked(ran, "deploy", *[1] * len(begun)) == begun
    back = sorted(set(begun) - {lost})
    assert fleet.asked(ran, "rollback") == back
    hosts = fleet.record("deploy_run_failed")["hosts"]
    assert (hosts["lost"], sorted(hosts.get("rolled_back", []))) == ([lost], back)
    assert "lost in the middle: " + lost in ran.out


def test_a_run_that_ansible_ends_names_the_way_back(fleet: Fleet) -> None:
    # They are the three batches that make the last one of Ansible's.
    ran = fleet.run("-e", "max_fail=4", swiftdeploy_serial=1, lost=["web2", "web3", "web5"]).failed()
    # Ansible lets nothing more be done, so that the way back is for a person.
    assert fleet.record("deploy_run_interrupted")["hosts"] == {"changed": ["web4", "web1"]}
    assert "next: ansible-playbook rollback.yml --limit web4,web1  takes them back" in ran.text


def test_a_wrong_setting_is_refused_before_anything(fleet: Fleet) -> None:
    ran = fleet.run(swiftdeploy_serial="some").failed()
    assert "swiftdeploy_serial is 'some', allowed are" in ran.out
    assert fleet.workspace.history() == []


def two(workspace: Workspace) -> tuple[str, Callable[..., None]]:
    """Two hosts on this machine, each with a manifest and a folder of its own: inventory, and what writes them."""
    ports = {name: [free_port() for _ in range(3)] for name in ("web1", "web2")}
    hosts = {
        name: {"manifest": f"{name}.yaml", "swiftdeploy_home": str(workspace.folder / f"home-{name}")} for name in ports
    }
    common = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
    path = workspace.folder / "two.yml"
    path.write_text(
        yaml.safe_dump(
            {
                "all": {
                    "hosts": hosts,
                    "children": {"canary_hosts": {"hosts": {"web1": None}}},
                    "vars": {**common, "swiftdeploy_environment": "local", "swiftdeploy_serial": 1},
                }
            }
        )
    )

    def write(version: str, **changes: str) -> None:
        for name, (service, nginx, opa) in ports.items():
            workspace.service_port, workspace.port, workspace.opa_port = service, nginx, opa
            workspace.write_manifest(version, services=changes.get(name, ""))
            (workspace.folder / "manifest.yaml").rename(workspace.folder / f"{name}.yaml")

    return str(path), write


def test_real_stacks_go_back_and_others_are_told_of_it(make_workspace: Callable[[str], Workspace]) -> None:
    workspace = make_workspace("process")
    inventory, write = two(workspace)
    write("1.0.0")
    workspace.play("deploy", "-i", inventory).ok()

    write("2.0.0", web2="  healthcheck: {path: /nowhere, start_timeout: 2}")
    dry = workspace.play("deploy", "-i", inventory, "--check", "--diff").ok()
    assert "drift: runs v1.0.0 (stable)" in dry.out
    assert "-version: 1.0.0" in dry.out
    assert "+version: 2.0.0" in dry.out

    failed = workspace.play("deploy", "-i", inventory, "-e", "on_failure=rollback").failed()
    record = workspace.last("deploy_run_failed")
    assert record["hosts"]["failed"] == ["web2"]
    assert "web1" in record["hosts"]["rolled_back"]
    assert "rolled back: " in failed.out
    back = workspace.last("rollback")
    assert back["version"] == "1.0.0"
    assert back["policy"] == {}, "the gate was asked about the deploy"
    answers = workspace.play("status", "-i", inventory, "-e", "once=true", "-e", "format=json")
    views = json.loads(answers.out[answers.out.index("{") :])["hosts"]
    assert {view["version"] for view in views} == {"1.0.0"}

    # Known to the history that was written, and to no other.
    known = workspace.play("audit", "-i", inventory, "-e", "ask=all").ok()
    assert "2 hosts asked: history.jsonl knows the runs of all" in known.out
    elsewhere = Path("elsewhere.jsonl")
    (workspace.folder / elsewhere).touch()
    unknown = workspace.play("audit", "-i", inventory, "-e", "ask=all", "-e", f"swiftdeploy_history={elsewhere}").ok()
    assert "switches were made by runs that elsewhere.jsonl does not know" in unknown.out
    write("1.0.0")
    workspace.clear("-i", inventory).ok()
