//! Answers to PCs that look for an IPv6 router, without which iPXE waits 16 s.

use crate::net::link::Link;
use crate::net::router_solicitations::RouterSolicitations;
use service::Service;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Tells PCs in their firmware that there is no IPv6 router, until `stop`.
pub(crate) async fn serve(mut link: Link, service: Service, stop: CancellationToken) {
    loop {
        let interface = link.interface().to_owned();
        let listen = async {
            match RouterSolicitations::listen(&interface) {
                Ok(socket) => deny(&socket, &service).await,
                Err(error) => {
                    // A site without IPv6 boots as well.
                    tracing::info!(interface, %error, "no IPv6 here: PCs with iPXE take 16 s longer to boot");
                    std::future::pending().await
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = link.made_again() => {}
            () = listen => {}
        }
    }
}

async fn deny(socket: &RouterSolicitations, service: &Service) {
    loop {
        let received = socket.receive().await;
        match received {
            // Systems that run are left alone: they may have routers of their own.
            Ok((mac, address)) if service.is_in_firmware(mac) => {
                tracing::debug!(%mac, %address, "there is no IPv6 router");
                if let Err(error) = socket.deny(address).await {
                    tracing::debug!(%mac, %error, "a router solicitation could not be answered");
                }
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "router solicitations can't be received");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}
