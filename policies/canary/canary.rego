# METADATA
# title: Is the service healthy enough to promote?
# description: >-
#   Input: environment, evidence (one slot's record over a window), min_requests (from the manifest);
#   optionally baseline (the record of the stable slot over the same window) and partial (true while the
#   window has not ended, when other thresholds hold).
#   Too little evidence is an outcome of its own, insufficient: neither a pass nor a verdict on the service. So is
#   evidence that contradicts itself. What the proxy alone proves (users get errors, leave without an answer, our own
#   probes fail) is a denial whatever the service says of itself.
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

# Figures of which fewer than that are not judged.
floors := {"requests", "rest_requests", "probes_sent"}

# What was tried and had no answer. Needs no answers to be a verdict.
attempted := {"abandoned_rate", "probes_failed_rate"}

# How far the evidence can be believed. Past these limits it is none.
trusted := {"views_gap", "largest_source_share", "unexercised_share"}

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
	"abandoned_rate": {
		"text": "%s %% of the clients left without an answer",
		"limit": "%s %%",
		"scale": 100,
		"decimals": 2,
		"limit_decimals": 2,
	},
	"probes_failed_rate": {
		"text": "%s %% of our own probes had no answer or an error",
		"limit": "%s %%",
		"scale": 100,
		"decimals": 2,
		"limit_decimals": 2,
	},
	"views_gap": {
		"text": "the numbers of requests at the service and at the proxy are %s %% apart",
		"limit": "%s %%",
		"scale": 100,
		"decimals": 0,
		"limit_decimals": 0,
	},
	"largest_source_share": {
		"text": "one address sent %s %% of the clients' requests",
		"limit": "%s %%",
		"scale": 100,
		"decimals": 0,
		"limit_decimals": 0,
	},
	"unexercised_share": {
		"text": "the canary had none of %s %% of what clients ask of the stable slot",
		"limit": "%s %%",
		"scale": 100,
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
limits := object.remove(effective, (((floors | attempted) | trusted) | increase_names))

# Limits on how much worse than the baseline those figures may be. None is required.
increase_limits := object.filter(effective, increase_names)

judged := object.keys(limits) | (object.keys(required) - {"requests"})

measured if evidence.status == "measured"

# The figures that are the service's own to tell. Where the proxy is all there is, they are told once, as the proxy's.
own := judged if "service" in views

own := judged - proxied if not "service" in views

# Which views there are. Where the evidence does not say, both are wanted.
default views := {"service", "proxy"}

views := {view | some view in evidence.rests_on} if {
	is_array(evidence.rests_on)
	count(evidence.rests_on) > 0
	every view in evidence.rests_on {
		view in {"service", "proxy"}
	}
}

default enough := false

enough if {
	every view in views {
		sufficient(evidence, {"service": "requests", "proxy": "proxy_requests"}[view])
	}
}

# Whether the proxy's figures are good for a verdict, whatever the service says.
proxy_whole if {
	"proxy" in views
	evidence.proxy_truncated == false
}

proxy_sound if {
	proxy_whole
	sufficient(evidence, "proxy_requests")
}

# METADATA
# title: Reasons why the evidence is no ground for a verdict
insufficiency contains sprintf("evidence of %s is unavailable: %s", [slot, detail]) if not measured

insufficiency contains reason if {
	measured
	"service" in views
	some reason in lib.unmeasured({"requests"}, evidence)
}

insufficiency contains sprintf("min_requests is %s, not a number of 0 or more", [found]) if {
	not lib.is_figure(object.get(question, "min_requests", null))
	found := lib.found(question, "min_requests")
}

insufficiency contains too_few("", evidence.requests, object.get(evidence, "window_seconds", null)) if {
	measured
	"service" in views
	lib.is_figure(evidence.requests)
	evidence.requests < requests_needed
}

insufficiency contains too_few("at the proxy, ", evidence.proxy_requests, object.get(evidence, "proxy_window_seconds", null)) if {
	measured
	"proxy" in views
	lib.is_figure(evidence.proxy_requests)
	evidence.proxy_requests < requests_needed
}

# Without this a service whose root is no page would be told to wait for users.
insufficiency contains sprintf("%s of %s probes were answered 400 to 499, which is no evidence (the manifest: canary.probe_path names what they ask for)", [
	lib.exact(evidence.probes_refused, 0),
	lib.exact(evidence.probes_sent, 0),
]) if {
	not enough
	lib.is_figure(evidence.probes_refused)
	lib.is_figure(evidence.probes_sent)
	evidence.probes_refused > 0
}

insufficiency contains sprintf("at the proxy, nothing is known: %s", [proxy_detail]) if {
	measured
	"proxy" in views
	not proxy_whole
}

insufficiency contains reason if {
	measured
	proxy_whole
	some reason in lib.unmeasured({"proxy_requests"}, evidence)
}

# Figures are null where nothing was counted, so they are missed only once there were requests enough.
insufficiency contains reason if {
	measured
	sufficient(evidence, "requests")
	some figure in own
	not excusable(figure)
	some reason in lib.unmeasured({figure}, evidence)
}

insufficiency contains sprintf("at the proxy, %s", [reason]) if {
	some reason in lib.unmeasured(proxy_missed, at_proxy)
}

insufficiency contains sprintf("%s: no evidence", [reason]) if {
	some reason in lib.violations(table, wordings, object.filter(effective, trusted), evidence)
}

# What the service does not tell, the proxy does.
excusable(figure) if {
	figure in proxied
	is_string(evidence.untold[figure])
	proxy_sound
}

too_few(where, requests, seconds) := sprintf("%s%s%s, at least %s are needed (%s)", [
	where,
	requests_text(requests),
	window_text(seconds),
	lib.exact(requests_needed, 0),
	where_needed,
])

# METADATA
# title: Limits that what was measured breaks, and limits that cannot be used
breaches := (wrong | at_service_broken) | certain

at_service_broken := violations(object.filter(at_service, own), baseline_at_service, growth_at_service, bucket_wordings)

# What is a verdict by itself, since the proxy saw it or we tried it.
certain := (at_proxy_broken | rest_broken) | attempts_broken

default at_proxy_broken := set()

at_proxy_broken := {sprintf("at the proxy, %s", [reason]) | some reason in violations(at_proxy, baseline_at_proxy, grown(at_proxy, baseline_at_proxy), wordings)} if proxy_sound

# One busy client must not hide what all others get.
default rest_broken := set()

rest_broken := {sprintf("at the proxy without its busiest client, %s", [reason]) | some reason in lib.violations(table, wordings, object.filter(limits, {"error_rate"}), {"error_rate": evidence.rest_error_rate})} if {
	proxy_sound
	over_floor("rest_requests")
	lib.is_figure(evidence.rest_error_rate)
	not "error_rate" in excused(at_proxy, baseline_at_proxy)
}

attempts_broken := {reason |
	some figure in attempted
	well_tried(figure)
	some reason in lib.violations(table, wordings, object.filter(effective, {figure}), evidence)
}

well_tried("abandoned_rate") if {
	proxy_whole
	lib.is_figure(evidence.proxy_abandoned)
	lib.is_figure(evidence.proxy_requests)
	evidence.proxy_abandoned + evidence.proxy_requests >= requests_needed
}

well_tried("probes_failed_rate") if over_floor("probes_sent")

over_floor(figure) if {
	lib.is_figure(evidence[figure])
	lib.is_figure(effective[figure].min)
	evidence[figure] >= effective[figure].min
}

wrong := lib.wrong_thresholds(table, required, effective)

# Figures of one view (the service's or the proxy's) against the limits and against how far they grew.
violations(figures, base, growth, words) := absolute | relative if {
	absolute := lib.violations(table, words, held(excused(figures, base)), figures)
	relative := lib.violations(table, words, increase_limits, growth)
}

# A histogram knows a quantile as one of its buckets. What is above the limit for certain is where that one begins;
# the rest is interpolation, and the proxy has the exact figure.
bucket := evidence.p99_bucket_ms if {
	is_array(evidence.p99_bucket_ms)
	lib.is_figure(evidence.p99_bucket_ms[0])
	lib.is_figure(evidence.p99_latency_ms)
}

at_service := evidence if not bucket

at_service := object.union(evidence, {"p99_latency_ms": bucket[0]}) if bucket

bucket_wordings := wordings if not bucket

bucket_wordings := object.union(wordings, {"p99_latency_ms": {"text": text}}) if {
	bucket
	text := sprintf("P99 latency is %s ms (by its bucket above %%s ms)", [lib.exact(round(evidence.p99_latency_ms), 0)])
}

# The baseline's own P99 may be as high as its bucket ends.
growth_at_service := grown(object.filter(at_service, own), object.union(baseline_at_service, baseline_top))

default baseline_top := {}

baseline_top := {"p99_latency_ms": baseline_bucket[1]} if baseline_bucket

baseline_bucket := baseline_at_service.p99_bucket_ms if is_array(baseline_at_service.p99_bucket_ms)

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

# Proxy figures that ought to be there and are not, once the proxy has counted requests enough.
default proxy_missed := set()

proxy_missed := proxied if proxy_sound

reasons := insufficiency | breaches

default insufficient := false

insufficient if {
	insufficiency != set()
	certain == set()
}

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

default proxy_detail := "no reason was given"

proxy_detail := evidence.proxy_detail if is_string(evidence.proxy_detail)

requests_text(1) := "1 request"

requests_text(number) := sprintf("%s requests", [lib.exact(number, 0)]) if number != 1

window_text(seconds) := sprintf(" in %s s", [lib.exact(round(seconds * 10) / 10, 0)]) if {
	lib.is_figure(seconds)
} else := ""

told := ((judged | attempted) | trusted) | (proxy_names(proxied) | {
	"status",
	"slot",
	"rests_on",
	"untold",
	"window_seconds",
	"requests",
	"p99_bucket_ms",
	"proxy_requests",
	"proxy_truncated",
	"proxy_abandoned",
	"probes_sent",
	"rest_requests",
	"rest_error_rate",
	"unexercised",
})

proxy_names(names) := {sprintf("proxy_%s", [name]) | some name in names}

# Told only of a step of a canary, where there is or might be a baseline.
default compared := {}

compared := {"baseline_status": baseline_status} if {
	"partial" in object.keys(question)
	not "baseline" in object.keys(question)
}

compared := object.union_n([
	{sprintf("baseline_%s", [name]): object.get(baseline, name, null) | some name in of_baseline},
	{name: object.get(growth_at_service, name, null) | some name in increase_names},
	{sprintf("proxy_%s", [name]): object.get(grown(at_proxy, baseline_at_proxy), name, null) | some name in increase_names},
	{
		"baseline_status": baseline_status,
		"excused": sort(excused(at_service, baseline_at_service) | proxy_names(excused(at_proxy, baseline_at_proxy))),
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
