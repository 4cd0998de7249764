package system.authz_test

import data.system.authz

asks(method, path) := {"method": method, "path": path, "params": {}}

decision_of(domain) := ["v1", "data", "swiftdeploy", domain, "decision"]

with_params(params) := {"method": "POST", "path": decision_of("canary"), "params": params}

test_decisions_and_health_answer if {
	authz.allow with input as asks("POST", decision_of("infrastructure"))
	authz.allow with input as asks("POST", decision_of("canary"))
	authz.allow with input as asks("GET", ["health"])
	authz.allow with input as {"method": "GET", "path": ["health"], "params": {"bundles": [""]}}
	authz.allow with input as asks("GET", ["health", "loaded", "0a1b"])
	authz.allow with input as with_params({"provenance": ["true"]})
}

test_every_known_domain_has_a_decision if {
	every domain in authz.domains {
		data.swiftdeploy[domain].decision.domain == domain
	}
}

test_all_else_is_refused if {
	every question in [
		asks("GET", decision_of("canary")),
		asks("PUT", decision_of("canary")),
		asks("PATCH", decision_of("canary")),
		asks("DELETE", decision_of("canary")),
		asks("POST", decision_of("unknown")),
		asks("POST", decision_of("lib")),
		asks("POST", array.concat(decision_of("canary"), [""])),
		asks("POST", ["v1", "data", "swiftdeploy", "canary", "thresholds"]),
		asks("POST", ["v1", "data", "swiftdeploy", "canary"]),
		asks("POST", ["v1", "data", "thresholds"]),
		asks("POST", ["v1", "data"]),
		asks("GET", ["v1", "data"]),
		asks("PUT", ["v1", "data", "thresholds"]),
		asks("POST", ["v0", "data", "swiftdeploy", "canary", "decision"]),
		asks("GET", ["v1", "policies"]),
		asks("PUT", ["v1", "policies", "x"]),
		asks("POST", ["v1", "compile"]),
		asks("POST", ["v1", "query"]),
		asks("GET", ["v1", "config"]),
		asks("GET", ["v1", "status"]),
		asks("GET", ["metrics"]),
		asks("POST", [""]),
		asks("POST", ["health"]),
		asks("GET", ["health", "live"]),
		asks("GET", ["health", "loaded"]),
		asks("GET", ["health", "loaded", "0a1b", "more"]),
		asks("POST", ["health", "loaded", "0a1b"]),
		with_params({"explain": ["full"]}),
		with_params({"pretty": ["true"]}),
		with_params({"metrics": ["true"]}),
		with_params({"instrument": ["true"]}),
		with_params({"strict-builtin-errors": ["true"]}),
		with_params({"provenance": [""]}),
		with_params({"provenance": ["true", "true"]}),
		with_params({"provenance": ["true"], "explain": ["full"]}),
		{"method": "GET"},
		{"path": decision_of("canary")},
		{},
	] {
		not authz.allow with input as question
	}
}
