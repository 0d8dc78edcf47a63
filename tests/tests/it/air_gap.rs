//! Without the Internet: an image is made of a disk with packages, as the page about it says, and boots.

use anyhow::{Context, Result, ensure};
use lab::{Lan, Need, Pc, Recipe, Site, require, run, text_of};
use nix::sys::signal::Signal;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const PAGE: &str = include_str!("../../../docs/how-to/air-gap.md");

const MAC: &str = "52:54:00:00:00:01";

/// A PC without KVM on a busy host.
const BOOT: Duration = Duration::from_secs(300);

/// Makes a disk as `collect.sh` fills it, in the folder `$1`: lists that are signed and too old, and two packages in place of
/// Debian's, made of the image `$2`. The key is `$1/key.gpg`.
const DISK: &str = r#"set -eu
cd "$1"
mkdir -p linux-image-amd64/DEBIAN linux-image-amd64/usr/lib small-system/DEBIAN small-system/usr/bin small-system/usr/lib small-system/usr/sbin
debugfs -R "rdump /boot linux-image-amd64" "$2" 2>/dev/null
debugfs -R "rdump /usr/lib/modules linux-image-amd64/usr/lib" "$2" 2>/dev/null
debugfs -R "rdump /etc small-system" "$2" 2>/dev/null
debugfs -R "dump /usr/bin/busybox small-system/usr/bin/busybox" "$2" 2>/dev/null
rm -rf small-system/etc/apt linux-image-amd64/boot/initrd*
(
  cd small-system
  chmod 755 usr/bin/busybox
  mkdir -p dev proc root run sys tmp
  for name in bin lib sbin; do ln -s usr/$name $name; done
  for name in mount sh umount; do ln -s busybox usr/bin/$name; done
  for name in getty init poweroff reboot; do ln -s ../bin/busybox usr/sbin/$name; done
)
mkdir -p debian/pool
for name in linux-image-amd64 small-system; do
  printf 'Package: %s\nVersion: 1\nArchitecture: amd64\nMaintainer: Nobody <nobody@example.org>\nDescription: for a test\n' \
    "$name" > $name/DEBIAN/control
  dpkg-deb -Znone --root-owner-group --build $name debian/pool/$name.deb >/dev/null
  rm -r $name
