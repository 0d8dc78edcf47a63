//! The command line with wrong input: what it says, and that nothing is lost.

#![expect(clippy::unwrap_used, reason = "a test that can not be set up must fail")]

use lab::{Lan, Need, bootlace_binary, require};
use nix::sys::signal::Signal;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

const GOOD: &str = "[network]\ninterface = \"br0\"\npool = \"10.77.0.100-10.77.0.199\"\n";

/// A user who owns nothing.
const NOBODY: u32 = 60_995;

/// A folder for `--root` with this configuration.
fn root(config: &str) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("etc/bootlace")).unwrap();
    std::fs::write(root.path().join("etc/bootlace/bootlace.toml"), config).unwrap();
    root
}

fn bootlace(root: &Path, arguments: &[&str]) -> Output {
    let binary = bootlace_binary().unwrap();
    Command::new(binary).arg("--root").arg(root).args(arguments).output().unwrap()
}

/// Must fail with exit code 1 and say all of `words`.
fn refuse(output: &Output, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in:\n{text}");
    }
}

#[test]
fn wrong_usage_is_told_apart_from_failure() {
    let root = root(GOOD);
    assert_eq!(bootlace(root.path(), &["image", "imprt"]).status.code(), Some(2));
    assert_eq!(bootlace(root.path(), &["image", "ls"]).status.code(), Some(0));
    // Who only looks makes no site.
    let misspelt = root.path().join("misspelt");
    for command in [&["machine", "ls"][..], &["status"], &["backup", "create", "x.tar.zst"]] {
        refuse(&bootlace(&misspelt, command), &["there is no site in"]);
        assert!(!misspelt.exists(), "{command:?}");
    }
    // The kind of a root is another option than the folder with all state.
    let mut command = Command::new(bootlace_binary().unwrap());
    let output = command.current_dir(root.path()).args(["machine", "set", "pc-1", "--root", "aoe"]);
    let output = output.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && text.contains("--root-kind aoe"), "{text}");
}

#[test]
fn a_broken_configuration_is_shown_where_it_is_broken() {
    let root = root("[network]\ninterface = \"br0\"\npoool = \"x\"\n");
    let words = ["bootlace.toml, line 3", "3 | poool", "did you mean `pool`?"];
    refuse(&bootlace(root.path(), &["up"]), &words);
    refuse(&bootlace(root.path(), &["check"]), &words);
}

#[test]
fn without_a_configuration_it_says_what_to_write() {
    let root = tempfile::tempdir().unwrap();
    refuse(&bootlace(root.path(), &["serve"]), &["is not configured yet", "interface ="]);
}

