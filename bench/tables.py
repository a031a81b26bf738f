#!/usr/bin/env python3
"""Inserting into a log's table in SQL, beside an ordinary table with the same columns, in one run: python3 bench/tables.py [--rows N] [--rounds N] [--batch N]

Rows of a number, a word and 100 bytes of text, out of a table in memory by INSERT ... SELECT (no call of Python's for each row) and by executemany; WAL,
synchronous=NORMAL and FULL, so many rows in a transaction. A commit syncs the log either way; SQLite's syncs its WAL with FULL alone. By turns, medians, ratios within the run.
Beside them a module that throws every row away (bench/nothing.c, `apt install gcc libsqlite3-dev`): what no virtual table can be faster than; and
the same with as many bytes as the log takes, which each commit writes and syncs: what no virtual table can be faster than that syncs what it has.
To be run by a Python whose sqlite3 loads extensions (/usr/bin/python3 of Debian does); --extension names one that is built already.
"""

import argparse
import json
import pathlib
import sqlite3
import statistics
import subprocess
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parent.parent
COLUMNS = "ts INTEGER, level TEXT, body TEXT"


def build():
    command = ["cargo", "build", "--release", "--locked", "-p", "littoral-ext", "--message-format=json"]
    built = subprocess.run(command, cwd=TOP, stdout=subprocess.PIPE, text=True, check=True).stdout
    found = [name for line in built.splitlines() for name in json.loads(line).get("filenames", [])]
    return next(path for path in found if path.endswith("liblittoral.so"))


def nothing(folder):
    """The module that throws rows away; None where it cannot be built."""
    module = folder / "nothing.so"
    command = ["cc", "-O2", "-shared", "-fPIC", str(TOP / "bench" / "nothing.c"), "-o", str(module)]
    try:
        return module if subprocess.run(command, capture_output=True).returncode == 0 else None
    except FileNotFoundError:
        return None


def took(folder, extension, table, way, synchronous, rows, batch):
    database = sqlite3.connect(folder / f"{table}.db", isolation_level=None)
    database.enable_load_extension(True)
    # The file's name is the library's: the entry point is named.
    database.execute("SELECT load_extension(?, ?)", (str(extension), f"sqlite3_{'littoral' if table in ('log', 'plain') else 'nothing'}_init"))
    make = {"log": f"CREATE VIRTUAL TABLE event USING littoral_log({COLUMNS})", "nothing": "CREATE VIRTUAL TABLE event USING thrown_away",
            "written": f"CREATE VIRTUAL TABLE event USING thrown_away({folder}/written)", "plain": f"CREATE TABLE event({COLUMNS})"}[table]
    database.executescript(f"PRAGMA journal_mode = wal; PRAGMA synchronous = {synchronous}; {make}; CREATE TEMP TABLE source({COLUMNS})")
    all_rows = [(1_764_363_072_000 + nth, "info", f"{nth:0100}") for nth in range(batch)]
    database.executemany("INSERT INTO source VALUES (?, ?, ?)", all_rows)
    begun, worked = time.monotonic(), time.process_time()
    for _ in range(rows // batch):
        database.execute("BEGIN")
        if way == "select":
            database.execute("INSERT INTO event SELECT * FROM source")
        else:
            database.executemany("INSERT INTO event VALUES (?, ?, ?)", all_rows)
        database.execute("COMMIT")
    ended = time.monotonic() - begun, time.process_time() - worked
    count = database.execute("SELECT count(*) FROM event").fetchone()[0]
    assert count == (rows if table in ("log", "plain") else 0), count
    database.close()
    return ended


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--extension", type=pathlib.Path)
    asked = parser.parse_args()
    extension = asked.extension or build()
    with tempfile.TemporaryDirectory() as tools:
        least = nothing(pathlib.Path(tools))
        for synchronous in ["normal", "full"]:
            for way in ["select", "executemany"]:
                compare(extension, least, synchronous, way, asked)
    if not least:
        print("no compiler or no sqlite3ext.h here (apt install gcc libsqlite3-dev): the module that throws rows away was left out")


def compare(extension, least, synchronous, way, asked):
    found = {"plain": [], "log": []} | ({"nothing": [], "written": []} if least else {})
    for _ in range(asked.rounds):
        for table, times in found.items():
            module = extension if table in ("log", "plain") else least
            with tempfile.TemporaryDirectory() as folder:
                times.append(took(pathlib.Path(folder), module, table, way, synchronous, asked.rows, asked.batch))
    for what, nth in [("by the clock", 0), ("by processors", 1)]:
        ratios = [plain[nth] / log[nth] for plain, log in zip(found["plain"], found["log"])]
        row = {name: statistics.median(time[nth] for time in times) / asked.rows * 1e9 for name, times in found.items()}
        thrown = f", rows thrown away {row['nothing']:,.0f} ns, with bytes written and synced {row['written']:,.0f} ns" if least else ""
        print(f"synchronous={synchronous}, {way}, {asked.batch} rows in a transaction, {what}: ordinary table {row['plain']:,.0f} ns a row, "
              f"log's table {row['log']:,.0f} ns{thrown}; {statistics.median(ratios):.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f})", flush=True)


main()
