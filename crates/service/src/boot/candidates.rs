//! Which boot a machine is in. Anybody can send a DHCP message in a machine's name, and a boot begins with one: it is a
//! *candidate* as long as the machine may still run in an earlier boot that it has proven.

use super::words::new_question;
use crate::clock::Now;
use crate::error::Error;
use crate::live::{Life, Presence};
use crate::service::Service;
use crate::storage_client::{self, StorageError};
use crate::store::{LastBoot, View};
use initcfg::{Report, Word};
use model::{Boot, BootId, ExportSpec, ExportStatus, RootKind, Stage, WriteMode};
use std::time::Duration;
use wire::Mac;

/// After this time an answer from before counts no more. A keeper that is asked again has answered or is silent after so many
/// looks, this far apart.
const EARLIER_ANSWER_HOLDS: Duration = Duration::from_millis(3200);
const ANSWER_POLLS: u32 = 80;
const ANSWER_POLL: Duration = Duration::from_millis(100);

/// What the storage server said so long ago is asked again.
const EXPORTS_FRESH: Duration = Duration::from_millis(500);

/// A machine that has proven itself reaches its next stage in this time, until its keeper is there to be asked.
const STAGE_WITHIN_MS: u64 = 30_000;

/// The boots of a NIC that matter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Boots<'a> {
    /// The machine's.
    pub(crate) current: &'a LastBoot,
    /// A later one that has not shown that it is the machine's.
    pub(crate) candidate: Option<&'a LastBoot>,
}

