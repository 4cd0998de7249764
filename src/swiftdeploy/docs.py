"""The reference in docs/ that is generated: ``python -m swiftdeploy.docs``, run at the root, writes it anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from swiftdeploy import manifest_schema as rules
from swiftdeploy.docs_roles import roles_reference
from swiftdeploy.docs_thresholds import thresholds_reference

_HEAD = """\
<!-- Generated from manifest.schema.json by `python -m swiftdeploy.docs`. Edit the schema. -->
# The manifest

`manifest.yaml` is the one file to edit: the desired state of one service. The smallest one:

```yaml
services: {image: "swift-deploy-1-node:latest", port: 3000}
nginx: {image: "nginx:latest", port: 8080}
network: {name: swiftdeploy-net, driver_type: bridge}
```

Everything else has a default. `ansible-playbook validate.yml` names every problem at once, with file, line, key,
what was found and what is allowed. An editor with a YAML language server completes and checks while typing; the
first line of `manifest.yaml` tells it the schema.

- The file is UTF-8 text in YAML 1.2. Anchors, aliases and merge keys (`<<`) work; tags do not.
- Durations are seconds, or text such as `500ms`, `30s`, `1m`.
- `services.version`, `services.env` and `contact` keep numbers as they are written: `1.10` stays `1.10`.
- Values are data: nothing in them is evaluated, by Ansible, by nginx or by a shell. No text may have control
  characters or more than one line.
- A key that is not known is an error.
- `promote.yml` keeps `services.mode` current in the file and changes nothing else in it.
"""


def manifest_reference() -> str:
    """The whole document."""
    parts = [_HEAD]
    for name, raw in rules.schema()["properties"].items():
        part = rules.resolved(raw)
        parts.append(f"\n## {name}\n\n" + (f"{part['description']}\n\n" if part.get("properties") else ""))
        parts.append("| key | default | allowed | meaning |\n|---|---|---|---|\n")
        rows = [path for path in rules.known_keys() if path[0] == name and not rules.at(path).get("properties")]
        parts.extend(_row(path) for path in rows)
        for path in rules.known_keys():
            section = rules.at(path)
            if path[0] == name and len(path) > 1 and section.get("properties"):
                parts.append(f"\n`{'.'.join(path)}`: {_cell(section['description'])}{_absent(section)}\n")
    return "".join(parts)


def _row(path: tuple[str, ...]) -> str:
    part = rules.at(path)
    cells = [f"`{'.'.join(path)}`", _default(path, part), _cell(rules.allowed(part)), _cell(part["description"])]
    return "| " + " | ".join(cells) + " |\n"


def _default(path: tuple[str, ...], part: dict[str, Any]) -> str:
    if "default" not in part:
        section = rules.at(path[:-1])
        if path[-1] not in section.get("required", []):
            return "none"
        return f"required in `{path[-2]}`" if "default" in section else "required"
    value = part["default"]
    if value in (None, {}, []):
        return "none"
    return f"`{value}`" if isinstance(value, str) else f"`{json.dumps(value)}`"


def _absent(section: dict[str, Any]) -> str:
    return " Default: none." if "default" in section else ""


def _cell(text: str) -> str:
    """Text that stays one cell: ``|`` parts cells, ``_`` and ``*`` and ``<`` would format it."""
    return text.replace("|", "\\|").replace(" _ ", " `_` ").replace("<", "&lt;")


def references(repository: Path) -> dict[str, str]:
    """Path below the repository to the whole text, for each document that is generated."""
    return {
        "docs/manifest.md": manifest_reference(),
        "docs/roles.md": roles_reference(repository),
        "docs/thresholds.md": thresholds_reference(repository),
    }


def main() -> None:
    for path, text in references(Path()).items():
        Path(path).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
