package swiftdeploy.override_test

import data.swiftdeploy.override

# Rules of the tests' own, so that editing the shipped ones breaks only the test that states them.
rules := {
	"default": {
		"denied": ["change", "infrastructure"],
		"insufficient": ["canary"],
		"actors": ["*@ci", "ada@*"],
		"reason_min_length": 10,
	},
	"lab": {"denied": ["change", "infrastructure", "canary"], "actors": ["*"]},
}

denied := {
	"domain": "change",
	"allow": false,
	"insufficient": false,
	"reasons": ["frozen by a", "frozen by b"],
	"checked": {},
	"thresholds": {},
}

allowed := object.union(denied, {"allow": true, "reasons": []})

wanting := object.union(denied, {"domain": "canary", "insufficient": true, "reasons": ["0 requests"]})

apply(decision, question) := apply_with(rules, decision, question)

apply_with(configured, decision, question) := result if {
	result := override.applied(decision) with data.thresholds as {"override": configured}
		with input as object.union({"actor": "ada@laptop", "environment": "production"}, question)
}

test_without_an_override_a_decision_stands if {
	every decision in [allowed, denied, wanting] {
		apply(decision, {}) == decision
		apply(decision, {"override": null}) == decision
	}
	every question in [null, "x", [1]] {
		result := override.applied(denied) with input as question
		result == denied
	}
}

test_an_override_that_is_not_needed_leaves_no_trace if {
	every asked in ["the shop is down", "", 5, null] {
		apply(allowed, {"override": asked}) == allowed
	}
}

test_an_accepted_override_keeps_what_would_have_stood if {
	apply(denied, {"override": " the shop is down "}) == object.union(denied, {
		"allow": true,
		"reasons": [],
		"override": {
			"accepted": true,
			"reason": "the shop is down",
			"actor": "ada@laptop",
			"overridden": ["frozen by a", "frozen by b"],
		},
	})
}

test_want_of_evidence_can_be_overridden if {
	decision := apply(wanting, {"override": "the shop is down"})
	decision.allow
	not decision.insufficient
	decision.override.overridden == ["0 requests"]
}

# Why an override of a denial by change was refused, after what stood already.
refusals(question) := reasons if {
	decision := apply(denied, question)
	not decision.allow
	decision.override.accepted == false
	decision.override.overridden == []
	array.slice(decision.reasons, 0, 2) == denied.reasons
	reasons := array.slice(decision.reasons, 2, 100)
}

test_a_short_reason_is_refused if {
	refusals({"override": "oops"}) == ["the override is not accepted: its reason has 4 characters, at least 10 are needed (policies/thresholds/data.yaml: override.default.reason_min_length)"]
	refusals({"override": "          "}) == ["the override is not accepted: its reason has 0 characters, at least 10 are needed (policies/thresholds/data.yaml: override.default.reason_min_length)"]
	refusals({"override": "äöüäöüäöü"}) == ["the override is not accepted: its reason has 9 characters, at least 10 are needed (policies/thresholds/data.yaml: override.default.reason_min_length)"]
	apply(denied, {"override": "äöüäöüäöüß"}).allow
}

test_an_actor_who_may_not_is_refused if {
	refusals({"override": "the shop is down", "actor": "eve@laptop"}) == [`the override is not accepted: "eve@laptop" is not among those who may override: *@ci, ada@* (policies/thresholds/data.yaml: override.default.actors)`]
	every actor in [null, 5, "", "ada"] {
		count(refusals({"override": "the shop is down", "actor": actor})) == 1
	}
}

test_an_override_that_is_no_text_is_refused if {
	every asked in [5, true, ["a long enough reason"], {"reason": "a long enough reason"}, false] {
		reasons := refusals({"override": asked})
		reasons == [sprintf("the override is not accepted: it is %s, not a text", [json.marshal(asked)])]
	}
}

test_a_domain_that_cannot_be_overridden if {
	bad := object.union(wanting, {"insufficient": false})
	refused := apply(bad, {"override": "the shop is down"})
	not refused.allow
	"the override is not accepted: a denial by canary cannot be overridden (policies/thresholds/data.yaml: override.default.denied)" in refused.reasons
	lab := apply(bad, {"override": "the shop is down", "environment": "lab", "actor": "eve@x"})
	lab.allow
	few := apply(object.union(denied, {"insufficient": true}), {"override": "the shop is down"})
	not few.allow
	few.insufficient
	"the override is not accepted: a want of evidence found by change cannot be overridden (policies/thresholds/data.yaml: override.default.insufficient)" in few.reasons
}

test_every_refusal_is_told if {
	count(refusals({"override": "oops", "actor": "eve@x"})) == 2
}

test_rules_that_cannot_be_used_accept_nothing if {
	every wrong in [{}, null, {"default": 5}, {"default": {}}] {
		decision := apply_with(wrong, denied, {"override": "the shop is down"})
		not decision.allow
		"the override is not accepted: no reason_min_length of 0 or more is set (policies/thresholds/data.yaml: override.default.reason_min_length)" in decision.reasons
		`the override is not accepted: "ada@laptop" is not among those who may override: null (policies/thresholds/data.yaml: override.default.actors)` in decision.reasons
		"the override is not accepted: a denial by change cannot be overridden (policies/thresholds/data.yaml: override.default.denied)" in decision.reasons
	}
	every odd in [{"denied": "change"}, {"denied": {"change": "change"}}, {"actors": "*"}, {"actors": [5]}, {"reason_min_length": "1"}, {"reason_min_length": -1}] {
		not apply_with({"default": object.union(rules["default"], odd)}, denied, {"override": "the shop is down"}).allow
	}
}

shipped(environment, decision) := result if {
	result := override.applied(decision) with input as {
		"environment": environment,
		"actor": "ada@laptop",
		"override": "10 letters",
	}
}

test_shipped_thresholds if {
	every environment in ["production", "local"] {
		every domain in ["change", "image", "infrastructure"] {
			shipped(environment, object.union(denied, {"domain": domain})).allow
		}
		not shipped(environment, object.union(denied, {"domain": "canary"})).allow
		shipped(environment, wanting).allow
	}
}
