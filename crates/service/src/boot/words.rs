//! What a running machine says, and whether it is believed.

use super::stages::clean;
use crate::clock::Now;
use crate::error::Error;
use crate::live;
use crate::service::Service;
use crate::store::{LastBoot, Proof, View};
use initcfg::{Answer, Heartbeat, Question, QuestionId, Tag, Word};
use model::{Boot, BootId, FindingKind, RootKind, Stage};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use wire::Mac;

/// A machine that has its loader says in this time that it goes on, or was switched off.
const LOADING_MAX_MS: u64 = 300_000;

/// Whether a word is a machine's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Belief {
    /// It is: who said it knows the secret of the boot.
    Proven,
    /// It may be: nobody has shown yet that he knows the secret of the boot.
    Unproven,
    /// It is not; that was counted.
    Refused,
    /// It is about a boot before the last of this NIC: [`Service::believes`] looks that up.
    Earlier,
}

/// What follows from a sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The machine runs.
    pub is_alive: bool,
    /// To be sent to where it came from: the machine shall show that it said this just now.
    pub question: Option<String>,
}

impl Service {
    /// Whether a text can be believed that a machine sends about its last boot, with its tag if it has one: a
    /// wrong tag never, none as long as the machine has not shown that it has the token. Never waits.
    pub fn believe(&self, mac: Mac, boot: BootId, text: &[u8], tag: Option<Tag>) -> Belief {
        let view = self.view();
        let Some(known) = view.boot(mac, boot) else { return Belief::Earlier };
        let belief = self.judge(mac, boot, known.proof, text, tag);
        if belief == Belief::Proven {
            self.take_rescue(&view, known);
        }
        belief
    }

    /// A boot has proven itself: if it stops in the shell that is wanted, later ones go through. Not if the machine
    /// still runs in an earlier one: then this is somebody else.
    fn take_rescue(&self, view: &View, known: &LastBoot) {
        let Boot { id, mac, machine, .. } = &*known.boot;
        let (Some(machine), Some(password)) = (machine, &known.rescue) else { return };
        let boots = self.boots(view, *mac, self.now());
        let is_another =
            boots.is_some_and(|boots| boots.candidate.is_some() && boots.current.boot.id != *id);
        if view.rescues.get(machine.as_str()) == Some(password) && !is_another {
            let (machine, id) = (machine.clone(), *id);
            // Nobody waits for it: if it can't be stored, the next word does it.
            drop(self.database().write(move |tables| Ok(tables.note_rescue(&machine, id)?)));
        }
    }

    /// Whether a text can be believed that a machine sends about any of its boots; looks earlier ones up, a few
    /// at once, and of these only what is proven is believed. What can't be looked up is not: machines say it again.
    pub async fn believes(&self, mac: Mac, boot: BootId, text: &[u8], tag: Option<Tag>) -> bool {
        match self.believe(mac, boot, text, tag) {
            Belief::Proven | Belief::Unproven => return true,
            Belief::Refused => return false,
            Belief::Earlier => {}
        }
        // Whoever invents words makes no work.
        if tag.is_none() {
            return false;
        }
        let _place = self.lookups().acquire().await;
        match self.database().read(move |tables| tables.proof(mac, boot)).await {
            Ok(Some(proof)) => self.judge(mac, boot, proof, text, tag) == Belief::Proven,
            Ok(None) => false,
            Err(error) => {
                tracing::warn!(%mac, boot, error = error.chain(), "words about a boot that can't be looked up");
                false
            }
        }
    }

