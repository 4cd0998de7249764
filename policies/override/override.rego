# METADATA
# title: When may a person go past a decision?
# description: >-
#   Break-glass for every domain. Input: override (the reason that a person gave, null for none), actor,
#   environment. Whether it is accepted, for which domains and from whom, is data (thresholds: override).
package swiftdeploy.override

import data.swiftdeploy.lib

settings := lib.effective(lib.configured("override"))

default asked := null

asked := input.override if is_object(input)

default actor := ""

actor := input.actor if is_string(input.actor)

# The decision of a domain as it stands once a person's override is taken into account. An override that is not
# needed leaves no trace; one that is refused says why among the reasons.
applied(decision) := decision if {
	decision.allow
} else := decision if {
	asked == null
} else := object.union(decision, {
	"allow": true,
	"insufficient": false,
	"reasons": [],
	"override": told(true, decision.reasons),
}) if {
	refusals(decision) == set()
} else := object.union(decision, {
	"reasons": array.concat(decision.reasons, sort(refusals(decision))),
	"override": told(false, []),
})

told(accepted, overridden) := {
	"accepted": accepted,
	"reason": reason,
	"actor": actor,
	"overridden": overridden,
}

reason := trim_space(asked) if is_string(asked)

reason := lib.quoted(asked) if not is_string(asked)

refusals(decision) := {sprintf("the override is not accepted: %s", [why]) | some why in (faults | unfit(decision))}

# METADATA
# title: What speaks against the override whatever it is about
faults contains sprintf("it is %s, not a text", [lib.quoted(asked)]) if not is_string(asked)

faults contains sprintf("its reason has %d characters, at least %s are needed (%s)", [
	count(reason),
	lib.exact(settings.reason_min_length, 0),
	lib.entry("override", ["reason_min_length"]),
]) if {
	is_string(asked)
	lib.is_figure(settings.reason_min_length)
	count(reason) < settings.reason_min_length
}

faults contains sprintf("no reason_min_length of 0 or more is set (%s)", [lib.entry("override", ["reason_min_length"])]) if {
	not lib.is_figure(object.get(settings, "reason_min_length", null))
}

faults contains sprintf("%s is not among those who may override: %s (%s)", [
	lib.quoted(actor),
	lib.listed(object.get(settings, "actors", null)),
	lib.entry("override", ["actors"]),
]) if {
	not lib.matches(object.get(settings, "actors", null), actor)
}

# Why a decision of this domain and outcome cannot be overridden.
unfit(decision) := {sprintf("%s by %s cannot be overridden (%s)", [
	outcome_words[key],
	decision.domain,
	lib.entry("override", [key]),
]) |
	key := outcome(decision)
	not overridable(key, decision.domain)
}

outcome(decision) := "insufficient" if decision.insufficient

outcome(decision) := "denied" if not decision.insufficient

outcome_words := {"denied": "a denial", "insufficient": "a want of evidence found"}

overridable(key, domain) if {
	is_array(settings[key])
	domain in settings[key]
}
