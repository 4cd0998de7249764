"""A decision without a server is the one that a server would give, and whatever goes wrong is none."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.opa_server import GOOD_FACTS
from support.workspace import REPOSITORY, Workspace
from swiftdeploy import policies
from swiftdeploy_target.opa_eval import evaluate

FILES = policies.bundle(policies.policy_files(REPOSITORY / "policies"))


def question(**facts: Any) -> dict[str, Any]:
    """A question to the domain infrastructure."""
    return {"environment": "production", "action": "deploy", "facts": {**GOOD_FACTS, **facts}}


def argv(opa: str) -> list[str]:
    """How OPA is started for it."""
    return [opa, "eval", "--format", "json", "--stdin-input", "--bundle", "%s"]


def test_good_figures_are_allowed_and_bad_ones_denied(opa_binary: str) -> None:
    good = evaluate(argv(opa_binary), FILES, "infrastructure", question())
    bad = evaluate(argv(opa_binary), FILES, "infrastructure", question(disk_free_gb=1.5))
    assert (good["outcome"], good["reasons"], good["decision_id"]) == ("allowed", [], None)
    assert bad["outcome"] == "denied"
    assert "1.5 GB" in bad["reasons"][0]
    assert bad["input"]["facts"]["disk_free_gb"] == 1.5


@pytest.mark.parametrize(
    ("program", "cause", "words"),
    [
        (["/nowhere/opa"], "connection", "not on this host"),
        ([sys.executable, "-c", "raise SystemExit('boom')"], "connection", "boom"),
        ([sys.executable, "-c", "print('hello')"], "not_json", "hello"),
        ([sys.executable, "-c", "print('[]')"], "not_json", "something else"),
        ([sys.executable, "-c", "print('{}')"], "undefined", "no decision"),
        (
            [sys.executable, "-c", 'print(\'{"result":[{"expressions":[{"value":{"allow":"false"}}]}]}\')'],
            "malformed",
            "malformed",
        ),
    ],
)
def test_what_is_no_decision_is_unavailable(program: list[str], cause: str, words: str) -> None:
    found = evaluate(program, FILES, "infrastructure", question())
    assert (found["outcome"], found["allow"], found["cause"]) == ("unavailable", False, cause)
    assert words in found["reasons"][0]


def test_policies_that_do_not_compile_are_told_with_their_place(opa_binary: str) -> None:
    broken = [*FILES, {"path": "image/more.rego", "content": "package more\n\nx := nothing_that_exists\n"}]
    found = evaluate(argv(opa_binary), broken, "infrastructure", question())
    assert found["outcome"] == "unavailable"
    assert "image/more.rego:3" in found["reasons"][0]


def test_nothing_is_left_behind(opa_binary: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    evaluate(argv(opa_binary), FILES, "infrastructure", question())
    assert list(tmp_path.iterdir()) == []


def stack_files(workspace: Workspace) -> dict[str, bytes]:
    """What is kept on the host, without logs and what the service counts."""
    root = workspace.folder / ".swiftdeploy"
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink() and path.suffix not in (".log", ".db") and "logs" not in path.parts
    }


def test_validate_and_a_dry_run_tell_what_each_gate_would_answer_and_why(
    make_workspace: Callable[[str], Workspace],
) -> None:
    # Where OPA is asked in a container of its own; the tests above ask it as a program.
    workspace = make_workspace("docker")
    workspace.play("deploy").ok()
    thresholds = workspace.folder / "policies" / "thresholds" / "data.yaml"
    text = thresholds.read_text()
    thresholds.write_text(re.sub(r"(  local:\n    disk_free_gb: {min: )2}", r"\g<1>999999}", text))
    assert thresholds.read_text() != text
    before, lines = stack_files(workspace), len(workspace.history())

    told = workspace.play("validate").ok().out
    dry = workspace.play("deploy", "--check").ok().out
    promotion = workspace.play("promote", "--check", "-e", "mode=canary").ok().out
    for shown in (told, dry):
        assert "the policy would say to deploy now:" in shown
        assert "  change allowed" in shown
        # By the policies of the controller, which the host does not have yet.
        assert "  infrastructure denied" in shown
        assert re.search(r"    disk_free_gb [\d.]+ \(min 999999\)", shown)
    for shown in (told, promotion):
        assert "the policy would say to promote now:" in shown
        assert "  canary allowed" in shown
        assert "    error_rate 0 (max 0.01)" in shown
        assert re.search(r"    requests \d+ \(min 20\)", shown)
    assert "  image allowed" in told or workspace.runtime == "process"
    assert stack_files(workspace) == before
    assert len(workspace.history()) == lines

    refused = workspace.play("deploy").failed()
    assert "DENIED" in refused.text
    quick = workspace.play("validate", "-e", "gates=false").ok().out
    assert "the policy would say" not in quick
