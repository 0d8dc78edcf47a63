//! What only one boot of one machine may know: the file that the boot server puts into a cpio archive
//! behind the initrd (the *host segment*), and that `init` fetches by HTTP if the segment is lost.

use crate::{FURTHER_DISKS_MAX, FurtherDisk, NBD_SERVERS_MAX, Tag, Token, ZramPercent};
use alloc::borrow::ToOwned;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::{self, Write};
use core::net::SocketAddrV4;
use core::str::FromStr;

/// Where the file is in the initrd, without leading slash.
pub const HOST_FILE: &str = "lib/bootlace/host";

/// Where the archive with the file is on the boot server; the number of the boot follows.
pub const HOST_ARCHIVE_PATH: &str = "/boot/host/";

/// Where the bare file is on the boot server; the number of the boot follows.
pub const HOST_FILE_PATH: &str = "/host/";

/// Longest file in bytes: ten times of what is in it.
pub const HOST_MAX: usize = 8192;

/// How long a machine shows why it can't start, unless the boot server says otherwise.
pub const REBOOT_SECONDS: u32 = 60;

/// What the file begins with, in whatever version.
pub const HOST_FILE_MARK: &str = "bootlace-host/";

const FIRST_LINE: &str = "bootlace-host/1";
const LAST_LINE: &str = "end";

const BOOT: &str = "boot";
const TOKEN: &str = "token";
const REBOOT: &str = "reboot_after_failure_seconds";
const RESCUE: &str = "rescue";
const SSH_PRIVATE: &str = "ssh_host_private";
const SSH_PUBLIC: &str = "ssh_host_public";
const SSH_IMAGE: &str = "ssh_image_public";
const FILES: &str = "files";
const DISK: &str = "disk";
const DISK_SERVERS: &str = "disk_servers";
const ZRAM: &str = "zram";

/// Content of the host segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostConfig {
    /// Number of the boot that it is for.
    pub boot: u64,
    /// The secret of the boot.
    pub token: Token,
    /// How long the machine shows a failure before it restarts; 0: for ever.
    pub reboot_seconds: u32,
    /// The boot stops in a rescue shell; hash of the password that opens it
    /// ([`RescuePassword::hash`](crate::RescuePassword::hash)).
    pub rescue: Option<Tag>,
    /// The machine's own SSH host key.
    pub ssh: Option<SshHostKey>,
    /// The site has files that are laid over the machine's root, and init is to fetch them. An init of an older Bootlace does not.
    pub has_files: bool,
    /// Disks beside the root, at most [`FURTHER_DISKS_MAX`].
    pub disks: Vec<FurtherDisk>,
    /// Who has these over NBD, in order of preference, as far as the boot server knows.
    pub disk_servers: Vec<SocketAddrV4>,
    /// Compressed swap space in the machine's memory; init makes none where the root has a set-up of its own.
    pub zram: Option<ZramPercent>,
}

/// An ed25519 key in OpenSSH's formats.
#[derive(Clone, PartialEq, Eq)]
pub struct SshHostKey {
    /// The private key: Base64 without the lines around it, in one line.
    pub private: String,
    /// The public key as in `ssh_host_ed25519_key.pub`, without the line's end.
    pub public: String,
    /// When the key replaces what the root has.
    pub replaces: Replaces,
}

/// Which host keys of a root are replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replaces {
    /// All: the root forgets what it was given, and what is there are the image's, shared by all.
    All,
    /// The root keeps what is written: only the image's ed25519 key, which is this one (the Base64
    /// word), or a missing one. Without a word, only a missing one.
    Shared(Option<String>),
}

/// The bytes are not the content of a host segment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Longer than [`HOST_MAX`], not UTF-8, or of another format.
    #[error("not a bootlace-host/1 file")]
    NotOurs,
    /// The last line of the file is missing.
    #[error("it is cut off")]
    CutOff,
    /// A value is missing or can't be understood. The value itself may be secret.
    #[error("{0} is missing or wrong")]
    Field(&'static str),
}

impl fmt::Debug for SshHostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SshHostKey({}, {:?})", self.public, self.replaces)
    }
}

