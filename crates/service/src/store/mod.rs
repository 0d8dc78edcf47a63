//! Durable state: the only folder with SQL.
//!
//! What the tables hold is read and changed through [`Transaction`], whose methods stand in the files of what
//! they are about. Readers see a [`View`], which is as of the last commit and never waits.

mod alerts;
mod audit;
mod boots;
mod captures;
mod copies;
mod damage;
mod database;
mod disk_deletions;
mod disk_resets;
mod edits;
mod expected;
mod fixed;
mod hardware;
mod images;
mod kept_disks;
mod kernel_logs;
mod leases;
mod lock_holder;
mod login_failures;
mod machine_identities;
mod machines;
mod marker;
mod menus;
mod orders;
mod place;
mod proofs;
mod rescues;
mod reserve;
mod restored;
mod rings;
mod rooms;
mod row;
mod schema;
mod seen;
mod sessions;
mod site_disks;
mod site_files;
mod ssh_keys;
mod tokens;
mod transaction;
mod users;
mod view;
mod writer;

pub(crate) use alerts::ToldAlert;
pub use audit::{AuditEntry, FieldChange};
pub(crate) use boots::NewBoot;
pub(crate) use copies::copy_files;
pub use copies::{check_database, copy_database};
pub(crate) use database::Database;
pub use expected::{Expected, expected};
pub use hardware::Hardware;
pub(crate) use hardware::take_over_files;
pub(crate) use images::{Held, index};
pub use kernel_logs::KernelLog;
pub(crate) use login_failures::LoginFailures;
pub use orders::PowerState;
pub(crate) use proofs::Proof;
pub use seen::Sighting;
pub(crate) use sessions::SecretHash;
pub use sessions::Session;
pub(crate) use site_files::{FileContent, Weight};
pub use tokens::Token;
pub(crate) use transaction::{ChangeError, Transaction};
pub use users::User;
pub(crate) use view::{LastBoot, View};

pub(crate) use reserve::{Reserve, is_full_disk};
pub use restored::Restored;
pub(crate) use restored::prepare_restored;

/// What a query gives.
pub(crate) type Result<T> = rusqlite::Result<T>;
