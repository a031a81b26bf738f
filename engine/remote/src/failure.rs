//! Why one attempt failed, in words that decide what the next step is.

use crate::raw::Seen;

/// One attempt's failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nothing left this machine. Try again.
    NotSent(String),
    /// Sent, and the answer lost, late, broken off or "I failed": it may have been done. Try again, knowing that.
    Lost(String),
    /// The store asks for patience and did nothing. Try again later.
    Throttled(String),
    /// It asks for patience, and may have done it all the same (a 503 may be a proxy's). Try again later, knowing that.
    Overloaded(String),
    /// The same as another one, by a store that also says when to come again: after so many milliseconds.
    Later {
        /// How long it wants to be left alone.
        after_ms: u64,
        /// What else it meant.
        failure: Box<Failure>,
    },
    /// S3's 409 on a conditional PUT: another one is under way. Nothing was done; try again (rule P5).
    Conflict(String),
    /// What arrived is not what was sent, in one direction or the other. Try again.
    Damaged(String),
    /// Something is there already.
    Taken,
    /// No such object.
    Missing,
    /// No such multipart upload: aborted, or completed by an attempt whose answer was lost.
    NoUpload,
    /// The range lies beyond the object's end.
    OutOfRange,
    /// No such bucket.
    NoBucket,
    /// The store refuses, and will go on refusing.
    Denied(String),
    /// It does not take these keys, or not any more. Others may be had meanwhile.
    Keys(String),
    /// The store has no room.
    Full(String),
    /// The store does not know how to do this.
    NotImplemented(String),
    /// The settings cannot work.
    Settings(String),
}

impl Failure {
    /// Whether another attempt may fare better.
    pub(crate) fn passes(&self) -> bool {
        use Failure::*;
        match self {
            Later { failure, .. } => failure.passes(),
            failure => {
                matches!(failure, NotSent(_) | Lost(_) | Throttled(_) | Overloaded(_) | Conflict(_) | Damaged(_))
            }
        }
    }

    /// What it is, and when the store wants to be asked again, where it said so.
    pub(crate) fn and_when(self) -> (Self, Option<u64>) {
        match self {
            Failure::Later { after_ms, failure } => (*failure, Some(after_ms)),
            failure => (failure, None),
        }
    }

    /// Whether what was asked for may have been done all the same.
    pub(crate) fn may_have_landed(&self) -> bool {
        match self {
            Failure::Later { failure, .. } => failure.may_have_landed(),
            failure => matches!(failure, Failure::Lost(_) | Failure::Overloaded(_)),
        }
    }

    /// In words for people.
    pub(crate) fn detail(&self) -> String {
        match self {
            Failure::NotSent(why)
            | Failure::Lost(why)
            | Failure::Throttled(why)
            | Failure::Overloaded(why)
            | Failure::Conflict(why)
            | Failure::Damaged(why)
            | Failure::Denied(why)
            | Failure::Keys(why)
            | Failure::Full(why)
            | Failure::NotImplemented(why)
            | Failure::Settings(why) => why.clone(),
            Failure::Later { failure, .. } => failure.detail(),
            Failure::Taken => "something is there already".to_owned(),
            Failure::Missing => "no such object".to_owned(),
            Failure::NoUpload => "no such multipart upload".to_owned(),
            Failure::OutOfRange => "the range lies beyond the object's end".to_owned(),
            Failure::NoBucket => "no such bucket".to_owned(),
        }
    }
}

/// What an S3 service meant, and when it wants to be asked again. `seen` is what went over the wire, `error` the library's own words where nothing did.
pub(crate) fn of_s3(seen: &Seen, error: &str) -> Failure {
    let failure = meant(seen, error);
    // Dates are not read: no store that is known to us sends one.
    match seen.retry_after.as_deref().and_then(|seconds| seconds.trim().parse::<u64>().ok()) {
        Some(seconds) if failure.passes() => {
            Failure::Later { after_ms: seconds.saturating_mul(1000), failure: Box::new(failure) }
        }
        _ => failure,
    }
}

