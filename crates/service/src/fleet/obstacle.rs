//! What keeps a machine from starting, by what is so now and not by what was so when it asked.

use crate::error;
use crate::initrds::InitrdState;
use crate::live::{Wait, WaitsIn};
use crate::service::{Service, held, note_given};
use crate::store;
use model::{ImageName, ImageVersion, Machine, Site, plan};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use wire::{Mac, Moment};

impl Service {
    /// What keeps the machine from starting, as far as the boot server knows it without asking others. `version` is the
    /// one that it would boot.
    fn obstacle(&self, site: &Site, machine: &Machine, version: Option<u32>) -> Option<String> {
        let view = self.view();
        let lease = machine.macs().find_map(|mac| view.lease(mac));
        let address = lease.map_or(Ipv4Addr::UNSPECIFIED, |lease| lease.address);
        let network = self.options().network_at(address)?;
        if let Err(why) = plan(site, network, (machine.mac, address), 0, None) {
            return Some(why.to_string());
        }
        let (image, version) = (&machine.image.as_ref()?.image, version?);
        self.start_trouble(machine, Some(version)).or_else(|| {
            match self.initrd_state(image, version) {
                InitrdState::Missing | InitrdState::Building => Some(format!(
                    "the initrd of {image} version {version} is being built; that takes seconds"
                )),
                InitrdState::Ready { .. } | InitrdState::Failed(_) => None,
            }
        })
    }

    /// What is wrong with the image version that the machine would boot, so that it can't start until somebody does
    /// something about it.
    pub(super) fn start_trouble(&self, machine: &Machine, version: Option<u32>) -> Option<String> {
        let (image, version) = (&machine.image.as_ref()?.image, version?);
        let troubles = self.image_troubles().last();
        if let Some(trouble) = troubles.get(&(image.clone(), version))
            && trouble.concerns(machine)
        {
            let why = &trouble.why;
            let helps = "mount the file system with it, put it back from a backup, or import the image again";
            return Some(format!("{image} version {version} is damaged, as {why}: {helps}"));
        }
        match self.initrd_state(image, version) {
            InitrdState::Failed(why) => {
                Some(format!("{image} version {version} has no initrd: {why}"))
            }
            _ => None,
        }
    }

    /// Notes that a PC waits in its loader, and what for. Returns whether that is news.
    pub(crate) fn waits_in_loader(&self, mac: Mac, why: &str) -> bool {
        let site = self.site();
        let machine = site.machine_by_mac(mac);
        let is_seen = machine.is_none_or(|machine| {
            self.obstacle(&site, machine, self.next_version(&site, machine)).is_some()
        });
        let waits_in = WaitsIn::Loader { is_seen, settings: machine.cloned().map(Box::new) };
        self.waits().set(mac, why, waits_in, self.now().moment)
    }

    /// Why the machine waits, if it does, and whether that is over: what was cured since it asked last is not said any more.
    pub(super) fn waiting(
        &self,
        site: &Site,
        machine: &Machine,
        version: Option<u32>,
        nic: Mac,
        now: Moment,
    ) -> Option<(String, bool)> {
        let Wait { at, why, waits_in } = self.waits().get(nic, now)?;
        let WaitsIn::Loader { is_seen, settings } = waits_in else { return Some((why, false)) };
        if let Some(obstacle) = self.obstacle(site, machine, version) {
            return Some((obstacle, false));
        }
        if !is_seen && settings.as_deref() == Some(machine) {
            return Some((why, false));
        }
        let left = model::ASK_AGAIN.saturating_sub(now.since(at));
        let when = match left.as_secs() {
            0 => "at any moment".to_owned(),
            seconds => format!("within {seconds} s"),
        };
        Some((format!("what it waited for is fixed, and it asks again {when}"), true))
    }

