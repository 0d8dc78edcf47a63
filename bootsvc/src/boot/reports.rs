//! Reports of `init`, one UDP datagram a stage; signs of life, and questions and orders for those who give them.

use initcfg::{Ack, Answer, Heartbeat, Obedience, REPORT_MAX, Report, SEAL_BYTES, Tag, Word};
use service::{Belief, Heard, NewStage, Service};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wire::Mac;

/// How often it is looked for orders that were not obeyed yet, which may come from another process, and for questions.
const MESSAGES_INTERVAL: Duration = Duration::from_secs(1);

/// Words that wait for the disk. Those beyond wait in the socket's buffer, and machines repeat their reports.
const WORDS_MAX: usize = 256;

/// Listens for reports.
///
/// Words are decided on one by one, in the order in which they come, and queued for the database in that order;
/// what waits for the disk are tasks, so that words which come together are stored together.
pub(crate) struct ReportListener {
    socket: Arc<UdpSocket>,
    service: Service,
    alive: mpsc::Sender<Mac>,
    /// Words that wait. Those that turn out to be a machine's own only then come out again.
    waiting: JoinSet<Option<(Word, SocketAddr)>>,
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
        let socket = Arc::new(socket);
        Ok(Self { socket, service, alive, waiting: JoinSet::new() })
    }

    /// Notes and acknowledges reports until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut buffer = [0; REPORT_MAX + SEAL_BYTES + 1];
        let mut messages = tokio::time::interval(MESSAGES_INTERVAL);
        messages.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let received = tokio::select! {
                () = stop.cancelled() => return,
                Some(done) = self.waiting.join_next() => {
                    if let Ok(Some((word, peer))) = done {
                        self.on_own_word(word, peer, true);
                    }
                    continue;
                }
                _ = messages.tick() => {
                    self.speak_to_keepers().await;
                    continue;
                }
                received = self.socket.recv_from(&mut buffer), if self.waiting.len() < WORDS_MAX => received,
            };
            match received {
                Ok((length, peer)) => self.on_datagram(&buffer[..length], peer),
                Err(error) => tracing::debug!(%error, "no report received"),
            }
        }
    }

    async fn speak_to_keepers(&self) {
        for (keeper, message) in self.service.messages_to_keepers() {
            if let Err(error) = self.socket.send_to(message.as_bytes(), keeper).await {
                tracing::debug!(%keeper, %error, "a keeper was not told");
            }
        }
    }

    fn on_datagram(&mut self, datagram: &[u8], peer: SocketAddr) {
        let (line, tag) = initcfg::unseal(datagram);
        let word = match Word::parse(line) {
            Ok(word) => word,
            Err(error) => {
                tracing::debug!(%peer, %error, "not a word of a machine");
                return;
            }
        };
        let (mac, boot) = (word.mac(), word.boot());
        let SocketAddr::V4(address) = peer else { return };
        match self.service.believe(mac, boot, line, tag) {
            Belief::Proven => self.on_proven_word(word, peer),
            Belief::Unproven if self.service.is_heard_unproven(&word, *address.ip()) => {
                self.on_own_word(word, peer, false);
            }
            Belief::Unproven => {
                tracing::debug!(%peer, %mac, boot, "an unproven word that only the machine could say");
            }
            Belief::Refused => {}
            Belief::Earlier if tag.is_none() => {
                tracing::debug!(%peer, %mac, boot, "an unproven word about no boot that is open");
            }
            Belief::Earlier => self.look_up(word, peer, line.to_vec(), tag),
        }
    }

    fn look_up(&mut self, word: Word, peer: SocketAddr, line: Vec<u8>, tag: Option<Tag>) {
        let service = self.service.clone();
        self.waiting.spawn(async move {
            let is_own = service.believes(word.mac(), word.boot(), &line, tag).await;
            is_own.then_some((word, peer))
        });
    }

    /// The first words of a boot decide whether it is the machine's. As long as it is not, and its disk is one that
    /// anybody with its MAC address sees, its reports are not acknowledged, and it does not touch the disk.
    fn on_proven_word(&mut self, word: Word, peer: SocketAddr) {
        if self.service.is_known_admitted(word.mac(), word.boot()) {
            self.on_own_word(word, peer, true);
            return;
        }
        let service = self.service.clone();
        self.waiting.spawn(async move {
            let is_admitted = service.is_admitted(word.mac(), word.boot()).await;
            let is_heard = is_admitted || service.is_heard_as_candidate(&word);
            is_heard.then_some((word, peer))
        });
    }

    fn on_own_word(&mut self, word: Word, peer: SocketAddr, is_proven: bool) {
        match word {
            Word::Heartbeat(heartbeat) => self.on_heartbeat(heartbeat, peer, is_proven),
            Word::Answer(answer) => self.on_answer(answer, peer),
            Word::Obedience(obedience) => self.on_obedience(obedience),
            Word::Report(report) => self.on_report(report, peer),
        }
    }

    fn on_heartbeat(&mut self, heartbeat: Heartbeat, peer: SocketAddr, is_proven: bool) {
        let Heard { is_alive, question } =
            self.service.heartbeat(heartbeat, is_proven.then_some(peer));
        if let Some(question) = question
            && let Err(error) = self.socket.try_send_to(question.as_bytes(), peer)
        {
            tracing::debug!(%peer, %error, "a keeper was not asked");
        }
        if is_alive {
            self.keeps_address(heartbeat.mac);
        }
    }

    fn on_answer(&mut self, answer: Answer, peer: SocketAddr) {
        if self.service.answered(answer, peer) {
            self.keeps_address(answer.mac);
        }
    }

    fn keeps_address(&self, mac: Mac) {
        // When DHCP has too much to do, the next sign of life prolongs the lease.
        let _ = self.alive.try_send(mac);
    }

    fn on_obedience(&mut self, Obedience { boot, mac, counter }: Obedience) {
        let noted = self.service.obeyed(mac, boot, counter);
        self.waiting.spawn(async move {
            if let Err(error) = noted.await {
                tracing::warn!(%mac, error = error.chain(), "that a machine obeys was not noted");
            }
            None
        });
    }

    fn on_report(&mut self, report: Report, peer: SocketAddr) {
        let Report { boot, mac, sequence, uptime_ms, detail, .. } = report;
        let ack = Ack { boot, sequence };
        let socket = Arc::clone(&self.socket);
        let Some(stage) = report.stage else {
            self.service.machine_waits(mac, boot, &detail);
            self.waiting.spawn(async move {
                acknowledge(&socket, ack, peer).await;
                None
            });
            return;
        };
        let stage = NewStage { stage, detail, uptime_ms: Some(uptime_ms) };
        let noted = self.service.stage(mac, Some(boot), stage);
        self.waiting.spawn(async move {
            // Without an acknowledgement the machine says it again.
            match noted.await {
                Ok(_) => acknowledge(&socket, ack, peer).await,
                Err(error) => {
                    tracing::warn!(%mac, error = error.chain(), "a report was not noted");
                }
            }
            None
        });
    }
}

async fn acknowledge(socket: &UdpSocket, ack: Ack, peer: SocketAddr) {
    if let Err(error) = socket.send_to(ack.to_string().as_bytes(), peer).await {
        tracing::debug!(%peer, %error, "a report was not acknowledged");
    }
}
