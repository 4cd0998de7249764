package swiftdeploy.canary_test

import data.swiftdeploy.canary

# Limits of the tests' own, so that editing the shipped ones breaks only the test that states them.
thresholds := {"canary": {"default": {
	"error_rate": {"max": 0.01},
	"p99_latency_ms": {"max": 500},
	"requests": {"min": 1},
}}}

good := {
	"slot": "green",
	"status": "measured",
	"detail": null,
	"cause": null,
	"window_seconds": 30.0,
	"requests": 412,
	"req_per_sec": 13.7,
	"error_rate": 0.0,
	"p50_latency_ms": 4,
	"p95_latency_ms": 9,
	"p99_latency_ms": 12.5,
	"proxy_requests": 412,
	"proxy_error_rate": 0.0,
	"proxy_p99_latency_ms": 14,
}

silent_proxy := {"proxy_requests": 0, "proxy_error_rate": null, "proxy_p99_latency_ms": null}

# The decision on the good evidence with some of it replaced.
decide(changes) := decide_with(changes, 20)

decide_with(changes, min_requests) := decision if {
	decision := canary.decision with data.thresholds as thresholds with input as {
		"environment": "production",
		"evidence": object.union(good, changes),
		"min_requests": min_requests,
	}
}

test_healthy_service_is_allowed if {
	decide({}) == {
		"domain": "canary",
		"allow": true,
		"insufficient": false,
		"reasons": [],
		"checked": {
			"status": "measured",
			"slot": "green",
			"window_seconds": 30.0,
			"requests": 412,
			"error_rate": 0.0,
			"p99_latency_ms": 12.5,
			"proxy_requests": 412,
			"proxy_error_rate": 0.0,
			"proxy_p99_latency_ms": 14,
		},
		"thresholds": {
			"error_rate": {"max": 0.01},
			"p99_latency_ms": {"max": 500},
			"requests": {"min": 20},
			"environment": "production",
			"source": "default",
		},
	}
}

test_exactly_at_each_limit_is_allowed if {
	decide({
		"requests": 20,
		"error_rate": 0.01,
		"p99_latency_ms": 500,
		"proxy_error_rate": 0.01,
		"proxy_p99_latency_ms": 500,
	}).allow
}

test_each_violation_is_a_denial_with_its_reason if {
	cases := [
		[{"error_rate": 0.487}, "error rate is 48.70 %, maximum is 1.00 %"],
		[{"error_rate": 1}, "error rate is 100.00 %, maximum is 1.00 %"],
		[{"error_rate": 0.010001}, "error rate is 1.0001 %, maximum is 1.00 %"],
		[{"p99_latency_ms": 620}, "P99 latency is 620 ms, maximum is 500 ms"],
		[{"p99_latency_ms": 500.4}, "P99 latency is 500.4 ms, maximum is 500 ms"],
		[{"proxy_error_rate": 0.333}, "at the proxy, error rate is 33.30 %, maximum is 1.00 %"],
		[{"proxy_p99_latency_ms": 42000}, "at the proxy, P99 latency is 42000 ms, maximum is 500 ms"],
	]
	every case in cases {
		decision := decide(case[0])
		not decision.allow
		not decision.insufficient
		decision.reasons == [case[1]]
	}
}

test_every_violation_at_once_in_stable_order if {
	decide({
		"error_rate": 0.5,
		"p99_latency_ms": 1800,
		"proxy_error_rate": 0.6,
		"proxy_p99_latency_ms": 2800,
	}).reasons == [
		"P99 latency is 1800 ms, maximum is 500 ms",
		"at the proxy, P99 latency is 2800 ms, maximum is 500 ms",
		"at the proxy, error rate is 60.00 %, maximum is 1.00 %",
		"error rate is 50.00 %, maximum is 1.00 %",
	]
}

test_too_few_requests_are_insufficient if {
	decision := decide({"requests": 12})
	not decision.allow
	decision.insufficient
	decision.reasons == ["12 requests in 30 s, at least 20 are needed"]
	decide({"requests": 19, "window_seconds": 2.52}).reasons == ["19 requests in 2.5 s, at least 20 are needed"]
	decide({"requests": 1, "window_seconds": null}).reasons == ["1 request, at least 20 are needed"]
}

test_no_requests_are_insufficient_for_that_reason_alone if {
	decision := decide(object.union(silent_proxy, {"requests": 0, "error_rate": null, "p99_latency_ms": null}))
	decision.insufficient
	decision.reasons == ["0 requests in 30 s, at least 20 are needed"]
}

test_few_and_failing_is_insufficient_and_tells_both if {
	decision := decide({"requests": 15, "error_rate": 1.0})
	not decision.allow
	decision.insufficient
	decision.reasons == [
		"15 requests in 30 s, at least 20 are needed",
		"error rate is 100.00 %, maximum is 1.00 %",
	]
}

test_unavailable_evidence_is_insufficient_with_its_detail if {
	nothing := {
		"status": "unavailable",
		"detail": "http://127.0.0.1:3000/metrics refused the connection",
		"requests": null,
		"error_rate": null,
		"p99_latency_ms": null,
	}
	decision := decide(object.union(silent_proxy, nothing))
	not decision.allow
	decision.insufficient
	decision.reasons == ["evidence of slot green is unavailable: http://127.0.0.1:3000/metrics refused the connection"]
}

test_no_evidence_at_all_is_insufficient if {
	every evidence in [null, "measured", [], {}, {"status": "measured?"}] {
		decision := canary.decision with data.thresholds as thresholds
			with input as {"evidence": evidence, "min_requests": 20}
		not decision.allow
		decision.insufficient
		decision.reasons == ["evidence of the service is unavailable: no reason was given"]
	}
}

