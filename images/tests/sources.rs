//! What an import may be given: files that are not all there, that others write to, that are no files; and ends of
//! imports that nobody planned.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use common::{run, system_disk};
use images::{ImportError, ImportRequest, Progress, Source, Step, Stop, Store};
use model::{ImageName, ImageVersion, VersionState};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::fs::{self, File};
use std::io::{IoSlice, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileExt, FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn name() -> ImageName {
    "debian-12".parse().unwrap()
}

fn store(dir: &Path) -> Store {
    Store::open(&dir.join("images")).unwrap()
}

fn import(
    store: &Store,
    source: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<ImageVersion, ImportError> {
    let request = ImportRequest {
        disk_bytes: None,
        source: Source::open(source)?,
        name: name(),
        note: None,
        state: VersionState::Released,
        fix: None,
        is_data: false,
    };
    Ok(store.import(&request, &Stop::default(), progress)?.version)
}

/// What is in the store, but for its lock.
fn left_in(store: &Store) -> Vec<String> {
    let names = fs::read_dir(store.dir()).unwrap();
    let mut names: Vec<String> =
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != ".lock" && name != ".numbers.toml");
    names.sort();
    names
}

fn check_refused(source: &Path, expected: &str) {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let start = Instant::now();
    let text = import(&store, source, &mut |_| ()).unwrap_err().to_string();
    assert!(text.contains(expected), "expected {expected:?} in: {text}");
    assert_eq!(left_in(&store), [""; 0]);
    assert!(start.elapsed() < Duration::from_secs(10), "took {:?}", start.elapsed());
}

fn convert(raw: &Path, arguments: &[&str], target: &Path) {
    run(Command::new("qemu-img")
        .args(["convert", "-f", "raw", "-O"])
        .args(arguments)
        .arg(raw)
        .arg(target));
}

#[test]
fn what_is_no_file_is_refused_and_nobody_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    run(Command::new("mkfifo").arg(&pipe));
    assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
    check_refused(&pipe, "it is a pipe: give a tar archive on standard input");
    let socket = dir.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    check_refused(&socket, "it is a socket");
    check_refused(Path::new("/dev/zero"), "it is a character device");
    check_refused(Path::new("/dev/null"), "it is a character device");
    check_refused(dir.path(), "it is a folder");
}

#[test]
fn a_disk_image_that_is_not_all_there_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let raw = system_disk(dir.path());
    let kinds: [&[&str]; 7] = [
        &["qcow2"],
        &["qcow2", "-c"],
        &["vmdk"],
        &["vmdk", "-o", "subformat=streamOptimized"],
        &["vdi"],
        &["vhdx"],
        &["vpc"],
    ];
    for arguments in kinds {
        let source = dir.path().join("cut");
        convert(&raw, arguments, &source);
        let bytes = source.metadata().unwrap().len();
        for cut in [200_000, bytes * 4 / 10] {
            File::options().write(true).open(&source).unwrap().set_len(bytes - cut).unwrap();
            check_refused(&source, "it is cut off");
        }
        fs::remove_file(&source).unwrap();
    }
    let split = dir.path().join("split.vmdk");
    convert(&raw, &["vmdk", "-o", "subformat=twoGbMaxExtentSparse"], &split);
    check_refused(&split, "only names other files");
    check_refused(&dir.path().join("split-s001.vmdk"), "one of several files of a disk");
    let corrupt = dir.path().join("corrupt.qcow2");
    convert(&raw, &["qcow2"], &corrupt);
    File::options().write(true).open(&corrupt).unwrap().write_all_at(&[2], 79).unwrap();
    check_refused(&corrupt, "marked it as corrupt");
}

