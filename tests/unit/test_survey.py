"""What the first look at a host finds out for later steps, and what these steps make of it."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from swiftdeploy import policies, starting
from swiftdeploy_target import files, parts, survey

POLICIES = [{"path": "infrastructure.rego", "content": "package a\n"}, {"path": "data.json", "content": "{}\n"}]
WANTED = [
    {"path": "opa/config.yaml", "content": "bundles: {}\n", "mode": "0644"},
    {"path": "programs/opa.json", "content": '{"argv": []}\n', "mode": "0600"},
    *({"path": f"opa/policies/{entry['path']}", "content": entry["content"], "mode": "0644"} for entry in POLICIES),
    {"path": "opa/policies/deep/er.rego", "content": "package b\n", "mode": "0644"},
]
FOLDERS = [{"path": "opa/decisions", "mode": "0700"}, {"path": "opa/decisions/log", "mode": "0777"}]
PATTERNS = starting.opa_survey(POLICIES)["files"]
NOTHING = {"images": None, "parts": None, "files": None, "loaded_path": None}


def wanted(root: Path) -> files.Change:
    return files.change(root, WANTED, FOLDERS, (), "opa/policies/**/*")


def rewrite(root: Path) -> None:
    (root / "opa/config.yaml").write_text("bundles: {x: {}}\n")


def open_up(root: Path) -> None:
    (root / "programs/opa.json").chmod(0o644)


def lose(root: Path) -> None:
    (root / "opa/policies/data.json").unlink()


def stray(root: Path) -> None:
    (root / "opa/policies/deep/mine.rego").write_text("package c\n")


def close_folder(root: Path) -> None:
    (root / "opa/decisions/log").chmod(0o755)


def lose_folder(root: Path) -> None:
    (root / "opa/decisions/log").rmdir()


def beside(root: Path) -> None:
    (root / "opa/notes.txt").write_text("somebody's\n")
    (root / "opa/decisions/log/current.log").write_text("{}\n")


@pytest.mark.parametrize("done", [rewrite, open_up, lose, stray, close_folder, lose_folder, beside, lambda root: None])
def test_a_listing_tells_what_the_host_itself_would_find(tmp_path: Path, done: Callable[[Path], None]) -> None:
    """Also that a change of nothing that is ours is none."""
    wanted(tmp_path).apply()
    done(tmp_path)
    seen = survey.listing(tmp_path, PATTERNS)
    here = not wanted(tmp_path).paths
    assert starting.as_listed(seen, WANTED, FOLDERS, "opa/policies") is here
    assert here is (done is beside or done.__name__ == "<lambda>")


def test_a_host_that_was_not_looked_at_has_nothing() -> None:
    assert not starting.as_listed({}, WANTED, FOLDERS, "opa/policies")


def test_the_process_runtimes_files_are_all_listed(tmp_path: Path) -> None:
    needed = starting.program_files({"argv": ["opa"]}, "opa", str(tmp_path), "[supervisord]\n")
    files.change(tmp_path, needed).apply()
    assert starting.as_listed(survey.listing(tmp_path, PATTERNS), needed, [], "opa/policies")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[None]:
    """A server at the stack's socket that has loaded the policies above."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path == f"/health/loaded/{policies.revision(POLICIES)}"
            self.send_response(200 if known else 500)
            self.end_headers()

        def address_string(self) -> str:
            return "unix"

        def log_message(self, *_words: Any) -> None:
            pass

    run = tmp_path / "opa" / "run"
    run.mkdir(parents=True)
    with socketserver.ThreadingUnixStreamServer(str(run / "opa.sock"), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield
        server.shutdown()
        thread.join()


def test_a_policy_engine_is_asked_for_these_policies(engine: None, tmp_path: Path) -> None:
    asked = {**NOTHING, "loaded_path": starting.opa_survey(POLICIES)["loaded_path"]}
    assert survey.survey(asked, "docker", tmp_path, note=False) == {"loaded": True}
    others = {**NOTHING, "loaded_path": policies.loaded_path(POLICIES[:1])}
    assert survey.survey(others, "docker", tmp_path, note=False) == {"loaded": False}


def test_where_nobody_listens_nothing_is_loaded(tmp_path: Path) -> None:
    assert survey.survey({**NOTHING, "loaded_path": "/health"}, "docker", tmp_path, note=False) == {"loaded": False}


def test_one_that_gives_no_answer_is_not_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "LOADED_SECONDS", 0.2)
    run = tmp_path / "opa" / "run"
    run.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(run / "opa.sock"))
        silent.listen()
        assert survey.survey({**NOTHING, "loaded_path": "/health"}, "docker", tmp_path, note=False) == {}


def test_what_cannot_be_had_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_words: Any) -> Any:
        raise PermissionError("no")

    monkeypatch.setattr(survey, "listing", refused)
    monkeypatch.setattr(parts, "wish_of", refused)
    asked = {**NOTHING, "files": PATTERNS, "parts": {"dir": "/nowhere"}}
    assert survey.survey(asked, "process", tmp_path, note=False) == {}


def test_each_runtime_is_asked_for_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "inspect", lambda names: {name: {"id": "1", "label": None} for name in names})
    monkeypatch.setattr(survey, "programs", lambda wish, note: {"wish": wish, "note": note})
    asked = {**NOTHING, "images": ["a:1"], "parts": {"dir": "/x"}}
    assert survey.survey(asked, "docker", tmp_path, note=True) == {"images": {"a:1": {"id": "1", "label": None}}}
    assert survey.survey(asked, "process", tmp_path, note=True) == {"parts": {"wish": {"dir": "/x"}, "note": True}}
