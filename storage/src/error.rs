//! Why a storage server does not run.

use crate::aoe_target::SocketError;
use crate::descriptors::TooFewDescriptors;
use crate::nbd_server::Address;
use crate::table::ExportError;
use crate::tls::TlsError;
use std::io;
use std::path::PathBuf;

/// The storage server can't run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The export table or the layers can't be opened.
    #[error(transparent)]
    Exports(#[from] ExportError),
    /// Nobody could be let in.
    #[error(transparent)]
    Descriptors(#[from] TooFewDescriptors),
    /// An address is taken or not ours.
    #[error(
        "can't serve NBD on {address}: is another server running, or is it not an address of this host?"
    )]
    Nbd {
        /// The address.
        address: Address,
        /// Why it failed.
        source: io::Error,
    },
    /// A certificate or key is of no use.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An interface is missing or not Ethernet.
    #[error(transparent)]
    Aoe(#[from] SocketError),
    /// The API's socket can't be made.
    #[error("can't listen on {path}")]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A socket that was handed over is of no use.
    #[error("can't use a socket that was handed over")]
    Handed(#[source] io::Error),
    /// The API failed while it ran.
    #[error("the storage API failed")]
    Api(#[source] io::Error),
}
