//! The builder: has ready what machines may ask for.

use super::build::{Settings, build, remove, warnings, wrong};
use super::fit::{Fitted, Wanted, fitted_of, with_disks};
use super::overlays::Overlays;
use super::recipe::{FITTED_MARK, Recipe};
use super::shelf::{InitrdState, Shelf};
use crate::error::Error;
use crate::options::Options;
use crate::store::{Database, View};
use images::Store;
use model::{BootChoice, Capture, Edit, Follows, ImageChoice, ImageName, ImageVersion, Menu, Site};
use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, Notify, watch};

/// After a build that failed, time until it is tried again: perhaps `bootlace-init` was installed since.
const RETRY_INTERVAL: Duration = Duration::from_secs(60);

/// One for hardware that can't be built is tried again more and more rarely: it mostly fails for what stays as it
/// is, and each try reads all drivers of an image. Counted in looks, of which there is one each [`RETRY_INTERVAL`]
/// and one after each change of the site.
const LOOKS_MAX: u32 = 60;

/// The initrds of a site.
pub(crate) struct Initrds {
    pub(super) settings: Settings,
    /// Whether machines get those for their hardware.
    are_fitted: bool,
    images: Arc<Store>,
    pub(super) database: Database,
    shelf: Shelf,
    overlays: Overlays,
    /// Held while one is built: each build uses all processors.
    building: Mutex<()>,
    /// A machine waits for one that is not there.
    wanted: Notify,
}

impl Initrds {
    pub(crate) fn new(options: &Options, images: Arc<Store>, database: Database) -> Self {
        let settings = Settings {
            folder: options.initrds.clone(),
            modules: options.modules.clone(),
            init: options.init.clone(),
            init_arm64: options.init_arm64.clone(),
            nbd_ca: options.nbd_ca.clone(),
        };
        Self {
            settings,
            are_fitted: options.fitted_initrds,
            overlays: Overlays::of(&images),
            images,
            database,
            shelf: Shelf::default(),
            building: Mutex::default(),
            wanted: Notify::new(),
        }
    }

    /// How far each is.
    pub(crate) const fn shelf(&self) -> &Shelf {
        &self.shelf
    }

    /// What was left out of an initrd that is built, and why.
    pub(crate) async fn warnings(&self, initrd: PathBuf) -> Vec<String> {
        tokio::task::spawn_blocking(move || warnings(&initrd)).await.unwrap_or_default()
    }

    /// Has this one built now, and not at the next look; from then on it is kept built.
    pub(crate) fn want(&self, recipe: Recipe) {
        if !self.shelf.is_built(&recipe) {
            self.shelf.put(recipe, InitrdState::Missing);
            self.wanted.notify_one();
        }
    }

    /// What is to be built may have changed.
    pub(crate) fn look_again(&self) {
        self.wanted.notify_one();
    }

    /// The one of this image version that is for all machines; builds it if it is not in the cache.
    ///
    /// # Errors
    /// It can't be built.
    pub(crate) async fn ensure(&self, version: &ImageVersion) -> Result<PathBuf, Error> {
        let _building = self.building.lock().await;
        // Whoever has laid something over it may have done so without us.
        self.overlays.learn(&self.images, &version.image, version.version);
        let recipe = self.recipe(version);
        if let Some(path) = self.shelf.ready(&recipe).filter(|path| path.is_file()) {
            return Ok(path);
        }
        let result = self.make(version, recipe, String::new()).await;
        if let Err(error) = &result {
            tracing::error!(image = %version.image, version = version.version, why = why(error),
                "no initrd: machines can't boot this image");
        }
        result
    }

    /// Builds what is missing, for each version that a machine may boot, as they appear. Never ends.
    pub(crate) async fn keep_built(&self) {
        let mut changes = self.database.watch();
        let mut failures = Failures::new();
        loop {
            for version in self.versions_to_build() {
                if !self.shelf.is_built(&self.recipe(&version)) {
                    // The shelf and the log have the error.
                    let _ = self.ensure(&version).await;
                }
            }
            self.keep_fitted_built(&mut failures).await;
            tokio::select! {
                () = images_changed(&mut changes) => {}
                () = self.wanted.notified() => {}
                () = tokio::time::sleep(RETRY_INTERVAL) => {}
            }
        }
    }

    /// Builds what is missing for the hardware of the site's machines, and removes what is for none.
    async fn keep_fitted_built(&self, failures: &mut Failures) {
        let mut wanted = match self.are_fitted {
            true => fitted_of(&self.database.view()),
            false => Wanted::default(),
        };
        wanted.fitted.extend(with_disks(&self.database.view()));
        for Fitted { recipe, .. } in &mut wanted.fitted {
            *recipe = recipe.clone().overlaid(&self.overlays);
        }
        for Fitted { version, recipe, names } in &wanted.fitted {
            if self.shelf.is_built(recipe) {
                failures.remove(recipe);
                continue;
            }
            if failures.get_mut(recipe).is_some_and(Failure::waits) {
                continue;
            }
            let _building = self.building.lock().await;
            if let Err(error) = self.make(version, recipe.clone(), names.clone()).await {
                failures.entry(recipe.clone()).or_default().happened();
                tracing::warn!(image = %version.image, version = version.version, why = why(&error),
                    "no initrd for the hardware of some machines: they get the one for all");
            }
        }
        failures.retain(|recipe, _| wanted.keeps(recipe));
        let kept = self.shelf.keep_fitted(|recipe| wanted.keeps(recipe));
        let folder = &self.settings.folder;
        remove(folder, |name| name.contains(FITTED_MARK) && !kept.contains(&folder.join(name)));
    }

