# Apache-2.0 (see LICENSE)
"""Filters of SwiftDeploy: thin adapters over the installed package."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

try:
    from swiftdeploy import launch, release, rendering, words
    from swiftdeploy_target import state
except ImportError as error:  # pragma: no cover
    raise AnsibleFilterError(
        "the swiftdeploy package is not installed for this Ansible: run `make setup`, "
        "or `pip install -r requirements.txt` in the repository"
    ) from error


def sd_policy_files(folder: str) -> list[dict[str, str]]:
    """The policies below ``folder`` without their tests: [{"path", "content"}], sorted."""
    root = Path(folder)
    wanted = [
        path
        for pattern in ("*.rego", "data.json", "data.yaml", "data.yml")
        for path in root.rglob(pattern)
        if not path.name.endswith("_test.rego")
    ]
    if not wanted:
        raise AnsibleFilterError(f"there is no policy below {folder}")
    return [
        {"path": str(path.relative_to(root)), "content": path.read_text(encoding="utf-8")} for path in sorted(wanted)
    ]


def sd_below(files: list[dict[str, str]], folder: str) -> list[dict[str, str]]:
    """The same files below ``folder``."""
    return [{**entry, "path": f"{folder}/{entry['path']}"} for entry in files]


def sd_program_files(wanted: dict[str, Any], program: str, stack_dir: str, supervisord: str) -> list[dict[str, str]]:
    """All files that the process runtime needs to start ``program`` with ``wanted`` {"argv", "cwd", "env"}."""
    described = json.dumps({**wanted, "mark": stack_dir}, indent=2, sort_keys=True, default=str) + "\n"
    empty = [f"{folder}/.keep" for folder in ("run", "logs", "tmp", f"slots/{program}")]
    return [
        {"path": "launch.py", "content": Path(launch.__file__).read_text(encoding="utf-8"), "mode": "0644"},
        {"path": "supervisord.conf", "content": supervisord, "mode": "0644"},
        # It may hold secrets.
        {"path": f"programs/{program}.json", "content": described, "mode": "0600"},
        *({"path": path, "content": "", "mode": "0644"} for path in empty),
    ]


def sd_env_file_pair(pair: tuple[str, str]) -> str:
    """A (name, value) pair as a line of an env file."""
    try:
        return rendering.env_file_line(*pair)
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error


def sd_secrets(given: dict[str, str], names: list[str]) -> dict[str, str]:
    """The value of each named secret: from ``given`` (a vault), else from the controller's environment."""
    found = {name: given.get(name, os.environ.get(name)) for name in names}
    missing = sorted(name for name, value in found.items() if value is None)
    if missing:
        raise AnsibleFilterError(
            f"no value for the secrets {', '.join(missing)} that services.secrets names: "
            "set them in the environment, or in swiftdeploy_secrets from a vault"
        )
    return {name: str(value) for name, value in found.items()}


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


def sd_query(domain: str, common: dict[str, Any], evidence: dict[str, Any]) -> dict[str, Any]:
    """One query for swiftdeploy_opa: what every question carries, and what this one needs."""
    return {"domain": domain, "input": {**common, **evidence.get(domain, {})}}


def sd_outcome(plan: dict[str, Any], operation: str, host: str, check: bool) -> dict[str, Any]:
    """What an operation records and says."""
    return words.outcome(plan, operation, host, check=check)


def sd_refusal(reason: str, host: str, denied: bool) -> str:
    """What an operation says that was not done."""
    return words.refusal(reason, host, denied=denied)


def sd_decisions(asked: dict[str, Any], check: bool) -> str:
    """All decisions in one line for a person."""
    return words.decisions(asked, check=check)


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
            "sd_compose": rendering.compose_value,
            "sd_env_file_line": rendering.env_file_line,
            "sd_hash": rendering.content_hash,
            "sd_stamp": rendering.stamp,
            "sd_spec": release.make_spec,
            "sd_release": release.make_release,
            "sd_same_code": release.same_code,
            "sd_environment": release.environment_of,
            "sd_last_good": state.last_good,
            "sd_plan": release.plan,
            "sd_policy_files": sd_policy_files,
            "sd_below": sd_below,
            "sd_program_files": sd_program_files,
            "sd_env_file_pair": sd_env_file_pair,
            "sd_secrets": sd_secrets,
            "sd_chaos_body": sd_chaos_body,
            "sd_query": sd_query,
            "sd_decisions": sd_decisions,
            "sd_with": sd_with,
            "sd_outcome": sd_outcome,
            "sd_refusal": sd_refusal,
            "sd_address": words.address,
            "sd_chaos_reason": words.chaos_reason,
        }
