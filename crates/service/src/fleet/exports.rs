//! What the storage server says of machines' disks.

use crate::error::Error;
use crate::live::Answer;
use crate::people::Admin;
use crate::service::Service;
use crate::storage_client::{self, StorageError};
use crate::store::LastBoot;
use model::{
    Descriptors, ExportStatus, FindingKind, HostCount, MachineName, NbdRefusals, StallVerb, Subject,
};
use std::sync::Arc;
use std::time::Duration;

/// How often the storage server is asked for its exports while somebody looks, a machine boots, or it does not answer.
const EXPORTS_INTERVAL: Duration = Duration::from_secs(2);

/// How often otherwise.
const IDLE_INTERVAL: Duration = Duration::from_secs(10);

/// Somebody looks who has looked in this time, and a machine boots of whose boot something was heard in it.
const LIVELY_TIME: Duration = Duration::from_secs(60);

/// How often it is asked for disks that machines keep, for which it reads a file of each.
const DISKS_INTERVAL: Duration = Duration::from_secs(20);

impl Service {
    /// Asks the storage server for its exports. Pages show what it said last.
    pub async fn refresh_exports(&self) {
        let now = self.now().moment;
        let asked = Some(now);
        let before = self.exports().last();
        let (mut disks, mut disks_asked) = (Arc::clone(&before.disks), before.disks_asked);
        let mut further_disks = Arc::clone(&before.further_disks);
        let socket = &self.options().storage_socket;
        let answer = match storage_client::exports(socket).await {
            Ok(all) => {
                let is_root = |export: &ExportStatus| export.spec.disk.is_root();
                let (list, further) = all.into_iter().partition(is_root);
                let space = storage_client::space(socket).await.ok();
                let place_trouble = storage_client::place_trouble(socket).await.ok().flatten();
                let descriptors = storage_client::descriptors(socket).await.ok();
                let refusals = storage_client::refusals(socket).await.ok();
                if disks_asked.is_none_or(|asked| now.since(asked) >= DISKS_INTERVAL)
                    && let Ok(told) = storage_client::disks(socket).await
                {
                    let (roots, others) = told.into_iter().partition(|told| told.disk.is_root());
                    (disks, further_disks) = (Arc::new(roots), Arc::new(others));
                    disks_asked = asked;
                }
                let error = None;
                let about =
                    Answer { asked, list, further, space, place_trouble, ..Answer::default() };
                Answer { further_disks, descriptors, refusals, disks, disks_asked, error, ..about }
            }
            Err(error) => {
                // What it said of its clients is compared with what it says next.
                let Answer { descriptors, refusals, .. } = (*before).clone();
                let error = Some(error.fact());
                Answer {
                    asked,
                    descriptors,
                    refusals,
                    disks,
                    further_disks,
                    error,
                    ..Answer::default()
                }
            }
        };
        let error = answer.error.clone();
        let (descriptors, refusals) = (answer.descriptors, answer.refusals.clone());
        let former = self.exports().put(answer);
        if let (Some(former), Some(now)) = (former.descriptors, descriptors) {
            self.find_lack_of_descriptors(former, now);
        }
        if let (Some(former), Some(now)) = (&former.refusals, &refusals) {
            self.find_refusals(former, now);
        }
        match (&former.error, error) {
            (former, Some(error)) if former.as_ref() != Some(&error) => {
                tracing::warn!(error, "storage server");
            }
            (Some(_), None) => tracing::info!("the storage server answers again"),
            _ => {}
        }
    }

    fn find_lack_of_descriptors(&self, former: Descriptors, now: Descriptors) {
        let Descriptors { limit, refused_connections } = now;
        if grown(former.refused_connections, refused_connections) > 0 {
            let cause = format!(
                "The storage server refuses NBD connections: it may have only {limit} file descriptors"
            );
            self.found(FindingKind::NoDescriptors, &Subject::Server, cause);
        }
    }

    /// Finds whom the storage server could not serve since it told of it last.
    fn find_refusals(&self, former: &NbdRefusals, now: &NbdRefusals) {
        let refused = grown(former.refused_connections, now.refused_connections);
        if refused > 0 {
            let cause = format!(
                "The storage server had as many NBD connections as it may have, and refused {refused} more"
            );
            self.found(FindingKind::NbdFull, &Subject::Server, cause);
        }
        if grown(former.short_of_memory, now.short_of_memory) > 0 {
            let cause = "NBD clients do not take what they have asked for, and all others are answered in smaller pieces";
            self.found(FindingKind::NbdMemoryShort, &Subject::Server, cause);
        }
        for host in more_often(&former.let_go, &now.let_go) {
            let cause = format!(
                "It connected to the storage server more often than may be at once, and opened no disk: {} of its \
                 connections were closed",
                host.count
            );
            self.found(FindingKind::NbdCrowded, &Subject::Address(host.address), cause);
        }
        for HostCount { address, count, machine } in more_often(&former.not_proven, &now.not_proven)
        {
            let disk = match machine {
                Some(machine) => format!("the disk of {machine}"),
                None => "a disk that is not there".to_owned(),
            };
            let or = match machine {
                Some(_) => "an earlier boot of the machine",
                None => "a PC that was removed as a machine",
            };
            let times = if *count == 1 { "once".to_owned() } else { format!("{count} times") };
            let cause = format!(
                "It asked for a disk {times}, last for {disk}, and did not prove that it is its own: probably a program \
                 there looks for disks, or {or} still runs"
            );
            self.found(FindingKind::DiskNotProven, &Subject::Address(*address), cause);
        }
    }

