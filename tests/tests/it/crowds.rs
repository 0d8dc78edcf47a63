//! One host asks for more than all others together: they are served meanwhile, and the boot server stays small.

use anyhow::{Context, Result, ensure};
use fakeclient::crowd::{Crowd, Drip};
use fakeclient::forged::Forger;
use fakeclient::loader_tcp::LoaderTcp;
use fakeclient::room::{Placed, Room};
use lab::{Client, Daemon, Lan, Need, Preboot, SERVER, Site, require, text_of};
use nix::sys::signal::Signal;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

const HONEST: &str = "52:54:00:00:00:01";
const LATER: &str = "52:54:00:00:00:02";
const ATTACKER: &str = "52:54:00:00:00:66";

/// A boot file of the size of four large initrds.
const FILE: &str = "boot/flood/1/vmlinuz";
const FILE_BYTES: u64 = 64 << 20;

/// What the boot server takes at most, with that file in it.
const MEMORY_MAX: u64 = 192 << 20;

const IMAGE: &str = "image = \"flood\"\nversion = 1\ndigest = \"00\"\nsize_bytes = 4096\n\
                     file_system = \"ext4\"\nkernel_version = \"6.1.0\"\nimported_unix = 0\n";

/// What the attacker's host takes beside its own address. The pool is elsewhere.
const NETWORKS: [&str; 4] = ["10.77.0.32/27", "10.77.0.64/27", "10.77.0.208/28", "10.77.0.224/28"];

/// A site, a PC in its firmware, and a host that means no good.
struct Crowded {
    honest: Preboot,
    attacker: Client,
    boot_server: Daemon,
    storage: Daemon,
    site: Site,
}

impl Crowded {
    fn new(name: &str) -> Result<Self> {
        let site = Site::builder().create(Lan::lay(name)?)?;
        let version = site.root().join("var/lib/bootlace/images/flood/1");
        std::fs::create_dir_all(&version)?;
        std::fs::write(version.join("image.toml"), IMAGE)?;
        for (file, size) in [("vmlinuz", FILE_BYTES), ("disk.raw", 4096)] {
            std::fs::File::create(version.join(file))?.set_len(size)?;
        }
        let storage = site.storage()?;
        let boot_server = site.serve()?;
        let honest = Preboot::start(&site, HONEST)?;
        let attacker = site.lan().add_client(name, ATTACKER)?;
        attacker.netns().ip("addr add 10.77.0.50/24 dev eth0")?;
        for network in NETWORKS {
            attacker.netns().ip(&format!("route add local {network} dev lo"))?;
        }
        Ok(Self { honest, attacker, boot_server, storage, site })
    }

    /// The honest PC gets the whole of something.
    fn fetch(&self, url: &str) -> Result<u64> {
        let mut curl = self.honest.client().command("curl");
        curl.args(["--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", "60"]);
        let got =
            text_of(curl.args(["--output", "/dev/null", "--write-out", "%{size_download}", url]))
                .with_context(|| {
                format!("{url}: the PC is kept out; the log:\n{}", self.boot_server.log())
            })?;
        Ok(got.trim().parse()?)
    }

    fn fetch_all(&self, base: &str) -> Result<()> {
        self.fetch(&format!("{base}/bl.efi"))?;
        let got = self.fetch(&format!("{base}/{FILE}"))?;
        ensure!(got == FILE_BYTES, "the PC got {got} bytes");
        Ok(())
    }

    /// The page and the API say what happened.
    fn has_found(&self, kind: &str) -> Result<()> {
        let answer = self.site.browser().json("/api/v1/findings")?;
        let findings = answer["findings"].as_array().context("no list of findings")?;
        ensure!(findings.iter().any(|finding| finding["kind"] == kind), "no {kind}: {answer}");
        Ok(())
    }

