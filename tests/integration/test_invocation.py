"""Nothing done is not success: every command with an inventory, a limit or settings that leave nothing to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml"))


def call(command: str, *options: str, folder: Path = ROOT, **environment: str) -> tuple[int, str]:
    """Status and output of a command that is to end before anything is begun."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), command, *options],
        cwd=folder,
        env={**kept, "NO_COLOR": "1", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    said = done.stdout + done.stderr
    assert "Traceback" not in said, said
    return done.returncode, said


def no_success(command: str, words: str, *options: str, **environment: str) -> None:
    status, said = call(command, *options, **environment)
    assert status != 0, said
    assert words in said, said
    assert "implicit localhost" not in said, said


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_succeeds_with_an_inventory_that_is_not_there(command: str) -> None:
    no_success(f"{command}.yml", "FAILED  the inventory inventory/nothere does not exist", "-i", "inventory/nothere")


def test_nobody_to_do_it_on_is_told_whatever_the_reason(tmp_path: Path) -> None:
    (tmp_path / "empty.ini").write_text("[web]\n")
    (tmp_path / "bad.yml").write_text("not: [valid")
    (tmp_path / "two.ini").write_text("web1 ansible_connection=local\nweb2 ansible_connection=local\n")
    two = ("-i", str(tmp_path / "two.ini"))
    no_success("deploy.yml", "FAILED  no host is in the inventory", "-i", str(tmp_path / "empty.ini"))
    no_success("status.yml", "FAILED  no host is in the inventory", "-i", str(tmp_path / "bad.yml"))
    no_success("promote.yml", "bad.yml cannot be read", *two, "-i", str(tmp_path / "bad.yml"))
    no_success("rollback.yml", "the inventory nope does not exist", *two, "-i", "nope")
    no_success("teardown.yml", "Could not match supplied host pattern, ignoring: nope", *two, "--limit", "nope")
    no_success("chaos.yml", "FAILED  --limit names wbe2", *two, "--limit", "web1,wbe2")
    no_success("audit.yml", "--limit web1 leaves out", *two, "--limit", "web1")
    no_success("init.yml", "cannot be the name of a host", "-i", "../../x,")
    no_success("deploy.yml", "--start-at-task leaves out tasks", *two, "--start-at-task", "Load the manifest")
    no_success("deploy.yml", "--tags leaves out tasks", *two, "--tags", "nothing")
    assert not (ROOT.parent / "x").exists()


def test_settings_that_are_not_ours_end_a_run_before_anything_is_begun(tmp_path: Path) -> None:
    for playbook in ("deploy.yml", "playbooks/status.yml"):
        status, said = call(str(ROOT / playbook), folder=tmp_path)
        assert status == 1, said
        assert f"not those of SwiftDeploy in {ROOT}/ansible.cfg" in said
        assert f"next: cd {ROOT} && ansible-playbook {Path(playbook).stem}.yml" in said
    no_success("deploy.yml", "nothing that is done would be recorded", ANSIBLE_CALLBACKS_ENABLED="timer")
    no_success("deploy.yml", "strategy is set to free", ANSIBLE_STRATEGY="free")
    assert list(tmp_path.iterdir()) == []
