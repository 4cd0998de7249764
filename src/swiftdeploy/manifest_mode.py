"""Keeps ``services.mode`` current in the manifest, and changes nothing else in it.

The text is edited where the parser says that the value stands, never written anew from what was understood:
comments, anchors, order, quotes, line endings and the byte order mark stay. The new text is parsed before the
file is replaced, and replaced only when it differs in ``services.mode`` alone.
"""

from __future__ import annotations

import json
import os
import re
import stat
import tempfile
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swiftdeploy import manifest_schema as rules
from swiftdeploy.manifest import Document, ManifestError, parse, read, shown_path
from swiftdeploy.manifest_words import HIDDEN, escaped
from swiftdeploy.yaml_data import BOM
from swiftdeploy.yaml_tree import Node, compose

_LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True)
class ModeEdit:
    """What ``set_mode`` would do: the file that is meant, behind symlinks, and its bytes before and after."""

    target: Path
    shown: str
    before: bytes
    after: bytes

    @property
    def changed(self) -> bool:
        return self.before != self.after

    def diff(self) -> dict[str, str]:
        """Before and after as text in the form of Ansible's diff; values that may be secret are masked."""
        return {
            "before": _masked(self.before),
            "after": _masked(self.after),
            "before_header": self.shown,
            "after_header": self.shown,
        }


def set_mode(path: str | os.PathLike[str], mode: str) -> bool:
    """Set ``services.mode`` in the file to ``mode``; whether that changed the file.

    The file is replaced as a whole or not at all. Raises ``ManifestError`` when the manifest is not valid, when it
    is written such that the mode cannot be set alone, or when it cannot be written; the file is then untouched.
    """
    edit = plan_mode(path, mode)
    if edit.changed:
        _replace(edit)
    return edit.changed


def plan_mode(path: str | os.PathLike[str], mode: str) -> ModeEdit:
    """What ``set_mode`` would do, without doing it. Raises ``ManifestError`` as ``set_mode`` does."""
    shown = shown_path(path)
    modes = rules.at(("services", "mode"))["enum"]
    if mode not in modes:
        raise ManifestError.of_file(shown, f"the mode {escaped(str(mode))} is not known, allowed {' or '.join(modes)}")
    before = read(path)
    document = parse(before, shown)
    target = Path(path).resolve()
    if document.config["services"]["mode"] == mode:
        return ModeEdit(target, shown, before, before)
    text = _with_mode(document, mode)
    _verify(document, text, mode)
    mark = BOM if before.startswith(BOM.encode()) else ""
    return ModeEdit(target, shown, before, (mark + text).encode())


def _with_mode(document: Document, mode: str) -> str:
    """The text with the mode set, by the smallest edit."""
    services = _own(document.root, "services")
    if services is None or services.kind != "mapping":
        raise _refusal(document, "services is an alias; write its keys out below it")
    value = _own(services, "mode")
    text = document.text
    if value is None:
        return _inserted(text, services, mode)
    if value.kind == "alias":
        return text[: value.start] + mode + text[value.end :]
    start = text.rfind(value.text, value.start, value.end)
    if start < 0:
        raise _refusal(document, "its value is written with escapes; write it plain")
    return text[:start] + mode + text[start + len(value.text) :]


def _own(mapping: Node, name: str) -> Node | None:
    """The value of a key that stands in the mapping itself, not one that is merged in."""
    return next((value for key, value in mapping.pairs if key.resolved.text == name), None)


def _inserted(text: str, services: Node, mode: str) -> str:
    """A new key after the last one of ``services``, in the style of that one."""
    key, last = services.pairs[-1]
    quote = "" if key.plain or key.kind == "alias" else text[key.end - 1]
    entry = f"{quote}mode{quote}: {quote}{mode}{quote}"
    if services.flow:
        return f"{text[: last.end]}, {entry}{text[last.end :]}"
    while not last.flow and (last.pairs or last.items):
        last = last.pairs[-1][1] if last.pairs else last.items[-1]
    indent = " " * services.pairs[0][0].column
    if last.end > last.start and text[last.end - 1] in "\r\n":  # a block scalar ends with its line
        newline = _LINE_END.search(text, max(last.start, last.end - 2))
        position = last.end
    else:
        newline = _LINE_END.search(text, last.end)
        position = newline.end() if newline else len(text)
    if newline:
        return f"{text[:position]}{indent}{entry}{newline[0]}{text[position:]}"
    return f"{text}{_LINE_END.findall(text)[-1]}{indent}{entry}"  # block style has more than one line


