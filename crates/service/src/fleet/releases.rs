//! Which versions of images machines get: released, taken back, removed.

use super::machine_state::StateWord;
use super::machine_view::MachineView;
use crate::error::{Error, VersionError};
use crate::initrds::InitrdState;
use crate::people::{Admin, Viewer};
use crate::service::Service;
use crate::store::{AuditEntry, ChangeError, FieldChange, Transaction};
use images::{FileChanges, PackageChange, StoreError, package_changes};
use model::{
    Boot, BootChoice, Capture, DiskReport, ExportStatus, Follows, ImageChoice, ImageName,
    ImageVersion, Machine, MachineName, Menu, Settings, Site, SiteDisk, VersionState, WriteMode,
};
use std::sync::Arc;

/// What became of a change: what machines that boot what is released get now, and who runs something else.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Released {
    /// The image.
    pub image: ImageName,
    /// The newest version that is released; `None`: there is none.
    pub version: Option<u32>,
    /// What has changed: versions, and for whom they are now.
    pub changed: Vec<(u32, VersionState)>,
    /// Machines that are up with another version of the image than they get at their next boot.
    pub behind: Vec<MachineName>,
    /// Machines that get another version of the image than that: they follow what is to be tested or one version, or keep a disk.
    pub apart: Vec<MachineName>,
}

impl Admin {
    /// Says for whom a version is from now on. Machines that run keep what they have booted.
    ///
    /// # Errors
    /// There is no such version, machines would have nothing to boot, or image store or database can't be written.
    pub async fn set_image_state(
        &self,
        image: ImageName,
        version: u32,
        state: VersionState,
    ) -> Result<Released, Error> {
        self.change_states(image, move |_, _| Ok(vec![(version, state)])).await
    }

    /// Makes an older version of an image what machines get, that one or the one before: it is released, and all newer ones that
    /// are released are retired.
    ///
    /// # Errors
    /// There is no such version, it is not older, or as in [`set_image_state`](Self::set_image_state).
    pub async fn roll_back_image(
        &self,
        image: ImageName,
        to: Option<u32>,
    ) -> Result<Released, Error> {
        self.change_states(image, move |site, image| back(site, image, to)).await
    }

    /// Changes the states that `wanted` says, all or none.
    async fn change_states(
        &self,
        image: ImageName,
        wanted: impl FnOnce(&Site, &ImageName) -> Result<Vec<(u32, VersionState)>, Error>
        + Send
        + 'static,
    ) -> Result<Released, Error> {
        let (service, actor) = (self.service().clone(), self.shared_actor());
        let (of, now_unix_ms) = (image.clone(), self.now().unix_ms);
        let stored = self.service().database().write(move |tables| {
            let before = site(tables)?;
            let wanted = wanted(&before, &of)?;
            let by =
                |subject: &str, changes| actor.does("image.state", subject, changes, now_unix_ms);
            put_states(&service, tables, &before, (&of, &wanted), &by)
        });
        let changed = stored.await?;
        Ok(Released { changed, ..self.service().released(&image) })
    }

    /// How many bytes a version takes on the disk that nobody needs. Asks the storage server.
    ///
    /// # Errors
    /// There is no such version, somebody needs it, or the storage server does not say whether somebody does.
    pub async fn removable(&self, image: &ImageName, number: u32) -> Result<u64, Error> {
        self.service().refresh_exports().await;
        self.service().removable(image, number).await
    }

