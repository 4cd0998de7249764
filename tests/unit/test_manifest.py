"""The manifest: what is accepted, what every mistake is answered, and that only the mode is ever written."""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from swiftdeploy import docs, manifest_mode, manifest_schema
from swiftdeploy.manifest import ManifestError, load, parse
from swiftdeploy.manifest_mode import plan_mode, set_mode

ROOT = Path(__file__).parents[2]

THREE_LINES = """\
services: {image: "swift-deploy-1-node:latest", port: 3000}
nginx: {image: "nginx:latest", port: 8080}
network: {name: swiftdeploy-net, driver_type: bridge}
"""

DEFAULTS: dict[str, Any] = {
    "services": {
        "name": "app",
        "image": "swift-deploy-1-node:latest",
        "port": 3000,
        "version": "1.0.0",
        "mode": "stable",
        "restart_policy": "unless-stopped",
        "log_volume": "swiftdeploy-logs",
        "command": None,
        "env": {},
        "secrets": [],
        "healthcheck": {
            **{"path": "/healthz", "host": None, "scheme": "http", "status": "200-299"},
            **{"interval": 1.0, "timeout": 2.0, "start_timeout": 60.0, "settle": 5.0},
        },
        "resources": {"cpus": None, "memory": None, "pids": None},
        "metrics": {
            "path": "/metrics",
            "requests": "http_requests_total",
            "duration": "http_request_duration_seconds",
            "in_progress": "http_requests_in_progress",
            "status_labels": ["status_code", "status", "code", "http_response_status_code"],
        },
    },
    "nginx": {
        "image": "nginx:latest",
        "port": 8080,
        "proxy_timeout": 30.0,
        "drain_timeout": 65.0,
        "max_body": "1m",
        "tls": None,
        "real_ip": None,
        "open_metrics": False,
        "open_chaos": False,
    },
    "opa": {
        "image": "openpolicyagent/opa:1.22.0-static",
        "port": 8181,
        "timeout": 3.0,
        "failure_policy": {"deploy": "ignore", "promote": "fail"},
    },
    "canary": {
        "weight": 100,
        "steps": [],
        "window_seconds": 30.0,
        "deadline_seconds": 300.0,
        "min_requests": 20,
        "probe_requests": 20,
        "probe_path": "/",
        "sticky": None,
    },
    "images": {"source": "auto", "docker_config": None, "login": None},
    "network": {"name": "swiftdeploy-net", "driver_type": "bridge"},
    "contact": None,
}


def config_of(text: str) -> dict[str, Any]:
    return parse(text.encode(), "manifest.yaml").config


def problems_of(text: str | bytes) -> list[str]:
    """The complete text of what is wrong, line by line, without the name of the file."""
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    with pytest.raises(ManifestError) as caught:
        parse(raw, "m")
    assert str(caught.value) == "\n".join(str(problem) for problem in caught.value.problems)
    return [line.removeprefix("m:").removeprefix(" ") for line in str(caught.value).splitlines()]


def manifest_with(services: str = "", nginx: str = "", rest: str = "") -> str:
    """The three lines with more in them; the line of ``services`` is 1, of ``nginx`` 2, of ``rest`` 4."""
    return (
        f"services: {{image: a, port: 3000{', ' if services else ''}{services}}}\n"
        f"nginx: {{image: b, port: 8080{', ' if nginx else ''}{nginx}}}\n"
        f"network: {{name: net, driver_type: bridge}}\n{rest}"
    )


# What is accepted


def typed(value: Any) -> str:
    """Text that tells 1, 1.0, True and "1" apart."""
    return json.dumps(value, sort_keys=True)


def test_three_lines_give_a_complete_configuration() -> None:
    assert typed(config_of(THREE_LINES)) == typed(DEFAULTS)


def test_the_sample_is_the_three_lines_laid_out() -> None:
    assert typed(load(ROOT / "manifest.yaml")) == typed(DEFAULTS)
    first = (ROOT / "manifest.yaml").read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=./manifest.schema.json"


def test_seconds_with_a_unit_and_extra_keys_are_accepted() -> None:
    config = config_of(
        """\
services:
  image: swift-deploy-1-node:latest
  port: 3000
  version: 1.0
  mode: canary
  restart_policy: no
  log_volume: app-logs
nginx:
  image: nginx:latest
  port: 8080
  proxy_timeout: 30s
network: {name: swiftdeploy-net, driver_type: bridge}
opa: {image: openpolicyagent/opa:latest, port: 9191}
contact: ops@example.com
"""
    )
    assert config["services"]["version"] == "1.0"
    assert config["services"]["restart_policy"] == "no"
    assert config["services"]["log_volume"] == "app-logs"
    assert typed(config["nginx"]["proxy_timeout"]) == "30.0"
    assert config["opa"]["image"] == "openpolicyagent/opa:latest"
    assert config["opa"]["failure_policy"] == {"deploy": "ignore", "promote": "fail"}
    assert config["contact"] == "ops@example.com"


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("30", 30.0),
        ("0.25", 0.25),
        ("30s", 30.0),
        ('"30s"', 30.0),
        ("500ms", 0.5),
        ("1m", 60.0),
        ("1.5m", 90.0),
        ("1h", 3600.0),
    ],
)
def test_durations_become_seconds(written: str, seconds: float) -> None:
    nginx = config_of(manifest_with(nginx=f"proxy_timeout: {written}"))["nginx"]
    assert typed(nginx["proxy_timeout"]) == typed(seconds)
    assert typed(nginx["drain_timeout"]) == typed(2 * seconds + 5)


def test_a_drain_timeout_of_ones_own_is_kept() -> None:
    assert config_of(manifest_with(nginx="drain_timeout: 90s"))["nginx"]["drain_timeout"] == 90.0


@pytest.mark.parametrize("written", ["1.0", "1.10", "1", "1e3", "0755", "0x1F", "2026-11-21", "1.0.0-rc.1+build", "v2"])
def test_a_version_is_kept_as_written(written: str) -> None:
    assert config_of(manifest_with(f"version: {written}"))["services"]["version"] == written


@pytest.mark.parametrize(
    "written",
    ["1.10", "0755", "0o17", "0xFF", "12:30:00", "2026-11-21", "1_000", "+1", "-0.0", ".inf", ".nan", "1e999", "true",
     "True", "yes", "no", "off", "9" * 5000],
)  # fmt: skip
def test_env_values_are_kept_as_written(written: str) -> None:
    assert config_of(manifest_with(f"env: {{A: {written}}}"))["services"]["env"] == {"A": written}


