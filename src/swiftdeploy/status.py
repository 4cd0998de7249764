"""One refresh of the status: what is recorded of it, and what a person is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH = 110
SYMBOLS = {"allowed": "✓", "denied": "✗", "insufficient": "?", "unavailable": "!"}


def event(
    host: str, observed: Mapping[str, Any], evidence: Mapping[str, Any], policy: Mapping[str, Any]
) -> dict[str, Any]:
    """The ``status_scrape`` event of one host: the figures of its live slot and what each policy says of them."""
    live = observed["live"]
    release = (observed["state"]["slots"].get(live) if live else None) or {}
    figures = evidence.get(live) or {}
    return {
        "event": "status_scrape",
        "host": host,
        "service": observed["state"]["service"],
        "mode": release.get("mode"),
        "version": release.get("version"),
        "release": release.get("id"),
        "req_per_sec": figures.get("req_per_sec"),
        "error_rate": figures.get("error_rate"),
        "p99_latency_ms": figures.get("p99_latency_ms"),
        "probe_share": figures.get("probe_share"),
        "chaos": figures.get("chaos"),
        "policy": dict(policy),
        "reason": figures.get("detail"),
    }


def _figure(value: Any, pattern: str) -> str:
    return pattern.format(value) if isinstance(value, int | float) else "-"


def _slot_row(name: str, observed: Mapping[str, Any], figures: Mapping[str, Any]) -> list[str]:
    slot = observed["slots"][name]
    release = observed["state"]["slots"].get(name) or {}
    live = observed["live"] == name
    weight = (observed.get("serving") or {}).get("weights", {}).get(name, 0)
    if live and slot["healthy"]:
        state = "live"
    elif slot["running"]:
        beside = observed["state"].get("canary") or {}
        running = "canary" if beside.get("slot") == name else "running"
        state = running if slot["healthy"] else f"unhealthy: {slot['problem']}"
    else:
        state = "DOWN" if live else "stopped"
    error_rate = figures.get("error_rate")
    return [
        name,
        state,
        f"v{release.get('version', '-')}",
        str(release.get("mode", "-")),
        f"{weight} %",
        _figure(figures.get("req_per_sec"), "{:.1f}"),
        _figure(None if error_rate is None else 100 * error_rate, "{:.2f} %"),
        _figure(figures.get("p50_latency_ms"), "{:.0f} ms"),
        _figure(figures.get("p99_latency_ms"), "{:.0f} ms"),
        str(figures.get("chaos") or "-"),
    ]


def text(
    host: str, at: str, observed: Mapping[str, Any], evidence: Mapping[str, Any], policy: Mapping[str, Any]
) -> str:
    """The same refresh for a person: a table of slots, and a line for each policy."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("slot", "state", "version", "mode", "traffic", "req/s", "errors", "P50", "P99", "chaos"):
        table.add_column(column, no_wrap=column != "state")
    slots: Sequence[str] = [name for name in ("blue", "green") if observed["state"]["slots"].get(name)]
    for name in slots:
        table.add_row(*(Text(cell) for cell in _slot_row(name, observed, evidence.get(name) or {})))
    out = StringIO()
    console = Console(file=out, width=WIDTH, color_system=None, highlight=False, emoji=False)
    console.print(Text(f"{host}  {observed['state']['service']}  {at}"))
    if slots:
        console.print(table)
    else:
        console.print(Text("nothing is deployed here: run ansible-playbook deploy.yml"))
    for name in slots:
        detail = (evidence.get(name) or {}).get("detail")
        if detail:
            console.print(Text(f"! {name}: {detail}"))
    canary = observed["state"].get("canary")
    if canary:
        console.print(
            Text(
                f"canary in {canary['slot']} has {canary['weight']} %: "
                "promote.yml -e mode=canary -e resume=true goes on, rollback.yml goes back"
            )
        )
    for domain, decision in policy.items():
        outcome = decision["outcome"]
        reasons = "" if outcome == "allowed" else ": " + "; ".join(decision["reasons"])
        console.print(Text(f"{SYMBOLS.get(outcome, ' ')} policy {domain} {outcome}{reasons}"))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())
