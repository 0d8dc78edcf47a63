//! Servers that root starts go on as a user of their own, and find and leave all files in order.

use anyhow::{Context, Result, ensure};
use lab::{Daemon, Lan, Need, SERVERS_UID, Site, require};
use nix::sys::signal::Signal;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// Bits of a set of capabilities, as `/proc` shows it: ports below 1024, and raw sockets; and a larger buffer for
/// AoE, which is CAP_NET_ADMIN. `up` and its storage server do without.
const BOOT_SERVER: &str = "0000000000002400";
const STORAGE_SERVER: &str = "0000000000003400";

fn on_a_site(name: &str, test: impl FnOnce(&mut Site) -> Result<()>) {
    if !require(name, &[Need::Root, Need::Program("grub-mkimage")]) {
        return;
    }
    let site = Lan::lay(name).and_then(|lan| Site::builder().create(lan));
    let mut site = site.unwrap_or_else(|error| panic!("no site for {name}: {error:#}"));
    if site.root().metadata().is_ok_and(|about| about.uid() == 0) {
        assert!(std::env::var_os("CI_REQUIRE_ALL").is_none(), "{name} can't run");
        eprintln!("skipped: {name}: the programs are where only root can read them");
        return;
    }
    test(&mut site).unwrap_or_else(|error| panic!("{error:#}"));
}

fn configure(site: &Site, lines: &str) -> Result<()> {
    let path = site.root().join("etc/bootlace/bootlace.toml");
    Ok(fs::OpenOptions::new().append(true).open(path)?.write_all(lines.as_bytes())?)
}

/// Each thread of the server has lost all rights but these.
fn has_only(server: &Daemon, capabilities: &str) -> Result<()> {
    let threads: Vec<PathBuf> = fs::read_dir(format!("/proc/{}/task", server.id()))?
        .map(|entry| entry.map(|entry| entry.path().join("status")))
        .collect::<std::io::Result<_>>()?;
    ensure!(threads.len() > 2, "that is not the whole server: {threads:?}");
    let ids = [SERVERS_UID; 4].map(|id| id.to_string()).join("\t");
    for thread in threads {
        // It may have ended meanwhile.
        let Ok(status) = fs::read_to_string(&thread) else { continue };
        let value = |key: &str| {
            let mut lines = status.lines();
            lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(":\t")).unwrap_or_default()
        };
        for key in ["Uid", "Gid"] {
            ensure!(value(key) == ids, "{key} of {}: {}", thread.display(), value(key));
        }
        for set in ["CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"] {
            ensure!(value(set) == capabilities, "{set} of {}: {}", thread.display(), value(set));
        }
        ensure!(value("NoNewPrivs") == "1", "programs could bring rights back: {status}");
        ensure!(value("Groups").trim() == SERVERS_UID.to_string(), "groups: {}", value("Groups"));
    }
    Ok(())
}

/// What in the folder somebody else than the servers' user owns.
fn foreign(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))? {
            let path = entry?.path();
            let about = fs::symlink_metadata(&path)?;
            if about.uid() != SERVERS_UID || about.gid() != SERVERS_UID {
                found.push(path.clone());
            }
            if about.is_dir() {
                folders.push(path);
            }
        }
    }
    Ok(found)
}

/// All that a command says.
fn said(site: &Site, command: &str) -> Result<String> {
    let binary = lab::bootlace_binary()?;
    let mut run = site.lan().netns().command(binary, Signal::SIGKILL);
    let output = run.arg("--root").arg(site.root()).arg(command).output()?;
    let [out, error] =
        [output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).into_owned());
    Ok(out + &error)
}

fn state(site: &Site) -> PathBuf {
    site.root().join("var/lib/bootlace")
}

