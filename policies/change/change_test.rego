package swiftdeploy.change_test

import data.swiftdeploy.change

# Windows of the tests' own, so that editing the shipped ones breaks only the test that states them.
weekend := {
	"timezone": "Europe/Berlin",
	"weekly": {"days": ["fri"], "from": "17:00", "until": "mon 08:00"},
	"reason": "nobody is there",
	"contact": "ops@example.com",
}

nights := object.union(weekend, {"weekly": {"days": ["mon", "tue"], "from": "22:00", "until": "06:00"}})

year_end := object.union(object.remove(weekend, ["weekly"]), {"once": {
	"from": "2026-12-23 12:00",
	"until": "2027-01-04T08:00",
}})

# The windows that hold at a time, in the default entry.
frozen(windows, timestamp) := ask(windows, timestamp).checked.frozen_by

ask(windows, timestamp) := decide({"default": {"actors": ["*"], "freezes": windows}}, {"timestamp": timestamp, "actor": "ada@c1"})

decide(configured, question) := decision if {
	decision := change.decision with data.thresholds as {"change": configured} with input as question
}

test_nothing_frozen_is_allowed if {
	decide({"default": {"actors": ["*"], "freezes": {}}}, {
		"timestamp": "2026-11-21T03:55:00.123Z",
		"actor": "ada@c1",
		"environment": "production",
	}) == {
		"domain": "change",
		"allow": true,
		"insufficient": false,
		"reasons": [],
		"checked": {"timestamp": "2026-11-21T03:55:00.123Z", "actor": "ada@c1", "frozen_by": [], "rejected": null},
		"thresholds": {"actors": ["*"], "freezes": {}, "environment": "production", "source": "default"},
	}
}

test_a_freeze_names_window_end_reason_and_contact if {
	decision := ask({"weekend": weekend}, "2026-11-21T12:00:00Z")
	not decision.allow
	not decision.insufficient
	decision.reasons == ["frozen by weekend until Mon 2026-11-23 08:00 Europe/Berlin: nobody is there; contact ops@example.com (policies/thresholds/data.yaml: change.default.freezes.weekend)"]
}

# Berlin is one hour ahead of UTC in November.
test_a_window_over_days_to_the_minute if {
	every time, held in {
		"2026-11-20T15:59:59.999Z": [],
		"2026-11-20T16:00:00Z": ["weekend"],
		"2026-11-22T23:30:00Z": ["weekend"],
		"2026-11-23T06:59:59.999Z": ["weekend"],
		"2026-11-23T07:00:00Z": [],
		"2026-11-25T12:00:00Z": [],
	} {
		frozen({"weekend": weekend}, time) == held
	}
}

test_a_time_with_an_offset_is_the_same_instant if {
	frozen({"weekend": weekend}, "2026-11-20T17:00:00+01:00") == ["weekend"]
	frozen({"weekend": weekend}, "2026-11-20T16:59:59+01:00") == []
}

test_a_window_across_midnight if {
	every time, held in {
		"2026-11-23T20:59:00Z": [],
		"2026-11-23T21:00:00Z": ["nights"],
		"2026-11-24T04:59:00Z": ["nights"],
		"2026-11-24T05:00:00Z": [],
		"2026-11-25T04:59:00Z": ["nights"],
		"2026-11-25T21:30:00Z": [],
	} {
		frozen({"nights": nights}, time) == held
	}
}

test_a_window_within_a_day_and_a_whole_day if {
	lunch := object.union(weekend, {"weekly": {"days": ["wed"], "from": "12:00", "until": "13:00"}})
	frozen({"lunch": lunch}, "2026-11-25T11:30:00Z") == ["lunch"]
	frozen({"lunch": lunch}, "2026-11-25T12:00:00Z") == []
	frozen({"lunch": lunch}, "2026-11-24T11:30:00Z") == []
	whole := object.union(weekend, {"weekly": {"days": ["wed"], "from": "00:00", "until": "24:00"}})
	frozen({"whole": whole}, "2026-11-24T23:00:00Z") == ["whole"]
	frozen({"whole": whole}, "2026-11-25T22:59:59Z") == ["whole"]
	frozen({"whole": whole}, "2026-11-25T23:00:00Z") == []
	around := object.union(weekend, {"weekly": {"days": ["wed"], "from": "09:00", "until": "09:00"}})
	frozen({"around": around}, "2026-11-26T07:59:00Z") == ["around"]
	frozen({"around": around}, "2026-11-26T08:00:00Z") == []
}

