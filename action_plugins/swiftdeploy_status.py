# Apache-2.0 (see LICENSE)
"""One refresh of the status: see library/swiftdeploy_status.py for its documentation."""

from __future__ import annotations

import os
import shlex
from typing import Any, ClassVar

from ansible import constants
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase

try:
    from swiftdeploy import display, history, measurement, status
except ImportError as error:
    raise AnsibleActionFail(
        "the swiftdeploy package is not installed for this Ansible: run `make setup`, "
        "or `pip install -r requirements.txt` in the repository"
    ) from error

FIRST_WINDOW = 3.0


class UnansweredError(Exception):
    """The host gives no answer; the message says why."""


class ActionModule(ActionBase):
    """Composes the modules that look, measure and ask. Changes nothing."""

    TRANSFERS_FILES = False

    # Samples of earlier refreshes. A retried task makes a new object in the same process.
    _kept: ClassVar[dict[str, list[Any]]] = {}

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Answer what is documented as RETURN."""
        super().run(tmp, task_vars)
        variables = task_vars or {}
        if self._task.args.get("watch") is not None:
            return self._begin(self._task.args["watch"], variables.get("swiftdeploy_history"))
        arguments = self._task.args
        context, service = arguments["context"], arguments["manifest"]["services"]["name"]
        if os.getppid() != context["pid"]:
            # The run was killed, and nobody reads what is found any more. Without this its retries would go on.
            raise SystemExit
        host = str(variables["inventory_hostname"])
        limit = f" --limit {shlex.quote(host)}" if len(variables.get("ansible_play_hosts_all") or ()) > 1 else ""
        found: dict[str, Any] | None = None
        try:
            found = self._look(arguments, variables)
            view = status.view(host, status.now(), **found, manifest=arguments["manifest"], limit=limit)
            event = status.event(host, found["seen"]["observed"], found["evidence"], found["policy"])
        except UnansweredError as problem:
            view = status.unanswered(host, status.now(), service, str(problem), limit)
            event = status.unanswered_event(host, service, str(problem))
        return {
            "changed": False,
            "status": found
            and {"observed": found["seen"]["observed"], **{k: found[k] for k in ("evidence", "policy")}},
            "swiftdeploy_status": view,
            "swiftdeploy_event": {
                **event,
                "reason": event["reason"] or status.broken(view),
                "run_id": context["run_id"],
                "actor": context["actor"],
                "timestamp": view["at"],
                "check": self._task.check_mode,
            },
        }

    def _begin(self, watch: dict[str, Any], own_history: object) -> dict[str, Any]:
        """Tell the callback how this run is to be shown, or why it cannot be."""
        hosts = [str(name) for name in watch["hosts"]]
        problem = status.refusal(
            str(watch["format"]), bool(watch["once"]), int(watch["interval"]), len(hosts), int(watch["forks"])
        )
        if problem:
            return {"failed": True, "msg": problem}
        try:
            path = constants.config.get_config_value("path", plugin_type="callback", plugin_name="swiftdeploy_history")
        except AnsibleError:
            # The callback is not loaded: the task that looks for the record says so.
            path = None
        # What is wrong in the variable is said by the task that looks for the record.
        own = self._templar.template(own_history)
        path = own if isinstance(own, str) and own else path
        return {
            "changed": False,
            "swiftdeploy_watch": {**watch, "hosts": hosts, "history": str(history.default_path(path))},
        }

    def _look(self, arguments: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """One refresh: {"seen", "evidence", "policy"}. Raises UnansweredError."""
        try:
            seen = self._module("swiftdeploy_stack", arguments["stack"], variables)
            if seen.get("failed"):
                raise UnansweredError("; ".join(display.failure_lines(seen, "look at the host")))
            stops = status.engine_problem(seen) or "\n".join(seen["strangers"])
            if stops:
                raise UnansweredError(stops)
            observed, options = seen["observed"], seen["options"]
            evidence = self._evidence(observed, options, arguments, variables)
            policy = self._policy(observed, evidence, options, arguments, variables) if observed["live"] else {}
        except AnsibleConnectionFailure as error:
            words = display.unreachable_words({"msg": str(error)})
            raise UnansweredError(display.unreachable_reason(words)) from None
        except AnsibleError as error:
            raise UnansweredError("; ".join(display.failure_lines({"msg": str(error)}, "look at the host"))) from None
        return {"seen": seen, "evidence": evidence, "policy": policy}

    def _module(self, name: str, arguments: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        return dict(self._execute_module(module_name=name, module_args=arguments, task_vars=variables))

    def _evidence(
        self,
        observed: dict[str, Any],
        options: dict[str, Any],
        arguments: dict[str, Any],
        variables: dict[str, Any],
    ) -> dict[str, Any]:
        host = str(variables["inventory_hostname"])
        manifest = arguments["manifest"]
        running = [name for name in ("blue", "green") if observed["slots"][name]["address"]]
        if not running:
            return {}
        kept = self._kept.setdefault(host, [])
        earlier = kept[0] if kept else None
        task = self._task.copy()
        task.action = "swiftdeploy_metrics"
        task.args = {
            **measurement.arguments(manifest, observed, running, options["base_url"]),
            "window_seconds": 0 if earlier else FIRST_WINDOW,
            # For the gate of a later run.
            "kept": measurement.kept(manifest, observed, options["stack_dir"], use=False),
        }
        if earlier:
            task.args["first_samples"] = earlier
        if int(arguments["probes"]) > 0:
            task.args["probes"] = measurement.probes(
                manifest, options["base_url"], arguments["context"]["run_id"], count=int(arguments["probes"])
            )
        plugin = self._shared_loader_obj.action_loader.get(
            "swiftdeploy_metrics",
            task=task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        result = plugin.run(task_vars=variables)
        if result.get("failed"):
            words = str(result.get("msg", "the measurement failed"))
            return {name: {"slot": name, "status": "unavailable", "detail": words} for name in running}
        self._remember(host, result["samples"], float(manifest["canary"]["window_seconds"]))
        return dict(result["evidence"])

    def _remember(self, host: str, samples: Any, window: float) -> None:
        """Keep the samples of one window, so that every refresh judges about as long a time as a gate does."""
        kept = self._kept[host]
        kept.append(samples)
        newest = _time_of(samples)
        while len(kept) > 1 and newest - _time_of(kept[1]) >= window:
            kept.pop(0)

    def _policy(
        self,
        observed: dict[str, Any],
        evidence: dict[str, Any],
        options: dict[str, Any],
        arguments: dict[str, Any],
        variables: dict[str, Any],
    ) -> dict[str, Any]:
        manifest, host = arguments["manifest"], str(variables["inventory_hostname"])
        beside = observed["state"]["canary"]
        # What a promotion would ask: of a canary that has traffic, held against the live release.
        judged, baseline = (
            (beside["slot"], observed["live"]) if beside and beside["weight"] else (observed["live"], None)
        )
        release = observed["state"]["slots"][judged] or {}
        common = {
            "environment": arguments["environment"],
            "action": "status",
            "host": host,
            "service": manifest["services"]["name"],
            "version": release.get("version"),
            "mode": release.get("mode"),
            "actor": arguments["context"]["actor"],
            "timestamp": arguments["context"]["started"],
        }
        asked = self._module(
            "swiftdeploy_opa",
            {
                "url": options["opa_url"],
                "timeout": manifest["opa"]["timeout"],
                "queries": [
                    {
                        "domain": "infrastructure",
                        "input": common,
                        "facts_of": {"path": options["stack_dir"], "engine_path": options.get("engine_root") or ""},
                    },
                    {
                        "domain": "canary",
                        "input": {
                            **common,
                            "evidence": evidence.get(judged, {}),
                            **({"baseline": evidence.get(baseline, {})} if baseline else {}),
                            "min_requests": manifest["canary"]["min_requests"],
                        },
                    },
                ],
            },
            variables,
        )
        if "decisions" not in asked:
            why = "; ".join(display.failure_lines(asked, "ask the policy engine"))
            return {"policies": {"outcome": "unavailable", "reasons": [why]}}
        return dict(asked["decisions"])


def _time_of(samples: Any) -> float:
    return max((float(sample.get("at") or 0.0) for sample in samples), default=0.0)
