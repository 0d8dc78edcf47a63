//! Who asks through the boot server's Unix socket.

/// Somebody on the boot server's host whom the operating system has let through to its socket: root, the servers' user,
/// or a member of the group of administrators. He may do everything.
///
/// It stands in the extensions of a request that came through the socket, or that a command asks of itself because no
/// boot server runs, and never in one that came over the network: what a request itself says does not make it one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalAdmin {
    /// The user of the process that has connected, when it did.
    pub uid: u32,
}
