//! PCs that fetch a file by HTTP, many at once.

use crate::http_file::{body_bytes, connect_from};
use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher as _;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// Read at once: as much as a loader takes.
const BUFFER_BYTES: usize = 256 << 10;

/// Nothing comes for so long: then a client gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a client has got.
#[derive(Clone, Copy, Debug)]
pub struct Fetched {
    /// Bytes of the file.
    pub n_bytes: u64,
    /// A number that differs if the bytes do; 0 if it was not wanted.
    pub digest: u64,
    /// From its connection to the last byte.
    pub took: Duration,
}

/// All clients, each from one of these addresses of this host, ask at once. What became of each. To look at the bytes
/// takes longer than to fetch them: that is done only if it is wanted.
pub fn fetch_all(
    server: SocketAddrV4,
    path: &str,
    from: &[Ipv4Addr],
    wants_digest: bool,
) -> Vec<io::Result<Fetched>> {
    let begin = Barrier::new(from.len());
    std::thread::scope(|scope| {
        let clients: Vec<_> = from
            .iter()
            .map(|&address| {
                let begin = &begin;
                scope.spawn(move || {
                    begin.wait();
                    fetch(server, path, address, wants_digest)
                })
            })
            .collect();
        let joined = clients
            .into_iter()
            .map(|client| client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        joined.collect()
    })
}

fn fetch(
    server: SocketAddrV4,
    path: &str,
    from: Ipv4Addr,
    wants_digest: bool,
) -> io::Result<Fetched> {
    let start = Instant::now();
    let mut stream = connect_from(from, server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut stream = BufReader::with_capacity(BUFFER_BYTES, stream);
    let length = body_bytes(&mut stream)?;
    let mut hasher = DefaultHasher::new();
    let mut n_bytes = 0;
    while n_bytes < length {
        let got = stream.fill_buf()?;
        if got.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if wants_digest {
            hasher.write(got);
        }
        let n_got = got.len();
        stream.consume(n_got);
        n_bytes += n_got as u64;
    }
    let digest = if wants_digest { hasher.finish() } else { 0 };
    Ok(Fetched { n_bytes, digest, took: start.elapsed() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::net::{SocketAddr, TcpListener};

    #[test]
    fn all_get_the_file_or_know_that_they_did_not() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let SocketAddr::V4(server) = listener.local_addr().unwrap() else { panic!("no IPv4") };
        let serve = std::thread::spawn(move || {
            for answer in ["disk", "disk", "di"] {
                let (mut stream, _) = listener.accept().unwrap();
                assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{answer}").unwrap();
            }
        });
        let both = fetch_all(server, "/disk", &[Ipv4Addr::LOCALHOST; 2], true);
        let both: Vec<Fetched> = both.into_iter().map(Result::unwrap).collect();
        assert!(both.iter().all(|one| one.n_bytes == 4 && one.digest == both[0].digest));
        fetch_all(server, "/disk", &[Ipv4Addr::LOCALHOST], false).remove(0).unwrap_err();
        serve.join().unwrap();
    }
}
