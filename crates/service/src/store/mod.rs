//! Durable state: the database, and what readers see of it.

pub(crate) mod database;
pub(crate) mod rows;
pub(crate) mod schema;
pub(crate) mod view;
