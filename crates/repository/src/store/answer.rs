//! What a provider's answer means: OpenDAL's errors, sorted and freed of what could be secret.
//!
//! OpenDAL prints requests' addresses with an error, and these can be signed. So of its errors only the message, which is
//! what the server said, and the messages of its sources are taken, each cut to a length that can be read.

use super::{At, Operation, StoreError, error::Source};
use opendal::ErrorKind;
use std::{error::Error, fmt};

/// How much of each message is kept: a sentence, not a page of HTML.
const MESSAGE_CHARS_MAX: usize = 300;

/// How long a chain of causes is followed.
const CAUSES_MAX: usize = 12;

/// Sorts an error of OpenDAL.
pub(super) fn failed(at: At, error: &opendal::Error) -> StoreError {
    let source = || Box::new(Cause::of(error));
    let creating = matches!(
        at.operation,
        Operation::Create
            | Operation::Write
            | Operation::Finish
            | Operation::Probe
            | Operation::List
    );
    match error.kind() {
        ErrorKind::ConditionNotMatch | ErrorKind::AlreadyExists => StoreError::Exists { at },
        ErrorKind::PermissionDenied => match Meaning::of(error) {
            Some(Meaning::Locked) => StoreError::Locked { at, until: None },
            _ => StoreError::Denied { at, source: source() },
        },
        // What is to be created can only miss its bucket. OpenDAL takes S3's NoSuchBucket for a wrong setting.
        ErrorKind::NotFound if creating => StoreError::NoSuchBucket { at, source: source() },
        ErrorKind::NotFound => StoreError::NotFound { at },
        ErrorKind::ConfigInvalid => StoreError::NoSuchBucket { at, source: source() },
        ErrorKind::RateLimited => StoreError::Unreachable { at, source: source() },
        _ => match Meaning::of(error) {
            Some(Meaning::Denied) => StoreError::Denied { at, source: source() },
            Some(Meaning::Locked) => StoreError::Locked { at, until: None },
            Some(Meaning::NoSpace) => StoreError::NoSpace { at, source: source() },
            Some(Meaning::Unreachable) => StoreError::Unreachable { at, source: source() },
            // Temporary errors were retried until they became persistent ones.
            None if error.is_temporary() || error.is_persistent() => {
                StoreError::Unreachable { at, source: source() }
            }
            None => StoreError::Io { at, source: source() },
        },
    }
}

/// What OpenDAL has no kind for.
#[derive(Clone, Copy)]
enum Meaning {
    Denied,
    Locked,
    NoSpace,
    Unreachable,
}

impl Meaning {
    fn of(error: &opendal::Error) -> Option<Self> {
        match code(error.message()) {
            Some("ExpiredToken" | "InvalidToken" | "TokenRefreshRequired") => {
                return Some(Self::Denied);
            }
            Some("RequestTimeTooSkewed") => return Some(Self::Denied),
            Some("retentionPolicyNotMet" | "BlobImmutableDueToPolicy" | "FileImmutable") => {
                return Some(Self::Locked);
            }
            Some("XMinioStorageFull" | "InsufficientStorage" | "QuotaExceeded") => {
                return Some(Self::NoSpace);
            }
            _ => {}
        }
        let mut cause = error.source();
        while let Some(error) = cause {
            if error.is::<reqsign_core::Error>() {
                return Some(Self::Denied);
            }
            if error.is::<reqwest::Error>() {
                return Some(Self::Unreachable);
            }
            cause = error.source();
        }
        None
    }
}

/// The provider's code, which OpenDAL gives only inside its message: `S3Error { code: "ExpiredToken", … }`.
fn code(message: &str) -> Option<&str> {
    quoted(message, "code: \"")
}

fn quoted<'a>(message: &'a str, before: &str) -> Option<&'a str> {
    let (_, rest) = message.split_once(before)?;
    rest.split_once('"').map(|(text, _)| text).filter(|text| !text.is_empty())
}

/// What a provider said, and why.
#[derive(Debug)]
pub(super) struct Cause {
    message: String,
    /// Whether the store has said that, so that there is one.
    is_answer: bool,
    source: Option<Box<Cause>>,
}

impl Cause {
    pub(super) fn new(message: &str) -> Self {
        Self { message: cut(message), is_answer: false, source: None }
    }

