//! Servers of roots that are not ours: NFS-Ganesha and tgt, both in user space.

use crate::command::{run, text_of};
use crate::daemon::Daemon;
use crate::lan::{Lan, SERVER};
use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// From the start of a server to its first answer.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// Folder that the NFS server exports, as clients see it.
pub const NFS_FOLDER: &str = "/srv/debian";

/// The target's name.
pub const ISCSI_TARGET: &str = "iqn.2026-11.example:debian";

/// The disk's number: tgt keeps 0 for itself.
pub const ISCSI_LUN: u16 = 1;

/// Its files of `/run` are its own; the portmapper is for NFS 3.
const NFS_START: &str = "mount -t tmpfs tmpfs /run && mkdir /run/ganesha && rpcbind && \
                         exec ganesha.nfsd -F -L STDERR -N EVENT -p /run/ganesha.pid -f \"$1\"";

/// An NFS server with one folder.
pub struct NfsServer {
    folder: PathBuf,
}

impl NfsServer {
    /// Unpacks a disk image of ext4 below `folder`.
    ///
    /// # Errors
    /// `debugfs` fails, or there is no room.
    pub fn prepare(image: &Path, folder: &Path) -> Result<Self> {
        let server = Self { folder: folder.to_owned() };
        std::fs::create_dir(server.tree())?;
        let request = format!("rdump / {}", server.tree().display());
        run(Command::new("debugfs").args(["-R", &request]).arg(image))?;
        let config = format!(
            "NFS_CORE_PARAM {{ Protocols = 3, 4; Enable_UDP = false; Enable_NLM = false; \
             Enable_RQUOTA = false; }}\n\
             NFSV4 {{ Graceless = true; Grace_Period = 10; Lease_Lifetime = 10; \
             RecoveryRoot = \"{0}/recovery\"; }}\n\
             EXPORT {{ Export_Id = 1; Path = {1}; Pseudo = {NFS_FOLDER}; Protocols = 3, 4; \
             Access_Type = RW; Squash = None; SecType = sys; FSAL {{ Name = VFS; }} }}\n",
            folder.display(),
            server.tree().display()
        );
        std::fs::write(server.config(), config)?;
        Ok(server)
    }

    /// The exported folder here. By NFS 3 it has this name, too.
    pub fn tree(&self) -> PathBuf {
        self.folder.join("tree")
    }

    fn config(&self) -> PathBuf {
        self.folder.join("ganesha.conf")
    }

    /// Starts the server at the address of the LAN's server.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(&self, lan: &Lan) -> Result<Daemon> {
        let mut command = lan.netns().command("unshare", Signal::SIGKILL);
        command.args(["--mount", "sh", "-c", NFS_START, "sh"]).arg(self.config());
        let log = self.folder.join("ganesha.log");
        let mut server = Daemon::start_detached("ganesha.nfsd", &mut command, &log)?;
        server.wait_for_log("NFS SERVER INITIALIZED", READY_TIMEOUT)?;
        Ok(server)
    }
}

/// An iSCSI target with one disk.
pub struct IscsiTarget {
    disk: PathBuf,
    folder: PathBuf,
}

impl IscsiTarget {
    /// Exports a copy of the disk image, which is made below `folder`.
    ///
    /// # Errors
    /// There is no room.
    pub fn prepare(image: &Path, folder: &Path) -> Result<Self> {
        let disk = folder.join("iscsi.raw");
        run(Command::new("cp").args(["--sparse=always", "--reflink=auto"]).arg(image).arg(&disk))?;
        Ok(Self { disk, folder: folder.to_owned() })
    }

    /// Starts the target at the address of the LAN's server.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(&self, lan: &Lan) -> Result<Daemon> {
        let mut command = lan.netns().command("tgtd", Signal::SIGKILL);
        command.args(["--foreground", "--iscsi", &format!("portal={SERVER}:3260")]);
        let log = self.folder.join("tgtd.log");
        let server = Daemon::start_detached("tgtd", self.with_socket(&mut command), &log)?;
        let started = Instant::now();
        while let Err(error) = self.admin(lan, "--mode sys --op show") {
            if started.elapsed() > READY_TIMEOUT {
                return Err(error).context(server.log());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        self.admin(lan, &format!("--mode target --op new --tid 1 --targetname {ISCSI_TARGET}"))?;
        let disk = format!("--lun {ISCSI_LUN} --backing-store {}", self.disk.display());
        self.admin(lan, &format!("--mode logicalunit --op new --tid 1 {disk}"))?;
        self.admin(lan, "--mode target --op bind --tid 1 --initiator-address ALL")?;
        Ok(server)
    }

    fn admin(&self, lan: &Lan, words: &str) -> Result<String> {
        let mut command = lan.netns().command("tgtadm", Signal::SIGKILL);
        command.args(["--lld", "iscsi"]).args(words.split(' '));
        text_of(self.with_socket(&mut command))
    }

    /// Several may run beside each other.
    fn with_socket<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("TGT_IPC_SOCKET", self.folder.join("tgtd.socket"))
    }
}
