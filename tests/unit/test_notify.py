"""What is told to other programs, where to, and how often it is tried: on real HTTP servers."""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from support.workspace import wait_until
from swiftdeploy import history, notify

EVENT = {
    "event": "deploy_blocked",
    "timestamp": "2026-11-21T03:55:00.123Z",
    "run_id": "run-1",
    "actor": "ada@desk",
    "host": "web1",
    "service": "app",
    "version": "1.0.0",
    "mode": "stable",
    "reason": "disk has 3 GB free, minimum is 10 GB",
    "policy": {"infrastructure": {"outcome": "denied", "reasons": ["disk"], "decision_id": "d1", "checked": {"x": 1}}},
}


class Receiver:
    """An HTTP server that answers what it is told to, and keeps what it got."""

    def __init__(self, answers: list[tuple[int, dict[str, str]]]) -> None:
        receiver = self
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.answers = list(answers)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append((self.path, dict(self.headers), content))
                status, headers = receiver.answers.pop(0) if receiver.answers else (200, {})
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_arguments: Any) -> None:
                """Nothing to the screen."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receive() -> Iterator[Callable[..., Receiver]]:
    made: list[Receiver] = []

    def make(*answers: tuple[int, dict[str, str]]) -> Receiver:
        made.append(Receiver(list(answers)))
        return made[-1]

    yield make
    for receiver in made:
        receiver.close()


def told(**changes: Any) -> dict[str, Any]:
    return notify.message({**EVENT, **changes}, "id-1")


def target(url: str, form: str = "generic", secret: str = "") -> notify.Target:
    return notify.Target("default", url, form, secret)


def line(value: dict[str, Any]) -> bytes:
    """As the run writes it."""
    return b"\n" + json.dumps(value).encode() + b"\n"


def handed(path: Path, **changes: Any) -> bytes:
    return line({"history": str(path), "told": told(**changes)})


# -------------------------------------------------------------------------------------------------- posting


def test_a_message_is_posted_once_with_its_key(receive: Callable[..., Receiver]) -> None:
    receiver = receive()
    assert notify.post(target(receiver.url), told(), 20) == (True, "HTTP 200, 1 try")
    ((path, headers, content),) = receiver.got
    assert path == "/hook"
    assert headers["Idempotency-Key"] == "id-1"
    assert headers["X-SwiftDeploy-Event"] == "deploy_blocked"
    assert "X-SwiftDeploy-Signature" not in headers
    body = json.loads(content)
    assert body["schema"] == 1
    assert {key: body[key] for key in EVENT if key != "policy"} == {k: v for k, v in EVENT.items() if k != "policy"}
    assert body["policy"] == {"infrastructure": {"outcome": "denied", "reasons": ["disk"], "decision_id": "d1"}}
    assert body["text"] == (
        "DENIED: deploy  app v1.0.0 (stable)  on web1  by ada@desk\ndisk has 3 GB free, minimum is 10 GB"
    )


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_receiver_is_tried_again_with_the_same_key(receive: Callable[..., Receiver], status: int) -> None:
    receiver = receive((status, {}))
    assert notify.post(target(receiver.url), told(), 20) == (True, "HTTP 200, 2 tries")
    assert [headers["Idempotency-Key"] for _path, headers, _content in receiver.got] == ["id-1", "id-1"]
    assert receiver.got[0][2] == receiver.got[1][2]


def test_a_pause_that_the_receiver_asks_for_is_kept(
    receive: Callable[..., Receiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("urllib3.util.retry.time.sleep", slept.append)
    receiver = receive((503, {"Retry-After": "7"}), (429, {"Retry-After": "100000"}))
    assert notify.post(target(receiver.url), told(), 20)[0]
    # A longer one than we are willing to keep is cut.
    assert slept == [7, notify.PAUSE_SECONDS]


def test_a_receiver_that_is_not_there_yet_is_tried_again(receive: Callable[..., Receiver]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    taken, how = notify.post(target(f"http://127.0.0.1:{port}/secret-path"), told(), 1)
    assert not taken
    assert how.startswith("connection refused, ")
    assert "secret-path" not in how
    assert str(port) not in how


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((404, {}), "HTTP 404, 1 try"),
        ((302, {"Location": "http://127.0.0.1:9/elsewhere"}), "HTTP 302, it sends on to another address"),
        ((307, {"Location": "http://127.0.0.1:9/elsewhere"}), "HTTP 307, it sends on to another address"),
    ],
)
def test_what_no_repetition_helps_is_not_repeated(
    receive: Callable[..., Receiver], answer: tuple[int, dict[str, str]], words: str
) -> None:
    receiver = receive(answer)
    taken, how = notify.post(target(receiver.url), told(), 20)
    assert not taken
    assert how.startswith(words)
    assert len(receiver.got) == 1


def test_a_name_that_does_not_resolve_is_said_so() -> None:
    taken, how = notify.post(target("http://nowhere.invalid/secret-path"), told(), 1)
    assert not taken
    assert how.startswith("its name cannot be resolved, ")
    assert "nowhere" not in how


def test_a_receiver_can_verify_the_signature(receive: Callable[..., Receiver]) -> None:
    receiver = receive()
    assert notify.post(target(receiver.url, secret="s3cret"), told(), 20)[0]
    _path, headers, content = receiver.got[0]
    expected = hmac.new(b"s3cret", content, hashlib.sha256).hexdigest()
    assert headers["X-SwiftDeploy-Signature"] == f"sha256={expected}"
    assert b"s3cret" not in content


def test_slack_gets_escaped_and_bounded_text(receive: Callable[..., Receiver]) -> None:
    receiver = receive()
    assert notify.post(target(receiver.url, "slack"), told(reason="<!channel> a & b " + "x" * 9000), 20)[0]
    body = json.loads(receiver.got[0][2])
    assert list(body) == ["text"]
    assert "&lt;!channel&gt; a &amp; b" in body["text"]
    assert "<" not in body["text"]
    assert len(body["text"]) < 3500


def test_what_cannot_be_delivered_is_in_the_history_and_the_log(
    tmp_path: Path, receive: Callable[..., Receiver]
) -> None:
    good, bad = receive(), receive((403, {}), (403, {}))
    path = tmp_path / "history.jsonl"
    targets = [
        {"name": "broken", "url": f"{bad.url}/token", "format": "slack", "secret": ""},
        {"name": "good", "url": good.url, "format": "generic", "secret": "s3cret"},
    ]
    first, second = handed(path), handed(path, event="deploy", reason=None)
    # A line that Ctrl-C cut is passed over, and the one after it is not.
    notify.serve(io.BytesIO(b"\n".join([line({"targets": targets, "seconds": 20}), first, b'{"half', second, b'{"h'])))
    assert [json.loads(content)["event"] for _path, _headers, content in good.got] == ["deploy_blocked", "deploy"]
    records = list(history.read(path))
    assert [record["event"] for record in records] == ["notification_failed"] * 2
    assert records[0]["reason"] == "deploy_blocked was not delivered to broken: HTTP 403, 1 try"
    assert {records[0][key] for key in ("host", "service", "run_id", "actor")} == {"web1", "app", "run-1", "ada@desk"}
    assert history.verify(path).ok
    written = path.read_text() + (tmp_path / "notifications.log").read_text()
    assert "good  deploy  web1  delivered  HTTP 200, 1 try" in written
    assert "broken  deploy  web1  NOT DELIVERED  HTTP 403, 1 try" in written
    assert "token" not in written
    assert "127.0.0.1" not in written
    assert "s3cret" not in written


def test_the_log_does_not_grow_without_end(tmp_path: Path, receive: Callable[..., Receiver]) -> None:
    log = tmp_path / "notifications.log"
    log.write_text("x" * (notify.LOG_BYTES + 1))
    where = {"name": "good", "url": receive().url, "format": "generic", "secret": ""}
    notify.serve(io.BytesIO(line({"targets": [where], "seconds": 20}) + handed(tmp_path / "history.jsonl")))
    assert log.stat().st_size < 1000
    assert (tmp_path / "notifications.log.1").exists()


# ----------------------------------------------------------------------------------------------- which events


@pytest.mark.parametrize(
    ("event", "yes"),
    [
        ("deploy", True),
        ("deploy_failed", True),
        ("promote_blocked", True),
        ("rollback", True),
        ("override", True),
        ("lock_broken", True),
        ("policy_unavailable", True),
        ("teardown_interrupted", True),
        ("status_scrape", False),
        ("chaos", False),
        ("notification_failed", False),
    ],
)
def test_the_usual_events(event: str, yes: bool) -> None:
    assert notify.chosen(event, notify.EVENTS) is yes


def test_a_failed_notification_is_never_told() -> None:
    assert not notify.chosen("notification_failed", ("*",))


# ------------------------------------------------------------------------------------ from the history to a post


def test_chosen_events_are_posted_and_what_fails_is_in_the_history_that_has_the_event(
    tmp_path: Path, receive: Callable[..., Receiver]
) -> None:
    receiver = receive((200, {}), (403, {}))
    one, other = tmp_path / "one" / "h.jsonl", tmp_path / "other" / "h.jsonl"
    for path in (one, other):
        path.parent.mkdir()
        history.append(path, EVENT)
    sender = notify.Sender(notify.Settings((target(receiver.url),)), pytest.fail)
    sender.tell(one, {"event": "status_scrape"})
    sender.tell(one, next(history.read(one)))
    sender.tell(other, {**EVENT, "event": "rollback", "policy": "no mapping"})
    wait_until(lambda: len(list(history.read(other))) == 2, "the failure in the history")
    bodies = [json.loads(content) for _path, _headers, content in receiver.got]
    assert [(body["event"], body["timestamp"]) for body in bodies] == [
        ("deploy_blocked", EVENT["timestamp"]),
        ("rollback", EVENT["timestamp"]),
    ]
    assert len({body["id"] for body in bodies}) == 2
    failed = list(history.read(other))[1]
    assert failed["reason"] == "rollback was not delivered to default: HTTP 403, 1 try"
    assert len(list(history.read(one))) == 1
    assert "delivered" in (one.parent / "notifications.log").read_text()
    assert "NOT DELIVERED" in (other.parent / "notifications.log").read_text()


def test_a_process_that_cannot_be_started_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    warned: list[str] = []
    sender = notify.Sender(notify.Settings((target("http://127.0.0.1:9/token"),)), warned.append)
    monkeypatch.setattr("sys.executable", "/nonexistent/python")
    for _time in range(2):
        sender.tell(Path("/h/history.jsonl"), EVENT)
    assert warned == ["the process that posts them could not be started (No such file or directory)"]


# -------------------------------------------------------------------------------------------------- settings


def test_without_an_address_nothing_is_configured() -> None:
    assert notify.settings({}, {}) is None


def test_one_address_from_the_environment() -> None:
    environment = {"SWIFTDEPLOY_NOTIFY_URL": " https://hooks.example/T0 \n", "SWIFTDEPLOY_NOTIFY_SECRET": "s3cret\n"}
    given = notify.settings(environment, {"events": ["deploy*"], "seconds": 12})
    assert given == notify.Settings(
        (notify.Target("default", "https://hooks.example/T0", "generic", "s3cret"),), ("deploy*",), 12.0
    )
    assert "hooks" not in repr(given)
    assert "s3cret" not in repr(given)


def test_several_addresses_and_the_secret_from_files(tmp_path: Path) -> None:
    (tmp_path / "urls").write_text("# ours\nchat slack https://hooks.example/T0\n\nops generic http://ops:8080/x\n")
    (tmp_path / "secret").write_text("s3cret\n")
    given = notify.settings({}, {"url_file": f"{tmp_path}/urls", "secret_file": f"{tmp_path}/secret"})
    assert given is not None
    assert [(t.name, t.url, t.format, t.secret) for t in given.targets] == [
        ("chat", "https://hooks.example/T0", "slack", ""),
        ("ops", "http://ops:8080/x", "generic", "s3cret"),
    ]


@pytest.mark.parametrize(
    ("address", "options", "said"),
    [
        ("ftp://hooks.example/T0", {}, "write it as https://HOST/PATH"),
        ("hooks.example/T0", {}, "write it as https://HOST/PATH"),
        ("https:///T0", {}, "write it as https://HOST/PATH"),
        ("https://hooks.example:99999/T0", {}, "write it as https://HOST/PATH"),
        ("https://[hooks.example/T0", {}, "write it as https://HOST/PATH"),
        ("a b", {}, "neither ADDRESS nor NAME FORMAT ADDRESS"),
        ("https://hooks.example/T0", {"format": "teams"}, "take generic or slack"),
        ("https://hooks.example/T0", {"events": ["Deploy it"]}, "write names of events"),
        ("https://hooks.example/T0", {"seconds": 0}, "take 1 to 900"),
        ("https://hooks.example/T0", {"url_file": "x"}, "take one of them away"),
        ("https://hooks.example/T0", {"secret_file": "/nonexistent/s"}, "/nonexistent/s cannot be read"),
        ("", {"url_file": "/nonexistent/u"}, "/nonexistent/u cannot be read"),
        ("", {"url_file": "/dev/null"}, "holds no address"),
    ],
)
def test_wrong_settings_say_what_to_do_and_no_address(address: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(notify.SettingsError) as caught:
        notify.settings({"SWIFTDEPLOY_NOTIFY_URL": address}, options)
    assert said in str(caught.value)
    assert "T0" not in str(caught.value)


def test_a_name_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "urls").write_text("https://one.example\nhttps://two.example\n")
    with pytest.raises(notify.SettingsError, match="gives a name twice"):
        notify.settings({}, {"url_file": f"{tmp_path}/urls"})