def test_text_is_data() -> None:
    text = r"""'"q" $HOME ${x} {{ 7*7 }} {% raw %} \n `id` $(id) ; # é 😀 %'"""
    assert config_of(f"{manifest_with()}contact: {text}\n")["contact"] == text[1:-1]


def test_a_phone_number_is_a_contact() -> None:
    assert config_of(f"{manifest_with()}contact: +4930123456\n")["contact"] == "+4930123456"


def test_empty_sections_have_their_defaults() -> None:
    text = THREE_LINES + "opa:\ncanary:\n  # steps: [5]\nimages: ~\ncontact:\n"
    assert typed(config_of(text)) == typed(DEFAULTS)


def test_a_section_may_be_given_in_part() -> None:
    config = config_of(THREE_LINES + "opa: {failure_policy: {deploy: fail}}\ncanary: {sticky: {cookie: slot}}\n")
    assert config["opa"] == {**DEFAULTS["opa"], "failure_policy": {"deploy": "fail", "promote": "fail"}}
    assert config["canary"]["sticky"] == {"cookie": "slot"}


def test_everything_at_once() -> None:
    config = config_of(
        """\
services:
  name: shop-1
  image: registry.example:5000/team/app_x:1.0@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
  port: 1
  command: [gunicorn, --workers, 2, "app:app"]
  env: {LOG_LEVEL: debug, EMPTY: ""}
  secrets: [DB_PASSWORD]
  healthcheck:
    {path: /ready, interval: 500ms, timeout: 1, start_timeout: 2m, host: "shop.example.org:8443", scheme: https,
     status: [200-299, 401]}
  resources: {cpus: 1, memory: 256m, pids: 100}
  metrics: {path: /m, requests: "app:requests", duration: d, status_labels: [code]}
nginx:
  image: localhost/nginx
  port: 65535
  max_body: 0
  tls: {certificate: /etc/c.pem, key: /etc/k.pem}
  open_metrics: true
canary: {weight: 50, steps: [5, 25, 50], window_seconds: 1m, min_requests: 1, sticky: {header: X-Slot}}
images: {source: build}
network: {name: Net_1.x, driver_type: bridge}
"""
    )
    services = config["services"]
    assert services["command"] == ["gunicorn", "--workers", "2", "app:app"]
    assert services["env"] == {"LOG_LEVEL": "debug", "EMPTY": ""}
    assert services["secrets"] == ["DB_PASSWORD"]
    asked = {"path": "/ready", "host": "shop.example.org:8443", "scheme": "https", "status": ["200-299", "401"]}
    assert services["healthcheck"] == {**asked, "interval": 0.5, "timeout": 1.0, "start_timeout": 120.0, "settle": 5.0}
    assert typed(services["resources"]) == typed({"cpus": 1.0, "memory": "256m", "pids": 100})
    assert config["nginx"]["max_body"] == "0"
    assert config["nginx"]["tls"] == {"certificate": "/etc/c.pem", "key": "/etc/k.pem"}
    assert config["canary"]["steps"] == [5, 25, 50]


def test_anchors_and_merge_keys_work() -> None:
    config = config_of(
        """\
services:
  image: &image registry.example/x:1
  port: 3000
  version: &version 1.10
  healthcheck: &times {interval: 2s, timeout: 3s}
nginx:
  <<: {image: never, port: 8080}
  image: *image
network: {name: net, driver_type: bridge}
contact: *version
"""
    )
    assert config["nginx"]["image"] == "registry.example/x:1"
    assert config["nginx"]["port"] == 8080
    assert config["contact"] == "1.10"


def test_json_a_byte_order_mark_and_windows_lines_are_accepted() -> None:
    text = json.dumps(
        {
            "services": {"image": "a", "port": 1},
            "nginx": {"image": "b", "port": 2},
            "network": {"name": "net", "driver_type": "bridge"},
        },
        indent=1,
    )
    raw = b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()
    assert parse(raw, "m").config["nginx"]["port"] == 2


def test_only_plain_types_come_out() -> None:
    def check(value: Any) -> None:
        assert type(value) in (dict, list, str, int, float, bool, type(None))
        for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            check(part)

    check(config_of(manifest_with("env: {A: 1}, command: [a]", rest="contact: x\n")))


def test_defaults_are_not_shared_between_loads() -> None:
    config_of(THREE_LINES)["canary"]["steps"].append(5)
    assert config_of(THREE_LINES)["canary"]["steps"] == []


# What is refused, and in which words

PORT = "a whole number from 1 to 65535"
IMAGE = "an image reference of lower-case letters such as nginx:latest or registry.example/team/app:1.0"
NAME = (
    "a name of at most 40 lower-case letters, digits and hyphens that begins with a letter and ends with a letter or "
    "digit; nginx, opa, localhost and parts are taken"
)
DOCKER_NAME = (
    "a name of 2 to 63 letters, digits and . _ - that begins with a letter or digit; default, bridge, host and none "
    "are taken"
)
DURATION = "a number of seconds, or a figure with ms, s, m or h behind it such as 30s,"
VARIABLE = (
    "a variable name of letters, digits and underscores that does not begin with a digit; MODE, APP_VERSION, APP_NAME, "
    "PORT, HOST, LOG_DIR and STATE_DIR are set by SwiftDeploy"
)
VALUE = "a text, a number, true or false, of at most 32768 characters without control characters"
WEB_PATH = "a path that begins with / and has only letters, digits and . _ ~ / - in it, at most 256 characters"
LABEL = "a label name of letters, digits and underscores"
LABELS = "a list of 1 to 20 different label names, for example [status_code]"
FILE = "an absolute path on the host of letters, digits and . _ ~ / @ + -"
ENV = "a mapping of at most 500 variables, for example LOG_LEVEL: debug"
STATUSES = "a status from 200 to 499, a range of them, or a list of such, for example 200-399 or [200-299, 401]"
OTHERS = "no other status is one of a healthy service"
SECRETS = "a list of at most 100 different names, for example [DB_PASSWORD]"
CHECK_SYNTAX = "check quotes, brackets and indentation here and in the line above"
QUOTE_IT = "text that looks like something else goes in quotes"
WITHOUT_QUOTES = "write it without quotes"
NAMES_ONLY = "list names only; the values come from the vault or the environment"
SERVICES_KEYS = (
    "name, image, port, version, mode, restart_policy, log_volume, command, env, secrets, healthcheck, resources, "
    "metrics"
)
NGINX_KEYS = "image, port, proxy_timeout, drain_timeout, max_body, tls, real_ip, open_metrics, open_chaos"
TOP_KEYS = "services, nginx, opa, canary, images, network, contact"


