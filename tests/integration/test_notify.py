"""Notifications of real ansible-playbook runs, to a real HTTP server."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from integration.test_callbacks import AUDIT, RECORD, WAITING, Project
from support.workspace import free_port, wait_until
from swiftdeploy import history

ENABLED = {"ANSIBLE_CALLBACKS_ENABLED": "swiftdeploy_history,swiftdeploy_notify"}
TOKEN = "T0KEN-of-the-address"
SECRET = "s3cret-of-the-signature"


class Receiver:
    """Holds every post until it is released."""

    def __init__(self, port: int = 0) -> None:
        receiver = self
        self.got: list[dict[str, Any]] = []
        self.signed: list[str | None] = []
        self.release = threading.Event()
        self.answered = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.signed.append(self.headers["X-SwiftDeploy-Signature"])
                receiver.got.append(json.loads(content))
                receiver.release.wait(60)
                self.send_response(204)
                self.end_headers()
                receiver.answered.set()

            def log_message(self, *_arguments: Any) -> None:
                """Nothing to the screen."""

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/{TOKEN}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.release.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def log(project: Project) -> str:
    path = project.folder / "notifications.log"
    return path.read_text() if path.exists() else ""


def arguments_of_all_processes() -> dict[str, str]:
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            found[entry.name] = (entry / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:
            continue
    return found


def test_a_run_ends_while_the_receiver_still_holds_its_post_and_shows_no_secret(
    project: Project, receiver: Receiver
) -> None:
    environment = {"SWIFTDEPLOY_NOTIFY_URL": receiver.url, "SWIFTDEPLOY_NOTIFY_SECRET": SECRET}
    run = project.play(RECORD, "-vvv", **ENABLED, **environment)
    assert run.status == 0
    assert "Deployment successful  web1" in run.out
    wait_until(lambda: receiver.got, "the post")
    # The playbook is over, and nobody has answered yet.
    assert log(project) == ""
    arguments = arguments_of_all_processes()
    posting = [words for words in arguments.values() if words.rstrip().endswith("-m swiftdeploy.notify")]
    assert posting
    for secret in (TOKEN, SECRET):
        assert not [words for words in arguments.values() if secret in words]
        assert secret not in run.out
    receiver.release.set()
    wait_until(lambda: "delivered" in log(project), "the log")
    (body,) = receiver.got
    (record,) = project.records()
    assert {key: body[key] for key in ("event", "run_id", "host", "timestamp", "actor")} == {
        key: record[key] for key in ("event", "run_id", "host", "timestamp", "actor")
    }
    assert receiver.signed[0] is not None
    for written in (project.history.read_text(), log(project)):
        assert TOKEN not in written
        assert SECRET not in written


def test_a_dry_run_and_other_events_send_nothing(project: Project, receiver: Receiver) -> None:
    receiver.release.set()
    environment = {"SWIFTDEPLOY_NOTIFY_URL": receiver.url, **ENABLED}
    assert project.play(RECORD, "--check", **environment).status == 0
    assert project.play(RECORD, SWIFTDEPLOY_NOTIFY_EVENTS="rollback*,override", **environment).status == 0
    assert project.play(RECORD, "-e", "run_id=run-2", **environment).status == 0
    wait_until(lambda: receiver.got, "the post")
    # Those of the runs before would have come before it.
    assert [body["run_id"] for body in receiver.got] == ["run-2"]


def test_a_receiver_that_comes_later_gets_it(project: Project) -> None:
    port = free_port()
    (project.folder / "urls").write_text(f"# ours\nops generic http://127.0.0.1:{port}/{TOKEN}\n")
    environment = {"SWIFTDEPLOY_NOTIFY_URL_FILE": "urls", **ENABLED}
    assert project.play(RECORD, **environment).status == 0
    late = Receiver(port)
    late.release.set()
    try:
        wait_until(lambda: "delivered" in log(project), "the post", 60)
    finally:
        late.close()
    assert [body["event"] for body in late.got] == ["deploy"]


def test_what_cannot_be_delivered_is_in_the_history(project: Project) -> None:
    environment = {"SWIFTDEPLOY_NOTIFY_URL": f"http://127.0.0.1:{free_port()}/{TOKEN}", **ENABLED}
    run = project.play(RECORD, SWIFTDEPLOY_NOTIFY_SECONDS="1", **environment)
    assert run.status == 0
    wait_until(lambda: len(project.records()) == 2, "the event")
    _deploy, failed = project.records()
    assert failed["event"] == "notification_failed"
    assert failed["target"] == "default"
    assert failed["reason"].startswith("deploy was not delivered to default: connection refused")
    assert history.verify(project.history).ok
    # Whoever may read the history may verify it.
    assert project.history.with_name("history.jsonl.head").stat().st_mode == project.history.stat().st_mode
    assert TOKEN not in project.history.read_text() + log(project)


def test_the_failure_is_in_the_history_that_the_run_used(project: Project) -> None:
    (project.folder / "below").mkdir()
    used = project.folder / "below" / "h.jsonl"
    environment = {"SWIFTDEPLOY_NOTIFY_URL": f"http://127.0.0.1:{free_port()}/{TOKEN}", **ENABLED}
    options = ("-e", "swiftdeploy_history=below/h.jsonl")
    assert project.play(RECORD, *options, SWIFTDEPLOY_NOTIFY_SECONDS="1", **environment).status == 0
    wait_until(lambda: len(list(history.read(used))) == 2, "the event")
    assert [record["event"] for record in history.read(used)] == ["deploy", "notification_failed"]
    assert "NOT DELIVERED" in (project.folder / "below" / "notifications.log").read_text()
    assert not project.history.exists()
    assert log(project) == ""


@pytest.mark.parametrize(
    ("how", "following"),
    [
        pytest.param(signal.SIGKILL, RECORD, id="killed, then a deploy"),
        pytest.param(signal.SIGKILL, AUDIT, id="killed, then an audit"),
        pytest.param(signal.SIGINT, RECORD, id="Ctrl-C, then a deploy"),
    ],
)
def test_an_interrupted_run_is_posted_exactly_once(
    project: Project, receiver: Receiver, how: signal.Signals, following: str
) -> None:
    receiver.release.set()
    environment = {"SWIFTDEPLOY_NOTIFY_URL": receiver.url, **ENABLED}
    process = project.start(WAITING, **environment)
    try:
        wait_until((project.folder / "waiting").exists, "the task to run", 60)
        process.send_signal(how)
        process.communicate(timeout=60)
    finally:
        # Lets the module on the host end by itself.
        (project.folder / "go").touch()
    if how == signal.SIGINT:
        wait_until(lambda: receiver.got, "the post of the run that was interrupted itself")
    assert project.play(following, **environment).status == 0
    assert project.play(RECORD, "-e", "run_id=last", **environment).status == 0
    expected = {("deploy_interrupted", "run-7"), ("deploy", "last")} | (
        {("deploy", "run-1")} if following == RECORD else set()
    )

    def posted() -> list[tuple[str, str]]:
        return [(body["event"], body["run_id"]) for body in receiver.got]

    wait_until(lambda: expected <= set(posted()), "the posts")
    assert sorted(posted()) == sorted(expected)
    (body,) = (body for body in receiver.got if body["event"] == "deploy_interrupted")
    (record,) = (record for record in project.records() if record["event"] == "deploy_interrupted")
    assert {key: record[key] for key in ("timestamp", "actor", "host", "reason", "version")} == {
        key: body[key] for key in ("timestamp", "actor", "host", "reason", "version")
    }
    assert body["text"].startswith("INTERRUPTED: deploy  app v2.0.0 (stable)  on web1  by ada@control\n")


def test_a_wrong_setting_is_one_warning_and_no_failure(project: Project) -> None:
    run = project.play(RECORD, SWIFTDEPLOY_NOTIFY_URL=f"ftp://host/{TOKEN}", **ENABLED)
    assert run.status == 0
    text = " ".join(run.out.split())
    assert (
        text.count("[WARNING]: no notifications are sent: SWIFTDEPLOY_NOTIFY_URL (address 1) is no http or https") == 1
    )
    assert "write it as https://HOST/PATH" in text
    assert TOKEN not in text
    assert "Deployment successful" in text
