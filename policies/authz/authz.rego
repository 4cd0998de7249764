# METADATA
# title: Who may ask OPA what
# description: >-
#   Only decisions of known domains and OPA's health answer. Data and policies can be neither read nor
#   written over HTTP: they come from files alone. What is not named here is refused, so a path that a later
#   OPA adds is refused too.
package system.authz

domains := {"canary", "change", "image", "infrastructure"}

default allow := false

allow if {
	input.method == "POST"
	some domain in domains
	input.path == ["v1", "data", "swiftdeploy", domain, "decision"]
	object.get(input, "params", {}) in harmless
}

allow if {
	input.method == "GET"
	input.path == ["health"]
}

# Is it these policies that are loaded? See policies/health.
allow if {
	input.method == "GET"
	input.path = ["health", "loaded", _]
}

# ?provenance=true tells the revision that decided. ?explain=full and its like would show policy and data.
harmless := [{}, {"provenance": ["true"]}]
