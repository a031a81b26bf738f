"""Consumes a queue of numbered messages exactly once, as a named session, until it is told to stop or is done.

    consumer.py URI SESSION LAST

Message n is done by inserting a row of it, with nothing that would notice a second one: the serial alone keeps it from being done twice.
"""
import os
import random
import sqlite3
import sys
import time

uri, session, last = sys.argv[1], sys.argv[2], int(sys.argv[3])
loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension(os.environ["EXTENSION"])
conn = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=60)
conn.execute(f"PRAGMA littoral_session='{session}'")
done = conn.execute("SELECT littoral_serial()").fetchone()[0] or 0
print("resumes", done, flush=True)
while done < last:
    # Some at a time: a serial stands for all that was done up to it.
    take = min(last - done, random.randint(1, 3))
    conn.execute("BEGIN IMMEDIATE")
    for n in range(done + 1, done + take + 1):
        conn.execute("INSERT INTO done VALUES (?, ?, hex(randomblob(?)))", (session, n, random.randint(10, 400)))
    conn.execute("SELECT littoral_serial(?)", (done + take,))
    if random.random() < 0.1:
        # Whatever an application thinks better of leaves no trace.
        conn.execute("ROLLBACK")
        continue
    conn.execute("COMMIT")
    done += take
    print("done", done, flush=True)
    # Work takes its time: whoever looks finds it under way.
    time.sleep(0.005)
print("ends", done, flush=True)
