//! Networks that become others while a server runs: an interface comes late, or has another address than at the start.

use crate::config::Config;
use crate::net::link::{Changes, LinkTrouble, look_at};
use crate::network::{Found, Served, find, interfaces, storage_interfaces};
use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;
use wire::error_chain;

/// Whoever changes addresses does so in several steps.
const SETTLE: Duration = Duration::from_secs(1);

/// Interfaces with our addresses there.
pub(crate) type Places = Vec<(String, Ipv4Addr)>;

/// Where a server is that serves these.
pub(crate) fn places(networks: &[Served]) -> Places {
    let all = interfaces(networks).into_iter();
    all.map(|(interface, server)| (interface.to_owned(), server)).collect()
}

/// The same in storage networks.
pub(crate) fn storage_places(networks: &[Served]) -> Places {
    let all = storage_interfaces(networks).into_iter();
    all.map(|(interface, server)| (interface.to_owned(), server)).collect()
}

/// What is another one by now, so that a server must begin anew. Its text is a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A network can be served that could not be before.
    Came {
        /// Its interface.
        interface: String,
        /// Our address there.
        server: Ipv4Addr,
    },
    /// Our address is another one.
    Renumbered {
        /// The interface.
        interface: String,
        /// The former address.
        from: Ipv4Addr,
        /// The one that it has now.
        to: Ipv4Addr,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Came { interface, server } => {
                write!(f, "the interface {interface} is there now, with the address {server}")
            }
            Self::Renumbered { interface, from, to } => {
                write!(f, "the address of the interface {interface} was {from} and is {to} now")
            }
        }
    }
}

/// Waits until a server that serves at `places`, and in storage networks at `storage`, must begin anew. `tell` is called with what keeps networks from being served,
/// in sentences, first and whenever that is something else.
pub(crate) async fn wait(
    config: &Config,
    (places, storage): (&Places, &Places),
    mut tell: impl FnMut(&[String]),
) -> Change {
    let mut told = None;
    let changes = loop {
        match Changes::open() {
            Ok(changes) => break changes,
            Err(error) => tracing::warn!(%error, "the interfaces can't be followed"),
        }
        tokio::time::sleep(SETTLE).await;
    };
    loop {
        let found = find(config);
        let lacking = lacking(&found, places);
        if told.as_ref() != Some(&lacking) {
            tell(&lacking);
            told = Some(lacking);
        }
        if change(&found, places, storage).is_some() {
            tokio::time::sleep(SETTLE).await;
            if let Some(change) = change(&find(config), places, storage) {
                return change;
            }
        }
        changes.next().await;
    }
}

/// Why networks are not served, in sentences. Whoever watches the link of an interface that is served tells what that lacks.
fn lacking(found: &Found, places: &Places) -> Vec<String> {
    let is_served = |interface: &str| places.iter().any(|place| place.0 == interface);
    let absent = found.absent.iter().filter(|(interface, _)| !is_served(interface));
    let absent = absent.map(|(_, error)| error).chain(&found.without_storage);
    absent.chain(&found.wrong).map(|error| error_chain(error)).collect()
}

/// What can be served by now and is not at `places`; nothing as long as the configuration does not fit.
fn change(found: &Found, places: &Places, storage: &Places) -> Option<Change> {
    if !found.wrong.is_empty() {
        return None;
    }
    let came = storage_interfaces(&found.served).into_iter().find(|(interface, server)| {
        storage.iter().all(|place| (place.0.as_str(), place.1) != (*interface, *server))
    });
    let came = came.map(|(interface, server)| Change::Came { interface: interface.into(), server });
    let mut changed = interfaces(&found.served).into_iter().filter_map(|(interface, server)| {
        let own = interface.to_owned();
        match places.iter().find(|place| place.0 == interface).map(|place| place.1) {
            None => Some(Change::Came { interface: own, server }),
            // The former one beside a new one goes on to serve.
            Some(from) => (from != server && is_gone(interface, from))
                .then_some(Change::Renumbered { interface: own, from, to: server }),
        }
    });
    changed.next().or(came)
}

fn is_gone(interface: &str, server: Ipv4Addr) -> bool {
    look_at(interface, server).is_ok_and(|it| it.trouble == Some(LinkTrouble::NoAddress(server)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        toml::from_str(text).unwrap()
    }

    const BOTH: &str = "[[network]]\ninterface = \"lo\"\npool = \"127.0.0.100-127.0.0.199\"\n\
                        [[network]]\ninterface = \"enp77s0\"\npool = \"10.0.5.100-10.0.5.199\"\n";

    #[test]
    fn what_is_served_or_missing_is_no_change() {
        let found = find(&config(BOTH));
        assert_eq!(found.served.len(), 1);
        let places = vec![("lo".to_owned(), Ipv4Addr::LOCALHOST)];
        let lacking = lacking(&found, &places);
        assert!(lacking.len() == 1 && lacking[0].contains("enp77s0"), "{lacking:?}");
        assert_eq!(change(&found, &places, &Vec::new()), None);
    }

    #[test]
    fn an_interface_that_came_and_one_with_another_address_are_told() {
        let found = find(&config(BOTH));
        let came = change(&found, &Vec::new(), &Vec::new()).unwrap().to_string();
        assert_eq!(came, "the interface lo is there now, with the address 127.0.0.1");
        let former = Ipv4Addr::new(10, 0, 5, 1);
        let renumbered =
            change(&found, &vec![("lo".to_owned(), former)], &Vec::new()).unwrap().to_string();
        assert!(renumbered.contains("was 10.0.5.1 and is 127.0.0.1"), "{renumbered}");
    }

    #[test]
    fn a_storage_network_that_came_is_told_and_one_that_is_missing_is_said() {
        let one = |storage: &str| {
            let text = format!(
                "[network]\ninterface = \"lo\"\nsubnet = \"10.30.0.0/24\"\nrouter = \"10.30.0.1\"\n\
                 pool = \"10.30.0.100-10.30.0.199\"\nstorage_network = \"{storage}\"\n"
            );
            find(&config(&text))
        };
        let places = vec![("lo".to_owned(), Ipv4Addr::LOCALHOST)];
        let came = change(&one("127.0.0.0/8"), &places, &Vec::new()).unwrap().to_string();
        assert_eq!(came, "the interface lo is there now, with the address 127.0.0.1");
        assert_eq!(change(&one("127.0.0.0/8"), &places, &places), None);
        let away = one("10.20.0.0/24");
        assert_eq!((away.served.len(), change(&away, &places, &Vec::new())), (1, None));
        assert!(lacking(&away, &places)[0].contains("the storage network 10.20.0.0/24"));
    }

    #[test]
    fn a_configuration_that_does_not_fit_changes_nothing() {
        let found = find(&config("[network]\ninterface = \"lo\"\npool = \"10.0.5.1-10.0.5.9\"\n"));
        assert_eq!(change(&found, &Vec::new(), &Vec::new()), None);
        assert!(lacking(&found, &Vec::new())[0].contains("not inside the network"));
    }
}
