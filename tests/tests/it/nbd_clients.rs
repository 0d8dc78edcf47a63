//! `bootlace share` with the NBD clients of others.

#![expect(clippy::unwrap_used, reason = "a test that can not be set up must fail")]

use lab::{Daemon, Need, bootlace_binary, require, text_of};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

/// A shared file of 32 MiB, of which the second MiB is 0x11 and the rest a hole.
struct Shared {
    daemon: Daemon,
    folder: TempDir,
}

impl Shared {
    fn start(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = File::create(folder.path().join("disk")).unwrap();
        file.set_len(32 * MIB).unwrap();
        file.write_all_at(&vec![0x11; MIB as usize], MIB).unwrap();
        Self::start_in(folder, options)
    }

    fn start_in(folder: TempDir, options: &[&str]) -> Self {
        let mut command = Command::new(bootlace_binary().unwrap());
        command.arg("share").arg(folder.path().join("disk")).args(["--name", "lab"]);
        command.arg("--nbd-unix").arg(folder.path().join("socket"));
        command.args(["--nbd", "127.0.0.1:0"]).args(options);
        let log = folder.path().join("log");
        let mut daemon = Daemon::start_detached("bootlace share", &mut command, &log).unwrap();
        daemon.wait_for_log("nbd+unix:///lab", Duration::from_secs(20)).unwrap();
        Self { daemon, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn uri(&self) -> String {
        format!("nbd+unix:///lab?socket={}", self.path("socket").display())
    }

    fn tcp_uri(&self) -> String {
        let log = self.daemon.log();
        log.lines().find(|line| line.starts_with("nbd://")).unwrap().to_owned()
    }
}

#[test]
fn a_disk_may_grow_while_it_is_used() {
    if !programs("a disk that grows", &["nbdinfo", "qemu-io"]) {
        return;
    }
    let shared = Shared::start(&[]);
    let mut command = Command::new("qemu-io");
    command.args(["-f", "raw", &shared.tcp_uri()]);
    let mut reader = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut keyboard = reader.stdin.take().unwrap();
    writeln!(keyboard, "read -P 0x11 1M 4k").unwrap();
    let file = File::options().write(true).open(shared.path("disk")).unwrap();
    file.set_len(48 * MIB).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while ok("nbdinfo", &["--size", &shared.uri()]).trim() != (48 * MIB).to_string() {
        assert!(Instant::now() < deadline, "the new size is not seen");
        std::thread::sleep(Duration::from_millis(100));
    }
    writeln!(keyboard, "read -P 0x11 1536k 4k").unwrap();
    drop(keyboard);
    let output = reader.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said.matches("read 4096/4096").count(), 2, "the open connection went on: {said}");
    ok("qemu-io", &["-f", "raw", "-c", "write -P 7 40M 1M", &shared.uri()]);
}

fn ok(program: &str, arguments: &[&str]) -> String {
    text_of(Command::new(program).args(arguments)).unwrap()
}

fn programs(test: &str, names: &[&'static str]) -> bool {
    let needs: Vec<Need> = names.iter().map(|name| Need::Program(name)).collect();
    require(test, &needs)
}

#[test]
fn nbdinfo_sees_what_the_share_is_and_where_its_holes_are() {
    if !programs("nbdinfo_sees_what_the_share_is_and_where_its_holes_are", &["nbdinfo"]) {
        return;
    }
    let shared = Shared::start(&[]);
    let info: serde_json::Value =
        serde_json::from_str(&ok("nbdinfo", &["--json", &shared.uri()])).unwrap();
    assert_eq!(info["structured"], true);
    let export = &info["exports"][0];
    assert_eq!(export["export-size"], 32 * MIB);
    assert_eq!(export["contexts"][0], "base:allocation");
    for yes in [
        "can_cache",
        "can_df",
        "can_fast_zero",
        "can_flush",
        "can_fua",
        "can_multi_conn",
        "can_trim",
        "can_zero",
    ] {
        assert_eq!(export[yes], true, "{yes}");
    }
    assert_eq!(export["block_size_minimum"], 1);
    assert_eq!(export["block_size_maximum"], 32 * MIB);
    let list = ok("nbdinfo", &["--list", "--json", &shared.tcp_uri().replace("/lab", "/")]);
    assert!(list.contains("\"lab\""), "{list}");

    let map = ok("nbdinfo", &["--map", "--json", &shared.uri()]);
    let map: serde_json::Value = serde_json::from_str(&map).unwrap();
    let extents: Vec<(u64, u64)> = map
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["length"].as_u64().unwrap(), one["type"].as_u64().unwrap()))
        .collect();
    assert_eq!(extents, [(MIB, 3), (MIB, 0), (30 * MIB, 3)]);
}

