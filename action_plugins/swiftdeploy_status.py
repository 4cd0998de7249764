# Apache-2.0 (see LICENSE)
"""One refresh of the status: see library/swiftdeploy_status.py for its documentation."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

try:
    from swiftdeploy import measurement, status
except ImportError as error:
    raise AnsibleActionFail(
        "the swiftdeploy package is not installed for this Ansible: run `make setup`, "
        "or `pip install -r requirements.txt` in the repository"
    ) from error

FIRST_WINDOW = 3.0


class ActionModule(ActionBase):
    """Composes the modules that look, measure and ask. Changes nothing."""

    TRANSFERS_FILES = False

    # Samples of earlier refreshes. A retried task makes a new object in the same process.
    _kept: ClassVar[dict[str, list[Any]]] = {}

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Answer what is documented as RETURN."""
        super().run(tmp, task_vars)
        variables = task_vars or {}
        arguments = self._task.args
        context = arguments["context"]
        host = str(variables["inventory_hostname"])
        seen = self._module("swiftdeploy_stack", arguments["stack"], variables)
        if seen.get("failed"):
            return {"failed": True, "msg": seen.get("msg", "the host could not be looked at")}
        observed, options = seen["observed"], seen["options"]
        evidence = self._evidence(observed, options, arguments, variables)
        policy = self._policy(observed, evidence, options, arguments, variables) if observed["live"] else {}
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        record = {
            **status.event(host, observed, evidence, policy),
            "run_id": context["run_id"],
            "actor": context["actor"],
            "timestamp": at,
            "check": self._task.check_mode,
        }
        return {
            "changed": False,
            "status": {"observed": observed, "evidence": evidence, "policy": policy},
            "swiftdeploy_event": record,
            "swiftdeploy_output": status.text(host, at, observed, evidence, policy),
        }

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
            **measurement.arguments(manifest, observed, running),
            "window_seconds": 0 if earlier else FIRST_WINDOW,
            # For the gate of a later run.
            "kept": measurement.kept(manifest, observed, options["stack_dir"], use=False),
        }
        if earlier:
            task.args["first_samples"] = earlier
        if int(arguments["probes"]) > 0:
            task.args["probes"] = {
                "url": f"{options['base_url']}/",
                "count": int(arguments["probes"]),
                "header_value": arguments["context"]["run_id"],
            }
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
        facts = self._module(
            "swiftdeploy_host_facts",
            {"path": options["stack_dir"], "engine_path": options.get("engine_root") or ""},
            variables,
        )
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
                "url": f"http://127.0.0.1:{manifest['opa']['port']}",
                "timeout": manifest["opa"]["timeout"],
                "queries": [
                    {"domain": "infrastructure", "input": {**common, "facts": facts.get("facts", {})}},
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
        return dict(asked.get("decisions", {}))


def _time_of(samples: Any) -> float:
    return max((float(sample.get("at") or 0.0) for sample in samples), default=0.0)
