//! Disks that machines keep, and what the storage server says of them.

use crate::error::Error;
use crate::live::Held;
use crate::service::Service;
use crate::storage_client::{self, StorageError};
use model::{
    DiskFound, DiskMeant, DiskOwner, DiskReport, ExportOrder, KeptDisk, Machine, MachineName, Site,
    Subject, WriteMode,
};
use wire::Mac;

/// The disk that a machine keeps, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct WrittenDisk {
    /// How much the machine has written to it.
    pub written_bytes: Option<u64>,
    /// When it was begun, in seconds since 1970.
    pub made_unix: Option<u64>,
    /// The machine whose disk it is, if that is another one, which had this name: nobody but that one may delete it.
    pub of_another: Option<String>,
}

impl Service {
    /// The disk that the machine keeps, or should have, as the storage server says, or said last; `None` if it keeps none.
    ///
    /// # Errors
    /// There is no such machine.
    pub async fn written_disk(&self, name: &MachineName) -> Result<Option<WrittenDisk>, Error> {
        let site = self.site();
        let machine = site.machine(name).ok_or_else(|| Error::NoMachine(name.clone()))?;
        let told = storage_client::disks(&self.options().storage_socket).await;
        let is_told = told.is_ok();
        let disks = told.unwrap_or_else(|_| self.exports().last().disks.to_vec());
        let disk = disks.iter().find(|disk| disk.disk == *name).map(|disk| WrittenDisk {
            written_bytes: disk.written_bytes,
            made_unix: disk.made_unix,
            of_another: self.owner_beside(machine, disk).map(ToString::to_string),
        });
        let was_there = !is_told && self.view().kept_disks.contains(name);
        Ok(disk.or_else(|| was_there.then(WrittenDisk::default)))
    }

    /// The random identity of the disk that the machine keeps, as the storage server says, or said last; `None` if it keeps
    /// none, or that is not known.
    pub(super) async fn disk_id(&self, machine: &MachineName) -> Option<String> {
        match storage_client::kept_disk(&self.options().storage_socket, machine).await {
            Ok(disk) => disk?.id,
            Err(_) => {
                let answer = self.exports().last();
                answer.disks.iter().find(|disk| disk.disk == *machine)?.stands_on.clone()?.id
            }
        }
    }

    /// An order for the machine's disk which says what a reset means; one that was called off since does not reset it.
    pub(crate) async fn with_reset(
        &self,
        order: ExportOrder,
        machine: &Machine,
    ) -> Result<ExportOrder, Error> {
        let reset = order.reset && machine.reset_disk;
        let reset_of = if reset { Some(self.reset_of(machine).await?) } else { None };
        Ok(ExportOrder { reset, reset_of, ..order })
    }

    /// Which disk the machine's reset means: by its identity if that was known, or else by whose it is.
    async fn reset_of(&self, machine: &Machine) -> Result<DiskMeant, Error> {
        let name = machine.name.clone();
        let id = self.database().read(move |tables| tables.disk_reset_of(&name)).await?;
        // Who has given the order while he saw a disk may have meant that of another machine.
        let owner = if id.is_some() { None } else { self.view().as_owner(machine) };
        Ok(DiskMeant { id, owner, must_be_known: false })
    }

