"""Asking a real OPA, and everything that can stand in its place and not give a decision."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.impostor import (
    ALLOW,
    GO_TLS,
    GOOD,
    HTML,
    SHORT,
    Handler,
    Impostor,
    answers,
    closes,
    drips,
    hangs,
    http_answer,
    never_ends,
    reads_and_hangs,
    resets,
    says_hundred_forever,
)
from support.opa_server import GOOD_FACTS, POLICIES, REFUSED, SECONDS, Opa, running_opa
from swiftdeploy import policies
from swiftdeploy_target.http import shown
from swiftdeploy_target.opa import MAX_ANSWER_BYTES, ask

ROOT = Path(__file__).resolve().parents[2]

LIMITS = "policies/thresholds/data.yaml:"
GOOD_EVIDENCE = {
    "slot": "green",
    "status": "measured",
    "window_seconds": 30.0,
    "requests": 412,
    "error_rate": 0.0,
    "p99_latency_ms": 12.5,
    "rests_on": ["service", "proxy"],
    "proxy_window_seconds": 30.0,
    "proxy_requests": 412,
    "proxy_error_rate": 0.0,
    "proxy_p99_latency_ms": 14.0,
    "proxy_truncated": False,
    "abandoned_rate": 0.0,
    "probes_sent": 20,
    "probes_failed_rate": 0.0,
    "views_gap": 0.0,
    "largest_source_share": 0.2,
}

# --- the real OPA ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def opa(opa_binary: str) -> Iterator[Opa]:
    with running_opa(opa_binary, POLICIES) as server:
        yield server


def infrastructure(opa: Opa, **facts: object) -> dict[str, Any]:
    return ask(opa.url, "infrastructure", {"environment": "production", "facts": {**GOOD_FACTS, **facts}}, SECONDS)


def canary(opa: Opa, **evidence: object) -> dict[str, Any]:
    question = {"environment": "production", "evidence": {**GOOD_EVIDENCE, **evidence}, "min_requests": 20}
    return ask(opa.url, "canary", question, SECONDS)


def test_allowed(opa: Opa) -> None:
    decision = infrastructure(opa)
    assert decision["outcome"] == "allowed"
    assert decision["allow"] is True
    assert decision["reasons"] == []
    assert decision["checked"] == GOOD_FACTS
    assert decision["thresholds"]["environment"] == "production"
    assert len(decision["decision_id"]) == 36
    assert decision["cause"] is None
    assert decision["duration_ms"] > 0
    assert canary(opa)["outcome"] == "allowed"


def test_denied(opa: Opa) -> None:
    decision = canary(opa, p99_latency_ms=620, error_rate=0.487)
    assert decision["outcome"] == "denied"
    assert decision["allow"] is False
    assert decision["reasons"] == [
        f"P99 latency is 620 ms, maximum is 500 ms ({LIMITS} canary.default.p99_latency_ms)",
        f"error rate is 48.70 %, maximum is 1.00 % ({LIMITS} canary.default.error_rate)",
    ]
    assert infrastructure(opa, disk_free_gb=4.2)["reasons"] == [
        f"disk has 4.2 GB free, minimum is 10 GB ({LIMITS} infrastructure.default.disk_free_gb)"
    ]


def test_insufficient(opa: Opa) -> None:
    decision = canary(opa, requests=12)
    assert decision["outcome"] == "insufficient"
    assert decision["allow"] is False
    assert decision["reasons"] == ["12 requests in 30 s, at least 20 are needed (the manifest: canary.min_requests)"]


def test_a_figure_that_is_not_a_number_is_no_pass(opa: Opa) -> None:
    assert infrastructure(opa, cpu_load_1m=float("nan"))["reasons"] == ["cpu_load_1m was not measured (it is null)"]
    assert canary(opa, p99_latency_ms=float("inf"))["outcome"] == "insufficient"


@pytest.mark.parametrize("domain", ["override", "lib", "authz"])
def test_a_domain_that_opa_does_not_know_gets_no_decision(opa: Opa, domain: str) -> None:
    decision = ask(opa.url, domain, {}, SECONDS)
    assert (decision["outcome"], decision["cause"]) == ("unavailable", "http_status")
    assert "HTTP 401" in decision["reasons"][0]


def test_an_undefined_decision(opa_binary: str, tmp_path: Path) -> None:
    shutil.copytree(POLICIES / "authz", tmp_path / "authz")
    with running_opa(opa_binary, tmp_path) as server:
        decision = canary(server)
    assert (decision["outcome"], decision["cause"]) == ("unavailable", "undefined")
    assert decision["reasons"] == [
        f"OPA at {shown(server.url)} has no decision for domain canary (are the policies loaded?)"
    ]


def test_a_policy_that_fails_while_it_is_evaluated(opa_binary: str, tmp_path: Path) -> None:
    shutil.copytree(POLICIES / "authz", tmp_path / "authz")
    (tmp_path / "canary.rego").write_text(
        "package swiftdeploy.canary\n\ndecision := 1 if input.evidence\n\ndecision := 2 if input.evidence\n"
    )
    with running_opa(opa_binary, tmp_path) as server:
        decision = canary(server)
    assert (decision["outcome"], decision["cause"]) == ("unavailable", "http_status")
    assert "HTTP 500" in decision["reasons"][0]


@pytest.mark.parametrize(("method", "path", "body"), REFUSED, ids=lambda value: None if value is None else str(value))
def test_nothing_but_decisions_and_health_is_answered(opa: Opa, method: str, path: str, body: str | None) -> None:
    status, text = opa.request(method, path, body)
    assert status == 401
    assert "rejected by administrative policy" in text
    assert opa.request("GET", "/health")[0] == 200
    assert infrastructure(opa, disk_free_gb=4.2)["outcome"] == "denied"


def test_a_decision_names_the_policies_that_made_it(opa: Opa, opa_binary: str, tmp_path: Path) -> None:
    shipped = policies.revision(policies.policy_files(POLICIES))
    assert infrastructure(opa)["policy_revision"] == shipped
    assert opa.request("GET", f"/health/loaded/{shipped}")[0] == 200
    assert opa.request("GET", f"/health/loaded/{'0' * 64}")[0] == 500
    shutil.copytree(POLICIES, tmp_path / "policies")
    thresholds = tmp_path / "policies" / "thresholds" / "data.yaml"
    thresholds.write_text(thresholds.read_text().replace("    disk_free_gb: {min: 10}", "    disk_free_gb: {min: 60}"))
    with running_opa(opa_binary, tmp_path / "policies") as server:
        decision = infrastructure(server)
        assert decision["reasons"] == [
            f"disk has 40.5 GB free, minimum is 60 GB ({LIMITS} infrastructure.default.disk_free_gb)"
        ]
        assert decision["policy_revision"] == policies.revision(policies.policy_files(tmp_path / "policies"))
        assert decision["policy_revision"] != shipped
        # Whoever installed other policies than those that answer gets no decision from them.
        question = {"environment": "production", "facts": GOOD_FACTS}
        stale = ask(server.url, "infrastructure", question, SECONDS, shipped)
    assert (stale["outcome"], stale["allow"], stale["cause"]) == ("unavailable", False, "other_policies")
    assert shipped[:12] in stale["reasons"][0]
    assert decision["policy_revision"][:12] in stale["reasons"][0]


def test_the_decision_log_holds_what_was_asked_and_answered_but_no_secret(opa: Opa) -> None:
    override = {"reason": "the fix for the outage", "deploy_token": "hunter2"}
    question = {"facts": GOOD_FACTS, "override": override, "actor": "ann@laptop", "env": [{"DB_PASSWORD": "hunter2"}]}
    decision = ask(opa.url, "infrastructure", question, SECONDS)
    entry = opa.logged(decision["decision_id"])
    assert "hunter2" not in json.dumps(entry)
    masked = {"override": override | {"deploy_token": "(masked)"}, "env": [{"DB_PASSWORD": "(masked)"}]}
    assert entry["input"] == question | masked
    for key in ("allow", "reasons", "checked", "thresholds"):
        assert entry["result"][key] == decision[key]
    assert [bundle["revision"] for bundle in entry["bundles"].values()] == [decision["policy_revision"]]


def test_opa_paused_gives_a_timeout_and_killed_a_refusal(opa_binary: str) -> None:
    with running_opa(opa_binary, POLICIES) as server:
        assert infrastructure(server)["outcome"] == "allowed"
        server.pause()
        decision = ask(server.url, "infrastructure", {}, SHORT)
        assert (decision["outcome"], decision["cause"]) == ("unavailable", "timeout")
        assert "no answer within 0.5 s" in decision["reasons"][0]
        server.process.kill()
        server.process.wait()
        decision = infrastructure(server)
    assert (decision["outcome"], decision["cause"]) == ("unavailable", "refused")
    assert decision["reasons"] == [f"OPA at {shown(server.url)} refused the connection (is it running?)"]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    chain, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=localhost", "-out", str(chain), "-keyout", str(key)]
    subprocess.run(command, check=True, capture_output=True)
    return chain, key


# --- what else may listen there -------------------------------------------------------------------


@pytest.fixture
def impostor() -> Iterator[Callable[[Handler], Impostor]]:
    with contextlib.ExitStack() as stack:

        def start(handler: Handler) -> Impostor:
            server = Impostor(handler)
            stack.callback(server.stop)
            return server

        yield start


def test_the_impostors_can_give_an_answer_that_is_taken(impostor: Callable[[Handler], Impostor]) -> None:
    """The faults below differ from this answer by their fault alone."""
    assert ask(impostor(answers(GOOD)).url, "canary", {}, SECONDS)["outcome"] == "allowed"


@pytest.mark.parametrize(
    ("handler", "cause", "words"),
    [
        (answers(http_answer(b'{"code": "x", "message": "boom"}', "500 Oops")), "http_status", "HTTP 500: boom"),
        (answers(http_answer(json.dumps(ALLOW).encode(), "500 Oops")), "http_status", "HTTP 500"),
        (answers(http_answer(HTML)), "not_json", "not JSON: <html>"),
        (answers(http_answer(HTML, "404 Not Found")), "http_status", "HTTP 404: <html>"),
        (answers(GO_TLS), "connection", "TLS"),
        (answers(http_answer(b"")), "not_json", "an empty answer"),
        (answers(b"HTTP/1.1 204 No Content\r\n\r\n"), "http_status", "HTTP 204"),
        (answers(http_answer(b"{}")), "undefined", "no decision for domain canary"),
        (answers(http_answer(b'{"result": {}}')), "malformed", "it has no 'allow'"),
        (answers(http_answer(b'{"result": true}')), "malformed", "the result is true"),
        (answers(http_answer(json.dumps(ALLOW).replace("true", '"true"').encode())), "malformed", "'allow' is"),
        (answers(http_answer(b" " * MAX_ANSWER_BYTES + b"{}")), "too_large", f"more than {MAX_ANSWER_BYTES} bytes"),
        (never_ends, "too_large", "more than"),
        (resets, "connection", "closed the connection"),
        (closes, "connection", "closed the connection"),
        (answers(GOOD[:-1]), "connection", "closed the connection"),
        (answers(b"SSH-2.0-OpenSSH_9.2\r\n"), "connection", "not HTTP"),
        (answers(b"\x15\x03\x01\x00\x02\x02\x46"), "connection", "not HTTP"),
        (answers(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n{}"), "connection", "not HTTP"),
    ],
)
def test_what_is_no_decision_is_unavailable_with_its_cause(
    impostor: Callable[[Handler], Impostor], handler: Handler, cause: str, words: str
) -> None:
    server = impostor(handler)
    decision = ask(server.url, "canary", {}, SECONDS)
    assert (decision["outcome"], decision["allow"], decision["cause"]) == ("unavailable", False, cause)
    (reason,) = decision["reasons"]
    assert reason.startswith(f"OPA at {shown(server.url)} ")
    assert words in reason


@pytest.mark.parametrize(
    "handler",
    [hangs, reads_and_hangs, says_hundred_forever, drips(GOOD, 0), drips(GOOD, 30), drips(GOOD, GOOD.index(b"{"))],
    ids=["hangs", "reads and hangs", "100 forever", "drips all", "drips headers", "drips the body"],
)
def test_the_timeout_bounds_the_whole_answer(impostor: Callable[[Handler], Impostor], handler: Handler) -> None:
    decision = ask(impostor(handler).url, "canary", {}, SHORT)
    assert (decision["outcome"], decision["cause"]) == ("unavailable", "timeout")


def test_the_timeout_bounds_sending(impostor: Callable[[Handler], Impostor]) -> None:
    decision = ask(impostor(hangs).url, "canary", {"ballast": "x" * 20_000_000}, SHORT)
    assert (decision["outcome"], decision["cause"]) == ("unavailable", "timeout")


def test_the_timeout_bounds_name_resolution(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def resolver(*_: object, **__: object) -> None:
        over.wait()
        raise OSError

    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    decision = ask("http://opa.example:8181", "canary", {}, SHORT)
    over.set()
    assert (decision["outcome"], decision["cause"]) == ("unavailable", "timeout")


def test_a_name_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolver(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    decision = ask("http://opa.example:8181", "canary", {}, SECONDS)
    assert (decision["outcome"], decision["cause"]) == ("unavailable", "connection")
    assert "does not resolve" in decision["reasons"][0]


def test_a_name_that_is_none() -> None:
    decision = ask(f"http://{'x' * 70}.example:8181", "canary", {}, SECONDS)
    assert (decision["outcome"], decision["cause"]) == ("unavailable", "connection")


def test_refused() -> None:
    with socket.socket() as taken:  # bound, so that nobody else takes it, but not listening
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        decision = ask(url, "canary", {}, SECONDS)
    assert (decision["outcome"], decision["cause"]) == ("unavailable", "refused")
    assert decision["reasons"] == [f"OPA at {url} refused the connection (is it running?)"]


def test_a_tls_server_where_http_is_expected(
    impostor: Callable[[Handler], Impostor], certificate: tuple[Path, Path]
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)

    def handler(client: socket.socket, _: threading.Event) -> None:
        with context.wrap_socket(client, server_side=True) as secured:
            secured.recv(1)

    decision = ask(impostor(handler).url, "canary", {}, SECONDS)
    assert (decision["outcome"], decision["cause"]) == ("unavailable", "connection")


def test_redirects_are_not_followed(impostor: Callable[[Handler], Impostor]) -> None:
    elsewhere = impostor(answers(GOOD))
    here = impostor(answers(http_answer(b"", "307 Temporary Redirect", f"Location: {elsewhere.url}\r\n")))
    decision = ask(here.url, "canary", {}, SECONDS)
    assert (decision["outcome"], decision["cause"]) == ("unavailable", "http_status")
    assert elsewhere.connections == 0


def test_proxies_of_the_environment_are_not_used(
    impostor: Callable[[Handler], Impostor], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = impostor(answers(GOOD))
    here = impostor(answers(http_answer(b"{}")))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    monkeypatch.delenv("no_proxy", raising=False)
    assert ask(here.url, "canary", {}, SECONDS)["cause"] == "undefined"
    assert proxy.connections == 0


# --- the modules, as Ansible runs them ------------------------------------------------------------


def run_module(where: Path, name: str, arguments: dict[str, Any], *options: str) -> tuple[int, dict[str, Any]]:
    """Exit status and result of one module run by the real ``ansible`` command."""
    command = [str(Path(sys.executable).with_name("ansible")), "localhost", "--inventory", "localhost,"]
    command += ["--connection", "local", "--extra-vars", json.dumps({"ansible_python_interpreter": sys.executable})]
    command += ["--module-name", name, "--args", json.dumps(arguments), *options]
    environment = os.environ | {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
        "ANSIBLE_CALLBACKS_ENABLED": "ansible.builtin.minimal",  # none of ours: nothing to record
        "ANSIBLE_LOCAL_TEMP": str(where / "local"),
        "ANSIBLE_REMOTE_TEMP": str(where / "remote"),
        "ANSIBLE_NOCOLOR": "1",
    }
    done = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, timeout=120, check=False)
    start = done.stdout.find("=> ")
    assert start >= 0, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(done.stdout[start + 3 :])
    return done.returncode, result


@pytest.mark.parametrize("options", [(), ("--check", "--diff")], ids=["for real", "check mode"])
def test_the_module_asks_several_domains_in_one_call(opa: Opa, tmp_path: Path, options: tuple[str, ...]) -> None:
    queries = [
        {"domain": "infrastructure", "input": {"environment": "production", "facts": GOOD_FACTS}},
        {"domain": "canary", "input": {"evidence": GOOD_EVIDENCE | {"requests": 12}, "min_requests": 20}},
        {"domain": "unknown", "input": {}},
    ]
    arguments = {"url": opa.url, "queries": queries, "timeout": SECONDS}
    status, result = run_module(tmp_path, "swiftdeploy_opa", arguments, *options)
    assert status == 0
    assert result["changed"] is False
    decisions = result["decisions"]
    assert {domain: decision["outcome"] for domain, decision in decisions.items()} == {
        "infrastructure": "allowed",
        "canary": "insufficient",
        "unknown": "unavailable",
    }
    for decision in decisions.values():
        assert set(decision) == {
            "outcome",
            "input",
            "allow",
            "reasons",
            "checked",
            "thresholds",
            "decision_id",
            "policy_revision",
            "cause",
            "detail",
            "duration_ms",
        }


def test_the_module_does_not_fail_where_opa_is_down(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        arguments = {"url": url, "queries": [{"domain": "canary", "input": {}}]}
        status, result = run_module(tmp_path, "swiftdeploy_opa", arguments)
    assert status == 0
    assert result["decisions"]["canary"]["cause"] == "refused"


def test_arguments_that_cannot_be_used_are_told_in_one_line(tmp_path: Path) -> None:
    arguments = {"url": "http+unix://x", "queries": [{"domain": "../../policies", "input": {}}]}
    status, result = run_module(tmp_path, "swiftdeploy_opa", arguments)
    assert status != 0
    assert result["msg"] == "domain is '../../policies'; it must be a policy package's name such as infrastructure"


def test_what_the_host_measures_is_what_the_policy_judges(opa: Opa, tmp_path: Path) -> None:
    status, found = run_module(tmp_path, "swiftdeploy_host_facts", {"path": str(tmp_path / "not" / "there")}, "--check")
    assert (status, found["changed"], found["problems"]) == (0, False, [])
    assert found["facts"]["disk_path"] == str(tmp_path)
    decision = ask(opa.url, "infrastructure", {"environment": "production", "facts": found["facts"]}, SECONDS)
    assert decision["outcome"] in {"allowed", "denied"}  # as busy as the machine is
    judged = {*GOOD_FACTS, "not_applicable"} - {"engine_disk_free_gb"}
    assert decision["checked"] == {figure: found["facts"][figure] for figure in judged}
    assert "engine_disk_free_gb" in decision["checked"]["not_applicable"]
    assert not any("not measured" in reason for reason in decision["reasons"])


def test_the_host_is_measured_right_before_it_is_asked_about(opa: Opa, tmp_path: Path) -> None:
    query = {
        "domain": "infrastructure",
        "input": {"environment": "production", "facts": {"disk_free_gb": 1e9}},
        "facts_of": {"path": str(tmp_path / "not" / "there")},
    }
    status, result = run_module(tmp_path, "swiftdeploy_opa", {"url": opa.url, "queries": [query]})
    decision = result["decisions"]["infrastructure"]
    facts = decision["input"]["facts"]
    assert (status, facts["disk_path"]) == (0, str(tmp_path))
    assert decision["checked"]["disk_free_gb"] == facts["disk_free_gb"] < 1e9


@pytest.mark.parametrize("name", ["swiftdeploy_opa", "swiftdeploy_host_facts"])
def test_the_modules_are_documented(name: str) -> None:
    command = [str(Path(sys.executable).with_name("ansible-doc")), "--type", "module", "--json", name]
    done = subprocess.run(
        command,
        env=os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    document = json.loads(done.stdout)[name]
    assert document["doc"]["attributes"]["check_mode"]["support"] == "full"
    assert document["examples"].strip()
    assert document["return"]
