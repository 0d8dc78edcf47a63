//! Addresses that somebody has whom we gave none: looked for ahead, so that no PC gets one and no offer waits for that.

use crate::net::arp::Arp;
use crate::net::link::Link;
use dhcp::{Heard, Networks};
use model::{FindingKind, Subject};
use service::Service;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use wire::Mac;

/// So many addresses are asked for at once, and then there is a pause.
const AT_ONCE: u32 = 8;
const PAUSE: Duration = Duration::from_millis(250);

/// How long it is waited when all were asked for: shorter than an address rests that somebody was heard to have.
const REST: Duration = Duration::from_secs(dhcp::DECLINED_SECONDS / 2);

/// Who has more addresses than that is a router that answers for others, or somebody who plays tricks: he is not believed.
const OF_ONE_MAX: usize = 8;

/// How long it is waited after an error.
const RETRY: Duration = Duration::from_secs(10);

/// Answers that wait for the decision.
const ANSWERS_MAX: usize = 64;

/// Somebody has an address.
pub(super) struct Answer {
    interface: usize,
    mac: Mac,
    address: Ipv4Addr,
}

/// What is asked on an interface.
struct Probe {
    link: Link,
    to: mpsc::Sender<Vec<Ipv4Addr>>,
    /// Where it goes on.
    next: Option<Ipv4Addr>,
}

/// The probes of all interfaces.
pub(super) struct Probes {
    places: Vec<Probe>,
    /// Which interface's turn it is.
    turn: usize,
    at: Instant,
    answers: mpsc::Receiver<Answer>,
    /// What was asked for last, and just before, and nobody has answered for.
    asked: [Vec<Ipv4Addr>; 2],
    /// What one NIC was heard to have.
    of_one: BTreeMap<Mac, Vec<Ipv4Addr>>,
}

impl Probes {
    /// On these interfaces, by their numbers, from now on.
    pub(super) fn begin(links: Vec<Link>) -> Self {
        let (heard, answers) = mpsc::channel(ANSWERS_MAX);
        let begin = |(interface, link): (usize, Link)| {
            let (to, addresses) = mpsc::channel(1);
            tokio::spawn(ask(interface, link.clone(), addresses, heard.clone()));
            Probe { link, to, next: None }
        };
        let places = links.into_iter().enumerate().map(begin).collect();
        let (asked, of_one) = Default::default();
        Self { places, turn: 0, at: Instant::now(), answers, asked, of_one }
    }

    /// Waits until there is something to ask or to hear.
    pub(super) async fn next(&mut self) -> Option<Answer> {
        tokio::select! {
            answer = self.answers.recv() => answer,
            () = tokio::time::sleep_until(self.at) => None,
        }
    }

    /// Asks for the next addresses.
    pub(super) fn ask(&mut self, server: &Networks, now: u64) {
        let Some(place) = self.places.get_mut(self.turn) else {
            (self.turn, self.at) = (0, Instant::now() + REST);
            self.of_one.clear();
            return;
        };
        self.at = Instant::now() + PAUSE;
        if place.link.trouble().is_some() {
            self.turn += 1;
            return;
        }
        let (addresses, next) = server.unleased(self.turn, place.next, AT_ONCE, now);
        place.next = next;
        if next.is_none() {
            self.turn += 1;
        }
        self.asked.swap(0, 1);
        self.asked[0].clone_from(&addresses);
        // Who still asks for the former ones is asked again in the next round.
        let _ = place.to.try_send(addresses);
    }

    /// Somebody has an address, which rests if we gave it to nobody; after a restart it is asked for again.
    pub(super) fn heard(&mut self, answer: &Answer, server: &mut Networks, service: &Service) {
        let Answer { interface, mac, address } = *answer;
        // Anybody can answer as often as he likes, for any address and by any NIC.
        let mut asked = self.asked.iter_mut();
        let found = asked.find_map(|all| Some((all.iter().position(|it| *it == address)?, all)));
        let Some((place, all)) = found else { return };
        all.swap_remove(place);
        let own = self.of_one.entry(mac).or_default();
        if !own.contains(&address) {
            own.push(address);
        }
        if own.len() > OF_ONE_MAX {
            tracing::debug!(%mac, %address, "answers for many addresses, and is not believed");
            return;
        }
        let who = service.subject_of(mac);
        match server.heard(interface, mac, address, service.lease_clock_unix()) {
            Heard::Right => {}
            Heard::Conflict(owner) => {
                let owner = service.subject_of(owner);
                let cause = format!("{who} uses the address, which {owner} has leased");
                service.found(FindingKind::AddressInUse, &Subject::Address(address), cause);
            }
            Heard::Rests(until) => {
                service.note_heard(address, mac, until);
                let cause = format!(
                    "{who} uses the address, which is in the pool, without a lease of it; no PC gets it"
                );
                service.found(FindingKind::AddressInUse, &Subject::Address(address), cause);
            }
        }
    }
}

/// Asks on one interface for what comes, and tells who answers.
async fn ask(
    interface: usize,
    link: Link,
    mut addresses: mpsc::Receiver<Vec<Ipv4Addr>>,
    heard: mpsc::Sender<Answer>,
) {
    let mut arp: Option<(Mac, Arp)> = None;
    loop {
        // Another interface of the name has another address, as a rule.
        if arp.as_ref().is_some_and(|(mac, _)| link.mac() != Some(*mac)) {
            arp = None;
        }
        if arp.is_none()
            && let Some(mac) = link.mac()
        {
            match Arp::open(link.interface(), mac) {
                Ok(opened) => arp = Some((mac, opened)),
                Err(error) => {
                    tracing::debug!(interface = link.interface(), %error, "addresses can't be asked for");
                    tokio::time::sleep(RETRY).await;
                    if heard.is_closed() {
                        return;
                    }
                    continue;
                }
            }
        }
        let answer = async {
            match &arp {
                Some((_, arp)) => arp.answer().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            all = addresses.recv() => {
                let Some(all) = all else { return };
                let Some((_, socket)) = &arp else { continue };
                if all.into_iter().any(|address| socket.probe(address).is_err()) {
                    arp = None;
                }
            }
            answer = answer => match answer {
                Ok((mac, address)) => {
                    if heard.send(Answer { interface, mac, address }).await.is_err() {
                        return;
                    }
                }
                Err(_) => {
                    // A socket on an interface that is switched off fails at once, and so does the next one.
                    arp = None;
                    tokio::time::sleep(RETRY).await;
                }
            },
        }
    }
}