    fn judge(&self, mac: Mac, boot: BootId, proof: Proof, text: &[u8], tag: Option<Tag>) -> Belief {
        if !proof.accepts(text, tag) {
            self.refused().count(boot);
            let cause = "Probably somebody speaks in its name without the secret of its boot: words that are not \
                         the machine's are refused";
            self.found(FindingKind::WordsRefused, &self.subject_of(mac), cause);
            return Belief::Refused;
        }
        let (Some(token), Some(tag)) = (proof.token, tag) else { return Belief::Unproven };
        if let Some(mixed) = proof.mixed().filter(|mixed| mixed.tag(text) == tag) {
            drop(self.database().write(move |tables| Ok(tables.note_mixed(mac, boot, mixed)?)));
        } else if !proof.is_given {
            // Nobody waits for either: if it can't be stored, the machine's next word is a proof as well.
            drop(self.database().write(move |tables| Ok(tables.note_proof(mac, boot, token)?)));
        }
        Belief::Proven
    }

    /// Whether a word that is not proven is noted at all: it must come from the machine's address, and a machine
    /// whose disk is at the storage server has shown who it is before it has that.
    pub fn is_heard_unproven(&self, word: &Word, address: Ipv4Addr) -> bool {
        let view = self.view();
        if view.owner(address) != Some(word.mac()) {
            return false;
        }
        let known = view.boot(word.mac(), word.boot());
        let Some(LastBoot { boot, proof, .. }) = known else { return false };
        if proof.token.is_none() || boot.root.is_some_and(RootKind::is_foreign) {
            return !matches!(word, Word::Answer(_));
        }
        match word {
            Word::Report(report) => {
                report.stage.is_none_or(|stage| stage < Stage::Attach || stage == Stage::Failed)
            }
            Word::Heartbeat(_) | Word::Obedience(_) | Word::Answer(_) => false,
        }
    }

    /// A machine gives a sign of life, or its last one because it shuts down; and says how full its memory for changes
    /// is, if it has one. If it is proven, `peer` is where it came from.
    pub fn heartbeat(&self, heartbeat: Heartbeat, peer: Option<SocketAddr>) -> Heard {
        let Heartbeat { boot, mac, is_last, ram_used_percent } = heartbeat;
        if is_last {
            tracing::info!(machine = self.name_or_mac(mac), boot, "shuts down");
        }
        let now = self.now().moment;
        let mut heard = Heard { is_alive: true, question: None };
        if let (Some(peer), Some(id), false) = (peer, new_question(), is_last) {
            let answers = self.view().boot(mac, boot).is_some_and(|known| known.answers);
            let who = (mac, boot, answers);
            let (counts, id) = self.keepers().on_heartbeat(who, peer, ram_used_percent, now, id);
            heard = Heard { is_alive: counts, question: self.question(mac, boot, id) };
        }
        if heard.is_alive {
            self.heartbeats().note(boot, live::Heartbeat { at: now, is_last, ram_used_percent });
        }
        heard
    }

    /// A machine answers a question; whether it is what it was asked last. The word must be proven.
    pub fn answered(&self, answer: Answer, peer: SocketAddr) -> bool {
        let Answer { boot, mac, id } = answer;
        let now = self.now().moment;
        let Some(ram_used_percent) = self.keepers().on_answer(boot, peer, id, now) else {
            return false;
        };
        let heard = live::Heartbeat { at: now, is_last: false, ram_used_percent };
        self.heartbeats().note(boot, heard);
        if self.view().boot(mac, boot).is_some_and(|known| !known.answers) {
            let noted = self.database().write(move |tables| Ok(tables.note_answers(mac, boot)?));
            tokio::spawn(async move {
                if let Err(error) = noted.await {
                    tracing::warn!(%mac, boot, error = error.chain(), "that it answers is not noted");
                }
            });
        }
        true
    }

    /// What keepers must be told or asked now, and where: orders that they have not obeyed yet, and questions. To be
    /// called each second.
    pub fn messages_to_keepers(&self) -> Vec<(SocketAddr, String)> {
        // Who has not been heard since this server started is told after his next sign of life.
        let orders = self.open_orders().into_iter();
        let orders = orders.filter_map(|(boot, order)| Some((self.keepers().peer(boot)?, order)));
        let questions = self.keepers().due(self.now().moment).into_iter();
        let questions =
            questions.filter_map(|due| Some((due.peer, self.question(due.mac, due.boot, due.id)?)));
        orders.chain(questions).collect()
    }

