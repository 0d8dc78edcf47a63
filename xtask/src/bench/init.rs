//! How long an initrd holds up a boot, and what it costs to make: ours, those of initramfs-tools, dracut's.
//!
//! QEMU counts one nanosecond for each instruction (`-icount shift=0`), so the times are those of one slow PC
//! whatever else this machine does, and repeat within hundredths of a second.

use super::peers::{self, Peers};
use crate::{build, say};
use anyhow::{Context, Result};
use clap::Args;
use lab::{Init as System, Kernel, Lan, Pc, Preboot, Recipe, Release, Site};
use std::path::{Path, PathBuf};
use std::time::Duration;

const MAC: &str = "52:54:00:00:00:01";
const NAME: &str = "pc-1";
const BOOT: Duration = Duration::from_secs(600);

/// What the real system's init says at its start.
const REAL_INIT: &str = "bench: the real init starts";

/// What the kernel says when it starts the initrd's.
const INITRD: &str = "Run /init as init process";

/// Debian with all three peers' initrds in `/boot`, and how long each took to make. dracut is told what to
/// leave out, as by itself it adds systemd-networkd, with which Debian's version does not boot from NBD.
const RECIPE: Recipe = Recipe {
    release: Release::Debian12,
    init: System::Systemd,
    packages: "nbd-client,dracut-core,dracut-network,isc-dhcp-client,iputils-arping,procps,zstd",
    script: r#"set -eu
cd "$1"
ln -sf /dev/null etc/systemd/system/nbd@.service
rm -f sbin/init
printf '#!/bin/sh\necho "<0>bench: the real init starts" > /dev/kmsg\nexec /lib/systemd/systemd "$@"\n' > usr/sbin/init
chmod 755 usr/sbin/init
kernel=$(ls lib/modules)
mount -t proc proc proc
trap 'umount proc' EXIT
make() {
  start=$(date +%s%3N)
  chroot . "$@" >&2
  echo "$name $(($(date +%s%3N) - start))" >> boot/times
}
for modules in netboot most; do
  name=initramfs-$modules
  cp -a etc/initramfs-tools tmp/conf
  sed -i "s/^MODULES=.*/MODULES=$modules/" tmp/conf/initramfs.conf
  make mkinitramfs -d /tmp/conf -o /boot/$name "$kernel"
  rm -r tmp/conf
done
name=dracut
make dracut --no-hostonly --zstd --add "nbd network-legacy" --omit "systemd systemd-initrd systemd-networkd dbus" \
  /boot/$name "$kernel"
"#,
};

#[derive(Args, Default)]
pub(crate) struct Init {
    /// Boot only initrds whose name contains this
    filter: Option<String>,
}

/// An initrd in the comparison.
struct Entry {
    name: String,
    /// Bytes.
    size: u64,
    /// Seconds that it took to make, if it was made here.
    made_in: Option<f64>,
    /// Seconds after the kernel's start: the initrd's init, the real one.
    times: (f64, f64),
}

impl Init {
    pub(crate) fn run(&self) -> Result<()> {
        let binary = build::run_release()?;
        let image = RECIPE.image(say)?;
        let mut entries = Vec::new();
        for root in ["nbd", "aoe"] {
            self.add(&mut entries, &format!("bootlace, {root}"), || ours(&binary, &image, root))?;
        }
        let folder = tempfile::tempdir()?;
        let times = peers::text_file(&image, "/boot/times")?;
        for name in ["initramfs-netboot", "initramfs-most", "dracut"] {
            self.add(&mut entries, name, || theirs(&image, name, &times, folder.path()))?;
        }
        show(&entries);
        Ok(())
    }

    fn add(
        &self,
        entries: &mut Vec<Entry>,
        name: &str,
        measure: impl FnOnce() -> Result<Entry>,
    ) -> Result<()> {
        if self.filter.as_ref().is_none_or(|filter| name.contains(filter.as_str())) {
            say(&format!("booting {name}"));
            entries.push(Entry { name: name.to_owned(), ..measure()? });
        }
        Ok(())
    }
}

