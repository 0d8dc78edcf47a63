//! Commands with a boot server and without one, and who may give them.

use anyhow::{Result, ensure};
use lab::{Lan, Need, SERVERS_UID, Site, bootlace_binary, require};
use nix::sys::signal::Signal;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output};

const MAC: &str = "52:54:00:00:00:01";
const OTHER_MAC: &str = "52:54:00:00:00:02";

/// Users and a group that stand in no list.
const MEMBER: u32 = 60_997;
const STRANGER: u32 = 60_996;
const ADMINS: u32 = 60_998;

/// Each verb, with what it may meet, in this order.
const VERBS: [&[&str]; 43] = [
    &["machine", "ls"],
    &["image", "ls"],
    &["initrd", "ls"],
    &["machine", "set", "lab-01"],
    &["machine", "set", "lab-01", "--mac", MAC, "--image", "none"],
    &["machine", "set", "lab-01", "--mac", MAC, "--root-kind", "aoe", "--kernel-args", "quiet"],
    &["machine", "set", "lab-02", "--mac", MAC],
    &["machine", "set", "lab-01", "--add-mac", OTHER_MAC, "--no-image"],
    &["machine", "set", "lab-01", "--write-mode", "persistent"],
    &["machine", "set", "lab-01", "--remove-mac", "52:54:00:00:00:09"],
    &["machine", "ls"],
    &["machine", "ls", "--json"],
    &["machine", "ls", "--mac", OTHER_MAC],
    &["machine", "ls", "--mac", "52:54:00:00:00:09"],
    &["machine", "reset", "lab-01"],
    &["machine", "reset", "lab-01", "--undo"],
    &["machine", "reset", "lab-09"],
    &["machine", "power", "lab-01", "reboot"],
    &["machine", "power", "lab-09", "poweroff"],
    &["machine", "resume-writes", "lab-01"],
    &["machine", "fail-writes", "lab-09"],
    &["machine", "next", "lab-01", "local-disk"],
    &["machine", "next", "lab-01", "--off"],
    &["machine", "rescue", "lab-09"],
    &["machine", "rescue", "lab-01", "--off"],
    &["machine", "log", "lab-01"],
    &["machine", "log", "lab-09"],
    &["machine", "hardware", "lab-01"],
    &["machine", "hardware", "lab-09"],
    &["lease", "ls"],
    &["lease", "fix", "10.77.0.20", "--machine", "lab-01"],
    &["lease", "fix", "10.77.9.20", "--machine", "lab-01"],
    &["lease", "free", "10.77.0.20"],
    &["lease", "ls", "--all", "--json"],
    &["lease", "fix", MAC, "--undo"],
    &["lease", "import", "/dev/null"],
    &["image", "ls", "--json"],
    &["initrd", "ls", "--json"],
    &["initrd", "build", "--output", "/nonexistent/x", "--image", "none"],
    &["image", "import", "/nonexistent.img", "--name", "none"],
    &["machine", "rm", "lab-01"],
    &["machine", "rm", "lab-01"],
    &["machine", "ls", "--json"],
];

fn on_a_site(name: &str, test: impl FnOnce(&Site) -> Result<()>) {
    let site = Lan::lay(name).and_then(|lan| Site::builder().create(lan));
    let site = site.unwrap_or_else(|error| panic!("no site for {name}: {error:#}"));
    test(&site).unwrap_or_else(|error| panic!("{error:#}"));
}

fn command(site: &Site, arguments: &[&str]) -> Result<Output> {
    let mut command = site.lan().netns().command(bootlace_binary()?, Signal::SIGKILL);
    Ok(command.arg("--root").arg(site.root()).args(arguments).output()?)
}

/// The same, as another user, who is in one group.
fn command_as(user: u32, group: u32, site: &Site, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(bootlace_binary()?);
    command.uid(user).gid(group).current_dir("/");
    Ok(command.arg("--root").arg(site.root()).args(arguments).output()?)
}