fn meant(seen: &Seen, error: &str) -> Failure {
    if let Some(why) = &seen.no_credentials {
        return Failure::Denied(why.clone());
    }
    if let Some(why) = &seen.not_sent {
        return Failure::NotSent(why.clone());
    }
    let Some(status) = seen.status else {
        return match &seen.broken {
            Some(why) => Failure::Lost(why.clone()),
            // Nothing was sent and nothing failed: the request could not even be made.
            None if !seen.started => Failure::Settings(short(error)),
            None => Failure::Lost(short(error)),
        };
    };
    let code = seen.code.as_deref().unwrap_or_default();
    let said = said(status, code, seen.message.as_deref());
    // One of our libraries writes codes in small letters.
    match (status, code.to_ascii_lowercase().as_str()) {
        // A success whose body broke off or holds an error document.
        (200..=299, _) => Failure::Lost(short(error)),
        (
            _,
            "baddigest"
            | "invaliddigest"
            | "xamzcontentchecksummismatch"
            | "xamzcontentsha256mismatch"
            | "incompletebody",
        ) => Failure::Damaged(said),
        (_, "requesttimeout") => Failure::Lost(said),
        (_, "slowdown" | "toomanyrequests" | "throttlingexception") if status < 500 => Failure::Throttled(said),
        (_, "slowdown") => Failure::Overloaded(said),
        (_, "xminiostoragefull" | "insufficientstorage" | "quotaexceeded" | "xminioadminbucketquotaexceeded") => {
            Failure::Full(said)
        }
        // Some stores have no code of their own for it.
        (403 | 413, _) if is_full(seen.message.as_deref()) => Failure::Full(said),
        (_, "invalidaccesskeyid" | "invalidclienttokenid") => {
            Failure::Keys(format!("wrong credentials, the access key is not known here ({said})"))
        }
        (_, "signaturedoesnotmatch") => {
            Failure::Keys(format!("wrong credentials, the secret key does not fit the access key ({said})"))
        }
        (_, "expiredtoken" | "tokenrefreshrequired") => Failure::Keys(format!("the credentials have expired ({said})")),
        (_, "invalidtoken") => Failure::Keys(format!("wrong credentials, the session token is not valid ({said})")),
        (_, "requesttimetooskewed") => Failure::Denied(format!("this machine's clock is wrong ({said})")),
        (_, "invalidbucketname") => Failure::Settings(said),
        (_, "authorizationheadermalformed" | "illegallocationconstraintexception") | (301 | 302 | 307 | 308, _) => {
            let region = seen.region.as_deref().map(|region| format!(", which is {region}")).unwrap_or_default();
            Failure::Settings(format!("the bucket is elsewhere: set region= to its own{region}, or endpoint= ({said})"))
        }
        (404, "nosuchbucket") => Failure::NoBucket,
        (404, "nosuchupload") => Failure::NoUpload,
        (404, _) => Failure::Missing,
        (304 | 412, _) => Failure::Taken,
        (409, _) => Failure::Conflict(said),
        (416, _) => Failure::OutOfRange,
        (401 | 403, "") => Failure::Denied(format!("wrong credentials or no permission ({said})")),
        (401 | 403, _) => Failure::Denied(format!("no permission ({said})")),
        (429, _) => Failure::Throttled(said),
        (408, _) => Failure::Lost(said),
        (405 | 501, _) => Failure::NotImplemented(said),
        (507, _) => Failure::Full(said),
        (503, _) => Failure::Overloaded(said),
        (500.., _) => Failure::Lost(said),
        _ => Failure::Denied(said),
    }
}

/// Whether a refusal speaks of room, as those of Garage ("quota is reached") and Backblaze ("storage cap exceeded") do.
fn is_full(message: Option<&str>) -> bool {
    let message = message.unwrap_or_default().to_ascii_lowercase();
    ["quota", "storage cap"].iter().any(|words| message.contains(words))
}

fn said(status: u16, code: &str, message: Option<&str>) -> String {
    let mut said = status.to_string();
    for words in [Some(code), message].into_iter().flatten().filter(|words| !words.is_empty()) {
        said.push(' ');
        said.push_str(&short(words));
    }
    said
}

/// One line of it, and not a long one: what others wrote goes into our errors.
pub(crate) fn short(text: &str) -> String {
    const LONGEST: usize = 300;
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect();
    line.trim().to_owned()
}

