"""No release gets all traffic unasked: one that was taken away, or one that nobody has judged."""

from __future__ import annotations

from conftest import in_process
from support.workspace import Workspace

QUICK = "  steps: [50]\n  min_requests: 1"


def runs(workspace: Workspace) -> str:
    """Version and mode that answer."""
    answer = workspace.get().json()
    return f"{answer['version']} {answer['mode']}"


@in_process
def test_what_was_rolled_back_does_not_come_back_unasked(no_return: Workspace) -> None:
    # At once and in canary mode, the classic way; the manifest's mode follows.
    no_return.write_manifest("2.0.0")
    no_return.play("promote", "-e", "mode=canary").ok()
    path = no_return.folder / "manifest.yaml"
    assert "  mode: canary\n" in path.read_text()
    back = no_return.play("rollback").ok()
    assert runs(no_return) == "1.0.0 stable"
    assert "  mode: stable\n" in path.read_text()
    assert "# a comment of the user" in path.read_text()
    assert "manifest.yaml still names version 2.0.0, which was rolled back: set services.version to 1.0.0" in back.out
    assert (no_return.last("rollback")["version"], no_return.last("rollback")["mode"]) == ("1.0.0", "stable")
    # The status leads nowhere near it.
    status = no_return.play("status", "-e", "once=true").ok()
    assert "2.0.0 was rolled back here: name a version that is mended in the manifest" in " ".join(status.out.split())
    assert "next: ansible-playbook deploy.yml" not in status.out
    # As it is in the manifest now, and in the other mode, by either command.
    words = "v2.0.0 was rolled back on this host"
    assert words in no_return.play("deploy").failed().out
    blocked = no_return.last("deploy_blocked")
    assert blocked["policy"]["change"]["checked"]["rejected"]["why"] == "rolled_back"
    for mode in ("canary", "stable"):
        assert words in no_return.play("promote", "-e", f"mode={mode}").failed().out
        assert no_return.last("promote_blocked")["mode"] == mode
    assert runs(no_return) == "1.0.0 stable"
    # A person may ask for it, and says why.
    no_return.play("deploy", "-e", "override=the fault was in the database").ok()
    assert runs(no_return) == "2.0.0 stable"
    assert list(no_return.last("override")["override"]["overridden"]) == ["change"]


@in_process
def test_what_nobody_has_judged_gets_no_traffic_by_a_deploy(no_return: Workspace) -> None:
    no_return.write_manifest("3.0.0", mode="canary", canary=QUICK)
    refused = no_return.play("deploy").failed()
    assert "v3.0.0 (canary) would take all traffic from v1.0.0 (stable) without being judged as a canary" in refused.out
    assert "next: ansible-playbook promote.yml -e mode=canary" in refused.out
    assert runs(no_return) == "1.0.0 stable"
    # Beside it, as far as it was judged; nothing but that release becomes stable by its evidence.
    no_return.play("promote", "-e", "mode=canary", "-e", "pause_at=50").ok()
    no_return.write_manifest("4.0.0", mode="canary", canary=QUICK)
    other = no_return.play("promote", "-e", "mode=stable").failed()
    assert "a canary of v3.0.0 has 50 % of the traffic, but the manifest asks for another release, v4.0.0" in other.out
    no_return.write_manifest("3.0.0", mode="canary", canary=QUICK)
    # It has what it was given; and once it is ended by a person it does not come back.
    assert "Nothing to change" in no_return.play("deploy").ok().out
    assert no_return.last("deploy")["reason"] == "nothing changed"
    no_return.play("rollback").ok()
    assert "v3.0.0 was rolled back on this host" in no_return.play("promote", "-e", "mode=canary").failed().out
    assert runs(no_return) == "1.0.0 stable"
