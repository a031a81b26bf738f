"""A process that does what it is told, a line of JSON at a time, and answers with a line each: for tests of several processes.

    {"conn": NAME, "open": URI}    {"conn": NAME, "sql": STATEMENT}    {"conn": NAME, "close": true}
"""
import json
import os
import sqlite3
import sys


def main():
    loader = sqlite3.connect(":memory:")
    loader.enable_load_extension(True)
    loader.load_extension(os.environ["EXTENSION"])
    conns = {}
    for line in sys.stdin:
        asked = json.loads(line)
        name = asked["conn"]
        try:
            if "open" in asked:
                conns[name] = sqlite3.connect(asked["open"], uri=True, isolation_level=None, timeout=20)
                answer = []
            elif "close" in asked:
                conns.pop(name).close()
                answer = []
            else:
                answer = conns[name].execute(asked["sql"]).fetchall()
        except sqlite3.Error as what:
            last = loader.execute("SELECT littoral_last_error()").fetchone()[0]
            answer = {"code": what.sqlite_errorcode, "text": str(what), "last": last}
        print(json.dumps(answer), flush=True)


main()
