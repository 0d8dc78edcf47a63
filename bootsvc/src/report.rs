//! Reports of `init`, one UDP datagram a stage.

use initcfg::{Ack, REPORT_MAX, Report};
use model::Stage;
use service::{NewStage, Service};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

/// Listens for reports.
pub(crate) struct ReportListener {
    socket: UdpSocket,
    service: Service,
}

impl ReportListener {
    /// Binds the report port on the boot server's address.
    ///
    /// # Errors
    /// The port is taken.
    pub(crate) async fn bind(server: Ipv4Addr, service: Service) -> io::Result<Self> {
        Ok(Self { socket: UdpSocket::bind((server, initcfg::REPORT_PORT)).await?, service })
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
        let report = match Report::parse(datagram) {
            Ok(report) => report,
            Err(error) => {
                tracing::debug!(%peer, %error, "not a report");
                return None;
            }
        };
        // A machine speaks only for itself.
        let leases = self.service.leases();
        let is_its_own = |lease: &&model::Lease| lease.mac == report.mac && lease.address == peer;
        if !leases.iter().any(|lease| is_its_own(&lease)) {
            tracing::warn!(%peer, mac = %report.mac, "report from an address that is not the machine's");
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
}
