"""A plugin of Ansible as a module, to test its functions."""

from __future__ import annotations

import importlib.util
from typing import Any

from support.workspace import REPOSITORY


def load(folder: str, name: str) -> Any:
    """``name``.py of ``folder``, under a name that no plugin of Ansible's has."""
    spec = importlib.util.spec_from_file_location(f"{folder}_{name}", REPOSITORY / folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
