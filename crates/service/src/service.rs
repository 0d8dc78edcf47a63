//! Opening the site.

use crate::boot::grub_config::Waits;
use crate::boot::words::Refused;
use crate::error::Error;
use crate::fleet::images::index;
use crate::fleet::status::Exports;
use crate::initrds::build::Initrds;
use crate::live::heartbeats::Heartbeats;
use crate::options::Options;
use crate::store::database::Database;
use crate::store::view::View;
use images::Store;
use model::Site;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use wire::Mac;

/// A site. Cheap to clone; all clones are the same site.
#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
}

struct Inner {
    options: Options,
    database: Database,
    store: Arc<Store>,
    initrds: Initrds,
    waits: Waits,
    heartbeats: Heartbeats,
    refused: Refused,
    exports: watch::Sender<Exports>,
}

impl Service {
    /// Opens the state of a site, making what is missing, and indexes its image store anew.
    ///
    /// # Errors
    /// Database or image store can't be opened, or the database is of a newer Bootlace.
    pub fn open(options: Options) -> Result<Self, Error> {
        let store = Arc::new(Store::open(&options.images)?);
        index(&options.database, &store)?;
        let database = Database::open(&options.database)?;
        let initrds = Initrds::new(&options);
        let inner = Inner {
            options,
            database,
            store,
            initrds,
            waits: Waits::default(),
            heartbeats: Heartbeats::new(),
            refused: Refused::default(),
            exports: watch::Sender::new(Exports::default()),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Machines and images as they are now. Never waits.
    pub fn site(&self) -> Arc<Site> {
        Arc::clone(&self.view().site)
    }

    /// Where everything is.
    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    pub(crate) fn database(&self) -> &Database {
        &self.inner.database
    }

    pub(crate) fn view(&self) -> Arc<View> {
        self.inner.database.view()
    }

    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.inner.store
    }

    pub(crate) fn initrds(&self) -> &Initrds {
        &self.inner.initrds
    }

    pub(crate) fn heartbeats(&self) -> &Heartbeats {
        &self.inner.heartbeats
    }

    pub(crate) fn refused(&self) -> &Refused {
        &self.inner.refused
    }

    pub(crate) fn waits(&self) -> &Waits {
        &self.inner.waits
    }

    pub(crate) fn exports_cell(&self) -> &watch::Sender<Exports> {
        &self.inner.exports
    }

    /// How the log calls the PC with this NIC.
    pub(crate) fn name_or_mac(&self, mac: Mac) -> String {
        match self.site().machine_by_mac(mac) {
            Some(machine) => machine.name.to_string(),
            None => mac.to_string(),
        }
    }
}

pub(crate) fn now_unix() -> u64 {
    now_unix_ms() / 1000
}

pub(crate) fn now_unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