    fn question(&self, mac: Mac, boot: BootId, id: QuestionId) -> Option<String> {
        let view = self.view();
        let token = view.boot(mac, boot)?.proof.token?;
        Some(token.seal(&Question { boot, id }.to_string()))
    }

    /// NICs of machines that use their address as far as is known: they have shown who they are and may still run, or
    /// their disk is in use, or they have their loader since a few minutes. With the address that they use, where that is
    /// known: it is no longer their lease's once somebody has given that up in their name.
    pub fn machines_in_use(&self) -> BTreeMap<Mac, Option<Ipv4Addr>> {
        let (view, now) = (self.view(), self.now());
        let exports = self.exports().last();
        let in_use = exports.list.iter().filter(|export| export.connections > 0);
        let in_use = in_use.map(|export| (export.spec.mac, Some(export.spec.address)));
        let boots = view.site.machines.iter().flat_map(|machine| {
            [view.boots.get(&machine.mac), view.proven.get(&machine.mac)].into_iter().flatten()
        });
        let alive = boots.filter(|boot| {
            let life = self.heartbeats().life(boot.boot.id, now);
            let runs = matches!(life, live::Life::Alive | live::Life::Unknown);
            (boot.proof.is_given && runs) || is_loading(&boot.boot, now)
        });
        let alive = alive.map(|boot| {
            let peer = self.keepers().peer(boot.boot.id).map(|peer| peer.ip());
            let address = match peer {
                Some(IpAddr::V4(address)) => Some(address),
                _ => None,
            };
            (boot.boot.mac, address)
        });
        // What the storage server gives a disk to counts more.
        alive.chain(in_use).collect()
    }

    /// Somebody gave up a machine's address in its name while it runs, or asked in its name in another network, `elsewhere`.
    pub fn refused_release(&self, mac: Mac, elsewhere: bool) {
        let view = self.view();
        let Some(boots) = self.boots(&view, mac, self.now()) else { return };
        self.refused().count(boots.current.boot.id);
        let cause = match elsewhere {
            true => {
                "It asks for an address in another network than the one that it is known to run in: it was moved, and gets one within \
                 minutes, or somebody speaks in its name"
            }
            false => "Probably somebody speaks in its name: its address was given up while it runs",
        };
        self.found(FindingKind::WordsRefused, &self.subject_of(mac), cause);
    }

    /// A machine's init says that its boot waits, and for what.
    pub fn machine_waits(&self, mac: Mac, boot: BootId, why: &str) {
        // What is left over from an earlier boot says nothing about this one, and a candidate nothing about the machine.
        let view = self.view();
        let current = self.boots(&view, mac, self.now()).map(|boots| boots.current.boot.id);
        if current == Some(boot) {
            let why = clean(why);
            if self.waits().set(mac, &why, live::WaitsIn::Initrd, self.now().moment) {
                tracing::info!(%mac, why, "waits");
            }
        }
    }

    /// The PC with this NIC goes on with the file that it fetches: it has so much of it, or that is on its way.
    pub fn goes_on(&self, mac: Mac, n_bytes: u64, size_bytes: u64) {
        self.downloads().note(mac, n_bytes, size_bytes, self.now().moment);
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

/// Whether a machine is between its loader and its system, as far as it was heard. It uses its address then, and has no
/// means yet to show who it is.
fn is_loading(boot: &Boot, now: Now) -> bool {
    // That it failed may be said by anybody.
    let mut stages = boot.stages.iter().filter(|event| event.stage != Stage::Failed);
    stages.next_back().is_some_and(|last| {
        let is_loading = (Stage::Loader..Stage::Handover).contains(&last.stage);
        is_loading && now.unix_ms.abs_diff(last.at_unix_ms) < LOADING_MAX_MS
    })
}

/// Without randomness nobody is asked.
pub(super) fn new_question() -> Option<QuestionId> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).ok().map(|()| QuestionId::new(random))
}
