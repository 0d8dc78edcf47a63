//! Opening the site.

use crate::clock::Now;
use crate::error::Error;
use crate::initrds::Initrds;
use crate::live::{
    Alerts, BootTimes, Certificate, Certificates, DiskDeletions, Downloads, Exports, FindingCount,
    Findings, FirmwareHeard, Heartbeats, Held, ImageTroubles, Keepers, LastPool, LeaseClock,
    LeaseDesk, LoginCodes, Newcomers, News, Refused, Screens, Traffic, Waits,
};
use crate::options::Options;
use crate::passwords::{Passwords, Places};
use crate::store::{self, Database, Reserve, View};
use images::{Store, StoreError};
use model::{AddressPool, FindingKind, ImageVersion, Level, Site, Subject, VersionState, WeekTime};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{Notify, Semaphore};
use wire::Mac;

/// Proofs of earlier boots that are looked up at once; each opens the database. Anybody who has an address can ask
/// for one by one datagram.
const LOOKUPS_MAX: usize = 8;

/// Disk files that are received at once.
const UPLOADS_MAX: usize = 4;

/// People whom the directory is asked of at once.
const DIRECTORY_AT_ONCE_MAX: usize = 4;

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
    firmware_heard: FirmwareHeard,
    downloads: Downloads,
    newcomers: Newcomers,
    heartbeats: Heartbeats,
    keepers: Keepers,
    refused: Refused,
    traffic: Traffic,
    boot_times: BootTimes,
    exports: Exports,
    findings: Findings,
    alerts: Alerts,
    certificates: Certificates,
    pool: LastPool,
    lease_clock: Arc<LeaseClock>,
    lease_desk: LeaseDesk,
    image_troubles: ImageTroubles,
    screens: Screens,
    disk_deletions: DiskDeletions,
    /// Image versions that were in the store once, and were not when this process began.
    lost_versions: Arc<Vec<ImageVersion>>,
    lookups: Semaphore,
    passwords: Passwords,
    directory_places: Places,
    login_codes: LoginCodes,
    uploads: Arc<Semaphore>,
    ordered: Notify,
}

impl Service {
    /// Opens the state of a site, making what is missing, and indexes its image store again.
    ///
    /// # Errors
    /// Database or image store can't be opened, or the database is of a newer Bootlace.
    pub fn open(options: Options) -> Result<Self, Error> {
        // What is kept for a full disk is the boot server's, who needs it.
        let is_boot_server = options.network.is_some();
        match Self::open_now(options.clone()) {
            Err(error) if is_boot_server && store::is_full_disk(&error) => {
                match Reserve::beside(&options.database).give_up() {
                    true => Self::open_now(options),
                    false => Err(error),
                }
            }
            opened => opened,
        }
    }

    /// Opens a copy of the state in `folder`, an empty one, for who only looks: where the state is nothing can be written,
    /// and nothing is. What is changed in the copy is lost.
    ///
    /// # Errors
    /// Database or image store can't be read, or there is no room in `folder`.
    pub fn look(options: Options, folder: &Path) -> Result<Self, Error> {
        let database = folder.join("state.db");
        match store::copy_files(&options.database, &database) {
            // A site that has not begun.
            Ok(()) | Err(Error::NoDatabase { .. }) => {}
            Err(error) => return Err(error),
        }
        let store = match Store::look(&options.images) {
            Err(StoreError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                Store::open(&folder.join("images"))?
            }
            store => store?,
        };
        let (hardware, network) = (folder.join("hardware"), None);
        Self::of_store(store, Options { database, hardware, network, ..options })
    }

    fn open_now(options: Options) -> Result<Self, Error> {
        Self::of_store(Store::open(&options.images)?, options)
    }

