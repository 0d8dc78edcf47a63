//! People whom a directory knows, and who have no account here.
//!
//! An account here comes first: the directory is not asked of its name, and nobody whom the directory calls so is let in.

use super::users::is_reserved;
use crate::error::Error;
use crate::options::{DirectoryAnswer, DirectoryGroup, DirectoryOptions, DirectoryTrouble};
use crate::passwords::PASSWORD_BYTES_MAX;
use crate::service::Service;
use crate::store::{Session, User};
use model::{Reach, Right, Role, Rooms, UserName};

impl DirectoryOptions {
    /// What who is in these groups may do, and how far that reaches: the best role wins, and as a teacher he has the rooms of
    /// all groups of teachers. `None`: he is in none.
    fn limits(&self, names: &[String]) -> Option<(Right, Reach)> {
        let is_his = |group: &&DirectoryGroup| names.contains(&group.name);
        let groups = || self.groups.iter().filter(is_his);
        let role = groups().map(|group| group.role).max()?;
        if role != Role::Teacher {
            return Some((role.right(), Reach::EVERYWHERE));
        }
        let mut rooms = Rooms::from_iter([]);
        for group in groups().filter(|group| group.role == role) {
            rooms = match (rooms, &group.rooms) {
                (Rooms::These(some), Rooms::These(more)) => {
                    some.into_iter().chain(more.iter().cloned()).collect()
                }
                _ => Rooms::All,
            };
        }
        Some((role.right(), Reach { rooms, hours: None }))
    }
}

impl Service {
    /// What may be done in this session, and how far that reaches; `None`: its account is gone, or nothing lets him in any
    /// more whom the directory knew.
    pub(super) fn limits_of_session(&self, session: &Session) -> Option<(Right, Reach)> {
        match (&session.directory_groups, &session.user) {
            (None, user) => self.limits_of(user.as_ref()),
            // An account was made that has this name.
            (Some(_), Some(user)) if self.view().people.users.contains_key(user) => None,
            (Some(groups), _) => self.options().directory.as_ref()?.limits(groups),
        }
    }

    /// The directory, if it decides about this name.
    pub(super) fn directory_of(&self, name: &UserName) -> Option<&DirectoryOptions> {
        let is_ours = self.view().people.users.contains_key(name) || is_reserved(name);
        self.options().directory.as_ref().filter(|_| !is_ours)
    }

    /// In which groups of the directory somebody is; `Err` inside: why he is not let in.
    pub(super) async fn ask_directory(
        &self,
        directory: &DirectoryOptions,
        name: &UserName,
        password: &str,
    ) -> Result<Result<Vec<String>, String>, Error> {
        // Without a password directories say yes to anybody (RFC 4513, 5.1.2).
        if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
            return Ok(Err("there is no password, or a far too long one".to_owned()));
        }
        let asked = self.directory_places().bounded(directory.directory.prove(name, password));
        match asked.await? {
            Ok(DirectoryAnswer::In(indices)) => {
                let group = |index: usize| directory.groups.get(index);
                let groups = indices.into_iter().filter_map(group);
                let groups: Vec<String> = groups.map(|group| group.name.clone()).collect();
                match groups.is_empty() {
                    true => Ok(Err("in no group that is let in".to_owned())),
                    false => Ok(Ok(groups)),
                }
            }
            Ok(DirectoryAnswer::Out(why)) => Ok(Err(why)),
            Err(DirectoryTrouble(why)) => {
                tracing::warn!(account = %name, "the directory can't be asked: {why}");
                Err(Error::DirectoryAway)
            }
        }
    }
}

/// Who has shown who he is.
pub(super) enum Known {
    /// Who has an account here.
    Account(User),
    /// Whom the directory knows, with his groups.
    ByDirectory(UserName, Vec<String>),
}

impl Known {
    pub(super) const fn name(&self) -> &UserName {
        match self {
            Self::Account(user) => &user.name,
            Self::ByDirectory(name, _) => name,
        }
    }
}
