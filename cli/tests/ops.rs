//! What is handed to those who watch: alert rules and a dashboard ask for what is really measured, and a runbook's commands work.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod promql;
mod rig;
mod served;

use littoral_test_s3::S3Server;
use littoral_test_s3::network::{Fault, Proxy, Weather};
use promql::Scrape;
use rig::{BINARY, Rig, sql};
use serde_json::Value;
use served::{Served, TOKEN};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

fn serving(rig: &Rig) -> Served {
    Served::start(rig, &["serve", "app.db", "--listen", "127.0.0.1:0"])
}

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A database of which everything is known: copied, verified, proved, within a bound.
fn known() -> Rig {
    let mut rig = Rig::new();
    rig.database("app.db");
    rig.set("LITTORAL_COPY", &rig.url("copy"));
    fs::create_dir(rig.path("copy")).unwrap();
    rig.set("LITTORAL_QUOTA", "500MB");
    rig.set("LITTORAL_ADMIN_TOKEN", TOKEN);
    rig.run(["checkpoint", "app.db"]).succeeds();
    rig.run(["copy", "app.db"]).succeeds();
    rig.run(["verify", "app.db"]).succeeds();
    rig.run(["drill", "app.db"]).succeeds();
    // A tracker, as whoever has it open through us leaves it.
    rig.run(["shell", "app.db", "UPDATE t SET body = 'x' WHERE id = 1"]).succeeds();
    rig
}

/// Each series' metric and its labels.
fn measured(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap());
        let labels = all.entry(name.to_owned()).or_default();
        let inner = rest.strip_prefix('{').and_then(|rest| rest.rsplit_once('}')).map_or("", |(inner, _)| inner);
        labels.extend(inner.split("\",").filter_map(|pair| Some(pair.split_once('=')?.0.to_owned())));
    }
    all.insert("up".to_owned(), BTreeSet::from(["job".to_owned(), "instance".to_owned()]));
    all
}

/// The metrics of a query, and the labels that are asked of each; labels that results are grouped by are asked of all.
fn asked(query: &str) -> Vec<(String, BTreeSet<String>)> {
    let letters: Vec<char> = query.chars().collect();
    let (mut found, mut grouped): (Vec<(String, BTreeSet<String>)>, BTreeSet<String>) = (Vec::new(), BTreeSet::new());
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let mut at = 0;
    while at < letters.len() {
        let letter = letters[at];
        if letter == '[' {
            at += letters[at..].iter().position(|letter| *letter == ']').unwrap();
        } else if letter == '{' {
            let end = at + letters[at..].iter().position(|letter| *letter == '}').unwrap();
            let inner: String = letters[at + 1..end].iter().collect();
            let labels = inner.split(',').map(|one| one.split(['=', '!']).next().unwrap().trim().to_owned());
            found.last_mut().unwrap_or_else(|| panic!("{query}")).1.extend(labels);
            at = end;
        } else if letter.is_ascii_alphabetic() || letter == '_' {
            let end = at + letters[at..].iter().position(|letter| !is_word(*letter)).unwrap_or(letters.len() - at);
            let word: String = letters[at..end].iter().collect();
            let next = letters[end..].iter().find(|letter| **letter != ' ').copied();
            match (word.as_str(), next) {
                ("by" | "on", Some('(')) => {
                    let open = end + letters[end..].iter().position(|letter| *letter == '(').unwrap();
                    let close = open + letters[open..].iter().position(|letter| *letter == ')').unwrap();
                    let inner: String = letters[open + 1..close].iter().collect();
                    grouped.extend(inner.split(',').map(|label| label.trim().to_owned()));
                    at = close;
                }
                (_, Some('(')) | ("and" | "or" | "unless", _) => at = end - 1,
                // sum by (label) (query): what stands before `by` is a function, too.
                _ if letters[end..].iter().collect::<String>().trim_start().starts_with("by (") => at = end - 1,
                _ => {
                    found.push((word, BTreeSet::new()));
                    at = end - 1;
                }
            }
        } else if letter.is_ascii_digit() {
            at += letters[at..]
                .iter()
                .position(|letter| !is_word(*letter) && *letter != '.')
                .unwrap_or(letters.len() - at)
                - 1;
        }
        at += 1;
    }
    found.iter_mut().for_each(|(_, labels)| labels.extend(grouped.iter().cloned()));
    found
}

