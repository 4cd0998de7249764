# Apache-2.0 (see LICENSE)
"""Filters of SwiftDeploy: thin adapters over the installed package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

try:
    from swiftdeploy import (
        canary,
        decisions,
        display,
        fleet,
        given_secrets,
        measurement,
        others,
        policies,
        release,
        removal,
        rendering,
        starting,
        words,
    )
    from swiftdeploy_target import images as host_images
    from swiftdeploy_target import names
    from swiftdeploy_target import state as host_state
except ImportError as error:  # pragma: no cover
    raise AnsibleFilterError(
        "the swiftdeploy package is not installed for this Ansible: run `make setup`, "
        "or `pip install -r requirements.txt` in the repository"
    ) from error


def sd_policy_files(folder: str) -> list[dict[str, str]]:
    """The policies below ``folder`` without their tests, as the bundle that OPA loads: [{"path", "content"}]."""
    try:
        return policies.bundle(policies.policy_files(Path(folder)))
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error


def sd_serial(serial: Any) -> list[int | str]:
    """``swiftdeploy_serial`` as Ansible's own: how many hosts are done at a time."""
    found = fleet.sizes(serial)
    if found is None:
        raise AnsibleFilterError(fleet.no_sizes(serial))
    return found


def sd_below(files: list[dict[str, str]], folder: str) -> list[dict[str, str]]:
    """The same files below ``folder``."""
    return [{**entry, "path": f"{folder}/{entry['path']}"} for entry in files]


def sd_walk(
    settings: dict[str, Any], observed: dict[str, Any], spec: dict[str, Any], pause_at: Any, resume: bool
) -> dict[str, Any]:
    """The weights that a promotion to canary walks, or {"problem": why it cannot}."""
    state, present = observed["state"], observed["state"]["canary"]
    live = state["slots"].get(state["live"])
    if live is not None and release.same_release(live, spec):
        return {"steps": [], "final": 100}
    held = state["slots"].get(present["slot"]) if present else None
    same = held is not None and release.same_release(held, spec)
    try:
        return canary.walk(settings, present, same=same, pause_at=str(pause_at), resume=resume)
    except canary.WalkError as error:
        return {"problem": str(error)}


def sd_plan(
    observed: dict[str, Any], spec: dict[str, Any], time: str, weight: int, manifest: dict[str, Any]
) -> dict[str, Any]:
    """Where a release goes and what has to be done for it; its own settings of nginx are those of ``manifest``."""
    return release.plan(observed, spec, time, weight, release.proxy_of(manifest))


def sd_metrics_path(spec: dict[str, Any], otherwise: str) -> str:
    """Where the release of ``spec`` shows its metrics, "" for nowhere; ``otherwise`` where its record does not say."""
    return str((spec.get("metrics") or {}).get("path", otherwise))


def sd_timings(result: dict[str, Any]) -> dict[str, float]:
    """What a module says of its times: the keys that end with _s."""
    return {key: value for key, value in result.items() if key.endswith("_s") and isinstance(value, int | float)}


def sd_chaos_body(words: list[str]) -> dict[str, Any]:
    """[mode, rate, duration] of the command line as the body that the service takes; empty ones are left out."""
    mode, rate, duration = words
    body: dict[str, Any] = {"mode": mode}
    for name, word in (("rate", rate), ("duration", duration)):
        if word:
            try:
                body[name] = float(word)
            except ValueError:
                raise AnsibleFilterError(f"{name} must be a number, found {word!r}") from None
    return body


def sd_query(domain: str, common: dict[str, Any], evidence: dict[str, Any], measured: dict[str, Any]) -> dict[str, Any]:
    """One query for swiftdeploy_opa: what every question carries, what this one needs, and what is measured for it."""
    return {"domain": domain, "input": {**common, **evidence.get(domain, {})}, **measured.get(domain, {})}


def sd_images(images: dict[str, dict[str, Any]]) -> list[dict[str, str]]:
    """What the image policy is asked about: {role: {"name"}} as [{"role", "name", "registry", "repository", ...}]."""
    try:
        return [{"role": role, **host_images.whole_name(str(image["name"]))} for role, image in images.items()]
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error


def sd_override_said(override: dict[str, Any]) -> str:
    """What a person is told of an accepted override."""
    return decisions.loud(override)


