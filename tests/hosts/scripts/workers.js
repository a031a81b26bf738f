// Worker threads, each with a connection of its own; one of them publishes while the others write.
const assert = require("node:assert");
const { Worker, isMainThread, workerData } = require("node:worker_threads");
const Database = require("better-sqlite3");

if (isMainThread) {
  const loader = new Database(":memory:");
  loader.loadExtension(process.env.EXTENSION, "sqlite3_littoraldefault_init");
  const db = new Database("app.db");
  db.pragma("journal_mode = WAL");
  db.exec("CREATE TABLE t(worker INTEGER, n INTEGER)");
  const done = [0, 1, 2].map(
    (which) => new Promise((resolve, reject) => new Worker(__filename, { workerData: which }).on("error", reject).on("exit", resolve)),
  );
  Promise.all(done).then((codes) => {
    assert.deepEqual(codes, [0, 0, 0]);
    assert.equal(db.prepare("SELECT count(*) FROM t").pluck().get(), 200);
    db.pragma("littoral_checkpoint");
    assert.match(db.prepare("SELECT value FROM littoral_status WHERE name = 'safe'").pluck().get(), /^yes/);
  });
} else {
  const db = new Database("app.db", { timeout: 60000 });
  if (workerData === 2) {
    for (let n = 0; n < 5; n++) db.pragma("littoral_checkpoint");
  } else {
    const insert = db.prepare("INSERT INTO t VALUES (?, ?)");
    for (let n = 0; n < 100; n++) insert.run(workerData, n);
  }
  db.close();
}
