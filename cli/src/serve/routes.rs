//! What can be asked: one table, from which come the answers, the OpenAPI page and what is refused.

use super::answer::Answer;
use super::look::Look;
use super::{Server, metrics, openapi};
use crate::door::Door;
use crate::screen::Told;
use crate::verbs::{checkpoint, flags, jobs, leases, shown, status};
use anyhow::Context;
use hyper::{Method, StatusCode};
use littoral_engine::facts::{Facts, change_log};
use littoral_engine::open::Place;
use littoral_engine::runtime;
use littoral_engine::safety::Safety;
use littoral_engine::settings::{Money, nearest};
use littoral_types::{Change, Position};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// `/status` asks the object store at most this often for each database.
pub const STATUS_FRESH: Duration = Duration::from_secs(5);
/// Entries of the change log that are told at once.
const CHANGES_MAX: u64 = 1000;
const CHANGES: u64 = 100;
/// How long whoever asks for a checkpoint waits for it, where he does not say, and at most.
const WAIT_S: u64 = 30;
const WAIT_S_MAX: u64 = 50;
/// SQLite's own code runs on it.
const STACK: usize = 2 << 20;

/// The page is one file, and fetches nothing but from here.
const PAGE: &str = include_str!("page.html");
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Who may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Whoever reaches the port.
    Anyone,
    /// Whoever is on this machine, or has the token.
    Reader,
    /// Whoever has the token.
    Administrator,
}

/// What a value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// A number within these bounds.
    Number(u64, u64),
    /// true or false.
    Switch,
    /// Text of so many letters at most.
    Text(usize),
}

/// Something that is said with a request.
#[derive(Debug)]
pub struct Param {
    /// Its name.
    pub name: &'static str,
    /// What it may be.
    pub takes: Takes,
    /// What it means.
    pub help: &'static str,
}

