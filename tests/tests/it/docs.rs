//! What the book tells people to type is typed, on a site of its own, and does what it should.

use crate::boot::{OTHER_MAC, QUICK};
use anyhow::{Context, Result, ensure};
use lab::{Lan, Need, Site, require};
use nix::sys::signal::Signal;
use pulldown_cmark::{CodeBlockKind, Event, Parser, Tag, TagEnd};
use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Lines that are not typed, by their page and how they begin, and why.
const NOT_TYPED: &[(&str, &str, &str)] = &[
    ("README.md", "cargo xtask demo", "it is a test of its own: demo"),
    ("README.md", "cargo xtask test", "this is that"),
    ("README.md", "apt install", "package::"),
    ("README.md", "bootlace setup", "setup::"),
    ("operating.md", "useradd", "it would change the host; package::"),
    ("operating.md", "groupadd", "it would change the host; package::"),
    ("operating.md", "usermod", "it would change the host; commands::members_of_the_group_…"),
    ("operating.md", "systemctl", "package::"),
    ("tutorial.md", "cargo xtask deb", "package::"),
    ("tutorial.md", "apt", "package::, and the images of all tests are made so"),
    ("tutorial.md", "mmdebstrap", "the images of all tests are made so"),
    ("tutorial.md", "truncate", "the images of all tests are made so"),
    ("tutorial.md", "mkfs.ext4", "the images of all tests are made so"),
    ("tutorial.md", "echo 'Welcome", "it needs the folder of the image"),
    ("tutorial.md", "ip ", "the lab's LAN is made so"),
    ("tutorial.md", "bootlace setup", "setup::"),
    ("tutorial.md", "bootlace machine power", "it needs a PC that runs; boot::"),
    ("capture-a-pc.md", "bootlace image capture", "it needs a PC with a disk; captures::"),
    ("change-an-image.md", "bootlace image edit", "edits::"),
    ("change-an-image.md", "bootlace image publish", "it needs a PC that has changed it; edits::"),
    (
        "change-an-image.md",
        "bootlace image shell",
        "it needs a terminal, or fetches packages; edits::",
    ),
    ("snapshots.md", "bootlace machine snapshots", "it needs a disk that is kept; boot::"),
    ("snapshots.md", "bootlace machine snapshot ", "it needs a disk that is kept; boot::"),
    ("snapshots.md", "bootlace machine snapshot-rm", "it needs a snapshot; boot::"),
    ("snapshots.md", "bootlace machine rollback", "it needs a snapshot; boot::"),
    ("snapshots.md", "bootlace machine files", "it needs a snapshot; boot::"),
    ("snapshots.md", "bootlace machine fetch", "it needs a snapshot; boot::"),
    (
        "ldap-and-nfs-homes.md",
        "bootlace image build",
        "it fetches a desktop; built::, and lay-files-over.md",
    ),
    ("ldap-and-nfs-homes.md", "bootlace machine set", "it needs that image"),
    (
        "ldap-and-nfs-homes.md",
        "bootlace files put",
        "it needs the files; lay-files-over.md types such, boot:: boots them",
    ),
    ("secure-boot.md", "apt-get", "cargo xtask setup installs them"),
    ("arm64.md", "dpkg", "it would change the host"),
    ("arm64.md", "apt-get", "it would change the host; Arm64::make fetches it"),
    ("air-gap.md", "sh collect.sh", "it needs the Internet, and a disk"),
    ("air-gap.md", "cat > /etc/apt", "it would change the host"),
    ("air-gap.md", "deb [", "it is of that file"),
    ("air-gap.md", "SOURCES", "it is of that file"),
    ("air-gap.md", "(cd /mnt", "it needs that disk"),
    ("air-gap.md", "apt-get", "it needs that disk; package::"),
    ("air-gap.md", "mmdebstrap", "air_gap::"),
    ("air-gap.md", "truncate", "air_gap::"),
    ("air-gap.md", "mkfs.ext4", "air_gap::"),
    ("air-gap.md", "bootlace setup", "setup::"),
    (
        "air-gap.md",
        "bootlace image import",
        "tutorial.md types it, and versions would have other numbers",
    ),
    ("air-gap.md", "bootlace backup create /root", "install.md types it"),
    ("images-between-servers.md", "bootlace image", "it needs another server; streams::"),
    ("images-between-servers.md", "bootlace backup", "it needs another server; streams::"),
    ("addresses.md", "bootlace lease free", "it needs that network; leases::"),
    ("addresses.md", "bootlace lease fix", "it needs that network; leases::"),
    ("addresses.md", "bootlace lease import", "it needs another server's file; leases::"),
    ("alerts.md", "editor", "it needs a person"),
    ("alerts.md", "bootlace alert test", "it needs a mail server; alerts::"),
    ("alerts.md", "systemctl", "package::"),
    ("back-up-and-restore.md", "bootlace backup create - | ssh", "there is no other host"),
    ("back-up-and-restore.md", "bootlace backup restore", "no server may run then; restored::"),
    ("build-an-initrd.md", "bootlace initrd build --modules", "it needs that kernel"),
    ("build-an-initrd.md", "bootlace initrd inspect /boot", "it needs that kernel"),
    ("directory.md", "editor", "it needs a person"),
    ("directory.md", "bootlace user test-login", "it needs a directory; ldap::"),
    ("directory.md", "systemctl", "package::"),
    ("find-out-what-is-wrong.md", "bootlace doctor", "it ends as what it finds; trouble::"),
    ("find-out-what-is-wrong.md", "bootlace logs", "it needs a journal; trouble::"),
    ("find-out-what-is-wrong.md", "journalctl", "it needs a journal; trouble::"),
    ("full-disk.md", "bootlace machine resume-writes", "it needs writes that wait; full_disk::"),
    ("full-disk.md", "bootlace machine fail-writes", "it needs writes that wait; full_disk::"),
    ("container.md", "podman", "it needs an image made of the package, and the host's network"),
    ("container.md", "echo 'd /run", "it would change the host"),
    ("container.md", "systemd-tmpfiles", "it would change the host"),
    ("container.md", "install -d", "it would change the host"),
    ("container.md", "place=", "it is for podman"),
    ("container.md", "root=", "it is for podman"),
    ("build-an-image.md", "bootlace image build", "it needs the Internet; built::"),
    (
        "import-an-image.md",
        "bootlace image import rootfs",
        "it needs such an archive; images/tests/archives.rs",
    ),
    ("import-an-image.md", "bootlace image import /srv", "it needs such a folder; built::"),
    ("import-an-image.md", "ssh", "there is no other host; images/tests/archives.rs"),
    ("import-an-image.md", "docker", "there is no Docker; images/tests/archives.rs"),
    ("import-an-image.md", "modprobe", "it would change the host"),
    ("import-an-image.md", "qemu-nbd", "it would change the host"),
    ("import-an-image.md", "mount", "it would change the host"),
    ("import-an-image.md", "umount", "it would change the host"),
    ("import-an-image.md", "mkfs.ext4 -d /mnt", "it needs that mount"),
    ("image-versions.md", "bootlace image", "it needs several versions; versions::"),
    (
        "what-hurts-in-an-image.md",
        "bootlace image check debian-12/v3",
        "it needs several versions; versions::",
    ),
    (
        "what-hurts-in-an-image.md",
        "bootlace image fix debian-12/v3",
        "it needs several versions; versions::",
    ),
    ("what-hurts-in-an-image.md", "bootlace image import", "it needs that disk; harms of images"),
    ("install.md", "apt install", "package::"),
    ("install.md", "bootlace setup", "setup::"),
    ("install.md", "echo \"a password", "setup::"),
    ("install.md", "echo bootlace bootlace/purge", "package::"),
    ("install.md", "cargo xtask deb", "package::"),
    ("jobs.md", "bootlace job show", "it needs so many jobs; jobs::"),
    ("jobs.md", "bootlace job cancel", "it needs a job that runs; jobs::"),
    ("further-disks.md", "bootlace disk reset", "it needs what a machine has written; disks::"),
    ("large-packets.md", "ip link", "mtu::"),
    ("monitoring.md", "bootlace nagios --url", "it needs pages on the network; accounts::"),
    ("power.md", "bootlace machine power", "it needs a PC that runs; boot::"),
    ("rescue-shell.md", "bootlace machine power", "it needs a PC that runs; rescue::"),
    ("rescue-shell.md", "apt-get", "it would change the host"),
    ("scripts.md", "bootlace doctor", "it ends as what it finds; trouble::"),
    ("scripts.md", "curl -H \"$auth\" -X POST", "it needs a PC that runs; boot::"),
    ("share-a-disk.md", "bootlace share", "it serves until Ctrl-C; nbd_clients::"),
    ("share-a-disk.md", "apt-get", "it would change the host"),
    ("share-a-disk.md", "modprobe", "it would change the host"),
    ("share-a-disk.md", "nbd-client", "it needs that server; nbd_clients::"),
    ("storage-network.md", "ip ", "storage_network::"),
    ("try-a-pc.md", "bootlace try", "it needs QEMU, and a terminal; trials::"),
    ("vlan.md", "ip ", "vlan::"),
];

