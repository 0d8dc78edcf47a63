//! Firmware of several kinds walks the whole way of a boot, on the wire: address, loader, configuration, kernel, initrd, disk.

use super::{Area, Look};
use crate::check::Verdict;
use crate::config::Config;
use crate::paths::Paths;
use crate::site::{Site, connect};
use crate::trial;
use crate::trial::far_end::{self, FAR_INTERFACE, drop_address, take_address};
use fakeclient::aoe_disk::{AoeDisk, AoeDiskError};
use fakeclient::firmware::{Firmware, FirmwareError, Kind, Told};
use fakeclient::http_file;
use fakeclient::machine_disk::{MachineDisk, MachineDiskError};
use fakeclient::tftp_crowd::{self, Fetch};
use initcfg::{BootConfig, HTTP_PORT, Root, Token};
use model::MACHINE_PATH;
use serde_json::{Value, json};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};
use wire::{Mac, error_chain};

/// The machine that its firmware boots as.
const MACHINE: &str = trial::DOCTOR_MACHINE;

/// One of ours takes 1 MB at most, and kernel and initrd some ten.
const FILE_BYTES_MAX: u64 = 512 << 20;

/// How long nothing may come.
const PATIENCE: Duration = Duration::from_secs(3);

/// An initrd may be in the works. All kinds together wait so long.
const READY_WITHIN: Duration = Duration::from_secs(8);
const ASK_AGAIN: Duration = Duration::from_millis(300);

/// From the disk so much is read.
const DISK_BYTES: usize = 64 << 10;

/// A kind of firmware, by what people call it. The last goes all the way: what comes after the configuration is the same for all.
const KINDS: [(&str, Kind); 6] = [
    ("64-bit UEFI", pxe(7, "PXEClient:Arch:00007:UNDI:003016", false)),
    ("64-bit UEFI that calls itself number 9", pxe(9, "PXEClient:Arch:00009:UNDI:003016", false)),
    ("UEFI HTTP Boot", pxe(16, "HTTPClient:Arch:00016:UNDI:003001", false)),
    ("iPXE on 64-bit UEFI", pxe(7, "PXEClient:Arch:00007:UNDI:003010", true)),
    ("iPXE on a PC BIOS", pxe(0, "PXEClient:Arch:00000:UNDI:002001", true)),
    ("PC BIOS", pxe(0, "PXEClient:Arch:00000:UNDI:002001", false)),
];

/// Whoever has its disk over AoE.
const AOE_KIND: (&str, Kind) =
    ("A disk over AoE", pxe(0, "PXEClient:Arch:00000:UNDI:002001", false));
const AOE_MAC: Mac = trial::mac(KINDS.len() as u8);

/// As many as one frame has.
const AOE_SECTORS: u64 = 2;

/// The initrd is there by then.
const AOE_READY_WITHIN: Duration = Duration::from_secs(3);

const fn pxe(architecture: u16, vendor_class: &'static str, is_ipxe: bool) -> Kind {
    Kind { architecture, vendor_class, is_ipxe }
}

/// Where a walk has ended too early, and what is probably to be done.
#[derive(Debug, thiserror::Error)]
enum Stumble {
    #[error("it gets no address ({source}): the boot server's log tells why (bootlace logs)")]
    Address { source: FirmwareError },
    #[error("it gets an address and no loader: bootlace net why tells the rule")]
    NoLoader,
    #[error(
        "its loader {file} does not come by {way} ({source}): if a firewall runs on this server, let {ports} in"
    )]
    Loader { file: String, way: &'static str, ports: &'static str, source: io::Error },
    #[error("its loader has no configuration ({source}): let UDP 69 and the ports after it in")]
    Config { source: io::Error },
    #[error("its loader waits, though it has an image: {0}")]
    Waits(String),
    #[error(
        "its loader can't fetch {what} by HTTP ({source}): if a firewall runs on this server, let TCP 80 in"
    )]
    File { what: &'static str, source: io::Error },
    #[error("its kernel would not understand its command line ({0})")]
    CommandLine(String),
    #[error(
        "its disk does not open over NBD at {at} ({why}): the storage server's log tells more; if a firewall runs on this server, \
         let TCP {port} in"
    )]
    Disk { at: SocketAddrV4, port: u16, why: String },
    #[error(
        "its disk {shelf}.{slot} does not come over AoE ({source}): the storage server's log tells more"
    )]
    AoeDisk { shelf: u16, slot: u8, source: AoeDiskError },
    #[error("what its disk has over AoE is not what the same image has over NBD")]
    OtherDisk,
    #[error("{0}")]
    Here(String),
}

