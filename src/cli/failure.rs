//! How a command fails: what went wrong, why, and what to do about it.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::Result;
use fourstep::store;

use super::terminal;

/// The exit code of a finished command; a failure is told on standard error.
pub(crate) fn exit_code(result: Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        let (red, plain) = if terminal::colors(&io::stderr()) { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
        // Nothing is left to tell it to when standard error is closed as well.
        let _ = write!(io::stderr(), "{red}error{plain}: {}", describe(&error));
        ExitCode::FAILURE
    })
}

/// The error, its causes, and advice where there is some.
fn describe(error: &anyhow::Error) -> String {
    let mut text = format!("{}\n", causes(error).join("\n  because: "));
    if let Some(advice) = advice(error) {
        text += &format!("  {advice}\n");
    }
    text
}

/// The error and its causes, without those that add nothing: some libraries' errors repeat their cause in their text.
pub(crate) fn causes(error: &anyhow::Error) -> Vec<String> {
    let mut told: Vec<String> = Vec::new();
    for cause in error.chain().map(ToString::to_string) {
        if !told.last().is_some_and(|effect| effect.contains(&cause)) {
            told.push(cause);
        }
    }
    told
}

/// For errors that cannot know what they mean here. Most of ours say themselves what to do.
fn advice(error: &anyhow::Error) -> Option<&'static str> {
    error.chain().find_map(|cause| {
        if let Some(store::Error::Unavailable(_)) = cause.downcast_ref() {
            return Some("Is the database up, and is DATABASE_URL right? `fourstep doctor` looks at both.");
        }
        match cause.downcast_ref::<io::Error>()?.kind() {
            io::ErrorKind::AddrInUse => {
                Some("Another program listens there: stop it, or choose another port with --listen 127.0.0.1:0.")
            }
            io::ErrorKind::StorageFull => Some("Free some space, or put the data elsewhere with --data-dir."),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_failure_tells_every_cause_once_and_what_to_do() {
        let error = Err::<(), _>(io::Error::from(io::ErrorKind::AddrInUse))
            .context("could not listen on 127.0.0.1:8000")
            .expect_err("made so");
        let text = describe(&error);
        assert!(text.starts_with("could not listen on 127.0.0.1:8000\n  because: "), "{text}");
        assert!(text.contains("--listen 127.0.0.1:0"), "{text}");
    }

    #[test]
    fn a_cause_that_its_error_already_tells_is_not_repeated() {
        let error =
            anyhow::Error::from(store::Error::Unavailable(sqlx::Error::PoolTimedOut.into())).context("no database");
        let text = describe(&error);
        assert_eq!(text.matches("pool timed out").count(), 1, "{text}");
    }
}
