//! `littoral_setting(path, name, value)`: a parameter of the URI of a database that is opened later, for drivers that pass no URI.
//! `vfs`, `littoral` makes it ours and says nothing else; NULL takes back what was said. Databases that are open keep what they have.

use super::{Cell, Function, Refusal, Run};
use crate::{beforehand, said};
use std::path::Path;

/// Answers what was said.
pub(super) const SETTING: Function =
    Function { name: "littoral_setting", arguments_max: 3, run: Run::OfDatabase(|_, said| set(said)) };

fn set(arguments: &[Option<String>]) -> Result<Cell, Refusal> {
    let [Some(path), Some(name), value] = arguments else {
        return Err(Refusal::usage(
            "littoral_setting takes a database's path, a setting's name and its value, or NULL for none: \
             littoral_setting('app.db', 'remote', 's3://bucket/prefix')",
        ));
    };
    said::refuse_unknown(name).map_err(Refusal::usage)?;
    beforehand::say(Path::new(path), name, value.as_deref())
        .map_err(|error| Refusal::usage(format!("{path}: no database can be there: {error}")))?;
    Ok(value.as_deref().map_or(Cell::Null, Cell::text))
}