/// Something that can be asked.
pub struct Route {
    /// GET or POST.
    pub method: &'static str,
    /// Its path; `{name}` at its end stands for one part.
    pub path: &'static str,
    /// Who may.
    pub who: Who,
    /// What it says or does.
    pub help: &'static str,
    /// What can be said with it.
    pub params: &'static [Param],
    /// The kind of its answer.
    pub answers: &'static str,
    /// Whether it may wait for the object store, or for work.
    pub waits: bool,
    pub(super) does: fn(&Server, &Asked) -> Answer,
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

const DATABASE: Param = Param {
    name: "database",
    takes: Takes::Text(4096),
    help: "which database: its path, or its file's name where no other is called so; needed where several are served",
};

/// All of it.
pub const ALL: &[Route] = &[
    Route {
        method: "GET",
        path: "/",
        who: Who::Reader,
        help: "A page: whether each database is safe, why, and all below it",
        params: &[],
        answers: "text/html; charset=utf-8",
        waits: false,
        does: |_, _| {
            Answer::text("text/html; charset=utf-8", PAGE.to_owned()).with("content-security-policy", POLICY.to_owned())
        },
    },
    Route {
        method: "GET",
        path: "/metrics",
        who: Who::Reader,
        help: "Metrics, in the text format of Prometheus",
        params: &[],
        answers: "text/plain; version=0.0.4; charset=utf-8",
        waits: false,
        does: |server, _| Answer::text("text/plain; version=0.0.4; charset=utf-8", metrics::render(&server.look())),
    },
    Route {
        method: "GET",
        path: "/healthz",
        who: Who::Anyone,
        help: "Whether this process answers and can read what it serves; 503 with the reasons where it cannot",
        params: &[],
        answers: "application/json",
        waits: false,
        does: |server, asked| health(server, asked),
    },
    Route {
        method: "GET",
        path: "/readyz",
        who: Who::Anyone,
        help: "Whether every database that is served is safe or to be watched; 503 with the reasons where one is unsafe",
        params: &[],
        answers: "application/json",
        waits: false,
        does: |server, asked| readiness(server, asked),
    },
    Route {
        method: "GET",
        path: "/overview",
        who: Who::Reader,
        help: "How every database stands, as this machine knows it: the object store is not asked",
        params: &[],
        answers: "application/json",
        waits: false,
        does: |server, _| Answer::done(&overview(&server.door, &server.look())),
    },
    Route {
        method: "GET",
        path: "/status",
        who: Who::Reader,
        help: "What littoral status --json says: the object store is asked, once in five seconds at most",
        params: &[
            DATABASE,
            Param { name: "terms", takes: Takes::Switch, help: "who wrote it, term by term, as --terms says it" },
        ],
        answers: "application/json",
        waits: true,
        does: |server, asked| server.of(asked, |server, path| server.status(path, asked.is("terms"))),
    },
    Route {
        method: "GET",
        path: "/debug/checkpoint/leases",
        who: Who::Reader,
        help: "Who works on which chunks, as littoral leases list says it",
        params: &[DATABASE],
        answers: "application/json",
        waits: false,
        does: |server, asked| {
            server.of(asked, |server, path| server.verb(path, |door| leases::run(leases::Args::list(path), door)))
        },
    },
    Route {
        method: "GET",
        path: "/debug/checkpoint/active_jobs",
        who: Who::Reader,
        help: "The jobs that are not over, as littoral jobs list says it",
        params: &[DATABASE],
        answers: "application/json",
        waits: false,
        does: |server, asked| server.of(asked, active_jobs),
    },
    Route {
        method: "GET",
        path: "/debug/manifest/change_log",
        who: Who::Reader,
        help: "The newest entries of the local manifest's change log, the oldest of them first",
        params: &[
            DATABASE,
            Param {
                name: "limit",
                takes: Takes::Number(1, CHANGES_MAX),
                help: "how many entries at most; 100 where it is left out",
            },
        ],
        answers: "application/json",
        waits: false,
        does: |server, asked| {
            let limit = asked.number("limit").unwrap_or(CHANGES);
            server.of(asked, |server, path| changes(server, path, limit))
        },
    },
    Route {
        method: "GET",
        path: "/debug/flags",
        who: Who::Reader,
        help: "How the switches stand, as littoral flags says it",
        params: &[DATABASE],
        answers: "application/json",
        waits: false,
        does: |server, asked| {
            server
                .of(asked, |server, path| server.verb(path, |door| flags::run(flags::Args::of(path, Vec::new()), door)))
        },
    },
    Route {
        method: "GET",
        path: "/openapi.json",
        who: Who::Reader,
        help: "What can be asked here",
        params: &[],
        answers: "application/json",
        waits: false,
        does: |_, _| Answer::done(&openapi::page()),
    },
    Route {
        method: "POST",
        path: "/admin/checkpoint",
        who: Who::Administrator,
        help: "Makes a checkpoint, as littoral checkpoint does; 202 where it takes longer than is waited, and goes on",
        params: &[
            DATABASE,
            Param {
                name: "wait",
                takes: Takes::Number(0, WAIT_S_MAX),
                help: "seconds to wait for it; 30 where it is left out",
            },
        ],
        answers: "application/json",
        waits: true,
        does: |server, asked| {
            let wait = asked.number("wait").unwrap_or(WAIT_S);
            server.of(asked, |server, path| server.checkpoint(path, Duration::from_secs(wait)))
        },
    },
    Route {
        method: "POST",
        path: "/admin/checkpoint/lease/release/{chunk_id}",
        who: Who::Administrator,
        help: "Takes the leases on a chunk (a number, or all) from whoever holds them, as littoral leases release does; 409 where he lives and force is not said",
        params: &[
            DATABASE,
            Param {
                name: "force",
                takes: Takes::Switch,
                help: "also from one who lives and has time left: needs a reason",
            },
            Param { name: "reason", takes: Takes::Text(500), help: "why, for those who read littoral leases audit" },
        ],
        answers: "application/json",
        waits: true,
        does: |server, asked| {
            let args = |path: &Path| {
                let chunk = asked.rest.clone().unwrap_or_default();
                leases::Args::release(path, chunk, asked.is("force"), asked.text("reason").map(str::to_owned))
            };
            if asked.is("force") && asked.text("reason").is_none_or(|reason| reason.trim().is_empty()) {
                let text = "force is said, and no reason";
                return Answer::refused(
                    StatusCode::BAD_REQUEST,
                    text,
                    "say why: &reason=TEXT, for those who read the audit",
                );
            }
            server.of(asked, |server, path| server.verb(path, |door| leases::run(args(path), door)))
        },
    },
    Route {
        method: "POST",
        path: "/admin/flags",
        who: Who::Administrator,
        help: "Throws switches of a volume, as littoral flags does; default takes back what was said",
        params: &[
            DATABASE,
            Param { name: "enable_checkpoints", takes: Takes::Text(16), help: "true, false or default" },
            Param { name: "enable_chunk_deltas", takes: Takes::Text(16), help: "true, false or default" },
            Param { name: "enable_append_only_truncation", takes: Takes::Text(16), help: "true, false or default" },
            Param { name: "enable_cold_scan", takes: Takes::Text(16), help: "true, false or default" },
            Param {
                name: "checkpoint_interval_seconds",
                takes: Takes::Text(20),
                help: "a number of seconds, 0 for never because of time alone, or default",
            },
        ],
        answers: "application/json",
        waits: true,
        does: |server, asked| {
            let thrown: Vec<String> = asked
                .said
                .iter()
                .filter(|(name, _)| **name != DATABASE.name)
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            if thrown.is_empty() {
                let text = "no switch is named";
                return Answer::refused(StatusCode::BAD_REQUEST, text, "name one, as in ?enable_checkpoints=false");
            }
            server.of(asked, |server, path| {
                server.verb(path, |door| flags::run(flags::Args::of(path, thrown.clone()), door))
            })
        },
    },
];

/// The route of a path, and what stands for its last part.
pub(super) fn find(method: &Method, path: &str) -> Result<(&'static Route, Option<String>), Answer> {
    let mut others = Vec::new();
    for route in ALL {
        let rest = match route.path.split_once('{') {
            None if route.path == path => None,
            Some((before, _)) => match path.strip_prefix(before).filter(|rest| !rest.is_empty() && !rest.contains('/'))
            {
                Some(rest) => Some(rest),
                None => continue,
            },
            None => continue,
        };
        if route.method != method.as_str() {
            others.push(route.method);
            continue;
        }
        let rest = match rest.map(|rest| decoded(rest, false)) {
            Some(None) => {
                return Err(Answer::refused(
                    StatusCode::BAD_REQUEST,
                    "the path is not spelled right",
                    "% stands before two hex digits, of UTF-8",
                ));
            }
            rest => rest.flatten(),
        };
        return Ok((route, rest));
    }
    if others.is_empty() {
        return Err(Answer::refused(
            StatusCode::NOT_FOUND,
            "there is no such page",
            "/openapi.json says what there is",
        ));
    }
    let allowed = others.join(", ");
    let refused = Answer::refused(StatusCode::METHOD_NOT_ALLOWED, "it is not asked so", &format!("ask by {allowed}"));
    Err(refused.with("allow", allowed))
}

/// What was asked for.
#[derive(Debug)]
pub(super) struct Asked {
    /// Whether who asks is on this machine, or has the token.
    is_trusted: bool,
    said: BTreeMap<&'static str, String>,
    rest: Option<String>,
}

impl Asked {
    /// Reads all of it, or refuses it.
    pub(super) fn read(route: &'static Route, rest: Option<String>, query: Option<&str>) -> Result<Self, Answer> {
        let refuse = |why: String, way_out: String| Answer::refused(StatusCode::BAD_REQUEST, &why, &way_out);
        let mut said = BTreeMap::new();
        for pair in query.unwrap_or("").split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(name), Some(value)) = (decoded(name, true), decoded(value, true)) else {
                return Err(refuse(
                    "the address is not spelled right".to_owned(),
                    "% stands before two hex digits, of UTF-8".to_owned(),
                ));
            };
            let Some(param) = route.params.iter().find(|param| param.name == name) else {
                let known: Vec<&str> = route.params.iter().map(|param| param.name).collect();
                let way_out = match (nearest(&name, known.iter().copied()), known.is_empty()) {
                    (Some(near), _) => format!("did you mean {near}?"),
                    (None, true) => "it takes nothing".to_owned(),
                    (None, false) => format!("it takes {}", known.join(", ")),
                };
                return Err(refuse(format!("{} is nothing that {} takes", quoted(&name), route.path), way_out));
            };
            let is_right = match param.takes {
                Takes::Number(least, most) => value.parse::<u64>().is_ok_and(|number| (least..=most).contains(&number)),
                Takes::Switch => matches!(value.as_str(), "true" | "false"),
                Takes::Text(most) => !value.is_empty() && value.len() <= most && !value.contains('\0'),
            };
            if !is_right {
                return Err(refuse(
                    format!("{} cannot be {}", param.name, quoted(&value)),
                    format!("it is {}", takes(param.takes)),
                ));
            }
            if said.insert(param.name, value).is_some() {
                return Err(refuse(format!("{} is said twice", param.name), "say it once".to_owned()));
            }
        }
        Ok(Self { is_trusted: false, said, rest })
    }

    /// By whom: one who is on this machine, or has the token, or by anybody.
    pub(super) fn by(self, is_trusted: bool) -> Self {
        Self { is_trusted, ..self }
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.said.get(name).map(String::as_str)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    fn is(&self, name: &str) -> bool {
        self.text(name) == Some("true")
    }
}

