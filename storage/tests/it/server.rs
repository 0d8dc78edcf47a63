//! A storage server in this process, with one image of 8 MiB of the byte 0x11.

use nbd::client::{HandshakeError, Transfer, Turn};
use socket2::{Domain, Type};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use storage::{Config, TlsConfig, Who};
use tempfile::TempDir;
use tokio::sync::oneshot;

const SIZE_BYTES: usize = 8 << 20;

pub(crate) struct Server {
    folder: Option<TempDir>,
    address: SocketAddr,
    setup: Setup,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What a server has beside its folder, and still has when it restarts.
#[derive(Default)]
struct Setup {
    interfaces: Vec<String>,
    nbd_tls: Option<TlsConfig>,
    /// NBD is served there, too.
    other_address: Option<SocketAddr>,
    layer_max_bytes: Option<u64>,
    /// It outlives the server.
    socket: Option<TcpListener>,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_in(folder())
    }

    pub(crate) fn start_in(folder: TempDir) -> Self {
        Self::start_with(folder, Setup::default())
    }

    pub(crate) fn start_with_tls(tls: TlsConfig) -> Self {
        Self::start_with(folder(), Setup { nbd_tls: Some(tls), ..Setup::default() })
    }

    /// With AoE on an interface of the calling thread's network namespace.
    pub(crate) fn start_on(interface: &str) -> Self {
        Self::start_with(folder(), Setup { interfaces: vec![interface.into()], ..Setup::default() })
    }

    /// Each machine may write so much.
    pub(crate) fn start_with_layers_of(bytes: u64) -> Self {
        Self::start_with(folder(), Setup { layer_max_bytes: Some(bytes), ..Setup::default() })
    }

    pub(crate) fn restart_with_layers_of(mut self, bytes: u64) -> Self {
        self.setup.layer_max_bytes = Some(bytes);
        self.restart()
    }

    /// At two addresses; the second one is returned, too.
    pub(crate) fn start_at_two() -> (Self, SocketAddr) {
        let other = SocketAddr::from(([127, 0, 0, 77], free_address().port()));
        let setup = Setup { other_address: Some(other), ..Setup::default() };
        (Self::start_with(folder(), setup), other)
    }

    /// On a socket that systemd, or whoever, keeps open.
    pub(crate) fn start_handed() -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        Self::start_with(folder(), Setup { socket: Some(socket), ..Setup::default() })
    }

    /// At an address of the calling thread's network namespace.
    pub(crate) fn start_at(address: SocketAddr) -> Self {
        let socket = TcpListener::bind(address).unwrap();
        Self::start_with(folder(), Setup { socket: Some(socket), ..Setup::default() })
    }

    fn start_with(folder: TempDir, setup: Setup) -> Self {
        let handed = setup.socket.as_ref().map(|socket| socket.try_clone().unwrap());
        let address = handed.as_ref().map_or_else(free_address, |it| it.local_addr().unwrap());
        let config = Config {
            nbd_tls: setup.nbd_tls.clone(),
            layer_max_bytes: setup.layer_max_bytes,
            handed: handed.map(socket2::Socket::from).into_iter().collect(),
            ..config(folder.path(), address, setup.interfaces.clone())
        };
        let config = Config {
            nbd: config.nbd.iter().copied().chain(setup.other_address).collect(),
            ..config
        };
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let ready = move || ready.send(()).unwrap();
            serve(config, ready, async { drop(stopped.await) });
        });
        is_ready.recv().expect("the server starts");
        Self { folder: Some(folder), address, setup, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn restart(mut self) -> Self {
        self.stop_now();
        Self::start_with(self.folder.take().unwrap(), std::mem::take(&mut self.setup))
    }

    /// Does something while the server is away.
    pub(crate) fn restart_after(mut self, work: impl FnOnce(&Self)) -> Self {
        self.stop_now();
        work(&self);
        self.restart()
    }

    fn stop_now(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server ends");
        }
    }

    pub(crate) fn uri(&self, export: &str) -> String {
        format!("nbd://{}/{export}", self.address)
    }

    pub(crate) fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).unwrap()
    }

    /// A connection from another address of this host.
    pub(crate) fn connect_from(&self, source: &str) -> TcpStream {
        let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let source: SocketAddr = format!("{source}:0").parse().unwrap();
        socket.bind(&source.into()).unwrap();
        socket.connect(&self.address.into()).unwrap();
        socket.into()
    }

    /// A connection in transmission.
    pub(crate) fn attach(&self, export: &str) -> TcpStream {
        attach_to(self.address, export)
    }

    /// Ends the server, and says how long that took.
    pub(crate) fn stop(mut self) -> Duration {
        let began = Instant::now();
        self.stop_now();
        began.elapsed()
    }

    pub(crate) fn prepare(&self, machine: &str, address: &str, boot: u64, write_mode: &str) {
        let number = machine.bytes().last().unwrap() - b'0';
        let mac = format!("52:54:00:00:00:0{number}");
        let spec = spec(machine, "nbd", address, &mac, boot, write_mode);
        prepare(self.folder(), machine, &spec);
    }

    pub(crate) fn prepare_aoe(&self, machine: &str, mac: &str, boot: u64, write_mode: &str) {
        let spec = spec(machine, "aoe", "127.0.0.1", mac, boot, write_mode);
        prepare(self.folder(), machine, &spec);
    }

    /// Names of the files in the folder of write layers.
    pub(crate) fn layers(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder().join("layers")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort_unstable();
        names
    }

    pub(crate) fn exports(&self) -> String {
        ask(self.folder(), "GET", "/v1/exports", "")
    }

    pub(crate) fn ask(&self, method: &str, path: &str, body: &str) -> String {
        ask(self.folder(), method, path, body)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.as_ref().unwrap().path()
    }
}

