//! Reports of `init`, one UDP datagram a stage.

use initcfg::{Ack, Heartbeat, REPORT_MAX, Report};
use model::Stage;
use service::{NewStage, Service};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use wire::Mac;

/// Listens for reports.
pub(crate) struct ReportListener {
    socket: UdpSocket,
    service: Service,
    alive: mpsc::Sender<Mac>,
}

impl ReportListener {
    /// Binds the report port on the boot server's address. Machines that run go to `alive`.
    ///
    /// # Errors
    /// The port is taken.
    pub(crate) async fn bind(
        server: Ipv4Addr,
        service: Service,
        alive: mpsc::Sender<Mac>,
    ) -> io::Result<Self> {
        let socket = UdpSocket::bind((server, initcfg::REPORT_PORT)).await?;
        Ok(Self { socket, service, alive })
    }

    /// Notes and acknowledges reports until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut buffer = [0; REPORT_MAX + 1];
        loop {
            let received = tokio::select! {
                () = stop.cancelled() => return,
                received = self.socket.recv_from(&mut buffer) => received,
            };
            match received {
                Ok((length, peer)) => {
                    if let Some(ack) = self.on_datagram(&buffer[..length], peer.ip()).await
                        && let Err(error) =
                            self.socket.send_to(ack.to_string().as_bytes(), peer).await
                    {
                        tracing::debug!(%peer, %error, "a report was not acknowledged");
                    }
                }
                Err(error) => tracing::debug!(%error, "no report received"),
            }
        }
    }

    async fn on_datagram(&self, datagram: &[u8], peer: IpAddr) -> Option<Ack> {
        if let Ok(Heartbeat { boot, mac, is_last, ram_used_percent }) = Heartbeat::parse(datagram) {
            if self.is_own_word(mac, peer) {
                self.service.heartbeat(mac, boot, is_last, ram_used_percent);
                // When DHCP has too much to do, the next one prolongs the lease.
                let _ = self.alive.try_send(mac);
            }
            return None;
        }
        let report = match Report::parse(datagram) {
            Ok(report) => report,
            Err(error) => {
                tracing::debug!(%peer, %error, "not a report");
                return None;
            }
        };
        if !self.is_own_word(report.mac, peer) {
            return None;
        }
        let ack = Ack { boot: report.boot, sequence: report.sequence };
        let Some(stage) = Stage::reported(report.stage) else {
            self.service.machine_waits(report.mac, report.boot, &report.detail);
            return Some(ack);
        };
        let stage = NewStage { stage, detail: report.detail, uptime_ms: Some(report.uptime_ms) };
        // Without an acknowledgement the machine says it again.
        match self.service.stage(report.mac, Some(report.boot), stage).await {
            Ok(_) => Some(ack),
            Err(error) => {
                tracing::warn!(mac = %report.mac, error = error.chain(), "a report was not noted");
                None
            }
        }
    }

    /// A machine speaks only for itself.
    fn is_own_word(&self, mac: Mac, peer: IpAddr) -> bool {
        let leases = self.service.leases();
        let is_own = leases.iter().any(|lease| lease.mac == mac && lease.address == peer);
        if !is_own {
            tracing::warn!(%peer, %mac, "report from an address that is not the machine's");
        }
        is_own
    }
}
