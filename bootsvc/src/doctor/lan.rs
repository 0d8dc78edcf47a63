//! The networks of PCs: who else is there that must not be, and what is lost on the way to machines that run.

use super::{Area, Look, others};
use crate::check::{Verdict, at_once};
use crate::config::Config;
use crate::net::arp::Arp;
use crate::net::link::look_at;
use crate::net::neighbours::heard_at;
use crate::network::{Served, interfaces, networks};
use crate::programs::{NoAnswer, ask_within};
use fakeclient::aoe_search::{self, Found};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::thread;
use std::time::Duration;
use wire::Mac;

/// How long answers are waited for; on a cable they come within a millisecond.
const ANSWERS: Duration = Duration::from_millis(700);

/// So many machines that run are asked.
const MACHINES_MAX: usize = 16;

/// Headers of IPv4 and ICMP before what is sent.
const PING_HEADERS: u32 = 28;

/// A link that carries nothing for so long after it is up is held by spanning tree: it listens and learns for 15 s each
/// (IEEE 802.1D-1998, 8.10.2), and RSTP without an edge port for some seconds.
const LINK_HELD_MS: u64 = 8_000;

/// What boots from a network, and where it listens: all that firewalls must let in.
const PORTS: &str = "UDP 67, 69, 4011 and 4915, TCP 80 and 10809, and UDP from any port for TFTP";

/// All of them; `machines` are as the boot server has them.
pub(super) fn looks(config: &Config, machines: &[Value]) -> Vec<Look> {
    // What is wrong with the networks themselves is for check to tell.
    let Ok(networks) = networks(config) else { return Vec::new() };
    let mut verdicts = Vec::new();
    let on_links =
        at_once(interfaces(&networks), |(interface, server)| on_link(interface, server, machines));
    verdicts.extend(on_links.into_iter().flatten());
    verdicts.extend(networks.iter().filter(|it| it.network.is_relayed).map(way_back));
    verdicts.extend(others::looks(&networks));
    verdicts.extend(packets(&networks, machines));
    verdicts.extend(spanning_tree(machines));
    verdicts.extend(firewall());
    verdicts.into_iter().map(|verdict| Look::new(Area::Network, verdict)).collect()
}

/// Others who have what must be ours.
fn on_link(interface: &str, server: Ipv4Addr, machines: &[Value]) -> Vec<Verdict> {
    let Some(own) = look_at(interface, server).ok().and_then(|state| state.mac) else {
        return Vec::new();
    };
    let unseen = |what: &str, error: io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied => Verdict::Unseen(format!("{what} on {interface}")),
        _ => Verdict::Better(format!("{what} on {interface} can't be found out: {error}")),
    };
    let address = match has_other(interface, server) {
        Ok(None) => Verdict::Right(format!("nobody else on {interface} has the address {server}")),
        Ok(Some(mac)) => Verdict::Wrong(format!(
            "{mac} on {interface} has the server's address {server}, too: PCs reach whichever answers first. Give that device \
             another one"
        )),
        Err(error) => unseen("whether somebody else has the server's address", error),
    };
    let disks = match aoe_search::search(interface, own, ANSWERS) {
        Ok(found) => aoe(interface, &found.into_iter().collect::<Vec<_>>(), machines),
        Err(error) => unseen("who else serves disks over AoE", error),
    };
    let broadcasts = match deaf_to_broadcasts(interface, server) {
        Ok((0, _)) => None,
        Ok((n_asked, deaf)) => Some(broadcasts(interface, n_asked, &deaf)),
        Err(error) => Some(unseen("whether packets to everybody get through", error)),
    };
    [address, disks].into_iter().chain(broadcasts).collect()
}

/// Who answers when he is asked alone, and not when everybody is asked; and of how many that is known. Both times it is the same
/// question, so something on the way makes the difference.
fn deaf_to_broadcasts(
    interface: &str,
    server: Ipv4Addr,
) -> io::Result<(usize, Vec<(Ipv4Addr, Mac)>)> {
    let mut heard = heard_at(interface);
    heard.truncate(MACHINES_MAX);
    if heard.is_empty() {
        return Ok((0, heard));
    }
    let here = look_at(interface, server)?.mac.ok_or(io::ErrorKind::NotFound)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let arp = Arp::open(interface, here)?;
        let mut there = BTreeSet::new();
        heard.iter().try_for_each(|&(address, mac)| arp.probe_at(mac, address))?;
        hear(&arp, heard.len(), &mut there).await?;
        heard.retain(|(address, mac)| there.contains(&(*address, *mac)));
        let n_asked = heard.len();
        // Once more, as any packet may be lost.
        for _ in 0..2 {
            let mut answered = BTreeSet::new();
            heard.iter().try_for_each(|&(address, _)| arp.probe(address))?;
            hear(&arp, heard.len(), &mut answered).await?;
            heard.retain(|(address, mac)| !answered.contains(&(*address, *mac)));
        }
        Ok((n_asked, heard))
    })
}

