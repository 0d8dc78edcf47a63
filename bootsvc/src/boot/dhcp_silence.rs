//! What a person should know of DHCP requests that get no answer.

use dhcp::Reason;
use model::{FindingKind, Subject};
use service::Service;
use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use wire::Mac;

/// PCs that got no address and are named; the others are counted with them.
const NAMED_MAX: usize = 8;

/// Devices that are left out and counted are remembered for so long. Those that want an address ask each minute.
const LEFT_OUT_FOR: Duration = Duration::from_secs(3600);

/// So many are counted: more than a network of the largest size that a site has, and bounded as anybody invents NICs.
const LEFT_OUT_MAX: usize = 4096;

/// Devices that want an address and get none, as they don't boot.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    seen: BTreeMap<Mac, Instant>,
}

impl LeftOut {
    pub(super) fn note(&mut self, mac: Mac, now: Instant) {
        if self.seen.len() < LEFT_OUT_MAX || self.seen.contains_key(&mac) {
            self.seen.insert(mac, now);
        }
    }

    pub(super) fn count(&mut self, now: Instant) -> u32 {
        self.seen.retain(|_, at| now.duration_since(*at) < LEFT_OUT_FOR);
        u32::try_from(self.seen.len()).unwrap_or(u32::MAX)
    }
}

/// Who asked in vain for an address lately.
#[derive(Debug)]
pub(super) struct InVain {
    /// That another server answers is nothing to tell.
    is_beside_others: bool,
    machines: VecDeque<Mac>,
    strangers: VecDeque<Mac>,
    /// Who took another server's offer.
    taken: VecDeque<Mac>,
    /// Addresses that only these NICs get, by the configuration.
    configured: BTreeMap<Mac, Ipv4Addr>,
    /// All that only these get.
    reserved: BTreeMap<Mac, Ipv4Addr>,
}

impl InVain {
    pub(super) fn new(is_beside_others: bool, configured: BTreeMap<Mac, Ipv4Addr>) -> Self {
        Self {
            is_beside_others,
            machines: VecDeque::new(),
            strangers: VecDeque::new(),
            taken: VecDeque::new(),
            reserved: configured.clone(),
            configured,
        }
    }

    /// These addresses, too, only these NICs get.
    pub(super) fn reserve(&mut self, fixed: &BTreeMap<Mac, Ipv4Addr>) {
        self.reserved.clone_from(fixed);
        self.reserved.extend(&self.configured);
    }

    /// The PC has this address: what kept it from having one is over.
    pub(super) fn has_address(&mut self, service: &Service, mac: Mac, address: Ipv4Addr) {
        if self.reserved.get(&mac) == Some(&address) {
            service.resolved(FindingKind::ReservedInUse, &Subject::Address(address));
        }
        for (waiting, kind) in [
            (&mut self.machines, FindingKind::NoAddressLeft),
            (&mut self.strangers, FindingKind::StrangersShareFull),
        ] {
            let n_before = waiting.len();
            waiting.retain(|other| *other != mac);
            // Whoever else asks in vain asks again.
            if waiting.is_empty() && n_before > 0 {
                service.resolved(kind, &Subject::Server);
            }
        }
    }