def sd_outcome(plan: dict[str, Any], operation: str, host: str, check: bool) -> dict[str, Any]:
    """What an operation records and says."""
    return words.outcome(plan, operation, host, check=check)


def sd_refusal(reason: str, host: str, denied: bool, operation: str, in_step: bool = False) -> str:
    """What an operation says that was not done."""
    return words.refusal(reason, host, denied=denied, operation=operation, in_step=in_step)


def sd_decisions(asked: dict[str, Any], stops: bool = False) -> str:
    """All decisions in one line for a person."""
    return words.decisions(asked, stops)


def sd_with(decisions: dict[str, Any], outcomes: list[str]) -> list[dict[str, Any]]:
    """The decisions that have one of ``outcomes``."""
    return [decision for decision in decisions.values() if decision["outcome"] in outcomes]


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {
            "sd_nginx_string": rendering.nginx_string,
            "sd_nginx_json": rendering.nginx_json,
            "sd_underscored": rendering.underscored,
            "sd_compose": rendering.compose_value,
            "sd_hash": rendering.content_hash,
            "sd_volume": names.volume,
            "sd_stamp": rendering.stamp,
            "sd_spec": release.make_spec,
            "sd_as_released": release.as_released,
            "sd_asked": release.asked,
            "sd_deploy_problem": release.deploy_problem,
            "sd_stable_problem": release.stable_problem,
            "sd_after_rollback": words.after_rollback,
            "sd_served": release.served,
            "sd_same_code": release.same_code,
            "sd_drift": release.drift,
            "sd_environment": release.environment_of,
            "sd_last_good": host_state.last_good,
            "sd_plan": sd_plan,
            "sd_policy_files": sd_policy_files,
            "sd_policy_revision": policies.revision,
            "sd_loaded_path": policies.loaded_path,
            "sd_opa_survey": starting.opa_survey,
            "sd_as_listed": starting.as_listed,
            "sd_folders": starting.folders_of,
            "sd_below": sd_below,
            "sd_program_files": starting.program_files,
            "sd_slot_files": starting.slot_files,
            "sd_goal": release.goal,
            "sd_shares": release.shares,
            "sd_addressed": release.addressed,
            "sd_walk": sd_walk,
            "sd_timings": sd_timings,
            "sd_metrics_path": sd_metrics_path,
            "sd_measurement": measurement.arguments,
            "sd_probes": measurement.probes,
            "sd_samples": measurement.kept,
            "sd_measured": measurement.told,
            "sd_no_target": words.no_target,
            "sd_kept": host_state.kept,
            "sd_promoted": words.promoted,
            "sd_moved": words.moved,
            "sd_secrets": given_secrets.packed,
            "sd_secret_problems": given_secrets.problems,
            "sd_secrets_not_kept": given_secrets.not_kept,
            "sd_chaos_body": sd_chaos_body,
            "sd_query": sd_query,
            "sd_decisions": sd_decisions,
            "sd_dry_decisions": words.dry_decisions,
            "sd_with": sd_with,
            "sd_images": sd_images,
            "sd_new_images": decisions.new_images,
            "sd_unasked": decisions.unasked,
            "sd_overridden": decisions.overridden,
            "sd_override_said": sd_override_said,
            "sd_override_summary": decisions.summary,
            "sd_outcome": sd_outcome,
            "sd_refusal": sd_refusal,
            "sd_reason": words.reason,
            "sd_summary": words.summary,
            "sd_address": words.address,
            "sd_removal": removal.asked,
            "sd_kept_data": removal.kept,
            "sd_chaos_reason": words.chaos_reason,
            "sd_logs": others.logs,
            "sd_unreachable": display.unreachable_reason,
            "sd_fleet_problems": fleet.problems,
            "sd_fleet_order": fleet.order,
            "sd_fleet_batches": fleet.batches,
            "sd_fleet_places": fleet.places,
            "sd_fleet_serial": fleet.serial,
            "sd_serial": sd_serial,
            "sd_fleet_stops": fleet.stops,
            "sd_fleet_backwards": fleet.backwards,
            "sd_fleet_tally": fleet.tally,
            "sd_fleet_done": fleet.done,
            "sd_fleet_settled": fleet.settled,
            "sd_fleet_modes": fleet.modes,
            "sd_fleet_failed": fleet.failed,
            "sd_fleet_fields": fleet.fields,
            "sd_fleet_summary": fleet.summary,
        }
