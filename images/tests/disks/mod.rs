//! Disks with file systems that are not ext4.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]
#![allow(dead_code, reason = "each test binary uses its part")]

use crate::common::run;
use model::FileSystem;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Makes a disk of these files in a folder.
pub(crate) fn make(kind: FileSystem, options: &[&str], files: &Path, folder: &Path) -> PathBuf {
    let disk = folder.join(format!("{kind}.raw"));
    let _ = fs::remove_file(&disk);
    match kind {
        FileSystem::Xfs => return make_xfs(options, files, folder),
        FileSystem::Btrfs => {
            File::create(&disk).unwrap().set_len(200 << 20).unwrap();
            run(Command::new("mkfs.btrfs").args(options).arg("-qr").arg(files).arg(&disk));
        }
        FileSystem::Squashfs => {
            let arguments = ["-quiet", "-no-progress", "-no-xattrs", "-processors", "2"];
            run(Command::new("mksquashfs").arg(files).arg(&disk).args(arguments).args(options));
        }
        FileSystem::Erofs => {
            run(Command::new("mkfs.erofs").args(options).arg(&disk).arg(files));
        }
        FileSystem::Ext4 => {
            run(Command::new("mkfs.ext4").args(["-qF", "-d"]).arg(files).arg(&disk).arg("40M"));
        }
    }
    disk
}

pub(crate) fn make_xfs(options: &[&str], files: &Path, folder: &Path) -> PathBuf {
    let (disk, list) = (folder.join("xfs.raw"), folder.join("xfs.list"));
    let _ = fs::remove_file(&disk);
    let mut prototype = "/dev/null\n0 0\nd--755 0 0\n".to_owned();
    add(&mut prototype, files);
    fs::write(&list, prototype + "$\n").unwrap();
    File::create(&disk).unwrap().set_len(300 << 20).unwrap();
    run(Command::new("mkfs.xfs").args(options).args(["-q", "-f", "-p"]).arg(&list).arg(&disk));
    disk
}

/// Names the files of a folder as mkfs.xfs(8) wants them.
fn add(prototype: &mut String, folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
        let about = entry.metadata().unwrap();
        let mode = about.mode() & 0o777;
        if about.is_dir() {
            writeln!(prototype, "{name} d--{mode:o} 0 0").unwrap();
            add(prototype, &path);
            prototype.push_str("$\n");
        } else if about.is_symlink() {
            let target = fs::read_link(&path).unwrap();
            writeln!(prototype, "{name} l--777 0 0 {}", target.display()).unwrap();
        } else {
            writeln!(prototype, "{name} ---{mode:o} 0 0 {}", path.display()).unwrap();
        }
    }
}

/// Runs a script with a disk mounted at `$MOUNTED` and files in `$FILES`; `false`: it can't be mounted here.
pub(crate) fn mounted(disk: &Path, kind: &str, options: &str, files: &Path, script: &str) -> bool {
    let mounted = disk.with_extension("mounted");
    let _ = fs::create_dir(&mounted);
    let script = format!(
        "set -e; mount -t {kind} -o loop,{options} $DISK $MOUNTED || exit 7; ({script}); umount $MOUNTED"
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
    command.env("DISK", disk).env("MOUNTED", &mounted).env("FILES", files);
    let output = command.output().unwrap();
    let is_possible = is_possible(&output, &["mount"]);
    assert!(!is_possible || output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    is_possible
}

/// Whether a script could do what needs root, loop devices, and programs that may be missing: otherwise it ended with 7.
pub(crate) fn is_possible(output: &Output, programs: &[&str]) -> bool {
    let said = String::from_utf8_lossy(&output.stderr);
    let is_missing = programs.iter().any(|program| said.contains(&format!("{program}: not found")));
    if output.status.code() != Some(7) && !is_missing {
        return true;
    }
    let reason = format!("it takes root, loop devices, and {}: {said}", programs.join(" and "));
    assert!(std::env::var_os("CI_REQUIRE_ALL").is_none(), "{reason}");
    println!("skipped: {reason}");
    false
}

/// A disk with an MBR that grows by partitions.
pub(crate) struct Partitioned {
    path: PathBuf,
    file: File,
    end: u64,
    n_partitions: usize,
}

impl Partitioned {
    pub(crate) fn new(path: &Path) -> Self {
        let _ = fs::remove_file(path);
        let file = File::create_new(path).unwrap();
        file.write_all_at(&[0x55, 0xaa], 510).unwrap();
        Self { path: path.to_owned(), file, end: 1 << 20, n_partitions: 0 }
    }

    pub(crate) fn add(&mut self, content: &[u8]) {
        let entry = 446 + self.n_partitions as u64 * 16;
        let sectors = |bytes: u64| u32::try_from(bytes / 512).unwrap().to_le_bytes();
        let length = (content.len() as u64).next_multiple_of(1 << 20);
        self.file.write_all_at(&[0x83], entry + 4).unwrap();
        self.file.write_all_at(&sectors(self.end), entry + 8).unwrap();
        self.file.write_all_at(&sectors(length), entry + 12).unwrap();
        for (n, block) in content.chunks(1 << 16).enumerate() {
            if block.iter().any(|&byte| byte != 0) {
                self.file.write_all_at(block, self.end + ((n as u64) << 16)).unwrap();
            }
        }
        self.end += length;
        self.n_partitions += 1;
    }

    pub(crate) fn finish(self) -> PathBuf {
        self.file.set_len(self.end).unwrap();
        self.path
    }
}
