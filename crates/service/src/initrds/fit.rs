//! Which kinds of hardware the site has.

use super::recipe::{Recipe, WITH_DISKS};
use crate::store::View;
use model::{ImageName, ImageVersion, Machine, WriteMode};

/// Kinds of hardware for which initrds are kept; of a site with more, the others boot the initrd for all.
const FITTED_MAX: usize = 64;

/// An initrd for one kind of hardware.
#[derive(Clone, Debug)]
pub(super) struct Fitted {
    pub(super) version: ImageVersion,
    pub(super) recipe: Recipe,
    /// Hardware names, one a line.
    pub(super) names: String,
}

/// What the site's machines could use.
#[derive(Default)]
pub(super) struct Wanted {
    pub(super) fitted: Vec<Fitted>,
    /// Image and kind of hardware of machines that keep their disk, and of which it is not known yet on which
    /// version it stands: what is built for these stays.
    pub(super) undecided: Vec<(ImageName, String)>,
}

impl Wanted {
    /// Whether an initrd that is there is to stay.
    pub(super) fn keeps(&self, recipe: &Recipe) -> bool {
        let is_undecided = |(image, key): &(ImageName, String)| {
            recipe.image == *image && recipe.fit.as_ref() == Some(key)
        };
        self.fitted.iter().any(|fitted| fitted.recipe == *recipe)
            || self.undecided.iter().any(is_undecided)
    }
}

/// The initrds that the site's machines could use: for each kind of hardware, of the newest version of each image that
/// such a machine boots, and of the version that its kept disk stands on. A laptop on its dock is another kind.
pub(super) fn fitted_of(view: &View) -> Wanted {
    let (mut wanted, mut undecided): (Vec<Fitted>, _) = (Vec::new(), Vec::new());
    let site = &view.site;
    // Those with a root on a foreign server stay with the one for all machines, which can attach it.
    let machines = site.machines.iter().filter(|machine| !machine.root.is_foreign());
    let hardware = machines.flat_map(|machine| {
        let of_nics = machine.macs().filter_map(|mac| view.hardware.get(&mac));
        of_nics.map(move |hardware| (machine, hardware))
    });
    for (machine, hardware) in hardware.filter(|(_, hardware)| hardware.is_trusted()) {
        if machine.capture.is_some() {
            // It needs its own only after that.
            undecided.extend(machine.image.iter().map(|it| (it.image.clone(), hardware.key())));
            continue;
        }
        let machine = machine.as_it_boots();
        let Some(image) = &machine.image else { continue };
        let key = hardware.key();
        let mut kept = None;
        if keeps_disk(&machine) {
            kept = booted_version(view, &machine);
            if kept.is_none() {
                undecided.push((image.image.clone(), key.clone()));
            }
        }
        for version in kept.into_iter().chain(site.chosen_for(&machine)) {
            let recipe = Recipe::fitted(version, &key);
            if !wanted.iter().any(|other| other.recipe == recipe) {
                let names: Vec<&str> = hardware.fitting().collect();
                wanted.push(Fitted { version: version.clone(), recipe, names: names.join("\n") });
            }
        }
    }
    if wanted.len() > FITTED_MAX {
        tracing::warn!(kinds = wanted.len(), FITTED_MAX, "too many kinds of hardware");
        wanted.truncate(FITTED_MAX);
    }
    Wanted { fitted: wanted, undecided }
}

/// The initrds that machines boot which are captured: for all, and with drivers of disks.
pub(super) fn with_disks(view: &View) -> Vec<Fitted> {
    let site = &view.site;
    let captured = site.machines.iter().filter_map(|machine| machine.capture.as_ref());
    let versions = captured.filter_map(|capture| site.chosen(&capture.choice()));
    let mut wanted: Vec<Fitted> = Vec::new();
    for version in versions {
        let recipe = Recipe::fitted(version, WITH_DISKS);
        if !wanted.iter().any(|other| other.recipe == recipe) {
            wanted.push(Fitted { version: version.clone(), recipe, names: String::new() });
        }
    }
    wanted
}

/// Whether the machine's next boot stands on the same disk as its last one.
fn keeps_disk(machine: &Machine) -> bool {
    let machine = machine.as_it_boots();
    machine.write_mode == WriteMode::Persistent && !machine.reset_disk
}

/// The version of its image that the machine has booted last. A disk that is kept stands on that.
fn booted_version<'a>(view: &'a View, machine: &Machine) -> Option<&'a ImageVersion> {
    let (image, version) = view.boots.get(&machine.mac)?.boot.image.as_ref()?;
    let site = &view.site;
    site.version(image, *version).filter(|version| machine.has_image(&version.image))
}
