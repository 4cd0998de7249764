"""The proxy stands in no application's way: TLS, headers, bodies, streams, balancers, at first, added and removed."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.certificates import Files, make_pair, openssl
from support.workspace import REPOSITORY, Workspace, wait_until

SERVICE = REPOSITORY / "tests" / "support" / "services" / "behind.py"
# In the process runtime a peer is trusted that a request can come from at will. With docker every request of this host
# comes from the network's gateway.
TRUSTED = '[127.0.0.2, 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, "fd00::/8"]'
ALL_KEYS = """\
  max_body: 0
  proxy_timeout: 20s
  drain_timeout: 20s
  open_metrics: true
  open_chaos: true
  real_ip: {{trusted: {trusted}, header: X-Forwarded-For}}
  tls: {{certificate: {certificate}, key: {key}}}"""
SERVICES = """\
  restart_policy: on-failure
  env: {GREETING: hello}
  resources: {cpus: 0.5, memory: 200m, pids: 99}
  healthcheck: {path: /well, interval: 3s, timeout: 1s, start_timeout: 50s}"""
BALANCED = {
    "X-Forwarded-For": "198.51.100.7, 203.0.113.9",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "shop.example.org",
    "X-Request-ID": "abc-1",
}


class Client:
    """Asks one stack's nginx."""

    def __init__(self, workspace: Workspace, tls: bool, source: str = "") -> None:
        self.workspace, self.tls, self.source = workspace, tls, source

    def connect(self, host: str = "127.0.0.1") -> http.client.HTTPConnection:
        """A connection, not yet open."""
        source = (self.source, 0) if self.source else None
        if not self.tls:
            return http.client.HTTPConnection(host, self.workspace.port, timeout=60, source_address=source)
        trusting = ssl._create_unverified_context()
        return http.client.HTTPSConnection(
            host, self.workspace.port, timeout=60, source_address=source, context=trusting
        )

    def ask(self, path: str, method: str = "GET", host: str = "127.0.0.1", **options: Any) -> tuple[int, bytes]:
        """Status and body."""
        with contextlib.closing(self.connect(host)) as connection:
            connection.request(method, path, **options)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def headers(self, **given: str) -> dict[str, str]:
        """What reaches the service; a name that reaches it twice has both values."""
        found: dict[str, str] = {}
        for name, value in json.loads(self.ask("/headers", headers=given)[1]):
            found[name] = f"{found[name]} | {value}" if name in found else value
        return found

    def subject(self) -> str:
        """Whom the certificate is for."""
        text = ssl.get_server_certificate(("127.0.0.1", self.workspace.port))
        return openssl("x509", "-noout", "-subject", given=text).strip().rpartition("=")[2].strip()


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """The service as an image."""
    name = "sdtest-behind:1"
    recipe = (
        'FROM swift-deploy-1-node:latest\nCOPY behind.py /behind.py\nENTRYPOINT []\nCMD ["python3", "/behind.py"]\n'
    )
    words = ["docker", "build", "-q", "-t", name, "-f", "-", str(SERVICE.parent)]
    subprocess.run(words, input=recipe, text=True, check=True, capture_output=True)
    yield name
    subprocess.run(["docker", "image", "rm", "-f", name], capture_output=True, check=False)


@pytest.fixture
def stack(workspace: Workspace, request: pytest.FixtureRequest) -> Callable[[str], Workspace]:
    """Writes the manifest of a stack that runs the service: with every key that can be left out, or with none."""
    from_image = request.getfixturevalue("image") if workspace.runtime == "docker" else ""

    def write(nginx: str, version: str = "1.0.0") -> Workspace:
        services = [] if from_image else [f"  command: {json.dumps([sys.executable, str(SERVICE)])}"]
        services += [SERVICES] if nginx else []
        workspace.write_manifest(version, nginx=nginx, services="\n".join(services))
        path = workspace.folder / "manifest.yaml"
        text = path.read_text() + ("contact: ops@example.org\n" if nginx else "")
        path.write_text(text.replace("swift-deploy-1-node:latest", from_image) if from_image else text)
        return workspace

    return write


