# Apache-2.0 (see LICENSE)
"""Measures on the host, then works out the evidence on the controller, where the parser is."""

from __future__ import annotations

import sys
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

try:
    from swiftdeploy import evidence
except ImportError as error:
    raise AnsibleActionFail(
        f"the swiftdeploy package is missing on {sys.executable}: run `make setup`, "
        "or `pip install -r requirements.txt` in the repository"
    ) from error


RETURNED = ("first", "first_sample", "samples", "unhealthy", "failures", "window")


class ActionModule(ActionBase):
    """Runs the module of the same name and turns its samples into one record for each slot."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Answer evidence, and RETURNED of the module.

        Failed only for wrong arguments or a lost host.
        """
        super().run(tmp, task_vars)
        arguments = {**self._task.args}
        names = arguments.pop("names", None) or {}
        interval, before = arguments.pop("health_interval", None) or 0, arguments.pop("probes_before", None)
        try:
            # What a slot's metrics are called is read on the controller.
            self._own_names = {str(one["slot"]): one["names"] for one in arguments["slots"] if one.get("names")}
            arguments["slots"] = [
                {key: value for key, value in one.items() if key != "names"} for one in arguments["slots"]
            ]
            exclude = evidence.excluded(names, arguments.get("exclude_paths") or ())
            first = arguments.get("first_samples") or []
            # The host needs to know when they were taken, not what they say.
            arguments["first_samples"] = [
                {"slot": one["slot"], "at": one["at"], "mark": one.get("mark", "")} for one in first
            ]
        except (TypeError, KeyError, AttributeError):
            return {
                "failed": True,
                "msg": "swiftdeploy_metrics: names must be the manifest's services.metrics, exclude_paths a list "
                "of strings, first_samples the samples that an earlier call returned",
            }
        arguments["exclude_paths"] = sorted(exclude)
        kept = arguments.get("kept") or {}
        self._told: dict[str, Any] = {"names": names, "exclude": exclude, "health_interval": float(interval)}
        result = self._measure(arguments, first, before, task_vars)
        if result.get("first_sample") == "kept" and not evidence.suffices(
            result["evidence"].values(), int(kept.get("min_requests", 1)), proxied=bool(arguments.get("proxy_log"))
        ):
            result = self._measure({**arguments, "kept": {**kept, "use": False}}, first, before, task_vars)
        return result

    def _measure(
        self,
        arguments: dict[str, Any],
        first: list[dict[str, Any]],
        before: dict[str, Any] | None,
        task_vars: dict[str, Any] | None,
    ) -> dict[str, Any]:
        result = self._execute_module(module_name="swiftdeploy_metrics", module_args=arguments, task_vars=task_vars)
        if "samples" not in result:
            return dict(result)
        probes = evidence.added(before, result["probes"])
        words = (arguments.get("probes") or {}).get("slots") or []
        records = evidence.records(
            first or result["first"],
            result["samples"],
            proxy=result["proxy"],
            probes=evidence.of_slots(probes, [one["slot"] for one in result["samples"]], words),
            first_sample=result["first_sample"],
            own_names=self._own_names,
            **self._told,
        )
        return {
            "changed": False,
            "evidence": records,
            **{name: result[name] for name in RETURNED},
            "probes": probes,
            "warnings": result.get("warnings", []),
        }
