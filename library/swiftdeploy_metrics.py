#!/usr/bin/python
# Apache-2.0 (see LICENSE)
"""Measure the slots of a stack over a window."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: swiftdeploy_metrics
short_description: Measure the slots of a stack over a window
version_added: "0.1.0"
description:
  - Scrapes the metrics of each slot from the slot itself, sends probes through nginx for the length of the window,
    scrapes again, and reads nginx's access log for the same window. The action plugin of the same name makes one
    evidence record for each slot out of that, on the controller.
  - All figures are differences over the window, never lifetime counters. A counter that went down is a restart, its
    new value is the difference. Percentiles are those of Prometheus's C(histogram_quantile) over the summed buckets.
  - A slot that cannot be measured is a record with C(status=unavailable), a C(cause) and a C(detail). The task does
    not fail for it, since what follows from it is decided by policy.
  - The proxy's view counts the requests that ended in the window and reached a slot. A 502 or 504 that nginx made
    because the slot did not answer is an error of the slot, and so is an answer that the slot broke off. 499 (the
    client went away without an answer) is a figure of its own, and so are the other answers of 400 to 499.
    Requests that nginx answered by itself are left out, and those whose client chose the slot. Its percentiles are
    exact, by nearest rank.
  - A request that nginx tried at one slot in vain, before another one answered it, is an error of the first as well,
    where the log has C(upstream_status) and O(slots[].match) tells whose the addresses are.
  - Health, metrics and chaos paths are evidence of neither view.
options:
  slots:
    description: The slots to measure.
    type: list
    elements: dict
    required: true
    suboptions:
      slot:
        description: Name of the slot.
        type: str
        required: true
      url:
        description: Where the slot shows its metrics, past the proxy. Without it the proxy's view is all there is.
        type: str
        default: ""
      match:
        description: Values of C(upstream) in the access log that mean this slot, used where the log names no slot, and
          for attempts that were followed by another one.
        type: list
        elements: str
        default: []
      names:
        description: What its metrics are called, instead of O(names).
        type: dict
  window_seconds:
    description:
      - Seconds between the two scrapes. V(0) takes one scrape; with O(first_samples) that is the second one.
      - With O(first_samples), only what is left of the window since they were taken is waited for. So the same
        first samples with a larger and larger window give evidence that grows from one begin.
    type: float
    default: 30.0
  timeout:
    description: Seconds for one scrape in all, however slowly the server sends.
    type: float
    default: 5.0
  first_samples:
    description: The C(samples) or the C(first) that an earlier call returned. They are the first scrape then.
    type: list
    elements: dict
  kept:
    description:
      - Samples that are kept on the host between runs. The second scrape is added to them, except in check mode.
      - Where O(kept.use) says so and every slot has a kept sample of its present release that is at least
        O(kept.window_seconds) and at most O(kept.max_age) old, that is the first scrape. Then nothing is waited for
        and no probe is sent, and the access log is read for the same past window.
      - Where the evidence of that is less than O(kept.min_requests) at the service or at the proxy, or cannot be had,
        or where the service has been restarted or its mode, version or fault injection have changed since, it is
        measured as if nothing were kept.
      - The proxy's view is over exactly O(window_seconds) up to now all the same.
    type: dict
    suboptions:
      path:
        description: The file. Its folder must exist.
        type: path
        required: true
      releases:
        description: The id of the release in each slot. Samples of others are dropped.
        type: dict
        required: true
      window_seconds:
        description: A sample that is younger is no first scrape.
        type: float
        required: true
      max_age:
        description: Seconds after which a sample is dropped.
        type: float
        required: true
      min_requests:
        description: Requests that make evidence enough.
        type: int
        default: 1
      use:
        description: Whether kept samples may be the first scrape. Without it they are only added to.
        type: bool
        default: false
  probes:
    description: Requests of our own, sent evenly over the window. Without it none are sent.
    type: dict
    suboptions:
      url:
        description: What to ask, through nginx.
        type: str
        required: true
      count:
        description: How many, for each of O(probes.slots) if there are any.
        type: int
        default: 20
      slots:
        description:
          - Words for slots that nginx routes by, C(canary) and C(stable), in the order of O(slots). Probes are sent for
            each of them, with the word in the header C(X-SwiftDeploy-Slot). Without it that header is not sent.
        type: list
        elements: str
        default: []
      header_value:
        description: Value of the C(X-SwiftDeploy-Probe) header, which nobody else knows. Probes are found by it in the
          access log, so it is needed for those of an earlier call too; O(probes.count) may be V(0).
        type: str
        required: true
      host_header:
        description: Value of the C(Host) header, by default what O(probes.url) says.
        type: str
      timeout:
        description: Seconds for one probe. One that fails, takes longer or is answered 500 or more counts as failed.
        type: float
        default: 10.0
  watch:
    description:
      - Slots that are asked how they are while the window runs, at its begin and then each O(watch[].interval).
      - A slot is unhealthy after O(watch[].retries) failures in a row. The window ends at once then, and probes
        that are not sent yet are not sent.
    type: list
    elements: dict
    default: []
    suboptions:
      slot:
        description: Name of the slot.
        type: str
        required: true
      url:
        description: What to ask.
        type: str
        required: true
      timeout:
        description: Seconds for one answer.
        type: float
        default: 5.0
      interval:
        description: Seconds between two questions.
        type: float
        default: 5.0
      retries:
        description: How many failures in a row are too many.
        type: int
        default: 3
      failures:
        description: Failures in a row that an earlier call ended with (its C(failures)). They count on.
        type: int
        default: 0
      health:
        description: How to ask and what is healthy, C(services.healthcheck) of the release. Without it 200 to 299 is.
        type: dict
        default: {}
  stack_dir:
    description: Folder of the stack, whose secrets are masked in what the slots say.
    type: path
  proxy_log:
    description: Where nginx's access log is. Without it the proxy's figures are null.
    type: dict
    suboptions:
      kind:
        description: A file (with its rotated predecessors C(.1), C(.2) ...), or the output of a container.
        type: str
        choices: [file, docker]
        required: true
      path:
        description: The file.
        type: str
      container:
        description: The container.
        type: str
  mark_url:
    description:
      - A folder of nginx's that answers nothing and is logged. A word is written there before and after the window, so
        that the log shows by itself that it reaches over all of it. Without it a log that is whole is not proven to
        be so.
    type: str
    default: ""
  health_interval:
    description: Seconds between two health checks of a slot, which a service counts as well where its metrics name no
      path. V(0) for none.
    type: float
    default: 0.0
  probes_before:
    description: The C(probes) of earlier calls over the same window, added up. They count in the evidence as well.
    type: dict
  names:
    description:
      - The manifest's C(services.metrics), what the service calls its metrics.
      - Keys are C(path), C(requests), C(duration) and C(status_labels).
    type: dict
    default: {}
  exclude_paths:
    description: More paths that are no evidence, besides C(/healthz), C(/metrics) and C(/chaos).
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Does the same in check mode, except that O(kept) is not added to. Probes are ordinary reading requests.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
  idempotent:
    description: Changes nothing.
    support: full
author:
  - SwiftDeploy maintainers (@swiftdeploy)
"""