/// Hears answers until so many are there, or no more come.
async fn hear(arp: &Arp, n: usize, answers: &mut BTreeSet<(Ipv4Addr, Mac)>) -> io::Result<()> {
    let end = tokio::time::Instant::now() + ANSWERS;
    while answers.len() < n {
        match tokio::time::timeout_at(end, arp.answer()).await {
            Ok(answer) => {
                let (mac, address) = answer?;
                answers.insert((address, mac));
            }
            Err(_) => break,
        }
    }
    Ok(())
}

fn broadcasts(interface: &str, n_asked: usize, deaf: &[(Ipv4Addr, Mac)]) -> Verdict {
    if deaf.is_empty() {
        return Verdict::Right(format!(
            "packets to everybody get through on {interface}: {n_asked} of those that are there were asked"
        ));
    }
    let list: Vec<String> =
        deaf.iter().map(|(address, mac)| format!("{address} ({mac})")).collect();
    Verdict::Wrong(format!(
        "packets to everybody on {interface} are lost on the way to these, and packets to them alone are not, so PCs there hear no \
         DHCP: {}. A switch or an access point in between filters broadcasts: look for storm control, client isolation or the like, \
         and allow them in this network",
        list.join(", ")
    ))
}

/// Whether somebody else has the address.
pub(super) fn has_other(interface: &str, address: Ipv4Addr) -> io::Result<Option<Mac>> {
    // Another card of this computer on the same cable answers, too.
    let own: Vec<Mac> = nix::ifaddrs::getifaddrs()?
        .filter_map(|it| it.address?.as_link_addr()?.addr().map(Mac))
        .collect();
    let here = look_at(interface, address)?.mac.ok_or(io::ErrorKind::NotFound)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let arp = Arp::open(interface, here)?;
        arp.probe(address)?;
        let answers = async {
            loop {
                match arp.answer().await {
                    Ok((mac, of)) if of == address && !own.contains(&mac) => return Ok(Some(mac)),
                    Ok(_) => {}
                    Err(error) => return Err(error),
                }
            }
        };
        tokio::time::timeout(ANSWERS, answers).await.unwrap_or(Ok(None))
    })
}

fn aoe(interface: &str, found: &[Found], machines: &[Value]) -> Verdict {
    let owner = |disk: &Found| {
        let name = format!("{}.{}", disk.shelf, disk.slot);
        let owner = machines.iter().find(|machine| machine["shelf_slot"] == name.as_str())?;
        Some(format!("{name}, which is {}'s, at {}", owner["name"].as_str()?, disk.server))
    };
    let twice: Vec<String> = found.iter().filter_map(owner).collect();
    let mut servers: BTreeMap<Mac, usize> = BTreeMap::new();
    for disk in found {
        *servers.entry(disk.server).or_default() += 1;
    }
    let list: Vec<String> = servers.iter().map(|(mac, n)| format!("{mac} (disks: {n})")).collect();
    match (twice.is_empty(), list.is_empty()) {
        (false, _) => Verdict::Wrong(format!(
            "another AoE server on {interface} has disks of our machines: {}. A machine may take either: give those other numbers, \
             or keep that server out of this network",
            twice.join("; ")
        )),
        (true, true) => Verdict::Right(format!("nobody else serves disks over AoE on {interface}")),
        (true, false) => Verdict::Right(format!(
            "other AoE servers on {interface}, which have no disk of ours: {}",
            list.join(", ")
        )),
    }
}

/// Whether the server can answer PCs behind a relay.
fn way_back(served: &Served) -> Verdict {
    let network = &served.network;
    let name = format!("{}/{}", network.subnet, network.prefix);
    let to = network.router.unwrap_or(network.subnet);
    let way = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.connect((to, 9))?;
        socket.local_addr()
    });
    match way {
        Ok(from) if from.ip() == network.server => {
            Verdict::Right(format!("there is a way back to the network {name} behind its relay"))
        }
        Ok(from) => Verdict::Better(format!(
            "the way back to the network {name} leaves from {}, and its PCs ask at {}: see that their router takes answers from there \
             (ip route get {to})",
            from.ip(),
            network.server
        )),
        Err(error) => Verdict::Wrong(format!(
            "there is no way back to the network {name} behind its relay ({error}): its PCs get no answer. Add a route, like: ip route \
             add {name} via ROUTER"
        )),
    }
}