def _verify(document: Document, text: str, mode: str) -> None:
    expected = deepcopy(document.data)
    expected["services"]["mode"] = mode
    try:
        found = parse(text.encode(), document.shown).data
    except ManifestError:
        found = {}
    if _canonical(found) != _canonical(expected):
        raise _refusal(document, "other keys use what is written there; write the mode without an anchor (&) or alias")


def _canonical(data: dict[str, Any]) -> str:
    return json.dumps(data, sort_keys=True)


def _refusal(document: Document, why: str) -> ManifestError:
    return ManifestError.of_file(
        document.shown, f"services.mode cannot be set without changing more: {why}. The file is as it was"
    )


def _masked(raw: bytes) -> str:
    """The text with the values below services.env and services.secrets masked."""
    text = raw.decode().removeprefix(BOM)
    root = compose(text)
    services = _own(root, "services") if root else None
    sections = [_own(services.resolved, name) for _, name in HIDDEN] if services else []
    spans = sorted(
        {(node.start, node.end) for section in sections if section for node in _scalars(section)}, reverse=True
    )
    for start, end in spans:
        line_end = text[:end][len(text[:end].rstrip("\r\n")) :] if end > start else ""
        text = text[:start] + ("***" if end > start else "") + line_end + text[end:]
    return text


def _scalars(node: Node) -> list[Node]:
    if node.kind == "scalar":
        return [node]
    parts = [value for _, value in node.pairs] + node.items
    return [scalar for part in parts for scalar in _scalars(part)]


def _replace(edit: ModeEdit) -> None:
    """Replace the file in one step that a kill or a full disk cannot tear; rights and owner stay."""
    folder = edit.target.parent
    remedy = "The file is as it was: set services.mode in it by hand, or give the right and run again"
    status = edit.target.stat()
    # The rights count for root as well: who took them away from everybody meant it.
    effective = os.access in os.supports_effective_ids
    if not status.st_mode & 0o222 or not os.access(edit.target, os.W_OK, effective_ids=effective):
        raise ManifestError.of_file(edit.shown, f"the file is read-only, services.mode cannot be set. {remedy}")
    temporary = ""
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{edit.target.name}.", dir=folder)
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor, not a path
            _copy_rights(edit.target, status, descriptor)
            file.write(edit.after)
            file.flush()
            os.fsync(descriptor)
        if edit.target.read_bytes() != edit.before:
            raise ManifestError.of_file(
                edit.shown, "somebody else changed the file in this moment, services.mode is not set. Run again"
            )
        Path(temporary).replace(edit.target)
    except PermissionError:
        raise ManifestError.of_file(
            edit.shown, f"no permission to replace it in the folder {escaped(str(folder), 1000)}. {remedy}"
        ) from None
    except OSError as error:
        raise ManifestError.of_file(
            edit.shown, f"it cannot be written: {error.strerror or error}. The file is as it was"
        ) from None
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
    _sync_folder(folder)


def _copy_rights(target: Path, status: os.stat_result, descriptor: int) -> None:
    fresh = os.fstat(descriptor)
    if (fresh.st_uid, fresh.st_gid) != (status.st_uid, status.st_gid):
        os.fchown(descriptor, status.st_uid, status.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
    if hasattr(os, "listxattr"):  # access control lists among them
        with suppress(OSError):
            for name in os.listxattr(target):
                os.setxattr(descriptor, name, os.getxattr(target, name))


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # not every file system can; the file itself is written
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