EXAMPLES = r"""
- name: Measure the live slot for 30 seconds
  swiftdeploy_metrics:
    slots:
      - slot: blue
        url: http://127.0.0.1:18080/metrics
        match: ["127.0.0.1:18080"]
    window_seconds: 30
    probes:
      url: http://127.0.0.1:8080/
      count: 20
      header_value: "{{ run_id }}"
    proxy_log:
      kind: file
      path: /home/me/.swiftdeploy/logs/nginx.log
    names: "{{ manifest.services.metrics }}"
    exclude_paths: ["{{ manifest.services.healthcheck.path }}"]
  register: measured

- name: Measure a canary for 10 of its 30 seconds, and end early when it dies
  swiftdeploy_metrics:
    slots: "{{ slots }}"
    window_seconds: 10
    probes:
      url: http://127.0.0.1:8080/
      count: 7
      slots: [canary, stable]
      header_value: "{{ run_id }}"
    watch:
      - slot: green
        url: http://127.0.0.1:18081/healthz
        interval: 2
  register: tick

- name: Go on up to 20 seconds
  swiftdeploy_metrics:
    slots: "{{ slots }}"
    window_seconds: 20
    first_samples: "{{ tick.first }}"
    watch:
      - slot: green
        url: http://127.0.0.1:18081/healthz
        interval: 2
        failures: "{{ tick.failures.green }}"

- name: Measure without waiting, where an earlier run has left what that needs
  swiftdeploy_metrics:
    slots: "{{ slots }}"
    window_seconds: 30
    kept:
      path: /home/me/.swiftdeploy/app/samples.json
      releases: {blue: 20261121T035500-1-0-0}
      window_seconds: 30
      max_age: 60
      min_requests: 20
      use: true

- name: Look again, without waiting
  swiftdeploy_metrics:
    slots: "{{ slots }}"
    window_seconds: 0
    first_samples: "{{ measured.samples }}"
"""

