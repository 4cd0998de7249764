package swiftdeploy.infrastructure_test

import data.swiftdeploy.infrastructure

# Limits of the tests' own, so that editing the shipped ones breaks only the test that states them.
thresholds := {"infrastructure": {
	"default": {
		"disk_free_gb": {"min": 10},
		"cpu_load_1m": {"max": 2.0},
		"mem_free_percent": {"min": 10},
	},
	"local": {
		"disk_free_gb": {"min": 2},
		"cpu_load_1m": {"max": 64},
		"mem_free_percent": {"min": 5},
	},
}}

good := {
	"disk_free_gb": 40.5,
	"disk_total_gb": 100,
	"disk_path": "/srv",
	"cpu_load_1m": 0.2,
	"mem_free_percent": 55.1,
}

figures := {"disk_free_gb", "cpu_load_1m", "mem_free_percent"}

# The decision on the good facts with some of them replaced.
decide(changes) := decide_for("production", changes)

decide_for(environment, changes) := decision if {
	decision := infrastructure.decision with data.thresholds as thresholds
		with input as {"environment": environment, "facts": object.union(good, changes)}
}

test_good_host_is_allowed if {
	decide({}) == {
		"domain": "infrastructure",
		"allow": true,
		"insufficient": false,
		"reasons": [],
		"checked": {"disk_free_gb": 40.5, "cpu_load_1m": 0.2, "mem_free_percent": 55.1},
		"thresholds": {
			"disk_free_gb": {"min": 10},
			"cpu_load_1m": {"max": 2.0},
			"mem_free_percent": {"min": 10},
			"environment": "production",
			"source": "default",
		},
	}
}

test_exactly_at_each_limit_is_allowed if {
	decide({"disk_free_gb": 10, "cpu_load_1m": 2, "mem_free_percent": 10}).allow
	decide({"disk_free_gb": 10.0, "cpu_load_1m": 2.0, "mem_free_percent": 10.0}).allow
}

test_disk_below if {
	decision := decide({"disk_free_gb": 4.2})
	not decision.allow
	decision.reasons == ["disk has 4.2 GB free, minimum is 10 GB (policies/thresholds/data.yaml: infrastructure.default.disk_free_gb)"]
	decision.checked.disk_free_gb == 4.2
}

test_load_above if {
	decision := decide({"cpu_load_1m": 3.1})
	not decision.allow
	decision.reasons == ["CPU load (1 min) is 3.10, maximum is 2.00 (policies/thresholds/data.yaml: infrastructure.default.cpu_load_1m)"]
}

test_memory_below if {
	decision := decide({"mem_free_percent": 6})
	not decision.allow
	decision.reasons == ["memory has 6.0 % free, minimum is 10.0 % (policies/thresholds/data.yaml: infrastructure.default.mem_free_percent)"]
}

test_just_beyond_a_limit_reads_beyond_it if {
	decide({"disk_free_gb": 9.99}).reasons == ["disk has 9.99 GB free, minimum is 10 GB (policies/thresholds/data.yaml: infrastructure.default.disk_free_gb)"]
	decide({"cpu_load_1m": 2.001}).reasons == ["CPU load (1 min) is 2.001, maximum is 2.00 (policies/thresholds/data.yaml: infrastructure.default.cpu_load_1m)"]
}

test_every_reason_at_once_in_stable_order if {
	decide({"disk_free_gb": 0, "cpu_load_1m": 12.5, "mem_free_percent": 0}).reasons == [
		"CPU load (1 min) is 12.50, maximum is 2.00 (policies/thresholds/data.yaml: infrastructure.default.cpu_load_1m)",
		"disk has 0.0 GB free, minimum is 10 GB (policies/thresholds/data.yaml: infrastructure.default.disk_free_gb)",
		"memory has 0.0 % free, minimum is 10.0 % (policies/thresholds/data.yaml: infrastructure.default.mem_free_percent)",
	]
}