/// `Code` and `Message` of an S3 error document. Nothing else of it is looked at: some stores repeat keys in the rest.
pub(crate) fn code_and_message(document: &[u8]) -> (Option<String>, Option<String>) {
    let text = String::from_utf8_lossy(&document[..document.len().min(64 << 10)]);
    if !text.contains("<Error") {
        return (None, None);
    }
    let inside = |tag: &str| {
        let (_, rest) = text.split_once(&format!("<{tag}>"))?;
        let (value, _) = rest.split_once(&format!("</{tag}>"))?;
        let plain = value.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&apos;", "'");
        Some(short(&plain.replace("&amp;", "&"))).filter(|value| !value.is_empty())
    };
    (inside("Code"), inside("Message"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, code: &str) -> Failure {
        of_s3(&seen(status, code), "library words")
    }

    fn seen(status: u16, code: &str) -> Seen {
        Seen { started: true, status: Some(status), code: Some(code.into()), ..Seen::default() }
    }

    #[test]
    fn every_answer_has_its_next_step() {
        use Failure::*;
        let lost = |failure: Failure| assert!(failure.passes() && failure.may_have_landed(), "{failure:?}");
        for (status, code) in [
            (500, "InternalError"),
            (502, ""),
            (503, "SlowDown"),
            (503, ""),
            (504, ""),
            (400, "RequestTimeout"),
            (200, ""),
        ] {
            lost(answered(status, code));
        }
        for failure in
            [answered(429, ""), answered(409, "ConditionalRequestConflict"), answered(409, "OperationAborted")]
        {
            assert!(failure.passes() && !failure.may_have_landed(), "{failure:?}");
        }
        assert!(matches!(answered(409, ""), Conflict(_)));
        assert!(matches!(answered(400, "BadDigest"), Damaged(_)));
        assert!(matches!(answered(412, "PreconditionFailed"), Taken));
        assert!(matches!(answered(404, "NoSuchKey"), Missing));
        assert!(matches!(answered(404, "NoSuchBucket"), NoBucket));
        assert!(matches!(answered(404, "NoSuchUpload"), NoUpload));
        assert!(matches!(answered(416, "InvalidRange"), OutOfRange));
        assert!(matches!(answered(403, "AccessDenied"), Denied(_)));
        assert!(matches!(answered(507, ""), Full(_)));
        assert!(matches!(answered(501, "NotImplemented"), NotImplemented(_)));
        assert!(matches!(answered(301, "PermanentRedirect"), Settings(_)));
        for (status, code) in [
            (507, "XMinioStorageFull"),
            (507, "InsufficientStorage"),
            (403, "QuotaExceeded"),
            (400, "XMinioAdminBucketQuotaExceeded"),
        ] {
            assert!(matches!(answered(status, code), Full(_)), "{code}");
        }
        for (message, is_full) in [
            ("Forbidden: Bucket size quota is reached", true),
            ("Cannot upload files, storage cap exceeded. See the Caps & Alerts page", true),
            ("Access Denied", false),
        ] {
            let seen = Seen { message: Some(message.into()), ..seen(403, "AccessDenied") };
            assert_eq!(matches!(of_s3(&seen, ""), Full(_)), is_full, "{message}");
        }
        for code in ["InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"] {
            let Keys(why) = answered(403, code) else { panic!("{code}") };
            assert!(why.contains("credentials"), "{why}");
        }
    }

    #[test]
    fn a_store_that_says_when_to_come_again_is_heard_where_coming_again_helps() {
        let told = |status, code: &str, after: &str| {
            let seen = Seen { retry_after: Some(after.into()), ..seen(status, code) };
            of_s3(&seen, "").and_when()
        };
        assert!(matches!(told(503, "SlowDown", "3"), (Failure::Overloaded(_), Some(3000))));
        assert!(matches!(told(429, "", " 120 "), (Failure::Throttled(_), Some(120_000))));
        assert!(matches!(told(503, "", "Wed, 21 Oct 2015 07:28:00 GMT"), (Failure::Overloaded(_), None)));
        assert!(matches!(told(403, "AccessDenied", "3"), (Failure::Denied(_), None)));
        let later = of_s3(&Seen { retry_after: Some("1".into()), ..seen(503, "SlowDown") }, "");
        assert!(later.passes() && later.may_have_landed() && later.detail().contains("SlowDown"), "{later:?}");
    }

    #[test]
    fn of_an_error_document_only_code_and_message_are_repeated() {
        let document =
            b"<?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><Message>a &lt;b&gt;\nc</Message>\
            <AWSAccessKeyId>AKIA</AWSAccessKeyId><StringToSign>secret</StringToSign></Error>";
        let (code, message) = code_and_message(document);
        assert_eq!(code.as_deref(), Some("SignatureDoesNotMatch"));
        assert_eq!(message.as_deref(), Some("a <b> c"));
        assert_eq!(code_and_message(b"not xml"), (None, None));
        assert_eq!(code_and_message(b"<Error><Code>"), (None, None));
    }
}
