//! `init keep-disk`: carries a disk beside the root through outages of its server. One process for each: it needs nothing but its
//! own connection, and ends with nothing else.

use super::{companion, restore, spare_from_shortage};
use crate::boot_server::token::later_token;
use crate::console::Console;
use crate::root::nbd;
use initcfg::{BootConfig, DiskTag, Token};
use std::fs;
use std::io;
use std::net::{SocketAddrV4, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

/// Starts it, and waits until it is ready. `connection` is the kernel's to the storage server.
///
/// # Errors
/// It can't be started, or ends at once.
pub(crate) fn start(
    tag: &DiskTag,
    index: u32,
    servers: &[SocketAddrV4],
    (connection, generation): (TcpStream, u32),
) -> io::Result<()> {
    let numbers = [index, generation].map(|number| number.to_string());
    let servers = servers.iter().map(ToString::to_string);
    let arguments: Vec<String> = ["keep-disk".to_owned(), tag.to_string()]
        .into_iter()
        .chain(numbers)
        .chain(servers)
        .collect();
    // The `@` of the keeper, for the same reason.
    let name = format!("@bootlace-disk-{tag}");
    let child = companion::start(&name, &arguments, OwnedFd::from(connection).into())?;
    companion::omit_from_sendsigs(&format!("bootlace-{tag}"), &child);
    Ok(())
}

/// `init keep-disk TAG INDEX GENERATION SERVER…`: does not end while the machine runs.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let console = Console::log_only();
    let (disk, mut link) = match open(arguments, &console) {
        Ok(opened) => opened,
        Err(error) => {
            Console::open().line(&format!("bootlace: the keeper of a disk can't start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    if companion::say_ready().is_err() {
        return ExitCode::FAILURE;
    }
    loop {
        link.wait_for_loss();
        restore(&console, &disk, || link.connect());
    }
}

/// Opens everything while there is an initrd to open it from; what the disk is for people comes with it.
fn open(arguments: &[String], console: &Console) -> io::Result<(String, nbd::Link)> {
    let wrong = || io::Error::from(io::ErrorKind::InvalidInput);
    let [tag, index, generation, servers @ ..] = arguments else { return Err(wrong()) };
    let tag: DiskTag = tag.parse().map_err(io::Error::other)?;
    let servers: Option<Vec<SocketAddrV4>> = servers.iter().map(|it| it.parse().ok()).collect();
    let config = BootConfig::parse(&fs::read_to_string("/proc/cmdline")?);
    let config = config.map_err(io::Error::other)?;
    let request = nbd::Request {
        machine: tag.export_of(&config.host_name),
        is_foreign: false,
        boot: config.boot,
        // From here on it is in this process's memory only.
        key: later_token().get().map(Token::disk_key),
        exchange: None,
        generation: generation.parse().map_err(io::Error::other)?,
        index: index.parse().map_err(io::Error::other)?,
    };
    let connection = io::stdin().as_fd().try_clone_to_owned()?;
    let link = nbd::Link::open(&servers.ok_or_else(wrong)?, request, connection)?;
    spare_from_shortage(console)?;
    Ok((format!("disk {tag}"), link))
}
