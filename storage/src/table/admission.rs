//! A machine's disk is for that machine alone: by the proof of its boot over NBD, by its MAC over AoE.

use super::{Assigned, ExportError, Exports, SILENT_AFTER};
use crate::admission::{Admission, AoeDisk, Listener, Opened, Peer};
use crate::export::{Export, Generation};
use model::{
    BootIdentity, Claim, DiskId, DiskKey, DiskName, Exchange, ExportSpec, NO_ROOM_YET, Nonce,
    RootKind,
};
use nbd::server::Refusal;
use socket2::{Socket, TcpKeepalive};
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// A client that opens the disk of a boot that was there just now waits for so long; then it is refused, and
/// comes again.
const AWAIT_SILENCE_MAX: Duration = SILENT_AFTER.saturating_add(Duration::from_secs(1));

/// How soon it is seen that the former boot is silent.
const AWAIT_SILENCE_STEP: Duration = Duration::from_millis(100);

/// A kernel needs one, and gets it as its only one if it has proven itself. Others may copy or look at a disk that has no key.
const CONNECTIONS_PER_MACHINE_MAX: usize = 16;

/// A machine's kernel is asked after each second in which nothing was heard of it: a live one acknowledges that, and
/// one that has started again resets the connection.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// What everybody hears who is not the machine, whatever he asked for.
const REFUSED: &str = "the disk is not given: it is not there, or the proof that it is this machine's is missing \
                       or wrong. A disk is for the machine's last boot";

/// By what a boot has proven itself.
#[derive(Clone, Copy)]
enum ProvenBy {
    Key,
    /// By what it was told inside of TLS.
    Exchanged,
}

impl Admission for Exports {
    /// Nobody learns which exports there are.
    fn look(&self, _name: &str, _: Peer, nonce: Option<&Nonce>) -> Result<Arc<Export>, Refusal> {
        let spent = || "one proof was given on this connection already: connect again".to_owned();
        Err(Refusal::Policy(nonce.map_or_else(spent, Nonce::challenge)))
    }

    fn open(
        &self,
        name: &str,
        peer: Peer,
        nonce: Option<&Nonce>,
        stream: Arc<Socket>,
    ) -> Result<Opened, Refusal> {
        let refusal = |why: &dyn std::fmt::Display| Refusal::Policy(why.to_string());
        let Some((one, generation)) = self.admit_client(name, peer, nonce)? else {
            return Err(refusal(&REFUSED));
        };
        let probes = TcpKeepalive::new().with_time(PROBE_EVERY).with_interval(PROBE_EVERY);
        stream.set_tcp_keepalive(&probes).map_err(|error| refusal(&error))?;
        let entered = one.export.connections.enter(stream, generation, CONNECTIONS_PER_MACHINE_MAX);
        let connection = entered.map_err(|why| {
            one.export.counters.count(&one.export.counters.refused);
            refusal(&why)
        })?;
        Ok(Opened { export: one.export, connection })
    }

    fn secret(&self, name: &str, nonce: Option<&Nonce>) -> Option<String> {
        let name = DiskName::parse(name)?;
        let (disk, claim) = (name.machine.parse().ok()?, name.claim?);
        let held = self.read();
        let assigned = held.exports.get(&disk).filter(|one| one.spec.boot == claim.boot);
        let has = assigned.map(|one| (&one.spec, one.key, one.exchange.as_ref()));
        let waiting = held.candidates.get(&disk, claim.boot);
        let will_have = waiting.map(|one| (&one.spec, one.key, one.exchange.as_ref()));
        let meant = has.or(will_have);
        self.prove(&name, claim, nonce, meant)?;
        meant?.2.map(|exchange| exchange.text.clone())
    }

    fn nbd_names(&self, _: Peer) -> Vec<String> {
        Vec::new()
    }

    fn knows(&self, peer: Peer) -> bool {
        let held = self.read();
        let assigned = held.exports.values().map(|one| (&one.spec, one.path.as_ref()));
        let waiting = held.candidates.iter().map(|one| (&one.spec, one.storage_path.as_ref()));
        assigned.chain(waiting).any(|(spec, path)| {
            let there = path.and_then(|path| path.address).map(IpAddr::V4);
            may_open(spec, peer)
                || spec.root == RootKind::Nbd && there.is_some() && peer.ip() == there
        })
    }

    /// Who asks for another machine's disk by its address is counted there.
    fn for_aoe(&self, _interface: &str, header: &aoe::Header) -> Vec<AoeDisk> {
        let held = self.read();
        let mut visible = Vec::new();
        for one @ Assigned { spec, export, place, .. } in held.exports.values() {
            let address = spec.shelf_slot;
            if spec.root != RootKind::Aoe || !header.is_for(address.shelf, address.slot) {
                continue;
            }
            if place.told.contains(&header.source) {
                visible.push(one.aoe_disk());
            } else if !header.is_wildcard() {
                export.counters.count(&export.counters.refused);
            }
        }
        visible
    }

    fn all_aoe(&self, _interface: &str) -> Vec<AoeDisk> {
        let held = self.read();
        let over_aoe = held.exports.values().filter(|one| one.spec.root == RootKind::Aoe);
        over_aoe.map(Assigned::aoe_disk).collect()
    }