    /// Builds one, in its turn.
    async fn make(
        &self,
        version: &ImageVersion,
        recipe: Recipe,
        names: String,
    ) -> Result<PathBuf, Error> {
        self.shelf.put(recipe.clone(), InitrdState::Building);
        let (settings, images) = (self.settings.clone(), Arc::clone(&self.images));
        let (of, with) = (version.clone(), recipe.clone());
        let built =
            tokio::task::spawn_blocking(move || build(&settings, &images, &of, &with, &names));
        let result = built.await.unwrap_or_else(|_| Err(wrong(version, "the build broke off")));
        let state = match &result {
            Ok((path, size_bytes)) => {
                InitrdState::Ready { path: path.clone(), size_bytes: *size_bytes }
            }
            Err(error) => InitrdState::Failed(why(error)),
        };
        self.shelf.put(recipe, state);
        result.map(|(path, _)| path)
    }

    /// Those that machines may ask for next.
    fn versions_to_build(&self) -> Vec<ImageVersion> {
        let site = Arc::clone(&self.database.view().site);
        let wanted = wanted_versions(&site);
        let is_used = |version: &&ImageVersion| {
            wanted.contains(&(&version.image, version.version)) || self.shelf.was_wanted(version)
        };
        // A disk without a system starts nothing.
        let systems = site.images.iter().filter(|version| !version.is_data());
        systems.filter(is_used).cloned().collect()
    }

    fn recipe(&self, version: &ImageVersion) -> Recipe {
        self.for_all(&self.database.view().site, &version.image, version.version)
    }

    /// The recipe of the initrd for all machines of the site.
    pub(crate) fn for_all(&self, site: &Site, image: &ImageName, version: u32) -> Recipe {
        Recipe::for_all(site, image, version).overlaid(&self.overlays)
    }

    /// The recipe of the one for one kind of hardware.
    pub(crate) fn fitted(&self, version: &ImageVersion, key: &str) -> Recipe {
        Recipe::fitted(version, key).overlaid(&self.overlays)
    }

    /// Something else is laid over a version: builds its initrd anew, and has the others follow.
    ///
    /// # Errors
    /// It can't be built.
    pub(crate) async fn laid_over(&self, version: &ImageVersion) -> Result<PathBuf, Error> {
        let built = self.ensure(version).await;
        self.look_again();
        built
    }
}

/// Of each image the newest, whomever it is for, what machines that follow it boot, and to which they would go back; and what
/// machines are told to boot.
fn wanted_versions(site: &Site) -> BTreeSet<(&ImageName, u32)> {
    let mut wanted = BTreeSet::new();
    for of_image in site.by_image() {
        let image = &of_image[0].image;
        wanted.extend(of_image.last().map(|newest| (image, newest.version)));
        let chosen = |follows| site.chosen(&ImageChoice { image: image.clone(), follows });
        let all = [chosen(Follows::Released), chosen(Follows::Test), site.released_before(image)];
        wanted.extend(all.into_iter().flatten().map(|version| (image, version.version)));
    }
    let offered = |menu: &Menu| -> Vec<ImageChoice> {
        let choices = menu.items().iter().map(|item| &item.choice);
        choices.filter_map(|choice| choice.other_image().cloned()).collect()
    };
    for machine in &site.machines {
        let once = machine.next_boot.as_ref().and_then(BootChoice::other_image).cloned();
        let edited = machine.edit.as_ref().map(Edit::choice);
        let edited = edited.into_iter().chain(machine.capture.as_ref().map(Capture::choice));
        let choices =
            machine.image.iter().cloned().chain(edited).chain(once).chain(offered(&machine.menu));
        let versions = choices.filter_map(|choice| site.chosen(&choice));
        let versions = versions.chain(site.chosen_for(machine));
        wanted.extend(versions.map(|version| (&version.image, version.version)));
    }
    wanted
}

/// Those for hardware that could not be built.
type Failures = HashMap<Recipe, Failure>;

/// When one that could not be built is tried again.
#[derive(Default)]
struct Failure {
    /// Looks between the last two tries.
    waited: u32,
    /// Looks until the next one.
    left: u32,
}

impl Failure {
    /// Called at each look.
    fn waits(&mut self) -> bool {
        self.left = self.left.saturating_sub(1);
        self.left > 0
    }

    fn happened(&mut self) {
        self.waited = (self.waited * 2).clamp(1, LOOKS_MAX);
        self.left = self.waited;
    }
}

/// Waits until images have come or gone, or other roots are needed.
async fn images_changed(changes: &mut watch::Receiver<Arc<View>>) {
    let of = |site: &Site| {
        let images = site.images.iter();
        let recipes = images.map(|image| Recipe::for_all(site, &image.image, image.version));
        (site.images.clone(), recipes.collect::<Vec<_>>())
    };
    let former = Arc::clone(&changes.borrow_and_update().site);
    let parts = of(&former);
    let is_other = |view: &Arc<View>| !Arc::ptr_eq(&view.site, &former) && of(&view.site) != parts;
    // An error: the site is being closed, and nothing will change.
    if changes.wait_for(is_other).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Why it can't be built, without the name of the image.
fn why(error: &Error) -> String {
    match error {
        Error::Initrd { why, .. } => why.clone(),
        other => other.chain(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_be_built_is_tried_again_and_again() {
        let mut failure = Failure::default();
        let tries: Vec<u32> = (0..200)
            .filter(|_| {
                let is_tried = !failure.waits();
                if is_tried {
                    failure.happened();
                }
                is_tried
            })
            .collect();
        assert_eq!(tries, [0, 1, 3, 7, 15, 31, 63, 123, 183]);
    }
}
