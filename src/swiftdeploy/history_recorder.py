"""Turns the results of tasks into records. Knows nothing of Ansible; the callback plugin is a thin shell around it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swiftdeploy import history_journal
from swiftdeploy.history_file import append
from swiftdeploy.history_journal import Entry, Holder
from swiftdeploy.history_line import HistoryError, Record, utc_now

DEFAULT_NAME = "history.jsonl"
# The host of an operation that is the whole run's; no host can have this name.
EVERY = "*"

# Why a record could not be written, by (run_id, event, host). The callback fills it in the main process;
# a worker is forked from that, so the action that looks for the record finds the reason here.
failures: dict[tuple[str, str, str], str] = {}

# Told of the history's path and the event, once for each line that this process has appended, and for an event that
# could not be appended. Called while the run waits, so it has to be quick.
Listener = Callable[[Path, Mapping[str, Any]], None]
listeners: list[Listener] = []


def outcome_words(event: str) -> str:
    """What became of the work itself, for a message that says its record is missing."""
    for ending, words in (("_blocked", "was blocked"), ("_failed", "failed")):
        if event.endswith(ending):
            return f"the {event.removesuffix(ending)} {words}"
    return f"the {event} itself went through"


def default_path(option: str | None, start_folder: str | None = None) -> Path:
    """Where the history is: `option` if given, else history.jsonl in the folder the playbook was started from."""
    folder = Path(start_folder or Path.cwd())
    return folder / Path(option).expanduser() if option else folder / DEFAULT_NAME


@dataclass
class _Open:
    """An operation that this run is in the middle of on one host."""

    history_path: Path
    run_id: str
    event: str
    entry: Entry
    step: str | None = None


class Recorder:
    """Observes and appends; it never decides and never raises.

    `write(path, event)` is `append` unless a test gives another. With `holder`, the process of this run, what is begun
    is put down until its end is recorded, and what other runs left behind is recorded first (`history_journal`).
    `max_size` is handed on for those. `notices` collects what a person may want to read. What was appended is handed to
    `listeners`.
    """

    def __init__(
        self,
        path: Path,
        run_id: str,
        actor: str,
        write: Callable[[Path, Mapping[str, Any]], Record] = append,
        *,
        holder: Holder | None = None,
        max_size: int | None = None,
    ) -> None:
        self.path = path
        self.run_id = run_id
        self.actor = actor
        self.problems: list[str] = []
        self.notices: list[str] = []
        self._write = write
        self._holder = holder
        self._max_size = max_size
        self._contexts: dict[str, dict[str, Any]] = {}
        self._ended: set[tuple[str, str, str]] = set()
        self._open: dict[str, _Open] = {}
        # By run: the hosts that it has changed and not brought back.
        self._changed: dict[str, list[str]] = {}

    def observe(self, host: str, result: object, check: bool = False, path: Path | None = None) -> str | None:
        """Look at one task result; append its event if it has one. Returns an error line or None.

        `result`: as `untrusted.made_here` leaves it, so that nothing in it comes from a host. It speaks of `host`
        alone, or of the whole run. `check`: the task ran in check mode. `path`: the history of this host, where it is
        not the recorder's own.
        """
        if not isinstance(result, Mapping):
            return None
        told = None
        announced = result.get("swiftdeploy_context")
        if isinstance(announced, Mapping):
            # One for the whole run is announced by one of its hosts.
            of = EVERY if announced.get("host") == EVERY else host
            self._contexts[of] = dict(announced, _path=path)
            if not check and announced.get("event"):
                told = self._begin(of, announced, self._place(announced, path))
        if host in self._open and isinstance(result.get("swiftdeploy_step"), str):
            self._open[host].step = result["swiftdeploy_step"]
        appended = result.get("swiftdeploy_appended")
        if isinstance(appended, Mapping):
            # A worker has swept (the action swiftdeploy_history), and listeners are in this process alone.
            for record in appended["records"]:
                self._swept(Path(appended["path"]), record)
        event = result.get("swiftdeploy_event")
        if not isinstance(event, Mapping):
            return told
        return self._record(host, dict(event), check, path)

    def task(self, host: str, name: str) -> None:
        """A task begins on a host."""
        found = self._open.get(host)
        if found is not None:
            history_journal.note(found.entry, name, found.step)
        every = self._open.get(EVERY)
        if every is not None:
            history_journal.note(every.entry, f"{host}: {name}", every.step)

    def unreachable(self, host: str, reason: str, check: bool = False) -> str | None:
        """A host cannot be reached: if it was in the middle of one of our runs, that run failed there."""
        context = self._contexts.pop(host, None)
        if context is None or not context.get("event"):
            return None
        path = context.pop("_path", None)
        base = str(context["event"])
        run_id = str(context.get("run_id") or self.run_id)
        if (run_id, host, base) in self._ended:
            return None
        event = {**context, "event": f"{base}_failed", "reason": f"unreachable: {reason}"}
        return self._record(host, event, check, path)

    def close(self, how: str) -> list[str]:
        """The run ends: what is still open was interrupted. `how` is "interrupted" or "the run ended". Error lines."""
        problems = []
        for host, found in list(self._open.items()):
            del self._open[host]
            try:
                how_and_when = f"{how} at {utc_now()}"
                changed = self._changed.get(found.run_id, []) if host == EVERY else []
                record = history_journal.close(found.history_path, found.entry, how_and_when, self._max_size, changed)
            except (HistoryError, OSError) as error:
                problems.append(f"{host}: {found.event} is not recorded as interrupted: {error}")
            else:
                if record is None:
                    continue
                self._hand_on(found.history_path, record)
                if host == EVERY:
                    # Nothing else tells a person how far the run came.
                    self.notices.append(history_journal.told(record))
        self.problems += problems
        return problems

    def sweep(self, path: Path) -> str | None:
        """Record what runs that are gone left open in the history at `path`. Returns an error line or None."""
        if self._holder is None:
            return None
        try:
            history_journal.sweep(path, self._holder.controller, self._max_size, functools.partial(self._swept, path))
        except (HistoryError, OSError) as error:
            return self._problem(f"an interrupted run is not recorded: {error}")
        return None

    def _swept(self, path: Path, record: Mapping[str, Any]) -> None:
        self.notices.append(history_journal.told(record))
        self._hand_on(path, record)

    def _hand_on(self, path: Path, event: Mapping[str, Any]) -> None:
        for listener in listeners:
            try:
                listener(path, event)
            except Exception as error:  # noqa: BLE001 - the line is in the history, and the play goes on
                self.notices.append(f"{event.get('host')}: nobody is told of {event.get('event')}: {error}")

    def _place(self, event: Mapping[str, Any], path: Path | None) -> Path:
        own = event.get("history_path")
        return default_path(str(own)) if own else path or self.path

    def _begin(self, host: str, announced: Mapping[str, Any], path: Path) -> str | None:
        if self._holder is None:
            return None
        told = self.sweep(path)
        run_id, event = str(announced.get("run_id") or self.run_id), str(announced["event"])
        operation = {**announced, "run_id": run_id, "host": host, "actor": announced.get("actor") or self.actor}
        try:
            entry = history_journal.begin(path, operation, self._holder)
        except HistoryError as error:
            return self._problem(f"{host}: if this run is interrupted the history will not tell of it: {error}")
        self._open[host] = _Open(path, run_id, event, entry)
        return told

    def _record(self, host: str, event: dict[str, Any], check: bool, place: Path | None) -> str | None:
        path = self._place(event, place)
        if event.get("host") != EVERY:
            event["host"] = host
        event["run_id"] = str(event.get("run_id") or self.run_id)
        event["actor"] = event.get("actor") or self.actor
        name = str(event.get("event"))
        self._ended.add((event["run_id"], str(event["host"]), history_journal.base(name)))
        if event.get("check", check) is True:
            return None
        told = self.sweep(path)
        try:
            record = self._write(path, event)
        except HistoryError as error:
            problem = str(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the play goes on and the check below it stops it
            problem = f"cannot write the history {path}: {type(error).__name__}: {error}"
        else:
            failures.pop((event["run_id"], name, str(event["host"])), None)
            self._end(event)
            self._note_change(event)
            self._hand_on(path, record)
            return told
        failures[(event["run_id"], name, str(event["host"]))] = problem
        found = self._ending(event)
        if found is not None:
            history_journal.note(found.entry, None, found.step, unrecorded=f"{name}: {problem}")
        words = [str(event["reason"])] if event.get("reason") else []
        self._hand_on(path, {**event, "reason": "\n".join([*words, f"not in the history: {problem}"])})
        return self._problem(f"{event['host']}: {name} is not recorded: {problem}")

    def _note_change(self, event: Mapping[str, Any]) -> None:
        hosts, host = self._changed.setdefault(event["run_id"], []), str(event["host"])
        if event.get("event") == "rollback" and host in hosts:
            hosts.remove(host)
        elif event.get("event") in ("deploy", "promote") and event.get("changed") is True and host not in hosts:
            hosts.append(host)

    def _ending(self, event: Mapping[str, Any]) -> _Open | None:
        """The open operation that this event ends."""
        found = self._open.get(str(event["host"]))
        if found is None or event["run_id"] != found.run_id:
            return None
        return found if event["event"] in history_journal.endings(found.event) else None

    def _end(self, event: Mapping[str, Any]) -> None:
        found = self._ending(event)
        if found is not None:
            history_journal.end(found.entry)
            del self._open[str(event["host"])]

    def _problem(self, line: str) -> str:
        self.problems.append(line)
        return line
