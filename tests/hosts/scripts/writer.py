"""A process that does what it is told, a line each: a statement, whose rows are answered; or `commit N RATE`, N commits at a rate per
second, each acknowledged by its number; `fork STATEMENT`, run by a child on a connection of its own, and `fork`, which begins one that does nothing; `close`, `open`, `sleep SECONDS`."""
import os
import sqlite3
import sys
import time

loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension(os.environ["EXTENSION"])
uri = f"file:app.db?vfs=littoral&volume=app.db&remote={os.environ['REMOTE']}{os.environ.get('SAID', '')}"


def connect():
    made = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=60)
    made.execute("PRAGMA journal_mode = WAL")
    made.execute("CREATE TABLE IF NOT EXISTS t(n INTEGER PRIMARY KEY, who TEXT, body TEXT)")
    return made


def answer(*words):
    print(*words, flush=True)


conn = connect()
answer("ready", os.getpid())
for line in sys.stdin:
    word, _, rest = line.strip().partition(" ")
    try:
        if word == "commit":
            count, rate = rest.split()
            begun = time.monotonic()
            for nth in range(int(count)):
                conn.execute("INSERT INTO t(who, body) VALUES (?, hex(randomblob(40)))", (os.getpid(),))
                answer("committed", conn.execute("SELECT max(n) FROM t").fetchone()[0])
                left = begun + (nth + 1) / float(rate) - time.monotonic()
                if left > 0:
                    time.sleep(left)
            answer("done")
        elif word == "fork":
            child = os.fork()
            if child == 0:
                if rest:
                    mine = connect()
                    mine.execute(rest)
                    answer("child", os.getpid())
                # Who hears the parent is told of its end.
                os.dup2(os.open(os.devnull, os.O_RDWR), 1)
                time.sleep(600)
                os._exit(0)
            answer("forked", child)
        elif word == "close":
            conn.close()
            answer("closed")
        elif word == "open":
            conn = connect()
            answer("opened")
        elif word == "sleep":
            time.sleep(float(rest))
            answer("slept")
        else:
            rows = conn.execute(line).fetchall()
            answer("rows", "; ".join("|".join(str(cell) for cell in row) for row in rows))
    except sqlite3.Error as error:
        answer("error", error)
