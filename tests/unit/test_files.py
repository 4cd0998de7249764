"""A folder that is brought to a set of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from swiftdeploy_target.files import change

FILES = [
    {"path": "nginx.conf", "content": "new", "mode": "0644"},
    {"path": "opa/policies/kept.rego", "content": "same", "mode": "0600"},
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """nginx.conf is outdated, kept.rego is right, gone.rego is of an earlier set, notes.txt is somebody's."""
    folder = tmp_path / "root"
    (folder / "opa" / "policies").mkdir(parents=True)
    (folder / "nginx.conf").write_text("old")
    for name in ("kept", "gone"):
        (folder / "opa" / "policies" / f"{name}.rego").write_text("same")
    (folder / "opa" / "policies" / "kept.rego").chmod(0o600)
    (folder / "notes.txt").write_text("mine")
    return folder


def test_the_folder_gets_exactly_the_set_where_it_says_only(root: Path) -> None:
    wanted = change(root, FILES, only="opa/policies/**/*")
    assert wanted.paths == ["nginx.conf", "opa/policies/gone.rego"]
    assert [(one["before"], one["after"]) for one in wanted.differences()] == [("old", "new"), ("same", "")]
    wanted.apply()
    assert (root / "nginx.conf").read_text() == "new"
    assert sorted(path.name for path in root.rglob("*") if path.is_file()) == ["kept.rego", "nginx.conf", "notes.txt"]
    assert change(root, FILES, only="opa/policies/**/*").paths == []


def test_permissions_alone_are_a_change_without_a_difference(root: Path) -> None:
    change(root, FILES).apply()
    (root / "opa" / "policies" / "kept.rego").chmod(0o644)
    wanted = change(root, FILES)
    assert (wanted.paths, wanted.differences()) == (["opa/policies/kept.rego"], [])
    wanted.apply()
    assert (root / "opa" / "policies" / "kept.rego").stat().st_mode & 0o777 == 0o600


def test_folders_and_what_must_be_absent(root: Path) -> None:
    wanted = change(root, [], [{"path": "log", "mode": "0777"}], ["nginx.conf", "never/there"])
    assert wanted.paths == ["nginx.conf", "log"]
    wanted.apply()
    assert not (root / "nginx.conf").exists()
    assert (root / "log").stat().st_mode & 0o777 == 0o777


@pytest.mark.parametrize("path", ["../elsewhere", "/etc/passwd", "a/../../b"])
def test_nothing_is_written_outside(root: Path, path: str) -> None:
    with pytest.raises(ValueError, match="is not a path below"):
        change(root, [{"path": path, "content": "", "mode": "0644"}])
