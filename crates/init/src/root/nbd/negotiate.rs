//! Our handshake with an NBD server, up to a connection that the kernel can take.

use super::kernel::ROOT_INDEX;
use crate::net::tcp;
use crate::root::tls::Tls;
use ::nbd::client::{Export, Handshake, HandshakeError, Transfer, Turn};
use initcfg::{
    Claim, DiskKey, DiskName, HOST_FILE_MARK, HostConfig, NO_ROOM_YET, NbdRoot, Nonce,
    SECRET_SUFFIX, Token,
};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

/// A server that has taken the connection answers in milliseconds, and in some seconds if this machine's former boot
/// may still run.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(8);

/// Why there is no connection yet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NegotiationError {
    /// The server can't be reached, or the connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The server answered something else than yes.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// There is no TLS session with the server; why, in words.
    #[error("{0}")]
    Tls(String),
}

impl NegotiationError {
    /// Whether the server has said something.
    pub(crate) const fn is_word(&self) -> bool {
        !matches!(self, Self::Io(_))
    }

    /// What the server waits for, if it will give the disk then: only room on its own disk.
    pub(crate) fn passes(&self) -> Option<&str> {
        match self {
            Self::Handshake(HandshakeError::Refused { text, .. }) => text.strip_prefix(NO_ROOM_YET),
            _ => None,
        }
    }
}

/// A connection to the export, ready for the kernel.
pub(crate) type Connection = (TcpStream, Export);

/// The disk that is asked for, and as what.
#[derive(Clone)]
pub(crate) struct Request {
    /// The machine, whose name the disk has, with that of a further disk behind it; at a foreign server its export's.
    pub(crate) machine: String,
    /// The server is not ours, and wants no proof.
    pub(crate) is_foreign: bool,
    /// The boot.
    pub(crate) boot: u64,
    /// By this the boot proves itself; `None`: it can't.
    pub(crate) key: Option<DiskKey>,
    /// The key came over the plain network and is exchanged inside of TLS, if the server does that.
    pub(crate) exchange: Option<Exchange>,
    /// Number of the connection, from 1: larger with each try.
    pub(crate) generation: u32,
    /// Which of the kernel's devices it is to be.
    pub(crate) index: u32,
}

/// What a boot is told inside of TLS, in place of what it was told before.
#[derive(Clone)]
pub(crate) struct Exchange {
    former: Token,
    told: Arc<OnceLock<HostConfig>>,
}

impl Exchange {
    /// Nothing is told yet. `former` is the boot's secret until then.
    pub(crate) fn of(former: Token) -> Self {
        Self { former, told: Arc::default() }
    }

    /// What was told: the boot's secret from now on, and the rest.
    pub(crate) fn told(&self) -> Option<HostConfig> {
        let told = self.told.get()?.clone();
        Some(HostConfig { token: self.former.mixed(&told.token), ..told })
    }
}

impl Request {
    /// For a disk of a server that is not ours.
    pub(crate) fn foreign(root: &NbdRoot, generation: u32) -> Self {
        Self {
            machine: root.export.clone(),
            is_foreign: true,
            boot: 0,
            key: None,
            exchange: None,
            generation,
            index: ROOT_INDEX,
        }
    }