/// Exit code and all that it says, wherever the site is.
fn told(output: &Output, site: &Site) -> String {
    let [out, error] = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
    let text = format!("{:?}\n{out}{error}", output.status.code());
    text.replace(&site.root().display().to_string(), "ROOT")
}

#[test]
fn each_command_comes_to_the_same_with_a_server_and_without() {
    let test = "each_command_comes_to_the_same_with_a_server_and_without";
    if !require(test, &[Need::Root, Need::Program("grub-mkimage")]) {
        return;
    }
    let outcomes = |is_served: bool| {
        let mut outcomes = Vec::new();
        on_a_site(if is_served { "verbs-served" } else { "verbs-alone" }, |site| {
            let server = is_served.then(|| site.serve()).transpose()?;
            for verb in VERBS {
                outcomes.push((verb.join(" "), told(&command(site, verb)?, site)));
            }
            let status = command(site, &["status", "--json"])?;
            let mut status: serde_json::Value = serde_json::from_slice(&status.stdout)?;
            ensure!(status["boot_server_is_running"] == is_served, "{status}");
            // What only a boot server can know.
            status["boot_server_is_running"] = ().into();
            (status["status"]["pool"], status["status"]["findings"]) = (().into(), ().into());
            outcomes.push(("status".to_owned(), status.to_string()));
            server.map_or(Ok(()), lab::Daemon::stop)
        });
        outcomes
    };
    let (alone, served) = (outcomes(false), outcomes(true));
    for ((verb, alone), (_, served)) in alone.iter().zip(&served) {
        let root = |text: &str| text.split("bootlace-site-").next().unwrap_or_default().to_owned();
        assert_eq!(root(alone), root(served), "{verb}");
    }
    let outcome = |verb: &str| {
        let found = served.iter().find(|(known, _)| known == verb);
        found.map_or_else(String::new, |(_, outcome)| outcome.clone())
    };
    assert!(outcome("machine reset lab-09").starts_with("Some(3)"), "{served:#?}");
    assert!(outcome("machine set lab-02 --mac 52:54:00:00:00:01").starts_with("Some(1)"));
    assert!(outcome("machine set lab-01 --write-mode persistent").starts_with("Some(0)"));
}

