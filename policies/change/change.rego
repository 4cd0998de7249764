# METADATA
# title: May anything change now?
# description: >-
#   Input: environment, timestamp (RFC 3339), actor, release. Freeze windows, the people who may change anything, and
#   which releases may come back are data (thresholds: change). Nothing here asks the clock: the same question has the
#   same answer on any day.
package swiftdeploy.change

import data.swiftdeploy.lib
import data.swiftdeploy.override

configured := lib.configured("change")

settings := lib.effective(configured)

default question := {}

question := input if is_object(input)

# The instant of the question in nanoseconds; undefined where it is no time.
now := time.parse_rfc3339_ns(question.timestamp) if is_string(question.timestamp)

default freezes := {}

# An environment takes a window away by null.
freezes := {name: window | some name, window in settings.freezes; window != null} if is_object(settings.freezes)

# METADATA
# title: Why nothing may change
reasons contains sprintf("it is not known when this is asked: timestamp is %s, not a time such as 2026-11-21T03:55:00Z", [found]) if {
	not now
	found := lib.found(question, "timestamp")
}

reasons contains sprintf("no freezes are set (%s)", [lib.entry("change", ["freezes"])]) if {
	not is_object(object.get(settings, "freezes", null))
}

reasons contains sprintf("%s is not among those who may change %s: %s (%s)", [
	lib.found(question, "actor"),
	lib.environment,
	lib.listed(object.get(settings, "actors", null)),
	lib.entry("change", ["actors"]),
]) if {
	not may_change
}

reasons contains sprintf("the freeze window %s is %s, which cannot be used (%s)", [name, lib.quoted(window), where(name)]) if {
	some name, window in freezes
	not usable(window)
}

reasons contains sprintf("frozen by %s until %s %s: %s; contact %s (%s)", [
	name,
	time.format([until, "UTC", "Mon 2006-01-02 15:04"]),
	freezes[name].timezone,
	freezes[name].reason,
	freezes[name].contact,
	where(name),
]) if {
	some name, until in frozen
}

reasons contains sprintf("v%s %s on this host (release %s of %s) and does not come back unasked (%s)", [
	object.get(question.release, "version", "?"),
	left_as(rejected.why),
	object.get(rejected, "id", "?"),
	object.get(rejected, "time", "?"),
	lib.entry("change", ["may_return"]),
]) if {
	rejected
	not rejected.why in settings.may_return
}

# How the host took the release away that is asked for; undefined where it never did.
rejected := question.release.rejected if is_object(question.release.rejected)

default held_against := null

held_against := rejected

leaving := {
	"rolled_back": "was rolled back",
	"denied": "was denied as a canary",
	"died": "died with the traffic",
}

left_as(why) := leaving[why]

left_as(why) := sprintf("left as %s", [why]) if not leaving[why]

may_change if {
	is_string(question.actor)
	lib.matches(settings.actors, question.actor)
}

where(name) := lib.entry("change", ["freezes", name])

# The windows that hold now, each with the wall clock's time at which it ends.
frozen[name] := until if {
	some name, window in freezes
	usable(window)
	ends := {span.until |
		some span in spans(window)
		begun(span.from, window.timezone)
		not ended(span.until, window.timezone)
	}
	until := max(ends)
}

usable(window) if {
	is_object(window)
	known_zone(window.timezone)
	is_string(window.reason)
	is_string(window.contact)
	count([form | some form in ["once", "weekly"]; form in object.keys(window)]) == 1
	readable(window)
}

# "Local" would be the zone of the machine that OPA runs on.
known_zone(zone) if {
	not zone in {"", "Local"}
	time.format([0, zone, "15:04"])
}

readable(window) if moment(window.once.from) < moment(window.once.until)

readable(window) if {
	is_array(window.weekly.days)
	window.weekly.days != []
	clock(window.weekly.from) < day
	every name in window.weekly.days {
		length(name, window.weekly) > 0
	}
}

# --- wall clocks: nanoseconds of what a clock on the wall shows, as if that were UTC ---

day := 86400000000000

# What the clock in a zone shows at an instant.
wall(instant, zone) := moment(time.format([instant, zone, "2006-01-02T15:04:05.999999999"]))

# A date and time such as 2026-12-23 12:00 on the clock.
moment(text) := time.parse_rfc3339_ns(sprintf("%sT%s%sZ", [parts[1], parts[2], seconds(parts[3])])) if {
	some parts in regex.find_all_string_submatch_n(`^(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d)(:[\d.]+)?$`, text, 1)
}

seconds("") := ":00"

seconds(text) := text if text != ""

# A time of the day such as 17:00, as what has passed of the day.
clock("24:00") := day

clock(text) := time.parse_rfc3339_ns(sprintf("1970-01-01T%s:00Z", [text])) if regex.match(`^\d\d:\d\d$`, text)

weekdays := ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]

number_of(name) := number if {
	some number, known in weekdays
	known == name
}

# When a window begins and ends by the clock, near enough to now that it may hold.
spans(window) := {{"from": moment(window.once.from), "until": moment(window.once.until)}}

spans(window) := found if {
	window.weekly
	shown := wall(now, window.timezone)
	today := shown - (shown % day)
	found := {{"from": from, "until": from + length(name, window.weekly)} |
		# Eight days back, as a window may be a week long; one on, as a clock put back may show yesterday again.
		some back in numbers.range(-1, 8)
		date := today - (back * day)
		name := lower(substring(time.weekday(date), 0, 3))
		name in window.weekly.days
		from := date + clock(window.weekly.from)
	}
}

# How long a weekly window is that begins on a day: to the next time that the clock shows its end.
length(name, weekly) := ahead(clock(weekly.until) - clock(weekly.from), day) if {
	name in weekdays
	not contains(weekly.until, " ")
}

length(name, weekly) := ahead(((number_of(parts[0]) - number_of(name)) * day) + (clock(parts[1]) - clock(weekly.from)), 7 * day) if {
	parts := split(weekly.until, " ")
	count(parts) == 2
}

# The same place in a circle, going forward.
ahead(distance, _) := distance if distance > 0

ahead(distance, circle) := distance + circle if distance <= 0

# The instants at which the clock shows something: none where it is put forward past that, two where it is put back.
instants(shown, zone) := {instant |
	some apart in [0 - day, day]
	near := shown + apart
	instant := shown - (wall(near, zone) - near)
	wall(instant, zone) == shown
}

# A window begins the first time that the clock shows its beginning, and ends the last time that it shows its end.
begun(shown, zone) if now >= min(instants(shown, zone))

begun(shown, zone) if {
	instants(shown, zone) == set()
	wall(now, zone) >= shown
}

ended(shown, zone) if now >= max(instants(shown, zone))

ended(shown, zone) if {
	instants(shown, zone) == set()
	wall(now, zone) >= shown
}

# METADATA
# entrypoint: true
decision := override.applied({
	"domain": "change",
	"allow": allow,
	"insufficient": false,
	"reasons": sort(reasons),
	"checked": {
		"timestamp": object.get(question, "timestamp", null),
		"actor": object.get(question, "actor", null),
		"frozen_by": sort(object.keys(frozen)),
		"rejected": held_against,
	},
	"thresholds": object.union(settings, {
		"environment": lib.environment,
		"source": lib.source(configured),
	}),
})

default allow := false

allow if reasons == set()
