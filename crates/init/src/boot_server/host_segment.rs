//! The host segment: what only this boot knows. The boot server puts it behind the initrd; some loaders
//! and kernels drop it without a word, and then it is fetched.

use super::http;
use super::token::{TOKEN_PATH, TokenCell};
use initcfg::{
    BootConfig, HOST_FILE, HOST_FILE_PATH, HOST_MAX, HostConfig, REBOOT_SECONDS, Tag, Token,
};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often it is tried. A boot goes on without it: a switch that forwards nothing yet must not hold it up
/// for long.
const FETCHES_MAX: u32 = 3;

fn path() -> PathBuf {
    Path::new("/").join(HOST_FILE)
}

/// What came with the initrd, if it did and is for this boot.
pub(crate) fn read(boot: u64) -> Option<HostConfig> {
    HostConfig::parse(&fs::read(path()).ok()?).ok().filter(|host| host.boot == boot)
}

/// Asks the boot server for it.
///
/// # Errors
/// In words, for the boot server.
pub(crate) fn fetch(config: &BootConfig) -> Result<HostConfig, String> {
    let mut tried = 1;
    let file = loop {
        match http::get(config.server, &format!("{HOST_FILE_PATH}{}", config.boot), HOST_MAX) {
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
pub(crate) fn keep_token(host: &HostConfig, token: &TokenCell) {
    let _ = write_secret(Path::new(TOKEN_PATH), host.token.to_hex().as_bytes());
    let _ = token.set(host.token);
}

/// Writes a file that only root can read.
fn write_secret(path: &Path, content: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut options = OpenOptions::new();
    options.create(true).truncate(true).write(true).mode(0o600).open(path)?.write_all(content)
}