#[test]
fn members_of_the_group_give_commands_and_read_nothing_and_others_are_told_how() {
    let test = "members_of_the_group_give_commands_and_read_nothing_and_others_are_told_how";
    if !require(test, &[Need::Root, Need::Program("grub-mkimage")]) {
        return;
    }
    on_a_site("cli-group", |site| {
        let root = site.root();
        if root.metadata()?.uid() == 0 {
            ensure!(std::env::var_os("CI_REQUIRE_ALL").is_none(), "the servers stay root");
            eprintln!("skipped: {test}: the programs are where only root can read them");
            return Ok(());
        }
        // As somebody has it whose configuration is nobody's business.
        let config = root.join("etc/bootlace/bootlace.toml");
        let group = format!("\n[service]\nadmin_group = \"{ADMINS}\"\n");
        fs::write(&config, fs::read_to_string(&config)? + &group)?;
        chown(&config, Some(SERVERS_UID), Some(SERVERS_UID))?;
        fs::set_permissions(&config, fs::Permissions::from_mode(0o600))?;
        fs::set_permissions(root, fs::Permissions::from_mode(0o711))?;

        let refused = told(&command_as(MEMBER, ADMINS, site, &["status"])?, site);
        ensure!(refused.starts_with("Some(4)"), "nothing runs, and it read the state: {refused}");
        let checked = told(&command(site, &["check"])?, site);
        ensure!(checked.contains(&format!("members of the group {ADMINS}")), "{checked}");
        let storage = site.storage()?;
        let server = site.serve()?;
        let mode =
            |path: &Path| fs::metadata(path).map(|about| (about.mode() & 0o777, about.gid()));
        let run = root.join("run/bootlace");
        ensure!(mode(&run.join("boot.sock"))? == (0o660, ADMINS), "not the group's");
        ensure!(mode(&run.join("storage.sock"))? == (0o600, SERVERS_UID), "storage is open");
        ensure!(mode(&root.join("var/lib/bootlace/state.db"))?.0 == 0o600, "the state is open");

        let member = |arguments: &[&str]| command_as(MEMBER, ADMINS, site, arguments);
        for verb in [
            &["machine", "set", "lab-01", "--mac", MAC][..],
            &["machine", "ls"],
            &["machine", "reset", "lab-01"],
            &["image", "ls"],
            &["initrd", "ls"],
            &["status"],
            &["status", "--json"],
            &["machine", "rm", "lab-01"],
        ] {
            let output = member(verb)?;
            ensure!(output.status.success(), "{verb:?}: {}", told(&output, site));
        }
        let log = server.log();
        let who = format!("asked by a command who=\"{MEMBER}\" method=PATCH");
        ensure!(log.contains(&who) && log.contains("/api/v1/machines/lab-01"), "{log}");
        let disk = Path::new("/bin/sh").display().to_string();
        let refused = told(&member(&["image", "import", &disk, "--name", "one"])?, site);
        ensure!(refused.contains("use sudo"), "{refused}");

        // What root's commands find in the servers' folders they give to their user, but for the socket's group.
        command(site, &["image", "import", &disk, "--name", "one"])?;
        ensure!(mode(&run.join("boot.sock"))? == (0o660, ADMINS), "taken away again");

        let refused = told(&command_as(STRANGER, STRANGER, site, &["status"])?, site);
        let words = format!("are not a member of the group {ADMINS}");
        ensure!(refused.starts_with("Some(4)") && refused.contains(&words), "{refused}");
        ensure!(refused.contains(&format!("usermod -aG {ADMINS}")), "{refused}");
        server.stop()?;
        storage.stop()
    });
}

#[test]
fn a_server_that_lost_its_database_is_still_asked() {
    let test = "a_server_that_lost_its_database_is_still_asked";
    if !require(test, &[Need::Root, Need::Program("grub-mkimage")]) {
        return;
    }
    on_a_site("cli-lost", |site| {
        site.run(&["machine", "set", "lab-01", "--mac", MAC])?;
        let server = site.serve()?;
        let database = site.root().join("var/lib/bootlace/state.db");
        // Who opened it would make another one, or complain that it is not there.
        fs::rename(&database, site.root().join("elsewhere"))?;
        for verb in
            [&["status"][..], &["machine", "ls"], &["image", "ls"], &["initrd", "ls", "--json"]]
        {
            let output = command(site, verb)?;
            ensure!(output.status.success(), "{verb:?}: {}", told(&output, site));
            ensure!(!database.exists(), "{verb:?} has opened the database");
        }
        let status = site.run(&["status"])?;
        ensure!(status.contains("lab-01"), "{status}");
        server.stop()
    });
}

#[test]
fn a_machine_without_a_disk_has_no_writes_that_wait() {
    let test = "a_machine_without_a_disk_has_no_writes_that_wait";
    if !require(test, &[Need::Root, Need::Program("grub-mkimage")]) {
        return;
    }
    on_a_site("no-disk-now", |site| {
        let _servers = site.up()?;
        site.run(&["machine", "set", "lab-01", "--mac", MAC])?;
        for verb in ["resume-writes", "fail-writes"] {
            let text = told(&command(site, &["machine", verb, "lab-01"])?, site);
            let words = "lab-01 has no disk at the storage server now";
            ensure!(text.starts_with("Some(1)") && text.contains(words), "{text}");
        }
        Ok(())
    });
}