/// What there is before the commands of a page are typed.
const BEFORE: &[(&str, &str)] = &[
    (
        "accounts.md",
        "bootlace user add tom --role viewer; for n in 1 2; do bootlace room set r10$n; done; for n in 1 2 3; do bootlace token add t$n --scope read; done",
    ),
    ("further-disks.md", "bootlace room set r101; mkdir courses; echo page > courses/book"),
    ("persistent-disks.md", "mkdir -p /var/lib/bootlace/layers/lab-07"),
    ("rooms.md", "bootlace room set r101"),
];

/// Answers to what commands ask for.
const TYPED: &str = "a password of some words";

#[test]
fn what_the_book_says_to_type_works() {
    let needs = [
        Need::Root,
        Need::Program("grub-mkimage"),
        Need::Program("curl"),
        Need::Program("openssl"),
    ];
    if require("docs", &needs) {
        check().unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn check() -> Result<()> {
    let image = QUICK.image(|text| eprintln!("{text}"))?;
    let site = Site::builder().create(Lan::lay("docs")?)?;
    let room = tempfile::tempdir()?;
    let book = Book::open(&site, room.path(), &image)?;
    let servers = site.up()?;
    book.type_in("bootlace image import debian.raw --name debian-12")?;
    for (name, mac) in [("lab-07", "52:54:00:12:34:56"), ("lab-08", OTHER_MAC)] {
        site.run(&["machine", "set", name, "--mac", mac, "--image", "debian-12"])?;
    }
    let mut unused: BTreeSet<_> = NOT_TYPED.iter().map(|(page, line, _)| (*page, *line)).collect();
    let mut n_typed = 0;
    for page in pages()? {
        let name = page.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some((_, before)) = BEFORE.iter().find(|(page, _)| *page == name) {
            book.type_in(before).with_context(|| format!("before {name}"))?;
        }
        for block in blocks(&fs::read_to_string(&page)?) {
            let mut script = String::new();
            for line in block.replace("\\\n", " ").lines() {
                let is_left_out = |(page, begin, _): &&(&str, &str, &str)| {
                    *page == name && line.starts_with(begin)
                };
                if let Some((page, begin, _)) = NOT_TYPED.iter().find(is_left_out) {
                    unused.remove(&(*page, *begin));
                } else {
                    n_typed += 1;
                    script.push_str(line);
                    script.push('\n');
                }
            }
            book.type_in(&script).with_context(|| format!("{name} says:\n{block}"))?;
        }
    }
    ensure!(unused.is_empty(), "the book no longer says {unused:?}");
    ensure!(n_typed > 50, "only {n_typed} lines were typed");
    servers.stop()
}

/// A place in which commands of the book are typed.
struct Book<'a> {
    site: &'a Site,
    folder: &'a Path,
    token: std::cell::OnceCell<String>,
}

impl<'a> Book<'a> {
    fn open(site: &'a Site, folder: &'a Path, image: &Path) -> Result<Self> {
        let bootlace = folder.join("bin/bootlace");
        fs::create_dir_all(folder.join("bin"))?;
        fs::create_dir_all(folder.join("backups"))?;
        let (binary, root) = (lab::bootlace_binary()?, site.root());
        let script =
            format!("#!/bin/sh\nexec {} --root {} \"$@\"\n", binary.display(), root.display());
        fs::write(&bootlace, script)?;
        fs::set_permissions(&bootlace, Permissions::from_mode(0o755))?;
        let work = folder.join("work");
        fs::create_dir(&work)?;
        // Three that differ in a byte that nobody reads.
        for (n, name) in ["debian.raw", "debian-2.raw", "root.raw"].iter().enumerate() {
            fs::copy(image, work.join(name))?;
            let mut file = File::options().append(true).open(work.join(name))?;
            std::io::Write::write_all(&mut file, &[u8::try_from(n)?; 4096])?;
        }
        lab::run(
            std::process::Command::new("qemu-img")
                .args(["convert", "-O", "qcow2"])
                .args([&work.join("root.raw"), &work.join("debian-12.qcow2")]),
        )?;
        Ok(Self { site, folder, token: std::cell::OnceCell::new() })
    }

    /// Types these lines into a shell on the server.
    fn type_in(&self, lines: &str) -> Result<()> {
        if lines.trim().is_empty() {
            return Ok(());
        }
        let root = self.site.root().display();
        let mut lines = lines.to_owned();
        let backups = self.folder.join("backups").display().to_string();
        for (word, ours) in [
            ("/var/lib/bootlace", format!("{root}/var/lib/bootlace")),
            ("/etc/bootlace", format!("{root}/etc/bootlace")),
            ("/var/backups/bootlace", backups.clone()),
            ("/backup/", format!("{backups}/")),
            ("/root/before.bootlace", format!("{backups}/before.bootlace")),
            ("curl ", "curl -sS --fail-with-body ".to_owned()),
            ("-g bootlace", "-g root".to_owned()),
            // A package of that release is long gone from Debian.
            ("--kernel-package linux-image-6.1.0-56-amd64.deb", "--image debian-12".to_owned()),
        ] {
            lines = lines.replace(word, &ours);
        }
        if lines.contains("bl_…") {
            let token = self.token.get_or_init(|| {
                let printed = self.site.run(&["token", "add", "book", "--scope", "admin"]);
                let printed = printed.unwrap_or_default();
                printed.lines().find(|line| line.starts_with("bl_")).unwrap_or_default().to_owned()
            });
            lines = lines.replace("bl_…", token);
        }
        let path = std::env::var("PATH").unwrap_or_default();
        let mut shell = self.site.lan().netns().command("sh", Signal::SIGKILL);
        shell
            .args(["-euc", &lines])
            .env("PATH", format!("{}/bin:{path}", self.folder.display()))
            .current_dir(self.folder.join("work"));
        lab::run_with_line(&mut shell, TYPED)
    }
}

/// The pages of the book that tell people to type something, with the README first.
fn pages() -> Result<Vec<PathBuf>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut pages = vec![root.join("README.md")];
    for folder in ["docs", "docs/how-to"] {
        let mut of_folder = Vec::new();
        for entry in fs::read_dir(root.join(folder))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "md") {
                of_folder.push(path);
            }
        }
        of_folder.sort();
        // The tutorial makes the image that the others have.
        of_folder.sort_by_key(|path| !path.ends_with("tutorial.md"));
        pages.extend(of_folder);
    }
    Ok(pages)
}

/// Blocks that are to be typed: those without a language, and of the shell.
fn blocks(text: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut block: Option<String> = None;
    for event in Parser::new(text) {
        match event {
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(language)))
                if ["", "sh"].contains(&&*language) =>
            {
                block = Some(String::new());
            }
            Event::End(TagEnd::CodeBlock) => blocks.extend(block.take()),
            Event::Text(text) => {
                if let Some(block) = &mut block {
                    block.push_str(&text);
                }
            }
            _ => {}
        }
    }
    blocks
}