#[test]
fn copies_are_equal_and_holes_stay_holes() {
    if !programs("copies_are_equal_and_holes_stay_holes", &["nbdcopy", "qemu-img", "cmp"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (image, copy) = (folder.path().join("image"), folder.path().join("copy"));
    let bytes: Vec<u8> = (0..32 * MIB).map(|at| (at / 512 * 7 + at % 251) as u8).collect();
    std::fs::write(&image, bytes).unwrap();
    let (image, copy) = (image.to_str().unwrap(), copy.to_str().unwrap());
    for options in [&[][..], &["--write", "discard"]] {
        let shared = Shared::start(options);
        for uri in [shared.uri(), shared.tcp_uri()] {
            ok("nbdcopy", &["--connections=4", image, &uri]);
            ok("nbdcopy", &["--connections=4", &uri, copy]);
            ok("cmp", &[image, copy]);
            ok("qemu-img", &["compare", "-f", "raw", "-F", "raw", image, &uri]);
        }
    }
    let fresh = Shared::start(&["--readonly"]);
    std::fs::remove_file(copy).unwrap();
    ok("nbdcopy", &[&fresh.uri(), copy]);
    let used = std::fs::metadata(copy).unwrap().blocks() * 512;
    assert!(used <= 2 * MIB, "{used} bytes of a file with 1 MiB of data");
}

#[test]
fn qemu_io_finds_what_it_wrote() {
    if !programs("qemu_io_finds_what_it_wrote", &["qemu-io", "qemu-img"]) {
        return;
    }
    let shared = Shared::start(&[]);
    let commands = [
        "read -P 0 0 1M",
        "read -P 0x11 1M 1M",
        "write -P 0xaa 0 1M",
        "read -P 0xaa 0 1M",
        "write -z -u 0 64k",
        "write -z 64k 64k",
        "write -z -u -n 128k 64k",
        "read -P 0 0 192k",
        "discard 1M 1M",
        "read -P 0 1M 1M",
        "write -f -P 1 5M 4k",
        "write -P 2 5243392 512",
        "read -P 2 5243392 512",
        "write -P 3 8M 20M",
        "read -P 3 8M 20M",
        "flush",
    ];
    let mut arguments = vec!["-f", "raw"];
    arguments.extend(commands.iter().flat_map(|command| ["-c", command]));
    let uri = shared.uri();
    arguments.push(&uri);
    let said = ok("qemu-io", &arguments);
    assert!(!said.contains("failed") && !said.contains("error"), "{said}");
    let map = ok("qemu-img", &["map", "--output=json", "-f", "raw", &uri]);
    let map: serde_json::Value = serde_json::from_str(&map).unwrap();
    let data: u64 = map
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["data"] == true)
        .map(|one| one["length"].as_u64().unwrap())
        .sum();
    assert!((20 * MIB..=22 * MIB).contains(&data), "{data} bytes of data");
}

#[test]
fn fio_finds_every_block_as_it_wrote_it() {
    if !programs("fio_finds_every_block_as_it_wrote_it", &["fio"]) {
        return;
    }
    let shared = Shared::start(&[]);
    let uri = format!("--uri={}", shared.tcp_uri());
    let state = format!("--aux-path={}", shared.folder.path().display());
    let job = "--name=verify --ioengine=nbd --rw=randwrite --bsrange=512-128k --size=16m --iodepth=16 \
               --verify=crc32c --do_verify=1 --verify_fatal=1 --fsync=20 --randseed=7";
    let mut arguments: Vec<&str> = job.split(' ').filter(|word| !word.is_empty()).collect();
    arguments.extend([uri.as_str(), &state]);
    ok("fio", &arguments);
}

/// Each line: what libnbd is made to send, and the error that must come back.
const ILLEGAL: &str = r#"
import errno, sys, nbd
h = nbd.NBD()
h.set_strict_mode(0)
h.add_meta_context("base:allocation")
h.connect_uri(sys.argv[1])
size = h.get_size()

def expect(code, call):
    try:
        call()
    except nbd.Error as error:
        assert error.errnum == code, (error.string, error.errnum, code)
        return
    assert code == 0, "it was allowed"

extent = lambda *arguments: 0
expect(errno.EINVAL, lambda: h.pread(512, size))
expect(errno.EINVAL, lambda: h.pread(512, 2**63))
expect(errno.ENOSPC, lambda: h.pwrite(b"x" * 512, size - 511))
expect(errno.ENOSPC, lambda: h.zero(1024, size - 512))
expect(errno.EINVAL, lambda: h.trim(1024, size - 512))
expect(errno.EINVAL, lambda: h.cache(1024, size - 512))
expect(errno.EINVAL, lambda: h.block_status(1024, size - 512, extent))
expect(errno.EINVAL, lambda: h.block_status(0, 0, extent))
expect(errno.EINVAL, lambda: h.pwrite(b"x" * 512, 0, nbd.CMD_FLAG_DF))
expect(errno.EINVAL, lambda: h.flush(nbd.CMD_FLAG_FAST_ZERO))
expect(errno.EINVAL, lambda: h.pread(512, 0, 1 << 9))
expect(0, lambda: h.pread(512, 0, nbd.CMD_FLAG_FUA))
expect(0, lambda: h.pread(512, 0, nbd.CMD_FLAG_DF))
expect(0, lambda: h.zero(4096, 0, nbd.CMD_FLAG_FAST_ZERO))
expect(0, lambda: h.trim(0, 0))
expect(0, lambda: h.pwrite(b"x" * (32 << 20), 0))
expect(0, lambda: h.flush())
one = []
h.block_status(size, 0, lambda m, o, e, err: one.extend(e), nbd.CMD_FLAG_REQ_ONE)
assert len(one) == 2, one
assert h.pread(3, size - 3) == b"xxx"
h.shutdown()
"#;

#[test]
fn illegal_requests_get_the_right_errors_and_the_connection_goes_on() {
    let test = "illegal_requests_get_the_right_errors_and_the_connection_goes_on";
    if !programs(test, &["nbdsh"]) {
        return;
    }
    let shared = Shared::start(&[]);
    ok("/usr/bin/python3", &["-c", ILLEGAL, &shared.uri()]);
}

#[test]
fn writes_go_where_they_were_told_to() {
    if !programs("writes_go_where_they_were_told_to", &["qemu-io"]) {
        return;
    }
    let shared = Shared::start(&["--write", "discard"]);
    let write = ["-f", "raw", "-c", "write -P 7 1M 64k", "-c", "flush", "-c", "read -P 7 1M 64k"];
    let uri = shared.uri();
    let said = ok("qemu-io", &[&write[..], &["-c", "read -P 0x11 1088k 4k", &uri]].concat());
    assert!(!said.contains("failed"), "{said}");
    let mut byte = [0];
    File::open(shared.path("disk")).unwrap().read_exact_at(&mut byte, MIB).unwrap();
    assert_eq!(byte, [0x11], "the file was written to");
    let Shared { daemon, folder } = shared;
    daemon.stop().unwrap();
    assert!(!folder.path().join("socket").exists(), "the socket's file is left behind");

    let shared = Shared::start_in(folder, &["--readonly"]);
    let refused = Command::new("qemu-io").args(&write[..4]).arg(shared.uri()).output().unwrap();
    assert!(!refused.status.success(), "a read-only share was written to");
}

#[test]
fn libnbd_starts_a_share_by_socket_activation() {
    if !programs("libnbd_starts_a_share_by_socket_activation", &["nbdinfo"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    File::create(&disk).unwrap().set_len(MIB).unwrap();
    let bootlace = bootlace_binary().unwrap();
    let words = ["[", bootlace.to_str().unwrap(), "share", disk.to_str().unwrap(), "]"];
    let said = ok("nbdinfo", &[&["--size"], &words[..]].concat());
    assert!(said.ends_with(&MIB.to_string()), "{said}");
}

fn share(arguments: &[&str]) -> Output {
    Command::new(bootlace_binary().unwrap()).arg("share").args(arguments).output().unwrap()
}

#[test]
fn what_can_not_be_shared_is_said_with_what_helps() {
    let shared = Shared::start(&[]);
    let other = shared.path("other");
    File::create(&other).unwrap().set_len(MIB).unwrap();
    let empty = shared.path("empty");
    File::create(&empty).unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (disk, other, empty) = (text(&shared.path("disk")), text(&other), text(&empty));
    let taken = shared.tcp_uri().replace("nbd://", "").replace("/lab", "");
    let socket = text(&shared.path("socket"));
    for (arguments, word) in [
        (vec![disk.as_str(), "--nbd", "127.0.0.1:0"], "another program has locked it"),
        (vec![disk.as_str(), "--readonly"], "--readonly or --write discard"),
        (vec!["/nowhere/disk"], "No such file"),
        (vec!["/tmp"], "neither a file nor a block device"),
        (vec![empty.as_str()], "it is empty"),
        (vec![other.as_str(), "--nbd", &taken], "another program listens there"),
        (vec![other.as_str(), "--nbd-unix", &socket], "another program listens there"),
        (vec![other.as_str(), "--nbd", "192.0.2.1:1"], "not an address of this host"),
        (vec![other.as_str(), "--aoe", "none0:1.0"], "none0"),
        (vec![other.as_str(), "--aoe", "lo:1.0", "--allow", "10.0.0.1"], "no --allow names"),
        (vec![other.as_str(), "--name", ""], "1 to 255 bytes"),
    ] {
        let output = share(&arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains(word), "{arguments:?}: {said}");
    }
    assert_eq!(share(&[&other, "--allow", "host"]).status.code(), Some(2));
}
