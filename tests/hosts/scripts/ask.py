"""Opens a database by its URI, asks what follows, and prints what was answered as JSON: for tests about what goes wrong.

    ask.py URI STATEMENT...
"""
import json
import os
import sqlite3
import sys


def error(what):
    return {"code": what.sqlite_errorcode, "name": what.sqlite_errorname, "text": str(what)}


def main(uri, statements):
    loader = sqlite3.connect(":memory:")
    loader.enable_load_extension(True)
    loader.load_extension(os.environ["EXTENSION"])
    loader.close()
    other = sqlite3.connect(":memory:")
    told = {"opened": None, "answers": []}
    try:
        conn = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=20)
    except sqlite3.Error as what:
        told["opened"] = error(what)
    else:
        for statement in statements:
            try:
                told["answers"].append(conn.execute(statement).fetchall())
            except sqlite3.Error as what:
                told["answers"].append(error(what))
        try:
            rows = conn.execute("SELECT value FROM littoral_status WHERE name = 'last_error'").fetchall()
            told["status"] = rows[0][0] if rows else None
        except sqlite3.Error as what:
            told["status"] = str(what)
        conn.close()
    told["last"] = other.execute("SELECT littoral_last_error()").fetchone()[0]
    print(json.dumps(told))


main(sys.argv[1], sys.argv[2:])
