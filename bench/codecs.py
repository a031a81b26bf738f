#!/usr/bin/env python3
"""LZ4 against zstd for what a segment carries: pages that changed, as patches on their version before, and whole.

    pip install zstandard lz4
    python3 bench/codecs.py [--mb 100] [--transactions 5000] [--batch 500]

The workload of bench/shipping.py, a batch of it for each publication: of every page that a batch changed, the newest version and the one before the
batch. Bytes are those of all batches, without headers; times are this thread's processor time, and hold what Python's bindings take, which
is printed too. One page is compressed at a time, as a patch is; and sixteen together, as a frame is.
"""

import os
import random
import sqlite3
import struct
import sys
import tempfile
import time

import lz4.block
import zstandard

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from shipping import fill, option, text  # noqa: E402

LEVEL = 3
TOGETHER = 16


def frames(wal, after):
    """The pages of a WAL's frames after a place, newest last, and where it ends."""
    with open(wal, "rb") as opened:
        data = opened.read()
    size = struct.unpack(">I", data[8:12])[0]
    salts, found, at = data[16:24], {}, 32
    while at + 24 + size <= len(data) and data[at + 8 : at + 16] == salts:
        if at >= after:
            found[struct.unpack(">I", data[at : at + 4])[0]] = data[at + 24 : at + 24 + size]
        at += 24 + size
    return found, at


def batches(megabytes, transactions, batch):
    """For each batch: pairs of a page as it was and as it is."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "app.db")
        rows = fill(path, megabytes)
        conn = sqlite3.connect(path, isolation_level=None)
        conn.execute("PRAGMA wal_autocheckpoint = 0")
        conn.execute("CREATE TABLE begun(x)")
        with open(path, "rb") as opened:
            size = struct.unpack(">H", opened.read(18)[16:18])[0]
            newest, after = {}, 0
            first, after = frames(path + "-wal", 0)
            newest.update(first)
            chance = random.Random(8)
            for begun in range(0, transactions, batch):
                for _ in range(min(batch, transactions - begun)):
                    conn.execute("BEGIN IMMEDIATE")
                    conn.execute("UPDATE customer SET notes = ? WHERE id = ?", (text(chance, 280, 480), chance.randrange(rows)))
                    conn.execute("INSERT INTO event(customer, what) VALUES (?, ?)", (chance.randrange(rows), text(chance, 60, 60)))
                    conn.execute("COMMIT")
                came, after = frames(path + "-wal", after)
                pairs = []
                for page, now in sorted(came.items()):
                    if page not in newest:
                        opened.seek((page - 1) * size)
                        newest[page] = opened.read(size).ljust(size, b"\0")
                    pairs.append((newest[page], now))
                newest.update(came)
                yield pairs
        conn.close()


def zstd_patch(before, now):
    known = zstandard.ZstdCompressionDict(before, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    return len(zstandard.ZstdCompressor(level=LEVEL, dict_data=known, write_content_size=False).compress(now))


def lz4_patch(before, now):
    return len(lz4.block.compress(now, dict=before, store_size=False))


def zstd_whole(pages):
    return len(zstandard.ZstdCompressor(level=LEVEL).compress(pages))


def lz4_whole(pages):
    return len(lz4.block.compress(pages, store_size=False))


def measured(work, pieces):
    begun = time.thread_time()
    total = sum(work(*piece) for piece in pieces)
    return total, time.thread_time() - begun


def main():
    words = sys.argv[1:]
    made = list(batches(option(words, "--mb", 100), option(words, "--transactions", 5000), option(words, "--batch", 500)))
    pairs = [pair for batch in made for pair in batch]
    raw = sum(len(now) for _, now in pairs)
    together = [
        (b"".join(now for _, now in batch[at : at + TOGETHER]),) for batch in made for at in range(0, len(batch), TOGETHER)
    ]
    print(f"{len(pairs)} changed pages in {len(made)} batches, {raw / 1e6:.1f} MB")
    for what, work, pieces in [
        ("patch, zstd", zstd_patch, pairs),
        ("patch, LZ4", lz4_patch, pairs),
        ("whole page, zstd", zstd_whole, [(now,) for _, now in pairs]),
        ("whole page, LZ4", lz4_whole, [(now,) for _, now in pairs]),
        ("16 pages, zstd", zstd_whole, together),
        ("16 pages, LZ4", lz4_whole, together),
        ("nothing but Python", lambda *piece: len(piece[0]), pairs),
    ]:
        took, best = [measured(work, pieces) for _ in range(5)], None
        best = min(seconds for _, seconds in took)
        size = took[0][0]
        print(f"{what:20} {size / 1e6:7.2f} MB  {size / raw:.3f}  {best / len(pairs) * 1e6:6.1f} us a page")


if __name__ == "__main__":
    main()
