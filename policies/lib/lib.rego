# METADATA
# title: What every domain shares
# description: >-
#   Which thresholds hold in an environment, which of them a set of figures breaks, and the words for it.
#   Nothing here knows a domain; thresholds come from data alone.
package swiftdeploy.lib

# Where a person changes a threshold; part of the reasons that are about the thresholds themselves.
thresholds_file := "policies/thresholds/data.yaml"

# The environment asked for, "default" when the question names none.
default environment := "default"

environment := input.environment if is_string(input.environment)

# A figure that can be judged. Rego orders values of different types (5 < "10"), so every comparison
# in these policies is guarded by this. Nothing that is counted or timed here is beyond 2^53.
is_figure(value) if {
	is_number(value)
	value >= 0
	value <= 9007199254740992
}

# A table of the thresholds, an empty one where there is none.
default configured(_) := {}

configured(name) := data.thresholds[name] if is_object(data.thresholds[name])

# The default entry of a domain's thresholds, figure by figure overridden by the environment's own.
effective(configured) := object.union(table(configured, "default"), table(configured, environment))

# Which entry was used, so that a reader of the decision knows what to edit.
source(configured) := environment if {
	is_object(object.get(configured, environment, null))
} else := "default"

# The object under a key, an empty one where there is none.
table(object_, key) := value if {
	value := object.get(object_, key, null)
	is_object(value)
} else := {}

# Where a person changes what a table says below some keys, for example
# "policies/thresholds/data.yaml: infrastructure.local.disk_free_gb".
entry(name, keys) := place(name, owner(name, keys), keys)

place(name, owner_, keys) := sprintf("%s: %s", [thresholds_file, concat(".", array.concat([name, owner_], keys))])

# Which entry of a table says it: the environment's own, else the default.
owner(name, keys) := environment if {
	object.get(configured(name), array.concat([environment], keys), null) != null
} else := "default"

# Reasons why the thresholds of a table cannot be used; required is {figure: "min" or "max"}.
wrong_thresholds(name, required, thresholds) := unset | unusable if {
	unset := {reason |
		some figure, bound in required
		not thresholds[figure][bound]
		reason := sprintf("no %s of %s is set (%s)", [bound_words[bound], figure, entry(name, [figure])])
	}
	unusable := {reason |
		some figure, bounds in thresholds
		not usable(bounds)
		reason := sprintf("the threshold of %s is %s, not a min or max of 0 or more (%s)", [
			figure,
			quoted(bounds),
			entry(name, [figure]),
		])
	}
}

usable(bounds) if {
	is_object(bounds)
	bounds != {}
	every bound, limit in bounds {
		bound in {"min", "max"}
		is_figure(limit)
	}
}

# Why a figure could not be judged, one reason for each name; names is a set.
unmeasured(names, figures) := {reason |
	some name in names
	not is_figure(object.get(figures, name, null))
	reason := sprintf("%s was not measured (it is %s)", [name, found(figures, name)])
}

found(figures, name) := quoted(figures[name])

found(figures, name) := "missing" if not name in object.keys(figures)

# A value as JSON, cut to a length that fits a line.
quoted(value) := text if {
	text := json.marshal(value)
	count(text) <= 60
}

quoted(value) := sprintf("%s...", [substring(text, 0, 60)]) if {
	text := json.marshal(value)
	count(text) > 60
}

# One reason for each limit of a table that a figure breaks. wordings is {figure: wording}, see wording_of.
violations(name, wordings, thresholds, figures) := {reason |
	some figure, bounds in thresholds
	value := figures[figure]
	is_figure(value)
	some bound, limit in bounds
	is_figure(limit)
	breaks(bound, value, limit)
	where := place(name, owner(name, [figure, bound]), [figure])
	reason := sprintf("%s (%s)", [sentence(wording_of(wordings, figure), bound, value, limit), where])
}

breaks("min", value, limit) if value < limit

breaks("max", value, limit) if value > limit

bound_words := {"min": "minimum", "max": "maximum"}

# How a figure is told: text and limit with one %s each, scale to the unit shown, decimals of both.
# A figure that only data knows is told by its name.
wording_of(wordings, figure) := wordings[figure]

wording_of(wordings, figure) := {
	"text": sprintf("%s is %%s", [figure]),
	"limit": "%s",
	"scale": 1,
	"decimals": 2,
	"limit_decimals": 0,
} if {
	not figure in object.keys(wordings)
}

# "<figure>, <minimum or maximum> is <limit>", never with two figures that look the same.
sentence(wording, bound, value, limit) := sprintf("%s, %s is %s", [
	sprintf(wording.text, [distinct(value * wording.scale, limit * wording.scale, wording.decimals)]),
	bound_words[bound],
	sprintf(wording.limit, [exact(limit * wording.scale, wording.limit_decimals)]),
])

most_decimals := 6

# A number with at least the given decimals, with more where rounding would hide what it is.
exact(number, decimals) := fixed(number, min(enough)) if {
	enough := decimals_where(decimals, {d |
		some d in numbers.range(decimals, most_decimals)
		abs(shifted(number, d) - (number * power(d))) < 0.000001
	})
}

# A number rounded, with more decimals where it would read the same as the limit it breaks.
distinct(number, limit, decimals) := fixed(number, min(enough)) if {
	enough := decimals_where(decimals, {d |
		some d in numbers.range(decimals, most_decimals)
		shifted(number, d) != shifted(limit, d)
	})
}

decimals_where(_, found_) := found_ if found_ != set()

decimals_where(_, found_) := {most_decimals} if found_ == set()

# sprintf("%.2f") fails on whole numbers, so the digits are put together from integers.
fixed(number, 0) := sprintf("%d", [shifted(number, 0)])

fixed(number, decimals) := sprintf("%d.%0*d", [floor(digits / power(decimals)), decimals, digits % power(decimals)]) if {
	decimals > 0
	digits := shifted(number, decimals)
}

shifted(number, decimals) := round(number * power(decimals))

power(0) := 1

power(decimals) := to_number(sprintf("1%0*d", [decimals, 0])) if decimals > 0

# Whether a text is one of those that patterns (* stands for any text) allow. A pattern that is none allows nothing,
# and no pattern allows an empty text.
matches(patterns, text) if {
	text != ""
	is_array(patterns)
	some pattern in patterns
	glob.match(pattern, null, text)
}

# A list for a sentence.
listed(values) := concat(", ", values) if {
	is_array(values)
	values != []
	every value in values {
		is_string(value)
	}
} else := quoted(values)