    /// Removes a version that nobody needs. Returns how many bytes it took on the disk.
    ///
    /// # Errors
    /// There is no such version, somebody needs it or the storage server does not say whether somebody does, or image store or
    /// database can't be written.
    pub async fn remove_image_version(&self, image: ImageName, number: u32) -> Result<u64, Error> {
        let service = self.service();
        let size_bytes = self.removable(&image, number).await?;
        let subject = format!("{image}/v{number}");
        let entry = self.actor().does("image.remove", &subject, Vec::new(), self.now().unix_ms);
        let of = image.clone();
        let stored = service.database().write(move |tables| {
            let site = site(tables)?;
            version(&site, &of, number)?;
            // Somebody may need it since.
            let by = needed_by(&site, &of, number);
            if !by.is_empty() {
                return Err(in_use(&of, number, by).into());
            }
            let mut after = site.clone();
            after.images.retain(|it| (&it.image, it.version) != (&of, number));
            nobody_is_left_out(&site, &after, (&of, number), &[])?;
            Ok(tables.delete_image_version(&of, number)?)
        });
        stored.await?;
        let (store, of) = (Arc::clone(service.store()), image.clone());
        let removed = tokio::task::spawn_blocking(move || store.remove(&of, number));
        let removed = removed.await.map_err(|_| Error::Stopping)?;
        if removed.is_err() {
            // What is still there stays what machines can boot.
            service.index_images().await;
        }
        service.look_at_images().await;
        removed?;
        service.initrds().forget(&image, number);
        let noted = service.database().write(move |tables| Ok(tables.put_audit(&entry)?));
        noted.await?;
        tracing::info!(%image, version = number, "image version removed");
        Ok(size_bytes)
    }
}

impl Service {
    pub(super) fn released(&self, image: &ImageName) -> Released {
        let choice = ImageChoice::from(image.clone());
        let version = self.site().chosen(&choice).map(|version| version.version);
        let views = self.machines();
        let names = |is: &dyn Fn(&MachineView) -> bool| -> Vec<MachineName> {
            let found = views.iter().filter(|view| view.machine.has_image(image) && is(view));
            found.map(|view| view.machine.name.clone()).collect()
        };
        let behind = names(&MachineView::is_behind);
        let apart = names(&|view| view.next_version.is_some() && view.next_version != version);
        Released { image: image.clone(), version, changed: Vec::new(), behind, apart }
    }

    /// Whether machines can start with a version, as far as that is known.
    pub(super) fn check_boots(&self, version: &ImageVersion) -> Result<(), Error> {
        let (image, number) = (&version.image, version.version);
        let damage = self.version_trouble(image, number).filter(|damage| !damage.starts);
        let why = damage.map(|damage| damage.why).or(match self.initrd_state(image, number) {
            InitrdState::Failed(why) => Some(why),
            InitrdState::Missing | InitrdState::Building | InitrdState::Ready { .. } => None,
        });
        match why {
            Some(why) => {
                Err(VersionError::Broken { image: image.clone(), version: number, why }.into())
            }
            None => Ok(()),
        }
    }

    async fn removable(&self, image: &ImageName, number: u32) -> Result<u64, Error> {
        let site = self.site();
        version(&site, image, number)?;
        let mut by = needed_by(&site, image, number);
        let views = self.machines();
        let names = |is: &dyn Fn(&MachineView) -> bool| -> Vec<MachineName> {
            views.iter().filter(|view| is(view)).map(|view| view.machine.name.clone()).collect()
        };
        let this = (image.clone(), number);
        let run = names(&|view| {
            let is_off = matches!(view.state.word, StateWord::Off | StateWord::Local);
            let has_booted = |boot: &Boot| boot.image.as_ref() == Some(&this);
            // Also if another boot has begun in its name since.
            let has_disk = view
                .export
                .as_ref()
                .is_some_and(|export| (&export.spec.image, export.spec.version) == (image, number));
            !is_off && (has_disk || view.boot.as_ref().is_some_and(has_booted))
        });
        by.extend(told(&run, "runs it", "run it"));
        let answer = self.exports().last();
        let is_this =
            |export: &&ExportStatus| (&export.spec.image, export.spec.version) == (image, number);
        let used = answer.further.iter().filter(is_this).filter(|export| export.connections > 0);
        let used: Vec<MachineName> = used.map(|export| export.spec.disk.machine.clone()).collect();
        by.extend(told(&used, "uses it beside its root", "use it beside their roots"));
        let is_made_on = |disk: &&DiskReport| {
            disk.stands_on.as_ref().is_some_and(|it| (&it.image, it.version) == (image, number))
        };
        let all = answer.disks.iter().chain(answer.further_disks.iter());
        let keep = all.filter(is_made_on).map(|disk| disk.disk.machine.clone());
        let keep: Vec<MachineName> = keep.collect();
        by.extend(told(
            &keep,
            "keeps a disk that was made on it",
            "keep disks that were made on it",
        ));
        if !by.is_empty() {
            return Err(in_use(image, number, by));
        }
        if let Some(why) = &answer.error {
            let why = why.clone();
            return Err(
                VersionError::PerhapsInUse { image: image.clone(), version: number, why }.into()
            );
        }
        let (store, image) = (Arc::clone(self.store()), image.clone());
        let bytes = tokio::task::spawn_blocking(move || store.disk_bytes(&image, number));
        Ok(bytes.await.map_err(|_| Error::Stopping)??)
    }
}

