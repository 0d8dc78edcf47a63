//! Versions that one room tries before all get them.

use super::releases::{put_states, site, version};
use crate::error::{Error, RoomError, VersionError};
use crate::people::{Admin, Viewer};
use crate::service::Service;
use crate::store::{AuditEntry, ChangeError, FieldChange, Transaction};
use model::{
    Boot, ImageChoice, ImageName, Machine, MachineName, Ring, RingEnd, RingNext, RingProgress,
    RoomName, Site, VersionState, median,
};
use std::collections::{BTreeMap, BTreeSet};

/// Boots of a NIC of which is learned how long they usually take.
const USUAL_OF: u32 = 50;

/// A ring, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct RingView {
    /// The ring.
    #[serde(flatten)]
    pub ring: Ring,
    /// How far it is; of one that has ended how far it was, with the machines that are there now.
    #[serde(flatten)]
    pub progress: RingProgress,
    /// How far it is and what it waits for, or how it has ended, in a sentence.
    pub sentence: String,
}

impl RingView {
    fn new(ring: Ring, progress: RingProgress) -> Self {
        let Ring { version, room, why, .. } = &ring;
        let why = why.trim_end_matches('.');
        let sentence = match ring.end {
            None => format!("The room {room} tries v{version}: {}.", progress.in_words()),
            Some(RingEnd::Passed) => {
                format!("The room {room} has tried v{version}, and it went to all: {why}.")
            }
            Some(RingEnd::TakenBack) => {
                format!("v{version} was taken back by itself when the room {room} tried it: {why}.")
            }
            Some(RingEnd::Stopped) => {
                format!("The room {room} does not try v{version} any more: {why}.")
            }
            Some(RingEnd::Overtaken) => {
                format!("The room {room} does not try v{version} any more, as {why}.")
            }
        };
        Self { ring, progress, sentence }
    }
}

impl Viewer {
    /// All versions that a room tries, and how the last one of each image has ended.
    ///
    /// # Errors
    /// The database can't be read.
    pub async fn rings(&self) -> Result<Vec<RingView>, Error> {
        let read = self.service().database().read(|tables| {
            let rings = tables.rings()?.into_iter();
            let rings = rings.map(|ring| {
                let (boots, usual) =
                    (tables.ring_boots(&ring.image)?, tables.ring_usual_ms(&ring.image)?);
                Ok((ring, boots, usual))
            });
            rings.collect::<crate::store::Result<Vec<_>>>()
        });
        let site = self.service().site();
        let machines: Vec<&Machine> = site.machines.iter().collect();
        let views = read.await?.into_iter().map(|(ring, boots, usual)| {
            // Of one that has ended it is told who took part.
            let open = Ring { end: None, ..ring.clone() };
            let progress = RingProgress::of(&open, &machines, &boots, &usual);
            RingView::new(ring, progress)
        });
        Ok(views.collect())
    }
}

impl Admin {
    /// Has a room try a version: its machines get it at their next boot, and all others when it has proven itself there. Nobody waits
    /// for the machines `without`.
    ///
    /// # Errors
    /// There is no such version or room, nothing could be learned or gone back to, machines would have nothing to boot, or image
    /// store or database can't be written.
    pub async fn begin_ring(
        &self,
        image: ImageName,
        number: u32,
        room: RoomName,
        without: BTreeSet<MachineName>,
    ) -> Result<RingView, Error> {
        let usual_ms = self.service().usual_ms(&image, number, &room).await?;
        let (service, actor, now) = (self.service().clone(), self.shared_actor(), self.now());
        let ring = Ring {
            image: image.clone(),
            version: number,
            room,
            started_unix_ms: now.unix_ms,
            by: self.actor().name().to_owned(),
            without,
            end: None,
            why: String::new(),
        };
        let of = image.clone();
        let stored = self.service().database().write(move |tables| {
            let before = site(tables)?;
            check(&before, &ring)?;
            if let Ok(Ring { image, version, room, .. }) = open_ring(&before, &ring.image)
                && *room != ring.room
            {
                let (image, version, room) = (image.clone(), *version, room.clone());
                return Err(Error::from(VersionError::RingRuns { image, version, room }).into());
            }
            tables.put_ring(&ring, &usual_ms)?;
            let subject = format!("{of}/v{number}");
            let room = Some(ring.room.to_string());
            let change = FieldChange::between("room", None, room).into_iter().collect();
            tables.put_audit(&actor.does("image.ring", &subject, change, now.unix_ms))?;
            let by =
                |subject: &str, changes| actor.does("image.state", subject, changes, now.unix_ms);
            let wanted = [(number, VersionState::Test)];
            put_states(&service, tables, &before, (&of, &wanted), &by)
        });
        stored.await?;
        self.ring(&image).await
    }