test_each_figure_that_is_no_figure_is_a_denial if {
	every figure in figures {
		every value in [null, "50", "NaN", true, -1, [50], {"value": 50}] {
			decision := decide({figure: value})
			not decision.allow
			not decision.insufficient
			decision.reasons == [sprintf("%s was not measured (it is %s)", [figure, json.marshal(value)])]
		}
	}
}

test_each_missing_figure_is_a_denial if {
	every figure in figures {
		decision := infrastructure.decision with data.thresholds as thresholds
			with input as {"facts": object.remove(good, [figure])}
		not decision.allow
		decision.reasons == [sprintf("%s was not measured (it is missing)", [figure])]
		decision.checked[figure] == null
	}
}

test_no_facts_at_all_is_a_denial if {
	every question in [{}, {"facts": null}, {"facts": [1, 2]}, null, "x", [1]] {
		decision := infrastructure.decision with data.thresholds as thresholds with input as question
		not decision.allow
		count(decision.reasons) == 3
	}
}

test_no_input_at_all_is_a_denial if {
	decision := infrastructure.decision with data.thresholds as thresholds
	not decision.allow
}

test_local_tolerates_what_production_does_not if {
	busy := {"cpu_load_1m": 9, "disk_free_gb": 2, "mem_free_percent": 5}
	decide_for("local", busy).allow
	decide_for("local", busy).thresholds.source == "local"
	not decide_for("production", busy).allow
	not decide_for("staging", busy).allow
	not decide_for("", busy).allow
}

test_a_figure_that_only_the_thresholds_name_is_judged if {
	more := json.patch(thresholds, [{
		"op": "add",
		"path": "/infrastructure/default/cpus",
		"value": {"min": 5},
	}])
	few := infrastructure.decision with data.thresholds as more
		with input as {"facts": object.union(good, {"cpus": 3})}
	few.reasons == ["cpus is 3.00, minimum is 5 (policies/thresholds/data.yaml: infrastructure.default.cpus)"]
	none := infrastructure.decision with data.thresholds as more with input as {"facts": good}
	none.reasons == ["cpus was not measured (it is missing)"]
}

test_thresholds_that_cannot_be_used_are_a_denial if {
	every wrong in [{}, {"infrastructure": null}, {"infrastructure": {"default": 5}}, {"infrastructure": {"default": {}}}, []] {
		decision := infrastructure.decision with data.thresholds as wrong with input as {"facts": good}
		not decision.allow
		count(decision.reasons) == 3
	}
	text := json.patch(thresholds, [{"op": "replace", "path": "/infrastructure/default/cpu_load_1m/max", "value": "2"}])
	decision := infrastructure.decision with data.thresholds as text with input as {"facts": good}
	not decision.allow
	decision.reasons == [`the threshold of cpu_load_1m is {"max":"2"}, not a min or max of 0 or more (policies/thresholds/data.yaml: infrastructure.default.cpu_load_1m)`]
}

# Limits on every figure that the policy has words for, and a host that has them all.
every_limit := {"infrastructure": {
	"default": {
		"disk_free_gb": {"min": 10},
		"cpu_load_1m": {"max": 2.0},
		"mem_free_percent": {"min": 10},
		"cpu_load_per_cpu": {"max": 1.5},
		"engine_disk_free_gb": {"min": 20},
		"inodes_free_percent": {"min": 5},
	},
	"lab": {"engine_disk_free_gb": {"min": 30}},
}}

whole := object.union(good, {"cpu_load_per_cpu": 0.1, "engine_disk_free_gb": 55, "inodes_free_percent": 80})

decide_all(environment, changes) := decision if {
	decision := infrastructure.decision with data.thresholds as every_limit
		with input as {"environment": environment, "facts": object.union(whole, changes)}
}

