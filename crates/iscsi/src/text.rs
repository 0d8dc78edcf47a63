//! Text keys: `KEY=VALUE`, each ended by a NUL (RFC 7143 §6.1).

use alloc::string::String;
use alloc::vec::Vec;

/// Longest text in bytes that a login takes; real targets send some hundred.
pub const TEXT_MAX: usize = 8192;

/// The text is no list of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the target's text is not a list of keys")]
pub struct BadText;

/// Keys and values in their order.
///
/// # Errors
/// Longer than [`TEXT_MAX`], no UTF-8, or a line without `=`.
pub fn parse_keys(bytes: &[u8]) -> Result<Vec<(&str, &str)>, BadText> {
    if bytes.len() > TEXT_MAX {
        return Err(BadText);
    }
    let text = core::str::from_utf8(bytes).map_err(|_| BadText)?;
    // The padding to four bytes looks like empty lines.
    let lines = text.split('\0').filter(|line| !line.is_empty());
    lines.map(|line| line.split_once('=').ok_or(BadText)).collect()
}

/// Keys and values as they are sent: `KEY=VALUE`, each ended by a NUL.
pub(crate) fn emit_keys(keys: &[(&str, &str)]) -> Vec<u8> {
    let mut text = String::new();
    for (key, value) in keys {
        text.push_str(key);
        text.push('=');
        text.push_str(value);
        text.push('\0');
    }
    text.into_bytes()
}
