#!/usr/bin/env bash
# Run scenarios of molecule one after the other: molecule.sh SCENARIO...  A line each; all that was printed where one fails.
set -euo pipefail
cd "$(dirname "$0")/.."
log=$(mktemp)
trap 'rm -f "$log"' EXIT

fail() {
    cat "$log"
    echo "molecule $1: $2"
    exit 1
}

# The recaps that a step printed: changed=0 or more of each host.
recaps() { sed -n "/ $1[]:]* Executing/,/ $1[]:]* .*Executed/p" "$log" | grep -o 'changed=[0-9]*'; }

for scenario in "$@"; do
    started=$(date +%s)
    NO_COLOR=1 PY_COLORS=0 molecule test --scenario-name "$scenario" >"$log" 2>&1 || fail "$scenario" "failed"
    # Its idempotence check passes where it finds no recap: under another callback, or where nothing was run.
    recaps converge >/dev/null || fail "$scenario" "converge has no recap, so its idempotence was not checked"
    [ "$(recaps idempotence | sort -u)" = changed=0 ] || fail "$scenario" "the second run has no recap of changed=0"
    echo "molecule $scenario: $(($(date +%s) - started)) s"
done