    /// The most that the boot server ever took.
    fn memory(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.boot_server.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).context("no VmHWM")?;
        Ok(kib.trim().parse::<u64>()? << 10)
    }

    fn end(self) -> Result<()> {
        let memory = self.memory()?;
        eprintln!("the boot server took {} MiB", memory >> 20);
        ensure!(memory < MEMORY_MAX, "the boot server took {} MiB", memory >> 20);
        drop((self.honest, self.attacker));
        self.boot_server.stop()?;
        self.storage.stop()?;
        drop(self.site);
        Ok(())
    }
}

fn run(name: &str, test: impl FnOnce(&str) -> Result<()>) {
    let programs = ["grub-mkimage", "udhcpc", "curl"].map(Need::Program);
    if require(name, &[&[Need::Root][..], &programs].concat()) {
        test(name).unwrap_or_else(|error| panic!("{error:?}"));
    }
}

/// All addresses of the attacker's networks.
fn addresses() -> Vec<Ipv4Addr> {
    (32..96).chain(208..240).map(|host| Ipv4Addr::new(10, 77, 0, host)).collect()
}

fn server(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(SERVER.parse().expect("it is an address"), port)
}

/// Opens connections from all of the attacker's addresses; the honest PC boots; then all of them have ended.
fn crowd_is_outlived(name: &str, count: usize, text: &str) -> Result<()> {
    let site = Crowded::new(name)?;
    let crowd =
        site.attacker.netns().inside(|| Ok(Crowd::open(server(80), &addresses(), count, text)?))?;
    site.fetch_all(&format!("http://{SERVER}"))?;
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let alive = crowd.alive()?;
        if alive == 0 {
            break;
        }
        ensure!(Instant::now() < deadline, "{alive} connections are still there");
        std::thread::sleep(Duration::from_millis(500));
    }
    site.has_found("asks-too-much")?;
    site.end()
}

#[test]
fn http_requests_that_are_never_finished_keep_nobody_out() {
    run("half", |name| crowd_is_outlived(name, 5000, &format!("GET /{FILE} HTTP/1.1\r\nX: ")));
}

#[test]
fn http_readers_that_never_read_hold_little_memory_and_are_let_go() {
    run("deaf", |name| {
        crowd_is_outlived(name, 1100, &format!("GET /{FILE} HTTP/1.1\r\nHost: x\r\n\r\n"))
    });
}

#[test]
fn one_host_has_a_few_http_connections_however_many_it_opens() {
    run("thousand", |name| {
        let site = Crowded::new(name)?;
        let request = format!("GET /{FILE} HTTP/1.1\r\nHost: x\r\n\r\n");
        let own = [Ipv4Addr::new(10, 77, 0, 50)];
        let crowd =
            site.attacker.netns().inside(|| Ok(Crowd::open(server(80), &own, 1000, &request)?))?;
        site.fetch_all(&format!("http://{SERVER}"))?;
        let alive = crowd.alive()?;
        ensure!(alive <= 16, "{alive} connections of one host are there");
        site.has_found("asks-too-much")?;
        site.end()
    });
}

#[test]
fn who_asks_or_takes_byte_by_byte_is_let_go() {
    run("drip", |name| {
        let site = Crowded::new(name)?;
        let own = Ipv4Addr::new(10, 77, 0, 50);
        let most = Duration::from_secs(120);
        let (asking, reading) = site.attacker.netns().inside(|| {
            let (asks, reads) = (Drip::open(server(80), own)?, Drip::open(server(80), own)?);
            std::thread::scope(|scope| {
                let asking = scope.spawn(move || asks.asks(most));
                let reading = reads.reads(&format!("/{FILE}"), most);
                Ok((asking.join().expect("it does not panic"), reading))
            })
        })?;
        eprintln!("who asks so was let go after {asking:?}, who reads so after {reading:?}");
        asking.context("who asks byte by byte is there for ever")?;
        reading.context("who takes byte by byte is there for ever")?;
        site.fetch_all(&format!("http://{SERVER}"))?;
        site.end()
    });
}

