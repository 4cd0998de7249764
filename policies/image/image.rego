# METADATA
# title: May these images run?
# description: >-
#   Input: environment, images: a list of {role, name, registry, repository, tag, digest}, the name taken apart and
#   made whole (nginx is docker.io and library/nginx), tag and digest empty where the name has none.
package swiftdeploy.image

import data.swiftdeploy.lib
import data.swiftdeploy.override

configured := lib.configured("image")

settings := lib.effective(configured)

choices := {
	"digest": {"optional", "required"},
	"floating_tags": {"allowed", "forbidden"},
}

default images := []

images := input.images if is_array(input.images)

parts := ["role", "name", "registry", "repository", "tag", "digest"]

# The images that can be judged.
known contains image if {
	some image in images
	is_object(image)
	every part in parts {
		is_string(image[part])
	}
	image.registry != ""
	image.repository != ""
}

# METADATA
# title: Why they may not
reasons contains "it is not known which images are to run" if count(images) == 0

reasons contains sprintf("image %s is not told in a way that can be judged", [lib.quoted(image)]) if {
	some image in images
	not image in known
}

reasons contains sprintf("registries is %s, not a list of where images may come from (%s)", [
	lib.found(settings, "registries"),
	lib.entry("image", ["registries"]),
]) if {
	not is_array(object.get(settings, "registries", null))
}

reasons contains sprintf("%s is %s, not %s (%s)", [
	name,
	lib.found(settings, name),
	concat(" or ", sort(words)),
	lib.entry("image", [name]),
]) if {
	some name, words in choices
	not object.get(settings, name, null) in words
}

reasons contains sprintf("fixed_tag is %s, not a regular expression (%s)", [
	lib.found(settings, "fixed_tag"),
	lib.entry("image", ["fixed_tag"]),
]) if {
	not regex.is_valid(object.get(settings, "fixed_tag", null))
}

reasons contains sprintf("%s image %s comes from %s/%s, allowed is %s (%s)", [
	image.role,
	image.name,
	image.registry,
	image.repository,
	lib.listed(settings.registries),
	lib.entry("image", ["registries"]),
]) if {
	some image in known
	is_array(settings.registries)
	not from_allowed(image)
}

reasons contains sprintf("%s image %s has the floating tag %s, which is forbidden (%s)", [
	image.role,
	image.name,
	tag(image),
	lib.entry("image", ["floating_tags"]),
]) if {
	settings.floating_tags == "forbidden"
	some image in known
	floats(image)
}

reasons contains sprintf("%s image %s has no digest, which is required (%s)", [
	image.role,
	image.name,
	lib.entry("image", ["digest"]),
]) if {
	settings.digest == "required"
	some image in known
	image.digest == ""
}

from_allowed(_) if "*" in settings.registries

from_allowed(image) if {
	some allowed_ in settings.registries
	allowed_ != "*"
	startswith(sprintf("%s/%s/", [image.registry, image.repository]), sprintf("%s/", [trim_right(allowed_, "/")]))
}

# A digest names the same bytes forever, whatever the tag beside it does.
floats(image) if {
	image.digest == ""
	not regex.match(settings.fixed_tag, tag(image))
}

tag(image) := image.tag if image.tag != ""

tag(image) := "latest" if image.tag == ""

default allow := false

allow if reasons == set()

# METADATA
# entrypoint: true
decision := override.applied({
	"domain": "image",
	"allow": allow,
	"insufficient": false,
	"reasons": sort(reasons),
	"checked": {"images": {image.role: image.name | some image in known}},
	"thresholds": object.union(settings, {
		"environment": lib.environment,
		"source": lib.source(configured),
	}),
})
