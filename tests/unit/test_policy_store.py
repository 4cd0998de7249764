"""The policies that are kept beside the history."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from swiftdeploy import policies, policy_store
from swiftdeploy.history import HistoryError

FILES = [{"path": "a/a.rego", "content": "package a\n"}, {"path": "thresholds/data.yaml", "content": "ü: 1\n"}]


def test_what_is_kept_is_read_again_and_kept_once(tmp_path: Path) -> None:
    book = tmp_path / "history.jsonl"
    place, new = policy_store.keep(book, FILES)
    again, newer = policy_store.keep(book, list(reversed(FILES)))
    assert (new, newer, again) == (True, False, place)
    assert policy_store.load(book, policies.revision(FILES)) == FILES
    assert [path.name for path in place.parent.iterdir()] == [f"{policies.revision(FILES)}.json"]
    assert stat.S_IMODE(place.stat().st_mode) == 0o644


def test_a_dry_run_keeps_nothing(tmp_path: Path) -> None:
    place, new = policy_store.keep(tmp_path / "history.jsonl", FILES, dry=True)
    assert new
    assert not place.exists()


@pytest.mark.parametrize("content", ["", "[]", "{", "3", '[{"path": "a"}]', '[{"path": "a", "content": "b"}]'])
def test_a_file_that_is_not_what_its_name_says_is_not_believed_and_is_mended(tmp_path: Path, content: str) -> None:
    book = tmp_path / "history.jsonl"
    place, _new = policy_store.keep(book, FILES)
    place.write_text(content)
    with pytest.raises(HistoryError):
        policy_store.load(book, place.stem)
    assert policy_store.keep(book, FILES) == (place, True)
    assert policy_store.load(book, place.stem) == FILES


@pytest.mark.parametrize("revision", ["", "../x", "A" * 64, "0" * 64])
def test_a_revision_that_is_none_or_not_there_is_told_so(tmp_path: Path, revision: str) -> None:
    with pytest.raises(HistoryError, match=r"is no revision|are not kept in"):
        policy_store.load(tmp_path / "history.jsonl", revision)


def test_where_nothing_can_be_kept_that_is_told_with_the_place(tmp_path: Path) -> None:
    (tmp_path / "history.jsonl.policies").write_text("in the way")
    with pytest.raises(HistoryError, match=r"cannot keep the policies in .*history\.jsonl\.policies"):
        policy_store.keep(tmp_path / "history.jsonl", FILES)
