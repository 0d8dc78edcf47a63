//! Lines with fields, for systemd's journal: who looks for a machine there finds what is about it, whatever the text says
//! (`bootlace logs`).

use nix::sys::stat::fstat;
use std::fmt::{Debug, Write as _};
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Where the journal listens (systemd.io, "Native Journal Protocol").
const SOCKET: &str = "/run/systemd/journal/socket";

/// How the names of our fields begin.
const PREFIX: &str = "BOOTLACE_";

/// Longest name of a field that the journal takes.
const NAME_MAX: usize = 64;

/// Longest text of a record: what a datagram takes in any case.
const MESSAGE_BYTES_MAX: usize = 16 << 10;

/// The journal, if standard error is one.
pub(super) struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
    /// The site, unless it is the usual one: what its servers say is told apart by it.
    root: Option<String>,
}

impl Journal {
    /// `None`: standard error leads elsewhere, or the journal can't be reached.
    pub(super) fn of_stderr(root: &Path) -> Option<Self> {
        let stream = std::env::var("JOURNAL_STREAM").ok()?;
        if !is_stream(&stream, io::stderr()) {
            return None;
        }
        Self::at(Path::new(SOCKET), root).ok()
    }

    fn at(path: &Path, root: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        // Whether somebody is there; it may be another one later.
        socket.connect(path)?;
        let root = root_field(root);
        Ok(Self { socket: UnixDatagram::unbound()?, path: path.to_owned(), root })
    }
}

/// What is said of a site that is not the usual one.
pub(crate) fn root_field(root: &Path) -> Option<String> {
    let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
    (root != Path::new("/")).then(|| root.to_string_lossy().into_owned())
}

/// Whether `JOURNAL_STREAM`, `DEVICE:INODE`, means this one: it may have been led elsewhere since.
fn is_stream(stream: &str, ours: impl AsFd) -> bool {
    let Ok(about) = fstat(ours) else { return false };
    stream == format!("{}:{}", about.st_dev, about.st_ino)
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        let mut record = Record::new(level);
        if let Some(root) = &self.root {
            record.put("BOOTLACE_ROOT", root);
        }
        record.put("BOOTLACE_TARGET", event.metadata().target());
        event.record(&mut record);
        let message = record.message();
        if self.socket.send_to(&record.finished(&message), &self.path).is_err() {
            // The stream reaches it in another way, and keeps what nobody takes now.
            let _ = writeln!(io::stderr(), "{level} {message}");
        }
    }
}

/// A line of the log on its way to the journal.
struct Record {
    bytes: Vec<u8>,
    message: String,
    /// What follows the message, as other logs have it.
    fields: String,
}

impl Record {
    fn new(level: Level) -> Self {
        let mut record = Self { bytes: Vec::new(), message: String::new(), fields: String::new() };
        record.put("PRIORITY", priority(level));
        record.put("SYSLOG_IDENTIFIER", "bootlace");
        record
    }

    /// A field is a line, or, if it has several of its own, begins with its length.
    fn put(&mut self, name: &str, value: &str) {
        self.bytes.extend_from_slice(name.as_bytes());
        match value.contains('\n') {
            false => self.bytes.push(b'='),
            true => {
                self.bytes.push(b'\n');
                self.bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
            }
        }
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(b'\n');
    }

    fn message(&self) -> String {
        let mut message = plain(&format!("{}{}", self.message, self.fields));
        if message.len() > MESSAGE_BYTES_MAX {
            message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
            message.push('…');
        }
        message
    }

    fn finished(mut self, message: &str) -> Vec<u8> {
        self.put("MESSAGE", message);
        self.bytes
    }

    fn field(&mut self, name: &str, value: &str, shown: &str) {
        if name == "message" {
            value.clone_into(&mut self.message);
            return;
        }
        let _ = write!(self.fields, " {name}={shown}");
        let value = &value[..value.floor_char_boundary(MESSAGE_BYTES_MAX)];
        self.put(&field_name(name), value);
        match name {
            // The storage server calls a machine's disk as the machine.
            "export" => self.put("BOOTLACE_MACHINE", value),
            // A PC that is no machine is called by its MAC address.
            "machine" if value.contains(':') => self.put("BOOTLACE_MAC", value),
            "peer" => {
                if let Ok(peer) = value.parse::<std::net::SocketAddr>() {
                    self.put("BOOTLACE_ADDRESS", &peer.ip().to_canonical().to_string());
                }
            }
            _ => {}
        }
    }
}

impl Visit for Record {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.field(field.name(), value, &format!("{value:?}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let value = format!("{value:?}");
        self.field(field.name(), &value, &value);
    }
}

/// Of syslog: `err`, `warning`, `info`, `debug`.
const fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        Level::DEBUG | Level::TRACE => "7",
    }
}