done
mkdir -m 700 keys
gpg="gpg --homedir $PWD/keys --batch --quiet --no-tty"
$gpg --passphrase '' --quick-generate-key nobody@example.org default default never 2>/dev/null
$gpg --export > key.gpg
for suite in debian:bookworm debian:bookworm-updates debian-security:bookworm-security; do
  list=${suite%%:*}/dists/${suite#*:}
  mkdir -p $list/main/binary-amd64
  packages=main/binary-amd64/Packages
  : > $list/$packages
  if [ $suite = debian:bookworm ]; then
    for deb in debian/pool/*.deb; do
      dpkg-deb --field $deb
      echo "Filename: ${deb#debian/}"
      echo "Size: $(stat -c %s $deb)"
      echo "SHA256: $(sha256sum $deb | cut -d ' ' -f 1)"
      echo
    done > $list/$packages
  fi
  xz --keep $list/$packages
  (
    cd $list
    echo "Codename: ${suite#*:}"
    echo "Architectures: amd64"
    echo "Components: main"
    echo "Date: $(date --utc -R -d '30 days ago')"
    echo "Valid-Until: $(date --utc -R -d '20 days ago')"
    echo "SHA256:"
    for file in $packages $packages.xz; do
      echo " $(sha256sum $file | cut -d ' ' -f 1) $(stat -c %s $file) $file"
    done
  ) > release
  $gpg --clearsign --output $list/InRelease release
  rm $list/$packages
done
gpgconf --homedir $PWD/keys --kill gpg-agent
"#;

#[test]
fn an_image_is_made_of_a_disk_without_a_way_out_and_boots() {
    let test = "an_image_is_made_of_a_disk_without_a_way_out_and_boots";
    let programs = ["debugfs", "dpkg-deb", "gpg", "mkfs.ext4", "mmdebstrap", "qemu-system-x86_64"];
    let needs = [&[Need::Root, Need::SlowTests][..], &programs.map(Need::Program)].concat();
    if require(test, &needs) {
        from_a_disk().unwrap_or_else(|error| panic!("{error:?}"));
    }
}

fn from_a_disk() -> Result<()> {
    let image = Recipe::BUSYBOX.image(|text| eprintln!("{text}"))?;
    let site = Site::builder().create(Lan::lay("air-gap")?)?;
    let netns = site.lan().netns();
    let mut route = netns.command("ip", Signal::SIGKILL);
    ensure!(run(route.args(["route", "get", "192.0.2.1"])).is_err(), "there is a way out");

    let folder = tempfile::tempdir()?;
    // apt reads as a user of its own.
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
    let disk = folder.path().to_str().context("it is no text")?;
    let image = image.to_str().context("it is no text")?;
    run(Command::new("sh").args(["-c", DISK, "sh", disk, image])).context("no disk")?;

    let trusted = format!("deb [signed-by={disk}/key.gpg ");
    let lines = PAGE.lines().filter(|line| line.starts_with("deb [arch=amd64 lang=none"));
    let lines = lines.map(|line| line.replace("deb [", &trusted).replace("/mnt", disk));
    let sources = lines.fold(String::new(), |all, line| all + &line + "\n");
    ensure!(sources.lines().count() == 3, "the page has other sources: {sources}");
    fs::write(folder.path().join("sources.list"), sources)?;

    let (_, commands) = PAGE.split_once("```\nmmdebstrap").context("no mmdebstrap on the page")?;
    let (commands, _) = commands.split_once("bootlace image import").context("no import")?;
    let script = format!("set -eu\nmmdebstrap{commands}")
        // Debian's own packages depend on each other; ours are two.
        .replace("--variant=important", "--variant=extract --quiet")
        .replace("linux-image-amd64", "linux-image-amd64,small-system")
        .replace("/etc/apt/sources.list\n", &format!("{disk}/sources.list\n"));
    ensure!(script.contains(&format!("{disk}/sources.list")), "other sources: {script}");
    let mut shell = netns.command("sh", Signal::SIGKILL);
    let work = folder.path().join("work");
    fs::create_dir(&work)?;
    run(shell.args(["-c", &script]).current_dir(&work)).context(script)?;

    // One byte of a package, or of a list, and it is not taken.
    for file in ["debian/pool/small-system.deb", "debian/dists/bookworm/InRelease"] {
        ensure!(!is_taken(&site, folder.path(), file)?, "{file} was changed, and is taken");
    }

    let disk = work.join("debian.raw");
    let disk = disk.to_str().context("it is no text")?;
    let servers = site.up()?;
    site.run(&["image", "import", disk, "--name", "debian-12"])?;
    site.run(&["machine", "set", "pc-1", "--mac", MAC, "--image", "debian-12"])?;
    let pc = Pc::builder("pc-1").mac(MAC).start(site.lan())?;
    pc.console().wait_for("pc-1 login: ", BOOT)?;
    drop(pc);
    servers.stop()
}

/// Whether apt takes what is on the disk, with one byte of a file changed.
fn is_taken(site: &Site, disk: &Path, file: &str) -> Result<bool> {
    let path = disk.join(file);
    let content = fs::read(&path)?;
    let mut changed = content.clone();
    // Beyond what is before the signed text, in which nobody cares for a byte.
    let at = changed.len() / 3;
    changed[at] ^= 1;
    fs::write(&path, changed)?;
    let list = disk.join("sources.list");
    let mut again = site.lan().netns().command("mmdebstrap", Signal::SIGKILL);
    again.args(["--variant=extract", "--quiet", "--include=small-system", "bookworm"]);
    let taken = text_of(again.arg(disk.join("again")).arg(list));
    fs::write(&path, content)?;
    let _ = fs::remove_dir_all(disk.join("again"));
    Ok(taken.is_ok())
}
