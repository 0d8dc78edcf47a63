//! What the real system must know so that it leaves the boot NIC alone, and can say that it is up.
//!
//! Everything goes to `/run`, which the real system keeps and every reboot forgets; but for what is laid over the root
//! because somebody wants it so.

pub(crate) mod emergency;
mod find_init;
pub(crate) mod overlay;
mod resolve;
pub(crate) mod site_files;
pub(crate) mod ssh;

pub(crate) use find_init::find_init;
pub(crate) use resolve::resolve;

use crate::boot_server::reporter::{STATE_PATH, Target};
use crate::keeper::await_login;
use crate::net::nic::Nic;
use crate::net::storage_nic::StorageNic;
use crate::root::ROOT;
use initcfg::BootConfig;
use std::fmt::Write;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Our own copy for the time after the initrd is emptied.
const BINARY: &str = "/run/bootlace/bin/bootlace-init";

/// systemd moves into this folder at the very end and starts this program (INITRD_INTERFACE).
const SHUTDOWN: &str = "/run/initramfs/shutdown";

/// Writes all files. Returns what could not be done, for the log: each is a comfort, and no reason to
/// end a boot.
pub(crate) fn write_all(
    config: &BootConfig,
    (nic, storage): (&Nic, Option<&StorageNic>),
    command_line: &str,
    init: &str,
) -> Vec<String> {
    let mut troubles = Vec::new();
    let mut note = |what: &str, result: io::Result<()>| {
        if let Err(error) = result {
            troubles.push(format!("{what}: {error}"));
        }
    };
    for (path, content) in run_files(config, nic, storage) {
        note(&path, write_file(&path, &content));
    }
    for (path, target) in run_links(&interfaces(config, nic, storage)) {
        note(&path, make_link(&path, target));
    }
    note(BINARY, install_binary());
    note(SHUTDOWN, install_shutdown());
    note("host name", set_host_name(config, command_line));
    note("resolv.conf", set_resolver(Path::new(ROOT), config));
    if !is_systemd(Path::new(ROOT), init) {
        note("await-login", await_login::start());
    }
    troubles
}

/// Whether the real system's init reads what is written for systemd.
fn is_systemd(root: &Path, init: &str) -> bool {
    resolve(root, Path::new(init))
        .and_then(|file| Some(file.file_name()?.to_str()?.starts_with("systemd")))
        .unwrap_or(false)
}

/// The interface that has the address, and in a VLAN the card below it.
fn boot_interfaces<'a>(config: &BootConfig, nic: &'a Nic) -> Vec<&'a str> {
    let card = config.vlan.and_then(|_| nic.name.rsplit_once('.')).map(|(card, _)| card);
    [nic.name.as_str()].into_iter().chain(card).collect()
}

/// Those, and the one that leads to the storage network: all that the real system is to leave alone.
fn interfaces<'a>(
    config: &BootConfig,
    nic: &'a Nic,
    storage: Option<&'a StorageNic>,
) -> Vec<&'a str> {
    let storage = storage.map(|storage| storage.nic.name.as_str());
    boot_interfaces(config, nic).into_iter().chain(storage).collect()
}