/// Capital letters, digits and `_` only.
fn field_name(name: &str) -> String {
    let letter = |it: char| if it.is_ascii_alphanumeric() { it.to_ascii_uppercase() } else { '_' };
    let mut full: String = PREFIX.chars().chain(name.chars().map(letter)).collect();
    full.truncate(NAME_MAX);
    full
}

/// What strangers have named does nothing to a terminal, nor does it look like a line of its own.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() && character != '\t' {
            true => plain.extend(character.escape_default()),
            false => plain.push(character),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::os::unix::net::UnixStream;
    use tracing_subscriber::layer::SubscriberExt as _;

    /// The fields that the journal gets by what `work` logs, of one record after the other.
    fn heard(root: &str, work: impl FnOnce()) -> Vec<BTreeMap<String, String>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixDatagram::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let journal = Journal::at(&path, Path::new(root)).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(journal), work);
        let mut buffer = vec![0; 64 << 10];
        let mut records = Vec::new();
        while let Ok(length) = listener.recv(&mut buffer) {
            records.push(fields(&buffer[..length]));
        }
        records
    }

    /// As the journal reads them.
    fn fields(mut bytes: &[u8]) -> BTreeMap<String, String> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let mut fields = BTreeMap::new();
        while !bytes.is_empty() {
            let end = bytes.iter().position(|byte| *byte == b'\n').unwrap();
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            match line.iter().position(|byte| *byte == b'=') {
                Some(at) => {
                    fields.insert(text(&line[..at]), text(&line[at + 1..]));
                    bytes = rest;
                }
                None => {
                    let (length, rest) = rest.split_at(8);
                    let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
                    fields.insert(text(line), text(&rest[..length]));
                    bytes = &rest[length + 1..];
                }
            }
        }
        fields
    }

    #[test]
    fn what_a_line_is_about_is_a_field_and_the_text_says_it_too() {
        let records = heard("/", || {
            let mac = wire::Mac([2, 0, 0, 0, 0, 7]);
            tracing::info!(machine = "lab-07", %mac, boot = 12, "reached a stage");
            tracing::warn!(export = "lab-08", peer = "10.0.5.9:4711", "disk detached");
            tracing::error!(machine = "02:00:00:00:00:09", "a stranger");
        });
        let has = |n: usize, field: &str, value: &str| {
            let record: &BTreeMap<String, String> = &records[n];
            assert_eq!(record.get(field).map(String::as_str), Some(value), "{field} in {record:?}");
        };
        has(0, "MESSAGE", "reached a stage machine=\"lab-07\" mac=02:00:00:00:00:07 boot=12");
        has(0, "BOOTLACE_MACHINE", "lab-07");
        has(0, "BOOTLACE_MAC", "02:00:00:00:00:07");
        has(0, "BOOTLACE_BOOT", "12");
        has(0, "PRIORITY", "6");
        assert!(!records[0].contains_key("BOOTLACE_ROOT"));
        has(1, "BOOTLACE_MACHINE", "lab-08");
        has(1, "BOOTLACE_ADDRESS", "10.0.5.9");
        has(1, "PRIORITY", "4");
        has(2, "BOOTLACE_MAC", "02:00:00:00:00:09");
        has(2, "PRIORITY", "3");
    }

    #[test]
    fn nobody_on_the_network_writes_a_field_or_a_line_of_his_own() {
        let records = heard("/tmp/trial", || {
            tracing::info!(path = "x\nBOOTLACE_MACHINE=lab-07\nMESSAGE=all is well", "refused");
        });
        let [record] = &records[..] else { panic!("{records:?}") };
        assert!(!record.contains_key("BOOTLACE_MACHINE"), "{record:?}");
        assert!(
            record["MESSAGE"].starts_with("refused path=") && !record["MESSAGE"].contains('\n')
        );
        assert_eq!(record["BOOTLACE_ROOT"], "/tmp/trial");
        let long = heard("/", || tracing::info!(path = "ä".repeat(100_000), "refused"));
        assert_eq!(long.len(), 1, "a datagram takes it");
    }

    #[test]
    fn only_the_stream_of_the_journal_is_one() {
        let (ours, other) = UnixStream::pair().unwrap();
        let about = fstat(&ours).unwrap();
        let stream = format!("{}:{}", about.st_dev, about.st_ino);
        assert!(is_stream(&stream, &ours));
        assert!(!is_stream(&stream, &other), "it was led elsewhere");
        assert!(!is_stream("", &ours));
    }
}
