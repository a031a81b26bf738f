//! `littoral flags FILE`: switches that are thrown while everything works.

use crate::door::Door;
use crate::exit::Fault;
use crate::screen::Told;
use crate::words;
use littoral_engine::flags::{Flag, Flags, Switch, Whose};
use littoral_engine::open::{Place, at_work};
use littoral_engine::settings::{Milliseconds, nearest};
use littoral_ports::Clock;
use serde_json::json;
use std::ffi::OsString;
use std::path::Path;

/// What can be said to it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The database file, whose volume and store it is about
    file: OsString,
    /// What they are to be: NAME=VALUE, or NAME=default to take back what was said; none to show them
    #[arg(value_name = "NAME=VALUE")]
    flags: Vec<String>,
    /// For all volumes of the store for which nothing else was said, instead of this one's
    #[arg(long)]
    all: bool,
    /// For all volumes of the tenant (`tenant=`) for which nothing else was said, instead of this one's
    #[arg(long, conflicts_with = "all")]
    of_tenant: bool,
    /// How long to wait until a checkpoint that is being made when they are switched off is done
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    wait: Milliseconds,
}

impl Args {
    /// Throws these of a database's volume: nobody is waited for.
    pub(crate) fn of(file: &Path, flags: Vec<String>) -> Self {
        Self { file: file.into(), flags, all: false, of_tenant: false, wait: Milliseconds(0) }
    }
}

/// Does it.
pub async fn run(args: Args, door: &Door) -> anyhow::Result<Told> {
    let (place, settings) = door.place(&args.file, None)?;
    let clock = door.components(&settings)?.clock;
    let volume = place.volume.value.clone();
    let Place { store: Some(store), .. } = &place else {
        return Err(Fault::usage(
            format!("{} has no store yet, and so nothing that could be switched", Path::new(&args.file).display()),
            "open it through littoral first, or give a database file instead of a URL",
        )
        .into());
    };
    let tenant = settings.tenant();
    let whose = match (args.all, args.of_tenant, tenant) {
        (true, ..) => Whose::All,
        (false, false, _) => Whose::Volume(volume.clone()),
        (false, true, Some(tenant)) => Whose::Tenant(tenant.to_owned()),
        (false, true, None) => {
            let message = format!("{} is no tenant's", Path::new(&args.file).display());
            return Err(Fault::usage(message, "say --tenant NAME, or tenant= in littoral.toml beside it").into());
        }
    };
    let thrown: Vec<(Flag, Option<Switch>)> = args.flags.iter().map(|said| read(said)).collect::<Result<_, _>>()?;
    let mut flags = Flags::of(store.root()).map_err(littoral_engine::EngineError::from)?;
    let are_made = |flags: &Flags| flags.of_volume(Flag::EnableCheckpoints, &volume, tenant).0.is_on();
    let were_made = are_made(&flags);
    for (flag, to) in &thrown {
        flags.throw(&whose, *flag, *to);
    }
    if !thrown.is_empty() {
        flags.keep(store.root()).map_err(littoral_engine::EngineError::from)?;
    }
    // Whoever makes one just now ends it: nothing is begun after that.
    let busy = if were_made && !are_made(&flags) { drained(store.root(), args.wait.0, &*clock).await } else { None };
    if let Some(who) = &busy {
        door.screen.warn(&format!("{who} is still at work in this store; what it makes it makes to its end, and none is begun after it"));
    }
    let shown = Flag::ALL.map(|flag| {
        let (switch, by) = flags.of_volume(flag, &volume, tenant);
        (flag, switch, by.map_or_else(|| "default".to_owned(), |by| by.to_string()))
    });
    let json = json!({
        "verb": "flags",
        "volume": place.url(),
        "file": Flags::path_of(store.root()),
        "flags": shown.iter().map(|(flag, switch, by)| {
            let value = match switch {
                Switch::Is(is) => json!(is),
                Switch::Every(seconds) => json!(seconds),
            };
            (flag.name().to_owned(), json!({ "value": value, "said_of": by }))
        }).collect::<serde_json::Map<_, _>>(),
        "at_work": busy,
    });
    let rows: Vec<Vec<String>> =
        shown.iter().map(|(flag, switch, by)| vec![flag.to_string(), switch.to_string(), by.clone()]).collect();
    Ok(Told::done(json, words::table(&["flag", "is", "said of"], &rows)))
}

fn read(said: &str) -> Result<(Flag, Option<Switch>), Fault> {
    let known = || Flag::ALL.map(Flag::name).join(", ");
    let Some((name, value)) = said.split_once('=') else {
        return Err(Fault::usage(format!("{said:?} says no value"), "write NAME=VALUE, as in enable_checkpoints=false"));
    };
    let flag: Flag = name.trim().parse().map_err(|()| {
        let way_out = match nearest(name.trim(), Flag::ALL.map(Flag::name)) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("there are {}", known()),
        };
        Fault::usage(format!("there is no flag {:?}", name.trim()), &way_out)
    })?;
    match value.trim() {
        "default" => Ok((flag, None)),
        value => match flag.read(value) {
            Some(switch) => Ok((flag, Some(switch))),
            None => Err(Fault::usage(format!("{flag} cannot be {value:?}"), &format!("it is {}", flag.takes()))),
        },
    }
}

/// Waits until nobody makes a checkpoint in a store any more: who still does when that took too long.
async fn drained(store: &Path, wait_ms: u64, clock: &dyn Clock) -> Option<String> {
    let begun = clock.boot_ms();
    loop {
        let who = at_work(store)?;
        if clock.boot_ms().saturating_sub(begun) >= wait_ms {
            return Some(who);
        }
        clock.sleep_ms(50).await;
    }
}