impl HostConfig {
    /// The file.
    pub fn to_file(&self) -> String {
        let Self { boot, token, reboot_seconds, rescue, ssh, has_files, .. } = self;
        let mut text = alloc::format!(
            "{FIRST_LINE}\n{BOOT}={boot}\n{TOKEN}={}\n{REBOOT}={reboot_seconds}\n",
            token.to_hex()
        );
        let mut put = |key: &str, value: &str| {
            // Writing to a String does not fail.
            let _ = writeln!(text, "{key}={value}");
        };
        if let Some(hash) = rescue {
            put(RESCUE, &alloc::format!("{hash}"));
        }
        if let Some(SshHostKey { private, public, replaces }) = ssh {
            put(SSH_PRIVATE, private);
            put(SSH_PUBLIC, public);
            match replaces {
                Replaces::All => put(SSH_IMAGE, "*"),
                Replaces::Shared(Some(public)) => put(SSH_IMAGE, public),
                Replaces::Shared(None) => {}
            }
        }
        if *has_files {
            put(FILES, "yes");
        }
        for disk in self.disks.iter().take(FURTHER_DISKS_MAX) {
            put(DISK, &alloc::format!("{disk}"));
        }
        if !self.disk_servers.is_empty() {
            let servers: Vec<String> = self
                .disk_servers
                .iter()
                .take(NBD_SERVERS_MAX)
                .map(SocketAddrV4::to_string)
                .collect();
            put(DISK_SERVERS, &servers.join(","));
        }
        if let Some(percent) = self.zram {
            put(ZRAM, &percent.to_string());
        }
        text.push_str(LAST_LINE);
        text.push('\n');
        text
    }

    /// Reads the file. Keys that are not known are ignored; of a repeated one, except of
    /// disks, the last counts.
    ///
    /// # Errors
    /// See [`HostError`].
    pub fn parse(file: &[u8]) -> Result<Self, HostError> {
        let text = file.get(..file.len().min(HOST_MAX + 1)).unwrap_or_default();
        let text = match core::str::from_utf8(text) {
            Ok(text) if text.len() <= HOST_MAX => text,
            _ => return Err(HostError::NotOurs),
        };
        let rest = text.strip_prefix(FIRST_LINE).and_then(|rest| rest.strip_prefix('\n'));
        let rest = rest.ok_or(HostError::NotOurs)?;
        let rest = rest.strip_suffix(LAST_LINE).or_else(|| rest.strip_suffix("end\n"));
        let rest = rest.filter(|rest| rest.ends_with('\n')).ok_or(HostError::CutOff)?;
        let value = |key: &'static str| {
            let mut pairs = rest.lines().filter_map(|line| line.split_once('='));
            pairs.rfind(|(name, _)| *name == key).map(|(_, value)| value)
        };
        let ssh = match (value(SSH_PRIVATE), value(SSH_PUBLIC)) {
            (Some(private), Some(public)) => Some(SshHostKey {
                private: checked(SSH_PRIVATE, private, is_base64)?,
                public: checked(SSH_PUBLIC, public, |text| !text.chars().any(char::is_control))?,
                replaces: match value(SSH_IMAGE) {
                    Some("*") => Replaces::All,
                    Some(key) => Replaces::Shared(Some(checked(SSH_IMAGE, key, is_base64)?)),
                    None => Replaces::Shared(None),
                },
            }),
            (None, None) => None,
            (None, Some(_)) => return Err(HostError::Field(SSH_PRIVATE)),
            (Some(_), None) => return Err(HostError::Field(SSH_PUBLIC)),
        };
        let disks = rest.lines().filter_map(|line| line.split_once('='));
        let disks = disks.filter(|(name, _)| *name == DISK).take(FURTHER_DISKS_MAX);
        let disks = disks.map(|(_, text)| field(DISK, Some(text))).collect::<Result<_, _>>()?;
        let disk_servers = value(DISK_SERVERS).into_iter().flat_map(|list| list.split(','));
        let disk_servers = disk_servers
            .take(NBD_SERVERS_MAX)
            .map(|text| field(DISK_SERVERS, Some(text)))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            boot: field(BOOT, value(BOOT))?,
            token: field(TOKEN, value(TOKEN))?,
            reboot_seconds: field(REBOOT, value(REBOOT))?,
            rescue: value(RESCUE).map(|hash| field(RESCUE, Some(hash))).transpose()?,
            ssh,
            has_files: value(FILES).is_some(),
            disks,
            disk_servers,
            zram: value(ZRAM).map(|text| field(ZRAM, Some(text))).transpose()?,
        })
    }
}