fn exprs(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| match value.as_str().filter(|_| name == "expr") {
                Some(expr) => into.push(expr.to_owned()),
                None => exprs(value, into),
            })
        }
        Value::Array(values) => values.iter().for_each(|value| exprs(value, into)),
        _ => {}
    }
}

/// The rules: name, query, page.
fn alerts() -> Vec<(String, String, String)> {
    let text = fs::read_to_string(top().join("ops/alerts.yml")).unwrap();
    let after =
        |line: &str, key: &str| Some(line.trim().strip_prefix(key)?.trim().trim_matches('\'').replace("''", "'"));
    let mut all: Vec<(String, String, String)> = Vec::new();
    for line in text.lines() {
        if let Some(name) = after(line, "- alert:") {
            all.push((name, String::new(), String::new()));
        } else if let (Some(expr), Some(last)) = (after(line, "expr:"), all.last_mut()) {
            last.1 = expr;
        } else if let (Some(page), Some(last)) = (after(line, "runbook:"), all.last_mut()) {
            last.2 = page;
        }
    }
    all
}

#[test]
fn every_query_of_the_alerts_and_of_the_dashboard_names_series_that_are_measured() {
    let rig = known();
    let served = serving(&rig);
    let text = served.get("/metrics").is(200).body;
    let measured = measured(&text);
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(top().join("ops/grafana.json")).unwrap()).unwrap();
    let mut queries = Vec::new();
    exprs(&dashboard, &mut queries);
    let alerts = alerts();
    assert!(queries.len() > 20 && alerts.len() > 15);
    queries.extend(alerts.iter().map(|(_, query, _)| query.clone()));
    for query in &queries {
        let asked = asked(query);
        assert!(!asked.is_empty(), "{query}");
        for (name, labels) in asked {
            let Some(known) = measured.get(&name) else { panic!("{query}: there is no series {name}") };
            for label in labels {
                assert!(known.contains(&label), "{query}: {name} has no label {label}, but {known:?}");
            }
        }
    }
    // What the test itself would let pass.
    let wrong = asked(r#"sum by (shop, le) (rate(a_total{x="1",y!~"2"}[5m])) / 3e5 > on (store) b"#);
    let labels = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let both = labels(&["shop", "le", "store"]);
    let first: BTreeSet<String> = both.union(&labels(&["x", "y"])).cloned().collect();
    assert_eq!(wrong, [("a_total".to_owned(), first), ("b".to_owned(), both)]);
}

#[test]
fn every_alert_has_a_page_that_names_it_and_every_page_is_on_the_list() {
    let folder = top().join("docs/runbooks");
    let list = fs::read_to_string(folder.join("README.md")).unwrap();
    for (name, query, page) in alerts() {
        let text = fs::read_to_string(top().join(&page)).unwrap_or_else(|error| panic!("{name}: {page}: {error}"));
        assert!(text.contains(&format!("`{name}`")) && list.contains(&format!("`{name}`")), "{name} is not on {page}");
        assert!(!query.is_empty());
    }
    for entry in fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name == "README.md" || list.contains(&format!("({name})")), "{name} is not on the list");
    }
    for foreseen in
        ["stuck-checkpoint", "quota-exhausted", "truncation-blocked", "s3-upload-failures", "manifest-corruption"]
    {
        assert!(folder.join(format!("{foreseen}.md")).exists(), "{foreseen}");
    }
}

