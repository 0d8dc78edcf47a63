//! What suits the PC where an image was made, and not one that has no disk, or is another PC.

use super::System;
use super::found::{Change, Checked, Found};

/// Login screens, whose desktops put an idle PC to sleep.
const DESKTOPS: [&str; 5] =
    ["display-manager.service", "gdm.service", "gdm3.service", "lightdm.service", "sddm.service"];

/// A PC that may be put to sleep.
pub(super) fn sleep(system: &System<'_>) -> Checked {
    let units = &system.units;
    let is_desktop = DESKTOPS.iter().any(|unit| units.have(unit));
    let can_sleep = units.have("sleep.target") && units.have("suspend.target");
    for folder in ["/etc/systemd", "/etc/systemd/sleep.conf.d"] {
        for (path, text) in system.tree.texts(folder, ".conf")? {
            let is_off =
                path.contains("sleep") && text.lines().any(|line| line.trim() == "AllowSuspend=no");
            if is_off {
                return Ok(Vec::new());
            }
        }
    }
    if !is_desktop || !can_sleep {
        return Ok(Vec::new());
    }
    let change = Change::Write {
        path: "/etc/systemd/sleep.conf.d/50-bootlace.conf",
        text: "# Laid over by Bootlace: the disk is behind the network.\n[Sleep]\nAllowSuspend=no\n\
               AllowHibernation=no\nAllowSuspendThenHibernate=no\nAllowHybridSleep=no\n",
    };
    Ok(vec![Found::new("the desktop may put the PC to sleep").changing(change)])
}

/// Logs of systemd that are kept on the disk without a bound of their own.
pub(super) fn journal(system: &System<'_>) -> Checked {
    let tree = &system.tree;
    let mut texts = vec![tree.text("/etc/systemd/journald.conf")?];
    for folder in ["/etc/systemd/journald.conf.d", "/usr/lib/systemd/journald.conf.d"] {
        texts.extend(tree.texts(folder, ".conf")?.into_iter().map(|(_, text)| text));
    }
    let says = |key: &str, value: &str| {
        texts.iter().flat_map(|text| text.lines()).any(|line| {
            let pair = line.trim().split_once('=');
            pair.is_some_and(|(it, is)| it == key && (value.is_empty() || is == value))
        })
    };
    let is_kept = tree.exists("/var/log/journal/.")? || says("Storage", "persistent");
    if !is_kept
        || says("SystemMaxUse", "")
        || says("Storage", "volatile")
        || says("Storage", "none")
    {
        return Ok(Vec::new());
    }
    let change = Change::Write {
        path: "/etc/systemd/journald.conf.d/50-bootlace.conf",
        text: "# Laid over by Bootlace: logs are written over the network.\n[Journal]\nSystemMaxUse=64M\n",
    };
    let what = "logs are kept on the disk, up to a tenth of it";
    Ok(vec![Found::new(what).at("/var/log/journal").changing(change)])
}

/// A configuration of the X server for one graphics card.
pub(super) fn graphics(system: &System<'_>) -> Checked {
    let mut files =
        vec![("/etc/X11/xorg.conf".to_owned(), system.tree.text("/etc/X11/xorg.conf")?)];
    files.extend(system.tree.texts("/etc/X11/xorg.conf.d", ".conf")?);
    let mut found = Vec::new();
    for (path, text) in files {
        let mut section = String::new();
        for (index, line) in text.lines().enumerate() {
            let words: Vec<&str> = line
                .split(|it: char| it.is_whitespace() || it == '"')
                .filter(|it| !it.is_empty())
                .collect();
            let (Some(key), value) = (words.first(), words.get(1).copied().unwrap_or_default())
            else {
                continue;
            };
            if key.eq_ignore_ascii_case("Section") {
                value.clone_into(&mut section);
            }
            let is_device = section.eq_ignore_ascii_case("Device");
            // These run on any card.
            let is_any =
                ["modesetting", "fbdev", "vesa"].iter().any(|it| value.eq_ignore_ascii_case(it));
            let binds =
                key.eq_ignore_ascii_case("BusID") || key.eq_ignore_ascii_case("Driver") && !is_any;
            if is_device && binds {
                let what = format!("the screen is only for one kind of graphics card ({value})");
                let change = Change::Remove(path.clone());
                found.push(Found::new(what).at(&path).in_line(index).changing(change));
                break;
            }
        }
    }
    Ok(found)
}
