# Apache-2.0 (see LICENSE)
"""Filters that turn a folder of the controller into one value, and a requirements file into its lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

try:
    from swiftdeploy_target import tree
except ImportError as error:  # pragma: no cover
    raise AnsibleFilterError(
        "the swiftdeploy package is not installed for this Ansible: run `make setup`, "
        "or `pip install -r requirements.txt` in the repository"
    ) from error


def _read(folder: str, exclude: Sequence[str]) -> list[tuple[str, bool, bytes]]:
    """The files of ``folder``, with errors in words."""
    try:
        return tree.read_tree(Path(folder), [str(pattern) for pattern in exclude])
    except (OSError, ValueError) as error:
        raise AnsibleFilterError(f"cannot read the folder {folder}: {error}") from error


def sd_tree_hash(folder: str, exclude: Sequence[str] = ()) -> str:
    """SHA-256 of what is in ``folder``: paths, contents and executable bits, without what ``exclude`` matches.

    A pattern (as a shell's) matches a relative path, or the name of a file or of a folder above it.
    """
    return tree.hash_tree(_read(folder, exclude))


def sd_tree_pack(folder: str, exclude: Sequence[str] = ()) -> str:
    """The files behind ``sd_tree_hash`` as text, for the option service_archive of swiftdeploy_parts."""
    return tree.pack(_read(folder, exclude))


def sd_requirements(path: str) -> list[str]:
    """The requirements in a file: continued lines joined, comments and empty lines left out.

    Options that name other files are refused: the hosts would not have those files.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise AnsibleFilterError(f"cannot read {path}: {error.strerror}") from error
    lines = []
    for line in text.replace("\\\n", " ").splitlines():
        words = line.split("#", 1)[0].split() if line.lstrip().startswith("#") else line.split(" #", 1)[0].split()
        if not words:
            continue
        if words[0].startswith(("-r", "--requirement", "-c", "--constraint", "-e", "--editable", ".", "/")):
            raise AnsibleFilterError(
                f"{path}: `{' '.join(words)}` names another file or folder, which the hosts do not have; "
                "list the packages themselves, pinned"
            )
        lines.append(" ".join(words))
    return lines


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"sd_tree_hash": sd_tree_hash, "sd_tree_pack": sd_tree_pack, "sd_requirements": sd_requirements}
