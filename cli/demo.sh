#!/usr/bin/env bash
# Builds `littoral` and runs its demo, on a machine that has Rust, Python 3, gcc and apt:
#
#     bash cli/demo.sh
#
# What the machine lacks is installed. The demo works in a temporary folder, needs no account and no network, and leaves
# nothing behind. Arguments are passed on to `littoral demo`.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../.ci/machine.sh"

prepare "building littoral"
cargo build --package littoral-cli --bin littoral --locked || fail "littoral does not build"
say "littoral demo"
"$CARGO_TARGET_DIR/debug/littoral" demo "$@" || fail "littoral demo ended with $?"
