//! What a running machine says, and whether it is believed.

use super::stages::clean;
use crate::error::Error;
use crate::live::Heartbeat;
use crate::service::Service;
use crate::store::Proof;
use initcfg::Tag;
use model::{BootId, FindingKind};
use wire::Mac;

/// Whether a word is a machine's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Belief {
    /// It is.
    Believed,
    /// It is not; that was counted.
    Refused,
    /// It is about a boot before the last of this NIC: [`Service::believes`] looks that up.
    Earlier,
}

impl Service {
    /// Whether a text can be believed that a machine sends about its last boot, with its tag if it has one: a
    /// wrong tag never, none as long as the machine has not shown that it has the token. Never waits.
    pub fn believe(&self, mac: Mac, boot: BootId, text: &[u8], tag: Option<Tag>) -> Belief {
        let view = self.view();
        let Some(last) = view.boots.get(&mac).filter(|last| last.boot.id == boot) else {
            return Belief::Earlier;
        };
        match self.is_proven(mac, boot, last.proof, text, tag) {
            true => Belief::Believed,
            false => Belief::Refused,
        }
    }

    /// Whether a text can be believed that a machine sends about any of its boots; looks earlier ones up, a few
    /// at once. What can't be looked up is not believed: machines say it again.
    pub async fn believes(&self, mac: Mac, boot: BootId, text: &[u8], tag: Option<Tag>) -> bool {
        match self.believe(mac, boot, text, tag) {
            Belief::Believed => return true,
            Belief::Refused => return false,
            Belief::Earlier => {}
        }
        let _place = self.lookups().acquire().await;
        match self.database().read(move |tables| tables.proof(mac, boot)).await {
            Ok(Some(proof)) => self.is_proven(mac, boot, proof, text, tag),
            // There is nothing that such words could change.
            Ok(None) => true,
            Err(error) => {
                tracing::warn!(%mac, boot, error = error.chain(), "words about a boot that can't be looked up");
                false
            }
        }
    }

    fn is_proven(
        &self,
        mac: Mac,
        boot: BootId,
        proof: Proof,
        text: &[u8],
        tag: Option<Tag>,
    ) -> bool {
        if !proof.accepts(text, tag) {
            self.refused().count(boot);
            let cause = "Probably somebody speaks in its name without the secret of its boot: words that are not \
                         the machine's are refused";
            self.found(FindingKind::WordsRefused, &self.subject_of(mac), cause);
            return false;
        }
        if proof.token.is_some() && tag.is_some() && !proof.is_given {
            // Nobody waits for it: if it can't be stored, the machine's next word is a proof as well.
            drop(self.database().write(move |tables| Ok(tables.note_proof(mac, boot)?)));
        }
        true
    }

    /// A machine gives a sign of life, or its last one because it shuts down; and says how full its
    /// memory for changes is, if it has one.
    pub fn heartbeat(&self, mac: Mac, boot: BootId, is_last: bool, ram_used_percent: Option<u8>) {
        if is_last {
            tracing::info!(machine = self.name_or_mac(mac), boot, "shuts down");
        }
        let at = self.now().moment;
        self.heartbeats().note(mac, Heartbeat { boot, at, is_last, ram_used_percent });
    }

    /// A machine's init says that its boot waits, and for what.
    pub fn machine_waits(&self, mac: Mac, boot: BootId, why: &str) {
        // What is left over from an earlier boot says nothing about this one.
        if self.boot_of(mac).is_some_and(|last| last.id == boot) {
            self.pc_waits(mac, &clean(why));
        }
    }

    /// A PC waits in its loader or initrd.
    pub(super) fn pc_waits(&self, mac: Mac, why: &str) {
        if self.waits().set(mac, why, self.now().moment) {
            tracing::info!(%mac, why, "waits");
        }
    }

    /// A machine obeys an order. It is in the queue when this returns.
    ///
    /// # Errors
    /// The database can't be written.
    pub fn obeyed(
        &self,
        mac: Mac,
        boot: BootId,
        counter: u32,
    ) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        let now = self.now().unix_ms;
        let noted = self
            .database()
            .write(move |tables| Ok(tables.note_obedience(mac, boot, counter, now)?));
        let service = self.clone();
        async move {
            if noted.await? {
                tracing::info!(machine = service.name_or_mac(mac), boot, "obeys and stops");
            }
            Ok(())
        }
    }
}