/// Whether what was printed is what a page says: `...` stands for any lines, `…` for any letters.
fn prints(said: &[String], printed: &str) -> bool {
    let lines: Vec<&str> = printed.lines().collect();
    fn matches(said: &[String], lines: &[&str]) -> bool {
        match said.split_first() {
            None => lines.is_empty(),
            Some((first, rest)) if first == "..." => (0..=lines.len()).any(|skipped| matches(rest, &lines[skipped..])),
            Some((first, rest)) => {
                lines.split_first().is_some_and(|(line, lines)| like(first, line) && matches(rest, lines))
            }
        }
    }
    matches(said, &lines)
}

fn like(said: &str, line: &str) -> bool {
    let mut rest = line;
    let mut parts = said.split('…').peekable();
    let mut is_first = true;
    while let Some(part) = parts.next() {
        let is_last = parts.peek().is_none();
        match (is_first, is_last) {
            (true, true) => return rest == part,
            (true, false) => match rest.strip_prefix(part) {
                Some(left) => rest = left,
                None => return false,
            },
            (false, true) => return rest.ends_with(part),
            (false, false) => match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            },
        }
        is_first = false;
    }
    false
}

#[test]
fn the_commands_of_every_runbook_work_and_print_what_it_says() {
    let rig = known();
    let mut ran = 0;
    let mut pages: Vec<PathBuf> =
        fs::read_dir(top().join("docs/runbooks")).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.sort();
    for page in pages {
        // Something is there to be shipped, folded and shown.
        sql(&rig.path("app.db"), "UPDATE t SET body = hex(randomblob(20)) WHERE id % 100 = 1");
        let _ = fs::remove_dir_all(rig.path("manifest.backup"));
        let served = serving(&rig);
        let text = fs::read_to_string(&page).unwrap();
        let mut blocks = text.split("```console\n").skip(1).map(|block| block.split("```").next().unwrap());
        for block in blocks.by_ref() {
            let mut commands: Vec<(String, Vec<String>)> = Vec::new();
            for line in block.lines() {
                match line.strip_prefix("$ ") {
                    Some(command) => commands.push((command.to_owned(), Vec::new())),
                    None => commands.last_mut().unwrap().1.push(line.to_owned()),
                }
            }
            for (command, said) in commands {
                ran += 1;
                let at = || format!("{}: $ {command}", page.file_name().unwrap().display());
                let printed = if let Some(arguments) = command.strip_prefix("curl -s ") {
                    let is_post = arguments.contains("-X POST");
                    let path = arguments.split("127.0.0.1:9464").nth(1).unwrap().trim_end_matches('"');
                    let answer = if is_post { served.post(path) } else { served.get(path) };
                    assert_eq!(answer.status, 200, "{}: {}", at(), answer.body);
                    answer.body
                } else if let Some(arguments) = command.strip_prefix("littoral ") {
                    let run = rig.run(arguments.split(' '));
                    assert_eq!(run.code, Some(0), "{}: {run:?}", at());
                    run.stdout
                } else {
                    let output = rig.command("sh").args(["-c", &command]).output().unwrap();
                    // Whether a process of that name is there is what `ps` tells by its code.
                    assert!(output.status.success() || command.starts_with("ps "), "{}: {output:?}", at());
                    if command.starts_with("ps ") { String::new() } else { String::from_utf8(output.stdout).unwrap() }
                };
                assert!(
                    prints(&said, &printed) || (said.is_empty() && printed.lines().count() <= 1),
                    "{}: says {said:#?} and prints {printed}",
                    at()
                );
            }
        }
    }
    assert!(ran > 40, "only {ran} commands were tried");
}

