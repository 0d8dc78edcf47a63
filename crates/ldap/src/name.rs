//! Names of people in distinguished names (RFC 4514).

use alloc::string::String;
use core::fmt::Write as _;

/// What stands for the name of who logs in.
pub const NAME: &str = "{name}";

/// A distinguished name in which that of who logs in has a place: `uid={name},ou=people,dc=example`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnPattern(String);

impl DnPattern {
    /// `None`: there is no place for the name, or several.
    pub fn new(text: &str) -> Option<Self> {
        (text.matches(NAME).count() == 1).then(|| Self(text.into()))
    }

    /// The distinguished name of who has this name.
    pub fn of(&self, name: &str) -> String {
        self.0.replacen(NAME, &escaped(name), 1)
    }
}

/// A value as it stands in a distinguished name, whatever is in it (RFC 4514, 2.4).
fn escaped(value: &str) -> String {
    let mut out = String::new();
    for (at, letter) in value.char_indices() {
        let is_first = at == 0;
        let is_last = at + letter.len_utf8() == value.len();
        match letter {
            '"' | '+' | ',' | ';' | '<' | '=' | '>' | '\\' => out.extend(['\\', letter]),
            '#' if is_first => out.push_str("\\#"),
            ' ' if is_first || is_last => out.push_str("\\ "),
            control if control.is_ascii_control() => {
                let _ = write!(out, "\\{:02x}", control as u32);
            }
            plain => out.push(plain),
        }
    }
    out
}
