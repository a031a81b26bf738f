#!/usr/bin/env bash
# Makes everything that a release consists of, for the machine that it runs on: bindings/release.sh FOLDER
#
# The command line and the extension as an archive and as a Debian package, the packages for Python, Node and C (to load, and to link with), a formula for
# Homebrew, the install script, and SHA256SUMS of it all. The machine needs Rust, Python 3 and gcc. With --built BUILT nothing is compiled: BUILT is a folder
# with `littoral`, `liblittoral.so` and `liblittoral.a`.
set -euo pipefail
[ $# = 1 ] || { [ $# = 3 ] && [ "$2" = --built ]; } || { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
mkdir -p "$1"
into=$(cd "$1" && pwd)
built=${3:+$(cd "$3" && pwd)}
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ -z "$built" ]; then
  source .ci/machine.sh
  prepare "a release"
  # One after the other: what the command line needs and the extension does not, as RocksDB, is not built into that.
  for package in "littoral-ext --crate-type cdylib,staticlib" littoral-cli; do
    # shellcheck disable=SC2086 # Several words.
    cargo rustc --profile dist --locked --package $package || fail "the release does not build"
  done
  built=$CARGO_TARGET_DIR/dist
fi
made=()
for kind in archive deb wheel npm c static formula; do
  made+=("$(basename "$(python3 bindings/package.py "$kind" "$built" "$into")")")
done
cp bindings/install.sh "$into/install.sh"
(cd "$into" && sha256sum "${made[@]}" install.sh >SHA256SUMS)
(cd "$into" && ls -l "${made[@]}" install.sh SHA256SUMS)
