#!/usr/bin/env bash
# Plants each fault of faults/*.patch in a copy of the crate, one at a time, and runs the model that must catch it.
#
#   ./faults.sh [PART-OF-A-NAME]...
#
# A patch begins with a line that says the fault, and one for each model that must catch it: test file, function,
# and a pattern that its failure must show, so that no other failure passes for a catch. A patch that does not
# apply, or does not compile, is an error. Ends with 1 if a fault was not caught. Needs bash, cargo, git and the coreutils.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
here=$PWD

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# One place for all faults, so that only mainstay is built again. Kept, if it is set from outside.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$work/target}
mkdir "$work/crate" "$work/crate/loom-tests"
cp ../Cargo.toml ../Cargo.lock "$work/crate"
for part in benches examples README.md; do
    if [ -e "../$part" ]; then cp -R "../$part" "$work/crate"; fi
done
cp -R Cargo.toml .cargo src tests "$work/crate/loom-tests"
if [ -e Cargo.lock ]; then cp Cargo.lock "$work/crate/loom-tests"; fi

run() { # What cargo says and what the model prints go to a log.
    (cd "$work/crate/loom-tests" && timeout 600 cargo test --release --test "$@") >"$work/log" 2>&1
}

failed=0
row() {
    printf '%-23s | %-66s | %-61s | %-6s | %3d\n' "$1" "$2" "$3" "$4" "$5"
    if [ "$4" = yes ]; then return; fi
    failed=1
    grep --text -v 'rt/notify.rs' "$work/log" | tail -n 15 | sed 's/^/    /'
}

plant() {
    local name=$1 file=$2 fault model function sign verdict begun
    fault=$(sed -n 's/^Fault: //p' "$file")
    rm -rf "$work/crate/src"
    cp -R "$here/../src" "$work/crate/src"
    if ! (cd "$work/crate" && git apply --whitespace=nowarn "$file") >"$work/log" 2>&1; then
        row "$name" "$fault" - "ERROR: does not apply" 0
        return
    fi
    while read -r model function sign; do
        begun=$SECONDS
        if ! run "$model" --no-run; then
            verdict="ERROR: does not compile"
        elif begun=$SECONDS && run "$model" -- --exact "$function"; then
            verdict=NO
        elif grep --text --quiet --extended-regexp "$sign" "$work/log"; then
            verdict=yes
        else
            verdict="ERROR: failed in another way"
        fi
        row "$name" "$fault" "$model $function" "$verdict" "$((SECONDS - begun))"
    done < <(sed -n 's/^Model: //p' "$file")
}

printf '%-23s | %-66s | %-61s | %-6s | %s\n' name fault model caught seconds
for file in faults/*.patch; do
    name=$(basename "$file" .patch)
    for part in "${@:-}"; do
        if [[ $name == *"$part"* ]]; then
            plant "$name" "$here/$file"
            break
        fi
    done
done
exit "$failed"
