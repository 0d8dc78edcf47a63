//! `bootlace medium`

use super::output_file::write;
use super::{WrongUsage, note};
use crate::boot::signed_loader::SignedLoader;
use crate::config::{Config, ConfigError};
use crate::medium;
use crate::network::{networks, servers};
use crate::paths::Paths;
use crate::scratch;
use anyhow::Context as _;
use clap::Subcommand;
use model::Architecture;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// GRUB and iPXE for two kinds of firmware, some three times: as files, in their partition, and in the image.
const NEEDED_BYTES: u64 = 64 << 20;

#[derive(Subcommand)]
pub(super) enum Medium {
    /// Make a medium that finds the boot server, for PCs whose firmware can't boot from the network
    ///
    /// The same medium is for USB sticks and CDs, for PC BIOS and 64-bit UEFI; and for Secure Boot, if this server has the signed
    /// loader (bootlace check).
    ///
    /// Example: bootlace medium build --output bootlace.iso
    ///
    /// Example, straight to a USB stick, of which all is lost: bootlace medium build --output /dev/sdX
    Build {
        /// File or device to write; - is standard output
        #[arg(long, value_name = "FILE")]
        output: PathBuf,
        /// Address of a boot server; several are asked in turn. Default: those of this one
        #[arg(long, value_name = "ADDRESS")]
        server: Vec<Ipv4Addr>,
    },
}

impl Medium {
    pub(super) fn run(self, paths: &Paths) -> anyhow::Result<()> {
        let Self::Build { output, server } = self;
        if let Some(nobody) = server.iter().find(|server| !dhcp::can_be_host(**server)) {
            return Err(anyhow::Error::from(WrongUsage(format!(
                "--server {nobody}: no PC reaches a server at this address"
            ))));
        }
        let config = match Config::load(&paths.config()) {
            Err(ConfigError::Missing { .. }) if !server.is_empty() => None,
            Err(error @ ConfigError::Missing { .. }) => {
                return Err(anyhow::Error::from(WrongUsage(format!(
                    "there is no boot server configured here: name its address by --server ({error})"
                ))));
            }
            loaded => Some(loaded?),
        };
        let servers = match &config {
            Some(config) if server.is_empty() => servers(&networks(config)?),
            _ => server,
        };
        let signed = config.as_ref().and_then(|config| config.boot.signed_loader.as_deref());
        let signed = match SignedLoader::find(Architecture::X86_64, signed) {
            Ok(signed) => Some(signed),
            Err(error) => {
                note(format!("PCs with Secure Boot won't start this medium: {error}"));
                None
            }
        };
        let folder = scratch::folder(NEEDED_BYTES, &[]).context("there is no room to make it")?;
        let image = medium::build(folder.path(), &servers, signed.as_ref())?;
        let bytes = std::fs::read(&image).context("can't read what was made")?;
        write(&output, &bytes).with_context(|| format!("can't write {}", output.display()))?;
        let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
        if output != Path::new("-") {
            note(format!(
                "{}: {:.1} MB, for the boot server {}",
                output.display(),
                bytes.len() as f64 / 1e6,
                servers.join(", ")
            ));
        }
        Ok(())
    }
}
