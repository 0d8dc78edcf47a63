//! Other DHCP servers on the boot network: none may be there at the start, and one that comes later is told of.

use crate::net::dhcp_watch::{DhcpWatch, Other};
use crate::net::link::{Link, LinkTrouble};
use model::{FindingKind, Subject};
use service::Service;
use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often it is asked whether there is another one. Its answers to PCs that ask by broadcast are heard at once.
const ASK_INTERVAL: Duration = Duration::from_secs(600);

/// How long it is waited after an error.
const RETRY: Duration = Duration::from_secs(1);

/// Asks whether another server answers on `interface`, which is refused.
///
/// # Errors
/// One does, or nobody can be asked.
pub(crate) async fn refuse(watch: &DhcpWatch, interface: &str) -> anyhow::Result<()> {
    match watch.probe().await {
        Ok(None) => Ok(()),
        Ok(Some(other)) => anyhow::bail!(told(&other, interface)),
        Err(error) => anyhow::bail!(not_asked(interface, &error)),
    }
}

/// Why nobody could be asked, and what to do.
pub(crate) fn not_asked(interface: &str, error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NetworkDown => {
            let (down, advice) = (LinkTrouble::Down, LinkTrouble::Down.advice(interface));
            format!("the interface {interface} {down}{advice}")
        }
        _ => format!("can't ask for other DHCP servers on {interface}: {error}"),
    }
}

/// What it means that another one answers, and what to do.
pub(crate) fn told(other: &Other, interface: &str) -> String {
    format!(
        "another DHCP server answers on {interface}: {}, which offers {}. PCs would take an address and a loader from \
         whichever is faster, so DHCP is not started. Switch the other one off, or keep it out of this network; if it is \
         meant to answer here as well, set beside_others = true below [network] in bootlace.toml",
        other.server, other.address
    )
}

/// Tells of each other server that is heard, until `stop`.
pub(crate) async fn watch(
    mut watch: DhcpWatch,
    server: Ipv4Addr,
    mut link: Link,
    service: Service,
    stop: CancellationToken,
) {
    let mut ask = tokio::time::interval(ASK_INTERVAL);
    // It was asked just now.
    ask.reset();
    loop {
        let heard = tokio::select! {
            () = stop.cancelled() => return,
            () = link.made_again() => {
                match DhcpWatch::open(link.interface(), server) {
                    Ok(again) => watch = again,
                    Err(error) => {
                        tracing::debug!(%error, "other DHCP servers can't be heard yet");
                        link.forget();
                        tokio::time::sleep(RETRY).await;
                    }
                }
                continue;
            }
            heard = watch.overhear() => heard.map(Some),
            _ = ask.tick() => watch.probe().await,
        };
        match heard {
            Ok(None) => {}
            Ok(Some(other)) => {
                let whom = service.subject_of(other.to);
                let cause = format!(
                    "This DHCP server answers on {}, too: it offered {} to {whom}",
                    link.interface(),
                    other.address
                );
                service.found(FindingKind::SecondDhcp, &Subject::Address(other.server), cause);
            }
            Err(error) => {
                tracing::debug!(%error, "other DHCP servers can't be heard");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
