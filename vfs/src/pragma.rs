//! `PRAGMA littoral_…`: each is the function of the same name.

use crate::past::Past;
use crate::raw::asking::Asking;
use crate::seat::Seat;
use crate::sql::session::{SERIAL, of_past};
use crate::sql::{Refusal, Target, pragmas};
use littoral_engine::settings::nearest;

/// What our pragmas begin with.
const PREFIX: &str = "littoral_";

/// Answers a pragma. `None` when it is not one of ours.
pub(crate) fn run(target: &Target, name: &str, argument: Option<&str>) -> Option<Result<String, Refusal>> {
    let name = name.to_ascii_lowercase();
    if !name.starts_with(PREFIX) {
        return None;
    }
    let Some((function, run)) = pragmas().find(|(function, _)| function.name == name) else {
        return Some(Err(unknown(&name)));
    };
    if function.name == SERIAL.name && argument.is_some() {
        // Hosts keep prepared statements, and a pragma acts when it is prepared.
        let said = argument.unwrap_or_default();
        let message = format!("a serial is given by a function, within its transaction: SELECT {name}({said})");
        return Some(Err(Refusal::usage(message)));
    }
    let arguments: Vec<Option<String>> = argument.map(|argument| Some(argument.to_owned())).into_iter().collect();
    if arguments.len() > usize::try_from(function.arguments_max).unwrap_or(0) {
        return Some(Err(Refusal::usage(format!("PRAGMA {name} takes no value: leave it out"))));
    }
    Some(run(Some(target), &arguments).map(|cell| cell.shown()))
}

/// Answers a pragma of a moment of the past. `None` when it is not one of ours.
pub(crate) fn run_past(
    past: &Past,
    (asking, seat): (Asking, &Seat),
    name: &str,
    argument: Option<&str>,
) -> Option<Result<String, Refusal>> {
    let name = name.to_ascii_lowercase();
    if !name.starts_with(PREFIX) {
        return None;
    }
    if pragmas().all(|(function, _)| function.name != name) {
        return Some(Err(unknown(&name)));
    }
    let said: Vec<Option<String>> = argument.map(|argument| Some(argument.to_owned())).into_iter().collect();
    if let Some(answered) = of_past(asking, seat, &name, &said) {
        return Some(answered.map(|cell| cell.shown()));
    }
    if argument.is_some() {
        return Some(Err(past.refusal(&format!("PRAGMA {name}"))));
    }
    Some(past.answer(&name).map(|cell| cell.shown()))
}

fn unknown(name: &str) -> Refusal {
    let rest = |name: &'static str| name.strip_prefix(PREFIX).unwrap_or(name);
    let known: Vec<&str> = pragmas().map(|(function, _)| rest(function.name)).collect();
    let said = name.strip_prefix(PREFIX).unwrap_or(name);
    let message = match nearest(said, known.iter().copied()) {
        Some(near) => format!("there is no PRAGMA {name}; did you mean {PREFIX}{near}?"),
        None => format!("there is no PRAGMA {name}; there are {PREFIX}{}", known.join(&format!(", {PREFIX}"))),
    };
    Refusal::usage(message)
}
