//! The door itself: reads the command line, opens what a verb needs, shows what it said.

use crate::bars::Bars;
use crate::exit::{Exit, Fault, explain};
use crate::screen::{LogFormat, Screen};
use crate::verbs::Verb;
use clap::{Args, Parser};
use littoral_engine::open::{self, Place};
use littoral_engine::runtime::Runtime;
use littoral_engine::settings::{Key, Settings};
use littoral_engine::{Components, logs};
use littoral_ports::Faults;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// SQLite databases in an object store: checkpointed as what changed, restored anywhere, verified to the last page.
#[derive(Debug, Parser)]
#[command(name = "littoral", version, about, long_about = None, after_help = after_help(), max_term_width = 110)]
#[command(disable_help_subcommand = false, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    settings: SettingFlags,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Args)]
struct Common {
    /// One JSON document on stdout; errors as JSON on stderr
    #[arg(long, global = true, display_order = 900)]
    json: bool,
    /// No progress, and nothing on stdout unless something is wrong
    #[arg(long, short, global = true, display_order = 900)]
    quiet: bool,
    /// Say more of what is done (twice: much more); LITTORAL_LOG is a finer filter
    #[arg(long, short, global = true, display_order = 900, action = clap::ArgAction::Count)]
    verbose: u8,
    /// How the log is written, on stderr: text, or json, a document in each line, with every event of a checkpoint's life [default: text]
    #[arg(
        long = "log-format",
        global = true,
        display_order = 900,
        value_enum,
        value_name = "text|json",
        default_value_t,
        hide_default_value = true
    )]
    log_format: LogFormat,
}

