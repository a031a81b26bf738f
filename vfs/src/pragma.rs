//! `PRAGMA littoral_…`: each is the function of the same name.

use crate::sql::{FUNCTIONS, Refusal, Target};
use littoral_engine::settings::nearest;

/// What our pragmas begin with.
const PREFIX: &str = "littoral_";

/// Answers a pragma. `None` when it is not one of ours.
pub(crate) fn run(target: &Target, name: &str, argument: Option<&str>) -> Option<Result<String, Refusal>> {
    let name = name.to_ascii_lowercase();
    if !name.starts_with(PREFIX) {
        return None;
    }
    let Some(function) = FUNCTIONS.iter().find(|function| function.name == name) else {
        return Some(Err(unknown(&name)));
    };
    let arguments: Vec<Option<String>> = argument.map(|argument| Some(argument.to_owned())).into_iter().collect();
    if arguments.len() > usize::try_from(function.arguments_max).unwrap_or(0) {
        return Some(Err(Refusal::usage(format!("PRAGMA {name} takes no value: leave it out"))));
    }
    Some((function.run)(Some(target), &arguments).map(|cell| cell.shown()))
}

fn unknown(name: &str) -> Refusal {
    let rest = |name: &'static str| name.strip_prefix(PREFIX).unwrap_or(name);
    let known: Vec<&str> = FUNCTIONS.iter().map(|function| rest(function.name)).collect();
    let said = name.strip_prefix(PREFIX).unwrap_or(name);
    let message = match nearest(said, known.iter().copied()) {
        Some(near) => format!("there is no PRAGMA {name}; did you mean {PREFIX}{near}?"),
        None => format!("there is no PRAGMA {name}; there are {PREFIX}{}", known.join(&format!(", {PREFIX}"))),
    };
    Refusal::usage(message)
}