test_no_question_at_all_is_insufficient if {
	every question in [null, "x", [1], {}] {
		decision := canary.decision with data.thresholds as thresholds with input as question
		not decision.allow
		decision.insufficient
		"min_requests is missing, not a number of 0 or more" in decision.reasons
	}
	without := canary.decision with data.thresholds as thresholds
	not without.allow
}

test_each_figure_that_is_no_figure_is_insufficient if {
	every figure in ["requests", "error_rate", "p99_latency_ms", "proxy_requests"] {
		every value in ["50", "NaN", true, -1, [50], {"value": 50}] {
			decision := decide({figure: value})
			not decision.allow
			decision.insufficient
			decision.reasons == [sprintf("%s was not measured (it is %s)", [figure, json.marshal(value)])]
		}
	}
}

test_each_missing_or_null_figure_is_insufficient if {
	every figure in ["requests", "error_rate", "p99_latency_ms"] {
		empty := decide({figure: null})
		not empty.allow
		empty.insufficient
		empty.reasons == [sprintf("%s was not measured (it is null)", [figure])]
		missing := canary.decision with data.thresholds as thresholds
			with input as {"evidence": object.remove(good, [figure]), "min_requests": 20}
		not missing.allow
		missing.insufficient
		missing.reasons == [sprintf("%s was not measured (it is missing)", [figure])]
	}
}

test_silent_proxy_is_no_denial if {
	decide(silent_proxy).allow
	unknown := canary.decision with data.thresholds as thresholds with input as {
		"evidence": object.remove(good, ["proxy_requests", "proxy_error_rate", "proxy_p99_latency_ms"]),
		"min_requests": 20,
	}
	unknown.allow
}

test_proxy_that_counted_must_have_figures if {
	every value in [null, "4", -1] {
		decision := decide({"proxy_p99_latency_ms": value})
		not decision.allow
		decision.insufficient
		decision.reasons == [sprintf("at the proxy, p99_latency_ms was not measured (it is %s)", [json.marshal(value)])]
	}
	no_rate := canary.decision with data.thresholds as thresholds
		with input as {"evidence": object.remove(good, ["proxy_error_rate"]), "min_requests": 20}
	no_rate.reasons == ["at the proxy, error_rate was not measured (it is missing)"]
}

test_proxy_figures_given_are_judged_whatever_the_count if {
	every count_ in [0, null] {
		decision := decide({"proxy_requests": count_, "proxy_error_rate": 0.5})
		not decision.allow
		decision.reasons == ["at the proxy, error rate is 50.00 %, maximum is 1.00 %"]
		odd := decide({"proxy_requests": count_, "proxy_error_rate": "0"})
		odd.insufficient
		odd.reasons == [`at the proxy, error_rate was not measured (it is "0")`]
	}
}

test_manifest_cannot_switch_the_check_off if {
	none := object.union(silent_proxy, {"requests": 0, "error_rate": null, "p99_latency_ms": null})
	decision := decide_with(none, 0)
	not decision.allow
	decision.insufficient
	decision.reasons == ["0 requests in 30 s, at least 1 are needed"]
	decision.thresholds.requests.min == 1
	decide_with({"requests": 1}, 0).allow
}

test_min_requests_that_is_no_number_is_insufficient if {
	every value in [null, "20", -1, true] {
		decision := decide_with({}, value)
		not decision.allow
		decision.insufficient
		decision.reasons == [sprintf("min_requests is %s, not a number of 0 or more", [json.marshal(value)])]
	}
}

test_environment_of_its_own if {
	more := json.patch(thresholds, [{
		"op": "add",
		"path": "/canary/lab",
		"value": {"p99_latency_ms": {"max": 2000}, "requests": {"min": 50}},
	}])
	slow := {"evidence": object.union(good, {"p99_latency_ms": 1500}), "min_requests": 20}
	lab := canary.decision with data.thresholds as more with input as object.union(slow, {"environment": "lab"})
	lab.allow
	lab.thresholds == {
		"error_rate": {"max": 0.01},
		"p99_latency_ms": {"max": 2000},
		"requests": {"min": 50},
		"environment": "lab",
		"source": "lab",
	}
	other := canary.decision with data.thresholds as more with input as slow
	not other.allow
}

test_a_figure_that_only_the_thresholds_name_is_judged if {
	more := json.patch(thresholds, [{"op": "add", "path": "/canary/default/p95_latency_ms", "value": {"max": 5}}])
	decision := canary.decision with data.thresholds as more with input as {"evidence": good, "min_requests": 20}
	decision.reasons == ["p95_latency_ms is 9.00, maximum is 5"]
}

test_thresholds_that_cannot_be_used_are_no_pass if {
	every wrong in [{}, {"canary": null}, {"canary": {"default": 5}}, {"canary": {"default": {}}}, []] {
		decision := canary.decision with data.thresholds as wrong with input as {"evidence": good, "min_requests": 20}
		not decision.allow
		count(decision.reasons) == 3
	}
	text := json.patch(thresholds, [{"op": "replace", "path": "/canary/default/requests/min", "value": "1"}])
	decision := canary.decision with data.thresholds as text with input as {"evidence": good, "min_requests": 20}
	not decision.allow
	decision.reasons == [`the threshold of requests is {"min":"1"}, not a min or max of 0 or more (policies/thresholds/data.yaml)`]
}

test_shipped_thresholds if {
	every environment in ["production", "local"] {
		decision := canary.decision with input as {"environment": environment, "evidence": good, "min_requests": 0}
		decision.thresholds == {
			"error_rate": {"max": 0.01},
			"p99_latency_ms": {"max": 500},
			"requests": {"min": 1},
			"environment": environment,
			"source": "default",
		}
	}
}