#[test]
fn tftp_requests_in_the_names_of_others_keep_nobody_out() {
    run("forged", |name| {
        let site = Crowded::new(name)?;
        let attack = || {
            let forger = Forger::open()?;
            let request = format!("\0\x01{FILE}\0octet\0");
            for n in 0..10_000_u16 {
                // Each address of the network but our own and the server's, the honest PC's among them.
                let from = Ipv4Addr::new(10, 77, 0, (n % 250 + 3) as u8);
                forger.send(SocketAddrV4::new(from, 1025 + n), server(69), request.as_bytes())?;
                if n % 100 == 99 {
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
            Ok(())
        };
        std::thread::scope(|scope| -> Result<()> {
            let attack = scope.spawn(|| site.attacker.netns().inside(attack));
            drop(Preboot::start(&site.site, LATER).context("no DHCP during the attack")?);
            site.fetch_all(&format!("tftp://{SERVER}"))?;
            attack.join().expect("the attack does not panic")
        })?;
        site.has_found("no-place-left")?;
        site.end()
    });
}

#[test]
fn what_strangers_do_fills_no_log_and_hides_no_machine() {
    run("log", |name| {
        let mut site = Crowded::new(name)?;
        site.site.run(&["machine", "set", "pc-9", "--mac", LATER])?;
        site.attacker.netns().inside(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            let report = format!("bootlace/1 report 1 {LATER} 1 failed 1000 x");
            for _ in 0..50_000 {
                socket.send_to(report.as_bytes(), server(4915))?;
            }
            let request = "GET /no-such-file HTTP/1.0\r\n\r\n";
            drop(Crowd::open(server(80), &addresses(), 200, request)?);
            Ok(())
        })?;
        drop(Preboot::start(&site.site, LATER)?);
        let patience = Duration::from_secs(60);
        site.boot_server.wait_for_log("left out lines like: HTTP: no such boot file", patience)?;
        let log = site.boot_server.log();
        let n_lines = log.lines().count();
        ensure!(n_lines < 300, "the log has {n_lines} lines");
        ensure!(log.contains("pc-9"), "the machine's boot is not in the log:\n{log}");
        site.end()
    });
}

#[test]
fn a_pc_that_is_switched_off_in_a_download_comes_again_from_the_same_port() {
    run("again", |name| {
        let site = Crowded::new(name)?;
        let mac = "52:54:00:00:00:03";
        let pc = site.site.lan().add_client("pc", mac)?;
        let lan = site.site.lan().netns();
        let server_mac =
            text_of(lan.command("cat", Signal::SIGKILL).arg("/sys/class/net/br0/address"))?;
        let (mac, server_mac) = (mac.parse()?, server_mac.trim().parse()?);
        let power_on = || -> Result<Placed> {
            let room = Room::open("eth0", vec![mac])?;
            let placed = room.discover()?;
            room.request(&placed)?;
            Ok(placed[0])
        };
        let placed = pc.netns().inside(power_on)?;
        // It has no address that it could be asked at.
        lan.ip(&format!("neigh replace {} lladdr {mac} dev br0 nud permanent", placed.address))?;
        let patience = Duration::from_secs(20);
        pc.netns().inside(|| {
            let ours = (mac, SocketAddrV4::new(placed.address, 21551));
            let mut tcp = LoaderTcp::open("eth0", ours, (server_mac, server(80)))?;
            ensure!(tcp.connect(1000, patience)?, "the PC is kept out");
            let request = format!("GET /{FILE} HTTP/1.1\r\nHost: x\r\n\r\n");
            let answer = tcp.ask(&request, patience)?;
            ensure!(answer.starts_with(b"HTTP/1.1 200 OK"), "{}", answer.escape_ascii());
            // The power is off: nothing is acknowledged any more.
            std::thread::sleep(Duration::from_secs(3));
            ensure!(power_on()?.address == placed.address, "the PC has another address");
            ensure!(
                tcp.connect(9000, Duration::from_secs(8))?,
                "the PC is kept out when it comes again"
            );
            let answer = tcp.ask(&request, patience)?;
            ensure!(answer.starts_with(b"HTTP/1.1 200 OK"), "{}", answer.escape_ascii());
            Ok(())
        })?;
        drop(pc);
        site.end()
    });
}
