//! What somebody may ask for, as types: each is made only of an actor with that right.

use super::actor::{Actor, Via};
use crate::error::Error;
use crate::service::Service;
use model::{Right, UserName};
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

    /// The actor, if he may work with machines.
    ///
    /// # Errors
    /// He may not.
    pub fn operator(&self, actor: &Actor) -> Result<Operator, Error> {
        self.with_right(actor, Right::Operate).map(Operator)
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
        let admin = self.admin(actor)?;
        match actor.via {
            Via::Token(_) => Err(Error::NotByToken),
            Via::Command(_) | Via::Session(_) | Via::Watching => Ok(AccountKeeper(admin)),
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

    pub(crate) const fn service(&self) -> &Service {
        &self.service
    }

    /// For changes, which note who made them.
    pub(crate) fn shared_actor(&self) -> Arc<Actor> {
        Arc::clone(&self.actor)
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
