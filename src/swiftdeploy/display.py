"""What a person sees of a run: one line a step with its time, then one summary a host.

Knows nothing of Ansible: the callback plugin `swiftdeploy` hands in what happened and a function that prints.
"""

from __future__ import annotations

import re
import shlex
import textwrap
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from swiftdeploy.untrusted import clean, cut

# Show(text, kind); kind is one of step, error, warning, good, plain.
Show = Callable[[str, str], None]

# Columns of a step's text, so that times stand below each other; a longer text pushes its own.
STEP_WIDTH = 72
TIME_WIDTH = 10
# Columns that a folded text gets at least.
NARROW = 20
OUTPUT_LINES = 10
# Of a text from outside: letters of a line, and lines, that are shown.
LINE_LENGTH = 2000
LINES = 200
# What to do where nobody knows better.
NEXT_FAILED = "correct that and run the same command again; -v shows every task"
NEXT_SILENT = "run the same command again with -v, which shows every task"
SSH_PREFIXES = (
    r"^Task failed: ",
    r"^Failed to connect to the host via ssh: ",
    r'^Data could not be sent to remote host "[^"]*"\. Make sure this host can be reached over ssh:',
)

# What ssh says of a host whose key has changed, among many lines.
_CHANGED_KEY = re.compile(r"Host key for (\S+) has changed and you have requested strict checking")
_KNOWN_KEY = re.compile(r"Offending \S+ key in (\S+):[0-9]+")

NEXT_INTERRUPTED = "run the same command again, which goes on where this one ended"
NEXT_UNREACHABLE = (
    "ansible {host} -m ansible.builtin.ping -vvv shows how it is reached; then run the same command again, "
    "which goes on where this one ended"
)
FAILED_ITEMS = 20

# Advice names a command, or begins a clause with what to do.
_ADVICE = re.compile(
    r"^\s*next:|ansible-playbook |`make |-v show|(?:^|[:;.,] |\bor |\band )(?:then )?"
    r"(?:choose|correct|find|free|give|install|leave|make|move|put|remove|run|set|start|stop|take|use|wait|write) ",
    re.IGNORECASE,
)
_CRASHES = ("MODULE FAILURE", "Module failed:", "Module result deserialization failed")


def lines_of(text: object) -> list[str]:
    """A text from outside as the lines that are shown of it."""
    found = [cut(line, LINE_LENGTH) for line in clean(text).splitlines()]
    return found if len(found) <= LINES else [*found[:LINES], f"… and {len(found) - LINES} more lines"]


def fold(text: str, width: int | None, indent: int = 0) -> list[str]:
    """A line folded between words to ``width`` columns, what follows indented; as it is where there is no width."""
    if width is None or len(text) <= width:
        return [text]
    space = max(width, indent + NARROW)
    # Two spaces set columns apart: they stay. A path or an address is kept whole, to be copied.
    folded = textwrap.wrap(
        text,
        space,
        subsequent_indent=" " * indent,
        replace_whitespace=False,
        break_on_hyphens=False,
        break_long_words=False,
    )
    return folded or [text]


def duration(seconds: float) -> str:
    """A time for a person: ``0.3 s``, ``1 min 5 s``, ``2 h``. A whole number stays one."""
    if isinstance(seconds, float) and round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (0 if hours else rest, "s")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number) or "0 s"


def advises(lines: Iterable[str]) -> bool:
    """Whether a reason itself says what to do."""
    return any(_ADVICE.search(line) for line in lines)


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
    text = "\n".join(lines_of("\n".join(map(str, message)) if isinstance(message, list) else message or "")).strip()
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
        lines = [cut(line, LINE_LENGTH) for line in clean(result.get(key) or "").strip().splitlines()]
        if lines:
            return lines[-OUTPUT_LINES:]
    return []


