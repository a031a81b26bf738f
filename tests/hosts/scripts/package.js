// A machine that has Node and the package, and perhaps better-sqlite3: argv[2] is what to do, argv[3] whose SQLite it is.
const assert = require("node:assert");
const fs = require("node:fs");
const littoral = require("littoral");

const [what, whose, position] = process.argv.slice(2);
const driver = whose === "node:sqlite" ? require(whose).DatabaseSync : require(whose);
const remote = process.env.REMOTE;
const settings = { remote };
// Where nothing is said, better-sqlite3 is taken before node:sqlite.
const open = (path, settings) => littoral.connect(path, settings, process.env.CHOOSE ? { driver } : {});
const question = "SELECT count(*) || '|' || sum(n) || '|' || sum(length(text)) || '|' || min(text) || '|' || max(text) AS told FROM t";
const one = (db, sql) => Object.values(db.prepare(sql).get())[0];

if (what === "write") {
  const db = open("app.db", settings);
  assert(db instanceof driver);
  db.exec("PRAGMA journal_mode = WAL; CREATE TABLE t(n INTEGER, text TEXT); BEGIN");
  const insert = db.prepare("INSERT INTO t VALUES (?, ?)");
  for (let n = 1; n <= 1000; n++) insert.run(n, `text ${n}`);
  db.exec("COMMIT");
  console.log(one(db, "PRAGMA littoral_sync"));
  db.close();
} else if (what === "read") {
  const db = open("app.db", settings);
  console.log(one(db, question));
  // The machine that is lost was never told to stop: who goes on here says so, by the epoch that the refusal names.
  assert.throws(() => db.exec("INSERT INTO t VALUES (1001, 'elsewhere')"), /readonly/);
  assert.match(littoral.lastError({ driver }), /takeover=1/);
  db.close();
  const mine = open("app.db", { remote, takeover: 1 });
  mine.exec("INSERT INTO t VALUES (1001, 'elsewhere')");
  console.log(one(mine, "PRAGMA littoral_sync"));
  const past = open("app.db", { remote, at: position });
  console.log(one(past, "SELECT count(*) FROM t"));
  past.close();
  // What was said of it once, and not again, does not hold any more.
  const now = open("app.db", settings);
  console.log(one(now, "SELECT count(*) FROM t"));
  now.close();
  mine.close();
  const replica = open("replica.db", { remote, volume: "app.db", follow: true });
  console.log(one(replica, "SELECT count(*) FROM t"));
  assert.throws(() => replica.exec("DELETE FROM t"), /readonly/);
  replica.close();
} else {
  const there = fs.readdirSync(".");
  const wrong = (path, settings) => {
    try {
      open(path, settings).close();
    } catch (error) {
      return error;
    }
    assert.fail(`${path} was opened`);
  };
  for (const [settings, words] of [[{ remoet: remote }, /remoet.*did you mean "remote"/], [{ remote: "gs://bucket" }, /gs:\/\//], [{ remote, quota: "lots" }, /quota.*500MB/]]) {
    const error = wrong("app.db", settings);
    assert.match(error.message, words);
    assert(error.name === "LittoralError" || error.message.includes("littoral_setting"), error);
  }
  for (const path of ["", ":memory:", "file:app.db"]) assert(wrong(path, settings) instanceof TypeError);
  assert.deepEqual(fs.readdirSync("."), there);
  assert.match(littoral.lastError({ driver }), /quota/);
  // Databases of which nothing was said are nobody's.
  fs.mkdirSync("plain");
  new driver("plain/plain.db").exec("CREATE TABLE t(x)");
  assert.deepEqual(fs.readdirSync("plain"), ["plain.db"]);
  console.log("told");
}
