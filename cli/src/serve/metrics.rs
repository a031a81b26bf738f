//! What is measured, in the words of Prometheus: one table, from which come the answer to `/metrics` and the page `docs/metrics.md`.

use super::look::Look;
use littoral_engine::facts::{Facts, StoreFacts};
use littoral_engine::leases::Standing;
use littoral_engine::safety::Safety;
use littoral_ports::meters::BUCKETS_MS;
use littoral_ports::{Counter, Histogram, Op, Outcome, Reading, Recovery, Tier, Timed};
use littoral_types::JobState;
use std::fmt::Write;

/// How a metric moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only up, for as long as the store lives.
    Counter,
    /// Up and down.
    Gauge,
    /// Counts by how long something took.
    Histogram,
}

impl Kind {
    /// As Prometheus calls it.
    pub const fn word(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// Labels and values of a metric's series.
type Samples = Vec<(Vec<(&'static str, String)>, Sample)>;

enum Sample {
    Number(f64),
    Whole(u64),
    Times(Histogram),
}

/// A metric.
pub struct Metric {
    /// Its name, the unit in it.
    pub name: &'static str,
    /// How it moves.
    pub kind: Kind,
    /// What tells its series apart.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
    samples: fn(&Look) -> Samples,
}

/// Series of each store.
fn stores(look: &Look, of: impl Fn(&StoreFacts) -> Samples) -> Samples {
    let each = look.stores.iter().filter_map(|(root, store)| Some((root, store.as_ref().ok()?)));
    each.flat_map(|(root, store)| {
        let root = root.display().to_string();
        of(store).into_iter().map(move |(mut labels, sample)| {
            labels.insert(0, ("store", root.clone()));
            (labels, sample)
        })
    })
    .collect()
}

/// Series of each volume.
fn volumes(look: &Look, of: impl Fn(&Facts) -> Samples) -> Samples {
    let each = look.databases.values().filter_map(|facts| facts.as_ref().ok());
    each.flat_map(|facts| {
        let store = facts.store.as_ref().map(|store| store.display().to_string()).unwrap_or_default();
        let name = facts.name.clone();
        of(facts).into_iter().map(move |(mut labels, sample)| {
            labels.insert(0, ("store", store.clone()));
            labels.insert(1, ("volume", name.clone()));
            (labels, sample)
        })
    })
    .collect()
}

fn one(value: impl Into<Option<u64>>) -> Samples {
    value.into().map(|value| (Vec::new(), Sample::Whole(value))).into_iter().collect()
}

/// Milliseconds, as seconds.
fn seconds(ms: impl Into<Option<u64>>) -> Samples {
    ms.into().map(|ms| (Vec::new(), Sample::Number(ms as f64 / 1000.0))).into_iter().collect()
}

fn counter(look: &Look, counter: Counter) -> Samples {
    stores(look, |store| one(store.meters.counted(counter)))
}

fn by<const N: usize, T: Copy>(all: [T; N], label: &'static str, of: impl Fn(T) -> (&'static str, Sample)) -> Samples {
    all.into_iter()
        .map(|one| {
            let (word, sample) = of(one);
            (vec![(label, word.to_owned())], sample)
        })
        .collect()
}

const STORE: &[&str] = &["store"];
const VOLUME: &[&str] = &["store", "volume"];

/// All of them.
pub const ALL: &[Metric] = &[
    Metric {
        name: "checkpoint_duration_seconds",
        kind: Kind::Histogram,
        labels: STORE,
        help: "How long checkpoints took that were published, from the first look to the record",
        samples: |look| stores(look, |store| vec![(Vec::new(), Sample::Times(store.meters.timed(Timed::Checkpoint)))]),
    },
    Metric {
        name: "checkpoint_success_total",
        kind: Kind::Counter,
        labels: STORE,
        help: "Checkpoints that were published; with checkpoint_failure_total the rate of success",
        samples: |look| counter(look, Counter::CheckpointsSucceeded),
    },
    Metric {
        name: "checkpoint_failure_total",
        kind: Kind::Counter,
        labels: STORE,
        help: "Checkpoints that came to nothing, for whatever reason",
        samples: |look| counter(look, Counter::CheckpointsFailed),
    },
    Metric {
        name: "checkpoint_bytes_written_local",
        kind: Kind::Counter,
        labels: STORE,
        help: "Bytes that checkpoints staged on this disk",
        samples: |look| counter(look, Counter::CheckpointBytesLocal),
    },
    Metric {
        name: "checkpoint_bytes_written_remote",
        kind: Kind::Counter,
        labels: STORE,
        help: "Bytes of blobs that checkpoints sent to the object store",
        samples: |look| counter(look, Counter::CheckpointBytesRemote),
    },
    Metric {
        name: "checkpoint_waits_total",
        kind: Kind::Counter,
        labels: STORE,
        help: "How often a phase of a checkpoint was blocked by somebody's transaction or lock",
        samples: |look| counter(look, Counter::CheckpointWaits),
    },
    Metric {
        name: "checkpoint_queue_depth",
        kind: Kind::Gauge,
        labels: STORE,
        help: "Jobs that are not over: they wait, rest, or are being done",
        samples: |look| stores(look, |store| one(store.depth() as u64)),
    },
    Metric {
        name: "storage_quota_exhausted_total",
        kind: Kind::Counter,
        labels: STORE,
        help: "How often there was no room within the quota for something that was to be staged",
        samples: |look| counter(look, Counter::QuotaExhausted),
    },
    Metric {
        name: "page_fetch_latency_seconds",
        kind: Kind::Histogram,
        labels: &["store", "tier"],
        help: "How long a reader waited for a page that was not in the file: memory, where it had come along with something else; remote, where the object store was asked",
        samples: |look| {
            stores(look, |store| {
                by(Tier::ALL, "tier", |tier| (tier.word(), Sample::Times(store.meters.timed(Timed::PageFetch(tier)))))
            })
        },
    },
    Metric {
        name: "remote_bytes_read_total",
        kind: Kind::Counter,
        labels: &["store", "mode"],
        help: "Bytes read from the object store: whole objects (records, manifest snapshots), parts of them (pages), or, of either, what cold scans read",
        samples: |look| {
            stores(look, |store| {
                by(Reading::ALL, "mode", |mode| {
                    (mode.word(), Sample::Whole(store.meters.counted(Counter::BytesRead(mode))))
                })
            })
        },
    },
    Metric {
        name: "remote_bytes_sent_total",
        kind: Kind::Counter,
        labels: STORE,
        help: "Bytes sent to the object store, tries that failed included",
        samples: |look| counter(look, Counter::BytesSent),
    },
    Metric {
        name: "remote_requests_total",
        kind: Kind::Counter,
        labels: &["store", "op", "outcome"],
        help: "Requests, each try one: done; refused, where nothing was there or something was already; throttled; denied; failed, for anything else",
        samples: |look| {
            stores(look, |store| {
                let asked = Op::ALL.into_iter().flat_map(|op| Outcome::ALL.map(|outcome| (op, outcome)));
                asked
                    .map(|(op, outcome)| {
                        let labels = vec![("op", op.word().to_owned()), ("outcome", outcome.word().to_owned())];
                        (labels, Sample::Whole(store.meters.counted(Counter::Requests(op, outcome))))
                    })
                    .collect()
            })
        },
    },
    Metric {
        name: "cold_requests_total",
        kind: Kind::Counter,
        labels: &["store", "outcome"],
        help: "Requests of cold scans; remote_requests_total counts them, too",
        samples: |look| {
            stores(look, |store| {
                by(Outcome::ALL, "outcome", |outcome| {
                    (outcome.word(), Sample::Whole(store.meters.counted(Counter::ColdRequests(outcome))))
                })
            })
        },
    },
    Metric {
        name: "cold_rest_seconds_total",
        kind: Kind::Counter,
        labels: STORE,
        help: "For how long requests of cold scans waited for their turn, as scan_rate and scan_requests have it, or because somebody else read",
        samples: |look| stores(look, |store| seconds(store.meters.counted(Counter::ColdRestMs))),
    },
    Metric {
        name: "manifest_write_errors_total",
        kind: Kind::Counter,
        labels: STORE,
        help: "Writes to the local manifest that failed: a full disk, damage",
        samples: |look| counter(look, Counter::ManifestWriteErrors),
    },
    Metric {
        name: "wal_lag_lsn",
        kind: Kind::Gauge,
        labels: VOLUME,
        help: "Commits that are here and not in the object store",
        samples: |look| volumes(look, |facts| one(facts.lag())),
    },
    Metric {
        name: "wal_lag_seconds",
        kind: Kind::Gauge,
        labels: VOLUME,
        help: "For how long the oldest of them has waited",
        samples: |look| volumes(look, |facts| seconds(facts.waiting_ms)),
    },
    Metric {
        name: "recovery_phase_seconds",
        kind: Kind::Histogram,
        labels: &["store", "phase"],
        help: "How long it took to open volumes for writing: intent, where a killed predecessor's publication was finished; tail, where this store compared itself with the log; manifest, where the local manifest was made anew",
        samples: |look| {
            stores(look, |store| {
                by(Recovery::ALL, "phase", |phase| {
                    (phase.word(), Sample::Times(store.meters.timed(Timed::Recovery(phase))))
                })
            })
        },
    },
    Metric {
        name: "delta_chain_length",
        kind: Kind::Gauge,
        labels: VOLUME,
        help: "Deltas of the chunk that has the most of them",
        samples: |look| volumes(look, |facts| one(facts.debt.depth)),
    },
    Metric {
        name: "littoral_build_info",
        kind: Kind::Gauge,
        labels: &["version"],
        help: "Always 1; which version answers",
        samples: |_| vec![(vec![("version", env!("CARGO_PKG_VERSION").to_owned())], Sample::Whole(1))],
    },
    Metric {
        name: "littoral_databases",
        kind: Kind::Gauge,
        labels: &["state"],
        help: "Databases that are served: readable, or failed, where it cannot be told how one stands",
        samples: |look| {
            let readable = look.databases.values().filter(|facts| facts.is_ok()).count() as u64;
            let failed = look.databases.len() as u64 - readable;
            by([("readable", readable), ("failed", failed)], "state", |(word, count)| (word, Sample::Whole(count)))
        },
    },
    Metric {
        name: "littoral_safety",
        kind: Kind::Gauge,
        labels: &["store", "volume", "state"],
        help: "1 for how it stands: safe, watch (something is to be looked at), unsafe (more would be lost with this machine than anybody asked for)",
        samples: |look| {
            volumes(look, |facts| {
                by(Safety::ALL, "state", |safety| (safety.word(), Sample::Whole(u64::from(facts.safety.0 == safety))))
            })
        },
    },
    Metric {
        name: "littoral_position_lsn",
        kind: Kind::Gauge,
        labels: VOLUME,
        help: "The newest commit that is in the object store",
        samples: |look| volumes(look, |facts| one(facts.remote().map(|position| position.lsn.0))),
    },
    Metric {
        name: "littoral_position_epoch",
        kind: Kind::Gauge,
        labels: VOLUME,
        help: "The term in which it was published",
        samples: |look| volumes(look, |facts| one(facts.remote().map(|position| position.epoch.0))),
    },
    Metric {
        name: "littoral_shipping",
        kind: Kind::Gauge,
        labels: VOLUME,
        help: "1 where a process is there that ships what is committed",
        samples: |look| volumes(look, |facts| one(u64::from(facts.shipped_by.is_some()))),
    },
    Metric {
        name: "littoral_fenced",
        kind: Kind::Gauge,
        labels: VOLUME,
        help: "1 where another writer took over, or the volume was released",
        samples: |look| {
            volumes(look, |facts| {
                let peeked = facts.peek.as_ref().is_some_and(|peek| peek.fenced.is_some());
                one(u64::from(peeked || facts.row.as_ref().is_some_and(|row| row.fenced.is_some())))
            })
        },
    },
    Metric {
        name: "littoral_gap_open",
        kind: Kind::Gauge,
        labels: VOLUME,
        help: "1 where commits that wait cannot be told apart any more, until the next checkpoint",
        samples: |look| {
            volumes(look, |facts| one(u64::from(facts.peek.as_ref().is_some_and(|peek| peek.dropped.is_some()))))
        },
    },
    Metric {
        name: "littoral_checkpoint_last_lsn",
        kind: Kind::Gauge,
        labels: VOLUME,
        help: "The commit up to which the newest checkpoint goes",
        samples: |look| volumes(look, |facts| one(facts.checkpoint.map(|(position, _)| position.lsn.0))),
    },
    Metric {
        name: "littoral_checkpoint_last_timestamp_seconds",
        kind: Kind::Gauge,
        labels: VOLUME,
        help: "When the newest checkpoint was published, in seconds since 1970",
        samples: |look| volumes(look, |facts| seconds(facts.checkpoint.map(|(_, ms)| ms))),
    },
    Metric {
        name: "littoral_replay_backlog_bytes",
        kind: Kind::Gauge,
        labels: VOLUME,
        help: "Bytes of pages that changed since the newest checkpoint and travelled: what the next one folds, and an opener reads until then",
        samples: |look| volumes(look, |facts| one(facts.backlog)),
    },
    Metric {
        name: "littoral_proof_timestamp_seconds",
        kind: Kind::Gauge,
        labels: VOLUME,
        help: "When a restore was last proved to work, in seconds since 1970; no series where none was",
        samples: |look| volumes(look, |facts| seconds(facts.upkeep.proved.as_ref().map(|proved| proved.at_ms))),
    },
    Metric {
        name: "littoral_proof_duration_seconds",
        kind: Kind::Gauge,
        labels: VOLUME,
        help: "How long that restore took",
        samples: |look| volumes(look, |facts| seconds(facts.upkeep.proved.as_ref().map(|proved| proved.took_ms))),
    },
    Metric {
        name: "littoral_verified_timestamp_seconds",
        kind: Kind::Gauge,
        labels: VOLUME,
        help: "When all of the volume had last been verified and nothing was wrong, in seconds since 1970; no series where it never was",
        samples: |look| volumes(look, |facts| seconds(facts.upkeep.verify.as_ref().and_then(|verify| verify.whole_ms))),
    },
    Metric {
        name: "littoral_problems",
        kind: Kind::Gauge,
        labels: VOLUME,
        help: "What verification and drills found wrong, and nothing has shown to be mended",
        samples: |look| volumes(look, |facts| one(facts.upkeep.alarms().count() as u64)),
    },
    Metric {
        name: "littoral_pages_resident",
        kind: Kind::Gauge,
        labels: VOLUME,
        help: "Pages that are here, of a database that is not all here; no series where all are",
        samples: |look| volumes(look, |facts| one(facts.sparse.map(|sparse| sparse.here))),
    },
    Metric {
        name: "littoral_copy_lag_lsn",
        kind: Kind::Gauge,
        labels: &["store", "volume", "copy"],
        help: "Commits that a copy lacks; copies are numbered as copy= names them",
        samples: |look| {
            volumes(look, |facts| {
                let lags = facts.copies.iter().zip(1..).filter_map(|(stand, nth): (_, u64)| Some((stand.lag?, nth)));
                lags.map(|(lag, nth)| (vec![("copy", nth.to_string())], Sample::Whole(lag.lsns))).collect()
            })
        },
    },
    Metric {
        name: "littoral_copy_lag_seconds",
        kind: Kind::Gauge,
        labels: &["store", "volume", "copy"],
        help: "For how long a copy has lacked them",
        samples: |look| {
            volumes(look, |facts| {
                let lags = facts.copies.iter().zip(1..).filter_map(|(stand, nth): (_, u64)| Some((stand.lag?, nth)));
                lags.map(|(lag, nth)| (vec![("copy", nth.to_string())], Sample::Number(lag.ms as f64 / 1000.0)))
                    .collect()
            })
        },
    },
    Metric {
        name: "littoral_segments_published_total",
        kind: Kind::Counter,
        labels: STORE,
        help: "Records that brought commits one by one",
        samples: |look| counter(look, Counter::SegmentsPublished),
    },
    Metric {
        name: "littoral_commits_shipped_total",
        kind: Kind::Counter,
        labels: STORE,
        help: "Commits that travelled in them",
        samples: |look| counter(look, Counter::CommitsShipped),
    },
    Metric {
        name: "littoral_quota_used_bytes",
        kind: Kind::Gauge,
        labels: VOLUME,
        help: "Bytes that all processes of its store have taken of the quota",
        samples: |look| volumes(look, |facts| one(facts.quota.as_ref().map(|quota| quota.used))),
    },
    Metric {
        name: "littoral_quota_limit_bytes",
        kind: Kind::Gauge,
        labels: VOLUME,
        help: "The narrowest bound on them; no series where there is none",
        samples: |look| {
            volumes(look, |facts| {
                let limits = facts.quota.as_ref().map(|quota| &quota.limits);
                one(limits.and_then(|limits| limits.store.into_iter().chain(limits.tenant_limit).min()))
            })
        },
    },
    Metric {
        name: "littoral_requests_this_month",
        kind: Kind::Gauge,
        labels: &["store", "volume", "price"],
        help: "Requests of this month, of all of its store, by the two prices that object stores ask: write (listing too), read",
        samples: |look| {
            volumes(look, |facts| match facts.spent {
                None => Vec::new(),
                Some(spent) => {
                    by([("write", spent.spent.writes), ("read", spent.spent.reads)], "price", |(word, count)| {
                        (word, Sample::Whole(count))
                    })
                }
            })
        },
    },
    Metric {
        name: "littoral_jobs",
        kind: Kind::Gauge,
        labels: &["store", "state"],
        help: "Jobs by how they stand; interrupted is one whose process died: the next worker goes on with it",
        samples: |look| {
            stores(look, |store| {
                by(["ready", "running", "interrupted", "done", "cancelled", "dead"], "state", |word| {
                    let is = |seen: &&littoral_engine::jobs::Seen| match (&seen.job.state, seen.is_orphaned) {
                        (JobState::Running { .. }, true) => word == "interrupted",
                        (state, _) => state.word() == word,
                    };
                    (word, Sample::Whole(store.jobs.iter().filter(is).count() as u64))
                })
            })
        },
    },
    Metric {
        name: "littoral_leases",
        kind: Kind::Gauge,
        labels: &["store", "state"],
        help: "Leases on chunks by how they stand: held; run out, where the holder hangs; dead, where it ended",
        samples: |look| {
            stores(look, |store| {
                by([Standing::Held, Standing::RunOut, Standing::Dead], "state", |standing| {
                    let count = store.leases.iter().filter(|(_, found)| *found == standing).count();
                    (standing.word(), Sample::Whole(count as u64))
                })
            })
        },
    },
];

/// The answer to `/metrics`.
pub fn render(look: &Look) -> String {
    let mut text = String::new();
    for metric in ALL {
        let _ = writeln!(text, "# HELP {} {}\n# TYPE {} {}", metric.name, metric.help, metric.name, metric.kind.word());
        for (labels, sample) in (metric.samples)(look) {
            write(&mut text, metric.name, &labels, &sample);
        }
    }
    text
}

fn write(text: &mut String, name: &str, labels: &[(&'static str, String)], sample: &Sample) {
    match sample {
        Sample::Whole(value) => line(text, name, labels, None, &value.to_string()),
        Sample::Number(value) => line(text, name, labels, None, &value.to_string()),
        Sample::Times(times) => {
            let mut sum = 0_u64;
            for (count, bound) in times.buckets.iter().zip(BUCKETS_MS.iter().map(Some).chain([None])) {
                sum = sum.saturating_add(*count);
                let bound = bound.map_or_else(|| "+Inf".to_owned(), |ms| (*ms as f64 / 1000.0).to_string());
                line(text, &format!("{name}_bucket"), labels, Some(&bound), &sum.to_string());
            }
            line(text, &format!("{name}_sum"), labels, None, &(times.sum_us as f64 / 1e6).to_string());
            line(text, &format!("{name}_count"), labels, None, &sum.to_string());
        }
    }
}

fn line(text: &mut String, name: &str, labels: &[(&'static str, String)], bound: Option<&str>, value: &str) {
    let all = labels.iter().map(|(name, value)| (*name, value.as_str())).chain(bound.map(|bound| ("le", bound)));
    let all: Vec<String> = all.map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    let labels = if all.is_empty() { String::new() } else { format!("{{{}}}", all.join(",")) };
    let _ = writeln!(text, "{name}{labels} {value}");
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The page `docs/metrics.md`, from the table.
pub fn page() -> String {
    let mut text = String::from(PAGE);
    text.push_str("| metric | kind | labels | what it says |\n|---|---|---|---|\n");
    for Metric { name, kind, labels, help, .. } in ALL {
        let labels = labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        let _ = writeln!(text, "| `{name}` | {} | {labels} | {help} |", kind.word());
    }
    let bounds: Vec<String> = BUCKETS_MS.iter().map(|ms| (*ms as f64 / 1000.0).to_string()).collect();
    let _ = write!(text, "\nThe buckets of every histogram end at {} seconds.\n", bounds.join(", "));
    text
}

const PAGE: &str = "# Metrics

What `/metrics` of [serve](cli.md#serve-file), and of a [worker](cli.md#worker-file) with `metrics_listen=`, says, in the format of Prometheus. This page is
written by the code: a test compares them.

Counters and histograms are those of the *store*, of all of its processes together: they are kept in its account (`.littoral/account1`), outlive whoever
counted, and begin anew only where that file is removed. A machine that only reads a volume has no store: its readers, its replicas and those who look at a moment
of the past keep the account beside their pages. Gauges are as of the moment of the question. To ask costs the object store no request.
`store` is the store's folder, or that of those pages, `volume` the volume's name: there are as many series as databases are served, whatever anybody writes into them.
Alerts and a Grafana dashboard on these are in [ops](../ops/README.md), what to do in the [runbooks](runbooks/README.md).

";

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn nothing() -> Look {
        Look { at_ms: 0, databases: Default::default(), stores: Default::default() }
    }

    #[test]
    fn names_are_those_of_prometheus_have_their_unit_and_are_each_there_once() {
        let mut names = BTreeSet::new();
        for metric in ALL {
            let Metric { name, kind, labels, help, .. } = metric;
            assert!(names.insert(*name), "{name} twice");
            assert!(
                name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'),
                "{name}"
            );
            assert!(!help.is_empty() && !help.contains('\n') && !help.contains('|'), "{name}");
            assert!(labels.iter().all(|label| *label != "le"), "{name}");
            match kind {
                Kind::Histogram => assert!(name.ends_with("_seconds"), "{name}"),
                // These two are named so since before there was a line of code.
                Kind::Counter => {
                    assert!(name.ends_with("_total") || name.starts_with("checkpoint_bytes_written_"), "{name}")
                }
                Kind::Gauge => assert!(!name.ends_with("_total"), "{name}"),
            }
        }
    }

    #[test]
    fn a_histogram_is_cumulative_and_labels_hold_any_text() {
        let mut text = String::new();
        let mut buckets = vec![0; BUCKETS_MS.len() + 1];
        (buckets[0], buckets[2], buckets[BUCKETS_MS.len()]) = (3, 2, 1);
        let times = Histogram { buckets, sum_us: 1_500_000 };
        write(&mut text, "x_seconds", &[("store", "a\"b\\c\nd".to_owned())], &Sample::Times(times));
        let label = r#"store="a\"b\\c\nd""#;
        for line in [
            format!("x_seconds_bucket{{{label},le=\"0.001\"}} 3"),
            format!("x_seconds_bucket{{{label},le=\"0.002\"}} 3"),
            format!("x_seconds_bucket{{{label},le=\"0.005\"}} 5"),
            format!("x_seconds_bucket{{{label},le=\"600\"}} 5"),
            format!("x_seconds_bucket{{{label},le=\"+Inf\"}} 6"),
            format!("x_seconds_sum{{{label}}} 1.5"),
            format!("x_seconds_count{{{label}}} 6"),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
        }
        assert!(render(&nothing()).contains("littoral_build_info{version="));
    }
}
