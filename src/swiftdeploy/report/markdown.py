"""The report as GitHub-flavoured Markdown. Everything in a record comes from outside: every value goes through `md`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from swiftdeploy.report.document import TITLE, Command, Document, Grid
from swiftdeploy.report.gather import Cell
from swiftdeploy.report.words import EMPTY, line

_MARKUP = re.compile(r"[\\`*\[\]~$]")
# An underscore inside a word is no markup, and names of events stay searchable.
_UNDERSCORE = re.compile(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def md(value: object, limit: int = 400) -> str:
    """Any value as text that cannot be markup, HTML, a link or the end of a table cell."""
    text = line(value, limit)
    if not text:
        return EMPTY
    # An escaped bar after a backslash is read differently by different renderers, an entity is not.
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("|", "&#124;")
    text = _UNDERSCORE.sub(r"\\_", _MARKUP.sub(r"\\\g<0>", text))
    # GitHub makes links of these by itself.
    return text.replace("://", "&#58;//").replace("www.", "www&#46;").replace("WWW.", "WWW&#46;")


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Lines of a table; the cells are already safe."""
    yield "| " + " | ".join(headers) + " |"
    yield "|" + " --- |" * len(headers)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def _cell(cell: Cell) -> str:
    if isinstance(cell, str):
        return md(cell)
    told = (f"{one.name} = {one.value or 'not measured'}" + (f" ({one.limit})" if one.limit else "") for one in cell)
    return md("; ".join(told), 4000)


def render(document: Document) -> str:
    """The whole file."""
    return "\n".join(_lines(document)) + "\n"


def _lines(document: Document) -> Iterator[str]:
    yield f"# {TITLE}"
    yield ""
    if document.wrong:
        first, *rest = document.wrong
        yield "> [!CAUTION]"
        yield f"> **{md(first)}**"
        yield from (f"> {md(sentence)}" for sentence in rest)
    else:
        yield f"**The history is {md(document.verdict)}.**"
    yield ""
    for note in document.notes:
        yield f"Note: {md(note)}."
        yield ""
    yield f"Made from {md(document.name)} alone, as of its last record ({document.as_of}). All times are UTC."
    yield ""
    if document.shown:
        yield f"Filter: {md(document.shown)}."
        yield ""
    for section in document.sections:
        yield f"## {section.title}"
        yield ""
        for part in section.parts:
            if isinstance(part, Grid):
                yield from table([column.name for column in part.columns], (map(_cell, row) for row in part.rows))  # type: ignore[misc]
            elif isinstance(part, Command):
                yield f"`{part.line}` {part.does}."
            elif isinstance(part, str):
                yield md(part, 2000)
            else:
                continue
            yield ""
