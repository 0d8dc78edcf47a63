//! What a person should know of DHCP requests that get no answer.

use dhcp::Reason;
use model::{FindingKind, Subject};
use service::Service;
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use wire::Mac;

/// PCs that got no address and are named; the others are counted with them.
const NAMED_MAX: usize = 8;

/// Who asked in vain for an address lately.
#[derive(Debug)]
pub(super) struct InVain {
    /// That another server answers is nothing to tell.
    is_beside_others: bool,
    machines: VecDeque<Mac>,
    strangers: VecDeque<Mac>,
}

impl InVain {
    pub(super) fn new(is_beside_others: bool) -> Self {
        Self { is_beside_others, machines: VecDeque::new(), strangers: VecDeque::new() }
    }

    /// A request gets no answer, for this reason.
    pub(super) fn note(&mut self, service: &Service, mac: Mac, reason: &Reason) {
        let who = service.subject_of(mac);
        let (kind, subject, cause) = match reason {
            Reason::OtherServer(_) if self.is_beside_others => return,
            Reason::OtherServer(other) => (
                FindingKind::SecondDhcp,
                Subject::Address(*other),
                format!(
                    "{who} took the offer of the DHCP server {other}: probably two answer here"
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
                    "PCs that are no machines have all {n_max} addresses that they may have. Asked in vain, the \
                     last first: {}",
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
                format!("This relay asks for {who}, and is not on the boot network"),
            ),
            Reason::StillInUse(_) => return service.refused_release(mac),
            Reason::NotLeased(_) | Reason::Others(_) | Reason::NoAddress => return,
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
