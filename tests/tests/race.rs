//! Two publishers race, each a process of its own, against a real S3 server: one history, the loser told who won, nothing
//! lost on his side, and able to take over on purpose.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The rig of a test is a test.

use littoral_engine::components::{MachineClock, MachineEntropy};
use littoral_engine::exec::restore::{At, restore};
use littoral_engine::exec::verify::verify;
use littoral_engine::{Components, Log};
use littoral_local::LocalQuota;
use littoral_ports::Remote;
use littoral_remote::{Environment, RemoteSettings, open_in};
use littoral_test_s3::S3Server;
use littoral_tests::chance::Chance;
use littoral_tests::database::{Bounds, Database};
use littoral_tests::world::folder;
use littoral_types::{Epoch, Lsn, RecordKind, Seq};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// Each round is two races: for a name that nobody has, and for a term that both want.
const ROUNDS: u64 = 100;

/// A machine: a folder with a database and, once it published, a store.
struct Racer {
    root: PathBuf,
    bytes: Vec<u8>,
}

impl Racer {
    async fn new(root: PathBuf, text: &str) -> Self {
        std::fs::create_dir_all(&root).unwrap();
        let bounds = Bounds { bytes_max: u64::MAX, reshapes: false };
        let mut database = Database::new(root.join("app.db"), bounds);
        let sql =
            format!("PRAGMA page_size = 1024; CREATE TABLE t(a); INSERT INTO t VALUES ('{text}'), (randomblob(3000))");
        database.run(&sql).await;
        Self { bytes: database.quiescent(), root }
    }

    fn spawn(&self, server: &S3Server, url: &str, takeover: Option<u64>) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_littoral-under-test"));
        command.env_clear().envs(server.env()).env("HOME", &self.root).current_dir(&self.root);
        command.args(["checkpoint", "app.db", "--no-check", "--remote", url]);
        command.args(takeover.map(|epoch| format!("--takeover={epoch}")));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// What a message calls it.
    fn label(&self) -> String {
        self.root.join(".littoral").canonicalize().unwrap().display().to_string()
    }

    fn assert_untouched(&self, why: &str) {
        assert!(std::fs::read(self.root.join("app.db")).unwrap() == self.bytes, "{why}: the database file changed");
        for leftover in ["app.db-wal", "app.db-journal"] {
            assert!(!self.root.join(leftover).exists(), "{why}: {leftover}");
        }
    }
}

fn shown(output: &Output) -> String {
    format!(
        "{:?}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Both at once, the second a little later; who won.
fn race(racers: [&Racer; 2], server: &S3Server, url: &str, takeover: Option<u64>, delay: Duration, why: &str) -> usize {
    let first = racers[0].spawn(server, url, takeover);
    std::thread::sleep(delay);
    let second = racers[1].spawn(server, url, takeover);
    let outputs = [first, second].map(|child| child.wait_with_output().unwrap());
    let codes = outputs.each_ref().map(|output| output.status.code());
    let winner = match codes {
        [Some(0), Some(3)] => 0,
        [Some(3), Some(0)] => 1,
        _ => panic!("{why}: {}\n{}", shown(&outputs[0]), shown(&outputs[1])),
    };
    let told = String::from_utf8_lossy(&outputs[1 - winner].stderr).into_owned();
    assert!(told.contains(&racers[winner].label()), "{why}: the loser was not told who won: {told}");
    racers.iter().for_each(|racer| racer.assert_untouched(why));
    winner
}

fn one(racer: &Racer, server: &S3Server, url: &str, takeover: Option<u64>, why: &str) {
    let output = racer.spawn(server, url, takeover).wait_with_output().unwrap();
    assert!(output.status.success(), "{why}: {}", shown(&output));
    racer.assert_untouched(why);
}

fn remote(server: &S3Server, url: &str) -> Arc<dyn Remote> {
    let env = Environment::from_pairs(server.env());
    open_in(url, &RemoteSettings::default(), &env, Arc::new(MachineClock), Arc::new(MachineEntropy)).unwrap()
}

/// One history: terms follow one another, every link holds, and each commit holds what its publisher had.
async fn assert_one_history(log: &Log, published: &[&Racer], out: &Path, why: &str) {
    let components = Components::of_this_machine(Arc::new(LocalQuota::unlimited()));
    let opened = log.open().await.unwrap().unwrap();
    assert_eq!(opened.tail.lsn, Lsn(published.len() as u64), "{why}");
    assert_eq!(opened.tail.epoch, Epoch(published.len() as u64), "{why}");
    let history = log.history(&opened.glance(), opened.tail.seq.next(), usize::MAX).await.unwrap();
    assert_eq!(history.len() as u64, opened.tail.seq.0, "{why}");
    assert_eq!(history.last().unwrap().seq, Seq(1), "{why}");
    let claims = history.iter().filter(|record| record.kind == RecordKind::Claim).count();
    assert_eq!(claims, published.len(), "{why}");
    let found = verify(log, &components).await.unwrap();
    assert_eq!(found.problems, Vec::<String>::new(), "{why}");
    for (racer, lsn) in published.iter().zip(1..) {
        restore(log, &components, &At::Lsn(Lsn(lsn)), out, true).await.unwrap();
        assert!(std::fs::read(out).unwrap() == racer.bytes, "{why}: LSN {lsn}");
    }
}

#[test]
fn two_publishers_in_two_processes_race_and_one_wins() {
    let server = S3Server::shared();
    let bucket = server.bucket();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let seed = 11;
    println!("seed {seed}");
    let chance = Chance::new(seed);
    let mut wins = [[0; 2]; 2];
    for round in 0..ROUNDS {
        let folder = folder();
        let url = format!("s3://{bucket}/round{round}");
        let racers: Vec<Racer> = ["a", "b", "c"]
            .iter()
            .map(|name| runtime.block_on(Racer::new(folder.path().join(name), &format!("{name} {round}"))))
            .collect();
        let delay = || Duration::from_millis(if chance.once_in(2) { 0 } else { chance.under(60) });

        let why = format!("round {round}, first creation");
        let winner = race([&racers[0], &racers[1]], server, &url, None, delay(), &why);
        wins[0][winner] += 1;
        let loser = 1 - winner;

        // The loser and a third one both take over the first term.
        let why = format!("round {round}, takeover");
        let rivals = [&racers[loser], &racers[2]];
        let second = race(rivals, server, &url, Some(1), delay(), &why);
        wins[1][second] += 1;
        // Who lost that takes over on purpose, and publishes what he had all along.
        let why = format!("round {round}, takeover on purpose");
        one(rivals[1 - second], server, &url, Some(2), &why);

        let log = Log::new(remote(server, &url), "app.db".parse().unwrap());
        let published = [&racers[winner], rivals[second], rivals[1 - second]];
        runtime.block_on(assert_one_history(&log, &published, &folder.path().join("out.db"), &why));
    }
    println!(
        "{} races; first creations won by the first and by the second: {:?}, takeovers: {:?}",
        2 * ROUNDS,
        wins[0],
        wins[1]
    );
    assert!(wins.as_flattened().iter().all(|won| *won > 0), "no races: one always won, {wins:?}");
}