@pytest.mark.parametrize(
    ("services", "message"),
    [
        ('name: "App"', f'services.name: found "App", allowed {NAME}'),
        ("name: nginx", f"services.name: found nginx, allowed {NAME}"),
        ("name: a-", f"services.name: found a-, allowed {NAME}"),
        (f"name: {'a' * 41}", f"services.name: found {'a' * 41}, allowed {NAME}"),
        ("name: 7", f'services.name: found 7, allowed {NAME}; text that looks like something else goes in quotes: "7"'),
        ("mode: cannary", "services.mode: found cannary, allowed stable or canary; did you mean `canary`?"),
        ("mode: Stable", "services.mode: found Stable, allowed stable or canary; did you mean `stable`?"),
        ("mode: ", "services.mode: found nothing, allowed stable or canary; remove the key to get the default"),
        (
            "restart_policy: onfailure",
            "services.restart_policy: found onfailure, allowed no, always, on-failure or unless-stopped; did you mean "
            "`on-failure`?",
        ),
        ("log_volume: ../x", f"services.log_volume: found ../x, allowed {DOCKER_NAME}"),
        (
            "version: a b",
            "services.version: found a b, allowed a version of at most 64 letters, digits and . _ + - such as 1.0.0",
        ),
        (
            "version: true",
            "services.version: found true, allowed a version of at most 64 letters, digits and . _ + - such as 1.0.0; "
            'text that looks like something else goes in quotes: "true"',
        ),
        (
            "command: python app.py",
            "services.command: found python app.py, allowed a list of the program and its arguments, for example "
            "[python, app.py]",
        ),
        (
            "command: []",
            "services.command: found an empty list, allowed a list of the program and its arguments, for example "
            "[python, app.py]",
        ),
        (
            "healthcheck: {path: healthz}",
            f"services.healthcheck.path: found healthz, allowed {WEB_PATH}",
        ),
        (
            'healthcheck: {interval: "1"}',
            f'services.healthcheck.interval: found "1", allowed {DURATION} from 0.1 to 300 seconds; '
            f"{WITHOUT_QUOTES}: 1",
        ),
        (
            "healthcheck: {interval: 1 s}",
            f"services.healthcheck.interval: found 1 s, allowed {DURATION} from 0.1 to 300 seconds",
        ),
        (
            "healthcheck: {timeout: 0}",
            f"services.healthcheck.timeout: found 0, allowed {DURATION} from 0.1 to 300 seconds",
        ),
        (
            "healthcheck: {timeout: 6m}",
            f"services.healthcheck.timeout: found 6m, allowed {DURATION} from 0.1 to 300 seconds",
        ),
        (
            "healthcheck: {timeout: true}",
            f"services.healthcheck.timeout: found true, allowed {DURATION} from 0.1 to 300 seconds",
        ),
        (
            "healthcheck: {host: 'http://shop'}",
            'services.healthcheck.host: found "http://shop", allowed the name of a host, with a port where it needs '
            "one, such as shop.example.org",
        ),
        (
            "healthcheck: {scheme: ftp}",
            "services.healthcheck.scheme: found ftp, allowed http or https; did you mean `http`?",
        ),
        ("healthcheck: {status: 503}", f"services.healthcheck.status: found 503, allowed {STATUSES}; {OTHERS}"),
        ("healthcheck: {status: 2xx}", f"services.healthcheck.status: found 2xx, allowed {STATUSES}; {OTHERS}"),
        (
            "healthcheck: {status: []}",
            f"services.healthcheck.status: found an empty list, allowed {STATUSES}; {OTHERS}",
        ),
        (
            "healthcheck: {status: [200, 99]}",
            "services.healthcheck.status[1]: found 99, allowed a status from 200 to 499 or a range of them, such as "
            f"301 or 200-299; {OTHERS}",
        ),
        (
            "healthcheck: {status: 399-200}",
            "services.healthcheck.status: found 399-200, allowed the lower status before the higher one",
        ),
        (
            "healthcheck: {status: [204, 399-200]}",
            "services.healthcheck.status[1]: found 399-200, allowed the lower status before the higher one",
        ),
        (
            "healthcheck: [a]",
            "services.healthcheck: found a list, allowed a mapping of path, host, scheme, status, interval, timeout, "
            "start_timeout, settle",
        ),
        ("resources: {cpus: .nan}", "services.resources.cpus: found .nan, allowed a number from 0.01 to 1024"),
        ("resources: {cpus: 0}", "services.resources.cpus: found 0, allowed a number from 0.01 to 1024"),
        (
            "resources: {memory: lots}",
            "services.resources.memory: found lots, allowed an amount of memory such as 256m or 1g",
        ),
        ("resources: {pids: 0}", "services.resources.pids: found 0, allowed a whole number from 1 to 4194304"),
        (
            "metrics: {requests: a-b}",
            "services.metrics.requests: found a-b, allowed a metric name of letters, digits, underscores and colons",
        ),
        (
            "metrics: {status_labels: [a, a]}",
            f"services.metrics.status_labels: found the same item twice, allowed {LABELS}",
        ),
        (
            "metrics: {status_labels: [a, 1]}",
            f'services.metrics.status_labels[1]: found 1, allowed {LABEL}; {QUOTE_IT}: "1"',
        ),
        ("prot: 1", f"services.prot: found an unknown key, allowed {SERVICES_KEYS}; did you mean `port`?"),
        ("steps: [5]", f"services.steps: found an unknown key, allowed {SERVICES_KEYS}; did you mean `canary.steps`?"),
        ("zzzzz: 1", f"services.zzzzz: found an unknown key, allowed {SERVICES_KEYS}"),
        ("8: 1", f"services.8: found an unknown key, allowed {SERVICES_KEYS}"),
        (r'"a\e[31mb": 1', r'services."a\x1b[31mb": found a control character in the key, allowed a name'),
        (
            r'version: "1\n"',
            "services.version: found the control character U+000A in the value, allowed printable text in one line",
        ),
        (
            r'version: "\ud800"',
            "services.version: found the control character U+D800 in the value, allowed printable text in one line",
        ),
        (
            r'version: "\u202e1"',
            "services.version: found the control character U+202E in the value, allowed printable text in one line",
        ),
        ("<<: 1", "services.<<: found no mapping, allowed an alias of a mapping"),
    ],
)
def test_mistakes_in_services(services: str, message: str) -> None:
    message = message.replace("services.<<", 'services."<<"')
    assert problems_of(manifest_with(services)) == [f"1: {message}"]


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ('"8080"', f'found "8080", allowed {PORT}; write it without quotes: 8080'),
        ("true", f"found true, allowed {PORT}"),
        ("8080.0", f"found 8080.0, allowed {PORT}; write 8080"),
        ("80.5", f"found 80.5, allowed {PORT}"),
        ("0", f"found 0, allowed {PORT}"),
        ("-1", f"found -1, allowed {PORT}"),
        ("65536", f"found 65536, allowed {PORT}"),
        ("08080", f"found 08080, allowed {PORT}; write it without leading zeros"),
        ("http", f"found http, allowed {PORT}"),
        ("", f"found nothing, allowed {PORT}"),
        ("[80]", f"found a list, allowed {PORT}"),
        ("9" * 5000, f"found {'9' * 59}…, allowed {PORT}"),
        ("8080:80", f"found 8080:80, allowed {PORT}"),
    ],
)
def test_a_port_is_a_whole_number(written: str, found: str) -> None:
    text = THREE_LINES.replace("8080", written)
    assert problems_of(text) == [f"2: nginx.port: {found}"]