    /// Who has the disk, for people.
    const fn server_kind(&self) -> &'static str {
        if self.is_foreign { "NBD server" } else { "storage server" }
    }

    /// What an error means for the person who waits.
    pub(crate) fn why(&self, server: SocketAddrV4, error: &NegotiationError) -> String {
        let (kind, disk) = (self.server_kind(), &self.machine);
        if let Some(why) = error.passes() {
            return format!("waiting for the {kind} {server}: {why}");
        }
        match error {
            NegotiationError::Handshake(error) => {
                format!("the {kind} {server} does not give the disk {disk}: {error}")
            }
            NegotiationError::Tls(why) => {
                format!("the {kind} {server} can't be trusted with the disk {disk}: {why}")
            }
            NegotiationError::Io(error) => {
                format!("waiting for the {kind} {server}: {}", tcp::unreachable(error, kind))
            }
        }
    }

    /// The name to open, after a server has said this to whoever only asks. Those of before November 2026 want no
    /// proof, and tell of the disk.
    fn name(&self, said: Option<&str>) -> String {
        let told = self.exchange.as_ref().and_then(Exchange::told);
        let key = told.map(|told| told.token.disk_key()).or(self.key);
        self.name_with(key, said)
    }

    /// The name by which it asks what replaces its key; `None` if it knows, or can't ask.
    fn secret_name(&self, said: &str) -> Option<String> {
        let exchange = self.exchange.as_ref().filter(|exchange| exchange.told.get().is_none())?;
        Nonce::of_challenge(said)?;
        let key = Some(exchange.former.disk_key());
        Some(format!("{}{SECRET_SUFFIX}", self.name_with(key, Some(said))))
    }

    fn name_with(&self, key: Option<DiskKey>, said: Option<&str>) -> String {
        let Self { machine, boot, generation, .. } = self;
        if self.is_foreign {
            return machine.clone();
        }
        let nonce = said.and_then(Nonce::of_challenge);
        let claim = key.zip(nonce).map(|(key, nonce)| {
            let proof = key.prove(&nonce, machine, *boot, *generation);
            Claim { boot: *boot, proof }
        });
        DiskName { machine, generation: *generation, claim }.to_string()
    }
}

/// The next address of the server is tried after this time without an answer of the former.
const STAGGER: Duration = Duration::from_millis(300);

/// The keeper's memory is locked, so that stacks are small; those of TLS are not.
const STACK_BYTES: usize = if cfg!(feature = "tls") { 256 << 10 } else { 64 << 10 };

/// Tries all addresses, one a little after the other, and takes the first that gives the export. If none
/// does, a word of the server counts more than silence.
pub(crate) fn negotiate_any(
    servers: &[SocketAddrV4],
    request: &Request,
    tls: Option<&Tls>,
    timeout: Duration,
) -> Result<(SocketAddrV4, Connection), (SocketAddrV4, NegotiationError)> {
    if let [server] = servers {
        let connection =
            negotiate(*server, request, tls, timeout).map_err(|error| (*server, error))?;
        return Ok((*server, connection));
    }
    let (sender, answers) = mpsc::channel();
    let mut left = servers.iter();
    let mut n_running = 0;
    let mut trouble: Option<(SocketAddrV4, NegotiationError)> = None;
    loop {
        if let Some(&server) = left.next() {
            let (sender, request, tls) = (sender.clone(), request.clone(), tls.cloned());
            let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
            // Nobody listens any more when another one was faster: that connection is closed.
            let work = move || {
                let done = negotiate(server, &request, tls.as_ref(), timeout);
                drop(sender.send((server, done)));
            };
            match thread.spawn(work) {
                Ok(_) => n_running += 1,
                Err(error) => trouble = trouble.or(Some((server, error.into()))),
            }
        }
        let is_last = left.len() == 0;
        if is_last && n_running == 0 {
            let silent = || (servers[0], io::Error::from(io::ErrorKind::TimedOut).into());
            return Err(trouble.unwrap_or_else(silent));
        }
        // A thread has time limits of its own.
        let patience = if is_last { timeout + 3 * HANDSHAKE_TIMEOUT } else { STAGGER };
        match answers.recv_timeout(patience) {
            Ok((server, Ok(connection))) => return Ok((server, connection)),
            Ok((server, Err(error))) => {
                n_running -= 1;
                let is_word = error.is_word();
                if is_word || trouble.is_none() {
                    trouble = Some((server, error));
                }
            }
            Err(_) if is_last => n_running = 0,
            Err(_) => {}
        }
    }
}

fn negotiate(
    server: SocketAddrV4,
    request: &Request,
    tls: Option<&Tls>,
    timeout: Duration,
) -> Result<Connection, NegotiationError> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::V4(server), timeout)?;
    tcp::tune(&stream)?;
    stream.set_read_timeout(Some(HANDSHAKE_TIMEOUT))?;
    stream.set_write_timeout(Some(HANDSHAKE_TIMEOUT))?;
    let found = open_export(&mut stream, server, request, tls)?;
    // The kernel inherits the socket: a read timeout would end the connection in an idle moment.
    stream.set_read_timeout(None)?;
    stream.set_write_timeout(None)?;
    Ok((stream, found))
}

