//! `bootlace initrd …`

mod build;
mod inspect;
mod ls;

use crate::paths::Paths;
use clap::Subcommand;

#[derive(Subcommand)]
pub(super) enum Initrd {
    /// Build an initrd that boots any PC from NBD or AoE
    ///
    /// Needs neither root nor a running server. The same kernel gives the same bytes.
    ///
    /// Example: bootlace initrd build --kernel-package linux-image-6.1.0-56-amd64.deb --output initrd.img
    Build(build::Build),
    /// Show what is in an initrd, Bootlace's or any other
    ///
    /// Lists all archives that the file is made of, and their files. Points out what the kernel would
    /// silently leave out; the exit code is then 1. Archives compressed with lz4, lzo, lzma or bzip2 are
    /// named, but their files are not listed.
    ///
    /// Example: bootlace initrd inspect /boot/initrd.img-6.1.0-56-amd64
    Inspect(inspect::Inspect),
    /// List the boot server's initrds, and image versions without one
    ///
    /// They are kept in /var/cache/bootlace/initrd, which may be emptied at any time. This also works while
    /// the boot server is stopped.
    Ls(ls::Ls),
}

impl Initrd {
    pub(super) fn run(self, paths: &Paths) -> anyhow::Result<()> {
        match self {
            Self::Build(build) => build.run(paths),
            Self::Inspect(inspect) => inspect.run(),
            Self::Ls(ls) => ls.run(paths),
        }
    }
}