@pytest.mark.parametrize(
    "image",
    ["-v", "--privileged", "UPPER", "a b", "a;id", "$(id)", "{{ 7*7 }}", "a:", "a:b:c", "/a", "a//b", "a@sha256:12",
     "é", "a" * 256, "http://a/b", ""],
)  # fmt: skip
def test_what_is_no_image_reference(image: str) -> None:
    shown = image if len(image) <= 60 else image[:59] + "…"
    assert problems_of(THREE_LINES.replace("nginx:latest", image)) == [
        f'2: nginx.image: found "{shown}", allowed {IMAGE}'
    ]


@pytest.mark.parametrize(
    "image",
    ["nginx", "nginx:1.27-alpine", "library/nginx", "localhost:5000/a/b__c/d-e.f:T_1", "Registry.Example/x",
     "[::1]:5000/x", "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"],
)  # fmt: skip
def test_image_references(image: str) -> None:
    assert config_of(THREE_LINES.replace("nginx:latest", image))["nginx"]["image"] == image


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "services: {image: a, port: 1}\n",
            [
                f"1: nginx: found nothing, allowed a mapping of {NGINX_KEYS}",
                "1: network: found nothing, allowed a mapping of name, driver_type",
            ],
        ),
        (
            "services:\n  image: a\nnginx: {}\nnetwork: {name: ab}\n",
            [
                f"1: services.port: found nothing, allowed {PORT}; add it, for example `port: 3000`",
                f"3: nginx.image: found nothing, allowed {IMAGE}; add it, for example `image: nginx:latest`",
                f"3: nginx.port: found nothing, allowed {PORT}; add it, for example `port: 8080`",
                "4: network.driver_type: found nothing, allowed bridge; add it, for example `driver_type: bridge`",
            ],
        ),
        ("- a\n", [f"1: found a list, allowed a mapping of {TOP_KEYS}"]),
        ("text\n", [f"1: found text, allowed a mapping of {TOP_KEYS}"]),
        ("42", [f"1: found 42, allowed a mapping of {TOP_KEYS}"]),
        (
            manifest_with(rest="network2: 1\nversion: 3\nconatct: x\n"),
            [
                f"4: network2: found an unknown key, allowed {TOP_KEYS}; did you mean `network`?",
                f"5: version: found an unknown key, allowed {TOP_KEYS}; did you mean `services.version`?",
                f"6: conatct: found an unknown key, allowed {TOP_KEYS}; did you mean `contact`?",
            ],
        ),
        (
            manifest_with().replace("driver_type: bridge", "driver_type: overlay"),
            [
                "3: network.driver_type: found overlay, allowed bridge; the stack runs whole on one host, where "
                "bridge is the only driver that fits"
            ],
        ),
        (manifest_with().replace("name: net", "name: host"), [f"3: network.name: found host, allowed {DOCKER_NAME}"]),
        (
            manifest_with(rest="canary: {steps: [5, 25, 25, 10]}\n"),
            [
                "4: canary.steps[2]: found 25 after 25, allowed rising whole numbers",
                "4: canary.steps[3]: found 10 after 25, allowed rising whole numbers",
            ],
        ),
        (
            manifest_with(rest="canary: {steps: [0, 100], weight: 0, sticky: {cookie: a, header: b}}\n"),
            [
                "4: canary.steps[0]: found 0, allowed a whole number from 1 to 99",
                "4: canary.steps[1]: found 100, allowed a whole number from 1 to 99",
                "4: canary.weight: found 0, allowed a whole number from 1 to 100",
                "4: canary.sticky: found a mapping of 2 keys, allowed one of cookie and header, for example "
                "cookie: slot",
            ],
        ),
        (
            manifest_with(nginx="tls: {key: k.pem}"),
            [
                f"2: nginx.tls.certificate: found nothing, allowed {FILE}; add it, for example `certificate: "
                "/etc/ssl/app/fullchain.pem`",
                f"2: nginx.tls.key: found k.pem, allowed {FILE}",
            ],
        ),
        (
            manifest_with(rest="images: {source: ftp}\ncontact: true\n"),
            [
                "4: images.source: found ftp, allowed auto, pull, build or archive",
                "5: contact: found true, allowed a text of 1 to 500 characters without control characters; "
                f'{QUOTE_IT}: "true"',
            ],
        ),
        (
            "services:\n  port: 1\n  image: a\n  port: 2\n" + manifest_with().split("\n", 1)[1],
            ["4: services.port: found it again, allowed once; it is in line 2 too"],
        ),
        (manifest_with(rest="? [a]\n: b\n"), ["4: found a list as a key, allowed a name"]),
    ],
)
def test_mistakes_elsewhere(text: str, expected: list[str]) -> None:
    assert problems_of(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ": the file is empty; the smallest manifest has services, nginx and network, see docs/manifest.md"),
        ("# a\n\n", ": the file is empty; the smallest manifest has services, nginx and network, see docs/manifest.md"),
        ("services:\n\tport: 1\n", "2: found a tab character outside of quotes, allowed spaces"),
        (b"a: 1\nb: \xff\n", "2: found the byte 0xff, allowed UTF-8 text; save the file as UTF-8 in the editor"),
        ("a: 1\n".encode("utf-16"), ": the file is UTF-16 text, allowed UTF-8; save it as UTF-8 in the editor"),
        ("a: 1\n---\nb: 1\n", "2: found a second document (---), allowed one document in the file"),
        ("%YAML 1.1\n---\na: 1\n", "2: found a %YAML line of another version, allowed YAML 1.2"),
        ("a: 1\nb: \x00\n", "2: found the character U+0000, allowed printable text"),
        ("a: *hunter2\n", "1: found an alias (*) without an anchor (&); put a value that begins with * in quotes"),
        ("a: &a [*a]\n", "1: found an alias (*) inside the value that it stands for"),
        (
            "a: !vault |\n  x\n",
            "1: found a tag (!), which is not used here; put a value that begins with ! in quotes",
        ),
        (
            "a: !!python/object/apply:os.system [id]\n",
            "1: found a tag (!), which is not used here; put a value that begins with ! in quotes",
        ),
        (
            "a: b: c\n",
            "1: found a second `: ` in one line, allowed one; check the indentation, or put the value in quotes",
        ),
        ("a: 1\nb\n", "3: found a line without `: `, allowed `key: value`; check the line above it as well"),
        (
            "a: [1\nb: x\n",
            f"2: this is not YAML: expected ',' or ']', but got ':'; {CHECK_SYNTAX}",
        ),
        ("a: 1\nb: 'x\nc: 2\n", "2: found a quote that is never closed"),
        (
            "a: !hunter2!x y\n",
            f"1: this is not YAML: found undefined tag handle (not shown); {CHECK_SYNTAX}",
        ),
        ("[" * 1000, "1: found more than 50 levels of nesting"),
        ("a: [" + "1," * 30_000 + "]", "1: found more than 20000 values, too many"),
    ],
)
def test_what_is_no_manifest_at_all(text: str | bytes, expected: str) -> None:
    assert problems_of(text) == [expected.removeprefix(": ")]


