// better-sqlite3, which passes no URIs: ours is the default, and a variable or a file beside a database says that it is Littoral's.
const assert = require("node:assert");
const fs = require("node:fs");
const Database = require("better-sqlite3");

const loader = new Database(":memory:");
loader.loadExtension(process.env.EXTENSION, "sqlite3_littoraldefault_init");
loader.close();

fs.mkdirSync("configured");
fs.writeFileSync("configured/littoral.toml", `remote = "${process.env.REMOTE}"\n`);
const db = new Database("configured/app.db");
db.pragma("journal_mode = WAL");
db.exec("CREATE TABLE t(n INTEGER, text TEXT)");
const insert = db.prepare("INSERT INTO t VALUES (?, ?)");
db.transaction(() => {
  for (let n = 1; n <= 1000; n++) insert.run(n, `text ${n}`);
})();
const position = db.pragma("littoral_checkpoint", { simple: true });
assert.match(position, /^1\.\d+$/);
const status = Object.fromEntries(db.prepare("SELECT name, value FROM littoral_status").raw().all());
assert.equal(status.position, position);
assert.match(status.safe, /^yes/);
db.close();

// Nobody names this one: it is a database as without us, in every journal mode, and nothing of ours appears beside it.
fs.mkdirSync("other");
for (const mode of ["delete", "wal"]) {
  const plain = new Database("other/plain.db");
  plain.pragma(`journal_mode = ${mode}`);
  plain.exec("CREATE TABLE IF NOT EXISTS t(x); INSERT INTO t VALUES (1)");
  assert.throws(() => plain.prepare("SELECT littoral_checkpoint()").get(), /was not opened through littoral/);
  assert.deepEqual(plain.pragma("littoral_checkpoint"), []);
  plain.close();
}
assert.deepEqual(fs.readdirSync("other"), ["plain.db"]);
