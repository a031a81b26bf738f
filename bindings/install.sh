#!/bin/sh
# Puts the command line and the extension of Littoral under a prefix: sh install.sh [--prefix DIR] [--from URL]
#
# They come from the release that this script lies beside, or from the one at URL (https:// or file://), as in
#
#     curl -fsSL URL/install.sh | sh -s -- --from URL
#
# and are compared with its SHA256SUMS before anything is put anywhere. The prefix is ~/.local, where nothing is said. Whoever is root elsewhere too
# takes --prefix /usr/local. Removing PREFIX/bin/littoral, PREFIX/lib/liblittoral.so and PREFIX/share/doc/littoral undoes it.
set -eu
prefix=$HOME/.local
from=
fail() {
  echo "install.sh: $*" >&2
  exit 1
}
while [ $# -gt 0 ]; do
  case $1 in
  --prefix | --from)
    [ $# -gt 1 ] || fail "$1 takes a value"
    if [ "$1" = --prefix ]; then prefix=$2; else from=$2; fi
    shift 2
    ;;
  *) fail "$1: there are --prefix DIR and --from URL" ;;
  esac
done
[ "$(uname -s)" = Linux ] || fail "this is for Linux, and $(uname -s) is none"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
get() { # NAME
  case $from in
  "") cp "$(dirname "$0")/$1" "$work/$1" || fail "$1 does not lie beside this script: name the release with --from URL" ;;
  https://* | file://*)
    command -v curl >/dev/null || fail "curl is missing"
    curl -fsSL "$from/$1" -o "$work/$1" || fail "$from/$1 cannot be had"
    ;;
  *) fail "$from: https:// or file:// is needed" ;;
  esac
}

get SHA256SUMS
name=$(sed -n "s/^[0-9a-f]\{64\}  \(littoral-[0-9][^ ]*-linux-$(uname -m)\.tar\.gz\)\$/\1/p" "$work/SHA256SUMS")
[ -n "$name" ] || fail "the release has nothing for $(uname -m)"
get "$name"
(cd "$work" && grep "  $name\$" SHA256SUMS | sha256sum -c - >/dev/null 2>&1) || fail "$name is not what SHA256SUMS says: nothing was installed"
tar xf "$work/$name" -C "$work"
unpacked=$work/${name%.tar.gz}
"$unpacked/bin/littoral" --version >/dev/null || fail "this machine cannot run it: the C library is too old"
mkdir -p "$prefix/bin" "$prefix/lib" "$prefix/share/doc/littoral"
# A program that runs has the old one open: the new one takes its name.
for file in bin/littoral lib/liblittoral.so share/doc/littoral/LICENSE-MIT share/doc/littoral/LICENSE-APACHE; do
  cp "$unpacked/$file" "$prefix/$file.new"
  mv -f "$prefix/$file.new" "$prefix/$file"
done
echo "$prefix/bin/littoral and $prefix/lib/liblittoral.so: $("$prefix/bin/littoral" --version)"
case :$PATH: in
*":$prefix/bin:"*) ;;
*) echo "$prefix/bin is not on your PATH" ;;
esac
