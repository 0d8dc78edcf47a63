//! Gives a text to the boot server by HTTP.

use initcfg::{TAG_HEADER, Token};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::Duration;

/// A boot server that is away must not hold up the machine for long.
const TIMEOUT: Duration = Duration::from_secs(3);

/// `PUT`s the text, with its proof if there is a token; whether the server has kept it, it does not tell.
pub(crate) fn put(
    server: Ipv4Addr,
    path: &str,
    token: Option<&Token>,
    text: &str,
) -> io::Result<()> {
    let address = SocketAddrV4::new(server, 80);
    let mut stream = TcpStream::connect_timeout(&address.into(), TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let length = text.len();
    let sealed = initcfg::upload(path, text.as_bytes());
    let proof = token.map(|token| format!("{TAG_HEADER}: {}\r\n", token.tag(&sealed)));
    let proof = proof.unwrap_or_default();
    let head = format!(
        "PUT {path} HTTP/1.1\r\nHost: {server}\r\nContent-Length: {length}\r\n{proof}\
         Connection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(text.as_bytes())?;
    // Closing before the answer could reset the connection, and lose what is on its way.
    stream.read_to_end(&mut Vec::new()).map(drop)
}
