//! `littoral_lag`: how far what a replica's connection reads is behind.

use super::{Cell, Function, Refusal, Run, Target, ours};

/// Answers JSON: what is read, the newest state that is known here, how many commits lie between, and the seconds since what is read was known
/// to be the newest; and why the volume is not followed, while it is not.
pub(super) const LAG: Function = Function { name: "littoral_lag", arguments_max: 0, run: Run::OfDatabase(lag) };

fn lag(target: Option<&Target>, _: &[Option<String>]) -> Result<Cell, Refusal> {
    let target = ours(target)?;
    let Some(replica) = target.database.replica() else {
        return Err(Refusal::usage(format!(
            "{}: is no replica: it does not follow a volume (mode=ro&follow=1), so it lags behind nobody",
            target.database.path().display()
        )));
    };
    let lag = replica.lag(target.shown);
    let lsns = lag.newest.lsn.0.saturating_sub(lag.shown.lsn.0);
    let trouble = lag.trouble.map_or_else(|| "null".to_owned(), |why| quoted(&why));
    Ok(Cell::Text(format!(
        "{{\"position\":\"{}\",\"newest\":\"{}\",\"lsns\":{lsns},\"seconds\":{}.{:03},\"trouble\":{trouble}}}",
        lag.shown,
        lag.newest,
        lag.ms / 1000,
        lag.ms % 1000
    )))
}

/// A text as JSON spells it.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            letter if letter < ' ' => quoted.push_str(&format!("\\u{:04x}", u32::from(letter))),
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_people_wrote_is_quoted() {
        assert_eq!(super::quoted("a \"b\"\n\\ä"), "\"a \\\"b\\\"\\u000a\\\\ä\"");
    }
}
