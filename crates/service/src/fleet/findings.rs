//! What a person should know: what was found, and what the state shows.

use super::machine_state::StateWord;
use super::machine_view::{MachineView, RAM_SHORT_PERCENT, ram_cause};
use crate::backup::{
    LAST_BACKUP_MAX_SECONDS, LAST_IMAGE_BACKUP_MAX_SECONDS, last_backup, last_image_backup,
};
use crate::initrds::InitrdState;
use crate::live::Held;
use crate::service::Service;
use model::{
    DiskId, ExportStatus, Finding, FindingKind, ImageChoice, MachineName, Network, Ring, RingEnd,
    Site, Size, Space, Subject,
};
use std::collections::BTreeSet;
use std::path::Path;

impl Service {
    /// All that a person should know now, the worst first. Asks the storage server if that was not done just now.
    pub async fn findings(&self) -> Vec<Finding> {
        self.look_at_exports().await;
        self.find().await
    }

    /// The same by what the storage server has said, though nobody looks.
    pub(super) async fn find(&self) -> Vec<Finding> {
        self.know_images().await;
        self.look_at_state();
        let mut findings = self.live_findings().list(self.now());
        // Whoever tries a PC looks at it himself.
        findings.retain(|finding| !self.is_tried(&finding.subject));
        findings
    }