fn takes(takes: Takes) -> String {
    match takes {
        Takes::Number(least, most) => format!("a number from {least} to {most}"),
        Takes::Switch => "true or false".to_owned(),
        Takes::Text(most) => format!("text of {most} bytes at most"),
    }
}

/// As it may be repeated: short, and nothing that a terminal would obey.
fn quoted(text: &str) -> String {
    let short: String = text.chars().take(60).collect();
    format!("{short:?}")
}

/// Reads what an address spells with `%`, and in a query with `+`.
fn decoded(text: &str, is_query: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let (one, two) = (char::from(rest.next()?).to_digit(16)?, char::from(rest.next()?).to_digit(16)?);
                u8::try_from(one * 16 + two).ok()?
            }
            b'+' if is_query => b' ',
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

impl Server {
    pub(super) fn look(&self) -> std::sync::Arc<Look> {
        self.watched.look(&self.door)
    }

    /// Does something with the database that was named.
    fn of(&self, asked: &Asked, does: impl FnOnce(&Self, &Path) -> Answer) -> Answer {
        let paths = self.watched.paths();
        let refuse = |why: &str| {
            let way_out = "/overview says which databases are served; name one: ?database=PATH";
            Answer::refused(StatusCode::NOT_FOUND, why, way_out)
        };
        let Some(named) = asked.text(DATABASE.name) else {
            let mut all = paths.iter();
            return match (all.next(), all.next()) {
                (Some(path), None) => does(self, path),
                (None, _) => refuse("no database is served just now"),
                (Some(_), Some(_)) => Answer::refused(
                    StatusCode::BAD_REQUEST,
                    "several databases are served, and none is named",
                    "name one: ?database=PATH; /overview says which there are",
                ),
            };
        };
        if let Some(path) = paths.get(Path::new(named)) {
            return does(self, path);
        }
        let mut called: Vec<&PathBuf> = paths.iter().filter(|path| path.file_name() == Some(named.as_ref())).collect();
        match (called.pop(), called.is_empty()) {
            (Some(path), true) => does(self, path),
            (Some(_), false) => refuse("several databases that are served are called so"),
            (None, _) => refuse("no such database is served here"),
        }
    }

