//! Backups of a site: configuration, what it names, and the database.

mod create;
mod restore;
pub(crate) mod rotation;

pub(crate) use create::{Saved, check_state, create};
pub(crate) use restore::restore;

use crate::scratch;
use anyhow::Context;
use service::backup::{Kind, Manifest, read_backup};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Reads a backup as a whole, and each page of the database in it; what is in it, and how many machines it has.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn verify(input: impl Read) -> anyhow::Result<(Manifest, u64)> {
    // Where there is room for the database is looked for when its size is known.
    let mut unpacked: Option<TempDir> = None;
    let manifest = read_backup(input, |_, file, content| match file.kind {
        Kind::Database => {
            let folder = scratch::folder(file.size_bytes, &[])?;
            unpack(content, &database_in(unpacked.insert(folder)))
        }
        Kind::Configuration | Kind::File | Kind::Authority => Ok(()),
    })?;
    let unpacked = unpacked.context("there is no database in it")?;
    let n_machines = service::check_database(&database_in(&unpacked))?;
    Ok((manifest, n_machines))
}

fn database_in(folder: &TempDir) -> PathBuf {
    folder.path().join("state.db")
}

/// Writes what only its owner may read.
fn unpack(content: &mut dyn Read, path: &Path) -> io::Result<()> {
    let mut file = new_file(path)?;
    io::copy(content, &mut file)?;
    file.sync_all()
}

fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// What a backup holds, in words.
pub(crate) fn content(manifest: &Manifest, n_machines: u64) -> String {
    let n_files = manifest.files.iter().filter(|file| file.kind == Kind::File).count();
    let mut parts = Vec::new();
    if manifest.find(Kind::Configuration).is_some() {
        parts.push("the configuration".to_owned());
    }
    match n_files {
        0 => {}
        1 => parts.push("1 file that it names".to_owned()),
        n => parts.push(format!("{n} files that it names")),
    }
    if manifest.find(Kind::Authority).is_some() {
        parts.push("the authority of the web page".to_owned());
    }
    let machines = if n_machines == 1 { "machine" } else { "machines" };
    parts.push(format!("the database with {n_machines} {machines}"));
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot_socket;
    use crate::paths::Paths;
    use crate::web_tls::Authority;
    use service::{MachineChange, Options, Service};
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    const CONFIG: &str = "[network]\ninterface = \"eth0\"\npool = \"10.0.0.50-10.0.0.99\"\n";

    /// A site with a configuration that names a key, and one machine.
    async fn site(root: &Path) -> Paths {
        let paths = Paths::under(root);
        let key = root.join("etc/bootlace/key.pem");
        fs::create_dir_all(key.parent().unwrap()).unwrap();
        fs::write(&key, "a key").unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        let tls = format!("[storage]\nnbd_tls = {{ certificate = {key:?}, key = {key:?} }}\n");
        fs::write(paths.config(), format!("{CONFIG}{tls}")).unwrap();
        add_machine(&paths, "lab-07").await;
        paths
    }

    async fn add_machine(paths: &Paths, name: &str) {
        let service = open(paths);
        let n = name.bytes().last().unwrap();
        let mac = Some(wire::Mac([2, 0, 0, 0, 0, n]));
        let change = MachineChange { mac, ..MachineChange::default() };
        service
            .admin(&service::Actor::command(0))
            .unwrap()
            .set_machine(name.parse().unwrap(), change)
            .await
            .unwrap();
    }

    fn open(paths: &Paths) -> Service {
        Service::open(Options { init: None, ..Options::under(&paths.root) }).unwrap()
    }

    fn saved(paths: &Paths) -> Vec<u8> {
        // As a command, which has no runtime of its own yet.
        let paths = paths.clone();
        let save = std::thread::spawn(move || create(&paths, Vec::new(), |_, _| {}).unwrap().out);
        save.join().unwrap()
    }

    #[tokio::test]
    async fn what_is_saved_comes_back_on_a_fresh_machine() {
        let (folder, fresh) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let paths = site(folder.path()).await;
        // Its last changes are in the log, as somebody has it open.
        let server = open(&paths);
        let backup = saved(&paths);
        drop(server);
        let (manifest, n_machines) = verify(&backup[..]).unwrap();
        assert_eq!((manifest.files.len(), n_machines), (3, 1));
        assert!(
            content(&manifest, 1).contains("1 file that it names, the database with 1 machine")
        );
        // Nothing of it is left where copies are made.
        for folder in paths.for_copies() {
            assert_eq!(fs::read_dir(folder).map_or(0, Iterator::count), 0);
        }

        let key = folder.path().join("etc/bootlace/key.pem");
        fs::remove_file(&key).unwrap();
        let target = Paths::under(fresh.path());
        let restored = restore(&target, &backup[..], false).unwrap();
        assert_eq!(restored.placed.len(), 3);
        assert_eq!(fs::read_to_string(&key).unwrap(), "a key");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&key), mode(&target.database())), (0o640, 0o600));
        assert_eq!(fs::read(target.config()).unwrap(), fs::read(paths.config()).unwrap());
        assert_eq!(open(&target).site().machines.len(), 1);
    }

    #[tokio::test]
    async fn the_authority_that_browsers_trust_comes_back() {
        let (folder, fresh) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let paths = site(folder.path()).await;
        let authority = |paths: &Paths| {
            let authority = Authority::open_or_make(&paths.state().join("web")).unwrap();
            authority.renew(&["boot.example".to_owned()]).unwrap();
            authority
        };
        let address = |paths: &Paths| {
            let authority = authority(paths);
            authority.renew(&["10.0.0.1".to_owned()]).unwrap();
            let addresses = ["10.0.0.1".parse().unwrap()];
            authority.files().check_names(&authority.certificate(), &addresses)
        };
        let before = saved(&paths);
        assert_eq!(verify(&before[..]).unwrap().0.format, 1, "older versions read it");
        let fingerprint = authority(&paths).fingerprint().to_owned();
        let backup = saved(&paths);
        let (manifest, _) = verify(&backup[..]).unwrap();
        assert_eq!((manifest.format, manifest.files.len()), (2, 5));
        assert!(content(&manifest, 1).contains("the authority of the web page"));

        let target = Paths::under(fresh.path());
        restore(&target, &backup[..], false).unwrap();
        for name in ["authority.pem", "authority-key.pem"] {
            let path = target.state().join("web").join(name);
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
        }
        let folder = fs::metadata(target.state().join("web")).unwrap();
        assert_eq!(folder.permissions().mode() & 0o777, 0o700);
        assert_eq!(authority(&target).fingerprint(), fingerprint);
        address(&target).unwrap();

        // On a server that has made another one already, whose page is no longer shown.
        let other = tempfile::tempdir().unwrap();
        let other = Paths::under(other.path());
        assert_ne!(authority(&other).fingerprint(), fingerprint);
        let refused = restore(&other, &backup[..], false).err().unwrap().to_string();
        assert!(refused.contains("authority-key.pem"), "{refused}");
        restore(&other, &backup[..], true).unwrap();
        assert_eq!(authority(&other).fingerprint(), fingerprint);
        let page = other.state().join("web/page.pem");
        let trusted = storage::read_authorities(&other.state().join("web/authority.pem"));
        assert_eq!(trusted.unwrap(), fs::read(paths.state().join("web/authority.pem")).unwrap());
        assert!(page.exists());
        address(&other).unwrap();
    }

    #[tokio::test]
    async fn a_pipe_in_place_of_the_authority_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let paths = site(folder.path()).await;
        Authority::open_or_make(&paths.state().join("web")).unwrap();
        let key = paths.state().join("web/authority-key.pem");
        fs::remove_file(&key).unwrap();
        nix::unistd::mkfifo(&key, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let save = std::thread::spawn(move || create(&paths, Vec::new(), |_, _| {}).unwrap());
        let saved = save.join().unwrap();
        assert!(saved.left_out[0].contains("authority-key.pem"), "{:?}", saved.left_out);
        assert_eq!(saved.manifest.format, 1);
    }

    #[tokio::test]
    async fn what_is_there_is_put_aside_only_if_that_is_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let paths = site(folder.path()).await;
        let backup = saved(&paths);
        add_machine(&paths, "lab-08").await;
        let refused = restore(&paths, &backup[..], false).err().unwrap().to_string();
        assert!(refused.contains("state.db is there already; --replace"), "{refused}");
        assert_eq!(service::expected(&paths.database()).unwrap().n_machines, 2, "it was touched");
        let restored = restore(&paths, &backup[..], true).unwrap();
        // Configuration and key are the same.
        assert_eq!((restored.placed.len(), restored.aside.len()), (1, 1));
        let aside = restored.aside[0].to_str().unwrap();
        let (_, when) = aside.split_once("state.db.before-restore-").unwrap();
        let pattern: String =
            when.chars().map(|it| if it.is_ascii_digit() { '0' } else { it }).collect();
        assert_eq!(pattern, "0000-00-00T00-00-00Z", "{aside}");
        assert_eq!(open(&paths).site().machines.len(), 1);
        assert_eq!(service::expected(&restored.aside[0]).unwrap().n_machines, 2);
    }

    #[tokio::test]
    async fn a_damaged_backup_touches_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let paths = site(folder.path()).await;
        let backup = saved(&paths);
        let names = || {
            let mut names: Vec<_> = fs::read_dir(paths.state())
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            names.sort();
            names
        };
        let before = names();
        for length in [0, 10, backup.len() / 2, backup.len() - 1] {
            let cut = &backup[..length];
            assert!(restore(&paths, cut, true).is_err() && verify(cut).is_err(), "{length}");
            assert_eq!(names(), before);
        }
    }

    #[tokio::test]
    async fn a_running_server_saves_even_what_was_deleted_and_is_not_restored_over() {
        let folder = tempfile::tempdir().unwrap();
        let paths = site(folder.path()).await;
        let service = open(&paths);
        let listener = boot_socket::bind(&paths.boot_socket(), None).unwrap();
        let router = boot_socket::router(service.clone(), paths.for_copies());
        let stop = tokio_util::sync::CancellationToken::new();
        let server = tokio::spawn(boot_socket::serve(listener, router, stop));
        fs::remove_file(paths.database()).unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let is_told = async || {
            let findings = service.findings().await;
            findings.iter().any(|finding| finding.kind == model::FindingKind::StateGone)
        };
        while !is_told().await {
            assert!(std::time::Instant::now() < deadline, "nobody has noticed it");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        let backup = {
            let paths = paths.clone();
            let save = move || create(&paths, Vec::new(), |_, _| {}).unwrap().out;
            tokio::task::spawn_blocking(move || std::thread::spawn(save).join().unwrap()).await
        };
        let backup = backup.unwrap();
        let refused = restore(&paths, &backup[..], true).err().unwrap().to_string();
        assert!(refused.contains("boot server is running"), "{refused}");
        server.abort();
        let _ = server.await;
        drop(service);
        fs::remove_file(paths.boot_socket()).unwrap();
        restore(&paths, &backup[..], false).unwrap();
        assert_eq!(open(&paths).site().machines.len(), 1);
    }

    #[test]
    fn a_running_server_saves_where_there_is_room() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::under(folder.path());
        let server = crate::site::tests::Server::start(&paths);
        // The disk with the state takes no copy.
        fs::create_dir_all(paths.cache().parent().unwrap()).unwrap();
        fs::write(paths.cache(), "").unwrap();
        let backup = create(&paths, Vec::new(), |_, _| {}).unwrap().out;
        assert_eq!(verify(&backup[..]).unwrap().1, 0);
        let names = fs::read_dir(paths.run()).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(names.collect::<Vec<_>>(), ["boot.sock"], "the copy is gone");
        drop(server);
    }

    #[tokio::test]
    async fn a_site_with_a_broken_configuration_is_saved_and_restored() {
        let folder = tempfile::tempdir().unwrap();
        let paths = site(folder.path()).await;
        let save = |paths: &Paths| {
            let paths = paths.clone();
            std::thread::spawn(move || create(&paths, Vec::new(), |_, _| {}).unwrap())
                .join()
                .unwrap()
        };
        fs::remove_file(folder.path().join("etc/bootlace/key.pem")).unwrap();
        let saved = save(&paths);
        assert!(saved.left_out[0].contains("key.pem"), "{:?}", saved.left_out);
        fs::write(paths.config(), "[network").unwrap();
        let saved = save(&paths);
        assert!(saved.left_out[0].contains("can't be used"), "{:?}", saved.left_out);
        assert_eq!(saved.manifest.files.len(), 2);
        let fresh = tempfile::tempdir().unwrap();
        let target = Paths::under(fresh.path());
        restore(&target, &saved.out[..], false).unwrap();
        assert_eq!(fs::read_to_string(target.config()).unwrap(), "[network");
        assert_eq!(open(&target).site().machines.len(), 1);
    }

    #[tokio::test]
    async fn nothing_is_saved_where_nothing_is() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::under(folder.path());
        let made = std::thread::spawn(move || create(&paths, Vec::new(), |_, _| {}).err().unwrap());
        let error = made.join().unwrap().to_string();
        assert!(error.contains("no database"), "{error}");
    }
}
