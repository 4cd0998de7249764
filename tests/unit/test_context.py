"""From which commit a playbook runs, where git knows one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from swiftdeploy import context

WHEN = "2026-11-09T08:40:00+01:00"


def commit(*folders: str | Path, seconds: float = 120.0) -> dict[str, Any] | None:
    """As a run asks, but patient: the machine may be busy."""
    return context.commit(*folders, seconds=seconds)


def git(folder: Path, *words: str) -> str:
    return subprocess.run(
        ["git", "-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-C", str(folder), *words],
        env={**os.environ, "GIT_COMMITTER_DATE": WHEN, "GIT_AUTHOR_DATE": "2026-11-01T00:00:00Z"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "manifest.yaml").write_text("a")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "one")
    return folder


def test_the_commit_has_its_id_its_time_and_whether_files_differ_from_it(repository: Path) -> None:
    identity = git(repository, "rev-parse", "HEAD")
    clean = {"id": identity, "time": "2026-11-09T07:40:00Z", "dirty": False}
    assert commit(repository) == clean
    # The history and reports that lie beside a manifest do not make it another one.
    (repository / "history.jsonl").write_text("{}")
    assert commit(repository) == clean
    (repository / "manifest.yaml").write_text("b")
    assert commit(repository) == {**clean, "dirty": True}
    git(repository, "add", ".")
    assert commit(repository) == {**clean, "dirty": True}


def test_the_first_folder_that_git_knows_counts(repository: Path, tmp_path: Path) -> None:
    below = repository / "envs" / "live"
    below.mkdir(parents=True)
    found = commit(below)
    assert found is not None
    assert commit(tmp_path, repository) == found
    assert commit(tmp_path / "missing", repository) == found


def test_a_variable_of_a_hook_names_no_other_repository(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = commit(repository)
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert expected is not None
    assert commit(repository) == expected


def test_without_a_repository_a_commit_or_git_there_is_none(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert commit(empty) is None
    assert commit() is None
    assert commit("nul\0byte") is None
    git(empty, "init", "-q")
    assert commit(empty) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit(repository) is None


def test_a_git_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "git").write_text("#!/bin/sh\nexec sleep 600\n")
    (programs / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    # The test's own limit of time is what a wait of ten minutes would break.
    assert commit(tmp_path, tmp_path, seconds=0.2) is None


def test_a_git_that_answers_nonsense_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "git").write_text("#!/bin/sh\nprintf '\\377 what\\n'\n")
    (programs / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    assert commit(tmp_path) is None
