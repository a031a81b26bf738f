// LITTORAL_REMOTE makes every database that is opened Littoral's; prints where this one went.
const Database = require("better-sqlite3");

const loader = new Database(":memory:");
loader.loadExtension(process.env.EXTENSION, "sqlite3_littoraldefault_init");
const db = new Database("app.db");
db.pragma("journal_mode = WAL");
db.exec("CREATE TABLE t(n INTEGER, text TEXT)");
const insert = db.prepare("INSERT INTO t VALUES (?, ?)");
db.transaction(() => {
  for (let n = 1; n <= 1000; n++) insert.run(n, `text ${n}`);
})();
db.pragma("littoral_checkpoint");
console.log(db.prepare("SELECT value FROM littoral_status WHERE name = 'volume'").pluck().get());
