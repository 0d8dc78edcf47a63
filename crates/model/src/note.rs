//! Remarks of people, as they are shown in lists and on terminals.

use alloc::string::String;

/// Longest note, in bytes.
pub const NOTE_MAX: usize = 200;

/// Whether a text may be a note: one line, of letters that are shown where they stand.
pub fn is_note(text: &str) -> bool {
    text.len() <= NOTE_MAX && !text.chars().any(does_something)
}

/// Control characters, and those by which Unicode turns the direction of what follows.
pub fn does_something(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text that others have written as one line that does nothing to a terminal: letters that do something are spaces there.
pub fn one_line(text: &str) -> String {
    text.chars().map(|it| if does_something(it) { ' ' } else { it }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_one_line_that_does_nothing() {
        assert!(is_note("") && is_note("as installed, für alle") && is_note(&"x".repeat(NOTE_MAX)));
        assert!(!is_note(&"x".repeat(NOTE_MAX + 1)));
        for text in ["a\nb", "\u{1b}[2J", "a\tb", "\u{9b}31m", "a\0", "a\u{202e}b"] {
            assert!(!is_note(text), "{text:?}");
            assert!(is_note(&one_line(text)), "{text:?}");
        }
    }
}