/// What differs between two versions of an image.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct VersionChanges {
    /// The former version.
    pub since: u32,
    /// The later one.
    pub version: u32,
    /// Kernels of both, if they differ.
    pub kernel: Option<[String; 2]>,
    /// Packages that were added, removed, or are there in another version, by name; `None`: neither dpkg nor rpm has installed any in one of them.
    pub packages: Option<Vec<PackageChange>>,
    /// What differs between their files, if somebody has asked for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<FileChanges>,
}

impl Viewer {
    /// What differs between a version and an older one, or the one before; with their files, for which all folders of both are read, or
    /// without.
    ///
    /// # Errors
    /// There is no such version, or its files can't be read.
    pub async fn version_changes(
        &self,
        image: &ImageName,
        number: u32,
        since: Option<u32>,
        with_files: bool,
    ) -> Result<VersionChanges, Error> {
        let site = self.service().site();
        let later = version(&site, image, number)?.clone();
        let before = site.images.iter().filter(|it| it.image == *image && it.version < number);
        let before = before.map(|version| version.version).max();
        let first = || VersionError::First { image: image.clone(), version: number };
        let since = since.or(before).ok_or_else(first)?;
        let former = version(&site, image, since)?.clone();
        let kernels = [former.kernel_version.clone(), later.kernel_version.clone()];
        let store = Arc::clone(self.service().store());
        let compared = tokio::task::spawn_blocking(move || {
            let root = |version: &ImageVersion| store.rootfs(&version.image, version.version);
            let (old, new) = (root(&former)?, root(&later)?);
            let both = images::packages(&old)?.zip(images::packages(&new)?);
            let packages = both.map(|(old, new)| package_changes(&old, &new));
            let files = with_files.then(|| images::file_changes(&old, &new)).transpose()?;
            Ok((packages, files))
        });
        let compared: Result<_, StoreError> = compared.await.map_err(|_| Error::Stopping)?;
        let (packages, files) = compared?;
        Ok(VersionChanges {
            since,
            version: number,
            kernel: Some(kernels).filter(|[old, new]| old != new),
            packages,
            files,
        })
    }
}

/// Says for whom versions of an image are from now on, all or none, and notes that as `by` says. Returns what has changed.
pub(super) fn put_states(
    service: &Service,
    tables: &Transaction<'_>,
    before: &Site,
    (image, wanted): (&ImageName, &[(u32, VersionState)]),
    by: &dyn Fn(&str, Vec<FieldChange>) -> AuditEntry,
) -> Result<Vec<(u32, VersionState)>, ChangeError> {
    let mut states = before.states.clone();
    let mut changed = Vec::new();
    for &(number, state) in wanted {
        let version = version(before, image, number)?;
        let former = before.state(version);
        if former != state && matches!(state, VersionState::Released | VersionState::Test) {
            service.check_boots(version)?;
        }
        states.insert((image.clone(), number), state);
        let words = (Some(former.to_string()), Some(state.to_string()));
        let Some(change) = FieldChange::between("state", words.0, words.1) else {
            continue;
        };
        changed.push((number, state));
        tables.put_audit(&by(&format!("{image}/v{number}"), vec![change]))?;
    }
    let after = before.clone().with_states(states);
    let kept = tables.kept_disks()?;
    if let Some((version, _)) = wanted.first() {
        nobody_is_left_out(before, &after, (image, *version), &kept)?;
    }
    // Here, where one change comes after the other.
    service.store().set_states(image, wanted).map_err(Error::from)?;
    let noted = wanted.iter().map(|&(number, state)| ((image.clone(), number), state));
    tables.take_image_states(&noted.collect())?;
    Ok(changed)
}

