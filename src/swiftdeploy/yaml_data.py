"""A YAML file that a person edits, as plain data, with the place of everything in it and all that is wrong with it.

``Reading`` turns the tree of ``yaml_tree`` into data. What a value may be is for its subclasses to say; they report
problems by the path of keys, and the file and line are found here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from swiftdeploy.manifest_schema import Path as KeyPath
from swiftdeploy.manifest_words import CONTROL, key_text
from swiftdeploy.yaml_tree import MAX_NODES, Node, YamlTextError, scalar_value

MAX_BYTES = 1024 * 1024
MAX_SHOWN_PROBLEMS = 50
BOM = "\ufeff"

_MAX_EXPANDED_DEPTH = 200


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. ``line`` counts from 1; None where the whole file is meant, as for ``key``."""

    file: str
    line: int | None
    key: str | None
    message: str

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{where}: {self.key}: {self.message}" if self.key else f"{where}: {self.message}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class ProblemsError(Exception):
    """A file cannot be used. ``str()`` is the complete text, one problem a line."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        lines = [str(problem) for problem in problems[:MAX_SHOWN_PROBLEMS]]
        if len(problems) > MAX_SHOWN_PROBLEMS:
            lines.append(f"and {len(problems) - MAX_SHOWN_PROBLEMS} more problems")
        super().__init__("\n".join(lines))


def decoded(raw: bytes, shown: str) -> str:
    """The text of a file without its byte order mark. Raises ``ProblemsError`` for anything but UTF-8."""
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        message = "the file is UTF-16 text, allowed UTF-8; save it as UTF-8 in the editor"
        raise ProblemsError([Problem(shown, None, None, message)])
    try:
        return raw.decode("utf-8").removeprefix(BOM)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        message = f"found the byte 0x{raw[error.start]:02x}, allowed UTF-8 text; save the file as UTF-8 in the editor"
        raise ProblemsError([Problem(shown, line, None, message)]) from None


class Reading:
    """One pass over a tree: turns it into data, remembers where everything stands, collects the problems."""

    def __init__(self, shown: str, root: Node) -> None:
        self.shown = shown
        self.problems: dict[KeyPath, tuple[int, Problem]] = {}
        self.keys: dict[KeyPath, Node] = {}
        self.values: dict[KeyPath, Node] = {(): root}
        self._spent = 0
        self.data: Any = self._value(root, ())

    def sorted_problems(self) -> list[Problem]:
        """In the order of the file."""
        return [problem for _, problem in sorted(self.problems.values(), key=lambda found: found[0])]

    def report(self, path: KeyPath, message: str, place: Node | None = None) -> None:
        """Only the first problem of a place is kept: the others follow from it."""
        place = place or self._place(path)
        problem = Problem(self.shown, place.line, key_text(path) or None, message)
        self.problems.setdefault(path, (place.start, problem))

    def scalar(self, node: Node, path: KeyPath) -> Any:
        """The value of a scalar; a subclass knows what it is to be."""
        control = CONTROL.search(node.text)
        if control:
            code = f"U+{ord(control[0]):04X}"
            self.report(path, f"found the control character {code} in the value, allowed printable text in one line")
        return scalar_value(node)

    def _place(self, path: KeyPath) -> Node:
        return self.keys.get(path) or self.values.get(path) or self._place(path[:-1])

    def _value(self, place: Node, path: KeyPath) -> Any:
        self._spend(place, len(path))
        node = place.resolved
        if node.kind == "scalar":
            return self.scalar(node, path)
        if node.kind == "list":
            items = []
            for index, item in enumerate(node.items):
                self.values[(*path, index)] = item
                items.append(self._value(item, (*path, index)))
            return items
        found: dict[str, Any] = {}
        for key, value in self._pairs(node, path, 0):
            if key.text in found:
                continue
            below = (*path, key.text)
            self.keys[below], self.values[below] = key, value
            found[key.text] = self._value(value, below)
        return found

    def _pairs(self, node: Node, path: KeyPath, depth: int) -> Iterator[tuple[Node, Node]]:
        """The pairs of a mapping, its own first, then those it merges in by ``<<``; the first of a name counts."""
        first: dict[str, Node] = {}
        merges: list[Node] = []
        for key, value in node.pairs:
            self._spend(key, depth + len(path))
            name = key.resolved
            if key.is_merge_key:
                merges.append(value)
            elif name.kind != "scalar":
                self.report(path, f"found a {name.kind} as a key, allowed a name", key)
            elif name.text in first:
                below = (*path, name.text)
                self.report(below, f"found it again, allowed once; it is in line {first[name.text].line} too", key)
            else:
                first[name.text] = key
                if CONTROL.search(name.text):
                    self.report((*path, name.text), "found a control character in the key, allowed a name", key)
                yield Node("scalar", key.start, key.end, key.line, key.column, text=name.text), value
        for merge in merges:
            for part in merge.resolved.items if merge.resolved.kind == "list" else [merge]:
                if part.resolved.kind == "mapping":
                    yield from self._pairs(part.resolved, path, depth + 1)
                else:
                    self.report((*path, "<<"), "found no mapping, allowed an alias of a mapping", merge)

    def _spend(self, node: Node, depth: int) -> None:
        """Aliases cost where they are used: a few hundred bytes must not become millions of values."""
        self._spent += 1
        if self._spent > MAX_NODES or depth > _MAX_EXPANDED_DEPTH:
            raise YamlTextError(node.line, f"aliases (*) make more than {MAX_NODES} values of it")