/// All of them, if the boot server runs and there is nobody else who tries a PC.
pub(super) fn looks(paths: &Paths, config: &Config) -> Vec<Look> {
    // Others than root, and a server that does not run, are told elsewhere.
    if !nix::unistd::geteuid().is_root() {
        return vec![at_network(Verdict::Unseen(
            "how firmware of PCs fares: run it with sudo".to_owned(),
        ))];
    }
    let Ok(Some(stream)) = connect(paths) else { return Vec::new() };
    // Who names no interface for AoE serves none.
    let has_aoe = config.storage.aoe_interfaces.as_ref().is_none_or(|it| !it.is_empty());
    let walked = Site::of_server(paths, stream).and_then(|site| walk_all(&site, has_aoe));
    match walked {
        Ok(verdicts) => verdicts.into_iter().map(at_network).collect(),
        Err(error) => {
            let why = error_chain(error.as_ref());
            let text = format!("no firmware of PCs could be played here, as {why}");
            vec![at_network(Verdict::Better(text))]
        }
    }
}

const fn at_network(verdict: Verdict) -> Look {
    Look::new(Area::Network, verdict)
}

fn walk_all(site: &Site, has_aoe: bool) -> anyhow::Result<Vec<Verdict>> {
    trial::check(site)?;
    let image = newest_image(site)?;
    let has_image = image.is_some();
    let make_ready = || {
        trial::wait_until_served(site)?;
        image.as_ref().map_or(Ok(()), |image| add_machines(site, image, has_aoe))
    };
    let mut verdicts: Vec<Verdict> = far_end::run(make_ready, move || {
        let end = Instant::now() + READY_WITHIN;
        let mut start_of_disk = None;
        let mut walk = |(number, (name, kind)): (u8, (&str, Kind))| {
            let is_last = usize::from(number) + 1 == KINDS.len();
            let end = has_image.then_some(end);
            in_words(name, walk(trial::mac(number), kind, end, is_last, &mut start_of_disk))
        };
        let mut walked: Vec<Verdict> = (0..).zip(KINDS).map(&mut walk).collect();
        // Without the other it is wrong already.
        if let Some(start) = start_of_disk.filter(|_| has_aoe) {
            walked.push(in_words(AOE_KIND.0, walk_aoe(&start)));
        }
        walked
    })?;
    for machine in [MACHINE, trial::DOCTOR_AOE_MACHINE] {
        if let Err(error) = trial::wait_until_forgotten(site, machine) {
            verdicts.push(Verdict::Better(error_chain(error.as_ref())));
        }
    }
    Ok(verdicts)
}

/// A walk has ended.
fn in_words(name: &str, walked: Result<String, Stumble>) -> Verdict {
    let _ = drop_address();
    match walked {
        Ok(text) => Verdict::Right(format!("{name}: {text}")),
        Err(stumble) => Verdict::Wrong(format!("{name}: {}", error_chain(&stumble))),
    }
}

/// The image that was imported last.
fn newest_image(site: &Site) -> anyhow::Result<Option<String>> {
    let images: Value = site.get("/api/v1/images")?;
    let versions = images.as_array().into_iter().flatten();
    let newest = versions.max_by_key(|version| version["imported_unix"].as_u64());
    Ok(newest.and_then(|version| version["image"].as_str()).map(str::to_owned))
}

fn add_machines(site: &Site, image: &str, has_aoe: bool) -> anyhow::Result<()> {
    let macs: Vec<_> = (1..).take(KINDS.len() - 1).map(trial::mac).collect();
    let machine = json!({
        "mac": trial::mac(0), "other_macs": macs, "image": image, "root": "nbd", "write_mode": "discard",
    });
    trial::add_machine(site, MACHINE, &machine)?;
    if has_aoe {
        let machine = json!({
            "mac": AOE_MAC, "image": image, "root": "aoe", "write_mode": "discard",
        });
        trial::add_machine(site, trial::DOCTOR_AOE_MACHINE, &machine)?;
    }
    Ok(())
}

/// A firmware with this NIC is switched on, and has its address.
fn switch_on(mac: Mac, kind: Kind) -> Result<Told, Stumble> {
    let here = |error: anyhow::Error| Stumble::Here(error_chain(error.as_ref()));
    let firmware = Firmware::open(FAR_INTERFACE, mac, kind);
    let firmware = firmware.map_err(|error| Stumble::Address { source: error.into() })?;
    let told = firmware.boot().map_err(|source| Stumble::Address { source })?;
    drop(firmware);
    take_address(told.address, told.prefix, told.router).map_err(here)?;
    Ok(told)
}

