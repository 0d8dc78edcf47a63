//! QEMU's machine protocol, as far as a PC that is tried needs it.

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// QEMU makes its socket and answers at once, unless the host is overloaded.
const DEADLINE: Duration = Duration::from_secs(30);

/// How often it is looked whether the socket is there.
const POLL: Duration = Duration::from_millis(20);

/// Longest line that is read.
const LINE_BYTES_MAX: u64 = 64 << 10;

/// A connection to one QEMU.
pub(super) struct Qmp {
    stream: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects as soon as QEMU has made the socket.
    ///
    /// # Errors
    /// It `has_ended` meanwhile, or does not within half a minute.
    pub(super) fn connect(
        socket: &Path,
        mut has_ended: impl FnMut() -> bool,
    ) -> anyhow::Result<Self> {
        let end = Instant::now() + DEADLINE;
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(_) if has_ended() => bail!("it has ended"),
                Err(error) if Instant::now() > end => {
                    return Err(error).context("QEMU does not open its control socket");
                }
                Err(_) => std::thread::sleep(POLL),
            }
        };
        stream.set_read_timeout(Some(DEADLINE))?;
        let mut qmp = Self { stream: BufReader::new(stream) };
        qmp.read().context("QEMU does not greet")?;
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Has QEMU do something, and waits until it is done.
    ///
    /// # Errors
    /// QEMU refuses it, or has ended.
    pub(super) fn execute(&mut self, command: &str, arguments: &Value) -> anyhow::Result<()> {
        let line = json!({ "execute": command, "arguments": arguments });
        self.stream.get_mut().write_all(format!("{line}\n").as_bytes())?;
        loop {
            let answer = self.read()?;
            if let Some(error) = answer.get("error") {
                bail!("QEMU refuses {command}: {error}");
            }
            // Everything else is an event.
            if answer.get("return").is_some() {
                return Ok(());
            }
        }
    }

    fn read(&mut self) -> anyhow::Result<Value> {
        let mut line = String::new();
        match (&mut self.stream).take(LINE_BYTES_MAX).read_line(&mut line) {
            Ok(0) => bail!("QEMU has ended"),
            Ok(_) => serde_json::from_str(&line).context("QEMU answers nonsense"),
            Err(error) if error.kind() == ErrorKind::WouldBlock => bail!("QEMU does not answer"),
            Err(error) => Err(error.into()),
        }
    }
}
