"""The report as one HTML file that needs nothing else: no script, no font, no request.

Jinja2 escapes every value. A content security policy is a second wall: it allows this file's own style sheet, known by
its hash, and nothing besides.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from swiftdeploy.report.charts import Drawn
from swiftdeploy.report.document import TITLE, Charts, Command, Document, Grid
from swiftdeploy.report.words import EMPTY

# What became of something: (class, symbol), by the end of its name. The word itself always stands beside it.
_BAD, _WARN, _GOOD = ("bad", "✗"), ("warn", "!"), ("good", "✓")
_STATES = {
    "blocked": _BAD,
    "failed": _BAD,
    "interrupted": _BAD,
    "denied": _BAD,
    "unavailable": _WARN,
    "insufficient": _WARN,
    "override": _WARN,
    "chaos": _WARN,
    "rollback": _WARN,
    "broken": _WARN,
    "allowed": _GOOD,
    "deploy": _GOOD,
    "promote": _GOOD,
}


def state(word: str) -> tuple[str, str]:
    """(class, symbol) of an event or an outcome; both empty for one that is neither good nor bad."""
    return _STATES.get(word.rpartition("_")[2], ("", ""))


def _kind(part: object) -> str:
    kinds: dict[type, str] = {Grid: "grid", Command: "command", Charts: "charts"}
    return kinds.get(type(part), "text")


def render(document: Document, drawn: Drawn) -> str:
    """The whole file."""
    folder = resources.files("swiftdeploy.report") / "templates"
    style = (folder / "report.css").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.globals.update(empty=EMPTY, state=state, kind=_kind, title=TITLE)
    environment.filters["markup"] = Markup
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    template = environment.from_string((folder / "report.html.j2").read_text(encoding="utf-8"))
    return template.render(document=document, drawn=drawn, style=Markup(style), style_hash=digest) + "\n"  # noqa: S704 - a file of ours