/// A machine whose disk comes over AoE: asks who has it, and reads its first sectors, which are to be those of the same image over
/// NBD.
fn walk_aoe(start: &[u8]) -> Result<String, Stumble> {
    let began = Instant::now();
    let told = switch_on(AOE_MAC, AOE_KIND.1)?;
    let config = configuration(&told, Some(began + AOE_READY_WITHIN))?;
    let (_, arguments) = command(&config, "linux")
        .ok_or_else(|| Stumble::CommandLine("the kernel is missing".to_owned()))?;
    let Root::Aoe { shelf, slot } = command_line(arguments)?.root else {
        return Err(Stumble::CommandLine("its root is not over AoE".to_owned()));
    };
    let read = AoeDisk::open(FAR_INTERFACE, AOE_MAC, (shelf, slot), 1, PATIENCE);
    let read = read.and_then(|mut disk| disk.read(0, AOE_SECTORS, PATIENCE));
    let read = read.map_err(|source| Stumble::AoeDisk { shelf, slot, source })?;
    if !start.starts_with(&read) {
        return Err(Stumble::OtherDisk);
    }
    Ok(format!(
        "address {}, configuration, disk {shelf}.{slot} over AoE: {:.1} s",
        told.address,
        began.elapsed().as_secs_f64()
    ))
}

/// What a kernel is told.
fn command_line(arguments: &str) -> Result<BootConfig, Stumble> {
    // GRUB's quotes, around words without quotes in them.
    BootConfig::parse(&arguments.replace('\'', ""))
        .map_err(|error| Stumble::CommandLine(error.to_string()))
}

/// What one has got, in words. With an image it is to be sent on before `end`. Who goes all the way keeps the start of its disk.
fn walk(
    mac: Mac,
    kind: Kind,
    end: Option<Instant>,
    is_whole: bool,
    start_of_disk: &mut Option<Vec<u8>>,
) -> Result<String, Stumble> {
    let began = Instant::now();
    let told = switch_on(mac, kind)?;
    let loader = fetch_loader(&told)?;
    let mut text = format!(
        "address {}, loader {} ({} KB by {})",
        told.address,
        loader.file,
        loader.n_bytes.div_ceil(1000),
        loader.way
    );
    let config = configuration(&told, end)?;
    text.push_str(", configuration");
    if is_whole && end.is_some() {
        text.push_str(&rest(&told, &config, start_of_disk)?);
    }
    text.push_str(&format!(": {:.1} s", began.elapsed().as_secs_f64()));
    if is_whole && end.is_none() {
        text.push_str("; the rest needs an image (bootlace help import-an-image)");
    }
    Ok(text)
}

struct Loader {
    file: String,
    way: &'static str,
    n_bytes: usize,
}

fn fetch_loader(told: &Told) -> Result<Loader, Stumble> {
    if told.file.is_empty() {
        return Err(Stumble::NoLoader);
    }
    let Some(rest) = told.file.strip_prefix("http://") else {
        let fetched = by_tftp(told, &told.file);
        let failed = |source| Stumble::Loader {
            file: told.file.clone(),
            way: "TFTP",
            ports: "UDP 69 and the ports after it",
            source,
        };
        let n_bytes = fetched.map_err(failed)?.len();
        return Ok(Loader { file: told.file.clone(), way: "TFTP", n_bytes });
    };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let failed =
        |source| Stumble::Loader { file: told.file.clone(), way: "HTTP", ports: "TCP 80", source };
    let address = host.split(':').next().unwrap_or_default().parse().map_err(io::Error::other);
    let server = SocketAddrV4::new(address.map_err(failed)?, HTTP_PORT);
    let content = http_file::get(server, &format!("/{path}"), FILE_BYTES_MAX, PATIENCE);
    let n_bytes = content.map_err(failed)?.len();
    Ok(Loader { file: path.to_owned(), way: "HTTP", n_bytes })
}

fn by_tftp(told: &Told, path: &str) -> io::Result<Vec<u8>> {
    let fetch = Fetch {
        server: SocketAddrV4::new(told.next_server, 69),
        path,
        block_size: 1428,
        window: 1,
        patience: PATIENCE / 3,
        lost_per_thousand: 0,
    };
    tftp_crowd::fetch(&fetch, told.address).map(|(_, content)| content)
}

/// What its loader is told; with an image, once that says what to boot, before `end`.
fn configuration(told: &Told, end: Option<Instant>) -> Result<String, Stumble> {
    loop {
        let config = by_tftp(told, MACHINE_PATH).map_err(|source| Stumble::Config { source })?;
        let config = String::from_utf8_lossy(&config).into_owned();
        let Some(end) = end else { return Ok(config) };
        if command(&config, "linux").is_some() {
            return Ok(config);
        }
        if Instant::now() > end {
            return Err(Stumble::Waits(told_to_wait(&config)));
        }
        std::thread::sleep(ASK_AGAIN);
    }
}