/// The settings as flags: each may also be a variable (`LITTORAL_REMOTE`) or a line of `littoral.toml`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Settings (also LITTORAL_REMOTE ..., or littoral.toml beside the database)")]
struct SettingFlags {
    /// The object store: s3://bucket/prefix, minio://host:9000/bucket, file:///folder [default: .littoral/remote beside it]
    #[arg(long, global = true, value_name = "URL", hide_short_help = true)]
    remote: Option<OsString>,
    /// The volume's name in it [default: the file's name]
    #[arg(long, global = true, value_name = "NAME", hide_short_help = true)]
    volume: Option<OsString>,
    /// The local directory [default: .littoral beside the database]
    #[arg(long, global = true, value_name = "DIR", hide_short_help = true)]
    store: Option<OsString>,
    /// Take over from this epoch, whoever wrote in it
    #[arg(long, global = true, value_name = "EPOCH", hide_short_help = true)]
    takeover: Option<OsString>,
    /// Whether a store without conditional PUT is refused [default: on]
    #[arg(long, global = true, value_name = "on|off", hide_short_help = true)]
    fencing: Option<OsString>,
    /// Local bytes that may be used [default: none]
    #[arg(long, global = true, value_name = "SIZE", hide_short_help = true)]
    quota: Option<OsString>,
    /// Whose database it is: what it takes counts against that tenant's bound, of `[tenants]` in littoral.toml [default: nobody's]
    #[arg(long, global = true, value_name = "NAME", hide_short_help = true)]
    tenant: Option<OsString>,
    /// Records younger than this are never pruned [default: 24h]
    #[arg(long, global = true, value_name = "DURATION", hide_short_help = true)]
    grace: Option<OsString>,
    /// Where the S3 service is [default: AWS_ENDPOINT_URL_S3, then AWS]
    #[arg(long, global = true, value_name = "URL", hide_short_help = true)]
    endpoint: Option<OsString>,
    /// The bucket's region [default: AWS_REGION]
    #[arg(long, global = true, value_name = "REGION", hide_short_help = true)]
    region: Option<OsString>,
    /// How the bucket is addressed [default: virtual on AWS, path elsewhere]
    #[arg(long, global = true, value_name = "path|virtual", hide_short_help = true)]
    addressing: Option<OsString>,
    /// How pages are made smaller: zstd, lz4 or none [default: zstd]
    #[arg(long, global = true, value_name = "CODEC", hide_short_help = true)]
    compression: Option<OsString>,
    /// How long commits wait for others before they travel together, or off [default: 1s]
    #[arg(long = "sync_interval", global = true, value_name = "DURATION|off", hide_short_help = true)]
    sync_interval: Option<OsString>,
    /// When a commit counts as done: local or remote [default: local]
    #[arg(long, global = true, value_name = "local|remote", hide_short_help = true)]
    durability: Option<OsString>,
    /// How long the last one to close a database waits for its commits to be published [default: 2s]
    #[arg(long = "close_wait", global = true, value_name = "DURATION", hide_short_help = true)]
    close_wait: Option<OsString>,
    /// What writers do whose volume was taken over: stop or continue [default: stop]
    #[arg(long, global = true, value_name = "stop|continue", hide_short_help = true)]
    fenced: Option<OsString>,
    /// Which moment: a time (2026-11-20T17:34:02Z), how long ago (-5m), an LSN (42, 1.42) or a snapshot [default: the newest state]
    #[arg(long, global = true, value_name = "MOMENT", hide_short_help = true, allow_hyphen_values = true)]
    at: Option<OsString>,
    /// Which restore points a prune leaves: all for so long, then one in so long [default: 24h,1h:30d,1d:1y]
    #[arg(long, global = true, value_name = "SPANS", hide_short_help = true)]
    retention: Option<OsString>,
    /// Whether a database that is opened read-only follows its volume's log: on or off [default: off]
    #[arg(long, global = true, value_name = "on|off", hide_short_help = true)]
    follow: Option<OsString>,
    /// How often one that follows looks for news [default: 1s]
    #[arg(long, global = true, value_name = "DURATION", hide_short_help = true)]
    poll: Option<OsString>,
    /// Bytes a second with which blobs are sent, or none [default: none]
    #[arg(long = "upload_rate", global = true, value_name = "SIZE", hide_short_help = true)]
    upload_rate: Option<OsString>,
    /// Bytes a second that a checkpoint reads and writes here, or none [default: none]
    #[arg(long = "io_rate", global = true, value_name = "SIZE", hide_short_help = true)]
    io_rate: Option<OsString>,
    /// Requests that write which are to be enough for a month, or none [default: none]
    #[arg(long = "request_budget", global = true, value_name = "NUMBER", hide_short_help = true)]
    request_budget: Option<OsString>,
    /// Bytes of changed pages after which a checkpoint is made, or none [default: none]
    #[arg(long = "checkpoint_dirty", global = true, value_name = "SIZE", hide_short_help = true)]
    checkpoint_dirty: Option<OsString>,
    /// What the object store asks for a million writes and a million reads [default: 5/0.4]
    #[arg(long, global = true, value_name = "WRITES/READS", hide_short_help = true)]
    prices: Option<OsString>,
    /// How often a worker prunes, where a retention is set, or off [default: 6h]
    #[arg(long = "prune_interval", global = true, value_name = "DURATION|off", hide_short_help = true)]
    prune_interval: Option<OsString>,
    /// Whether prunes delete what they name: on, or off where the credentials may not [default: on]
    #[arg(long = "prune_deletes", global = true, value_name = "on|off", hide_short_help = true)]
    prune_deletes: Option<OsString>,
    /// How much of a volume a worker reads and checks a day, or off [default: off]
    #[arg(long = "verify_daily", global = true, value_name = "SIZE|off", hide_short_help = true)]
    verify_daily: Option<OsString>,
    /// How often a worker holds a restore drill, or off [default: off]
    #[arg(long = "drill_interval", global = true, value_name = "DURATION|off", hide_short_help = true)]
    drill_interval: Option<OsString>,
    /// A query that every drill asks the restored database
    #[arg(long = "drill_probe", global = true, value_name = "SQL", hide_short_help = true)]
    drill_probe: Option<OsString>,
    /// Other object stores that hold copies, with commas between them, or none [default: none]
    #[arg(long, global = true, value_name = "URLS", hide_short_help = true)]
    copy: Option<OsString>,
    /// Where a worker answers those who watch it, as littoral serve does: 127.0.0.1:9464 [default: nowhere]
    #[arg(long = "metrics_listen", global = true, value_name = "ADDRESS", hide_short_help = true)]
    metrics_listen: Option<OsString>,
    /// Read past every cache, no faster than scan_rate, and keep nothing of it [default: off]
    #[arg(
        long,
        global = true,
        value_name = "on|off",
        hide_short_help = true,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "on"
    )]
    cold: Option<OsString>,
    /// Bytes a second that cold scans read, of the whole store, or none [default: none]
    #[arg(long = "scan_rate", global = true, value_name = "SIZE", hide_short_help = true)]
    scan_rate: Option<OsString>,
    /// Requests a second that they make, or none [default: none]
    #[arg(long = "scan_requests", global = true, value_name = "NUMBER", hide_short_help = true)]
    scan_requests: Option<OsString>,
}

