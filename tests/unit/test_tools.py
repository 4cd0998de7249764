"""The tools around the tests: what is missing is said in a sentence, what was not checked does not count as checked."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from support.workspace import REPOSITORY

PREVIOUS = Path("molecule") / "upgrade" / "previous.sh"
RECAP = "web1 : ok=9    changed={}    unreachable=0    failed=0"


def run(script: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What a script says, with nothing of this process's environment but the PATH."""
    return subprocess.run(
        [str(script), *words],
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", **environment},
        cwd=script.parent,
        capture_output=True,
        text=True,
        check=False,
    )


def copied(folder: Path, script: Path) -> Path:
    """A script at its place in a folder that is no clone."""
    target = folder / script
    target.parent.mkdir(parents=True)
    shutil.copy2(REPOSITORY / script, target)
    return target


class TestPreviousRelease:
    def git(self, folder: Path, *words: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]
        done = subprocess.run(["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def clone(self, folder: Path, *versions: str) -> Path:
        """A repository with a commit and its tag for each of ``versions``, then one more commit."""
        script = copied(folder, PREVIOUS)
        self.git(folder, "init")
        for version in (*versions, "now"):
            (folder / "version").write_text(version)
            self.git(folder, "add", ".")
            self.git(folder, "commit", "--message", version)
            if version != "now":
                self.git(folder, "tag", version)
        return script

    def test_a_folder_without_history_is_refused_in_a_sentence(self, tmp_path: Path) -> None:
        ended = run(copied(tmp_path, PREVIOUS), str(tmp_path / "out"), GIT_CEILING_DIRECTORIES=str(tmp_path.parent))
        assert ended.returncode == 1
        assert "is not a clone that git can read" in ended.stderr

    def test_a_clone_without_the_commit_is_refused_in_a_sentence(self, tmp_path: Path) -> None:
        ended = run(self.clone(tmp_path), str(tmp_path / "out"))
        assert ended.returncode == 1
        assert "is not in this clone; fetch the whole history" in ended.stderr
        assert not (tmp_path / "out").exists()

    def test_the_newest_version_before_this_one_is_taken(self, tmp_path: Path) -> None:
        script = self.clone(tmp_path, "v1.0.0", "v1.1.0", "other")
        self.git(tmp_path, "tag", "v1.2.0")
        ended = run(script, str(tmp_path / "out"))
        assert ended.stdout.strip() == self.git(tmp_path, "rev-parse", "v1.1.0")
        assert (tmp_path / "out" / "version").read_text() == "v1.1.0"
        named = run(script, str(tmp_path / "out"), SWIFTDEPLOY_PREVIOUS="v1.0.0")
        assert named.returncode == 0
        assert (tmp_path / "out" / "version").read_text() == "v1.0.0"


def test_a_python_that_is_not_there_is_named(tmp_path: Path) -> None:
    ended = run(REPOSITORY / "tools" / "make-venv.sh", str(tmp_path / "venv"), "3.99", HOME=str(tmp_path))
    assert ended.returncode == 1
    assert "no Python 3.99 was found" in ended.stderr
    assert "pyenv install 3.99" in ended.stderr
    assert not (tmp_path / "venv").exists()


def test_a_python_of_pyenv_is_found_where_no_path_leads(tmp_path: Path) -> None:
    python = tmp_path / "versions" / "3.98.7" / "bin" / "python"
    python.parent.mkdir(parents=True)
    # Says that it is the version that it is asked for, and makes what venv would make.
    python.write_text('#!/bin/sh\nif [ "$1" = -m ]; then mkdir -p "$3"; else [ "$3" = 3.98 ]; fi\n')
    python.chmod(0o755)
    ended = run(REPOSITORY / "tools" / "make-venv.sh", str(tmp_path / "venv"), "3.98", PYENV_ROOT=str(tmp_path))
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "venv").is_dir()


# As it tells of a step on a screen, and without one.
@pytest.mark.parametrize("step", ["any ➜ {}: ", "[any > {}] "])
@pytest.mark.parametrize(
    ("converge", "idempotence", "words"),
    [
        (RECAP.format(3), RECAP.format(0), "molecule any: "),
        (RECAP.format(3), f"{RECAP.format(0)}\n{RECAP.format(2)}", "no recap of changed=0"),
        (RECAP.format(3), "a screen without a recap", "no recap of changed=0"),
        ("a screen without a recap", RECAP.format(0), "idempotence was not checked"),
    ],
)
def test_molecule_counts_only_with_a_recap(
    tmp_path: Path, converge: str, idempotence: str, words: str, step: str
) -> None:
    program = tmp_path / "molecule"
    steps = [("converge", converge), ("idempotence", idempotence), ("verify", RECAP.format(5))]
    text = "\n".join(
        f"INFO {step.format(name)}Executing\n{shown}\nINFO {step.format(name)}Executed: Successful"
        for name, shown in steps
    )
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")
    program.chmod(0o755)
    ended = run(REPOSITORY / "tests" / "molecule.sh", "any", PATH=f"{tmp_path}:/usr/bin:/bin")
    assert words in ended.stdout
    assert (ended.returncode == 0) == (words == "molecule any: ")
