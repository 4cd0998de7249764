#!/usr/bin/env bash
# Style, types, policies and Dockerfiles. Run by `make lint` and `make test`, with .venv/bin first on the PATH.
set -euo pipefail
cd "$(dirname "$0")/.."

echo "== ruff"
ruff check .
ruff format --check .
echo "== mypy"
mypy src module_utils filter_plugins
mypy library
mypy action_plugins callback_plugins
mypy lookup_plugins
mypy service
echo "== yamllint"
yamllint --strict .
echo "== ansible-lint"
ansible-lint --offline --profile production
echo "== hadolint"
find . -name 'Dockerfile*' -not -path './.venv/*' -not -path './.swiftdeploy/*' -not -path './.cache/*' -print0 |
    xargs -0 hadolint --config .hadolint.yaml
echo "== opa"
opa=$(tests/support/opa.sh)
"$opa" fmt --fail --list policies >/dev/null || { "$opa" fmt --diff policies; exit 1; }
"$opa" check --strict policies
"$opa" test policies --coverage --threshold 100 --format json >/dev/null || {
    "$opa" test policies --verbose || true
    "$opa" test policies --coverage --format json
    exit 1
}
"$opa" test policies