    /// Why the storage server did not answer when it was asked last; `None` if it did.
    pub fn storage_error(&self) -> Option<String> {
        self.exports().last().error.clone()
    }

    /// Keeps what pages show of the storage server fresh. Never ends.
    pub(super) async fn keep_exports_fresh(&self) {
        loop {
            self.delete_left_disks().await;
            if self.is_asked_again() {
                self.refresh_exports().await;
                self.note_exports().await;
            }
            tokio::time::sleep(EXPORTS_INTERVAL).await;
        }
    }

    /// Whether the storage server is to be asked now: what nobody looks at, and nothing depends on, may be older.
    fn is_asked_again(&self) -> bool {
        let (now, last) = (self.now(), self.exports().last());
        let is_recent = |at, time| now.moment.since(at) < time;
        if last.error.is_some() || last.asked.is_none_or(|asked| !is_recent(asked, IDLE_INTERVAL)) {
            return true;
        }
        let is_recent_ms = |at_ms| now.unix_ms.abs_diff(at_ms) < LIVELY_TIME.as_millis() as u64;
        let boots = |last: &LastBoot| {
            last.boot.current().is_some_and(|event| is_recent_ms(event.at_unix_ms))
        };
        self.exports().looked().is_some_and(|looked| is_recent(looked, LIVELY_TIME))
            || self.view().boots.values().any(boots)
    }

    /// Somebody looks: asks the storage server if that was not done just now.
    pub(super) async fn look_at_exports(&self) {
        let now = self.now().moment;
        self.exports().note_look(now);
        let asked = self.exports().last().asked;
        if asked.is_none_or(|asked| now.since(asked) > 2 * EXPORTS_INTERVAL) {
            self.refresh_exports().await;
        }
    }
}

impl Admin {
    /// Decides what becomes of the machine's writes that wait, for instance for room on the storage
    /// server's disk; how many there are.
    ///
    /// # Errors
    /// There is no such machine, it has no disk at the storage server, or that does not answer.
    pub async fn decide_stall(&self, name: &MachineName, verb: StallVerb) -> Result<u32, Error> {
        if self.site().machine(name).is_none() {
            return Err(Error::NoMachine(name.clone()));
        }
        let action = match verb {
            StallVerb::Resume => "machine.resume-writes",
            StallVerb::Fail => "machine.fail-writes",
        };
        let entry = self.actor().does(action, name, Vec::new(), self.now().unix_ms);
        let service = self.service();
        let socket = &service.options().storage_socket;
        // Those beside its root wait for the same.
        let answer = service.exports().last();
        let is_its = |export: &&ExportStatus| export.spec.disk.machine == *name;
        let mut n_requests = match storage_client::decide_stall(socket, name, verb).await {
            Err(StorageError::Refused { status: 404, .. })
                if answer.further.iter().any(|export| is_its(&export)) =>
            {
                0
            }
            Err(StorageError::Refused { status: 404, .. }) => {
                return Err(Error::NoDiskNow(name.clone()));
            }
            decided => decided?,
        };
        for export in answer.further.iter().filter(is_its) {
            let decided = storage_client::decide_stall(socket, &export.spec.disk, verb).await;
            n_requests += decided.unwrap_or_default();
        }
        // Only what was done. That it was can't be taken back if it can't be noted, and is in the log then.
        let noted = service.database().write(move |tables| Ok(tables.put_audit(&entry)?)).await;
        if let Err(error) = noted {
            let (who, error) = (self.actor().name(), error.chain());
            tracing::error!(machine = %name, action, who, error, "this is done, and is not in the audit log");
        }
        service.refresh_exports().await;
        Ok(n_requests)
    }
}

/// By how much a figure of the storage server has grown. It begins at 0 again with the server.
const fn grown(former: u64, now: u64) -> u64 {
    if now >= former { now - former } else { now }
}

/// The hosts that have done something again.
fn more_often<'a>(
    former: &'a [HostCount],
    now: &'a [HostCount],
) -> impl Iterator<Item = &'a HostCount> {
    now.iter().filter(|host| {
        let known = former.iter().find(|known| known.address == host.address);
        grown(known.map_or(0, |known| known.count), host.count) > 0
    })
}
