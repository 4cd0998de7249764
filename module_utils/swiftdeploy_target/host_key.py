"""What proves to nginx that a request is this host's own: a key that only the stack's user can read.

An address proves nothing, since docker's proxy, a NAT or a balancer puts its own in. A socket in a private folder would
do as well, but nginx does not remove one that a killed nginx left behind, and could not start again by itself.

The file is a header as ``curl -H @FILE`` takes it. The key stands in nginx.conf in place of PLACEHOLDER, which is all
that the controller, its generated files and every diff have of it.
"""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from typing import Dict, Optional

from .files import read_bytes, write_atomic

HEADER = "X-SwiftDeploy-Host-Key"
FILE_NAME = "host-key"
PLACEHOLDER = "@HOST_KEY@"
_IN_CONFIG = re.compile(rb'"[0-9a-f]{64}" 1;')
_LINE = re.compile(rf"{HEADER}: ([0-9a-f]{{64}})\n")


def read(stack_dir: Path) -> Optional[str]:
    """The key of the stack, None where it has none yet."""
    found = _LINE.fullmatch((read_bytes(stack_dir / FILE_NAME) or b"").decode("ascii", "replace"))
    return found[1] if found else None


def ensure(stack_dir: Path) -> str:
    """The key of the stack, made where it has none yet."""
    key = read(stack_dir)
    if key is None:
        key = secrets.token_hex(32)
        write_atomic(stack_dir / FILE_NAME, f"{HEADER}: {key}\n".encode(), mode=0o600)
    return key


def headers(stack_dir: Path) -> Dict[str, str]:
    """What to send with a question to nginx."""
    key = read(stack_dir)
    return {HEADER: key} if key else {}


def fill(text: str, key: Optional[str]) -> str:
    """``text`` of nginx.conf with the key in it. Without one nobody is this host."""
    return text.replace(PLACEHOLDER, key or secrets.token_hex(32))


def hide(text: bytes) -> bytes:
    """``text`` of nginx.conf as it may be shown."""
    return _IN_CONFIG.sub(f'"{PLACEHOLDER}" 1;'.encode(), text)
