//! What happens to the servers and their network.

/// One kind of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// SIGKILL to the boot server (or `up`, whose storage server then is an orphan), just after it has acknowledged a new
    /// machine.
    KillBoot,
    /// SIGTERM to it.
    StopBoot,
    /// SIGKILL to the storage server.
    KillStorage,
    /// SIGTERM to it.
    StopStorage,
    /// SIGKILL to both at once, as a power cut.
    KillBoth,
    /// SIGTERM to both, and then `serve` and `storage` instead of `up`, or the other way round.
    Rearrange,
    /// All NBD connections are reset by the machines, in the middle of requests.
    ResetClients,
    /// The servers' interface goes down, and up again.
    LinkDown,
    /// The servers' interface is deleted, and another one gets its name and address.
    BridgeMadeAgain,
    /// The file system with database and layers is full, and has room again.
    DiskFull,
    /// It is full while both servers are killed and start again.
    DiskFullKillBoth,
    /// Another process holds the database's write lock.
    DatabaseLocked,
    /// A machine stops, and boots again.
    Reboot,
    /// A machine loses its power in the middle of a write, says goodbye to nobody, and boots again.
    PowerCut,
}

impl Event {
    pub(super) const ALL: [Self; 14] = [
        Self::KillBoot,
        Self::StopBoot,
        Self::KillStorage,
        Self::StopStorage,
        Self::KillBoth,
        Self::Rearrange,
        Self::ResetClients,
        Self::LinkDown,
        Self::BridgeMadeAgain,
        Self::DiskFull,
        Self::DiskFullKillBoth,
        Self::DatabaseLocked,
        Self::Reboot,
        Self::PowerCut,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::KillBoot => "boot server killed",
            Self::StopBoot => "boot server stopped",
            Self::KillStorage => "storage server killed",
            Self::StopStorage => "storage server stopped",
            Self::KillBoth => "both servers killed",
            Self::Rearrange => "up <-> serve and storage",
            Self::ResetClients => "NBD connections reset",
            Self::LinkDown => "interface down and up",
            Self::BridgeMadeAgain => "interface made again",
            Self::DiskFull => "disk full",
            Self::DiskFullKillBoth => "disk full, both servers killed",
            Self::DatabaseLocked => "database locked",
            Self::Reboot => "machine boots again",
            Self::PowerCut => "machine loses its power",
        }
    }
}
