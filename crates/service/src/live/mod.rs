//! What is forgotten at a restart.

pub(crate) mod heartbeats;
