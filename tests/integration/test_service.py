"""The service as it runs: real gunicorn, several workers, workers that die."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.parser import text_string_to_metric_families

SERVICE = Path(__file__).resolve().parents[2] / "service"
PATIENCE = 30.0


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


class Service:
    """A running service. Every call opens a connection of its own, so that any worker may take it."""

    def __init__(self, directory: Path, mode: str, options: list[str], **environ: str) -> None:
        self.state = directory / "state"
        self.log = directory / "out.log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environ = {
            **os.environ,
            "MODE": mode,
            "APP_VERSION": "1.2.3",
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "STATE_DIR": str(self.state),
            **environ,
        }
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "swift_service", *options],
                cwd=SERVICE,
                env=self.environ,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        wanted = int(self.environ.get("WEB_CONCURRENCY", "2"))
        try:
            return self.get("/healthz").ok and len(self.workers()) == wanted
        except requests.ConnectionError:
            return False

    def get(self, path: str, **options: object) -> requests.Response:
        return requests.get(self.url + path, timeout=PATIENCE, **options)  # type: ignore[arg-type]

    def chaos(self, **wanted: object) -> requests.Response:
        return requests.post(self.url + "/chaos", json=wanted, timeout=PATIENCE)

    def workers(self) -> list[int]:
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def kill_worker(self) -> int:
        """kill -9 one worker and wait until another has taken its place; gives the dead one's id."""
        before = self.workers()
        os.kill(before[0], signal.SIGKILL)
        wait_until(lambda: before[0] not in self.workers(), "the dead worker is reaped")
        wait_until(lambda: len(self.workers()) == len(before), "the dead worker is replaced")
        return before[0]

    def samples(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(self.get("/metrics").text)
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        return self.samples().get((name, tuple(sorted(labels.items()))), 0.0)

    def served(self, status: str = "200") -> float:
        return self.value("http_requests_total", method="GET", path="/", status_code=status)

    def slots_that_served(self, status: str) -> int:
        """How many workers have answered GET / with this status, read from each one's own file."""
        slots = 0
        for path in self.state.glob("counter_*.db"):
            for key, value, *_ in MmapedDict.read_all_values_from_file(str(path)):  # type: ignore[no-untyped-call]
                _, _, labels, _ = json.loads(key)
                slots += labels["path"] == "/" and labels["status_code"] == status and value > 0
        return slots

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


Start = Callable[..., Service]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Service] = []

    def run(mode: str = "canary", options: tuple[str, ...] = (), **environ: str) -> Service:
        service = Service(tmp_path, mode, list(options), **environ)
        started.append(service)
        wait_until(service.ready, "the service is healthy with all its workers")
        return service

    yield run
    for service in started:
        if service.process.poll() is None:
            children = service.workers()
            service.process.kill()
            service.process.wait(PATIENCE)
            for pid in children:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue


