"""Evidence: what two scrapes of a slot, and the proxy's log between them, say about the requests in between.

Everything is a difference of counters over the window, never a lifetime figure. Quantiles are those of
Prometheus:

- https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile
- https://github.com/prometheus/prometheus/blob/main/promql/quantile.go (BucketQuantile, coalesceBuckets,
  ensureMonotonicAndIgnoreSmallDeltas) and util/almost/almost.go

Where this differs from ``rate()``: nothing is extrapolated to the edges of the window; a label set that is new
counts in full; and a reset seen in one bucket is taken as a reset of the whole label set, since the buckets
that have already grown past their old value belong to the new process too. For the same reason it is a reset of the
whole family where the process says that it began anew.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_classic

STANDARD_PATHS = ("/healthz", "/metrics", "/chaos")
PATH_LABELS = ("path", "route", "handler", "endpoint", "uri", "url", "url_path", "http_route", "http_target")
DEFAULT_NAMES: Mapping[str, Any] = {
    "path": "/metrics",
    "requests": "http_requests_total",
    "duration": "http_request_duration_seconds",
    "status_labels": ("status_code", "status", "code"),
}
MODES = {0.0: "stable", 1.0: "canary"}
CHAOS = {0.0: "none", 1.0: "slow", 2.0: "error"}
QUANTILES = (("p50_latency_ms", 0.5), ("p95_latency_ms", 0.95), ("p99_latency_ms", 0.99))
# The parser looks back over a line for each quote, so one endless line would take it hours.
MAX_LINE = 16 * 1024
SMALL_DELTA = 1e-12
SMALLEST_NORMAL = 2.2250738585072014e-308

Labels = frozenset[tuple[str, str]]
Series = dict[Labels, float]


class EvidenceProblem(Exception):  # noqa: N818 - most are no error of ours, they are findings
    """A sample is no evidence. ``cause`` is one word for programs, ``detail`` says it to a person.

    Causes of this module: not_prometheus, family_missing, bad_value, one_sample, clock, changed. A sample that
    could not be taken brings its own.
    """

    def __init__(self, cause: str, detail: str) -> None:
        super().__init__(detail)
        self.cause = cause
        self.detail = detail


@dataclass(frozen=True)
class Scrape:
    """A parsed sample: when it was taken (unix seconds), the series by sample name, the families declared.

    A family that is declared without a series is one that has counted nothing yet.
    """

    at: float
    series: Mapping[str, Series]
    families: frozenset[str]

    def counter(self, name: str) -> Series | None:
        """The series of counter ``name``, with or without its _total; None when there is no such family."""
        bare = name.removesuffix("_total")
        for candidate in (name, f"{name}_total", bare):
            if candidate in self.series:
                return self.series[candidate]
        return {} if self.families & {name, bare} else None

    def buckets(self, name: str) -> Series | None:
        """The bucket series of histogram ``name``; None when there is no such family."""
        if f"{name}_bucket" in self.series:
            return self.series[f"{name}_bucket"]
        if f"{name}_count" in self.series or name in self.series:
            return None  # a summary, or something else of that name
        return {} if name in self.families else None


# --- reading a sample ------------------------------------------------------------------------------------


def _families(body: str, openmetrics: bool) -> list[Metric]:
    if openmetrics:
        try:
            return list(parse_openmetrics(body))  # type: ignore[no-untyped-call]
        except Exception:
            # Prometheus itself forgives more than this parser (a counter without _total, families torn
            # apart). But without its last line the text was cut, and half the figures are worse than none.
            if not body.rstrip().endswith("# EOF"):
                raise
    return list(parse_classic(body))


def parse(sample: Mapping[str, Any]) -> Scrape:
    """Read ``sample`` ({"slot", "at", "body", "content_type"} or {"slot", "at", "cause", "detail"}).

    A series that comes twice counts once, the first, as in Prometheus. Raises EvidenceProblem.
    """
    if sample.get("cause"):
        raise EvidenceProblem(str(sample["cause"]), str(sample.get("detail")))
    body, at = sample.get("body"), sample.get("at")
    if not isinstance(body, str) or not isinstance(at, (int, float)) or not math.isfinite(at):
        raise EvidenceProblem("not_prometheus", "the sample has no text or no time")
    if max((len(line) for line in body.split("\n")), default=0) > MAX_LINE:
        raise EvidenceProblem("not_prometheus", f"the metrics have a line of more than {MAX_LINE} characters")
    openmetrics = "openmetrics" in str(sample.get("content_type") or "").lower()
    series: dict[str, Series] = defaultdict(dict)
    families: set[str] = set()
    try:
        for family in _families(body, openmetrics):
            families.add(family.name)
            for one in family.samples:
                if one.value is not None:  # a native histogram has none
                    series[one.name].setdefault(frozenset(one.labels.items()), _float(one.value))
    except Exception as error:  # noqa: BLE001
        # Whatever a parser trips over in foreign text, the text is at fault.
        raise EvidenceProblem("not_prometheus", f"the metrics are no Prometheus text: {_start(body, error)}") from None
    if not families:
        raise EvidenceProblem("not_prometheus", "the metrics name no metric")
    return Scrape(float(at), dict(series), frozenset(families))


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer beyond all floats
        return math.inf


def _start(body: str, error: Exception) -> str:
    said = " ".join(str(error).split())
    return f"they start with {' '.join(body.split())[:60]!r}" + (f" ({said[:120]})" if said else "")


# --- quantiles -------------------------------------------------------------------------------------------


def _almost_equal(one: float, other: float) -> bool:
    difference, total = abs(one - other), abs(one) + abs(other)
    if one == 0 or other == 0 or total < SMALLEST_NORMAL:
        return difference < SMALL_DELTA * SMALLEST_NORMAL
    return difference / min(total, 1.7976931348623157e308) < SMALL_DELTA


def _envelope(buckets: Iterable[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Bounds in ascending order and cumulative counts that never go down (ensureMonotonic...)."""
    merged: dict[float, float] = defaultdict(float)
    for bound, count in buckets:
        merged[bound] += count
    bounds = sorted(merged)
    counts: list[float] = []
    for bound in bounds:
        count = merged[bound]
        # Decreases, and differences of mere rounding in either direction, are ignored.
        if counts and (count < counts[-1] or _almost_equal(counts[-1], count)):
            count = counts[-1]
        counts.append(count)
    return bounds, counts