def test_an_alias_bomb_costs_nothing() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    assert problems_of("\n".join(lines))[0].endswith("aliases (*) make more than 20000 values of it")
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 9)]
    assert problems_of("\n".join(lines))[0].endswith("aliases (*) make more than 20000 values of it")


def test_thousands_of_problems_are_cut_short() -> None:
    with pytest.raises(ManifestError) as caught:
        parse(("".join(f"k{n}: [1, a, {n}]\n" for n in range(3000))).encode(), "m")
    lines = str(caught.value).splitlines()
    assert len(lines) == 51
    assert lines[-1] == f"and {len(caught.value.problems) - 50} more problems"


@pytest.mark.parametrize(
    "services",
    [
        "env: {A: [hunter2]}",
        "env: {A: {hunter2: hunter2}}",
        "env: [A=hunter2]",
        "env: A=hunter2",
        "env: {A=hunter2}",
        "env: {PORT: hunter2}",
        'env: {"1": hunter2}',
        r'env: {A: "hunter2\n"}',
        "env: {A: hunter2, A: hunter2}",
        "env: {A: hunter2}, secrets: [A]",
        "secrets: hunter2",
        "secrets: [hunter2!]",
        "secrets: [A, hunter2!, hunter2!]",
        "secrets: {A: hunter2}",
        "secrets: [{A: hunter2}]",
        "secrets: [[hunter2]]",
        r'secrets: ["hunter2\n"]',
        "env: {A: *hunter2}",
        "env: {A: !hunter2 x}",
        "env: {A: !hunter2!x y}",
        'env: {A: "hunter2',
        "env: {A: hunter2: hunter2}",
    ],
)
def test_what_may_be_a_secret_is_never_shown(services: str) -> None:
    shown = "\n".join(problems_of(manifest_with(services)))
    assert "hunter2" not in shown
    assert shown.startswith("1: ")


@pytest.mark.parametrize(
    ("services", "message"),
    [
        (
            "env: {A: [x]}",
            f"services.env.A: found a list, allowed {VALUE}",
        ),
        ("env: {A: }", f'services.env.A: found nothing, allowed {VALUE}; write "" for an empty value'),
        (
            "env: [A=x]",
            f"services.env: found a list, allowed {ENV}; write NAME: value, one a line, without hyphens",
        ),
        ("env: {A-B: x}", f"services.env.A-B: found this name, allowed {VARIABLE}"),
        ("env: {A=x: }", None),
        ("env: {MODE: x}", f"services.env.MODE: found this name, allowed {VARIABLE}"),
        (
            "secrets: {A: x}",
            f"services.secrets: found a mapping, allowed {SECRETS}; {NAMES_ONLY}",
        ),
        (
            "secrets: [a=b]",
            f"services.secrets[0]: found a value that is not shown here, allowed {VARIABLE}; {NAMES_ONLY}",
        ),
        (
            "secrets: [B, A], env: {A: x}",
            "services.secrets[1]: found a name that services.env sets too, allowed in one of them",
        ),
    ],
)
def test_mistakes_in_env_and_secrets(services: str, message: str | None) -> None:
    found = problems_of(manifest_with(services))
    if message is None:
        assert all(line.startswith("1: services.env.A…: ") for line in found)
    else:
        assert found == [f"1: {message}"]


def test_problems_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("network: {name: host, driver_type: x}\nnginx:\n  port: '1'\n  image: -x\nservices:\n  prot: 1\n")
    with pytest.raises(ManifestError) as caught:
        load(path)
    problems = caught.value.problems
    assert [(problem.line, problem.key) for problem in problems] == [
        (1, "network.name"), (1, "network.driver_type"), (3, "nginx.port"), (4, "nginx.image"),
        (5, "services.image"), (5, "services.port"), (6, "services.prot"),
    ]  # fmt: skip
    assert {problem.file for problem in problems} == {str(path)}
    assert str(problems[2]) == f'{path}:3: nginx.port: found "1", allowed {PORT}; write it without quotes: 1'