def many(service: Service, number: int, path: str = "/") -> list[int]:
    """The status codes of so many requests, eight at a time."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda _: service.get(path).status_code, range(number)))


def test_counts_are_exact_over_all_workers(start: Start) -> None:
    service = start("stable", WEB_CONCURRENCY="3")
    assert many(service, 300) == [200] * 300
    assert service.served() == 300
    assert service.slots_that_served("200") > 1, "one worker alone took all requests: nothing was proved"
    assert service.value("http_request_duration_seconds_count", method="GET", path="/") == 300
    assert service.value("http_requests_in_progress") == 0


def test_no_counter_goes_back_when_a_worker_is_killed(start: Start) -> None:
    service = start()
    many(service, 60)
    before = service.samples()
    for _ in range(2):
        service.kill_worker()
        after = service.samples()
        for (name, labels), value in before.items():
            if name.endswith(("_total", "_bucket", "_sum", "_count")):
                assert after[name, labels] >= value, (name, labels)
        before = after
    many(service, 40)
    assert service.served() == 100
    assert service.value("app_uptime_seconds") > 0


def test_counts_survive_kills_in_the_middle_of_traffic(start: Start) -> None:
    service = start()
    answered = attempted = 0
    over = threading.Event()
    lock = threading.Lock()

    def client() -> None:
        nonlocal answered, attempted
        while not over.is_set():
            with lock:
                attempted += 1
            try:
                good = service.get("/").ok
            except requests.RequestException:
                continue
            with lock:
                answered += good

    clients = [threading.Thread(target=client) for _ in range(4)]
    for thread in clients:
        thread.start()
    seen = 0.0
    try:
        for _ in range(5):
            service.kill_worker()
            try:
                now = service.served()
            except requests.RequestException:  # the dying worker had taken this scrape
                continue
            assert now >= seen
            seen = now
    finally:
        over.set()
        for thread in clients:
            thread.join()
    # A request is counted before its answer leaves: one that was cut off may be counted, an answered one is.
    assert answered > 0
    assert answered <= service.served() <= attempted


def test_files_stay_bounded_and_exact_over_many_kills(start: Start) -> None:
    service = start("stable")
    bounded = {path.name for path in service.state.iterdir()}
    for _ in range(20):
        service.kill_worker()
        service.get("/")
    assert {path.name for path in service.state.iterdir()} == bounded
    assert service.served() == 20


def test_worker_churn_by_a_request_limit_keeps_counts_and_files(start: Start) -> None:
    service = start("stable", ("--max-requests", "20"))

    def files() -> set[str]:
        return {path.name for path in service.state.iterdir()}

    def settled() -> bool:
        # The master writes a slot's gauge aside and renames it when it learns of its worker's end, which is later.
        return not any(name.endswith(".new") for name in files())

    wait_until(settled, "the files to be laid out")
    before = files()
    first = service.workers()
    done = 0
    for _ in range(200):
        done += service.get("/").ok
    wait_until(lambda: len(service.workers()) == 2, "retired workers are replaced")
    assert set(service.workers()).isdisjoint(first)
    assert done == 200
    assert service.served() == 200
    wait_until(settled, "the files of retired workers")
    assert files() == before


def test_a_reload_keeps_the_counts(start: Start) -> None:
    service = start("stable")
    many(service, 20)
    old = set(service.workers())
    service.process.send_signal(signal.SIGHUP)
    wait_until(lambda: len(service.workers()) == 2 and old.isdisjoint(service.workers()), "new workers alone")
    many(service, 20)
    assert service.served() == 40


def test_requests_of_a_killed_worker_are_no_longer_in_progress(start: Start) -> None:
    service = start()
    assert service.chaos(mode="slow", duration=60).ok
    with ThreadPoolExecutor(6) as pool:
        calls = [pool.submit(service.get, "/") for _ in range(6)]
        wait_until(lambda: service.value("http_requests_in_progress") == 6, "six requests are in progress")
        for pid in service.workers():
            os.kill(pid, signal.SIGKILL)
        assert all(isinstance(call.exception(), requests.ConnectionError) for call in calls)
    wait_until(service.ready, "new workers")
    # The master learns of each death by itself; a new worker may answer between two of them.
    wait_until(lambda: service.value("http_requests_in_progress") == 0, "nothing to be in progress")


def test_chaos_holds_for_every_worker_at_once_and_for_new_ones(start: Start) -> None:
    service = start(WEB_CONCURRENCY="3")
    assert service.chaos(mode="error", rate=1).ok
    assert set(many(service, 200)) == {500}
    assert service.slots_that_served("500") > 1
    service.kill_worker()
    assert set(many(service, 50)) == {500}
    assert service.value("chaos_active") == 2
    assert service.chaos(mode="recover").ok
    assert set(many(service, 200)) == {200}
    assert service.served("500") == 250


def test_chaos_requests_that_are_refused(start: Start) -> None:
    service = start()
    for body in ("", "[]", '{"mode":"slow","duration":NaN}', '{"mode":"slow","duration":true}', '{"mode":"x"}'):
        answer = requests.post(service.url + "/chaos", data=body, timeout=PATIENCE)
        assert (answer.status_code, answer.headers["X-Mode"]) == (400, "canary"), body
        assert answer.json()["error"]
    for chunks in ([b" " * 3000, b" " * 3000, b'{"mode":"error"}'], [b'{"mode":"error"}', b" " * 5000]):
        assert requests.post(service.url + "/chaos", data=iter(chunks), timeout=PATIENCE).status_code == 413
    assert service.get("/chaos").status_code == 405
    assert service.value("chaos_active") == 0


def test_chaos_is_forbidden_in_stable_mode(start: Start) -> None:
    service = start("stable")
    answer = service.chaos(mode="error", rate=1)
    assert (answer.status_code, answer.json()["code"]) == (403, 403)
    assert set(many(service, 30)) == {200}


def test_watchers_get_through_while_every_ordinary_thread_is_held_up(start: Start) -> None:
    service = start(THREADS="1", SHUTDOWN_TIMEOUT="1")
    assert service.chaos(mode="slow", duration=60).ok
    with ThreadPoolExecutor(40) as pool:
        calls = [pool.submit(service.get, "/") for _ in range(40)]
        wait_until(lambda: service.value("http_requests_in_progress") == 40, "forty requests are held up")
        for _ in range(10):
            assert service.get("/healthz").ok
            assert service.value("chaos_active") == 1
        assert not any(call.done() for call in calls)
        assert service.chaos(mode="recover").ok
        assert service.get("/").ok
        assert service.stop() == 0  # the forty are not waited for


def test_unknown_paths_do_not_grow_the_figures(start: Start) -> None:
    service = start("stable")
    service.get("/unknown")
    before = service.samples().keys()
    with requests.Session() as session:
        for number in range(2000):
            assert session.get(f"{service.url}/unknown/{number}?q={number}", timeout=PATIENCE).status_code == 404
    grown = service.samples().keys() - before
    # The scrape that came first is the only thing new: it could not count itself.
    assert {dict(labels)["path"] for _, labels in grown} <= {"/metrics"}
    unmatched = {"method": "GET", "path": "<unmatched>", "status_code": "404"}
    assert service.value("http_requests_total", **unmatched) == 2001


@pytest.mark.parametrize(
    "lines",
    [
        b"GET /x HTTP/1.1\r\nHost: a\r\nSCRIPT_NAME: /x\r\nPATH_INFO: /healthz\r\n",
        b"GET /x HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Ssl: off\r\n",
        b"GET /\xff\xfe\x80 HTTP/1.1\r\nHost: a\r\n",
        b"GET http://elsewhere/x HTTP/1.1\r\nHost: a\r\n",
        b"BREW /x HTTP/1.1\r\nHost: a\r\n",
        b"GET /x HTTP/1.1\r\nHost: a b;c\r\n",
    ],
)
def test_forged_requests_are_counted_as_strangers(start: Start, lines: bytes) -> None:
    service = start("stable")
    with socket.create_connection(("127.0.0.1", service.port), PATIENCE) as client:
        client.sendall(lines + b"Connection: close\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert answer.split()[1] in (b"404", b"405", b"400")
    for name, labels in service.samples():
        if name == "http_requests_total":
            label = dict(labels)
            assert label["path"] in {"/", "/healthz", "/metrics", "<unmatched>"}
            assert label["method"] in {"GET", "OTHER"}
            assert (label["path"] == "/healthz") <= (label["status_code"] == "200")


def test_a_slow_request_gets_its_answer_after_sigterm(start: Start) -> None:
    service = start(SHUTDOWN_TIMEOUT="20")
    assert service.chaos(mode="slow", duration=2).ok
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(service.get, "/")
        wait_until(lambda: service.value("http_requests_in_progress") == 1, "the request is in flight")
        assert service.stop() == 0
        answer = call.result()
    assert answer.status_code == 200
    assert answer.json()["version"] == "1.2.3"
    with pytest.raises(requests.ConnectionError):
        service.get("/")


def test_a_request_that_never_ends_does_not_hold_up_the_stop_beyond_its_limit(start: Start) -> None:
    service = start(SHUTDOWN_TIMEOUT="1")
    assert service.chaos(mode="slow", duration=60).ok
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(service.get, "/")
        wait_until(lambda: service.value("http_requests_in_progress") == 1, "the request is in flight")
        assert service.stop() == 0
        assert isinstance(call.exception(), requests.ConnectionError)


def test_a_restart_of_the_service_starts_from_zero(start: Start) -> None:
    first = start()
    many(first, 10)
    first.chaos(mode="error", rate=1)
    assert first.stop() == 0
    second = start()
    assert second.served() == 0
    assert second.value("chaos_active") == 0
    assert second.get("/").status_code == 200


def test_two_services_cannot_share_a_state_directory(start: Start) -> None:
    first = start()
    many(first, 5)
    second = subprocess.run(
        [sys.executable, "-m", "swift_service"],
        cwd=SERVICE,
        env={**first.environ, "PORT": str(free_port())},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert second.returncode != 0
    assert f"STATE_DIR {first.state} is in use" in second.stderr
    assert first.served() == 5


@pytest.mark.parametrize(
    ("key", "value"), [("PORT", "http"), ("WEB_CONCURRENCY", "many"), ("MODE", "blue"), ("STATE_DIR", "/proc/no")]
)
def test_bad_settings_end_in_one_line(key: str, value: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "swift_service"],
        cwd=SERVICE,
        env={**os.environ, "HOST": "127.0.0.1", "PORT": str(free_port()), key: value},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ended.returncode == 2
    assert key in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_the_health_check_follows_the_port(start: Start) -> None:
    service = start("stable")

    def check() -> int:
        command = [sys.executable, "-m", "swift_service.healthcheck"]
        return subprocess.run(command, cwd=SERVICE, env=service.environ, check=False, timeout=PATIENCE).returncode

    assert check() == 0
    assert service.stop() == 0
    assert check() == 1


def test_every_log_line_is_json_and_requests_are_not_logged(start: Start, tmp_path: Path) -> None:
    service = start(LOG_DIR=str(tmp_path / "logs"))
    service.get("/?token=hidden")
    service.chaos(mode="error")
    assert service.stop() == 0
    lines = service.log.read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert any("chaos" in line["message"] for line in found)
    assert all({"time", "level", "logger", "pid", "message"} <= line.keys() for line in found)
    assert "hidden" not in service.log.read_text()
    assert (tmp_path / "logs" / "service.log").read_text().splitlines() == lines


def test_without_a_state_directory_a_temporary_one_comes_and_goes(start: Start) -> None:
    service = start("stable", STATE_DIR="")
    maps = Path(f"/proc/{service.workers()[0]}/maps")
    wait_until(lambda: "counter_" in maps.read_text(), "the worker counts into a file")
    state = next(Path(line.split()[-1]).parent for line in maps.read_text().splitlines() if "counter_" in line)
    assert service.get("/").ok
    assert service.served() == 1
    assert service.stop() == 0
    assert not state.exists()