/// What a configuration shows to whoever sits there.
fn told_to_wait(config: &str) -> String {
    let shown = config.lines().filter_map(|line| line.trim().strip_prefix("echo "));
    let words: Vec<&str> = shown.map(|text| text.trim_matches(['\'', '"'])).collect();
    words.join(" ").trim().to_owned()
}

/// Kernel, initrd and disk.
fn rest(told: &Told, config: &str, start_of_disk: &mut Option<Vec<u8>>) -> Result<String, Stumble> {
    let server = SocketAddrV4::new(told.next_server, HTTP_PORT);
    let get = |what, path: &str| {
        http_file::get(server, path, FILE_BYTES_MAX, PATIENCE)
            .map_err(|source| Stumble::File { what, source })
    };
    let began = Instant::now();
    let lacks = |what: &str| Stumble::CommandLine(format!("{what} is missing"));
    let (kernel, arguments) = command(config, "linux").ok_or_else(|| lacks("the kernel"))?;
    let (initrd, behind) = command(config, "initrd").ok_or_else(|| lacks("the initrd"))?;
    let mut n_bytes = get("its kernel", kernel)?.len();
    n_bytes += get("its initrd", initrd)?.len();
    let mut token = None;
    for path in behind.split(' ').filter_map(path_of) {
        let segment = get("what is this boot's alone", path)?;
        n_bytes += segment.len();
        let text = String::from_utf8_lossy(&segment);
        let found =
            text.lines().find_map(|line| line.strip_prefix("token=")?.parse::<Token>().ok());
        token = token.or(found);
    }
    let rate = n_bytes as f64 / 1e6 / began.elapsed().as_secs_f64().max(1e-3);
    let boot = command_line(arguments)?;
    let mut text = format!(", kernel and initrd ({:.1} MB, {rate:.0} MB/s)", n_bytes as f64 / 1e6);
    let Root::Nbd { servers, export } = &boot.root else { return Ok(text) };
    let at = servers.first().copied().unwrap_or(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
    let token = token.ok_or_else(|| lacks("the proof of its boot"))?;
    let read = read_disk(at, export, boot.boot, token).map_err(|error| Stumble::Disk {
        at,
        port: at.port(),
        why: error_chain(&error),
    })?;
    *start_of_disk = Some(read);
    text.push_str(", disk over NBD");
    Ok(text)
}

/// Reads the beginning of the disk. The storage server refuses it until it has heard of this boot.
fn read_disk(
    at: SocketAddrV4,
    export: &str,
    boot: u64,
    token: Token,
) -> Result<Vec<u8>, MachineDiskError> {
    let end = Instant::now() + PATIENCE;
    loop {
        let opened = MachineDisk::open_as(at.into(), export, boot, token, 1);
        match opened.and_then(|mut disk| disk.read_start(DISK_BYTES)) {
            Err(MachineDiskError::Handshake(_)) if Instant::now() < end => {
                std::thread::sleep(ASK_AGAIN);
            }
            done => return done,
        }
    }
}

/// The file and the rest of the line of a command of GRUB's.
fn command<'a>(config: &'a str, name: &str) -> Option<(&'a str, &'a str)> {
    let mut lines = config.lines();
    let line = lines.find_map(|line| line.strip_prefix("if ! ")?.strip_prefix(name))?;
    let line = line.strip_prefix(' ')?.strip_suffix("; then")?;
    let (file, rest) = line.split_once(' ').unwrap_or((line, ""));
    Some((path_of(file)?, rest))
}

/// The path out of `(http,SERVER)PATH`.
fn path_of(file: &str) -> Option<&str> {
    file.split_once(')').map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grub_is_to_load_is_found() {
        let config = "echo 'x'\nif ! linux (http,10.77.0.1)/boot/a/1/vmlinuz 'a=1' 'b=2'; then\n  echo 'no'\nfi\n\
                      if ! initrd (http,10.77.0.1)/boot/a/1/initrd (http,10.77.0.1)/boot/host/7; then\n";
        assert_eq!(command(config, "linux"), Some(("/boot/a/1/vmlinuz", "'a=1' 'b=2'")));
        let initrd = ("/boot/a/1/initrd", "(http,10.77.0.1)/boot/host/7");
        assert_eq!(command(config, "initrd"), Some(initrd));
        assert_eq!(command("echo 'waits'\n", "linux"), None);
        assert_eq!(
            told_to_wait("echo 'It waits.'\necho \"Adopt it\"\nsleep 3\n"),
            "It waits. Adopt it"
        );
    }
}
