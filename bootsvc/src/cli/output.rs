//! What commands write to standard output: all of it goes through here, so that what can't be written is never taken for
//! told.

use crate::paths::Paths;
use nix::sys::signal::Signal;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::AsFd as _;

/// A line on standard output. If that can't be written the process ends, as its caller would believe what is missing to
/// be none: with a message, or, if whoever read has had enough, silently as by SIGPIPE.
pub(super) fn say(line: impl Display) {
    if let Err(error) = write_line(line) {
        std::process::exit(unwritten(&error).into());
    }
}

/// The same of a server, which serves whether somebody reads that or not.
pub(super) fn announce(line: impl Display) {
    match write_line(line) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            std::process::exit(unwritten(&error).into());
        }
        _ => {}
    }
}

/// The same for a text that names commands, which are to work as they are printed.
pub(super) fn advise(paths: &Paths, text: &str) {
    say(paths.commands().complete(text));
}

/// A line on standard error, for people: standard output may be what was asked for.
pub(super) fn note(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// A line on standard output.
///
/// # Errors
/// It can't be written.
pub(super) fn write_line(line: impl Display) -> io::Result<()> {
    writeln!(io::stdout(), "{}", plain(&line.to_string()))
}

/// Some of what is printed others have written: names of files in an image, kernel logs, answers of other servers. None of it
/// does anything to the terminal.
pub(super) fn plain(text: &str) -> String {
    let shown =
        |it: char| if it.is_control() && it != '\n' && it != '\t' { '\u{fffd}' } else { it };
    text.chars().map(shown).collect()
}

/// Tells why standard output can't be written, if that is to be told; the exit code.
pub(super) fn unwritten(error: &io::Error) -> u8 {
    // What shells call a program that a signal ended.
    const SIGNALED: u8 = 128;
    if error.kind() == ErrorKind::BrokenPipe {
        return SIGNALED + Signal::SIGPIPE as u8;
    }
    let _ = writeln!(io::stderr(), "bootlace: can't write to standard output: {error}");
    1
}

/// Whether nothing that is written to standard output is kept: it is closed, in whose place Rust opens `/dev/null`, or is
/// that.
pub(super) fn leads_nowhere() -> bool {
    use rustix::fs::{FileType, fstat, major, minor};
    fstat(io::stdout().as_fd()).is_ok_and(|about| {
        let is_null = (major(about.st_rdev), minor(about.st_rdev)) == (1, 3);
        FileType::from_raw_mode(about.st_mode) == FileType::CharacterDevice && is_null
    })
}

/// Rows below headings, in columns two spaces apart.
pub(super) fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = headings.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: [&str; N]| {
        let padded: Vec<String> =
            cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(headings)];
    lines.extend(rows.iter().map(|row| line(row.each_ref().map(String::as_str))));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_have_written_does_nothing_to_the_terminal() {
        assert_eq!(plain("a\tb\nc"), "a\tb\nc");
        assert_eq!(plain("\u{1b}[2J\u{9b}31m\r\u{7}"), "\u{fffd}[2J\u{fffd}31m\u{fffd}\u{fffd}");
    }

    #[test]
    fn tables_line_up() {
        let rows = [["pc-1".into(), "x".into()], ["a".into(), "y".into()]];
        assert_eq!(table(["NAME", "IMAGE"], &rows), "NAME  IMAGE\npc-1  x\na     y");
    }
}