/// A connection in transmission.
pub(crate) fn attach_to(server: SocketAddr, export: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server).unwrap();
    open_export(&mut stream, export);
    stream
}

/// The handshake of a client that proves nothing.
pub(crate) fn open_export(stream: &mut TcpStream, export: &str) {
    negotiate(stream, |_| export.to_owned()).unwrap();
}

/// The handshake of a client that opens what `name` makes of the server's answer to INFO; why it gets nothing.
pub(crate) fn negotiate(
    stream: &mut TcpStream,
    name: impl Fn(Option<&str>) -> String,
) -> Result<(), HandshakeError> {
    let mut handshake = nbd::client::Handshake::new("anything");
    loop {
        let turn = handshake.run(|transfer| {
            match transfer {
                Transfer::Send(bytes) => stream.write_all(bytes).unwrap(),
                Transfer::Receive(bytes) => stream.read_exact(bytes).unwrap(),
            }
            Ok::<_, HandshakeError>(())
        })?;
        match turn {
            Turn::StartTls => panic!("nobody asked for TLS"),
            Turn::Answered(said) => handshake.open(&name(said.as_deref())),
            Turn::Done(_) => return Ok(()),
        }
    }
}

/// A folder with the image `debian-12/1` in its store.
pub(crate) fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let version = folder.path().join("images/debian-12/1");
    std::fs::create_dir_all(&version).unwrap();
    std::fs::write(version.join("disk.raw"), vec![0x11; SIZE_BYTES]).unwrap();
    let about = format!(
        "image = \"debian-12\"\nversion = 1\ndigest = \"{}\"\nsize_bytes = {SIZE_BYTES}\n\
         file_system = \"ext4\"\nkernel_version = \"6.1\"\nimported_unix = 0\n",
        "ab".repeat(32)
    );
    std::fs::write(version.join("image.toml"), about).unwrap();
    folder
}

