"""What every role, module and playbook of the repository keeps to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from support.workspace import REPOSITORY

ROLES = sorted(path.name for path in (REPOSITORY / "roles").iterdir())
MODULES = sorted(path.stem for path in (REPOSITORY / "library").glob("*.py"))
COMMANDS = ["init", "validate", "deploy", "promote", "rollback", "status", "chaos", "audit", "teardown", "bootstrap"]


@pytest.mark.parametrize("role", ROLES)
def test_a_role_documents_every_default(role: str) -> None:
    folder = REPOSITORY / "roles" / role
    specs = yaml.safe_load((folder / "meta" / "argument_specs.yml").read_text())["argument_specs"]["main"]
    defaults = yaml.safe_load((folder / "defaults" / "main.yml").read_text()) or {}
    assert set(specs.get("options") or {}) == set(defaults)
    assert all(name.startswith(f"{role}_") for name in defaults)


def test_every_module_shows_its_documentation() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-doc"), "-t", "module", "--json", *MODULES],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    documents = yaml.safe_load(done.stdout)
    assert sorted(documents) == MODULES
    for name, document in documents.items():
        assert document["doc"]["description"], name
        assert {"check_mode", "diff_mode"} <= set(document["doc"]["attributes"]), name
        assert document["examples"], name
        assert document["return"], name


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_one_import_of_a_playbook(command: str) -> None:
    (entry,) = yaml.safe_load((REPOSITORY / f"{command}.yml").read_text())
    assert entry["ansible.builtin.import_playbook"] == f"playbooks/{command}.yml"
    for play in yaml.safe_load((REPOSITORY / "playbooks" / f"{command}.yml").read_text()):
        assert not {"pre_tasks", "post_tasks", "handlers"} & set(play)
        # A part of a role is a role too; nothing is decided here.
        assert all(set(task) == {"name", "ansible.builtin.import_role", "vars"} for task in play.get("tasks", []))


def test_playbooks_are_the_commands() -> None:
    assert sorted(path.stem for path in (REPOSITORY / "playbooks").glob("*.yml")) == sorted(COMMANDS)
