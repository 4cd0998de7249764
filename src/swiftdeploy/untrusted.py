"""What a host, a service, an inventory or a history says is data: bounded, and nothing that acts on anything.

What is shown goes through `clean`, what is recorded through `text` and `number`. Callbacks believe only what our own
actions made on the controller (`made_here`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

# Characters of one text that is recorded. OPA's reasons and a service's last lines are far shorter.
LONGEST = 32 * 1024
# A larger number is no count, no size and no time that anything of ours could have.
LARGEST = 2.0**63
# Letters of a folder's name, bytes; what is written into it adds its own.
NAME_BYTES = 200

# Sequences of a terminal: CSI, then OSC, DCS, SOS, PM and APC with their text, then two letters.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b.?",
    re.DOTALL,
)
# Control characters but newline and tab; invisible ones and those that turn the direction of text around.
_INVISIBLE = (
    r"\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f\ud800-\udfff"
)
_UNSAFE = re.compile(rf"[\x00-\x08\x0b-\x1f\x7f-\x9f{_INVISIBLE}]")
# The same, newline and tab too: for what stands on one line.
UNSAFE_ON_A_LINE = re.compile(rf"[\x00-\x1f\x7f-\x9f{_INVISIBLE}]+")
# What ansible.utils.color makes; nothing that hides.
_COLOUR = re.compile(r"(\x1b\[(?:[01]|[01];3[0-7]|38;5;[0-9]{1,3})m)")
_DECISION_ID = re.compile(r"[0-9A-Za-z-]{8,64}")

# By which keys of a result our callbacks act, and the actions that make them. Each runs on the controller alone, or,
# as swiftdeploy_status, makes its result there itself.
MADE_BY = {
    "swiftdeploy_event": frozenset(("swiftdeploy_event",)),
    "swiftdeploy_history": frozenset(("swiftdeploy_appended",)),
    "swiftdeploy_manifest": frozenset(("manifest",)),
    "swiftdeploy_status": frozenset(("swiftdeploy_event", "swiftdeploy_watch", "swiftdeploy_status")),
    "swiftdeploy_step": frozenset(
        ("swiftdeploy_step", "swiftdeploy_done", "swiftdeploy_output", "swiftdeploy_context")
    ),
}


def clean(value: object) -> str:
    """Text from outside without anything that steers a terminal or hides; newlines stay."""
    return _without(str(value)).replace("\t", "    ")


def _without(value: str) -> str:
    # Half of a character (bytes that were no UTF-8) can be written nowhere.
    whole = value.encode("utf-8", "replace").decode("utf-8").replace("\r\n", "\n")
    return _UNSAFE.sub("", _ESCAPES.sub("", whole))


def printable(value: str) -> str:
    """`clean` for what Ansible prints: its own colours stay."""
    parts = _COLOUR.split(value)
    return "".join(part if place % 2 else clean(part) for place, part in enumerate(parts))


def cut(value: str, longest: int) -> str:
    """At most ``longest`` characters, and how many are left out."""
    return value if len(value) <= longest else f"{value[:longest]}… ({len(value) - longest} more characters)"


def text(value: str) -> str:
    """Text as it is recorded: without what `clean` takes out, tabs as they are, and bounded."""
    # Most is plain; looking costs less than replacing.
    return cut(value if value.isprintable() else _without(value), LONGEST)


def number(value: float) -> float | None:
    """A number (or true or false) as it is recorded; None for one that nothing of ours can have."""
    # No comparison is true of NaN; a whole number may be too large for a float.
    return value if -LARGEST < value < LARGEST else None


def cleaned(value: Any, depth: int = 50) -> Any:
    """A copy of plain JSON types with every text in it as `text` has it, every number as `number` has it."""
    if isinstance(value, str):
        return text(value)
    if depth and isinstance(value, Mapping):
        return {text(str(key)): cleaned(item, depth - 1) for key, item in value.items()}
    if depth and isinstance(value, list | tuple):
        return [cleaned(item, depth - 1) for item in value]
    return number(value) if isinstance(value, int | float) else value


def decision_id(value: object) -> str | None:
    """The id of a decision, None for what is none: it names a folder."""
    return value if isinstance(value, str) and _DECISION_ID.fullmatch(value) else None


def is_below(path: str) -> bool:
    """Whether a relative path stays below the folder it is put into."""
    parts = path.split("/")
    return bool(path) and path.isprintable() and not {"", ".", ".."} & set(parts) and "\\" not in path


def unusable_names(names: Iterable[str]) -> list[str]:
    """Names of hosts that cannot be the name of a folder, a word of a command, and a word on the screen."""
    return [
        name
        for name in names
        if name.startswith((".", "-", "~"))
        or len(name.encode("utf-8", "replace")) > NAME_BYTES
        or not name.isprintable()
        or re.search(r"[\s/\\'\"`$;&|<>(){}!*?#]", name)
        or UNSAFE_ON_A_LINE.search(name)
    ]


def made_here(action: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """What of the result of a task callbacks may believe: nothing that a host could have put in."""
    believed = MADE_BY.get(action, frozenset())
    return {
        key: value
        for key, value in result.items()
        if key in believed or not (key.startswith("swiftdeploy_") or key == "manifest")
    }
