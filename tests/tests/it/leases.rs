//! Addresses of another DHCP server's clients stay theirs, and people see and change who has which.

use crate::dhcp::Udhcpc;
use anyhow::{Context, Result, ensure};
use lab::{Client, Daemon, DhcpServer, Lan, Need, OtherDhcp, Site, bootlace_binary, require};
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

const FIRST: &str = "52:54:00:00:00:01";
const SECOND: &str = "52:54:00:00:00:02";

/// How long a server may take to start.
const START: Duration = Duration::from_secs(20);

/// A LAN on which another server gives addresses.
struct Place {
    site: Site,
    folder: tempfile::TempDir,
}

impl Place {
    fn lay(name: &str, network: &str) -> Result<Self> {
        let site = Site::builder().network(network).create(Lan::lay(name)?)?;
        Ok(Self { site, folder: tempfile::tempdir()? })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What the command says, wherever, and how it ends.
    fn told(&self, arguments: &[&str]) -> Result<(Option<i32>, String)> {
        let mut command = self.site.lan().netns().command(bootlace_binary()?, Signal::SIGKILL);
        let Output { status, stdout, stderr } =
            command.arg("--root").arg(self.site.root()).args(arguments).output()?;
        let text = [stdout, stderr].concat();
        Ok((status.code(), String::from_utf8_lossy(&text).into_owned()))
    }

    /// The command does it, and says so.
    fn does(&self, arguments: &[&str], words: &str) -> Result<()> {
        let (code, told) = self.told(arguments)?;
        ensure!(code == Some(0) && told.contains(words), "{arguments:?}: {code:?} {told}");
        Ok(())
    }

    fn refuses(&self, arguments: &[&str], code: i32, words: &str) -> Result<()> {
        let (ended, told) = self.told(arguments)?;
        ensure!(ended == Some(code) && told.contains(words), "{arguments:?}: {ended:?} {told}");
        Ok(())
    }
}

fn address(udhcpc: &Udhcpc<'_>) -> Result<String> {
    udhcpc.ask(&[])?.get("ip").cloned().context("no address")
}

/// dhclient with a memory: it asks for the address that it had (INIT-REBOOT).
fn dhclient(client: &Client, folder: &Path) -> Result<String> {
    let mut command = client.command("dhclient");
    command.args(["-4", "-1", "-d", "-v", "-sf", "/bin/true", "-lf"]);
    command.arg(folder.join("dhclient.leases")).arg("-pf").arg(folder.join("dhclient.pid"));
    let log = folder.join("dhclient.log");
    let mut running = Daemon::start_detached("dhclient", command.arg("eth0"), &log)?;
    running.wait_for_log("bound to ", START)?;
    let log = running.log();
    drop(running);
    let bound = log.rsplit_once("bound to ").context("it is not bound")?.1;
    ensure!(
        !folder.join("again").exists() || !log.contains("DISCOVER"),
        "it did not ask for its address: {log}"
    );
    std::fs::write(folder.join("again"), "")?;
    Ok(bound.split_whitespace().next().unwrap_or_default().to_owned())
}

/// The lease is imported before Bootlace runs, or when it does and has heard the clients.
fn clients_keep_their_addresses(name: &str, server: DhcpServer, is_running: bool) {
    let programs = ["udhcpc", "dhclient", "grub-mkimage"].map(Need::Program);
    if !require(name, &[&[Need::Root, server.need()], &programs[..]].concat()) {
        return;
    }
    let run = || -> Result<()> {
        let place = Place::lay(name, "")?;
        let old = OtherDhcp::start(server, &place.site, "")?;
        let first = place.site.lan().add_client("first", FIRST)?;
        let second = place.site.lan().add_client("second", SECOND)?;
        let folder = tempfile::tempdir()?;
        let udhcpc = Udhcpc::new(&first, folder.path())?;
        let had = [address(&udhcpc)?, dhclient(&second, folder.path())?];
        ensure!(had[0] != had[1] && had.iter().all(|it| it.starts_with("10.77.0.1")), "{had:?}");
        let leases = place.path("leases");
        std::fs::write(&leases, old.end()?)?;

        let running = is_running.then(|| place.site.up()).transpose()?;
        let deadline = Instant::now() + Duration::from_secs(60);
        while is_running && !place.site.run(&["lease", "ls"])?.contains("declined: in use") {
            ensure!(Instant::now() < deadline, "the first client is not heard");
            std::thread::sleep(Duration::from_millis(200));
        }
        let file = leases.to_string_lossy().into_owned();
        let import = ["lease", "import", &file];
        place.does(&[&import[..], &["--dry-run"]].concat(), "2 leases of")?;
        if !is_running {
            place.does(&["lease", "ls"], "Nobody has an address now")?;
        }
        place.does(&import, "2 leases of")?;
        let servers = running.map_or_else(|| place.site.up(), Ok)?;
        // It may be done again while the server runs.
        place.does(&import, "2 known here already")?;
        // Both are no machines, and boot nothing: they keep what they have.
        let has = [address(&udhcpc)?, dhclient(&second, folder.path())?];
        ensure!(has == had, "they had {had:?}, and have {has:?}: {}", servers.log());
        for (address, mac) in [(&had[0], FIRST), (&had[1], SECOND)] {
            let listed = place.site.run(&["lease", "ls", "--network", "10.77.0.0/24"])?;
            let line = listed.lines().find(|line| line.contains(mac)).unwrap_or_default();
            ensure!(line.starts_with(address.as_str()), "{listed}");
        }
        servers.stop()
    };
    run().unwrap_or_else(|error| panic!("{error:?}"));
}

#[test]
fn clients_of_dnsmasq_keep_their_addresses() {
    clients_keep_their_addresses("imp-dnsmasq", DhcpServer::Dnsmasq, false);
}

#[test]
fn clients_of_isc_dhcpd_keep_their_addresses() {
    clients_keep_their_addresses("imp-dhcpd", DhcpServer::Isc, true);
}

#[test]
fn clients_of_kea_keep_their_addresses() {
    clients_keep_their_addresses("imp-kea", DhcpServer::Kea, false);
}

#[test]
fn an_address_is_fixed_and_freed_while_the_server_runs() {
    let name = "fixed";
    let needs = [Need::Root, Need::Program("udhcpc"), Need::Program("grub-mkimage")];
    if !require(name, &needs) {
        return;
    }
    let run = || -> Result<()> {
        let reserve = "reserve = { \"52:54:00:00:00:08\" = \"10.77.0.20\" }";
        let place = Place::lay(name, &format!("{reserve}\n{}", crate::dhcp::EVERYONE))?;
        place.site.run(&["machine", "set", "pc-1", "--mac", FIRST])?;
        let servers = place.site.up()?;
        let first = place.site.lan().add_client("first", FIRST)?;
        let second = place.site.lan().add_client("second", SECOND)?;
        let folders = [tempfile::tempdir()?, tempfile::tempdir()?];
        let one = Udhcpc::new(&first, folders[0].path())?;
        let two = Udhcpc::new(&second, folders[1].path())?;
        let had = address(&one)?;

        let fixed = "10.77.0.30: fixed for pc-1 (52:54:00:00:00:01)";
        place.does(&["lease", "fix", "10.77.0.30", "--machine", "pc-1"], fixed)?;
        let has = address(&one)?;
        ensure!(has == "10.77.0.30", "{has}");
        // What it had is for others, by whichever way they ask for it.
        let told = two.ask(&["-r", &had])?;
        ensure!(told.get("ip") == Some(&had), "{told:?}");
        place.refuses(&["lease", "fix", &had, "--machine", "pc-1"], 1, "free it first")?;
        place.refuses(&["lease", "free", "10.77.0.30"], 1, "lease fix 10.77.0.30 --undo")?;
        place.refuses(&["lease", "free", "10.77.0.20"], 1, "out of reserve below [network]")?;
        place.refuses(&["lease", "free", "10.77.0.199"], 3, "leased to nobody")?;
        place.does(&["lease", "free", SECOND], "goes on using it until it renews")?;
        place.does(&["lease", "fix", &had, "--machine", "pc-1"], "10.77.0.30, which was fixed")?;
        let has = address(&one)?;
        ensure!(has == had, "{has}");
        let other = address(&two)?;
        ensure!(other != had, "it is another one's");
        place.does(&["lease", "fix", SECOND], &format!("{other}: fixed for {SECOND}"))?;
        place.does(&["lease", "fix", SECOND, "--undo"], "fixed no more")?;

        let listed: serde_json::Value =
            serde_json::from_str(&place.site.run(&["lease", "ls", "--json"])?)?;
        let row = |address: &str| {
            let mut all = listed.as_array().into_iter().flatten();
            all.find(|it| it["address"] == address).cloned().unwrap_or_default()
        };
        ensure!(row(&had)["reserved_in"] == "state" && row(&had)["machine"] == "pc-1", "{listed}");
        ensure!(row("10.77.0.20")["reserved_in"] == "file", "{listed}");
        ensure!(row(&other)["kind"] == "lease", "{listed}");
        let audit = place.site.run(&["audit"])?;
        ensure!(audit.contains("lease.fix") && audit.contains("lease.free"), "{audit}");
        servers.stop()
    };
    run().unwrap_or_else(|error| panic!("{error:?}"));
}

#[test]
fn where_another_server_gives_addresses_nothing_is_imported_or_fixed() {
    let name = "lease-proxy";
    if !require(name, &[Need::Root]) {
        return;
    }
    let run = || -> Result<()> {
        let place = Place::lay(name, "mode = \"proxy\"")?;
        let file = place.path("dnsmasq.leases");
        std::fs::write(&file, "0 52:54:00:00:00:01 10.77.0.140 * *\n")?;
        let file = file.to_string_lossy();
        let words = "another DHCP server gives the addresses";
        place.refuses(&["lease", "import", &file], 1, words)?;
        place.refuses(&["lease", "fix", "10.77.0.140", "--mac", FIRST], 1, words)?;
        place.refuses(&["lease", "free", FIRST], 3, "has no address here")?;
        std::fs::write(&*file, "0 52:54:00:00:00:01 10.77.0.140 * *\n0 x 10.77.0.141 * *\n")?;
        place.refuses(&["lease", "import", &file], 1, "line 2: \"x\" is not a MAC address")?;
        place.refuses(&["lease", "import", "/etc/passwd"], 1, "--format dnsmasq, isc or kea")
    };
    run().unwrap_or_else(|error| panic!("{error:?}"));
}

/// So that the list of a large site is no slower than it must be.
#[test]
fn the_leases_of_a_large_site_are_listed_and_taken() {
    let name = "lease-large";
    if !require(name, &[Need::Root]) {
        return;
    }
    let run = || -> Result<()> {
        let site = Site::builder()
            .another_network(
                "interface = \"br0\"\nsubnet = \"10.20.0.0/16\"\nrouter = \"10.20.0.1\"\n\
                 pool = \"10.20.1.0-10.20.199.255\"",
            )
            .create(Lan::lay(name)?)?;
        let file = site.root().join("dnsmasq.leases");
        let line = |n: u32| {
            let [_, _, a, b] = n.to_be_bytes();
            format!("0 02:00:00:00:{a:02x}:{b:02x} 10.20.{}.{b} pc-{n} *\n", a + 1)
        };
        std::fs::write(&file, (0..15_000).map(line).collect::<String>())?;
        let told = site.run(&["lease", "import", &file.to_string_lossy()])?;
        ensure!(told.starts_with("15000 leases of dnsmasq taken"), "{told}");
        let listed = site.run(&["lease", "ls", "--network", "10.20.0.0/16"])?;
        ensure!(listed.lines().count() == 15_001, "{} lines", listed.lines().count());
        Ok(())
    };
    run().unwrap_or_else(|error| panic!("{error:?}"));
}
