"""What the gates of deploy and promote say beside health: freezes, people, images, overrides and wrong thresholds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from support.workspace import Workspace

DATA = Path("policies") / "thresholds" / "data.yaml"
# Holds at any time, so that no test depends on when it is run.
ALWAYS = (
    "freezes: {always: {timezone: Europe/Berlin, weekly: {days: [mon], from: 00:00, until: mon 00:00}, "
    "reason: nobody is there, contact: ops@example.com}}"
)
FROZEN = "frozen by always until Mon "
WHERE = "Europe/Berlin: nobody is there; contact ops@example.com (policies/thresholds/data.yaml: change.default.freezes"
REASON = "the shop is down for everybody"


def edit(workspace: Workspace, before: str, after: str) -> None:
    """Change the thresholds of a workspace once."""
    path = workspace.folder / DATA
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


def served(workspace: Workspace) -> str:
    return str(workspace.get().json()["version"])


def test_freezes_people_and_overrides(make_workspace: Callable[[str], Workspace]) -> None:
    workspace = make_workspace("process")
    workspace.play("deploy").ok()

    # Frozen: neither a deploy nor a promotion, and no window of evidence is waited for.
    edit(workspace, "freezes: {}", ALWAYS)
    workspace.write_manifest(version="2.0.0", canary="  probe_requests: 20")
    refused = workspace.play("deploy").failed()
    assert f"DENIED  localhost  {FROZEN}" in refused.out
    assert WHERE in refused.out
    blocked = workspace.last("deploy_blocked")
    assert blocked["policy"]["change"]["outcome"] == "denied"
    assert blocked["policy"]["infrastructure"]["outcome"] == "allowed"
    assert "image" not in blocked["policy"], "no image runs in the process runtime"
    assert "engine_disk_free_gb" in blocked["policy"]["infrastructure"]["checked"]["not_applicable"]
    refused = workspace.play("promote", "-e", "mode=canary").failed()
    assert f"DENIED  localhost  {FROZEN}" in refused.out
    assert set(workspace.last("promote_blocked")["policy"]) == {"change"}
    assert served(workspace) == "1.0.0"

    # Too short a reason is refused and leaves no override behind.
    refused = workspace.play("deploy", "-e", "override=oops").failed()
    assert "DENIED  localhost  the override is not accepted: its reason has 4 characters, at least 10" in refused.out
    assert f"DENIED  localhost  {FROZEN}" in refused.out
    assert workspace.last("deploy_blocked")["policy"]["change"]["override"]["accepted"] is False
    assert not [record for record in workspace.history() if record["event"] == "override"]

    # One with a reason is accepted, said loudly, and kept with who, why and what it went past.
    # What the shell makes of -e override="several words".
    done = workspace.play("deploy", "-e", f"override={REASON}").ok()
    assert f"WARNING: OVERRIDE by {workspace.last('override')['actor']}: {REASON}" in done.out
    assert f"change: {FROZEN}" in done.out
    assert served(workspace) == "2.0.0"
    override = workspace.last("override")
    assert override["reason"].startswith(REASON)
    assert override["override"]["reason"] == REASON
    (past,) = override["override"]["overridden"]["change"]
    assert past.startswith(FROZEN)
    kept = workspace.last("deploy")["policy"]["change"]
    assert kept["outcome"] == "allowed"
    assert kept["override"]["overridden"] == [past]

    # The way back is never gated.
    workspace.play("rollback").ok()
    assert served(workspace) == "1.0.0"

    # Not frozen, but the wrong person; an override that only others may use.
    edit(workspace, ALWAYS, "freezes: {}")
    edit(workspace, 'actors: ["*"]', "actors: [somebody@elsewhere]")
    edit(workspace, 'actors: ["*"] # who may', "actors: [somebody@elsewhere] # who may")
    refused = workspace.play("deploy", "-e", json.dumps({"override": REASON})).failed()
    me = workspace.last("deploy_blocked")["actor"]
    assert f'DENIED  localhost  "{me}" is not among those who may change local: somebody@elsewhere' in refused.out
    assert f'the override is not accepted: "{me}" is not among those who may override' in refused.out
    assert served(workspace) == "1.0.0"

    # Nothing in the way: an override that is not needed is not reported as used.
    edit(workspace, "actors: [somebody@elsewhere]", 'actors: ["*"]')
    before = len([record for record in workspace.history() if record["event"] == "override"])
    done = workspace.play("deploy", "-e", json.dumps({"override": REASON})).ok()
    assert "OVERRIDE" not in done.out
    assert "override" not in workspace.last("deploy")["policy"]["change"]
    assert len([record for record in workspace.history() if record["event"] == "override"]) == before


def test_wrong_thresholds_are_an_error_and_reach_no_host(make_workspace: Callable[[str], Workspace]) -> None:
    workspace = make_workspace("process")
    workspace.play("deploy").ok()
    installed = workspace.folder / ".swiftdeploy" / workspace.name / "opa" / DATA
    good = installed.read_text()
    workspace.write_manifest(version="2.0.0")
    edit(workspace, "disk_free_gb: {min: 10}", "disk_fre_gb: {min: 10}")
    edit(workspace, "freezes: {}", ALWAYS.replace("Berlin", "Berlinn"))
    words = [
        "infrastructure.default.disk_fre_gb: found an unknown key",
        "did you mean `disk_free_gb`?",
        "change.default.freezes.always.timezone: found Europe/Berlinn, allowed the name of a time zone",
    ]
    for command in (("deploy",), ("promote", "-e", "mode=canary"), ("validate",)):
        wrong = workspace.play(*command).failed()
        for part in words:
            assert part in wrong.out, command
        assert "policies/thresholds/data.yaml:" in wrong.out
        assert "DENIED" not in wrong.text
    assert workspace.last("deploy_failed")["policy"] == {}
    assert workspace.last("promote_failed")["policy"] == {}
    assert installed.read_text() == good
    assert served(workspace) == "1.0.0"


@pytest.mark.docker
def test_images_are_judged_where_images_run(make_workspace: Callable[[str], Workspace]) -> None:
    workspace = make_workspace("docker")
    # The service's image floats (latest); nginx's and OPA's name a version.
    edit(workspace, "floating_tags: allowed", "floating_tags: forbidden")
    refused = workspace.play("deploy").failed()
    line = "service image swift-deploy-1-node:latest has the floating tag latest, which is forbidden"
    assert f"DENIED  localhost  {line} (policies/thresholds/data.yaml: image.local.floating_tags)" in refused.out
    assert refused.out.count("DENIED") == 1
    blocked = workspace.last("deploy_blocked")["policy"]
    assert set(blocked["image"]["checked"]["images"]) == {"service", "nginx", "opa"}
    assert blocked["infrastructure"]["checked"]["engine_disk_free_gb"] > 0

    done = workspace.play("deploy", "-e", json.dumps({"override": REASON})).ok()
    assert f"image: {line}" in done.out
    assert "image" in workspace.last("override")["override"]["overridden"]

    # What runs already is no new image.
    workspace.play("promote", "-e", "mode=canary").ok()
    assert set(workspace.last("promote")["policy"]) == {"change", "canary"}
