//! A storage server in this process, with one image of 8 MiB of the byte 0x11.

#![expect(clippy::unwrap_used, reason = "a test whose server can not be set up must fail")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::JoinHandle;
use storage::Config;
use tempfile::TempDir;
use tokio::sync::oneshot;

const SIZE_BYTES: usize = 8 << 20;

pub(crate) struct Server {
    folder: Option<TempDir>,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let version = folder.path().join("images/debian-12/1");
        std::fs::create_dir_all(&version).unwrap();
        std::fs::write(version.join("disk.raw"), vec![0x11; SIZE_BYTES]).unwrap();
        std::fs::write(
            version.join("image.toml"),
            format!(
                "image = \"debian-12\"\nversion = 1\ndigest = \"{}\"\nsize_bytes = {SIZE_BYTES}\n\
                 file_system = \"ext4\"\nkernel_version = \"6.1\"\nimported_unix = 0\n",
                "ab".repeat(32)
            ),
        )
        .unwrap();
        Self::start_in(folder)
    }

    fn start_in(folder: TempDir) -> Self {
        // Free now; nobody else asks for ports of this loopback between here and the bind.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let path = |name: &str| folder.path().join(name);
        let config = Config {
            images: path("images"),
            layers: path("layers"),
            volatile: path("run"),
            table: path("exports.toml"),
            socket: path("storage.sock"),
            nbd: vec![address],
            aoe_interfaces: vec![],
        };
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let stopped = async { drop(stopped.await) };
            runtime
                .block_on(storage::run(config, move || ready.send(()).unwrap(), stopped))
                .unwrap();
        });
        is_ready.recv().expect("the server starts");
        Self { folder: Some(folder), address, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn restart(mut self) -> Self {
        self.stop_now();
        Self::start_in(self.folder.take().unwrap())
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

    /// A connection in transmission.
    pub(crate) fn attach(&self, export: &str) -> TcpStream {
        let mut stream = self.connect();
        let mut handshake = nbd::client::Handshake::new(export);
        loop {
            match handshake.step().unwrap() {
                nbd::client::Step::Send(bytes) => stream.write_all(&bytes).unwrap(),
                nbd::client::Step::Done(_) => return stream,
                nbd::client::Step::Receive(count) => {
                    let mut bytes = vec![0; count];
                    stream.read_exact(&mut bytes).unwrap();
                    handshake.on_bytes(&bytes).unwrap();
                }
            }
        }
    }

    pub(crate) fn prepare(&self, machine: &str, address: &str, boot: u64, write_mode: &str) {
        let slot: u8 = machine.bytes().last().unwrap() - b'0';
        let body = format!(
            "{{\"machine\":\"{machine}\",\"image\":\"debian-12\",\"version\":1,\"write_mode\":\
             \"{write_mode}\",\"boot\":{boot},\"root\":\"nbd\",\"address\":\"{address}\",\
             \"mac\":\"52:54:00:00:00:0{slot}\",\"shelf_slot\":\"1.{slot}\"}}"
        );
        let reply = self.ask("PUT", &format!("/v1/exports/{machine}"), &body);
        assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    }

    pub(crate) fn exports(&self) -> String {
        self.ask("GET", "/v1/exports", "")
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> String {
        let socket = self.folder.as_ref().map_or(Path::new("/"), |f| f.path()).join("storage.sock");
        let mut stream = UnixStream::connect(socket).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: storage\r\nConnection: close\r\nContent-Type: \
             application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        reply
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop_now();
    }
}