/// Files below `/run`, with their content.
fn run_files(
    config: &BootConfig,
    nic: &Nic,
    storage: Option<&StorageNic>,
) -> Vec<(String, String)> {
    let BootConfig { mac, .. } = config;
    let name = &nic.name;
    let of_boot = boot_interfaces(config, nic);
    let names = of_boot.join(" ");
    let all_names = interfaces(config, nic, storage).join(" ");
    let in_run = |path: &str| format!("/run/{path}");
    let mut files = vec![
        (STATE_PATH.to_owned(), Target::from(config).to_line()),
        // udev can't rename an interface that is up; networkd then waits for it for ever.
        (
            in_run("systemd/network/05-bootlace.link"),
            format!(
                "# The root disk is behind this card: Bootlace has set it up.\n\
                 [Match]\nMACAddress={mac}\nOriginalName={names}\n\n\
                 [Link]\nNamePolicy=keep\nMACAddressPolicy=none\n{}",
                mtu(config)
            ),
        ),
        (in_run("systemd/network/05-bootlace.network"), networkd(config, name)),
        (in_run("NetworkManager/conf.d/05-bootlace.conf"), network_manager(config, storage)),
        // For timesyncd, whoever brings the network up, and for chrony.
        (in_run("systemd/timesyncd.conf.d/50-bootlace.conf"), timesyncd(config)),
        (in_run("chrony-dhcp/bootlace.sources"), chrony(config)),
        // For systems in which resolved, but not networkd runs.
        (in_run("systemd/resolved.conf.d/50-bootlace.conf"), resolved(config)),
        // ifupdown takes interfaces down when its service stops.
        (
            in_run("systemd/system/networking.service.d/50-bootlace.conf"),
            format!("[Service]\nEnvironment=\"EXCLUDE_INTERFACES={all_names}\"\n"),
        ),
        (in_run(&format!("net-{name}.conf")), klibc(config, name)),
        (in_run("bootlace/resolv.conf"), resolver(config)),
        (in_run("bootlace/hostname"), format!("{}\n", config.host_name)),
        (
            in_run("systemd/system/bootlace-up.service"),
            format!(
                "[Unit]\nDescription=Tell the boot server that this machine is up\n\
                 After=multi-user.target\n\n\
                 [Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart={BINARY} report up\n\
                 ExecStop={BINARY} report off\n"
            ),
        ),
    ];
    files.extend(emergency::drop_ins(BINARY));
    if let [_, card] = of_boot[..] {
        let text = format!(
            "# Below the VLAN that the root disk is in: Bootlace has set it up.\n\
             [Match]\nMACAddress={mac}\nName={card}\n\n\
             [Link]\nRequiredForOnline=no\n{}\n\
             [Network]\nKeepConfiguration=yes\nLinkLocalAddressing=no\n",
            mtu(config)
        );
        files.push((in_run("systemd/network/05-bootlace-card.network"), text));
    }
    files.extend(storage.into_iter().flat_map(storage_files));
    files
}

/// What keeps networkd and udev from the card that leads to the storage network.
fn storage_files(storage: &StorageNic) -> [(String, String); 2] {
    let StorageNic { nic: Nic { name, .. }, mac, mtu, .. } = storage;
    let mtu = mtu.map(|mtu| format!("MTUBytes={mtu}\n")).unwrap_or_default();
    let about = "# The root disk is behind this card: Bootlace has set it up.\n";
    let link = format!(
        "{about}[Match]\nMACAddress={mac}\nOriginalName={name}\n\n\
         [Link]\nNamePolicy=keep\nMACAddressPolicy=none\n{mtu}"
    );
    let network = format!(
        "{about}[Match]\nMACAddress={mac}\nName={name}\n\n[Link]\nRequiredForOnline=no\n{mtu}\n\
         [Network]\nKeepConfiguration=yes\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n"
    );
    let path = |kind: &str| format!("/run/systemd/network/05-bootlace-storage.{kind}");
    [(path("link"), link), (path("network"), network)]
}

/// Links below `/run`, with their targets.
fn run_links(interfaces: &[&str]) -> Vec<(String, &'static str)> {
    let up = "/run/systemd/system/multi-user.target.wants/bootlace-up.service".to_owned();
    // Masked: started by udev for interfaces with `allow-hotplug`.
    let masked = interfaces
        .iter()
        .map(|name| (format!("/run/systemd/system/ifup@{name}.service"), "/dev/null"));
    [(up, "../bootlace-up.service")].into_iter().chain(masked).collect()
}

/// NetworkManager shall not touch the card. It writes resolv.conf for all cards, so it must know the name
/// servers of this one.
fn network_manager(config: &BootConfig, storage: Option<&StorageNic>) -> String {
    let storage = storage.map(|storage| format!(";mac:{}", storage.mac)).unwrap_or_default();
    let mut text = format!("[keyfile]\nunmanaged-devices=mac:{}{storage}\n", config.mac);
    if config.dns.is_empty() {
        return text;
    }
    if let Some(domain) = &config.domain {
        // Writing to a String does not fail.
        let _ = write!(text, "\n[global-dns]\nsearches={domain}\n");
    }
    let servers: Vec<String> = config.dns.iter().map(ToString::to_string).collect();
    let _ = write!(text, "\n[global-dns-domain-*]\nservers={}\n", servers.join(","));
    text
}