RETURN = r"""
evidence:
  description:
    - One record for each slot, by its name.
    - Times are milliseconds, rates of errors 0 to 1. A figure is null where nothing was there to measure.
    - C(cause) is one of refused, timeout, http_status, unreachable, bad_url, bad_answer, incomplete, too_large,
      not_prometheus, bad_value, family_missing, one_sample, clock, changed.
    - C(first_sample) is C(taken) (by this call), C(given) (O(first_samples)) or C(kept) (O(kept)).
    - C(rests_on) are the views that there are. With C([proxy]) alone the service's figures are the proxy's.
    - All figures are described in C(docs/evidence.md).
    - With C(status=unavailable) the figures of the service are null; what was learnt otherwise is still there.
  returned: success
  type: dict
  sample:
    blue:
      slot: blue
      status: measured
      cause: null
      detail: null
      rests_on: [service, proxy]
      counted_by: http_requests_total
      untold: {}
      first_sample: taken
      window_seconds: 30.0
      requests: 412
      requests_seen: 415
      client_error_rate: 0.0072
      req_per_sec: 13.83
      error_rate: 0.0
      p50_latency_ms: 4.1
      p95_latency_ms: 22.5
      p99_latency_ms: 48.0
      p99_bucket_ms: [25.0, 50.0]
      paths_told: true
      proxy_window_seconds: 30.1
      proxy_requests: 412
      proxy_seen: 415
      proxy_answered: 412
      proxy_error_rate: 0.0
      proxy_broken: 0
      proxy_client_error_rate: 0.0072
      proxy_p50_latency_ms: 4.0
      proxy_p95_latency_ms: 21.0
      proxy_p99_latency_ms: 47.0
      proxy_probes: 20
      proxy_forced: 0
      proxy_left: 0
      proxy_abandoned: 0
      proxy_methods: {GET: 415}
      proxy_truncated: false
      proxy_detail: null
      abandoned_rate: 0.0
      largest_source_share: 0.21
      rest_requests: 310
      rest_error_rate: 0.0
      unexercised: []
      unexercised_share: 0.0
      views_gap: 0.0
      probes_sent: 20
      probes_failed: 0
      probes_refused: 0
      probes_failed_rate: 0.0
      probe_share: 0.0485
      mode: stable
      version: "1.0.0"
      chaos: none
      uptime_seconds: 3600.5
samples:
  description:
    - The last scrape, raw, to be the O(first_samples) of a later call.
    - Either C(slot), C(at) (unix seconds), C(body), C(content_type), or C(slot), C(at), C(cause), C(detail), or
      C(slot), C(at) and C(none) for a slot without metrics. With O(mark_url), C(mark) as well.
  returned: success
  type: list
  elements: dict
first:
  description:
    - The first scrape, raw, in the form of C(samples).
    - Empty when O(first_samples) were given, or none was taken.
  returned: success
  type: list
  elements: dict
first_sample:
  description: Where the first scrape is from, V(taken), V(given) or V(kept); null when there was none.
  returned: success
  type: str
  sample: taken
unhealthy:
  description: Why each slot of O(watch) that is not healthy is not, in words. Empty when all are well.
  returned: success
  type: dict
  sample: {green: "nothing listens at http://127.0.0.1:18081/healthz, 3 times in a row"}
failures:
  description:
    - How many times in a row each slot of O(watch) had failed at the end.
    - To be O(watch[].failures) of a later call, so that a window shorter than the retries take misses nothing.
  returned: success
  type: dict
  sample: {green: 3}
probes:
  description:
    - How many probes were sent in all, how many of them failed, and how many were answered 400 to 499; the same in
      C(by_slot) for each word of O(probes.slots).
    - One whose answer an early end did not wait for is not failed.
    - What O(probes_before) gave is in it.
  returned: success
  type: dict
  sample: {sent: 20, failed: 0, client_errors: 0, by_slot: {"": {sent: 20, failed: 0, client_errors: 0}}}
window:
  description:
    - Begin and end of the window in unix seconds, null after a single scrape.
    - The end is early when a slot of O(watch) is unhealthy.
  returned: success
  type: dict
  sample: {since: 1795233300.1, until: 1795233330.2}
"""