test_a_window_of_a_whole_week if {
	always := object.union(weekend, {"weekly": {"days": ["thu"], "from": "12:00", "until": "thu 12:00"}})
	every day in numbers.range(10, 28) {
		frozen({"always": always}, sprintf("2026-11-%dT11:00:00Z", [day])) == ["always"]
		frozen({"always": always}, sprintf("2026-11-%dT10:59:59.999999999Z", [day])) == ["always"]
	}
}

test_a_window_of_its_own_dates if {
	every time, held in {
		"2026-12-23T10:59:59Z": [],
		"2026-12-23T11:00:00Z": ["year-end"],
		"2027-01-04T06:59:59Z": ["year-end"],
		"2027-01-04T07:00:00Z": [],
	} {
		frozen({"year-end": year_end}, time) == held
	}
}

sunday(from, until) := object.union(weekend, {"weekly": {"days": ["sun"], "from": from, "until": until}})

# On 29 March 2026 the clocks in Berlin go from 02:00 to 03:00: 01:00 UTC.
test_when_the_clock_is_put_forward if {
	# A night that is an hour shorter ends when the clock says so.
	every time, held in {
		"2026-03-28T22:59:00Z": [],
		"2026-03-28T23:00:00Z": ["w"],
		"2026-03-29T03:59:00Z": ["w"],
		"2026-03-29T04:00:00Z": [],
	} {
		frozen({"w": sunday("00:00", "06:00")}, time) == held
	}

	# 02:30 is never shown: it has come once 03:00 is shown.
	every time, held in {
		"2026-03-29T00:59:59Z": [],
		"2026-03-29T01:00:00Z": ["w"],
		"2026-03-29T02:00:00Z": [],
	} {
		frozen({"w": sunday("02:30", "04:00")}, time) == held
	}
	every time, held in {
		"2026-03-29T00:59:59Z": ["w"],
		"2026-03-29T01:00:00Z": [],
	} {
		frozen({"w": sunday("01:00", "02:30")}, time) == held
	}
}

# On 25 October 2026 the clocks in Berlin go from 03:00 back to 02:00: 01:00 UTC.
test_when_the_clock_is_put_back if {
	# 02:30 is shown twice: a window begins at the first and ends at the second.
	every time, held in {
		"2026-10-25T00:29:59Z": [],
		"2026-10-25T00:30:00Z": ["w"],
		"2026-10-25T01:15:00Z": ["w"],
		"2026-10-25T02:59:59Z": ["w"],
		"2026-10-25T03:00:00Z": [],
	} {
		frozen({"w": sunday("02:30", "04:00")}, time) == held
	}
	every time, held in {
		"2026-10-25T00:30:00Z": ["w"],
		"2026-10-25T00:59:59Z": ["w"],
		"2026-10-25T01:29:59Z": ["w"],
		"2026-10-25T01:30:00Z": [],
	} {
		frozen({"w": sunday("01:00", "02:30")}, time) == held
	}
}

afternoon(zone) := object.union(weekend, {
	"timezone": zone,
	"weekly": {"days": ["wed"], "from": "12:00", "until": "14:00"},
})

test_zones_on_both_sides_of_utc if {
	frozen({"w": afternoon("Pacific/Kiritimati")}, "2026-11-24T22:30:00Z") == ["w"]
	frozen({"w": afternoon("America/Los_Angeles")}, "2026-11-25T20:30:00Z") == ["w"]
	frozen({"w": afternoon("Asia/Kathmandu")}, "2026-11-25T06:15:00Z") == ["w"]
	frozen({"w": afternoon("Asia/Kathmandu")}, "2026-11-25T06:14:59Z") == []
	frozen({"w": afternoon("UTC")}, "2026-11-25T12:00:00Z") == ["w"]
}

test_every_window_that_holds_is_told if {
	decision := ask({"weekend": weekend, "nights": nights, "year-end": year_end}, "2026-12-26T12:00:00Z")
	decision.checked.frozen_by == ["weekend", "year-end"]
	count(decision.reasons) == 2
}

