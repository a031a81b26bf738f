#!/bin/sh
# Begins each fuzz target's corpus with the golden files of its kind.
set -eu
cd "$(dirname "$0")"
seed() {
    target=$1
    shift
    mkdir -p "corpus/$target"
    cp "$@" "corpus/$target/"
}
seed record ../golden/record-*.bin
seed blob ../golden/chunk.*.bin ../golden/pack.*.bin
seed frame ../golden/frame-*.bin
seed shard ../golden/shard.*.bin
seed snapshot ../golden/snapshot.*.bin
seed head ../golden/head.*.bin
seed pin ../golden/pin.*.bin
seed log ../golden/log-*.bin
seed rows ../golden/row-*.bin
seed body ../golden/record-*.bin
seed keys ../golden/row-number.*.bin
