//! `littoral serve FILE ...`: answers who watches, until it is told to stop.

use super::worker::{HEARS, Which};
use crate::door::Door;
use crate::exit::Fault;
use crate::notify::notify;
use crate::screen::Told;
use crate::serve::look::{Paths, Watched};
use crate::serve::{LISTEN, Running, Server, Token, start};
use anyhow::Context;
use littoral_engine::settings::TOKEN_VARIABLE;
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// What can be said to it.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    which: Which,
    /// Where it answers: an address and a port, 0 for any that is free [default: metrics_listen=, else 127.0.0.1:9464]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// A file with the token that administrators' calls take, and all calls from beyond this machine [default: LITTORAL_ADMIN_TOKEN]
    #[arg(long = "token-file", value_name = "PATH")]
    token_file: Option<PathBuf>,
}

/// Does it.
pub async fn run(args: Args, door: &Door) -> anyhow::Result<Told> {
    args.which.refuse(door)?;
    let said = door.settings(args.which.first().as_deref())?.metrics_listen.value;
    let address = args.listen.or(said).map_or_else(|| LISTEN.parse().context(LISTEN), Ok)?;
    let token = token(door, args.token_file.as_ref())?;
    let stops = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        // The second one ends it as if nobody listened.
        flag::register_conditional_default(signal, stops.clone())?;
        flag::register(signal, stops.clone())?;
    }
    let which = args.which;
    let running = begin(door, address, token, Box::new(move || which.wanted().into_iter().chain(which.named_logs()).collect()))?;
    told_where(door, &running);
    notify("READY=1");
    while !stops.load(Ordering::SeqCst) {
        thread::sleep(HEARS);
    }
    notify("STOPPING=1");
    drop(running);
    Ok(Told::done(json!({ "verb": "serve" }), "stopped\n".to_owned()))
}

/// Tells where it answers.
pub(super) fn told_where(door: &Door, running: &Running) {
    let url = format!("http://{}/", running.address);
    door.screen.event(&json!({ "event": "listens", "address": running.address.to_string(), "url": url }), &format!("listens: {url}"));
}

/// The administrator's token, where there is one.
pub(super) fn token(door: &Door, file: Option<&PathBuf>) -> anyhow::Result<Option<Token>> {
    let (text, from) = match file {
        Some(path) => {
            let wrong = |error| Fault::usage(format!("--token-file: {} cannot be read: {error}", path.display()), "correct the path, or leave it out");
            (std::fs::read_to_string(path).map_err(wrong)?, format!("--token-file: {}", path.display()))
        }
        None => match door.variable(TOKEN_VARIABLE) {
            None => return Ok(None),
            Some(text) => (text.to_string_lossy().into_owned(), TOKEN_VARIABLE.to_owned()),
        },
    };
    let way_out = "make one: head -c 24 /dev/urandom | base64 > FILE, readable for its user alone";
    Ok(Some(Token::new(&text).map_err(|why| Fault::usage(format!("{from}: the token is none: {why}"), way_out))?))
}

/// Begins to answer.
pub(super) fn begin(door: &Door, address: SocketAddr, token: Option<Token>, paths: Paths) -> anyhow::Result<Running> {
    if !address.ip().to_canonical().is_loopback() && token.is_none() {
        let message = format!(
            "{address} can be reached from beyond this machine, and there is no token: whoever reaches it would learn where databases are"
        );
        let way_out = "set LITTORAL_ADMIN_TOKEN (or --token-file), or listen on 127.0.0.1";
        return Err(Fault::usage(message, way_out).into());
    }
    let behind = door.behind(door.said().to_vec());
    start(address, |address| Server::new(behind, Watched::new(paths), token, address))
}
