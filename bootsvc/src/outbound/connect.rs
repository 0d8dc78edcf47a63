//! Opening connections.

use super::failed::{Failed, Patience, step, try_step};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Largest file with a password or a token.
const SECRET_BYTES_MAX: u64 = 4096;

/// Opens a TCP connection to the first of the host's addresses that answers.
pub(crate) async fn connect(
    host: &str,
    port: u16,
    patience: Patience,
) -> Result<TcpStream, Failed> {
    let what = format!("the address of {host} can't be found");
    let help = "Look for a typing error in the name, and whether this server has a name server (/etc/resolv.conf).";
    let addresses: Vec<SocketAddr> = step(patience, &what, async {
        let found = lookup_host((host, port)).await;
        found.map(Iterator::collect).map_err(|error| Failed::new(&what, error.to_string(), help))
    })
    .await?;
    let mut failed = Failed::new(&what, "it has none", help);
    let mut n_left = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    for address in addresses {
        let what = format!("{address} can't be connected to");
        let help = "Look whether that server runs and listens on this port, and whether a firewall is between.";
        let opened = try_step(patience, n_left, &what, async {
            let opened = TcpStream::connect(address).await;
            opened.map_err(|error| Failed::new(&what, error.to_string(), help))
        });
        match opened.await {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
        n_left -= 1;
    }
    Err(failed)
}

/// Encrypts a connection.
pub(crate) async fn encrypt(
    stream: TcpStream,
    host: &str,
    ca: Option<&Path>,
    patience: Patience,
) -> Result<TlsStream<TcpStream>, Failed> {
    // It reads what the host trusts, which may be a hundred files.
    let ca = ca.map(Path::to_owned);
    let client = tokio::task::spawn_blocking(move || {
        client(ca.as_deref().map(authorities).transpose()?.unwrap_or_default())
    });
    encrypt_by(stream, host, client, patience).await
}

/// The same with authorities that are read already.
pub(crate) async fn encrypt_trusting(
    stream: TcpStream,
    host: &str,
    authorities: Vec<CertificateDer<'static>>,
    patience: Patience,
) -> Result<TlsStream<TcpStream>, Failed> {
    encrypt_by(stream, host, tokio::task::spawn_blocking(move || client(authorities)), patience)
        .await
}

async fn encrypt_by(
    stream: TcpStream,
    host: &str,
    client: JoinHandle<Result<ClientConfig, Failed>>,
    patience: Patience,
) -> Result<TlsStream<TcpStream>, Failed> {
    let what = format!("no TLS with {host}");
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
        .map_err(|error| Failed::new(&what, error.to_string(), HELP_TLS))?;
    let client = client.await;
    let client = client.map_err(|error| Failed::new(&what, error.to_string(), HELP_TLS))??;
    let connector = TlsConnector::from(Arc::new(client));
    step(patience, &what, async {
        let connected = connector.connect(name, stream).await;
        connected.map_err(|error| Failed::new(&what, error.to_string(), HELP_TLS))
    })
    .await
}

/// What helps if TLS fails.
pub(crate) const HELP_TLS: &str = "Look whether the port is the right one for TLS, and whether the certificate is for this name and of an authority that \
     this host trusts (package ca-certificates); name an authority of your own by ca.";

fn client(authorities: Vec<CertificateDer<'static>>) -> Result<ClientConfig, Failed> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots.add_parsable_certificates(authorities);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| Failed::new("no TLS", error.to_string(), HELP_TLS))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// The certificates in a PEM file.
pub(crate) fn authorities(ca: &Path) -> Result<Vec<CertificateDer<'static>>, Failed> {
    let read = CertificateDer::pem_file_iter(ca).and_then(Iterator::collect);
    read.map_err(|error| {
        let what = format!("{} can't be read as certificates", ca.display());
        Failed::new(
            what,
            error.to_string(),
            "It must be a PEM file that the servers' user can read.",
        )
    })
}

/// The first line of a file with a secret.
pub(crate) fn secret(path: &Path) -> Result<String, Failed> {
    use std::io::Read as _;
    let what = format!("{} can't be read", path.display());
    let help = "It must have the password or token in its first line, and be readable to the servers' user: chgrp bootlace \
                FILE, chmod 640 FILE.";
    let mut text = String::new();
    let read = std::fs::File::open(path)
        .and_then(|file| file.take(SECRET_BYTES_MAX).read_to_string(&mut text));
    read.map_err(|error| Failed::new(&what, error.to_string(), help))?;
    match text.lines().next().map(str::trim).filter(|line| !line.is_empty()) {
        Some(line) if !line.chars().any(char::is_control) => Ok(line.to_owned()),
        _ => Err(Failed::new(what, "its first line is no password or token", help)),
    }
}
