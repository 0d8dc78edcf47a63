//! DHCP clients of other people that keep running, as the systems that have them do.

use crate::command::{run, text_of};
use crate::daemon::Daemon;
use crate::image::{CACHE, Recipe};
use crate::lan::{Client, Lan};
use crate::require::Need;
use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::Permissions;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// How long a cable is out: longer than a bounce of the link, which some overlook.
const CABLE_OUT: Duration = Duration::from_secs(2);

/// What udhcpc and dhclient call when they have an address.
const SCRIPT: &str = "#!/bin/sh
case ${reason:-$1} in
bound|renew|BOUND|RENEW|REBIND|REBOOT)
    ip address replace ${new_ip_address:-$ip}/24 dev $interface ;;
esac
";

/// Runs a program of an image's system: `$1` is the image, `$2` a folder, `$3` what is run there. All that it mounts is in the
/// namespace that `ip netns exec` makes, and ends with it. With /sys read-only nobody waits for udev.
const IN_IMAGE: &str = r#"set -eu
mkdir "$2/image" "$2/changes" "$2/work" "$2/root"
mount -o loop,ro,noload "$1" "$2/image"
mount -t overlay overlay -o "lowerdir=$2/image,upperdir=$2/changes,workdir=$2/work" "$2/root"
cd "$2/root"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs tmpfs run
mount --bind /dev dev
echo 0123456789abcdef0123456789abcdef > etc/machine-id
exec chroot . sh -c "$3"
"#;

const NETWORKD: &str = "mkdir -p /run/systemd/netif /run/systemd/network
chown systemd-network:systemd-network /run/systemd/netif
exec /lib/systemd/systemd-networkd";

const NETWORK_MANAGER: &str = "mkdir -p /run/dbus /run/NetworkManager
dbus-daemon --system --fork --nopidfile
exec /usr/sbin/NetworkManager --no-daemon";

/// Whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DhcpClient {
    /// busybox's.
    Udhcpc,
    /// ISC's.
    Dhclient,
    /// dhcpcd.
    Dhcpcd,
    /// systemd-networkd 257, out of Debian 13.
    Networkd,
    /// NetworkManager 1.42 with its own client, out of Debian 12.
    NetworkManager,
}

impl DhcpClient {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Udhcpc, Self::Dhclient, Self::Dhcpcd, Self::Networkd, Self::NetworkManager];

    /// What it needs.
    #[must_use]
    pub const fn need(self) -> Need {
        match self {
            Self::Udhcpc => Need::Program("udhcpc"),
            Self::Dhclient => Need::Program("dhclient"),
            Self::Dhcpcd => Need::Program("dhcpcd"),
            Self::Networkd | Self::NetworkManager => Need::Program("mmdebstrap"),
        }
    }
}

/// A host with a DHCP client that runs, until it is dropped.
pub struct DhcpHost {
    daemon: Daemon,
    kind: DhcpClient,
    mac: String,
    place: Client,
    port: String,
    /// The image that the client is out of.
    image: Option<PathBuf>,
    folder: TempDir,
}

impl DhcpHost {
    /// Plugs one in, and starts its client.
    ///
    /// # Errors
    /// It does not start, or there is no image that has the client.
    pub fn plug_in(kind: DhcpClient, lan: &Lan, mac: &str, say: impl Fn(&str)) -> Result<Self> {
        let image = match kind {
            DhcpClient::Networkd => Some(Recipe::DEBIAN_13.image(say)?),
            DhcpClient::NetworkManager => Some(Recipe::NETWORK_MANAGER.image(say)?),
            _ => None,
        };
        let folder = tempfile::Builder::new().prefix("client-").tempdir_in(CACHE)?;
        let script = folder.path().join("script");
        std::fs::write(&script, SCRIPT)?;
        std::fs::set_permissions(&script, Permissions::from_mode(0o755))?;
        let place = Client::unplugged("host")?;
        let port = lan.plug("br0", &place, "eth0", mac)?;
        let daemon = start(kind, &place, image.as_ref(), &folder)?;
        Ok(Self { daemon, kind, mac: mac.to_owned(), place, port, image, folder })
    }