impl SettingFlags {
    fn said(&self) -> Vec<(Key, OsString)> {
        let flag = |key| match key {
            Key::Remote => &self.remote,
            Key::Volume => &self.volume,
            Key::Store => &self.store,
            Key::Takeover => &self.takeover,
            Key::Fencing => &self.fencing,
            Key::Quota => &self.quota,
            Key::Tenant => &self.tenant,
            Key::Grace => &self.grace,
            Key::Endpoint => &self.endpoint,
            Key::Region => &self.region,
            Key::Addressing => &self.addressing,
            Key::Compression => &self.compression,
            Key::SyncInterval => &self.sync_interval,
            Key::Durability => &self.durability,
            Key::CloseWait => &self.close_wait,
            Key::Fenced => &self.fenced,
            Key::At => &self.at,
            Key::Retention => &self.retention,
            Key::Follow => &self.follow,
            Key::Poll => &self.poll,
            Key::UploadRate => &self.upload_rate,
            Key::IoRate => &self.io_rate,
            Key::RequestBudget => &self.request_budget,
            Key::CheckpointDirty => &self.checkpoint_dirty,
            Key::Prices => &self.prices,
            Key::PruneInterval => &self.prune_interval,
            Key::PruneDeletes => &self.prune_deletes,
            Key::VerifyDaily => &self.verify_daily,
            Key::DrillInterval => &self.drill_interval,
            Key::DrillProbe => &self.drill_probe,
            Key::Copy => &self.copy,
            Key::MetricsListen => &self.metrics_listen,
            Key::Cold => &self.cold,
            Key::ScanRate => &self.scan_rate,
            Key::ScanRequests => &self.scan_requests,
        };
        Key::ALL.into_iter().filter_map(|key| Some((key, flag(key).clone()?))).collect()
    }
}

fn after_help() -> String {
    let codes: Vec<String> =
        Exit::ALL.iter().map(|exit| format!("  {}  {:8} {}", *exit as u8, exit.word(), exit.meaning())).collect();
    format!(
        "FILE is a SQLite database; URL is a remote plus the volume's name, as in s3://bucket/prefix/app.db.\n\
         Credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or ~/.aws, never from a flag or a URL.\n\n\
         Exit codes:\n{}",
        codes.join("\n")
    )
}

/// What a verb has at hand.
#[derive(Debug)]
pub struct Door {
    flags: Vec<(Key, OsString)>,
    environment: Vec<(OsString, OsString)>,
    /// Where things are shown.
    pub screen: Screen,
}

/// What stands where a verb takes `FILE|URL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A database file.
    File(PathBuf),
    /// A volume's URL.
    Url(String),
}

impl Target {
    /// Tells a URL from a file's name.
    pub fn read(text: &OsStr) -> Self {
        match text.to_str().filter(|text| text.contains("://")) {
            Some(url) => Target::Url(url.to_owned()),
            None => Target::File(PathBuf::from(text)),
        }
    }
}

impl Door {
    /// A door at which nobody but we said anything, and that shows nothing: for a verb that uses others.
    pub fn within(flags: Vec<(Key, OsString)>) -> Self {
        Self { flags, environment: Vec::new(), screen: Screen::new(false, true) }
    }

    /// The same door, at which something else was said, and that shows nothing: for work that nobody waits for.
    pub fn behind(&self, flags: Vec<(Key, OsString)>) -> Self {
        Self { flags, environment: self.environment.clone(), screen: Screen::new(false, true) }
    }