fn resolved(config: &BootConfig) -> String {
    let mut text = "[Resolve]\n".to_owned();
    write_name_servers(&mut text, config);
    text
}

/// Name servers and domain as networkd and resolved want them.
fn write_name_servers(text: &mut String, config: &BootConfig) {
    for server in &config.dns {
        // Writing to a String does not fail.
        let _ = writeln!(text, "DNS={server}");
    }
    if let Some(domain) = &config.domain {
        let _ = writeln!(text, "Domains={domain}");
    }
}

/// Without a server what the image says counts.
fn timesyncd(config: &BootConfig) -> String {
    let mut text = "[Time]\n".to_owned();
    if !config.ntp.is_empty() {
        let servers: Vec<String> = config.ntp.iter().map(ToString::to_string).collect();
        // Writing to a String does not fail.
        let _ = writeln!(text, "NTP={}", servers.join(" "));
    }
    text
}

/// Debian's chrony reads this folder, in which scripts of DHCP clients write otherwise.
fn chrony(config: &BootConfig) -> String {
    config.ntp.iter().map(|server| format!("server {server} iburst\n")).collect()
}

/// networkd shall keep what it finds, at its start and at its end.
fn networkd(config: &BootConfig, name: &str) -> String {
    let mut text = format!(
        "# The root disk is behind this card: Bootlace has set it up.\n\
         [Match]\nMACAddress={}\nName={name}\n\n\
         [Link]\nRequiredForOnline=no\n{}\n\
         [Network]\nKeepConfiguration=yes\n",
        config.mac,
        mtu(config)
    );
    write_name_servers(&mut text, config);
    text
}

/// The size of packets that works, if it is not the usual one. NetworkManager and ifupdown, which don't touch
/// the card, need not know it.
fn mtu(config: &BootConfig) -> String {
    config.mtu.map(|mtu| format!("MTUBytes={mtu}\n")).unwrap_or_default()
}

/// What the tools of Debian's own initramfs expect.
fn klibc(config: &BootConfig, name: &str) -> String {
    // By now it has one.
    let (address, prefix) = config.address.unwrap_or((std::net::Ipv4Addr::UNSPECIFIED, 0));
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
    let netmask = std::net::Ipv4Addr::from(mask);
    let broadcast = std::net::Ipv4Addr::from(u32::from(address) | !mask);
    let router = config.router.map(|router| router.to_string()).unwrap_or_default();
    let dns =
        |at: usize| config.dns.get(at).map_or_else(|| "0.0.0.0".to_owned(), ToString::to_string);
    format!(
        "DEVICE='{name}'\nPROTO='none'\nIPV4ADDR='{address}'\nIPV4BROADCAST='{broadcast}'\n\
         IPV4NETMASK='{netmask}'\nIPV4GATEWAY='{router}'\nIPV4DNS0='{}'\nIPV4DNS1='{}'\n\
         HOSTNAME='{}'\nDNSDOMAIN='{}'\nROOTSERVER='{}'\n",
        dns(0),
        dns(1),
        config.host_name,
        config.domain.as_deref().unwrap_or_default(),
        config.server
    )
}

fn resolver(config: &BootConfig) -> String {
    let mut text = "# Written by Bootlace from the settings of the boot server.\n".to_owned();
    if let Some(domain) = &config.domain {
        // Writing to a String does not fail.
        let _ = writeln!(text, "search {domain}");
    }
    for server in &config.dns {
        let _ = writeln!(text, "nameserver {server}");
    }
    text
}

fn write_file(path: &str, content: &str) -> io::Result<()> {
    make_folder_of(path)?;
    fs::write(path, content)
}

fn make_link(path: &str, target: &str) -> io::Result<()> {
    make_folder_of(path)?;
    symlink(target, path)
}

