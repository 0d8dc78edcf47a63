//! Who says that he is a machine, where another server gives the addresses, and nobody's card can be seen behind a router.

use crate::boot::MAC;
use anyhow::{Context, Result, ensure};
use lab::{Client, Lan, Need, Site, require, text_of};

/// Where the machine is behind the router, and on the link.
const FAR: &str = "10.20.0.5";
const NEAR: &str = "10.77.0.50";

/// Behind the router, too, where a host of the link says that it is.
const PRETENDED: &str = "10.20.0.99";

const IMPOSTOR_MAC: &str = "52:54:00:66:00:01";

/// A site whose LAN has a router to another network, `far1`.
struct Place {
    site: Site,
    _router: Client,
}

impl Place {
    fn lay(name: &str) -> Result<Self> {
        let lan = Lan::lay(name)?;
        lan.add_bridge_of("far1", None)?;
        let router = Client::unplugged("router")?;
        lan.plug("br0", &router, "up0", "52:54:00:00:00:f2")?;
        lan.plug("far1", &router, "down0", "52:54:00:00:01:f2")?;
        router.netns().ip("address add 10.77.0.2/24 dev up0")?;
        router.netns().ip("address add 10.20.0.1/16 dev down0")?;
        text_of(router.command("sysctl").args(["-w", "net.ipv4.ip_forward=1"]))?;
        lan.netns().ip("route add 10.20.0.0/16 via 10.77.0.2")?;
        let site = Site::builder().verbose().network("mode = \"external\"").create(lan)?;
        Ok(Self { site, _router: router })
    }

    /// A host with this card and address.
    fn host(&self, bridge: &str, mac: &str, address: &str) -> Result<Client> {
        let host = Client::unplugged("host")?;
        self.site.lan().plug(bridge, &host, "eth0", mac)?;
        host.netns().ip(&format!("address add {address} dev eth0"))?;
        Ok(host)
    }

    /// Where the machine is, as the boot server knows it.
    fn address(&self) -> Result<String> {
        let view = self.site.browser().json("/api/v1/machines/pc-1")?;
        Ok(view["address"].as_str().unwrap_or_default().to_owned())
    }

    fn is_at(&self, address: &str) -> Result<()> {
        let known = self.address()?;
        ensure!(known == address, "it is at {known:?}, and not at {address}");
        Ok(())
    }
}

/// What a loader on this host is told that says that its card is the machine's. `from`: as which address it asks, if not as its own.
fn claims(host: &Client, from: Option<&str>) -> Result<String> {
    let mut told = String::new();
    for what in ["start", "machine"] {
        let url = format!("tftp://10.77.0.1/grub/pc/{what}/x86_64-efi/{MAC}");
        let mut curl = host.command("curl");
        curl.args(["-sS", "-m", if from.is_some() { "3" } else { "30" }]);
        curl.args(from.into_iter().flat_map(|from| ["--interface", from]));
        told = match (text_of(curl.arg(&url)), from) {
            (Ok(told), _) => told,
            // It can't hear the answer.
            (Err(_), Some(_)) => String::new(),
            (Err(error), None) => return Err(error).with_context(|| url),
        };
    }
    Ok(told)
}

#[test]
fn behind_a_router_a_claim_counts_unless_the_machine_is_seen_elsewhere() {
    let needs = ["grub-mkimage", "curl"].map(Need::Program);
    if require("claims", &[Need::Root]) && require("claims", &needs) {
        believed().unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn believed() -> Result<()> {
    let place = Place::lay("claims")?;
    let servers = place.site.up()?;
    place.site.run(&["machine", "set", "pc-1", "--mac", MAC])?;
    let far = place.host("far1", "52:54:00:00:20:05", &format!("{FAR}/16"))?;
    far.netns().ip("route add default via 10.20.0.1")?;
    let test = || -> Result<()> {
        // Nothing says otherwise.
        let told = claims(&far, None)?;
        ensure!(told.contains("pc-1"), "{told}");
        place.is_at(FAR)?;

        // Of a host on the link the card is seen.
        let impostor = place.host("br0", IMPOSTOR_MAC, "10.77.0.66/24")?;
        let told = claims(&impostor, None)?;
        ensure!(told.contains(&format!("but {IMPOSTOR_MAC} answers at its address")), "{told}");
        place.is_at(FAR)?;

        // The machine itself is.
        let own = place.host("br0", MAC, &format!("{NEAR}/24"))?;
        let told = claims(&own, None)?;
        ensure!(told.contains("pc-1"), "{told}");
        place.is_at(NEAR)?;

        // From then on nobody takes its name by another network's address, whether he hears the answer or not.
        impostor.netns().ip(&format!("address add {PRETENDED}/32 dev eth0"))?;
        claims(&impostor, Some(PRETENDED))?;
        place.is_at(NEAR)?;
        let log = servers.log();
        ensure!(log.contains(PRETENDED) && log.contains("that card answers at"), "{log}");
        let told = claims(&far, None)?;
        ensure!(told.contains(&format!("but that card answers at {NEAR}")), "{told}");
        place.is_at(NEAR)?;

        // Once it is gone from there, it may be behind the router.
        drop(own);
        let told = claims(&far, None)?;
        ensure!(told.contains("pc-1"), "{told}");
        place.is_at(FAR)
    };
    test().with_context(|| servers.log())?;
    servers.stop()
}
