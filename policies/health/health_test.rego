package system.health_test

import data.system.health

bundles(revision) := {"opa/policies": {"manifest": {"revision": revision, "roots": [""]}}}

test_the_loaded_revision_is_true if {
	health.loaded["0a1b"] with data.system.bundles as bundles("0a1b")
}

test_any_other_is_undefined if {
	not health.loaded["0a1b"] with data.system.bundles as bundles("2c3d")
	not health.loaded["0a1b"] with data.system.bundles as {}
}
