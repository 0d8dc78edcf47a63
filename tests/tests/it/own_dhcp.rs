//! A machine that asks for its address itself, of a foreign DHCP server that is late.

use crate::boot::{BOOT, COMMAND, MAC, can_boot};
use anyhow::{Result, ensure};
use lab::{Daemon, Lan, Need, Pc, PcSlots, Preboot, Recipe, Site, require};
use nix::sys::signal::Signal;
use std::time::Duration;

/// dnsmasq says that the lease is renewed after 5 s.
const RENEWAL: Duration = Duration::from_secs(20);

#[test]
fn a_machine_waits_for_a_late_dhcp_server_and_renews_its_lease() {
    let needs = ["udhcpc", "curl", "dnsmasq"].map(Need::Program);
    if can_boot("own-dhcp") && require("own-dhcp", &needs) {
        own_dhcp().unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn own_dhcp() -> Result<()> {
    let _slot = PcSlots::take(1)?;
    let image = Recipe::default().image(|text| eprintln!("{text}"))?;
    let site = Site::builder()
        .kernel_args("console=tty0 console=ttyS0,115200 init=/bin/sh quiet")
        .network("address_by = \"dhcp\"")
        .create(Lan::lay("own-dhcp")?)?;
    site.run(&["image", "import", &image.to_string_lossy(), "--name", "debian"])?;
    site.run(&["machine", "set", "pc-1", "--mac", MAC, "--image", "debian"])?;
    let _storage = site.storage()?;
    let servers = site.serve()?;
    let kernel = Preboot::start(&site, MAC)?.fetch()?;
    ensure!(kernel.command_line.contains("bootlace.address=dhcp"), "{}", kernel.command_line);
    let view = site.browser().json("/api/v1/machines/pc-1")?;
    let address = view["address"].as_str().unwrap_or_default().to_owned();
    servers.stop()?;

    let pc = Pc::builder("pc-1").mac(MAC).kernel(&kernel).start(site.lan())?;
    let console = pc.console();
    console.wait_for("eth0 has a link, but no DHCP server has answered for 10 s", BOOT)?;
    let mut dnsmasq = site.lan().netns().command("dnsmasq", Signal::SIGKILL);
    dnsmasq.args(["--no-daemon", "--conf-file=/dev/null", "--port=0", "--log-dhcp"]);
    dnsmasq.args(["--interface=br0", "--leasefile-ro", "--dhcp-authoritative"]);
    dnsmasq.args(["--dhcp-range=10.77.0.100,static,10m", "--dhcp-option=option:T1,5"]);
    dnsmasq.args(["--dhcp-option=option:router,10.77.0.9", "--domain=lab.example"]);
    // Who takes these takes no other router (RFC 3442).
    dnsmasq.arg("--dhcp-option=121,10.9.0.0/16,10.77.0.253,0.0.0.0/0,10.77.0.254");
    dnsmasq.arg(format!("--dhcp-host={MAC},{address}"));
    let log = site.root().join("dnsmasq.log");
    let mut dnsmasq = Daemon::start_detached("dnsmasq", &mut dnsmasq, &log)?;

    console.wait_for(&format!("{address}/24 by DHCP from 10.77.0.1, router 10.77.0.254"), BOOT)?;
    console.wait_for("\n# ", BOOT)?;
    let lease = console.shell("dmesg -n emerg; cat /run/bootlace/lease.json", COMMAND)?;
    let address = format!("\"address\":\"{address}\"");
    for word in [address.as_str(), "\"domain\":\"lab.example\"", "\"renew_seconds\":5,"] {
        ensure!(lease.contains(word), "{lease}");
    }
    let routes = console.shell("cat /proc/net/route", COMMAND)?;
    // 10.9.0.0 by 10.77.0.253, and everything by 10.77.0.254.
    for route in ["0000090A\tFD004D0A", "00000000\tFE004D0A"] {
        ensure!(routes.contains(route), "{route}: {routes}");
    }
    ensure!(!routes.contains("09004D0A"), "{routes}");
    let count = |daemon: &Daemon| daemon.log().matches("DHCPACK(br0)").count();
    let once = count(&dnsmasq);
    dnsmasq.wait_until("renew the lease", RENEWAL, |daemon| count(daemon) > once)?;
    Ok(())
}