    /// Notes that a machine's reset is done, if the disk that it means is not the one that the machine has now: it was done
    /// before an older database was restored, or the disk was exchanged.
    pub(crate) async fn settle_reset(&self, machine: &Machine) -> Result<(), Error> {
        let meant = self.reset_of(machine).await?;
        let socket = &self.options().storage_socket;
        let now = match storage_client::kept_disk(socket, &machine.name).await {
            Ok(now) => now,
            // What can't be read, or is not mounted, is what the reset is for.
            Err(StorageError::Refused { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let Some(KeptDisk { id, .. }) = now else { return Ok(()) };
        let owner = match &meant.owner {
            Some(_) => self.noted_owner(&machine.name).await,
            None => None,
        };
        if !meant.is(DiskFound { id: id.as_deref(), owner: owner.as_ref() }) {
            let name = machine.name.clone();
            self.database().write(move |tables| Ok(tables.disk_was_reset(&name)?)).await?;
            tracing::warn!(machine = %machine.name, "the disk that was to be reset is gone; the one that is there is left alone");
        }
        Ok(())
    }

    /// Whose the disk of this name is, as the storage server says now.
    async fn noted_owner(&self, machine: &MachineName) -> Option<DiskOwner> {
        let told = storage_client::disks(&self.options().storage_socket).await.ok()?;
        told.into_iter().find(|told| told.disk == *machine)?.owner
    }

    /// Machines that have kept a disk of which the storage server knows nothing, as after its own was exchanged.
    pub(super) fn unknown_disks(&self, site: &Site) -> Vec<Held> {
        let (view, answer) = (self.view(), self.exports().last());
        if answer.disks_asked.is_none() || answer.error.is_some() {
            return Vec::new();
        }
        let is_there = |name: &MachineName| {
            answer.disks.iter().any(|disk| disk.disk == *name)
                || answer.list.iter().any(|export| export.spec.disk == *name)
        };
        let gone = view.kept_disks.iter().filter(|name| {
            site.machine(name).is_some_and(keeps_disk)
                && !view.disk_deletions.contains_key(*name)
                && !is_there(name)
        });
        let cause = "The storage server knows nothing of the disk that it has kept: the server was probably replaced, or its \
                     state and disks lost";
        gone.map(|name| Held {
            subject: Subject::Machine(name.clone()),
            cause: cause.to_owned(),
            since_unix_ms: None,
        })
        .collect()
    }

    /// The machine whose disk the one of this name is, if it is not this machine's.
    fn owner_beside<'a>(&self, machine: &Machine, disk: &'a DiskReport) -> Option<&'a DiskOwner> {
        let noted = disk.owner.as_ref()?;
        let asked = self.view().as_owner(machine)?;
        let is_his = machine.macs().any(|mac| noted.is(&asked, mac));
        (!is_his).then_some(noted)
    }

    /// Machines that get no disk, as the one of their name is another machine's.
    pub(super) fn disks_of_others(&self, site: &Site) -> Vec<Held> {
        let (view, answer) = (self.view(), self.exports().last());
        let all = answer.disks.iter().chain(answer.further_disks.iter());
        let of_another = all.filter_map(|disk| {
            let machine = site.machine(&disk.disk.machine)?;
            let has = match &disk.disk.tag {
                None => keeps_disk(machine),
                Some(tag) => site.disks_of(machine).iter().any(|(had, _)| had.name == *tag),
            };
            if !has {
                return None;
            }
            let noted = disk.owner.as_ref().filter(|_| disk.trouble.is_none())?;
            let asked = view.as_owner(machine)?;
            // It is told by the NIC that it boots from, and that may be any of them.
            let others: Vec<Mac> = machine.macs().filter(|&mac| !noted.is(&asked, mac)).collect();
            if others.is_empty() || disk.is_taken_over || view.disk_deletions.contains_key(&machine.name) {
                return None;
            }
            let (which, why) = match &disk.disk.tag {
                None => (String::new(), "An older database was probably restored".to_owned()),
                Some(tag) => (
                    format!(" {tag} beside its root"),
                    format!("To throw away what that has written: bootlace disk reset {}", disk.disk),
                ),
            };
            let when = match others.len() == machine.macs().count() {
                true => String::new(),
                false => {
                    let others: Vec<String> = others.iter().map(Mac::to_string).collect();
                    format!(" when it boots from {}", others.join(", "))
                }
            };
            let cause = format!(
                "It gets no disk{which}{when}: the one of its name is of another machine that had this name ({noted}), and not of this \
                 one ({asked}). {why}"
            );
            Some(Held { subject: Subject::Machine(machine.name.clone()), cause, since_unix_ms: None })
        });
        of_another.collect()
    }

    /// Machines that take over another one's disk at their next boot, as somebody has said.
    pub(super) fn disks_taken_over(&self, site: &Site) -> Vec<Held> {
        let (view, answer) = (self.view(), self.exports().last());
        let taken = answer.disks.iter().filter_map(|disk| {
            let machine = site.machine(&disk.disk.machine).filter(|machine| keeps_disk(machine))?;
            let asked = view.as_owner(machine).filter(|_| disk.is_taken_over)?;
            let noted = disk.owner.as_ref();
            if noted.is_some_and(|noted| machine.macs().all(|mac| noted.is(&asked, mac))) {
                return None;
            }
            let which = match noted {
                Some(noted) => format!("of another machine that had this name ({noted})"),
                None => "of its name, whichever machine that is of,".to_owned(),
            };
            let cause = format!("It will take over the disk {which} at its next boot");
            Some(Held {
                subject: Subject::Machine(machine.name.clone()),
                cause,
                since_unix_ms: None,
            })
        });
        taken.collect()
    }
}

/// Whether the machine is to start with the disk that it has kept.
fn keeps_disk(machine: &Machine) -> bool {
    let machine = machine.as_it_boots();
    machine.write_mode == WriteMode::Persistent && !machine.root.is_foreign() && !machine.reset_disk
}