def copies(workspace: Workspace) -> dict[str, tuple[int, str]]:
    """The stack's copies of certificates: name to permissions and content."""
    folder = workspace.folder / ".swiftdeploy" / workspace.name / "config" / "tls"
    return {path.name: (path.stat().st_mode & 0o777, path.read_text()) for path in folder.glob("*")}


def shown(folder: Path) -> str:
    """All that a run has written on the controller."""
    paths = [*folder.glob("history*.jsonl*"), *folder.glob("audit_report.*"), *(folder / "generated").rglob("*")]
    return "".join(path.read_text(errors="replace") for path in paths if path.is_file())


def test_the_proxy_bounds_no_application(stack: Callable[..., Workspace], tmp_path: Path, image: str) -> None:
    live = Files(tmp_path / "fullchain.pem", tmp_path / "privkey.pem")
    first, second = (make_pair(tmp_path, name) for name in ("one.example.org", "two.example.org"))
    everything = ALL_KEYS.format(trusted=TRUSTED, certificate=live.certificate, key=live.key)

    # A pair that does not fit is told of before anything is asked or started.
    live.take_from(first)
    live.key.write_bytes(second.key.read_bytes())
    workspace = stack(everything)
    refused = workspace.play("validate" if workspace.runtime == "docker" else "deploy").failed()
    assert "privkey.pem is not the key of" in refused.text
    assert "policy:" not in refused.text

    # Everything at the first deploy.
    live.take_from(first)
    assert "nginx accepts the rendered nginx.conf" in workspace.play("validate").ok().text
    printed = workspace.play("deploy", "--diff", "-vvv").ok().text
    balancer = Client(workspace, tls=True, source="127.0.0.2" if workspace.runtime == "process" else "")
    assert balancer.subject() == "one.example.org"
    started(balancer, everything=True)
    bodies(balancer)
    head_lines(balancer)
    streams(balancer)
    trusted(balancer)
    if workspace.runtime == "process":
        strangers(Client(workspace, tls=True), "127.0.0.1")
        assert balancer.ask("/", host="127.0.0.1")[0] == Client(workspace, tls=True).ask("/", host="::1")[0] == 200
    cut_answers_are_in_the_log(workspace, balancer)

    # Renewed files of the same name: a dry run leaves them alone, a deploy loads them, and no request is lost.
    live.take_from(second)
    printed += workspace.play("deploy", "--check", "--diff").ok().text
    assert balancer.subject() == "one.example.org"
    with asked_all_the_time(balancer) as failed:
        printed += workspace.play("deploy", "--diff").ok().text
    assert failed == []
    assert balancer.subject() == "two.example.org"
    held = copies(workspace)
    assert sorted(name.rpartition(".")[2] for name in held) == ["crt", "key"]
    assert {mode for mode, _text in held.values()} == {0o600}
    key = second.key.read_text().splitlines()[1]
    assert any(key in text for _mode, text in held.values())
    assert key not in printed + shown(workspace.folder)
    assert "Nothing to change" in workspace.play("deploy").ok().text

    # Everything removed.
    stack("")
    workspace.play("deploy").ok()
    plain = Client(workspace, tls=False)
    assert copies(workspace) == {}
    started(plain, everything=False)
    assert plain.ask("/upload", "PUT", body=b"x" * (2 << 20))[0] == 413
    strangers(plain, "127.0.0.1" if workspace.runtime == "process" else "1")

    # Added later.
    stack(everything)
    workspace.play("deploy").ok()
    assert balancer.subject() == "two.example.org"
    started(balancer, everything=True)
    trusted(balancer)
    if workspace.runtime == "docker":
        return
    # A way back needs nothing but the host.
    stack(everything, "2.0.0")
    workspace.play("deploy").ok()
    live.key.unlink()
    assert "nginx goes on with the copy that it has" in workspace.play("rollback").ok().text
    assert balancer.ask("/")[1] == b"1.0.0"
    assert balancer.subject() == "two.example.org"


