//! Commands where nothing can be written: on a full disk and a read-only file system, and to a full or closed standard output.

#![expect(clippy::unwrap_used, reason = "a test that can not be set up must fail")]

use lab::{Need, SmallDisk, bootlace_binary, require};
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const CONFIG: &str = "[network]\ninterface = \"br0\"\npool = \"10.77.0.100-10.77.0.199\"\n";
const SET: [&str; 5] = ["machine", "set", "lab-07", "--mac", "52:54:00:00:00:01"];

fn bootlace(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(bootlace_binary().unwrap());
    command.arg("--root").arg(root).args(arguments);
    command
}

fn run(root: &Path, arguments: &[&str]) -> Output {
    bootlace(root, arguments).output().unwrap()
}

/// Must end so, and say all of `words`.
fn ends(output: &Output, code: i32, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in:\n{text}");
    }
}

/// What only looks works, and what writes says why it can't, and what helps.
fn check_commands(root: &Path, why: &[&str]) {
    ends(&run(root, &["machine", "ls"]), 0, &["lab-07"]);
    ends(&run(root, &["status"]), 0, &["1 machine,", "lab-07"]);
    ends(&run(root, &["image", "ls"]), 0, &["No images yet"]);
    ends(&run(root, &["initrd", "ls"]), 0, &[]);
    let backup = tempfile::tempdir().unwrap();
    let file = backup.path().join("site.tar.zst");
    let file = file.to_str().unwrap();
    ends(&run(root, &["backup", "create", file]), 0, &["the database with 1 machine", " kB"]);
    ends(&run(root, &["backup", "verify", file]), 0, &["is good"]);
    let state = root.join("var/lib/bootlace");
    let state = format!("nothing can be stored in {}/", state.display());
    let words = [&[&*state], why].concat();
    ends(&run(root, &["machine", "rm", "lab-07"]), 1, &words);
    ends(&run(root, &["machine", "set", "lab-07", "--kernel-args", "quiet"]), 1, &words);
    let checked = run(root, &["check"]);
    ends(&checked, 1, why);
    ends(&checked, 1, &["nothing can be stored in", "1 machine needs"]);
    ends(&run(root, &["machine", "ls"]), 0, &["lab-07"]);
}