import re
import secrets
import time
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.swiftdeploy_target import secret_values
from ansible.module_utils.swiftdeploy_target.access_log import proxy_figures
from ansible.module_utils.swiftdeploy_target.http import FetchError, fetch
from ansible.module_utils.swiftdeploy_target.probes import nothing, send_all
from ansible.module_utils.swiftdeploy_target.samples import Keeping, Now, keep, pick
from ansible.module_utils.swiftdeploy_target.scrape import scrape_all
from ansible.module_utils.swiftdeploy_target.surroundings import clear_surroundings
from ansible.module_utils.swiftdeploy_target.watch import Watch

# Bytes that nginx may answer where it writes a mark.
MAX_BODY = 64 * 1024
# What of a sample is the service's own words.
QUOTED = ("body", "detail")
LIMITS = {"window_seconds": (0, 3600), "timeout": (0.01, 300)}
WATCH_LIMITS = {"timeout": (0.01, 300), "interval": (0.1, 3600), "retries": (1, 1000), "failures": (0, 1000000)}


class Clock:
    """Unix time that a step of the system's clock in the middle of a window does not bend."""

    def __init__(self) -> None:
        self._ticks = time.monotonic()
        self._at = time.time()

    def __call__(self) -> float:
        return self.now().at

    def now(self) -> Now:
        """This moment by both clocks."""
        ticks = time.monotonic()
        return Now(self._at + ticks - self._ticks, ticks)


class Begin(NamedTuple):
    """How the window begins.

    The samples if they are not the caller's own, where they are from, since when it runs, and what was written to the
    access log right before.
    """

    samples: List[Dict[str, Any]]
    kind: Optional[str]
    since: Optional[float]
    mark: str = ""


def latest(samples: List[Dict[str, Any]], kind: str, mine: bool) -> Begin:
    """A window that runs from the last of ``samples`` on, so that every slot has its whole window."""
    last = max(samples, key=lambda one: float(one["at"]))
    return Begin(samples if mine else [], kind, float(last["at"]), str(last.get("mark") or ""))


def keeping(options: Dict[str, Any]) -> Optional[Keeping]:
    """Option kept in the form that samples takes."""
    kept = options["kept"]
    if not kept:
        return None
    releases = {str(slot): str(release) for slot, release in kept["releases"].items()}
    return Keeping(Path(kept["path"]), releases, kept["window_seconds"], kept["max_age"])


def begin(options: Dict[str, Any], clock: Clock) -> Begin:
    """The first scrape: the caller's, else a kept one, else one that is taken now, else none."""
    slots, where = options["slots"], keeping(options)
    given = [one for one in options["first_samples"] or [] if isinstance(one.get("at"), (int, float))]
    if given:
        return latest(given, "given", mine=False)
    if where is not None and options["kept"]["use"]:
        kept = pick(where, [one["slot"] for one in slots], clock.now())
        if kept:
            return latest(kept, "kept", mine=True)
    if options["window_seconds"] > 0 and slots:
        return latest(scraped(options, clock), "taken", mine=True)
    return Begin([], None, None)


