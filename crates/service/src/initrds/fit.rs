//! Initrds made for the hardware of the site's machines: a sixth of the size of the one for all.
//!
//! The first boot of a machine is with the one for all machines; its init tells what the machine is made of,
//! and from then on it gets a small one. The one for all stays the way back.

use crate::error::Error;
use crate::initrds::build::{FITTED_MARK, ForeignRoots, build, wrong};
use crate::initrds::hardware::Hardware;
use crate::service::Service;
use initrd_builder::Options as BuildOptions;
use model::{BootId, BootPlan, ImageName, ImageVersion, Stage};
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wire::Mac;

/// Boots among which the last one with a fitted initrd is looked for.
const BOOTS_LOOKED_AT: u32 = 10;

/// Kinds of hardware for which initrds are kept; of a site with more, the others boot the initrd for all.
const FITTED_MAX: usize = 64;

/// Hardware that an initrd is made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fitted {
    /// [`Hardware::key`].
    pub(crate) key: String,
    /// Hardware names, one a line.
    list: String,
}

impl Fitted {
    pub(crate) fn new(hardware: &Hardware) -> Self {
        let names: Vec<&str> = hardware.fitting().collect();
        Self { key: hardware.key(), list: names.join("\n") }
    }
}

/// What became of the initrd for one kind of hardware.
type State = Result<PathBuf, String>;

/// The initrds for one kind of hardware, by image version and key.
#[derive(Default)]
pub(crate) struct FittedInitrds {
    states: Mutex<HashMap<(ImageName, u32, String), State>>,
}

impl FittedInitrds {
    /// The initrd of this version for this kind of hardware, if it is built.
    pub(crate) fn ready(&self, version: &ImageVersion, key: &str) -> Option<PathBuf> {
        self.state(version, key)?.ok().filter(|path| path.is_file())
    }

    pub(crate) fn set(&self, version: &ImageVersion, key: &str, state: State) {
        let key = (version.image.clone(), version.version, key.to_owned());
        self.states().insert(key, state);
    }

    fn state(&self, version: &ImageVersion, key: &str) -> Option<State> {
        self.states().get(&(version.image.clone(), version.version, key.to_owned())).cloned()
    }

    fn states(&self) -> MutexGuard<'_, HashMap<(ImageName, u32, String), State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service {
    /// The initrd made for its hardware that this boot gets; `None`: the one for all machines.
    ///
    /// A machine that did not find its disk with one gets the other the next time, and after two such
    /// boots in a row always.
    pub(crate) async fn fitted_initrd(
        &self,
        plan: &BootPlan,
        boot: BootId,
        is_configured: bool,
    ) -> Result<Option<String>, Error> {
        let mac = plan.machine.mac;
        if !self.options().fitted_initrds || plan.machine.root.is_foreign() {
            return Ok(None);
        }
        let Some(mut hardware) = self.hardware_of(mac).await? else { return Ok(None) };
        let key = hardware.key();
        let is_ready = self.initrds().fitted().ready(&plan.image, &key).is_some();
        if is_configured {
            // Its loader asks once more: the answer stays the same.
            return Ok((is_ready && hardware.fitted_boot == Some(boot)).then_some(key));
        }
        let former = hardware.fitted_boot.take();
        let has_failed = match former {
            Some(former) => !self.has_found_its_disk(mac, former).await?,
            None => false,
        };
        if has_failed {
            hardware.failures += 1;
            tracing::warn!(machine = %plan.machine.name, boot = former,
                "the initrd made for this machine did not bring it up: it gets the one for all machines");
        } else if former.is_some() {
            hardware.failures = 0;
        }
        let is_fitted = is_ready && !has_failed && hardware.is_trusted();
        if is_fitted {
            hardware.fitted_boot = Some(boot);
        }
        if is_fitted || former.is_some() {
            self.write_hardware(mac, &hardware).await?;
        }
        Ok(is_fitted.then_some(key))
    }

    /// Whether that boot came as far as its root disk. One that is long forgotten did.
    async fn has_found_its_disk(&self, mac: Mac, boot: BootId) -> Result<bool, Error> {
        let boots = self.boots_of(mac, BOOTS_LOOKED_AT).await?;
        let Some(boot) = boots.iter().find(|former| former.id == boot) else { return Ok(true) };
        // One that never fetched it says nothing about it.
        let reached = |stage: Stage| boot.stages.iter().any(|event| event.stage == stage);
        Ok(reached(Stage::Attach) || !reached(Stage::Initrd))
    }

