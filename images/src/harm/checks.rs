//! All checks: what each looks for, and what that does to a diskless machine.

use super::found::{Checked, Found, Severity};
use super::{System, desk, firewall, fstab, identity, network, upgrades};

/// One thing that hurts.
pub struct Check {
    /// Its name.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What a diskless machine suffers from it.
    pub effect: &'static str,
    /// What Bootlace does about it by itself; `None`: nothing.
    pub dealt_with: Option<&'static str>,
    /// What helps where nothing is laid over.
    pub advice: &'static str,
    pub(super) how: How,
}

/// How it is looked for.
pub(super) enum How {
    Looks(fn(&System<'_>) -> Checked),
    /// One of these units starts at boot; what is said of it. They are masked.
    Starts(&'static [&'static str], &'static str),
}

impl Check {
    pub(super) fn run(&self, system: &System<'_>) -> Checked {
        match self.how {
            How::Looks(look) => look(system),
            How::Starts(units, what) => {
                let started: Vec<&'static str> =
                    units.iter().copied().filter(|unit| system.units.start(unit)).collect();
                if started.is_empty() {
                    return Ok(Vec::new());
                }
                Ok(vec![
                    system.masks(Found::new(format!("{} {what}", started.join(", "))), &started),
                ])
            }
        }
    }
}

const fn check(
    id: &'static str,
    severity: Severity,
    effect: &'static str,
    advice: &'static str,
    look: fn(&System<'_>) -> Checked,
) -> Check {
    Check { id, severity, effect, dealt_with: None, advice, how: How::Looks(look) }
}

const fn starts(
    id: &'static str,
    severity: Severity,
    units: &'static [&'static str],
    what: &'static str,
    effect: &'static str,
) -> Check {
    let advice = "switch it off in the image: systemctl disable, or systemctl mask";
    Check { id, severity, effect, dealt_with: None, advice, how: How::Starts(units, what) }
}

const fn dealt_with(
    id: &'static str,
    effect: &'static str,
    by: &'static str,
    look: fn(&System<'_>) -> Checked,
) -> Check {
    Check {
        id,
        severity: Annoys,
        effect,
        dealt_with: Some(by),
        advice: "nothing needs to be done",
        how: How::Looks(look),
    }
}

const EACH_BOOT: &str = "a machine that forgets what it has written does this anew at each boot, and all machines at once: over the network, for nothing";

use Severity::{Annoys, CutsOff, StopsBoot};

/// All checks, in the order in which they are made.
pub const CHECKS: &[Check] = &[
    check(
        "fstab-mount",
        StopsBoot,
        "systemd waits 90 seconds for it, and then stops in emergency mode",
        "remove the line from /etc/fstab, or give it the option nofail",
        fstab::missing_mounts,
    ),
    check(
        "selinux-relabel",
        StopsBoot,
        "a machine that forgets what it has written labels and restarts for ever",
        "start the image once where it keeps what it writes, such as in a virtual machine, and import it then",
        identity::relabel,
    ),
    check(
        "wait-online",
        StopsBoot,
        "the boot stands still if a card that it waits for has no cable",
        "give the service a bound: --timeout=30",
        network::endless_wait,
    ),
    check(
        "swap-on-disk",
        CutsOff,
        "a machine that is short of memory writes it over the network, which takes memory itself: it becomes slow, and may hang",
        "remove the line from /etc/fstab; zram-tools gives compressed swap in memory",
        fstab::network_swap,
    ),
    check(
        "network-bridge",
        CutsOff,
        "the card that becomes a part of it loses its address, and the machine its disk",
        "remove the bridge or bond from the configuration, or leave the boot card out of it",
        network::ifupdown_bridges,
    ),
    Check {
        id: "network-service",
        severity: CutsOff,
        effect: "it sets up all cards anew at its start and takes them down at its end, and can't be told to leave the boot card alone: \
                 the machine may lose its disk",
        dealt_with: None,
        advice: "use systemd-networkd, NetworkManager or ifupdown in the image",
        how: How::Starts(network::SERVICES, "sets up the network"),
    },
    check(
        "vpn-all-traffic",
        CutsOff,
        "a storage server that is behind a router is no longer reached when the tunnel is up",
        "leave the network of the storage server out of AllowedIPs",
        network::tunnels,
    ),
    check(
        "firewall-nftables",
        CutsOff,
        "what the storage server sends may be dropped: the machine stands still",
        "let in and out what has begun (ct state established,related accept), and let out what goes to boot server and storage server",
        firewall::nftables,
    ),
    check(
        "firewall-iptables",
        CutsOff,
        "what the storage server sends, or is sent, may be dropped: the machine stands still",
        "let in and out what has begun (-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT)",
        firewall::iptables,
    ),
    check(
        "firewall-ufw",
        CutsOff,
        "after an outage the machine can't connect to its storage server again",
        "ufw allow out to ADDRESS, with the addresses of boot server and storage server",
        firewall::ufw,
    ),
    check(
        "sleep",
        CutsOff,
        "a PC that sleeps does not answer: it counts as off, and whether card and disk come back is up to its firmware; hibernation never \
         comes back, as a boot over the network does not look for it",
        "switch it off: AllowSuspend=no and AllowHibernation=no in /etc/systemd/sleep.conf",
        desk::sleep,
    ),
    check(
        "fstab-swap",
        Annoys,
        "systemd waits 90 seconds for it at each boot",
        "remove the line from /etc/fstab",
        fstab::missing_swap,
    ),
    check(
        "crypttab",
        Annoys,
        "the boot waits for a device that does not come, or for a passphrase that nobody types",
        "remove the line from /etc/crypttab",
        fstab::encrypted,
    ),
    check(
        "cloud-init",
        Annoys,
        "it looks for a cloud at each boot, which may take two minutes, and on a machine that forgets it makes accounts, keys and \
         network anew each time",
        "touch /etc/cloud/cloud-init.disabled",
        identity::cloud_init,
    ),
    check(
        "unattended-upgrades",
        Annoys,
        "a machine that forgets fetches and installs the same upgrades at each boot; one that keeps its disk may get modules for another \
         kernel than it boots",
        "make a new version of the image with the upgrades, and switch them off: apt remove unattended-upgrades",
        upgrades::unattended,
    ),
    check(
        "apt-lists",
        Annoys,
        EACH_BOOT,
        "APT::Periodic::Enable \"0\"; in /etc/apt/apt.conf.d",
        upgrades::package_lists,
    ),
    starts(
        "dnf-automatic",
        Annoys,
        &[
            "dnf-automatic.timer",
            "dnf-automatic-install.timer",
            "dnf-automatic-download.timer",
            "dnf5-automatic.timer",
        ],
        "installs or fetches upgrades by itself",
        EACH_BOOT,
    ),
    starts(
        "dnf-makecache",
        Annoys,
        &["dnf-makecache.timer", "dnf5-makecache.timer"],
        "fetches the lists of all packages",
        EACH_BOOT,
    ),
    check(
        "packagekit",
        Annoys,
        EACH_BOOT,
        "remove gnome-software, plasma-discover or packagekit",
        upgrades::desktop,
    ),
    starts(
        "firmware-updates",
        Annoys,
        &["fwupd-refresh.timer"],
        "fetches lists of firmware",
        EACH_BOOT,
    ),
    starts(
        "virus-lists",
        Annoys,
        &["clamav-freshclam.service"],
        "fetches lists of viruses, 200 MB of them",
        EACH_BOOT,
    ),
    Check {
        id: "snap-refresh",
        severity: Annoys,
        effect: EACH_BOOT,
        dealt_with: None,
        advice: "snap refresh --hold in the image",
        how: How::Looks(snaps),
    },
    starts(
        "manual-index",
        Annoys,
        &["man-db.timer"],
        "makes the index of manual pages when it was not made today",
        EACH_BOOT,
    ),
    starts(
        "file-index",
        Annoys,
        &["plocate-updatedb.timer", "mlocate-updatedb.timer", "updatedb.timer", "locate.timer"],
        "reads all folders of the disk for its index",
        EACH_BOOT,
    ),
    starts(
        "file-digests",
        Annoys,
        &["dailyaidecheck.timer", "aidecheck.timer"],
        "reads all files of the disk",
        EACH_BOOT,
    ),
    starts(
        "anacron",
        Annoys,
        &["anacron.service", "anacron.timer"],
        "does the work of days at which the machine was off",
        EACH_BOOT,
    ),
    starts(
        "trim",
        Annoys,
        &["fstrim.timer"],
        "tells the disk which blocks are free when it was not told this week",
        "a machine that forgets does so at each boot, and the storage server notes it for all at once",
    ),
    starts(
        "disk-scrub",
        Annoys,
        &[
            "e2scrub_all.timer",
            "mdcheck_start.timer",
            "raid-check.timer",
            "mdmonitor-oneshot.timer",
        ],
        "looks after disks of a server",
        "it wakes up for disks that a diskless machine does not have",
    ),
    starts(
        "disk-health",
        Annoys,
        &["smartd.service", "smartmontools.service"],
        "asks disks for their health",
        "a disk over the network has none to tell: the service fails, and the system counts as degraded",
    ),
    check(
        "journal-on-disk",
        Annoys,
        "each machine writes its logs over the network; those of a machine that forgets are lost all the same, and take its room",
        "SystemMaxUse=64M in /etc/systemd/journald.conf, or Storage=volatile",
        desk::journal,
    ),
    check(
        "graphics-card",
        Annoys,
        "on a PC with another card the screen stays dark",
        "remove the file: X finds the card by itself",
        desk::graphics,
    ),
    check(
        "card-names",
        Annoys,
        "cards of all other PCs get the next names, such as eth1, and what is set up for eth0 finds nothing",
        "remove the file",
        network::card_names,
    ),
    check(
        "no-login",
        Annoys,
        "nobody can log in on such a machine",
        "give an account a password or an SSH key before the import",
        identity::nobody,
    ),
    check(
        "first-assistant",
        Annoys,
        "a machine that forgets asks for language and account at each boot",
        "make an account before the import",
        identity::assistant,
    ),
    check(
        "dbus-machine-id",
        Annoys,
        "programs of the desktop take all machines for one",
        "the file is removed: D-Bus takes the machine's own id then",
        identity::dbus_machine_id,
    ),
    check(
        "hosts-name",
        Annoys,
        "programs that look up the machine's own name, such as sudo, ask name servers in vain and wait",
        "install libnss-myhostname, or nss-myhostname",
        identity::hosts,
    ),
    dealt_with(
        "host-name",
        "all machines would have the same name",
        "each machine gets its own name",
        identity::host_name,
    ),
    dealt_with(
        "machine-id",
        "logs, DHCP servers and network services would take all machines for one",
        "each machine gets its own, the same in each boot",
        identity::machine_id,
    ),
    dealt_with(
        "ssh-host-keys",
        "who has the image could pretend to be any machine",
        "each machine gets its own key",
        identity::ssh_keys,
    ),
    dealt_with(
        "ifupdown",
        "it would take the boot card down when its service stops, and the machine would lose its disk",
        "ifupdown is told to leave the boot card alone",
        network::ifupdown_cards,
    ),
    dealt_with(
        "network-profiles",
        "the boot card would be set up anew, and the machine would lose its disk",
        "systemd-networkd and NetworkManager are told to leave the boot card as it is",
        network::other_services,
    ),
];

fn snaps(system: &System<'_>) -> Checked {
    let has_snaps =
        system.tree.list("/var/lib/snapd/snaps")?.iter().any(|it| it.name.ends_with(".snap"));
    if !has_snaps || !system.units.start("snapd.service") {
        return Ok(Vec::new());
    }
    Ok(vec![
        Found::new("snapd fetches upgrades of snaps four times a day").at("/var/lib/snapd/snaps"),
    ])
}
