//! The boot network's interface: who is bound to it hears of another one, and a person of what it lacks.

use crate::net::link::{LinkState, LinkWatch};
use model::{FindingKind, Subject};
use service::Service;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Tells of each change of `interface` until `stop`; findings are about `subject`.
pub(crate) async fn watch(
    link: LinkWatch,
    (interface, subject): (String, Subject),
    states: watch::Sender<LinkState>,
    service: Service,
    stop: CancellationToken,
) {
    let mut former = None;
    loop {
        match link.look() {
            Ok(state) if former == Some(state) => {}
            Ok(state) => {
                match state.trouble {
                    Some(trouble) => {
                        let cause = format!(
                            "The interface {interface} {trouble}. No PC gets an address there, and machines wait"
                        );
                        service.found(FindingKind::DhcpDeaf, &subject, cause);
                    }
                    None => service.resolved(FindingKind::DhcpDeaf, &subject),
                }
                if former.is_some() {
                    match state.trouble {
                        Some(trouble) => tracing::info!("the interface {interface} {trouble}"),
                        None => tracing::info!(interface, "the interface serves PCs"),
                    }
                }
                former = Some(state);
                states.send_replace(state);
            }
            Err(error) => tracing::warn!(interface, %error, "the interface can't be looked at"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = link.changed() => {}
        }
    }
}
