//! The kernel's log, for the boot server when a boot fails: it says what no summary can.

use super::http;
use initcfg::{KERNEL_LOG_MAX, KERNEL_LOG_PATH, Token};
use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;

/// Longest record of the kernel (kernel/printk/printk.c, PRINTKRB_RECORD_MAX).
const RECORD_MAX: usize = 8192;

/// Gives the newest lines of the kernel's log, at most [`KERNEL_LOG_MAX`] bytes, to the boot server.
pub(crate) fn send(server: Ipv4Addr, boot: u64, token: Option<&Token>) -> io::Result<()> {
    http::put(server, &format!("{KERNEL_LOG_PATH}{boot}"), token, &read())
}

/// The newest lines of the kernel's log, at most [`KERNEL_LOG_MAX`] bytes.
fn read() -> String {
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
    let text = unescape(text.lines().next().unwrap_or_default());
    Some(format!("[{:5}.{:06}] {text}\n", us / 1_000_000, us % 1_000_000))
}

/// A record's text without the kernel's escapes: all that is not ASCII, and `\\`, are `\\x` and two hexadecimal
/// digits for each byte.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\\x") {
        bytes.extend_from_slice(before.as_bytes());
        let digits = after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match digits {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(b"\\x"),
        }
        rest = if digits.is_some() { &after[2..] } else { after };
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
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

    #[test]
    fn what_is_not_ascii_is_shown_as_it_was_said() {
        let record = br"7,340,5140900,-;bootlace: caf\xc3\xa9 \x5cx41 \x4";
        assert_eq!(line(record).unwrap(), "[    5.140900] bootlace: café \\x41 \\x4\n");
    }
}