#[test]
fn status_without_a_configuration_says_how_to_begin() {
    let root = tempfile::tempdir().unwrap();
    let output = bootlace(root.path(), &["status"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("is not configured yet") && text.contains("interface ="), "{text}");
    assert!(!text.contains("os error") && !text.contains("alarm"), "{text}");
}

#[test]
fn commands_that_find_nothing_or_miss_something_say_so() {
    let root = root(GOOD);
    let said = |arguments: &[&str]| {
        let output = bootlace(root.path(), arguments);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(said(&["audit"]), "The audit log is empty.\n");
    let nobody = said(&["audit", "--about", "nosuch"]);
    assert_eq!(nobody, "The audit log has no entry about nosuch.\n");
    assert_eq!(bootlace(root.path(), &["audit", "-n", "0"]).status.code(), Some(2));
    let mac = ["machine", "set", "lab-07", "--mac", "52:54:00:12:34:56"];
    assert_eq!(bootlace(root.path(), &mac).status.code(), Some(0));
    for setting in [["--room", "nosuch"], ["--image", "nosuch"]] {
        let output = bootlace(root.path(), &[&["machine", "set", "lab-07"][..], &setting].concat());
        assert_eq!(output.status.code(), Some(1), "{output:?}");
    }
    let nowhere = root.path().join("nowhere/site.tar.zst");
    let output = bootlace(root.path(), &["backup", "create", nowhere.to_str().unwrap()]);
    refuse(&output, &["there is no folder", "nowhere"]);
}

#[test]
fn check_tells_of_a_database_with_which_no_server_starts() {
    let root = root(GOOD);
    assert_eq!(bootlace(root.path(), &["machine", "ls"]).status.code(), Some(0));
    let database = root.path().join("var/lib/bootlace/state.db");
    let whole = std::fs::read(&database).unwrap();
    std::fs::write(&database, &whole[..whole.len() / 2]).unwrap();
    // Commands work as they are printed.
    let backup = format!("bootlace --root {} backup", root.path().display());
    let restore = format!("{backup} restore --replace FILE");
    let words = ["state.db is damaged", &restore];
    refuse(&bootlace(root.path(), &["check"]), &words);
    std::fs::remove_file(&database).unwrap();
    let restore = format!("{backup} restore FILE");
    let words = ["state.db is missing", &restore, "state.was-here"];
    refuse(&bootlace(root.path(), &["check"]), &words);
    assert!(!database.exists(), "a check makes nothing");
    // As long as a boot server runs, it has all of it.
    let run = root.path().join("run/bootlace");
    std::fs::create_dir_all(&run).unwrap();
    let _server = std::os::unix::net::UnixListener::bind(run.join("boot.sock")).unwrap();
    let create = format!("{backup} create FILE before you stop it");
    let words = ["the boot server runs on", &create];
    refuse(&bootlace(root.path(), &["check"]), &words);
    // It is asked even so; this one never answers.
    let words = ["the boot server has not answered within", "restart it"];
    refuse(&bootlace(root.path(), &["status"]), &words);
}

#[test]
fn check_does_not_take_what_it_may_not_see_for_missing() {
    if !require("check_does_not_take_what_it_may_not_see_for_missing", &[Need::Root]) {
        return;
    }
    let root = root(GOOD);
    let open_to_all = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(root.path(), open_to_all).unwrap();
    assert_eq!(bootlace(root.path(), &["machine", "ls"]).status.code(), Some(0));
    for closed in ["var/lib/bootlace", "run/bootlace"] {
        let closed = root.path().join(closed);
        std::fs::create_dir_all(&closed).unwrap();
        std::fs::set_permissions(closed, std::fs::Permissions::from_mode(0o700)).unwrap();
    }
    let mut command = Command::new(bootlace_binary().unwrap());
    command.uid(NOBODY).gid(NOBODY).current_dir("/");
    let output = command.arg("--root").arg(root.path()).arg("check").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    for unseen in ["state.db", "images", "kept-disks", "storage server"] {
        let is_told = |line: &&str| line.starts_with("?     can't look") && line.contains(unseen);
        assert!(text.lines().any(|line| is_told(&line)), "{unseen} is not in:\n{text}");
    }
    assert!(!text.contains("no images yet") && !text.contains("0 machines"), "{text}");
    refuse(&output, &["check as root"]);
}

#[test]
fn backups_are_kept_until_there_are_newer_ones_and_missed_when_none_is_made() {
    let root = root(GOOD);
    let folder = tempfile::tempdir().unwrap();
    let old = folder.path().join("bootlace-20200101T000000Z.tar.zst");
    std::fs::write(&old, "").unwrap();
    std::fs::write(folder.path().join("of-another.tar.zst"), "").unwrap();
    let keep = ["backup", "create", folder.path().to_str().unwrap(), "--keep", "1"];
    refuse(&bootlace(root.path(), &keep), &["there is nothing to copy"]);
    assert!(old.exists(), "nothing goes before there is another one");
    assert_eq!(bootlace(root.path(), &["machine", "ls"]).status.code(), Some(0));
    let output = bootlace(root.path(), &keep);
    assert!(output.status.success(), "{output:?}");
    let names = || -> Vec<String> {
        let entries = std::fs::read_dir(folder.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let [new, other] = <[String; 2]>::try_from(names()).unwrap();
    assert!(new.starts_with("bootlace-2") && !new.contains("20200101"), "{new}");
    assert_eq!(other, "of-another.tar.zst");
    let new = folder.path().join(new);
    let verify = bootlace(root.path(), &["backup", "verify", new.to_str().unwrap()]);
    assert!(verify.status.success(), "{verify:?}");
    let verify = bootlace(root.path(), &["backup", "verify", folder.path().to_str().unwrap()]);
    assert!(verify.status.success(), "{verify:?}");
    let none = bootlace(root.path(), &["backup", "create", "/nowhere", "--keep", "0"]);
    assert!(String::from_utf8_lossy(&none.stderr).contains("at least 1 must be kept"), "{none:?}");

    let status = || {
        let output = bootlace(root.path(), &["status"]);
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(!status().contains("backup"), "{}", status());
    let note = root.path().join("var/lib/bootlace/state.last-backup");
    let made: u64 = std::fs::read_to_string(&note).unwrap().trim().parse().unwrap();
    std::fs::write(&note, format!("{}\n", made - 61 * 3600)).unwrap();
    assert!(status().contains("The last backup was made 2 days ago"), "{}", status());
    std::fs::write(&note, format!("{}\n", made + 1_000_000)).unwrap();
    assert!(status().contains("at a time that is yet to come"), "{}", status());

    // One without the configuration takes no place of one that has it.
    let config = root.path().join("etc/bootlace/bootlace.toml");
    std::fs::rename(&config, config.with_extension("away")).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(1));
    refuse(
        &bootlace(root.path(), &keep),
        &["not saved: the configuration", "none of these was deleted"],
    );
    assert!(new.exists());
    std::fs::rename(config.with_extension("away"), &config).unwrap();
    // What a crash has left, and what a wrong clock has made.
    let left = folder.path().join(".bootlace-20260101T000000Z.tar.zst.aB3xyz.part");
    let ahead = folder.path().join("bootlace-20990101T000000Z.tar.zst");
    for path in [&left, &ahead] {
        std::fs::write(path, "").unwrap();
    }
    std::thread::sleep(std::time::Duration::from_secs(1));
    let output = bootlace(root.path(), &keep);
    let warning = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && warning.contains("bootlace-20990101"), "{warning}");
    assert!(ahead.exists() && !left.exists() && !new.exists());
    assert_eq!(names().len(), 3, "{:?}", names());
}

#[test]
fn what_is_no_folder_is_named_by_each_command() {
    let root = root(GOOD);
    let [state, cache] = ["var/lib/bootlace", "var/cache/bootlace"].map(|it| root.path().join(it));
    std::fs::create_dir_all(root.path().join("var/lib")).unwrap();
    std::os::unix::fs::symlink("/not/mounted", &state).unwrap();
    for command in [&["check"][..], &["status"], &["machine", "ls"], &["image", "ls"]] {
        refuse(&bootlace(root.path(), command), &["is a link to /not/mounted", "Mount it"]);
    }
    std::fs::remove_file(&state).unwrap();
    std::fs::create_dir_all(cache.parent().unwrap()).unwrap();
    std::fs::write(&cache, "").unwrap();
    for command in [&["check"][..], &["image", "ls"]] {
        refuse(&bootlace(root.path(), command), &["var/cache/bootlace is no folder"]);
    }
}

#[test]
fn check_names_an_interface_that_reaches_no_pc() {
    let local = "[network]\ninterface = \"lo\"\npool = \"127.0.0.100-127.0.0.199\"\n";
    let root = root(local);
    refuse(&bootlace(root.path(), &["check"]), &["the interface lo leads to this host alone"]);
}

#[test]
fn an_interface_that_is_down_is_told_with_what_helps() {
    let test = "an_interface_that_is_down_is_told_with_what_helps";
    if !require(test, &[Need::Root]) {
        return;
    }
    let lan = Lan::lay("link-down").unwrap();
    let root = root(GOOD);
    let run = |program: &Path, arguments: &[&str]| {
        let mut command = lan.netns().command(program, Signal::SIGKILL);
        command.args(arguments).output().unwrap()
    };
    assert!(run(Path::new("ip"), &["link", "set", "br0", "down"]).status.success());
    let binary = bootlace_binary().unwrap();
    for subcommand in ["check", "up"] {
        let output = run(&binary, &["--root", root.path().to_str().unwrap(), subcommand]);
        refuse(&output, &["interface br0 is down", "ip link set br0 up"]);
    }
}

#[test]
fn status_says_that_no_boot_server_runs() {
    let root = root(GOOD);
    let text = String::from_utf8(bootlace(root.path(), &["status"]).stdout).unwrap();
    let up = format!("bootlace --root {} up", root.path().display());
    assert!(text.contains("boot server: none answers") && text.contains(&up), "{text}");
    let json = bootlace(root.path(), &["status", "--json"]).stdout;
    let status: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(status["boot_server_is_running"], false);
}

#[test]
fn a_missing_interface_is_named_with_those_that_are_there() {
    let root = root(&GOOD.replace("br0", "enp77s0"));
    refuse(&bootlace(root.path(), &["up"]), &["enp77s0", "there are:", "lo"]);
}

#[test]
fn a_taken_port_is_named_with_who_has_it() {
    let test = "a_taken_port_is_named_with_who_has_it";
    if !require(test, &[Need::Root, Need::Program("dnsmasq")]) {
        return;
    }
    let lan = Lan::lay("taken-port").unwrap();
    let mut dnsmasq = lan
        .netns()
        .command("dnsmasq", Signal::SIGKILL)
        .args(["--no-daemon", "--conf-file=/dev/null", "--port=0", "--interface=br0"])
        .args(["--dhcp-range=10.77.0.50,10.77.0.60", "--dhcp-leasefile=/dev/null"])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let root = root(GOOD);
    let binary = bootlace_binary().unwrap();
    let run = |subcommand: &str| {
        let mut command = lan.netns().command(&binary, Signal::SIGKILL);
        command.arg("--root").arg(root.path()).arg(subcommand).output().unwrap()
    };
    // dnsmasq needs a moment to bind.
    let mut checked = run("check");
    for _ in 0..50 {
        if String::from_utf8_lossy(&checked.stdout).contains("dnsmasq") {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
        checked = run("check");
    }
    refuse(&checked, &["UDP port 67 is in use by dnsmasq (pid"]);
    refuse(&run("up"), &["UDP port 67 is in use by dnsmasq (pid"]);
    dnsmasq.kill().unwrap();
    dnsmasq.wait().unwrap();
}

#[test]
fn what_is_no_disk_is_not_imported() {
    let root = root(GOOD);
    let file = root.path().join("notes.txt");
    std::fs::write(&file, "no disk at all\n".repeat(4096)).unwrap();
    let import = |file: &Path, name: &str| {
        bootlace(root.path(), &["image", "import", file.to_str().unwrap(), "--name", name])
    };
    refuse(&import(&file, "notes"), &["notes.txt was not imported"]);
    refuse(&import(Path::new("/nonexistent.img"), "notes"), &["/nonexistent.img", "No such file"]);
    let wrong_name = import(&file, "No Name");
    assert_eq!(wrong_name.status.code(), Some(2));
    let images = root.path().join("var/lib/bootlace/images");
    let left: Vec<_> = std::fs::read_dir(images)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name != ".lock")
        .collect();
    assert!(left.is_empty(), "something is left in the store: {left:?}");
}

#[test]
fn a_machine_needs_a_mac_and_an_image_that_exists() {
    let root = root(GOOD);
    let set =
        |arguments: &[&str]| bootlace(root.path(), &[&["machine", "set"], arguments].concat());
    let unknown = set(&["lab-01"]);
    let text = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(unknown.status.code() == Some(3) && text.contains("give the MAC"), "{text}");
    refuse(&set(&["lab-01", "--mac", "52:54:00:00:00:01", "--image", "none"]), &["no image none"]);
    let added = set(&["lab-01", "--mac", "52:54:00:00:00:01", "--root-kind", "aoe"]);
    assert!(added.status.success(), "{added:?}");
    refuse(&set(&["lab-02", "--mac", "52:54:00:00:00:01"]), &["lab-01"]);
    let list = bootlace(root.path(), &["machine", "ls", "--json"]);
    let list: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
    assert_eq!(list["machines"][0]["name"], "lab-01");
    assert_eq!(list["machines"][0]["root"], "aoe");
}

#[test]
fn a_machine_gets_a_second_network_card_and_loses_it_again() {
    let root = root(GOOD);
    let (port, dock) = ("52:54:00:00:00:01", "52:54:00:00:00:02");
    let machine = |arguments: &[&str]| bootlace(root.path(), &[&["machine"], arguments].concat());
    let says = |arguments: &[&str]| {
        let output = machine(arguments);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    says(&["set", "lab-01", "--mac", port]);
    let added = says(&["set", "lab-01", "--add-mac", dock, "--add-mac", "52-54-00-00-00-03"]);
    assert!(added.starts_with(&format!("lab-01 ({port}, {dock}, 52:54:00:00:00:03): ")), "{added}");
    refuse(&machine(&["set", "lab-02", "--mac", dock]), &["belongs to the machine lab-01"]);
    says(&["set", "lab-02", "--mac", "52:54:00:00:00:04"]);
    let list = says(&["ls"]);
    let line = list.lines().position(|line| line.starts_with("lab-01")).unwrap();
    assert_eq!(list.lines().nth(line + 1).unwrap().trim(), dock, "{list}");
    let found = says(&["ls", "--mac", dock]);
    assert!(found.contains("lab-01") && !found.contains("lab-02"), "{found}");
    let found: serde_json::Value =
        serde_json::from_str(&says(&["ls", "--json", "--mac", dock])).unwrap();
    assert_eq!(found["machines"].as_array().unwrap().len(), 1);
    assert_eq!(found["machines"][0]["other_macs"][0], dock);
    refuse(&machine(&["ls", "--mac", "52:54:00:00:00:09"]), &["no machine has the MAC"]);

    says(&["set", "lab-01", "--remove-mac", port, "--remove-mac", "52:54:00:00:00:03"]);
    refuse(&machine(&["set", "lab-01", "--remove-mac", dock]), &["only MAC of lab-01"]);
    refuse(&machine(&["set", "lab-01", "--remove-mac", port]), &["is not a MAC of lab-01", dock]);
    assert!(says(&["rm", "lab-01"]).contains(dock));
}

#[test]
fn an_initrd_from_nowhere_says_what_is_missing() {
    let root = root(GOOD);
    let output = root.path().join("initrd.img");
    let build = |source: &[&str]| {
        let fixed = ["initrd", "build", "--output", output.to_str().unwrap()];
        bootlace(root.path(), &[&fixed, source].concat())
    };
    let empty = root.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    refuse(&build(&["--modules", empty.to_str().unwrap()]), &["empty"]);
    refuse(&build(&["--image", "none"]), &["none"]);
    refuse(&build(&["--kernel-package", "/nonexistent.deb"]), &["/nonexistent.deb"]);
    assert_eq!(build(&[]).status.code(), Some(2));
    assert!(!output.exists(), "a failed build must leave no file");
}

#[test]
fn what_is_wrong_with_an_initrd_is_said() {
    let root = root(GOOD);
    let file = root.path().join("file");
    let path = file.to_str().unwrap();
    let inspect = |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        bootlace(root.path(), &["initrd", "inspect", path])
    };
    refuse(&inspect(b"#!/bin/sh\n"), &["is not an initrd", "neither a cpio archive"]);
    refuse(&inspect(b""), &["is not an initrd", "it is empty"]);
    let header = |name_size: usize| format!("070701{:0>88}{name_size:08x}{:08}", "", 0);
    let whole = format!("{}TRAILER!!!\0\0\0\0", header(11)).into_bytes();
    assert_eq!(inspect(&whole).status.code(), Some(0));
    let shifted = [&whole, &b"\0"[..], &whole].concat();
    refuse(&inspect(&shifted), &["at byte 125", "must start at a multiple of 4"]);
    let nameless = format!("{}TRAILER!!!", header(10));
    refuse(&inspect(nameless.as_bytes()), &["no NUL byte"]);
}

#[test]
fn an_initrd_for_strange_hardware_or_disks_is_refused_by_name() {
    let root = root(GOOD);
    let list = root.path().join("list");
    std::fs::write(&list, "# lab\nIntel Corporation 82574L\n").unwrap();
    let list = list.to_str().unwrap();
    let fixed = ["initrd", "build", "--output", "/nonexistent/x", "--modules", "/nonexistent"];
    let build = |more: &[&str]| bootlace(root.path(), &[&fixed, more].concat());
    refuse(&build(&["--fit", list]), &["line 2", "modalias"]);
    refuse(&build(&["--fit", "/nonexistent"]), &["hardware list"]);
    assert_eq!(build(&["--roots", "nbd,tftp"]).status.code(), Some(2));
}

#[test]
fn initrds_are_listed_without_a_server() {
    let root = root(GOOD);
    let output = bootlace(root.path(), &["initrd", "ls", "--json"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "[]");
}

#[test]
fn a_reset_that_is_to_come_is_told() {
    let root = root(GOOD);
    for name in ["lab-07", "lab-08"] {
        let mac = format!("52:54:00:00:00:{}", &name[4..]);
        bootlace(root.path(), &["machine", "set", name, "--mac", &mac]);
    }
    let told = |words: &str| {
        for command in [["machine", "ls"].as_slice(), &["status"]] {
            let output = bootlace(root.path(), command);
            let text = String::from_utf8_lossy(&output.stdout);
            assert_eq!(text.contains("will be reset"), !words.is_empty(), "{text}");
            assert!(text.contains(words), "{command:?}: {text}");
        }
    };
    told("");
    bootlace(root.path(), &["machine", "reset", "lab-07"]);
    told("lab-07: its disk will be reset at its next boot (bootlace");
    bootlace(root.path(), &["machine", "reset", "lab-08"]);
    told("lab-07, lab-08: their disks will be reset at their next boot");
    bootlace(root.path(), &["machine", "reset", "lab-07", "--undo"]);
    told("lab-08: its disk will be reset");
}