def marked(options: Dict[str, Any]) -> str:
    """Have nginx write a line of its own to the access log; what it is found by there, empty where that failed."""
    word = secrets.token_hex(8)
    try:
        fetch(f"{options['mark_url'].rstrip('/')}/{word}", options["timeout"], {"User-Agent": "swiftdeploy"}, MAX_BODY)
    except FetchError:
        return ""
    return word


def scraped(options: Dict[str, Any], clock: Clock) -> List[Dict[str, Any]]:
    """A sample of each slot, each with what was written to the access log before it. In the order of the slots.

    A slot without an address for its metrics has a sample that says no more than when it was.
    """
    mark = {"mark": marked(options)} if options["mark_url"] else {}
    slots = options["slots"]
    taken = {one["slot"]: one for one in scrape_all([one for one in slots if one["url"]], options["timeout"], clock)}
    bare = {"at": clock(), "none": True}
    return [{**taken.get(one["slot"], {"slot": one["slot"], **bare}), **mark} for one in slots]


def measure(options: Dict[str, Any]) -> Dict[str, Any]:
    """Scrape, probe and watch, scrape again, read the log.

    Answers first, first_sample, samples, probes, unhealthy, failures, proxy, window, and problems: what could not be
    kept, in words.
    """
    clock = Clock()
    window: float = options["window_seconds"]
    start_of = begin(options, clock)
    first, kind, since = start_of.samples, start_of.kind, start_of.since
    remaining = 0.0
    if since is not None and kind != "kept":
        remaining = min(window, max(0.0, since + window - clock()))
    start = time.monotonic()
    probes: Dict[str, Any] = {**nothing(), "by_slot": {}}
    watch = Watch(options["watch"], options["stack_dir"] and Path(options["stack_dir"]))
    watch.start()
    if kind != "kept" and options["probes"] and options["probes"]["count"] > 0:
        probes = send_all(options["probes"], start, remaining, watch.ended)
    watch.ended.wait(max(0.0, start + remaining - time.monotonic()))
    until = clock()
    samples = scraped(options, clock)
    proxy = None
    if options["proxy_log"] and since is not None:
        # A sample of an earlier run says nothing about the proxy, whose log has exactly the last window.
        proxy_since = max(since, until - window) if kind == "kept" else since
        proxy = proxy_figures(
            options["proxy_log"],
            options["slots"],
            proxy_since,
            until,
            options["exclude_paths"],
            own=(options["probes"] or {}).get("header_value") or "",
            seen_since=since,
            marks=(start_of.mark, samples[0]["mark"]) if options["mark_url"] and samples else None,
        )
        proxy["window_seconds"] = until - proxy_since
    # Last, as it may have to wait for an answer.
    watch.stop()
    return {
        "first": first,
        "first_sample": kind,
        "samples": samples,
        "probes": probes,
        "unhealthy": watch.unhealthy,
        "failures": watch.failures,
        "proxy": proxy,
        "window": None if since is None else {"since": since, "until": until},
        "problems": [] if options["check"] else keep_samples(options, samples, clock.now()),
    }


def hidden(samples: List[Dict[str, Any]], stack_dir: Optional[str]) -> List[Dict[str, Any]]:
    """The samples without the secrets of the stack, as they may leave the host."""
    if not stack_dir:
        return samples
    return [
        {
            **one,
            **{key: secret_values.masked(Path(stack_dir), one[key], figures=True) for key in QUOTED if one.get(key)},
        }
        for one in samples
    ]


def keep_samples(options: Dict[str, Any], samples: List[Dict[str, Any]], now: Now) -> List[str]:
    """Add ``samples`` to option kept. Answers why it could not be done: that must not end a measurement."""
    where = keeping(options)
    try:
        if where is not None:
            keep(where, samples, now)
    except OSError as error:
        why = error.strerror or error
        return [f"the samples cannot be kept in {options['kept']['path']} ({why}): the next gate waits for a window"]
    return []


