//! Servers of all kinds, and what is told of them.

use super::*;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use std::time::Instant;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const STATUS: &str = r#"{"n_machines":2,"machines":{"up":1},"space":null,"pool":null,"more":1}"#;
const FINDINGS: &str = r#"{"findings":[{"kind":"full","level":"warning","about":"server","subject":"","since_unix_ms":0,
    "last_unix_ms":0,"count":1,"cause":"It is full","remedy":"Make room."}],"counts":[]}"#;

/// How long is waited for servers that answer, and for those that do not.
const TIMEOUT: Duration = Duration::from_secs(60);
const SHORT_TIMEOUT: Duration = Duration::from_millis(1500);

/// How a server answers each request.
#[derive(Clone)]
enum Says {
    /// This status and body to everything.
    Always(&'static str, String),
    /// As the pages of a boot server, to who has the token.
    Bootlace,
    /// Whatever this is, and then it closes.
    Raw(&'static str),
    /// This before anybody has asked.
    Greets(&'static str),
    /// A body without an end.
    Endless,
    /// A byte of a head from time to time.
    Drips,
    /// Nothing.
    Nothing,
}

async fn answer(says: &Says, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Option<()> {
    let mut seen = Vec::new();
    if let Says::Greets(text) = says {
        stream.write_all(text.as_bytes()).await.ok()?;
    }
    loop {
        while !seen.ends_with(b"\r\n\r\n") {
            let byte = stream.read_u8().await.ok()?;
            seen.push(byte);
        }
        let request = String::from_utf8(std::mem::take(&mut seen)).unwrap().to_lowercase();
        let (status, body) = match says {
            Says::Always(status, body) => (*status, body.as_str()),
            Says::Bootlace if !request.contains("authorization: bearer bl_right\r\n") => {
                ("401 Unauthorized", "{}")
            }
            Says::Bootlace if request.starts_with("get /api/v1/status ") => ("200 OK", STATUS),
            Says::Bootlace => ("200 OK", FINDINGS),
            Says::Raw(text) => {
                stream.write_all(text.as_bytes()).await.ok()?;
                stream.shutdown().await.ok()?;
                return None;
            }
            Says::Endless => {
                let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
                stream.write_all(head.as_bytes()).await.ok()?;
                let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
                loop {
                    stream.write_all(chunk.as_bytes()).await.ok()?;
                }
            }
            Says::Drips => loop {
                stream.write_all(b"H").await.ok()?;
                tokio::time::sleep(Duration::from_millis(100)).await;
            },
            Says::Nothing | Says::Greets(_) => std::future::pending().await,
        };
        let length = body.len();
        let text = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nlocation: https://else.example/\r\n\r\n{body}"
        );
        stream.write_all(text.as_bytes()).await.ok()?;
        stream.flush().await.ok()?;
    }
}

/// A server on this host, which ends with its runtime.
fn serve(says: Says, tls: Option<ServerConfig>) -> (tokio::runtime::Runtime, u16) {
    let runtime = crate::cli::runtime().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = tls.map(|tls| TlsAcceptor::from(Arc::new(tls)));
    runtime.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            match &acceptor {
                None => drop(answer(&says, stream).await),
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        answer(&says, stream).await;
                    }
                }
            }
        }
    });
    (runtime, port)
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A server's configuration with a certificate for this name, which is good between these years.
    fn certify(&self, name: &str, (from, until): (i32, i32)) -> ServerConfig {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        (params.not_before, params.not_after) =
            (date_time_ymd(from, 1, 1), date_time_ymd(until, 1, 1));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let chain = vec![certificate.der().clone()];
        builder.with_no_client_auth().with_single_cert(chain, key).unwrap()
    }
}

struct Place {
    folder: TempDir,
    authority: Authority,
}