    fn on_new_aoe(&self, _interface: &str, listener: Listener) {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(listener);
    }
}

impl Exports {
    /// Whose disk `peer` asks for by `name`, and as which connection of it; `None` if it is not his. A proof is looked
    /// at before anything else is done.
    fn admit_client(
        &self,
        name: &str,
        peer: Peer,
        nonce: Option<&Nonce>,
    ) -> Result<Option<(Assigned, Generation)>, Refusal> {
        let Some(name) = DiskName::parse(name) else { return Ok(None) };
        let disk: Option<DiskId> = name.machine.parse().ok();
        let assigned = disk.as_ref().and_then(|disk| self.get(disk));
        let waiting = disk.as_ref().zip(name.claim).and_then(|(disk, claim)| {
            let held = self.read();
            held.candidates.get(disk, claim.boot).cloned()
        });
        // Both are looked at, whatever the first is: their boots may have the same number.
        let proves = |meant: Option<(&ExportSpec, Option<DiskKey>, Option<&Exchange>)>| {
            let claim = name.claim?;
            let meant = meant.filter(|(spec, ..)| spec.boot == claim.boot);
            self.prove(&name, claim, nonce, meant)
        };
        let has = proves(assigned.as_ref().map(|one| (&one.spec, one.key, one.exchange.as_ref())));
        let will_have =
            proves(waiting.as_ref().map(|one| (&one.spec, one.key, one.exchange.as_ref())));
        let proven = has.or(will_have);
        let (has, will_have) = (has.is_some(), will_have.is_some());
        let found = match (&assigned, name.claim, &waiting) {
            (Some(one), Some(_), _) if has => {
                Some((one.clone(), Generation::Proven(name.generation)))
            }
            (_, Some(claim), Some(order)) if will_have => {
                let one = self.admit_patiently(&order.spec.disk, claim, order.identity)?;
                Some((one, Generation::Proven(name.generation)))
            }
            // There is nothing to prove by: the address decides, as it always did.
            (Some(one), claim, _)
                if one.key.is_none()
                    && claim.is_none_or(|claim| claim.boot == one.spec.boot)
                    && may_open(&one.spec, peer) =>
            {
                Some((one.clone(), Generation::Claimed(name.generation)))
            }
            _ => None,
        };
        if let (Some((one, _)), Some(ProvenBy::Exchanged)) = (&found, proven) {
            self.settle(one).map_err(|error| Refusal::Policy(wire::error_chain(&error)))?;
        }
        if found.is_none() {
            if let Some(one) = &assigned {
                one.export.counters.count(&one.export.counters.refused);
            }
            self.not_proven.count(peer, assigned.as_ref().map(|one| &one.spec.disk.machine));
        }
        Ok(found)
    }

    /// By which key the claim's proof is right for the export that it means. That takes as long for one that is not there.
    fn prove(
        &self,
        name: &DiskName<'_>,
        claim: Claim,
        nonce: Option<&Nonce>,
        meant: Option<(&ExportSpec, Option<DiskKey>, Option<&Exchange>)>,
    ) -> Option<ProvenBy> {
        let over_nbd = meant.filter(|(spec, ..)| spec.root == RootKind::Nbd);
        let key = over_nbd.and_then(|(_, key, _)| key);
        let exchanged = over_nbd.and_then(|(_, _, exchange)| exchange).map(|exchange| exchange.key);
        let nonce = nonce?;
        let is_by = |key: Option<DiskKey>| {
            let prover = key.unwrap_or(self.nobodys_key);
            let proof = prover.prove(nonce, name.machine, claim.boot, name.generation);
            (proof == claim.proof) & key.is_some()
        };
        match (is_by(key), is_by(exchanged)) {
            (true, _) => Some(ProvenBy::Key),
            (false, true) => Some(ProvenBy::Exchanged),
            (false, false) => None,
        }
    }

    /// Gives the disk to the candidate that has proven itself, as soon as the former boot is silent.
    fn admit_patiently(
        &self,
        disk: &DiskId,
        claim: Claim,
        identity: Option<BootIdentity>,
    ) -> Result<Assigned, Refusal> {
        let deadline = Instant::now() + AWAIT_SILENCE_MAX;
        loop {
            match self.admit(disk, claim.boot, identity) {
                Err(ExportError::Runs { .. })
                    if Instant::now() < deadline && !self.is_closing() =>
                {
                    std::thread::sleep(AWAIT_SILENCE_STEP);
                }
                Err(error) => {
                    let mark = if error.is_lack_of_room() { NO_ROOM_YET } else { "" };
                    let why = format!("{mark}{}", wire::error_chain(&error));
                    tracing::warn!(%disk, boot = claim.boot, why, "a boot does not get its disk");
                    return Err(Refusal::Policy(why));
                }
                Ok(one) => return Ok(one),
            }
        }
    }
}

fn may_open(spec: &ExportSpec, peer: Peer) -> bool {
    spec.root == RootKind::Nbd && peer.ip() == Some(spec.address.into())
}
