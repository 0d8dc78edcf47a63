//! Initrds of the site: built once for each recipe, kept in a cache, ready before a machine asks.
//!
//! Of each image version there is one for all machines. For each kind of hardware there is one of a sixth of
//! that size: the first boot of a machine is with the one for all, its init tells what the machine is made of, and
//! from then on it gets the small one. The one for all stays the way back.

mod build;
mod files;
mod fit;
mod keep;
mod modules;
mod overlays;
mod recipe;
mod shelf;

pub use files::InitrdFile;
pub(crate) use keep::Initrds;
pub(crate) use modules::ImageModules;
#[cfg(test)]
pub(crate) use recipe::Recipe;
pub(crate) use recipe::WITH_DISKS;
pub use shelf::InitrdState;

#[cfg(test)]
pub(crate) use build::file_name;
