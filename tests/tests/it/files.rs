//! Files of the site that are laid over a machine's root, in boots that other tests make.

use crate::boot::COMMAND;
use anyhow::{Result, ensure};
use lab::{Console, Site};

/// What nobody on the network may read who has not the boot's secret.
pub(crate) const SECRET: &str = "the keytab of this machine only";

const UNIT: &str =
    "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo $$RAN > /run/told'\nEnvironment=RAN=ran\n";

/// Lays files of all kinds over the root of `pc-1`.
pub(crate) fn lay(site: &Site) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let put = |path: &str, text: &str, options: &[&str]| -> Result<String> {
        let file = folder.path().join("file");
        std::fs::write(&file, text)?;
        site.run(&[&["files", "put", path, &file.to_string_lossy()], options].concat())
    };
    put("/etc/debian_version", "the site's", &[])?;
    put("/etc/who", "{{bootlace.name}} {{bootlace.address}}\n", &["--template", "--mode", "0640"])?;
    put("/etc/key", "the site's", &[])?;
    put("/etc/key", SECRET, &["--secret", "--owner", "0:42", "--machine", "pc-1"])?;
    put("/etc/systemd/system/told.service", UNIT, &[])?;
    let wants = "/etc/systemd/system/multi-user.target.wants/told.service";
    site.run(&["files", "put", wants, "--link", "../told.service"])?;
    site.run(&["files", "put", "/etc/motd", "--gone"])?;
    let listed = site.run(&["files", "ls", "--machine", "pc-1"])?;
    let key = listed.lines().find(|line| line.starts_with("/etc/key")).unwrap_or_default();
    ensure!(key.contains("machine pc-1") && key.ends_with("the site"), "{listed}");
    let shown = site.run(&["files", "show", "/etc/key", "--machine", "pc-1"])?;
    ensure!(shown.contains("a secret") && !shown.contains(SECRET), "{shown}");
    Ok(())
}

/// The machine has them.
pub(crate) fn are_laid(site: &Site, console: &Console) -> Result<()> {
    let said = |command: &str| console.shell(command, COMMAND);
    let who = said("stat -c %a /etc/who; cat /etc/who /etc/debian_version")?;
    ensure!(who.starts_with("640") && who.contains("pc-1 10.77.0."), "{who}");
    ensure!(who.ends_with("the site's"), "{who}");
    let key = said("stat -c %a:%u:%g /etc/key; cat /etc/key")?;
    ensure!(key.starts_with("600:0:42") && key.ends_with(SECRET), "{key}");
    let told = said("cat /run/told; ls /etc/motd")?;
    ensure!(told.starts_with("ran") && told.contains("No such file"), "{told}");
    let stages = site.stages("pc-1")?;
    let handover = stages.iter().find(|line| line.stage == "handover");
    let detail = handover.map_or("", |line| &line.detail);
    ensure!(detail.contains("files laid over: 6"), "{detail}");
    Ok(())
}

/// Takes some away, and changes one; on the machine somebody has changed another one.
pub(crate) fn change(site: &Site, console: &Console) -> Result<()> {
    site.run(&["files", "rm", "/etc/debian_version"])?;
    site.run(&["files", "rm", "/etc/key", "--machine", "pc-1"])?;
    site.run(&["files", "rm", "/etc/motd"])?;
    site.run(&["files", "put", "/etc/who", "--link", "hostname"])?;
    console.shell("echo mine > /etc/systemd/system/told.service; sync", COMMAND).map(drop)
}

/// On a disk that is kept, the site's changes are done: what the image has is back, and the site's file counts.
pub(crate) fn are_changed(site: &Site, console: &Console) -> Result<()> {
    let said = |command: &str| console.shell(command, COMMAND);
    let version = said("cat /etc/debian_version; ls /etc/motd; readlink /etc/who")?;
    ensure!(version.starts_with("12.") && version.contains("/etc/motd"), "{version}");
    ensure!(version.ends_with("hostname"), "{version}");
    let key = said("cat /etc/key; head -1 /etc/systemd/system/told.service; cat /run/told")?;
    ensure!(key.starts_with("the site's") && key.contains("[Service]"), "{key}");
    ensure!(key.ends_with("ran"), "{key}");
    let stages = site.stages("pc-1")?;
    let handover = stages.iter().find(|line| line.stage == "handover");
    ensure!(handover.is_some_and(|line| !line.detail.contains("not laid over")), "{handover:?}");
    Ok(())
}
