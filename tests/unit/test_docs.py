"""What the documentation promises: links that lead somewhere, commands and options that exist, a current reference."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from support.workspace import REPOSITORY
from swiftdeploy import docs, docs_roles, evidence, manifest, manifest_schema
from swiftdeploy_target import inflight

PARSER = MarkdownIt("commonmark").enable("table")
# Made by tools and runs; nothing of it is the repository's.
FOREIGN = {"build", "generated", "node_modules", "vendor"}
LANGUAGES = {
    "",
    "bash",
    "console",
    "dockerfile",
    "go",
    "ini",
    "js",
    "json",
    "mermaid",
    "python",
    "rego",
    "sh",
    "text",
    "yaml",
}


@dataclass
class Page:
    """A Markdown file as GitHub sees it: its headings' anchors, where it links to, and the code in it."""

    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    code: list[str] = field(default_factory=list)
    blocks: list[tuple[str, str]] = field(default_factory=list)


class Tags(HTMLParser):
    """Addresses and anchors of the HTML inside a page."""

    def __init__(self, page: Page) -> None:
        super().__init__()
        self.page = page

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src", "srcset") and value:
                self.page.links.append(value)
            if name in ("id", "name") and value:
                self.page.anchors.add(value)


def anchor(words: str) -> str:
    """GitHub's anchor of a heading: lower case, without punctuation, spaces as hyphens."""
    return re.sub(r"[^\w\- ]", "", words.strip().lower()).replace(" ", "-")


def words_of(inline: Token) -> str:
    """The text of a heading, without the signs that format it."""
    return "".join(child.content for child in inline.children or [] if child.type in ("text", "code_inline"))


def read(text: str) -> Page:
    page, seen = Page(), dict[str, int]()
    tokens = PARSER.parse(text)
    for number, token in enumerate(tokens):
        if token.type == "heading_open":
            name = anchor(words_of(tokens[number + 1]))
            count = seen.get(name, 0)
            seen[name] = count + 1
            page.anchors.add(f"{name}-{count}" if count else name)
        elif token.type in ("fence", "code_block"):
            page.code.append(token.content)
            page.blocks.append((token.info.strip(), token.content))
        elif token.type == "html_block":
            Tags(page).feed(token.content)
        for child in token.children or []:
            for name in ("href", "src"):
                if child.attrGet(name):
                    page.links.append(str(child.attrGet(name)))
            if child.type == "html_inline":
                Tags(page).feed(child.content)
            if child.type == "code_inline":
                page.code.append(child.content)
    return page


def markdown_files() -> Iterator[Path]:
    for path in sorted(REPOSITORY.rglob("*.md")):
        folders = path.relative_to(REPOSITORY).parts[:-1]
        # A report is what audit.yml makes of somebody's history.
        if not any(name.startswith(".") or name in FOREIGN for name in folders) and path.name != "audit_report.md":
            yield path


PAGES = {path: read(path.read_text(encoding="utf-8")) for path in markdown_files()}
NAMES = [str(path.relative_to(REPOSITORY)) for path in PAGES]


def local_links(path: Path) -> Iterator[tuple[Path, str]]:
    """The files that a page links to, with the anchor or an empty one. Addresses of the world are not fetched."""
    for link in PAGES[path].links:
        parts = urlsplit(link)
        if not parts.scheme and not parts.netloc:
            yield (path.parent / unquote(parts.path)).resolve() if parts.path else path, unquote(parts.fragment)


def wrong_links(path: Path) -> list[str]:
    wrong = []
    for target, fragment in local_links(path):
        shown = f"{target}#{fragment}" if fragment else str(target)
        if not target.is_relative_to(REPOSITORY):
            wrong.append(f"{shown} is outside the repository")
        elif not target.exists():
            wrong.append(f"{shown} does not exist")
        elif fragment and fragment not in (PAGES[target].anchors if target in PAGES else ()):
            wrong.append(f"{shown} is no heading there")
    return wrong


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_somewhere(name: str) -> None:
    assert wrong_links(REPOSITORY / name) == []