    /// The initrds that the site's machines could use: for each kind of hardware, of the newest version of
    /// each image that such a machine boots.
    async fn fitted_to_build(&self) -> Vec<(ImageVersion, Fitted)> {
        let mut wanted: Vec<(ImageVersion, Fitted)> = Vec::new();
        if !self.options().fitted_initrds {
            return wanted;
        }
        let site = self.site();
        // Those with a root on a foreign server stay with the one for all machines, which can attach it.
        for machine in site.machines.iter().filter(|machine| !machine.root.is_foreign()) {
            let version = machine.image.as_ref().and_then(|image| site.newest(image));
            let Some(version) = version else { continue };
            let Ok(Some(hardware)) = self.hardware_of(machine.mac).await else { continue };
            let fitted = Fitted::new(&hardware);
            if hardware.is_trusted()
                && !wanted.iter().any(|(other, fit)| other == version && fit.key == fitted.key)
            {
                wanted.push((version.clone(), fitted));
            }
        }
        wanted
    }

    /// Builds what is missing for the hardware of the site's machines, and removes what is for none.
    pub(crate) async fn build_fitted(&self) {
        let initrds = self.initrds();
        let fitted_initrds = initrds.fitted();
        let mut wanted = self.fitted_to_build().await;
        if wanted.len() > FITTED_MAX {
            tracing::warn!(kinds = wanted.len(), FITTED_MAX, "too many kinds of hardware");
            wanted.truncate(FITTED_MAX);
        }
        for (version, fitted) in &wanted {
            if fitted_initrds.state(version, &fitted.key).is_some_and(|state| {
                // One that can't be built is not tried again: its hardware stays the same.
                state.is_err() || state.is_ok_and(|path| path.is_file())
            }) {
                continue;
            }
            let _building = initrds.turn().await;
            let state = self.build_one_fitted(version.clone(), fitted.clone()).await;
            if let Err(why) = &state {
                tracing::warn!(image = %version.image, version = version.version, why,
                    "no initrd for the hardware of some machines: they get the one for all");
            }
            fitted_initrds.set(version, &fitted.key, state);
        }
        let is_wanted = |(image, number, key): &(ImageName, u32, String)| {
            wanted.iter().any(|(version, fitted)| {
                version.image == *image && version.version == *number && fitted.key == *key
            })
        };
        let mut states = fitted_initrds.states();
        states.retain(|key, _| is_wanted(key));
        let kept: Vec<&PathBuf> = states.values().flatten().collect();
        remove_fitted_but(initrds.folder(), &kept);
    }

    async fn build_one_fitted(&self, version: ImageVersion, fitted: Fitted) -> State {
        let initrds = self.initrds();
        let (store, folder, init) = (
            Arc::clone(self.store()),
            initrds.folder().to_owned(),
            initrds.init().map(Path::to_owned),
        );
        let cache = Some(initrds.modules().to_owned());
        let nbd_ca = initrds.nbd_ca().map(<[u8]>::to_vec);
        let built = tokio::task::spawn_blocking(move || {
            let fit = initrd_builder::Fit::parse(&fitted.list)
                .map_err(|error| wrong(&version, &wire::error_chain(&error)))?;
            let file_systems = Some(BTreeSet::from([version.file_system]));
            let fit = Some(fit);
            let options =
                BuildOptions { cache, nbd_ca, fit, file_systems, ..BuildOptions::default() };
            build(
                &store,
                &folder,
                init.as_deref(),
                &version,
                &ForeignRoots::new(),
                Some(&fitted.key),
                &options,
            )
        });
        match built.await {
            Ok(Ok((path, _))) => Ok(path),
            Ok(Err(error)) => Err(error.chain()),
            Err(_) => Err("the build broke off".to_owned()),
        }
    }
}

/// Removes initrds for one kind of hardware, but these.
fn remove_fitted_but(folder: &Path, keep: &[&PathBuf]) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_fitted = entry.file_name().to_str().is_some_and(|name| name.contains(FITTED_MARK));
        if is_fitted && !keep.contains(&&path) {
            // One that stays wastes a few megabytes of a cache.
            let _ = fs::remove_file(path);
        }
    }
}