    /// What was said, with the settings file beside a database where there is one.
    pub fn settings(&self, database: Option<&Path>) -> anyhow::Result<Settings> {
        let beside = database.map(|database| match database.parent() {
            Some(folder) if folder != Path::new("") => folder.to_owned(),
            _ => PathBuf::from("."),
        });
        Ok(Settings::gather(&self.flags, self.environment.iter().cloned(), beside.as_deref())?)
    }

    /// A variable that is no setting.
    pub fn variable(&self, name: &str) -> Option<&OsStr> {
        let found = self.environment.iter().find(|(known, value)| known == name && !value.is_empty());
        found.map(|(_, value)| value.as_os_str())
    }

    /// What was said on the command line.
    pub fn said(&self) -> &[(Key, OsString)] {
        &self.flags
    }

    /// The place of a `FILE|URL`. For a URL the settings file beside `beside` counts, where that is given.
    pub fn place(&self, target: &OsStr, beside: Option<&Path>) -> anyhow::Result<(Place, Settings)> {
        match Target::read(target) {
            Target::File(file) => {
                let settings = self.settings(Some(&file))?;
                Ok((Place::of_database(&file, &settings)?, settings))
            }
            Target::Url(url) => {
                let settings = self.settings(beside)?;
                self.refuse_said_twice(&settings)?;
                Ok((Place::of_url(&url)?, settings))
            }
        }
    }

    /// Refuses flags that say where a volume is beside a URL that says it. Whose pace a cold scan shares, a URL does not say.
    pub fn refuse_said_twice(&self, settings: &Settings) -> Result<(), Fault> {
        let is_twice =
            |key: Key| matches!(key, Key::Remote | Key::Volume) || (key == Key::Store && !settings.cold.value);
        match self.flags.iter().find(|(key, _)| is_twice(*key)) {
            Some((key, _)) => {
                let message = format!("--{} and a URL were given, and the URL says it already", key.name());
                Err(Fault::usage(message, "leave one of them out"))
            }
            None => Ok(()),
        }
    }

    /// The file of a verb that is about databases alone: a log is refused, by name.
    pub fn file(&self, target: &OsStr) -> anyhow::Result<PathBuf> {
        let file = self.file_or_log(target)?;
        if logs::identity(&file).is_ok() {
            let message = format!("{}: a log, and this command is about databases", file.display());
            let way_out = "`littoral log` serves it (littoral log --help); restore, verify, prune, release, snapshot, status and history take both";
            return Err(Fault { exit: Exit::Refused, message, way_out: Some(way_out.to_owned()) }.into());
        }
        Ok(file)
    }

    /// The file of a verb that writes a volume, whatever it holds.
    pub fn file_or_log(&self, target: &OsStr) -> anyhow::Result<PathBuf> {
        match Target::read(target) {
            Target::File(file) => Ok(file),
            Target::Url(_) => Err(Fault::usage(
                "this command takes a database file, not a URL",
                "give the file; its remote is a setting (--remote=URL)",
            )
            .into()),
        }
    }

    /// The machine's components, with bars where there is a terminal.
    pub fn components(&self, settings: &Settings) -> anyhow::Result<Components> {
        let mut components = Components::of_this_machine(open::quota(settings));
        if let Some(bars) = self.screen.bars() {
            components.progress = Arc::new(Bars::new(bars.clone()));
        }
        if let Some(faults) = asked_to_die()? {
            components.faults = faults;
        }
        Ok(components)
    }
}

/// Where this process is to die, if a test asks for that.
#[cfg(feature = "faults")]
fn asked_to_die() -> anyhow::Result<Option<Arc<dyn Faults>>> {
    use crate::crash::{KillSelf, VARIABLE};
    let Some(point) = std::env::var_os(VARIABLE) else { return Ok(None) };
    let kill = point.to_str().and_then(KillSelf::parse);
    let wrong = || Fault::usage(format!("{VARIABLE} is not point[:n]"), "unset it: it is for tests");
    Ok(Some(Arc::new(kill.ok_or_else(wrong)?)))
}

