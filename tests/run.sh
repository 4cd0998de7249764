#!/usr/bin/env bash
# Every test: style, unit, and the real programs in both runtimes. Run by `make test`.
# Ends with one line that counts all tests; a skipped test is a failure, since everything needed is set up here.
set -euo pipefail
cd "$(dirname "$0")/.."
started=$(date +%s)

tests/engine/up.sh
# Here and not by the test that shows pages: apt is not for two at once.
tests/support/chromium.sh >/dev/null
tests/lint.sh

echo "== molecule"
log=$(mktemp)
if ! molecule test --destroy=never >"$log" 2>&1; then
    cat "$log"
    exit 1
fi
rm -f "$log"

echo "== tests"
report=$(mktemp)
trap 'rm -f "$report"' EXIT
status=0
python -m pytest tests/unit -q -n 2 --dist loadfile --junitxml "$report.unit" || status=1
# The files with the longest tests first, so that both workers end at about the same time.
python -m pytest tests/fault tests/integration -q -n 2 --dist loadfile --no-loadscope-reorder --durations 15 --junitxml "$report.integration" || status=1
# Alone, as other tests would take the time of the load.
python -m pytest tests/load -q --junitxml "$report.load" || status=1
python tests/support/count.py "$report.unit" "$report.integration" "$report.load" || status=1
rm -f "$report.unit" "$report.integration" "$report.load"
echo "make test took $(($(date +%s) - started)) s"
exit "$status"
