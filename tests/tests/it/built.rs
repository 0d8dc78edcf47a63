//! Images that are made of packages and of files.

use crate::boot::{BOOT, COMMAND, MAC, can_boot, wait_for_login};
use anyhow::{Context, Result, ensure};
use lab::{Lan, Need, Pc, PcSlots, Site, bootlace_binary, require};
use std::fs;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Small, and with a way in for a test.
const RECIPE: &str = r#"
title = "As small as a test wants it"
suite = "bookworm"
disk = "4G"
packages = ["linux-image-amd64", "systemd-sysv", "udev", "kmod"]
script = '''
passwd --delete root
echo "built for $RECIPE_ROOM" > /etc/built
'''
[parameters.room]
about = "Where it stands"
default = "nowhere"
"#;

/// How soon a build is over that was cancelled.
const SOON: Duration = Duration::from_secs(60);

#[test]
fn a_system_that_is_built_of_packages_boots_and_its_files_become_an_image_again() {
    let name = "built";
    if can_boot(name) && require(name, &[Need::Program("tar")]) {
        built().unwrap_or_else(|error| panic!("{error:?}"));
    }
}

/// Where packages can be fetched: the network of the lab leads nowhere.
fn outside(site: &Site, arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(bootlace_binary()?);
    command.arg("--root").arg(site.root()).args(arguments);
    Ok(command)
}

fn said(output: &Output) -> String {
    let texts = [&output.stdout, &output.stderr];
    texts.map(|text| String::from_utf8_lossy(text).into_owned()).concat()
}

fn built() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let recipe = folder.path().join("small.toml");
    fs::write(&recipe, RECIPE)?;
    let recipe = recipe.display().to_string();
    let site = Site::builder().boot("secure_boot = \"never\"").create(Lan::lay("built")?)?;
    let servers = site.up()?;
    let scratch = site.root().join("var/cache/bootlace-builder");
    let left = || -> Result<Vec<String>> {
        let names = fs::read_dir(&scratch)?.flatten().map(|it| it.file_name());
        let names = names.map(|name| name.to_string_lossy().into_owned());
        Ok(names.filter(|name| name.starts_with("build-")).collect())
    };

    // One that is cancelled in the middle leaves nothing.
    let build = ["image", "build", "--recipe", &recipe, "--set", "room=lab-1"];
    let mut child =
        outside(&site, &build)?.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let begun = Instant::now();
    let mut shown = String::new();
    while !shown.contains("packages") {
        ensure!(
            begun.elapsed() < SOON && child.try_wait()?.is_none(),
            "it does not begin: {shown}"
        );
        std::thread::sleep(Duration::from_millis(200));
        shown = site.run(&["job", "ls"])?;
    }
    site.run(&["job", "cancel", "1"])?;
    let output = child.wait_with_output()?;
    ensure!(!output.status.success(), "{}", said(&output));
    ensure!(said(&output).contains("cancelled by root"), "{}", said(&output));
    ensure!(left()?.is_empty(), "{:?}", left()?);

    let output = outside(&site, &build)?.output()?;
    ensure!(output.status.success(), "{}", said(&output));
    ensure!(said(&output).contains("small: version 1 imported: Debian"), "{}", said(&output));
    ensure!(left()?.is_empty(), "{:?}", left()?);

    // What can't be built says why, and is no version.
    let broken = folder.path().join("broken.toml");
    fs::write(&broken, RECIPE.replace("\"kmod\"", "\"no-such-package\""))?;
    let broken = broken.display().to_string();
    let output = outside(&site, &["image", "build", "--recipe", &broken])?.output()?;
    ensure!(
        !output.status.success() && said(&output).contains("no-such-package"),
        "{}",
        said(&output)
    );
    let listed = site.run(&["image", "ls"])?;
    ensure!(listed.contains("small") && !listed.contains("broken"), "{listed}");

    // The files of a system, as somebody has them in a folder.
    let mounted = folder.path().join("mounted");
    fs::create_dir(&mounted)?;
    let disk = site.root().join("var/lib/bootlace/images/small/1/disk.raw");
    let mount =
        Command::new("mount").args(["-o", "loop,ro,noload"]).arg(&disk).arg(&mounted).status()?;
    ensure!(mount.success(), "the disk can't be mounted");
    let source = mounted.display().to_string();
    let import = |size| site.run(&["image", "import", &source, "--name", "copy", "--size", size]);
    let refused = import("64M");
    let refused =
        refused.map_or_else(|error| format!("{error:#}"), |told| format!("imported: {told}"));
    ensure!(
        // Bytes or inodes: as the folder gives its files.
        refused.contains("was not imported") && refused.contains("give it more by --size"),
        "{refused}"
    );
    let copied = import("3G");
    let unmount = Command::new("umount").arg(&mounted).status()?;
    copied.context("the folder was not imported")?;
    ensure!(unmount.success());

    let _slot = PcSlots::take(1)?;
    site.run(&["machine", "set", "pc-1", "--mac", MAC, "--image", "copy"])?;
    let pc = Pc::builder("pc-1").mac(MAC).start(site.lan())?;
    wait_for_login(&pc, "pc-1")?;
    pc.console().log_in(BOOT)?;
    let told =
        pc.console().shell("cat /etc/built; df -h / | tail -1; ls -l /usr/bin/su", COMMAND)?;
    ensure!(told.contains("built for lab-1"), "{told}");
    ensure!(told.contains("-rwsr-xr-x"), "{told}");
    servers.stop()
}
