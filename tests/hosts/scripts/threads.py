"""Threads, each with a connection of its own, while others make checkpoints."""
import os
import sqlite3
import threading

loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension(os.environ["EXTENSION"])
uri = f"file:app.db?vfs=littoral&remote={os.environ['REMOTE']}"


def connect():
    return sqlite3.connect(uri, uri=True, timeout=60, isolation_level=None)


conn = connect()
conn.execute("PRAGMA journal_mode = WAL")
conn.execute("CREATE TABLE t(thread INTEGER, n INTEGER)")
failed = []


def run(work):
    def guarded():
        try:
            work()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    return thread


def write(which):
    mine = connect()
    for n in range(100):
        mine.execute("INSERT INTO t VALUES (?, ?)", (which, n))
    mine.close()


def publish():
    mine = connect()
    for _ in range(5):
        mine.execute("PRAGMA littoral_checkpoint").fetchone()
    mine.close()


threads = [run(lambda which=which: write(which)) for which in range(6)] + [run(publish)]
for thread in threads:
    thread.join()
assert not failed, failed
assert conn.execute("SELECT count(*) FROM t").fetchone() == (600,)
conn.execute("PRAGMA littoral_checkpoint").fetchone()
