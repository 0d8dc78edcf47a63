//! DHCP as other people's clients see it.

use anyhow::{Context, Result, ensure};
use lab::{Client, Lan, Need, Site, require, text_of};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

const MAC: &str = "52:54:00:00:00:01";

/// Clients that are no firmware get addresses, too.
pub(crate) const EVERYONE: &str = "serve_everyone = true";

/// What udhcpc calls at each step: it takes the address and writes what it was told.
const SCRIPT: &str = "#!/bin/sh
case $1 in
bound|renew)
    ip address replace $ip/$mask dev $interface
    env >>\"$TOLD\"
    echo event=$1 >>\"$TOLD\"
    ;;
esac
";

/// A client with udhcpc, and a folder for its script.
pub(crate) struct Udhcpc<'a> {
    client: &'a Client,
    script: PathBuf,
    told: PathBuf,
}

impl<'a> Udhcpc<'a> {
    pub(crate) fn new(client: &'a Client, folder: &Path) -> Result<Self> {
        let (script, told) = (folder.join("script"), folder.join("told"));
        std::fs::write(&script, SCRIPT)?;
        std::fs::set_permissions(&script, Permissions::from_mode(0o755))?;
        Ok(Self { client, script, told })
    }

    fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = self.client.command("udhcpc");
        command.args(["-f", "-n", "-i", "eth0", "-t", "5", "-T", "2", "-s"]).arg(&self.script);
        command.args(arguments).env("TOLD", &self.told);
        command
    }

    /// Gets a lease and returns what the script was told.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Result<BTreeMap<String, String>> {
        let _ = std::fs::remove_file(&self.told);
        text_of(self.command(arguments).arg("-q"))?;
        self.told()
    }

    /// Gets a lease and renews it, as a client that runs; returns what the script was told then.
    pub(crate) fn renew(&self) -> Result<BTreeMap<String, String>> {
        let _ = std::fs::remove_file(&self.told);
        let mut running = self.command(&[]).stdin(Stdio::null()).spawn()?;
        let wait_for = |event: &str| -> Result<()> {
            let deadline = Instant::now() + Duration::from_secs(30);
            while self.told().ok().and_then(|told| told.get("event").cloned()).as_deref()
                != Some(event)
            {
                ensure!(Instant::now() < deadline, "no {event}");
                std::thread::sleep(Duration::from_millis(50));
            }
            Ok(())
        };
        let result = wait_for("bound").and_then(|()| {
            kill(pid_of_udhcpc(&running)?, Signal::SIGUSR1)?;
            wait_for("renew")
        });
        running.kill()?;
        running.wait()?;
        result?;
        self.told()
    }

    fn told(&self) -> Result<BTreeMap<String, String>> {
        let text = std::fs::read_to_string(&self.told).context("udhcpc has told nothing")?;
        let lines = text.lines().filter_map(|line| line.split_once('='));
        Ok(lines.map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// Runs the test with a server and one client on a LAN, unless this machine can't.
fn on_a_lan(
    name: &str,
    programs: &[&'static str],
    test: impl FnOnce(&Client, &Path) -> Result<()>,
) {
    let needs: Vec<Need> = [Need::Root, Need::Program("grub-mkimage")]
        .into_iter()
        .chain(programs.iter().copied().map(Need::Program))
        .collect();
    if !require(name, &needs) {
        return;
    }
    let run = || -> Result<()> {
        let site = Site::builder()
            .verbose()
            .boot("secure_boot = \"never\"")
            .network(EVERYONE)
            .create(Lan::lay(name)?)?;
        let servers = site.up()?;
        let client = site.lan().add_client(name, MAC)?;
        let folder = tempfile::tempdir()?;
        test(&client, folder.path())
            .with_context(|| format!("the servers' log:\n{}", servers.log()))?;
        drop(client);
        servers.stop()
    };
    run().unwrap_or_else(|error| panic!("{error:?}"));
}

fn is_told(told: &BTreeMap<String, String>, name: &str, expected: &str) -> Result<()> {
    let actual = told.get(name).map(String::as_str);
    ensure!(actual == Some(expected), "{name} is {actual:?}, not {expected:?}: {told:#?}");
    Ok(())
}

#[test]
fn udhcpc_gets_renews_and_keeps_a_lease() {
    on_a_lan("udhcpc", &["udhcpc"], |client, folder| {
        let udhcpc = Udhcpc::new(client, folder)?;
        let told = udhcpc.ask(&[])?;
        is_told(&told, "subnet", "255.255.255.0")?;
        is_told(&told, "serverid", lab::SERVER)?;
        is_told(&told, "lease", "300")?;
        let address = told.get("ip").cloned().context("no address")?;
        ensure!(address.starts_with("10.77.0.1"), "{address} is not in the pool");

        // Other client identifiers and a broadcast flag are still the same machine.
        let again = udhcpc.ask(&["-x", "0x3d:0102030405", "-B"])?;
        is_told(&again, "ip", &address)?;

        is_told(&udhcpc.renew()?, "ip", &address)
    });
}

#[test]
fn an_address_that_a_device_has_without_a_lease_is_given_to_nobody() {
    let needs = [Need::Root, Need::Program("grub-mkimage"), Need::Program("udhcpc")];
    if !require("taken", &needs) {
        return;
    }
    let run = || -> Result<()> {
        let site = Site::builder().verbose().network(EVERYONE).create(Lan::lay("taken")?)?;
        let printer = site.lan().add_client("printer", "52:54:00:00:00:77")?;
        printer.netns().ip("address add 10.77.0.150/24 dev eth0")?;
        let servers = site.up()?;
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let findings = site.browser().get("/api/v1/findings")?.body;
            if findings.contains("10.77.0.150") {
                ensure!(findings.contains("address-in-use"), "{findings}");
                ensure!(findings.contains("52:54:00:00:00:77"), "who has it: {findings}");
                break;
            }
            ensure!(Instant::now() < deadline, "{findings}\n{}", servers.log());
            std::thread::sleep(Duration::from_millis(100));
        }
        let client = site.lan().add_client("client", MAC)?;
        let folder = tempfile::tempdir()?;
        let told = Udhcpc::new(&client, folder.path())?.ask(&["-r", "10.77.0.150"])?;
        ensure!(told.get("ip").is_some_and(|it| it != "10.77.0.150"), "{told:?}");
        // Its own address is no conflict, though it answers for it.
        let status = site.run(&["status"]).unwrap_or_else(|error| format!("{error:#}"));
        ensure!(!status.contains(&told["ip"]), "{status}");
        servers.stop()
    };
    run().unwrap_or_else(|error| panic!("{error:?}"));
}

/// The command is a chain of programs that each become the next one.
fn pid_of_udhcpc(running: &std::process::Child) -> Result<Pid> {
    let name = std::fs::read_to_string(format!("/proc/{}/comm", running.id()))?;
    ensure!(name.trim() != "ip", "udhcpc runs as a child of ip");
    Ok(Pid::from_raw(i32::try_from(running.id())?))
}

#[test]
fn firmware_is_told_its_loader() {
    on_a_lan("firmware", &["udhcpc"], |client, folder| {
        let udhcpc = Udhcpc::new(client, folder)?;
        for (architecture, vendor_class, file) in [
            ("0x5d:0000", "PXEClient:Arch:00000:UNDI:002001", "bl.0"),
            ("0x5d:0007", "PXEClient:Arch:00007:UNDI:003016", "bl.efi"),
            ("0x5d:0009", "PXEClient:Arch:00009:UNDI:003016", "bl.efi"),
        ] {
            let options = ["-x", architecture, "-V", vendor_class, "-O", "bootfile", "-O", "tftp"];
            let told = udhcpc.ask(&options)?;
            is_told(&told, "siaddr", lab::SERVER)?;
            is_told(&told, "boot_file", file)?;
            is_told(&told, "sname", lab::SERVER)?;
        }
        let told = udhcpc.ask(&["-O", "bootfile"])?;
        ensure!(!told.contains_key("boot_file"), "a running system is given a loader: {told:#?}");
        Ok(())
    });
}

#[test]
fn dhclient_gets_and_gives_back_a_lease() {
    on_a_lan("dhclient", &["dhclient"], |client, folder| {
        let paths = ["leases", "pid", "config"].map(|name| folder.join(name).display().to_string());
        let [leases, pid, config] = &paths;
        std::fs::write(config, "send host-name \"lab-1\";\n")?;
        let files = ["-4", "-v", "-cf", config, "-lf", leases, "-pf", pid, "-sf", "/bin/true"];
        let address_of = |text: &str| -> Option<String> {
            let line =
                text.lines().rev().find_map(|line| line.trim().strip_prefix("fixed-address "))?;
            Some(line.trim_end_matches(';').to_owned())
        };
        // The second time it remembers its lease and only asks whether it is still good.
        let mut addresses = Vec::new();
        for _ in 0..2 {
            text_of(client.command("dhclient").args(files).args(["-1", "eth0"]))?;
            let text = std::fs::read_to_string(leases)?;
            addresses.push(address_of(&text).with_context(|| format!("no lease in {text}"))?);
            text_of(client.command("dhclient").args(files).args(["-x", "eth0"]))?;
        }
        ensure!(addresses[0] == addresses[1], "the address has changed: {addresses:?}");
        text_of(client.command("dhclient").args(files).args(["-r", "eth0"])).map(drop)
    });
}

#[test]
fn a_second_dhcp_server_is_named() {
    if !require("a_second_dhcp_server_is_named", &[Need::Root, Need::Program("dnsmasq")]) {
        return;
    }
    let run = || -> Result<()> {
        let site = Site::builder().create(Lan::lay("second")?)?;
        let mut command = site.lan().netns().command("dnsmasq", Signal::SIGKILL);
        command.args(["-k", "-p", "0", "-C", "/dev/null", "-i", "br0", "--leasefile-ro"]);
        command.args(["--log-facility=-", "--pid-file=", "-F", "10.77.0.10,10.77.0.20"]);
        let mut other =
            lab::Daemon::start_detached("dnsmasq", &mut command, &site.root().join("dnsmasq.log"))?;
        other.wait_for_log("DHCP, IP range", Duration::from_secs(20))?;
        let error = site.up().err().context("the boot server starts beside another one")?;
        let text = format!("{error:?}");
        ensure!(text.contains("UDP port 67 is in use by dnsmasq (pid"), "{text}");
        Ok(())
    };
    run().unwrap_or_else(|error| panic!("{error:?}"));
}

/// dnsmasq at 10.77.0.9 on a LAN, as it is installed: it pings an address for 3 s before it offers it.
pub(crate) fn start_dnsmasq(site: &Site, place: &Client, more: &[&str]) -> Result<lab::Daemon> {
    let mut command = place.command("dnsmasq");
    command.args(["-k", "-p", "0", "-i", "eth0", "--leasefile-ro"]);
    command.args(["--log-facility=-", "--pid-file=", "-F", "10.77.0.10,10.77.0.20"]).args(more);
    let log = site.root().join("dnsmasq.log");
    let mut dnsmasq = lab::Daemon::start_detached("dnsmasq", &mut command, &log)?;
    dnsmasq.wait_for_log("DHCP, IP range", Duration::from_secs(20))?;
    Ok(dnsmasq)
}

#[test]
fn beside_another_dhcp_server_it_does_not_start_and_one_that_comes_later_is_told() {
    let needs = [Need::Root, Need::Program("dnsmasq"), Need::Program("udhcpc")];
    if !require("beside_another_dhcp_server", &needs) {
        return;
    }
    let run = || -> Result<()> {
        let site = Site::builder().create(Lan::lay("beside")?)?;
        let place = site.lan().add_client("dnsmasq", "52:54:00:00:00:09")?;
        place.netns().ip("address add 10.77.0.9/24 dev eth0")?;
        let dnsmasq = start_dnsmasq(&site, &place, &["-C", "/dev/null"])?;
        let says = "another DHCP server answers on br0: 10.77.0.9, which offers 10.77.0.";
        let error = format!("{:?}", site.up().err().context("it starts beside another one")?);
        ensure!(error.contains(says) && error.contains("beside_others = true"), "{error}");
        let check = || -> Result<String> {
            let program = lab::bootlace_binary()?;
            let mut command = site.lan().netns().command(program, Signal::SIGTERM);
            let output = command.arg("--root").arg(site.root()).arg("check").output()?;
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let told = check()?;
        ensure!(told.contains(says), "{told}");
        drop(dnsmasq);

        let servers = site.up()?;
        let findings = || -> Result<String> { Ok(site.browser().get("/api/v1/findings")?.body) };
        ensure!(!findings()?.contains("second-dhcp"), "it takes itself for another one");
        let dnsmasq = start_dnsmasq(&site, &place, &["-C", "/dev/null"])?;
        let client = site.lan().add_client("client", MAC)?;
        let deadline = Instant::now() + Duration::from_secs(60);
        while !findings()?.contains("second-dhcp") {
            ensure!(Instant::now() < deadline, "nobody tells of it: {}", findings()?);
            // With the broadcast flag, so that its offer is heard by all.
            let _ = client
                .command("udhcpc")
                .args(["-n", "-q", "-B", "-i", "eth0", "-s"])
                .arg("/bin/true")
                .output();
        }
        for told in [findings()?, site.run(&["status"])?] {
            ensure!(told.contains("10.77.0.9"), "{told}");
        }
        servers.stop()?;

        let path = site.root().join("etc/bootlace/bootlace.toml");
        let config = std::fs::read_to_string(&path)?;
        std::fs::write(&path, config.replace("[network]", "[network]\nbeside_others = true"))?;
        let servers = site.up()?;
        let told = check()?;
        ensure!(!told.contains("other server") && !told.contains("DHCP server"), "{told}");
        servers.stop()?;
        drop(dnsmasq);
        Ok(())
    };
    run().unwrap_or_else(|error| panic!("{error:?}"));
}

#[test]
fn only_a_pc_in_its_firmware_is_told_that_there_is_no_ipv6_router() {
    on_a_lan("rdisc6", &["udhcpc", "rdisc6"], |client, folder| {
        let solicit = || -> Result<String> {
            let output = client.command("rdisc6").args(["-r", "1", "eth0"]).output()?;
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let udhcpc = Udhcpc::new(client, folder)?;
        udhcpc.ask(&["-V", "PXEClient:Arch:00000:UNDI:002001", "-x", "0x5d:0000"])?;
        // The addresses of both ends are tentative for a second or two, and can't be used.
        let wait_for = |words: [&str; 2]| -> Result<String> {
            let deadline = Instant::now() + Duration::from_secs(30);
            loop {
                let text = solicit()?;
                if words.iter().any(|word| text.contains(word)) {
                    return Ok(text);
                }
                ensure!(Instant::now() < deadline, "no answer: {text}");
                std::thread::sleep(Duration::from_millis(200));
            }
        };
        let text = wait_for(["Router lifetime"; 2])?;
        ensure!(text.contains("0 (0x00000000) seconds") && !text.contains("Prefix"), "{text}");

        // A PC whose firmware has not asked for an address runs a system of its own.
        for change in ["down", "address 52:54:00:00:00:02", "up"] {
            client.netns().ip(&format!("link set eth0 {change}"))?;
        }
        let text = wait_for(["No response", "Router lifetime"])?;
        ensure!(text.contains("No response"), "a running system was told of routers: {text}");
        Ok(())
    });
}
