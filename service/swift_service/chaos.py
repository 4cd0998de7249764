"""Fault injection: what may be asked for, and one state that every worker sees."""

from __future__ import annotations

import json
import math
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

LONGEST_DELAY = 60.0
DEFAULT_RATE = 0.5
# Which keys each mode takes beside "mode".
OPTIONS: dict[str, tuple[str, ...]] = {"slow": ("duration",), "error": ("rate",), "recover": ()}
LEVEL = {"none": 0, "slow": 1, "error": 2}


class ChaosError(ValueError):
    """The request cannot be followed; the text says why."""


@dataclass(frozen=True)
class Chaos:
    """What is injected: mode none, slow (duration in seconds) or error (rate above 0, at most 1)."""

    mode: str = "none"
    duration: float = 0.0
    rate: float = 0.0

    def describe(self) -> dict[str, str | float]:
        """The state as it is shown to people: the mode and its own option alone."""
        shown: dict[str, str | float] = {"mode": self.mode}
        for key in OPTIONS.get(self.mode, ()):
            shown[key] = getattr(self, key)
        return shown


NONE = Chaos()


def parse_chaos(body: bytes) -> Chaos:
    """Read the body of POST /chaos. Raises ChaosError with the reason for anything but a good request."""
    wanted = _read_object(body)
    mode = wanted.pop("mode", None)
    if mode is None:
        raise ChaosError('"mode" is missing, allowed are slow, error and recover')
    if not isinstance(mode, str) or mode not in OPTIONS:
        raise ChaosError(f'"mode" must be slow, error or recover, found {_shown(mode)}')
    for key in wanted:
        if key not in OPTIONS[mode]:
            allowed = " and ".join(f'"{name}"' for name in ("mode", *OPTIONS[mode]))
            raise ChaosError(f'unknown key {_shown(key)} for mode "{mode}", allowed: {allowed}')
    if mode == "slow":
        if "duration" not in wanted:
            raise ChaosError('"duration" is missing: the delay in seconds, above 0 and at most 60')
        return Chaos("slow", duration=_number(wanted, "duration", LONGEST_DELAY, " seconds"))
    if mode == "error":
        return Chaos("error", rate=_number({"rate": DEFAULT_RATE, **wanted}, "rate", 1.0, ""))
    return NONE


class ChaosFile:
    """The state in a small file, replaced whole: a reader in any worker sees the old or the new, never half.

    Only canary mode reads it for each request; a few microseconds, so no cache that could be stale.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Chaos:
        try:
            return Chaos(**json.loads(self._path.read_bytes()))
        except (OSError, ValueError, TypeError):
            return NONE

    def write(self, chaos: Chaos) -> None:
        """Replace the state; raises OSError when it cannot be stored (disk full), the old one then holds."""
        with tempfile.NamedTemporaryFile("w", dir=self._path.parent, prefix="chaos.", delete=False) as new:
            try:
                new.write(json.dumps(asdict(chaos)))
                new.flush()
                Path(new.name).replace(self._path)
            except OSError:
                with suppress(OSError):
                    Path(new.name).unlink()
                raise


def _read_object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_no_twins)
    except ChaosError:
        raise
    except (ValueError, RecursionError):
        raise ChaosError("the body is not JSON") from None
    if not isinstance(found, dict):
        raise ChaosError(f"the body must be a JSON object, found {_shown(found)}")
    return found


def _no_constant(name: str) -> float:
    raise ChaosError(f"{name} is not a JSON number")


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise ChaosError(f"the key {_shown(key)} is given twice")
    return dict(pairs)


def _number(wanted: dict[str, Any], key: str, high: float, unit: str) -> float:
    found = wanted[key]
    # In Python true is a number; in JSON it is not.
    number = isinstance(found, (int, float)) and not isinstance(found, bool)
    # Tiny numbers vanish to 0 and huge ones to infinity while being read: the range check sees both.
    if not number or not 0 < found <= high or not math.isfinite(found):
        raise ChaosError(f'"{key}" must be a number above 0 and at most {high:g}{unit}, found {_shown(found)}')
    return float(found)


def _shown(value: object) -> str:
    """A value as JSON, short enough for a message."""
    try:
        text = json.dumps(value)
    except ValueError:  # an integer too long to print
        return "a very long number"
    return text if len(text) <= 60 else text[:57] + "..."