    /// Does what a verb does, as its command would.
    fn verb<'a, F>(&'a self, path: &Path, verb: impl FnOnce(&'a Door) -> F) -> Answer
    where
        F: Future<Output = anyhow::Result<Told>>,
    {
        match self.told(verb(&self.door)) {
            Ok(told) => Answer::done(&with_file(told, path)),
            Err(error) => Answer::failed(&error),
        }
    }

    fn told(&self, work: impl Future<Output = anyhow::Result<Told>>) -> anyhow::Result<Told> {
        runtime::shared().context("no thread can be started")?.run(work)
    }

    fn status(&self, path: &Path, terms: bool) -> Answer {
        // Whoever comes meanwhile waits for the same answer.
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|_, (when, _)| when.elapsed() < STATUS_FRESH);
        let (_, answer) = told.entry((path.to_owned(), terms)).or_insert_with(|| {
            let door = self.door.behind(self.door.said().to_vec());
            let args = status::Args::of(path, terms);
            let answer = match self.told(Box::pin(status::run(args, &door))) {
                Ok(told) => Ok(document(told)),
                Err(error) => Err(Answer::failed(&error)),
            };
            (Instant::now(), answer)
        });
        match answer {
            Ok(json) => Answer::done(json),
            Err(refused) => refused.clone(),
        }
    }