/// Machines that run, with their addresses.
fn running(machines: &[Value]) -> Vec<(String, Ipv4Addr)> {
    let is_up = |machine: &&Value| machine["state"]["word"] == "up";
    let named = |machine: &Value| {
        let address = machine["address"].as_str()?.parse().ok()?;
        Some((machine["name"].as_str()?.to_owned(), address))
    };
    machines.iter().filter(is_up).filter_map(named).take(MACHINES_MAX).collect()
}

/// Whether packets of full size go both ways; an answer is as long as its question.
fn packets(networks: &[Served], machines: &[Value]) -> Option<Verdict> {
    let running = running(machines);
    if running.is_empty() {
        return None;
    }
    let asked = running.iter().map(|(name, address)| {
        let network = networks.iter().find(|it| it.network.holds(*address));
        let mtu = network
            .map_or(1500, |it| it.network.mtu.map_or_else(|| mtu_of(&it.interface), u32::from));
        thread::spawn({
            let (name, address) = (name.clone(), address.to_string());
            move || {
                let [small, full] =
                    [56, mtu.saturating_sub(PING_HEADERS)].map(|size| ping(&address, size));
                (name, mtu, small, full)
            }
        })
    });
    let asked: Vec<_> = asked.collect();
    let answered: Vec<_> = asked.into_iter().filter_map(|it| it.join().ok()).collect();
    if answered.iter().any(|(.., small, _)| small.is_none()) {
        return Some(Verdict::Better(
            "whether packets of full size reach machines is not known: install Debian's package iputils-ping".to_owned(),
        ));
    }
    let lost =
        answered.iter().filter(|(.., small, full)| *small == Some(true) && *full == Some(false));
    let lost: Vec<String> = lost.map(|(name, mtu, ..)| format!("{name} ({mtu} bytes)")).collect();
    let n_heard = answered.iter().filter(|(.., small, _)| *small == Some(true)).count();
    Some(match (lost.is_empty(), n_heard) {
        (false, _) => Verdict::Wrong(format!(
            "small packets reach these machines, and packets of full size are lost on the way, so their disks hang: {}. A switch, \
             tunnel or VLAN in between takes only shorter ones: correct it, or set mtu in bootlace.toml",
            lost.join(", ")
        )),
        (true, 0) => Verdict::Better(format!(
            "machines that are up answer no ping, so how long packets may be is not known: {}",
            running.iter().map(|it| it.0.as_str()).collect::<Vec<_>>().join(", ")
        )),
        (true, n) => Verdict::Right(format!(
            "packets of full size go both ways: {n} machines that run were asked"
        )),
    })
}

fn mtu_of(interface: &str) -> u32 {
    let told = std::fs::read_to_string(format!("/sys/class/net/{interface}/mtu"));
    told.ok().and_then(|mtu| mtu.trim().parse().ok()).unwrap_or(1500)
}

/// Whether it answers to so many bytes that must not be cut; `None`: nothing here can ask.
fn ping(address: &str, n_bytes: u32) -> Option<bool> {
    let size = n_bytes.to_string();
    let words = ["-n", "-q", "-c", "3", "-i", "0.2", "-W", "1", "-M", "do", "-s", &size, address];
    match ask_within(Duration::from_secs(4), "ping", &words) {
        Ok(answer) => Some(answer.is_done),
        Err(NoAnswer::Silent { .. }) => Some(false),
        Err(NoAnswer::Missing(_) | NoAnswer::Failed(..)) => None,
    }
}

/// Whether links of machines carry nothing for long after they are up.
fn spanning_tree(machines: &[Value]) -> Option<Verdict> {
    let held = |machine: &Value| {
        let stages = machine["boot"]["stages"].as_array()?;
        let at = |wanted: &str| {
            stages.iter().find(|it| it["stage"] == wanted).and_then(|it| it["at_unix_ms"].as_u64())
        };
        let ms = at("attach")?.checked_sub(at("link")?)?;
        Some((machine["name"].as_str()?.to_owned(), ms))
    };
    let booted: Vec<(String, u64)> = machines.iter().filter_map(held).collect();
    let slow: Vec<&(String, u64)> = booted.iter().filter(|(_, ms)| *ms >= LINK_HELD_MS).collect();
    if booted.is_empty() {
        return None;
    }
    Some(match slow.as_slice() {
        [] => Verdict::Right("links of machines carry packets as soon as they are up".to_owned()),
        [(name, ms), others @ ..] => Verdict::Better(format!(
            "the link of {name}{} was up for {} s before anything came through: probably spanning tree on its switch port. Make that \
             an edge port (portfast), so that each boot is as much faster",
            if others.is_empty() { String::new() } else { format!(" and {} more", others.len()) },
            ms / 1000
        )),
    })
}

