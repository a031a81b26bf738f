// SQLite databases that live in an object store, for `better-sqlite3` and for Node's own `node:sqlite`.
//
// better-sqlite3 passes no URIs: there ours is made the default VFS, and what a URI would say is said before the database is opened. Databases of which
// nothing was said pass through as they are.
"use strict";

const fs = require("node:fs");
const path = require("node:path");

/** What SQLite tells by a code alone when it opens a database, with the cause and the way out. */
class LittoralError extends Error {
  constructor(message, reason, code, cause) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "LittoralError";
    this.reason = reason;
    this.code = code;
  }
}

function loadablePath() {
  const found = path.join(__dirname, "liblittoral.so");
  if (!fs.existsSync(found)) {
    const why = `${found} is missing: install the package from its tarball, which brings it along`;
    throw new LittoralError(why, why, "LITTORAL_MISSING");
  }
  return found;
}

function driverOf(options) {
  if (options.driver !== undefined) return options.driver;
  for (const [name, member] of [["better-sqlite3", undefined], ["node:sqlite", "DatabaseSync"]]) {
    let found;
    try {
      found = require(name);
    } catch (error) {
      if (error.code === "MODULE_NOT_FOUND" || error.code === "ERR_UNKNOWN_BUILTIN_MODULE") continue;
      throw error;
    }
    return member === undefined ? found : found[member];
  }
  const why = "no SQLite is here: npm install better-sqlite3 (version 12 with Node 20), or use Node 22.15 or newer, which has node:sqlite";
  throw new LittoralError(why, why, "LITTORAL_NO_SQLITE");
}

// node:sqlite's has no pragma(); better-sqlite3's has.
const takesUris = (Driver) => Driver.prototype.pragma === undefined;

// One connection for each SQLite of this thread, on which errors are asked for and settings are said.
const keepers = new Map();

function keeper(Driver) {
  if (keepers.has(Driver)) return keepers.get(Driver);
  let db;
  if (takesUris(Driver)) {
    db = new Driver(":memory:", { allowExtension: true });
    refuseWithoutUris(Driver);
    db.loadExtension(loadablePath());
    db.enableLoadExtension(false);
    db.close();
    db = new Driver(":memory:");
  } else {
    db = new Driver(":memory:");
    db.loadExtension(loadablePath(), "sqlite3_littoraldefault_init");
    db.close();
    // Functions are there on every connection that is opened from now on.
    db = new Driver(":memory:");
  }
  keepers.set(Driver, db);
  return db;
}

function refuseWithoutUris(Driver) {
  try {
    // A database in memory where it is a URI, and a file in a folder that is not there where it is none.
    new Driver("file:/littoral-is-not-there/x?mode=memory").close();
  } catch (error) {
    const why = `node:sqlite of Node ${process.versions.node} takes no URIs: use Node 22.15 or newer, or npm install better-sqlite3`;
    throw new LittoralError(why, why, "LITTORAL_NO_URIS", error);
  }
}

function load(db) {
  db.loadExtension(loadablePath());
}

const spelled = (value) => (value === true ? "on" : value === false ? "off" : String(value));

const onlyReads = ({ follow, cold }) => [follow, cold].some((value) => value === true || value === "on");

function uri(file, settings = {}) {
  refuseUri(file);
  const slashes = path.isAbsolute(file) ? "//" : "";
  let name = `file:${slashes}${file.split("/").map(encodeURIComponent).join("/")}?vfs=littoral`;
  if (onlyReads(settings)) name += "&mode=ro";
  for (const [key, value] of Object.entries(settings)) {
    if (value !== undefined && value !== null) name += `&${encodeURIComponent(key)}=${encodeURIComponent(spelled(value))}`;
  }
  return name;
}

function refuseUri(file) {
  if (typeof file !== "string" || file === "" || file.startsWith("file:") || file.startsWith(":")) {
    throw new TypeError(`${JSON.stringify(file)} is no path of a database: say the path, and settings by their names`);
  }
}

// What was said of each file by connect(): what is not said again is taken back.
const said = new Map();

function say(db, file, settings) {
  const set = db.prepare("SELECT littoral_setting(?, ?, ?)");
  const known = path.resolve(file);
  const wanted = new Map([["vfs", "littoral"]]);
  for (const [key, value] of Object.entries(settings)) {
    if (value !== undefined && value !== null) wanted.set(key, spelled(value));
  }
  for (const key of said.get(known) ?? []) if (!wanted.has(key)) set.get(file, key, null);
  for (const [key, value] of wanted) set.get(file, key, value);
  said.set(known, [...wanted.keys()]);
}

function connect(file, settings = {}, options = {}) {
  refuseUri(file);
  const Driver = driverOf(options);
  const { driver, ...rest } = options;
  const asked = keeper(Driver);
  // What was not asked for before is of something else.
  asked.prepare("SELECT littoral_take_error()").get();
  const reads = onlyReads(settings);
  try {
    if (takesUris(Driver)) return new Driver(uri(file, settings), rest);
    say(asked, file, settings);
    return new Driver(file, reads ? { readonly: true, ...rest } : rest);
  } catch (error) {
    const { reason } = asked.prepare("SELECT littoral_take_error() AS reason").get();
    if (reason === null) throw error;
    // Our own functions' messages are the reason already.
    const message = error.message.includes(reason) ? error.message : `${error.message}: ${reason}`;
    throw new LittoralError(message, reason, error.code, error);
  }
}

function lastError(options = {}) {
  return keeper(driverOf(options)).prepare("SELECT littoral_last_error() AS reason").get().reason;
}

module.exports = { connect, load, loadablePath, uri, lastError, LittoralError };
