//! Reports of `init`, one UDP datagram a stage; signs of life, and orders to stop for those who give them.

use initcfg::{Ack, Heartbeat, Obedience, REPORT_MAX, Report, SEAL_BYTES, Tag, Word};
use model::BootId;
use service::{NewStage, Service};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use wire::Mac;

/// How often it is looked for orders that were not obeyed yet; they may come from another process.
const ORDERS_INTERVAL: Duration = Duration::from_secs(1);

/// Machines of which it is remembered where their signs of life come from.
const KEEPERS_MAX: usize = 4096;

/// Listens for reports.
pub(crate) struct ReportListener {
    socket: UdpSocket,
    service: Service,
    alive: mpsc::Sender<Mac>,
    /// Where the signs of life of each machine come from: there it hears orders.
    keepers: HashMap<Mac, SocketAddr>,
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
        Ok(Self { socket, service, alive, keepers: HashMap::new() })
    }

    /// Notes and acknowledges reports until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut buffer = [0; REPORT_MAX + SEAL_BYTES + 1];
        let mut orders = tokio::time::interval(ORDERS_INTERVAL);
        orders.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let received = tokio::select! {
                () = stop.cancelled() => return,
                _ = orders.tick() => {
                    self.give_orders().await;
                    continue;
                }
                received = self.socket.recv_from(&mut buffer) => received,
            };
            match received {
                Ok((length, peer)) => {
                    if let Some(ack) = self.on_datagram(&buffer[..length], peer).await
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

    /// Tells machines to stop that have not said yet that they do.
    async fn give_orders(&self) {
        for (mac, order) in self.service.open_orders() {
            // Who has not been heard since this server started is told after his next sign of life.
            let Some(keeper) = self.keepers.get(&mac) else { continue };
            if let Err(error) = self.socket.send_to(order.as_bytes(), keeper).await {
                tracing::debug!(%mac, %error, "an order was not sent");
            }
        }
    }

    async fn on_datagram(&mut self, datagram: &[u8], peer: SocketAddr) -> Option<Ack> {
        let (line, tag) = initcfg::unseal(datagram);
        let word = match Word::parse(line) {
            Ok(word) => word,
            Err(error) => {
                tracing::debug!(%peer, %error, "not a word of a machine");
                return None;
            }
        };
        if !self.is_own_word(word.mac(), word.boot(), peer.ip(), (line, tag)).await {
            return None;
        }
        match word {
            Word::Heartbeat(heartbeat) => {
                self.on_heartbeat(heartbeat, peer);
                None
            }
            Word::Obedience(obedience) => {
                self.on_obedience(obedience).await;
                None
            }
            Word::Report(report) => self.on_report(report).await,
        }
    }

    fn on_heartbeat(&mut self, heartbeat: Heartbeat, peer: SocketAddr) {
        let Heartbeat { boot, mac, is_last, ram_used_percent } = heartbeat;
        if !is_last && (self.keepers.len() < KEEPERS_MAX || self.keepers.contains_key(&mac)) {
            self.keepers.insert(mac, peer);
        }
        self.service.heartbeat(mac, boot, is_last, ram_used_percent);
        // When DHCP has too much to do, the next one prolongs the lease.
        let _ = self.alive.try_send(mac);
    }

    async fn on_obedience(&self, Obedience { boot, mac, counter }: Obedience) {
        if let Err(error) = self.service.obeyed(mac, boot, counter).await {
            tracing::warn!(%mac, error = error.chain(), "that a machine obeys was not noted");
        }
    }

    async fn on_report(&self, report: Report) -> Option<Ack> {
        let ack = Ack { boot: report.boot, sequence: report.sequence };
        let Some(stage) = report.stage else {
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

    /// A machine speaks only for itself, and proves it as soon as it can.
    async fn is_own_word(
        &self,
        mac: Mac,
        boot: BootId,
        peer: IpAddr,
        (line, tag): (&[u8], Option<Tag>),
    ) -> bool {
        let is_own = match peer {
            IpAddr::V4(peer) => self.service.owner_of(peer) == Some(mac),
            IpAddr::V6(_) => false,
        };
        if !is_own {
            tracing::warn!(%peer, %mac, "report from an address that is not the machine's");
        }
        is_own && self.service.believes(mac, boot, line, tag).await
    }
}
