//! What every machine would fetch and install anew at each boot.

use super::System;
use super::found::{Change, Checked, Found};
use crate::error::RootfsError;

const APT_FOLDER: &str = "/etc/apt/apt.conf.d";

/// Read last, so that it counts.
const APT_OFF: Change = Change::Write {
    path: "/etc/apt/apt.conf.d/99bootlace",
    text: "// Laid over by Bootlace: each machine would do it anew at each boot.\nAPT::Periodic::Enable \"0\";\n",
};

/// The value that a key of APT has at last, and where.
fn apt_value(
    system: &System<'_>,
    key: &str,
) -> Result<Option<(String, usize, String)>, RootfsError> {
    let mut last = None;
    for (path, text) in system.tree.texts(APT_FOLDER, "")? {
        for (index, line) in text.lines().enumerate() {
            let value =
                line.trim().strip_prefix("APT::Periodic::").and_then(|rest| rest.strip_prefix(key));
            let Some(value) = value.filter(|rest| rest.starts_with([' ', '\t', '"'])) else {
                continue;
            };
            let value = value.trim().trim_end_matches(';').trim().trim_matches('"');
            last = Some((path.clone(), index, value.to_owned()));
        }
    }
    Ok(last)
}

fn apt_does(system: &System<'_>, key: &str, timer: &str, what: &str) -> Checked {
    let is_off = |value: &str| matches!(value, "" | "0" | "false" | "no");
    if apt_value(system, "Enable")?.is_some_and(|(_, _, value)| is_off(&value)) {
        return Ok(Vec::new());
    }
    let Some((path, index, value)) = apt_value(system, key)? else { return Ok(Vec::new()) };
    if is_off(&value) || !system.units.start(timer) {
        return Ok(Vec::new());
    }
    Ok(vec![Found::new(what).at(path).in_line(index).changing(APT_OFF)])
}

/// unattended-upgrades.
pub(super) fn unattended(system: &System<'_>) -> Checked {
    if !system.tree.exists("/usr/bin/unattended-upgrade")? {
        return Ok(Vec::new());
    }
    apt_does(
        system,
        "Unattended-Upgrade",
        "apt-daily-upgrade.timer",
        "unattended-upgrades installs upgrades by itself",
    )
}

/// Lists of packages that are fetched by themselves.
pub(super) fn package_lists(system: &System<'_>) -> Checked {
    apt_does(
        system,
        "Update-Package-Lists",
        "apt-daily.timer",
        "APT fetches the lists of all packages by itself",
    )
}

/// Desktops that fetch upgrades by PackageKit.
pub(super) fn desktop(system: &System<'_>) -> Checked {
    if !system.units.have("packagekit.service") {
        return Ok(Vec::new());
    }
    for path in [
        "/etc/xdg/autostart/org.gnome.Software.desktop",
        "/etc/xdg/autostart/gnome-software-service.desktop",
        "/etc/xdg/autostart/org.kde.discover.notifier.desktop",
        "/etc/xdg/autostart/pk-update-icon.desktop",
    ] {
        if system.tree.exists(path)? {
            let what = "the desktop fetches upgrades by PackageKit by itself";
            return Ok(vec![system.masks(Found::new(what).at(path), &["packagekit.service"])]);
        }
    }
    Ok(Vec::new())
}