def histogram_quantile(q: float, buckets: Iterable[tuple[float, float]]) -> float | None:
    """The q-quantile, 0 <= q <= 1, of cumulative ``buckets`` (upper bound, count), in the bounds' unit.

    Prometheus's formula (promql/quantile.go, BucketQuantile): find the first bucket whose count reaches
    q * total and interpolate linearly within it. The lowest bucket begins at 0, unless its bound is at or
    below 0, which is then the answer. A rank in the +Inf bucket gives the highest finite bound.
    None where Prometheus says NaN: no observation, no +Inf bucket, no bucket besides it, or q = 0 with an
    empty lowest bucket.
    """
    bounds, counts = _envelope(buckets)
    if len(bounds) < 2 or bounds[-1] != math.inf or counts[-1] == 0:
        return None
    rank = q * counts[-1]
    last = len(bounds) - 1
    index = next((i for i, count in enumerate(counts[:last]) if count >= rank), last)
    if index == last:
        return bounds[last - 1]
    if index == 0 and bounds[0] <= 0:
        return bounds[0]
    start, below = (bounds[index - 1], counts[index - 1]) if index else (0.0, 0.0)
    if counts[index] == below:  # q = 0 and nothing in the lowest bucket: 0/0
        return None
    return start + (bounds[index] - start) * ((rank - below) / (counts[index] - below))


# --- differences -----------------------------------------------------------------------------------------


def _checked(name: str, labels: Labels, value: float) -> float:
    """``value`` of a counter. Raises EvidenceProblem for what no counter can be."""
    if math.isfinite(value) and value >= 0:
        return value
    shown = ",".join(f'{key}="{text}"' for key, text in sorted(labels))[:200]
    raise EvidenceProblem("bad_value", f"{name}{{{shown}}} is {value}, a counter is 0 or a positive number")


def _is_evidence(labels: Labels, exclude: frozenset[str]) -> bool:
    return not any(key in PATH_LABELS and value in exclude for key, value in labels)


