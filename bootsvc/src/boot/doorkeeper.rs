//! Who may ask the boot server for files: everybody, but machines before strangers.

use crate::boot::files::BootFiles;
use crate::net::places::{Doorkeeper, Guest, MALFORMED, NoPlace};
use model::{FindingKind, Subject};
use std::net::SocketAddr;

/// How files are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Http,
    /// Anybody can ask in anybody's name.
    Tftp,
}

impl Protocol {
    const fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tftp => "tftp",
        }
    }
}

/// Stands at the door of one protocol.
pub(crate) struct FilesDoorkeeper {
    files: BootFiles,
    protocol: Protocol,
}

impl FilesDoorkeeper {
    /// At the door of HTTP.
    pub(crate) fn of_http(files: BootFiles) -> Self {
        Self { files, protocol: Protocol::Http }
    }

    /// At the door of TFTP.
    pub(crate) fn of_tftp(files: BootFiles) -> Self {
        Self { files, protocol: Protocol::Tftp }
    }

    fn one_asks_too_much(&self, peer: SocketAddr) {
        let cause = match self.protocol {
            Protocol::Http => "It has so many HTTP connections that some were ended",
            Protocol::Tftp => {
                "TFTP requests in its name were dropped; probably somebody else sends them"
            }
        };
        self.files.found(
            FindingKind::AsksTooMuch,
            &self.files.subject(peer.ip()),
            cause.to_owned(),
        );
    }

    fn all_ask_too_much(&self, why: NoPlace) {
        let what = match self.protocol {
            Protocol::Http => "HTTP connections",
            Protocol::Tftp => "TFTP requests",
        };
        let cause = format!("Some {what} were refused: {why}");
        self.files.found(FindingKind::NoPlaceLeft, &Subject::Server, cause);
    }
}

impl Doorkeeper for FilesDoorkeeper {
    fn guest(&self, peer: SocketAddr) -> Guest {
        Guest { address: peer.ip(), is_stranger: self.files.is_stranger(peer.ip()) }
    }

    fn on_refused(&self, peer: SocketAddr, why: NoPlace) {
        tracing::debug!(%peer, protocol = ?self.protocol, %why, "refused");
        self.files.traffic().refused(self.protocol.word(), why.word());
        match why {
            NoPlace::HostAsksOften | NoPlace::HostIsFull => self.one_asks_too_much(peer),
            NoPlace::Full | NoPlace::Strangers => self.all_ask_too_much(why),
        }
    }

    fn on_malformed(&self, peer: SocketAddr) {
        tracing::debug!(%peer, protocol = ?self.protocol, "not understood");
        self.files.traffic().refused(self.protocol.word(), MALFORMED);
    }

    fn on_lost(&self, peer: SocketAddr) {
        tracing::debug!(%peer, protocol = ?self.protocol, "lost its place to others");
        // A name that was invented says nothing.
        if self.protocol == Protocol::Tftp && self.files.is_stranger(peer.ip()) {
            self.all_ask_too_much(NoPlace::Full);
        } else {
            self.one_asks_too_much(peer);
        }
    }
}