    fn checkpoint(&self, path: &Path, wait: Duration) -> Answer {
        if !self.busy.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned()) {
            let text = "a checkpoint of it is being made that was asked for here";
            return Answer::refused(StatusCode::CONFLICT, text, "wait for it: /debug/checkpoint/active_jobs shows it");
        }
        let door = self.door.behind(self.door.said().to_vec());
        let (tell, told) = sync_channel(1);
        let busy = self.busy.clone();
        let file = path.to_owned();
        let work = move || {
            let made = runtime::shared()
                .map_err(anyhow::Error::from)
                .and_then(|runtime| runtime.run(Box::pin(checkpoint::run(checkpoint::Args::of(&file), &door))));
            busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&file);
            if let Err(error) = &made {
                tracing::warn!(database = %file.display(), "a checkpoint that an administrator asked for failed: {error}");
            }
            // Whoever asked may not have waited.
            let _ = tell.send(made);
        };
        let thread = std::thread::Builder::new().name("littoral-checkpoint".to_owned()).stack_size(STACK);
        if let Err(error) = thread.spawn(work) {
            self.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(path);
            return Answer::refused(
                StatusCode::SERVICE_UNAVAILABLE,
                &format!("no thread can be started: {error}"),
                "come again",
            );
        }
        match told.recv_timeout(wait) {
            Ok(Ok(told)) => Answer::done(&document(told)),
            Ok(Err(error)) => Answer::failed(&error),
            Err(RecvTimeoutError::Timeout) => {
                let json = json!({ "verb": "checkpoint", "database": path.display().to_string(), "state": "running" });
                Answer::json(StatusCode::ACCEPTED, &json)
            }
            Err(RecvTimeoutError::Disconnected) => {
                self.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(path);
                let text = "it broke down inside of littoral: see the log";
                Answer::refused(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    text,
                    "please report it; nothing that was durable is lost",
                )
            }
        }
    }
}

/// A verb's document, as its command shows it.
fn document(told: Told) -> Value {
    let mut json = told.json;
    if let Value::Object(fields) = &mut json {
        fields.insert("exit".to_owned(), json!(told.exit.word()));
    }
    json
}

fn with_file(told: Told, path: &Path) -> Value {
    let mut json = document(told);
    if let Value::Object(fields) = &mut json {
        fields.insert("database".to_owned(), json!(path.display().to_string()));
    }
    json
}