fn ours(binary: &Path, image: &Path, root: &str) -> Result<Entry> {
    let site = Site::builder().binary(binary).create(Lan::lay("bench")?)?;
    site.run(&["image", "import", &image.to_string_lossy(), "--name", "debian"])?;
    let machine = ["machine", "set", NAME, "--mac", MAC, "--image", "debian", "--root-kind", root];
    site.run(&machine)?;
    let servers = site.up()?;
    let kernel = Preboot::start(&site, MAC)?.fetch()?;
    let entry = measure(site.lan(), &kernel)?;
    servers.stop()?;
    Ok(entry)
}

fn theirs(image: &Path, name: &str, times: &str, folder: &Path) -> Result<Entry> {
    let peers = Peers::start(image, MAC, NAME)?;
    let files = ["vmlinuz-", name].map(|prefix| peers::take_file(image, prefix, folder));
    let [kernel, initrd]: [PathBuf; 2] =
        files.into_iter().collect::<Result<Vec<_>>>()?.try_into().ok().context("two files")?;
    let server = lab::SERVER;
    let line = match name {
        "dracut" => format!("root=nbd:{server}:root:ext4:rw ip=dhcp rd.skipfsck"),
        _ => format!("root=/dev/nbd0 rw ip=dhcp nbdroot={server},root,nbd0"),
    };
    let kernel = Kernel::of_files(kernel, initrd, format!("console=ttyS0,115200 panic=30 {line}"));
    let made = times.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
    let entry = measure(peers.lan(), &kernel)?;
    Ok(Entry { made_in: made.map(|ms| ms / 1000.0), ..entry })
}

/// Boots until the real init starts.
fn measure(lan: &Lan, kernel: &Kernel) -> Result<Entry> {
    let mut kernel = kernel.clone();
    // All the kernel's messages, for all alike: each takes its time on a serial console.
    kernel.command_line = kernel.command_line.replace(" quiet", "") + " ignore_loglevel";
    let pc = Pc::builder(NAME).mac(MAC).kernel(&kernel).count_instructions().start(lan)?;
    pc.console().wait_for(REAL_INIT, BOOT)?;
    let text = pc.console().text();
    let at = |mark: &str| time_of(&text, mark).with_context(|| format!("no time of {mark:?}"));
    Ok(Entry {
        name: String::new(),
        size: std::fs::metadata(&kernel.initrd)?.len(),
        made_in: None,
        times: (at(INITRD)?, at(REAL_INIT)?),
    })
}

/// Seconds in the kernel's time stamp of the line with this mark: `[    1.790000] mark`.
fn time_of(text: &str, mark: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.contains(mark))?;
    line[..line.find(mark)?].rsplit_once('[')?.1.split(']').next()?.trim().parse().ok()
}

fn show(entries: &[Entry]) {
    println!("one PC that does an instruction a nanosecond; seconds since its kernel's start");
    println!(
        "{:20} {:>8} {:>8} {:>10} {:>10} {:>10}",
        "initrd", "MB", "made in", "its init", "real init", "inside"
    );
    for Entry { name, size, made_in, times: (first, real) } in entries {
        let made = made_in.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.1} s"));
        println!(
            "{name:20} {:8.2} {made:>8} {first:10.2} {real:10.2} {:10.2}",
            *size as f64 / 1e6,
            real - first
        );
    }
    println!("wanted of bootlace: at most 0.8 s inside, at most 2.6 s to the real init");
}

#[cfg(test)]
mod tests {
    use super::time_of;

    #[test]
    fn the_kernels_time_stamps_are_read() {
        let text =
            "[    0.000000] Linux\n[    1.790123] Run /init as init process\r\nx [  2.5] bench\n";
        assert_eq!(time_of(text, "Run /init"), Some(1.790_123));
        assert_eq!(time_of(text, "bench"), Some(2.5));
        assert_eq!(time_of(text, "other"), None);
    }
}
