//! The door itself: reads the command line, opens what a verb needs, shows what it said.

use crate::bars::Bars;
use crate::exit::{Exit, Fault, explain};
use crate::screen::Screen;
use crate::verbs::Verb;
use clap::{Args, Parser};
use littoral_engine::Components;
use littoral_engine::open::{self, Place};
use littoral_engine::runtime::Runtime;
use littoral_engine::settings::{Key, Settings};
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
    /// How long the last one to close a database waits for a checkpoint [default: 0, none is made]
    #[arg(long = "close_wait", global = true, value_name = "DURATION", hide_short_help = true)]
    close_wait: Option<OsString>,
    /// What writers do whose volume was taken over: stop or continue [default: stop]
    #[arg(long, global = true, value_name = "stop|continue", hide_short_help = true)]
    fenced: Option<OsString>,
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
            Key::Grace => &self.grace,
            Key::Endpoint => &self.endpoint,
            Key::Region => &self.region,
            Key::Addressing => &self.addressing,
            Key::Compression => &self.compression,
            Key::CloseWait => &self.close_wait,
            Key::Fenced => &self.fenced,
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

    /// What was said, with the settings file beside a database where there is one.
    pub fn settings(&self, database: Option<&Path>) -> anyhow::Result<Settings> {
        let beside = database.map(|database| match database.parent() {
            Some(folder) if folder != Path::new("") => folder.to_owned(),
            _ => PathBuf::from("."),
        });
        Ok(Settings::gather(&self.flags, self.environment.iter().cloned(), beside.as_deref())?)
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
                let said_twice = [Key::Remote, Key::Volume, Key::Store];
                if let Some((key, _)) = self.flags.iter().find(|(key, _)| said_twice.contains(key)) {
                    let message = format!("--{} and a URL were given, and the URL says it already", key.name());
                    return Err(Fault::usage(message, "leave one of them out").into());
                }
                let settings = self.settings(beside)?;
                Ok((Place::of_url(&url)?, settings))
            }
        }
    }

    /// The file of a verb that writes a database's volume.
    pub fn file(&self, target: &OsStr) -> anyhow::Result<PathBuf> {
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
        crash_on_request(&mut components)?;
        Ok(components)
    }
}

#[cfg(feature = "faults")]
fn crash_on_request(components: &mut Components) -> anyhow::Result<()> {
    use crate::crash::{KillSelf, VARIABLE};
    if let Some(point) = std::env::var_os(VARIABLE) {
        let kill = point.to_str().and_then(KillSelf::parse);
        let wrong = || Fault::usage(format!("{VARIABLE} is not point[:n]"), "unset it: it is for tests");
        components.faults = Arc::new(kill.ok_or_else(wrong)?);
    }
    Ok(())
}

#[cfg(not(feature = "faults"))]
fn crash_on_request(_: &mut Components) -> anyhow::Result<()> {
    // A test that believes to have crashed this would prove nothing.
    match std::env::var_os("LITTORAL_TEST_CRASH") {
        None => Ok(()),
        Some(_) => Err(Fault::usage(
            "LITTORAL_TEST_CRASH is set, and this littoral was built without the feature faults",
            "unset it: it is for tests",
        )
        .into()),
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(misread(&error) as u8),
    };
    let Cli { common, settings, verb } = cli;
    let screen = Screen::new(common.json, common.quiet);
    screen.listen(common.verbose);
    let door = Door { flags: settings.said(), environment: std::env::vars_os().collect(), screen: screen.clone() };
    let told = Runtime::start().map_err(anyhow::Error::from).and_then(|runtime| runtime.run(verb.run(&door)));
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