    /// Finds what the state shows, and resolves what it no longer does.
    pub(super) fn look_at_state(&self) {
        let (now, now_unix) = (self.now().moment, self.now().unix());
        let holds = |kind, held| self.live_findings().holds(kind, held, now);
        let server = |cause: Option<String>| cause.map(|cause| held(Subject::Server, cause));
        let trouble = self.database().trouble();
        let is_stored = trouble.is_none();
        let trouble =
            trouble.map(|why| format!("No machine can start: nothing can be stored, as {why}"));
        holds(FindingKind::StateNotStored, server(trouble).into_iter().collect());

        let gone = self.database().gone().map(|gone| upper_first(&gone.fact()));
        holds(FindingKind::StateGone, server(gone).into_iter().collect());
        let locked = self.database().locked().map(|locked| {
            let by = locked.by.as_deref().unwrap_or("another program");
            format!("No machine can start: nothing can be stored, as {by} has locked the database")
        });
        holds(FindingKind::StateLocked, server(locked).into_iter().collect());

        let full = (is_stored && self.database().is_disk_full()).then_some(
            "The disk that holds the state is full: leases and boots are still stored, in space that is reserved for them"
        );
        holds(FindingKind::StateDiskFull, server(full.map(str::to_owned)).into_iter().collect());

        let made_unix = last_backup(&self.options().database);
        let old = made_unix.and_then(|made| match now_unix.checked_sub(made) {
            // Seconds by which a clock is corrected.
            None if made - now_unix < 3600 => None,
            None => Some(
                "Nobody knows how old the last backup is: it says that it was made at a time that is yet to come, so the \
                 clock was wrong"
                    .to_owned(),
            ),
            Some(seconds) if seconds > LAST_BACKUP_MAX_SECONDS => Some(format!(
                "The last backup was made {} days ago, and there was one each day before",
                seconds / 86_400
            )),
            Some(_) => None,
        });
        holds(FindingKind::BackupOld, server(old).into_iter().collect());

        let sent_unix = last_image_backup(&self.options().database);
        let late = sent_unix.map(|sent| now_unix.saturating_sub(sent));
        let late = late.filter(|&seconds| seconds > LAST_IMAGE_BACKUP_MAX_SECONDS);
        let late = late.map(|seconds| {
            format!(
                "Images were kept elsewhere, too, {} hours ago for the last time",
                seconds / 3600
            )
        });
        holds(FindingKind::ImageBackupOld, server(late).into_iter().collect());

        let not_sent = self.alerts().troubles().into_iter();
        let mut not_sent: Vec<String> = not_sent
            .map(|(channel, why)| format!("No alert can be sent by {}: {why}", channel.word()))
            .collect();
        match self.alerts().n_left_out() {
            0 => {}
            1 => not_sent
                .push("The mail server refuses one of the recipients, who got no alert".to_owned()),
            n => not_sent
                .push(format!("The mail server refuses {n} of the recipients, who got no alert")),
        }
        let not_sent = (!not_sent.is_empty()).then(|| not_sent.join(". "));
        holds(FindingKind::AlertsNotSent, server(not_sent).into_iter().collect());

        let exports = self.exports().last();
        let silent = exports.error.as_ref().map(|error| format!("No machine can start: {error}"));
        holds(FindingKind::StorageSilent, server(silent).into_iter().collect());
        let elsewhere =
            exports.place_trouble.as_ref().map(|why| format!("No machine gets a disk: {why}"));
        holds(FindingKind::LayersElsewhere, server(elsewhere).into_iter().collect());
        let short = exports.space.filter(Space::is_short).map(space_sentence);
        holds(FindingKind::DiskNearlyFull, server(short).into_iter().collect());

        let all_exports = || exports.list.iter().chain(&exports.further);
        let layers = all_exports().filter_map(|export| {
            let space = exports.space.filter(|space| space.is_layer_short(export.layer_bytes))?;
            let cause = layer_sentence(export.layer_bytes, space.layer_max_bytes?);
            let cause = of_disk(&export.spec.disk, cause);
            Some(held(Subject::Machine(export.spec.disk.machine.clone()), cause))
        });
        holds(FindingKind::LayerNearlyFull, layers.collect());

        let all_disks = || exports.disks.iter().chain(exports.further_disks.iter());
        let without = all_disks().filter_map(|disk| {
            let why = disk.no_snapshot.as_ref()?;
            let cause = format!("There is no snapshot of its disk of the last night: {why}");
            let cause = of_disk(&disk.disk, cause);
            Some(held(Subject::Machine(disk.disk.machine.clone()), cause))
        });
        holds(FindingKind::NoSnapshot, without.collect());

        let elsewhere = exports.list.iter().filter_map(|export| {
            let cause = other_way(self.options().network_at(export.spec.address)?, export)?;
            Some(held(Subject::Machine(export.spec.disk.machine.clone()), cause))
        });
        holds(FindingKind::DiskOverBootNetwork, elsewhere.collect());

        let site = self.site();
        let no_initrd = site.images.iter().filter_map(|version| {
            let InitrdState::Failed(why) = self.initrd_state(&version.image, version.version)
            else {
                return None;
            };
            let subject = Subject::Version(version.image.clone(), version.version);
            Some(held(subject, format!("It can't be booted, as it has no initrd: {why}")))
        });
        holds(FindingKind::NoInitrd, no_initrd.collect());

        let unreadable = self.image_troubles().unreadable();
        let unreadable = (!unreadable.is_empty()).then(|| upper_first(&unreadable.join(". ")));
        holds(FindingKind::ImageStoreUnreadable, server(unreadable).into_iter().collect());

        let taken_back = site.rings.iter().filter(|ring| ring.end == Some(RingEnd::TakenBack));
        let taken_back = taken_back.map(|ring| {
            let subject = Subject::Version(ring.image.clone(), ring.version);
            let Ring { room, why, .. } = ring;
            held(
                subject,
                format!("It was taken back by itself when the room {room} tried it: {why}"),
            )
        });
        holds(FindingKind::RingTakenBack, taken_back.collect());

        let mut without_disk = BTreeSet::new();
        let missing = all_disks().filter_map(|disk| {
            let why = disk.trouble.as_ref()?;
            // Of a machine that is gone, nobody misses it: what is still to be deleted is told as such.
            site.machine(&disk.disk.machine)?;
            Some(held(Subject::Machine(disk.disk.machine.clone()), upper_first(why)))
        });
        for (kind, found) in [
            (FindingKind::DiskMissing, missing.chain(self.unknown_disks(&site)).collect()),
            (FindingKind::DiskOfAnother, self.disks_of_others(&site)),
        ] {
            without_disk.extend(found.iter().map(|held: &Held| held.subject.clone()));
            holds(kind, found);
        }
        holds(FindingKind::DiskTakenOver, self.disks_taken_over(&site));
        let broken = all_exports().filter(|export| export.has_lost_writes).map(|export| {
            let cause = "The storage server could not write to its own disk what the machine had written: the machine's disk \
                         is read-only until it boots again, and what it wrote last may be lost";
            let cause = of_disk(&export.spec.disk, cause.to_owned());
            held(Subject::Machine(export.spec.disk.machine.clone()), cause)
        });
        holds(FindingKind::WritesLost, broken.collect());
        let kept = exports.disks.iter().filter(|disk| disk.trouble.is_none());
        let mut left: Vec<_> = kept.map(|disk| &disk.disk.machine).collect();
        left.extend(exports.list.iter().map(|export| &export.spec.disk.machine));
        left.sort_unstable();
        left.dedup();
        let deletions = &self.view().disk_deletions;
        let is_nobodys =
            |name: &&&MachineName| site.machine(name).is_none() && !deletions.contains_key(**name);
        let left = left.iter().filter(is_nobodys).map(|&name| {
            let cause = "The storage server has a disk of it, and it is no machine: probably the database was lost, or \
                         is an older one that was restored";
            held(Subject::Machine(name.clone()), cause.to_owned())
        });
        holds(FindingKind::DiskLeft, left.collect());
        let not_deleted = self.left_disks().into_iter();
        let not_deleted = not_deleted.map(|(name, cause)| held(Subject::Machine(name), cause));
        holds(FindingKind::DiskNotDeleted, not_deleted.collect());
        let missing = missing_images(&site, &self.options().images);
        holds(FindingKind::ImageMissing, server(missing).into_iter().collect());

        let damaged = self
            .damaged_versions()
            .into_iter()
            .map(|((image, version), cause)| held(Subject::Version(image, version), cause));
        holds(FindingKind::ImageDamaged, damaged.collect());
        let changed = self
            .changed_versions()
            .into_iter()
            .map(|((image, version), cause)| held(Subject::Version(image, version), cause));
        holds(FindingKind::ImageChanged, changed.collect());

        let machines = self.machines();
        for (kind, word) in [
            (FindingKind::MachineFailed, StateWord::Failed),
            (FindingKind::MachineStuck, StateWord::Stuck),
            (FindingKind::MachineWaiting, StateWord::Waiting),
        ] {
            // What is wrong with its disk is told already.
            let is_told = |view: &MachineView| {
                let name = &view.machine.name;
                let is_for_it =
                    view.state.cause.contains(&format!("the persistent disk of {name}"));
                word == StateWord::Waiting && is_for_it && without_disk.contains(&subject(view))
            };
            let needy = machines.iter().filter(|view| view.state.word == word && !is_told(view));
            let needy = needy.map(|view| Held {
                since_unix_ms: view.state.since_unix_ms,
                ..held(subject(view), view.state.cause.clone())
            });
            holds(kind, needy.collect());
        }
        let candidates = machines.iter().filter_map(|view| {
            let since_unix_ms = view.candidate.as_ref().map(|boot| boot.started_unix_ms);
            let cause = view.candidate_cause()?.to_owned();
            Some(Held { since_unix_ms, ..held(subject(view), cause) })
        });
        holds(FindingKind::CandidateBoot, candidates.collect());
        let short = machines.iter().filter_map(|view| {
            let percent = view.ram_used_percent.filter(|&percent| percent >= RAM_SHORT_PERCENT)?;
            Some(held(subject(view), ram_cause(percent)))
        });
        holds(FindingKind::RamNearlyFull, short.collect());
    }
}

