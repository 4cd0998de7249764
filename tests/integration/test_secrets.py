"""Secrets: any value reaches the service, a way back needs the host alone, and nothing that is quoted holds one."""

from __future__ import annotations

import base64
import json
import stat
import subprocess
from urllib.parse import quote

from support.workspace import Ran, Workspace

PEM = "-----BEGIN PRIVATE KEY-----\n" + "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n" * 3 + "k3Zq\n-----END PRIVATE KEY-----\n"
VALUES = {
    "EVERY_BYTE": "".join(map(chr, range(1, 256))),
    "TLS_KEY": PEM,
    "LONG": ("k$\\\"'\n{{ 1 }}" * 10000)[:100000],
    "TRAILING": "a b\\",
    "DOLLARS": "$HOME ${HOME:-x} $$ \\$x",
    "CARRIAGE": "one\r\ntwo\r",
    "EMPTY": "",
    # So short that it stands in everything.
    "API_KEY": "x",
}
NAMED = "  secrets: [" + ", ".join(VALUES) + "]"


def environment_of(workspace: Workspace) -> dict[str, str]:
    """What the live service has in its environment."""
    live = workspace.get("/_swiftdeploy/routing").json()["live"]
    if workspace.runtime == "docker":
        words = ["docker", "inspect", "--format", "{{json .Config.Env}}", f"swiftdeploy-{workspace.name}-{live}"]
        found = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
        return dict(pair.split("=", 1) for pair in found)
    return next(
        found
        for found in workspace.processes().values()
        if found.get("SWIFTDEPLOY_PROGRAM") == live and "MODE" in found
    )


def forms(value: str) -> list[str]:
    """How a value could look on a screen or in a file."""
    encoded = base64.b64encode(value.encode()).decode()
    return [value, json.dumps(value)[1:-1], quote(value, safe=""), encoded.rstrip("="), *value.split("\n")]


def assert_hidden(workspace: Workspace, ran: Ran, *values: str) -> None:
    """None of ``values`` is on the screen or in what is written on the controller and in the host's own record."""
    stack = workspace.folder / ".swiftdeploy" / workspace.name
    written = [workspace.folder / "history.jsonl", stack / "state.json", *(stack / "config").glob("*")]
    texts = [ran.text, *(path.read_text() for path in written if path.is_file())]
    for value in values:
        for form in forms(value):
            if len(form) > 7 and not form.startswith("-----"):
                assert not [text for text in texts if form in text], form


def private(workspace: Workspace) -> list[str]:
    """Everything that holds secrets or a service's words on the host, and that others may look into."""
    stack = workspace.folder / ".swiftdeploy" / workspace.name
    kept = [stack / "secrets", *(stack / "secrets").iterdir(), *(stack / "programs").glob("*"), *stack.glob("logs")]
    return [str(path) for path in kept if stat.S_IMODE(path.stat().st_mode) & 0o077]


def assert_kept_with_their_releases(workspace: Workspace) -> None:
    """The host keeps the values of what can be rolled back to, and of nothing else."""
    stack = workspace.folder / ".swiftdeploy" / workspace.name
    kept = {path.stem for path in (stack / "secrets").glob("*.json")}
    releases = json.loads((stack / "state.json").read_text())["releases"]
    assert kept == {release["id"] for release in releases if release["spec"]["secrets"]}


