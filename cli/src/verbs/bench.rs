//! `littoral bench URL|FILE`: how fast an object store is, whether it fences, what a month costs, and which settings fit.

use super::shown::Meter;
use crate::door::{Door, Target};
use crate::exit::{Exit, Fault};
use crate::screen::Told;
use crate::words;
use littoral_engine::exec::measure::{
    Ended, FOLDER, Left, Measured, Order, RACES, RANGE_BYTES, SMALL_BYTES, clean, measure,
};
use littoral_engine::measure::{Advice, Figures, RACERS, Rung, Times, advise, pays};
use littoral_engine::open;
use littoral_engine::settings::{self, Key, Money, Origin, Prices, Setting, Settings};
use littoral_ports::Remote as _;
use littoral_types::limits::TRANSFERS_IN_FLIGHT;
use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What can be said to it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The object store, as remote= has it, or a database whose object store it is
    #[arg(value_name = "URL|FILE")]
    target: OsString,
    /// For how long it is measured; deleting what that took comes on top
    #[arg(long, value_name = "NUMBER", default_value = "20", value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// How much goes up and down, about
    #[arg(long, value_name = "SIZE", default_value = "256MB", value_parser = bytes_of)]
    bytes: u64,
    /// Only delete what runs have left that were killed, and what those have written that go on elsewhere
    #[arg(long, conflicts_with_all = ["seconds", "bytes"])]
    clean: bool,
}

/// Less shows nothing.
const BYTES_MIN: u64 = 16_000_000;
/// What a month has, thirty days.
const MONTH_MS: u64 = 30 * 86_400_000;
/// Intervals whose cost is shown beside the one that is set.
const SHOWN_MS: [u64; 3] = [1_000, 10_000, 60_000];

fn bytes_of(text: &str) -> Result<u64, String> {
    match settings::size(text) {
        Some(bytes) if bytes >= BYTES_MIN => Ok(bytes),
        _ => Err("write a size such as 256MB, of 16MB at least".to_owned()),
    }
}

/// Does it.
pub async fn run(args: Args, door: &Door) -> anyhow::Result<Told> {
    let (remote, settings) = match Target::read(&args.target) {
        Target::Url(url) => {
            let settings = door.settings(None)?;
            door.refuse_said_twice(&settings)?;
            (Setting { value: url, origin: Origin::Argument }, settings)
        }
        Target::File(_) => {
            let (place, settings) = door.place(&args.target, None)?;
            (place.remote, settings)
        }
    };
    let components = door.components(&settings)?;
    let remote = open::store_at(&remote, &settings, &components)?;
    let (url, meter) = (remote.url(), Meter::new(remote.clone()));
    if args.clean {
        let (deleted, left) = clean(&*remote, &components).await?;
        return Ok(cleaned(&url, deleted, left.as_ref()));
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        // The second one ends it at once: then `--clean` deletes what was written.
        flag::register_conditional_default(signal, stop.clone())?;
        flag::register(signal, stop.clone())?;
    }
    let order = Order { seconds: args.seconds, bytes: args.bytes, stop: &stop };
    let Ended { measured, swept, deleted, left } = measure(&*remote, &order, &components).await?;
    if swept > 0 {
        door.screen.warn(&format!("{} of an earlier run, which was killed, were deleted", words::some(swept, "object")));
    }
    if let Some(left) = &left {
        door.screen.warn(&left_text(&url, left));
    }
    let Some(measured) = measured? else {
        let what = if left.is_some() { "what could be deleted of it is" } else { "all that was written is deleted" };
        let message = format!("{url}: stopped by a signal before everything was measured; {what}");
        return Err(Fault { exit: Exit::Failed, message, way_out: None }.into());
    };
    let month = Month::of(&url, &settings);
    let figures = Figures {
        commit: &measured.commit,
        get: &measured.get,
        up: &measured.up,
        may_delete: left.is_none(),
        is_free: month.is_free(),
    };
    let advice: Vec<Suggested> = advise(&figures).into_iter().map(|advice| suggested(advice, &month)).collect();
    let cost = meter.all();
    let json = json!({
        "verb": "bench",
        "remote": url,
        "conditional_put": { "honoured": true, "races": RACES, "writers": RACERS },
        "latency": latency_json(&measured),
        "throughput": {
            "object_bytes": measured.object_bytes,
            "up": rungs_json(&measured.up),
            "up_pays": pays(&measured.up).map(|rung| rung.width),
            "down": rungs_json(&measured.down),
            "down_pays": pays(&measured.down).map(|rung| rung.width),
            "littoral_width": TRANSFERS_IN_FLIGHT,
        },
        "month": month.json(),
        "advice": advice.iter().map(|one| json!({ "setting": one.key.name(), "value": one.value, "why": one.why })).collect::<Vec<_>>(),
        "swept": swept,
        "deleted": deleted,
        "left": left.as_ref().map(left_json),
        "cost": words::cost_json(&cost),
    });
    let mut text = format!(
        "{url}\n\nconditional PUT is honoured: of {RACERS} writers of one name one won, {RACES} times, and later ones were refused\n\n"
    );
    text.push_str(&latency_text(&measured));
    text.push('\n');
    text.push_str(&throughput_text(&measured));
    text.push('\n');
    text.push_str(&month.text());
    text.push_str("\nsuggested\n");
    for Suggested { key, value, why } in &advice {
        text.push_str(&format!("  {:<24}{why}\n", format!("{}={value}", key.name())));
    }
    text.push_str(&format!("\n  {}\n", words::cost(&cost)));
    if left.is_none() {
        text.push_str(&format!("  all {} that were written are deleted\n", words::some(deleted, "object")));
    }
    Ok(Told::done(json, text))
}

