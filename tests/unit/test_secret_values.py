"""Values of secrets: handed on as they are, kept for as long as their release, masked in what is quoted."""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
import stat
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiftdeploy import given_secrets
from swiftdeploy_target import secret_values as sv
from swiftdeploy_target.supervisor import TAIL_BYTES, tail

VALUE = "p@ss \"w\\ö'$rd/+<4711>"
PEM = "-----BEGIN KEY-----\r\nMIIEvQIBADANBgkq\r\nhkiG9w0BAQEFAASC\r\nk3Zq\r\n-----END KEY-----\r\n"


def release(name: str, secrets: list[str] | None = None) -> dict[str, Any]:
    return {"id": name, "spec": {"secrets": secrets or []}}


@given(st.dictionaries(st.sampled_from(["A", "KEY"]), st.text(st.characters(codec="utf-8", exclude_characters="\0"))))
def test_an_environment_file_carries_any_value(values: dict[str, str]) -> None:
    text = sv.env_file(values)
    lines = re.findall(r'(\w+)="([^"]*)"\n', text)
    assert "".join(f'{name}="{value}"\n' for name, value in lines) == text
    assert {name: _as_compose(value) for name, value in lines} == values


def _as_compose(text: str) -> str:
    """As compose undoes it: an escaped dollar, and three octal digits behind a zero."""
    out, place = "", 0
    while place < len(text):
        if text.startswith("\\$", place):
            out, place = out + "$", place + 2
        elif text.startswith("\\0", place):
            out, place = out + chr(int(text[place + 2 : place + 5], 8)), place + 5
        else:
            assert text[place] not in "\\\"'$\n\r", text
            out, place = out + text[place], place + 1
    return out


@pytest.mark.parametrize("values", [{}, {"A": "", "B": PEM, "C": "raw \udcff bytes"}])
def test_values_travel_as_one_word(values: dict[str, str]) -> None:
    assert sv.unpack(sv.pack(values)) == values
    assert sv.pack(values).isascii()


def test_values_are_private_and_go_with_their_release(tmp_path: Path) -> None:
    for name in ("20260101T000000Z-aaaaaa", "20260102T000000Z-bbbbbb"):
        sv.keep(tmp_path, name, {"A": "raw \udcff"})
    (tmp_path / "secrets").chmod(0o755)
    sv.keep(tmp_path, "20260103T000000Z-cccccc", {})
    sv.keep(tmp_path, "20260104T000000Z-dddddd", {"B": "value-of-b"})
    folder = tmp_path / "secrets"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert sv.of_release(tmp_path, "20260101T000000Z-aaaaaa") == {"A": "raw \udcff"}
    assert sv.of_release(tmp_path, "20260103T000000Z-cccccc") == {}
    assert sv.kept_names(tmp_path, ["20260104T000000Z-dddddd", "x"]) == {"20260104T000000Z-dddddd": ["B"]}
    (folder / "blue.env").touch()
    (folder / "green.env").touch()
    (tmp_path / "programs").mkdir()
    for slot in ("blue", "green"):
        (tmp_path / "programs" / f"{slot}.json").touch()
    slots = {"blue": release("20260104T000000Z-dddddd", ["B"]), "green": None}
    sv.forget(tmp_path, {"releases": [release("20260102T000000Z-bbbbbb")], "slots": slots, "last_stable": None})
    left = {path.name for path in folder.iterdir()}
    assert left == {"20260102T000000Z-bbbbbb.json", "20260104T000000Z-dddddd.json", "blue.env"}
    assert [path.name for path in (tmp_path / "programs").iterdir()] == ["blue.json"]


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "a/b", "a\n"])
def test_no_id_of_a_release_leads_elsewhere(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="is not the id of a release"):
        sv.path_of(tmp_path, name)


@pytest.mark.parametrize(
    ("value", "runtime", "why"),
    [
        ("a\0b", "process", "holds a NUL byte"),
        ("a\0b", "docker", "holds a NUL byte"),
        ("a" * (128 * 1024 - len("NAME") - 1), "docker", "an environment variable may have 131066"),
        ("a" * (128 * 1024 - len("NAME") - 2), "docker", None),
        ("raw \udcff", "docker", "not UTF-8"),
        ("raw \udcff", "process", None),
        ("", "docker", None),
        (PEM, "docker", None),
    ],
)
def test_what_no_program_could_have_is_refused_by_name(value: str, runtime: str, why: str | None) -> None:
    told = sv.unusable("NAME", value, runtime)
    assert (told is None) == (why is None)
    assert why is None or (why in (told or "") and "NAME" in (told or "") and value not in (told or ""))


def test_what_is_missing_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_HERE", "value")
    for name in ("GONE_B", "GONE_A"):
        monkeypatch.delenv(name, raising=False)
    names = ["GONE_B", "FROM_HERE", "VAULT", "GONE_A", "NUL"]
    told = given_secrets.problems({"VAULT": 1, "NUL": "\0"}, names, "docker")
    assert len(told) == 2
    assert told[0].startswith("no value for the secrets GONE_A, GONE_B of services.secrets: looked in the environment")
    assert "swiftdeploy_secrets" in told[0]
    assert sv.unpack(given_secrets.packed({"VAULT": 1}, names)) == {"FROM_HERE": "value", "VAULT": "1"}


