# METADATA
# title: Is the service healthy enough to promote?
# description: >-
#   Input: environment, evidence (one slot's record over a window), min_requests (from the manifest);
#   optionally baseline (the record of the stable slot over the same window) and partial (true while the
#   window has not ended, when other thresholds hold).
#   Too little evidence is an outcome of its own, insufficient: neither a pass nor a verdict on the service.
package swiftdeploy.canary

import data.swiftdeploy.lib
import data.swiftdeploy.override

# The figures without which there is no answer, and the side on which each must have a limit.
required := {
	"error_rate": "max",
	"p99_latency_ms": "max",
	"requests": "min",
}

# What the proxy sees of the same requests, held against the same limits: a queue in front of the
# service is invisible to the service itself.
proxied := {"error_rate", "p99_latency_ms"}

# How much worse than the baseline a figure is, by the name of its threshold.
increases := {
	"error_rate": "error_rate_increase",
	"p99_latency_ms": "p99_latency_increase_ms",
}

increase_names := {name | some name in increases}

wordings := {
	"error_rate": {
		"text": "error rate is %s %%",
		"limit": "%s %%",
		"scale": 100,
		"decimals": 2,
		"limit_decimals": 2,
	},
	"p99_latency_ms": {
		"text": "P99 latency is %s ms",
		"limit": "%s ms",
		"scale": 1,
		"decimals": 0,
		"limit_decimals": 0,
	},
	"error_rate_increase": {
		"text": "error rate is %s percentage points above the baseline",
		"limit": "%s",
		"scale": 100,
		"decimals": 2,
		"limit_decimals": 2,
	},
	"p99_latency_increase_ms": {
		"text": "P99 latency is %s ms above the baseline",
		"limit": "%s ms",
		"scale": 1,
		"decimals": 0,
		"limit_decimals": 0,
	},
}

# A look before the end of the window sees few requests and must not deny on noise, so it has a table of its own.
default table := "canary"

table := "canary_partial" if question.partial == true

configured := lib.configured(table)

default question := {}

question := input if is_object(input)

default evidence := {}

evidence := input.evidence if is_object(input.evidence)

# What the manifest asks for, but never less than the policy's own floor.
requests_needed := max([question.min_requests, floor_]) if {
	lib.is_figure(question.min_requests)
	floor_ := effective.requests.min
	lib.is_figure(floor_)
}

# Where that number is changed.
where_needed := "the manifest: canary.min_requests" if question.min_requests >= effective.requests.min

where_needed := lib.place(table, lib.owner(table, ["requests", "min"]), ["requests"]) if {
	question.min_requests < effective.requests.min
}

effective := lib.effective(configured)

# Limits on figures of the evidence; the number of requests is a matter of sufficiency instead.
limits := object.remove(effective, {"requests"} | increase_names)

# Limits on how much worse than the baseline those figures may be. None is required.
increase_limits := object.filter(effective, increase_names)

judged := object.keys(limits) | (object.keys(required) - {"requests"})

measured if evidence.status == "measured"

enough if sufficient(evidence, "requests")

# METADATA
# title: Reasons why the evidence is no ground for a verdict
insufficiency contains sprintf("evidence of %s is unavailable: %s", [slot, detail]) if not measured

insufficiency contains reason if {
	measured
	some reason in lib.unmeasured({"requests"}, evidence)
}

insufficiency contains sprintf("min_requests is %s, not a number of 0 or more", [found]) if {
	not lib.is_figure(object.get(question, "min_requests", null))
	found := lib.found(question, "min_requests")
}

insufficiency contains sprintf("%s%s, at least %s are needed (%s)", [
	requests_text,
	window_text,
	lib.exact(requests_needed, 0),
	where_needed,
]) if {
	measured
	lib.is_figure(evidence.requests)
	evidence.requests < requests_needed
}

# Figures are null where nothing was counted, so they are missed only once there were requests enough.
insufficiency contains reason if {
	measured
	enough
	some reason in lib.unmeasured(judged, evidence)
}

insufficiency contains sprintf("at the proxy, %s", [reason]) if {
	some reason in lib.unmeasured(proxy_missed, at_proxy)
}

insufficiency contains reason if {
	object.get(evidence, "proxy_requests", null) != null
	some reason in lib.unmeasured({"proxy_requests"}, evidence)
}

# METADATA
# title: Limits that what was measured breaks, and limits that cannot be used
breaches := (wrong | violations(evidence, baseline_at_service)) | {sprintf("at the proxy, %s", [reason]) | some reason in violations(at_proxy, baseline_at_proxy)}

wrong := lib.wrong_thresholds(table, required, effective)

# Figures of one view (the service's or the proxy's) against the limits and the same view's baseline.
violations(figures, base) := absolute | relative if {
	absolute := lib.violations(table, wordings, held(excused(figures, base)), figures)
	relative := lib.violations(table, wordings, increase_limits, grown(figures, base))
}

