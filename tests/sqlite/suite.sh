#!/usr/bin/env bash
# SQLite's own test suite, made ready to run: tests/sqlite/suite.sh [--install]
#
# Prints a folder that holds `testfixture`, the suite's interpreter, with default_vfs.c in it, and `src`, SQLite's source with the suite
# in src/test; makes it first where it is not there yet, in some minutes. The source is that of Debian 12's sqlite3 package, unchanged
# from SQLite's, pinned by its hash. It comes from a Debian mirror; where none is reachable, put the file into the folder
# ${LITTORAL_CACHE:-~/.cache/littoral}/sqlite by hand.
#
# Expects gcc, Python 3 and apt; installs make and Tcl. A folder is made whole and then renamed: several tests may be first at once.
set -euo pipefail
version=3.40.1
archive=sqlite3_$version.orig.tar.xz
sha256=aaa776260ab4dc976db34aa7891819484c8676b5b2783123ebc6301e2ca5d655
pool=pool/main/s/sqlite3/$archive
# The machine's own mirror, then Debian's, then where Debian keeps what its mirrors have dropped.
mirrors=($(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep -oE 'https?://[^ ]+/debian/?( |$)' | sort -u || true)
  http://deb.debian.org/debian https://snapshot.debian.org/archive/debian/20250520T000000Z http://archive.debian.org/debian)
options="-DSQLITE_ENABLE_FTS3 -DSQLITE_ENABLE_FTS4 -DSQLITE_ENABLE_FTS5 -DSQLITE_ENABLE_RTREE -DSQLITE_ENABLE_SNAPSHOT
  -DSQLITE_ENABLE_COLUMN_METADATA -DSQLITE_ENABLE_DBSTAT_VTAB -DSQLITE_ENABLE_UNLOCK_NOTIFY -DSQLITE_EXTRA_INIT=default_vfs"
case ${1:-} in '' | --install) ;; *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;; esac

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/../../.ci/machine.sh"
home=$LITTORAL_CACHE/sqlite
# What it is made of, and how.
folder=$home/$version-$(cat "$here/suite.sh" "$here/default_vfs.c" | sha256sum | cut -c1-12)

fetch() {
  local mirror
  if [ -e "$archive" ] && sha256sum --quiet -c <<<"$sha256  $archive"; then return; fi
  for mirror in "${mirrors[@]}"; do
    say "fetching ${mirror%/}/$pool"
    rm -f "$archive"
    if python3 -c 'import sys, urllib.request as u; open(sys.argv[2], "wb").write(u.urlopen(sys.argv[1], timeout=60).read())' \
      "${mirror%/}/$pool" "$archive.new" && sha256sum --quiet -c <<<"$sha256  $archive.new"; then
      mv "$archive.new" "$archive"
      return
    fi
  done
  fail "$archive cannot be fetched from any of ${mirrors[*]}: put it into $home by hand"
}

make_ready() { # FOLDER
  local tcl log=$1/log
  mkdir "$1/src" "$1/build"
  python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' "$archive" "$1/src.packed"
  rmdir "$1/src"
  mv "$1"/src.packed/*/ "$1/src"
  rmdir "$1/src.packed"
  # Archives keep no promise about who owns and may change what is in them.
  chmod -R u+w "$1/src"
  tcl=$(find /usr/lib /usr/local/lib -name tclConfig.sh 2>/dev/null | sort | tail -n 1)
  (
    cd "$1/build"
    ../src/configure --disable-debug --disable-readline --with-tcl="$(dirname "$tcl")" CFLAGS=-O2
    make sqlite3.c
    gcc -O2 -Wall -I. -c "$here/default_vfs.c" -o default_vfs.o
    make testfixture OPTS="${options//$'\n'/}" TLIBS="-lm -lz $PWD/default_vfs.o -ldl -lpthread"
  ) >"$log" 2>&1 || { tail -n 30 "$log" >&2; fail "SQLite's testfixture cannot be built"; }
  mv "$1/build/testfixture" "$1/testfixture"
  rm -rf "$1/build"
}

if [ ! -d "$folder" ]; then
  {
    mkdir -p "$home"
    exec 6>"$home/lock"
    flock 6
    if [ ! -d "$folder" ]; then
      apt_if_missing cc gcc libc6-dev
      apt_if_missing make make
      apt_if_missing tclsh tcl tcl-dev
      if [ -z "$(find /usr/lib /usr/local/lib -name tclConfig.sh 2>/dev/null)" ]; then apt_if_missing tcl-dev-is-missing tcl-dev; fi
      cd "$home"
      fetch
      say "building SQLite's testfixture, once on this machine"
      rm -rf "$home"/*.new
      # Whatever other checkouts made ready and have not used for long.
      find "$home" -mindepth 1 -maxdepth 1 -type d -mtime +7 -exec rm -rf {} +
      mkdir "$folder.new"
      make_ready "$folder.new"
      mv "$folder.new" "$folder"
    fi
    exec 6>&-
  } >&2
fi
touch "$folder"
if [ "${1:-}" != --install ]; then echo "$folder"; fi