impl Service {
    /// The boots of a NIC; `None` if there is none.
    pub(crate) fn boots<'a>(&self, view: &'a View, mac: Mac, now: Now) -> Option<Boots<'a>> {
        let last = view.boots.get(&mac)?;
        let earlier = view.proven.get(&mac).filter(|earlier| !self.is_over(&earlier.boot, now));
        Some(match earlier {
            Some(earlier) => Boots { current: earlier, candidate: Some(last) },
            None => Boots { current: last, candidate: None },
        })
    }

    /// Whether this boot is known to be the machine's. Never waits.
    pub fn is_known_admitted(&self, mac: Mac, boot: BootId) -> bool {
        let view = self.view();
        view.boot(mac, boot).is_some_and(|known| known.proof.is_admitted)
    }

    /// Whether a proven word of a boot that is not the machine's yet is noted: over AoE it must be before it touches the
    /// disk, and says the same again until it is.
    pub fn is_heard_as_candidate(&self, word: &Word) -> bool {
        let view = self.view();
        let root = view.boot(word.mac(), word.boot()).and_then(|known| known.boot.root);
        let is_stage = |report: &Report| report.stage.is_some_and(|stage| stage != Stage::Failed);
        // Of one that can't become the machine's any more, as a later one is, nothing is known here.
        let may_touch = root.is_none_or(|root| root == RootKind::Aoe);
        !matches!(word, Word::Report(report) if may_touch && is_stage(report))
    }

    /// Whether this boot, in which somebody has shown that he knows its secret, is the machine's: if it is not yet, it
    /// becomes so now if nothing speaks against it. Waits for the storage server. Several may be on their way: the first
    /// of them that is the machine's ends the earlier ones.
    ///
    /// Over NBD the storage server has decided, when the boot opened its disk. Over AoE, and where the disk is not there,
    /// the boot is the machine's if the machine does not run in an earlier one any more; over AoE the storage server is
    /// then told, and agrees.
    pub async fn is_admitted(&self, mac: Mac, boot: BootId) -> bool {
        let view = self.view();
        let Some(known) = view.boot(mac, boot) else { return self.was_admitted(mac, boot).await };
        if known.proof.is_admitted {
            return true;
        }
        let admitted = match known.boot.root {
            Some(RootKind::Nbd) => Ok(self.has_export(known).await),
            root => {
                self.ask_earlier_boot(mac);
                let runs = self.boots(&view, mac, self.now());
                let runs = runs.is_some_and(|boots| boots.candidate.is_some());
                match (&known.boot.machine, root) {
                    _ if runs => Ok(false),
                    (Some(machine), Some(RootKind::Aoe)) => {
                        let socket = &self.options().storage_socket;
                        storage_client::admit(socket, machine, boot, known.identity)
                            .await
                            .map(|_| true)
                    }
                    _ => Ok(true),
                }
            }
        };
        match admitted {
            Ok(false) => return false,
            Ok(true) => {}
            // It runs, as far as the storage server sees, or that is just starting: the machine asks again.
            Err(StorageError::Refused { .. }) if self.has_export(known).await => {}
            Err(StorageError::Refused { .. }) => return false,
            Err(error) => {
                tracing::warn!(%mac, boot, error = wire::error_chain(&error), "not admitted yet");
                return false;
            }
        }
        match self.note_admission(mac, boot).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%mac, boot, error = error.chain(), "not admitted yet");
                false
            }
        }
    }

    /// Whether an earlier boot was the machine's once; it may still run.
    async fn was_admitted(&self, mac: Mac, boot: BootId) -> bool {
        let proof = self.database().read(move |tables| tables.proof(mac, boot)).await;
        proof.is_ok_and(|proof| proof.is_some_and(|proof| proof.is_admitted))
    }

    async fn note_admission(&self, mac: Mac, boot: BootId) -> Result<(), Error> {
        let noted = self.database().write(move |tables| {
            let is_news = tables.note_admission(mac, boot)?;
            if let Some(machine) = tables.name_of(mac)? {
                tables.note_disk_reset(&machine, boot)?;
            }
            Ok(is_news)
        });
        if noted.await? {
            tracing::info!(machine = self.name_or_mac(mac), boot, "boot proven");
        }
        Ok(())
    }

    /// Whether the storage server says that this boot has its machine's disk.
    async fn has_export(&self, last: &LastBoot) -> bool {
        let is_his = |export: &ExportStatus| {
            Some(&export.spec.disk.machine) == last.boot.machine.as_ref() && is_of(export, last)
        };
        let answer = self.exports().last();
        if answer.list.iter().any(is_his) {
            return true;
        }
        let now = self.now().moment;
        if answer.asked.is_none_or(|asked| now.since(asked) >= EXPORTS_FRESH) {
            self.refresh_exports().await;
        }
        self.exports().last().list.iter().any(is_his)
    }

    /// What follows from what the storage server says: boots that have their machine's disk are the machine's, if
    /// somebody has shown their secret; and disks that were to be thrown away are.
    pub(crate) async fn note_exports(&self) {
        let (view, answer) = (self.view(), self.exports().last());
        self.count_beyond(&answer.list).await;
        for export in &answer.list {
            let (mac, boot) = (export.spec.mac, export.spec.boot);
            let known = view.boot(mac, boot).filter(|known| is_of(export, known));
            let is_new =
                known.is_some_and(|known| known.proof.is_given && !known.proof.is_admitted);
            if export.connections == 0 && export.spec.root == RootKind::Nbd {
                self.ask(boot);
            }
            if is_new && export.spec.root == RootKind::Nbd {
                self.is_admitted(mac, boot).await;
            } else if known.is_some() && view.disk_resets.contains(&boot) {
                let machine = export.spec.disk.machine.clone();
                let noted = self
                    .database()
                    .write(move |tables| Ok(tables.note_disk_reset(&machine, boot)?));
                if let Err(error) = noted.await {
                    tracing::warn!(%mac, boot, error = error.chain(), "a disk that was reset is not noted");
                }
            } else {
                self.note_kept_disk(&view, &export.spec).await;
            }
        }
    }

    /// Boots that begin get larger numbers than those that the storage server knows, if this database was lost or is an
    /// older one that was restored.
    async fn count_beyond(&self, exports: &[ExportStatus]) {
        let known = exports.iter().flat_map(|export| [Some(export.spec.boot), export.candidate]);
        let Some(last) = known.flatten().max().filter(|last| self.exports().is_news(*last)) else {
            return;
        };
        match self.database().write(move |tables| Ok(tables.count_boots_from(last)?)).await {
            Ok(true) => tracing::warn!(
                boot = last,
                "the storage server knows later boots: this database was lost, or is a restored one. Boots are counted \
                 from there"
            ),
            Ok(false) => {}
            Err(error) => {
                self.exports().forget_news();
                tracing::warn!(
                    error = error.chain(),
                    "boots are not counted from the storage server's last one"
                );
            }
        }
    }

    /// Remembers that the machine keeps a disk.
    async fn note_kept_disk(&self, view: &View, spec: &ExportSpec) {
        let is_kept = spec.write_mode == WriteMode::Persistent;
        if !is_kept
            || view.kept_disks.contains(&spec.disk.machine)
            // That is the former machine's of that name.
            || view.disk_deletions.contains_key(&spec.disk.machine)
            || view.site.machine(&spec.disk.machine).is_none()
        {
            return;
        }
        let machine = spec.disk.machine.clone();
        let noted = self.database().write(move |tables| Ok(tables.note_kept_disk(&machine)?));
        if let Err(error) = noted.await {
            tracing::warn!(machine = %spec.disk.machine, error = error.chain(), "that it keeps a disk is not noted");
        }
        // What the storage server has said of all disks was before this one.
        self.exports().ask_for_disks();
    }

    /// Whether the machine is known not to run in this boot, which it has proven, any more.
    fn is_over(&self, boot: &Boot, now: Now) -> bool {
        let has_spoken = self.heartbeats().was_heard(boot.id);
        if !has_spoken && is_before_keeper(boot, now) {
            return false;
        }
        matches!(self.heartbeats().life(boot.id, now), Life::SaidOff(_) | Life::Silent(_))
            || self.keepers().presence(boot.id, now.moment) == Presence::Gone
    }

    /// Asks whether the machine still runs in this boot, if that is not known.
    fn ask(&self, boot: BootId) {
        if let Some(id) = new_question() {
            self.keepers().ask(boot, self.now().moment, id);
        }
    }

    /// What is heard of a machine whose disk nobody has open: who does not answer either is probably off, and not only
    /// cut off from its disk.
    pub(crate) fn life_without_disk(
        &self,
        life: Life,
        export: Option<&ExportStatus>,
        now: Now,
    ) -> Life {
        let export =
            export.filter(|export| export.connections == 0 && export.spec.root == RootKind::Nbd);
        let is_gone = |export: &ExportStatus| {
            self.keepers().presence(export.spec.boot, now.moment) == Presence::Gone
        };
        match export {
            Some(export) if life == Life::Alive && is_gone(export) => Life::Silent(None),
            _ => life,
        }
    }

    /// Whether the machine runs in an earlier boot than this one, or may: as long as nobody knows, it does. Waits for as long as it may
    /// take to know. Its silence alone is no proof, since a user of its system may keep its keeper from answering: over NBD the storage
    /// server must not hear of its kernel either.
    pub(super) async fn runs_in_earlier_boot(&self, mac: Mac, boot: BootId) -> bool {
        let proven: Vec<BootId> = {
            let view = self.view();
            // One that has shown its secret only is not the machine's yet: the one before it may be.
            let last = view.boots.get(&mac).filter(|last| last.proof.is_given);
            last.into_iter().chain(view.proven.get(&mac)).map(|proven| proven.boot.id).collect()
        };
        for earlier in proven.into_iter().filter(|&earlier| earlier < boot) {
            if self.runs_in(mac, earlier).await {
                return true;
            }
        }
        false
    }

    /// Whether the machine runs in this boot, or may.
    async fn runs_in(&self, mac: Mac, boot: BootId) -> bool {
        let began = self.now().moment;
        for _ in 0..ANSWER_POLLS {
            let (view, now) = (self.view(), self.now());
            // From whichever of its cards.
            let known = view.boots_of(mac).find(|known| known.boot.id == boot);
            let Some(known) = known else { return false };
            // The keeper of an earlier Bootlace never answers. After a restart of this server the others have not been heard yet.
            let answers = known.answers || self.keepers().can_answer(boot);
            match self.keepers().presence(boot, now.moment) {
                // A machine that was reset just now has answered before.
                Presence::Here if answers && now.moment.since(began) > EARLIER_ANSWER_HOLDS => {
                    return true;
                }
                Presence::Here if answers => {}
                Presence::Unknown if answers => self.ask(boot),
                _ if self.uses_disk(known).await => {}
                _ => return false,
            }
            tokio::time::sleep(ANSWER_POLL).await;
        }
        true
    }

    /// Whether the storage server has heard of the machine's kernel just now in this boot, or can't say.
    async fn uses_disk(&self, known: &LastBoot) -> bool {
        if known.boot.root.is_none_or(RootKind::is_foreign) {
            return false;
        }
        match storage_client::exports(&self.options().storage_socket).await {
            Ok(list) => {
                list.iter().any(|export| is_of(export, known) && export.is_silent == Some(false))
            }
            Err(_) => true,
        }
    }

    /// Whether the machine with this NIC is still in a boot that has proven itself, or may be. Asks it, and waits for the answer.
    pub async fn still_runs(&self, mac: Mac) -> bool {
        self.runs_in_earlier_boot(mac, BootId::MAX).await
    }

    /// A later boot has begun: does the machine still run in the one that it has proven?
    pub(super) fn ask_earlier_boot(&self, mac: Mac) {
        let view = self.view();
        if let (Some(earlier), Some(id)) = (view.proven.get(&mac), new_question()) {
            self.keepers().ask(earlier.boot.id, self.now().moment, id);
        }
    }
}

/// Whether a boot is on its way to its system, and has no keeper yet that could be asked.
fn is_before_keeper(boot: &Boot, now: Now) -> bool {
    boot.current().is_some_and(|last| {
        let is_in_init = (Stage::Start..Stage::Handover).contains(&last.stage);
        is_in_init && now.unix_ms.abs_diff(last.at_unix_ms) < STAGE_WITHIN_MS
    })
}

/// Whether an export is this boot's. An earlier storage server tells the number only.
fn is_of(export: &ExportStatus, last: &LastBoot) -> bool {
    let is_other = export.identity.is_some() && export.identity != last.identity;
    export.spec.boot == last.boot.id && !is_other
}
