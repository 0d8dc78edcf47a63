//! Makes an initrd out of kernel modules and our static `init`: without root, chroot or foreign tools.
//!
//! ```no_run
//! # fn main() -> Result<(), initrd_builder::BuildError> {
//! let modules = initrd_builder::KernelPackage::open(&["linux-image-6.1.0-56-amd64.deb"])?;
//! let init = initrd_builder::Init::parse(std::fs::read("/usr/lib/bootlace/bootlace-init").unwrap())?;
//! let initrd = initrd_builder::build(&modules, &init, &Default::default())?;
//! # Ok(()) }
//! ```
//! The result is a compressed newc archive with `init`, and behind it an uncompressed one whose modules
//! are compressed one by one; `init` decodes those that it loads. The same input gives the same bytes.
#![forbid(unsafe_code)]

mod build;
mod codec;
mod directory;
mod error;
mod fit;
mod host;
mod in_root;
mod init;
mod inspect;
mod known_bugs;
mod modinfo;
mod newc;
mod options;
mod packages;
mod program;
mod rescue;
mod select;
mod source;

pub use build::{Initrd, PackedModule, build};
pub use directory::Directory;
pub use error::BuildError;
pub use fit::Fit;
pub use host::host_segment;
pub use init::Init;
pub use inspect::{Codec, Contents, Entry, Problem, Segment, inspect};
pub use modinfo::{ModInfo, ModInfoError};
pub use options::Options;
pub use packages::KernelPackage;
pub use program::{Processor, is_static_program};
pub use rescue::rescue_segment;
pub use select::Why;
pub use source::{Folders, Kind, Listing, ModuleSource, list_folders};
