"""Drawing the status: the views of all hosts as lines of a terminal. Pure: the same views make the same lines.

The width decides which columns there are, never whether a number is cut. The height decides how much is told of each
host: the worst host first and whole, of others one line, of what is left over the number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import StringIO
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from swiftdeploy import status, trend
from swiftdeploy.untrusted import clean

# For an output that is no terminal.
PLAIN_WIDTH = 120
# No text is wrapped there: what is looked for is in one line.
ENDLESS = 100_000
EVENTS = 8
NAME_WIDTH = 24
GAP = 2
INDENT = 3
SPARK_WIDTHS = range(6, 31)

MARKS = {"ok": "✓", "bad": "✗", "unanswered": "✗", "attention": "!", "empty": "·", "waiting": "·"}
STYLES = {
    "ok": "green",
    "bad": "bold red",
    "unanswered": "bold red",
    "attention": "yellow",
    "empty": "dim",
    "waiting": "dim",
}
WORDS = {
    "bad": "bad",
    "unanswered": "no answer",
    "attention": "to look at",
    "empty": "empty",
    "waiting": "asking",
    "ok": "ok",
}
SLOT_MARKS = {"live": "●", "canary": "◆", "running": "●", "stopped": "○", "unhealthy": "✗", "down": "✗"}
SLOT_STYLES = {"live": "green", "canary": "cyan", "stopped": "dim", "unhealthy": "bold red", "down": "bold red"}
OUTCOMES = {
    "allowed": ("✓", "green"),
    "denied": ("✗", "bold red"),
    "insufficient": ("?", "yellow"),
    "unavailable": ("!", "yellow"),
}
# One character for one, so that no column moves.
ASCII = str.maketrans("✓✗●◆○→…─·" + trend.BARS, "+x*^o>~-." + "_.-:=+*#")

# Stands for a space that no line may end at: rich breaks at every other kind of space.
GLUE = "\ue000"

# What a sentence begins with: a mark and a space, or the indent of one that belongs to the line above.
MARK = re.compile(r"(?:\S )? *")

Lines = list[list[Segment]]


@dataclass
class Look:
    """All that a frame is made from.

    ``at``: unix seconds of the frame, ``stamp`` the same as text. ``footer``: the last line. ``notes``: what Ansible
    had to say meanwhile. ``quiet``: without the last events.
    """

    views: Sequence[status.View]
    trends: trend.Trends
    at: float
    stamp: str
    footer: str = ""
    notes: Sequence[str] = field(default_factory=list)
    quiet: bool = False


@dataclass(frozen=True)
class Column:
    """A column: its heading, what it shows of a slot, whether it is a number."""

    key: str
    title: str
    cell: Callable[[Mapping[str, Any]], Text | str]
    number: bool = True
    # What it has in any case, so that columns do not come and go with a digit.
    least: int = 0


class Frame:
    """Lines that rich shows as they are."""

    def __init__(self, lines: Lines) -> None:
        self.lines = lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in self.lines:
            yield from line
            yield Segment.line()


# --- cells -------------------------------------------------------------------------------------------------


def _figure(value: Any, pattern: str, factor: float = 1.0) -> str:
    return pattern.format(value * factor) if isinstance(value, int | float) else "-"


def _rate(value: Any) -> str:
    return _figure(value, "{:.1f}" if isinstance(value, int | float) and value < 1000 else "{:.0f}")


def _percent(value: Any) -> str:
    return _figure(value, "{:.2f} %", 100.0)


def _milliseconds(value: Any) -> str:
    return _figure(value, "{:.0f} ms")


def age(seconds: Any) -> str:
    """How long something has been, in its largest unit: 40 s, 12 min, 3 h, 5 d."""
    if not isinstance(seconds, int | float):
        return "-"
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


def _errors(slot: Mapping[str, Any]) -> Text:
    # Not a verdict: whether it is too much is for the policy.
    return Text(_percent(slot["error_rate"]), "bold red" if slot["error_rate"] else "")


def _chaos(slot: Mapping[str, Any]) -> Text:
    active = slot["chaos"] not in (None, "none")
    return Text(str(slot["chaos"] or "-"), "bold yellow" if active else "")


def _state(slot: Mapping[str, Any]) -> Text:
    name = slot["state"]
    return Text(f"{SLOT_MARKS.get(name, '·')} {name}", SLOT_STYLES.get(name, ""))


COLUMNS = (
    Column("slot", "slot", lambda slot: str(slot["slot"]), number=False),
    Column("state", "state", _state, number=False, least=9),
    Column("version", "version", lambda slot: f"v{slot['version'] or '-'}", number=False),
    Column("mode", "mode", lambda slot: str(slot["mode"] or "-"), number=False),
    Column("traffic", "traffic", lambda slot: f"{slot['weight']} %"),
    Column("rate", "req/s", lambda slot: _rate(slot["req_per_sec"]), least=6),
    Column("errors", "errors", _errors, least=7),
    Column("p50", "P50", lambda slot: _milliseconds(slot["p50_latency_ms"]), least=5),
    Column("p95", "P95", lambda slot: _milliseconds(slot["p95_latency_ms"]), least=5),
    Column("p99", "P99", lambda slot: _milliseconds(slot["p99_latency_ms"]), least=6),
    Column("chaos", "chaos", _chaos, number=False),
    Column("up", "up", lambda slot: age(slot["uptime_seconds"]), least=6),
)
# Where the width does not do, the first of these goes first. The lines below a host say what chaos is on.
DROPPED = ("up", "p50", "chaos", "p95", "mode", "version")
# Heading, figure, how its highest value is told.
SPARKS = (("req/s", "req_per_sec", _rate), ("errors", "error_rate", _percent), ("P99", "p99_latency_ms", _milliseconds))
MINUTES = f"{trend.SPAN / 60:g} min"
HIGHEST = f"{MINUTES} max"


def _glued(sentence: object) -> str:
    """A sentence from outside whose figures stay together with their units."""
    return re.sub(r"(?<=\d) (?=(?:%|ms|s|min|GB|percent\w*)(?!\w))", GLUE, clean(sentence))


def _spark(points: Sequence[trend.Point], figure: str, at: float, width: int) -> tuple[Text, float | None]:
    bars, top = trend.sparkline(trend.bins(points, figure, at, width))
    return Text(bars, "red" if figure == "error_rate" and top else "cyan"), top


# --- one host ----------------------------------------------------------------------------------------------


class Block:
    """What can be told of one host: its rows of the table, and the lines below them that are drawn when asked for."""

    def __init__(self, view: status.View, rows: Lines, draw: Callable[[int], Lines]) -> None:
        self.view = view
        self._rows = rows
        self._draw = draw
        self._drawn: dict[int, Lines] = {}

    def lines(self, level: int) -> Lines:
        """0 is one line, 1 what is wrong and what to do, 2 everything."""
        if level not in self._drawn:
            slots = _slots(self.view)
            shown = [row for row, slot in zip(self._rows, slots, strict=False) if slot["state"] != "stopped"]
            rows = (self._rows[:1], shown or self._rows[:1], self._rows)[level]
            self._drawn[level] = rows + (self._draw(level) if level else [])
        return self._drawn[level]


def _slots(view: status.View) -> list[dict[str, Any]]:
    """Its slots, the live one first, what is stopped last."""
    rank = {"live": 0, "stopped": 2}
    return sorted(view["slots"], key=lambda slot: 0 if slot["live"] else rank.get(slot["state"], 1))


def _policies(view: status.View, all_of_them: bool) -> Iterable[Text]:
    fine = Text("  ").join(
        Text.assemble((f"{OUTCOMES['allowed'][0]} ", OUTCOMES["allowed"][1]), f"policy {domain} allowed")
        for domain, decision in view["policy"].items()
        if decision["outcome"] == "allowed"
    )
    if fine and all_of_them:
        yield fine
    for domain, decision in view["policy"].items():
        outcome = decision["outcome"]
        if outcome == "allowed" or (outcome == "insufficient" and not all_of_them):
            continue
        mark, style = OUTCOMES.get(outcome, ("!", "yellow"))
        first, *others = [_glued(reason) for reason in decision["reasons"]] or [""]
        if others and not all_of_them:
            first, others = f"{first} (+ {len(others)} more)", []
        yield Text.assemble((f"{mark} policy {domain} {outcome}", style), f": {first}" if first else "")
        yield from (Text(f"  {reason}") for reason in others)


def _wrong(view: status.View, at: float) -> Iterable[Text]:
    """The problems that no policy speaks of, and what to do, a line each."""
    silent = view["unanswered"]
    if silent:
        since = trend.seconds(silent["since"])
        told = f" ({age(at - since)})" if since is not None else ""
        yield Text.assemble(
            (f"✗ no answer since {silent['since'][11:19]}{told}", STYLES["bad"]), f": {_glued(silent['why'])}"
        )
    for problem in view["problems"]:
        if not silent and view["state"] != "empty" and not problem["what"].startswith("policy "):
            mark = MARKS[problem["level"]]
            yield Text(f"{mark} {_glued(problem['what'])}", STYLES[problem["level"]])
    if view["state"] == "empty":
        yield Text("nothing is deployed here: run ansible-playbook deploy.yml")


def _next(view: status.View, most: int) -> Iterable[Text]:
    if view["state"] == "empty":
        return
    commands = {problem["next"]: problem["does"] for problem in view["problems"] if problem["next"]}
    for command, does in list(commands.items())[:most]:
        yield Text.assemble("→ ", (command, "bold"), f"  {does}")


def _canary(view: status.View) -> Iterable[Text]:
    denied = (view["policy"].get("canary") or {}).get("outcome") == "denied"
    # Nobody is told how to go on with a bad one.
    if view["canary"] and not denied:
        yield Text(
            f"canary in {view['canary']['slot']} has {view['canary']['weight']}{GLUE}%: "
            "promote.yml -e mode=canary -e resume=true goes on, rollback.yml goes back"
        )


def _trend_lines(look: Look, view: status.View, width: int) -> Iterable[Text]:
    """The sparklines below a host, where the table has no room for them."""
    live, beside = (f"{SLOT_MARKS['live']} ", f"{SLOT_MARKS['canary']} ") if view["canary"] else ("", "")
    for name, canary in ((live, False), (beside, True)):
        points = look.trends.of(view["host"], view["service"], canary)
        if not points or not view["slots"] or (canary and not view["canary"]):
            continue
        tops = [told(_spark(points, figure, look.at, 1)[1]) for _title, figure, told in SPARKS]
        words = [title for title, _figure, _told in SPARKS] + tops
        # A space beside the bars, and two between the figures.
        room = width - len(name) - sum(map(len, words)) - 4 * len(SPARKS) - len(HIGHEST)
        bars = min(SPARK_WIDTHS[-1], room // len(SPARKS))
        if bars < SPARK_WIDTHS[0]:
            continue
        parts = [
            Text.assemble((f"{title} ", "dim"), _spark(points, figure, look.at, bars)[0], f" {top}")
            for top, (title, figure, _told) in zip(tops, SPARKS, strict=True)
        ]
        yield Text.assemble(name, Text("  ").join(parts), (f"  {HIGHEST}", "dim"))


# --- the frame ---------------------------------------------------------------------------------------------


def _name(view: status.View, width: int) -> Text:
    text = Text(clean(view["host"]))
    text.truncate(min(NAME_WIDTH, width // 6), overflow="ellipsis")
    return text


def _fitting(look: Look, width: int) -> tuple[list[Column], int]:
    """The columns that ``width`` takes, and the bars of a sparkline in the table, 0 where there is no room for them."""
    shown = [slot for view in look.views for slot in view["slots"]]
    names = 2 + GAP + (GAP + max(_name(view, width).cell_len for view in look.views) if look.views[1:] else 0)
    widths = {
        column.key: GAP + max([column.least, len(column.title), *(len(column.cell(slot)) for slot in shown)])
        for column in COLUMNS
    }
    bars = (width - names - sum(widths.values())) // len(SPARKS) - GAP
    if bars >= max(len(f"{title} {MINUTES}") for title, _figure, _told in SPARKS):
        return list(COLUMNS), min(bars, SPARK_WIDTHS[-1])
    for count in range(len(DROPPED) + 1):
        columns = [column for column in COLUMNS if column.key not in DROPPED[:count]]
        if names + sum(widths[column.key] for column in columns) - GAP <= width:
            break
    return columns, 0


def _table(look: Look, width: int, columns: Sequence[Column], bars: int) -> Table:
    hosts = len(look.views) > 1
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="dim")
    table.add_column("", no_wrap=True)
    if hosts:
        table.add_column("host", no_wrap=True)
    for column in columns:
        table.add_column(
            column.title, no_wrap=True, min_width=column.least, justify="right" if column.number else "left"
        )
    for title, _figure, _told in SPARKS if bars else ():
        table.add_column(f"{title} {MINUTES}", no_wrap=True)
    for view in look.views:
        mark = Text(MARKS[view["state"]], STYLES[view["state"]])
        name = [_name(view, width)] if hosts else []
        slots = _slots(view)
        for number, slot in enumerate(slots):
            first: list[RenderableType] = [mark, *name] if number == 0 else ["", *([""] if hosts else [])]
            cells = [column.cell(slot) for column in columns]
            canary = bool(view["canary"]) and view["canary"]["slot"] == slot["slot"]
            points = look.trends.of(view["host"], view["service"], canary) if slot["live"] or canary else ()
            sparks = [_spark(points, figure, look.at, bars)[0] for _title, figure, _told in SPARKS] if bars else []
            table.add_row(*first, *cells, *sparks, style="dim" if slot["state"] == "stopped" else None)
        if not slots:
            table.add_row(mark, *name, "-", Text(WORDS.get(view["state"], "-"), STYLES[view["state"]]))
    return table


def _rendered(console: Console, what: RenderableType, width: int) -> Lines:
    lines = console.render_lines(what, console.options.update(width=width, height=None), pad=False)
    return [[Segment(text.replace(GLUE, " "), style) for text, style, _control in line] for line in lines]


def _hanging(console: Console, what: Text, width: int) -> Lines:
    """A sentence below a host, where it is folded indented by its mark, so that marks alone begin lines."""
    found = MARK.match(what.plain)
    mark = what[: found.end() if found else 0]
    lines = _rendered(console, what[len(mark) :], width - INDENT - len(mark))
    begin, then = Segment(" " * INDENT), Segment(" " * (INDENT + len(mark)))
    (first,) = _rendered(console, mark, width) if mark else [[]]
    return [[*([then] if number else [begin, *first]), *line] for number, line in enumerate(lines)]


def _blocks(look: Look, console: Console, width: int, text_width: int) -> tuple[list[list[Segment]], list[Block]]:
    """The heading of the table, and what there is to tell of each host."""
    columns, bars = _fitting(look, width)
    heading, *rows = _rendered(console, _table(look, width, columns, bars), width)
    found = []
    if len(look.views) == 1 and not look.views[0]["slots"]:
        # The header says all that a row would.
        heading, rows = [], []
    for view in look.views:
        count = max(1, len(view["slots"]))
        mine, rows = rows[:count], rows[count:]

        def draw(level: int, view: status.View = view) -> Lines:
            if level == 2:
                trends = () if bars else _trend_lines(look, view, width - INDENT)
                texts = [*trends, *_canary(view), *_policies(view, True), *_wrong(view, look.at), *_next(view, 3)]
            else:
                texts = [*_policies(view, False), *_wrong(view, look.at), *_next(view, 1)]
            return [line for one in texts for line in _hanging(console, one, text_width)]

        found.append(Block(view, mine, draw))
    return [heading] if heading else [], found


def _header(look: Look, width: int) -> Table:
    services = sorted({clean(view["service"]) for view in look.views if view["service"]})
    names = [view["host"] for view in look.views]
    title = Text.assemble(("SwiftDeploy", "bold"), "  ", ", ".join(services))
    if len(names) == 1:
        title.append(f"  {clean(names[0])}  ")
        title.append(WORDS[look.views[0]["state"]], STYLES[look.views[0]["state"]])
    else:
        title.append(f"  {len(names)} hosts: ")
        counts = [(state, sum(view["state"] == state for view in look.views)) for state in status.STATES]
        parts = [Text(f"{count} {WORDS[state]}", STYLES[state]) for state, count in counts if count]
        title.append_text(Text(", ").join(parts))
    grid = Table.grid(expand=True, padding=(0, 1))
    grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    grid.add_column(no_wrap=True, justify="right")
    grid.add_row(title, Text(look.stamp, "dim"))
    grid.width = width
    return grid


def event_words(record: Mapping[str, Any]) -> str:
    """What an event of the history was about, short."""
    parts = []
    if record.get("version"):
        parts.append(f"v{record['version']}" + (f" ({record['mode']})" if record.get("mode") else ""))
    if isinstance(record.get("weight"), int | float):
        parts.append(f"{record['weight']} %")
    reason = clean(record.get("reason") or "").strip().splitlines()
    if reason:
        parts.append(reason[0])
    return "  ".join(clean(part) for part in parts)


def _events(look: Look, console: Console, width: int, most: int) -> Lines:
    """The last events of these hosts, the newest first, one line each, with a heading."""
    hosts = {view["host"] for view in look.views}
    services = {None, *(view["service"] for view in look.views)}
    mine = [
        record
        for record in reversed(look.trends.events)
        # Nobody knows the service before the first host has answered.
        if record.get("host") in hosts and (record.get("service") in services or not any(services))
    ]
    records = mine[:most]
    if not records:
        return []
    lines = _rendered(console, Text("last events", "dim"), width)
    widest = max(len(str(record["event"])) for record in records)
    for record in records:
        name = str(record["event"])
        style = "red" if name.endswith(("_blocked", "_failed")) else ""
        text = Text.assemble(
            (clean(record.get("timestamp"))[5:19].replace("T", " "), "dim"),
            f"  {clean(record['host'])}  " if len(hosts) > 1 else "  ",
            (f"{clean(name):<{widest}}", style),
            f"  {event_words(record)}",
        )
        text.truncate(width, overflow="ellipsis")
        lines += _rendered(console, text, width)
    return lines


def _shared(blocks: Sequence[Block], height: int) -> Lines:
    """As much of all blocks as ``height`` lines take: what is wrong, then a line for each host, then the rest."""
    room, levels = height, []
    for index, block in enumerate(blocks):
        # A line is kept for each host that follows, or one that counts them.
        after = min(len(blocks) - index - 1, max(1, height // 3)) if index + 1 < len(blocks) else 0
        level = 1 if block.view["state"] != "ok" and room - len(block.lines(1)) >= after else 0
        if room - len(block.lines(level)) < min(after, 1):
            break
        levels.append(level)
        room -= len(block.lines(level))
    kept = len(levels)
    if kept < len(blocks):
        room -= 1
    for index, block in enumerate(blocks[:kept] if room > 0 else []):
        more = len(block.lines(2)) - len(block.lines(levels[index]))
        if more <= room:
            levels[index], room = 2, room - more
    lines: Lines = []
    spaced = room >= kept - 1 and any(levels)
    for index, block in enumerate(blocks[:kept]):
        lines += block.lines(levels[index])
        if spaced and index < kept - 1:
            lines.append([])
    if kept < len(blocks):
        left = blocks[kept:]
        ill = sum(block.view["state"] != "ok" for block in left)
        told = f"{ill} of them not ok" if ill else "all of them ok"
        lines.append([Segment(f"+ {len(left)} host{'s' if len(left) > 1 else ''}, worst first: {told}")])
    return lines


def frame(
    look: Look,
    console: Console,
    width: int,
    height: int | None = None,
    *,
    text_width: int | None = None,
    fill: bool = False,
) -> Frame:
    """All hosts in ``width`` columns, and in ``height`` lines if that is given.

    ``text_width``: where sentences are wrapped, if not at ``width``. ``fill``: exactly ``height`` lines, the footer at
    the bottom.
    """
    look = replace(look, views=status.ordered(look.views))
    text_width = text_width or width
    top = _rendered(console, _header(look, width), width)
    top.append([Segment("─" * width, console.get_style("dim"))])
    heading, blocks = _blocks(look, console, width, text_width)
    top += heading
    notes: Lines = []
    for note in list(look.notes)[-3:]:
        line = Text(f"! {clean(note)}", "yellow")
        line.truncate(width, overflow="ellipsis")
        notes += _rendered(console, line, width)
    bottom = _rendered(console, Text(look.footer, "dim"), width) if look.footer else []
    events = [] if look.quiet else _events(look, console, width, EVENTS)
    if height is None:
        body = _shared(blocks, ENDLESS)
        gap: Lines = [[]] if events else []
        return Frame(top + body + gap + events + notes + bottom)
    room = max(1, height - len(top) - len(notes) - len(bottom))
    # Nothing is drawn that cannot be shown.
    whole = sum(len(block.lines(2)) for block in blocks) if len(blocks) < room else room
    # Hosts come first; but a few events are worth more than the last detail of the hosts that are well.
    least = min(len(events) + 1, 5) if events and room >= 16 else 0
    kept = min(len(events) + 1, max(room - whole, least)) if events else 0
    if kept < 3:
        kept = 0
    body = _shared(blocks, room - kept)
    body += [[] for _missing in range(room - kept - len(body) if fill else 0)]
    return Frame(top + body + ([[], *events[: kept - 1]] if kept else []) + notes + bottom)


def in_ascii(drawn: Frame) -> Frame:
    """The same frame for an output that has no other characters."""
    lines = [[Segment(text.translate(ASCII), style) for text, style, _control in line] for line in drawn.lines]
    return Frame(lines)


def new_console(*, color: bool, width: int = PLAIN_WIDTH, height: int = 25) -> Console:
    """A console that draws into nothing: rendering is all that is asked of it."""
    return Console(
        file=StringIO(),
        width=width,
        height=height,
        force_terminal=color,
        color_system="auto" if color else None,
        highlight=False,
        emoji=False,
        markup=False,
        legacy_windows=False,
    )


def text(look: Look, *, symbols: bool, color: bool = False, width: int = PLAIN_WIDTH, wrapped: bool = False) -> str:
    """All hosts as text of as many lines as it takes. ``wrapped``: sentences keep to the width as well."""
    console = new_console(color=color, width=width)
    drawn = frame(look, console, width, text_width=width if wrapped else ENDLESS)
    with console.capture() as captured:
        console.print(drawn, soft_wrap=True)
    shown = "\n".join(line.rstrip() for line in captured.get().splitlines())
    return shown if symbols else shown.translate(ASCII)
