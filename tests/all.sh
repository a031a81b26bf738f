#!/usr/bin/env bash
# Runs all tests, on a machine that has Rust, Python 3, gcc and apt:
#
#     bash tests/all.sh
#
# What the machine lacks is installed: the sqlite3 shell, SeaweedFS, the S3 server that tests run against, the programs that
# the extension is tried in, what a program in C is compiled with, Chromium, which the dashboard is looked at in, and SQLite's own test suite
# with the Tcl that it needs. The first run compiles for some minutes; a fresh clone on the same machine does not again.
# Arguments are passed on to `cargo test`.
# The last line sums up, below what every test that failed said; the exit code is 0 when all tests passed, at most three of them at a second try.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../.ci/machine.sh"

started=$SECONDS
prepare "all tests"
apt_if_missing sqlite3 sqlite3
apt_if_missing strace strace
apt_if_missing valgrind valgrind
apt_if_missing pkg-config pkg-config
apt_if_missing chromium chromium
apt_if_missing faketime faketime
if ! echo '#include <sqlite3.h>' | cc -E - >/dev/null 2>&1; then apt_package "sqlite3.h is missing" libsqlite3-dev; fi
say "an S3 server for tests: tests/s3/server.sh --install"
bash tests/s3/server.sh --install || fail "SeaweedFS cannot be installed"
say "programs that load the extension: tests/hosts/programs.sh --install"
bash tests/hosts/programs.sh --install || fail "Python with apsw, or Node with better-sqlite3, cannot be installed"
say "SQLite's own test suite: tests/sqlite/suite.sh --install"
bash tests/sqlite/suite.sh --install || fail "SQLite's own test suite cannot be made ready"

log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
say "cargo test --workspace --all-features --locked --no-fail-fast $*"
if [ $# = 0 ]; then
  # Those that wait beside those that work (docs/decisions/2026-11-29-two-lanes.md).
  python3 tests/lanes.py 2>&1 | tee "$log" || status=$?
else
  cargo test --workspace --all-features --locked --no-fail-fast "$@" 2>&1 | tee "$log" || status=$?
fi

took() { echo "$(((SECONDS - started) / 60))m $(((SECONDS - started) % 60))s"; }
sums=$(sed -n 's/^test result: [a-zA-Z]*\. \([0-9]*\) passed; \([0-9]*\) failed; \([0-9]*\) ignored;.*/\1 \2 \3/p' "$log" |
  awk '{passed += $1; failed += $2; ignored += $3} END {printf "%d passed, %d failed, %d ignored, in %d programs", passed, failed, ignored, NR}')

if [ "$status" != 0 ]; then
  say "what failed said"
  awk '/^---- .* stdout ----$/ {told = 1; lines = 0} /^(stack backtrace:|failures:|note: run with)/ {told = 0} told && lines++ < 40' "$log"
  # A test that meets a crowded machine is told, and run once more by itself (docs/decisions/2026-11-29-second-try.md).
  python3 "$(dirname "${BASH_SOURCE[0]}")/second_try.py" "$log" || fail "tests: $sums, $(took)"
  say "all tests passed, those above at the second try: $sums, $(took)"
  exit 0
fi
case $sums in 0\ passed*) fail "no test ran" ;; esac
say "all tests passed: $sums, $(took)"