#[test]
fn a_server_that_ends_is_waited_for_and_one_that_serves_is_not() {
    let folder = folder();
    let config = || config(folder.path(), free_address(), Vec::new());
    let layers = config().layers;
    let ending = images::Layers::open(&layers, &config().volatile, None).unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let (ready, is_ready) = std::sync::mpsc::channel();
    let first = config();
    let next = std::thread::spawn(move || {
        serve(first, move || ready.send(()).unwrap(), async { drop(stopped.await) });
    });
    assert!(is_ready.recv_timeout(Duration::from_millis(300)).is_err());
    assert!(!next.is_finished(), "it waits");
    drop(ending);
    is_ready.recv_timeout(Duration::from_secs(5)).expect("it has the layers now");

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let begun = Instant::now();
    let refused = runtime.block_on(storage::run(config(), |_| (), std::future::pending()));
    assert!(refused.unwrap_err().to_string().contains("in use by another storage server"));
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    stop.send(()).unwrap();
    next.join().unwrap();
}

/// Free now; nobody else asks for ports of this loopback between here and the bind.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

pub(crate) fn config(folder: &Path, nbd: SocketAddr, interfaces: Vec<String>) -> Config {
    let path = |name: &str| folder.join(name);
    Config {
        images: path("images"),
        layers: path("layers"),
        layer_max_bytes: None,
        snapshots_kept: 0,
        volatile: path("run"),
        table: path("exports.toml"),
        socket: path("storage.sock"),
        nbd: vec![nbd],
        handed: Vec::new(),
        aoe_interfaces: interfaces,
        aoe_meanwhile: None,
        nbd_tls: None,
        aoe_mac: None,
        who: Who::default(),
    }
}

/// Writes 0xaa to the beginning of the disk.
pub(crate) fn write(stream: &mut TcpStream) {
    let head = [&0x2560_9513u32.to_be_bytes()[..], &[0, 0, 0, 1], &[0; 16]].concat();
    stream.write_all(&[&head[..], &4096u32.to_be_bytes(), &[0xaa; 4096]].concat()).unwrap();
    stream.read_exact(&mut [0; 16]).unwrap();
}

/// A flush, which gets an error.
pub(crate) fn flush_fails(stream: &mut TcpStream) {
    let flush = [&0x2560_9513u32.to_be_bytes()[..], &[0, 0, 0, 3], &[0; 20]].concat();
    stream.write_all(&flush).unwrap();
    let mut reply = [0; 16];
    stream.read_exact(&mut reply).unwrap();
    assert_ne!(reply[4..8], [0; 4]);
}

/// The first byte of the disk.
pub(crate) fn first_byte(stream: &mut TcpStream) -> u8 {
    let read = [&0x2560_9513u32.to_be_bytes()[..], &[0; 20], &512u32.to_be_bytes()].concat();
    stream.write_all(&read).unwrap();
    let mut reply = [0; 16 + 512];
    stream.read_exact(&mut reply).unwrap();
    reply[16]
}

pub(crate) fn serve(
    config: Config,
    ready: impl FnOnce(),
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(storage::run(config, |_| ready(), stop)).unwrap();
}

/// Body of a PUT. The AoE address is 1.N, with the last digit of the machine's name.
pub(crate) fn spec(
    machine: &str,
    root: &str,
    address: &str,
    mac: &str,
    boot: u64,
    write_mode: &str,
) -> String {
    let slot = machine.bytes().last().unwrap() - b'0';
    format!(
        "{{\"machine\":\"{machine}\",\"image\":\"debian-12\",\"version\":1,\"write_mode\":\
         \"{write_mode}\",\"boot\":{boot},\"root\":\"{root}\",\"address\":\"{address}\",\
         \"mac\":\"{mac}\",\"shelf_slot\":\"1.{slot}\"}}"
    )
}

pub(crate) fn prepare(folder: &Path, machine: &str, spec: &str) {
    let reply = ask(folder, "PUT", &format!("/v1/exports/{machine}"), spec);
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
}

/// One request to the storage API of the server in that folder, and its whole reply.
pub(crate) fn ask(folder: &Path, method: &str, path: &str, body: &str) -> String {
    let mut stream = UnixStream::connect(folder.join("storage.sock")).unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: storage\r\nConnection: close\r\nContent-Type: \
         application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    // At once: a server that says no to the head may hang up before more comes.
    stream.write_all(request.as_bytes()).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    reply
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop_now();
    }
}