impl Place {
    fn new() -> Self {
        let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
        let place = Self { folder, authority };
        place.write("token", "bl_right\n");
        place.write("ca.pem", &place.authority.pem);
        place
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    fn ask(&self, url: &str) -> Result<(Glance, Vec<Told>), Trouble> {
        self.ask_for(url, TIMEOUT)
    }

    fn ask_for(&self, url: &str, timeout: Duration) -> Result<(Glance, Vec<Told>), Trouble> {
        let path = |name: &str| self.folder.path().join(name);
        let (token_file, ca) = (path("token"), Some(path("ca.pem")));
        let begun = Instant::now();
        let asked = Far { url: url.to_owned(), token_file, ca, timeout }.ask();
        assert!(begun.elapsed() < timeout * 2, "{url}: it took {:?}", begun.elapsed());
        asked
    }

    /// What is told of a server.
    fn told(&self, says: Says, certificate: Option<(&str, (i32, i32))>) -> (Verdict, String) {
        let tls = certificate.map(|(name, years)| self.authority.certify(name, years));
        let says_nothing = matches!(says, Says::Nothing | Says::Drips);
        let (runtime, port) = serve(says, tls);
        let timeout = match says_nothing {
            true => SHORT_TIMEOUT,
            false => TIMEOUT,
        };
        let url = format!("https://localhost:{port}");
        let Trouble { verdict, text } = self.ask_for(&url, timeout).unwrap_err();
        runtime.shutdown_background();
        (verdict, text)
    }
}

const GOOD: Option<(&str, (i32, i32))> = Some(("localhost", (2020, 2090)));

#[test]
fn the_pages_tell_how_the_site_is() {
    let place = Place::new();
    for tls in [true, false] {
        let config = tls.then(|| place.authority.certify("localhost", (2020, 2090)));
        let (runtime, port) = serve(Says::Bootlace, config);
        let scheme = if tls { "https" } else { "http" };
        for end in ["", "/"] {
            let (glance, found) = place.ask(&format!("{scheme}://localhost:{port}{end}")).unwrap();
            assert_eq!((glance.n_machines, found.len()), (2, 1));
            assert_eq!(found[0].cause(), "It is full");
        }
        runtime.shutdown_background();
    }
}

#[test]
fn what_is_wrong_with_a_server_is_told_in_its_own_words_and_in_time() {
    let place = Place::new();
    let unknown = |(verdict, text): (Verdict, String), words: &str| {
        assert!(verdict == Verdict::Unknown && text.contains(words), "{verdict:?}: {text}");
        assert!(text.len() < 500, "{text}");
    };
    let down = |(verdict, text): (Verdict, String), words: &str| {
        assert!(verdict == Verdict::Critical && text.contains(words), "{verdict:?}: {text}");
    };
    // Certificates.
    let told = |certificate| place.told(Says::Bootlace, Some(certificate));
    unknown(told(("localhost", (2020, 2021))), "has expired");
    unknown(told(("localhost", (2080, 2090))), "not good yet");
    unknown(told(("boot1.example", (2020, 2090))), "not for the name localhost");
    let other = Authority::new();
    place.write("ca.pem", &other.pem);
    unknown(told(("localhost", (2020, 2090))), "not of the authority in");
    place.write("ca.pem", "no certificate");
    unknown(told(("localhost", (2020, 2090))), "there is no certificate in");
    place.write("ca.pem", &place.authority.pem);
    // Tokens.
    place.write("token", "bl_wrong\n");
    unknown(place.told(Says::Bootlace, GOOD), "does not know the token in");
    place.write("token", "two words\n");
    unknown(place.told(Says::Bootlace, GOOD), "is no token");
    place.write("token", "bl_right\n");
    unknown(place.told(Says::Always("403 Forbidden", "{}".into()), GOOD), "may not read");
    // Something else.
    let always = |status, body: &str| place.told(Says::Always(status, body.into()), GOOD);
    unknown(always("200 OK", "<html>Welcome</html>"), "is no Bootlace that this program");
    unknown(always("200 OK", "{\"n_machines\":\"many\"}"), "is no Bootlace that this program");
    unknown(always("200 OK", STATUS), "is no Bootlace that this program");
    unknown(always("404 Not Found", ""), "it answers 404");
    unknown(always("307 Temporary Redirect", ""), "sends on to https://else.example/");
    unknown(always("421 Misdirected Request", ""), "does not go by this name");
    down(always("503 Service Unavailable", ""), "answers 503");
    unknown(place.told(Says::Raw("220 mail.example ESMTP\r\n"), GOOD), "is no Bootlace");
    unknown(place.told(Says::Greets("220 mail.example ESMTP\r\n"), None), "does not speak TLS");
    // None that answers.
    down(place.told(Says::Raw(""), GOOD), "without an answer");
    down(place.told(Says::Raw("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"), GOOD), "broke off");
    down(place.told(Says::Nothing, GOOD), "has not answered within 1 s");
    down(place.told(Says::Nothing, None), "has not answered within 1 s");
    down(place.told(Says::Drips, GOOD), "has not answered within 1 s");
    unknown(place.told(Says::Endless, GOOD), "more than 16 MiB");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let Trouble { verdict, text } = place.ask(&format!("https://127.0.0.1:{port}")).unwrap_err();
    down((verdict, text), "can't be connected to");
}

#[test]
fn what_is_no_address_of_pages_is_told_before_anybody_is_asked() {
    let place = Place::new();
    for (url, words) in [
        ("boot1", "begins neither with"),
        ("ftp://boot1", "begins neither with"),
        ("https://", "is no address"),
        ("https://boot1/api/v1/status", "nothing may follow"),
        ("https://boot1?x", "nothing may follow"),
        ("https://anna:secret@boot1", "nobody logs in there"),
        ("http://boot1:8080", "could read the token"),
        ("http://10.0.0.1:8080", "could read the token"),
    ] {
        let Trouble { verdict, text } = place.ask(url).unwrap_err();
        assert!(verdict == Verdict::Unknown && text.contains(words), "{url}: {text}");
    }
    std::fs::remove_file(place.folder.path().join("token")).unwrap();
    let Trouble { text, .. } = place.ask("https://localhost:1").unwrap_err();
    assert!(text.contains("can't be read") && text.contains("token"), "{text}");
}