    /// Nobody waits for these machines of a room that tries a version, and for no others. That may be what it waited for.
    ///
    /// # Errors
    /// No room tries a version of this image, one of them takes no part, or the database can't be written.
    pub async fn ring_without(
        &self,
        image: ImageName,
        without: BTreeSet<MachineName>,
    ) -> Result<RingView, Error> {
        let (actor, now_unix_ms, of) = (self.shared_actor(), self.now().unix_ms, image.clone());
        let stored = self.service().database().write(move |tables| {
            let site = site(tables)?;
            let former = open_ring(&site, &of)?;
            let ring = Ring { without, ..former.clone() };
            check_without(&site, &ring)?;
            must_be_tried(&site, &ring)?;
            tables.put_ring_without(&ring)?;
            let listed = |names: &BTreeSet<MachineName>| {
                let names: Vec<&str> = names.iter().map(MachineName::as_str).collect();
                (!names.is_empty()).then(|| names.join(", "))
            };
            let (old, new) = (listed(&former.without), listed(&ring.without));
            if let Some(change) = FieldChange::between("without", old, new) {
                let subject = format!("{of}/v{}", ring.version);
                tables.put_audit(&actor.does("image.ring", &subject, vec![change], now_unix_ms))?;
            }
            Ok(())
        });
        stored.await?;
        self.service().look_at_rings().await;
        self.ring(&image).await
    }

    /// Ends what a room tries: all get the version now, or it goes on being to be tested and the room gets what all get. One that has
    /// ended already is forgotten when it is stopped.
    ///
    /// # Errors
    /// No room tries a version of this image, or image store or database can't be written.
    pub async fn end_ring(&self, image: ImageName, passes: bool) -> Result<RingView, Error> {
        let before = self.ring(&image).await?;
        let (service, actor, now_unix_ms) =
            (self.service().clone(), self.shared_actor(), self.now().unix_ms);
        let of = image.clone();
        let stored = self.service().database().write(move |tables| {
            let before = site(tables)?;
            let known = before.rings.iter().any(|ring| ring.image == of);
            if !passes && known && open_ring(&before, &of).is_err() {
                return Ok(tables.delete_ring(&of)?);
            }
            let ring = open_ring(&before, &of)?;
            let (end, word) = match passes {
                true => (RingEnd::Passed, "passed"),
                false => (RingEnd::Stopped, "stopped"),
            };
            tables.end_ring(&of, end, &format!("{} has {word} it", actor.name()))?;
            let change =
                FieldChange::between("ring", Some(ring.room.to_string()), Some(word.to_owned()));
            let subject = format!("{of}/v{}", ring.version);
            let changes = change.into_iter().collect();
            tables.put_audit(&actor.does("image.ring", &subject, changes, now_unix_ms))?;
            if passes {
                let by = |subject: &str, changes| {
                    actor.does("image.state", subject, changes, now_unix_ms)
                };
                let wanted = [(ring.version, VersionState::Released)];
                put_states(&service, tables, &before, (&of, &wanted), &by)?;
            }
            Ok(())
        });
        stored.await?;
        // It may be forgotten now.
        Ok(self.ring(&image).await.unwrap_or(before))
    }

    async fn ring(&self, image: &ImageName) -> Result<RingView, Error> {
        let found = self.rings().await?.into_iter().find(|view| view.ring.image == *image);
        found.ok_or_else(|| VersionError::NoRing(image.clone()).into())
    }
}

impl Service {
    /// Does what follows from what the boots of rooms have shown that try a version. To be called when something has changed there.
    pub(crate) async fn look_at_rings(&self) {
        let site = self.site();
        for ring in site.rings.iter().filter(|ring| ring.end.is_none()) {
            if let Err(error) = self.look_at_ring(ring.image.clone()).await {
                tracing::warn!(image = %ring.image, error = error.chain(), "what a room tries is not decided");
            }
        }
    }

    async fn look_at_ring(&self, image: ImageName) -> Result<(), Error> {
        let (of, now_unix_ms) = (image.clone(), self.now().unix_ms);
        let read = self
            .database()
            .read(move |tables| Ok((tables.ring_boots(&of)?, tables.ring_usual_ms(&of)?)));
        let (boots, usual) = read.await?;
        let next = |site: &Site, ring: &Ring| {
            let machines: Vec<&Machine> = site.machines.iter().collect();
            RingProgress::of(ring, &machines, &boots, &usual).next()
        };
        let before = self.site();
        let Ok(ring) = open_ring(&before, &image) else { return Ok(()) };
        // Most boots decide nothing, and then nothing is written.
        let next = next(&before, ring);
        if next == RingNext::Wait {
            return Ok(());
        }
        let (service, looked_at) = (self.clone(), ring.clone());
        let stored = self.database().write(move |tables| {
            let before = site(tables)?;
            let Ok(ring) = open_ring(&before, &looked_at.image) else { return Ok(()) };
            if *ring != looked_at {
                return Ok(());
            }
            end_by_itself(&service, tables, &before, ring, &next, now_unix_ms)
        });
        stored.await
    }

