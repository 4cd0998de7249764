"""Figures on how changes get delivered.

They are those of DORA (https://dora.dev/guides/dora-metrics/): deployment frequency, lead time for changes, change
failure rate, time to restore. The definitions used are in `rows`, beside each figure in the report.
"""

from __future__ import annotations

import statistics
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from swiftdeploy.history import Record
from swiftdeploy.report.words import EMPTY, count, seconds_of, share, span

SOURCE = "https://dora.dev/guides/dora-metrics/"
WEEK = 7 * 86400.0
TIMES = 10_000
# Host and service pairs that are followed, and the commits remembered of each.
PAIRS = 1000
COMMITS = 200

_DONE = ("deploy", "promote")
_NOT_DONE = ("deploy_failed", "promote_failed", "deploy_interrupted", "promote_interrupted")
_NOT_BACK = ("rollback_failed", "rollback_interrupted")
EVENTS = frozenset((*_DONE, *_NOT_DONE, *_NOT_BACK, "rollback"))


def _times() -> deque[float]:
    return deque(maxlen=TIMES)


def _since(record: Record, event: str, when: float) -> float:
    """Since when something is not as it should be. A run that never ended is recorded by a later one."""
    if event.endswith("_interrupted"):
        for name in ("last_sign", "since"):
            moment = seconds_of(record.get(name))
            if moment is not None and moment <= when:
                return moment
    return when


@dataclass(slots=True)
class _Pair:
    """One service on one host: since when it is broken, when it was last changed, which commits it has had."""

    broken: float | None = None
    changed: float | None = None
    changed_shown: bool = False
    commits: OrderedDict[str, None] = field(default_factory=OrderedDict)


@dataclass
class Delivery:
    """Counts and times; what came before is known whether it is shown or not, figures are of what is shown."""

    changes: int = 0
    succeeded: int = 0
    failed: int = 0
    interrupted: int = 0
    rolled_back: int = 0
    restore: deque[float] = field(default_factory=_times)
    lead: deque[float] = field(default_factory=_times)
    _pairs: dict[tuple[str, str], _Pair] = field(default_factory=dict)

    def add(self, key: tuple[str, str], event: str, when: float, record: Record, shown: bool = True) -> None:
        """Count an event of a host and service; those that are no change are passed over."""
        if event not in EVENTS:
            return
        pair = self._pairs.get(key)
        if pair is None:
            if len(self._pairs) >= PAIRS:
                return
            pair = self._pairs[key] = _Pair()
        if event in _DONE:
            self.changes += shown
            self.succeeded += shown
            self._restored(pair.broken, when, shown)
            pair.broken, pair.changed, pair.changed_shown = None, when, shown
            self._led(pair, when, record, shown)
        elif event in _NOT_DONE:
            self.changes += shown
            self.interrupted += shown and event.endswith("_interrupted")
            self.failed += shown and event.endswith("_failed")
            pair.broken = _since(record, event, when) if pair.broken is None else pair.broken
        elif event in _NOT_BACK:
            pair.broken = _since(record, event, when) if pair.broken is None else pair.broken
        else:
            # After a failed change the rollback belongs to that failure, which is counted already. Else it speaks of
            # the change that it takes back, and counts where that one does.
            if pair.broken is None:
                self.rolled_back += shown if pair.changed is None else pair.changed_shown
            self._restored(pair.changed if pair.broken is None else pair.broken, when, shown)
            pair.broken = pair.changed = None

    def _restored(self, since: float | None, when: float, shown: bool) -> None:
        if since is not None and shown:
            self.restore.append(max(0.0, when - since))

    def _led(self, pair: _Pair, when: float, record: Record, shown: bool) -> None:
        commit = record.get("commit")
        # What was deployed with changes beside it is not the commit.
        if not isinstance(commit, Mapping) or commit.get("dirty") is not False:
            return
        name, made = commit.get("id"), seconds_of(commit.get("time"))
        if not isinstance(name, str) or made is None or made > when:
            return
        new = name[:64] not in pair.commits
        pair.commits[name[:64]] = None
        pair.commits.move_to_end(name[:64])
        if len(pair.commits) > COMMITS:
            pair.commits.popitem(last=False)
        if new and shown:
            self.lead.append(when - made)

    def rows(self, first: float | None, last: float | None) -> list[tuple[str, str, str]]:
        """(figure, value, definition) of each; `first` and `last` are the ends of the period in Unix seconds."""
        period = 0.0 if first is None or last is None else last - first
        # A week is the least there is to divide by, or one deploy in a minute would be 10,000 a week.
        weeks = max(period / WEEK, 1.0)
        bad = self.failed + self.interrupted + self.rolled_back
        return [
            (
                "Deployment frequency",
                f"{self.succeeded / weeks:.2f} a week",
                f"{count(self.succeeded, 'deploy or promote', 'deploys and promotes')} that went through, in "
                f"{weeks:.2f} weeks (the period of the report, one week at least)",
            ),
            (
                "Lead time for changes",
                span(statistics.median(self.lead)) if self.lead else EMPTY,
                f"Median of {count(len(self.lead), 'time')}: from a commit to the first deploy or promote that "
                "brought it to a host; only where the record knows the commit and the work tree had no other changes",
            ),
            (
                "Change failure rate",
                share(bad / self.changes if self.changes else None),
                f"({self.failed} failed + {self.interrupted} interrupted + {self.rolled_back} rolled back) of "
                f"{count(self.changes, 'deploy or promote', 'deploys and promotes')} that were begun; one that was "
                "begun and never ended is interrupted and counts as failed; a blocked one never began; a rollback "
                "after a failed one is not counted again",
            ),
            (
                "Median time to restore",
                span(statistics.median(self.restore)) if self.restore else EMPTY,
                f"Median of {count(len(self.restore), 'time')}: from a failed change, from the last sign of an "
                "interrupted one, or from the change a rollback takes back, to the next deploy, promote or rollback "
                "that went through on that host",
            ),
        ]