    fn of(error: &opendal::Error) -> Self {
        let message = match (code(error.message()), quoted(error.message(), "message: \"")) {
            (Some(code), Some(said)) => format!("{code}: {said}"),
            (Some(code), None) => code.to_owned(),
            (None, _) if error.message().trim().is_empty() => {
                format!("the store answered: {}", error.kind())
            }
            (None, _) => error.message().to_owned(),
        };
        Self {
            message: cut(&message),
            is_answer: code(error.message()).is_some(),
            source: Self::of_sources(error.source(), CAUSES_MAX),
        }
    }

    fn of_sources(error: Option<&(dyn Error + 'static)>, left: usize) -> Option<Box<Self>> {
        let error = error.filter(|_| left > 0)?;
        let rest = Self::of_sources(error.source(), left - 1);
        let message = match error.downcast_ref::<opendal::Error>() {
            Some(error) => cut(error.message()),
            None => cut(&error.to_string()),
        };
        // Some errors print their source, and some chains repeat themselves.
        if rest.as_ref().is_some_and(|rest| rest.message == message) {
            return rest;
        }
        Some(Box::new(Self { message, is_answer: false, source: rest }))
    }
}

/// Whether a store has answered, if only that it has failed.
pub(super) fn is_answer(source: &Source) -> bool {
    source.downcast_ref::<Cause>().is_some_and(|cause| cause.is_answer)
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Cause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

/// One line of at most that many characters, without the query of any address in it.
fn cut(message: &str) -> String {
    let mut words = Vec::new();
    for word in message.split_whitespace() {
        match word.split_once('?') {
            Some((address, _)) if word.contains("://") => words.push(address),
            _ => words.push(word),
        }
    }
    let line = words.join(" ");
    match line.char_indices().nth(MESSAGE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(operation: Operation, error: &opendal::Error) -> StoreError {
        failed(At::new("s3://b", operation, "x"), error)
    }

    #[test]
    fn answers_are_sorted_by_what_to_do_about_them() {
        use Operation::{Create, Read};
        let error = |kind, message: &str| opendal::Error::new(kind, message);
        let expired =
            error(ErrorKind::Unexpected, r#"S3Error { code: "ExpiredToken", message: "old" }"#);
        assert!(sorted(Read, &expired).is_denied());
        assert!(sorted(Read, &error(ErrorKind::PermissionDenied, "")).is_denied());
        assert!(
            sorted(Read, &error(ErrorKind::Unexpected, "500").set_temporary()).is_unreachable()
        );
        assert!(
            sorted(Read, &error(ErrorKind::Unexpected, "500").set_persistent()).is_unreachable()
        );
        assert!(sorted(Read, &error(ErrorKind::RateLimited, "")).is_unreachable());
        assert!(sorted(Read, &error(ErrorKind::NotFound, "")).is_not_found());
        let bucket = sorted(Create, &error(ErrorKind::NotFound, ""));
        assert!(matches!(bucket, StoreError::NoSuchBucket { .. }));
        assert!(sorted(Create, &error(ErrorKind::ConditionNotMatch, "")).is_exists());
        let sign = error(ErrorKind::Unexpected, "signing")
            .set_source(reqsign_core::Error::credential_invalid("none"));
        assert!(sorted(Read, &sign).is_denied());
        let immutable = error(ErrorKind::Conflict, r#"E { code: "BlobImmutableDueToPolicy" }"#);
        assert!(matches!(sorted(Operation::Delete, &immutable), StoreError::Locked { .. }));
        assert!(matches!(sorted(Read, &error(ErrorKind::Unexpected, "?")), StoreError::Io { .. }));
        // Some stores say no more than that of a bucket that there is not.
        let internal = r#"S3Error { code: "InternalError", message: "try again" }"#;
        let internal = sorted(Read, &error(ErrorKind::Unexpected, internal).set_persistent());
        assert!(internal.is_unreachable() && internal.remedy().contains("such a bucket"));
    }

    #[test]
    fn no_signed_address_is_repeated() {
        let inner = std::io::Error::other("GET https://h/b?X-Amz-Signature=hunter2&x failed");
        let error = opendal::Error::new(ErrorKind::Unexpected, "send")
            .with_context("url", "https://h/?sig=hunter2")
            .set_source(inner);
        let error = sorted(Operation::Read, &error);
        let mut texts = vec![format!("{error:?}")];
        let mut cause: Option<&dyn Error> = Some(&error);
        while let Some(error) = cause {
            texts.push(error.to_string());
            cause = error.source();
        }
        assert_eq!(texts.len(), 4);
        assert!(texts.iter().all(|text| !text.contains("hunter2")), "{texts:#?}");
        assert_eq!(texts[3], "GET https://h/b failed");
    }
}