# Files that cannot be read


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "big").write_bytes(b"#" * (1024 * 1024 + 1))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    expected = {
        "none": "none: there is no such file; run from the folder that has it, or give its path with -e manifest=PATH",
        "folder": "folder: this is a folder; name the manifest file in it",
        "big": "big: it has more than 1 MiB, which is not a manifest",
        "pipe": "pipe: this is not a regular file",
        "loop": "loop: it cannot be read: Too many levels of symbolic links",
        "a\0b": r"a\x00b: this is not a path of a file",
        "": "manifest: no path is given; give one with -e manifest=PATH",
        "x" * 300: f"{'x' * 300}: it cannot be read: File name too long",
        "/dev/null": "/dev/null: this is not a regular file",
    }
    for name, message in expected.items():
        with pytest.raises(ManifestError) as caught:
            load(name)
        assert str(caught.value) == message


@contextmanager
def ordinary_user() -> Iterator[Path]:
    """A folder of an ordinary user; root becomes one for the while, since rights mean nothing to it."""
    folder = Path(tempfile.mkdtemp(prefix="manifest-test-"))
    root = os.geteuid() == 0
    if root:
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
    try:
        yield folder
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o700)
        shutil.rmtree(folder)


def test_no_permission_to_read() -> None:
    with ordinary_user() as folder:
        path = folder / "m.yaml"
        path.write_text(THREE_LINES)
        path.chmod(0)
        with pytest.raises(ManifestError) as caught:
            load(path)
    assert str(caught.value) == f"{path}: no permission to read it; check the rights of the file and of its folders"


# Whatever comes in, nothing but ManifestError comes out

fuzz = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def survives(raw: bytes) -> None:
    try:
        parse(raw, "m")
    except ManifestError as error:
        assert error.problems
        assert str(error).replace("\n", "").isprintable()


@fuzz
@given(st.binary(max_size=300))
def test_any_bytes(raw: bytes) -> None:
    survives(raw)


@fuzz
@given(st.text(alphabet="ab:{}[]&*!|>%@`#'\"-?, \n\t\\<~.0é\ufeff\x85\u2028", max_size=60))
def test_any_text_of_yaml_signs(text: str) -> None:
    survives(text.encode())
    survives((THREE_LINES + text).encode())
    survives(manifest_with(text).encode())


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
trees = st.recursive(
    scalars, lambda part: st.lists(part, max_size=4) | st.dictionaries(st.text(max_size=8), part, max_size=4)
)
KEYS = sorted({key for path in manifest_schema.known_keys() for key in path})
sections = st.dictionaries(st.sampled_from(KEYS), trees, max_size=4)
shaped = st.dictionaries(
    st.sampled_from(KEYS), st.dictionaries(st.sampled_from(KEYS), trees | sections, max_size=6), max_size=7
)


@fuzz
@given(trees | shaped)
def test_any_tree(tree: Any) -> None:
    survives(json.dumps(tree).encode())


@fuzz
@given(
    st.sampled_from([path for path in manifest_schema.known_keys() if not manifest_schema.at(path).get("properties")]),
    trees,
)
def test_any_value_in_any_key(path: tuple[str, ...], value: Any) -> None:
    tree: dict[str, Any] = json.loads(
        json.dumps(
            {
                "services": {"image": "a", "port": 1},
                "nginx": {"image": "b", "port": 2},
                "network": {"name": "net", "driver_type": "bridge"},
            }
        )
    )
    part = tree
    for key in path[:-1]:
        part = part.setdefault(key, {})
    part[path[-1]] = value
    survives(json.dumps(tree).encode())


# The schema and what is made from it


def test_the_schema_is_a_schema_and_is_closed() -> None:
    schema = json.loads((ROOT / "manifest.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema == manifest_schema.schema()
    for path in [(), *manifest_schema.known_keys()]:
        part = manifest_schema.at(path)
        if "object" in manifest_schema.types(part) and part.get("properties"):
            assert part["additionalProperties"] is False, path
        assert part.get("description"), path


def test_every_default_is_valid_itself() -> None:
    written = json.dumps(config_of(THREE_LINES))
    assert typed(config_of(written)) == typed(config_of(THREE_LINES))


def test_the_reference_has_every_key() -> None:
    text = docs.manifest_reference()
    for path in manifest_schema.known_keys():
        assert f"`{'.'.join(path)}`" in text or len(path) == 1


# Setting the mode


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # in its place, whatever the style
        (
            "services:\n  mode: stable  # now\n  image: a\n  port: 1\n",
            "services:\n  mode: canary  # now\n  image: a\n  port: 1\n",
        ),
        ("services: {mode: 'stable', image: a, port: 1}\n", "services: {mode: 'canary', image: a, port: 1}\n"),
        ('services: {"mode":"stable","image":"a","port":1}\n', 'services: {"mode":"canary","image":"a","port":1}\n'),
        (
            "services:\r\n  image: a\r\n  port: 1\r\n  mode: stable\r\n",
            "services:\r\n  image: a\r\n  port: 1\r\n  mode: canary\r\n",
        ),
        (
            "services:\n  image: a\n  port: 1\n  mode: &m stable\n",
            "services:\n  image: a\n  port: 1\n  mode: &m canary\n",
        ),
        (
            "services:\n  image: a\n  port: 1\n  mode: >-\n    stable\n",
            "services:\n  image: a\n  port: 1\n  mode: >-\n    canary\n",
        ),
        (
            "services:\n  image: a\n  version: &s stable\n  port: 1\n  mode: *s # as the version\n",
            "services:\n  image: a\n  version: &s stable\n  port: 1\n  mode: canary # as the version\n",
        ),
        # a new line after the last key
        ("services:\n  image: a\n  port: 1\n", "services:\n  image: a\n  port: 1\n  mode: canary\n"),
        (
            "services:\n    image: a # x\n    port: 1 # y\n\n# z\n",
            "services:\n    image: a # x\n    port: 1 # y\n    mode: canary\n\n# z\n",
        ),
        ("services:\r\n image: a\r\n port: 1\r\n", "services:\r\n image: a\r\n port: 1\r\n mode: canary\r\n"),
        (
            "services:\n  port: 1\n  image: a\n  env:\n    A: b  # c\n",
            "services:\n  port: 1\n  image: a\n  env:\n    A: b  # c\n  mode: canary\n",
        ),
        (
            "services:\n  port: 1\n  image: a\n  command:\n  - b\n  - c\n",
            "services:\n  port: 1\n  image: a\n  command:\n  - b\n  - c\n  mode: canary\n",
        ),
        (
            "services:\n  port: 1\n  image: a\n  version: |-\n    2\n",
            "services:\n  port: 1\n  image: a\n  version: |-\n    2\n  mode: canary\n",
        ),
        (
            "services:\n  port: 1\n  image: a\n  env:   # none\n",
            "services:\n  port: 1\n  image: a\n  env:   # none\n  mode: canary\n",
        ),
        ("services:\n  'port': 1\n  'image': a\n", "services:\n  'port': 1\n  'image': a\n  'mode': 'canary'\n"),
        ("services: {port: 1, image: a}  # x\n", "services: {port: 1, image: a, mode: canary}  # x\n"),
        (
            "services: {\n  port: 1,\n  image: a,  # x\n}\n",
            "services: {\n  port: 1,\n  image: a, mode: canary,  # x\n}\n",
        ),
        ('services: {"port": 1, "image": "a"}\n', 'services: {"port": 1, "image": "a", "mode": "canary"}\n'),
        ("services: {port: 1, image: a, env: {A: b}}\n", "services: {port: 1, image: a, env: {A: b}, mode: canary}\n"),
        # merged in: a key of its own is set
        (
            "services:\n  <<: {mode: stable, port: 1}\n  image: a\n",
            "services:\n  <<: {mode: stable, port: 1}\n  image: a\n  mode: canary\n",
        ),
        ("services: &s\n  image: a\n  port: 1\n", "services: &s\n  image: a\n  port: 1\n  mode: canary\n"),
    ],
)
@pytest.mark.parametrize("rest", ["nginx: {image: b, port: 2}\nnetwork: {name: net, driver_type: bridge}\n"])
@pytest.mark.parametrize("order", ["first", "last", "last without line end", "byte order mark"])
def test_set_mode_changes_the_mode_alone(tmp_path: Path, before: str, after: str, rest: str, order: str) -> None:
    def whole(text: str) -> bytes:
        if order == "first":
            return (text + rest).encode()
        if order == "byte order mark":
            return b"\xef\xbb\xbf" + (text + rest).encode()
        return (rest + text).encode() if order == "last" else (rest + text).rstrip("\r\n").encode()

    path = tmp_path / "m.yaml"
    path.write_bytes(whole(before))
    assert set_mode(path, "canary") is True
    assert path.read_bytes() == whole(after)
    assert load(path)["services"]["mode"] == "canary"
    assert set_mode(path, "canary") is False
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.yaml"]


