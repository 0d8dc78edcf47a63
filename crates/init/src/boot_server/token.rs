//! The secret of this boot, by which the boot server believes what this machine says.

use initcfg::Token;
use std::sync::{Arc, OnceLock};

/// Where later processes find the token; readable by root only.
pub(crate) const TOKEN_PATH: &str = "/run/bootlace/token";

/// The secret of this boot, which may come later than the first reports.
pub(crate) type TokenCell = Arc<OnceLock<Token>>;

/// The line with its proof, as soon as there is one.
pub(crate) fn sealed(token: Option<&Token>, line: String) -> String {
    match token {
        Some(token) => token.seal(&line),
        None => line,
    }
}

/// The token for processes that start later; none if this boot has none.
pub(crate) fn later_token() -> TokenCell {
    let cell = TokenCell::default();
    let token = std::fs::read_to_string(TOKEN_PATH).ok().and_then(|text| text.trim().parse().ok());
    if let Some(token) = token {
        let _ = cell.set(token);
    }
    cell
}
