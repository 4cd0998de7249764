# METADATA
# title: Is the service healthy enough to promote?
# description: >-
#   Input: environment, evidence (one slot's record over a window), min_requests (from the manifest).
#   Too little evidence is an outcome of its own, insufficient: neither a pass nor a verdict on the service.
package swiftdeploy.canary

import data.swiftdeploy.lib

# The figures without which there is no answer, and the side on which each must have a limit.
required := {
	"error_rate": "max",
	"p99_latency_ms": "max",
	"requests": "min",
}

# What the proxy sees of the same requests, held against the same limits: a queue in front of the
# service is invisible to the service itself.
proxied := {"error_rate", "p99_latency_ms"}

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
}

default configured := {}

configured := data.thresholds.canary if is_object(data.thresholds.canary)

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

effective := lib.effective(configured)

# Limits on figures of the evidence; the number of requests is a matter of sufficiency instead.
limits := object.remove(effective, ["requests"])

judged := object.keys(limits) | (object.keys(required) - {"requests"})

measured if evidence.status == "measured"

enough if {
	lib.is_figure(evidence.requests)
	evidence.requests >= requests_needed
}

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

insufficiency contains sprintf("%s%s, at least %s are needed", [
	requests_text,
	window_text,
	lib.exact(requests_needed, 0),
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
breaches := (lib.wrong_thresholds(required, effective) | lib.violations(wordings, limits, evidence)) | {sprintf("at the proxy, %s", [reason]) | some reason in lib.violations(wordings, limits, at_proxy)}

# The proxy's figures under the names they are judged by.
at_proxy := {figure: value |
	some figure in proxied
	value := evidence[sprintf("proxy_%s", [figure])]
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

told := (judged | {"status", "slot", "window_seconds", "requests", "proxy_requests"}) | {sprintf("proxy_%s", [figure]) | some figure in proxied}

default requests_limit := {}

requests_limit := {"requests": {"min": requests_needed}}

# METADATA
# entrypoint: true
decision := {
	"domain": "canary",
	"allow": allow,
	"insufficient": insufficient,
	"reasons": sort(reasons),
	"checked": {name: object.get(evidence, name, null) | some name in told},
	"thresholds": object.union_n([effective, requests_limit, {
		"environment": lib.environment,
		"source": lib.source(configured),
	}]),
}
