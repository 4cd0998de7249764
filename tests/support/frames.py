"""A captured screen as a picture: python -m support.frames FRAME.ansi [TITLE] > FRAME.svg"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text


def svg(ansi: str, title: str, columns: int | None = None) -> str:
    """``ansi``, a screen as tmux captures it, as an SVG with a window around it."""
    lines = [Text.from_ansi(line) for line in ansi.rstrip("\n").split("\n")]
    while lines and not lines[-1].plain.strip():
        lines.pop()
    width = columns or max((line.cell_len for line in lines), default=1)
    console = Console(width=width, record=True, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False)
    return console.export_svg(title=title)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    sys.stdout.write(svg(path.read_text(), sys.argv[2] if len(sys.argv) > 2 else "ansible-playbook status.yml"))
