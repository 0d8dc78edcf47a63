//! Initrds of the site: built once, kept in a cache.

pub(crate) mod build;
pub(crate) mod files;
pub(crate) mod fit;
pub(crate) mod hardware;
pub(crate) mod modules;
