//! What is in a report, and how it is found out.

use super::Part;
use super::censor::Censor;
use super::configuration;
use crate::config::Config;
use crate::log::root_field;
use crate::paths::Paths;
use crate::programs::{NoAnswer, ask, ask_within};
use jiff::Timestamp;
use nix::unistd::geteuid;
use serde_json::Value;
use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::time::Duration;

/// How long a command of ours may take: the doctor copies the database, and waits for other DHCP servers.
const OWN_DEADLINE: Duration = Duration::from_secs(120);

/// Lines of the log.
const LOG_LINES: &str = "--lines=2000";

/// Files that are listed of a folder and those in it.
const FILES_MAX: usize = 5000;

/// How deep folders are looked into.
const DEPTH_MAX: usize = 6;

/// The files of a report, and what is in them.
pub(crate) const PARTS: [(&str, &str); 12] = [
    ("about.txt", "version of Bootlace, when and by whom this was made"),
    ("doctor.json", "what bootlace doctor finds"),
    ("check.txt", "what bootlace check finds"),
    ("status.json", "machines with their last boots, and findings"),
    ("jobs.json", "jobs, and how they ended"),
    ("images.json", "image versions"),
    ("bootlace.toml", "the configuration, without comments, secrets and mail addresses"),
    ("units.txt", "systemd's units of Bootlace, and how they are"),
    ("log.txt", "the last 2000 lines of both servers"),
    ("host.txt", "kernel, distribution, memory, versions of programs that Bootlace runs"),
    ("network.txt", "interfaces with their addresses and counters, routes"),
    ("files.txt", "names, sizes, owners and modes of Bootlace's files, and not what is in them"),
];

/// Units that are asked for.
const UNITS: [&str; 7] = [
    "bootlace.target",
    "bootlace.service",
    "bootlace-storage.service",
    "bootlace-backup.service",
    "bootlace-backup.timer",
    "bootlace-verify.service",
    "bootlace-verify.timer",
];

/// All parts without secrets. What can't be found out says why in its place.
pub(crate) fn collect(paths: &Paths) -> Vec<Part> {
    let mut censor = Censor::default();
    // First, as what is learned of it is in other texts, too.
    let configuration = configuration(paths, &mut censor);
    learn_keys(paths, &mut censor);
    let status = own(paths, &["status", "--json"]);
    let machines = serde_json::from_str::<Value>(&status);
    if let Ok(machines) = &machines {
        censor.learn_from(machines);
    }
    let texts = [
        about(),
        own(paths, &["doctor", "--json"]),
        own(paths, &["check"]),
        status,
        own(paths, &["job", "ls", "--json"]),
        own(paths, &["image", "ls", "--json"]),
        configuration,
        units(paths),
        log(paths),
        host(),
        network(),
        files(paths),
    ];
    let part = |((name, _), text): ((&'static str, &str), String)| {
        let text = match serde_json::from_str::<Value>(&text) {
            Ok(value) if name.ends_with(".json") => {
                serde_json::to_string_pretty(&censor.json(value)).unwrap_or_default() + "\n"
            }
            // Its values were looked at one by one.
            _ if name == "bootlace.toml" => text,
            _ => censor.text(&text),
        };
        Part { name, text }
    };
    PARTS.into_iter().zip(texts).map(part).collect()
}

/// What takes secrets of this site out of texts, as far as this user can read them.
pub(crate) fn censor(paths: &Paths) -> Censor {
    let mut censor = Censor::default();
    configuration(paths, &mut censor);
    learn_keys(paths, &mut censor);
    censor
}

fn about() -> String {
    let version = match option_env!("BOOTLACE_COMMIT") {
        Some(commit) => format!("{} (commit {commit})", env!("CARGO_PKG_VERSION")),
        None => env!("CARGO_PKG_VERSION").to_owned(),
    };
    format!(
        "Bootlace {version}\nmade {} by user number {}\nWhat was secret, or might have been, is replaced by {}.\n",
        Timestamp::now(),
        geteuid(),
        super::censor::REMOVED
    )
}

/// What a command of ours says. It is another process, as it may become another user.
fn own(paths: &Paths, arguments: &[&str]) -> String {
    let program = std::env::current_exe().ok();
    let (Some(program), Some(root)) =
        (program.as_ref().and_then(|it| it.to_str()), paths.root.to_str())
    else {
        return "the program can't be started again, as its path is no text\n".to_owned();
    };
    let arguments = [&["--root", root][..], arguments].concat();
    match ask_within(OWN_DEADLINE, program, &arguments) {
        // Notes for people would be no JSON.
        Ok(answer) if answer.is_done || !answer.output.trim().is_empty() => {
            match answer.output.starts_with(['{', '[']) {
                true => answer.output,
                false => answer.output + &answer.complaint,
            }
        }
        Ok(answer) => answer.complaint,
        Err(error) => format!("can't be told: {}\n", wire::error_chain(&error)),
    }
}

/// Output of programs of the system, each behind its command line.
fn said(commands: &[(&str, &[&str])]) -> String {
    let mut text = String::new();
    for (program, arguments) in commands {
        let _ = writeln!(text, "$ {program} {}", arguments.join(" "));
        let _ = match ask(program, arguments) {
            Ok(answer) => writeln!(text, "{}{}", answer.output, answer.complaint),
            Err(error @ NoAnswer::Missing(_)) => writeln!(text, "{error}\n"),
            Err(error) => writeln!(text, "can't be told: {}\n", wire::error_chain(&error)),
        };
    }
    text
}

fn configuration(paths: &Paths, censor: &mut Censor) -> String {
    match fs::read_to_string(paths.config()) {
        Ok(text) => {
            let shown = configuration::censored(&text, censor);
            // What is said of one that is wrong quotes it.
            if let Err(error) = Config::parse(&paths.config(), &text) {
                let told = error.to_string();
                censor.learn(told.split_once('\n').map_or("", |(_, quoted)| quoted));
            }
            shown
        }
        Err(error) => format!("# can't be read: {error}\n"),
    }
}

/// Keys that lie in folders of ours.
fn learn_keys(paths: &Paths, censor: &mut Censor) {
    let folders = [
        paths.state().join("web"),
        paths.config().parent().map(Path::to_owned).unwrap_or_default(),
    ];
    for entry in folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_ours = name != "bootlace.toml"
            && entry.metadata().is_ok_and(|it| it.is_file() && it.len() < 1 << 18);
        // Certificates are no secret, and stand beside their keys.
        if is_ours
            && let Ok(text) = fs::read_to_string(entry.path())
            && !text.contains("-----BEGIN CERTIFICATE")
        {
            censor.learn(&text);
        }
    }
}

