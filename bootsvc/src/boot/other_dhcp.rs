//! Other DHCP servers on the boot network: none may be there at the start, and one that comes later is told of.

use crate::config::Mode;
use crate::net::dhcp_watch::{DhcpWatch, Other};
use crate::net::link::{Link, LinkTrouble};
use crate::paths::Paths;
use model::{FindingKind, Subject};
use service::Service;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often it is asked whether there is another one. Its answers to PCs that ask by broadcast are heard at once.
const ASK_INTERVAL: Duration = Duration::from_secs(600);

/// How long it is waited after an error.
const RETRY: Duration = Duration::from_secs(1);

/// For so long a boot server that is started again believes that it is still the only one.
const BELIEVED_FOR: Duration = Duration::from_secs(900);

/// A note that nobody else answered a short time ago. With it a boot server that is restarted answers PCs at once, and asks meanwhile.
pub(crate) struct Alone {
    path: PathBuf,
    /// On which interface, and who we are there.
    whom: String,
}

impl Alone {
    pub(crate) fn on(interface: &str, server: Ipv4Addr, paths: &Paths) -> Self {
        // A name of an interface has no slash.
        let path = paths.run().join(format!("alone-on-{interface}"));
        Self { path, whom: format!("{server} on {interface}\n") }
    }

    pub(crate) fn is_noted(&self) -> bool {
        let age =
            fs::metadata(&self.path).and_then(|about| about.modified()).map(|at| at.elapsed());
        matches!(age, Ok(Ok(age)) if age <= BELIEVED_FOR)
            && fs::read_to_string(&self.path).is_ok_and(|whom| whom == self.whom)
    }

    /// Without the note the next start only takes longer.
    pub(crate) fn note(&self) {
        if let Err(error) = fs::write(&self.path, &self.whom) {
            tracing::debug!(%error, "it can't be noted that no other DHCP server answers");
        }
    }

    fn forget(&self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Asks whether another server answers on `interface`, which is refused.
///
/// # Errors
/// One does, or nobody can be asked.
pub(crate) async fn refuse(watch: &DhcpWatch, interface: &str) -> anyhow::Result<()> {
    match watch.probe().await {
        Ok(None) => Ok(()),
        Ok(Some(other)) => anyhow::bail!(told(&other, interface, Mode::Auto)),
        Err(error) => anyhow::bail!(not_asked(interface, &error)),
    }
}

/// Why nobody could be asked, and what to do.
pub(crate) fn not_asked(interface: &str, error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NetworkDown => {
            let (down, advice) = (LinkTrouble::Down, LinkTrouble::Down.advice(interface));
            format!("the interface {interface} {down}{advice}")
        }
        _ => format!("can't ask for other DHCP servers on {interface}: {error}"),
    }
}

/// What it means that another one answers, and what to do.
pub(crate) fn told(other: &Other, interface: &str, mode: Mode) -> String {
    let offers =
        other.address.map_or_else(String::new, |address| format!(", which offers {address}"));
    let so = match mode {
        Mode::Auto => ", so DHCP is not started",
        Mode::Dhcp | Mode::Proxy | Mode::External => "",
    };
    format!(
        "another DHCP server answers on {interface}: {}{offers}. PCs would take an address and a loader from \
         whichever is faster{so}. If the other one is to go on giving addresses, set mode = \"proxy\" below \
         [network] in bootlace.toml: then Bootlace only tells PCs where their loader is. Otherwise switch the other one off, or keep \
         it out of this network; if it leaves the machines alone, set beside_others = true",
        other.server
    )
}

/// Tells of each other server that is heard, until `stop`; `asks_now`: nobody was asked at the start.
pub(crate) async fn watch(
    mut watch: DhcpWatch,
    (alone, asks_now): (Alone, bool),
    server: Ipv4Addr,
    mut link: Link,
    service: Service,
    stop: CancellationToken,
) {
    let mut ask = tokio::time::interval(ASK_INTERVAL);
    if !asks_now {
        ask.reset();
    }
    loop {
        let heard = tokio::select! {
            () = stop.cancelled() => return,
            () = link.made_again() => {
                match DhcpWatch::open(link.interface(), server) {
                    Ok(again) => watch = again,
                    Err(error) => {
                        tracing::debug!(%error, "other DHCP servers can't be heard yet");
                        link.forget();
                        tokio::time::sleep(RETRY).await;
                    }
                }
                continue;
            }
            heard = watch.overhear() => heard.map(Some),
            _ = ask.tick() => watch.probe().await,
        };
        match heard {
            Ok(None) => alone.note(),
            Ok(Some(other)) => {
                alone.forget();
                let whom = service.subject_of(other.to);
                let what = match other.address {
                    Some(address) => format!("offered {address} to {whom}"),
                    None => format!("told {whom} of another loader, as a proxy"),
                };
                let cause =
                    format!("This DHCP server answers on {}, too: it {what}", link.interface());
                service.found(FindingKind::SecondDhcp, &Subject::Address(other.server), cause);
            }
            Err(error) => {
                tracing::debug!(%error, "other DHCP servers can't be heard");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::time::SystemTime;

    #[test]
    fn who_was_alone_a_short_time_ago_believes_it_of_this_interface_and_address() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        let on = |interface, last| Alone::on(interface, [10, 0, 5, last].into(), &paths);
        let alone = on("br0", 1);
        alone.note();
        assert!(!alone.is_noted(), "there is no folder");
        fs::create_dir_all(paths.run()).unwrap();
        alone.note();
        assert!(alone.is_noted() && !on("br1", 1).is_noted() && !on("br0", 2).is_noted());
        let file = File::options().write(true).open(paths.run().join("alone-on-br0")).unwrap();
        for (at, is_noted) in [
            (SystemTime::now() - BELIEVED_FOR - RETRY, false),
            (SystemTime::now() + BELIEVED_FOR, false),
            (SystemTime::now() - BELIEVED_FOR / 2, true),
        ] {
            file.set_modified(at).unwrap();
            assert_eq!(alone.is_noted(), is_noted, "{at:?}");
        }
        alone.forget();
        assert!(!alone.is_noted());
    }
}
