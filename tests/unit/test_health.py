"""The question for a service's health: how it is asked, what is healthy, what is said of the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from swiftdeploy_target import health, secret_values
from swiftdeploy_target.http import Answer

PLAIN: dict[str, Any] = {"path": "/healthz"}


@pytest.mark.parametrize(
    ("question", "sent"),
    [
        ({}, {}),
        ({"host": None, "scheme": "http"}, {}),
        ({"host": "shop.example.org:8443"}, {"Host": "shop.example.org:8443"}),
        ({"scheme": "https"}, {"X-Forwarded-Proto": "https"}),
    ],
)
def test_a_service_is_told_its_name_and_scheme(question: dict[str, Any], sent: dict[str, str]) -> None:
    assert health.headers(question) == {"User-Agent": "swiftdeploy", **sent}


@pytest.mark.parametrize(
    ("status", "healthy", "ill"),
    [
        (None, [200, 204, 299], [199, 300, 503]),
        ("200-299", [200, 299], [300]),
        (204, [204], [200, 205]),
        ("401", [401], [400, 402]),
        (["200-299", 301, "401-403"], [200, 301, 402], [300, 302, 400, 404]),
    ],
)
def test_what_counts_as_healthy(status: Any, healthy: list[int], ill: list[int]) -> None:
    assert [one for one in healthy + ill if health.accepted(one, {"status": status})] == healthy


def answer(status: int, body: str = "", location: str = "", kind: str = "text/plain") -> Answer:
    return Answer(status, {"location": location, "content-type": kind}, body.encode())


@pytest.mark.parametrize(
    ("came", "question", "words"),
    [
        (answer(503), {}, "it answers 503"),
        (answer(500, "\n\n database is down \nmore"), {}, 'it answers 500, "database is down"'),
        (
            answer(301, location="https://shop.example.org/healthz"),
            {},
            "it answers 301 with Location: https://shop.example.org/healthz; set services.healthcheck.scheme: https",
        ),
        (
            answer(302, location="https://shop.example.org/healthz"),
            {"scheme": "https"},
            "set services.healthcheck.host: shop.example.org",
        ),
        (answer(308, location="/healthz/"), {}, "set services.healthcheck.path: /healthz/"),
        (
            answer(301, location="http://www.shop.org/up"),
            {},
            "set services.healthcheck.host: www.shop.org and services.healthcheck.path: /up",
        ),
        (answer(303, location="/healthz"), {}, "if that is healthy: set services.healthcheck.status: [303]"),
        (answer(302, location="https://[bad"), {}, "it answers 302 with Location: https://[bad"),
        (
            answer(400, "DisallowedHost: Invalid HTTP_HOST header: 10.0.0.1:3000"),
            {},
            "; it wants to be asked by its own name: set services.healthcheck.host",
        ),
        (
            answer(
                400, "<!doctype html><html><head><title>x</title></head><h1>Bad Request (400)</h1>", kind="text/html"
            ),
            {},
            '"Bad Request (400)"; if it wants to be asked by its own name: set services.healthcheck.host',
        ),
        (answer(403, "Blocked hosts: 10.0.0.1"), {}, "it wants to be asked by its own name"),
        (answer(421, "misdirected"), {}, "it wants to be asked by its own name"),
        (answer(400, "Invalid host"), {"host": "shop.example.org"}, 'it answers 400, "Invalid host"'),
        (answer(404, "not found"), {}, "nothing is at /healthz: set services.healthcheck.path"),
        (answer(401), {}, "services.healthcheck.status: [401]"),
        (answer(405), {}, "it takes no GET"),
    ],
)
def test_what_came_back_and_which_key_it_asks_for(came: Answer, question: dict[str, Any], words: str) -> None:
    assert words in health.told(came, {**PLAIN, **question}, None)


def test_what_is_quoted_is_one_short_clean_line_without_secrets(tmp_path: Path) -> None:
    secret_values.keep(tmp_path, "one", {"DB_URL": "postgres://shop:hunter-2222@db/" + "shop" * 50})
    body = (
        "\x1b]0;title\x07\x1b[31mcannot \u202ereach\t\x00 postgres://shop:hunter-2222@db/" + "shop" * 50 + " again\n2"
    )
    told = health.told(answer(500, body + "x" * 100000, location="\x1b[2J" + "y" * 5000), PLAIN, tmp_path)
    assert "reach" in told
    assert "********" in told
    assert "hunter" not in told
    assert "shop@" not in told
    assert told.isprintable()
    assert len(told) < 500


def test_a_page_that_says_nothing_is_not_quoted() -> None:
    assert health.told(answer(500, "<html><script>var a = 1</script></html>", kind="text/html"), PLAIN, None) == (
        "it answers 500"
    )
    assert health.told(Answer(500, {}, b"\xff\xfe\x00"), PLAIN, None).startswith("it answers 500")
