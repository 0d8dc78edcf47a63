//! TCP connections to the server of a root disk.

use rustix::net::sockopt;
use std::io;
use std::net::TcpStream;
use std::time::Duration;

/// A silent server is given up after this time, so that the connection can be made again.
const USER_TIMEOUT: Duration = Duration::from_secs(5);

/// What the usual errors of a connection mean for the person who waits.
pub(crate) fn unreachable(error: &io::Error, server: &str) -> String {
    let meaning = match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            return format!("the machine is there, but no {server} runs on it");
        }
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "no answer",
        io::ErrorKind::HostUnreachable => "no machine answers at this address",
        io::ErrorKind::NetworkUnreachable => "there is no route to it: is the router set?",
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => "it closed the connection",
        _ => return error.to_string(),
    };
    meaning.to_owned()
}

/// Notices the death of a silent server in seconds; sends small requests at once.
pub(crate) fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // Without these the death of a silent server is noticed after 15 minutes, or never.
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(2))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(1))?;
    sockopt::set_tcp_keepcnt(stream, 3)?;
    let timeout_ms = u32::try_from(USER_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(stream, timeout_ms)?;
    Ok(())
}
