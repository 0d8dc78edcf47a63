//! DHCP servers of other people, that give the addresses of a LAN.

use crate::daemon::Daemon;
use crate::lan::Client;
use crate::require::Need;
use crate::site::Site;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The server's address, and its NIC's.
const ADDRESS: &str = "10.77.0.9";
const MAC: &str = "52:54:00:00:00:09";

/// How long a server may take to start.
const START: Duration = Duration::from_secs(20);

/// Whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DhcpServer {
    /// dnsmasq; it looks for 3 s whether somebody has an address before it offers it.
    Dnsmasq,
    /// ISC's dhcpd.
    Isc,
    /// Kea.
    Kea,
}

impl DhcpServer {
    /// Its program.
    #[must_use]
    pub const fn need(self) -> Need {
        Need::Program(match self {
            Self::Dnsmasq => "dnsmasq",
            Self::Isc => "dhcpd",
            Self::Kea => "kea-dhcp4",
        })
    }
}

/// A DHCP server that runs at 10.77.0.9, in a place of its own on the LAN of a site, and gives addresses from 10.77.0.140 to
/// 10.77.0.150. It ends when this is dropped.
pub struct OtherDhcp {
    daemon: Daemon,
    leases: PathBuf,
    _folder: tempfile::TempDir,
    _place: Client,
}

impl OtherDhcp {
    /// Starts it. `more` stands in its configuration: in that of dnsmasq and dhcpd anywhere, in Kea's below `Dhcp4`.
    ///
    /// # Errors
    /// It does not start; the error shows its log's end.
    pub fn start(server: DhcpServer, site: &Site, more: &str) -> Result<Self> {
        let place = site.lan().add_client("dhcp", MAC)?;
        place.netns().ip(&format!("address add {ADDRESS}/24 dev eth0"))?;
        let folder = tempfile::Builder::new().prefix("bootlace-dhcp-").tempdir()?;
        let [config, leases, log, pid] =
            ["config", "leases", "log", "pid"].map(|name| folder.path().join(name));
        let (mut command, ready) = match server {
            DhcpServer::Dnsmasq => {
                std::fs::write(&config, more)?;
                let mut command = place.command("dnsmasq");
                command.args(["-k", "-p", "0", "-i", "eth0", "-u", "root", "--log-facility=-"]);
                command.args(["--pid-file=", "-F", "10.77.0.140,10.77.0.150,2h", "-C"]);
                command.arg(&config).arg("-l").arg(&leases);
                (command, "DHCP, IP range")
            }
            DhcpServer::Isc => {
                let text = format!(
                    "default-lease-time 7200; authoritative; ping-check false;\n{more}\n\
                     subnet 10.77.0.0 netmask 255.255.255.0 {{ range 10.77.0.140 10.77.0.150; }}\n"
                );
                std::fs::write(&config, text)?;
                std::fs::write(&leases, "")?;
                let mut command = place.command("dhcpd");
                command.args(["-4", "-f", "-d", "-user", "root", "-group", "root", "-cf"]);
                command.arg(&config).arg("-lf").arg(&leases).arg("-pf").arg(&pid).arg("eth0");
                (command, "Server starting service")
            }
            DhcpServer::Kea => {
                std::fs::write(&config, kea_config(&leases, more))?;
                let mut command = place.command("kea-dhcp4");
                command.arg("-c").arg(&config);
                command.env("KEA_PIDFILE_DIR", folder.path());
                command.env("KEA_LOCKFILE_DIR", folder.path());
                (command, "DHCP4_STARTED")
            }
        };
        let mut daemon = Daemon::start_detached("the other DHCP server", &mut command, &log)?;
        daemon.wait_for_log(ready, START)?;
        Ok(Self { daemon, leases, _folder: folder, _place: place })
    }

    /// Ends it, and returns the file in which it kept its leases.
    ///
    /// # Errors
    /// There is none.
    pub fn end(self) -> Result<Vec<u8>> {
        let Self { daemon, leases, _folder, _place } = self;
        drop(daemon);
        std::fs::read(leases).context("it kept no leases")
    }

    /// What it said so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.daemon.log()
    }
}

fn kea_config(leases: &Path, more: &str) -> String {
    let comma = if more.is_empty() { "" } else { "," };
    format!(
        r#"{{ "Dhcp4": {{
  "interfaces-config": {{ "interfaces": [ "eth0" ] }},
  "lease-database": {{ "type": "memfile", "persist": true, "name": "{}" }},
  "valid-lifetime": 7200,
  "authoritative": true,
  "loggers": [ {{ "name": "kea-dhcp4", "severity": "INFO", "output_options": [ {{ "output": "stdout" }} ] }} ],
  "subnet4": [ {{ "subnet": "10.77.0.0/24", "pools": [ {{ "pool": "10.77.0.140 - 10.77.0.150" }} ] }} ]{comma}
{more}
}} }}
"#,
        leases.display()
    )
}
