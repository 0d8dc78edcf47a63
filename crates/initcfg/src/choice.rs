//! What is said of a text that is none of a few words.

use alloc::string::String;

/// Letters of the text that the error keeps: whoever typed it recognizes it, and no log fills with it.
const SHOWN_MAX: usize = 64;

/// The text is not one of the choices.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {wanted}")]
pub struct ParseChoiceError {
    /// The text, cut after 64 letters.
    pub text: String,
    /// The choices, in words that can follow "is not".
    pub wanted: &'static str,
}

impl ParseChoiceError {
    /// `text` is none of the choices, which `wanted` names: "a root kind: use nbd or aoe".
    pub fn new(text: &str, wanted: &'static str) -> Self {
        Self { text: text.chars().take(SHOWN_MAX).collect(), wanted }
    }
}