test_each_further_figure_has_its_words if {
	decide_all("production", {}).allow
	cases := [
		[
			{"cpu_load_per_cpu": 1.6},
			"CPU load (1 min) is 1.60 for each CPU, maximum is 1.50 (policies/thresholds/data.yaml: infrastructure.default.cpu_load_per_cpu)",
		],
		[
			{"engine_disk_free_gb": 4.2},
			"disk of the container engine's data has 4.2 GB free, minimum is 20 GB (policies/thresholds/data.yaml: infrastructure.default.engine_disk_free_gb)",
		],
		[
			{"inodes_free_percent": 4.99},
			"disk has 4.99 % of its inodes free, minimum is 5.0 % (policies/thresholds/data.yaml: infrastructure.default.inodes_free_percent)",
		],
	]
	every case in cases {
		decide_all("production", case[0]).reasons == [case[1]]
	}
}

test_a_reason_names_the_entry_that_holds if {
	decide_all("lab", {"engine_disk_free_gb": 25, "disk_free_gb": 9}).reasons == [
		"disk has 9.0 GB free, minimum is 10 GB (policies/thresholds/data.yaml: infrastructure.default.disk_free_gb)",
		"disk of the container engine's data has 25.0 GB free, minimum is 30 GB (policies/thresholds/data.yaml: infrastructure.lab.engine_disk_free_gb)",
	]
}

test_what_a_host_has_not_is_told_and_not_judged if {
	none := {"inodes_free_percent": "btrfs has no fixed number", "engine_disk_free_gb": "no engine runs here"}
	decision := decide_all("production", {
		"inodes_free_percent": null,
		"engine_disk_free_gb": null,
		"not_applicable": object.union(none, {"something": "else"}),
	})
	decision.allow
	decision.checked.not_applicable == none
	not "inodes_free_percent" in object.keys(decision.checked)
}

test_not_applicable_must_be_said_and_is_said_of_few if {
	every why in [null, "", "  ", true, 5, {}] {
		decision := decide_all("production", {
			"inodes_free_percent": null,
			"not_applicable": {"inodes_free_percent": why},
		})
		decision.reasons == ["inodes_free_percent was not measured (it is null)"]
		not "not_applicable" in object.keys(decision.checked)
	}
	every claim in ["all", null, ["inodes_free_percent"]] {
		not decide_all("production", {"inodes_free_percent": null, "not_applicable": claim}).allow
	}
	every figure in figures {
		decision := decide_all("production", {figure: null, "not_applicable": {figure: "not here"}})
		decision.reasons == [sprintf("%s was not measured (it is null)", [figure])]
	}
}

test_what_was_measured_is_judged_whatever_is_said if {
	decision := decide_all("production", {"inodes_free_percent": 1, "not_applicable": {"inodes_free_percent": "btrfs"}})
	not decision.allow
	not "not_applicable" in object.keys(decision.checked)
	odd := decide_all("production", {"inodes_free_percent": "1", "not_applicable": {"inodes_free_percent": "btrfs"}})
	odd.reasons == [`inodes_free_percent was not measured (it is "1")`]
}

test_shipped_thresholds if {
	production := infrastructure.decision.thresholds with input as {"environment": "production"}
	production == {
		"disk_free_gb": {"min": 10},
		"inodes_free_percent": {"min": 5},
		"engine_disk_free_gb": {"min": 10},
		"cpu_load_1m": {"max": 2.0},
		"cpu_load_per_cpu": {"max": 2.0},
		"mem_free_percent": {"min": 10},
		"environment": "production",
		"source": "default",
	}
	own := infrastructure.decision.thresholds with input as {"environment": "local"}
	own == {
		"disk_free_gb": {"min": 2},
		"inodes_free_percent": {"min": 1},
		"engine_disk_free_gb": {"min": 2},
		"cpu_load_1m": {"max": 64},
		"cpu_load_per_cpu": {"max": 64},
		"mem_free_percent": {"min": 5},
		"environment": "local",
		"source": "local",
	}
}
