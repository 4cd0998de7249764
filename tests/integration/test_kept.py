"""What the gate makes of a sample of an earlier run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

STUB = """
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        return {"changed": False, **self.answer(self._task.args, task_vars)}

    def answer(self, arguments, variables):
"""
# What is kept shows a fault; how a window of now is is the variable `present`.
MEASURED = """
        kept = arguments["kept"]["use"]
        rate = 0.5 if kept else float(variables["present"])
        kind = "kept" if kept else "taken"
        return {"evidence": {"blue": {"slot": "blue", "status": "measured", "first_sample": kind, "requests": 100,
                                      "window_seconds": 2.0, "error_rate": rate}}}
"""
DECIDED = """
        rate = arguments["queries"][0]["input"]["evidence"]["error_rate"]
        word = "denied" if rate > 0.01 else "allowed"
        reasons = [f"error rate is {100 * rate:.0f} %"] if word == "denied" else []
        return {"decisions": {"canary": {"outcome": word, "reasons": reasons, "checked": {}, "thresholds": {}}}}
"""
GATE = {
    "gate_action": "promote",
    "gate_domains": ["canary"],
    "gate_failure_policy": "fail",
    "gate_mode": "stable",
    "gate_dry": False,
    "gate_slot": "blue",
    "gate_stack": {"stack_dir": "/nowhere", "base_url": "http://127.0.0.1:9", "opa_url": "http://127.0.0.1:9"},
    "gate_context": {"run_id": "run", "actor": "me"},
    "gate_observed": {
        "live": "blue",
        "state": {"slots": {"blue": {"id": "r1"}}},
        "slots": {"blue": {"address": "127.0.0.1:9", "upstream": "127.0.0.1:9"}},
        "proxy_log": {"kind": "file", "path": "/nowhere"},
    },
    "gate_manifest": {
        "opa": {"timeout": 1},
        "services": {
            "name": "shop",
            "version": "1",
            "metrics": {"path": "/metrics"},
            "healthcheck": {"path": "/healthz", "timeout": 1, "interval": 1},
        },
        "canary": {"min_requests": 1, "window_seconds": 2, "probe_requests": 0, "probe_path": "/"},
    },
}


@pytest.mark.parametrize(("now", "status"), [("0.0", 0), ("0.2", 2)])
def test_what_a_kept_sample_speaks_against_is_measured_anew(tmp_path: Path, now: str, status: int) -> None:
    """A fault that is over stops nobody; one that is not does, by the figures of now."""
    stubs = tmp_path / "stubs"
    stubs.mkdir()
    (stubs / "swiftdeploy_metrics.py").write_text(STUB + MEASURED)
    (stubs / "swiftdeploy_opa.py").write_text(STUB + DECIDED)
    include = {"ansible.builtin.include_role": {"name": "gate"}, "vars": GATE}
    show = {"ansible.builtin.debug": {"msg": "rests on {{ gate_evidence.first_sample }}"}}
    play = [{"hosts": "all", "gather_facts": False, "tasks": [include, show]}]
    (tmp_path / "play.yml").write_text(json.dumps(play))
    done = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("ansible-playbook")), "-i", "web1,", "-e", f"present={now}"),
            *("-v", "-c", "local", str(tmp_path / "play.yml")),
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_ACTION_PLUGINS": f"{stubs}:{ROOT / 'action_plugins'}",
            "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
            "ANSIBLE_CALLBACKS_ENABLED": "ansible.builtin.default",
            "ANSIBLE_ROLES_PATH": str(ROOT / "roles"),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert ("rests on taken" in done.stdout) is (status == 0)
    assert "by a sample of an earlier run: measuring anew" in done.stdout
    if status:
        assert '"msg": "error rate is 20 %"' in done.stdout
