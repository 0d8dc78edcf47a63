//! The one way to the tables.

use crate::error::Error;
use rusqlite::Connection;
use std::cell::RefCell;
use std::collections::BTreeSet;
use wire::Mac;

/// A transaction: what is done through it happens as a whole or not at all.
///
/// Methods that change something note what readers must see again; the writer reads just that after the commit.
pub(crate) struct Transaction<'a> {
    connection: &'a Connection,
    touched: RefCell<BTreeSet<Part>>,
}

/// A part of the state that readers see. What decides what else is read comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// Machines.
    Machines,
    /// Image versions.
    Images,
    /// Disks beside roots.
    Disks,
    /// Rescue shells that are wanted.
    Rescues,
    /// Boots that throw their machine's disk away.
    DiskResets,
    /// Machines that keep a disk.
    KeptDisks,
    /// Removed machines whose disks are to be deleted.
    DiskDeletions,
    /// In whose names addresses were declined.
    Declined,
    /// Addresses that belong to one NIC for ever.
    Fixed,
    /// The lease of one NIC.
    Lease(Mac),
    /// All leases.
    Leases,
    /// The last boot of the PC with this NIC.
    Boot(Mac),
    /// When one PC asked.
    Seen(Mac),
    /// What the PC with one NIC is made of.
    Hardware(Mac),
    /// Accounts, sessions and tokens.
    People,
    /// All of it.
    Everything,
}

impl<'a> Transaction<'a> {
    pub(super) const fn new(connection: &'a Connection) -> Self {
        Self { connection, touched: RefCell::new(BTreeSet::new()) }
    }

    /// The tables.
    pub(super) const fn sql(&self) -> &'a Connection {
        self.connection
    }

    /// Readers must see this part again.
    pub(super) fn touch(&self, part: Part) {
        self.touched.borrow_mut().insert(part);
    }

    pub(super) fn into_touched(self) -> BTreeSet<Part> {
        self.touched.into_inner()
    }
}

/// Why a change is rolled back.
pub(crate) enum ChangeError {
    /// It makes no sense.
    Refused(Error),
    /// SQLite can't.
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for ChangeError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<Error> for ChangeError {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}
