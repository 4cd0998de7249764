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
	"rests_on": ["service", "proxy"],
	"untold": {},
	"window_seconds": 30.0,
	"requests": 412,
	"req_per_sec": 13.7,
	"error_rate": 0.0,
	"p50_latency_ms": 4,
	"p95_latency_ms": 9,
	"p99_latency_ms": 12.5,
	"p99_bucket_ms": null,
	"proxy_window_seconds": 30.0,
	"proxy_requests": 412,
	"proxy_error_rate": 0.0,
	"proxy_p99_latency_ms": 14,
	"proxy_truncated": false,
	"proxy_detail": null,
	"proxy_abandoned": 0,
	"abandoned_rate": 0.0,
	"probes_sent": 20,
	"probes_refused": 0,
	"probes_failed_rate": 0.0,
	"views_gap": 0.0,
	"largest_source_share": 0.2,
	"rest_requests": 330,
	"rest_error_rate": 0.0,
	"unexercised": [],
	"unexercised_share": 0.0,
}

silent_proxy := {
	"proxy_requests": 0,
	"proxy_error_rate": null,
	"proxy_p99_latency_ms": null,
	"rest_requests": 0,
	"rest_error_rate": null,
	"abandoned_rate": null,
	"views_gap": null,
	"largest_source_share": null,
	"unexercised_share": null,
}

# What is told of the good evidence beside the figures.
told := {
	"rests_on": ["service", "proxy"],
	"untold": {},
	"p99_bucket_ms": null,
	"proxy_truncated": false,
	"proxy_abandoned": 0,
	"abandoned_rate": 0.0,
	"probes_sent": 20,
	"probes_failed_rate": 0.0,
	"views_gap": 0.0,
	"largest_source_share": 0.2,
	"rest_requests": 330,
	"rest_error_rate": 0.0,
	"unexercised": [],
	"unexercised_share": 0.0,
}

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
		"checked": object.union(told, {
			"status": "measured",
			"slot": "green",
			"window_seconds": 30.0,
			"requests": 412,
			"error_rate": 0.0,
			"p99_latency_ms": 12.5,
			"proxy_requests": 412,
			"proxy_error_rate": 0.0,
			"proxy_p99_latency_ms": 14,
		}),
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
		[{"error_rate": 0.487}, "error rate is 48.70 %, maximum is 1.00 % (policies/thresholds/data.yaml: canary.default.error_rate)"],
		[{"error_rate": 1}, "error rate is 100.00 %, maximum is 1.00 % (policies/thresholds/data.yaml: canary.default.error_rate)"],
		[{"error_rate": 0.010001}, "error rate is 1.0001 %, maximum is 1.00 % (policies/thresholds/data.yaml: canary.default.error_rate)"],
		[{"p99_latency_ms": 620}, "P99 latency is 620 ms, maximum is 500 ms (policies/thresholds/data.yaml: canary.default.p99_latency_ms)"],
		[{"p99_latency_ms": 500.4}, "P99 latency is 500.4 ms, maximum is 500 ms (policies/thresholds/data.yaml: canary.default.p99_latency_ms)"],
		[{"proxy_error_rate": 0.333}, "at the proxy, error rate is 33.30 %, maximum is 1.00 % (policies/thresholds/data.yaml: canary.default.error_rate)"],
		[{"proxy_p99_latency_ms": 42000}, "at the proxy, P99 latency is 42000 ms, maximum is 500 ms (policies/thresholds/data.yaml: canary.default.p99_latency_ms)"],
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
		"P99 latency is 1800 ms, maximum is 500 ms (policies/thresholds/data.yaml: canary.default.p99_latency_ms)",
		"at the proxy, P99 latency is 2800 ms, maximum is 500 ms (policies/thresholds/data.yaml: canary.default.p99_latency_ms)",
		"at the proxy, error rate is 60.00 %, maximum is 1.00 % (policies/thresholds/data.yaml: canary.default.error_rate)",
		"error rate is 50.00 %, maximum is 1.00 % (policies/thresholds/data.yaml: canary.default.error_rate)",
	]
}

