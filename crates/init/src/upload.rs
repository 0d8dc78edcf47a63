//! Gives a text to the boot server by HTTP.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::Duration;

/// A boot server that is away must not hold up the machine for long.
const TIMEOUT: Duration = Duration::from_secs(3);

/// `PUT`s the text; whether the server has kept it, it does not tell.
pub(crate) fn put(server: Ipv4Addr, path: &str, text: &str) -> io::Result<()> {
    let address = SocketAddrV4::new(server, 80);
    let mut stream = TcpStream::connect_timeout(&address.into(), TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let length = text.len();
    let head = format!(
        "PUT {path} HTTP/1.1\r\nHost: {server}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(text.as_bytes())?;
    // Closing before the answer could reset the connection, and lose what is on its way.
    stream.read_to_end(&mut Vec::new()).map(drop)
}
