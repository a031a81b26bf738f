# What a fresh machine lacks, and where compiled code lives. Sourced by cli/demo.sh, tests/all.sh and .ci/run; or asked:
#
#     bash .ci/machine.sh target-dir     # prints the folder that the scripts compile into
#     export CXX=$(bash .ci/machine.sh cxx)     # for cargo by hand: RocksDB in a tenth of the time
#
# It expects Rust, Python 3, gcc and apt, and installs the rest. Nothing is installed that is there already.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

LITTORAL_CACHE=${LITTORAL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/littoral}
# A target folder is swept of what other checkouts left in it beyond this size.
TARGET_MB_MAX=8000

say() { printf '\n==> %s\n' "$*"; }

fail() {
  printf '\n==> FAILED: %s\n' "$*" >&2
  exit 1
}

# apt_if_missing COMMAND PACKAGE...
apt_if_missing() {
  local command=$1
  shift
  if command -v "$command" >/dev/null; then return; fi
  apt_package "$command is missing" "$@"
  command -v "$command" >/dev/null || fail "$command is still missing after installing $*"
}

# apt_package REASON PACKAGE...
apt_package() {
  local reason=$1
  shift
  command -v apt-get >/dev/null || fail "$reason, and there is no apt-get to install $* with"
  local sudo=()
  if [ "$(id -u)" != 0 ]; then sudo=(sudo -n); fi
  if [ -z "${apt_is_up_to_date:-}" ]; then
    say "apt-get update"
    "${sudo[@]}" apt-get update -q || fail "apt-get update"
    apt_is_up_to_date=yes
  fi
  say "apt-get install $* ($reason)"
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "$@" || fail "apt-get install $*"
}

# rust_component COMMAND COMPONENT
rust_component() {
  if "$1" --version >/dev/null 2>&1; then return; fi
  command -v rustup >/dev/null || fail "$1 is missing, and there is no rustup to add $2 with"
  say "rustup component add $2"
  rustup component add "$2" || fail "rustup component add $2"
}

have_rust() {
  local wanted found
  wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
  command -v cargo >/dev/null || fail "Rust is missing: https://rustup.rs installs it"
  found=$(rustc --version | cut -d' ' -f2)
  if [ "$(printf '%s\n' "$wanted" "${found%%-*}" | sort -V | head -n 1)" != "$wanted" ]; then
    command -v rustup >/dev/null || fail "Rust $found is older than $wanted, and there is no rustup to update it with"
    say "rustup toolchain install stable (Rust $found is older than $wanted)"
    rustup toolchain install stable --profile minimal || fail "rustup toolchain install stable"
    export RUSTUP_TOOLCHAIN=stable
  fi
}

# Compiled code lives outside the checkout, so that a fresh clone does not compile its dependencies again: one folder for
# each compiler and Cargo.lock. A new Cargo.lock takes over the folder of the old one, and what did not change in it.
choose_target_dir() {
  if [ -n "${CARGO_TARGET_DIR:-}" ]; then return; fi
  local compiler lock dir other
  compiler=$(rustc -vV | sha256sum | cut -c1-8)
  lock=$(sha256sum <Cargo.lock | cut -c1-8)
  dir=$LITTORAL_CACHE/target-$compiler-$lock
  mkdir -p "$LITTORAL_CACHE"
  exec 8>"$LITTORAL_CACHE/targets.lock"
  flock 8
  for other in "$LITTORAL_CACHE"/target-*-*/; do
    other=${other%/}
    if [ ! -d "$other" ] || [ "$other" = "$dir" ]; then continue; fi
    # Whoever compiles there now holds its lock.
    exec 7>"$other.lock"
    if flock -n 7; then
      if [ ! -d "$dir" ] && [ "${other#"$LITTORAL_CACHE/target-$compiler-"}" != "$other" ]; then
        mv "$other" "$dir"
      else
        rm -rf "$other"
      fi
      rm -f "$other.lock"
    fi
    exec 7>&-
  done
  mkdir -p "$dir"
  # Held until the script and all that it started have ended.
  exec 9>"$dir.lock"
  # What was compiled knows where its checkout and this folder lay then; cargo looks at the age of the sources alone.
  if [ "$(cat "$dir/checkout" 2>/dev/null)" != "$PWD, $dir" ] || [ "$(du -sm "$dir" | cut -f1)" -gt "$TARGET_MB_MAX" ]; then
    if flock -n 9; then
      sweep "$dir"
      echo "$PWD, $dir" >"$dir/checkout"
    fi
  fi
  flock -s 9
  exec 8>&-
  export CARGO_TARGET_DIR=$dir
  # Caches for editing would fill the folder; nothing is edited here.
  export CARGO_INCREMENTAL=${CARGO_INCREMENTAL:-0}
}

# Removes our own rooms' compiled code, which every checkout has its own of, and keeps the dependencies'.
sweep() {
  say "sweeping $1"
  python3 - "$1" <<'PYTHON'
import pathlib, re, shutil, sys

names = re.findall(r'^name = "(.+)"', pathlib.Path("Cargo.lock").read_text(), re.M)
theirs = {name.replace("-", "_") for name in names if not name.startswith("littoral")}
for folder in ["deps", "build", ".fingerprint", "incremental", "examples"]:
    for path in pathlib.Path(sys.argv[1]).glob(f"*/{folder}/*"):
        name = path.name.split(".")[0].rsplit("-", 1)[0].replace("-", "_")
        if name not in theirs and name.removeprefix("lib") not in theirs:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
PYTHON
}

# RocksDB's bindings are made by libclang, which has no command; and its C++ is compiled in few pieces (.ci/cxx). The wrapper lies where every
# checkout finds the same one: RocksDB is built anew when CXX changes.
have_cpp() {
  apt_if_missing c++ g++
  if [ -z "${LIBCLANG_PATH:-}" ] && ! find /usr/lib /usr/lib64 -name 'libclang.so*' 2>/dev/null | grep -q .; then
    apt_package "libclang is missing" libclang-dev
  fi
  if [ -n "${CXX:-}" ]; then return; fi
  mkdir -p "$LITTORAL_CACHE"
  if ! cmp -s .ci/cxx "$LITTORAL_CACHE/cxx"; then
    cp .ci/cxx "$LITTORAL_CACHE/cxx.$$"
    mv "$LITTORAL_CACHE/cxx.$$" "$LITTORAL_CACHE/cxx"
  fi
  export CXX=$LITTORAL_CACHE/cxx
}

# prepare PURPOSE: the part that every script needs.
prepare() {
  apt_if_missing cc gcc libc6-dev
  have_cpp
  apt_if_missing python3 python3
  apt_if_missing flock util-linux
  have_rust
  choose_target_dir
  say "$1, with $(rustc --version), compiled into $CARGO_TARGET_DIR"
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  if [ "${1:-}" = cxx ]; then
    have_cpp >&2
    echo "$CXX"
    exit
  fi
  [ "${1:-}" = target-dir ] || { sed -n '1,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
  choose_target_dir >/dev/null
  echo "$CARGO_TARGET_DIR"
fi
