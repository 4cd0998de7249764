"""The revision of the policies: one number for exactly these files."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from support.workspace import REPOSITORY
from swiftdeploy import policies

POLICIES = REPOSITORY / "policies"
BY_HAND = (
    r"find . \( -name '*.rego' -o -name 'data.*' \) ! -name '*_test.rego' -printf '%P\n'"
    " | LC_ALL=C sort | xargs sha256sum | sha256sum"
)


def test_anyone_can_make_the_revision_with_a_shell() -> None:
    done = subprocess.run(["sh", "-c", BY_HAND], cwd=POLICIES, capture_output=True, text=True, check=True)
    assert policies.revision(policies.policy_files(POLICIES)) == done.stdout.split()[0]


def test_the_bundle_claims_all_data_and_ends_with_its_manifest() -> None:
    files = policies.policy_files(POLICIES)
    *rest, last = policies.bundle(files)
    assert rest == files
    assert last["path"] == ".manifest"
    assert json.loads(last["content"]) == {"revision": policies.revision(files), "roots": [""]}
    assert policies.revision(policies.bundle(files)) == policies.revision(files)


def test_tests_are_no_policies() -> None:
    paths = [entry["path"] for entry in policies.policy_files(POLICIES)]
    assert {"authz/authz.rego", "thresholds/data.yaml"} <= set(paths)
    assert not [path for path in paths if path.endswith("_test.rego") or path.endswith(".md")]


def test_a_changed_byte_a_moved_byte_and_a_new_name_are_other_revisions() -> None:
    base = [{"path": "a.rego", "content": "one"}, {"path": "b.rego", "content": "two"}]
    others = [
        [{"path": "a.rego", "content": "onE"}, base[1]],
        [{"path": "a.rego", "content": "onet"}, {"path": "b.rego", "content": "wo"}],
        [{"path": "c.rego", "content": "one"}, base[1]],
        base[:1],
    ]
    assert len({policies.revision(files) for files in [base, *others]}) == 5
    assert policies.revision(base) == policies.revision(base[::-1])


def test_a_folder_without_policies_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "only_test.rego").write_text("package only_test")
    with pytest.raises(ValueError, match="there is no policy below"):
        policies.policy_files(tmp_path)
