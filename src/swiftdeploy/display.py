"""What a person sees of a run: one line a step with its time, then one summary a host.

Knows nothing of Ansible: the callback plugin `swiftdeploy` hands in what happened and a function that prints.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

# Show(text, kind); kind is one of step, error, warning, good, plain.
Show = Callable[[str, str], None]

STEP_WIDTH = 46
SUMMARY_WIDTH = 100
OUTPUT_LINES = 10
FAILED_ITEMS = 20

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)?", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_CRASHES = ("MODULE FAILURE", "Module failed:", "Module result deserialization failed")


def clean(text: object) -> str:
    """Text from outside without anything that steers a terminal; newlines stay."""
    return _CONTROL.sub("", _ESCAPES.sub("", str(text).replace("\r\n", "\n"))).replace("\t", "    ")


def _shorten(text: str) -> str:
    """The whole of it stands in the lines above."""
    return text if len(text) <= SUMMARY_WIDTH else text[: SUMMARY_WIDTH - 1] + "…"


def can_show(symbols: str, encoding: str | None) -> bool:
    """Whether an output of this encoding can print the symbols."""
    try:
        symbols.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def task_words(name: str) -> str:
    """A task's name without the role it stands in."""
    return clean(name.rsplit(" : ", 1)[-1].strip()) or "a task"


def failure_lines(result: Mapping[str, object], what: str) -> list[str]:
    """Why a task failed, for a person: at least one line."""
    items = result.get("results")
    if isinstance(items, list):
        failed = [item for item in items if isinstance(item, Mapping) and item.get("failed")]
        lines = [line for item in failed[:FAILED_ITEMS] for line in _one_failure(item, what)]
        if len(failed) > FAILED_ITEMS:
            lines.append(f"… and {len(failed) - FAILED_ITEMS} more")
        if lines:
            return lines
    return _one_failure(result, what)


def _one_failure(result: Mapping[str, object], what: str) -> list[str]:
    if "censored" in result:
        return ["the reason is hidden, because the task has no_log"]
    message = result.get("msg")
    text = clean("\n".join(map(str, message)) if isinstance(message, list) else message or "").strip()
    if any(mark in text for mark in _CRASHES):
        cause = text.split("Module failed:", 1)[-1].strip().splitlines() if "Module failed:" in text else []
        because = f": {cause[0]}" if cause else ""
        return [f"internal error in {what}{because}; ANSIBLE_DISPLAY_TRACEBACK=error and -v show the traceback"]
    text = text.removeprefix("Task failed: ").removeprefix("Action failed: ")
    lines = text.splitlines() or ["no reason given; run with -v"]
    if text == "non-zero return code":
        lines = [f"a command ended with status {result.get('rc')}", *_output_tail(result)]
    return lines


def _output_tail(result: Mapping[str, object]) -> list[str]:
    for key in ("stderr", "stdout"):
        lines = clean(result.get(key) or "").strip().splitlines()
        if lines:
            return lines[-OUTPUT_LINES:]
    return []


def unreachable_words(result: Mapping[str, object]) -> str:
    """Why a host cannot be reached, one line."""
    text = clean(result.get("msg") or "").removeprefix("Task failed: ").strip()
    return " ".join(text.split()) or "no answer"


@dataclass(frozen=True)
class Failure:
    """A failed task. `sticky`: no summary may hide it."""

    what: str
    lines: list[str]
    sticky: bool


class Screen:
    """Prints steps as they come, keeps failures and summaries for the end.

    `details` false prints the summaries alone: something else shows steps and failures.
    """

    def __init__(
        self, show: Show, symbols: bool, details: bool = True, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._show = show
        self._details = details
        self._tick, self._cross = ("✓", "✗") if symbols else ("ok", "failed")
        self._clock = clock
        self._start = clock()
        self._width = 0
        self._since: dict[str, float] = {}
        # What has not been shown yet. Order of the hosts is that of their first appearance.
        self._hosts: dict[str, None] = {}
        self._failures: dict[str, list[Failure]] = {}
        self._summaries: dict[str, tuple[str, bool]] = {}
        self._unreachable: dict[str, str] = {}

    def host(self, name: str) -> None:
        """A host takes part: the columns make room for its name."""
        self._width = max(self._width, len(name))
        self._hosts.setdefault(name, None)

    def step(self, host: str, text: object) -> None:
        """A step is done."""
        self.host(host)
        if not self._details:
            return
        now = self._clock()
        took = now - self._since.get(host, self._start)
        self._since[host] = now
        first, *rest = clean(text).splitlines() or [""]
        self._show(f"{self._tick} {host:<{self._width}}  {first:<{STEP_WIDTH}}  {took:.1f} s", "step")
        for line in rest:
            self._show(f"    {line}", "plain")

    def failure(self, host: str, what: str, lines: list[str], sticky: bool = False) -> None:
        """A task failed; whether that matters shows at the end."""
        self.host(host)
        self._failures.setdefault(host, []).append(Failure(what, lines, sticky))

    def unreachable(self, host: str, why: str) -> None:
        """A host is lost to this run."""
        self.host(host)
        self._unreachable[host] = why
        if self._details:
            self._show(f"{self._cross} {host:<{self._width}}  unreachable: {why}", "error")

    def event(self, host: str, event: Mapping[str, object]) -> None:
        """An event was recorded; its summary, if it has one, speaks for what failed before."""
        summary = event.get("summary")
        if not isinstance(summary, str) or not summary.strip():
            return
        self.host(host)
        bad = str(event.get("event")).endswith(("_blocked", "_failed"))
        self._summaries[host] = (clean(summary).rstrip(), bad)
        self._failures[host] = [failure for failure in self._failures.get(host, []) if failure.sticky]

    def finish(self, failed: Iterable[str] | None = None) -> None:
        """The end: failures that no summary speaks for, then one summary a host.

        `failed` are the hosts whose play failed; None when that is not known (the run was interrupted).
        """
        lost = set(self._failures if failed is None else failed)
        open_failures = {host: self._open(host) for host in self._hosts if host in lost}
        for host, failures in open_failures.items():
            for failure in failures if self._details else []:
                self._show(f"{self._cross} {host:<{self._width}}  {failure.what}", "error")
                for line in failure.lines:
                    self._show(f"    {line}", "plain")
        for host in self._hosts:
            self._summarise(host, host in lost, open_failures.get(host, []))
        self._failures.clear()
        self._summaries.clear()
        self._unreachable.clear()

    def _open(self, host: str) -> list[Failure]:
        """Failures to show: all of them, but after a summary that already says it went wrong only sticky ones."""
        _text, bad = self._summaries.get(host, ("", False))
        return [failure for failure in self._failures.get(host, []) if failure.sticky or not bad]

    def _summarise(self, host: str, lost: bool, failures: list[Failure]) -> None:
        text, bad = self._summaries.get(host, ("", False))
        if host in self._unreachable and not bad:
            self._show(f"UNREACHABLE  {host}  {self._unreachable[host]}", "error")
        elif failures:
            self._show(f"FAILED  {host}  {_shorten(failures[-1].lines[0])}", "error")
        elif lost and not bad:
            self._show(f"FAILED  {host}  run with -v to see why", "error")
        elif text:
            self._show(text, "error" if bad else "good")
