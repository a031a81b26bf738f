"""What several processes share, asked by one: `make ROWS`, `check`, `bulk ROWS` or a statement each line, answered in a line each.

    small_disk_ask.py URI
"""
import sqlite3
import sys

from small_disk import body, check, connect

conn = connect(sys.argv[1])
for line in sys.stdin:
    word, _, rest = line.strip().partition(" ")
    try:
        if word == "make":
            conn.execute("PRAGMA journal_mode = WAL")
            conn.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, version INTEGER, body BLOB)")
            conn.execute("BEGIN")
            conn.executemany("INSERT INTO t VALUES (?, 0, ?)", ((row, body(row, 0)) for row in range(1, int(rest) + 1)))
            conn.execute("COMMIT")
            print("made", flush=True)
        elif word == "bulk":
            first = conn.execute("SELECT max(id) FROM t").fetchone()[0] + 1
            conn.execute("BEGIN")
            conn.executemany("INSERT INTO t VALUES (?, 0, ?)", ((row, body(row, 0)) for row in range(first, first + int(rest))))
            conn.execute("COMMIT")
            print("bulk", flush=True)
        elif word == "check":
            rows = conn.execute("SELECT id, version, body FROM t ORDER BY id")
            told = []
            for row in rows:
                check([row])
                told.append(f"{row[0]}:{row[1]}")
            print(*told, flush=True)
        else:
            rows = conn.execute(line).fetchall()
            print("; ".join("|".join(str(cell) for cell in row) for row in rows), flush=True)
    except sqlite3.Error as error:
        print("error", error.sqlite_errorcode if hasattr(error, "sqlite_errorcode") else "", error, flush=True)
