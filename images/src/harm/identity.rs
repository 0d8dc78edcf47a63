//! Who the machine is, and who may use it: what an image has for one machine is that of all.

use super::System;
use super::found::{Change, Checked, Found};

/// The name that the image was installed with.
pub(super) fn host_name(system: &System<'_>) -> Checked {
    let text = system.tree.text("/etc/hostname")?;
    let name = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    let told = |name: &str| Found::new(format!("the name is {name}")).at("/etc/hostname");
    Ok(name.map(told).into_iter().collect())
}

/// A name in `/etc/hosts` that the machine does not have.
pub(super) fn hosts(system: &System<'_>) -> Checked {
    let switch = system.tree.text("/etc/nsswitch.conf")?;
    let hosts = switch.lines().find_map(|line| line.trim().strip_prefix("hosts:"));
    if hosts.is_none_or(|services| services.split_ascii_whitespace().any(|it| it == "myhostname")) {
        return Ok(Vec::new());
    }
    let name = system.tree.text("/etc/hostname")?;
    let name = name.trim();
    let text = system.tree.text("/etc/hosts")?;
    let own = text.lines().enumerate().find(|(_, line)| {
        let mut words = line.split_ascii_whitespace();
        let is_own = words.next().is_some_and(|address| address.starts_with("127."));
        is_own && !name.is_empty() && name != "localhost" && words.any(|word| word == name)
    });
    Ok(own
        .map(|(index, _)| {
            let what = format!("only {name} is known there as the machine itself");
            Found::new(what).at("/etc/hosts").in_line(index)
        })
        .into_iter()
        .collect())
}

/// The machine-id of the machine where the image was made.
pub(super) fn machine_id(system: &System<'_>) -> Checked {
    let text = system.tree.text("/etc/machine-id")?;
    let is_id = text.trim().len() == 32 && text.trim().bytes().all(|byte| byte.is_ascii_hexdigit());
    let told = || Found::new("it is the id of one machine").at("/etc/machine-id");
    Ok(is_id.then(told).into_iter().collect())
}

/// The same in a file of its own, as dbus before 1.10 kept it, and images that were made without systemd. Without it D-Bus takes the
/// machine's.
pub(super) fn dbus_machine_id(system: &System<'_>) -> Checked {
    const PATH: &str = "/var/lib/dbus/machine-id";
    let tree = &system.tree;
    if !tree.exists(PATH)? || tree.real(PATH)? != PATH {
        return Ok(Vec::new());
    }
    let is_id = tree.text(PATH)?.trim().len() == 32;
    let told = || {
        let change = Change::Remove(PATH.to_owned());
        Found::new("it is the id of one machine".to_owned()).at(PATH).changing(change)
    };
    Ok(is_id.then(told).into_iter().collect())
}

/// SSH host keys that all machines would have.
pub(super) fn ssh_keys(system: &System<'_>) -> Checked {
    let keys = system.tree.list("/etc/ssh")?;
    let keys = keys
        .iter()
        .filter(|entry| entry.name.starts_with("ssh_host_") && entry.name.ends_with("_key"));
    let paths: Vec<String> = keys.map(|entry| format!("/etc/ssh/{}", entry.name)).collect();
    let Some(path) = paths.first() else { return Ok(Vec::new()) };
    Ok(vec![Found::new(format!("there are {} keys of an SSH server", paths.len())).at(path)])
}

/// cloud-init, which looks for a cloud.
pub(super) fn cloud_init(system: &System<'_>) -> Checked {
    let tree = &system.tree;
    let has_it =
        system.units.have("cloud-init.service") || system.units.have("cloud-init-network.service");
    if !has_it || tree.exists("/etc/cloud/cloud-init.disabled")? {
        return Ok(Vec::new());
    }
    // Somebody has prepared it for machines without a cloud.
    for seed in
        ["/var/lib/cloud/seed/nocloud/user-data", "/var/lib/cloud/seed/nocloud-net/user-data"]
    {
        if tree.exists(seed)? {
            return Ok(Vec::new());
        }
    }
    let change = Change::Write { path: "/etc/cloud/cloud-init.disabled", text: "" };
    Ok(vec![
        Found::new("cloud-init is installed and not switched off")
            .at("/etc/cloud")
            .changing(change),
    ])
}

