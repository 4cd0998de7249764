package swiftdeploy.lib_test

import data.swiftdeploy.lib

configured := {
	"default": {"a": {"min": 1}, "b": {"max": 2}},
	"local": {"b": {"max": 20}},
	"odd": 5,
}

test_environment_is_the_one_asked_for if lib.environment == "local" with input as {"environment": "local"}

test_environment_missing_is_default if {
	every question in [{}, {"environment": null}, {"environment": 3}, null] {
		lib.environment == "default" with input as question
	}
}

test_own_entry_overrides_figure_by_figure if {
	lib.effective(configured) == {"a": {"min": 1}, "b": {"max": 20}} with input as {"environment": "local"}
	lib.source(configured) == "local" with input as {"environment": "local"}
}

test_environment_without_entry_has_the_default if {
	every name in ["production", "staging", "default", "odd"] {
		lib.effective(configured) == configured["default"] with input as {"environment": name}
		lib.source(configured) == "default" with input as {"environment": name}
	}
}

test_no_thresholds_at_all if lib.effective({}) == {}

test_figures if {
	every value in [0, 1, 0.5, 9007199254740992] {
		lib.is_figure(value)
	}
	every value in [null, true, "1", "NaN", [1], {}, -1, -0.001, 9007199254740994, 1e308] {
		not lib.is_figure(value)
	}
}

test_wrong_thresholds_are_told if {
	lib.wrong_thresholds("t", {"a": "min"}, {"a": {"min": 1, "max": 5}}) == set()
	lib.wrong_thresholds("t", {"a": "min"}, {"a": {"max": 5}}) == {"no minimum of a is set (policies/thresholds/data.yaml: t.default.a)"}
	lib.wrong_thresholds("t", {"a": "max"}, {}) == {"no maximum of a is set (policies/thresholds/data.yaml: t.default.a)"}
	every bounds in [5, null, "10", [], {}, {"min": "10"}, {"min": -1}, {"minimum": 1}] {
		reason := sprintf(
			"the threshold of a is %s, not a min or max of 0 or more (policies/thresholds/data.yaml: t.default.a)",
			[json.marshal(bounds)],
		)
		lib.wrong_thresholds("t", {}, {"a": bounds}) == {reason}
	}
}

test_unmeasured_names_figure_and_finding if {
	figures := {"a": null, "b": "10", "c": -3, "d": 4}
	lib.unmeasured({"a", "b", "c", "d", "e"}, figures) == {
		"a was not measured (it is null)",
		`b was not measured (it is "10")`,
		"c was not measured (it is -3)",
		"e was not measured (it is missing)",
	}
}

test_long_values_are_cut if {
	text := concat("", [sprintf("%v", [n]) | some n in numbers.range(100, 200)])
	count(lib.quoted(text)) == 63
	endswith(lib.quoted(text), "...")
}

test_figure_known_to_data_alone_is_told_by_name if {
	lib.violations("t", {}, {"inodes_free_percent": {"min": 5}}, {"inodes_free_percent": 3}) == {"inodes_free_percent is 3.00, minimum is 5 (policies/thresholds/data.yaml: t.default.inodes_free_percent)"}
}

test_a_text_is_never_within_a_limit if {
	lib.violations("t", {}, {"a": {"max": "9"}}, {"a": 10}) == set()
	lib.violations("t", {}, {"a": {"max": 9}}, {"a": "1"}) == set()
	lib.wrong_thresholds("t", {}, {"a": {"max": "9"}}) != set()
	lib.unmeasured({"a"}, {"a": "1"}) != set()
}

test_patterns if {
	lib.matches(["*"], "ada@c1")
	lib.matches(["x", "ada@*"], "ada@c1.example.com")
	every patterns in [["ada"], ["*@c2"], [], null, "*", {"*"}, [5], ["["]] {
		not lib.matches(patterns, "ada@c1")
	}
	not lib.matches(["*"], "")
}

test_lists if {
	lib.listed(["a", "b"]) == "a, b"
	lib.listed([]) == "[]"
	lib.listed(["a", 5]) == `["a",5]`
	lib.listed(null) == "null"
}

test_where_a_value_is_changed if {
	asked := {"environment": "local"}
	data_ := {"t": {"default": {"a": {"min": 1}, "b": {"max": 2}}, "local": {"b": {"max": 20}}}}
	lib.entry("t", ["b"]) == "policies/thresholds/data.yaml: t.local.b" with input as asked with data.thresholds as data_
	lib.entry("t", ["a"]) == "policies/thresholds/data.yaml: t.default.a" with input as asked with data.thresholds as data_
	lib.entry("t", ["a"]) == "policies/thresholds/data.yaml: t.default.a" with data.thresholds as {"t": 5}
}

test_numbers_as_text if {
	lib.fixed(4.2, 1) == "4.2"
	lib.fixed(2, 2) == "2.00"
	lib.fixed(10.05, 2) == "10.05"
	lib.fixed(0.05, 1) == "0.1"
	lib.fixed(619.5, 0) == "620"
	lib.fixed(1e15, 1) == "1000000000000000.0"
	lib.exact(10, 0) == "10"
	lib.exact(10.5, 0) == "10.5"
	lib.exact(0.005, 2) == "0.005"
	lib.exact(0.00000001, 2) == "0.000000"
	lib.distinct(9.96, 10, 1) == "9.96"
	lib.distinct(500.4, 500, 0) == "500.4"
	lib.distinct(2.000000001, 2, 2) == "2.000000"
}
