//! What people ask.

pub(crate) mod images;
pub(crate) mod machines;
pub(crate) mod rescue;
pub(crate) mod state;
pub(crate) mod status;
