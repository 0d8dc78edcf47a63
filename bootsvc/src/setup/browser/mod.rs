//! A setup on a page, by the first browser that has the link.

mod door;
mod draft;

use crate::config::WebConfig;
use crate::net::door::Door;
use crate::pages::{self, PagesDoorkeeper};
use crate::paths::Paths;
use crate::privileges::as_owner;
use crate::web_tls::{WebTls, fingerprint};
use anyhow::{Context as _, bail};
use draft::Draft;
use nix::ifaddrs::getifaddrs;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use storage::Credentials;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How long a setup goes on: who has gone away leaves no door open.
pub(crate) const GOOD_FOR: Duration = Duration::from_secs(30 * 60);

/// Where the page is, if the port is free: not where the pages will be.
const PORT: u16 = 8079;

/// For whom the page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Browsers on this host, in plain text.
    Host,
    /// Those that reach this address, encrypted.
    Address(Ipv4Addr),
    /// Those that reach any address of this host, encrypted.
    Lan,
}

impl Reach {
    const fn listen(self) -> Ipv4Addr {
        match self {
            Self::Host => Ipv4Addr::LOCALHOST,
            Self::Address(address) => address,
            Self::Lan => Ipv4Addr::UNSPECIFIED,
        }
    }

    /// By which addresses browsers call it.
    fn addresses(self) -> Vec<Ipv4Addr> {
        match self {
            Self::Host | Self::Address(_) => vec![self.listen()],
            Self::Lan => {
                let all = getifaddrs().into_iter().flatten();
                let own = all.filter_map(|it| Some(it.address?.as_sockaddr_in()?.ip()));
                let own: BTreeSet<_> =
                    own.filter(|it| !it.is_loopback() && !it.is_link_local()).collect();
                own.into_iter().collect()
            }
        }
    }
}

/// A page that waits for a browser.
pub(crate) struct Page {
    draft: Arc<Draft>,
    reach: Reach,
    code: String,
    credentials: Option<Arc<Credentials>>,
    fingerprint: Option<String>,
    say: fn(String),
}

impl Page {
    /// Prepares it; this process must have one thread. `again`: the network is asked for though it is configured. `say` is what this
    /// host's terminal is told.
    ///
    /// # Errors
    /// There can be no certificate, or what is configured can't be read.
    pub(crate) fn prepare(
        paths: &Paths,
        reach: Reach,
        again: bool,
        say: fn(String),
    ) -> anyhow::Result<Self> {
        let (door, code) = door::Door::new()?;
        let (credentials, fingerprint) = match reach {
            Reach::Host => (None, None),
            Reach::Lan | Reach::Address(_) => {
                let folder = paths.state().join("web");
                let listen = SocketAddr::from((reach.listen(), PORT));
                // The authority of the pages, too: a browser that trusts it does so for good.
                let (files, fingerprint) = as_owner(paths, || {
                    let files = WebTls::Own(folder.clone()).files(&WebConfig::default(), listen)?;
                    let page = files.as_ref().context("it is encrypted")?.certificate.clone();
                    // What a browser shows that does not know the authority.
                    Ok((files, fingerprint(&page)?))
                })?;
                (Credentials::from(files).context("no TLS")?, Some(fingerprint))
            }
        };
        let draft = Arc::new(Draft::open(paths, door, again, reach != Reach::Host, say)?);
        Ok(Self { draft, reach, code, credentials, fingerprint, say })
    }

    /// Shows it until the setup is done, or nobody has done it in time.
    ///
    /// # Errors
    /// It can't be shown, or nobody came.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let say = self.say;
        let listener = self.listener().await?;
        let port = listener.local_addr()?.port();
        let scheme = if self.credentials.is_some() { "https" } else { "http" };
        say(format!(
            "Open this link in a browser{}. It is good once, for {} minutes.\n",
            if self.reach == Reach::Host { " on this server" } else { "" },
            GOOD_FOR.as_secs() / 60
        ));
        for address in self.reach.addresses() {
            say(format!("  {scheme}://{address}:{port}/setup?code={}", self.code));
        }
        match &self.fingerprint {
            Some(fingerprint) => say(format!(
                "\nThe browser warns, as it does not know the server's own authority. Compare the SHA-256 fingerprint of the \
                 certificate that it shows with\n  {fingerprint}"
            )),
            None => say(format!(
                "\nOn another computer, ssh -L {port}:127.0.0.1:{port} root@SERVER leads there; --lan shows the page to the network."
            )),
        }
        say("\nWaiting; Ctrl-C ends this.".to_owned());

        let stop = CancellationToken::new();
        let shown = pages::show(
            Door::new(listener, || {}),
            self.credentials,
            web::setup::router(Arc::clone(&self.draft), &[]),
            PagesDoorkeeper::default(),
            stop.clone(),
        );
        let mut shown = std::pin::pin!(shown);
        let mut is_stopped = false;
        tokio::select! {
            () = &mut shown => {}
            () = self.draft.finished() => {}
            () = tokio::time::sleep(GOOD_FOR) => {}
            // Also as the first process of a container, which the kernel ends by no signal that it does not take.
            () = signaled() => is_stopped = true,
        }
        // What was begun is done.
        tokio::select! {
            () = &mut shown => {}
            () = self.draft.rests() => {}
        }
        stop.cancel();
        shown.await;
        match self.draft.has_ended() {
            true => Ok(()),
            false if is_stopped => bail!("stopped; what was not told as done was not done"),
            false => bail!(
                "{} minutes are over, and nothing was done on the page: begin again",
                GOOD_FOR.as_secs() / 60
            ),
        }
    }

    async fn listener(&self) -> anyhow::Result<TcpListener> {
        let address = IpAddr::V4(self.reach.listen());
        match TcpListener::bind((address, PORT)).await {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                TcpListener::bind((address, 0)).await
            }
            bound => bound,
        }
        .with_context(|| format!("can't show a page on {address}"))
    }
}

/// Waits for Ctrl-C, or for somebody who ends this process.
async fn signaled() {
    let hear = |kind| signal(kind).map_err(|error| tracing::warn!(%error, "signals are not heard"));
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (hear(SignalKind::interrupt()), hear(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
