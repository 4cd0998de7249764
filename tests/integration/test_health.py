"""Applications that insist on how they are asked: their own name, https, a path with a slash, another status."""

from __future__ import annotations

import json

from support.workspace import Workspace

CODE = r"""
import http.server, os
PORT, WANT = int(os.environ["PORT"]), os.environ["WANT"]
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *a): pass
    def answer(self, status, body="", **headers):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body.encode())), **headers}.items(): self.send_header(name, value)
        self.end_headers(); self.wfile.write(body.encode())
    def do_GET(self):
        host, https = self.headers.get("Host", ""), self.headers.get("X-Forwarded-Proto") == "https"
        if not self.path.startswith("/healthz"): return self.answer(200, os.environ["APP_VERSION"])
        if host != "shop.example.org" and "host" in WANT:
            return self.answer(400, f"DisallowedHost: \x1b[31mInvalid HTTP_HOST header: {host} {os.environ['KEY']}\n")
        if not https and "https" in WANT:
            return self.answer(301, Location="https://shop.example.org/healthz")
        if self.path != "/healthz/" and "slash" in WANT: return self.answer(308, Location="/healthz/")
        self.answer(401 if "login" in WANT else 200, "ok")
http.server.ThreadingHTTPServer((os.environ["HOST"], PORT), H).serve_forever()
"""
COMMAND = json.dumps(["python3", "-c", f"exec({CODE!r})"])


def test_a_service_that_insists_on_how_it_is_asked_is_deployed_once_told_to(deployed: Workspace) -> None:
    env = "  env: {WANT: host https slash login}\n  secrets: [KEY]\n"
    # Each refusal says what came back and what to set, until nothing is left to say.
    asked, told = (
        "interval: 1s, start_timeout: 3s",
        [
            ('it answers 400, "DisallowedHost: ', "set services.healthcheck.host", ", host: shop.example.org"),
            (
                "it answers 301 with Location: https://shop.",
                "set services.healthcheck.scheme: https",
                ", scheme: https",
            ),
            (
                "it answers 308 with Location: /healthz/",
                "set services.healthcheck.path: /healthz/",
                ", path: /healthz/",
            ),
            ('it answers 401, "ok"', "services.healthcheck.status: [401]", ", status: [200, 401]"),
        ],
    )
    for number, (words, advice, more) in enumerate(told):
        if number in (0, 3) or deployed.runtime == "process":
            deployed.write_manifest("2.0.0", services=f"{env}  healthcheck: {{{asked}}}\n  command: {COMMAND}")
            refused = deployed.play("deploy", environment={"KEY": "key-of-the-shop"}).failed()
            assert words in refused.out
            assert advice in refused.out
            assert "\x1b" not in refused.out
            assert "key-of-the-shop" not in refused.out
        asked += more
    # To the end: through nginx, in the status, and by the watch of a canary's step.
    asked = asked.replace("start_timeout: 3s", "start_timeout: 30s")
    deployed.write_manifest("2.0.0", services=f"{env}  healthcheck: {{{asked}}}\n  command: {COMMAND}")
    deployed.play("deploy", environment={"KEY": "key-of-the-shop"}).ok()
    assert deployed.get().text == "2.0.0"
    shown = json.loads(deployed.play("status", "-e", "once=true", "-e", "format=json").ok().out.splitlines()[-1])
    assert "unhealthy" not in json.dumps(shown)
    again = deployed.play("deploy", environment={"KEY": "key-of-the-shop"}).ok()
    assert "Nothing to change" in again.out
    deployed.play("rollback").ok()
    assert deployed.get().json()["version"] == "1.0.0"