#[test]
fn commands_look_at_what_is_on_a_full_disk_or_a_read_only_one() {
    let test = "commands_look_at_what_is_on_a_full_disk_or_a_read_only_one";
    if !require(test, &[Need::Root]) {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(root.path(), "4m").unwrap();
    let etc = root.path().join("etc/bootlace");
    fs::create_dir_all(&etc).unwrap();
    fs::write(etc.join("bootlace.toml"), CONFIG).unwrap();
    ends(&run(root.path(), &SET), 0, &[]);
    // What is restored has no log yet, in which there would be room for a change.
    let saved = tempfile::tempdir().unwrap();
    let saved = saved.path().join("site.tar.zst");
    let saved = saved.to_str().unwrap();
    ends(&run(root.path(), &["backup", "create", saved]), 0, &[]);
    ends(&run(root.path(), &["backup", "restore", "--replace", saved]), 0, &[]);
    disk.fill().unwrap();
    check_commands(root.path(), &["its disk is full", "df"]);
    disk.fill().unwrap();
    // As after a restore by hand: there is no lock either.
    let state = root.path().join("var/lib/bootlace");
    fs::remove_file(state.join("state.lock")).unwrap();
    disk.fill().unwrap();
    check_commands(root.path(), &["its disk is full"]);
    fs::remove_file(disk.filler()).unwrap();
    ends(&run(root.path(), &["machine", "ls"]), 0, &["lab-07"]);

    let _ = fs::remove_file(state.join("state.lock"));
    let remount = |how: &str| {
        let mut mount = Command::new("mount");
        mount.args(["-o", &format!("remount,{how}")]).arg(root.path());
        assert!(mount.status().unwrap().success());
    };
    remount("ro");
    let why = ["its file system is read-only", "remount,rw"];
    check_commands(root.path(), &why);
    let image = saved.to_owned();
    for command in [&["image", "import", &image, "--name", "debian"][..], &["image", "verify"]] {
        ends(&run(root.path(), command), 1, &why);
    }
    remount("rw");
    ends(&run(root.path(), &["machine", "rm", "lab-07"]), 0, &["removed"]);
}

#[test]
fn what_can_t_be_told_is_a_failure_unless_nobody_wants_it() {
    let root = tempfile::tempdir().unwrap();
    ends(&run(root.path(), &SET), 0, &[]);
    let full = || File::options().write(true).open("/dev/full").unwrap();
    for arguments in [
        &["machine", "ls"][..],
        &["machine", "ls", "--json"],
        &["status"],
        &["--help"],
        &["--version"],
    ] {
        let output = bootlace(root.path(), arguments).stdout(full()).output().unwrap();
        ends(&output, 1, &["can't write to standard output", "No space left"]);
        // As `| head` leaves it.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = bootlace(root.path(), arguments).stdout(writer).output().unwrap();
        ends(&output, 141, &[]);
        assert!(output.stderr.is_empty(), "{arguments:?}");
    }
    let create = || bootlace(root.path(), &["backup", "create", "-"]);
    let output = create().stdout(full()).output().unwrap();
    ends(&output, 1, &["can't write the backup"]);
    let closed = "exec \"$0\" \"$@\" >&-";
    let mut shell = Command::new("sh");
    shell.args(["-c", closed]).arg(bootlace_binary().unwrap()).arg("--root").arg(root.path());
    let output = shell.args(["backup", "create", "-"]).output().unwrap();
    ends(&output, 1, &["standard output is closed"]);
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let root = tempfile::tempdir().unwrap();
    let etc = root.path().join("etc/bootlace");
    fs::create_dir_all(&etc).unwrap();
    let config = etc.join("bootlace.toml");
    let fifo = |path: &Path| {
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    };
    fifo(&config);
    ends(&run(root.path(), &["check"]), 1, &["bootlace.toml", "is no file"]);
    ends(&run(root.path(), &["backup", "verify", config.to_str().unwrap()]), 1, &["is no file"]);
    fs::remove_file(&config).unwrap();
    let key = root.path().join("key.pem");
    fifo(&key);
    let tls = format!("[storage]\nnbd_tls = {{ certificate = {key:?}, key = {key:?} }}\n");
    fs::write(&config, format!("{CONFIG}{tls}")).unwrap();
    ends(&run(root.path(), &["check"]), 1, &["key.pem, which is no file"]);
}

#[test]
fn no_internals_reach_people() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name).to_str().unwrap().to_owned();
    let state = root.path().join("var/lib/bootlace");
    fs::create_dir_all(&state).unwrap();
    fs::write(state.join("state.db"), "").unwrap();
    let output = run(root.path(), &["backup", "create", &at("saved")]);
    ends(&output, 1, &["there is no database", "state.db"]);
    let cut = &[0x28, 0xb5, 0x2f, 0xfd, 9, 9][..];
    for (garbage, why) in [
        (&b"no backup at all, but text that is long enough"[..], "it is not a backup"),
        (cut, "it is cut off"),
        (b"", "it is empty"),
    ] {
        fs::write(at("garbage"), garbage).unwrap();
        let output = run(root.path(), &["backup", "verify", &at("garbage")]);
        ends(&output, 1, &[&format!("garbage can't be restored: {why}")]);
    }
    fs::remove_file(state.join("state.db")).unwrap();
    ends(&run(root.path(), &SET), 0, &[]);
    ends(&run(root.path(), &["backup", "create", &at("good")]), 0, &[]);
    let longer = [&fs::read(at("good")).unwrap()[..], b"and more"].concat();
    fs::write(at("longer"), longer).unwrap();
    let output = run(root.path(), &["backup", "verify", &at("longer")]);
    ends(&output, 1, &["bytes that make no sense"]);
    let deep = root.path().join("x".repeat(100));
    ends(&run(&deep, &SET), 2, &["boot.sock", "a shorter folder for --root"]);
    assert!(!deep.exists());
    ends(
        &run(root.path(), &["machine", "set", "localhost", "--mac", "52:54:00:00:00:09"]),
        1,
        &["called localhost"],
    );
}

#[test]
fn who_may_not_make_a_backup_is_told_so() {
    if !require("who_may_not_make_a_backup_is_told_so", &[Need::Root]) {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    ends(&run(root.path(), &SET), 0, &[]);
    fs::set_permissions(root.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = bootlace(root.path(), &["backup", "create", "-"]);
    let output = command.uid(60_995).gid(60_995).current_dir("/").stdout(Stdio::piped()).output();
    ends(&output.unwrap(), 4, &["only root and the servers' user", "use sudo"]);
}

#[test]
fn contradictions_are_wrong_usage() {
    let root = tempfile::tempdir().unwrap();
    ends(&run(root.path(), &SET), 0, &[]);
    let both = ["--write-mode", "ram", "--inherit", "write-mode"];
    let words = ["--inherit write_mode contradicts"];
    ends(&run(root.path(), &[&["machine", "set", "lab-07"][..], &both].concat()), 2, &words);
    ends(&run(root.path(), &[&["site", "set"][..], &both].concat()), 2, &words);
    let image = ["room", "set", "lab", "--no-image", "--inherit", "image"];
    ends(&run(root.path(), &image), 2, &["--inherit image contradicts"]);
}

#[test]
fn a_root_that_is_only_read_is_not_called_persistent() {
    let root = tempfile::tempdir().unwrap();
    let url = ["--root-url", "nfs://10.0.0.5/srv/debian-12?ro", "--write-mode", "persistent"];
    ends(&run(root.path(), &[&SET[..], &url].concat()), 0, &[]);
    let listed = run(root.path(), &["machine", "ls"]);
    ends(&listed, 0, &[" ram "]);
    assert!(!String::from_utf8_lossy(&listed.stdout).contains("persistent"));
    ends(&run(root.path(), &["machine", "ls", "--json"]), 0, &["\"write_mode\": \"persistent\""]);
}