fn cleaned(url: &str, deleted: u64, left: Option<&Left>) -> Told {
    let json = json!({ "verb": "bench", "remote": url, "deleted": deleted, "left": left.map(left_json) });
    let mut text = format!("{url}: {} deleted\n", words::some(deleted, "object"));
    if let Some(left) = left {
        text.push_str(&format!("{}\n", left_text(url, left)));
    }
    Told { json, text, exit: if left.is_some() { Exit::Failed } else { Exit::Done } }
}

fn left_json(left: &Left) -> Value {
    json!({ "folder": FOLDER, "objects": left.objects, "bytes": left.bytes, "why": left.why })
}

fn left_text(url: &str, left: &Left) -> String {
    let what = match left.objects {
        Some(objects) => format!("{} ({})", words::some(objects, "object"), words::bytes(left.bytes)),
        None => "what was written".to_owned(),
    };
    format!("{what} could not be deleted and lies in {url}/{FOLDER}: {}. littoral bench {url} --clean deletes it, with credentials that may", left.why)
}

fn milliseconds(us: u64) -> String {
    let ms = us as f64 / 1000.0;
    if us < 10_000 { format!("{ms:.2} ms") } else { format!("{ms:.0} ms") }
}

/// The kinds of requests, as machines and people know them.
fn kinds(measured: &Measured) -> [(&'static str, String, &Times); 5] {
    let small = words::bytes(SMALL_BYTES as u64);
    [
        ("conditional_put", format!("PUT if absent, {small}"), &measured.commit),
        ("put", format!("PUT, {small}"), &measured.put),
        ("get", format!("GET, {small}"), &measured.get),
        ("get_range", format!("GET of a range, {}", words::bytes(RANGE_BYTES)), &measured.get_range),
        ("list", format!("LIST, {}", words::some(measured.list.1 as u64, "object")), &measured.list.0),
    ]
}

fn latency_json(measured: &Measured) -> Value {
    let one = |times: &Times| {
        let ms = |in_a_hundred| times.at(in_a_hundred) as f64 / 1000.0;
        json!({ "p50_ms": ms(50), "p99_ms": ms(99), "requests": times.count() })
    };
    kinds(measured).into_iter().map(|(word, _, times)| (word.to_owned(), one(times))).collect::<serde_json::Map<_, _>>().into()
}

fn latency_text(measured: &Measured) -> String {
    let row = |(_, what, times): (_, String, &Times)| {
        vec![what, milliseconds(times.at(50)), milliseconds(times.at(99)), words::count(times.count() as u64)]
    };
    words::table(&["one after the other", "median", "p99", "requests"], &kinds(measured).map(row))
}

fn rungs_json(rungs: &[Rung]) -> Value {
    rungs.iter().map(|rung| json!({ "width": rung.width, "bytes_per_s": rung.bytes_per_second(), "bytes": rung.bytes })).collect()
}

fn throughput_text(measured: &Measured) -> String {
    let (up, down) = (&measured.up, &measured.down);
    let rate = |rungs: &[Rung], nth: usize| match rungs.get(nth) {
        Some(rung) => format!("{}/s", words::bytes(rung.bytes_per_second())),
        None => String::new(),
    };
    let longest = if up.len() > down.len() { up } else { down };
    let row = |(nth, rung): (usize, &Rung)| vec![rung.width.to_string(), rate(up, nth), rate(down, nth)];
    let rows: Vec<Vec<String>> = longest.iter().enumerate().map(row).collect();
    let up_header = format!("PUT, {}", words::bytes(measured.object_bytes));
    let mut text = words::table(&["at once", &up_header, "GET"], &rows);
    if let (Some(up), Some(down)) = (pays(up), pays(down)) {
        text.push_str(&format!(
            "more than {} at once do not pay for PUT, more than {} for GET; littoral has up to {TRANSFERS_IN_FLIGHT} under way\n",
            up.width, down.width
        ));
    }
    text
}

/// What a database that is written to all the time asks for in a month.
struct Month {
    prices: Prices,
    /// The one that is set comes first, where one is.
    intervals_ms: Vec<u64>,
}

impl Month {
    fn of(url: &str, settings: &Settings) -> Self {
        let is_own = url.starts_with("file:") || url.starts_with("mem:");
        let is_free = is_own && settings.prices.origin == Origin::Default;
        let prices = if is_free { Prices { writes: 0, reads: 0 } } else { settings.prices.value };
        let mut intervals_ms: Vec<u64> = settings.sync_interval_ms.value.into_iter().filter(|ms| *ms > 0).collect();
        let set = intervals_ms.first().copied();
        intervals_ms.extend(SHOWN_MS.into_iter().filter(|ms| Some(*ms) != set));
        Self { prices, intervals_ms }
    }

    const fn is_free(&self) -> bool {
        self.prices.writes == 0 && self.prices.reads == 0
    }

    fn writes(&self, interval_ms: u64) -> (u64, Money) {
        let writes = MONTH_MS / interval_ms.max(1);
        (writes, Money(self.prices.of(writes, 0)))
    }

    fn reads(&self, interval_ms: u64) -> (u64, Money) {
        let reads = MONTH_MS / interval_ms.max(1);
        (reads, Money(self.prices.of(0, reads)))
    }

    fn json(&self) -> Value {
        let one = |ms: &u64| {
            let (writes, price) = self.writes(*ms);
            json!({ "sync_interval_ms": ms, "writes": writes, "price": price.to_string() })
        };
        json!({ "prices": self.prices.to_string(), "intervals": self.intervals_ms.iter().map(one).collect::<Vec<_>>() })
    }

    fn text(&self) -> String {
        let row = |ms: &u64| {
            let (writes, price) = self.writes(*ms);
            vec![format!("sync_interval={}", duration(*ms)), words::count(writes), price.to_string()]
        };
        let rows: Vec<Vec<String>> = self.intervals_ms.iter().map(row).collect();
        let price = format!("at {} a million", self.prices);
        words::table(&["written to all the time", "writes a month", &price], &rows)
    }
}

struct Suggested {
    key: Key,
    value: String,
    why: String,
}

/// A setting as it is written, and why, in a sentence.
fn suggested(advice: Advice, month: &Month) -> Suggested {
    let one = |key, value, why| Suggested { key, value, why };
    match advice {
        Advice::SyncInterval { ms, commit_us } => {
            let (writes, price) = month.writes(ms);
            let cost = if month.is_free() { String::new() } else { format!(", and {} writes a month cost {price}", words::count(writes)) };
            let why = format!("a publication takes {} of a hundred the slowest, so that it is over before the next one is due{cost}", milliseconds(commit_us));
            one(Key::SyncInterval, duration(ms), why)
        }
        Advice::Durability { is_remote, commit_us: (middle, slowest) } => {
            let waits = format!("a commit that waits for the object store waits {}, of a hundred the slowest {}", milliseconds(middle), milliseconds(slowest));
            match is_remote {
                true => one(Key::Durability, "remote".to_owned(), format!("{waits}: bearable where no commit may be lost, else local is quicker")),
                false => one(Key::Durability, "local".to_owned(), format!("{waits}: PRAGMA littoral_durability_once = remote has those wait that must not be lost")),
            }
        }
        Advice::CloseWait { ms, commit_us } => {
            one(Key::CloseWait, duration(ms), format!("several publications of {} have room in it, so that the last close leaves nothing behind", milliseconds(commit_us)))
        }
        Advice::Poll { ms, get_us } => {
            let (reads, price) = month.reads(ms);
            let cost = if month.is_free() { String::new() } else { format!(", and {} reads a month of each follower cost {price}", words::count(reads)) };
            one(Key::Poll, duration(ms), format!("a look for news takes {} of a hundred the slowest{cost}", milliseconds(get_us)))
        }
        Advice::UploadRate { bytes: None, line_bytes } => {
            let line = words::bytes(line_bytes);
            one(Key::UploadRate, "none".to_owned(), format!("the line takes {line}/s: a checkpoint's blobs leave room for commits"))
        }
        Advice::UploadRate { bytes: Some(bytes), line_bytes } => {
            let line = words::bytes(line_bytes);
            one(Key::UploadRate, size(bytes), format!("the line takes {line}/s: with half of it for a checkpoint's blobs commits have room beside them"))
        }
        Advice::KeepWhatIsPruned => one(
            Key::PruneDeletes,
            "off".to_owned(),
            "these credentials may not delete: prunes say what may go, and whoever may deletes it".to_owned(),
        ),
    }
}

/// A duration as settings read it.
fn duration(ms: u64) -> String {
    if ms.is_multiple_of(1_000) { format!("{}s", ms / 1_000) } else { format!("{ms}ms") }
}

/// A size as settings read it.
fn size(bytes: u64) -> String {
    match bytes {
        _ if bytes.is_multiple_of(1_000_000) => format!("{}MB", bytes / 1_000_000),
        _ if bytes.is_multiple_of(1_000) => format!("{}kB", bytes / 1_000),
        _ => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_suggested_reads_back_as_it_was_meant() {
        for ms in [200, 1_000, 1_500, 120_000] {
            assert_eq!(settings::duration_ms(&duration(ms)), Some(ms));
        }
        for bytes in [1, 900, 20_000, 5_000_000, 1_000_000_000] {
            assert_eq!(settings::size(&size(bytes)), Some(bytes));
        }
    }

    #[test]
    fn a_folder_costs_nothing_unless_somebody_says_so() {
        let none = Settings::gather(&[], [], None).unwrap();
        let said = [(Key::Prices, "2/1".into()), (Key::SyncInterval, "5s".into())];
        let said = Settings::gather(&said, [], None).unwrap();
        assert!(Month::of("file:///x", &none).is_free());
        assert!(!Month::of("file:///x", &said).is_free());
        let month = Month::of("s3://bucket", &none);
        assert_eq!((month.writes(1_000).0, month.writes(1_000).1.to_string()), (2_592_000, "12.96".to_owned()));
        assert_eq!(Month::of("s3://bucket", &said).intervals_ms, [5_000, 1_000, 10_000, 60_000]);
        assert_eq!(month.intervals_ms, [1_000, 10_000, 60_000]);
    }
}
