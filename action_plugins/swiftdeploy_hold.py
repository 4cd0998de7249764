# Apache-2.0 (see LICENSE)
"""Hold a canary at its weight and decide: see library/swiftdeploy_hold.py for its documentation."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

try:
    from swiftdeploy import canary, progress
except ImportError as error:
    raise AnsibleActionFail(
        "the swiftdeploy package is not installed for this Ansible: run `make setup`, "
        "or `pip install -r requirements.txt` in the repository"
    ) from error

ARGUMENTS: dict[str, dict[str, Any]] = {
    "stack": {"type": "dict", "required": True},
    "slot": {"type": "str", "required": True},
    "baseline": {"type": "str", "required": True},
    "place": {"type": "dict", "required": True},
    "measurement": {"type": "dict", "required": True},
    "watch": {"type": "dict", "required": True},
    "window_seconds": {"type": "float", "required": True},
    "deadline_seconds": {"type": "float", "required": True},
    "probes": {"type": "dict"},
    "opa": {"type": "dict", "required": True},
    "question": {"type": "dict", "required": True},
    "failure_policy": {"type": "str", "choices": ["ignore", "fail"], "default": "fail"},
    "back": {"type": "dict", "required": True},
}


# Seconds before each try to reach a host again whose connection was lost while its canary had traffic.
TRIES = (0.0, 1.0, 2.0, 4.0, 8.0, 15.0)


class HoldError(Exception):
    """The weight cannot be held any longer; the message says why."""


class ActionModule(ActionBase):
    """Composes the modules that measure, ask and route. One task, so that no other host delays the way back."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Answer what is documented as RETURN."""
        super().run(tmp, task_vars)
        self._variables = task_vars or {}
        _result, self._given = self.validate_argument_spec(argument_spec=ARGUMENTS)
        self._failures = 0
        self._died = False
        self._sent: dict[str, Any] = {}
        began = time.monotonic()
        found: dict[str, Any] = {"evidence": {}, "baseline_evidence": {}, "policy": {}}
        try:
            outcome = self._hold(began, found)
            reason = "" if outcome == "advance" else self._reason(found)
        except HoldError as error:
            outcome, reason = "unhealthy", str(error)
        except AnsibleConnectionFailure as error:
            weight = self._given["place"]["weight"]
            outcome, reason = (
                "unhealthy",
                f"the connection to the host was lost while the canary had {weight} %: {error}",
            )
            self._connect_anew()
        decided = time.monotonic()
        result = {**found, "outcome": outcome, "held_s": round(decided - began, 3), "changed": False}
        if outcome == "advance":
            return result
        # Nothing comes before this: every second here is a second of users on a bad release.
        leaves = "died" if outcome == "unhealthy" and self._died else "replaced"
        if outcome == "back" and found["policy"]["canary"]["outcome"] == "denied":
            leaves = "denied"
        try:
            back = self._take_back(leaves)
        except AnsibleConnectionFailure as error:
            words = (
                f"{reason}\nand the host cannot be reached to take the traffic back ({error}): the canary keeps its "
                f"{self._given['place']['weight']} %, and nobody watches it\n"
                "next: ansible-playbook rollback.yml as soon as the host answers; it gives the live release all "
                "traffic at once and stops the canary. A promotion goes on with it only where -e resume=true says so"
            )
            return {**result, "unreachable": True, "msg": words}
        result.update(changed=True, failed=True, back_s=round(time.monotonic() - decided, 3), msg=reason)
        if back.get("failed"):
            result["msg"] += f"\nand the traffic could not be taken back: {back.get('msg')}"
        return result

    def _take_back(self, leaves: str) -> dict[str, Any]:
        """Give the live release all traffic. Raises AnsibleConnectionFailure where the host is not to be reached."""
        arguments = {"stack": self._given["stack"], **self._given["back"], "leaves": leaves}
        for number, pause in enumerate(TRIES):
            time.sleep(pause)
            try:
                return self._module("swiftdeploy_route", arguments)
            except AnsibleConnectionFailure:
                if number == len(TRIES) - 1:
                    raise
                self._connect_anew()
        raise AssertionError("there is no try")

    def _connect_anew(self) -> None:
        """Let go of a connection that is dead, so that the next task opens another."""
        with contextlib.suppress(Exception):
            self._connection.reset()

    def _hold(self, began: float, found: dict[str, Any]) -> str:
        window, deadline = self._given["window_seconds"], self._given["deadline_seconds"]
        tick, until, first = canary.tick_seconds(window), 0.0, None
        sent = 0
        while True:
            until = until + tick if until + tick < window - 0.01 or until >= window else window
            due = canary.probes_due(self._count(), window, until, sent)
            first, elapsed = self._look(until, first, due, found), time.monotonic() - began
            sent += due
            whole = until >= window
            found["policy"] = {"canary": self._ask(found, whole)}
            word = canary.verdict(
                found["policy"]["canary"],
                whole=whole,
                elapsed=elapsed,
                deadline=deadline,
                failure_policy=self._given["failure_policy"],
            )
            line = canary.progress(
                self._given["place"], None if until > window else window - elapsed, found["evidence"]
            )
            host = str(self._variables.get("inventory_hostname"))
            if not progress.tell(host, line):
                self._display.display(f"  {host}  {line}")
            if word != "hold":
                return word

    def _count(self) -> int:
        return int((self._given["probes"] or {}).get("count", 0))

    def _look(self, until: float, first: list[Any] | None, due: int, found: dict[str, Any]) -> list[Any]:
        """Measure until ``until`` seconds after the first look; answers that look's samples. Raises HoldError."""
        arguments = {
            **self._given["measurement"],
            "window_seconds": until,
            "watch": [{"slot": self._given["slot"], **self._given["watch"], "failures": self._failures}],
        }
        if self._given["probes"]:
            # Where none is due, those of earlier looks are still to be found in the log.
            arguments["probes"] = {**self._given["probes"], "count": due, "slots": ["canary", "stable"]}
            arguments["probes_before"] = self._sent
        if first is not None:
            arguments["first_samples"] = first
        measured = self._action("swiftdeploy_metrics", arguments)
        if measured.get("failed") or measured.get("unreachable"):
            raise HoldError(f"the canary cannot be measured: {measured.get('msg', 'no reason was given')}")
        self._sent = measured["probes"]
        found["evidence"] = measured["evidence"][self._given["slot"]]
        found["baseline_evidence"] = measured["evidence"][self._given["baseline"]]
        # A look may be shorter than what a slot needs to be found dead.
        self._failures = measured["failures"].get(self._given["slot"], 0)
        for slot, why in measured["unhealthy"].items():
            self._died = True
            raise HoldError(f"the canary in {slot} became unhealthy at {self._given['place']['weight']} %: {why}")
        return first if first is not None else list(measured["first"])

    def _ask(self, found: dict[str, Any], whole: bool) -> dict[str, Any]:
        question = {
            **self._given["question"],
            "evidence": found["evidence"],
            "baseline": found["baseline_evidence"],
            "partial": not whole,
        }
        asked = self._module(
            "swiftdeploy_opa", {**self._given["opa"], "queries": [{"domain": "canary", "input": question}]}
        )
        if "decisions" not in asked:
            raise HoldError(f"the policy engine cannot be asked: {asked.get('msg', 'no reason was given')}")
        return dict(asked["decisions"]["canary"])

    def _reason(self, found: dict[str, Any]) -> str:
        decision = found["policy"]["canary"]
        words = "\n".join(decision["reasons"])
        if decision["outcome"] == "denied":
            return words
        return f"{words}\nand so it stayed for {self._given['deadline_seconds']:g} s (canary.deadline_seconds)"

    def _module(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return dict(self._execute_module(module_name=name, module_args=arguments, task_vars=self._variables))

    def _action(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        task = self._task.copy()
        task.action, task.args = name, arguments
        plugin = self._shared_loader_obj.action_loader.get(
            name,
            task=task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        return dict(plugin.run(task_vars=self._variables))
