"""The audit report, made from the history alone in one pass: Markdown for a terminal, HTML for a person.

`make(path)` reads the history once, checks its chain on the way and returns both; `build(path)` the Markdown alone.
Memory does not grow with the file. The same history (and the same filter) gives the same bytes; the only times in a
report are those of the records.

The parts, each of which knows the ones before it: `words` (values as text), `choice` (filters), `series` and `delivery`
(figures), `gather` (facts), `document` (what is said), `markdown`, `charts` and `html` (how it is written), `files`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from swiftdeploy import history
from swiftdeploy.history import Line, VerifyResult
from swiftdeploy.report import charts, document, html, markdown
from swiftdeploy.report.choice import Choice, ChoiceError, choose
from swiftdeploy.report.files import current, write
from swiftdeploy.report.gather import Audit
from swiftdeploy.report.words import count, line

__all__ = [
    "DEFAULT_NAME",
    "Audit",
    "Choice",
    "ChoiceError",
    "Report",
    "build",
    "choose",
    "collect",
    "current",
    "make",
    "render",
    "verdict",
    "write",
]

DEFAULT_NAME = "audit_report.md"


@dataclass(frozen=True)
class Report:
    """Both files, what the check of the chain found, which records are shown (empty: all), and what is missing."""

    markdown: str
    html: str
    outcome: VerifyResult
    shown: str
    problem: str


def collect(path: str | os.PathLike[str], choice: Choice | None = None) -> tuple[Audit, VerifyResult]:
    """Read the history once. The chain is checked over every line, whatever the choice.

    Raises FileNotFoundError when there is no history, HistoryError when it cannot be read.
    """
    audit = Audit(choice)
    first: Line | None = None
    bad = 0
    for one in history.scan(path):
        if one.problem is not None:
            bad += 1
            first = first or one
        if one.record is not None:
            audit.add(one.record)
    return audit, history.with_ends(history.verify_result(audit.records, first, bad), path)


def render(audit: Audit, outcome: VerifyResult, name: str) -> str:
    """The report as Markdown. `name` is the history's file name."""
    return markdown.render(document.make(audit, outcome, name, outcome.notes))


def build(path: str | os.PathLike[str], choice: Choice | None = None) -> tuple[str, VerifyResult]:
    """The report as Markdown, and what the check of the chain found. Raises as `collect` does."""
    audit, outcome = collect(path, choice)
    return render(audit, outcome, Path(path).name), outcome


def make(path: str | os.PathLike[str], choice: Choice | None = None) -> Report:
    """The report as Markdown and as HTML. Raises as `collect` does."""
    audit, outcome = collect(path, choice)
    said = document.make(audit, outcome, Path(path).name, outcome.notes)
    drawn = charts.draw(audit)
    return Report(markdown.render(said), html.render(said, drawn), outcome, said.shown, drawn.problem)


def verdict(outcome: VerifyResult, path: object) -> str:
    """One sentence on the chain, plain text."""
    name = Path(str(path)).name
    if outcome.ok:
        return f"{name} is whole: {count(outcome.records, 'record')}"
    more = f" ({outcome.bad_lines} wrong lines in all)" if outcome.bad_lines > 1 else ""
    return f"{name} is broken at line {outcome.first_bad_line}: {line(outcome.problem)}{more}"
