//! What is told to somebody whose room does not boot, and to whom he asks.

#![expect(clippy::unwrap_used, reason = "a test that can not be set up must fail")]

use anyhow::{Result, ensure};
use lab::{Daemon, Lan, Need, Site, bootlace_binary, require};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;
use tempfile::TempDir;

const MAC: &str = "52:54:00:12:34:56";

/// A user who owns nothing.
const NOBODY: u32 = 60_995;

fn told(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// `bootlace --root … ARGUMENTS` beside the site's servers.
fn beside(site: &Site, arguments: &[&str]) -> Output {
    let mut command = site.lan().netns().command(bootlace_binary().unwrap(), Signal::SIGKILL);
    command.arg("--root").arg(site.root()).args(arguments).output().unwrap()
}

#[test]
fn the_doctor_says_what_is_wrong_and_what_is_not() {
    if require("doctor", &[Need::Root, Need::Program("grub-mkimage")]) {
        doctor().unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn doctor() -> Result<()> {
    let site = Site::builder().name_server("192.0.2.53").create(Lan::lay("doctor")?)?;
    let check = |words: &[&str], lacks: &[&str], code: Option<i32>| -> Result<()> {
        let output = beside(&site, &["doctor"]);
        let text = told(&output);
        for word in words {
            ensure!(text.contains(word), "{word:?} is not in:\n{text}");
        }
        for word in lacks {
            ensure!(!text.contains(word), "{word:?} is in:\n{text}");
        }
        ensure!(code.is_none() || output.status.code() == code, "{:?}:\n{text}", output.status);
        Ok(())
    };
    let start = format!("start it by bootlace --root {} up", site.root().display());
    let none = ["WRONG boot server: none answers", "WRONG storage server: none answers", &start];
    check(&none, &["systemctl"], Some(1))?;
    ensure!(!site.root().join("var/lib/bootlace/state.db").exists(), "a look makes nothing");

    let boot = site.serve()?;
    site.run(&["machine", "set", "lab-07", "--mac", MAC])?;
    check(&["ok    boot server: it answers", "WRONG storage server: none answers"], &[], Some(1))?;
    let storage = site.storage()?;
    let well = [
        "ok    storage server: it answers",
        "ok    the database is whole, with 1 machine",
        "note  no backup is made again and again",
        "note  nobody is told when something breaks",
        "ok    configuration",
        "note  PCs of 10.77.0.0/24 are told servers (dns, ntp) to which they know no way: 192.0.2.53",
    ];
    check(&well, &["none answers", "storage server does not answer"], None)?;
    let found: Value = serde_json::from_slice(&beside(&site, &["doctor", "--json"]).stdout)?;
    let looks = found["looks"].as_array().unwrap();
    let has = |area: &str, verdict: &str| {
        looks.iter().any(|look| look["area"] == area && look["verdict"] == verdict)
    };
    ensure!(has("servers", "ok") && has("data", "note") && has("start", "ok"), "{found:#}");

    // Whom nothing may be shown is not told that there is nothing.
    let mut stranger = site.lan().netns().command("setpriv", Signal::SIGKILL);
    let nobody = NOBODY.to_string();
    stranger.args(["--reuid", &nobody, "--regid", &nobody, "--clear-groups"]);
    stranger.arg(bootlace_binary()?).arg("--root").arg(site.root());
    let output = stranger.arg("doctor").output()?;
    let text = told(&output);
    ensure!(output.status.code() == Some(1) && text.contains("look as root"), "{text}");
    for wrong in ["not configured", "none answers", "0 machines", "Nothing is wrong"] {
        ensure!(!text.contains(wrong), "{wrong:?} is in:\n{text}");
    }
    storage.stop()?;
    boot.stop()
}

#[test]
fn whom_leases_name_is_asked() {
    let needs = [Need::Root, Need::Program("grub-mkimage"), Need::Program("dnsmasq")];
    if require("others", &needs) {
        others().unwrap_or_else(|error| panic!("{error:#}"));
    }
}

/// A router that serves names, and no time.
fn others() -> Result<()> {
    let site = Site::builder()
        .name_server("10.77.0.254")
        .network("router = \"10.77.0.254\"\nntp = [\"10.77.0.254\"]")
        .create(Lan::lay("others")?)?;
    let check = |words: &[&str]| -> Result<()> {
        let text = told(&beside(&site, &["doctor"]));
        for word in words {
            ensure!(text.contains(word), "{word:?} is not in:\n{text}");
        }
        Ok(())
    };
    check(&[
        "note  nobody on br0 has 10.77.0.254, the router that PCs are told",
        "note  the name server 10.77.0.254, which PCs are told, does not answer",
        "note  the time server 10.77.0.254, which PCs are told, does not answer",
    ])?;
    let router = site.lan().add_client("router", "52:54:00:00:02:54")?;
    router.netns().ip("addr add 10.77.0.254/24 dev eth0")?;
    let mut dnsmasq = router.command("dnsmasq");
    dnsmasq.args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"]);
    let mut log = Daemon::start(
        "dnsmasq",
        dnsmasq.arg("--log-facility=-"),
        &site.root().join("dnsmasq.log"),
    )?;
    log.wait_for_log("started", Duration::from_secs(20))?;
    check(&[
        "ok    the router that PCs are told is there: 10.77.0.254 (52:54:00:00:02:54)",
        "ok    the name server that PCs are told answers: 10.77.0.254",
        "note  the time server 10.77.0.254, which PCs are told, does not answer this computer (Connection refused",
    ])?;
    log.stop()
}

#[test]
fn who_else_tells_pcs_of_a_loader_is_named_and_who_serves_elsewhere_is_not() {
    let needs = [Need::Root, Need::Program("grub-mkimage"), Need::Program("dnsmasq")];
    if require("tellers", &needs) {
        tellers().unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn tellers() -> Result<()> {
    let site = Site::builder().create(Lan::lay("tellers")?)?;
    let other = site.lan().add_client("teller", "52:54:00:00:00:53")?;
    other.netns().ip("addr add 10.77.0.53/24 dev eth0")?;
    let serve = |arguments: &[&str]| -> Result<Daemon> {
        let mut dnsmasq = other.command("dnsmasq");
        dnsmasq.args(["--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--no-ping"]);
        dnsmasq.args(["--log-facility=-", "--leasefile-ro", "--user=root"]).args(arguments);
        let mut daemon = Daemon::start("dnsmasq", &mut dnsmasq, &site.root().join("dnsmasq.log"))?;
        daemon.wait_for_log("started", Duration::from_secs(20))?;
        Ok(daemon)
    };
    // Another program for whole rooms, beside us: it gives no addresses.
    let proxy = ["--dhcp-range=10.77.0.0,proxy", "--pxe-service=x86PC,Others,others"];
    let dnsmasq = serve(&proxy)?;
    let text = told(&beside(&site, &["check"]));
    ensure!(text.contains("WRONG DHCP: 10.77.0.53 sends option 60"), "{text}");
    dnsmasq.stop()?;

    // The server's own network has its DHCP server, and PCs are behind a relay.
    let path = site.root().join("etc/bootlace/bootlace.toml");
    let config = fs::read_to_string(&path)?;
    let relayed =
        "subnet = \"10.30.0.0/16\"\nrouter = \"10.30.0.1\"\npool = \"10.30.0.10-10.30.0.99\"\n#";
    fs::write(&path, config.replacen("pool", relayed, 1))?;
    let dnsmasq = serve(&["--dhcp-range=10.77.0.200,10.77.0.210"])?;
    let text = told(&beside(&site, &["check"]));
    ensure!(text.contains("behind a relay") && !text.contains("10.77.0.53"), "{text}");
    let servers = site.up()?;
    servers.stop()?;
    dnsmasq.stop()
}

/// Programs in a folder that is searched first.
struct Fakes(TempDir);

impl Fakes {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn add(&self, name: &str, script: &str) {
        let path = self.0.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    }

    fn bootlace(&self, root: &Path, arguments: &[&str]) -> Output {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(bootlace_binary().unwrap());
        command.env("PATH", format!("{}:{path}", self.0.path().display()));
        command.arg("--root").arg(root).args(arguments).output().unwrap()
    }
}

#[test]
fn a_log_that_can_not_be_read_is_not_taken_for_an_empty_one() {
    let (root, fakes) = (tempfile::tempdir().unwrap(), Fakes::new());
    let line = r#"{"__REALTIME_TIMESTAMP":"1795874403000000","PRIORITY":"4","MESSAGE":"NBD connection lost"}"#;
    fakes.add(
        "journalctl",
        &format!("echo \"$@\" > {}/asked\necho '{line}'", root.path().display()),
    );
    let output =
        fakes.bootlace(root.path(), &["logs", "lab-07", "--level", "warn", "--since", "-2h"]);
    let text = told(&output);
    assert!(output.status.success() && text.contains("warn   NBD connection lost"), "{text}");
    let asked = fs::read_to_string(root.path().join("asked")).unwrap();
    assert!(asked.contains("--since=-2h --priority=4"), "{asked}");
    assert!(asked.contains("BOOTLACE_MACHINE=lab-07"), "{asked}");

    let hint = "Hint: You are currently not seeing messages from other users and the system.";
    fakes.add("journalctl", &format!("echo '{hint}' >&2"));
    let output = fakes.bootlace(root.path(), &["logs"]);
    let text = told(&output);
    // Where there is no folder of a journal, that is told.
    let is_told = match output.status.code() {
        Some(4) => text.contains("systemd-journal"),
        code => code == Some(1) && text.contains("there is no journal"),
    };
    assert!(is_told && !text.contains("no such line"), "{text}");
    fakes.add("journalctl", "echo 'No journal files were found.' >&2");
    let output = fakes.bootlace(root.path(), &["logs"]);
    assert!(output.status.code() == Some(1) && told(&output).contains("there is no journal"));
    fakes.add("journalctl", "echo 'Failed to parse timestamp: x' >&2; exit 1");
    let output = fakes.bootlace(root.path(), &["logs", "--since", "x"]);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert_eq!(fakes.bootlace(root.path(), &["logs", "--level", "loud"]).status.code(), Some(2));
}

#[test]
fn the_logs_of_a_machine_end_with_the_kernel_log_of_its_failed_boot() {
    let (root, fakes) = (tempfile::tempdir().unwrap(), Fakes::new());
    let line =
        r#"{"__REALTIME_TIMESTAMP":"1795874403000000","PRIORITY":"4","MESSAGE":"the boot failed"}"#;
    fakes.add("journalctl", &format!("echo '{line}'"));
    let logs = |machine: &str| told(&fakes.bootlace(root.path(), &["logs", machine]));
    let set = ["machine", "set", "lab-07", "--mac", MAC];
    assert!(fakes.bootlace(root.path(), &set).status.success());
    let text = logs("lab-07");
    assert!(text.contains("the boot failed") && !text.contains("kernel log of"), "{text}");
    let folder = root.path().join("var/lib/bootlace/kernel-logs");
    fs::create_dir_all(&folder).unwrap();
    let lines: Vec<String> = (1..100).map(|n| format!("[ {n}.0] line {n}.")).collect();
    fs::write(folder.join("525400123456.log"), format!("12\n{}\n", lines.join("\n"))).unwrap();
    let text = logs("lab-07");
    let parts = [
        "the boot failed",
        "its last failed boot, 12",
        "machine log lab-07",
        "line 60.",
        "line 99.",
    ];
    let places: Vec<_> = parts.iter().map(|part| text.find(part)).collect();
    assert!(places.is_sorted() && places[0].is_some() && !text.contains("line 59."), "{text}");
    // Lines of a machine that was removed are there, and that it was is told.
    let text = logs("lab-09");
    assert!(text.contains("the boot failed") && text.contains("no machine lab-09 now"), "{text}");
}

#[test]
fn lines_about_a_machine_are_found_by_fields() {
    const JOURNALD: &str = "/usr/lib/systemd/systemd-journald";
    let needs = [Need::Root, Need::Program("systemd-cat"), Need::Program("grub-mkimage")];
    if require("logs", &needs) && Path::new(JOURNALD).exists() {
        journal(JOURNALD).unwrap_or_else(|error| panic!("{error:#}"));
    }
}

/// Servers whose standard error is a journal of their own.
fn journal(journald: &str) -> Result<()> {
    let site = Site::builder().create(Lan::lay("journal")?)?;
    let (bootlace, root) = (bootlace_binary()?, site.root().display());
    let bootlace = format!("{} --root {root}", bootlace.display());
    let script = format!(
        "mount -t tmpfs tmpfs /run; mkdir -p /run/systemd/journal /run/log/journal\n\
         {journald} & journal=$!\n\
         for n in $(seq 100); do [ -S /run/systemd/journal/stdout ] && break; sleep 0.1; done\n\
         systemd-cat sh -c 'export JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2); exec {bootlace} up' & up=$!\n\
         for n in $(seq 600); do [ -S {root}/run/bootlace/boot.sock ] && break; sleep 0.1; done\n\
         {bootlace} machine set lab-07 --mac {MAC}; {bootlace} machine set lab-08 --mac 52:54:00:12:34:57\n\
         sleep 1; echo == all; {bootlace} logs; echo == lab-07; {bootlace} logs lab-07\n\
         echo == errors; {bootlace} logs --level error; echo == lab-09; {bootlace} logs lab-09; echo $?\n\
         kill $up; wait $up; kill $journal"
    );
    let netns = format!("--net=/run/netns/{}", site.lan().netns().name());
    let mut command = Command::new("nsenter");
    let output = command.args([&netns, "unshare", "--mount", "sh", "-c", &script]).output()?;
    let text = told(&output);
    let part = |name: &str| -> String {
        let after = text.split_once(&format!("== {name}\n")).map_or("", |(_, after)| after);
        after.split("== ").next().unwrap_or_default().to_owned()
    };
    let all = part("all");
    ensure!(all.contains("boot server ready") && all.contains("storage server ready"), "{text}");
    ensure!(all.contains("machine=lab-07") && all.contains("machine=lab-08"), "{text}");
    let one = part("lab-07");
    ensure!(one.contains("machine stored") && !one.contains("lab-08"), "{text}");
    ensure!(!one.contains("boot server ready") && !one.contains("asked by a command"), "{text}");
    ensure!(part("errors").contains("no such line"), "{text}");
    ensure!(part("lab-09").contains("there is no machine lab-09"), "{text}");
    ensure!(part("lab-09").lines().any(|line| line == "3"), "{text}");
    Ok(())
}

/// A site with a secret in each place that has one, each of which has this in it.
const SECRET: &str = "Xyzzy";

#[test]
fn a_report_for_others_has_no_secrets() {
    if !require("report", &[Need::Program("zstd"), Need::Program("openssl")]) {
        return;
    }
    let (root, fakes) = (tempfile::tempdir().unwrap(), Fakes::new());
    let etc = root.path().join("etc/bootlace");
    fs::create_dir_all(&etc).unwrap();
    let planted = |name: &str, text: &str| {
        let path = etc.join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let key = "-----BEGIN PRIVATE KEY-----\nXyzzykey\n-----END PRIVATE KEY-----\n";
    let config = format!(
        "# the former password was Xyzzycomment\n[network]\ninterface = \"br0\"\npool = \"10.77.0.100-10.77.0.199\"\n\
         [boot]\nkernel_args = \"quiet ds=Xyzzyargs password=Xyzzyargs2 pin=\\\"a Xyzzyargs3 b\\\"\"\n\
         [storage]\nnbd_tls = {{ certificate = {:?}, key = {:?} }}\n\
         [alerts.mail]\nhost = \"mail.lab\"\nfrom = \"a@b.example\"\nto = [\"Xyzzyperson@b.example\"]\nuser = \"tom\"\npassword_file = {:?}\n\
         [alerts.webhook]\nurl = \"https://chat.lab/hooks/Xyzzyhook\"\ntoken_file = {:?}\n",
        planted("cert.pem", "-----BEGIN CERTIFICATE-----\n"),
        planted("key.pem", key),
        planted("mail-password", "Xyzzy by a word\n"),
        planted("webhook-token", "Xyzzytoken\n"),
    );
    let wrong = config
        .replace("host =", "pasword = \"Xyzzypasword\"\npassword_file_typo = 'Xyzzytypo'\nhost =");
    let web = root.path().join("var/lib/bootlace/web");
    fs::create_dir_all(&web).unwrap();
    fs::write(web.join("page-key.pem"), key.replace("Xyzzykey", "Xyzzypagekey")).unwrap();
    // What a log may have, by our words or by others'.
    let log = "mail: 535 login by Xyzzy by a word refused\nhook https://chat.lab/hooks/Xyzzyhook failed\nhttps://tom:Xyzzyurl@lab/x?code=Xyzzycode\n\
               Authorization: Bearer Xyzzybearer\nCookie: session=Xyzzycookie\npassword=Xyzzypw token \"Xyzzyquoted\" bl_Xyzzyapi\nkernel: pin Xyzzyargs\n\
               hash $6$salt$Xyzzyhash $argon2id$v=19$Xyzzyhash\nthe key Xyzzypagekey was read\n  5 | pasword = \"Xyzzypasword\"\n\
               rescue password Xyzzyrescue1\nthe words stay";
    fakes.add("journalctl", &format!("cat <<'END'\n{log}\nEND"));
    fakes.add("systemctl", "echo 'Environment=A=Xyzzyenvironment'");
    let run = |arguments: &[&str]| {
        let output = fakes.bootlace(root.path(), arguments);
        assert!(output.status.success(), "{arguments:?}: {}", told(&output));
        told(&output)
    };
    fs::write(etc.join("bootlace.toml"), &config).unwrap();
    run(&[
        "machine",
        "set",
        "lab-07",
        "--mac",
        MAC,
        "--kernel-args",
        "rd.auth=Xyzzymachine splash",
    ]);
    let url = "nfs://10.0.0.5/srv/debian";
    run(&[
        "machine",
        "set",
        "lab-08",
        "--mac",
        "52:54:00:12:34:57",
        "--root-kind",
        "nfs",
        "--root-url",
        url,
    ]);
    let rescue = run(&["machine", "rescue", "lab-07"]);
    let token = run(&["token", "add", "books", "--scope", "admin"]);
    let token = token.lines().find(|line| line.starts_with("bl_")).unwrap();
    for (n, text) in
        [&config, &wrong, &format!("[broken\n{wrong}\nXyzzyloose\n")].into_iter().enumerate()
    {
        fs::write(etc.join("bootlace.toml"), text).unwrap();
        let file = root.path().join(format!("report-{n}.tar.zst"));
        let name = file.to_str().unwrap();
        let made = run(&["debug", "report", name]);
        assert!(made.contains("doctor.json") && made.contains("mode 0600"), "{made}");
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        let again = fakes.bootlace(root.path(), &["debug", "report", name]);
        assert!(told(&again).contains("is there already"), "{}", told(&again));
        assert!(run(&["debug", "report", "--list", name]).contains("log.txt"));
        let unpacked = root.path().join(format!("unpacked-{n}"));
        fs::create_dir(&unpacked).unwrap();
        let mut tar = Command::new("tar");
        assert!(
            tar.arg("-C").arg(&unpacked).args(["--zstd", "-xf", name]).status().unwrap().success()
        );
        let mut whole = String::new();
        for entry in fs::read_dir(unpacked.join("bootlace-report")).unwrap() {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            let found: Vec<&str> = text.lines().filter(|line| line.contains(SECRET)).collect();
            assert!(found.is_empty(), "{} has {found:?}", path.display());
            whole += &text;
        }
        assert!(!whole.contains(token), "a token is in it");
        let password = rescue.split_once("password: ").unwrap().1;
        let password = password.split_whitespace().next().unwrap();
        assert!(!whole.contains(password), "{password}, of a rescue shell, is in it");
        for kept in ["lab-07", "52:54:00:12:34:56", "the words stay", "splash", "\"verdict\""] {
            assert!(whole.contains(kept), "{kept} is not in it");
        }
        if n < 2 {
            assert!(whole.contains("interface = \"br0\"") && whole.contains("https://chat.lab/"));
        }
    }
}