def unreachable_reason(words: str) -> str:
    """What ssh itself said, without what Ansible puts before it, which differs from time to time."""
    for before in SSH_PREFIXES:
        words = re.sub(before, "", words)
    words = " ".join(words.split())
    changed, known = _CHANGED_KEY.search(words), _KNOWN_KEY.search(words)
    if changed is None:
        return words or "its connection broke"
    place = known[1] if known else "known_hosts"
    return (
        f"its SSH host key is not the one in {place}. If the host was set up anew: "
        f"ssh-keygen -R {changed[1]} -f {place}, and log in once by hand; if it was not, find out who answers there"
    )


def unreachable_words(result: Mapping[str, object]) -> str:
    """Why a host cannot be reached, one line."""
    text = cut(clean(result.get("msg") or ""), LINE_LENGTH).removeprefix("Task failed: ").strip()
    return unreachable_reason(text) if text else "no answer"


@dataclass(frozen=True)
class Failure:
    """A failed task. `sticky`: no summary may hide it."""

    lines: list[str]
    sticky: bool


class Screen:
    """Prints steps as they come, keeps reasons and summaries for the end.

    `details` false prints the summaries alone: something else shows steps and failures. `width` answers the columns of
    the terminal, or None where there is none; longer lines are folded to it.
    """

    def __init__(
        self,
        show: Show,
        symbols: bool,
        details: bool = True,
        clock: Callable[[], float] = time.monotonic,
        width: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._show = show
        self._details = details
        self._tick, self._cross = ("✓", "✗") if symbols else ("ok", "failed")
        self._clock = clock
        self._columns = width
        self._start = clock()
        self._width = 0
        self._since: dict[str, float] = {}
        # Hosts whose last line has a cross: what fails next only follows from that.
        self._crossed: set[str] = set()
        # What has not been shown yet. Order of the hosts is that of their first appearance.
        self._hosts: dict[str, None] = {}
        self._failures: dict[str, list[Failure]] = {}
        self._summaries: dict[str, tuple[str, bool]] = {}
        self._unreachable: dict[str, str] = {}
        self._begun: dict[str, str] = {}

    def host(self, name: str) -> None:
        """A host takes part: the columns make room for its name."""
        self._width = max(self._width, len(name))
        self._hosts.setdefault(name, None)

    def batch(self) -> None:
        """Some hosts are worked on from now on; that they have waited for others is no time of theirs."""
        self._start = self._clock()
        self._since.clear()

    def began(self, host: str, operation: str) -> None:
        """A host is in the middle of an operation, until an event of it is recorded."""
        self._begun[host] = operation

    def step(self, host: str, text: object, done: bool = True) -> None:
        """A step is done, or `done` false, has come to a no."""
        self.host(host)
        (self._crossed.discard if done else self._crossed.add)(host)
        if not self._details:
            return
        first, *rest = lines_of(text) or [""]
        self._line(host, first, done)
        for line in rest:
            self._plain(f"    {line}")

    def output(self, host: str, text: str) -> None:
        """Text that is printed as it is; the host's next step begins with it."""
        self.host(host)
        self._since[host] = self._clock()
        self._show(clean(text), "plain")

    def failure(self, host: str, what: str, lines: list[str], sticky: bool = False, told: bool = False) -> None:
        """A task failed: a cross and its time now, the reason at the end, where it shows whether it matters.

        One cause has one cross, however many tasks fail because of it. `told`: the play itself tells it.
        """
        self.host(host)
        self._failures.setdefault(host, []).append(Failure(lines, sticky))
        self._cross_out(host, what, told)

    def unreachable(self, host: str, what: str, why: str) -> None:
        """A host is lost to this run, in the middle of a task."""
        self.host(host)
        self._unreachable[host] = why
        self._begun.pop(host, None)
        self._cross_out(host, f"{what}: unreachable")

    def event(self, host: str, event: Mapping[str, object]) -> None:
        """An event was recorded; its summary, if it has one, speaks for what failed before."""
        name = re.sub(r"_(blocked|failed)$", "", str(event.get("event")))
        if self._begun.get(host) == name:
            del self._begun[host]
        summary = event.get("summary")
        if not isinstance(summary, str) or not summary.strip():
            return
        self.host(host)
        bad = str(event.get("event")).endswith(("_blocked", "_failed"))
        self._summaries[host] = ("\n".join(lines_of(summary.rstrip())), bad)
        self._failures[host] = [failure for failure in self._failures.get(host, []) if failure.sticky]

    def finish(self, failed: Iterable[str] | None = None) -> None:
        """The end: one summary a host, with the reasons that no other summary gives and what to do.

        `failed` are the hosts whose play failed; None when that is not known (the run was interrupted).
        """
        lost = {host for host, failures in self._failures.items() if failures} if failed is None else set(failed)
        for host in self._hosts:
            self._summarise(host, host in lost, self._open(host) if host in lost else [])
        stopped = [host for host in self._hosts if host in self._begun] if failed is None else []
        for host in stopped:
            self._summary(f"INTERRUPTED  {host}  in the middle of {self._begun[host]}", "error")
        if stopped:
            self._plain(f"  next: {NEXT_INTERRUPTED}")
        self._begun.clear()
        self._failures.clear()
        self._summaries.clear()
        self._unreachable.clear()
        self._crossed.clear()

    # -- lines

    def _cross_out(self, host: str, what: str, told: bool = False) -> None:
        if host not in self._crossed and not told and self._details:
            self._line(host, what, False)
        if not told:
            self._crossed.add(host)

    def _line(self, host: str, text: str, done: bool) -> None:
        """One line with the time since the host's last one."""
        now = self._clock()
        took = duration(float(now - self._since.get(host, self._start)))
        self._since[host] = now
        mark = self._tick if done else self._cross
        # Words are as wide as each other only where they stand for the symbols.
        start = f"{mark:<{max(len(self._tick), len(self._cross))}} {host:<{self._width}}  "
        columns = self._columns()
        space = STEP_WIDTH if columns is None else max(min(STEP_WIDTH, columns - len(start) - TIME_WIDTH - 1), NARROW)
        first, *rest = fold(text, columns and space)
        self._show(f"{start}{first:<{space}}{took:>{TIME_WIDTH}}", "step" if done else "cross")
        for line in rest:
            self._show(" " * len(start) + line, "plain")

    def _plain(self, line: str) -> None:
        for part in fold(line, self._columns(), len(line) - len(line.lstrip()) + 2):
            self._show(part, "plain")

    # -- the end

    def _open(self, host: str) -> list[Failure]:
        """Failures to tell: all of them, but after a summary that already says it went wrong only sticky ones."""
        _text, bad = self._summaries.get(host, ("", False))
        told = [failure for failure in self._failures.get(host, []) if failure.sticky or not bad]
        # A rescue often ends with the first reason and more; the first one alone says nothing new.
        return [
            failure
            for place, failure in enumerate(told)
            if not any(failure.lines[0] in "\n".join(later.lines) for later in told[place + 1 :])
        ]

    def _summarise(self, host: str, lost: bool, failures: list[Failure]) -> None:
        text, bad = self._summaries.get(host, ("", False))
        if host in self._unreachable and not bad:
            self._end("UNREACHABLE", host, [self._unreachable[host]], NEXT_UNREACHABLE.format(host=shlex.quote(host)))
        elif failures:
            for failure in failures[:-1]:
                self._end("FAILED", host, failure.lines)
            self._end("FAILED", host, failures[-1].lines, NEXT_FAILED)
        elif lost and not bad:
            self._end("FAILED", host, ["no reason was given"], NEXT_SILENT)
        elif text:
            first, *rest = text.splitlines()
            self._summary(first, "error" if bad else "good")
            for line in rest:
                if bad and line.startswith("DENIED"):
                    self._summary(line, "error")
                else:
                    self._plain(line)

    def _end(self, word: str, host: str, lines: list[str], advice: str = "") -> None:
        self._summary(f"{word}  {host}  {lines[0]}", "error")
        for line in lines[1:]:
            self._plain(f"  {line}")
        if advice and not advises(lines):
            self._plain(f"  next: {advice}")

    def _summary(self, line: str, kind: str) -> None:
        for part in fold(line, self._columns(), 4):
            self._show(part, kind)
