"""A real terminal of a given size, in which a program runs as a person would run it."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from support import debian
from support.workspace import wait_until

PATIENCE = 120.0
# Where frames are kept, if anywhere: as text, and as ANSI for support.frames.
FRAMES = "SWIFTDEPLOY_FRAMES"
ENDED = "ended with status"


class Session:
    """One terminal. It stays when the program has ended, so that what is left on it can be looked at."""

    def __init__(self, folder: Path, columns: int, lines: int) -> None:
        self._tmux = [
            str(debian.programs("tmux", "tmux") / "tmux"),
            "-u",
            "-L",
            f"sd-{secrets.token_hex(4)}",
            "-f",
            "/dev/null",
        ]
        self._folder = folder
        self._size = (columns, lines)

    def start(self, command: list[str], environment: Mapping[str, str]) -> None:
        """Run ``command`` with nothing but ``environment`` and what a terminal needs."""
        given = {"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"], **environment}
        words = ["new-session", "-d", "-x", str(self._size[0]), "-y", str(self._size[1]), "-c", str(self._folder)]
        assigned = " ".join(shlex.quote(f"{name}={value}") for name, value in given.items())
        # Started by the shell of a person, who sees the next prompt; cat stands for it.
        script = f'{shlex.join(command)}; printf "{ENDED} %s\\n" "$?"; exec cat'
        kept = {name: os.environ[name] for name in ("HOME", "USER", "LOGNAME", "TMPDIR") if name in os.environ}
        words.append(
            f"env -i {shlex.join([f'{key}={value}' for key, value in kept.items()])} {assigned} "
            f'TERM="$TERM" bash -c {shlex.quote("trap : INT; " + script)}'
        )
        self._ask(*words)

    def _ask(self, *words: str) -> str:
        done = subprocess.run([*self._tmux, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def keys(self, *names: str) -> None:
        """Press keys, by their names in tmux: C-c, Enter, q."""
        self._ask("send-keys", *names)

    def resize(self, columns: int, lines: int) -> None:
        """Give the terminal another size."""
        self._ask("resize-window", "-x", str(columns), "-y", str(lines))

    def text(self) -> str:
        """What is on the screen."""
        return self._ask("capture-pane", "-p")

    def ansi(self) -> str:
        """The same with its colours, as ANSI."""
        return self._ask("capture-pane", "-p", "-e")

    def state(self) -> tuple[bool, bool]:
        """Whether the cursor is shown, and whether the program has taken the screen."""
        cursor, taken = self._ask("display-message", "-p", "#{cursor_flag} #{alternate_on}").split()
        return cursor == "1", taken == "1"

    def until(self, *patterns: str, seconds: float = PATIENCE) -> str:
        """The screen when it shows every one of ``patterns`` at once.

        All that is expected of a frame belongs here: the next look may find the next frame, or half of it.
        """
        missing: list[str] = []

        def shown() -> str:
            text = self.text()
            missing[:] = [pattern for pattern in patterns if not re.search(pattern, text)]
            return "" if missing else text

        try:
            found: str = wait_until(shown, "the screen", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error} to show {missing}; it shows:\n{self.text()}") from None
        return found

    def keep(self, name: str, text: str) -> None:
        """Write the screen to files where FRAMES names a folder: ``text`` as NAME.txt, what it is now as NAME.ansi."""
        if os.environ.get(FRAMES):
            folder = Path(os.environ[FRAMES])
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}.txt").write_text(text)
            (folder / f"{name}.ansi").write_text(self.ansi())

    def end(self) -> None:
        """End the terminal and what runs in it."""
        subprocess.run([*self._tmux, "kill-server"], capture_output=True, check=False)


@contextlib.contextmanager
def session(
    folder: Path, command: list[str], environment: Mapping[str, str], columns: int = 80, lines: int = 24
) -> Iterator[Session]:
    """A terminal in which ``command`` runs."""
    opened = Session(folder, columns, lines)
    try:
        opened.start(command, environment)
        yield opened
    finally:
        opened.end()