#[test]
fn a_disk_is_looked_at_before_it_is_converted() {
    let dir = tempfile::tempdir().unwrap();
    let thin = dir.path().join("thin.qcow2");
    run(Command::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(&thin).arg("200G"));
    check_refused(&thin, "a file without partition table or file system");
    let huge = dir.path().join("huge.qcow2");
    let mut create = Command::new("qemu-img");
    create.args(["create", "-q", "-f", "qcow2", "-o", "cluster_size=2M"]).arg(&huge).arg("60T");
    run(&mut create);
    check_refused(&huge, "17592186044416 is the most");
    // A comma in a name means something to QEMU, a colon too.
    let raw = system_disk(dir.path());
    for (number, name) in ["a,file.locking=off,b", "json:{}", "nbd:x"].into_iter().enumerate() {
        let source = dir.path().join(name);
        let plain = dir.path().join("plain.qcow2");
        convert(&raw, &["qcow2"], &plain);
        fs::rename(plain, &source).unwrap();
        let store = store(&dir.path().join(number.to_string()));
        assert_eq!(import(&store, &source, &mut |_| ()).unwrap().version, 1, "{name}");
        let version = fs::read_dir(store.dir().join("debian-12/1")).unwrap();
        assert_eq!(version.count(), 3, "disk, kernel and description only");
    }
}

#[test]
fn a_disk_that_changes_meanwhile_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let source = system_disk(dir.path());
    let check = |change: &dyn Fn(&File)| {
        let store = store(dir.path());
        let mut is_first = true;
        let error = import(&store, &source, &mut |progress| {
            if progress.step == Step::Copy && progress.done_bytes > 4 << 20 && is_first {
                is_first = false;
                change(&File::options().write(true).open(&source).unwrap());
            }
        });
        let error = error.unwrap_err();
        assert!(matches!(error, ImportError::Changed { .. }), "{error}");
        assert!(error.to_string().contains("changed while it was copied"), "{error}");
        assert_eq!(left_in(&store), [""; 0]);
    };
    // One place that was read already, one that was not; longer; shorter.
    check(&|file| file.write_all_at(b"x", 1 << 20).unwrap());
    check(&|file| file.write_all_at(b"x", 20 << 20).unwrap());
    check(&|file| file.set_len(25 << 20).unwrap());
    check(&|file| file.set_len(20 << 20).unwrap());
}

/// A program, until it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_disk_that_another_program_may_write_to_is_refused_by_the_programs_name() {
    let dir = tempfile::tempdir().unwrap();
    let source = system_disk(dir.path());
    let open = |mode: &str| {
        let script = format!("exec 3{mode}\"$1\"; echo open; read end");
        let mut command = Command::new("sh");
        command.args(["-c", &script, "sh"]).arg(&source);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut word = [0; 5];
        child.stdout.as_mut().unwrap().read_exact(&mut word).unwrap();
        Running(child)
    };
    {
        let writer = open("<>");
        check_refused(&source, &format!("is open for writing by sh (pid {})", writer.0.id()));
    }
    {
        let _appender = open(">>");
        check_refused(&source, "is open for writing by sh");
    }
    {
        // As a virtual machine that we can't see: in a container, or on another host.
        let machine = File::open(&source).unwrap();
        let lock = libc::flock {
            l_type: libc::F_RDLCK as i16,
            l_whence: libc::SEEK_SET as i16,
            l_start: 101,
            l_len: 1,
            l_pid: 0,
        };
        fcntl(&machine, FcntlArg::F_OFD_SETLK(&lock)).unwrap();
        check_refused(&source, "is open for writing by a virtual machine");
    }
    let _reader = open("<");
    let store = store(dir.path());
    assert_eq!(import(&store, &source, &mut |_| ()).unwrap().version, 1);
}

