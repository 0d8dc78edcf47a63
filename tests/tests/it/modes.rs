//! What other users of the server's host may do with its files.

use anyhow::{Context, Result, ensure};
use lab::{Lan, Need, Site, require};
use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

#[test]
fn other_users_can_lock_nothing_and_read_only_what_is_meant_for_all() {
    let name = "modes";
    if require(name, &[Need::Root, Need::Program("grub-mkimage")]) {
        check(name).unwrap_or_else(|error| panic!("{error:?}"));
    }
}

/// Folders that a package makes, which all may look into.
const OPEN: [&str; 6] = [
    "run/bootlace",
    "var/cache",
    "var/cache/bootlace",
    "var/lib",
    "var/lib/bootlace",
    "var/lib/bootlace/images",
];

fn check(name: &str) -> Result<()> {
    let site = Site::builder().create(Lan::lay(name)?)?;
    for folder in OPEN.map(|folder| site.root().join(folder)) {
        std::fs::create_dir_all(&folder)?;
        std::fs::set_permissions(&folder, Permissions::from_mode(0o755))?;
    }
    // As an older Bootlace has left it.
    let lock = site.root().join("var/lib/bootlace/images/.lock");
    std::fs::write(&lock, "")?;
    std::fs::set_permissions(&lock, Permissions::from_mode(0o644))?;
    site.run(&["machine", "set", "pc-1", "--mac", "52:54:00:00:00:01"])?;
    let servers = site.up()?;
    let mut found = Vec::new();
    for folder in ["run", "var"] {
        found.extend(readable(&site.root().join(folder))?);
    }
    servers.stop()?;
    let found: BTreeSet<&Path> =
        found.iter().filter_map(|path| path.strip_prefix(site.root()).ok()).collect();
    let open: BTreeSet<&Path> = OPEN.iter().map(Path::new).collect();
    ensure!(found.is_subset(&open), "other users may open {found:#?}");
    Ok(())
}

/// All below that others than the owner may open in any way.
fn readable(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    for entry in entries {
        let path = entry?.path();
        let about = std::fs::symlink_metadata(&path)?;
        let is_open = about.permissions().mode() & 0o077 != 0;
        // What lies in a folder that is closed is closed.
        if about.is_dir() && is_open {
            found.extend(readable(&path)?);
        }
        let is_thing = about.is_file() || about.is_dir() || about.file_type().is_socket();
        if is_open && is_thing {
            found.push(path);
        }
    }
    Ok(found)
}
