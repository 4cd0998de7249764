"""One past decision, told from the history: what was asked, against which limits, and what was answered.

`find` looks it up by the id that OPA gave it, `text` tells it to a person, `bundle` is a folder with which
``opa eval`` decides it once more. The policies themselves are kept beside the history (`swiftdeploy.policy_store`),
named by the revision that the decision carries.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swiftdeploy import history, untrusted

# Shorter beginnings of an id could be anything.
SHORTEST = 8
# Letters of one value that are told; the folder holds all of it.
SHOWN = 2000
# What every question carries; the rest is evidence.
_ASKED = ("environment", "action", "host", "service", "version", "mode", "actor", "timestamp", "weight", "partial")
# Told with the thresholds, but no threshold.
_ABOUT_LIMITS = ("environment", "source")


class NotFoundError(Exception):
    """There is no such decision; the message is for a person."""


@dataclass(frozen=True)
class Decision:
    """A decision as the history holds it: the record (one line), the policy domain, and its entry in ``policy``."""

    record: Mapping[str, Any]
    domain: str
    answer: Mapping[str, Any]

    @property
    def id(self) -> str:
        """OPA's id of it."""
        return str(self.answer["decision_id"])

    @property
    def revision(self) -> str | None:
        """Which policies decided, None where the record does not say."""
        found = self.answer.get("policy_revision")
        return found if isinstance(found, str) else None


def _decisions(record: Mapping[str, Any]) -> Iterable[Decision]:
    policy = record.get("policy")
    for domain, answer in policy.items() if isinstance(policy, Mapping) else ():
        # The id names a folder, the domain a word of a command: what is neither is no decision of ours.
        if isinstance(answer, Mapping) and untrusted.decision_id(answer.get("decision_id")) and domain.isidentifier():
            yield Decision(record, domain, answer)


def find(path: str | os.PathLike[str], wanted: str) -> Decision:
    """The decision whose id is or begins with ``wanted`` (8 letters at least), in one pass over the history.

    A decision that several lines carry (a step, and the promotion that it ended) is told by the first of them.
    Raises NotFoundError, and as `history.scan` does.
    """
    if untrusted.decision_id(wanted) is None:
        raise NotFoundError(
            f"decision is {wanted!r}; it must be a decision id, or the first {SHORTEST} letters or more of one. "
            "The audit report lists them"
        )
    found: dict[str, Decision] = {}
    for line in history.scan(path):
        if line.record is None:
            continue
        for decision in _decisions(line.record):
            if decision.id == wanted:
                return decision
            if decision.id.startswith(wanted):
                found.setdefault(decision.id, decision)
    if not found:
        raise NotFoundError(f"no decision {wanted} is in {path}. The audit report lists the decisions that are")
    if len(found) > 1:
        raise NotFoundError(
            f"{wanted} is the beginning of {len(found)} decisions, give more of it: {', '.join(sorted(found)[:5])}"
        )
    return next(iter(found.values()))


# --- telling ---------------------------------------------------------------------------------------------


def _plain(value: Any) -> str:
    """A value on one line, bounded and without what could act on a terminal."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return untrusted.cut(untrusted.UNSAFE_ON_A_LINE.sub(" ", text), SHOWN)


def _rows(pairs: Iterable[tuple[str, Any]], width: int = 0) -> list[str]:
    told = [(name, _plain(value)) for name, value in pairs]
    width = max([width, *(len(name) for name, _text in told)])
    return [f"    {name:<{width}}  {text}" for name, text in told]


def _judged(answer: Mapping[str, Any]) -> list[str]:
    """Each figure beside its limit."""
    checked, limits = dict(answer.get("checked") or {}), dict(answer.get("thresholds") or {})
    bounds = {name: given for name, given in limits.items() if name not in _ABOUT_LIMITS}
    pairs = []
    for name in sorted({*checked, *bounds}):
        found = _plain(checked[name]) if name in checked else "not among the figures"
        limit = bounds.get(name)
        if isinstance(limit, Mapping):
            found += "   " + ", ".join(f"{word} {_plain(number)}" for word, number in sorted(limit.items()))
        elif name in bounds:
            found += f"   limit {_plain(limit)}"
        pairs.append((name, found))
    return _rows(pairs)


def _evidence(asked: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, value in asked.items():
        if name in _ASKED:
            continue
        if isinstance(value, Mapping):
            lines += [f"  {name}", *_rows(sorted(value.items()))]
        else:
            lines += [f"  {name}", f"    {_plain(value)}"]
    return lines


def text(decision: Decision, again: str | None, why_not: str = "") -> str:
    """The decision for a person; ``again`` is the command that decides it once more, or ``why_not`` there is none."""
    record, answer = decision.record, decision.answer
    asked = answer.get("input")
    lines = [
        f"decision {decision.id}",
        *_rows(
            [
                ("domain", decision.domain),
                ("outcome", answer.get("outcome")),
                ("host", record.get("host")),
                ("event", f"{record.get('event')} (line {record.get('seq')} of the history)"),
                ("time", record.get("timestamp")),
                ("actor", record.get("actor")),
                ("run", record.get("run_id")),
                ("policies", decision.revision or "this record does not say which"),
            ]
        ),
    ]
    override = answer.get("override")
    if isinstance(override, Mapping):
        lines += ["  override", *_rows(sorted(override.items()))]
    lines += ["  reasons", *(f"    {_plain(reason)}" for reason in answer.get("reasons") or ["none"])]
    limits = answer.get("thresholds") or {}
    where = f"of environment {_plain(limits.get('environment'))}, entry {_plain(limits.get('source'))}"
    lines += [f"  figures and thresholds ({where})", *_judged(answer)]
    if isinstance(asked, Mapping):
        lines += ["  asked", *_rows([(name, asked[name]) for name in _ASKED if name in asked]), *_evidence(asked)]
    else:
        lines += ["  asked", "    this record does not hold the question"]
    lines += ["  decide it again"]
    lines += [f"    {again if again else f'not possible: {why_not}'}"]
    return "\n".join(lines)


# --- deciding again --------------------------------------------------------------------------------------


def bundle(decision: Decision, policies: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """What ``opa eval`` needs, by relative path: input.json, answer.json (what was decided) and policies/.

    ``policies`` are {"path", "content"}. Raises NotFoundError where the record does not hold the question, or where a
    policy would not lie in the folder.
    """
    policies = list(policies)
    if not all(untrusted.is_below(one["path"]) for one in policies):
        raise NotFoundError("the policies that are kept for it name files outside their folder: they are not ours")
    asked = decision.answer.get("input")
    if not isinstance(asked, Mapping):
        raise NotFoundError(f"the record of decision {decision.id} does not hold the question")

    def document(value: Any) -> str:
        return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"

    return {
        "input.json": document(asked),
        "answer.json": document({key: value for key, value in decision.answer.items() if key != "input"}),
        **{f"policies/{one['path']}": one["content"] for one in policies},
    }


def command(decision: Decision, folder: Path) -> str:
    """What a person types to have it decided again."""
    place = shlex.quote(str(folder))
    return (
        f"opa eval --bundle {place}/policies --input {place}/input.json --format pretty "
        f"data.swiftdeploy.{decision.domain}.decision"
    )
