//! What an initrd is built from.

use super::overlays::Overlays;
use model::{ImageName, ImageVersion, RootKind, Site};
use std::collections::BTreeSet;

/// Roots on foreign servers that an initrd can attach, besides those of the storage server. NFS takes a
/// megabyte, so only initrds of images have it that a machine with such a root boots.
pub(crate) type ForeignRoots = BTreeSet<RootKind>;

/// What stands before the kind of hardware in the name of an initrd that is not for all.
pub(super) const FITTED_MARK: char = '+';

/// Stands for the kind of hardware in an initrd for all that also has drivers of disks in PCs: those boot it that are captured.
pub(crate) const WITH_DISKS: &str = "disks";

/// Names one initrd of the site.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Recipe {
    /// Name of the image.
    pub(crate) image: ImageName,
    /// Version of the image.
    pub(crate) version: u32,
    /// Roots on foreign servers that it can attach.
    pub(crate) roots: ForeignRoots,
    /// The kind of hardware that it is for ([`crate::Hardware::key`]); `None`: all.
    pub(crate) fit: Option<String>,
    /// Digest of what is laid over the version; `None`: nothing.
    pub(crate) overlay: Option<String>,
}

impl Recipe {
    /// The one for all machines of the site.
    pub(super) fn for_all(site: &Site, image: &ImageName, version: u32) -> Self {
        let machines = site.machines.iter().filter(|machine| machine.has_image(image));
        let roots = machines.map(|machine| machine.root).filter(|root| root.is_foreign()).collect();
        Self { image: image.clone(), version, roots, fit: None, overlay: None }
    }

    /// The one for one kind of hardware. Machines with a root on a foreign server stay with the one for all.
    pub(super) fn fitted(version: &ImageVersion, key: &str) -> Self {
        let roots = ForeignRoots::new();
        let (image, fit) = (version.image.clone(), Some(key.to_owned()));
        Self { image, version: version.version, roots, fit, overlay: None }
    }

    /// The same with what is laid over its version.
    pub(super) fn overlaid(self, overlays: &Overlays) -> Self {
        let overlay = overlays.digest(&self.image, self.version);
        Self { overlay, ..self }
    }

    /// Whether an initrd of this recipe and one of the other take each other's place.
    pub(super) fn is_beside(&self, other: &Self) -> bool {
        (&self.image, self.version, &self.fit) == (&other.image, other.version, &other.fit)
    }

    /// Whether an initrd of this recipe does for who wants one of the other.
    pub(super) fn serves(&self, wanted: &Self) -> bool {
        self.is_beside(wanted)
            && self.overlay == wanted.overlay
            && self.roots.is_superset(&wanted.roots)
    }

    /// Starts the names of all initrds that take each other's place.
    pub(super) fn prefix(&self) -> String {
        let fit = self.fit.as_ref().map_or_else(String::new, |key| format!("{FITTED_MARK}{key}"));
        format!("{}@{}{fit}-", self.image, self.version)
    }
}