fn active_jobs(server: &Server, path: &Path) -> Answer {
    let listed = server.told(jobs::run(jobs::Args::list(path), &server.door));
    let mut json = match listed {
        Ok(told) => with_file(told, path),
        Err(error) => return Answer::failed(&error),
    };
    if let Some(jobs) = json.get_mut("jobs").and_then(Value::as_array_mut) {
        jobs.retain(|job| matches!(job["state"].as_str(), Some("ready" | "running")));
    }
    Answer::done(&json)
}

fn changes(server: &Server, path: &Path, limit: u64) -> Answer {
    let told = || -> anyhow::Result<Vec<Change>> {
        let settings = server.door.settings(Some(path))?;
        let place = Place::of_database(path, &settings)?;
        Ok(change_log(&place, usize::try_from(limit)?)?)
    };
    match told() {
        Ok(changes) => Answer::done(&json!({
            "database": path.display().to_string(),
            "changes": changes.iter().map(change_json).collect::<Vec<_>>(),
        })),
        Err(error) => Answer::failed(&error),
    }
}

fn change_json(change: &Change) -> Value {
    json!({
        "change": change.change.0,
        "volume": change.volume.to_string(),
        "after_record": change.after.0,
        "records": change.records.iter().map(|record| json!({
            "record": record.seq.0,
            "kind": record.kind.word(),
            "position": Position { epoch: record.epoch, lsn: record.lsns.last }.to_string(),
            "time": shown::moment(record.time_ms),
            "pages_changed": record.added.pages,
            "bytes": record.added.bytes,
        })).collect::<Vec<_>>(),
        "operations": change.ops.len(),
        "undone": change.undone.as_ref().map(|taken| json!({ "why": taken.why, "by": taken.by, "at": shown::moment(taken.at_ms) })),
    })
}

fn health(server: &Server, asked: &Asked) -> Answer {
    let look = server.look();
    let mut reasons: Vec<String> = Vec::new();
    for (path, why) in look.databases.iter().filter_map(|(path, facts)| Some((path, facts.as_ref().err()?))) {
        reasons.push(format!("{}: {why}", name_of(path)));
    }
    for (path, why) in look.stores.iter().filter_map(|(path, store)| Some((path, store.as_ref().err()?))) {
        reasons.push(format!("the store {}: {why}", name_of(path)));
    }
    judged(("ok", "failing"), reasons, look.databases.len(), asked)
}

fn readiness(server: &Server, asked: &Asked) -> Answer {
    let look = server.look();
    let mut reasons = Vec::new();
    for (path, facts) in &look.databases {
        match facts {
            Err(why) => reasons.push(format!("{}: {why}", name_of(path))),
            Ok(facts) => {
                let bad = facts.safety.1.iter().filter(|(safety, _)| *safety == Safety::Unsafe);
                reasons.extend(bad.map(|(_, why)| format!("{}: {why}", facts.name)));
            }
        }
    }
    judged(("ready", "not ready"), reasons, look.databases.len(), asked)
}

fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// Whoever reaches the port is told whether it is well; the reasons, who may read.
fn judged((well, ill): (&str, &str), mut reasons: Vec<String>, databases: usize, asked: &Asked) -> Answer {
    let (status, word) = match reasons.is_empty() {
        true => (StatusCode::OK, well),
        false => (StatusCode::SERVICE_UNAVAILABLE, ill),
    };
    let count = reasons.len();
    if !asked.is_trusted {
        reasons.clear();
    }
    Answer::json(status, &json!({ "status": word, "databases": databases, "failing": count, "reasons": reasons }))
}

/// How all databases stand.
fn overview(door: &Door, look: &Look) -> Value {
    let databases: Vec<Value> = look
        .databases
        .iter()
        .map(|(path, facts)| match facts {
            Ok(facts) => facts_json(door, facts, look),
            Err(why) => json!({
                "database": path.display().to_string(),
                "safety": { "word": Safety::Unsafe.word(), "reasons": [{ "word": Safety::Unsafe.word(), "text": why }] },
                "error": why,
            }),
        })
        .collect();
    json!({ "at": shown::moment(look.at_ms), "version": env!("CARGO_PKG_VERSION"), "databases": databases })
}