fn make_folder_of(path: &str) -> io::Result<()> {
    Path::new(path).parent().map_or(Ok(()), fs::create_dir_all)
}

fn install_binary() -> io::Result<()> {
    make_folder_of(BINARY)?;
    fs::copy("/init", BINARY)?;
    fs::set_permissions(BINARY, fs::Permissions::from_mode(0o755))
}

fn install_shutdown() -> io::Result<()> {
    for folder in ["dev", "oldroot", "proc", "run", "sys"] {
        fs::create_dir_all(Path::new(SHUTDOWN).with_file_name(folder))?;
    }
    // A second name takes no second megabyte of memory.
    fs::hard_link(BINARY, SHUTDOWN)
}

/// The image's own name is the same on all machines: this machine's hides it.
fn set_host_name(config: &BootConfig, command_line: &str) -> io::Result<()> {
    rustix::system::sethostname(config.host_name.as_bytes())?;
    let is_set_elsewhere =
        command_line.split_ascii_whitespace().any(|word| word.starts_with("systemd.hostname="));
    let file = inside("/etc/hostname");
    if is_set_elsewhere || !file.is_file() {
        // With no file the real system keeps the name that it finds.
        return Ok(());
    }
    if fs::read_to_string(&file).is_ok_and(|name| name.trim() == config.host_name) {
        return Ok(());
    }
    rustix::mount::mount_bind("/run/bootlace/hostname", &file)?;
    Ok(())
}

fn inside(path: &str) -> PathBuf {
    resolve(Path::new(ROOT), Path::new(path))
        .unwrap_or_else(|| Path::new(ROOT).join(path.trim_start_matches('/')))
}

