"""Values of secrets on a host: kept for each release, handed to its program, masked in all that is quoted.

``secrets/RELEASE.json`` below the stack's folder holds the values that a release was started with, so that a way back
needs nothing but the host; it goes with the release. ``secrets/SLOT.env`` is what compose reads. The folder and its
files are for the stack's user alone. No value is in state.json.

Whatever a service or a program printed may hold a value. It leaves the host through ``masked``, and no other way.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Optional, Set, Tuple
from urllib.parse import quote, quote_plus, unquote, urlsplit

from .files import read_bytes, write_atomic

FOLDER = "secrets"
MASK = "********"
# Anything shorter stands in texts that have nothing to do with it. It is masked only behind its own name.
SHORTEST = 6
# Of a line of a value of many lines, and of a piece of an encoded value.
SHORTEST_PART = 8
# The kernel takes no more for one variable: MAX_ARG_STRLEN, with name, "=" and the NUL at the end.
LARGEST = 128 * 1024

Values = Dict[str, str]

_NUMBER = re.compile(r"[-+0-9.eE]*")
_RELEASE = re.compile(r"[0-9A-Za-z-]+")


# --- on the way to the host ------------------------------------------------------------------------------------------


def pack(values: Values) -> str:
    """Values as one opaque word: Ansible hides a hidden argument's text wherever it meets it, and must meet none."""
    return base64.b64encode(json.dumps(values, sort_keys=True).encode()).decode()


def unpack(packed: str) -> Values:
    """What ``pack`` packed; nothing of an empty text."""
    return dict(json.loads(base64.b64decode(packed))) if packed else {}


def unusable(name: str, value: str, runtime: str) -> Optional[str]:
    """Why a program cannot have this value, None where it can. The value itself is never in the words."""
    data = os.fsencode(value)
    if b"\0" in data:
        return f"the value of the secret {name} holds a NUL byte, which no variable can: encode it, as Base64"
    if len(data) + len(name) + 2 > LARGEST:
        return (
            f"the value of the secret {name} has {len(data)} bytes, and an environment variable may have "
            f"{LARGEST - len(name) - 2}: let the service read it from elsewhere"
        )
    if runtime == "docker":
        try:
            data.decode()
        except UnicodeDecodeError:
            return (
                f"the value of the secret {name} holds bytes that are not UTF-8, which Docker does not hand on: "
                "encode it, as Base64"
            )
    return None


# --- kept -------------------------------------------------------------------------------------------------------------


def path_of(stack_dir: Path, release: str) -> Path:
    """Where the values of a release are kept. Raises ValueError for an id that is none."""
    if not _RELEASE.fullmatch(release):
        raise ValueError(f"{release!r} is not the id of a release")
    return stack_dir / FOLDER / f"{release}.json"