def test_a_way_back_needs_what_the_host_kept_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("A", raising=False)
    target = release("one", ["A", "B"])
    assert given_secrets.not_kept(target, {"one": ["A", "B"]}, {}) == []
    assert given_secrets.not_kept(release("two"), {}, {}) == []
    assert given_secrets.not_kept(target, {}, {"A": "x", "B": "y"}) == []
    (told,) = given_secrets.not_kept(target, {"one": ["B"]}, {})
    assert "the secret A of" in told
    assert "what the host kept of release one" in told


PRINTED = {
    "plain": VALUE,
    "url": quote(VALUE),
    "url, all": quote(VALUE, safe=""),
    "url, small digits": re.sub("%..", lambda found: found[0].lower(), quote(VALUE, safe="")),
    "form": quote_plus(VALUE),
    "json": json.dumps({"a": VALUE}),
    "json, not ascii": json.dumps({"a": VALUE}, ensure_ascii=False),
    "json in json": json.dumps(json.dumps(VALUE)),
    "repr": repr(VALUE),
    "bytes": repr(VALUE.encode()),
    "html": html.escape(VALUE),
    "shell": shlex.quote(VALUE),
    "base64": base64.b64encode(VALUE.encode()).decode(),
    "base64 for URLs": base64.urlsafe_b64encode(VALUE.encode()).decode(),
    "basic": base64.b64encode(f"u:{VALUE}".encode()).decode(),
    "basic, one more": base64.b64encode(f"us:{VALUE}x".encode()).decode(),
    "hex": VALUE.encode().hex(),
    "pem": PEM,
    "pem, other line ends": PEM.replace("\r\n", "\n"),
    "pem, indented": "\n".join(f"    {line}" for line in PEM.splitlines()),
    "pem, joined": PEM.replace("\r\n", " | "),
    "pem, a backslash and an n": PEM.replace("\r\n", "\\n"),
    "pem, in one": "".join(PEM.splitlines()),
    "pem, half": PEM.splitlines()[2],
}
LEAKS = ("p@ss", "ss \\", "4711", "%22w", "MIIEvQ", "hkiG9", "w0BAQ", base64.b64encode(VALUE.encode()).decode()[4:20])


@pytest.mark.parametrize("text", PRINTED.values(), ids=PRINTED)
def test_a_value_is_masked_however_it_is_printed(text: str) -> None:
    shown = sv.without(f"before {text} after", [("A", VALUE), ("KEY", PEM)])
    assert sv.MASK in shown
    assert shown.startswith("before ")
    assert shown.endswith(" after")
    assert not [leak for leak in LEAKS if leak in shown]


@pytest.mark.parametrize(
    ("value", "text", "shown"),
    [
        ("x", "next: fix the xylophone, x", None),
        ("x", "API_KEY=x next", "API_KEY=******** next"),
        ("abc", '{"API_KEY": "abc", "b": "abc"}', '{"API_KEY": "********", "b": "abc"}'),
        ("abc", "MY_API_KEY=abc API_KEY=abcd", None),
        ("", "API_KEY= next", None),
        ("12345", "port 12345 is taken", None),
        ("123456", "port 123456 is taken", "port ******** is taken"),
        ("postgres://shop:hunter22@db", "for shop with hunter22 at db", "for shop with ******** at db"),
        ("postgres://shop:hunter%2022@db", "'hunter 22'", "'********'"),
        ("abcdefgh", "abcdefghabcdefgh", "********"),
        ("aaaaaa", "aaaaaaaaab", "********b"),
        (PEM, "-----BEGIN KEY-----", None),
        ("not://[a url", "not://[a url!", "********!"),
        ("raw \udcff!", "raw \udcff! b", "******** b"),
    ],
)
def test_nothing_else_is_masked(value: str, text: str, shown: str | None) -> None:
    assert sv.without(text, [("API_KEY", value)]) == (text if shown is None else shown)


def test_values_that_overlap_are_masked_whole() -> None:
    assert sv.without("1 abcdefghijkl 2", [("A", "abcdefgh"), ("B", "efghijkl")]) == "1 ******** 2"


def test_all_values_of_the_host_are_masked(tmp_path: Path) -> None:
    assert sv.masked(tmp_path, "value-of-a") == "value-of-a"
    sv.keep(tmp_path, "one", {"A": "value-of-a"})
    sv.keep(tmp_path, "two", {"A": "value-of-b"})
    (tmp_path / "secrets" / "torn.json").write_text("[")
    assert sv.masked(tmp_path, "value-of-a value-of-b value-of-c") == f"{sv.MASK} {sv.MASK} value-of-c"


def test_a_figure_stays_a_figure(tmp_path: Path) -> None:
    sv.keep(tmp_path, "one", {"PIN": "123456", "B": "value-of-b"})
    page = 'http_requests_total{to="value-of-b"} 123456'
    assert sv.masked(tmp_path, page, figures=True) == f'http_requests_total{{to="{sv.MASK}"}} 123456'
    assert sv.masked(tmp_path, page) == f'http_requests_total{{to="{sv.MASK}"}} {sv.MASK}'


def test_the_end_of_a_log_never_begins_within_a_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("k" * (TAIL_BYTES - 3) + "\na\nb\n")
    assert tail(path, 5) == ["k" * (TAIL_BYTES - 3), "a", "b"][1:]
    path.write_text("k" * (TAIL_BYTES + 3))
    assert tail(path, 5) == [f"(a line of more than {TAIL_BYTES} bytes)"]
    path.write_text("a\nb\n")
    assert tail(path, 5) == ["a", "b"]