#[test]
fn a_writer_is_seen_by_whatever_name_and_wherever_he_is() {
    let dir = tempfile::tempdir().unwrap();
    let source = system_disk(dir.path());
    let script = "exec 3<>\"$1\"; echo open; read end";
    let other_name = dir.path().join("other-name");
    fs::hard_link(&source, &other_name).unwrap();
    {
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(&other_name);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 5]).unwrap();
        let _writer = Running(child);
        check_refused(&source, "is open for writing by sh (pid");
    }
    {
        // On its way from one process to another it is nobody's: only the kernel knows of it, as if its owner were in a
        // container that is closed to us.
        let (sender, _receiver) = UnixStream::pair().unwrap();
        let writer = File::options().write(true).open(&source).unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut message = SendAncillaryBuffer::new(&mut space);
        let descriptors = [writer.as_fd()];
        assert!(message.push(SendAncillaryMessage::ScmRights(&descriptors)));
        sendmsg(&sender, &[IoSlice::new(b"x")], &mut message, SendFlags::empty()).unwrap();
        drop(writer);
        check_refused(&source, "is open for writing by a program that can't be seen from here");
    }
    // Who is about to close it, as a child that is about to start another program, is not waited for in vain.
    let writer = File::options().write(true).open(&source).unwrap();
    let closing = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        drop(writer);
    });
    let store = store(dir.path());
    assert_eq!(import(&store, &source, &mut |_| ()).unwrap().version, 1);
    closing.join().unwrap();
}

/// A loop device, until it is dropped.
struct Loop(String);

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["--quiet", &self.0]).status();
        let _ = Command::new("losetup").args(["-d", &self.0]).status();
    }
}

/// A folder whose mounts end in all mount namespaces at once, until it is dropped.
struct Shared(PathBuf);

impl Shared {
    fn below(dir: &Path) -> Self {
        let folder = dir.join("shared");
        fs::create_dir(&folder).unwrap();
        run(Command::new("mount").arg("--bind").arg(&folder).arg(&folder));
        let shared = Self(folder);
        run(Command::new("mount").arg("--make-shared").arg(&shared.0));
        shared
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["--recursive", "--quiet"]).arg(&self.0).status();
    }
}

#[test]
fn a_device_that_is_mounted_is_refused_and_so_is_the_file_behind_one() {
    let dir = tempfile::tempdir().unwrap();
    let source = system_disk(dir.path());
    let mut losetup = Command::new("losetup");
    let told = losetup.args(["--find", "--show"]).arg(&source).output();
    let Some(told) = told.ok().filter(|told| told.status.success()) else {
        assert!(std::env::var_os("CI_REQUIRE_ALL").is_none(), "no loop device: run as root");
        println!("skipped: can't make a loop device (not root)");
        return;
    };
    let device = Loop(String::from_utf8(told.stdout).unwrap().trim().to_owned());
    check_refused(&source, &format!("open for writing by {}", device.0));
    check_refused(&source, &format!("detach it with `losetup -d {}`", device.0));
    // Other tests begin mount namespaces meanwhile, which get a copy of what is mounted: below a shared mount it goes with ours.
    let shared = Shared::below(dir.path());
    let folder = shared.0.join("mounted");
    fs::create_dir(&folder).unwrap();
    run(Command::new("mount").args(["-o", "ro", &device.0]).arg(&folder));
    check_refused(
        Path::new(&device.0),
        "is in use by this server: it, or a part of it, is mounted",
    );
    run(Command::new("umount").arg(&folder));
    let store = store(dir.path());
    assert_eq!(import(&store, Path::new(&device.0), &mut |_| ()).unwrap().version, 1);
}

#[test]
fn an_import_that_is_stopped_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let raw = system_disk(dir.path());
    let converted = dir.path().join("disk.qcow2");
    convert(&raw, &["qcow2"], &converted);
    for source in [raw, converted] {
        for step in [Step::Copy, Step::Digest] {
            let store = store(dir.path());
            let stop = Stop::default();
            let request = ImportRequest {
                disk_bytes: None,
                source: Source::open(&source).unwrap(),
                name: name(),
                note: None,
                state: VersionState::Released,
                fix: None,
                is_data: false,
            };
            let mut has_step = false;
            let stopped = store.import(&request, &stop, &mut |progress| {
                if progress.step == step {
                    has_step = true;
                    stop.stop();
                }
            });
            match stopped {
                Err(error) => assert_eq!(error.to_string(), "the import was stopped"),
                // A raw disk is digested while it is copied.
                Ok(_) => {
                    assert!(!has_step);
                    store.remove(&name(), 1).unwrap();
                    fs::remove_dir_all(store.dir().join("debian-12")).unwrap();
                }
            }
            assert_eq!(left_in(&store), [""; 0]);
        }
    }
}

