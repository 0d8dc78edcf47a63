//! Which kinds of hardware the site has.

use super::recipe::Recipe;
use crate::store::View;
use model::ImageVersion;

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

/// The initrds that the site's machines could use: for each kind of hardware, of the newest version of
/// each image that such a machine boots.
pub(super) fn fitted_of(view: &View) -> Vec<Fitted> {
    let mut wanted: Vec<Fitted> = Vec::new();
    let site = &view.site;
    // Those with a root on a foreign server stay with the one for all machines, which can attach it.
    for machine in site.machines.iter().filter(|machine| !machine.root.is_foreign()) {
        let version = machine.image.as_ref().and_then(|image| site.newest(image));
        let hardware = view.hardware.get(&machine.mac).filter(|hardware| hardware.is_trusted());
        let (Some(version), Some(hardware)) = (version, hardware) else { continue };
        let recipe = Recipe::fitted(version, &hardware.key());
        if !wanted.iter().any(|other| other.recipe == recipe) {
            let names: Vec<&str> = hardware.fitting().collect();
            wanted.push(Fitted { version: version.clone(), recipe, names: names.join("\n") });
        }
    }
    if wanted.len() > FITTED_MAX {
        tracing::warn!(kinds = wanted.len(), FITTED_MAX, "too many kinds of hardware");
        wanted.truncate(FITTED_MAX);
    }
    wanted
}