/// Labels of SELinux that are to be written at the next start, which comes again and again.
pub(super) fn relabel(system: &System<'_>) -> Checked {
    let path = "/.autorelabel";
    if !system.tree.exists(path)? {
        return Ok(Vec::new());
    }
    Ok(vec![Found::new("the next start writes the labels of all files, and restarts").at(path)])
}

/// The accounts of passwd(5) with shells: name, number, home.
fn people(system: &System<'_>) -> Result<Vec<(String, u32, String)>, crate::RootfsError> {
    let text = system.tree.text("/etc/passwd")?;
    let person = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let &[name, _, number, _, _, home, shell] = &fields[..] else { return None };
        let number: u32 = number.parse().ok()?;
        let has_shell = !shell.ends_with("nologin") && !shell.ends_with("/false");
        let is_person = number == 0 || (1000..60_000).contains(&number);
        (is_person && has_shell).then(|| (name.to_owned(), number, home.to_owned()))
    };
    Ok(text.lines().filter_map(person).collect())
}

/// Whether nobody could log in.
pub(super) fn nobody(system: &System<'_>) -> Checked {
    let tree = &system.tree;
    if tree.bytes("/etc/passwd")?.is_none() || tree.bytes("/etc/shadow")?.is_none() {
        return Ok(Vec::new());
    }
    // Accounts may come from elsewhere, and cloud-init makes some if it finds a cloud.
    let switch = tree.text("/etc/nsswitch.conf")?;
    let passwd =
        switch.lines().find_map(|line| line.trim().strip_prefix("passwd:")).unwrap_or_default();
    if passwd
        .split_ascii_whitespace()
        .any(|it| matches!(it, "sss" | "ldap" | "winbind" | "nis" | "compat"))
        && (tree.exists("/etc/sssd/sssd.conf")?
            || tree.exists("/etc/nslcd.conf")?
            || passwd.contains("winbind")
            || passwd.contains("nis"))
    {
        return Ok(Vec::new());
    }
    let shadow = tree.text("/etc/shadow")?;
    for (name, _, home) in people(system)? {
        let hash = shadow.lines().find_map(|line| line.strip_prefix(&name)?.strip_prefix(':'));
        let hash = hash.and_then(|rest| rest.split(':').next());
        // Empty: no password is asked for.
        if hash.is_some_and(|hash| !hash.starts_with(['!', '*'])) {
            return Ok(Vec::new());
        }
        if tree.exists(&format!("{home}/.ssh/authorized_keys"))? {
            return Ok(Vec::new());
        }
    }
    // Who is logged in by himself needs no password.
    for (folder, end) in [
        ("/etc/lightdm", ".conf"),
        ("/etc/lightdm/lightdm.conf.d", ".conf"),
        ("/etc/gdm3", ".conf"),
        ("/etc/gdm", ".conf"),
        ("/etc/sddm.conf.d", ".conf"),
    ] {
        for (_, text) in tree.texts(folder, end)? {
            let is_automatic = |line: &str| {
                let line = line.trim().to_ascii_lowercase();
                line.starts_with("autologin-user=")
                    || line.starts_with("automaticloginenable=true")
                    || line.starts_with("automaticloginenable = true")
                    || line.starts_with("user=")
            };
            if text.lines().any(is_automatic) {
                return Ok(Vec::new());
            }
        }
    }
    for folder in [
        super::units::ADMIN.to_owned() + "/getty@tty1.service.d",
        super::units::ADMIN.to_owned() + "/serial-getty@ttyS0.service.d",
    ] {
        if tree.texts(&folder, ".conf")?.iter().any(|(_, text)| text.contains("--autologin")) {
            return Ok(Vec::new());
        }
    }
    Ok(vec![Found::new("no account has a password or an SSH key").at("/etc/shadow")])
}

/// Assistants that ask for language and account at the first start.
pub(super) fn assistant(system: &System<'_>) -> Checked {
    let is_new = people(system)?.iter().all(|(_, number, _)| *number == 0);
    let path = "/usr/libexec/gnome-initial-setup";
    let has_accounts =
        system.tree.exists("/etc/sssd/sssd.conf")? || system.tree.exists("/etc/nslcd.conf")?;
    let mut found = Vec::new();
    if is_new && !has_accounts && system.tree.exists(path)? {
        found.push(Found::new("there is no account, so GNOME's assistant makes one").at(path));
    }
    if system.units.start("initial-setup.service") {
        found.push(
            system.masks(
                Found::new("the assistant initial-setup starts"),
                &["initial-setup.service"],
            ),
        );
    }
    Ok(found)
}
