# METADATA
# title: What the decision log must not hold
# description: >-
#   Nothing that SwiftDeploy asks holds a secret. Should a later question or policy carry one, its value is taken
#   out of OPA's decision log here, wherever it stands. Figures, names and reasons stay.
package system.log

secret := `(?i)(secret|passw|token|credential|authorization|cookie|(api|private|access)[_-]?key)`

# A field is named to OPA by its JSON pointer.
mask contains {"op": "upsert", "path": sprintf("/%s/%s", [part, pointer]), "value": "(masked)"} if {
	some part in ["input", "result"]
	is_object(input[part])
	[path, _] := walk(input[part])
	some i, key in path
	i == count(path) - 1
	is_string(key)
	regex.match(secret, key)
	pointer := concat("/", [escaped(step) | some step in path])
}

escaped(step) := replace(replace(sprintf("%v", [step]), "~", "~0"), "/", "~1")
