//! The little HTTP that a boot needs: takes a file from the boot server, gives it a text.

use initcfg::{HTTP_PORT, TAG_HEADER, Token};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::Duration;

/// A boot server that is away must not hold up the machine for long.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Longest head of an HTTP answer; ours has 200 bytes.
const HEAD_MAX: usize = 1024;

/// A file of the boot server, of at most `max_bytes`; what is longer is cut.
pub(crate) fn get(server: Ipv4Addr, path: &str, max_bytes: usize) -> io::Result<Vec<u8>> {
    let mut stream = connect(server)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take((HEAD_MAX + max_bytes) as u64).read_to_end(&mut answer)?;
    body(&answer).map(<[u8]>::to_vec).map_err(io::Error::other)
}

/// `PUT`s the text, with its proof if there is a token; whether the server has kept it, it does not tell.
pub(crate) fn put(
    server: Ipv4Addr,
    path: &str,
    token: Option<&Token>,
    text: &str,
) -> io::Result<()> {
    let mut stream = connect(server)?;
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

pub(crate) fn connect(server: Ipv4Addr) -> io::Result<TcpStream> {
    let address = SocketAddrV4::new(server, HTTP_PORT);
    let stream = TcpStream::connect_timeout(&address.into(), TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
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