#[test]
fn a_server_has_no_rights_but_those_that_it_needs() {
    on_a_site("own-user", |site| {
        let storage = site.storage()?;
        has_only(&storage, STORAGE_SERVER)?;
        // It has the ring though it is not root: it is not told that it goes without.
        ensure!(!storage.log().contains("without a ring"), "{}", storage.log());
        let boot = site.serve()?;
        has_only(&boot, BOOT_SERVER)?;
        let limits = fs::read_to_string(format!("/proc/{}/limits", boot.id()))?;
        let files = limits.lines().find(|line| line.starts_with("Max open files"));
        let words: Vec<&str> = files.unwrap_or_default().split_whitespace().collect();
        ensure!(words.len() > 4 && words[3] == words[4], "soft and hard limit differ: {words:?}");
        // Commands of root reach both, and leave nothing behind that is root's.
        let answer = site.run(&["status"])?;
        ensure!(answer.contains("storage server: running"), "{answer}");
        site.run(&["machine", "set", "pc-1", "--mac", "52:54:00:00:00:01"])?;
        for folder in [state(site), site.root().join("run/bootlace")] {
            let foreign = foreign(&folder)?;
            ensure!(foreign.is_empty(), "not the servers': {foreign:?}");
        }
        boot.stop()?;
        storage.stop()
    });
}

#[test]
fn what_a_command_of_root_writes_before_the_first_start_is_the_servers() {
    on_a_site("own-before", |site| {
        site.run(&["machine", "set", "pc-1", "--mac", "52:54:00:00:00:01"])?;
        ensure!(state(site).join("state.db").is_file(), "there is no state");
        let foreign = foreign(&state(site))?;
        ensure!(foreign.is_empty(), "not the servers': {foreign:?}");
        let up = site.up()?;
        has_only(&up, BOOT_SERVER)?;
        ensure!(!up.log().contains("without a ring"), "AoE lacks a right: {}", up.log());
        up.stop()
    });
}

#[test]
fn root_s_import_sees_who_writes_to_the_disk() {
    on_a_site("own-import", |site| {
        let disk = site.root().join("disk.raw");
        let file = fs::File::create(&disk)?;
        file.set_len(1 << 20)?;
        let disk = disk.to_string_lossy().into_owned();
        let refused = site.run(&["image", "import", &disk, "--name", "one"]);
        let text = format!("{:#}", refused.err().context("it was imported")?);
        ensure!(
            text.contains("was not imported") && text.contains("open for writing by"),
            "{text}"
        );
        Ok(())
    });
}

#[test]
fn a_socket_that_was_handed_over_is_the_servers() {
    on_a_site("own-handed", |site| {
        let pages = TcpListener::bind("127.0.0.1:0")?;
        let up = site.up_with_pages_on(pages)?;
        has_only(&up, BOOT_SERVER)?;
        let answer = site.browser().get("/")?;
        ensure!(answer.status == 200, "the page says {}", answer.status);
        up.stop()
    });
}

#[test]
fn the_state_of_a_server_that_was_root_is_taken_over_and_nothing_else() {
    on_a_site("own-upgrade", |site| {
        let (state, outside) = (state(site), site.root().join("outside"));
        let kept = state.join("layers/lab-01");
        fs::create_dir_all(&kept)?;
        fs::write(kept.join("data"), "of a machine")?;
        fs::set_permissions(state.join("layers"), fs::Permissions::from_mode(0o700))?;
        fs::write(&outside, "of root")?;
        // Whoever breaks into a server may leave these there, to have the file given to him.
        symlink(&outside, state.join("symbolic"))?;
        fs::hard_link(&outside, state.join("hard"))?;
        symlink(site.root().join("etc"), state.join("folder"))?;
        let storage = site.storage()?;
        has_only(&storage, STORAGE_SERVER)?;
        let owner = |path: &Path| fs::metadata(path).map(|about| about.uid());
        ensure!(owner(&kept.join("data"))? == SERVERS_UID, "the machine's disk is still root's");
        ensure!(owner(&outside)? == 0, "a file outside was given away");
        ensure!(owner(&site.root().join("etc/bootlace"))? == 0, "a folder outside was given away");
        storage.stop()
    });
}

