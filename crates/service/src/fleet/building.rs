//! Images that the boot server has built of packages.

use crate::error::Error;
use crate::jobs::{BuildOrder, Job, Order};
use crate::people::Admin;
use crate::store::FieldChange;
use images::Recipe;
use model::{ImageName, VersionState, is_note};
use std::collections::BTreeMap;
use std::os::unix::fs::FileTypeExt as _;

/// Of parameters that are called so the audit log has no values.
const SECRET: &str = "password";

/// An image that somebody wants to have built.
#[derive(Clone, Debug)]
pub struct NewBuild {
    /// A recipe that comes along.
    pub recipe: String,
    /// The image of which it becomes a version.
    pub image: ImageName,
    /// What is chosen of the recipe's parameters; the others stay as the recipe has them.
    pub set: BTreeMap<String, String>,
    /// What people want to remember about the version.
    pub note: Option<String>,
    /// For whom the version is.
    pub state: VersionState,
}

/// What the audit log says of a build.
#[derive(serde::Serialize)]
struct Noted<'a> {
    recipe: &'a str,
    state: VersionState,
    #[serde(flatten)]
    set: BTreeMap<&'a str, &'a str>,
}

impl Admin {
    /// Whether there is somebody who builds images for the boot server, which may not do that itself.
    pub fn has_builder(&self) -> bool {
        let socket = std::fs::symlink_metadata(&self.service().options().builder_socket);
        socket.is_ok_and(|about| about.file_type().is_socket())
    }

    /// Has an image built, as soon as other orders are done.
    ///
    /// # Errors
    /// There is no such recipe, something can't be chosen, the note is none, nobody builds here, or too many jobs wait.
    pub async fn build(&self, wanted: NewBuild) -> Result<Job, Error> {
        let NewBuild { recipe, image, set, note, state } = wanted;
        if !note.as_deref().is_none_or(is_note) {
            return Err(Error::BadNote);
        }
        let chosen: Vec<_> = set.clone().into_iter().collect();
        Recipe::named(&recipe)?.choose(&chosen)?;
        if !self.has_builder() {
            return Err(Error::NoBuilder);
        }
        let shown = set.iter().map(|(name, value)| {
            (name.as_str(), if name.contains(SECRET) { "…" } else { value.as_str() })
        });
        let noted = Noted { recipe: &recipe, state, set: shown.collect() };
        let changes = FieldChange::all(None, Some(&noted));
        let (by, now) = (self.actor().name().to_owned(), self.now());
        let entry = self.actor().does("image.build", &image, changes, now.unix_ms);
        let order = BuildOrder { recipe, image, set, note, state };
        self.order(Order::Build(order), entry, &by, now).await
    }
}