test_too_few_requests_are_insufficient if {
	decision := decide({"requests": 12})
	not decision.allow
	decision.insufficient
	decision.reasons == ["12 requests in 30 s, at least 20 are needed (the manifest: canary.min_requests)"]
	decide({"requests": 19, "window_seconds": 2.52}).reasons == ["19 requests in 2.5 s, at least 20 are needed (the manifest: canary.min_requests)"]
	decide({"requests": 1, "window_seconds": null}).reasons == ["1 request, at least 20 are needed (the manifest: canary.min_requests)"]
}

test_no_requests_are_insufficient_for_that_reason_alone if {
	decision := decide(object.union(silent_proxy, {"requests": 0, "error_rate": null, "p99_latency_ms": null}))
	decision.insufficient
	decision.reasons == [
		"0 requests in 30 s, at least 20 are needed (the manifest: canary.min_requests)",
		"at the proxy, 0 requests in 30 s, at least 20 are needed (the manifest: canary.min_requests)",
	]
}

test_few_and_failing_is_insufficient_and_tells_both if {
	decision := decide({"requests": 15, "error_rate": 1.0})
	not decision.allow
	decision.insufficient
	decision.reasons == [
		"15 requests in 30 s, at least 20 are needed (the manifest: canary.min_requests)",
		"error rate is 100.00 %, maximum is 1.00 % (policies/thresholds/data.yaml: canary.default.error_rate)",
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

test_a_proxy_that_saw_nothing_is_no_evidence if {
	decision := decide(silent_proxy)
	decision.insufficient
	decision.reasons == ["at the proxy, 0 requests in 30 s, at least 20 are needed (the manifest: canary.min_requests)"]
	one := decide({"proxy_requests": 1, "proxy_window_seconds": null})
	one.insufficient
	one.reasons == ["at the proxy, 1 request, at least 20 are needed (the manifest: canary.min_requests)"]
	unknown := canary.decision with data.thresholds as thresholds with input as {
		"evidence": object.remove(good, ["rests_on", "proxy_requests", "proxy_error_rate", "proxy_p99_latency_ms"]),
		"min_requests": 20,
	}
	unknown.insufficient
}

test_a_log_that_cannot_be_believed_is_no_evidence if {
	cut := decide({"proxy_truncated": true, "proxy_detail": "lines were rotated away"})
	cut.insufficient
	cut.reasons == ["at the proxy, nothing is known: lines were rotated away"]
	every value in [null, "false", 0] {
		decision := decide({"proxy_truncated": value})
		decision.insufficient
		decision.reasons == ["at the proxy, nothing is known: no reason was given"]
	}

	# Half a log is no verdict either.
	half := decide({"proxy_truncated": true, "proxy_error_rate": 0.5, "abandoned_rate": 0.9, "proxy_abandoned": 900})
	half.insufficient
	count(half.reasons) == 1
}

trusting := object.union(thresholds, {"canary": {"default": object.union(thresholds.canary.default, {
	"abandoned_rate": {"max": 0.1},
	"probes_failed_rate": {"max": 0.05},
	"probes_sent": {"min": 5},
	"rest_requests": {"min": 100},
	"views_gap": {"max": 0.5},
	"largest_source_share": {"max": 0.9},
	"unexercised_share": {"max": 0.3},
})}})

judge(changes) := decision if {
	decision := canary.decision with data.thresholds as trusting
		with input as {"evidence": object.union(good, changes), "min_requests": 20}
}

test_views_that_contradict_each_other_are_no_evidence if {
	judge({}).allow
	judge({"views_gap": 0.5, "largest_source_share": 0.9, "unexercised_share": 0.3}).allow
	judge({"views_gap": null, "largest_source_share": null, "unexercised_share": null}).allow
	cases := [
		[{"views_gap": 0.99}, "the numbers of requests at the service and at the proxy are 99 % apart, maximum is 50 % (policies/thresholds/data.yaml: canary.default.views_gap): no evidence"],
		[{"largest_source_share": 0.95}, "one address sent 95 % of the clients' requests, maximum is 90 % (policies/thresholds/data.yaml: canary.default.largest_source_share): no evidence"],
		[{"unexercised_share": 0.4}, "the canary had none of 40 % of what clients ask of the stable slot, maximum is 30 % (policies/thresholds/data.yaml: canary.default.unexercised_share): no evidence"],
	]
	every case in cases {
		decision := judge(case[0])
		decision.insufficient
		decision.reasons == [case[1]]
	}

	# 3,300 requests that nobody sent.
	invented := judge(object.union(silent_proxy, {"requests": 3300, "views_gap": 1}))
	invented.insufficient
	count(invented.reasons) == 2
}

test_figures_beyond_all_bounds_are_none if {
	every figure in ["requests", "error_rate", "p99_latency_ms"] {
		decision := decide({figure: 1e308})
		not decision.allow
		decision.insufficient
		every reason in decision.reasons {
			count(reason) < 120
		}
	}
}

test_clients_that_give_up_are_a_denial if {
	decision := judge({"requests": 1, "proxy_requests": 1, "proxy_abandoned": 99, "abandoned_rate": 0.99})
	not decision.allow
	not decision.insufficient
	"99.00 % of the clients left without an answer, maximum is 10.00 % (policies/thresholds/data.yaml: canary.default.abandoned_rate)" in decision.reasons
	judge({"proxy_abandoned": 41, "abandoned_rate": 0.1}).allow
	few := judge({"proxy_requests": 1, "proxy_abandoned": 3, "abandoned_rate": 0.75})
	few.insufficient
}

test_probes_that_fail_are_a_denial_whatever_the_service_says if {
	every said in [{}, {"status": "unavailable", "detail": "no answer"}, {"proxy_truncated": true}] {
		decision := judge(object.union(said, {"probes_failed_rate": 1}))
		not decision.allow
		not decision.insufficient
		"100.00 % of our own probes had no answer or an error, maximum is 5.00 % (policies/thresholds/data.yaml: canary.default.probes_failed_rate)" in decision.reasons
	}
	judge({"probes_failed_rate": 0.05}).allow
	judge({"probes_failed_rate": 1, "probes_sent": 4}).allow
	judge({"probes_failed_rate": null, "probes_sent": 0}).allow
}

test_what_the_proxy_proves_is_a_denial_whatever_the_service_says if {
	decision := decide({"status": "unavailable", "detail": "nothing listens", "proxy_error_rate": 0.5})
	not decision.allow
	not decision.insufficient
	decision.reasons == [
		"at the proxy, error rate is 50.00 %, maximum is 1.00 % (policies/thresholds/data.yaml: canary.default.error_rate)",
		"evidence of slot green is unavailable: nothing listens",
	]
}

test_one_busy_client_hides_nothing if {
	decision := judge({"rest_error_rate": 0.1})
	not decision.allow
	not decision.insufficient
	decision.reasons == ["at the proxy without its busiest client, error rate is 10.00 %, maximum is 1.00 % (policies/thresholds/data.yaml: canary.default.error_rate)"]
	judge({"rest_error_rate": 0.1, "rest_requests": 99}).allow
	judge({"rest_error_rate": null, "rest_requests": 0}).allow
}

test_probes_that_are_refused_are_named_where_evidence_is_missing if {
	none := object.union(silent_proxy, {"requests": 0, "error_rate": null, "p99_latency_ms": null, "probes_refused": 20})
	decision := decide(none)
	decision.insufficient
	"20 of 20 probes were answered 400 to 499, which is no evidence (the manifest: canary.probe_path names what they ask for)" in decision.reasons
	decide({"probes_refused": 20}).allow
}

test_a_service_without_metrics_is_judged_by_the_proxy if {
	alone := {
		"rests_on": ["proxy"],
		"untold": null,
		"error_rate": 0.2,
		"proxy_error_rate": 0.2,
		"uptime_seconds": null,
	}
	decide(object.union(alone, {"error_rate": 0.0, "proxy_error_rate": 0.0})).allow
	decision := decide(alone)
	not decision.insufficient
	decision.reasons == ["at the proxy, error rate is 20.00 %, maximum is 1.00 % (policies/thresholds/data.yaml: canary.default.error_rate)"]
	few := decide(object.union(alone, {"requests": 3, "proxy_requests": 3}))
	few.insufficient
	few.reasons == ["at the proxy, 3 requests in 30 s, at least 20 are needed (the manifest: canary.min_requests)"]
	more := json.patch(thresholds, [{"op": "add", "path": "/canary/default/uptime_seconds", "value": {"min": 5}}])
	unknown := canary.decision with data.thresholds as more with input as {
		"evidence": object.union(good, {"rests_on": ["proxy"], "uptime_seconds": null}),
		"min_requests": 20,
	}
	unknown.insufficient
	unknown.reasons == ["uptime_seconds was not measured (it is null)"]
}

test_what_the_service_does_not_tell_the_proxy_does if {
	untold := {"p99_latency_ms": null, "untold": {"p99_latency_ms": "the buckets are native ones"}}
	decide(untold).allow
	slow := decide(object.union(untold, {"proxy_p99_latency_ms": 900}))
	slow.reasons == ["at the proxy, P99 latency is 900 ms, maximum is 500 ms (policies/thresholds/data.yaml: canary.default.p99_latency_ms)"]
	alone := decide(object.union(untold, {"rests_on": ["service"]}))
	alone.insufficient
	alone.reasons == ["p99_latency_ms was not measured (it is null)"]

	# Where the views are not told, both are wanted.
	every said in [null, [], ["oracle"], "proxy"] {
		decide(object.union(silent_proxy, {"rests_on": said})).insufficient
	}
}

test_a_histogram_denies_only_where_its_bucket_begins_past_the_limit if {
	decide({"p99_latency_ms": 701, "p99_bucket_ms": [250, 1000]}).allow
	decide({"p99_latency_ms": 701, "p99_bucket_ms": [500, 1000]}).allow
	decide({"p99_latency_ms": 701, "p99_bucket_ms": [600, 1000]}).reasons == ["P99 latency is 701 ms (by its bucket above 600 ms), maximum is 500 ms (policies/thresholds/data.yaml: canary.default.p99_latency_ms)"]
	decide({"p99_latency_ms": 1000, "p99_bucket_ms": [1000, null]}).reasons == ["P99 latency is 1000 ms (by its bucket above 1000 ms), maximum is 500 ms (policies/thresholds/data.yaml: canary.default.p99_latency_ms)"]
	exact := decide({"p99_latency_ms": 701, "p99_bucket_ms": [250, 1000], "proxy_p99_latency_ms": 690})
	exact.reasons == ["at the proxy, P99 latency is 690 ms, maximum is 500 ms (policies/thresholds/data.yaml: canary.default.p99_latency_ms)"]

	# The same of an increase: where the one bucket begins, above where the other one ends.
	near := {"p99_latency_ms": 380, "p99_bucket_ms": [250, 400]}
	compare(near, {"p99_latency_ms": 80, "p99_bucket_ms": [25, 100]}).allow
	compare(near, {"p99_latency_ms": 20, "p99_bucket_ms": [10, 25]}).checked.p99_latency_increase_ms == 225
	compare(near, {"p99_latency_ms": 20, "p99_bucket_ms": [10, null]}).allow
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

test_manifest_cannot_switch_the_check_off if {
	none := object.union(silent_proxy, {"requests": 0, "error_rate": null, "p99_latency_ms": null})
	decision := decide_with(none, 0)
	not decision.allow
	decision.insufficient
	decision.reasons == [
		"0 requests in 30 s, at least 1 are needed (policies/thresholds/data.yaml: canary.default.requests)",
		"at the proxy, 0 requests in 30 s, at least 1 are needed (policies/thresholds/data.yaml: canary.default.requests)",
	]
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
	decision.reasons == ["p95_latency_ms is 9.00, maximum is 5 (policies/thresholds/data.yaml: canary.default.p95_latency_ms)"]
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
	decision.reasons == [`the threshold of requests is {"min":"1"}, not a min or max of 0 or more (policies/thresholds/data.yaml: canary.default.requests)`]
}

test_shipped_thresholds if {
	every environment in ["production", "local"] {
		decision := canary.decision with input as {"environment": environment, "evidence": good, "min_requests": 0}
		decision.thresholds == {
			"error_rate": {"max": 0.01},
			"p99_latency_ms": {"max": 500},
			"requests": {"min": 1},
			"abandoned_rate": {"max": 0.1},
			"probes_failed_rate": {"max": 0.05},
			"probes_sent": {"min": 1},
			"rest_requests": {"min": 100},
			"views_gap": {"max": 0.5},
			"largest_source_share": {"max": 1},
			"unexercised_share": {"max": 1},
			"environment": environment,
			"source": "default",
		}
	}
}

# --- a canary beside the stable slot ---

compared_thresholds := {
	"canary": {
		"default": {
			"error_rate": {"max": 0.01},
			"p99_latency_ms": {"max": 500},
			"requests": {"min": 1},
			"error_rate_increase": {"max": 0.01},
			"p99_latency_increase_ms": {"max": 200},
		},
		"lab": {"p99_latency_increase_ms": {"max": 1000}},
	},
	"canary_partial": {
		"default": {
			"error_rate": {"max": 0.25},
			"p99_latency_ms": {"max": 5000},
			"requests": {"min": 30},
		},
		"lab": {"error_rate": {"max": 0.5}},
	},
}

stable := object.union(good, {"slot": "blue", "requests": 9000, "proxy_requests": 9000})

# The decision on the good evidence and baseline, with some of each replaced.
compare(changes, base_changes) := ask({
	"evidence": object.union(good, changes),
	"baseline": object.union(stable, base_changes),
})

ask(question) := decision if {
	decision := canary.decision with data.thresholds as compared_thresholds
		with input as object.union({"environment": "production", "min_requests": 20}, question)
}

test_a_canary_like_its_baseline_is_allowed_and_tells_both if {
	compare({}, {"error_rate": 0.002, "p99_latency_ms": 10}) == {
		"domain": "canary",
		"allow": true,
		"insufficient": false,
		"reasons": [],
		"checked": object.union(told, {
			"status": "measured",
			"slot": "green",
			"window_seconds": 30.0,
			"requests": 412,
			"error_rate": 0.0,
			"p99_latency_ms": 12.5,
			"proxy_requests": 412,
			"proxy_error_rate": 0.0,
			"proxy_p99_latency_ms": 14,
			"baseline_status": "measured",
			"baseline_requests": 9000,
			"baseline_error_rate": 0.002,
			"baseline_p99_latency_ms": 10,
			"baseline_proxy_requests": 9000,
			"baseline_proxy_error_rate": 0.0,
			"baseline_proxy_p99_latency_ms": 14,
			"error_rate_increase": 0,
			"p99_latency_increase_ms": 2.5,
			"proxy_error_rate_increase": 0,
			"proxy_p99_latency_increase_ms": 0,
			"excused": [],
		}),
		"thresholds": {
			"error_rate": {"max": 0.01},
			"p99_latency_ms": {"max": 500},
			"requests": {"min": 20},
			"error_rate_increase": {"max": 0.01},
			"p99_latency_increase_ms": {"max": 200},
			"environment": "production",
			"source": "default",
		},
	}
}

test_each_increase_past_its_limit_is_a_denial_with_its_reason if {
	cases := [
		[{"p99_latency_ms": 432.5}, "P99 latency is 420 ms above the baseline, maximum is 200 ms (policies/thresholds/data.yaml: canary.default.p99_latency_increase_ms)"],
		[{"p99_latency_ms": 212.9}, "P99 latency is 200.4 ms above the baseline, maximum is 200 ms (policies/thresholds/data.yaml: canary.default.p99_latency_increase_ms)"],
		[{"proxy_p99_latency_ms": 414}, "at the proxy, P99 latency is 400 ms above the baseline, maximum is 200 ms (policies/thresholds/data.yaml: canary.default.p99_latency_increase_ms)"],
	]
	every case in cases {
		decision := compare(case[0], {})
		not decision.allow
		not decision.insufficient
		decision.reasons == [case[1]]
	}
	bad_day := {"error_rate": 0.03, "proxy_error_rate": 0.04}
	compare({"error_rate": 0.0655, "proxy_error_rate": 0.5}, bad_day).reasons == [
		"at the proxy, error rate is 46.00 percentage points above the baseline, maximum is 1.00 (policies/thresholds/data.yaml: canary.default.error_rate_increase)",
		"error rate is 3.55 percentage points above the baseline, maximum is 1.00 (policies/thresholds/data.yaml: canary.default.error_rate_increase)",
	]
}

test_an_increase_exactly_at_its_limit_is_allowed if {
	every pair in [[0.03, 0.02], [0.07, 0.06], [0.3, 0.29], [0.11, 0.1]] {
		decision := compare({"error_rate": pair[0], "p99_latency_ms": 212.5}, {"error_rate": pair[1]})
		decision.allow
		decision.checked.error_rate_increase == 0.01
	}
}

test_an_absolute_breach_is_told_beside_the_increase if {
	compare({"error_rate": 0.5}, {}).reasons == [
		"error rate is 50.00 %, maximum is 1.00 % (policies/thresholds/data.yaml: canary.default.error_rate)",
		"error rate is 50.00 percentage points above the baseline, maximum is 1.00 (policies/thresholds/data.yaml: canary.default.error_rate_increase)",
	]
}

test_a_bad_day_of_the_whole_service_is_not_the_canarys_fault if {
	every figures in [{"error_rate": 0.2}, {"p99_latency_ms": 900}, {"proxy_error_rate": 0.2}, {"proxy_p99_latency_ms": 900}] {
		decision := compare(figures, figures)
		decision.allow
		decision.checked.excused == [figure | some figure in object.keys(figures)]
	}
	worse := {"error_rate": 0.2, "p99_latency_ms": 900, "proxy_error_rate": 0.2, "proxy_p99_latency_ms": 900}
	compare(worse, worse).checked.excused == [
		"error_rate",
		"p99_latency_ms",
		"proxy_error_rate",
		"proxy_p99_latency_ms",
	]
}

test_a_figure_is_excused_by_its_own_view_and_name_alone if {
	compare({"error_rate": 0.02, "proxy_error_rate": 0.02}, {"error_rate": 0.02}).reasons == [
		"at the proxy, error rate is 2.00 %, maximum is 1.00 % (policies/thresholds/data.yaml: canary.default.error_rate)",
		"at the proxy, error rate is 2.00 percentage points above the baseline, maximum is 1.00 (policies/thresholds/data.yaml: canary.default.error_rate_increase)",
	]
	decision := compare({"error_rate": 0.015}, {"p99_latency_ms": 900, "error_rate": 0.01})
	decision.reasons == ["error rate is 1.50 %, maximum is 1.00 % (policies/thresholds/data.yaml: canary.default.error_rate)"]
	decision.checked.excused == []
}

test_what_the_canary_does_not_break_needs_no_excuse if {
	decision := compare({}, {"error_rate": 0.5, "p99_latency_ms": 900})
	decision.allow
	decision.checked.excused == []
}

test_without_a_limit_on_the_increase_the_absolute_limit_holds if {
	every name in ["error_rate_increase", "p99_latency_increase_ms"] {
		some_limits := json.remove(compared_thresholds, [sprintf("/canary/default/%s", [name]), "/canary/lab"])
		worse := {"error_rate": 0.2, "p99_latency_ms": 900}
		decision := canary.decision with data.thresholds as some_limits with input as {
			"evidence": object.union(good, worse),
			"baseline": object.union(stable, worse),
			"min_requests": 20,
		}
		not decision.allow
		count(decision.reasons) == 1
		count(decision.checked.excused) == 1
		not name in object.keys(decision.thresholds)
	}
	min_only := json.patch(compared_thresholds, [{
		"op": "replace",
		"path": "/canary/default/error_rate_increase",
		"value": {"min": 0},
	}])
	decision := canary.decision with data.thresholds as min_only with input as {
		"evidence": object.union(good, {"error_rate": 0.2}),
		"baseline": object.union(stable, {"error_rate": 0.2}),
		"min_requests": 20,
	}
	decision.reasons == ["error rate is 20.00 %, maximum is 1.00 % (policies/thresholds/data.yaml: canary.default.error_rate)"]
}

test_a_minimum_is_never_excused if {
	odd := json.patch(compared_thresholds, [{
		"op": "replace",
		"path": "/canary/default/error_rate",
		"value": {"max": 0.01, "min": 0.5},
	}])
	decision := canary.decision with data.thresholds as odd with input as {
		"evidence": object.union(good, {"error_rate": 0.2, "proxy_error_rate": 0.6}),
		"baseline": object.union(stable, {"error_rate": 0.2, "proxy_error_rate": 0.6}),
		"min_requests": 20,
	}
	decision.reasons == ["error rate is 20.00 %, minimum is 50.00 % (policies/thresholds/data.yaml: canary.default.error_rate)"]
}

test_a_baseline_that_is_not_there_is_never_a_pass if {
	slow := {"error_rate": 0.2, "p99_latency_ms": 900}
	unmeasured := {
		"status": "unavailable",
		"detail": "nothing listens",
		"requests": null,
		"error_rate": null,
		"p99_latency_ms": null,
	}
	cases := [
		[null, "none"],
		["x", "unavailable"],
		[{}, "unavailable"],
		[{"status": "measured"}, "insufficient"],
		[object.union(stable, {"status": "unavailable"}), "unavailable"],
		[object.union(stable, unmeasured), "unavailable"],
		[object.union(stable, object.union(slow, {"requests": 19})), "insufficient"],
		[object.union(stable, object.union(slow, {"requests": "9000"})), "insufficient"],
	]
	every case in cases {
		decision := ask({"evidence": object.union(good, slow), "baseline": case[0]})
		not decision.allow
		not decision.insufficient
		decision.reasons == ["P99 latency is 900 ms, maximum is 500 ms (policies/thresholds/data.yaml: canary.default.p99_latency_ms)", "error rate is 20.00 %, maximum is 1.00 % (policies/thresholds/data.yaml: canary.default.error_rate)"]
		decision.checked.baseline_status == case[1]
		decision.checked.excused == []
		decision.checked.error_rate_increase == null
		ask({"evidence": good, "baseline": case[0]}).allow
	}
	ask({"evidence": good, "baseline": null}).checked.baseline_error_rate == null
}

test_a_baseline_as_small_as_the_evidence_may_be_is_used if {
	compare({"error_rate": 0.2}, {"requests": 20, "error_rate": 0.2}).checked.excused == ["error_rate"]
}

test_a_baseline_that_cannot_be_weighed_is_not_used if {
	decision := ask({"evidence": good, "baseline": stable, "min_requests": "20"})
	decision.insufficient
	decision.checked.baseline_status == "insufficient"
}

test_a_figure_that_the_baseline_lacks_is_held_against_the_limit_alone if {
	every value in [null, "0.2", -1] {
		decision := compare({"error_rate": 0.2}, {"error_rate": value})
		decision.reasons == ["error rate is 20.00 %, maximum is 1.00 % (policies/thresholds/data.yaml: canary.default.error_rate)"]
		decision.checked.error_rate_increase == null
	}
}

test_a_proxy_that_saw_too_little_of_the_baseline_excuses_nothing if {
	worse := {"proxy_error_rate": 0.2}
	every seen in [0, 19, null, "9000"] {
		decision := compare(worse, object.union(worse, {"proxy_requests": seen}))
		decision.reasons == ["at the proxy, error rate is 20.00 %, maximum is 1.00 % (policies/thresholds/data.yaml: canary.default.error_rate)"]
		decision.checked.baseline_status == "measured"
		decision.checked.proxy_error_rate_increase == null
	}
}

test_too_little_evidence_stays_insufficient_whatever_the_baseline if {
	decision := compare({"requests": 12, "error_rate": 0.2}, {"error_rate": 0.2})
	decision.insufficient
	decision.reasons == ["12 requests in 30 s, at least 20 are needed (the manifest: canary.min_requests)"]
}

test_an_increase_limit_of_an_environment if {
	decision := ask({
		"environment": "lab",
		"evidence": object.union(good, {"p99_latency_ms": 480}),
		"baseline": stable,
	})
	decision.allow
	decision.thresholds.p99_latency_increase_ms == {"max": 1000}
	decision.thresholds.source == "lab"
}

test_an_increase_limit_that_cannot_be_used_is_no_pass if {
	text := json.patch(compared_thresholds, [{
		"op": "replace",
		"path": "/canary/default/error_rate_increase",
		"value": {"max": "0.01"},
	}])
	worse := {"error_rate": 0.2}
	decision := canary.decision with data.thresholds as text with input as {
		"evidence": object.union(good, worse),
		"baseline": object.union(stable, worse),
		"min_requests": 20,
	}
	decision.reasons == [
		"error rate is 20.00 %, maximum is 1.00 % (policies/thresholds/data.yaml: canary.default.error_rate)",
		`the threshold of error_rate_increase is {"max":"0.01"}, not a min or max of 0 or more (policies/thresholds/data.yaml: canary.default.error_rate_increase)`,
	]
}

# --- before the window has ended ---

test_a_partial_look_has_thresholds_of_its_own if {
	noisy := {"error_rate": 0.2, "p99_latency_ms": 4000, "proxy_error_rate": 0.25}
	decision := ask({"evidence": object.union(good, noisy), "partial": true})
	decision.allow
	decision.thresholds == {
		"error_rate": {"max": 0.25},
		"p99_latency_ms": {"max": 5000},
		"requests": {"min": 30},
		"environment": "production",
		"source": "canary_partial.default",
	}
	decision.checked.baseline_status == "none"
	not "excused" in object.keys(decision.checked)
	lab := ask({"environment": "lab", "evidence": object.union(good, {"error_rate": 0.4}), "partial": true})
	lab.allow
	lab.thresholds.source == "canary_partial.lab"
}

test_a_partial_look_denies_what_is_plainly_broken if {
	decision := ask({"evidence": object.union(good, {"error_rate": 0.9}), "baseline": stable, "partial": true})
	not decision.allow
	not decision.insufficient
	decision.reasons == ["error rate is 90.00 %, maximum is 25.00 % (policies/thresholds/data.yaml: canary_partial.default.error_rate)"]
}

test_a_partial_look_at_few_requests_is_insufficient if {
	decision := ask({"evidence": object.union(good, {"requests": 29, "error_rate": 1}), "partial": true})
	decision.insufficient
	"29 requests in 30 s, at least 30 are needed (policies/thresholds/data.yaml: canary_partial.default.requests)" in decision.reasons
}

test_only_true_makes_a_look_partial if {
	every value in [false, null, "true", 1, [], {}] {
		decision := ask({"evidence": object.union(good, {"error_rate": 0.2}), "partial": value})
		decision.reasons == ["error rate is 20.00 %, maximum is 1.00 % (policies/thresholds/data.yaml: canary.default.error_rate)"]
		decision.thresholds.source == "default"
	}
}

test_a_partial_look_without_its_table_is_no_pass if {
	every wrong in [thresholds, object.union(thresholds, {"canary_partial": 5}), []] {
		decision := canary.decision with data.thresholds as wrong
			with input as {"evidence": good, "min_requests": 20, "partial": true}
		not decision.allow
		"no maximum of error_rate is set (policies/thresholds/data.yaml: canary_partial.default.error_rate)" in decision.reasons
		count(decision.reasons) == 3
	}
}

test_shipped_thresholds_of_a_canary_step if {
	every environment in ["production", "local"] {
		question := {"environment": environment, "evidence": good, "baseline": stable, "min_requests": 0}
		whole := canary.decision with input as question
		whole.thresholds.error_rate_increase == {"max": 0.01}
		whole.thresholds.p99_latency_increase_ms == {"max": 200}
		early := canary.decision with input as object.union(question, {"partial": true})
		early.thresholds == {
			"error_rate": {"max": 0.25},
			"p99_latency_ms": {"max": 5000},
			"requests": {"min": 20},
			"abandoned_rate": {"max": 0.5},
			"probes_failed_rate": {"max": 0.5},
			"probes_sent": {"min": 5},
			"error_rate_increase": {"max": 0.25},
			"p99_latency_increase_ms": {"max": 5000},
			"environment": environment,
			"source": "canary_partial.default",
		}
	}
}
