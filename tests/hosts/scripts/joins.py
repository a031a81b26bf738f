"""Joins on a database that is not all here, by many threads and connections of several processes, while others write, change the
schema, publish, close and open again.

    joins.py make                      the database, on the machine that writes first
    joins.py known                     what the joins answer there
    joins.py claim                     the machine that writes from then on
    joins.py run JOURNAL PLACE OF      one process of several: in this journal mode, its part of the writes
    joins.py idle                      what was asked for leaves no lock behind
    joins.py fork                      a child asks for itself
    joins.py first                     how many pages come with the first row of a join
"""
import json
import os
import random
import sqlite3
import sys
import threading
import time

loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension(os.environ["EXTENSION"])
loader.close()
uri = f"file:app.db?vfs=littoral&remote={os.environ['REMOTE']}"

JOINS = [
    "SELECT sum(r.a), count(*), sum(length(r.k)) FROM numbers JOIN rows r ON r.id = n",
    "SELECT sum(r.a), count(*) FROM keys k JOIN rows r ON r.k = k.k AND r.a = k.a",
    "SELECT sum(r.a), sum(l.n), count(*) FROM numbers x JOIN links l ON l.id = x.n % 997 JOIN rows r ON r.k = l.k",
    "SELECT sum(r.a), sum(l.n), count(*) FROM numbers x JOIN links l ON l.id = x.n JOIN rows r ON r.k = l.k",
    "SELECT group_concat(a, ' ') FROM (SELECT r.a FROM numbers LEFT JOIN rows r ON r.id = n ORDER BY numbers.rowid DESC LIMIT 90)",
    "SELECT sum(r.a), count(*) FROM rows r WHERE r.id IN (SELECT n FROM numbers) AND r.a > 10",
    "SELECT sum(f.w), count(*) FROM keys k JOIN flat f ON f.k = k.k COLLATE NOCASE",
    "SELECT count(*), sum(r.a) FROM links l JOIN rows r ON r.k = l.k WHERE l.id BETWEEN 500 AND 900 AND l.n % 3 = 0",
    "SELECT sum(length(r.k)), count(*) FROM rows o JOIN rows r ON r.id = o.a WHERE o.k > 'k05' AND o.k < 'k07'",
]
# In order, so that the rows of one statement can be stopped at.
ROWS = "SELECT r.id, r.k, r.a FROM numbers JOIN rows r ON r.id = n ORDER BY numbers.rowid"


def connect(more=""):
    return sqlite3.connect(uri + more, uri=True, timeout=120, isolation_level=None, check_same_thread=False)


def make():
    conn = connect()
    conn.executescript("""
        CREATE TABLE rows(id INTEGER PRIMARY KEY, k TEXT, a INTEGER, body TEXT);
        WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 12000)
        INSERT INTO rows SELECT i, printf('k%05d', i * 7919 % 12000), i * 31 % 12000 + 1, hex(randomblob(150)) FROM n;
        CREATE INDEX by_k ON rows(k, a DESC);
        CREATE TABLE numbers(n INTEGER);
        WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
        INSERT INTO numbers SELECT i * 7417 % 12000 + 1 FROM n;
        CREATE TABLE keys(k TEXT, a TEXT);
        INSERT INTO keys SELECT k, a FROM rows WHERE id % 60 = 1;
        CREATE TABLE links(id INTEGER PRIMARY KEY, k TEXT, n REAL, pad TEXT);
        INSERT INTO links SELECT id, printf('k%05d', id * 131 % 12000), id, hex(randomblob(60)) FROM rows;
        CREATE TABLE flat(k TEXT COLLATE NOCASE PRIMARY KEY, w INTEGER, pad TEXT) WITHOUT ROWID;
        INSERT INTO flat SELECT upper(k), a, hex(randomblob(80)) FROM rows;
        CREATE TABLE written(process INTEGER, thread INTEGER, n INTEGER, pad TEXT);
        CREATE INDEX by_n ON written(n);
    """)
    print(conn.execute("PRAGMA littoral_checkpoint").fetchone()[0])


def known():
    conn = connect()
    print(json.dumps([conn.execute(join).fetchall() for join in JOINS] + [conn.execute(ROWS).fetchall()]))


def all_of(works):
    failed = []

    def guarded(work):
        try:
            work()
        except BaseException as error:
            failed.append(repr(error))

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed


def run(journal, place, of):
    place, of = int(place), int(of)
    answers = [[tuple(row) for row in rows] for rows in json.load(open("known.json"))]
    (answers, rows) = (answers[:-1], answers[-1])
    ends = time.monotonic() + 4

    def ask(which, more=""):
        chance = random.Random(which * of + place)
        times = 0
        while time.monotonic() < ends or times < 3:
            conn = connect(more)
            # Little is kept by SQLite, so that much is read.
            conn.execute("PRAGMA cache_size = 8")
            for _ in range(chance.randrange(1, 6)):
                at = chance.randrange(len(JOINS))
                found = conn.execute(JOINS[at]).fetchall()
                assert found == answers[at], (JOINS[at], found, answers[at])
                # One that is left in the middle, with another beside it.
                many = chance.randrange(1, len(rows))
                open_one = conn.execute(ROWS)
                found = open_one.fetchmany(many)
                assert found == rows[:many], (found, rows[:many])
                if chance.random() < 0.5:
                    assert conn.execute(JOINS[0]).fetchall() == answers[0]
                    assert open_one.fetchall() == rows[many:]
                # Python would keep it, and its lock, beyond the connection.
                open_one.close()
            conn.close()
            times += 1

    def write(which):
        for n in range(40):
            conn = connect("&takeover=1")
            conn.execute("INSERT INTO written VALUES (?, ?, ?, hex(randomblob(200)))", (place, which, n))
            # Bodies are of no answer: all pages of the tables move.
            conn.execute("UPDATE rows SET body = body || 'x' WHERE id % 240 = ?", (n + 40 * (which + 2 * place),))
            if n % 8 == which:
                conn.executescript(f"""
                    CREATE TABLE made_{place}_{which} AS SELECT * FROM rows WHERE id < 500;
                    CREATE INDEX of_made_{place}_{which} ON made_{place}_{which}(k);
                    DROP TABLE made_{place}_{which};
                """)
            conn.close()

    def publish():
        for _ in range(3):
            conn = connect("&takeover=1")
            try:
                conn.execute("PRAGMA littoral_checkpoint").fetchone()
            except sqlite3.OperationalError as error:
                # Another one of ours is at it.
                assert "littoral" in str(error) or "lock" in str(error) or "busy" in str(error), error
            conn.close()
            time.sleep(0.3)

    works = [lambda which=which: ask(which) for which in range(3)]
    works += [lambda: ask(7, "&cache=shared" if journal == "delete" else "&mode=ro")]
    works += [lambda which=which: write(which) for which in range(2)]
    works += [publish] if place == 0 else []
    all_of(works)


def claim():
    connect("&takeover=1").execute("DELETE FROM written")


def idle():
    conn = connect("&takeover=1")
    conn.execute("PRAGMA journal_mode = WAL")
    conn.execute("INSERT INTO written VALUES (-1, 0, 0, '')")
    for join in JOINS:
        conn.execute(join).fetchall()
    # Who is alone may do this, and nobody else.
    assert conn.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)
    assert conn.execute("PRAGMA locking_mode = EXCLUSIVE").fetchone() == ("exclusive",)
    conn.execute("DELETE FROM written WHERE process = -1")
    began = time.monotonic()
    conn.close()
    assert time.monotonic() - began < 30
    left = [name for name in os.listdir(".") if "-wal" in name or "-journal" in name or "-shm" in name]
    assert left == [], left


def fork():
    conn = connect()
    answers = json.load(open("known.json"))
    half = conn.execute(ROWS)
    assert half.fetchone() == tuple(answers[-1][0])
    child = os.fork()
    if child == 0:
        try:
            mine = connect()
            for join, answer in zip(JOINS, answers):
                assert mine.execute(join).fetchall() == [tuple(row) for row in answer], join
            os._exit(0)
        except BaseException as error:
            print(error, file=sys.stderr, flush=True)
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert status == 0, status
    assert [list(row) for row in half.fetchall()] == answers[-1][1:]


def first():
    conn = connect()
    here = lambda: int(conn.execute("SELECT value FROM littoral_status WHERE name = 'here'").fetchone()[0].split()[0])
    # What only this connection knows.
    conn.create_function("mine", 1, lambda value: value)
    conn.execute("SELECT count(*) FROM numbers").fetchone()
    before = here()
    asked = conn.execute(sys.argv[2])
    asked.fetchone()
    print(here() - before)


globals()[sys.argv[1]](*sys.argv[2:] if sys.argv[1] == "run" else [])
