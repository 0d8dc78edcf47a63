//! Values of a machine in the text of a file: `{{bootlace.name}}`. Nothing else in the text means anything.

use alloc::string::{String, ToString as _};
use core::fmt;

/// Longest value in bytes: a name has 63.
pub const VALUE_MAX: usize = 80;

const BEGIN: &str = "{{bootlace.";
const END: &str = "}}";

/// What a placeholder stands for. Each value is made of letters, digits, `.`, `:`, `-` and `_` only, so that it may stand in
/// quotes or without them, in whatever language the file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placeholder {
    /// The machine's name.
    Name,
    /// Its first MAC address.
    Mac,
    /// The address that it has in this boot.
    Address,
    /// The room that it is in; nothing if it is in none.
    Room,
    /// Its seat there, like `2.7`; nothing if it has none.
    Seat,
    /// Its image, like `debian-12`; nothing if it has none.
    Image,
    /// What becomes of what it writes: `discard`, `persistent` or `ram`.
    WriteMode,
    /// The boot server's address.
    Server,
}

/// The text is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {shown} stands for nothing; known are {}", Known)]
pub struct BadTemplate {
    line: usize,
    shown: String,
}

/// All placeholders, as they are written.
struct Known;

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, placeholder) in Placeholder::ALL.into_iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{BEGIN}{}{END}", placeholder.word())?;
        }
        Ok(())
    }
}

impl Placeholder {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Name,
        Self::Mac,
        Self::Address,
        Self::Room,
        Self::Seat,
        Self::Image,
        Self::WriteMode,
        Self::Server,
    ];

    const fn word(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Mac => "mac",
            Self::Address => "address",
            Self::Room => "room",
            Self::Seat => "seat",
            Self::Image => "image",
            Self::WriteMode => "write_mode",
            Self::Server => "server",
        }
    }
}

/// The text with each placeholder replaced by its value.
///
/// # Errors
/// One is not known, or has no end.
pub fn fill_template(
    text: &str,
    mut value: impl FnMut(Placeholder) -> String,
) -> Result<String, BadTemplate> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find(BEGIN) {
        let (before, found) = rest.split_at(begin);
        filled.push_str(before);
        let inside = &found[BEGIN.len()..];
        let placeholder = inside.split_once(END).and_then(|(word, behind)| {
            let known = Placeholder::ALL.into_iter().find(|known| known.word() == word)?;
            Some((known, behind))
        });
        let Some((placeholder, behind)) = placeholder else {
            let line = text[..text.len() - found.len()].matches('\n').count() + 1;
            let shown = found.lines().next().unwrap_or_default();
            let shown = shown.find(END).map_or(shown, |end| &shown[..end + END.len()]);
            let shown = shown.chars().take(64).collect::<String>().escape_debug().to_string();
            return Err(BadTemplate { line, shown });
        };
        filled.push_str(&value(placeholder));
        rest = behind;
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::borrow::ToOwned as _;
    use alloc::format;

    fn fill(text: &str) -> Result<String, String> {
        fill_template(text, |it| format!("<{}>", it.word())).map_err(|error| error.to_string())
    }

    #[test]
    fn placeholders_get_their_values_and_all_else_stays() {
        let check = |text: &str, filled: &str| assert_eq!(fill(text), Ok(filled.to_owned()));
        check("", "");
        check("host={{bootlace.name}}\n", "host=<name>\n");
        check("{{bootlace.room}}{{bootlace.seat}}", "<room><seat>");
        check("{{ jinja }} ${HOME} @{x} %i {{{{", "{{ jinja }} ${HOME} @{x} %i {{{{");
        check("{{{bootlace.mac}}}", "{<mac>}");
        check("ü{{bootlace.address}}ü", "ü<address>ü");
        for placeholder in Placeholder::ALL {
            let text = format!("{BEGIN}{}{END}", placeholder.word());
            check(&text, &format!("<{}>", placeholder.word()));
        }
    }

    #[test]
    fn what_stands_for_nothing_is_named_with_its_line() {
        let check = |text: &str, expected: &str| {
            let error = fill(text).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
            assert!(error.contains("known are {{bootlace.name}}, {{bootlace.mac}}, "), "{error}");
        };
        check("a\nb {{bootlace.nmae}} c", "line 2: {{bootlace.nmae}} stands for nothing");
        check("{{bootlace.name", "line 1: {{bootlace.name stands for nothing");
        check("{{bootlace.name }}", "line 1: {{bootlace.name }} stands");
        check("{{bootlace.\nname}}", "line 1: {{bootlace. stands");
        check("{{bootlace.\u{1b}[31m}}", "line 1: {{bootlace.\\u{1b}[31m}} stands");
    }

    #[test]
    fn a_value_is_not_read_again() {
        let filled = fill_template("{{bootlace.name}}", |_| "{{bootlace.mac}}".to_owned());
        assert_eq!(filled, Ok("{{bootlace.mac}}".to_owned()));
    }
}
