//! The loaders that a release of Debian has had signed for Secure Boot, whatever this machine has installed.

use crate::command::run;
use crate::image::{CACHE, Release};
use crate::lock::Lock;
use anyhow::{Context, Result};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Both packages, and where their files are in them.
const PACKAGES: &str = "shim-signed grub-efi-amd64-signed";
const FILES: [&str; 2] =
    ["usr/lib/shim/shimx64.efi.signed", "usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed"];

/// A folder with the release's shim and its GRUB for networks, as `[boot] signed_loader` wants it: fetched, and kept for the
/// next time. Nothing is installed.
///
/// # Errors
/// mmdebstrap fails: mostly no network.
pub fn signed_loader(release: Release, say: impl Fn(&str)) -> Result<PathBuf> {
    let name = format!("signed-debian-{}", release.number());
    let path = Path::new(CACHE).join(&name);
    if path.exists() {
        return Ok(path);
    }
    std::fs::create_dir_all(CACHE).with_context(|| format!("can't make {CACHE}"))?;
    let _lock = Lock::take(&name, || say("waiting for another run that fetches loaders"))?;
    if path.exists() {
        return Ok(path);
    }
    say(&format!("fetching {PACKAGES} of Debian {}", release.number()));
    let folder = tempfile::Builder::new().prefix("new-").tempdir_in(CACHE)?;
    let [root, made] = ["root", "made"].map(|name| folder.path().join(name));
    // A system of no packages, whose apt knows the release.
    let hook = format!(
        "cd \"$1\" && APT_CONFIG=\"$MMDEBSTRAP_APT_CONFIG\" apt-get download -qq {PACKAGES} && \
         for package in *.deb; do dpkg -x \"$package\" .; done"
    );
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", "--variant=custom", "--mode=root", "--format=directory"]);
    command.arg("--aptopt=Acquire::Languages \"none\"").arg(format!("--customize-hook={hook}"));
    run(command.arg(release.suite()).arg(&root).env("LC_ALL", "C"))
        .context("can't fetch Debian's signed loader")?;
    std::fs::create_dir(&made)?;
    for file in FILES {
        let name = Path::new(file).file_name().context("a file has a name")?;
        std::fs::copy(root.join(file), made.join(name))?;
    }
    // Servers read there, whoever they are.
    std::fs::set_permissions(&made, Permissions::from_mode(0o755))?;
    std::fs::rename(&made, &path)?;
    Ok(path)
}
