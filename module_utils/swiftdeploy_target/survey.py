"""What later steps would each ask the host for, asked along with the first look: one start of Python instead of three.

An answer that could not be had is left out. The step that needs it then asks by itself, and says what is wrong.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Optional

from . import opa, parts
from .files import mode_of, sha256
from .http import FetchError, fetch
from .images import inspect
from .keep import PartsError

# The program is on this host: one that is there answers in milliseconds.
LOADED_SECONDS = 2.0


def listing(root: Path, patterns: List[str]) -> Dict[str, Dict[str, str]]:
    """{path below ``root``: {"sha256" of a file or empty for a folder, "mode" in octal}} of what the globs match.

    Raises OSError for what cannot be read.
    """
    found = {}
    for path in (path for pattern in patterns for path in root.glob(pattern)):
        digest = sha256(path.read_bytes()) if path.is_file() else ""
        found[str(path.relative_to(root))] = {"sha256": digest, "mode": f"{mode_of(path) or 0:04o}"}
    return found


def is_loaded(url: str) -> Optional[bool]:
    """What a program answers at ``url``: 2xx is yes, another status or nobody there is no, no answer in time is None.

    Nobody is there although the program runs where the stack's folder was replaced under it, by a mount or a backup.
    """
    try:
        return 200 <= fetch(url, LOADED_SECONDS).status < 300
    except FetchError as problem:
        return False if problem.cause == "refused" else None


def programs(wanted: Dict[str, Any], note: bool) -> Optional[Dict[str, Any]]:
    """The programs of the process runtime, see ``parts.report``; None where they could not be looked at."""
    try:
        return parts.report(parts.wish_of(wanted), note)
    except (PartsError, OSError, ValueError):
        return None


def survey(wanted: Dict[str, Any], runtime: str, stack_dir: Path, note: bool) -> Dict[str, Any]:
    """Answer ``wanted``: {"images": names, "parts": see ``parts.WISH``, "files": globs below the stack's folder,
    "loaded_path": where its policy engine says whether it has loaded them}, each None where it is not asked for.

    ``note``: that the programs are in use may be written down. Gives the same keys; "loaded" for the last one.
    """
    found: Dict[str, Any] = {}
    if runtime == "docker" and wanted["images"]:
        found["images"] = inspect(wanted["images"])
    if runtime == "process" and wanted["parts"]:
        found["parts"] = programs(wanted["parts"], note)
    if wanted["files"]:
        try:
            found["files"] = listing(stack_dir, wanted["files"])
        except OSError:
            found["files"] = None
    if wanted["loaded_path"]:
        found["loaded"] = is_loaded(opa.socket_url(stack_dir) + wanted["loaded_path"])
    return {key: value for key, value in found.items() if value is not None}