fn field<T: FromStr>(key: &'static str, value: Option<&str>) -> Result<T, HostError> {
    value.and_then(|text| text.parse().ok()).ok_or(HostError::Field(key))
}

fn checked(
    key: &'static str,
    value: &str,
    is_good: impl Fn(&str) -> bool,
) -> Result<String, HostError> {
    if value.is_empty() || !is_good(value) {
        return Err(HostError::Field(key));
    }
    Ok(value.to_owned())
}

fn is_base64(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn example() -> HostConfig {
        HostConfig {
            boot: 42,
            token: Token::new([7; 32]),
            reboot_seconds: 60,
            rescue: Some(Token::new([8; 32]).tag(b"password")),
            ssh: Some(SshHostKey {
                private: "b3BlbnNzaC1rZXktdjEA+/==".to_owned(),
                public: "ssh-ed25519 AAAAC3Nz lab-07".to_owned(),
                replaces: Replaces::All,
            }),
            has_files: true,
            disks: ["home kept carry /home /etc/cups", "swap forgotten swap"]
                .map(|text| text.parse().unwrap())
                .into(),
            disk_servers: ["10.77.0.1:10809", "10.77.0.2:10809"]
                .map(|text| text.parse().unwrap())
                .into(),
            zram: ZramPercent::new(50),
        }
    }

    #[test]
    fn what_the_server_writes_is_what_init_reads() {
        let with = |replaces| HostConfig {
            ssh: example().ssh.map(|key| SshHostKey { replaces, ..key }),
            ..example()
        };
        let shared = with(Replaces::Shared(Some("AAAAB3Nz".to_owned())));
        let missing = with(Replaces::Shared(None));
        for config in [
            example(),
            shared,
            missing,
            HostConfig {
                ssh: None,
                rescue: None,
                has_files: false,
                disks: Vec::new(),
                disk_servers: Vec::new(),
                zram: None,
                ..example()
            },
        ] {
            assert_eq!(HostConfig::parse(config.to_file().as_bytes()), Ok(config));
        }
        let newer = example().to_file().replace("boot=", "unknown=1\nboot=");
        assert_eq!(HostConfig::parse(newer.as_bytes()), Ok(example()));
    }

    #[test]
    fn what_is_wrong_is_named_without_showing_it() {
        let check = |right: &str, wrong: &str, expected: HostError| {
            let file = example().to_file().replacen(right, wrong, 1);
            assert_eq!(HostConfig::parse(file.as_bytes()), Err(expected), "{wrong}");
        };
        check("host/1", "host/2", HostError::NotOurs);
        check("boot=42", "boot=x", HostError::Field("boot"));
        check("token=07", "token=7", HostError::Field("token"));
        check("rescue=", "rescue=x", HostError::Field("rescue"));
        check("private=b", "private=b ", HostError::Field("ssh_host_private"));
        check("ssh_host_public=", "x=", HostError::Field("ssh_host_public"));
        check("zram=50", "zram=0", HostError::Field("zram"));
        check("disk=home", "disk=home x", HostError::Field("disk"));
        check("end\n", "", HostError::CutOff);
        assert_eq!(HostConfig::parse(&[b'a'; 20_000]), Err(HostError::NotOurs));
        assert_eq!(HostConfig::parse(&[0xff; 4]), Err(HostError::NotOurs));
    }

    #[test]
    fn every_prefix_is_an_error() {
        let file = example().to_file();
        for end in 0..file.len() - 1 {
            assert!(HostConfig::parse(&file.as_bytes()[..end]).is_err(), "{end}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, at in 0..300usize, wild: Vec<u8>) {
            let _ = HostConfig::parse(&bytes);
            let mut file = example().to_file().into_bytes();
            let at = at.min(file.len());
            let end = (at + wild.len()).min(file.len());
            file[at..end].copy_from_slice(&wild[..end - at]);
            let _ = HostConfig::parse(&file);
        }
    }
}