    fn of_store(store: Store, options: Options) -> Result<Self, Error> {
        let store = Arc::new(store);
        let lost = store::index(&options.database, || held(&store))?;
        if options.network.is_some() {
            // A part that is missing would be noticed only when it is read.
            store::check_database(&options.database)?;
        }
        store::take_over_files(&options.database, &options.hardware)?;
        let database = Database::open(&options.database)?;
        let site = Arc::clone(&database.view().site);
        note_given(&store, lost.iter().map(|version| (version, site.state(version))));
        let initrds = Initrds::new(&options, Arc::clone(&store), database.clone());
        let now = options.clock.now();
        let alerts = Alerts::new(options.alerts.clone());
        let inner = Inner {
            options,
            database,
            store,
            initrds,
            waits: Waits::default(),
            firmware_heard: FirmwareHeard::default(),
            downloads: Downloads::default(),
            newcomers: Newcomers::default(),
            heartbeats: Heartbeats::new(now.moment),
            keepers: Keepers::new(now.moment),
            refused: Refused::default(),
            traffic: Traffic::default(),
            boot_times: BootTimes::default(),
            exports: Exports::default(),
            findings: Findings::default(),
            alerts,
            certificates: Certificates::default(),
            pool: LastPool::default(),
            lease_clock: Arc::new(LeaseClock::new(now)),
            lease_desk: LeaseDesk::default(),
            image_troubles: ImageTroubles::default(),
            screens: Screens::default(),
            disk_deletions: DiskDeletions::default(),
            lost_versions: Arc::new(lost),
            lookups: Semaphore::new(LOOKUPS_MAX),
            passwords: Passwords::default(),
            directory_places: Places::new(DIRECTORY_AT_ONCE_MAX),
            login_codes: LoginCodes::default(),
            uploads: Arc::new(Semaphore::new(UPLOADS_MAX)),
            ordered: Notify::new(),
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

    pub(crate) fn keepers(&self) -> &Keepers {
        &self.inner.keepers
    }

    /// What was sent and refused since the start.
    pub fn traffic(&self) -> &Traffic {
        &self.inner.traffic
    }

    pub(crate) fn refused(&self) -> &Refused {
        &self.inner.refused
    }

    pub(crate) fn boot_times(&self) -> &BootTimes {
        &self.inner.boot_times
    }

    pub(crate) fn newcomers(&self) -> &Newcomers {
        &self.inner.newcomers
    }

    pub(crate) fn firmware_heard(&self) -> &FirmwareHeard {
        &self.inner.firmware_heard
    }

    pub(crate) fn waits(&self) -> &Waits {
        &self.inner.waits
    }

    pub(crate) fn downloads(&self) -> &Downloads {
        &self.inner.downloads
    }

    pub(crate) fn exports(&self) -> &Exports {
        &self.inner.exports
    }

    pub(crate) fn lost_versions(&self) -> &Arc<Vec<ImageVersion>> {
        &self.inner.lost_versions
    }

    pub(crate) fn image_troubles(&self) -> &ImageTroubles {
        &self.inner.image_troubles
    }

    pub(crate) fn screens(&self) -> &Screens {
        &self.inner.screens
    }

    pub(crate) fn disk_deletions(&self) -> &DiskDeletions {
        &self.inner.disk_deletions
    }

    pub(crate) fn live_findings(&self) -> &Findings {
        &self.inner.findings
    }

    pub(crate) fn alerts(&self) -> &Alerts {
        &self.inner.alerts
    }

    /// Something was found that a person should know. `cause` is a sentence, which says "probably" if it is not
    /// proven. It goes away as [`FindingKind::passes`] says; the same again counts.
    pub fn found(&self, kind: FindingKind, subject: &Subject, cause: impl AsRef<str>) {
        let cause = cause.as_ref();
        if self.inner.findings.found(kind, subject, cause, self.now().moment) {
            log_found(kind, subject, cause);
        }
    }

    /// Logs what was found, and what is over, of all that is looked at and not told by whoever meets it.
    pub(crate) fn log_findings(&self) {
        for News { kind, subject, cause } in self.inner.findings.take_news() {
            match cause {
                Some(cause) => log_found(kind, &subject, &cause),
                None => tracing::info!(finding = %kind, %subject, "resolved"),
            }
        }
    }

    /// What was found is no longer so.
    pub fn resolved(&self, kind: FindingKind, subject: &Subject) {
        if self.inner.findings.resolved(kind, subject) {
            tracing::info!(finding = %kind, %subject, "resolved");
        }
    }

    /// How often what was found, all kinds.
    pub fn finding_counts(&self) -> Vec<FindingCount> {
        self.inner.findings.counts(self.now().moment)
    }

    /// Certificates of this site, as they were seen last.
    pub fn certificates(&self) -> Vec<Certificate> {
        self.inner.certificates.get()
    }

    /// Exactly these certificates are in use, and so they are now.
    pub fn note_certificates(&self, certificates: Vec<Certificate>) {
        for kind in [
            FindingKind::NbdCertificateInvalid,
            FindingKind::WebCertificateInvalid,
            FindingKind::CertificateTrouble,
        ] {
            let troubles = certificates.iter().filter_map(|it| it.trouble.as_ref());
            let causes: Vec<&str> =
                troubles.filter(|(of, _)| *of == kind).map(|(_, cause)| cause.as_str()).collect();
            let held =
                Held { subject: Subject::Server, cause: causes.join(". "), since_unix_ms: None };
            let held = if causes.is_empty() { Vec::new() } else { vec![held] };
            self.inner.findings.holds(kind, held, self.now().moment);
        }
        self.inner.certificates.put(certificates);
        self.log_findings();
    }

    /// How full the pool of addresses is, if this process gives addresses.
    pub fn address_pool(&self) -> Option<AddressPool> {
        self.inner.pool.get()
    }

    /// The pool of addresses is so full now.
    pub fn note_address_pool(&self, pool: AddressPool) {
        self.inner.pool.put(pool);
    }

    pub(crate) fn lease_clock(&self) -> &Arc<LeaseClock> {
        &self.inner.lease_clock
    }

    /// Where who decides on leases hears what people have changed.
    pub(crate) fn lease_desk(&self) -> &LeaseDesk {
        &self.inner.lease_desk
    }

    /// Places of those who look up proofs of earlier boots.
    pub(crate) fn lookups(&self) -> &Semaphore {
        &self.inner.lookups
    }

    /// Bounds how many passwords are looked at.
    pub(crate) fn passwords(&self) -> &Passwords {
        &self.inner.passwords
    }

    /// Bounds how many people the directory is asked of.
    pub(crate) fn directory_places(&self) -> &Places {
        &self.inner.directory_places
    }

    /// Codes of links for logging in that nobody has used yet.
    pub(crate) fn login_codes(&self) -> &LoginCodes {
        &self.inner.login_codes
    }

    /// Places of those who send disk files.
    pub(crate) fn uploads(&self) -> &Arc<Semaphore> {
        &self.inner.uploads
    }

    /// Tells that there is an order for the boot server.
    pub(crate) fn ordered(&self) -> &Notify {
        &self.inner.ordered
    }

    /// What time it is.
    pub fn now(&self) -> Now {
        self.inner.options.clock.now()
    }

    /// What a clock on the wall shows at the server.
    pub(crate) fn on_the_wall(&self) -> Option<WeekTime> {
        self.inner.options.clock.on_the_wall()
    }

    /// What a finding about the PC with this NIC is about.
    pub fn subject_of(&self, mac: Mac) -> Subject {
        match self.site().machine_by_mac(mac) {
            Some(machine) => Subject::Machine(machine.name.clone()),
            None => Subject::Pc(mac),
        }
    }

    /// How the log calls the PC with this NIC.
    pub(crate) fn name_or_mac(&self, mac: Mac) -> String {
        match self.site().machine_by_mac(mac) {
            Some(machine) => machine.name.to_string(),
            None => mac.to_string(),
        }
    }
}

fn log_found(kind: FindingKind, subject: &Subject, cause: &str) {
    match kind.level() {
        Level::Alarm => tracing::error!(finding = %kind, %subject, cause, "found"),
        Level::Warning => tracing::warn!(finding = %kind, %subject, cause, "found"),
        Level::Notice => tracing::info!(finding = %kind, %subject, cause, "found"),
    }
}

/// Tells the image store which versions there were, so that their numbers are not given to other content, and for whom they are.
pub(crate) fn note_given<'a>(
    store: &Store,
    known: impl IntoIterator<Item = (&'a ImageVersion, VersionState)>,
) {
    if let Err(error) = store.note_given(known) {
        tracing::debug!(
            error = wire::error_chain(&error),
            "numbers of image versions are not noted"
        );
    }
}

/// What the image store holds now.
pub(crate) fn held(store: &Store) -> Result<store::Held, Error> {
    let states = store.states();
    if let Err(error) = &states {
        let error = wire::error_chain(error);
        tracing::error!(
            error,
            "for whom image versions are can't be read: it is what it was, and new ones are drafts"
        );
    }
    Ok((store.list()?, states.ok()))
}
