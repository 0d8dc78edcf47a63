//! Running programs to their end.

use anyhow::{Context, Result, bail};
use std::io::{Seek as _, Write as _};
use std::process::{Command, Stdio};

/// Characters of a command that errors show.
const SHOWN_MAX: usize = 200;

/// Runs the program; its failure is an error with what it said.
///
/// # Errors
/// The program can't be started, or fails.
pub fn run(command: &mut Command) -> Result<()> {
    text_of(command).map(drop)
}

/// Runs the program and returns its standard output, without white space at the ends.
///
/// # Errors
/// The program can't be started, or fails.
pub fn text_of(command: &mut Command) -> Result<String> {
    ended(command, Stdio::null())
}

/// Runs the program with a line on its standard input; its failure is an error with what it said.
///
/// # Errors
/// As [`run`].
pub fn run_with_line(command: &mut Command, line: &str) -> Result<()> {
    let mut file = tempfile::tempfile()?;
    writeln!(file, "{line}")?;
    file.rewind()?;
    ended(command, file.into()).map(drop)
}

fn ended(command: &mut Command, stdin: Stdio) -> Result<String> {
    let output = command
        .stdin(stdin)
        .output()
        .with_context(|| format!("can't start {}", command.get_program().display()))?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        let complaint = if complaint.trim().is_empty() { text.as_str() } else { complaint.trim() };
        bail!("{} failed ({}): {complaint}", words(command), output.status);
    }
    Ok(text)
}

/// The command as one line, without the end of a long one.
fn words(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|argument| argument.to_string_lossy().into_owned()));
    let line = words.join(" ");
    if line.chars().count() <= SHOWN_MAX {
        return line;
    }
    line.chars().take(SHOWN_MAX).chain("…".chars()).collect()
}
