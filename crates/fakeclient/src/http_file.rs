//! Files by HTTP, as firmware and loaders fetch them: one request, one connection.

use socket2::{Domain, Socket, Type};
use std::io::{self, BufRead, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::time::Duration;

/// Longest head of an answer.
const HEAD_BYTES_MAX: u64 = 16 << 10;

/// Fetches a file, of `bytes_max` at most; nothing may come for so long.
///
/// # Errors
/// The server can't be reached, or does not give the whole file; the error says its status.
pub fn get(
    server: SocketAddrV4,
    path: &str,
    bytes_max: u64,
    patience: Duration,
) -> io::Result<Vec<u8>> {
    get_from(Ipv4Addr::UNSPECIFIED, server, path, bytes_max, patience)
}

/// The same from this address of this host.
///
/// # Errors
/// As [`get`]; or there is no such address.
pub fn get_from(
    from: Ipv4Addr,
    server: SocketAddrV4,
    path: &str,
    bytes_max: u64,
    patience: Duration,
) -> io::Result<Vec<u8>> {
    let mut stream = connect_from(from, server, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n")?;
    read_answer(BufReader::new(stream), bytes_max)
}

/// A connection from this address of this host.
///
/// # Errors
/// There is no such address, or the server does not take it.
pub fn connect_from(
    from: Ipv4Addr,
    server: SocketAddrV4,
    patience: Duration,
) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect_timeout(&SocketAddr::V4(server).into(), patience)?;
    Ok(socket.into())
}

/// Reads an answer (RFC 9112), whose body must have a length.
///
/// # Errors
/// It is none, refuses the file, or is cut off.
pub fn read_answer(mut from: impl BufRead, bytes_max: u64) -> io::Result<Vec<u8>> {
    let length = body_bytes(&mut from)?;
    if length > bytes_max {
        return Err(bad(format!("it has {length} bytes")));
    }
    let mut body = Vec::new();
    from.take(length).read_to_end(&mut body)?;
    match body.len() as u64 == length {
        true => Ok(body),
        false => Err(ErrorKind::UnexpectedEof.into()),
    }
}

/// Reads the head of an answer, and tells how many bytes its body has.
pub(crate) fn body_bytes(from: impl BufRead) -> io::Result<u64> {
    let mut head = from.take(HEAD_BYTES_MAX);
    let mut line = String::new();
    head.read_line(&mut line)?;
    if line.split(' ').nth(1) != Some("200") {
        return Err(bad(format!("the server answers {}", line.trim().escape_default())));
    }
    let mut length = None;
    loop {
        line.clear();
        if head.read_line(&mut line)? == 0 {
            return Err(bad("the answer has no end of its head".to_owned()));
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse::<u64>().ok();
        }
    }
    length.ok_or_else(|| bad("the answer has no length".to_owned()))
}

fn bad(text: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_file_is_one() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\ncontent-length: 4\r\n\r\ndisk";
        assert_eq!(read_answer(&answer[..], 100).unwrap(), b"disk");
        for end in 0..answer.len() {
            read_answer(&answer[..end], 100).unwrap_err();
        }
        let refused = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
        let error = read_answer(&refused[..], 100).unwrap_err().to_string();
        assert!(error.contains("404 Not Found"), "{error}");
        read_answer(&answer[..], 3).unwrap_err();
        read_answer(&b"HTTP/1.1 200 OK\r\n\r\ndisk"[..], 100).unwrap_err();
    }
}
