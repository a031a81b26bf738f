"""A replica's reader: looks again and again, each time in one transaction, and says what it saw; or what was wrong with it."""
import os
import sqlite3
import sys
import time

loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension(os.environ["EXTENSION"])
uri = f"file:replica.db?vfs=littoral&mode=ro&follow=1&poll=100ms&volume=app.db&remote={os.environ['REMOTE']}"
conn, before = None, 0
while True:
    try:
        if conn is None:
            conn = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=60)
        conn.execute("BEGIN")
        count, last = conn.execute("SELECT count(*), ifnull(max(n), 0) FROM t").fetchone()
        time.sleep(0.05)
        # Whatever comes meanwhile, this transaction reads on in its state.
        again = conn.execute("SELECT count(*), ifnull(max(n), 0) FROM t INDEXED BY who").fetchone()
        conn.execute("COMMIT")
        if count != last or again != (count, last):
            print("wrong: no prefix:", count, last, again, flush=True)
        if last < before:
            print("wrong: back from", before, "to", last, flush=True)
        before = last
        print("seen", last, flush=True)
    except sqlite3.OperationalError as error:
        # A page that is not here, while the network is away: an error is an answer.
        print("error", error, flush=True)
        if conn is not None and conn.in_transaction:
            conn.execute("ROLLBACK")
        time.sleep(0.2)
    if os.path.exists("end"):
        sys.exit(0)