def restarted(first: Scrape, second: Scrape) -> bool:
    """Whether the process says that it began anew between the two; most services do not tell."""

    def of(name: str, scrape: Scrape) -> float:
        return max((value for value in scrape.series.get(name, {}).values() if math.isfinite(value)), default=math.nan)

    # A comparison with NaN is false.
    return of("app_uptime_seconds", second) < of("app_uptime_seconds", first) or (
        of("process_start_time_seconds", second) > of("process_start_time_seconds", first) + 1
    )


def _before(first: Series | None, second: Series, anew: bool) -> Series:
    """What ``second`` is held against: nothing after a restart.

    The word of the process alone is not enough, as counters may be kept somewhere that outlives it.
    """
    if first is None or (anew and any(second.get(labels, 0.0) < value for labels, value in first.items())):
        return {}
    return first


def increase(name: str, first: Series, second: Series, exclude: frozenset[str]) -> Iterator[tuple[Labels, float]]:
    """How much each series of ``second`` grew since ``first``. A new one, or one that went down, in full."""
    for labels, value in second.items():
        if _is_evidence(labels, exclude):
            now = _checked(name, labels, value)
            before = _checked(name, labels, first.get(labels, 0.0))
            yield labels, now - before if now >= before else now


def _layouts(name: str, series: Series, exclude: frozenset[str]) -> dict[Labels, dict[float, float]]:
    """Label set without le -> {bound: cumulative count}. A bucket without a usable le is passed over."""
    layouts: dict[Labels, dict[float, float]] = defaultdict(lambda: defaultdict(float))
    for labels, value in series.items():
        le = dict(labels).get("le")
        if le is None or "_" in le or not _is_evidence(labels, exclude):
            continue
        try:
            bound = float(le)
        except ValueError:
            continue
        if not math.isnan(bound):
            # Numeric, as "1" and "1.0" are one bucket.
            layouts[labels - {("le", le)}][bound] += _checked(name, labels, value)
    return layouts


def _floor(buckets: Mapping[float, float], bound: float) -> float:
    """The count at ``bound``; where ``buckets`` have no such bound, that of the nearest one below."""
    if bound in buckets:
        return buckets[bound]
    lower = [one for one in buckets if one < bound]
    return buckets[max(lower)] if lower else 0.0


def increase_of_buckets(name: str, first: Series, second: Series, exclude: frozenset[str]) -> list[tuple[float, float]]:
    """What the buckets of all label sets grew by, summed for each bound (sum by (le))."""
    before = _layouts(name, first, exclude)
    summed: dict[float, float] = defaultdict(float)
    for labels, now in _layouts(name, second, exclude).items():
        old = before.get(labels, {})
        if any(now[bound] < count for bound, count in old.items() if bound in now):
            old = {}
        for bound, count in now.items():
            # A bound that is new between known ones may be just below its neighbour: never less than 0.
            summed[bound] += max(0.0, count - _floor(old, bound))
    return list(summed.items())


# --- the record ------------------------------------------------------------------------------------------


def excluded(names: Mapping[str, Any], paths: Iterable[str] = ()) -> frozenset[str]:
    """The paths that are no evidence: the standard ones, the metrics path of ``names``, and ``paths``."""
    return frozenset([*STANDARD_PATHS, str(names.get("path") or DEFAULT_NAMES["path"]), *paths])


def _status_of(labels: Labels, status_labels: Sequence[str]) -> str | None:
    """Its status. An empty label is none, as in Prometheus."""
    given = dict(labels)
    return next((given[label] for label in status_labels if given.get(label)), None)


def _is_status(status: str | None, classes: str = "1-5") -> bool:
    return status is not None and re.fullmatch(rf"[{classes}](\d\d|xx)", status, re.ASCII | re.IGNORECASE) is not None


def _has_statuses(name: str, series: Series, status_labels: Sequence[str]) -> None:
    """Raise EvidenceProblem where no series tells an HTTP status: without one no error would ever be seen."""
    given = {_status_of(labels, status_labels) for labels in series}
    if not series or any(_is_status(status) for status in given):
        return
    told = sorted(status for status in given if status is not None)
    looked = f"{name} has no status label, looked for {', '.join(status_labels)}"
    raise EvidenceProblem("family_missing", looked + (f" and found {', '.join(told)[:80]!r}" if told else ""))


def _whole(value: float) -> int | float:
    return int(value) if value.is_integer() and value < 2**53 else value