fn at_json(at: Option<(Position, u64)>) -> Option<Value> {
    at.map(|(position, ms)| json!({ "position": position.to_string(), "at": shown::moment(ms) }))
}

fn facts_json(door: &Door, facts: &Facts, look: &Look) -> Value {
    let peek = facts.peek.as_ref();
    let prices = door.settings(Some(&facts.database)).map(|settings| settings.prices.value).unwrap_or_default();
    let tail = facts.row.as_ref().map(|row| &row.tail);
    let remote = facts.remote();
    let local = remote.map(|position| Position { lsn: littoral_types::Lsn(position.lsn.0 + facts.lag()), ..position });
    let store = facts.store.as_ref().and_then(|root| look.stores.get(root)?.as_ref().ok());
    let of_it = |seen: &&littoral_engine::jobs::Seen| seen.job.wish.database == facts.database;
    let page_size = tail.and_then(|tail| tail.figures.page_size).map(|size| size.bytes());
    json!({
        "database": facts.database.display().to_string(),
        "name": facts.name,
        "volume": facts.volume,
        "safety": {
            "word": facts.safety.0.word(),
            "reasons": facts.safety.1.iter().map(|(word, text)| json!({ "word": word.word(), "text": text })).collect::<Vec<_>>(),
        },
        "position_remote": remote.map(|position| position.to_string()),
        "position_local": local.map(|position| position.to_string()),
        "lag_lsn": facts.lag(),
        "lag_seconds": facts.waiting_ms as f64 / 1000.0,
        "written": tail.map(|tail| shown::moment(tail.time_ms)),
        "owner": tail.and_then(|tail| tail.owner.as_ref()).map(|owner| owner.label.clone()),
        "epoch": tail.map(|tail| tail.epoch.0),
        "record": tail.map(|tail| tail.seq.0),
        "fenced_by": peek.and_then(|peek| peek.fenced.as_ref()).map(|(_, owner)| owner),
        "shipped_by": facts.shipped_by,
        "trouble": facts.trouble,
        "checkpoint": at_json(facts.checkpoint),
        "gap_open": peek.and_then(|peek| peek.dropped).map(|(why, since)| json!({ "reason": why.reason().word(), "since": shown::moment(since) })),
        "gap_last": at_json(facts.gap),
        "proof": facts.upkeep.proved.as_ref().map(|proved| json!({
            "at": shown::moment(proved.at_ms), "position": proved.position, "took_ms": proved.took_ms,
        })),
        "verified": facts.upkeep.verify.as_ref().and_then(|verify| verify.whole_ms).map(shown::moment),
        "problems": facts.upkeep.alarms().collect::<Vec<_>>(),
        "bytes": tail.map(|tail| tail.figures.page_count.0 * page_size.unwrap_or(0)),
        "bytes_changed": peek.and_then(|peek| peek.bytes_changed),
        "backlog_bytes": facts.backlog,
        "delta_chain": facts.debt.depth,
        "resident_pages": facts.sparse.map(|sparse| sparse.here),
        "pages": tail.map(|tail| tail.figures.page_count.0),
        "spent": facts.spent.map(|spent| json!({
            "month": spent.month.to_string(), "writes": spent.spent.writes, "reads": spent.spent.reads,
            "bytes_up": spent.spent.bytes_up, "bytes_down": spent.spent.bytes_down,
            "bill": Money(prices.of(spent.spent.writes, spent.spent.reads)).to_string(),
        })),
        "quota": facts.quota.as_ref().map(|quota| json!({ "used": quota.used, "limit": quota.limits.store.or(quota.limits.tenant_limit) })),
        "jobs": store.map(|store| store.jobs.iter().filter(of_it).rev().take(20).map(|seen| json!({
            "id": seen.job.id.0, "what": seen.job.wish.task.to_string(), "interrupted": seen.is_orphaned,
            "state": seen.job.state.word(), "changed": shown::moment(seen.job.changed_ms), "blobs": seen.blobs,
            "error": seen.job.error,
        })).collect::<Vec<_>>()),
        "copies": facts.copies.iter().map(|stand| json!({
            "url": stand.url, "lag_lsn": stand.lag.map(|lag| lag.lsns), "lag_seconds": stand.lag.map(|lag| lag.ms / 1000),
            "failed": stand.copied.as_ref().and_then(|copied| copied.failed.clone()),
        })).collect::<Vec<_>>(),
        "chunks": facts.chunks.iter().map(|chunk| json!([
            u64::from(chunk.has_base), chunk.deltas, chunk.changed, chunk.here.unwrap_or(chunk.pages), chunk.pages,
        ])).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &str) -> &'static Route {
        ALL.iter().find(|route| route.path == path).unwrap()
    }

    #[test]
    fn a_path_is_found_whole_and_by_its_method() {
        let found = |method: Method, path: &str| match find(&method, path) {
            Ok((route, rest)) => (200, route.path, rest),
            Err(answer) => (answer.status.as_u16(), "", None),
        };
        let release = "/admin/checkpoint/lease/release/{chunk_id}";
        for (method, path, is) in [
            (Method::GET, "/metrics", (200, "/metrics", None)),
            (Method::GET, "/metrics/", (404, "", None)),
            (Method::GET, "/Metrics", (404, "", None)),
            (Method::POST, "/metrics", (405, "", None)),
            (Method::GET, "/admin/checkpoint", (405, "", None)),
            (Method::DELETE, "/admin/checkpoint", (405, "", None)),
            (Method::POST, "/admin/checkpoint/lease/release/7", (200, release, Some("7".to_owned()))),
            (Method::POST, "/admin/checkpoint/lease/release/a%6cl", (200, release, Some("all".to_owned()))),
            (Method::POST, "/admin/checkpoint/lease/release/", (404, "", None)),
            (Method::POST, "/admin/checkpoint/lease/release/7/8", (404, "", None)),
            (Method::POST, "/admin/checkpoint/lease/release/%zz", (400, "", None)),
            (Method::POST, "/admin/checkpoint/lease/release/%ff", (400, "", None)),
        ] {
            assert_eq!(found(method.clone(), path), is, "{method} {path}");
        }
    }

    #[test]
    fn what_is_not_understood_whole_is_refused() {
        let log = at("/debug/manifest/change_log");
        for (query, is) in [
            ("limit=5", true),
            ("limit=1000", true),
            ("", true),
            ("limit=5&database=%2Fa%20b.db", true),
            ("database=a+b", true),
            ("limit=0", false),
            ("limit=1001", false),
            ("limit=-1", false),
            ("limit=ten", false),
            ("limit=", false),
            ("limit", false),
            ("limit=5&limit=5", false),
            ("lmit=5", false),
            ("limit=%4", false),
            ("%ff=1", false),
            ("database=%00", false),
            ("database=", false),
        ] {
            let read = Asked::read(log, None, Some(query));
            assert_eq!(read.is_ok(), is, "{query}: {read:?}");
            if let Err(answer) = read {
                assert_eq!(answer.status, StatusCode::BAD_REQUEST);
            }
        }
        let near = Asked::read(log, None, Some("lmit=5")).unwrap_err();
        assert!(near.body.contains("did you mean limit?"), "{}", near.body);
        let asked = Asked::read(log, None, Some("database=a+b%2B&limit=7")).unwrap();
        assert_eq!((asked.text("database"), asked.number("limit")), (Some("a b+"), Some(7)));
        assert!(Asked::read(at("/metrics"), None, Some("x=1")).unwrap_err().body.contains("takes nothing"));
    }

    #[test]
    fn whoever_changes_something_has_the_token_and_posts() {
        for route in ALL {
            assert_eq!(route.path.starts_with("/admin/"), route.who == Who::Administrator, "{route:?}");
            assert_eq!(route.method == "POST", route.who == Who::Administrator, "{route:?}");
        }
    }
}
