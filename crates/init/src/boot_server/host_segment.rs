//! The host segment: what only this boot knows. The boot server puts it behind the initrd; some loaders
//! and kernels drop it without a word, and then it is fetched.

use crate::boot_server::reporter::{TOKEN_PATH, TokenCell};
use initcfg::{
    BootConfig, HOST_FILE, HOST_FILE_PATH, HOST_MAX, HostConfig, REBOOT_SECONDS, Tag, Token,
};
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A boot goes on without it: a switch that forwards nothing yet must not hold it up for long.
const FETCH_TIMEOUT: Duration = Duration::from_secs(3);
const FETCHES_MAX: u32 = 3;

/// Longest head of an HTTP answer; ours has 200 bytes.
const HEAD_MAX: usize = 1024;

fn path() -> PathBuf {
    Path::new("/").join(HOST_FILE)
}

/// What came with the initrd, if it did and is for this boot.
pub(crate) fn read(boot: u64, token: &TokenCell) -> Option<HostConfig> {
    let host = HostConfig::parse(&fs::read(path()).ok()?).ok().filter(|host| host.boot == boot)?;
    keep_token(&host, token);
    Some(host)
}

/// Asks the boot server for it.
///
/// # Errors
/// In words, for the boot server.
pub(crate) fn fetch(config: &BootConfig, token: &TokenCell) -> Result<HostConfig, String> {
    let mut tried = 1;
    let file = loop {
        match get(config.server, &format!("{HOST_FILE_PATH}{}", config.boot)) {
            Ok(file) => break file,
            Err(error) if tried == FETCHES_MAX => return Err(error.to_string()),
            Err(_) => tried += 1,
        }
    };
    let host = HostConfig::parse(&file).map_err(|error| error.to_string())?;
    if host.boot != config.boot {
        return Err(format!("it is for boot {}", host.boot));
    }
    // PID 1 reads it there. What can't be written is no reason to end a boot.
    let _ = write_secret(&path(), &file);
    keep_token(&host, token);
    Ok(host)
}

/// How long PID 1 shows a failure; `None`: for ever.
pub(crate) fn reboot_after() -> Option<Duration> {
    let host = fs::read(path()).ok().and_then(|file| HostConfig::parse(&file).ok());
    let seconds = host.map_or(REBOOT_SECONDS, |host| host.reboot_seconds);
    (seconds > 0).then(|| Duration::from_secs(u64::from(seconds)))
}

/// The token, and the hash of the password for the rescue shell, if this boot has one.
pub(crate) fn rescue() -> Option<(Token, Tag)> {
    let host = HostConfig::parse(&fs::read(path()).ok()?).ok()?;
    Some((host.token, host.rescue?))
}

/// For this process, and for those that come later.
fn keep_token(host: &HostConfig, token: &TokenCell) {
    let _ = write_secret(Path::new(TOKEN_PATH), host.token.to_hex().as_bytes());
    let _ = token.set(host.token);
}

/// Only root reads it.
fn write_secret(path: &Path, content: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut options = OpenOptions::new();
    options.create(true).truncate(true).write(true).mode(0o600).open(path)?.write_all(content)
}

fn get(server: Ipv4Addr, path: &str) -> io::Result<Vec<u8>> {
    let address = SocketAddrV4::new(server, 80);
    let mut stream = TcpStream::connect_timeout(&address.into(), FETCH_TIMEOUT)?;
    stream.set_read_timeout(Some(FETCH_TIMEOUT))?;
    stream.set_write_timeout(Some(FETCH_TIMEOUT))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take((HEAD_MAX + HOST_MAX) as u64).read_to_end(&mut answer)?;
    body(&answer).map(<[u8]>::to_vec).map_err(io::Error::other)
}

/// What follows the head of a good answer. The file itself tells whether it is whole.
fn body(answer: &[u8]) -> Result<&[u8], String> {
    let end =
        answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").filter(|&end| end < HEAD_MAX);
    let end = end.ok_or("the boot server's answer is no HTTP")?;
    let head = String::from_utf8_lossy(&answer[..end]);
    match head.split(' ').nth(1) {
        Some("200") => Ok(&answer[end + 4..]),
        status => Err(format!("the boot server answers {}", status.unwrap_or("nonsense"))),
    }
}

#[cfg(test)]
mod tests {
    use super::body;

    #[test]
    fn only_the_body_of_a_good_answer_counts() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(body(answer), Ok(&b"abc"[..]));
        for end in 0..answer.len() - 3 {
            assert!(body(&answer[..end]).is_err(), "{end}");
        }
        assert_eq!(
            body(b"HTTP/1.1 404 Not Found\r\n\r\n").unwrap_err(),
            "the boot server answers 404"
        );
        assert!(body(&[b'\n'; 5000]).is_err());
    }
}