def started(client: Client, everything: bool) -> None:
    """The release was started as the manifest says, or as the defaults say."""
    environment = json.loads(client.ask("/env")[1])
    assert environment.get("GREETING") == ("hello" if everything else None)
    if client.workspace.runtime == "process":
        return
    words = ["docker", "ps", "--format", "{{.Names}}", "--filter", f"name=^swiftdeploy-{client.workspace.name}-"]
    running = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    slot = next(name for name in running if name.endswith(("-blue", "-green")))
    words = ["docker", "container", "inspect", slot]
    record = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)[0]
    host, check = record["HostConfig"], record["Config"]["Healthcheck"]
    assert host["RestartPolicy"]["Name"] == ("on-failure" if everything else "unless-stopped")
    assert (host["NanoCpus"], host["Memory"]) == ((500000000, 200 << 20) if everything else (0, 0))
    assert host["PidsLimit"] == (99 if everything else 512)
    times = [check[key] / 1e9 for key in ("Interval", "Timeout", "StartPeriod")]
    assert times == ([3, 1, 50] if everything else [client.workspace.check_seconds, 2, 60])
    assert any(mount["Destination"] == "/var/log/swiftdeploy" for mount in record["Mounts"])


def bodies(client: Client) -> None:
    """Large bodies come through in both directions, whole, framed either way."""
    block = b"z" * (1 << 20)
    size = 300 if client.workspace.runtime == "docker" else 20
    digest = hashlib.sha256()
    for _ in range(size):
        digest.update(block)
    status, text = client.ask("/upload", "PUT", body=(block for _ in range(size)), encode_chunked=True)
    assert (status, json.loads(text)) == (200, {"size": size << 20, "sha256": digest.hexdigest()})
    # Many clients that take their time: what they have not taken yet is in nobody's way, and nothing is cut.
    with contextlib.ExitStack() as closing:
        waiting = []
        for _ in range(6):
            connection = closing.enter_context(contextlib.closing(client.connect()))
            connection.request("GET", "/download?60")
            waiting.append(connection.getresponse())
        assert client.ask("/")[0] == 200
        assert [sum(map(len, iter(lambda one=one: one.read(1 << 20), b""))) for one in waiting] == [60 << 20] * 6


def head_lines(client: Client) -> None:
    """Long lines, many lines and odd names of headers reach the service, and its own the client."""
    for kilobytes in (4, 8, 64):
        with contextlib.closing(client.connect()) as connection:
            connection.request("GET", f"/bigheaders?{kilobytes}")
            answer = connection.getresponse()
            assert (answer.status, len(answer.headers.get_all("Set-Cookie") or [])) == (200, kilobytes)
    assert client.ask("/", headers={"Cookie": "a=" + "x" * 60000})[0] == 200
    assert client.ask("/?" + "x" * 9000)[0] == 200
    given = {"X_Api_Key": "k", "X.Dotted": "d", **{f"X-Long-{index}": "y" * 3000 for index in range(20)}}
    reached = client.headers(**given)
    assert {name: reached.get(name) for name in given} == given


def streams(client: Client) -> None:
    """A stream without framing arrives piece by piece; each but the first is sent when the one before has arrived."""
    with contextlib.closing(client.connect()) as connection:
        connection.request("GET", "/stream", headers={"Accept": "text/event-stream"})
        answer = connection.getresponse()
        for piece in range(3):
            assert answer.readline() == f"data: {piece}\n".encode()
            assert answer.readline() == b"\n"
            client.ask("/next")
        assert answer.read() == b""