def _finite(name: str, value: float) -> float:
    if math.isfinite(value):
        return value
    raise EvidenceProblem("bad_value", f"the values of {name} are too large to add up")


def facts(scrape: Scrape) -> dict[str, Any]:
    """Mode, version, chaos and uptime as the service tells them; null where it does not. Never raises."""

    def values(name: str) -> list[float]:
        return [value for value in scrape.series.get(name, {}).values() if math.isfinite(value)]

    modes = {MODES.get(value) for value in values("app_mode")}
    versions = {dict(labels).get("version") for labels in scrape.series.get("app_build_info", {})}
    return {
        "mode": modes.pop() if len(modes) == 1 else None,
        "version": versions.pop() if len(versions) == 1 else None,
        "chaos": CHAOS.get(max(values("chaos_active"), default=-1.0)),
        "uptime_seconds": max(values("app_uptime_seconds"), default=None),
    }


def compute(first: Scrape, second: Scrape, names: Mapping[str, Any], exclude: frozenset[str]) -> dict[str, Any]:
    """The service's own figures between two scrapes. Raises EvidenceProblem.

    ``names``: requests (a counter), duration (a histogram of seconds), status_labels (the first that a series
    has is its status). Answers window_seconds, requests, req_per_sec, error_rate (null without a request),
    p50_latency_ms, p95_latency_ms, p99_latency_ms (null without an observation).
    """
    names = {**DEFAULT_NAMES, **{key: value for key, value in names.items() if value}}
    window = second.at - first.at
    if not window > 0:
        raise EvidenceProblem("clock", "the second sample is not later than the first one")

    requests_name, duration_name = str(names["requests"]), str(names["duration"])
    status_labels = [str(label) for label in names["status_labels"]]
    now = second.counter(requests_name)
    if now is None:
        raise EvidenceProblem("family_missing", f"the metrics have no counter {requests_name}")
    _has_statuses(requests_name, now, status_labels)
    anew = restarted(first, second)
    requests = errors = 0.0
    before = _before(first.counter(requests_name), now, anew)
    for labels, grown in increase(requests_name, before, now, exclude):
        requests += grown
        errors += grown if _is_status(_status_of(labels, status_labels), "5") else 0.0

    buckets = second.buckets(duration_name)
    if buckets is None:
        raise EvidenceProblem(
            "family_missing", f"the metrics have no histogram {duration_name} (a summary will not do)"
        )
    if buckets and not any(_is_infinite(dict(labels).get("le", "")) for labels in buckets):
        raise EvidenceProblem("family_missing", f'{duration_name} has no bucket with le="+Inf"')
    earlier = _before(first.buckets(duration_name), buckets, anew)
    grown_buckets = increase_of_buckets(f"{duration_name}_bucket", earlier, buckets, exclude)
    for _, count in grown_buckets:
        _finite(duration_name, count)
    quantiles = {name: histogram_quantile(q, grown_buckets) for name, q in QUANTILES}
    _finite(requests_name, requests)
    return {
        "window_seconds": window,
        "requests": _whole(requests),
        "req_per_sec": _finite(requests_name, requests / window),
        "error_rate": errors / requests if requests else None,
        **{name: None if value is None else _finite(duration_name, value * 1000) for name, value in quantiles.items()},
    }


def _is_infinite(le: str) -> bool:
    try:
        return float(le) == math.inf
    except ValueError:
        return False


def _proxy(slot: str, proxy: Mapping[str, Any] | None) -> dict[str, Any]:
    """The proxy's part of a record; null, with the reason, where its log could not be read."""
    figures = ((proxy or {}).get("slots") or {}).get(slot)
    if not figures:
        detail = None if proxy is None else proxy.get("detail") or f"the access log was not read for {slot}"
        names = ("requests", "error_rate", "p50_latency_ms", "p95_latency_ms", "p99_latency_ms", "probes", "truncated")
        return {**{f"proxy_{name}": None for name in names}, "proxy_detail": detail}
    requests = figures["requests"]
    return {
        "proxy_requests": requests,
        "proxy_error_rate": figures["errors"] / requests if requests else None,
        "proxy_p50_latency_ms": figures["p50_ms"],
        "proxy_p95_latency_ms": figures["p95_ms"],
        "proxy_p99_latency_ms": figures["p99_ms"],
        "proxy_probes": figures["probes"],
        "proxy_truncated": figures["truncated"],
        "proxy_detail": "the access log does not reach back to the begin of the window"
        if figures["truncated"]
        else None,
    }