/// Gives the real system the name servers of the settings, if there are any. What the image has is of
/// the network where it was made, and mostly left there by a DHCP client that does not run now.
fn set_resolver(root: &Path, config: &BootConfig) -> io::Result<()> {
    if config.dns.is_empty() {
        return Ok(());
    }
    let entry = root.join("etc/resolv.conf");
    let Ok(status) = fs::symlink_metadata(&entry) else {
        return symlink("../run/bootlace/resolv.conf", &entry);
    };
    let Some(file) = resolve(root, Path::new("/etc/resolv.conf")) else { return Ok(()) };
    if status.is_symlink()
        && let Ok(below_run) = file.strip_prefix(root.join("run"))
    {
        // A link into /run, which is empty yet: some service will write it, if it is installed.
        let has_resolved = inside("/usr/lib/systemd/systemd-resolved").exists();
        if below_run.starts_with("systemd/resolve") && has_resolved {
            return Ok(());
        }
        let path = Path::new("/run").join(below_run);
        return write_file(&path.to_string_lossy(), &resolver(config));
    }
    if !file.exists() {
        return Ok(());
    }
    rustix::mount::mount_bind("/run/bootlace/resolv.conf", &file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> BootConfig {
        let line = "bootlace.server=10.77.0.1 bootlace.boot=4 bootlace.mac=52:54:00:00:00:01 \
                    bootlace.address=10.77.0.100/24 bootlace.router=10.77.0.254 \
                    bootlace.dns=10.77.0.1 bootlace.ntp=10.77.0.2,10.77.0.3 bootlace.domain=lab.example bootlace.host=lab-07 \
                    bootlace.root=aoe:1.7 bootlace.mtu=9000";
        BootConfig::parse(line).unwrap()
    }

    #[test]
    fn every_network_service_is_told_to_keep_its_hands_off() {
        let nic = Nic { name: "eth0".to_owned(), index: 2 };
        let files = run_files(&config(), &nic, None);
        let check = |path: &str, expected: &str| {
            let (_, content) = files.iter().find(|(file, _)| file.ends_with(path)).unwrap();
            assert!(content.contains(expected), "{path}: {content}");
        };
        check("05-bootlace.link", "MACAddress=52:54:00:00:00:01\n");
        check("05-bootlace.link", "NamePolicy=keep\n");
        check("05-bootlace.link", "\nMTUBytes=9000\n");
        check("05-bootlace.network", "RequiredForOnline=no\nMTUBytes=9000\n\n[Network]\n");
        check("05-bootlace.network", "KeepConfiguration=yes\nDNS=10.77.0.1\nDomains=lab.example\n");
        check("05-bootlace.conf", "unmanaged-devices=mac:52:54:00:00:00:01\n");
        check("05-bootlace.conf", "\n[global-dns]\nsearches=lab.example\n");
        check("05-bootlace.conf", "\n[global-dns-domain-*]\nservers=10.77.0.1\n");
        check(
            "resolved.conf.d/50-bootlace.conf",
            "[Resolve]\nDNS=10.77.0.1\nDomains=lab.example\n",
        );
        check("timesyncd.conf.d/50-bootlace.conf", "[Time]\nNTP=10.77.0.2 10.77.0.3\n");
        check("bootlace.sources", "server 10.77.0.2 iburst\nserver 10.77.0.3 iburst\n");
        check("networking.service.d/50-bootlace.conf", "\"EXCLUDE_INTERFACES=eth0\"\n");
        check("net-eth0.conf", "IPV4NETMASK='255.255.255.0'\n");
        check("net-eth0.conf", "IPV4BROADCAST='10.77.0.255'\n");
        check("bootlace/resolv.conf", "search lab.example\nnameserver 10.77.0.1\n");
        check("bootlace-up.service", "ExecStart=/run/bootlace/bin/bootlace-init report up\n");
        assert!(files.iter().all(|(path, _)| path.starts_with("/run/")));
    }

    #[test]
    fn the_card_of_the_storage_network_is_left_alone_too_and_has_no_name_servers() {
        let boot = Nic { name: "eth0".to_owned(), index: 2 };
        let nic = Nic { name: "eth1".to_owned(), index: 3 };
        let mac = wire::Mac([2, 0, 0, 0, 0, 2]);
        let address = ([10, 20, 0, 100].into(), 24);
        let storage = StorageNic { nic, mac, address, mtu: Some(9000) };
        let files = run_files(&config(), &boot, Some(&storage));
        let check = |path: &str, expected: &str| {
            let (_, content) = files.iter().find(|(file, _)| file.ends_with(path)).unwrap();
            assert!(content.contains(expected), "{path}: {content}");
        };
        check("05-bootlace.link", "OriginalName=eth0\n");
        check("05-bootlace-storage.link", "MACAddress=02:00:00:00:00:02\nOriginalName=eth1\n");
        check("05-bootlace-storage.network", "MTUBytes=9000\n\n[Network]\nKeepConfiguration=yes\n");
        check("05-bootlace.conf", "=mac:52:54:00:00:00:01;mac:02:00:00:00:00:02\n");
        check("networking.service.d/50-bootlace.conf", "\"EXCLUDE_INTERFACES=eth0 eth1\"\n");
        let told = files.iter().find(|(file, _)| file.ends_with("storage.network")).unwrap();
        assert!(!told.1.contains("DNS="), "{}", told.1);
        let links = run_links(&interfaces(&config(), &boot, Some(&storage)));
        assert!(links.iter().any(|(path, _)| path.ends_with("ifup@eth1.service")), "{links:?}");
    }

    #[test]
    fn the_card_below_a_vlan_is_left_alone_too() {
        let nic = Nic { name: "eth0.12".to_owned(), index: 3 };
        let config = BootConfig { vlan: Some(12), ..config() };
        let files = run_files(&config, &nic, None);
        let check = |path: &str, expected: &str| {
            let (_, content) = files.iter().find(|(file, _)| file.ends_with(path)).unwrap();
            assert!(content.contains(expected), "{path}: {content}");
        };
        check("05-bootlace.link", "OriginalName=eth0.12 eth0\n");
        check("05-bootlace.network", "Name=eth0.12\n");
        check("05-bootlace-card.network", "Name=eth0\n");
        check("networking.service.d/50-bootlace.conf", "\"EXCLUDE_INTERFACES=eth0.12 eth0\"\n");
        let links = run_links(&interfaces(&config, &nic, None));
        assert!(links.iter().any(|(path, _)| path.ends_with("ifup@eth0.service")), "{links:?}");
    }
}
