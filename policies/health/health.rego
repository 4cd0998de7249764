# METADATA
# title: Are these policies loaded?
# description: >-
#   GET /health/loaded/<revision> answers 200 where the running OPA has loaded exactly the policies of that
#   revision, 500 where it has not. Files that were installed and an OPA that was started are not proof of that.
package system.health

# OPA keeps the manifest of each bundle that it has loaded in data.system.bundles.
loaded[revision] := true if {
	revision := data.system.bundles[_].manifest.revision
}