#[test]
fn the_page_is_one_file_and_fetches_nothing_from_elsewhere() {
    let rig = known();
    let served = serving(&rig);
    let page = served.get("/").is(200).body;
    assert!(page.starts_with("<!doctype html>") && page.contains("Am I safe?"));
    for outside in ["http://", "https://", "src=", "@import", "url(", "//cdn"] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.len() < 20_000, "{} bytes", page.len());
    // What its script reads is what is answered.
    let overview = served.get("/overview").json();
    let database = &overview["databases"][0];
    let script = page.split("<script>").nth(1).unwrap();
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    for field in script.split("d.").skip(1).map(|rest| rest.split(|letter| !is_word(letter)).next().unwrap()) {
        if field.contains('_') {
            assert!(
                !database[field].is_null() || database.as_object().unwrap().contains_key(field),
                "the page reads {field}"
            );
        }
    }
    assert!(
        !database["proof"].is_null()
            && !database["verified"].is_null()
            && database["chunks"].as_array().is_some_and(|chunks| chunks.len() == 1),
        "{database:#}"
    );
}

/// What was scraped before a cause, and after it.
struct Watched {
    before: Scrape,
    after: Scrape,
}

impl Watched {
    fn fires(&self, name: &str) -> bool {
        let (_, query, _) = alerts().into_iter().find(|(alert, ..)| alert == name).unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        promql::holds(&query, &self.before, &self.after, now.as_secs_f64())
    }
}

/// The metrics as they are now.
fn scrape(served: &Served) -> Scrape {
    // Whoever asks within half a second is told the same.
    std::thread::sleep(Duration::from_millis(600));
    Scrape::of(&served.get("/metrics").body).and_up(true)
}

/// Alerts are quiet, are caused, fire, are cleared, and are quiet again; a rule's window is from one of these moments to the next.
#[track_caller]
fn caused(served: &Served, names: &[&str], cause: impl FnOnce(), clear: impl FnOnce()) {
    let quiet = scrape(served);
    for name in names {
        assert!(!(Watched { before: quiet.clone(), after: quiet.clone() }).fires(name), "{name} before it is caused");
    }
    cause();
    let loud = scrape(served);
    let watched = Watched { before: quiet, after: loud.clone() };
    for name in names {
        assert!(watched.fires(name), "{name} does not fire: {:#?}", watched.after);
    }
    clear();
    let watched = Watched { before: loud, after: scrape(served) };
    for name in names {
        assert!(!watched.fires(name), "{name} is not cleared: {:#?}", watched.after);
    }
}

/// Runs littoral as if it were as long ago as `faketime` says.
#[track_caller]
fn then(rig: &Rig, ago: &str, arguments: &[&str]) {
    let prefix = ["env", "FAKETIME_DONT_FAKE_MONOTONIC=1", "faketime", "-f", ago];
    rig.run_below(&prefix, arguments).succeeds();
}

