"""Any past decision can be explained, and decided again, from what is kept."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.workspace import Workspace


def explained(workspace: Workspace, decision_id: str) -> tuple[str, dict[str, Any]]:
    """What audit.yml tells of a decision, and what the command that it ends with answers."""
    told = workspace.play("audit", "-e", f"decision={decision_id[:13]}").ok().out
    command = next(line.strip() for line in told.splitlines() if line.strip().startswith("opa eval "))
    assert (workspace.folder / "audit_decisions" / decision_id).is_dir()
    return told, {"command": command}


def decided_again(command: str, opa: str) -> dict[str, Any]:
    """What OPA says to the kept question by the kept policies."""
    words = shlex.split(command.replace("--format pretty", "--format json"))
    done = subprocess.run([opa, *words[1:]], capture_output=True, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)["result"][0]["expressions"][0]["value"]
    return answer


def decisions(workspace: Workspace, event: str) -> dict[str, Any]:
    """The decisions of the last record of ``event``."""
    found = workspace.last(event)["policy"]
    assert found
    return dict(found)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, parts_dir: Path) -> Iterator[Workspace]:
    """What is left of a stack with an allowed deploy, an allowed promotion, and a deploy that the policies refused."""
    workspace = Workspace(tmp_path_factory.mktemp("told") / "clone", "process")
    workspace.extra["parts_dir"] = str(parts_dir)
    workspace.play("deploy").ok()
    workspace.play("promote", "-e", "mode=canary").ok()
    thresholds = workspace.folder / "policies" / "thresholds" / "data.yaml"
    text = thresholds.read_text()
    thresholds.write_text(re.sub(r"(  local:\n    disk_free_gb: {min: )2}", r"\g<1>999999}", text))
    assert thresholds.read_text() != text
    workspace.write_manifest(version="2.0.0")
    workspace.play("deploy").failed()
    # Nobody will have these policies any more.
    thresholds.write_text(text)
    workspace.play("teardown", "-e", "clean=true").ok()
    yield workspace


def test_every_decision_is_explained_and_decided_again_the_same(told: Workspace, opa_binary: str) -> None:
    revisions = set()
    for event in ("deploy", "promote", "deploy_blocked"):
        for domain, answer in decisions(told, event).items():
            text, found = explained(told, answer["decision_id"])
            again = decided_again(found["command"], opa_binary)
            for key in ("allow", "reasons", "checked", "thresholds"):
                assert again[key] == answer[key], (event, domain, key)
            for words in (answer["outcome"], answer["policy_revision"], *answer["reasons"]):
                assert words in text
            revisions.add(answer["policy_revision"])
    assert len(revisions) == 2


def test_a_decision_that_is_not_there_or_whose_policies_are_gone_is_told_so(told: Workspace) -> None:
    unknown = told.play("audit", "-e", "decision=00000000-0000").failed()
    assert "no decision 00000000-0000 is in" in unknown.text
    answer = decisions(told, "deploy_blocked")["infrastructure"]
    kept = told.folder / "history.jsonl.policies" / f"{answer['policy_revision']}.json"
    whole = kept.read_text()
    kept.write_text(whole.replace("999999", "1"))
    changed = told.play("audit", "-e", f"decision={answer['decision_id']}").ok().out
    kept.unlink()
    gone = told.play("audit", "-e", f"decision={answer['decision_id']}").ok().out
    kept.write_text(whole)
    assert "the file was changed" in changed
    assert "are not kept in" in gone
    for text in (changed, gone):
        assert "not possible" in text
        assert answer["reasons"][0] in text


def test_a_decision_out_of_a_changed_history_is_not_to_be_relied_on(told: Workspace) -> None:
    answer = decisions(told, "deploy_blocked")["infrastructure"]
    path = Path(told.folder / "history.jsonl")
    true = path.read_text()
    path.write_text(true.replace('"outcome":"denied"', '"outcome":"dented"'))
    ran = told.play("audit", "-e", f"decision={answer['decision_id']}").failed()
    path.write_text(true)
    assert "do not rely on" in ran.text
