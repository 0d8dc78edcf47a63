//! Who asks: accounts, sessions, tokens, and what each may do.
//!
//! Somebody who asks for something is an [`Actor`]. What a [`Viewer`], an [`Operator`] and an [`Admin`] may ask for are
//! methods of these types, so nothing can be asked without the right to it.

mod actor;
mod audit;
mod directory;
mod login;
mod restore;
mod rights;
mod secret;
mod sessions;
mod tokens;
mod users;

pub use actor::{Actor, Via};
pub use audit::AuditPage;
pub use login::{LOGIN_CODE_STAYS, NewSession};
pub use restore::prepare_restored;
pub use rights::{AccountKeeper, AccountOwner, Admin, Operator, Viewer};
pub use sessions::{SESSION_ENDS, SESSION_IDLE_MAX};
pub use tokens::NewToken;
pub use users::is_reserved;