#[test]
fn alerts_fire_where_their_condition_is_caused_and_what_their_runbooks_say_clears_them() {
    let mut rig = Rig::new();
    rig.database("app.db");
    rig.set("LITTORAL_ADMIN_TOKEN", TOKEN);
    rig.set("LITTORAL_REMOTE", &rig.url("remote"));
    rig.set("LITTORAL_VOLUME", "app.db");
    fs::create_dir(rig.path("remote")).unwrap();
    let served = serving(&rig);
    let fires = |name: &str| Watched { before: Scrape::default(), after: scrape(&served) }.fires(name);
    let caused = |name: &str, cause: &dyn Fn(), clear: &dyn Fn()| caused(&served, &[name], cause, clear);
    assert!(fires("LittoralUnsafe"), "nothing was ever published");
    let checkpoint = || {
        rig.run(["checkpoint", "app.db"]).succeeds();
    };
    checkpoint();
    assert!(!fires("LittoralUnsafe"));
    let commit = || {
        rig.run(["shell", "app.db", "UPDATE t SET body = hex(randomblob(30)) WHERE id % 9 = 1"]).succeeds();
    };
    caused("LittoralNobodyShips", &commit, &checkpoint);
    let crash = || {
        commit();
        assert!(rig.crash("checkpoint.staged", ["checkpoint", "app.db"]));
    };
    caused("LittoralStuckLease", &crash, &checkpoint);
    // A blob that is not what it was.
    let is_blob = |path: &Path| {
        let text = path.to_str().unwrap();
        text.contains("/remote/") && (text.contains("/pack/") || text.contains("/chunk/")) && path.is_file()
    };
    let blobs: Vec<PathBuf> = rig.tree().into_iter().map(|(path, _)| path).filter(|path| is_blob(path)).collect();
    let (blob, whole) = (&blobs[0], fs::read(&blobs[0]).unwrap());
    let damage = || {
        let mut bytes = whole.clone();
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        fs::write(blob, bytes).unwrap();
        assert_eq!(rig.run(["verify", "app.db"]).code, Some(4));
    };
    let mend = || {
        fs::write(blob, &whole).unwrap();
        rig.run(["verify", "app.db"]).succeeds();
    };
    caused("LittoralNotSound", &damage, &mend);
    // Another machine takes over, and this one takes it back.
    let status = rig.json(["status", "app.db"]);
    let epoch = status["epoch"].as_u64().unwrap();
    let overtake = || {
        fs::create_dir_all(rig.path("elsewhere")).unwrap();
        fs::copy(rig.path("app.db"), rig.path("elsewhere/app.db")).unwrap();
        rig.run(["checkpoint", "elsewhere/app.db", "--takeover", &epoch.to_string()]).succeeds();
        // This one learns of it when it has something to publish.
        commit();
        assert_eq!(rig.run(["checkpoint", "app.db"]).code, Some(3));
    };
    let back = || {
        rig.run(["checkpoint", "app.db", "--takeover", &(epoch + 1).to_string()]).succeeds();
    };
    caused("LittoralFenced", &overtake, &back);
    // A switch that keeps checkpoints from being made is thrown and taken back, as the page on damage says.
    served.post("/admin/flags?enable_checkpoints=false").is(200);
    served.post("/admin/checkpoint").is(409);
    served.post("/admin/flags?enable_checkpoints=default").is(200);
    served.post("/admin/checkpoint").is(200);
}

/// A database in a bucket behind a network.
struct Far {
    rig: Rig,
    network: Proxy,
    _runtime: tokio::runtime::Runtime,
}

impl Far {
    fn new() -> Self {
        let server = S3Server::shared();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let network = runtime.block_on(Proxy::start(server.authority(), Duration::ZERO, None));
        let far =
            |(name, value)| if name == "AWS_ENDPOINT_URL_S3" { (name, network.endpoint()) } else { (name, value) };
        let mut rig = Rig::with(server.env().into_iter().map(far));
        rig.set("LITTORAL_REMOTE", &format!("s3://{}/ops", server.bucket()));
        rig.set("LITTORAL_VOLUME", "app.db");
        Self { rig, network, _runtime: runtime }
    }
}

#[test]
fn alerts_of_an_object_store_fire_where_it_throttles_or_refuses_and_are_cleared_when_it_does_not() {
    let Far { rig, network, _runtime } = Far::new();
    rig.database("app.db");
    rig.run(["checkpoint", "app.db"]).succeeds();
    let served = serving(&rig);
    let checkpoint = |rig: &Rig| {
        rig.run(["shell", "app.db", "UPDATE t SET body = hex(randomblob(30)) WHERE id % 9 = 1"]).succeeds();
        rig.run(["checkpoint", "app.db"])
    };
    let throttles = || {
        network.weather(Weather::calm().with(Fault::SlowDown, 400));
        for _ in 0..3 {
            checkpoint(&rig);
        }
    };
    let calm = || {
        network.weather(Weather::calm());
        checkpoint(&rig).succeeds();
    };
    caused(&served, &["LittoralThrottled"], throttles, calm);
    let refuses = || {
        network.weather(Weather::calm().with(Fault::Denied, 1000));
        assert_ne!(checkpoint(&rig).code, Some(0));
    };
    caused(&served, &["LittoralRequestsFail"], refuses, calm);
}

