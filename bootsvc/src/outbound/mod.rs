//! Connections to servers of others, step by step, so that it can be said which step has failed and what helps.

mod connect;
mod failed;

pub(crate) use connect::{HELP_TLS, authorities, connect, encrypt, encrypt_trusting, secret};
pub(crate) use failed::{Failed, Patience, step};
