/** A value of a setting: `true` and `false` are `on` and `off`; what is undefined or null is not said. */
export type Setting = string | number | boolean | null | undefined;

/** What is said of a database: docs/cli.md tells what each means. A word that is none of these is refused when the database is opened. */
export interface Settings {
  /** The object store: `s3://bucket/prefix`, `file:///folder`. */
  remote?: Setting;
  /** The database's name there; the file's name, where nothing is said. */
  volume?: Setting;
  store?: Setting;
  takeover?: Setting;
  fencing?: Setting;
  quota?: Setting;
  tenant?: Setting;
  grace?: Setting;
  endpoint?: Setting;
  region?: Setting;
  addressing?: Setting;
  compression?: Setting;
  sync_interval?: Setting;
  /** When a commit returns: `local`, or `remote`, when the object store has it. */
  durability?: Setting;
  close_wait?: Setting;
  /** A moment of the history, which is opened read-only: `-5m`, a time, a snapshot's name. */
  at?: Setting;
  retention?: Setting;
  fenced?: Setting;
  /** A replica, which is only read and follows what is written elsewhere. */
  follow?: Setting;
  poll?: Setting;
  upload_rate?: Setting;
  io_rate?: Setting;
  request_budget?: Setting;
  checkpoint_dirty?: Setting;
  prices?: Setting;
  prune_interval?: Setting;
  prune_deletes?: Setting;
  verify_daily?: Setting;
  drill_interval?: Setting;
  drill_probe?: Setting;
  copy?: Setting;
  metrics_listen?: Setting;
  /** Read where the volume is, past every cache, and keep nothing: read-only. */
  cold?: Setting;
  scan_rate?: Setting;
  scan_requests?: Setting;
}

/** `Database` of better-sqlite3, or `DatabaseSync` of node:sqlite. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any
export type Driver = new (path: any, options?: any) => any;

/** Which SQLite opens the database. */
export interface Choice<D extends Driver> {
  /** `require("better-sqlite3")` or `require("node:sqlite").DatabaseSync`; the first of the two that is there, where nothing is said. */
  driver?: D;
  /** The rest is the driver's: `timeout`, `verbose`, `readOnly` and so on. */
  [option: string]: unknown;
}

/** What SQLite tells by a code alone when it opens a database, with the cause and the way out. */
export class LittoralError extends Error {
  /** Littoral's sentence. */
  reason: string;
  /** The driver's code, as in `SQLITE_CANTOPEN`, or one of ours that begins with `LITTORAL_`. */
  code?: string;
}

/**
 * Opens a database, wherever it is, and gives the driver's own connection.
 *
 *     const db = littoral.connect("app.db", { remote: "s3://bucket/prefix" });
 */
export function connect<D extends Driver>(path: string, settings: Settings | undefined, options: Choice<D> & { driver: D }): InstanceType<D>;
// eslint-disable-next-line @typescript-eslint/no-explicit-any
export function connect(path: string, settings?: Settings, options?: Choice<Driver>): any;

/** Loads the extension through a connection: the VFS `littoral`, its functions and tables are there in every connection opened from then on. */
export function load(db: { loadExtension(path: string): unknown }): void;

/** The extension, for whatever loads one. */
export function loadablePath(): string;

/** A database's name for what takes URIs and has the extension loaded. */
export function uri(path: string, settings?: Settings): string;

/** Why Littoral refused something last on this thread, else in this process; null where it has refused nothing. */
export function lastError(options?: Choice<Driver>): string | null;
