package system.log_test

import data.system.log

masked(event) := paths if {
	changes := log.mask with input as event
	paths := {change.path | some change in changes}
}

test_what_is_named_like_a_secret_is_masked if {
	masked({
		"input": {
			"actor": "ann@laptop",
			"override": {"reason": "the fix for the outage", "api_token": "x"},
			"env": [{"DB_PASSWORD": "x", "a~b/c": {"Private-Key": {"d": 1}}}],
		},
		"result": {"checked": {"secret": "x"}, "allow": true},
	}) == {
		"/input/override/api_token",
		"/input/env/0/DB_PASSWORD",
		"/input/env/0/a~0b~1c/Private-Key",
		"/result/checked/secret",
	}
}

test_all_else_stays if {
	masked({
		"input": {"facts": {"disk_free_gb": 4}, "evidence": {"p99_latency_ms": 12}},
		"result": {"reasons": ["disk has 4 GB free"], "thresholds": {}},
		"decision_id": "4ca6",
	}) == set()
	masked({"input": null, "result": true}) == set()
	masked({}) == set()
}

test_the_value_is_replaced if {
	changes := log.mask with input as {"input": {"password": "x"}}
	changes == {{"op": "upsert", "path": "/input/password", "value": "(masked)"}}
}
