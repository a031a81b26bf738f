//! What is answered.

use crate::exit::{Exit, explain};
use hyper::StatusCode;
use serde_json::{Value, json};

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) kind: &'static str,
    pub(super) body: String,
    /// One more header, where there is one.
    pub(super) header: Option<(&'static str, String)>,
}

pub(super) const JSON: &str = "application/json";

impl Answer {
    pub(super) fn json(status: StatusCode, json: &Value) -> Self {
        Self { status, kind: JSON, body: format!("{json:#}\n"), header: None }
    }

    pub(super) fn done(json: &Value) -> Self {
        Self::json(StatusCode::OK, json)
    }

    pub(super) fn text(kind: &'static str, body: String) -> Self {
        Self { status: StatusCode::OK, kind, body, header: None }
    }

    /// What was asked for is not done, and why, and what to do.
    pub(super) fn refused(status: StatusCode, why: &str, way_out: &str) -> Self {
        Self::json(status, &json!({ "error": why, "way_out": way_out }))
    }

    pub(super) fn with(self, name: &'static str, value: String) -> Self {
        Self { header: Some((name, value)), ..self }
    }

    /// An error of a verb's, by what its reader does next.
    pub(super) fn failed(error: &anyhow::Error) -> Self {
        let explained = explain(error);
        let status = match explained.exit {
            Exit::Usage => StatusCode::BAD_REQUEST,
            Exit::Nothing => StatusCode::NOT_FOUND,
            Exit::Refused => StatusCode::CONFLICT,
            Exit::Source => StatusCode::UNPROCESSABLE_ENTITY,
            Exit::Corrupt => StatusCode::INTERNAL_SERVER_ERROR,
            Exit::Failed | Exit::Done => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::json(
            status,
            &json!({ "error": explained.cause, "way_out": explained.way_out, "exit": explained.exit.word() }),
        )
    }
}