#[test]
fn alerts_of_a_store_fire_where_it_has_no_room_or_its_work_is_left_undone_and_are_cleared_as_their_pages_say() {
    let mut rig = Rig::new();
    rig.database("app.db");
    rig.set("LITTORAL_REMOTE", &rig.url("remote"));
    rig.set("LITTORAL_COPY", &rig.url("copy"));
    fs::create_dir(rig.path("copy")).unwrap();
    fs::create_dir(rig.path("remote")).unwrap();
    // Times in a history never go back: what is long ago comes first.
    then(&rig, "-3h", &["checkpoint", "app.db"]);
    let copied = || {
        rig.run(["copy", "app.db"]).succeeds();
    };
    copied();
    rig.run(["drill", "app.db"]).succeeds();
    let served = serving(&rig);
    let update = ["shell", "app.db", "UPDATE t SET body = hex(randomblob(60)) WHERE id % 3 = 1"];
    let checkpoint = || {
        rig.run(["checkpoint", "app.db"]).succeeds();
    };
    let long_ago = || {
        rig.run(update).succeeds();
        then(&rig, "-2h", &["checkpoint", "app.db"]);
    };
    caused(&served, &["LittoralCopyBehind"], long_ago, copied);
    let no_room = || {
        rig.run(update).succeeds();
        rig.run(["checkpoint", "app.db", "--quota", "1kB"]).fails(1, &["quota"]);
    };
    let room = || {
        rig.run(["checkpoint", "app.db", "--quota", "1GB"]).succeeds();
    };
    caused(&served, &["LittoralQuotaExhausted", "LittoralCheckpointsFail"], no_room, room);
    // What was committed long ago and went nowhere.
    caused(&served, &["LittoralLag"], || then(&rig, "-3m", &update), checkpoint);
    let proves = || {
        rig.run(["drill", "app.db"]).succeeds();
    };
    caused(&served, &["LittoralProofOld"], || then(&rig, "-20d", &["drill", "app.db"]), proves);
    // Work that nobody does: of many databases that were killed at it.
    let many: Vec<String> = (0..21).map(|nth| format!("db{nth}.db")).collect();
    let killed = || {
        for name in &many {
            rig.database(name);
            assert!(rig.crash("checkpoint.staged", ["checkpoint", name]));
        }
    };
    let done = || {
        for name in &many {
            rig.run(["jobs", "run", name]).succeeds();
        }
    };
    caused(&served, &["LittoralQueueDeep", "LittoralStuckLease"], killed, done);
    // A job that is given up, and asked for again.
    let is_blob = |path: &Path| {
        let text = path.to_str().unwrap();
        text.contains("/remote/app.db") && (text.contains("/pack/") || text.contains("/chunk/")) && path.is_file()
    };
    let (blob, whole) = rig.tree().into_iter().find(|(path, _)| is_blob(path)).unwrap();
    let given_up = || {
        let mut hurt = whole.clone();
        let at = hurt.len() / 2;
        hurt[at] ^= 1;
        fs::write(&blob, hurt).unwrap();
        assert_eq!(rig.run(["verify", "app.db", "--no-restore"]).code, Some(4));
    };
    let again = || {
        fs::write(&blob, &whole).unwrap();
        let jobs = rig.json(["jobs", "list", "app.db"]);
        let dead = jobs["jobs"].as_array().unwrap().iter().find(|job| job["state"] == "dead").unwrap();
        rig.run(["jobs", "retry", "app.db", &dead["id"].to_string()]).succeeds();
        rig.run(["jobs", "run", "app.db"]).succeeds();
    };
    caused(&served, &["LittoralJobsDead", "LittoralNotSound"], given_up, again);
    // Settings that nobody can read.
    let settings = rig.path("littoral.toml");
    let unreadable = || fs::write(&settings, "remote = [").unwrap();
    caused(&served, &["LittoralUnreadable"], unreadable, || fs::remove_file(&settings).unwrap());
    // Whoever answered is gone.
    let up = Scrape::default().and_up(true);
    let address = served.address;
    drop(served);
    assert!(TcpStream::connect(address).is_err());
    let down = Watched { before: up.clone(), after: Scrape::default().and_up(false) };
    assert!(down.fires("LittoralNotAnswered"));
    let served = serving(&rig);
    assert!(!Watched { before: up, after: scrape(&served) }.fires("LittoralNotAnswered"));
}