def _probe_share(proxy: Mapping[str, Any]) -> float | None:
    """How much of what the proxy saw were probes, 0 to 1; None where it saw nothing."""
    requests = proxy["proxy_requests"]
    return proxy["proxy_probes"] / requests if requests else None


def _unchanged(first: Scrape, second: Scrape) -> None:
    """Raise EvidenceProblem where the service is not what it was at an earlier run's sample."""
    if restarted(first, second):
        raise EvidenceProblem("changed", "the service was restarted since the kept sample")
    before, now = facts(first), facts(second)
    for name in ("mode", "version", "chaos"):
        if before[name] != now[name]:
            raise EvidenceProblem("changed", f"{name} is {now[name]}, and was {before[name]} in the kept sample")


def _earlier(sample: Mapping[str, Any]) -> Scrape:
    try:
        return parse(sample)
    except EvidenceProblem as problem:
        raise EvidenceProblem(problem.cause, f"first sample: {problem.detail}") from None


def record(
    first: Mapping[str, Any] | None,
    second: Mapping[str, Any],
    names: Mapping[str, Any],
    exclude: frozenset[str],
    *,
    proxy: Mapping[str, Any] | None = None,
    probes: Mapping[str, int] | None = None,
    first_sample: str | None = "taken",
) -> dict[str, Any]:
    """The evidence record of one slot out of its two samples. Raises nothing: what is wrong is in the record.

    ``first_sample`` says where the first one is from: taken, given or kept. A kept one is of another run, so it
    counts only where the service is still the same.
    """
    slot = str(second.get("slot"))
    probes = probes or {}
    seen = _proxy(slot, proxy)
    answer: dict[str, Any] = {
        "slot": slot,
        "status": "unavailable",
        "cause": None,
        "detail": None,
        "first_sample": None if first is None else first_sample,
        **dict.fromkeys(("window_seconds", "requests", "req_per_sec", "error_rate")),
        **dict.fromkeys(name for name, _ in QUANTILES),
        **seen,
        "probes_sent": probes.get("sent", 0),
        "probes_failed": probes.get("failed", 0),
        "probe_share": _probe_share(seen),
        **dict.fromkeys(("mode", "version", "chaos", "uptime_seconds")),
    }
    try:
        later = parse(second)
        answer.update(facts(later))
        if first is None:
            raise EvidenceProblem("one_sample", "there is one sample only, figures need a second one")
        earlier = _earlier(first)
        if first_sample == "kept":
            _unchanged(earlier, later)
        answer.update(compute(earlier, later, names, exclude))
        answer["status"] = "measured"
    except EvidenceProblem as problem:
        answer.update(cause=problem.cause, detail=problem.detail)
    return answer


def records(
    first: Iterable[Mapping[str, Any]],
    second: Iterable[Mapping[str, Any]],
    names: Mapping[str, Any],
    exclude: frozenset[str],
    *,
    proxy: Mapping[str, Any] | None = None,
    probes: Mapping[str, int] | None = None,
    first_sample: str | None = "taken",
    own_names: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, dict[str, Any]]:
    """Slot to evidence record, for every slot of ``second``. A slot in ``own_names`` has other ``names``."""
    earlier = {str(one.get("slot")): one for one in first}
    return {
        str(one["slot"]): record(
            earlier.get(str(one["slot"])),
            one,
            (own_names or {}).get(str(one["slot"]), names),
            exclude,
            proxy=proxy,
            probes=probes,
            first_sample=first_sample,
        )
        for one in second
    }


def suffices(found: Iterable[Mapping[str, Any]], min_requests: int, *, proxied: bool) -> bool:
    """Whether evidence that nothing was waited for is as good as a fresh one: enough in each view, nothing missing.

    ``proxied``: there is an access log, so its figures must be there.
    """

    def enough(one: Mapping[str, Any]) -> bool:
        if one["status"] != "measured" or one["requests"] < min_requests:
            return False
        seen = one["proxy_requests"]
        return not proxied or (seen is not None and seen >= min_requests and not one["proxy_truncated"])

    return all(enough(one) for one in found)
