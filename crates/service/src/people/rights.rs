//! What somebody may ask for, as types: each is made only of an actor with that right.

use super::actor::{Actor, Via};
use crate::error::Error;
use crate::service::Service;
use model::{Machine, MachineName, Reach, Right, UserName};
use std::ops::Deref;
use std::sync::Arc;

/// Somebody who may look.
#[derive(Clone)]
pub struct Viewer {
    service: Service,
    actor: Arc<Actor>,
}

/// Somebody who may work with machines, and look.
#[derive(Clone)]
pub struct Operator(Viewer);

/// Somebody who may change everything, work with machines, and look.
#[derive(Clone)]
pub struct Admin(Operator);

/// Somebody who may let others in: an administrator who is logged in, or a command on the server. A token is not enough: who
/// has found one must not make himself others that outlive it.
#[derive(Clone)]
pub struct AccountKeeper(Admin);

/// Somebody who is logged in by an account of his own, and may change that.
#[derive(Clone)]
pub struct AccountOwner {
    viewer: Viewer,
    user: UserName,
    session: u64,
}

impl Service {
    /// The actor, if he may look.
    ///
    /// # Errors
    /// He may not.
    pub fn viewer(&self, actor: &Actor) -> Result<Viewer, Error> {
        self.with_right(actor, Right::Read)
    }

    /// The actor, if he may work with machines now. With which ones [`Operator::work_with`] decides.
    ///
    /// # Errors
    /// He may not, or not at this time.
    pub fn operator(&self, actor: &Actor) -> Result<Operator, Error> {
        let viewer = self.with_right(actor, Right::Operate)?;
        let Some(hours) = &actor.reach.hours else { return Ok(Operator(viewer)) };
        let now = self.on_the_wall();
        match now.is_some_and(|now| hours.have(now)) {
            true => Ok(Operator(viewer)),
            false => Err(Error::NotNow { who: actor.by_what(), hours: hours.clone(), now }),
        }
    }

    /// The actor, if he may change everything.
    ///
    /// # Errors
    /// He may not.
    pub fn admin(&self, actor: &Actor) -> Result<Admin, Error> {
        self.with_right(actor, Right::Admin).map(|viewer| Admin(Operator(viewer)))
    }

    /// The actor, if he may let others in.
    ///
    /// # Errors
    /// He may not, or not by what he shows.
    pub fn account_keeper(&self, actor: &Actor) -> Result<AccountKeeper, Error> {
        let admin = self.admin(actor).map_err(|error| match error {
            Error::NotAllowed { .. } => Error::NotKeeper,
            other => other,
        })?;
        match actor.via {
            Via::Token(_) => Err(Error::NotByToken),
            Via::Command(_) | Via::Session(_) | Via::Directory(_) | Via::Watching => {
                Ok(AccountKeeper(admin))
            }
        }
    }

    /// The actor, if he is logged in by an account of his own. A token is not enough: who has found one must not keep its
    /// owner out.
    ///
    /// # Errors
    /// He is not.
    pub fn account_owner(&self, actor: &Actor) -> Result<AccountOwner, Error> {
        let (Some(user), Via::Session(session)) = (&actor.user, actor.via) else {
            return Err(Error::NoAccount);
        };
        let viewer = self.with_right(actor, Right::Read)?;
        Ok(AccountOwner { viewer, user: user.clone(), session })
    }

    fn with_right(&self, actor: &Actor, needed: Right) -> Result<Viewer, Error> {
        if actor.right < needed {
            return Err(Error::NotAllowed { needed });
        }
        Ok(Viewer { service: self.clone(), actor: Arc::new(actor.clone()) })
    }
}

impl Viewer {
    /// Who it is.
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// Whether he may work with this machine now.
    ///
    /// # Errors
    /// He may not.
    pub fn check_work_with(&self, machine: &Machine) -> Result<(), Error> {
        self.service.operator(&self.actor)?.check(machine)
    }

    pub(crate) const fn service(&self) -> &Service {
        &self.service
    }

    /// For changes, which note who made them.
    pub(crate) fn shared_actor(&self) -> Arc<Actor> {
        Arc::clone(&self.actor)
    }
}

impl Operator {
    /// The machine of this name, for whatever is done to it.
    ///
    /// # Errors
    /// There is none, or he may not work with it.
    pub fn work_with(&self, name: &MachineName) -> Result<Machine, Error> {
        let site = self.service.site();
        let machine = site.machine(name).ok_or_else(|| Error::NoMachine(name.clone()))?;
        self.check(machine)?;
        Ok(machine.clone())
    }

    fn check(&self, machine: &Machine) -> Result<(), Error> {
        let Reach { rooms, hours: _ } = &self.actor.reach;
        if rooms.have(machine.room.as_ref()) {
            return Ok(());
        }
        Err(Error::NotThisMachine {
            who: self.actor.by_what(),
            machine: machine.name.clone(),
            room: machine.room.clone(),
            rooms: rooms.clone(),
        })
    }
}

impl AccountOwner {
    /// The account.
    pub const fn user(&self) -> &UserName {
        &self.user
    }

    /// Number of the session in which he asks.
    pub const fn session(&self) -> u64 {
        self.session
    }
}

impl Deref for AccountKeeper {
    type Target = Admin;

    fn deref(&self) -> &Admin {
        &self.0
    }
}

impl Deref for Operator {
    type Target = Viewer;

    fn deref(&self) -> &Viewer {
        &self.0
    }
}

impl Deref for Admin {
    type Target = Operator;

    fn deref(&self) -> &Operator {
        &self.0
    }
}

impl Deref for AccountOwner {
    type Target = Viewer;

    fn deref(&self) -> &Viewer {
        &self.viewer
    }
}