    /// A request gets no answer, for this reason.
    pub(super) fn note(&mut self, service: &Service, mac: Mac, reason: &Reason) {
        let who = service.subject_of(mac);
        let (kind, subject, cause) = match reason {
            Reason::OtherServer(_) if self.is_beside_others => return,
            // No server has such an address, whoever says that he chose it.
            Reason::OtherServer(other) if !dhcp::can_be_host(*other) => return,
            Reason::OtherServer(other) => (
                FindingKind::SecondDhcp,
                Subject::Address(*other),
                format!(
                    "Probably two DHCP servers answer here. Took an offer of this one, the last first: {}",
                    names(service, &mut self.taken, mac)
                ),
            ),
            Reason::PoolExhausted(first, last) => (
                FindingKind::NoAddressLeft,
                Subject::Server,
                format!(
                    "No address is left in the pool {first}-{last}. Asked in vain, the last first: {}",
                    names(service, &mut self.machines, mac)
                ),
            ),
            Reason::StrangersShareExhausted(n_max) => (
                FindingKind::StrangersShareFull,
                Subject::Server,
                format!(
                    "PCs that are no machines have as many addresses as they may have ({n_max}). Asked in vain, \
                     the last first: {}",
                    names(service, &mut self.strangers, mac)
                ),
            ),
            Reason::ReservedInUse(address) => (
                FindingKind::ReservedInUse,
                Subject::Address(*address),
                format!("The address is reserved for {who}, but somebody else holds it"),
            ),
            Reason::ForeignRelay(relay) => (
                FindingKind::ForeignRelay,
                Subject::Address(*relay),
                format!("A relay asks for {who}, and is in no network of bootlace.toml"),
            ),
            Reason::ForeignLink(relay, link) => (
                FindingKind::ForeignRelay,
                Subject::Address(*relay),
                format!(
                    "A relay asks for {who} in the network of {link}, which is in none of bootlace.toml"
                ),
            ),
            Reason::StillInUse(_) => return service.refused_release(mac, false),
            Reason::InUseElsewhere(_) => return service.refused_release(mac, true),
            Reason::NotLeased(_)
            | Reason::NotDeclined(_)
            | Reason::Others(_)
            | Reason::NoRecord(_)
            | Reason::NoNetworkHere
            | Reason::NoBootClient
            | Reason::NoHost(_)
            | Reason::NoAddress(_) => return,
        };
        service.found(kind, &subject, cause);
    }
}

/// A client found its address in use.
pub(super) fn note_declined(service: &Service, mac: Mac, address: Ipv4Addr) {
    let who = service.subject_of(mac);
    let cause = format!("{who} says that somebody else uses the address");
    service.found(FindingKind::AddressInUse, &Subject::Address(address), cause);
}

/// The names of those who asked last, with this one.
fn names(service: &Service, last: &mut VecDeque<Mac>, mac: Mac) -> String {
    last.retain(|other| *other != mac);
    last.truncate(NAMED_MAX - 1);
    last.push_front(mac);
    let names: Vec<String> = last.iter().map(|&mac| service.subject_of(mac).to_string()).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use service::Options;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 101);

    fn mac(n: u8) -> Mac {
        Mac([2, 0, 0, 0, 0, n])
    }

    async fn found(service: &Service) -> Vec<(FindingKind, String)> {
        service.findings().await.into_iter().map(|it| (it.kind, it.cause)).collect()
    }

    #[test]
    fn a_device_that_is_left_out_counts_once_and_for_an_hour() {
        let (mut left_out, start) = (LeftOut::default(), Instant::now());
        left_out.note(mac(1), start);
        left_out.note(mac(1), start + LEFT_OUT_FOR / 2);
        left_out.note(mac(2), start);
        assert_eq!(left_out.count(start + LEFT_OUT_FOR / 2), 2);
        assert_eq!(left_out.count(start + LEFT_OUT_FOR), 1);
    }

    #[tokio::test]
    async fn what_kept_a_pc_from_its_address_is_over_when_it_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let options = Options { init: None, ..Options::under(folder.path()) };
        let service = Service::open(options).unwrap();
        let before = found(&service).await.len();
        let mut in_vain = InVain::new(false, [(mac(1), ADDRESS)].into());
        in_vain.note(&service, mac(1), &Reason::ReservedInUse(ADDRESS));
        assert_eq!(found(&service).await.len(), before + 1);
        in_vain.has_address(&service, mac(2), ADDRESS);
        assert_eq!(found(&service).await.len(), before + 1, "its holder has prolonged it");
        in_vain.has_address(&service, mac(1), Ipv4Addr::new(10, 77, 0, 102));
        assert_eq!(found(&service).await.len(), before + 1, "it has another one meanwhile");
        in_vain.has_address(&service, mac(1), ADDRESS);
        assert_eq!(found(&service).await.len(), before);

        for n in [2, 3] {
            in_vain.note(&service, mac(n), &Reason::StrangersShareExhausted(1));
            in_vain.note(&service, mac(n), &Reason::PoolExhausted(ADDRESS, ADDRESS));
        }
        let text = "PCs that are no machines have as many addresses as they may have (1).";
        let is_told = found(&service).await.iter().any(|(_, cause)| cause.starts_with(text));
        assert!(is_told, "{:?}", found(&service).await);
        in_vain.has_address(&service, mac(2), ADDRESS);
        assert_eq!(found(&service).await.len(), before + 2, "the other one asks still");
        in_vain.has_address(&service, mac(3), ADDRESS);
        assert_eq!(found(&service).await.len(), before);
    }
}
