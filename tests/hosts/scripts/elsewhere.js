// A machine that has nothing but a settings file: the database is opened from the object store, page by page.
const fs = require("node:fs");
const Database = require("better-sqlite3");

const loader = new Database(":memory:");
loader.loadExtension(process.env.EXTENSION, "sqlite3_littoraldefault_init");
fs.writeFileSync("littoral.toml", `remote = "${process.env.REMOTE}"\n`);
const db = new Database("app.db");
const question = "SELECT count(*), sum(n), sum(length(text)), min(text), max(text) FROM t";
console.log(db.prepare(question).raw().get().join("|"));
db.close();
