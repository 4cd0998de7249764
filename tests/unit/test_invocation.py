"""Whether a command can do anything at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from swiftdeploy.invocation import Invocation, problems


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "ansible.cfg").touch()
    (tmp_path / "inventory").mkdir()
    for name in ("local", "example"):
        (tmp_path / "inventory" / name).touch()
    return tmp_path


def given(root: Path, **changes: Any) -> Invocation:
    usual: dict[str, Any] = {
        "command": "deploy",
        "root": root,
        "folder": root,
        "config": str(root / "ansible.cfg"),
        "callbacks": ["swiftdeploy_history", "swiftdeploy_notify"],
        "sources": [str(root / "inventory" / "local")],
        "everybody": ["web1", "web2"],
        "groups": ["all", "web"],
        "hosts": ["web1", "web2"],
    }
    return Invocation(**{**usual, **changes})


def test_a_usual_call_has_no_problem(root: Path) -> None:
    assert problems(given(root)) == []
    assert problems(given(root, limit="web1", hosts=["web1"])) == []
    assert problems(given(root, limit="web:!web2,~we.*,@some,fd00::1", hosts=["web1"])) == []
    assert problems(given(root, sources=["web1,"])) == []
    assert problems(given(root, local=True, hosts=[])) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sources": ["inventory/nothere"]}, "inventory inventory/nothere does not exist"),
        ({"sources": ["inventory/nothere"], "local": True}, "inventory inventory/nothere does not exist"),
        ({"sources": ["/nothere", "web1,"]}, "inventory /nothere does not exist"),
        ({"unparsed": ["{root}/inventory/local"]}, "cannot be read"),
        ({"everybody": [], "hosts": []}, "no host is in the inventory"),
        ({"everybody": [], "local": True}, "no host is in the inventory"),
        ({"hosts": [], "limit": "web:!web"}, "--limit 'web:!web' leaves none of the 2 hosts"),
        ({"hosts": ["web1"], "limit": "web1,wbe2"}, "--limit names wbe2, which is neither a host nor a group"),
        ({"local": True, "limit": "web1"}, "--limit web1 leaves out"),
        ({"hosts": ["web1", "../../x"]}, "'../../x' cannot be the name of a host"),
        ({"hosts": ["a\x1b]0;b\x07;id"]}, "cannot be the name of a host"),
        ({"callbacks": ["timer"]}, "nothing that is done would be recorded"),
        ({"callbacks": [], "config": None, "folder": Path("/else")}, "Ansible has read no settings"),
        ({"callbacks": [], "config": "/etc/ansible/ansible.cfg"}, "Ansible has read /etc/ansible/ansible.cfg, not"),
        ({"callbacks": [], "config": None}, "as anybody may write to"),
        ({"settings": {"strategy": "free"}}, "strategy is set to free"),
        ({"settings": {"hash_behaviour": "merge"}}, "hash_behaviour is set to merge"),
        ({"settings": {"inject_facts_as_vars": True}}, "inject_facts_as_vars is set to True"),
        ({"parts": {"--tags": True, "--skip-tags": set()}}, "--tags leaves out tasks"),
        ({"parts": {"--start-at-task": "Ask"}}, "--start-at-task leaves out tasks"),
    ],
)
def test_what_would_do_nothing_or_another_thing_is_told_with_what_to_do(
    root: Path, changes: dict[str, Any], words: str
) -> None:
    if "unparsed" in changes:
        changes = {"unparsed": [one.format(root=root) for one in changes["unparsed"]]}
    (problem,) = problems(given(root, **changes))
    assert words in problem
    assert problem.splitlines()[-1].startswith("next: ")
    assert problem.replace("\n", "").isprintable()


def test_all_problems_are_told_at_once(root: Path) -> None:
    found = problems(given(root, sources=["nope", "neither"], parts={"--tags": True}))
    assert len(found) == 3
    assert "inventory/example, inventory/local" in found[1]
