"""YAML text as a tree of nodes that know where they are written.

ruamel.yaml scans and parses (YAML 1.2); the tree is built here from its events, because a manifest needs
what the usual loaders throw away: the text of a scalar as it was written (``1.10`` is not ``1.1``), the place
of every key and value, and where an alias stands as opposed to what it stands for. No object is ever
constructed from a tag.

The work is bounded (``MAX_NODES``, ``MAX_DEPTH``), so a hostile file costs little.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

MAX_NODES = 20_000
MAX_DEPTH = 50

Kind = Literal["scalar", "list", "mapping", "alias"]
Scalar = None | bool | int | float | str

_TAG_PREFIX = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


class YamlTextError(Exception):
    """The text is not YAML that a manifest may use. ``line`` counts from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


@dataclass(eq=False)
class Node:
    """One place in the text. ``start`` and ``end`` are character offsets, ``line`` counts from 1, ``column`` from 0.

    ``text`` is a scalar's content after unescaping; ``plain`` says that it stood without quotes.
    For an alias ``target`` is the node it stands for; ``resolved`` follows it.
    """

    kind: Kind
    start: int
    end: int
    line: int
    column: int
    text: str = ""
    plain: bool = False
    flow: bool = False
    tag: str | None = None
    items: list[Node] = field(default_factory=list)
    pairs: list[tuple[Node, Node]] = field(default_factory=list)
    target: Node | None = None

    @property
    def resolved(self) -> Node:
        return self.target if self.target is not None else self

    @property
    def is_merge_key(self) -> bool:
        return self.kind == "scalar" and self.plain and self.text == "<<"


def scalar_value(node: Node) -> Scalar:
    """The value of a scalar by the YAML 1.2 core schema.

    A number with leading zeros stays text: readers of YAML disagree whether ``0755`` is octal.
    """
    text = node.text
    # A longer figure is none, and int() refuses thousands of digits.
    if not node.plain or node.tag is not None or len(text) > 400:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text, 0)
    return float(text) if _FLOAT.fullmatch(text) else text


def compose(text: str) -> Node | None:
    """Parse ``text`` to the root node of its only document; ``None`` when there is nothing in it.

    Raises ``YamlTextError`` for anything that is not YAML, and for what a manifest does not use: more than one
    document, tags, an alias inside what it stands for, ``%YAML`` of another version, excessive size or depth.
    """
    root: Node | None = None
    documents = 0
    count = 0
    stack: list[tuple[Node, list[Node]]] = []
    anchors: dict[str, Node] = {}
    for event in _events(text):
        if isinstance(event, DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise YamlTextError(
                    event.start_mark.line + 1, "found a second document (---), allowed one document in the file"
                )
            if event.version is not None and tuple(event.version) != (1, 2):
                raise YamlTextError(
                    event.start_mark.line + 1, "found a %YAML line of another version, allowed YAML 1.2"
                )
        elif isinstance(event, (MappingEndEvent, SequenceEndEvent)):
            node, parts = stack.pop()
            node.end = event.end_mark.index
            _close(node, parts)
        elif isinstance(event, (AliasEvent, ScalarEvent, MappingStartEvent, SequenceStartEvent)):
            node = _node(event, anchors, stack)
            count += 1
            if count > MAX_NODES:
                raise YamlTextError(node.line, f"found more than {MAX_NODES} values, too many")
            if stack:
                stack[-1][1].append(node)
            else:
                root = node
            if node.kind in ("mapping", "list"):
                stack.append((node, []))
                if len(stack) > MAX_DEPTH:
                    raise YamlTextError(node.line, f"found more than {MAX_DEPTH} levels of nesting")
    return root


def _node(event: Any, anchors: dict[str, Node], stack: list[tuple[Node, list[Node]]]) -> Node:
    start, end = event.start_mark, event.end_mark
    node = Node("alias", start.index, end.index, start.line + 1, start.column)
    if isinstance(event, AliasEvent):
        # The name is left out of the messages: an unquoted password may begin with *.
        target = anchors.get(event.anchor)
        if target is None:
            raise YamlTextError(
                node.line, "found an alias (*) without an anchor (&); put a value that begins with * in quotes"
            )
        if any(target is opened for opened, _ in stack):
            raise YamlTextError(node.line, "found an alias (*) inside the value that it stands for")
        node.target = target
        return node
    tag = None if event.tag is None else str(event.tag)
    if isinstance(event, ScalarEvent):
        node.kind, node.text, node.plain = "scalar", event.value, event.style in (None, "")
        known = {None, "!", _TAG_PREFIX + "str"}
    else:
        node.kind = "mapping" if isinstance(event, MappingStartEvent) else "list"
        node.flow = bool(event.flow_style)
        known = {None, "!", _TAG_PREFIX + ("map" if node.kind == "mapping" else "seq")}
    if tag not in known:
        raise YamlTextError(
            node.line, "found a tag (!), which is not used here; put a value that begins with ! in quotes"
        )
    node.tag = tag
    if event.anchor is not None:
        anchors[event.anchor] = node
    return node


def _close(node: Node, parts: list[Node]) -> None:
    if node.kind == "list":
        node.items = parts
        return
    node.pairs = list(zip(parts[::2], parts[1::2], strict=True))
    for key, value in node.pairs:
        if value.kind == "scalar" and value.start == value.end and not node.flow:
            # An empty value is reported where the next token stands, comments further down.
            value.start = value.end = key.end
            value.line, value.column = key.line, key.column


def _events(text: str) -> Iterator[Any]:
    """ruamel.yaml's events; whatever it raises on bad text becomes a ``YamlTextError``."""
    try:
        yield from YAML(typ="safe", pure=True).parse(text)
    except YamlTextError:
        raise
    except ReaderError as error:
        position = error.position if isinstance(error.position, int) else 0
        raise YamlTextError(
            text.count("\n", 0, position) + 1, f"found {_shown_character(error.character)}, allowed printable text"
        ) from None
    except MarkedYAMLError as error:
        if error.context_mark and error.context == "while scanning a quoted scalar":
            raise YamlTextError(error.context_mark.line + 1, "found a quote that is never closed") from None
        mark = error.problem_mark or error.context_mark
        raise YamlTextError(1 if mark is None else mark.line + 1, _worded(error)) from None
    except (YAMLError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError):
        # Its scanner is not written for arbitrary input.
        raise YamlTextError(1, "this is not readable as YAML") from None


def _shown_character(character: Any) -> str:
    code = ord(character) if isinstance(character, str) and len(character) == 1 else character
    return f"the character U+{code:04X}" if isinstance(code, int) else "an unreadable character"


def _worded(error: MarkedYAMLError) -> str:
    """The parser's own words, without what it quotes from the file (a line may hold a password)."""
    problem = str(error.problem or error.context or "this is not YAML")
    if "'\\t'" in problem:
        return "found a tab character outside of quotes, allowed spaces"
    if "mapping values are not allowed" in problem:
        return "found a second `: ` in one line, allowed one; check the indentation, or put the value in quotes"
    if "could not find expected ':'" in problem:
        return "found a line without `: `, allowed `key: value`; check the line above it as well"
    problem = re.sub(r"'([^']*)'|\"([^\"]*)\"", _short_quotes, problem)
    return f"this is not YAML: {problem}; check quotes, brackets and indentation here and in the line above"


def _short_quotes(quoted: re.Match[str]) -> str:
    inner = quoted[1] if quoted[1] is not None else quoted[2]
    return quoted[0] if len(inner) <= 1 or inner.startswith("<") else "(not shown)"
