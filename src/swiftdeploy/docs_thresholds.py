"""docs/thresholds.md: what decisions are held against, from the schema and the shipped data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swiftdeploy import manifest_schema as rules
from swiftdeploy import thresholds

_HEAD = """\
<!-- Generated from src/swiftdeploy/thresholds.schema.json and policies/thresholds/data.yaml by
`python -m swiftdeploy.docs`. Edit those. -->
# The thresholds

`policies/thresholds/data.yaml` has every limit, as `TABLE: {ENVIRONMENT: {KEY: ...}}`. `swiftdeploy_environment` of the
inventory says which environment a host is in; one without an entry has `default`, and an entry names only what differs.
How to change one, and what else the policies look at: [policies](../policies/README.md#change-a-threshold).

Limits are `{min: NUMBER}`, `{max: NUMBER}` or both, and inclusive. A figure that no entry names is not judged; "-"
means that nothing is said there, so that an environment takes what `default` says.
"""


def thresholds_reference(repository: Path) -> str:
    """The whole document. Raises ``ThresholdsError`` where the shipped data is wrong."""
    return "".join([_HEAD, *_chapters(thresholds.load(repository / "policies"))])


def _chapters(data: dict[str, Any]) -> Iterator[str]:
    for table, part in thresholds.schema()["properties"].items():
        environments = ["default", *(name for name in data[table] if name != "default")]
        yield f"\n## {table}\n\n{part['description']}\n\n"
        yield "| key | " + " | ".join(f"`{name}`" for name in environments) + " | allowed | meaning |\n"
        yield "|---|" + "---|" * len(environments) + "---|---|\n"
        for key, figure in part["additionalProperties"]["properties"].items():
            values = [_value(data[table][name].get(key)) for name in environments]
            allowed = figure.get("x-allowed") or rules.allowed(figure)
            yield f"| `{key}` | {' | '.join(values)} | {_cell(allowed)} | {_cell(figure['description'])} |\n"


def _value(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, dict):
        return "`{" + ", ".join(f"{name}: {json.dumps(each)}" for name, each in value.items()) + "}`"
    return f"`{value}`" if isinstance(value, str) else f"`{json.dumps(value)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
