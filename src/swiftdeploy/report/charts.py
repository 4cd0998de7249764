"""Charts of a host's readings as SVG, drawn by Vega-Lite (package vl-convert-python, imported when a chart is drawn).

A chart holds figures and words of ours alone: no value of a record but its numbers gets into it. Colours are CSS
variables of the page, so that one drawing serves light, dark and print. What the text measures is taken from the font
that the package brings, so that the same figures give the same bytes on any machine.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swiftdeploy.report.gather import Audit
from swiftdeploy.report.series import CHARTS, Bucket, Limits, Series, Track, worst
from swiftdeploy.report.words import clock, count, figure, line, share

MISSING = (
    "No charts: the Python package vl-convert-python is missing. Install it with `make setup` or "
    "`pip install -r requirements.txt`, and make the report again. The table has the same figures."
)
VEGA_LITE = "5.20"
# Pixels of the drawing, which is scaled to the page.
WIDTH, PANEL, LANE, GAP = 780, 92, 18, 26
TOP, RIGHT, BOTTOM, LEFT = 12, 104, 30, 84
# The lanes of events, top down: which mark stands for each, in which colour of the page, and
# the word for several.
KINDS: dict[str, tuple[str, str, str]] = {
    "deploy": ("triangle-up", "var(--good)", "deploys"),
    "promote": ("diamond", "var(--good)", "promotes"),
    "rollback": ("triangle-down", "var(--warn)", "rollbacks"),
    "teardown": ("triangle-left", "var(--soft)", "teardowns"),
    "chaos": ("square", "var(--warn)", "faults injected"),
    "denied": ("cross", "var(--bad)", "denied"),
    "failed": ("circle", "var(--bad)", "failed"),
    "interrupted": ("triangle-right", "var(--bad)", "interrupted"),
}
_STEPS = [60 * minutes for minutes in (1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720)]
_STEPS += [86400 * days for days in (1, 2, 3, 7, 14, 28, 91, 182, 364)]
_OPENING = re.compile(r"<svg[^>]*>")
_ROLES = re.compile(r' (?:role="graphics-\w+"|aria-roledescription="[^"]*")')


@dataclass(frozen=True)
class Chart:
    """`svg` is markup of ours; `host` and `told` (what it shows, in words) are plain text."""

    host: str
    told: str
    svg: str


@dataclass(frozen=True)
class Drawn:
    """The charts, and a sentence for a person where there are none although there could be."""

    charts: Sequence[Chart]
    problem: str = ""


def draw(audit: Audit) -> Drawn:
    """A chart for each of the first hosts that have readings."""
    hosts = sorted(audit.series)[:CHARTS]
    if not hosts:
        return Drawn([])
    charts = []
    for host in hosts:
        series, track = audit.series[host], audit.tracks.get(host, Track())
        try:
            charts.append(Chart(line(host), describe(series, track), draw_one(series, track)))
        except ImportError:
            return Drawn([], MISSING)
        except ValueError as error:
            return Drawn([], f"No charts: Vega-Lite could not draw them ({line(error, 200)}).")
    return Drawn(charts)


def draw_one(series: Series, track: Track) -> str:
    """One chart as SVG. Raises ImportError without the package, ValueError when it cannot draw this."""
    import vl_convert  # noqa: PLC0415 - 80 MB that only this needs

    # No address is allowed, so that nothing is asked of a network whatever a specification says.
    svg = vl_convert.vegalite_to_svg(specification(series, track), vl_version=VEGA_LITE, allowed_base_urls=[])
    return _inline(svg, track)


def _inline(svg: str, track: Track) -> str:
    """The drawing as part of a page: its own size, and without roles, as the page names it as one image."""
    kinds = len({kind for _when, kind in track.marks})
    height = TOP + (kinds * LANE + GAP if kinds else 0) + 3 * PANEL + 2 * GAP + BOTTOM
    # Without autosize Vega leaves the size of joined panels to whoever knows it.
    return _ROLES.sub("", _OPENING.sub(f'<svg viewBox="0 0 {LEFT + WIDTH + RIGHT} {height}">', svg, count=1))


def describe(series: Series, track: Track) -> str:
    """What a chart shows, in words."""
    buckets = list(series.buckets.values())
    rates = [bucket.rate for bucket in buckets if bucket.rate is not None]
    parts = []
    if rates:
        parts.append(f"{figure(min(rates), 2)} to {figure(max(rates), 2)} requests/s")
    error_rate, p99 = _worst(buckets)
    limit = track.limits[-1] if track.limits else Limits(0, None, None)
    if error_rate is not None:
        parts.append(
            f"error rate up to {share(error_rate)}"
            + ("" if limit.error_rate is None else f" (limit {share(limit.error_rate)})")
        )
    if p99 is not None:
        parts.append(
            f"P99 up to {figure(p99, 1)} ms" + ("" if limit.p99 is None else f" (limit {_short(limit.p99)} ms)")
        )
    marks = [kind for _when, kind in track.marks]
    parts += [count(marks.count(kind), kind, KINDS[kind][2]) for kind in KINDS if kind in marks]
    first, last = series.ends()
    return f"{clock(first)} to {clock(last)}: " + ", ".join(parts or ["no figures"])


def _worst(buckets: Iterable[Bucket]) -> tuple[float | None, float | None]:
    error_rate: float | None = None
    p99: float | None = None
    for bucket in buckets:
        error_rate, p99 = worst(error_rate, bucket.error_rate), worst(p99, bucket.p99)
    return error_rate, p99


def _short(value: float) -> str:
    return f"{value:.6g}"


# ------------------------------------------------------------------------------------------------ the axes


def _nice(top: float) -> list[float]:
    """Ticks from 0 to at least ``top``, four at most above 0."""
    if not math.isfinite(top) or top <= 0:
        return [0.0, 1.0]
    raw = top / 3
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * (1 - 1e-9))
    return [step * index for index in range(math.ceil(top / step - 1e-9) + 1)]


def _times(first: float, last: float) -> tuple[list[float], str]:
    """Where the time axis has its ticks, in Unix seconds, and how they are written."""
    step = next((step for step in _STEPS if (last - first) / step <= 8), math.ceil((last - first) / 8 / 86400) * 86400)
    begin = math.ceil(first / step) * step
    ticks = [float(begin + index * step) for index in range(int((last - begin) // step) + 1)] or [first]
    if step >= 364 * 86400:
        return ticks, "%Y"
    if step >= 86400:
        return ticks, "%d %b"
    days = {int(tick // 86400) for tick in (first, last)}
    return ticks, "%H:%M" if len(days) == 1 else "%d %b %H:%M"


# -------------------------------------------------------------------------------------------- the drawing


def specification(series: Series, track: Track) -> dict[str, Any]:
    """The chart in Vega-Lite: a lane for each kind of event, and below it three panels over the same time."""
    first, last = (float(end) for end in series.ends())
    marks = [(when, kind) for when, kind in track.marks]
    first = min([first, *(when for when, _kind in marks)])
    last = max([last, *(when for when, _kind in marks)])
    ticks, pattern = _times(first, last)
    scale = {"type": "utc", "domain": [first * 1000, last * 1000], "nice": False}

    def time_axis(shown: bool) -> dict[str, Any]:
        axis: dict[str, Any] = {
            "values": [tick * 1000 for tick in ticks],
            "title": None,
            "labels": shown,
            "ticks": shown,
        }
        axis |= {"domain": True, "grid": True, "labelFlush": False, "labelOverlap": False}
        return {
            "field": "t",
            "type": "temporal",
            "scale": scale,
            "axis": axis | {"labelExpr": f"utcFormat(datum.value, '{pattern}')"},
        }

    bands = [
        {"t": max(begin, first) * 1000, "u": min(last if end is None else end, last) * 1000}
        for begin, end in track.chaos
        if begin <= last and (end is None or end >= first)
    ]
    points, limits = _points(series), track.limits
    # Axes of layers are merged, so all of a panel say the same of theirs; the last panel has the times.
    bare, named = time_axis(False), time_axis(True)
    panels = [
        _panel("requests/s", [(when, one.rate) for when, one in points], [], "", time_axis=bare),
        _panel(
            "errors %",
            [(when, _percent(one.error_rate)) for when, one in points],
            [(limit.since, _percent(limit.error_rate)) for limit in limits],
            "%",
            time_axis=bare,
        ),
        _panel(
            "P99 ms",
            [(when, one.p99) for when, one in points],
            [(limit.since, limit.p99) for limit in limits],
            "ms",
            time_axis=named,
        ),
    ]
    for panel, axis in zip(panels, (bare, bare, named), strict=True):
        panel["layer"] = [*_bands(bands, axis), *_rules(marks, axis), *panel["layer"]]
    kinds = [kind for kind in KINDS if any(kind == one for _when, one in marks)]
    lanes = [_lanes(kinds, marks, time_axis(False))] if kinds else []
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "background": None,
        "padding": {"left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM},
        # Nothing is moved by what a text measures.
        "autosize": "none",
        "spacing": GAP,
        "config": _CONFIG,
        "bounds": "flush",
        "vconcat": [*lanes, *panels],
    }


_CONFIG: dict[str, Any] = {
    "aria": False,
    "font": "Roboto",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--soft)",
        "titleColor": "var(--soft)",
        "gridColor": "var(--rule)",
        "domainColor": "var(--edge)",
        "tickColor": "var(--edge)",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
    },
}


def _percent(value: float | None) -> float | None:
    return None if value is None else value * 100


def _points(series: Series) -> list[tuple[float, Bucket]]:
    """Middle of each interval; an empty bucket where readings are missing for long, so that no line crosses it."""
    points: list[tuple[float, Bucket]] = []
    before: int | None = None
    for index, bucket in sorted(series.buckets.items()):
        if before is not None and index - before > 3:
            points.append(((before + 1.5) * series.width, Bucket()))
        points.append(((index + 0.5) * series.width, bucket))
        before = index
    return points


def _panel(
    title: str,
    points: Sequence[tuple[float, float | None]],
    limits: Sequence[tuple[float, float | None]],
    unit: str,
    *,
    time_axis: Mapping[str, Any],
) -> dict[str, Any]:
    """One figure over time, with its limit as a dashed line that is named at its end."""
    top = max([0.0, *(value for _when, value in [*points, *limits] if value is not None)])
    ticks = _nice(top)
    y = {
        "field": "v",
        "type": "quantitative",
        "scale": {"domain": [0, ticks[-1]], "nice": False},
        "axis": {
            "values": ticks,
            "title": title,
            "titleX": -60,
            "titleAnchor": "middle",
            "format": ",~r",
            "labelOverlap": False,
        },
    }
    first, end = time_axis["scale"]["domain"]
    layers: list[dict[str, Any]] = [
        {
            "data": {"values": [{"t": when * 1000, "v": value} for when, value in points]},
            "mark": {
                "type": "line",
                "color": "var(--line)",
                "strokeWidth": 1.75,
                "invalid": "break-paths-show-domains",
            },
            "encoding": {"x": time_axis, "y": y},
        },
        {
            "data": {"values": [{"t": when * 1000, "v": value} for when, value in _alone(points)]},
            "mark": {"type": "point", "color": "var(--line)", "filled": True, "size": 18, "opacity": 1},
            "encoding": {"x": time_axis, "y": y},
        },
    ]
    held = [(max(when * 1000, first), value) for when, value in limits if when * 1000 <= end]
    # Of those before the first reading only the last one counts.
    while len(held) > 1 and held[1][0] <= first:
        held.pop(0)
    if held and any(value is not None for _when, value in held):
        steps = [{"t": when, "v": value} for when, value in [*held, (end, held[-1][1])]]
        layers.append(
            {
                "data": {"values": steps},
                "mark": {
                    "type": "line",
                    "interpolate": "step-after",
                    "color": "var(--bad)",
                    "strokeDash": [6, 4],
                    "strokeWidth": 1.5,
                },
                "encoding": {"x": time_axis, "y": y},
            }
        )
        if held[-1][1] is not None:
            text = f"limit {_short(held[-1][1])} {unit}"
            layers.append(
                {
                    "data": {"values": [{"t": end, "v": held[-1][1]}]},
                    "mark": {
                        "type": "text",
                        "text": text,
                        "align": "left",
                        "dx": 6,
                        "color": "var(--bad)",
                        "fontSize": 12,
                        "clip": False,
                    },
                    "encoding": {"x": time_axis, "y": y},
                }
            )
    return {"width": WIDTH, "height": PANEL, "layer": layers}


def _alone(points: Sequence[tuple[float, float | None]]) -> list[tuple[float, float]]:
    """The points that no line reaches."""
    values = [None, *(value for _when, value in points), None]
    return [
        (when, value)
        for place, (when, value) in enumerate(points, start=1)
        if value is not None and values[place - 1] is None and values[place + 1] is None
    ]


def _bands(bands: Sequence[Mapping[str, float]], time_axis: Mapping[str, Any]) -> list[dict[str, Any]]:
    if not bands:
        return []
    return [
        {
            "data": {"values": list(bands)},
            "mark": {"type": "rect", "color": "var(--warn)", "opacity": 0.14},
            "encoding": {"x": time_axis, "x2": {"field": "u"}},
        }
    ]


def _rules(marks: Sequence[tuple[float, str]], time_axis: Mapping[str, Any]) -> list[dict[str, Any]]:
    if not marks:
        return []
    moments = sorted({when for when, _kind in marks})
    return [
        {
            "data": {"values": [{"t": when * 1000} for when in moments]},
            "mark": {"type": "rule", "color": "var(--edge)", "strokeWidth": 1, "strokeDash": [1, 3]},
            "encoding": {"x": time_axis},
        }
    ]


def _lanes(kinds: Sequence[str], marks: Sequence[tuple[float, str]], time_axis: Mapping[str, Any]) -> dict[str, Any]:
    """A lane for each kind of event: told by its name and its shape, and by colour besides."""
    y = {
        "field": "k",
        "type": "nominal",
        "scale": {"domain": list(kinds)},
        "axis": {"title": None, "ticks": False, "domain": False, "labelPadding": 8, "labelOverlap": False},
    }
    colour = {"field": "k", "type": "nominal", "legend": None}
    return {
        "width": WIDTH,
        "height": len(kinds) * LANE,
        "data": {"values": [{"t": when * 1000, "k": kind} for when, kind in marks]},
        "mark": {"type": "point", "filled": True, "size": 72, "opacity": 1, "strokeWidth": 1.5},
        "encoding": {
            "x": time_axis,
            "y": y,
            "shape": colour | {"scale": {"domain": list(kinds), "range": [KINDS[kind][0] for kind in kinds]}},
            "color": colour | {"scale": {"domain": list(kinds), "range": [KINDS[kind][1] for kind in kinds]}},
        },
    }