fn units(paths: &Paths) -> String {
    if !paths.commands().are_usual() {
        return "a trial below --root, which has no units\n".to_owned();
    }
    let with =
        |first: &[&'static str]| -> Vec<&str> { first.iter().copied().chain(UNITS).collect() };
    let (status, cat) =
        (with(&["status", "--no-pager", "--lines=0", "--full"]), with(&["cat", "--no-pager"]));
    let show = with(&[
        "show",
        "--property=Id,ActiveState,SubState,Result,NRestarts,UnitFileState,ExecMainStatus",
    ]);
    said(&[("systemctl", &status), ("systemctl", &show), ("systemctl", &cat)])
}

fn log(paths: &Paths) -> String {
    let site: Vec<String> = match root_field(&paths.root) {
        None => UNITS.iter().map(|unit| format!("--unit={unit}")).collect(),
        Some(root) => vec![format!("BOOTLACE_ROOT={root}")],
    };
    let mut arguments = vec!["--no-pager", "--output=short-iso", LOG_LINES];
    arguments.extend(site.iter().map(String::as_str));
    said(&[("journalctl", &arguments)])
}

fn host() -> String {
    let mut text = String::new();
    for path in
        ["/proc/version", "/etc/os-release", "/proc/uptime", "/proc/loadavg", "/proc/meminfo"]
    {
        let _ = match fs::read_to_string(path) {
            Ok(content) => writeln!(text, "# {path}\n{content}"),
            Err(error) => writeln!(text, "# {path}\ncan't be read: {error}\n"),
        };
    }
    text + &said(&[
        ("qemu-img", &["--version"]),
        ("grub-mkimage", &["--version"]),
        ("systemctl", &["--version"]),
        (
            "dpkg-query",
            &[
                "--show",
                "bootlace",
                "qemu-utils",
                "grub-common",
                "grub-pc-bin",
                "grub-efi-amd64-bin",
            ],
        ),
        ("timedatectl", &["show"]),
        ("df", &["-hT"]),
    ])
}

fn network() -> String {
    said(&[
        ("ip", &["-details", "-statistics", "address"]),
        ("ip", &["route", "show", "table", "all"]),
        ("ip", &["rule"]),
        ("ip", &["neighbour"]),
        ("ss", &["-lntup"]),
    ])
}

fn files(paths: &Paths) -> String {
    let mut text = "mode owner size modified path\n".to_owned();
    let mut left = FILES_MAX;
    let configuration = paths.config().parent().map(Path::to_owned).unwrap_or_default();
    let [state, cache, run] = paths.own();
    for folder in [configuration, state, cache, run] {
        list(&folder, 0, &mut left, &mut text);
    }
    if left == 0 {
        let _ = writeln!(text, "and more than these {FILES_MAX}");
    }
    text
}

fn list(path: &Path, depth: usize, left: &mut usize, text: &mut String) {
    if *left == 0 {
        return;
    }
    *left -= 1;
    let shown = path.display();
    let about = match fs::symlink_metadata(path) {
        Ok(about) => about,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let _ = writeln!(text, "{shown} is not there");
            return;
        }
        Err(error) => {
            let _ = writeln!(text, "{shown} can't be looked at: {error}");
            return;
        }
    };
    let kind = match about.file_type() {
        it if it.is_dir() => 'd',
        it if it.is_symlink() => 'l',
        it if it.is_socket() => 's',
        it if it.is_block_device() => 'b',
        _ => '-',
    };
    let modified =
        Timestamp::from_second(about.mtime()).map_or_else(|_| "-".to_owned(), |it| it.to_string());
    let (mode, uid, gid, size) = (about.mode() & 0o7777, about.uid(), about.gid(), about.size());
    let _ = writeln!(text, "{kind}{mode:04o} {uid}:{gid} {size} {modified} {shown}");
    if kind != 'd' || depth >= DEPTH_MAX {
        return;
    }
    match fs::read_dir(path) {
        Ok(entries) => {
            let mut entries: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
            entries.sort();
            entries.iter().for_each(|entry| list(entry, depth + 1, left, text));
        }
        Err(error) => {
            let _ = writeln!(text, "{shown} can't be listed: {error}");
        }
    }
}
