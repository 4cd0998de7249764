"""The thresholds of the policies: what may stand in the file, and what a person is told of what may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from support.workspace import REPOSITORY
from swiftdeploy import thresholds
from swiftdeploy.thresholds import ThresholdsError, load, parse

POLICIES = REPOSITORY / "policies"
SHIPPED = (POLICIES / "thresholds" / "data.yaml").read_text()
WINDOW = "timezone: Europe/Berlin, reason: nobody is there, contact: ops@example.com"
WEEKLY = 'weekly: {days: [fri, sat], from: "17:00", until: mon 08:00}'


def problems(text: str | bytes) -> list[str]:
    try:
        parse(text if isinstance(text, bytes) else text.encode(), "data.yaml")
    except ThresholdsError as error:
        return str(error).splitlines()
    return []


def edited(before: str, after: str) -> list[str]:
    """The problems of the shipped file with its first ``before`` made ``after``, without file and line."""
    assert before in SHIPPED
    return [line.split(": ", 1)[1] for line in problems(SHIPPED.replace(before, after, 1))]


def with_freezes(text: str) -> list[str]:
    return edited("freezes: {}", f"freezes: {text}")


def test_the_shipped_thresholds_are_valid() -> None:
    found = load(POLICIES)
    assert found["infrastructure"]["default"]["disk_free_gb"] == {"min": 10}
    assert found["image"]["local"] == {"floating_tags": "allowed"}


@pytest.mark.parametrize(
    "window",
    [
        f"{{w: {{{WINDOW}, {WEEKLY}}}}}",
        f'{{w: {{{WINDOW}, weekly: {{days: [wed], from: 00:00, until: "24:00"}}}}}}',
        f"{{w: {{{WINDOW}, once: {{from: 2026-12-23 12:00, until: 2027-01-04T08:00}}}}}}",
        "{}",
    ],
)
def test_windows_that_may_be_there(window: str) -> None:
    assert with_freezes(window) == []


def test_an_environment_needs_only_what_differs() -> None:
    lab = "\nimage:\n  default:"
    text = SHIPPED.replace("freezes: {}", f"freezes: {{a: {{{WINDOW}, {WEEKLY}}}, b: {{{WINDOW}, {WEEKLY}}}}}", 1)
    assert problems(text) == []
    assert lab in text
    assert (
        problems(text.replace(lab, "\n  lab:\n    freezes: {a: null, b: {contact: lab@example.com}}\n" + lab, 1)) == []
    )


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (
            "disk_free_gb: {min: 10}",
            "disk_free_gb: {min: ten}",
            ["infrastructure.default.disk_free_gb.min: found ten, allowed a number of 0 or more"],
        ),
        (
            "disk_free_gb: {min: 10}",
            'disk_free_gb: {min: "10"}',
            [
                'infrastructure.default.disk_free_gb.min: found "10", allowed a number of 0 or more; '
                "write it without quotes"
            ],
        ),
        (
            "disk_free_gb: {min: 10}",
            "disk_free_gb: {min: 1_000}",
            ["infrastructure.default.disk_free_gb.min: found 1_000, allowed a number of 0 or more"],
        ),
        (
            "disk_free_gb: {min: 10}",
            "disk_free_gb: {min: -1}",
            ["infrastructure.default.disk_free_gb.min: found -1, allowed a number of 0 or more"],
        ),
        (
            "disk_free_gb: {min: 10}",
            "disk_free_gb: {min: 1e400}",
            ["infrastructure.default.disk_free_gb.min: found 1e400, allowed a number of 0 or more"],
        ),
        (
            "disk_free_gb: {min: 10}",
            "disk_free_gb: {min: .inf}",
            ["infrastructure.default.disk_free_gb.min: found .inf, allowed a number of 0 or more"],
        ),
        (
            "disk_free_gb: {min: 10}",
            "disk_free_gb: {min: true}",
            ["infrastructure.default.disk_free_gb.min: found true, allowed a number of 0 or more"],
        ),
        (
            "disk_free_gb: {min: 10}",
            "disk_free_gb: {max: 10}",
            ["infrastructure.default.disk_free_gb.min: found nothing, allowed a number of 0 or more; add it"],
        ),
        (
            "disk_free_gb: {min: 10}",
            "disk_free_gb: 10",
            ["infrastructure.default.disk_free_gb: found 10, allowed {min: NUMBER}, for example {min: 10}"],
        ),
        (
            "disk_free_gb: {min: 2}",
            "disk_free_gb: {max: 11}",
            ["infrastructure.local.disk_free_gb.min: found nothing, allowed a number of 0 or more; add it"],
        ),
        (
            "inodes_free_percent: {min: 1}",
            "inodes_free_percent: {max: 2}",
            [
                "infrastructure.local.inodes_free_percent: found a min of 5 and a max of 2, together with "
                "infrastructure.default, allowed a min of at most the max"
            ],
        ),
        (
            "disk_free_gb: {min: 10}",
            "disk_free_gb: {min: 10, max: 9}",
            ["infrastructure.default.disk_free_gb: found a min of 10 and a max of 9, allowed a min of at most the max"],
        ),
        (
            "mem_free_percent: {min: 10}",
            "mem_free_percent: {min: 101}",
            ["infrastructure.default.mem_free_percent.min: found 101, allowed a percentage, 0 to 100"],
        ),
        (
            "error_rate: {max: 0.01}",
            "error_rate: {max: 5}",
            ["canary.default.error_rate.max: found 5, allowed a share, 0 to 1 (0.01 is 1 %)"],
        ),
        (
            "floating_tags: forbidden",
            "floating_tags: forbiden",
            [
                "image.default.floating_tags: found forbiden, allowed allowed or forbidden; did you mean `forbidden`?",
            ],
        ),
        (
            "digest: optional",
            "digest: no",
            ["image.default.digest: found no, allowed required or optional"],
        ),
        (
            'fixed_tag: "[0-9]"',
            'fixed_tag: "("',
            [
                "image.default.fixed_tag: found what is no regular expression (missing ), unterminated subpattern at "
                "position 0), allowed one"
            ],
        ),
        (
            'fixed_tag: "[0-9]"',
            "fixed_tag: (?!latest).",
            ["image.default.fixed_tag: found a look-around, back-reference or the like, allowed what OPA knows (RE2)"],
        ),
        (
            'fixed_tag: "[0-9]"',
            "fixed_tag: 017",
            ['image.default.fixed_tag: found 017, which OPA reads as a number; text goes in quotes: "017"'],
        ),
        (
            'registries: ["*"]',
            'registries: ["https://ghcr.io"]',
            [
                'image.default.registries[0]: found "https://ghcr.io", allowed "*", a registry such as ghcr.io, or one '
                "with the beginning of a path such as docker.io/library"
            ],
        ),
        (
            'registries: ["*"]',
            'registries: ["ghcr.io/*"]',
            [
                'image.default.registries[0]: found "ghcr.io/*", allowed "*", a registry such as ghcr.io, or one with '
                "the beginning of a path such as docker.io/library"
            ],
        ),
        (
            'actors: ["*"]',
            "actors: []",
            [
                "change.default.actors: found an empty list, allowed a list of login@machine, for example "
                '["*@ci.example.com"]'
            ],
        ),
        (
            'actors: ["*"]',
            'actors: ["[ada"]',
            [
                'change.default.actors[0]: found "[ada", allowed login@machine, where * stands for any text and ? for '
                "any sign"
            ],
        ),
        (
            "denied: [change, image, infrastructure]",
            "denied: [chang]",
            [
                "override.default.denied[0]: found chang, allowed canary, change, image or infrastructure; did you "
                "mean `change`?"
            ],
        ),
        (
            "insufficient: [canary]",
            "insufficient: [change]",
            ["override.default.insufficient[0]: found change, allowed canary; did you mean `canary`?"],
        ),
        (
            "reason_min_length: 10",
            "reason_min_length: 2.5",
            ["override.default.reason_min_length: found 2.5, allowed a whole number of characters from 0 to 1000"],
        ),
    ],
)
def test_a_wrong_entry_is_named_with_what_is_allowed(before: str, after: str, expected: list[str]) -> None:
    assert edited(before, after) == expected


def window_problems(window: str) -> list[str]:
    found = with_freezes("{w: {" + window + "}}")
    assert all(line.startswith("change.default.freezes.w") for line in found)
    return [line.removeprefix("change.default.freezes.w").lstrip(".") for line in found]


@pytest.mark.parametrize(
    ("window", "words"),
    [
        (f"{WINDOW}", ": found neither weekly nor once, allowed one of them"),
        (
            f"{WINDOW}, {WEEKLY}, once: {{from: 2026-12-23 12:00, until: 2027-01-04 08:00}}",
            ": found both weekly and once, allowed one of them",
        ),
        (
            f"{WINDOW}, {WEEKLY}".replace("Berlin", "Berlinn"),
            "timezone: found Europe/Berlinn, allowed the name of a time zone such as Europe/Berlin or UTC; "
            "did you mean `Europe/Berlin`?",
        ),
        (f"{WINDOW}, {WEEKLY}".replace("Europe/Berlin", "Local"), "timezone: found Local, allowed the name of a time"),
        (f"{WINDOW}, {WEEKLY}".replace("Europe/Berlin", '""'), "timezone: found , allowed the name of a time zone"),
        (f"timezone: UTC, reason: x, {WEEKLY}", "contact: found nothing, allowed a text; add it"),
        (f"timezone: UTC, contact: x, {WEEKLY}", "reason: found nothing, allowed a text; add it"),
        (f"reason: x, contact: x, {WEEKLY}", "timezone: found nothing, allowed a time zone's name, such as"),
        (f'timezone: UTC, contact: x, reason: " ", {WEEKLY}', 'reason: found " ", allowed a text'),
        (f"timezone: UTC, contact: x, reason: 5, {WEEKLY}", "reason: found 5, allowed a text"),
        (
            f"{WINDOW}, weekly: {{days: [fryday], from: 07:00, until: 08:00}}",
            "weekly.days[0]: found fryday, allowed mon, tue, wed, thu, fri, sat or sun",
        ),
        (f"{WINDOW}, weekly: {{days: [], from: 07:00, until: 08:00}}", "weekly.days: found an empty list, allowed"),
        (f"{WINDOW}, weekly: {{days: [fri], from: 7:00, until: 08:00}}", "weekly.from: found 7:00, allowed a time"),
        (f"{WINDOW}, weekly: {{days: [fri], from: 24:00, until: 08:00}}", "weekly.from: found 24:00, allowed a time"),
        (
            f"{WINDOW}, weekly: {{days: [fri], from: 07:00, until: monday 08:00}}",
            "weekly.until: found monday 08:00, allowed a time of the clock, with a day",
        ),
        (f"{WINDOW}, weekly: {{days: [fri], from: 07:00}}", "weekly.until: found nothing, allowed a time"),
        (
            f"{WINDOW}, once: {{from: 2026-02-30 12:00, until: 2026-03-30 12:00}}",
            'once.from: found "2026-02-30 12:00", allowed a day and a time that there are',
        ),
        (
            f"{WINDOW}, once: {{from: 2026-03-30 12:00, until: 2026-03-30T12:00}}",
            'once.until: found "2026-03-30T12:00", allowed a time after "2026-03-30 12:00" (from)',
        ),
        (f"{WINDOW}, once: {{from: 2026-03-30, until: 2026-04-30 12:00}}", "once.from: found 2026-03-30, allowed a da"),
        (
            f'{WINDOW}, once: {{from: "2026-03-30T12:00:00Z", until: 2026-04-30 12:00}}',
            'once.from: found "2026-03-30T12:00:00Z", allowed a date and time of the clock in the timezone',
        ),
        (f"{WINDOW}, {WEEKLY}, until: 08:00", "until: found an unknown key, allowed timezone, weekly, once, reason"),
    ],
)
def test_a_wrong_window_is_named_with_what_is_allowed(window: str, words: str) -> None:
    (found,) = window_problems(window)
    assert found.startswith(words), found


def test_every_problem_is_told_with_its_line() -> None:
    text = SHIPPED.replace("disk_free_gb: {min: 10}", "disk_fre_gb: {min: 10}", 1).replace("max: 500", "max: -1", 1)
    found = problems(text)
    lines = text.splitlines()
    typo = next(number for number, line in enumerate(lines, 1) if "disk_fre_gb" in line)
    negative = next(number for number, line in enumerate(lines, 1) if "max: -1" in line)
    assert any(
        line.startswith(f"data.yaml:{typo}: infrastructure.default.disk_fre_gb: found an unknown") for line in found
    )
    assert any("did you mean `disk_free_gb`?" in line for line in found)
    assert any("infrastructure.default.disk_free_gb: found nothing" in line for line in found)
    assert f"data.yaml:{negative}: canary.default.p99_latency_ms.max: found -1, allowed a number of 0 or more" in found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the file is empty"),
        ("- 1\n", "data.yaml:1: found a list, allowed a mapping of infrastructure"),
        ("infrastructure: [\n", "this is not YAML"),
        (SHIPPED + "\nimage: {}\n", "image: found it again, allowed once"),
        (SHIPPED + "\n---\n{}\n", "found a second document"),
        (SHIPPED.replace("[change, image", "[!!str change, image", 1), ""),
        (b"\xff\xfei\x00", "UTF-16"),
        (b"image: \xff", "found the byte 0xff"),
        (SHIPPED.replace("\nimage:\n", "\nimages:\n", 1), "images: found an unknown key"),
        (SHIPPED.replace("\nimage:\n", "\nimages:\n", 1), "image: found nothing"),
    ],
)
def test_a_file_that_is_none(text: str | bytes, words: str) -> None:
    assert words in "\n".join(problems(text))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ThresholdsError, match=r"data\.yaml: it cannot be read \(No such file"):
        load(tmp_path)


KEYS = st.sampled_from(["default", "local", "infrastructure", "change", "freezes", "w", "weekly", "min", "days"])
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@given(VALUES, st.sampled_from(sorted(thresholds.schema()["properties"])))
def test_no_value_breaks_the_check(value: object, domain: str) -> None:
    """Whatever stands there, it is told or taken; nothing is raised but a list of problems."""
    text = yaml.safe_dump({domain: {"default": value, "lab": value}}, allow_unicode=True)
    found = problems(text)
    assert found, "no domain may stand alone"
    assert all(line.startswith("data.yaml") or line.startswith("and ") for line in found)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_check(raw: bytes) -> None:
    assert problems(raw)
