//! Whether a machine is elsewhere than where somebody says that he is it.
//!
//! Of who is behind a router no card can be seen, and a host of our own link can write any address as its own. So such a word counts
//! only as long as nothing that can be seen or was proven says otherwise.

use crate::net::neighbours::Neighbours;
use service::Service;
use std::net::Ipv4Addr;
use wire::Mac;

/// Where the machine with this NIC is instead, in words: on our link, where its card answers, or where its system runs, which has
/// proven itself and answers. `None`: it may be at `says`, where nobody's card can be seen. Takes some seconds if its system is
/// silent.
pub(crate) async fn is_elsewhere(
    service: &Service,
    neighbours: &Neighbours,
    mac: Mac,
    says: Ipv4Addr,
) -> Option<String> {
    let known = service.address_of(mac).filter(|known| *known != says)?;
    if neighbours.answers_now(mac, known).await {
        return Some(format!("that card answers at {known}"));
    }
    service.still_runs(mac).await.then(|| format!("that card's machine runs at {known}"))
}