    /// Whose client.
    #[must_use]
    pub const fn kind(&self) -> DhcpClient {
        self.kind
    }

    /// The MAC address.
    #[must_use]
    pub fn mac(&self) -> &str {
        &self.mac
    }

    /// Its addresses.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn addresses(&self) -> Result<Vec<Ipv4Addr>> {
        let mut ip = Command::new("ip");
        ip.args(["-n", self.place.netns().name(), "-4", "-o", "address", "show", "dev", "eth0"]);
        let text = text_of(&mut ip)?;
        let words = text.lines().filter_map(|line| line.split_once(" inet ")?.1.split_once('/'));
        words.map(|(address, _)| address.parse().context("ip shows no address")).collect()
    }

    /// Lets it ask for its address: it renews it, connects again, is killed and started, or its
    /// cable is out for a moment.
    ///
    /// # Errors
    /// It has ended.
    pub fn ask_again(&mut self, lan: &Lan) -> Result<()> {
        match self.kind {
            DhcpClient::Udhcpc => {
                let pid = Pid::from_raw(i32::try_from(self.daemon.id())?);
                kill(pid, Signal::SIGUSR1).context("udhcpc has ended")
            }
            DhcpClient::Dhclient => self.start_again(),
            // It waits some seconds before it believes that a cable is out.
            DhcpClient::NetworkManager => {
                let mut nmcli = Command::new("nsenter");
                nmcli.args(["--target", &self.daemon.id().to_string()]);
                nmcli.args(["--mount", "--root", "--net", "nmcli", "--wait", "0"]);
                run(nmcli.args(["device", "connect", "eth0"]))
            }
            DhcpClient::Dhcpcd | DhcpClient::Networkd => {
                lan.netns().ip(&format!("link set {} down", self.port))?;
                std::thread::sleep(CABLE_OUT);
                lan.netns().ip(&format!("link set {} up", self.port))
            }
        }
    }

    /// Plugs it into the LAN's bridge, which is another one now.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn plug_in_again(&self, lan: &Lan) -> Result<()> {
        lan.netns().ip(&format!("link set {} master br0", self.port))
    }

    /// What its client said so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// As after a crash: the system still has the address.
    fn start_again(&mut self) -> Result<()> {
        kill(Pid::from_raw(i32::try_from(self.daemon.id())?), Signal::SIGKILL)?;
        self.daemon = start(self.kind, &self.place, self.image.as_ref(), &self.folder)?;
        Ok(())
    }
}

fn start(
    kind: DhcpClient,
    place: &Client,
    image: Option<&PathBuf>,
    folder: &TempDir,
) -> Result<Daemon> {
    let path = |name: &str| folder.path().join(name);
    let in_image = |what: &str| -> Result<Command> {
        let mut command = place.command("sh");
        command.args(["-c", IN_IMAGE, "sh"]).arg(image.context("it is out of an image")?);
        command.arg(folder.path()).arg(what);
        Ok(command)
    };
    let mut command = match kind {
        DhcpClient::Udhcpc => {
            let mut command = place.command("udhcpc");
            command.args(["-f", "-i", "eth0", "-t", "5", "-T", "2", "-A", "2", "-s"]);
            command.arg(path("script"));
            command
        }
        DhcpClient::Dhclient => {
            let mut command = place.command("dhclient");
            command.args(["-4", "-d", "-v", "-cf", "/dev/null", "-sf"]).arg(path("script"));
            command.arg("-lf").arg(path("leases")).arg("-pf").arg(path("pid")).arg("eth0");
            command
        }
        DhcpClient::Dhcpcd => {
            let mut command = place.command("sh");
            // Its leases and sockets are the machine's, whatever its namespace.
            let script = "mount -t tmpfs tmpfs /var/lib/dhcpcd && mount -t tmpfs tmpfs /run && \
                          exec dhcpcd -4 -B -d -f /dev/null -c /bin/true eth0";
            command.args(["-c", script]);
            command
        }
        DhcpClient::Networkd => in_image(NETWORKD)?,
        DhcpClient::NetworkManager => in_image(NETWORK_MANAGER)?,
    };
    Daemon::start_detached("a DHCP client", &mut command, &path("log"))
}