/// Images that machines are to boot and that have no version.
pub(super) fn images_without_version(site: &Site) -> BTreeSet<&ImageChoice> {
    let assigned = site.machines.iter().filter_map(|machine| machine.image.as_ref());
    assigned.filter(|image| site.chosen(image).is_none()).collect()
}

fn missing_images(site: &Site, folder: &Path) -> Option<String> {
    let missing = images_without_version(site);
    let names: Vec<String> = missing.iter().map(ToString::to_string).collect();
    let is_there = |choice: &&ImageChoice| site.images.iter().any(|it| it.image == choice.image);
    let folder = folder.display();
    let why = match site.images.is_empty() {
        true => format!("{folder} is empty: its file system is probably not mounted"),
        false if missing.iter().all(is_there) => {
            "there is no version that is for them (bootlace image ls)".to_owned()
        }
        false => format!("there is no version of it in {folder}"),
    };
    (!names.is_empty()).then(|| format!("Machines are to boot {}, and {why}", names.join(", ")))
}

pub(super) fn upper_first(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn subject(view: &MachineView) -> Subject {
    Subject::Machine(view.machine.name.clone())
}

const fn held(subject: Subject, cause: String) -> Held {
    Held { subject, cause, since_unix_ms: None }
}

/// That a machine of this network has its disk over another way than it should.
fn other_way(network: &Network, export: &ExportStatus) -> Option<String> {
    let storage = network.storage?;
    let &server = export.servers.first()?;
    if export.servers.iter().any(|server| storage.holds(*server)) {
        return None;
    }
    Some(format!(
        "It has its disk from {server}, over the network that it boots from, and not over the storage network {}/{}",
        storage.subnet(),
        storage.prefix
    ))
}

/// What it means that a machine has written so much.
/// What is so of a machine's disk: which one, if it is not the root.
fn of_disk(disk: &DiskId, cause: String) -> String {
    match &disk.tag {
        None => cause,
        Some(tag) => format!("Its disk {tag}: {cause}"),
    }
}

fn layer_sentence(layer_bytes: u64, layer_max_bytes: u64) -> String {
    format!(
        "What it has written takes {} on the storage server, of the {} that it may take: beyond that its writes wait",
        Size(layer_bytes),
        Size(layer_max_bytes)
    )
}

/// What it means that the storage server has so little room.
fn space_sentence(space: Space) -> String {
    format!(
        "The storage server's disk is nearly full: {} of {} are left. Machines that write wait when it is full",
        Size(space.free_bytes),
        Size(space.total_bytes)
    )
}
