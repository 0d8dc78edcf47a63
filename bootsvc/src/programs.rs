//! Programs of the system that are asked something, and answer soon.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Seek as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a program may take to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(15);

/// How often it is looked whether it has.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Longest answer that is read: two thousand lines of a log, with all that is known of them.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// What a program has answered.
pub(crate) struct Answer {
    /// Whether it ended with 0.
    pub(crate) is_done: bool,
    /// What it printed.
    pub(crate) output: String,
    /// What it complained of.
    pub(crate) complaint: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    /// It is not installed.
    #[error("{0} is not installed here")]
    Missing(String),
    /// It takes too long.
    #[error("{program} has not answered within {seconds} s")]
    Silent { program: String, seconds: u64 },
    /// It can't be started, or what it says can't be kept.
    #[error("can't run {0}")]
    Failed(String, #[source] io::Error),
}

/// Has a program of the system answer, in the language of programs.
///
/// # Errors
/// See [`NoAnswer`]. That it has ended with another number than 0 is an answer.
pub(crate) fn ask(program: &str, arguments: &[&str]) -> Result<Answer, NoAnswer> {
    ask_within(ANSWER_DEADLINE, program, arguments)
}

/// The same of one that may take so long.
///
/// # Errors
/// As [`ask`].
pub(crate) fn ask_within(
    deadline: Duration,
    program: &str,
    arguments: &[&str],
) -> Result<Answer, NoAnswer> {
    let failed = |error: io::Error| NoAnswer::Failed(program.to_owned(), error);
    // Files, since who reads two pipes in turn may wait for ever.
    let (mut output, mut complaint) =
        (tempfile::tempfile().map_err(failed)?, tempfile::tempfile().map_err(failed)?);
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
    command.stdout(output.try_clone().map_err(failed)?);
    command.stderr(complaint.try_clone().map_err(failed)?);
    let mut child = command.spawn().map_err(|error| match error.kind() {
        ErrorKind::NotFound => NoAnswer::Missing(program.to_owned()),
        _ => failed(error),
    })?;
    let end = Instant::now() + deadline;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        if Instant::now() > end {
            let _ = child.kill().and_then(|()| child.wait());
            let (program, seconds) = (program.to_owned(), deadline.as_secs());
            return Err(NoAnswer::Silent { program, seconds });
        }
        std::thread::sleep(LOOK_INTERVAL);
    };
    Ok(Answer {
        is_done: status.success(),
        output: text(&mut output).map_err(failed)?,
        complaint: text(&mut complaint).map_err(failed)?,
    })
}

fn text(file: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_says_and_how_it_ends_is_told_apart_from_none() {
        let answer = ask("sh", &["-c", "echo this; echo that >&2; exit 3"]).unwrap();
        assert_eq!(
            (answer.is_done, &*answer.output, &*answer.complaint),
            (false, "this\n", "that\n")
        );
        let none = ask("no-such-program-here", &[]);
        assert!(matches!(none, Err(NoAnswer::Missing(_))));
    }
}
