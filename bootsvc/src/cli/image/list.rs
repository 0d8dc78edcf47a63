//! `bootlace image ls`

use super::super::{advise, say, table};
use crate::paths::Paths;
use crate::site::{Refused, Site};
use hyper::StatusCode;
use model::{ImageName, ImageVersion, Machine, Size, VersionState, WriteMode};
use serde::Deserialize;
use serde_json::Value;

/// A machine, as far as its image goes.
#[derive(Deserialize)]
struct Booted {
    #[serde(flatten)]
    machine: Machine,
    next_version: Option<u32>,
}

/// The site, as far as the storage server goes.
#[derive(Deserialize)]
struct Storage {
    storage_error: Option<String>,
}

/// An image version, and what people wanted to remember about it.
#[derive(Deserialize)]
struct Listed {
    #[serde(flatten)]
    version: ImageVersion,
    #[serde(default)]
    state: VersionState,
    #[serde(default)]
    note: Option<String>,
}

/// An image version with which machines can't start.
#[derive(Deserialize)]
struct Damaged {
    image: ImageName,
    version: u32,
    why: String,
}

/// What helps a damaged version.
pub(in crate::cli) const REPAIR: &str = "Import the same disk again under its name, which puts back what is missing; or mount the file system \
                      that holds it, or put it back from a backup.";

/// Image versions with which machines can't start. A server of an earlier Bootlace does not tell.
fn damaged(site: &Site) -> anyhow::Result<Vec<Damaged>> {
    site.get("/api/v1/images/damaged").or_else(|error| match error.downcast_ref::<Refused>() {
        Some(refused) if refused.status == StatusCode::NOT_FOUND => Ok(Vec::new()),
        _ => Err(error),
    })
}

pub(super) fn list(paths: &Paths, json: bool) -> anyhow::Result<()> {
    let site = Site::open(paths)?;
    let versions: Value = site.get("/api/v1/images")?;
    if json {
        say(serde_json::to_string_pretty(&versions)?);
        return Ok(());
    }
    let versions: Vec<Listed> = serde_json::from_value(versions)?;
    let damaged = damaged(&site)?;
    if versions.is_empty() && damaged.is_empty() {
        advise(paths, "No images yet. Import one: bootlace image import FILE --name NAME");
        return Ok(());
    }
    // Who keeps a disk stays on the version that it was made on, which the storage server knows.
    let storage: Storage = site.get("/api/v1/status")?;
    let machines: Vec<Booted> = site.get("/api/v1/machines")?;
    let is_damaged = |image: &ImageName, version: u32| {
        damaged.iter().any(|it| (&it.image, it.version) == (image, version))
    };
    // What machines get that follow what is released.
    let is_current = |version: &ImageVersion, state: VersionState| {
        let is_newer = |other: &Listed| {
            other.state == VersionState::Released
                && other.version.image == version.image
                && other.version.version > version.version
        };
        state == VersionState::Released && !versions.iter().any(is_newer)
    };
    let mut rows: Vec<[String; 9]> = versions
        .iter()
        .map(|Listed { version, state, note }| {
            let mark = if is_damaged(&version.image, version.version) { " damaged" } else { "" };
            let used_by = machines.iter().filter(|booted| {
                booted.machine.has_image(&version.image)
                    && booted.next_version == Some(version.version)
            });
            [
                version.image.to_string(),
                format!("{}{mark}", version.version),
                format!("{state}{}", if is_current(version, *state) { ", current" } else { "" }),
                match version.is_data() {
                    true => format!("none: a disk beside roots, {}", version.file_system),
                    false => version.os_name.clone().unwrap_or_default(),
                },
                version.kernel_version.clone(),
                match version.is_data() {
                    true => String::new(),
                    false => version.architecture.to_string(),
                },
                Size(version.size_bytes).to_string(),
                used_by.count().to_string(),
                note.clone().unwrap_or_default(),
            ]
        })
        .collect();
    // Of these no more is known.
    let is_listed = |it: &Damaged| {
        let of_it = |Listed { version, .. }: &Listed| {
            (&version.image, version.version) == (&it.image, it.version)
        };
        versions.iter().any(of_it)
    };
    rows.extend(damaged.iter().filter(|it| !is_listed(it)).map(|it| {
        let mut row: [String; 9] = Default::default();
        (row[0], row[1]) = (it.image.to_string(), format!("{} damaged", it.version));
        row
    }));
    say(table(
        ["IMAGE", "VERSION", "STATE", "SYSTEM", "KERNEL", "FOR", "SIZE", "MACHINES", "NOTE"],
        &rows,
    ));
    if !damaged.is_empty() {
        let told =
            damaged.iter().map(|it| format!("\n- {}/v{}: {}.", it.image, it.version, it.why));
        say(format!("\nDamaged:{}\n{REPAIR}", told.collect::<String>()));
    }
    let keeps_disk = |booted: &Booted| booted.machine.write_mode == WriteMode::Persistent;
    if let Some(error) = storage.storage_error.filter(|_| machines.iter().any(keeps_disk)) {
        say(format!(
            "\nMachines that keep their disk may be on older versions than shown: {error}"
        ));
    }
    Ok(())
}
