"""Turning values of a manifest into text of other languages, so that they stay data there.

A manifest may hold any printable text. What reaches nginx.conf or docker-compose.yml goes through here.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

DOLLAR = "${sd_dollar}"
CONFIG_MARK = "@CONFIG@"


def nginx_string(value: str) -> str:
    """``value`` as a single-quoted nginx string.

    nginx replaces ``$name`` in the strings of many directives and has no escape for it, so every dollar
    comes from the variable ``$sd_dollar``, which the configuration defines with ``geo``.
    """
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return "'" + escaped.replace("$", DOLLAR) + "'"


def nginx_json(value: Any) -> str:
    """``value`` as JSON in a single-quoted nginx string."""
    return nginx_string(json.dumps(value, ensure_ascii=False, separators=(", ", ": ")))


def compose_value(value: Any) -> str:
    """``value`` as YAML that compose takes literally.

    JSON is YAML; compose replaces ``$NAME`` in values, and ``$$`` stands for one dollar.
    """
    return json.dumps(value, ensure_ascii=False).replace("$", "$$")


def underscored(name: str) -> list[str]:
    """The other forms of a header's name that a service may take for it: each with "_" for one or more of its "-"."""
    forms = [name]
    for place in [index for index, letter in enumerate(name) if letter == "-"]:
        forms += [form[:place] + "_" + form[place + 1 :] for form in forms]
    return forms[1:]


def content_hash(value: Any) -> str:
    """Twelve hexadecimal digits of the SHA-256 of ``value`` (text, or anything that JSON can hold)."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def stamp(text: str) -> dict[str, str]:
    """{"text", "hash"}: ``text`` with its own hash in place of every ``@CONFIG@``.

    nginx reports the hash of the configuration that it has really loaded; so a change that is on disk but
    not loaded can be told from one that is.
    """
    found = content_hash(text)
    return {"text": text.replace(CONFIG_MARK, found), "hash": found}
