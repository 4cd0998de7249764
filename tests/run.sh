#!/usr/bin/env bash
# Every test: style, molecule's scenarios, all versions, unit, and the real programs in both runtimes. Run by `make test`.
# Ends with one line that counts all tests; a skipped test is a failure, since everything needed is set up here.
set -euo pipefail
cd "$(dirname "$0")/.."
started=$(date +%s)
reports=$(mktemp -d)
trap 'rm -rf "$reports"' EXIT
status=0

part() { echo "== $1 (after $(($(date +%s) - started)) s)"; }

tests/engine/up.sh
# Here and not by the test that shows pages: apt is not for two at once.
tests/support/chromium.sh >/dev/null

# Beside the style, which keeps one core busy: what waits for the network, and the scenarios with containers. Those go
# one after the other, as the first of them builds the images.
beside() {
    tests/versions.sh prepare
    tests/molecule.sh default gate-denied
    tests/hosts/build.sh engine >/dev/null
    tests/molecule.sh fleet
}
beside >"$reports/beside" 2>&1 &
beside=$!
part style
begun=0
tests/lint.sh || begun=1
if [ "$begun" = 0 ]; then
    part molecule
    tests/molecule.sh process upgrade || begun=1
    part "unit tests"
    python -m pytest tests/unit -q -n 2 --dist loadfile --junitxml "$reports/unit.xml" || status=1
fi
wait "$beside" || begun=1
cat "$reports/beside"
[ "$begun" = 0 ] || exit 1

part versions
tests/versions.sh run "$reports" || status=1
part "real programs"
# In the order of tests/conftest.py: the longest files first.
python -m pytest tests/fault tests/integration tests/load/test_wrong_order.py -q -n 2 --dist loadfile --no-loadscope-reorder --durations 15 --junitxml "$reports/integration.xml" || status=1
part load
# Apart, as other tests would take the time of the load. loadgroup deals the tests out in turn, so that the two long ones, which
# come first, are one for each core. Where requests are to be lost, they may.
python -m pytest tests/load --ignore tests/load/test_wrong_order.py -q -n 2 --dist loadgroup --no-loadscope-reorder --durations 5 \
    --junitxml "$reports/load.xml" || status=1
python tests/support/count.py "$reports"/*.xml || status=1
echo "make test took $(($(date +%s) - started)) s"
exit "$status"
