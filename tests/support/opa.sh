#!/usr/bin/env bash
# Print the path of an OPA program, fetching or building it the way a deploy does.
set -euo pipefail
cd "$(dirname "$0")/../.."
log=$(mktemp)
if ! ansible-playbook -i inventory/local tests/support/opa.yml >"$log" 2>&1; then
    cat "$log" >&2
    exit 1
fi
rm -f "$log"
cat .cache/opa-path
