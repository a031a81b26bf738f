"""A program that opens, commits with a rollback journal and closes, twenty databases one after the other: each is shipped behind its back just then."""
import os

import littoral

for nth in range(20):
    conn = littoral.connect(f"{nth}.db", remote=os.environ["REMOTE"])
    with conn:
        conn.execute("CREATE TABLE note(text)")
        conn.execute("INSERT INTO note VALUES ('hello')")
    conn.close()
