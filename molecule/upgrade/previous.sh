#!/bin/sh
# Unpack the previous release of this repository: previous.sh FOLDER. Prints its commit.
# It is SWIFTDEPLOY_PREVIOUS (a commit or a tag) if that is set, else the newest tag vN before HEAD, else the commit below.
set -eu
FIRST=87ba70405a18c6bdcf9d6bc9ff2be7e48962fe7e

folder=$1
cd "$(dirname "$0")/../.."
fail() {
    echo "The previous release cannot be had: $1" >&2
    exit 1
}

git rev-parse --git-dir >/dev/null 2>&1 || fail "$(pwd) is not a clone that git can read, and it is taken from the clone's history"
wanted=${SWIFTDEPLOY_PREVIOUS:-$(git describe --tags --match 'v[0-9]*' --abbrev=0 HEAD^ 2>/dev/null || echo "$FIRST")}
commit=$(git rev-parse --verify --quiet "$wanted^{commit}") ||
    fail "$wanted is not in this clone; fetch the whole history (git fetch --tags --unshallow), or set SWIFTDEPLOY_PREVIOUS"
rm -rf "$folder"
mkdir -p "$folder"
git archive "$commit" | tar -x -C "$folder"
echo "$commit"