# A bad day of the whole service is not the canary's fault: where the baseline is past the limit too, only
# the increase counts. Without a limit on the increase nothing would be left that counts, so nothing is excused.
excused(figures, base) := {figure |
	some figure, increase in increases
	limit := limits[figure].max
	every value in [limit, figures[figure], base[figure], increase_limits[increase].max] {
		lib.is_figure(value)
	}
	lib.breaks("max", figures[figure], limit)
	lib.breaks("max", base[figure], limit)
}

# The limits, without the maximum of what is excused.
held(figures) := {figure: bounds |
	some figure, given in limits
	bounds := held_bounds(figures, figure, given)
}

held_bounds(figures, figure, bounds) := object.remove(bounds, ["max"]) if figure in figures

held_bounds(figures, figure, bounds) := bounds if not figure in figures

# Where the canary is better than the baseline the increase is 0. Rounded, as 0.03 - 0.02 is not quite 0.01.
grown(figures, base) := {increase: value |
	some figure, increase in increases
	lib.is_figure(figures[figure])
	lib.is_figure(base[figure])
	value := max([0, round((figures[figure] - base[figure]) * 1000000000) / 1000000000])
}

# The proxy's figures under the names they are judged by.
at_proxy := proxy_view(evidence)

proxy_view(record) := {figure: value |
	some figure in proxied
	value := record[sprintf("proxy_%s", [figure])]
}

default baseline := {}

baseline := question.baseline if is_object(question.baseline)

# What the baseline is good for. Only a measured one with requests enough is held against the canary.
default baseline_status := "unavailable"

baseline_status := "none" if object.get(question, "baseline", null) == null

baseline_status := "measured" if {
	baseline.status == "measured"
	sufficient(baseline, "requests")
}

baseline_status := "insufficient" if {
	baseline.status == "measured"
	not sufficient(baseline, "requests")
}

sufficient(record, figure) if {
	lib.is_figure(record[figure])
	record[figure] >= requests_needed
}

default baseline_at_service := {}

baseline_at_service := baseline if baseline_status == "measured"

# The proxy may have seen fewer requests than the service, so its part must be enough by itself.
default baseline_at_proxy := {}

baseline_at_proxy := proxy_view(baseline) if {
	baseline_status == "measured"
	sufficient(baseline, "proxy_requests")
}

# Proxy figures that ought to be there and are not: all of them once the proxy counted requests, and any that is given as something else than a figure.
proxy_missed := proxied if {
	counted := object.get(evidence, "proxy_requests", null)
	counted != null
	counted != 0
} else := {figure | some figure, value in at_proxy; value != null}

reasons := insufficiency | breaches

default insufficient := false

insufficient if insufficiency != set()

default allow := false

allow if {
	measured
	enough
	reasons == set()
}

default slot := "the service"

slot := sprintf("slot %s", [evidence.slot]) if is_string(evidence.slot)

default detail := "no reason was given"

detail := evidence.detail if is_string(evidence.detail)

requests_text := "1 request" if evidence.requests == 1

requests_text := sprintf("%s requests", [lib.exact(evidence.requests, 0)]) if evidence.requests != 1

default window_text := ""

window_text := sprintf(" in %s s", [lib.exact(round(evidence.window_seconds * 10) / 10, 0)]) if {
	lib.is_figure(evidence.window_seconds)
}

told := (judged | {"status", "slot", "window_seconds", "requests", "proxy_requests"}) | proxy_names(proxied)

proxy_names(names) := {sprintf("proxy_%s", [name]) | some name in names}

# Told only of a step of a canary, where there is or might be a baseline.
default compared := {}

compared := {"baseline_status": baseline_status} if {
	"partial" in object.keys(question)
	not "baseline" in object.keys(question)
}

compared := object.union_n([
	{sprintf("baseline_%s", [name]): object.get(baseline, name, null) | some name in of_baseline},
	{name: object.get(grown(evidence, baseline_at_service), name, null) | some name in increase_names},
	{sprintf("proxy_%s", [name]): object.get(grown(at_proxy, baseline_at_proxy), name, null) | some name in increase_names},
	{
		"baseline_status": baseline_status,
		"excused": sort(excused(evidence, baseline_at_service) | proxy_names(excused(at_proxy, baseline_at_proxy))),
	},
]) if {
	"baseline" in object.keys(question)
}

of_baseline := ({"requests", "proxy_requests"} | proxied) | proxy_names(proxied)

# Limits on an increase are told only where there might have been one.
shown_limits := effective if "baseline" in object.keys(question)

shown_limits := object.remove(effective, increase_names) if not "baseline" in object.keys(question)

source := lib.source(configured) if table == "canary"

source := sprintf("%s.%s", [table, lib.source(configured)]) if table != "canary"

default requests_limit := {}

requests_limit := {"requests": {"min": requests_needed}}

# METADATA
# entrypoint: true
decision := override.applied({
	"domain": "canary",
	"allow": allow,
	"insufficient": insufficient,
	"reasons": sort(reasons),
	"checked": object.union({name: object.get(evidence, name, null) | some name in told}, compared),
	"thresholds": object.union_n([shown_limits, requests_limit, {
		"environment": lib.environment,
		"source": source,
	}]),
})