environments := {
	"default": {"actors": ["*"], "freezes": {"weekend": weekend, "year-end": year_end}},
	"lab": {"freezes": {"weekend": null, "nights": nights, "year-end": {"contact": "lab@example.com"}}},
}

at(environment, time) := decide(environments, {"environment": environment, "timestamp": time, "actor": "a"})

test_an_environment_adds_takes_away_and_changes_windows if {
	at("production", "2026-11-21T12:00:00Z").checked.frozen_by == ["weekend"]
	at("lab", "2026-11-21T12:00:00Z").allow
	at("lab", "2026-11-24T22:00:00Z").checked.frozen_by == ["nights"]
	at("lab", "2026-12-24T12:00:00Z").reasons == ["frozen by year-end until Mon 2027-01-04 08:00 Europe/Berlin: nobody is there; contact lab@example.com (policies/thresholds/data.yaml: change.lab.freezes.year-end)"]
}

staff := {
	"default": {"actors": ["*"], "freezes": {}},
	"production": {"actors": ["*@ci.example.com", "ada@*"]},
}

asked(actor) := decide(staff, {"environment": "production", "timestamp": "2026-11-21T12:00:00Z", "actor": actor})

test_only_allowed_actors if {
	every actor in ["build@ci.example.com", "ada@laptop"] {
		asked(actor).allow
	}
	asked("eve@laptop").reasons == [`"eve@laptop" is not among those who may change production: *@ci.example.com, ada@* (policies/thresholds/data.yaml: change.production.actors)`]
	every actor in ["", "xada@laptop", "build@ci.example.com.evil", null, 5, ["ada@laptop"]] {
		not asked(actor).allow
	}
	nobody := decide(staff, {"timestamp": "2026-11-21T12:00:00Z"})
	nobody.reasons == ["missing is not among those who may change default: * (policies/thresholds/data.yaml: change.default.actors)"]
}

test_actors_that_cannot_be_used_are_a_denial if {
	every actors in [null, [], "*", [5], {"*": true}, ["["]] {
		decision := decide({"default": {"actors": actors, "freezes": {}}}, {"timestamp": "2026-11-21T12:00:00Z", "actor": "a"})
		not decision.allow
		count(decision.reasons) == 1
		contains(decision.reasons[0], "(policies/thresholds/data.yaml: change.default.actors)")
	}
}

test_a_question_without_its_time_is_a_denial if {
	every timestamp, found in {"noon": `"noon"`, "2026-11-21": `"2026-11-21"`, "": `""`} {
		decision := ask({}, timestamp)
		decision.reasons == [sprintf("it is not known when this is asked: timestamp is %s, not a time such as 2026-11-21T03:55:00Z", [found])]
	}
	not ask({}, null).allow
	not ask({}, 1797789600).allow
	none := decide({"default": {"actors": ["*"], "freezes": {"weekend": weekend}}}, {"actor": "a"})
	not none.allow
	contains(none.reasons[0], "timestamp is missing")
	every question in [null, "x", [1], {}] {
		not decide({"default": {"actors": ["*"], "freezes": {}}}, question).allow
	}
}

once(from, until) := object.union(object.remove(weekend, ["weekly"]), {"once": {"from": from, "until": until}})

weekly(changes) := object.union(weekend, {"weekly": changes})

