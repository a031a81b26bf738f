#!/usr/bin/env python3
"""How many records a second a log takes, beside SQLite and RocksDB, in one run: python3 bench/logs.py [--records N] [--rounds N]

Records of 100 bytes. The log: one appender and four, one record with a call and 1,000 together, group sync every 20 ms, until all is durable. SQLite (the system's): WAL, synchronous=NORMAL, 1,000 rows in a
transaction; row by row through a prepared statement, in C (bench/inserts.c, `apt install libsqlite3-dev`), and by INSERT ... SELECT out of a table in memory, where nobody hands
over rows. RocksDB (the system's db_bench, `apt install rocksdb-tools`): fillseq with its WAL, not synced, 16 bytes of key and 84 of value, one at a time and 1,000 in a batch: the
faster one counts. Beside them what no log can be faster than: summing and copying, and writing and syncing as many bytes. By turns, medians, ratios of neighbours; by the clock, and by what processors worked, which other work on the machine distorts less.
"""

import argparse
import json
import pathlib
import re
import resource
import shutil
import sqlite3
import statistics
import subprocess
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parent.parent
BYTES = 100
BATCH = 1000


def build():
    command = ["cargo", "build", "--release", "--locked", "-p", "littoral-local", "--example", "appending", "--message-format=json"]
    built = subprocess.run(command, cwd=TOP, stdout=subprocess.PIPE, text=True, check=True).stdout
    found = [json.loads(line).get("executable") for line in built.splitlines()]
    return next(path for path in found if path and path.endswith("appending"))


def log(program, folder, records, appenders, together):
    said = subprocess.run([program, str(folder / "log"), str(records), str(appenders), str(BYTES), str(together)],
                          capture_output=True, text=True, check=True)
    return json.loads(said.stdout)


def inserts(folder):
    """The program in C; None where it cannot be built."""
    program = folder / "inserts"
    command = ["cc", "-O2", str(TOP / "bench" / "inserts.c"), "-lsqlite3", "-o", str(program)]
    try:
        return program if subprocess.run(command, capture_output=True).returncode == 0 else None
    except FileNotFoundError:
        return None


def row_by_row(program, folder, records):
    said = subprocess.run([program, str(folder / "rows.db"), str(records), str(BATCH), str(BYTES)], capture_output=True, text=True, check=True)
    return tuple(float(word) for word in said.stdout.split())


def select(folder, records):
    database = sqlite3.connect(folder / "select.db", isolation_level=None)
    database.executescript("PRAGMA journal_mode = wal; PRAGMA synchronous = normal; CREATE TABLE event(id INTEGER PRIMARY KEY, body BLOB);"
                           "CREATE TEMP TABLE source(body BLOB)")
    database.executemany("INSERT INTO source VALUES (?)", [(b"r" * BYTES,)] * BATCH)
    begun, worked = time.monotonic(), time.process_time()
    for _ in range(records // BATCH):
        database.executescript("BEGIN; INSERT INTO event(body) SELECT body FROM source; COMMIT")
    took = time.monotonic() - begun, time.process_time() - worked
    database.close()
    return took


def processor_of_children():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def rocksdb(folder, records):
    took = []
    for batch in [1, BATCH]:
        command = ["db_bench", "--benchmarks=fillseq", f"--db={folder}/rocks{batch}", f"--num={records}", f"--batch_size={batch}",
                   "--key_size=16", f"--value_size={BYTES - 16}", "--sync=0", "--disable_wal=0", "--compression_type=none"]
        worked = processor_of_children()
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        # What its table in memory is flushed with is work of the same records.
        worked = processor_of_children() - worked
        took.append((float(re.search(r"fillseq\s*:\s*([0-9.]+) micros/op", said)[1]) * records / 1e6, worked))
    return min(took)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", help="where files are made [default: the system's folder for temporary ones]")
    parser.add_argument("--program", help="examples/appending, built already")
    said = parser.parse_args()
    program, records = said.program or build(), said.records // BATCH * BATCH
    figures = {}

    def note(name, took):
        figures.setdefault(name, []).append([seconds / records * 1e9 for seconds in took])

    with tempfile.TemporaryDirectory() as tools:
        by_row, has_rocks = inserts(pathlib.Path(tools)), shutil.which("db_bench")
        for _ in range(said.rounds):
            for appenders, together in [(1, 1), (4, 1), (1, BATCH), (4, BATCH)]:
                with tempfile.TemporaryDirectory(dir=said.folder) as folder:
                    took = log(program, pathlib.Path(folder), records, appenders, together)
                    name = f"log, {appenders} appender{'s' if appenders > 1 else ''}{f', {together:,} together' if together > 1 else ''}"
                    note(name, (took["durable"], took["cpu"]))
                    if appenders == together == 1:
                        note("sum and copy alone", (took["copy_and_sum"], took["copy_and_sum_cpu"]))
                        note("write and sync alone", (took["disk"], took["disk_cpu"]))
            with tempfile.TemporaryDirectory(dir=said.folder) as folder:
                note("SQLite, INSERT ... SELECT", select(pathlib.Path(folder), records))
                if by_row:
                    note("SQLite, row by row", row_by_row(by_row, pathlib.Path(folder), records))
                if has_rocks:
                    note("RocksDB", rocksdb(pathlib.Path(folder), records))

    print(f"{records:,} records of {BYTES} bytes, {said.rounds} rounds; by the clock, and by processors")
    for name, all in sorted(figures.items()):
        shown = [f"{statistics.median(column):7.0f} ns a record ({min(column):.0f} to {max(column):.0f})" for column in zip(*all)]
        print(f"{name:<32}{'   '.join(shown)}")
    for other in [name for name in figures if name.startswith(("SQLite", "RocksDB"))]:
        for name in sorted(name for name in figures if name.startswith("log")):
            columns = zip(*[[there / here for there, here in zip(*pair)] for pair in zip(figures[other], figures[name])])
            shown = [f"{statistics.median(ratios):.1f} times as fast ({min(ratios):.1f} to {max(ratios):.1f})" for ratios in columns]
            print(f"{name} beside {other}: {'   '.join(shown)}")
    if not has_rocks:
        print("no db_bench here (apt install rocksdb-tools): RocksDB was left out")
    if not by_row:
        print("no compiler or no sqlite3.h here (apt install gcc libsqlite3-dev): rows one by one were left out")


if __name__ == "__main__":
    main()