def private_folder(folder: Path) -> None:
    """Make ``folder`` one that its owner alone enters, also where it was made otherwise."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)


def keep(stack_dir: Path, release: str, values: Values) -> None:
    """Keep the values of a release; nothing is written for one without any. Raises OSError."""
    if values:
        private_folder(stack_dir / FOLDER)
        write_atomic(path_of(stack_dir, release), json.dumps(values, sort_keys=True).encode(), mode=0o600)


def of_release(stack_dir: Path, release: str) -> Values:
    """The kept values of a release, empty where none are. Raises OSError, ValueError."""
    found = json.loads(read_bytes(path_of(stack_dir, release)) or b"{}")
    return {str(name): str(value) for name, value in found.items()}


def kept_names(stack_dir: Path, releases: Iterable[str]) -> Dict[str, List[str]]:
    """Names of the secrets whose values lie here, by release."""
    found = {}
    for release in releases:
        with suppress(OSError, ValueError, AttributeError):
            names = sorted(of_release(stack_dir, release))
            if names:
                found[release] = names
    return found


def forget(stack_dir: Path, state: Dict[str, Any]) -> None:
    """Remove the values of every release that ``state`` does not know any more. Raises OSError."""
    slots = state.get("slots") or {}
    known = [*(state.get("releases") or []), *slots.values(), state.get("last_stable")]
    wanted = {f"{release['id']}.json" for release in known if release}
    wanted |= {f"{slot}.env" for slot, release in slots.items() if release}
    for path in sorted((stack_dir / FOLDER).glob("*.*")):
        if path.suffix in (".json", ".env") and path.name not in wanted:
            path.unlink()
    for slot, release in slots.items():
        if not release:
            (stack_dir / "programs" / f"{slot}.json").unlink(missing_ok=True)


# --- handed to a program ----------------------------------------------------------------------------------------------


def env_file(values: Values) -> str:
    """Text of an environment file that every compose from 2.18 on reads as exactly these values.

    Only a dollar has an escape of its own. For the rest three octal digits are what all of them understand: a backslash
    before the closing quote, for example, older ones take for that quote's escape.
    """
    return "".join(f'{name}="{"".join(map(_escaped, value))}"\n' for name, value in sorted(values.items()))


def _escaped(character: str) -> str:
    if character == "$":
        return "\\$"
    if character in "\\\"'" or ord(character) < 32 or ord(character) == 127:
        return f"\\0{ord(character):03o}"
    return character


def start_files(runtime: str, slot: str, described: List[Dict[str, Any]], values: Values) -> List[Dict[str, Any]]:
    """The files with which ``slot`` is started with ``values``, as ``files.outdated`` takes them.

    ``described``: in the process runtime what launch.py reads, without them.
    """
    if runtime == "docker":
        return [{"path": f"{FOLDER}/{slot}.env", "content": env_file(values), "mode": "0600"}] if values else []
    found = []
    for entry in described:
        wanted = json.loads(entry["content"])
        wanted["env"] = {**wanted.get("env", {}), **values}
        text = json.dumps(wanted, indent=2, sort_keys=True) + "\n"
        found.append({**entry, "content": text, "mode": "0600"})
    return found


# --- masked -----------------------------------------------------------------------------------------------------------


def masked(stack_dir: Path, text: str, *, figures: bool = False) -> str:
    """``text`` without the values that lie on this host for the stack, in whatever form.

    ``figures``: the text is full of numbers that are evidence, so that a value which is a number stays.
    """
    known: Dict[Tuple[str, str], None] = {}
    for path in sorted((stack_dir / FOLDER).glob("*.json")):
        with suppress(OSError, ValueError, AttributeError):
            known.update(dict.fromkeys(json.loads(path.read_bytes()).items()))
    if figures:
        known = {pair: None for pair in known if not _NUMBER.fullmatch(pair[1])}
    return without(text, known) if known else text


def without(text: str, known: Iterable[Tuple[str, str]]) -> str:
    """``text`` with each of ``known`` [(name, value)] masked. Pure."""
    spans: List[Tuple[int, int]] = []
    for name, value in known:
        spans += _behind_its_name(text, name, value)
        for form in forms(value):
            begin = text.find(form)
            while begin >= 0:
                spans.append((begin, begin + len(form)))
                begin = text.find(form, begin + 1)
    out: List[str] = []
    done = 0
    for begin, end in sorted(spans):
        if begin > done or not out:
            out += [text[done:begin], MASK]
        done = max(done, end)
    return "".join([*out, text[done:]])


def _behind_its_name(text: str, name: str, value: str) -> Iterator[Tuple[int, int]]:
    """Where a value that is too short to be looked for stands as NAME=value, NAME: value or "NAME": "value"."""
    if 0 < len(value) < SHORTEST:
        for found in re.finditer(rf"(?<!\w){re.escape(name)}[\"']?\s*[=:]\s*[\"']?({re.escape(value)})(?!\w)", text):
            yield found.span(1)


def forms(value: str) -> Set[str]:
    """How a value may look in what a program prints: as it is, line by line, a URL's password, and encoded."""
    whole = {value, value.strip()}
    lines = [line.strip() for line in value.splitlines()] if "\n" in value or "\r" in value else []
    # The first and last line of a PEM are no secret.
    parts = {line for line in lines if len(line) >= SHORTEST_PART and not line.startswith("-----")}
    secrets = {text for text in whole | set(_password(value)) if len(text) >= SHORTEST}
    found = secrets | parts
    for text in found.copy():
        found |= set(_escaped_forms(text))
    for text in secrets:
        found |= set(_digits(text))
    return found


def _password(value: str) -> Iterator[str]:
    """The password in a URL, as it stands there and decoded."""
    with suppress(ValueError):
        secret = urlsplit(value).password if "://" in value else None
        if secret:
            yield from (secret, unquote(secret))


def _escaped_forms(text: str) -> Iterator[str]:
    data = os.fsencode(text)
    for form in {quote(data, safe=""), quote(data), quote_plus(data)}:
        yield form
        # Some write the digits of an escape small.
        yield re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), form)
    # As JSON, which is also how a line break becomes a backslash and an n; and JSON in JSON, as of structured logs.
    for plain in (True, False):
        once = json.dumps(text, ensure_ascii=plain)[1:-1]
        yield from (once, json.dumps(once, ensure_ascii=plain)[1:-1])
    yield from (repr(text)[1:-1], repr(data)[2:-1], shlex.quote(text)[1:-1] if "'" in text else text)
    yield from (html.escape(text), html.escape(text, quote=False))


def _digits(text: str) -> Iterator[str]:
    data = os.fsencode(text)
    yield from (data.hex(), data.hex().upper())
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(data).decode()
        # Whatever stands around it, as in user:password: the digits that are of the value alone.
        for ahead in range(3):
            digits = encode(b"\0" * ahead + data).rstrip(b"=").decode()
            piece = digits[(0, 2, 3)[ahead] : len(digits) if (ahead + len(data)) % 3 == 0 else len(digits) - 1]
            if len(piece) >= SHORTEST_PART:
                yield piece
