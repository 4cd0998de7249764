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
from typing import Any

from swiftdeploy import metrics_text
from swiftdeploy.metrics_text import EvidenceProblem, Labels, Scrape, Series

__all__ = ["EvidenceProblem", "Scrape", "excluded", "histogram_quantile", "parse", "record", "records", "suffices"]

STANDARD_PATHS = ("/healthz", "/metrics", "/chaos")
PATH_LABELS = ("path", "route", "handler", "endpoint", "uri", "url", "url_path", "http_route", "http_target")
DEFAULT_NAMES: Mapping[str, Any] = {
    "path": "/metrics",
    "requests": "http_requests_total",
    "duration": "http_request_duration_seconds",
    "status_labels": ("status_code", "status", "code", "http_response_status_code"),
}
MODES = {0.0: "stable", 1.0: "canary"}
CHAOS = {0.0: "none", 1.0: "slow", 2.0: "error"}
QUANTILES = (("p50_latency_ms", 0.5), ("p95_latency_ms", 0.95), ("p99_latency_ms", 0.99))
# What the service says of itself.
FACTS = ("app_mode", "app_build_info", "chaos_active", "app_uptime_seconds", "process_start_time_seconds")
# No counter of this world is larger, and a float tells whole numbers apart up to here.
MOST = 2.0**53
# Requests that may be at one side of an end of the window in one view and at the other in the other.
AT_THE_ENDS = 2
SMALL_DELTA = 1e-12
SMALLEST_NORMAL = 2.2250738585072014e-308

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
    index = _rank_bucket(q, bounds, counts)
    if index is None:
        return None
    if index == len(bounds) - 1:
        return bounds[index - 1]
    if index == 0 and bounds[0] <= 0:
        return bounds[0]
    start, below = (bounds[index - 1], counts[index - 1]) if index else (0.0, 0.0)
    if counts[index] == below:  # q = 0 and nothing in the lowest bucket: 0/0
        return None
    return start + (bounds[index] - start) * ((q * counts[-1] - below) / (counts[index] - below))


def _rank_bucket(q: float, bounds: Sequence[float], counts: Sequence[float]) -> int | None:
    """Which bucket the q-quantile is in; None where Prometheus says NaN."""
    if len(bounds) < 2 or bounds[-1] != math.inf or counts[-1] == 0:
        return None
    last = len(bounds) - 1
    return next((i for i, count in enumerate(counts[:last]) if count >= q * counts[-1]), last)


def quantile_bucket(q: float, buckets: Iterable[tuple[float, float]]) -> tuple[float, float | None] | None:
    """The bounds of the bucket that the q-quantile is in: above the first, at most the second, which may be open.

    All that a histogram really knows. None where histogram_quantile is None.
    """
    bounds, counts = _envelope(buckets)
    index = _rank_bucket(q, bounds, counts)
    if index is None:
        return None
    upper = bounds[index]
    return (bounds[index - 1] if index else min(0.0, upper), None if math.isinf(upper) else upper)


# --- differences -----------------------------------------------------------------------------------------


def _checked(name: str, labels: Labels, value: float) -> float:
    """``value`` of a counter. Raises EvidenceProblem for what no counter can be."""
    if 0 <= value <= MOST:
        return value
    shown = ",".join(f'{key}="{text}"' for key, text in sorted(labels))[:200]
    raise EvidenceProblem("bad_value", f"{name}{{{shown}}} is {value:g}, a counter is a number from 0 to {MOST:g}")


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


def _without_statuses(name: str, series: Series, status_labels: Sequence[str]) -> str | None:
    """Why no series tells an HTTP status, in words; None where one does, or nothing was counted yet."""
    given = {_status_of(labels, status_labels) for labels in series}
    if not series or any(_is_status(status) for status in given):
        return None
    told = sorted(status for status in given if status is not None)
    looked = f"{name} has no status label, looked for {', '.join(status_labels)}"
    return looked + (f" and found {', '.join(told)[:80]!r}" if told else "")


def _whole(value: float) -> int | float:
    return int(value) if value.is_integer() and value < 2**53 else value


