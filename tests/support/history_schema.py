"""Whether the lines of a history are what history.schema.json says."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

from jsonschema import Draft202012Validator

from swiftdeploy import history


def validator() -> Draft202012Validator:
    """The schema that is shipped, itself valid."""
    schema = json.loads((files("swiftdeploy") / "history.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def violations(path: Path) -> list[str]:
    """What is wrong with any line, with its number and event; empty when all conform."""
    check = validator()
    return [
        f"line {record['seq']} ({record['event']}): {error.json_path}: {error.message}"
        for record in history.read(path)
        for error in check.iter_errors(record)
    ]