def trusted(client: Client) -> None:
    """What a trusted balancer says is believed, and of its own chain the last address that is not trusted."""
    reached = client.headers(**BALANCED, Forwarded="for=203.0.113.9")
    assert reached["X-Real-IP"] == "203.0.113.9"
    assert reached["X-Forwarded-For"].startswith("198.51.100.7, 203.0.113.9, ")
    assert {name: reached[name] for name in list(BALANCED)[1:]} == dict(list(BALANCED.items())[1:])
    assert reached["Forwarded"] == "for=203.0.113.9"
    # Without words of its own it is a client like any other.
    assert client.headers()["X-Forwarded-Proto"] == ("https" if client.tls else "http")
    assert client.headers(**{"X-Request-ID": 'a" b'})["X-Request-ID"].isalnum()


def strangers(client: Client, source: str) -> None:
    """What a stranger says of itself is replaced or dropped, however its name is written."""
    twins = {"X_Forwarded_For": "6.6.6.6", "X-Real_IP": "6.6.6.6", "X_Request-ID": "abc", "X_Forwarded_Proto": "https"}
    reached = client.headers(**BALANCED, **twins, Forwarded="for=6.6.6.6", **{"X-Forwarded-Port": "443"})
    assert source in reached["X-Real-IP"]
    assert reached["X-Forwarded-For"] == f"{BALANCED['X-Forwarded-For']}, {reached['X-Real-IP']}"
    assert reached["X-Forwarded-Proto"] == ("https" if client.tls else "http")
    assert reached["X-Request-ID"] != BALANCED["X-Request-ID"]
    assert not {*twins, "Forwarded", "X-Forwarded-Host", "X-Forwarded-Port"} & reached.keys()
    # HTTP/1.0 without a Host, which HTTP/1.1 refuses.
    if not client.tls:
        with socket.create_connection(("127.0.0.1", client.workspace.port), 20) as connection:
            connection.sendall(b"GET /headers HTTP/1.0\r\n\r\n")
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert b" 200 " in answer.splitlines()[0]
        assert f'["Host", "{client.workspace.name}"]'.encode() in answer


def log_lines(workspace: Workspace) -> list[dict[str, Any]]:
    """nginx's access log."""
    if workspace.runtime == "process":
        text = (workspace.folder / ".swiftdeploy" / workspace.name / "logs" / "nginx.log").read_text()
    else:
        words = ["docker", "logs", f"swiftdeploy-{workspace.name}-nginx"]
        text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def cut_answers_are_in_the_log(workspace: Workspace, client: Client) -> None:
    """An answer that the service breaks off, one that its client leaves, and a whole one are told apart."""
    with contextlib.suppress(http.client.IncompleteRead):
        client.ask("/cut?2")
    with contextlib.closing(client.connect()) as connection:
        connection.request("GET", "/download?61")
        connection.getresponse().read(1)
    client.ask("/download?3")

    def told() -> dict[int, dict[str, Any]]:
        lines = [line for line in log_lines(workspace) if line["path"] in ("/cut", "/download")]
        return {int(line["sent_length"]) >> 20: line for line in lines}

    wait_until(lambda: {2, 3, 61} <= told().keys(), "the lines of the three answers")
    lines = told()
    assert (lines[2]["completed"], lines[2]["body"] < 2 << 20) == ("OK", True)
    assert (lines[3]["completed"], lines[3]["body"]) == ("OK", 3 << 20)
    assert lines[61]["completed"] == ""


@contextlib.contextmanager
def asked_all_the_time(client: Client) -> Iterator[list[str]]:
    """Requests one after another, each on a connection of its own, while the block runs; yields what failed."""
    failed: list[str] = []
    over = threading.Event()

    def go() -> None:
        while not over.is_set():
            try:
                status, _text = client.ask("/")
                if status != 200:
                    failed.append(str(status))
            except OSError as error:
                failed.append(repr(error))

    thread = threading.Thread(target=go)
    thread.start()
    try:
        yield failed
    finally:
        over.set()
        thread.join()