def wrong(options: Dict[str, Any]) -> Optional[str]:
    """What is out of range in ``options``, in words, or None."""
    for name, (lowest, highest) in LIMITS.items():
        if not lowest <= options[name] <= highest:
            return f"{name} is {options[name]:g}, allowed is {lowest} to {highest} seconds"
    kept = options["kept"]
    if kept and not 0 < kept["window_seconds"] <= kept["max_age"]:
        return (
            f"kept.window_seconds is {kept['window_seconds']:g}, allowed is more than 0 and at most kept.max_age "
            f"({kept['max_age']:g})"
        )
    return wrong_probes(options["probes"]) or wrong_watch(options["watch"])


def wrong_probes(probes: Optional[Dict[str, Any]]) -> Optional[str]:
    """What is out of range in option probes, in words, or None."""
    if probes is None:
        return None
    if not 0 <= probes["count"] <= 10000:
        return f"probes.count is {probes['count']}, allowed is 0 to 10000"
    for word in probes["slots"]:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", word):
            return f"probes.slots has {word!r}, allowed are words of letters, digits, - and _"
    if not 0.01 <= probes["timeout"] <= 300:
        return f"probes.timeout is {probes['timeout']:g}, allowed is 0.01 to 300 seconds"
    return None


def wrong_watch(watch: List[Dict[str, Any]]) -> Optional[str]:
    """What is out of range in option watch, in words, or None."""
    names = [one["slot"] for one in watch]
    if len(names) != len(set(names)):
        return f"watch names a slot twice: {', '.join(names)}"
    for one in watch:
        for name, (lowest, highest) in WATCH_LIMITS.items():
            if not lowest <= one[name] <= highest:
                return f"watch.{name} of slot {one['slot']} is {one[name]:g}, allowed is {lowest} to {highest}"
    return None


def main() -> None:
    """Run the module."""
    clear_surroundings()
    module = AnsibleModule(
        argument_spec={
            "slots": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "slot": {"type": "str", "required": True},
                    "url": {"type": "str", "default": ""},
                    "match": {"type": "list", "elements": "str", "default": []},
                },
            },
            "window_seconds": {"type": "float", "default": 30.0},
            "timeout": {"type": "float", "default": 5.0},
            "first_samples": {"type": "list", "elements": "dict"},
            "kept": {
                "type": "dict",
                "options": {
                    "path": {"type": "path", "required": True},
                    "releases": {"type": "dict", "required": True},
                    "window_seconds": {"type": "float", "required": True},
                    "max_age": {"type": "float", "required": True},
                    "min_requests": {"type": "int", "default": 1},
                    "use": {"type": "bool", "default": False},
                },
            },
            "probes": {
                "type": "dict",
                "options": {
                    "url": {"type": "str", "required": True},
                    "count": {"type": "int", "default": 20},
                    "slots": {"type": "list", "elements": "str", "default": []},
                    "header_value": {"type": "str", "required": True},
                    "host_header": {"type": "str"},
                    "timeout": {"type": "float", "default": 10.0},
                },
            },
            "watch": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "slot": {"type": "str", "required": True},
                    "url": {"type": "str", "required": True},
                    "timeout": {"type": "float", "default": 5.0},
                    "interval": {"type": "float", "default": 5.0},
                    "retries": {"type": "int", "default": 3},
                    "failures": {"type": "int", "default": 0},
                    "health": {"type": "dict", "default": {}},
                },
            },
            "proxy_log": {
                "type": "dict",
                "options": {
                    "kind": {"type": "str", "choices": ["file", "docker"], "required": True},
                    "path": {"type": "str"},
                    "container": {"type": "str"},
                },
                "required_if": [("kind", "file", ["path"]), ("kind", "docker", ["container"])],
            },
            "mark_url": {"type": "str", "default": ""},
            "stack_dir": {"type": "path"},
            # Used on the controller only.
            "names": {"type": "dict", "default": {}},
            "health_interval": {"type": "float", "default": 0.0},
            "probes_before": {"type": "dict"},
            "exclude_paths": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    problem = wrong(module.params)
    if problem:
        module.fail_json(msg=problem)
    result = measure({**module.params, "check": module.check_mode})
    result.update({key: hidden(result[key], module.params["stack_dir"]) for key in ("first", "samples")})
    for words in result.pop("problems"):
        module.warn(words)
    # What is kept is no part of the stack's desired state.
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