fn open_export(
    stream: &mut TcpStream,
    server: SocketAddrV4,
    request: &Request,
    tls: Option<&Tls>,
) -> Result<Export, NegotiationError> {
    let mut handshake = match tls {
        Some(_) => Handshake::with_tls(&request.machine),
        None => Handshake::new(&request.machine),
    };
    // What the server said first; a question for the secret is answered next.
    let mut challenge: Option<String> = None;
    loop {
        let turn = handshake.run(|transfer| match transfer {
            Transfer::Send(bytes) => Ok::<_, NegotiationError>(stream.write_all(bytes)?),
            Transfer::Receive(bytes) => Ok(stream.read_exact(bytes)?),
        })?;
        match turn {
            Turn::StartTls => {
                if let Some(tls) = tls {
                    tls.start(stream, *server.ip()).map_err(NegotiationError::Tls)?;
                }
                handshake.on_tls();
            }
            Turn::Answered(said) => match (&challenge, said) {
                (None, said) => {
                    let secret = said.as_deref().filter(|_| tls.is_some());
                    match secret.and_then(|said| request.secret_name(said)) {
                        Some(name) => {
                            handshake.ask(&name);
                            challenge = said;
                        }
                        None => handshake.open(&request.name(said.as_deref())),
                    }
                }
                (Some(challenge), said) => {
                    // A server that has nothing to tell says what it says to everybody.
                    let told = match said.as_deref().filter(|said| said.starts_with(HOST_FILE_MARK))
                    {
                        None => None,
                        Some(said) => {
                            Some(HostConfig::parse(said.as_bytes()).map_err(|error| {
                                NegotiationError::Tls(format!(
                                    "what it tells this boot is no use: {error}"
                                ))
                            })?)
                        }
                    };
                    let told = told.filter(|told| told.boot == request.boot);
                    if let (Some(exchange), Some(told)) = (&request.exchange, told) {
                        let _ = exchange.told.set(told);
                    }
                    handshake.open(&request.name(Some(challenge)));
                }
            },
            Turn::Done(found) => return Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::nbd::TransmissionFlags;
    use ::nbd::server::{self, ExportInfo, Exports, Refusal, Way};
    use std::net::TcpListener;
    use std::time::Instant;

    /// A server of a release that wants no proof, or one that does.
    struct OneDisk(Option<Nonce>);

    const KEY: DiskKey = DiskKey::new([7; 32]);
    const NONCE: Nonce = Nonce::new([9; 32]);

    impl Exports for OneDisk {
        fn look(&self, name: &str) -> Result<ExportInfo, Refusal> {
            let flags = TransmissionFlags::HAS_FLAGS;
            let disk = ExportInfo { size_bytes: 512, flags, description: String::new() };
            match self.0 {
                Some(nonce) => Err(Refusal::Policy(nonce.challenge())),
                None if name.starts_with("lab-07") => Ok(disk),
                None => Err(Refusal::Unknown(format!("no {name} here"))),
            }
        }

        fn open(&self, name: &str, _: Way) -> Result<ExportInfo, Refusal> {
            let found = DiskName::parse(name).unwrap();
            let proven = KEY.prove(&NONCE, "lab-07", 42, found.generation);
            match (self.0, found.claim) {
                (None, None) => self.look(name),
                (Some(_), Some(Claim { boot: 42, proof })) if proof == proven => {
                    Self(None).look("lab-07")
                }
                (_, Some(Claim { boot: 43, .. })) => {
                    Err(Refusal::Policy(format!("{NO_ROOM_YET}its disk is full: delete files")))
                }
                _ => Err(Refusal::Policy("wrong proof".into())),
            }
        }

        fn names(&self) -> Vec<String> {
            Vec::new()
        }
    }

    fn ask(machine: &str, key: Option<DiskKey>) -> Request {
        let (machine, is_foreign) = (machine.into(), false);
        let (exchange, index) = (None, ROOT_INDEX);
        Request { machine, is_foreign, boot: 42, key, exchange, generation: 3, index }
    }

    fn listen() -> (TcpListener, SocketAddrV4) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else { panic!("not IPv4") };
        (listener, address)
    }

    /// A storage server with the disk `lab-07`, for everybody.
    fn server() -> SocketAddrV4 {
        server_that_wants(None)
    }

    fn server_that_wants(nonce: Option<Nonce>) -> SocketAddrV4 {
        let (listener, address) = listen();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut handshake = server::Handshake::default();
            let mut bytes = [0; 512];
            loop {
                match handshake.step(&OneDisk(nonce)) {
                    server::Step::Send(bytes) => stream.write_all(&bytes).unwrap(),
                    server::Step::Receive => match stream.read(&mut bytes).unwrap_or(0) {
                        0 => return,
                        length => handshake.on_bytes(&bytes[..length]),
                    },
                    _ => return,
                }
            }
        });
        address
    }

    /// Takes connections and says nothing.
    fn silent() -> (TcpListener, SocketAddrV4) {
        listen()
    }

    /// Nobody listens there.
    fn dead() -> SocketAddrV4 {
        listen().1
    }

    const TIMEOUT: Duration = Duration::from_secs(1);

    #[test]
    fn the_first_address_that_gives_the_disk_is_taken() {
        let (_silent, silent) = silent();
        let started = Instant::now();
        let servers = [silent, dead(), server()];
        let (found, (_, export)) =
            negotiate_any(&servers, &ask("lab-07", None), None, TIMEOUT).unwrap();
        assert_eq!((found, export.size_bytes), (servers[2], 512));
        assert!(started.elapsed() < HANDSHAKE_TIMEOUT, "the silent one is not waited for");
        let server = server();
        let (found, _) = negotiate_any(&[server], &ask("lab-07", None), None, TIMEOUT).unwrap();
        assert_eq!(found, server);
    }

    #[test]
    fn a_word_of_the_server_counts_more_than_silence() {
        let servers = [dead(), server(), dead()];
        let (from, error) =
            negotiate_any(&servers, &ask("lab-08", None), None, TIMEOUT).unwrap_err();
        assert_eq!(from, servers[1]);
        let said = ask("lab-08", None).why(from, &error);
        assert!(said.contains("does not give the disk lab-08"), "{said}");
        let (_, error) =
            negotiate_any(&[dead(), dead()], &ask("lab-07", None), None, TIMEOUT).unwrap_err();
        assert!(matches!(error, NegotiationError::Io(_)));
    }

    #[test]
    fn the_boot_proves_itself_to_a_server_that_asks_for_it_and_to_no_other() {
        let open = |nonce, key| {
            let server = server_that_wants(nonce);
            negotiate_any(&[server], &ask("lab-07", key), None, TIMEOUT)
        };
        assert!(open(Some(NONCE), Some(KEY)).is_ok());
        assert!(open(None, Some(KEY)).is_ok(), "an older server is told no proof");
        for key in [None, Some(DiskKey::new([8; 32]))] {
            let (_, error) = open(Some(NONCE), key).unwrap_err();
            assert!(error.to_string().contains("wrong proof"), "{error}");
            assert_eq!(error.passes(), None);
        }
    }

    #[test]
    fn a_foreign_server_is_asked_for_just_its_export() {
        let root = |export: &str| NbdRoot {
            server: server(),
            export: export.to_owned(),
            on_disk: initcfg::OnDisk::default(),
        };
        let ask = |root: &NbdRoot| {
            let request = Request::foreign(root, 3);
            assert_eq!(request.name(Some("no")), root.export);
            negotiate_any(&[root.server], &request, None, TIMEOUT)
                .map_err(|(from, error)| request.why(from, &error))
        };
        assert!(ask(&root("lab-07/fedora")).is_ok());
        let refused = ask(&root("")).unwrap_err();
        assert!(refused.starts_with("the NBD server 127.0.0.1:"), "{refused}");
    }

    #[test]
    fn a_server_that_has_no_room_is_waited_for() {
        let server = server_that_wants(Some(NONCE));
        let request = Request { boot: 43, ..ask("lab-07", Some(KEY)) };
        let (from, error) = negotiate_any(&[server], &request, None, TIMEOUT).unwrap_err();
        assert_eq!(error.passes(), Some("its disk is full: delete files"));
        let said = request.why(from, &error);
        assert_eq!(
            said,
            format!("waiting for the storage server {server}: its disk is full: delete files")
        );
    }
}
