# METADATA
# title: May this host take a deploy?
# description: >-
#   Input: environment, facts (what swiftdeploy_host_facts measured). A figure that was not measured is a denial.
package swiftdeploy.infrastructure

import data.swiftdeploy.lib

# The figures without which there is no answer, and the side on which each must have a limit.
required := {
	"cpu_load_1m": "max",
	"disk_free_gb": "min",
	"mem_free_percent": "min",
}

wordings := {
	"cpu_load_1m": {
		"text": "CPU load (1 min) is %s",
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
	"mem_free_percent": {
		"text": "memory has %s %% free",
		"limit": "%s %%",
		"scale": 1,
		"decimals": 1,
		"limit_decimals": 1,
	},
}

default configured := {}

configured := data.thresholds.infrastructure if is_object(data.thresholds.infrastructure)

default facts := {}

facts := input.facts if is_object(input.facts)

thresholds := lib.effective(configured)

judged := object.keys(thresholds) | object.keys(required)

reasons := (lib.wrong_thresholds(required, thresholds) | lib.unmeasured(judged, facts)) | lib.violations(wordings, thresholds, facts)

default allow := false

allow if reasons == set()

# METADATA
# entrypoint: true
decision := {
	"domain": "infrastructure",
	"allow": allow,
	"insufficient": false,
	"reasons": sort(reasons),
	"checked": {figure: object.get(facts, figure, null) | some figure in judged},
	"thresholds": object.union(thresholds, {
		"environment": lib.environment,
		"source": lib.source(configured),
	}),
}