def test_setting_the_mode_that_is_meant_already_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(THREE_LINES)
    inode = path.stat().st_ino
    assert set_mode(path, "stable") is False
    assert path.read_text() == THREE_LINES
    assert path.stat().st_ino == inode


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            "services:\n  image: a\n  port: 1\n  mode: &m stable\n  version: *m\n",
            "other keys use what is written there; write the mode without an anchor (&) or alias",
        ),
        (
            'services:\n  image: a\n  port: 1\n  mode: "st\\u0061ble"\n',
            "its value is written with escapes; write it plain",
        ),
        ("services: *n\n", "services is an alias; write its keys out below it"),
    ],
)
def test_a_mode_that_cannot_be_set_alone_is_refused(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "m.yaml"
    whole = "nginx: &n {image: b, port: 2}\nnetwork: {name: net, driver_type: bridge}\n" + text
    path.write_text(whole)
    with pytest.raises(ManifestError) as caught:
        set_mode(path, "canary")
    assert (
        str(caught.value) == f"{path}: services.mode cannot be set without changing more: {why}. The file is as it was"
    )
    assert path.read_text() == whole


def test_an_unknown_mode_and_a_bad_manifest_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(THREE_LINES)
    with pytest.raises(ManifestError, match=r"m\.yaml: the mode blue is not known, allowed stable or canary"):
        set_mode(path, "blue")
    path.write_text("services: 1")
    with pytest.raises(ManifestError, match=r"m\.yaml:1: services: found 1"):
        set_mode(path, "canary")
    assert path.read_text() == "services: 1"


def test_rights_owner_and_symlink_stay(tmp_path: Path) -> None:
    real = tmp_path / "real" / "m.yaml"
    real.parent.mkdir()
    real.write_text(THREE_LINES)
    real.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(real, 1234, 2345)
    before = real.stat()
    link = tmp_path / "link.yaml"
    link.symlink_to("real/m.yaml")
    assert set_mode(link, "canary") is True
    after = real.stat()
    assert link.is_symlink()
    assert str(link.readlink()) == "real/m.yaml"
    assert stat.S_IMODE(after.st_mode) == 0o640
    assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)
    assert load(link)["services"]["mode"] == "canary"


REMEDY = "The file is as it was: set services.mode in it by hand, or give the right and run again"


@pytest.mark.parametrize("mode", [0o444, 0o400])
def test_a_read_only_file_stays(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(THREE_LINES)
    path.chmod(mode)
    with pytest.raises(ManifestError) as caught:
        set_mode(path, "canary")
    assert str(caught.value) == f"{path}: the file is read-only, services.mode cannot be set. {REMEDY}"
    assert path.read_text() == THREE_LINES


def test_a_folder_that_cannot_be_written_stays() -> None:
    with ordinary_user() as folder:
        path = folder / "m.yaml"
        path.write_text(THREE_LINES)
        folder.chmod(0o555)
        with pytest.raises(ManifestError) as caught:
            set_mode(path, "canary")
        assert path.read_text() == THREE_LINES
    assert str(caught.value) == f"{path}: no permission to replace it in the folder {folder}. {REMEDY}"


def test_a_full_disk_leaves_the_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(THREE_LINES)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))
    try:
        with pytest.raises(ManifestError) as caught:
            set_mode(path, "canary")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(caught.value) == f"{path}: it cannot be written: File too large. The file is as it was"
    assert path.read_text() == THREE_LINES
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.yaml"]


@pytest.mark.parametrize(("moment", "expected"), [("fsync", "stable"), ("fchmod", "stable"), ("replaced", "canary")])
def test_a_kill_leaves_the_old_file_or_the_new_one(tmp_path: Path, moment: str, expected: str) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(THREE_LINES)

    def die(*_: Any) -> None:
        os._exit(9)

    child = os.fork()
    if child == 0:
        if moment == "replaced":
            setattr(manifest_mode, "_sync_folder", die)  # noqa: B010 - no type fits a function that never returns
        else:
            setattr(os, moment, die)
        set_mode(path, "canary")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert load(path)["services"]["mode"] == expected


def test_an_edit_in_between_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(THREE_LINES)
    sync = os.fsync

    def edit_meanwhile(descriptor: int) -> None:
        sync(descriptor)
        path.write_text("# mine\n" + THREE_LINES)

    monkeypatch.setattr(os, "fsync", edit_meanwhile)
    with pytest.raises(ManifestError, match="somebody else changed the file in this moment"):
        set_mode(path, "canary")
    assert path.read_text() == "# mine\n" + THREE_LINES


