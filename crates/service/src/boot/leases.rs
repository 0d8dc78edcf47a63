//! Addresses that belong to NICs.
//!
//! Who decides on leases counts by a clock that nobody sets while the process runs, [`Service::lease_clock_unix`]; in
//! the database stands the wall clock, which goes on while the process does not. If the wall clock is set, what is
//! in the database is moved with it: nobody loses his address, and nobody keeps one for years.

use crate::error::Error;
use crate::live::LeaseNews;
use crate::service::Service;
use model::{FindingKind, Lease, Subject};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::Receiver;
use wire::Mac;

/// How often it is looked whether somebody has set the wall clock.
const CLOCK_INTERVAL: Duration = Duration::from_secs(1);

/// What was set is known in whole seconds.
const SLACK_MS: u64 = 2_000;

impl Service {
    /// The clock by which leases are counted: seconds since 1970 as the wall clock would tell them if nobody
    /// had set it since this process started.
    pub fn lease_clock_unix(&self) -> u64 {
        self.lease_clock().unix(self.now())
    }

    /// All leases, ended ones too, by [`Service::lease_clock_unix`].
    pub fn leases(&self) -> Vec<Lease> {
        let clock = self.lease_clock();
        self.view().leases().map(|lease| clock.counted(lease)).collect()
    }

    /// Addresses that belong to one NIC for ever, beside those in the configuration. The same as long as they are.
    pub fn fixed_addresses(&self) -> Arc<BTreeMap<Mac, Ipv4Addr>> {
        Arc::clone(&self.view().fixed)
    }

    /// What people change of leases from now on. Who decides on them listens before it reads them first.
    pub fn lease_news(&self) -> Receiver<LeaseNews> {
        self.lease_desk().listen()
    }

    /// Somebody with this NIC was heard to have an address without a lease: nobody gets it until then, by
    /// [`Service::lease_clock_unix`].
    pub fn note_heard(&self, address: Ipv4Addr, mac: Mac, until_unix: u64) {
        self.lease_desk().note_heard(address, mac, until_unix, self.lease_clock_unix());
    }

    /// The address that this NIC has, or had last.
    pub fn address_of(&self, mac: Mac) -> Option<Ipv4Addr> {
        self.view().lease(mac).map(|lease| lease.address)
    }

    /// The NIC that has this address, or had it last.
    pub fn owner_of(&self, address: Ipv4Addr) -> Option<Mac> {
        self.view().owner(address)
    }

    /// How large a packet may be in the network that has this address, if that is set.
    pub fn mtu_at(&self, address: Ipv4Addr) -> Option<u16> {
        self.options().network_with(address)?.mtu
    }

    /// Stores a lease, in place of the NIC's former one and of any other for the address. It ends by
    /// [`Service::lease_clock_unix`].
    ///
    /// It is in the queue when this returns. When the future is `Ok`, the lease is on the disk: the ACK may leave.
    ///
    /// # Errors
    /// The database can't be written, or too many changes wait.
    pub fn commit_lease(
        &self,
        lease: Lease,
    ) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        let clock = Arc::clone(self.lease_clock());
        let length_seconds = lease.expires_unix.saturating_sub(self.lease_clock_unix());
        let length_seconds = u32::try_from(length_seconds).unwrap_or(u32::MAX);
        self.database()
            .write(move |tables| Ok(tables.put_lease(&clock.stored(lease), length_seconds)?))
    }

    /// Stores that nobody gets the address until then, by [`Service::lease_clock_unix`], and that its lease has ended.
    ///
    /// # Errors
    /// The database can't be written, or too many changes wait.
    pub fn commit_declined(
        &self,
        address: Ipv4Addr,
        until_unix: u64,
    ) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        // A few minutes: if the wall clock is set, they are a few more, or fewer.
        let now = self.now().unix();
        let until = now + until_unix.saturating_sub(self.lease_clock_unix());
        self.database().write(move |tables| Ok(tables.put_declined(address, until, now)?))
    }

    /// Addresses that nobody gets, and until when, by [`Service::lease_clock_unix`]; none for longer than `seconds`,
    /// whatever clock this server had before.
    ///
    /// # Errors
    /// The database can't be read.
    pub async fn declined(&self, seconds: u64) -> Result<Vec<(Ipv4Addr, u64)>, Error> {
        let declined = self.database().read(|tables| tables.declined()).await?;
        let (wall, now) = (self.now().unix(), self.lease_clock_unix());
        let left = |until: u64| until.saturating_sub(wall).min(seconds);
        Ok(declined.into_iter().map(|(address, until)| (address, now + left(until))).collect())
    }

    /// Who is going to decide on leases calls this first: no lease has more time left than it was given for,
    /// whatever clock this server had before.
    ///
    /// # Errors
    /// The database can't be written, or too many changes wait.
    pub async fn bound_leases(&self) -> Result<(), Error> {
        let now_unix = self.now().unix();
        self.database().write(move |tables| Ok(tables.bound_leases(now_unix)?)).await
    }

    /// Moves leases, and what was noted of boots, with the wall clock. Never ends.
    pub(crate) async fn follow_wall_clock(&self) {
        loop {
            tokio::time::sleep(CLOCK_INTERVAL).await;
            self.look_at_wall_clock().await;
        }
    }

    pub(crate) async fn look_at_wall_clock(&self) {
        let clock = self.lease_clock();
        let now = self.now();
        let Some(setting) = clock.setting(now) else { return };
        let by_seconds = setting.by_seconds;
        let direction = if by_seconds < 0 { "back" } else { "forward" };
        let cause = format!(
            "The clock of this server was set {direction} by {} s; leases and boots are moved with it",
            by_seconds.unsigned_abs()
        );
        self.found(FindingKind::ClockSet, &Subject::Server, cause);
        let by_ms = by_seconds.saturating_mul(1000);
        let noted_until_ms = now.unix_ms.saturating_add_signed(by_ms.saturating_neg());
        let noted_unix_ms = clock.started_unix_ms()..=noted_until_ms.saturating_add(SLACK_MS);
        // Inside, so that each lease that is stored before is moved, and none that is stored after.
        let moved = self.database().write({
            let clock = Arc::clone(clock);
            move |tables| {
                tables.shift_leases(by_seconds, now.unix())?;
                tables.shift_boots(by_ms, &noted_unix_ms)?;
                clock.note(setting);
                Ok(())
            }
        });
        if let Err(error) = moved.await {
            // The whole transaction may have failed.
            clock.forget(setting);
            tracing::error!(error = error.chain(), "leases and boots were not moved");
        }
    }
}