/// The site as the database has it.
pub(super) fn site(tables: &Transaction<'_>) -> Result<Site, ChangeError> {
    let (machines, images) = (tables.machines()?, tables.image_versions()?);
    let site = Site::new(machines, images).with_states(tables.image_states()?);
    let site = site.with_rings(tables.rings()?).with_disks(tables.site_disks()?);
    Ok(site.with_rooms(tables.rooms()?, tables.site_settings()?))
}

pub(super) fn version<'a>(
    site: &'a Site,
    image: &ImageName,
    number: u32,
) -> Result<&'a ImageVersion, Error> {
    let found = site.version(image, number);
    found.ok_or_else(|| Error::NoVersion { image: image.clone(), version: number })
}

/// What makes that version, or the one before, what machines get.
fn back(
    site: &Site,
    image: &ImageName,
    to: Option<u32>,
) -> Result<Vec<(u32, VersionState)>, Error> {
    let choice = ImageChoice::from(image.clone());
    let released = site.chosen(&choice).map(|version| version.version);
    let of_image = || site.images.iter().filter(|version| version.image == *image);
    let nothing = || VersionError::NothingBefore { image: image.clone(), released };
    if of_image().next().is_none() {
        let known = site.images.iter().map(|version| version.image.clone()).collect();
        return Err(Error::NoImage { image: image.clone(), known });
    }
    let newest = released.ok_or_else(nothing)?;
    let to = match to {
        // Somebody has done it already.
        Some(to) if to == newest => return Ok(Vec::new()),
        Some(to) if to > newest => {
            version(site, image, to)?;
            let image = image.clone();
            return Err(VersionError::NotBefore { image, to, released: newest }.into());
        }
        Some(to) => to,
        None => site.released_before(image).ok_or_else(nothing)?.version,
    };
    let newer = of_image().filter(|version| version.version > to);
    let newer = newer.filter(|version| site.state(version) == VersionState::Released);
    let newer = newer.map(|version| (version.version, VersionState::Retired));
    Ok(std::iter::once((to, VersionState::Released)).chain(newer).collect())
}

/// Whoever had something to boot must have something to boot. Machines with a disk of their own stay on what that was made on.
fn nobody_is_left_out(
    before: &Site,
    after: &Site,
    (image, version): (&ImageName, u32),
    kept: &[MachineName],
) -> Result<(), Error> {
    let is_lost = |choice: &ImageChoice| {
        choice.image == *image && before.chosen(choice).is_some() && after.chosen(choice).is_none()
    };
    let offers_lost = |menu: &Menu| {
        let others = menu.items().iter().filter_map(|item| item.choice.other_image());
        others.into_iter().any(is_lost)
    };
    let says_lost = |settings: &Settings| {
        settings.image.iter().flatten().any(is_lost)
            || settings.menu.as_ref().is_some_and(offers_lost)
    };
    let has_disk = |machine: &Machine| {
        let keeps = machine.write_mode == WriteMode::Persistent && !machine.reset_disk;
        keeps && kept.contains(&machine.name)
    };
    let is_left_out = |machine: &&Machine| {
        machine.image.as_ref().is_some_and(|it| is_lost(it) && !has_disk(machine))
            || offers_lost(&machine.menu)
    };
    let machines = before.machines.iter().filter(is_left_out).map(|it| it.name.to_string());
    let rooms = before.rooms.iter().filter(|room| says_lost(&room.settings));
    let rooms = rooms.map(|room| format!("the room {}", room.name));
    let site = says_lost(&before.settings).then(|| "the site".to_owned());
    let disks = before
        .disks
        .iter()
        .filter(|disk| disk.what.as_ref().is_some_and(|what| is_lost(&what.image)));
    let disks = disks.map(|disk| format!("the disk {} of {}", disk.name, disk.of()));
    let who: Vec<String> = machines.chain(rooms).chain(site).chain(disks).collect();
    match who.is_empty() {
        true => Ok(()),
        false => Err(VersionError::LastOne { image: image.clone(), version, who }.into()),
    }
}