#[test]
fn a_user_that_does_not_exist_is_named() {
    on_a_site("own-nobody", |site| {
        configure(site, "\n[service]\nuser = \"no-such-user\"\n")?;
        for command in ["up", "storage", "serve", "check"] {
            let text = said(site, command)?;
            ensure!(text.contains("no-such-user") && text.contains("create it"), "{text}");
        }
        Ok(())
    });
}

#[test]
fn who_stays_root_says_so_and_what_to_do() {
    on_a_site("own-root", |site| {
        if nix::unistd::User::from_name("bootlace")?.is_some() {
            eprintln!("skipped: who_stays_root_says_so_and_what_to_do: there is a user bootlace");
            return Ok(());
        }
        chown(site.root(), Some(0), Some(0))?;
        let checked = said(site, "check")?;
        ensure!(checked.contains("note  user: the servers would stay root"), "{checked}");
        ensure!(checked.contains("useradd --system"), "{checked}");
        let storage = site.storage()?;
        let log = storage.log();
        ensure!(log.contains("running as root") && log.contains("useradd --system"), "{log}");
        storage.stop()
    });
}

#[test]
fn a_file_that_the_user_can_t_read_is_named() {
    on_a_site("own-key", |site| {
        let key = site.root().join("key.pem");
        fs::write(&key, "a key")?;
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
        let key = key.display();
        configure(site, &format!("\nnbd_tls = {{ certificate = \"{key}\", key = \"{key}\" }}\n"))?;
        for command in ["check", "storage"] {
            let text = said(site, command)?;
            ensure!(text.contains(&format!("can't read {key}")), "{text}");
            ensure!(text.contains("chgrp"), "{text}");
        }
        Ok(())
    });
}

/// Puts a link of the servers' user in place of a file of theirs.
fn plant(site: &Site, name: &str, leads_to: &Path) -> Result<()> {
    let path = site.root().join(name);
    let _ = fs::remove_file(&path);
    symlink(leads_to, &path)?;
    Ok(std::os::unix::fs::lchown(&path, Some(SERVERS_UID), Some(SERVERS_UID))?)
}

/// What somebody who has broken into the boot server answers, whatever is asked.
fn impostor(site: &Site, answer: &str) -> Result<()> {
    let path = site.root().join("run/bootlace/boot.sock");
    fs::create_dir_all(path.parent().context("no folder")?)?;
    let _ = fs::remove_file(&path);
    let listener = UnixListener::bind(&path)?;
    chown(&path, Some(SERVERS_UID), Some(SERVERS_UID))?;
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}",
        answer.len()
    );
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    Ok(())
}

