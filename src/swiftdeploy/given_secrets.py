"""Secrets as the controller has them: which are missing, which no program could have, and how they travel."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from swiftdeploy_target import secret_values

WHERE = "the environment of this command and the variable swiftdeploy_secrets (a vault)"


def _value(given: Mapping[str, Any], name: str) -> str | None:
    found = given.get(name, os.environ.get(name))
    return None if found is None else str(found)


def packed(given: Mapping[str, Any], names: Iterable[str]) -> str:
    """The values of the named secrets as a module takes them: from ``given`` (a vault), else from the environment.

    Those that are missing are left out: ``problems`` and ``not_kept`` have told of them before.
    """
    found = {name: _value(given, name) for name in names}
    return secret_values.pack({name: value for name, value in found.items() if value is not None})


def _none(names: list[str], looked: str) -> str:
    """That some have no value, in one sentence."""
    secrets = f"the secret {names[0]}" if len(names) == 1 else f"the secrets {', '.join(names)}"
    return f"no value for {secrets} of services.secrets: looked in {looked}."


def problems(given: Mapping[str, Any], names: Iterable[str], runtime: str) -> list[str]:
    """Everything that is wrong with the values of ``names`` before a release is started with them in ``runtime``."""
    found = {name: _value(given, name) for name in names}
    missing = sorted(name for name, value in found.items() if value is None)
    unusable = (secret_values.unusable(name, value, runtime) for name, value in found.items() if value is not None)
    told = [_none(missing, WHERE)] if missing else []
    return told + [f"{words}." for words in unusable if words]


def not_kept(release: Mapping[str, Any], kept: Mapping[str, Iterable[str]], given: Mapping[str, Any]) -> list[str]:
    """What keeps ``release`` from being started again: secrets whose values are neither on the host nor here.

    ``kept``: names of the secrets whose values the host keeps, by release. A release that was started before values
    were kept has none there.
    """
    there = set(kept.get(release["id"], ()))
    missing = sorted(name for name in release["spec"]["secrets"] if name not in there and _value(given, name) is None)
    return [_none(missing, f"what the host kept of release {release['id']}, {WHERE}")] if missing else []