def test_anchors_are_those_of_github() -> None:
    page = read("# The `swift` walk, again!\n\n## A & B\n\n## A & B\n\n## Ü_x *y* [z](#q)\n\n<a id='own'></a>\n")
    assert page.anchors == {"the-swift-walk-again", "a--b", "a--b-1", "ü_x-y-z", "own"}
    assert page.links == ["#q"]


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One\n\n[a](#one) [b](#two) [c](none.md) ![d](p.png) <img src='q.png'> [e](https://x.example)\n")
    (tmp_path / "p.png").touch()
    monkeypatch.setattr(f"{__name__}.REPOSITORY", tmp_path)
    monkeypatch.setitem(PAGES, page, read(page.read_text()))
    assert wrong_links(page) == [
        f"{page}#two is no heading there",
        f"{tmp_path / 'none.md'} does not exist",
        f"{tmp_path / 'q.png'} does not exist",
    ]


def test_every_document_is_reached_from_the_index() -> None:
    folder = REPOSITORY / "docs"
    index = folder / "README.md"
    assert (index, "") in set(local_links(REPOSITORY / "README.md")), "README.md does not link docs/README.md"
    reached, ahead = set[Path](), [index]
    while ahead:
        path = ahead.pop()
        if path not in reached:
            reached.add(path)
            # Through the documents alone: a page that only README.md names is not in the index.
            ahead += [target for target, _ in local_links(path) if target in PAGES and folder in target.parents]
    assert {path for path in PAGES if folder in path.parents} <= reached

    shown = {target for path in PAGES for target, _ in local_links(path)}
    assert {path for path in folder.rglob("*") if path.is_file()} - set(PAGES) <= shown


def playbooks_in(code: str) -> set[str]:
    """The playbooks that a piece of code runs, without the ending."""
    commands = re.findall(r"ansible-playbook\b([^|;&\n`]*)", code.replace("\\\n", " "))
    given = [re.sub(r"(-i|-e|--limit|--forks|--[a-z-]+-file)[ =]\S+", "", command) for command in commands]
    return {found for command in given for found in re.findall(r"(?<=\s)([\w./-]+)\.yml\b", command)}


def options_in(code: str) -> set[str]:
    """The variables that are given with -e."""
    return set(re.findall(r"-e ['\"]?([a-z]\w*)=", code))


@pytest.mark.parametrize("name", NAMES)
def test_every_command_exists(name: str) -> None:
    for code in PAGES[REPOSITORY / name].code:
        assert {one for one in playbooks_in(code) if not (REPOSITORY / f"{one}.yml").is_file()} <= {"NAME"}


def test_commands_and_options_are_found() -> None:
    code = (
        "$ ansible-playbook -i a/b deploi.yml -e x=1.yml \\\n  -e 'why=\"a b\"' --check && ansible-playbook none.yml\n"
    )
    assert playbooks_in(code) == {"deploi", "none"}
    assert options_in(code) == {"x", "why"}


def test_every_option_exists() -> None:
    found = docs_roles.roles(REPOSITORY)
    known = {variable.name for role in found for variable in role.variables} | set(docs_roles.options(found))
    for name in NAMES:
        given = {option for code in PAGES[REPOSITORY / name].code for option in options_in(code)}
        assert given <= known, f"{name}: {sorted(given - known)}"


def test_options_that_no_default_names_are_taken_elsewhere() -> None:
    text = "".join(
        path.read_text()
        for folder in ("playbooks", "action_plugins")
        for path in (REPOSITORY / folder).iterdir()
        if path.suffix
    )
    assert 'variables.get("swiftdeploy_history")' in text
    assert "swiftdeploy_serial | default('100%')" in text
    inventory = yaml.safe_load((REPOSITORY / "inventory" / "example" / "group_vars" / "all.yml").read_text())
    options = docs_roles.options(docs_roles.roles(REPOSITORY))
    assert {name for name in inventory if name.startswith("swiftdeploy_")} <= set(options)


@pytest.mark.parametrize("name", NAMES)
def test_code_is_in_a_language_that_is_known(name: str) -> None:
    blocks = PAGES[REPOSITORY / name].blocks
    assert {language for language, _ in blocks} <= LANGUAGES
    for language, text in blocks:
        if language == "json":
            json.loads(text)
        if language == "yaml":
            yaml.safe_load(text)


@pytest.mark.parametrize("name", NAMES)
def test_every_whole_manifest_is_valid(name: str) -> None:
    for language, text in PAGES[REPOSITORY / name].blocks:
        data = yaml.safe_load(text) if language == "yaml" else None
        if isinstance(data, dict) and {"services", "nginx", "network"} <= set(data):
            assert manifest.parse(text.encode(), name).config["services"]["port"] == 3000


def test_the_metrics_of_the_example_service_are_evidence() -> None:
    """The names that server.js writes are those that the manifest has by default, its text is read as metrics."""
    page = PAGES[REPOSITORY / "docs" / "howto" / "custom-service.md"]
    (program,) = [text for language, text in page.blocks if language == "js"]
    lines = re.findall(r"[\"`](# TYPE .*|http_\S+ \S+|app_\S+ \S+)[\"`]", program)
    assert len(lines) >= 10

    def shown(count: int) -> dict[str, object]:
        filled = [
            re.sub(r"\$\{(\w+)[^}]*\}", lambda found: {"code": "200", "le": "0.1"}.get(found[1], str(count)), line)
            for line in lines
        ]
        return {"slot": "blue", "at": float(count), "body": "\n".join(filled) + "\n", "content_type": "text/plain"}

    names = manifest_schema.with_defaults({}, manifest_schema.at(("services", "metrics")))
    figures = evidence.compute(
        evidence.parse(shown(1)), evidence.parse(shown(61)), names, evidence.excluded(names, ["/healthz"])
    )
    assert (figures["requests"], figures["error_rate"], figures["window_seconds"]) == (60, 0, 60)
    assert figures["p99_latency_ms"] == pytest.approx(99)
    assert inflight.read_gauge(str(shown(1)["body"]), str(names["in_progress"])) == 1


@pytest.mark.parametrize("name", sorted(docs.references(REPOSITORY)))
def test_the_reference_is_current(name: str) -> None:
    assert (REPOSITORY / name).read_text() == docs.references(REPOSITORY)[name], "run: python -m swiftdeploy.docs"


def test_the_reference_has_every_variable_and_every_threshold() -> None:
    texts = docs.references(REPOSITORY)
    for folder in (REPOSITORY / "roles").iterdir():
        for name in yaml.safe_load((folder / "defaults" / "main.yml").read_text()) or {}:
            assert f"| `{name}` |" in texts["docs/roles.md"], name
    for table, entries in yaml.safe_load((REPOSITORY / "policies" / "thresholds" / "data.yaml").read_text()).items():
        assert f"\n## {table}\n" in texts["docs/thresholds.md"]
        for key in entries["default"]:
            assert f"| `{key}` |" in texts["docs/thresholds.md"], f"{table}.{key}"
