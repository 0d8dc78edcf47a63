//! The machine's own SSH host key, in place of those of the image, which all its machines share.

use crate::handover::resolve::resolve;
use initcfg::{Replaces, SshHostKey};
use rustix::fs::{XattrFlags, lgetxattr, lsetxattr};
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

const PRIVATE: &str = "ssh_host_ed25519_key";
const PUBLIC: &str = "ssh_host_ed25519_key.pub";

/// Length of a line in OpenSSH's private keys.
const LINE_LENGTH: usize = 70;

/// Where SELinux keeps a file's label; without one, sshd may not read the file.
const LABEL: &str = "security.selinux";

/// Gives the key to the root, unless that has no SSH server or a key of its own.
pub(crate) fn give_host_key(root: &Path, key: &SshHostKey) -> io::Result<()> {
    let folder = resolve(root, Path::new("/etc/ssh")).filter(|folder| folder.is_dir());
    let Some(folder) = folder else { return Ok(()) };
    if let Replaces::Shared(shared) = &key.replaces
        && fs::symlink_metadata(folder.join(PRIVATE)).is_ok()
    {
        let public = resolve(root, &Path::new("/etc/ssh").join(PUBLIC));
        let public = public.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
        if shared.is_none() || public.split_whitespace().nth(1) != shared.as_deref() {
            return Ok(());
        }
    }
    write(&folder, PRIVATE, 0o600, &framed(&key.private))?;
    remove_others(&folder)?;
    // Last: as long as the image's is there, the next boot does all of this again.
    write(&folder, PUBLIC, 0o644, &format!("{}\n", key.public))
}

/// The private key as OpenSSH writes it.
fn framed(private: &str) -> String {
    let mut text = "-----BEGIN OPENSSH PRIVATE KEY-----\n".to_owned();
    for line in private.as_bytes().chunks(LINE_LENGTH) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text.push_str("-----END OPENSSH PRIVATE KEY-----\n");
    text
}

/// Writes a file in place of whatever was there, which may be a link to elsewhere.
fn write(folder: &Path, name: &str, mode: u32, content: &str) -> io::Result<()> {
    let path = folder.join(name);
    let mut label = vec![0; 256];
    let length = lgetxattr(&path, LABEL, &mut label[..]);
    let length = length.or_else(|_| lgetxattr(folder, LABEL, &mut label[..]));
    if let Err(error) = fs::remove_file(&path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut options = OpenOptions::new();
    let mut file = options.create_new(true).write(true).mode(mode).open(&path)?;
    // Whatever the mask of PID 1 is.
    file.set_permissions(Permissions::from_mode(mode))?;
    if let Ok(length) = length {
        let _ = lsetxattr(&path, LABEL, &label[..length], XattrFlags::empty());
    }
    file.write_all(content.as_bytes())
}

fn remove_others(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let is_key =
            name.starts_with("ssh_host_") && name.trim_end_matches(".pub").ends_with("_key");
        if is_key && name != PRIVATE && name != PUBLIC {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A root with an SSH server and the image's keys.
    fn root(name: &str) -> PathBuf {
        let root = std::env::temp_dir().join(format!("bootlace-ssh-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        let folder = root.join("etc/ssh");
        fs::create_dir_all(&folder).unwrap();
        for name in ["ssh_host_rsa_key", "ssh_host_rsa_key.pub", PRIVATE, "sshd_config"] {
            fs::write(folder.join(name), "image").unwrap();
        }
        fs::write(folder.join(PUBLIC), "ssh-ed25519 SHARED root@image\n").unwrap();
        root
    }

    fn names_and_key(root: &Path) -> (Vec<String>, String) {
        let folder = root.join("etc/ssh");
        let entries = fs::read_dir(&folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        let key = fs::read_to_string(folder.join(PUBLIC)).unwrap_or_default();
        fs::remove_dir_all(root).unwrap();
        (names, key)
    }

    fn give(root: &Path, replaces: Replaces) {
        let key = SshHostKey {
            private: "A".repeat(200),
            public: "ssh-ed25519 OWN pc-1".to_owned(),
            replaces,
        };
        give_host_key(root, &key).unwrap();
    }

    #[test]
    fn a_root_that_forgets_gets_the_machine_s_key_only() {
        let root = root("all");
        give(&root, Replaces::All);
        let private = root.join("etc/ssh").join(PRIVATE);
        assert_eq!(fs::metadata(&private).unwrap().permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&private).unwrap();
        assert_eq!(text.lines().map(str::len).collect::<Vec<_>>(), [35, 70, 70, 60, 33]);
        let (names, key) = names_and_key(&root);
        assert_eq!(names, [PRIVATE, PUBLIC, "sshd_config"]);
        assert_eq!(key, "ssh-ed25519 OWN pc-1\n");
    }

    #[test]
    fn a_disk_that_is_kept_loses_the_image_s_key_but_never_its_own() {
        let shared = root("shared");
        give(&shared, Replaces::Shared(Some("SHARED".to_owned())));
        assert_eq!(names_and_key(&shared).1, "ssh-ed25519 OWN pc-1\n");
        for known in [Some("ANOTHER".to_owned()), None] {
            let own = root("own");
            give(&own, Replaces::Shared(known));
            let (names, key) = names_and_key(&own);
            assert_eq!((names.len(), key.as_str()), (5, "ssh-ed25519 SHARED root@image\n"));
        }
        let without = root("without");
        fs::remove_file(without.join("etc/ssh").join(PRIVATE)).unwrap();
        give(&without, Replaces::Shared(None));
        assert_eq!(names_and_key(&without).1, "ssh-ed25519 OWN pc-1\n");
    }

    #[test]
    fn a_root_without_an_ssh_server_stays_as_it_is() {
        let root = root("none");
        fs::remove_dir_all(root.join("etc/ssh")).unwrap();
        give(&root, Replaces::All);
        assert!(!root.join("etc/ssh").exists());
        fs::remove_dir_all(root).unwrap();
    }
}
