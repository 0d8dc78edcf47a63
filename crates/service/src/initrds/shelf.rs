//! How far each initrd is.

use super::recipe::Recipe;
use model::ImageVersion;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How far the initrd of an image version is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InitrdState {
    /// Nobody has asked for it yet.
    Missing,
    /// It is being built; that takes seconds.
    Building,
    /// Machines can boot it.
    Ready {
        /// The file.
        path: PathBuf,
        /// Its size.
        size_bytes: u64,
    },
    /// It can't be built; the text says why.
    Failed(String),
}

/// The initrds of a site, by recipe.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    states: Mutex<HashMap<Recipe, InitrdState>>,
}

impl Shelf {
    /// How far an initrd is that does for this recipe.
    pub(crate) fn state(&self, wanted: &Recipe) -> InitrdState {
        let states = self.states();
        let exact = states.get(wanted);
        let found = exact.or_else(|| {
            states.iter().find_map(|(recipe, state)| recipe.serves(wanted).then_some(state))
        });
        found.cloned().unwrap_or(InitrdState::Missing)
    }

    /// The file of one that does for this recipe, if it is built.
    pub(crate) fn ready(&self, wanted: &Recipe) -> Option<PathBuf> {
        match self.state(wanted) {
            InitrdState::Ready { path, .. } => Some(path),
            _ => None,
        }
    }

    /// Whether one for this recipe is built, and still there.
    pub(crate) fn is_built(&self, wanted: &Recipe) -> bool {
        self.ready(wanted).is_some_and(|path| path.is_file())
    }

    /// Whether somebody has asked for the one of this version that is for all machines.
    pub(super) fn was_wanted(&self, version: &ImageVersion) -> bool {
        self.states().keys().any(|recipe| {
            let is_of_version =
                (&recipe.image, recipe.version) == (&version.image, version.version);
            is_of_version && recipe.fit.is_none()
        })
    }

    /// Notes how far one is, in place of those beside it.
    pub(crate) fn put(&self, recipe: Recipe, state: InitrdState) {
        let mut states = self.states();
        states.retain(|other, _| !other.is_beside(&recipe));
        states.insert(recipe, state);
    }

    /// Forgets those for one kind of hardware that are not to stay. Returns the files of the others.
    pub(super) fn keep_fitted(&self, stays: impl Fn(&Recipe) -> bool) -> Vec<PathBuf> {
        let mut states = self.states();
        states.retain(|recipe, _| recipe.fit.is_none() || stays(recipe));
        let fitted = states.iter().filter(|(recipe, _)| recipe.fit.is_some());
        let files = fitted.filter_map(|(_, state)| match state {
            InitrdState::Ready { path, .. } => Some(path.clone()),
            _ => None,
        });
        files.collect()
    }

    fn states(&self) -> MutexGuard<'_, HashMap<Recipe, InitrdState>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::RootKind;

    fn recipe(version: u32, roots: &[RootKind], fit: Option<&str>) -> Recipe {
        let roots = roots.iter().copied().collect();
        let fit = fit.map(str::to_owned);
        Recipe { image: "debian".parse().unwrap(), version, roots, fit, overlay: None }
    }

    #[test]
    fn one_that_can_do_more_does_for_less_and_not_the_other_way_round() {
        let shelf = Shelf::default();
        let ready = InitrdState::Ready { path: "/one".into(), size_bytes: 1 };
        shelf.put(recipe(1, &[RootKind::Nfs], None), ready.clone());
        assert_eq!(shelf.state(&recipe(1, &[], None)), ready);
        assert_eq!(shelf.state(&recipe(1, &[RootKind::Iscsi], None)), InitrdState::Missing);
        assert_eq!(shelf.state(&recipe(2, &[], None)), InitrdState::Missing);
        assert_eq!(shelf.state(&recipe(1, &[], Some("key"))), InitrdState::Missing);
        let laid_over = Recipe { overlay: Some("1".to_owned()), ..recipe(1, &[], None) };
        assert_eq!(shelf.state(&laid_over), InitrdState::Missing, "something else is in it");
        shelf.put(recipe(1, &[RootKind::Iscsi], None), InitrdState::Building);
        assert_eq!(shelf.state(&recipe(1, &[RootKind::Nfs], None)), InitrdState::Missing);
    }

    #[test]
    fn those_for_hardware_that_is_gone_go() {
        let shelf = Shelf::default();
        for (fit, path) in [(None, "/all"), (Some("a"), "/a"), (Some("b"), "/b")] {
            let ready = InitrdState::Ready { path: path.into(), size_bytes: 1 };
            shelf.put(recipe(1, &[], fit), ready);
        }
        let wanted = recipe(1, &[], Some("b"));
        assert_eq!(shelf.keep_fitted(|recipe| *recipe == wanted), [PathBuf::from("/b")]);
        assert_eq!(shelf.ready(&recipe(1, &[], Some("a"))), None);
        assert_eq!(shelf.ready(&recipe(1, &[], None)), Some("/all".into()));
    }
}