test_a_window_that_cannot_be_used_is_a_denial if {
	every window in [
		5,
		"weekend",
		[],
		{},
		object.remove(weekend, ["timezone"]),
		object.remove(weekend, ["reason"]),
		object.remove(weekend, ["contact"]),
		object.remove(weekend, ["weekly"]),
		object.union(weekend, {"timezone": "Europe/Berlinn"}),
		object.union(weekend, {"timezone": ""}),
		object.union(weekend, {"timezone": "Local"}),
		object.union(weekend, {"timezone": 1}),
		object.union(weekend, {"reason": 5}),
		object.union(weekend, year_end),
		once("2027-01-04 08:00", "2026-12-23 12:00"),
		once("2026-12-23 12:00", "2026-12-23 12:00"),
		once("2026-12-23", "2027-01-04"),
		once("2026-02-30 12:00", "2027-01-04 08:00"),
		once("2026-12-23 12:00Z", "2027-01-04 08:00"),
		once(20261223, 20270104),
		weekly({"days": []}),
		weekly({"days": ["friday"]}),
		weekly({"days": "fri"}),
		weekly({"days": ["fri", 6]}),
		weekly({"from": "24:00"}),
		weekly({"from": "25:00"}),
		weekly({"from": "7:00"}),
		weekly({"from": 1020}),
		weekly({"until": "monday 08:00"}),
		weekly({"until": "mon 8:00"}),
		weekly({"until": "08:60"}),
		weekly({"until": "at mon 08:00"}),
		weekly({"until": null}),
	] {
		decision := ask({"odd": window}, "2026-11-25T12:00:00Z")
		not decision.allow
		count(decision.reasons) == 1
		startswith(decision.reasons[0], "the freeze window odd is ")
		endswith(decision.reasons[0], ", which cannot be used (policies/thresholds/data.yaml: change.default.freezes.odd)")
	}
}

test_thresholds_that_are_none_are_a_denial if {
	every wrong in [{}, {"change": null}, {"change": {"default": 5}}, {"change": {"default": {}}}, []] {
		decision := change.decision with data.thresholds as wrong
			with input as {"timestamp": "2026-11-21T12:00:00Z", "actor": "a"}
		not decision.allow
		decision.reasons == [
			`"a" is not among those who may change default: null (policies/thresholds/data.yaml: change.default.actors)`,
			"no freezes are set (policies/thresholds/data.yaml: change.default.freezes)",
		]
	}
}

test_an_override_goes_past_a_freeze if {
	decision := change.decision with input as {
		"timestamp": "2026-11-21T12:00:00Z",
		"actor": "ada@c1",
		"override": "the shop is down for everybody",
	}
		with data.thresholds as {
			"change": {"default": {"actors": ["*"], "freezes": {"weekend": weekend}}},
			"override": {"default": {"denied": ["change"], "actors": ["*"], "reason_min_length": 10}},
		}
	decision.allow
	decision.reasons == []
	count(decision.override.overridden) == 1
	decision.checked.frozen_by == ["weekend"]
}

test_shipped_thresholds if {
	every environment in ["production", "local"] {
		decision := change.decision with input as {
			"environment": environment,
			"timestamp": "2026-11-21T12:00:00Z",
			"actor": "ada@c1",
		}
		decision.allow
		decision.thresholds == {"actors": ["*"], "freezes": {}, "may_return": [], "environment": environment, "source": "default"}
	}
}

# A release that the host has taken away, in a question that is allowed but for that.
returning(why, may_return) := decide(
	{"default": {"actors": ["*"], "freezes": {}, "may_return": may_return}},
	{
		"timestamp": "2026-11-21T03:55:00Z",
		"actor": "ada@c1",
		"release": {"version": "2.0.0", "mode": "stable", "rejected": {"id": "r2", "why": why, "time": "2026-11-20T01:02:03Z"}},
	},
)

test_a_release_that_was_taken_away_does_not_come_back_unasked if {
	every why, words in {
		"rolled_back": "was rolled back",
		"denied": "was denied as a canary",
		"died": "died with the traffic",
		"other": "left as other",
	} {
		decision := returning(why, [])
		not decision.allow
		not decision.insufficient
		decision.reasons == [sprintf("v2.0.0 %s on this host (release r2 of 2026-11-20T01:02:03Z) and does not come back unasked (policies/thresholds/data.yaml: change.default.may_return)", [words])]
		decision.checked.rejected.why == why
	}
}

test_which_may_come_back_is_data if {
	returning("died", ["died"]).allow
	not returning("rolled_back", ["died"]).allow
	returning("died", ["died"]).checked.rejected.why == "died"
}

test_a_release_that_nothing_is_held_against_is_none_of_them if {
	every release in [null, {}, {"version": "2.0.0", "rejected": null}] {
		decide({"default": {"actors": ["*"], "freezes": {}}}, {
			"timestamp": "2026-11-21T03:55:00Z",
			"actor": "ada@c1",
			"release": release,
		}).allow
	}
}

test_an_unreadable_list_lets_nothing_back if {
	every list in [null, "died", {"died": true}] {
		not returning("died", list).allow
	}
}