/// Who would boot this version next, or is told to boot just this one.
fn needed_by(site: &Site, image: &ImageName, number: u32) -> Vec<String> {
    let this = ImageChoice { image: image.clone(), follows: Follows::Version(number) };
    let in_settings = |settings: &Settings| {
        settings.image.as_ref().is_some_and(|image| image.as_ref() == Some(&this))
            || settings.menu.as_ref().is_some_and(|menu| offers(menu, &this))
    };
    let mut by = Vec::new();
    let named = |disk: &&SiteDisk| disk.what.as_ref().is_some_and(|what| what.image == this);
    let disks = site.disks.iter().filter(named);
    by.extend(disks.map(|disk| format!("the disk {} of {} names it", disk.name, disk.of())));
    if in_settings(&site.settings) {
        by.push("the site names it".to_owned());
    }
    let rooms = site.rooms.iter().filter(|room| in_settings(&room.settings));
    by.extend(rooms.map(|room| format!("the room {} names it", room.name)));
    let is_named = |machine: &&Machine| {
        machine.image.as_ref() == Some(&this)
            || offers(&machine.menu, &this)
            || matches!(&machine.next_boot, Some(BootChoice::OtherImage(image)) if *image == this)
    };
    let machines = site.machines.iter().filter(is_named).map(|machine| machine.name.clone());
    let machines: Vec<MachineName> = machines.collect();
    by.extend(told(&machines, "names just this version", "name just this version"));
    let boots_it = |machine: &&Machine| {
        let chosen = site.chosen_for(machine);
        chosen.is_some_and(|chosen| (&chosen.image, chosen.version) == (image, number))
    };
    let next = site.machines.iter().filter(boots_it).map(|machine| machine.name.clone());
    let next: Vec<MachineName> = next.collect();
    by.extend(told(&next, "boots it next", "boot it next"));
    let changes_it = |machine: &&Machine| {
        machine.edit.as_ref().is_some_and(|edit| (&edit.image, edit.version) == (image, number))
    };
    let edited = site.machines.iter().filter(changes_it).map(|machine| machine.name.clone());
    let edited: Vec<MachineName> = edited.collect();
    by.extend(told(&edited, "changes it", "change it"));
    let captured = site.machines.iter().filter(|machine| {
        let with = |it: &Capture| (&it.with, it.with_version) == (image, number);
        machine.capture.as_ref().is_some_and(with)
    });
    let captured: Vec<MachineName> = captured.map(|machine| machine.name.clone()).collect();
    by.extend(told(&captured, "is captured by its kernel", "are captured by its kernel"));
    by
}

fn offers(menu: &Menu, image: &ImageChoice) -> bool {
    menu.offers(&BootChoice::OtherImage(image.clone()))
}

fn told(machines: &[MachineName], one: &str, many: &str) -> Option<String> {
    let does = if machines.len() == 1 { one } else { many };
    (!machines.is_empty()).then(|| format!("{} {does}", crate::error::listed(machines)))
}

fn in_use(image: &ImageName, version: u32, by: Vec<String>) -> Error {
    VersionError::InUse { image: image.clone(), version, by }.into()
}