def _sane(name: str, value: float) -> float:
    if abs(value) <= MOST:
        return value
    raise EvidenceProblem("bad_value", f"the values of {name} add up to {value:g}, more than anything real")


def facts(scrape: Scrape) -> dict[str, Any]:
    """Mode, version, chaos and uptime as the service tells them; null where it does not. Never raises."""

    def values(name: str) -> list[float]:
        return [value for value in scrape.series.get(name, {}).values() if abs(value) <= MOST]

    modes = {MODES.get(value) for value in values("app_mode")}
    versions = {dict(labels).get("version") for labels in scrape.series.get("app_build_info", {})}
    return {
        "mode": modes.pop() if len(modes) == 1 else None,
        "version": versions.pop() if len(versions) == 1 else None,
        "chaos": CHAOS.get(max(values("chaos_active"), default=-1.0)),
        "uptime_seconds": max(values("app_uptime_seconds"), default=None),
    }


def _families(names: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of every sample that is looked for."""
    counter, histogram = str(names["requests"]), str(names["duration"])
    bare = counter.removesuffix("_total")
    parts = (histogram, f"{histogram}_bucket", f"{histogram}_count", f"{histogram}_sum")
    return (counter, f"{counter}_total", bare, *parts)


def parse(sample: Mapping[str, Any], names: Mapping[str, Any] | None = None) -> Scrape:
    """Read what is evidence in ``sample``, where ``names`` say what the metrics are called. Raises EvidenceProblem."""
    return metrics_text.parse(sample, (*_families(_with_defaults(names or {})), *FACTS))


def _with_defaults(names: Mapping[str, Any]) -> dict[str, Any]:
    return {**DEFAULT_NAMES, **{key: value for key, value in names.items() if value}}


def compute(first: Scrape, second: Scrape, names: Mapping[str, Any], exclude: frozenset[str]) -> dict[str, Any]:
    """The service's own figures between two scrapes. Raises EvidenceProblem.

    ``names``: requests (a counter), duration (a histogram of seconds), status_labels (the first that a series
    has is its status). Requests are those of the counter, or of the histogram where there is no counter. What the
    service does not tell is null, and ``untold`` says why, by figure.
    """
    names = _with_defaults(names)
    window = second.at - first.at
    if not window > 0:
        raise EvidenceProblem("clock", "the second sample is not later than the first one")
    anew = restarted(first, second)
    untold: dict[str, str] = {}
    counted = _count_requests(first, second, names, exclude, anew)
    if counted["untold"]:
        untold["error_rate"] = counted["untold"]
    name, buckets = str(names["duration"]), second.buckets(str(names["duration"]))
    problem = _no_quantiles(name, buckets)
    grown: list[tuple[float, float]] = []
    if problem:
        untold["p99_latency_ms"] = problem
    else:
        # Those of client errors, where it tells, as a flood of fast refusals hides slow answers.
        now = _answered(buckets or {}, names["status_labels"])
        earlier = _before(first.buckets(name), now, anew)
        grown = increase_of_buckets(f"{name}_bucket", earlier, now, exclude)
    for bound, count in grown:
        _sane(name, count)
        if not math.isinf(bound):
            _sane(f"the bounds of {name}", bound * 1000)
    quantiles = {one: histogram_quantile(q, grown) for one, q in QUANTILES}
    bucket = quantile_bucket(0.99, grown)
    total, refused, errors = counted["total"], counted["refused"], counted["errors"]
    answered = total - refused
    return {
        "window_seconds": window,
        "counted_by": counted["by"],
        "untold": untold,
        "requests": _whole(answered),
        "requests_seen": _whole(total),
        "req_per_sec": total / window,
        "error_rate": None if "error_rate" in untold or not answered else errors / answered,
        "client_error_rate": None if "error_rate" in untold or not total else refused / total,
        **{one: None if value is None else value * 1000 for one, value in quantiles.items()},
        "p99_bucket_ms": bucket and [None if bound is None else bound * 1000 for bound in bucket],
        "paths_told": counted["paths_told"],
    }


def _count_requests(
    first: Scrape, second: Scrape, names: Mapping[str, Any], exclude: frozenset[str], anew: bool
) -> dict[str, Any]:
    """Requests, client errors and errors of the counter, else of the histogram. Raises EvidenceProblem."""
    labels_of_status = [str(label) for label in names["status_labels"]]
    counter, histogram = str(names["requests"]), str(names["duration"])
    by, now, before = counter, second.counter(counter), first.counter(counter)
    if now is None:
        by = f"{histogram}_count"
        now, before = second.series.get(by), first.series.get(by)
    if now is None and histogram in second.families:
        now = {}
    if now is None:
        raise EvidenceProblem("family_missing", _nothing_counted(second, counter, histogram))
    total = refused = errors = 0.0
    for labels, grown in increase(by, _before(before, now, anew), now, exclude):
        status = _status_of(labels, labels_of_status)
        total += grown
        refused += grown if _is_status(status, "4") else 0.0
        errors += grown if _is_status(status, "5") else 0.0
    _sane(by, total)
    return {
        "by": by,
        "total": total,
        "refused": refused,
        "errors": errors,
        "untold": _without_statuses(by, now, labels_of_status),
        "paths_told": any(key in PATH_LABELS for labels in now for key, _ in labels),
    }


def _nothing_counted(page: Scrape, counter: str, histogram: str) -> str:
    if page.empty:
        return "the page of metrics is empty"
    return (
        f"the metrics have neither a counter {counter} nor a histogram {histogram}: say what they are called in "
        "services.metrics, or `services.metrics: none` to be judged by what the proxy sees"
    )


def _no_quantiles(name: str, buckets: Series | None) -> str | None:
    """Why the page tells no quantiles of ``name``, in words; None where it does, or nothing was counted yet."""
    if buckets is None:
        return f"the metrics have no histogram {name} (a summary will not do)"
    bounds = {dict(labels).get("le", "") for labels in buckets}
    if buckets and not any(_is_infinite(bound) for bound in bounds):
        return f'{name} has no bucket with le="+Inf"'
    if buckets and all(_is_infinite(bound) for bound in bounds):
        return (
            f"{name} has no bucket but +Inf: native buckets are not part of the text format; give it classic ones too "
            "(for example Buckets beside NativeHistogramBucketFactor in client_golang)"
        )
    return None


def _answered(series: Series, status_labels: Sequence[str]) -> Series:
    """Without the client errors, where the series tell a status."""
    return {labels: value for labels, value in series.items() if not _is_status(_status_of(labels, status_labels), "4")}


def _is_infinite(le: str) -> bool:
    try:
        return float(le) == math.inf
    except ValueError:
        return False


PROXY_FIGURES = (
    *("proxy_window_seconds", "proxy_requests", "proxy_seen", "proxy_answered", "proxy_error_rate", "proxy_broken"),
    *("proxy_client_error_rate", "proxy_p50_latency_ms", "proxy_p95_latency_ms", "proxy_p99_latency_ms"),
    *("proxy_probes", "proxy_forced", "proxy_left", "proxy_abandoned", "proxy_methods", "proxy_truncated"),
    *("proxy_detail", "abandoned_rate", "largest_source_share", "rest_requests", "rest_error_rate"),
    *("unexercised", "unexercised_share", "probe_share"),
)


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _proxy(slot: str, proxy: Mapping[str, Any] | None) -> dict[str, Any]:
    """The proxy's part of a record; null, with the reason, where its log could not be read."""
    given = ((proxy or {}).get("slots") or {}).get(slot)
    if not proxy or not given:
        detail = None if proxy is None else proxy.get("detail") or f"the access log was not read for {slot}"
        return {**dict.fromkeys(PROXY_FIGURES), "proxy_detail": detail}
    requests, rest = given["requests"], given["rest_requests"]
    answered = requests + given["client_errors"]
    truncated = "the access log is not proven to have the whole window: lines were rotated away, or did not arrive"
    return {
        "proxy_window_seconds": proxy.get("window_seconds"),
        "proxy_requests": requests,
        "proxy_seen": given["seen"],
        "proxy_answered": given["answered"],
        "proxy_error_rate": _share(given["errors"], requests),
        "proxy_broken": given["broken"],
        "proxy_client_error_rate": _share(given["client_errors"], answered),
        "proxy_p50_latency_ms": given["p50_ms"],
        "proxy_p95_latency_ms": given["p95_ms"],
        "proxy_p99_latency_ms": given["p99_ms"],
        "proxy_probes": given["probes"],
        "proxy_forced": given["forced"],
        "proxy_left": given["left"],
        "proxy_abandoned": given["abandoned"],
        "proxy_methods": given["methods"],
        "proxy_truncated": given["truncated"],
        "proxy_detail": truncated if given["truncated"] else None,
        "abandoned_rate": _share(given["abandoned"], answered + given["abandoned"]),
        "largest_source_share": _share(given["largest_source"], given["clients"]),
        "rest_requests": rest,
        "rest_error_rate": _share(given["rest_errors"], rest),
        "unexercised": given["unexercised"],
        "unexercised_share": given["unexercised_share"],
        "probe_share": _share(given["probes"], answered + given["abandoned"]),
    }


def _probes(sent: Mapping[str, Any] | None) -> dict[str, Any]:
    counts = sent or {}
    return {
        "probes_sent": counts.get("sent", 0),
        "probes_failed": counts.get("failed", 0),
        "probes_refused": counts.get("client_errors", 0),
        "probes_failed_rate": _share(counts.get("failed", 0), counts.get("sent", 0)),
    }


def _views_gap(record: Mapping[str, Any], interval: float) -> float | None:
    """How far the two views are apart about how many requests there were, 0 to 1; null where there is one view.

    Each tells a least and a most, without and with the client's errors, since many a service does not count what it has
    no route for. A service whose metrics name no path counts its health checks too, at most two each ``interval``
    seconds.
    """
    if record["requests_seen"] is None or record["proxy_seen"] is None:
        return None
    checks = 2 * float(record["window_seconds"]) / interval if interval and not record["paths_told"] else 0.0
    too_many = float(record["requests"]) - checks - float(record["proxy_seen"])
    too_few = float(record["proxy_answered"]) - float(record["requests_seen"])
    most = max(float(record["requests"]), float(record["proxy_answered"]), 1.0)
    return max(0.0, too_many - AT_THE_ENDS, too_few - AT_THE_ENDS) / most


def _unchanged(first: Scrape, second: Scrape) -> None:
    """Raise EvidenceProblem where the service is not what it was at an earlier run's sample."""
    if restarted(first, second):
        raise EvidenceProblem("changed", "the service was restarted since the kept sample")
    before, now = facts(first), facts(second)
    for name in ("mode", "version", "chaos"):
        if before[name] != now[name]:
            raise EvidenceProblem("changed", f"{name} is {now[name]}, and was {before[name]} in the kept sample")


def _earlier(sample: Mapping[str, Any], names: Mapping[str, Any]) -> Scrape:
    try:
        return parse(sample, names)
    except EvidenceProblem as problem:
        raise EvidenceProblem(problem.cause, f"first sample: {problem.detail}") from None


OWN_FIGURES = (
    *("window_seconds", "counted_by", "untold", "requests", "requests_seen", "req_per_sec", "error_rate"),
    *("client_error_rate", "p50_latency_ms", "p95_latency_ms", "p99_latency_ms", "p99_bucket_ms", "paths_told"),
)
# What a service without metrics has of the proxy.
_OF_THE_PROXY = {
    "requests": "proxy_requests",
    "error_rate": "proxy_error_rate",
    "client_error_rate": "proxy_client_error_rate",
    "p50_latency_ms": "proxy_p50_latency_ms",
    "p95_latency_ms": "proxy_p95_latency_ms",
    "p99_latency_ms": "proxy_p99_latency_ms",
}


def _by_proxy(first: Mapping[str, Any] | None, second: Mapping[str, Any], seen: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a service without metrics of its own. Raises EvidenceProblem."""
    if first is None:
        raise EvidenceProblem("one_sample", "there is one look only, figures need a second one")
    window = float(second["at"]) - float(first["at"])
    if not window > 0:
        raise EvidenceProblem("clock", "the second look is not later than the first one")
    if seen["proxy_requests"] is None:
        raise EvidenceProblem("no_proxy", seen["proxy_detail"] or "the service has no metrics and the proxy no log")
    length = seen["proxy_window_seconds"] or window
    given = {name: seen[theirs] for name, theirs in _OF_THE_PROXY.items()}
    return {"window_seconds": window, **given, "req_per_sec": seen["proxy_seen"] / length}


def record(
    first: Mapping[str, Any] | None,
    second: Mapping[str, Any],
    names: Mapping[str, Any],
    exclude: frozenset[str],
    *,
    proxy: Mapping[str, Any] | None = None,
    probes: Mapping[str, Any] | None = None,
    first_sample: str | None = "taken",
    health_interval: float = 0.0,
) -> dict[str, Any]:
    """The evidence record of one slot out of its two samples. Raises nothing: what is wrong is in the record.

    ``first_sample`` says where the first one is from: taken, given or kept. A kept one is of another run, so it
    counts only where the service is still the same. ``probes`` are the counts of those that were sent to this slot.
    """
    slot = str(second.get("slot"))
    seen = _proxy(slot, proxy)
    bare = second.get("none") is True
    answer: dict[str, Any] = {
        "slot": slot,
        "status": "unavailable",
        "cause": None,
        "detail": None,
        "rests_on": [*([] if bare else ["service"]), *(["proxy"] if proxy is not None or bare else [])],
        "first_sample": None if first is None else first_sample,
        **dict.fromkeys(OWN_FIGURES),
        **seen,
        "views_gap": None,
        **_probes(probes),
        **dict.fromkeys(("mode", "version", "chaos", "uptime_seconds")),
    }
    try:
        if bare:
            answer.update(_by_proxy(first, second, seen))
        else:
            later = parse(second, names)
            answer.update(facts(later))
            if first is None:
                raise EvidenceProblem("one_sample", "there is one sample only, figures need a second one")
            earlier = _earlier(first, names)
            if first_sample == "kept":
                _unchanged(earlier, later)
            answer.update(compute(earlier, later, names, exclude))
            answer["views_gap"] = _views_gap(answer, health_interval)
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
    probes: Mapping[str, Mapping[str, Any]] | None = None,
    first_sample: str | None = "taken",
    own_names: Mapping[str, Mapping[str, Any]] | None = None,
    health_interval: float = 0.0,
) -> dict[str, dict[str, Any]]:
    """Slot to evidence record, for every slot of ``second``. A slot in ``own_names`` has other ``names``.

    ``probes``: slot to the counts of its probes.
    """
    earlier = {str(one.get("slot")): one for one in first}
    return {
        str(one["slot"]): record(
            earlier.get(str(one["slot"])),
            one,
            (own_names or {}).get(str(one["slot"]), names),
            exclude,
            proxy=proxy,
            probes=(probes or {}).get(str(one["slot"])),
            first_sample=first_sample,
            health_interval=health_interval,
        )
        for one in second
    }


def added(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> dict[str, Any]:
    """The counts of probes of two calls over the same window, together."""
    if not before:
        return dict(now)
    words = {**(before.get("by_slot") or {}), **now["by_slot"]}
    return {
        **{name: count + int(before.get(name, 0)) for name, count in now.items() if name != "by_slot"},
        "by_slot": {word: _sum(before.get("by_slot", {}).get(word), now["by_slot"].get(word)) for word in words},
    }


def _sum(one: Mapping[str, int] | None, other: Mapping[str, int] | None) -> dict[str, int]:
    one, other = one or {}, other or {}
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}


def of_slots(counts: Mapping[str, Any], slots: Sequence[str], words: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """Slot to the counts of its probes. Without words nginx chose, and they are told of each slot."""
    if len(words) != len(slots):
        return dict.fromkeys(slots, counts)
    return {slot: counts["by_slot"].get(word, {}) for slot, word in zip(slots, words, strict=True)}


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
