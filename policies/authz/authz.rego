# METADATA
# title: Who may ask OPA what
# description: >-
#   Only decisions of known domains and OPA's health answer. Data and policies can be neither read nor
#   written over HTTP: they come from files alone.
package system.authz

domains := {"canary", "infrastructure"}

default allow := false

allow if {
	input.method == "POST"
	some domain in domains
	input.path == ["v1", "data", "swiftdeploy", domain, "decision"]
	not asks_for_more
}

allow if {
	input.method == "GET"
	input.path == ["health"]
}

# ?explain=full and its like would show policy and data.
asks_for_more if count(input.params) > 0
