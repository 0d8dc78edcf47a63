//! What can go wrong with addresses.

use model::MachineName;
use std::net::Ipv4Addr;
use wire::Mac;

/// Why something can't be done with an address.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Nobody has it.
    #[error("{0} is leased to nobody: bootlace lease ls --all shows all that Bootlace knows")]
    Nobodys(Ipv4Addr),
    /// It belongs to a NIC, by the configuration.
    #[error(
        "{address} is reserved for {mac} in bootlace.toml, and only there it can be taken away: take \"{mac}\" = \
         \"{address}\" out of reserve below [network], and restart the boot server"
    )]
    InFile {
        /// The address.
        address: Ipv4Addr,
        /// Whose it is.
        mac: Mac,
    },
    /// A NIC has another one, by the configuration.
    #[error(
        "{mac} has {address} reserved in bootlace.toml, which counts more: change it in reserve below [network] to \"{mac}\" = \
         \"{wanted}\", and restart the boot server"
    )]
    OtherInFile {
        /// The NIC.
        mac: Mac,
        /// What it has.
        address: Ipv4Addr,
        /// What it was to have.
        wanted: Ipv4Addr,
    },
    /// It belongs to a NIC.
    #[error(
        "{address} is fixed for {who}, and stays so: bootlace lease fix {address} --undo takes that back"
    )]
    Fixed {
        /// The address.
        address: Ipv4Addr,
        /// Whose it is.
        who: String,
    },
    /// It is fixed for nobody.
    #[error("{0} is fixed for nobody: bootlace lease ls shows which addresses are")]
    NotFixed(Ipv4Addr),
    /// Somebody else has it.
    #[error(
        "{address} is {who}'s now: free it first (bootlace lease free {address}), or choose another one"
    )]
    Leased {
        /// The address.
        address: Ipv4Addr,
        /// Who has it.
        who: String,
    },
    /// It can't be anybody's here.
    #[error("{address} can't be fixed: {why}")]
    Unfit {
        /// The address.
        address: Ipv4Addr,
        /// Why not.
        why: String,
    },
    /// Nobody says for whom.
    #[error("nobody has {0}, so say whose it shall be: --machine NAME, or the card's MAC address")]
    ForWhom(Ipv4Addr),
    /// The NIC is not the machine's.
    #[error("{mac} is no network card of {machine}: leave one of both out")]
    NotItsMac {
        /// The NIC.
        mac: Mac,
        /// The machine.
        machine: MachineName,
    },
    /// Others give addresses.
    #[error(
        "another DHCP server gives the addresses (mode below [network] in bootlace.toml), so this is done there. Bootlace only \
         notes who has which"
    )]
    ByOthers,
    /// It is not known who gives addresses.
    #[error("it is not known which addresses Bootlace gives: {0}")]
    Unknown(String),
    /// There are too many.
    #[error("there are {0} fixed addresses already, which is the most: take one back first")]
    TooManyFixed(usize),
    /// So many are not taken at once.
    #[error("{n} leases are more than the {max} that are taken at once: split the file")]
    TooMany {
        /// How many there are.
        n: usize,
        /// How many are taken.
        max: usize,
    },
}

impl LeaseError {
    pub(super) const fn is_not_found(&self) -> bool {
        matches!(self, Self::Nobodys(_) | Self::NotFixed(_))
    }

    /// Whether what is there stands against it.
    pub const fn is_conflict(&self) -> bool {
        matches!(
            self,
            Self::InFile { .. }
                | Self::OtherInFile { .. }
                | Self::Fixed { .. }
                | Self::Leased { .. }
                | Self::ByOthers
        )
    }
}
