"""A program that opens, commits and closes, as fast as it can: argv[1] is the journal mode."""
import os
import sys

import littoral

conn = littoral.connect("app.db", remote=os.environ["REMOTE"], close_wait="25s")
conn.execute(f"PRAGMA journal_mode = {sys.argv[1]}").fetchall()
with conn:
    conn.execute("CREATE TABLE note(text)")
    conn.execute("INSERT INTO note VALUES ('hello')")
conn.close()