    /// How long boots of the machines of a room took with other versions of an image, as far as that is known.
    async fn usual_ms(
        &self,
        image: &ImageName,
        number: u32,
        room: &RoomName,
    ) -> Result<BTreeMap<MachineName, u64>, Error> {
        let site = self.site();
        let of_room = site.machines.iter().filter(|machine| machine.room.as_ref() == Some(room));
        let of_room: Vec<_> = of_room.map(|it| (it.name.clone(), it.mac)).collect();
        let image = image.clone();
        let read = self.database().read(move |tables| {
            let mut usual = BTreeMap::new();
            for (name, mac) in of_room {
                let is_other = |boot: &&Boot| {
                    let booted = boot.image.as_ref();
                    booted.is_some_and(|(of, version)| *of == image && *version != number)
                };
                let boots = tables.boots_of(mac, USUAL_OF)?;
                let took = boots.iter().filter(is_other).filter_map(Boot::took_ms);
                usual.extend(median(took.collect()).map(|usual_ms| (name, usual_ms)));
            }
            Ok(usual)
        });
        read.await
    }
}

/// Passes a version on to all, or takes it back.
fn end_by_itself(
    service: &Service,
    tables: &Transaction<'_>,
    before: &Site,
    ring: &Ring,
    next: &RingNext,
    now_unix_ms: u64,
) -> Result<(), ChangeError> {
    let (end, state, mut why) = match next {
        RingNext::Wait => return Ok(()),
        RingNext::Pass => {
            let why = "each of its machines, and so many boots as are wanted, were up in time";
            (RingEnd::Passed, VersionState::Released, why.to_owned())
        }
        RingNext::TakeBack(why) => (RingEnd::TakenBack, VersionState::Retired, why.clone()),
    };
    let does = |subject: &str, changes| AuditEntry {
        id: 0,
        at_unix_ms: now_unix_ms,
        who: "bootlace".to_owned(),
        via: "by itself".to_owned(),
        address: None,
        action: "image.ring".to_owned(),
        subject: subject.to_owned(),
        changes,
    };
    let (image, version) = (&ring.image, ring.version);
    // First: else it would have ended because somebody has said something of the version.
    tables.end_ring(image, end, &why)?;
    let changed = put_states(service, tables, before, (image, &[(version, state)]), &does);
    match changed {
        Ok(_) => {}
        // Machines that follow what is to be tested would have nothing to boot, or it can't boot any more.
        Err(ChangeError::Refused(error)) => {
            why = format!("{why}. It is still to be tested, as {error}");
            tables.note_why_ring_ended(image, &why)?;
        }
        Err(error) => return Err(error),
    }
    let subject = format!("{image}/v{version}");
    let change = FieldChange::between(
        "ring",
        Some(ring.room.to_string()),
        Some(format!("{}: {why}", end.word())),
    );
    tables.put_audit(&does(&subject, change.into_iter().collect()))?;
    tracing::info!(%image, version, room = %ring.room, end = end.word(), why, "ring ended");
    Ok(())
}

fn open_ring<'a>(site: &'a Site, image: &ImageName) -> Result<&'a Ring, Error> {
    let found = site.rings.iter().find(|ring| ring.image == *image && ring.end.is_none());
    found.ok_or_else(|| VersionError::NoRing(image.clone()).into())
}

/// Something can be learned in this room, and there is something to go back to.
fn check(site: &Site, ring: &Ring) -> Result<(), Error> {
    let (image, number) = (ring.image.clone(), ring.version);
    let tried = version(site, &ring.image, number)?;
    if site.room(&ring.room).is_none() {
        return Err(RoomError::NoRoom(ring.room.clone()).into());
    }
    let released = site.chosen(&ImageChoice::from(image.clone())).map(|it| it.version);
    let is_released = site.state(tried) == VersionState::Released;
    match released {
        Some(released) if released < number && !is_released => {}
        _ => return Err(VersionError::NotToTry { image, version: number, released }.into()),
    }
    check_without(site, ring)?;
    must_be_tried(site, ring)
}

/// Somebody is waited for.
fn must_be_tried(site: &Site, ring: &Ring) -> Result<(), Error> {
    let mut awaited = site.machines.iter().filter(|machine| ring.is_for(machine));
    let (image, room) = (ring.image.clone(), ring.room.clone());
    match awaited.any(|machine| !ring.without.contains(&machine.name)) {
        true => Ok(()),
        false => Err(VersionError::NobodyTries { image, room }.into()),
    }
}

fn check_without(site: &Site, ring: &Ring) -> Result<(), Error> {
    for name in &ring.without {
        let machine = site.machine(name).ok_or_else(|| Error::NoMachine(name.clone()))?;
        if !ring.is_for(machine) {
            let (machine, room) = (name.clone(), ring.room.clone());
            return Err(VersionError::NotInRing { image: ring.image.clone(), machine, room }.into());
        }
    }
    Ok(())
}
