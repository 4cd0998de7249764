# METADATA
# title: May this host take a deploy?
# description: >-
#   Input: environment, facts (what swiftdeploy_host_facts measured). A figure that was not measured is a denial.
#   Some figures do not exist on every host: those the facts call not_applicable are not judged, and are named.
package swiftdeploy.infrastructure

import data.swiftdeploy.lib
import data.swiftdeploy.override

# The figures without which there is no answer, and the side on which each must have a limit.
required := {
	"cpu_load_1m": "max",
	"disk_free_gb": "min",
	"mem_free_percent": "min",
}

# The only figures that a host may do without.
optional := {"engine_disk_free_gb", "inodes_free_percent"}

wordings := {
	"cpu_load_1m": {
		"text": "CPU load (1 min) is %s",
		"limit": "%s",
		"scale": 1,
		"decimals": 2,
		"limit_decimals": 2,
	},
	"cpu_load_per_cpu": {
		"text": "CPU load (1 min) is %s for each CPU",
		"limit": "%s",
		"scale": 1,
		"decimals": 2,
		"limit_decimals": 2,
	},
	"disk_free_gb": {
		"text": "disk has %s GB free",
		"limit": "%s GB",
		"scale": 1,
		"decimals": 1,
		"limit_decimals": 0,
	},
	"engine_disk_free_gb": {
		"text": "disk of the container engine's data has %s GB free",
		"limit": "%s GB",
		"scale": 1,
		"decimals": 1,
		"limit_decimals": 0,
	},
	"inodes_free_percent": {
		"text": "disk has %s %% of its inodes free",
		"limit": "%s %%",
		"scale": 1,
		"decimals": 1,
		"limit_decimals": 1,
	},
	"mem_free_percent": {
		"text": "memory has %s %% free",
		"limit": "%s %%",
		"scale": 1,
		"decimals": 1,
		"limit_decimals": 1,
	},
}

configured := lib.configured("infrastructure")

default facts := {}

facts := input.facts if is_object(input.facts)

thresholds := lib.effective(configured)

# What the facts say this host has not, with the reason. A figure that was measured all the same is judged.
not_applicable := {figure: why |
	some figure in optional
	figure in object.keys(thresholds)
	why := facts.not_applicable[figure]
	is_string(why)
	trim_space(why) != ""
	object.get(facts, figure, null) == null
}

judged := (object.keys(thresholds) | object.keys(required)) - object.keys(not_applicable)

# Told only where there is something to tell.
passed_over := {"not_applicable": not_applicable} if not_applicable != {}

passed_over := {} if not_applicable == {}

wrong := lib.wrong_thresholds("infrastructure", required, thresholds)

broken := lib.violations("infrastructure", wordings, thresholds, facts)

reasons := (wrong | lib.unmeasured(judged, facts)) | broken

default allow := false

allow if reasons == set()

# METADATA
# entrypoint: true
decision := override.applied({
	"domain": "infrastructure",
	"allow": allow,
	"insufficient": false,
	"reasons": sort(reasons),
	"checked": object.union({figure: object.get(facts, figure, null) | some figure in judged}, passed_over),
	"thresholds": object.union(thresholds, {
		"environment": lib.environment,
		"source": lib.source(configured),
	}),
})