#[test]
fn a_disk_that_is_kept_is_not_deleted_without_a_question() {
    let test = "a_disk_that_is_kept_is_not_deleted_without_a_question";
    let needs = [Need::Root, Need::Program("grub-mkimage"), Need::Program("script")];
    if !require(test, &needs) {
        return;
    }
    on_a_site("rm-asks", |site| {
        let layers = site.root().join("var/lib/bootlace/layers");
        let disk = layers.join("lab-01");
        fs::create_dir_all(&disk)?;
        fs::write(disk.join("data"), vec![1; 3_000_000])?;
        fs::write(disk.join("layer.toml"), "")?;
        let servers = site.up()?;
        for (name, mac) in [("lab-01", MAC), ("lab-02", OTHER_MAC)] {
            site.run(&["machine", "set", name, "--mac", mac])?;
        }
        site.run(&["machine", "rm", "lab-02"])?;

        let remove = ["machine", "rm", "lab-01"];
        let text = told(&command(site, &remove)?, site);
        ensure!(text.starts_with("Some(2)") && text.contains("--yes"), "{text}");
        ensure!(text.contains("lab-01 keeps a disk (3.0 MB, written since 20"), "{text}");
        let at_terminal = |answer: &str| -> Result<Output> {
            let root = site.root().display();
            let binary = bootlace_binary()?;
            let line = format!("{} --root {root} machine rm lab-01", binary.display());
            let mut script = site.lan().netns().command("script", Signal::SIGKILL);
            let answers = tempfile::NamedTempFile::new()?;
            fs::write(&answers, answer)?;
            script.args(["-qec", &line, "/dev/null"]).stdin(fs::File::open(answers.path())?);
            Ok(script.output()?)
        };
        let text = told(&at_terminal("n\n")?, site);
        ensure!(text.starts_with("Some(1)") && text.contains("nothing was changed"), "{text}");
        ensure!(disk.exists(), "it is still there");
        site.run(&["machine", "set", "lab-01", "--kernel-args", "quiet"])?;
        let text = told(&at_terminal("y\n")?, site);
        ensure!(text.starts_with("Some(0)") && text.contains("lab-01: removed"), "{text}");
        ensure!(!disk.exists(), "{text}");

        fs::create_dir_all(&disk)?;
        site.run(&["machine", "set", "lab-01", "--mac", MAC])?;
        let text = told(&command(site, &remove)?, site);
        ensure!(text.contains("keeps a disk with what it has written"), "{text}");
        site.run(&[remove.as_slice(), &["--yes"]].concat())?;
        ensure!(!disk.exists());
        servers.stop()
    });
}

#[test]
fn check_tells_this_site_s_own_servers_from_another_bootlace() {
    let test = "check_tells_this_site_s_own_servers_from_another_bootlace";
    if !require(test, &[Need::Root, Need::Program("grub-mkimage")]) {
        return;
    }
    on_a_site("check-own", |site| {
        let _servers = site.up()?;
        let own = told(&command(site, &["check"])?, site);
        for port in ["DHCP: UDP port 67", "NBD: TCP port 10809"] {
            let is_own = |line: &&str| line.starts_with(&format!("ok    {port} is this site's"));
            ensure!(own.lines().any(|line| is_own(&line)), "{port}: {own}");
        }
        ensure!(own.contains("storage server: it runs, and answers"), "{own}");
        // Another site on the same host.
        let other = tempfile::tempdir()?;
        let etc = Path::new("etc/bootlace");
        fs::create_dir_all(other.path().join(etc))?;
        let config = etc.join("bootlace.toml");
        fs::copy(site.root().join(&config), other.path().join(&config))?;
        let mut check = site.lan().netns().command(bootlace_binary()?, Signal::SIGKILL);
        let output = check.arg("--root").arg(other.path()).arg("check").output()?;
        let text = told(&output, site);
        ensure!(output.status.code() == Some(1), "{text}");
        for port in ["DHCP: UDP port 67", "web page: TCP port"] {
            let words = "in use by another Bootlace than this site's, bootlace (pid ";
            let is_told = |line: &&str| line.contains(port) && line.contains(words);
            let line = text.lines().find(is_told);
            ensure!(line.is_some_and(|it| it.contains("--root ROOT")), "{port}: {text}");
        }
        Ok(())
    });
}