/// Firewalls that let in only what they name.
fn firewall() -> Vec<Verdict> {
    let Ok(answer) = ask_within(Duration::from_secs(5), "nft", &["list", "ruleset"]) else {
        return Vec::new();
    };
    if !answer.is_done {
        return Vec::new();
    }
    let closed = closed_chains(&answer.output);
    // Rules may refuse the rest, too, or call others that let it in: of these it is not known.
    if closed.is_empty() && answer.output.contains("hook input") {
        return Vec::new();
    }
    vec![match closed.as_slice() {
        [] => Verdict::Right("nftables refuses nothing that comes in".to_owned()),
        chains => Verdict::Better(format!(
            "a firewall of this computer drops what no rule lets in ({}), and no rule there names DHCP's port: let in {PORTS} from the \
             networks of PCs",
            chains.join(", ")
        )),
    }]
}

/// Chains for what comes in that drop it unless a rule says otherwise, and have no rule for DHCP.
fn closed_chains(ruleset: &str) -> Vec<String> {
    let mut closed = Vec::new();
    let (mut table, mut chain, mut is_closed, mut has_rule) = ("", "", false, false);
    for line in ruleset.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("table ") {
            table = name.trim_end_matches('{').trim();
        } else if let Some(name) = line.strip_prefix("chain ") {
            (chain, is_closed, has_rule) = (name.trim_end_matches('{').trim(), false, false);
        } else if line.contains("hook input") {
            is_closed = line.contains("policy drop");
        } else if line.contains("dport")
            && line
                .split(|it: char| !it.is_ascii_alphanumeric())
                .any(|word| word == "67" || word == "bootps")
        {
            has_rule = true;
        } else if line == "}" && !chain.is_empty() {
            if is_closed && !has_rule {
                closed.push(format!("{table} {chain}"));
            }
            chain = "";
        }
    }
    closed
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_firewall_that_names_no_port_of_ours_is_told() {
        let ruleset = |rules: &str| {
            format!(
                "table inet filter {{\n\tchain input {{\n\t\ttype filter hook input priority filter; policy drop;\n{rules}\t}}\n\n\
                 \tchain output {{\n\t\ttype filter hook output priority filter; policy accept;\n\t}}\n}}\n"
            )
        };
        assert_eq!(closed_chains(&ruleset("\t\ttcp dport 22 accept\n")), ["inet filter input"]);
        assert!(closed_chains(&ruleset("\t\tudp dport { 67, 69 } accept\n")).is_empty());
        assert!(closed_chains(&ruleset("").replace("policy drop", "policy accept")).is_empty());
    }

    #[test]
    fn a_disk_of_ours_at_another_aoe_server_is_wrong() {
        let found = [Found { shelf: 1, slot: 7, server: Mac([2, 0, 0, 0, 0, 9]) }];
        let machines = |slot: &str| [json!({ "name": "lab-07", "shelf_slot": slot })];
        let (tag, text) = {
            let verdict = aoe("br0", &found, &machines("1.7"));
            let (tag, text) = verdict.in_words();
            (tag, text.to_owned())
        };
        assert!(
            tag == "wrong" && text.contains("1.7, which is lab-07's, at 02:00:00:00:00:09"),
            "{text}"
        );
        assert_eq!(aoe("br0", &found, &machines("1.8")).in_words().0, "ok");
        assert_eq!(aoe("br0", &[], &machines("1.7")).in_words().0, "ok");
    }

    #[test]
    fn a_link_that_a_switch_holds_is_told() {
        let machine = |attach: u64| {
            let stages = json!([{ "stage": "link", "at_unix_ms": 1000 }, { "stage": "attach", "at_unix_ms": attach }]);
            json!({ "name": "lab-07", "boot": { "stages": stages } })
        };
        let tag = |machines: &[Value]| spanning_tree(machines).map(|it| it.in_words().0);
        assert_eq!(tag(&[machine(1500)]), Some("ok"));
        assert_eq!(tag(&[machine(1500), machine(31_000)]), Some("note"));
        assert_eq!(tag(&[]), None);
    }
}