def test_the_diff_shows_the_change_and_no_secrets(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(
        "services:\n  image: a\n  env:\n    A: hunter2\n    B: 'hunter2'  # c\n    C: |-\n      hunter2\n  port: 1\n"
        "nginx: {image: b, port: 2}\nnetwork: {name: net, driver_type: bridge}\n"
    )
    diff = plan_mode(path, "canary").diff()
    rest = "nginx: {image: b, port: 2}\nnetwork: {name: net, driver_type: bridge}\n"
    masked = "services:\n  image: a\n  env:\n    A: ***\n    B: ***  # c\n    C: ***\n  port: 1\n"
    assert diff["before"] == masked + rest
    assert diff["after"] == masked + "  mode: canary\n" + rest
    assert diff["before_header"] == diff["after_header"] == str(path)


@dataclass(frozen=True)
class Sample:
    """A manifest in pieces around the mode, so that what it must become is known without any parser."""

    head: str
    mode: str | None
    tail: str

    def text(self, mode: str | None) -> str:
        return self.head + (mode or "") + self.tail


comments = st.sampled_from(["", "  # note", "   # {{ x }} : 'quoted", " #stable mode: stable"])
own_lines = st.sampled_from(["", "\n", "# mode: stable\n", "\n# text\n\n", "        # deep\n"])
anchors = st.sampled_from(["", "&a1 ", "&stable "])


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    """Manifests of many styles: block, flow, quotes, comments, anchors, line ends, with and without the mode."""
    indent = " " * draw(st.integers(1, 5))
    quote = draw(st.sampled_from(["", "'", '"']))
    has_mode = draw(st.booleans())
    pairs = [
        ("image", draw(anchors) + draw(st.sampled_from(["stable", '"stable:canary"', "'x/stable:1'"]))),
        ("port", draw(st.sampled_from(["3000", "0x10", " 3000 "]))),
    ]
    optional = {
        "version": ["1.10", "stable", '"stable"', "&v 2"],
        "env": ["{A: stable, B: 'mode: stable'}", "{ }", "{A: 'x'}"],
        "command": ["[run, mode, stable]", '["a b",\n' + indent + '  "stable"]'],
        "name": ["stable"],
    }
    for key, values in optional.items():
        if draw(st.booleans()):
            pairs.append((key, draw(st.sampled_from(values))))
    flow = draw(st.booleans())
    if not flow and draw(st.booleans()):
        pairs.append(("env", f"\n{indent}  A: stable\n{indent}  mode_: |-\n{indent}    stable"))
        pairs = [pair for n, pair in enumerate(pairs) if pair[0] != "env" or n == len(pairs) - 1]
    if has_mode:
        pairs.append(("mode", "MODE"))
    pairs = draw(st.permutations(pairs))
    if flow:
        separator = draw(st.sampled_from([", ", ",", ",\n   ", " ,  # stable\n  "]))
        close = draw(st.sampled_from(["}", " }", ",\n }"]))
        body = "services: {" + separator.join(f"{key}: {value}" for key, value in pairs) + close + draw(comments) + "\n"
    else:
        body = "services:" + draw(comments) + "\n"
        for key, value in pairs:
            note = "" if value.endswith("    stable") else draw(comments)
            between = "" if body.endswith("    stable\n") else draw(own_lines)
            body += f"{between}{indent}{key}: {value}{note}\n"
    others = ["nginx: {image: b, port: 8080}  # mode: stable\n", "network:\n  name: net\n  driver_type: bridge\n"]
    others.append(draw(st.sampled_from(["", "contact: 'mode: stable'\n", "canary:\n  # stable\n  weight: 5\n"])))
    parts = draw(st.permutations([body, *others]))
    text = draw(st.sampled_from(["", "# services: {mode: stable}\n", "---\n", "%YAML 1.2\n---\n"])) + "".join(parts)
    text = (
        text.removesuffix("\n") if draw(st.booleans()) else text + draw(st.sampled_from(["", "\n", "# mode: stable\n"]))
    )
    if draw(st.booleans()):
        text = text.replace("\n", "\r\n")
    if draw(st.booleans()):
        text = "\ufeff" + text
    head, mark, tail = text.partition("MODE")
    if not mark:
        return Sample(text, None, "")
    prefix = draw(st.sampled_from(["", "&m ", "!!str "]))
    return Sample(head + prefix + quote, "stable", quote + tail)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(samples())
def test_no_byte_but_the_mode_changes(tmp_path_factory: pytest.TempPathFactory, sample: Sample) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.yaml"
        before = sample.text(sample.mode)
        path.write_bytes(before.encode())
        assert load(path)["services"]["mode"] == "stable"
        assert set_mode(path, "canary") is True
        after = path.read_bytes().decode()
    if sample.mode is not None:
        assert after == sample.text("canary")
        return
    start = next((n for n, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), len(before))
    size = len(after) - len(before)
    assert before[start:] == after[start + size :]
    # The same data by another loader, in the same order but for the new key.
    old, new = (YAML(typ="safe", pure=True).load(io.StringIO(text.removeprefix("\ufeff"))) for text in (before, after))
    assert list(new["services"]) == [*old["services"], "mode"]
    assert new == {**old, "services": {**old["services"], "mode": "canary"}}
    assert ("\r\n" in before) is ("\r\n" in after)
    assert after.count("\n") - before.count("\n") in (0, 1)
    assert before.endswith("\n") is after.endswith("\n")


@fuzz
@given(st.text(alphabet="ab:{}[]&*|>#'\"-?, \n\r\\<é😀", max_size=40), st.sampled_from(["", "mode: stable\n  "]))
def test_set_mode_never_breaks_what_it_does_not_understand(text: str, mode: str) -> None:
    raw = (
        f"services:\n  image: a\n  port: 1\n  {mode}version: x\n  {text}\n"
        "nginx: {image: b, port: 2}\nnetwork: {name: net, driver_type: bridge}\n"
    ).encode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.yaml"
        path.write_bytes(raw)
        try:
            set_mode(path, "canary")
        except ManifestError:
            assert path.read_bytes() == raw
        else:
            new, old = parse(path.read_bytes(), "m").data, parse(raw, "m").data
            assert new.pop("services") == {**old.pop("services"), "mode": "canary"}
            assert new == old
