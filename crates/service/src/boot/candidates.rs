//! Which boot a machine is in. Anybody can send a DHCP message in a machine's name, and a boot begins with one: it is a
//! *candidate* as long as the machine may still run in an earlier boot that it has proven.

use super::words::new_question;
use crate::clock::Now;
use crate::live::{Life, Presence};
use crate::service::Service;
use crate::store::{LastBoot, View};
use model::BootId;
use wire::Mac;

/// The boots of a NIC that matter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Boots<'a> {
    /// The machine's.
    pub(crate) current: &'a LastBoot,
    /// A later one that has not shown that it is the machine's.
    pub(crate) candidate: Option<&'a LastBoot>,
}

impl Service {
    /// The boots of a NIC; `None` if there is none.
    pub(crate) fn boots<'a>(&self, view: &'a View, mac: Mac, now: Now) -> Option<Boots<'a>> {
        let last = view.boots.get(&mac)?;
        let earlier = view.proven.get(&mac).filter(|earlier| !self.is_over(earlier.boot.id, now));
        Some(match earlier {
            Some(earlier) => Boots { current: earlier, candidate: Some(last) },
            None => Boots { current: last, candidate: None },
        })
    }

    /// Whether the machine is known not to run in this boot any more.
    fn is_over(&self, boot: BootId, now: Now) -> bool {
        matches!(self.heartbeats().life(boot, now), Life::SaidOff(_) | Life::Silent(_))
            || self.keepers().presence(boot, now.moment) == Presence::Gone
    }

    /// A later boot has begun: does the machine still run in the one that it has proven?
    pub(super) fn ask_earlier_boot(&self, mac: Mac) {
        let view = self.view();
        if let (Some(earlier), Some(id)) = (view.proven.get(&mac), new_question()) {
            self.keepers().ask(earlier.boot.id, self.now().moment, id);
        }
    }
}