#[test]
fn the_alert_of_a_gap_fires_while_it_is_open() {
    let mut rig = Rig::new();
    rig.set("LITTORAL_SYNC_INTERVAL", "100ms");
    rig.database("app.db");
    rig.set("LITTORAL_REMOTE", &rig.url("remote"));
    fs::create_dir(rig.path("remote")).unwrap();
    rig.run(["checkpoint", "app.db"]).succeeds();
    let served = serving(&rig);
    let opens = || {
        fs::rename(rig.path("remote"), rig.path("away")).unwrap();
        fs::write(rig.path("remote"), b"no folder").unwrap();
        let mut sql = "PRAGMA wal_autocheckpoint = 60;".to_owned();
        // More than copies may take: half of the quota.
        sql.extend(
            (0..120).map(|nth| format!("INSERT INTO t(id, body) VALUES ({}, randomblob(100000));", 100_000 + nth)),
        );
        let mut shell = rig.command(BINARY);
        shell.env("LITTORAL_QUOTA", "8M").args(["shell", "app.db", &sql]);
        let done = shell.output().unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    let closes = || {
        fs::remove_file(rig.path("remote")).unwrap();
        fs::rename(rig.path("away"), rig.path("remote")).unwrap();
        rig.run(["checkpoint", "app.db"]).succeeds();
    };
    caused(&served, &["LittoralGapOpen"], opens, closes);
}

#[test]
fn the_alert_of_slow_checkpoints_fires_where_one_is_stopped_in_its_middle() {
    let mut rig = Rig::new();
    rig.database("app.db");
    rig.set("LITTORAL_REMOTE", &rig.url("remote"));
    fs::create_dir(rig.path("remote")).unwrap();
    rig.run(["checkpoint", "app.db"]).succeeds();
    let served = serving(&rig);
    let update = || rig.run(["shell", "app.db", "UPDATE t SET body = hex(randomblob(60))"]).succeeds().stdout.len();
    let stopped = || {
        update();
        let mut command = rig.command(BINARY);
        command.args(["--log-format", "json", "--quiet", "checkpoint", "app.db"]).stderr(Stdio::piped());
        let mut process = command.stdout(Stdio::null()).spawn().unwrap();
        let mut events = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        events.find(|line| line.contains("checkpoint.started")).expect("it never began");
        let pid = rustix::process::Pid::from_child(&process);
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        assert!(process.try_wait().unwrap().is_none(), "it had ended");
        std::thread::sleep(Duration::from_secs(121));
        rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
        events.for_each(drop);
        assert!(process.wait().unwrap().success());
    };
    let fast = || {
        update();
        rig.run(["checkpoint", "app.db"]).succeeds();
    };
    caused(&served, &["LittoralCheckpointsSlow"], stopped, fast);
}

#[test]
fn the_alert_of_slow_pages_fires_where_a_machine_only_reads_and_is_cleared_as_its_page_says() {
    let Far { rig, network, _runtime } = Far::new();
    rig.database("app.db");
    rig.run(["checkpoint", "app.db"]).succeeds();
    fs::create_dir(rig.path("reader")).unwrap();
    let read = |row: u32| {
        let sql = format!("SELECT id FROM t WHERE id = {row} AND length(body) > 100");
        let told = rig.run(["shell", "reader/app.db", &sql]).succeeds().stdout.clone();
        assert!(told.contains(&row.to_string()), "{told}");
    };
    read(1);
    let served = Served::start(&rig, &["serve", "reader/app.db", "--listen", "127.0.0.1:0"]);
    let fires = |name: &str| Watched { before: Scrape::default(), after: scrape(&served) }.fires(name);
    // All that it has comes from the object store.
    assert!(!fires("LittoralUnsafe"), "{}", served.get("/overview").body);
    let slow = || {
        network.far(Duration::from_millis(1_200), None);
        read(5000);
    };
    let near = || {
        network.far(Duration::ZERO, None);
        read(2500);
        rig.run(["hydrate", "reader/app.db"]).succeeds();
    };
    caused(&served, &["LittoralPagesSlow"], slow, near);
    assert!(!rig.path("reader/.littoral/store.toml").exists(), "who reads needs no store");
    assert_eq!(rig.json(["open", "reader/app.db"])["sparse"], false);
}

#[test]
fn the_alert_of_a_manifest_that_cannot_be_written_fires_where_its_file_may_not_grow_and_is_cleared_by_room() {
    let mut rig = Rig::new();
    rig.database("app.db");
    rig.set("LITTORAL_REMOTE", &rig.url("remote"));
    fs::create_dir(rig.path("remote")).unwrap();
    rig.run(["checkpoint", "app.db"]).succeeds();
    let served = serving(&rig);
    let manifest = rig.path(".littoral/manifest/data.mdb");
    let full = || {
        let mut failed = 0;
        for nth in 0..400 {
            let update = format!("UPDATE t SET body = hex(randomblob(60)) WHERE id = {}", 1 + nth);
            rig.run(["shell", "app.db", &update]).succeeds();
            // No file may become longer than the manifest's is: what else is written is shorter.
            let kilobytes = fs::metadata(&manifest).unwrap().len() / 1024;
            let script = format!("trap '' XFSZ; ulimit -f {kilobytes}; exec \"$0\" \"$@\"");
            let run = rig.run_below(&["bash", "-c", &script], ["checkpoint", "app.db"]);
            if run.code != Some(0) {
                run.fails(1, &["no room for the local manifest"]);
                failed += 1;
            }
            if failed == 2 {
                return;
            }
        }
        panic!("only {failed} writes failed of a manifest of {} bytes", fs::metadata(&manifest).unwrap().len());
    };
    let room = || {
        rig.run(["checkpoint", "app.db"]).succeeds();
        rig.run(["verify", "app.db"]).succeeds();
        rig.run(["drill", "app.db"]).succeeds();
    };
    caused(&served, &["LittoralManifestWriteErrors", "LittoralCheckpointsFail"], full, room);
    rig.run(["restore", "app.db", "back.db"]).succeeds();
    let all = "SELECT count(*), group_concat(body) FROM (SELECT body FROM t ORDER BY id)";
    assert_eq!(sql(&rig.path("back.db"), all), sql(&rig.path("app.db"), all));
}

#[test]
fn every_alert_is_caused_in_a_test() {
    let text = fs::read_to_string(top().join("cli/tests/ops.rs")).unwrap();
    let is_caused = |name: &String| text.contains(&format!("\"{name}\""));
    let uncaused: Vec<String> = alerts().into_iter().map(|(name, ..)| name).filter(|name| !is_caused(name)).collect();
    assert!(alerts().len() > 15 && uncaused.is_empty(), "{uncaused:?}");
}

#[test]
fn the_page_of_metrics_is_what_the_code_says() {
    let (page, path) = (littoral_cli::serve::metrics::page(), top().join("docs/metrics.md"));
    // `LITTORAL_TEST_WRITE=1` writes it.
    if std::env::var_os("LITTORAL_TEST_WRITE").is_some() {
        fs::write(&path, &page).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == page,
        "docs/metrics.md is not what the code says: LITTORAL_TEST_WRITE=1 writes it"
    );
}
