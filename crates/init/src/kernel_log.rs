//! The kernel's log, for the boot server when a boot fails: it says what no summary can.

use initcfg::{KERNEL_LOG_MAX, KERNEL_LOG_PATH, TAG_HEADER, Token};
use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

/// Longest record of the kernel (kernel/printk/printk.c, PRINTKRB_RECORD_MAX).
const RECORD_MAX: usize = 8192;

/// A boot server that is away must not keep the machine from starting again.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The newest lines of the kernel's log, at most [`KERNEL_LOG_MAX`] bytes.
pub(crate) fn read() -> String {
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let Ok(mut log) = OpenOptions::new().read(true).custom_flags(flags).open("/dev/kmsg") else {
        return String::new();
    };
    let mut lines = VecDeque::new();
    let mut n_bytes = 0;
    let mut record = [0; RECORD_MAX];
    loop {
        match log.read(&mut record) {
            Ok(0) => break,
            Ok(length) => {
                let Some(line) = line(&record[..length]) else { continue };
                n_bytes += line.len();
                lines.push_back(line);
                while n_bytes > KERNEL_LOG_MAX {
                    n_bytes -= lines.pop_front().map_or(n_bytes, |line| line.len());
                }
            }
            // Records that were overwritten before they were read: the next one is there.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(_) => break,
        }
    }
    lines.into_iter().collect()
}

/// `6,339,5140900,-;text` and further lines, as `[    5.140900] text` (Documentation/ABI/testing/dev-kmsg).
fn line(record: &[u8]) -> Option<String> {
    let record = String::from_utf8_lossy(record);
    let (head, text) = record.split_once(';')?;
    let us: u64 = head.split(',').nth(2)?.parse().ok()?;
    let text = text.lines().next().unwrap_or_default();
    Some(format!("[{:5}.{:06}] {text}\n", us / 1_000_000, us % 1_000_000))
}

/// Gives the log to the boot server.
pub(crate) fn send(
    server: Ipv4Addr,
    boot: u64,
    token: Option<&Token>,
    log: &str,
) -> io::Result<()> {
    let address = SocketAddrV4::new(server, 80);
    let mut stream = TcpStream::connect_timeout(&address.into(), TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let length = log.len();
    let proof = token.map(|token| format!("{TAG_HEADER}: {}\r\n", token.tag(log.as_bytes())));
    let proof = proof.unwrap_or_default();
    let head = format!(
        "PUT {KERNEL_LOG_PATH}{boot} HTTP/1.1\r\nHost: {server}\r\nContent-Length: {length}\r\n\
         {proof}Connection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(log.as_bytes())?;
    // Closing before the answer could reset the connection, and lose what is on its way.
    stream.read_to_end(&mut Vec::new()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_shown_as_dmesg_does_it() {
        let record = b"6,339,5140900,-;NET: Registered PF_INET6\n SUBSYSTEM=net\n";
        assert_eq!(line(record).unwrap(), "[    5.140900] NET: Registered PF_INET6\n");
        for end in 0..16 {
            assert_eq!(line(&record[..end.min(15)]), None, "{end}");
        }
        assert_eq!(line(b"x;y"), None);
    }
}