#[test]
fn what_the_servers_user_has_planted_leads_root_nowhere() {
    on_a_site("own-planted", |site| {
        site.run(&["machine", "set", "pc-1", "--mac", "52:54:00:00:00:01"])?;
        let of_root = tempfile::tempdir()?;
        let (backup, victim) = (of_root.path().join("backup"), of_root.path().join("victim"));
        let backup_name = backup.to_str().context("no text")?;
        let web = state(site).join("web");
        fs::create_dir(&web)?;
        for name in ["authority.pem", "authority-key.pem"] {
            fs::write(web.join(name), name)?;
            chown(web.join(name), Some(SERVERS_UID), Some(SERVERS_UID))?;
        }
        chown(&web, Some(SERVERS_UID), Some(SERVERS_UID))?;
        site.run(&["backup", "create", backup_name])?;
        let is_untouched = |after: &str| {
            let about = fs::metadata(&victim).with_context(|| format!("gone after {after}"))?;
            let content = fs::read_to_string(&victim)?;
            ensure!(content == "root's" && about.uid() == 0, "{after}: {content:?}, {about:?}");
            anyhow::Ok(())
        };
        fs::write(&victim, "root's")?;
        let database = fs::read(state(site).join("state.db"))?;
        for name in [
            "state.lock",
            "state.db.restored",
            "state.last-backup",
            "state.last-backup.new",
            "web/authority.pem",
            "web/authority-key.pem",
            "web/authority-key.pem.restored",
            "web/about.json",
        ] {
            plant(site, &format!("var/lib/bootlace/{name}"), &victim)?;
            for command in [
                &["backup", "restore", backup_name, "--replace"][..],
                &["backup", "create", "--keep", "2", of_root.path().to_str().context("no text")?],
                &["status"],
            ] {
                // Whether it does that or refuses.
                let _ = site.run(command);
                is_untouched(&format!("{name}: {command:?}"))?;
            }
            let _ = fs::remove_file(state(site).join(name));
        }
        fs::write(state(site).join("state.db"), database)?;
        chown(state(site).join("state.db"), Some(SERVERS_UID), Some(SERVERS_UID))?;
        impostor(site, &format!("{{\"path\": {:?}}}", victim.display()))?;
        let made = of_root.path().join("made");
        let saved = site.run(&["backup", "create", made.to_str().context("no text")?]);
        ensure!(saved.is_err(), "a file of root's was saved as the database");
        is_untouched("the answer of a server that was broken into")
    });
}

/// Makes a file, or a folder with all in it, root's alone.
fn close(path: &Path) -> Result<()> {
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o700))?)
}

#[test]
fn root_s_commands_read_what_root_names_and_of_the_state_only_what_is_the_servers() {
    on_a_site("own-named", |site| {
        let of_root = tempfile::tempdir()?;
        close(of_root.path())?;
        let named = |name: &str| of_root.path().join(name).to_string_lossy().into_owned();
        site.run(&["machine", "set", "secret-pc", "--mac", "52:54:00:00:00:01"])?;
        fs::copy(state(site).join("state.db"), named("state.db"))?;
        fs::File::create(named("disk.raw"))?.set_len(1 << 20)?;
        let made = std::process::Command::new("qemu-img")
            .args(["convert", "-O", "qcow2", &named("disk.raw"), &named("disk.qcow2")])
            .status()?;
        ensure!(made.success(), "no qcow2");
        for file in ["state.db", "disk.raw", "disk.qcow2"] {
            close(Path::new(&named(file)))?;
        }
        let refused = |command: &[&str]| {
            let answer = site.run(command);
            match answer {
                Ok(answer) => anyhow::bail!("{command:?} went well: {answer}"),
                Err(error) => Ok(format!("{error:#}")),
            }
        };
        for disk in ["disk.raw", "disk.qcow2"] {
            let text = refused(&["image", "import", &named(disk), "--name", "one"])?;
            ensure!(text.contains("without partition table"), "it was not read: {text}");
        }
        let modules = refused(&["initrd", "build", "--modules", &named(""), "--output", "-"])?;
        ensure!(!modules.contains("denied"), "it was not read: {modules}");

        plant(site, "var/lib/bootlace/state.db", Path::new(&named("state.db")))?;
        for command in [
            &["machine", "ls"][..],
            &["status"],
            &["initrd", "build", "--image", "one", "--output", "-"],
            &["image", "import", &named("disk.raw"), "--name", "one"],
        ] {
            let text = refused(command)?;
            ensure!(text.contains("state.db"), "{command:?}: {text}");
        }
        let copies =
            fs::read_dir(state(site))?.filter_map(|entry| fs::read(entry.ok()?.path()).ok());
        let has_secret = |copy: Vec<u8>| copy.windows(9).any(|bytes| bytes == b"secret-pc");
        fs::remove_file(state(site).join("state.db"))?;
        ensure!(copies.map(has_secret).all(|it| !it), "a copy was made");
        Ok(())
    });
}
