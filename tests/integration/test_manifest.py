"""The manifest in real playbook runs: values stay data, problems come all at once, only the mode is written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

TEXT = r"""{{ 7*7 }} {% if true %}x{% endif %} {# c #} $HOME `id` \ "q" {{ lookup('pipe', 'id') }}"""
MANIFEST = f"""\
# mine
services:
  image: "swift-deploy-1-node:latest"
  port: 3000
  version: 1.10   # as written
  env:
    GREETING: '{{{{ 7*7 }}}}'
    PASSWORD: hunter2
nginx: {{image: "nginx:latest", port: 8080, proxy_timeout: 30s}}
network: {{name: swiftdeploy-net, driver_type: bridge}}
contact: {json.dumps(TEXT)}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a manifest, an inventory of this machine, and a template that uses the manifest."""
    (tmp_path / "m.yaml").write_text(MANIFEST)
    (tmp_path / "inventory").write_text(f"here ansible_connection=local ansible_python_interpreter={sys.executable}\n")
    (tmp_path / "out.j2").write_text(
        "{{ config.contact }}|{{ config.services.env.GREETING }}|{{ config.services.version }}"
    )
    return tmp_path


def ansible_playbook(folder: Path, tasks: str, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a play with ``tasks``, from ``folder``, with the repository's configuration and Ansible's own display."""
    play = "- hosts: all\n  gather_facts: false\n  tasks:\n" + "".join(f"    {line}\n" for line in tasks.splitlines())
    (folder / "play.yml").write_text(play)
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"),
        "COLUMNS": "10000",
        **variables,
    }
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "inventory", "play.yml", *options]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


LOAD = """\
- name: Load
  swiftdeploy_manifest:
    path: m.yaml
  register: loaded
"""
SET_CANARY = """\
- name: Set the mode
  swiftdeploy_manifest:
    path: m.yaml
    state: mode
    mode: canary
"""


def test_values_stay_data_through_facts_and_templates(folder: Path) -> None:
    run = ansible_playbook(
        folder,
        LOAD
        + """\
- name: Hand on
  ansible.builtin.set_fact:
    config: "{{ loaded.manifest }}"
- name: Use in a template
  ansible.builtin.template:
    src: out.j2
    dest: "{{ playbook_dir }}/out.txt"
    mode: "0600"
- name: Keep the whole answer
  ansible.builtin.copy:
    content: "{{ loaded | to_json }}"
    dest: "{{ playbook_dir }}/loaded.json"
    mode: "0600"
""",
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert (folder / "out.txt").read_text() == f"{TEXT}|{{{{ 7*7 }}}}|1.10"
    loaded: dict[str, Any] = json.loads((folder / "loaded.json").read_text())
    assert loaded["changed"] is False
    assert loaded["path"] == str(folder / "m.yaml")
    assert loaded["manifest"]["contact"] == TEXT
    assert loaded["manifest"]["nginx"]["proxy_timeout"] == 30.0
    assert loaded["manifest"]["opa"]["port"] == 8181


def test_all_problems_at_once_and_no_traceback(folder: Path) -> None:
    (folder / "m.yaml").write_text(
        'services: {image: a, prot: 1, env: {PASSWORD: [hunter2]}}\nnginx: {image: -x, port: "8080"}\n'
        "network: {name: net, driver_type: bridge}\n"
    )
    run = ansible_playbook(
        folder,
        LOAD.replace("register: loaded", "register: loaded\n  ignore_errors: true")
        + """\
- name: Keep the answer
  ansible.builtin.copy:
    content: "{{ loaded | to_json }}"
    dest: "{{ playbook_dir }}/loaded.json"
    mode: "0600"
""",
    )
    assert run.returncode == 0, run.stdout + run.stderr
    loaded: dict[str, Any] = json.loads((folder / "loaded.json").read_text())
    assert loaded["failed"] is True
    assert [(problem["line"], problem["key"]) for problem in loaded["problems"]] == [
        (1, "services.port"),
        (1, "services.prot"),
        (1, "services.env.PASSWORD"),
        (2, "nginx.image"),
        (2, "nginx.port"),
    ]
    texts = [f"m.yaml:{p['line']}: {p['key']}: {p['message']}" for p in loaded["problems"]]
    *told, advice = loaded["msg"].split("\n")
    assert told == texts
    assert advice.startswith("next: ")
    for text in texts:
        assert text in run.stdout + run.stderr
    assert "did you mean `port`?" in loaded["msg"]
    assert "Traceback" not in run.stdout + run.stderr
    assert "hunter2" not in run.stdout + run.stderr


def test_a_missing_manifest_ends_the_run_with_one_line(folder: Path) -> None:
    (folder / "m.yaml").unlink()
    run = ansible_playbook(folder, LOAD)
    assert run.returncode == 2
    assert "m.yaml: there is no such file; run from the folder that has it" in run.stdout + run.stderr
    assert "Traceback" not in run.stdout + run.stderr


def test_check_and_diff_show_the_mode_and_write_nothing(folder: Path) -> None:
    run = ansible_playbook(folder, SET_CANARY, "--check", "--diff")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "changed=1" in run.stdout
    assert "+  mode: canary" in run.stdout
    assert "+++ after: m.yaml" in run.stdout
    assert "hunter2" not in run.stdout
    assert (folder / "m.yaml").read_text() == MANIFEST


def test_the_mode_is_set_once(folder: Path) -> None:
    run = ansible_playbook(folder, SET_CANARY + SET_CANARY)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "ok=2    changed=1" in run.stdout
    expected = MANIFEST.replace("    PASSWORD: hunter2\n", "    PASSWORD: hunter2\n  mode: canary\n")
    assert (folder / "m.yaml").read_text() == expected


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("- swiftdeploy_manifest: {state: mode}\n", "missing required arguments: path"),
        (
            "- swiftdeploy_manifest: {path: m.yaml, state: mode}\n",
            "state is mode but all of the following are missing: mode",
        ),
        (
            "- swiftdeploy_manifest: {path: m.yaml, state: mode, mode: blue}\n",
            "value of mode must be one of: stable, canary",
        ),
    ],
)
def test_wrong_arguments_are_named(folder: Path, task: str, message: str) -> None:
    run = ansible_playbook(folder, task)
    assert run.returncode == 2
    assert message in run.stdout + run.stderr
    assert "Traceback" not in run.stdout + run.stderr
    assert (folder / "m.yaml").read_text() == MANIFEST


def test_a_missing_package_is_named_with_the_remedy(folder: Path) -> None:
    empty = folder / "elsewhere" / "swiftdeploy"
    empty.mkdir(parents=True)
    (empty / "__init__.py").write_text("raise ImportError('none here')")
    run = ansible_playbook(folder, LOAD, PYTHONPATH=str(empty.parent))
    assert run.returncode == 2
    shown = run.stdout + run.stderr
    assert f"the package swiftdeploy cannot be used on {Path(sys.executable).parent}/python" in shown
    assert "(none here): run `make setup`, or `pip install -r requirements.txt` in the repository" in shown


def test_the_documentation_is_shown() -> None:
    command = [str(Path(sys.executable).with_name("ansible-doc")), "-t", "module", "swiftdeploy_manifest", "--json"]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=True)
    shown = json.loads(run.stdout)["swiftdeploy_manifest"]
    assert sorted(shown["doc"]["options"]) == ["mode", "path", "state"]
    assert {"manifest", "path", "mode", "problems"} <= set(shown["return"])
    assert "swiftdeploy_manifest:" in shown["examples"]