def test_any_value_reaches_the_service_and_comes_back_with_its_release(deployed: Workspace) -> None:
    deployed.write_manifest("2.0.0", services=NAMED)
    lines = len(deployed.history())
    # All at once and before the gate, by whatever is going to need them.
    for words in (("validate",), ("deploy", "--check"), ("promote", "-e", "mode=canary")):
        refused = deployed.play(*words, environment={"TLS_KEY": PEM, "TRAILING": "k" * 130000}).failed()
        assert "no value for the secrets API_KEY, CARRIAGE, DOLLARS, EMPTY, EVERY_BYTE, LONG of" in refused.out
        assert "looked in the environment of this command and the variable swiftdeploy_secrets" in refused.out
        assert "TLS_KEY" not in refused.out
        assert "kkk" not in refused.out
    assert [record for record in deployed.history()[lines:] if record["policy"]] == []
    ran = deployed.play("deploy", "-vvv", "--diff", environment=VALUES).ok()
    assert_hidden(deployed, ran, PEM, VALUES["LONG"], VALUES["EVERY_BYTE"])
    # A short one bends nothing that only looks like it.
    assert "Deployment successful" in ran.out
    assert ".yml" in ran.out
    assert "next" in ran.out
    found = environment_of(deployed)
    assert {name: found.get(name) for name in VALUES} == VALUES
    assert private(deployed) == []

    # From here on the controller has none of them.
    newest = deployed.last("deploy")["release"]
    deployed.play("rollback").ok()
    assert "LONG" not in environment_of(deployed)
    back = deployed.play("rollback", "-e", f"release={newest}", "-vvv").ok()
    assert_hidden(deployed, back, PEM, VALUES["LONG"], VALUES["EVERY_BYTE"])
    found = environment_of(deployed)
    assert {name: found.get(name) for name in VALUES} == VALUES
    assert_kept_with_their_releases(deployed)


def test_what_a_service_prints_of_its_secrets_is_masked_on_every_path(deployed: Workspace) -> None:
    password = 'p@ss "w\\ö$rd/4711'
    values = {"DB_URL": f"postgres://shop:{quote(password, safe='')}@db/shop", "TLS_KEY": PEM, "SHORT": "abc12"}
    told = [
        "import os, json, base64, urllib.parse, sys, time",
        "url, key = os.environ['DB_URL'], os.environ['TLS_KEY']",
        "word = urllib.parse.unquote(url.split(':')[2].split('@')[0])",
        "print('cannot connect to', url, flush=True)",
        "print('as shop with', repr(word), json.dumps({'p': word}), urllib.parse.quote(word), word)",
        "print('Authorization: Basic', base64.b64encode(b'shop:' + word.encode()).decode())",
        "print('key', repr(key), key.replace(chr(10), ' | '))",
        "print(key)",
        "print('SHORT=' + os.environ['SHORT'], 'no database of abc123', flush=True)",
    ]

    def ending(last: str) -> str:
        # A command has no line breaks.
        code = "\n".join([*told, last])
        return json.dumps(["python3", "-c", f"exec({code!r})"])

    dies = ending("raise SystemExit(3)")
    services = f"  secrets: [DB_URL, TLS_KEY, SHORT]\n  healthcheck: {{start_timeout: 4}}\n  command: {dies}"
    deployed.write_manifest("2.0.0", services=services)
    refused = deployed.play("deploy", "-vvv", environment=values).failed()
    assert "cannot connect to ********" in refused.out
    assert "SHORT=******** no database of abc123" in refused.out
    assert_hidden(deployed, refused, *values.values(), password)
    assert_kept_with_their_releases(deployed)

    # A canary is healthy until the middle of its step: its way back has the values from the host alone.
    serves = (
        "import http.server\nbegan = time.monotonic()\nclass H(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n        self.send_response(503 if time.monotonic() > began + 5 else 200)\n"
        "        self.end_headers()\n        self.wfile.write(url.encode())\n"
        "    def log_message(self, *a): pass\n"
        "http.server.ThreadingHTTPServer((os.environ['HOST'], int(os.environ['PORT'])), H).serve_forever()"
    )
    dies = ending(serves)
    services = f"  secrets: [DB_URL, TLS_KEY, SHORT]\n  healthcheck: {{interval: 1s}}\n  command: {dies}"
    deployed.write_manifest("3.0.0", services=services, canary="  steps: [10]")
    manifest = deployed.folder / "manifest.yaml"
    manifest.write_text(manifest.read_text().replace("window_seconds: 2", "window_seconds: 30"))
    refused = deployed.play("promote", "-e", "mode=canary", "-vvv", environment=values).failed()
    assert "has all traffic again" in refused.out
    assert "cannot connect to ********" in refused.out
    assert "cannot connect to ********" in deployed.last("promote_failed")["reason"]
    assert_hidden(deployed, refused, *values.values(), password)