    /// Looks at the files of all image versions, and takes those up again that were missing when this server started.
    pub(crate) async fn look_at_images(&self) {
        let (store, site) = (Arc::clone(self.store()), self.site());
        let lost = Arc::clone(self.lost_versions());
        let needed = self.needed_versions();
        let looked = tokio::task::spawn_blocking(move || {
            let is_back = |version: &ImageVersion| {
                site.version(&version.image, version.version).is_none()
                    && store.trouble(version).is_none_or(|trouble| trouble.has_changed)
            };
            let are_back = lost.iter().any(is_back);
            let known = site.images.iter().chain(lost.iter());
            note_given(&store, known.map(|version| (version, site.state(version))));
            // Also what no index knows: a description that can't be read is in none since the last start but one.
            let mut troubles = store.troubles().unwrap_or_default();
            let has_newer = |lost: &&ImageVersion| {
                newest(&site, &lost.image).is_some_and(|newest| newest > lost.version)
            };
            let is_needed =
                |lost: &&ImageVersion| needed.contains(&(lost.image.clone(), lost.version));
            let lost = lost.iter().filter(|lost| !has_newer(lost) || is_needed(lost));
            let all = site.images.iter().chain(lost);
            troubles.extend(all.filter_map(|version| {
                let trouble = store.trouble(version)?;
                Some(((version.image.clone(), version.version), trouble))
            }));
            // Of these no book may know any more, but a disk does.
            for (image, number) in needed {
                if let Some(trouble) = store.trouble_of(&image, number) {
                    troubles.entry((image, number)).or_insert(trouble);
                }
            }
            (troubles, store.unreadable_files(), are_back)
        });
        let Ok((troubles, unreadable, are_back)) = looked.await else { return };
        self.image_troubles().put(troubles, unreadable);
        if are_back {
            self.index_images().await;
        }
    }

    /// Versions on which disks stand that machines keep, as far as the storage server has told.
    fn needed_versions(&self) -> BTreeSet<(ImageName, u32)> {
        let answer = self.exports().last();
        let stands_on = answer.disks.iter().filter_map(|disk| disk.stands_on.as_ref());
        stands_on.map(|disk| (disk.image.clone(), disk.version)).collect()
    }

    /// The same if nobody has looked yet, as where no boot server runs.
    pub(super) async fn know_images(&self) {
        if !self.image_troubles().are_known() {
            self.look_at_images().await;
        }
    }

    /// What is in the image store now is what machines can boot.
    pub(crate) async fn index_images(&self) {
        let (database, store) = (self.options().database.clone(), Arc::clone(self.store()));
        let indexed = tokio::task::spawn_blocking(move || store::index(&database, || held(&store)));
        if let Ok(Err(error)) = indexed.await {
            tracing::debug!(error = error.chain(), "images can't be listed");
        }
    }

    /// Image versions whose content is not what was imported, and what that is.
    pub(super) fn changed_versions(&self) -> Vec<((ImageName, u32), String)> {
        let troubles = self.image_troubles().last();
        let changed = troubles.iter().filter(|(_, trouble)| trouble.has_changed);
        changed
            .map(|(version, trouble)| (version.clone(), super::findings::upper_first(&trouble.why)))
            .collect()
    }

    /// Image versions that are damaged or gone and that machines would boot, and what that means for these.
    pub(super) fn damaged_versions(&self) -> Vec<((ImageName, u32), String)> {
        let troubles = self.image_troubles().last();
        if troubles.is_empty() {
            return Vec::new();
        }
        let (site, views) = (self.site(), self.machines());
        let found = troubles.iter().filter_map(|((image, version), trouble)| {
            let is_known = site.version(image, *version).is_some();
            let newest = newest(&site, image);
            let names = |booted: Option<u32>| -> Vec<String> {
                let concerned = views.iter().filter(|view| {
                    view.machine.has_image(image)
                        && view.next_version == booted
                        && trouble.concerns(&view.machine)
                });
                concerned.map(|view| view.machine.name.to_string()).collect()
            };
            let why = &trouble.why;
            let mut then = Vec::new();
            if let Some(who) = listed(&names(Some(*version))) {
                then.push(format!("These machines can't start: {who}"));
            }
            if !is_known {
                // One that fell out of the index concerns those, too, who would boot it, and get an older one or none.
                let older = newest.filter(|newest| newest < version);
                match (older, listed(&names(older))) {
                    (Some(older), Some(who)) => {
                        then.push(format!(
                            "These machines start with version {older} instead: {who}"
                        ));
                    }
                    (None, Some(who)) => then.push(format!("These machines can't start: {who}")),
                    (_, None) => {}
                }
            }
            if then.is_empty() {
                return None;
            }
            let then = then.join(". ");
            Some((
                (image.clone(), *version),
                format!("{}. {then}", super::findings::upper_first(why)),
            ))
        });
        found.collect()
    }
}

/// `a, b and 7 more`; `None` for nobody.
fn listed(names: &[String]) -> Option<String> {
    (!names.is_empty()).then(|| error::listed(names))
}

/// The newest version of an image, for whomever it is.
fn newest(site: &Site, image: &ImageName) -> Option<u32> {
    let versions = site.images.iter().filter(|version| version.image == *image);
    versions.map(|version| version.version).max()
}