#[cfg(not(feature = "faults"))]
fn asked_to_die() -> anyhow::Result<Option<Arc<dyn Faults>>> {
    // A test that believes to have crashed this would prove nothing.
    match std::env::var_os("LITTORAL_TEST_CRASH") {
        None => Ok(None),
        Some(_) => Err(Fault::usage(
            "LITTORAL_TEST_CRASH is set, and this littoral was built without the feature faults",
            "unset it: it is for tests",
        )
        .into()),
    }
}

/// The same for who works through a connection, which knows no components.
pub fn arm() -> anyhow::Result<()> {
    #[cfg(feature = "faults")]
    if let Some(faults) = asked_to_die()? {
        littoral_vfs::die_at(faults);
    }
    #[cfg(not(feature = "faults"))]
    asked_to_die()?;
    Ok(())
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    #[cfg(feature = "jobs")]
    open::keep_jobs();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(misread(&error) as u8),
    };
    let Cli { common, settings, verb } = cli;
    let screen = Screen::new(common.json, common.quiet);
    let screen = if verb.tells_itself() { screen.endless() } else { screen };
    screen.listen(common.verbose, verb.tells_itself(), common.log_format);
    let door = Door { flags: settings.said(), environment: std::env::vars_os().collect(), screen: screen.clone() };
    let told = verb
        .refuse_past(&door)
        .and_then(|()| Runtime::start().map_err(anyhow::Error::from))
        .and_then(|runtime| runtime.run(verb.run(&door)));
    let exit = match told {
        Ok(told) => screen.show(told),
        Err(error) => screen.fail(&explain(&error)),
    };
    ExitCode::from(exit as u8)
}

/// The command line made no sense, or asked for help.
fn misread(error: &clap::Error) -> Exit {
    let is_json = std::env::args_os().any(|argument| argument == "--json");
    if error.use_stderr() && is_json {
        let text = error.to_string();
        let cause = text.trim().trim_start_matches("error: ").to_owned();
        let way_out = Some("`littoral help` lists the commands, `littoral help COMMAND` its options".to_owned());
        return Screen::new(true, false).fail(&crate::exit::Explained { exit: Exit::Usage, cause, way_out });
    }
    // Help on a closed pipe is help that nobody wanted.
    let _ = error.print();
    if error.use_stderr() { Exit::Usage } else { Exit::Done }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_setting_is_a_flag_of_the_same_name() {
        let command = Cli::command();
        for key in Key::ALL {
            let flag = command.get_arguments().find(|flag| flag.get_long() == Some(key.name()));
            assert!(flag.is_some_and(|flag| flag.is_global_set()), "{}", key.name());
        }
    }

    #[test]
    fn a_url_is_told_from_a_file() {
        assert_eq!(Target::read(OsStr::new("s3://b/app.db")), Target::Url("s3://b/app.db".to_owned()));
        assert_eq!(Target::read(OsStr::new("app.db")), Target::File("app.db".into()));
        assert_eq!(Target::read(OsStr::new("/a/b:c.db")), Target::File("/a/b:c.db".into()));
    }

    #[test]
    fn help_and_page_tell_every_exit_code_setting_command_and_option() {
        let mut command = Cli::command();
        let help = command.render_help().to_string();
        let page = include_str!("../../docs/cli.md");
        for exit in Exit::ALL {
            assert!(help.contains(exit.word()), "{exit:?} is not in:\n{help}");
            let row = format!("| {} | {} | {} |", exit as u8, exit.word(), exit.meaning());
            assert!(page.contains(&row), "docs/cli.md lacks: {row}");
        }
        for key in Key::ALL {
            assert!(page.contains(&format!("| `{}` |", key.name())), "docs/cli.md lacks {}", key.name());
        }
        for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
            assert!(
                page.contains(&format!("### {} ", verb.get_name()))
                    || page.contains(&format!("### {}\n", verb.get_name()))
            );
            let own = verb.get_arguments().filter(|argument| !argument.is_global_set());
            for option in
                own.filter_map(|argument| argument.get_long()).filter(|long| !["version", "help"].contains(long))
            {
                assert!(page.contains(&format!("`--{option}")), "docs/cli.md lacks {} --{option}", verb.get_name());
            }
        }
    }
}
