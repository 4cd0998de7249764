package swiftdeploy.image_test

import data.swiftdeploy.image

# Limits of the tests' own, so that editing the shipped ones breaks only the test that states them.
rules := {
	"registries": ["docker.io/library", "ghcr.io", "registry.example.com:5000/team/"],
	"floating_tags": "forbidden",
	"fixed_tag": "[0-9]",
	"digest": "optional",
}

fixed := "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

nginx := {
	"role": "nginx",
	"name": "nginx:1.31.3",
	"registry": "docker.io",
	"repository": "library/nginx",
	"tag": "1.31.3",
	"digest": "",
}

# The decision on nginx's image with some of it replaced, under the rules with some of them replaced.
decide(changes, other_rules) := ask([object.union(nginx, changes)], other_rules)

ask(images, other_rules) := decision if {
	decision := image.decision with data.thresholds as {"image": {"default": object.union(rules, other_rules)}}
		with input as {"environment": "production", "images": images}
}

test_a_fixed_image_of_an_allowed_registry if {
	decide({}, {}) == {
		"domain": "image",
		"allow": true,
		"insufficient": false,
		"reasons": [],
		"checked": {"images": {"nginx": "nginx:1.31.3"}},
		"thresholds": object.union(rules, {"environment": "production", "source": "default"}),
	}
}

from(registry, repository) := decide({"registry": registry, "repository": repository}, {})

test_registries if {
	from("ghcr.io", "acme/app").allow
	from("registry.example.com:5000", "team/app").allow
	every place in [
		["docker.io", "acme/app"],
		["docker.io", "library2/nginx"],
		["docker.io", "librar"],
		["ghcr.io.evil.example", "acme/app"],
		["registry.example.com", "team/app"],
		["registry.example.com:5000", "teams/app"],
		["localhost:5000", "nginx"],
	] {
		decision := from(place[0], place[1])
		not decision.allow
		decision.reasons == [sprintf(
			"nginx image nginx:1.31.3 comes from %s/%s, allowed is docker.io/library, ghcr.io, registry.example.com:5000/team/ (policies/thresholds/data.yaml: image.default.registries)",
			place,
		)]
	}
	decide({"registry": "localhost:5000"}, {"registries": ["*"]}).allow
	decide({}, {"registries": ["docker.io/library/nginx"]}).allow
	not decide({}, {"registries": []}).allow
	not decide({}, {"registries": [5, null]}).allow
}

test_floating_tags if {
	every tag in ["latest", "stable", "mainline-alpine", "edge"] {
		decision := decide({"name": sprintf("nginx:%s", [tag]), "tag": tag}, {})
		not decision.allow
		decision.reasons == [sprintf(
			"nginx image nginx:%s has the floating tag %s, which is forbidden (policies/thresholds/data.yaml: image.default.floating_tags)",
			[tag, tag],
		)]
		decide({"tag": tag}, {"floating_tags": "allowed"}).allow
		decide({"tag": tag, "digest": fixed}, {}).allow
	}
	decide({"name": "nginx", "tag": ""}, {}).reasons == ["nginx image nginx has the floating tag latest, which is forbidden (policies/thresholds/data.yaml: image.default.floating_tags)"]
	every tag in ["1.31.3", "v2", "2026-11-21", "git-3f2a9c1", "1.31-alpine"] {
		decide({"tag": tag}, {}).allow
	}
}

test_what_a_fixed_tag_is_can_be_set if {
	strict := {"fixed_tag": `^v?\d+\.\d+\.\d+`}
	decide({"tag": "1.31.3-alpine"}, strict).allow
	not decide({"tag": "1.31"}, strict).allow
}

test_digests if {
	decide({}, {"digest": "required"}).reasons == ["nginx image nginx:1.31.3 has no digest, which is required (policies/thresholds/data.yaml: image.default.digest)"]
	decide({"digest": fixed}, {"digest": "required"}).allow
}

test_every_image_is_judged if {
	service := object.union(nginx, {"role": "service", "name": "app", "registry": "quay.io", "repository": "app", "tag": ""})
	decision := ask([nginx, service], {})
	count(decision.reasons) == 2
	every reason in decision.reasons {
		startswith(reason, "service image app ")
	}
	decision.checked.images == {"nginx": "nginx:1.31.3", "service": "app"}
}

test_no_images_are_a_denial if {
	every images in [[], null, "nginx", {}] {
		ask(images, {}).reasons == ["it is not known which images are to run"]
	}
	every question in [null, "x", [1], {}] {
		decision := image.decision with data.thresholds as {"image": {"default": rules}} with input as question
		not decision.allow
	}
}

test_an_image_that_is_told_wrongly_is_a_denial if {
	every odd in [
		5,
		null,
		"nginx",
		{},
		object.remove(nginx, ["tag"]),
		object.union(nginx, {"digest": null}),
		object.union(nginx, {"registry": ""}),
		object.union(nginx, {"repository": ""}),
		object.union(nginx, {"name": ["nginx"]}),
	] {
		decision := ask([odd, nginx], {})
		not decision.allow
		count(decision.reasons) == 1
		endswith(decision.reasons[0], "is not told in a way that can be judged")
	}
}

test_rules_that_cannot_be_used_are_a_denial if {
	cases := {
		"registries is null, not a list of where images may come from (policies/thresholds/data.yaml: image.default.registries)": {"registries": null},
		`floating_tags is "no", not allowed or forbidden (policies/thresholds/data.yaml: image.default.floating_tags)`: {"floating_tags": "no"},
		"digest is false, not optional or required (policies/thresholds/data.yaml: image.default.digest)": {"digest": false},
		`fixed_tag is "(", not a regular expression (policies/thresholds/data.yaml: image.default.fixed_tag)`: {"fixed_tag": "("},
	}
	every reason, wrong in cases {
		reason in decide({"digest": fixed}, wrong).reasons
	}
	every wrong in [{}, {"image": null}, {"image": {"default": 5}}, {"image": {"default": {}}}, []] {
		decision := image.decision with data.thresholds as wrong with input as {"images": [nginx]}
		not decision.allow
		count(decision.reasons) == 4
	}
}

test_shipped_thresholds if {
	production := image.decision with input as {"environment": "production", "images": [nginx]}
	production.allow
	production.thresholds == {
		"registries": ["*"],
		"floating_tags": "forbidden",
		"fixed_tag": "[0-9]",
		"digest": "optional",
		"environment": "production",
		"source": "default",
	}
	latest := object.union(nginx, {"name": "nginx:latest", "tag": "latest"})
	refused := image.decision with input as {"environment": "production", "images": [latest]}
	not refused.allow
	own := image.decision with input as {"environment": "local", "images": [latest]}
	own.allow
	own.thresholds.floating_tags == "allowed"
	own.thresholds.source == "local"
}