#[test]
fn two_imports_at_once_make_two_versions_or_one() {
    let dir = tempfile::tempdir().unwrap();
    let source = system_disk(dir.path());
    let other = dir.path().join("other.raw");
    fs::copy(&source, &other).unwrap();
    File::options().write(true).open(&other).unwrap().write_all_at(b"x", (24 << 20) - 1).unwrap();
    let both = |sources: [&Path; 2], folder: &str| {
        let folder = dir.path().join(folder);
        // Both are copied before one is published.
        let barrier = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            let [first, second] = sources.map(|source| {
                let (folder, barrier) = (&folder, &barrier);
                scope.spawn(move || {
                    import(&store(folder), source, &mut |progress| {
                        if (progress.step, progress.done_bytes) == (Step::Sync, 0) {
                            barrier.wait();
                        }
                    })
                })
            });
            [first.join().unwrap(), second.join().unwrap()]
        })
    };
    let mut numbers = both([&source, &other], "different").map(|version| version.unwrap().version);
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2]);

    let same = both([&source, &source], "same");
    let n_made = same.iter().filter(|version| version.is_ok()).count();
    assert_eq!(n_made, 1, "{same:?}");
    let refused = same.into_iter().find_map(Result::err).unwrap();
    assert!(matches!(refused, ImportError::SameAsNewest { version: 1, .. }), "{refused}");
}

/// Where the child finds its folder; set only there.
const DIR: &str = "BOOTLACE_TEST_IMPORT_DIR";

/// Not a test of its own: the child of the next one, which imports until it is killed.
#[test]
fn child_that_imports_until_it_is_killed() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let dir = PathBuf::from(dir);
    let _ = import(&store(&dir), &dir.join("disk.qcow2"), &mut |_| ());
}

#[test]
fn a_killed_import_leaves_nothing_that_runs_and_nothing_that_stays() {
    let dir = tempfile::tempdir().unwrap();
    let raw = system_disk(dir.path());
    convert(&raw, &["qcow2"], &dir.path().join("disk.qcow2"));
    // Looks at once, and converts for ever.
    let tools = dir.path().join("tools");
    fs::create_dir(&tools).unwrap();
    let tool = tools.join("qemu-img");
    let real = "/usr/bin/qemu-img";
    let script = format!(
        "#!/bin/sh\ncase \" $* \" in *\" --image-opts \"*) exec {real} \"$@\";; esac\necho $$ >{}\nexec sleep 100\n",
        dir.path().join("pid").display()
    );
    fs::write(&tool, script).unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_imports_until_it_is_killed", "--nocapture"])
        .env(DIR, dir.path())
        .env("PATH", path)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut child = Running(child);
    let converter = wait_for(|| {
        let pid = fs::read_to_string(dir.path().join("pid")).ok()?;
        pid.trim().parse::<u32>().ok()
    });
    let is_running = || {
        fs::read_to_string(format!("/proc/{converter}/stat"))
            .is_ok_and(|stat| !stat.contains(") Z "))
    };
    assert!(is_running());
    child.0.kill().unwrap();
    child.0.wait().unwrap();
    wait_for(|| (!is_running()).then_some(()));
    assert_eq!(left_in(&store(dir.path())), [""; 0]);
}

fn wait_for<T>(mut what: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(it) = what() {
            return it;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "it does not happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}
