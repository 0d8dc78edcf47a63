//! A machine's disk is for that machine alone: by its address over NBD, by its MAC over AoE.

use super::{Assigned, Exports};
use crate::admission::{Admission, AoeDisk, Listener, Peer, shown};
use crate::export::Export;
use model::{ExportSpec, RootKind};
use std::sync::{Arc, PoisonError};

impl Admission for Exports {
    fn for_nbd(&self, name: &str, peer: Peer) -> Result<(Arc<Export>, u32), String> {
        let (machine, generation) = name.split_once("?g=").unwrap_or((name, "0"));
        let found = machine.parse().ok().and_then(|machine| self.get(&machine));
        if let (Some(one), Ok(generation)) = (found, generation.parse()) {
            if may_open(&one.spec, peer) {
                return Ok((one.export, generation));
            }
            one.export.counters.count(&one.export.counters.refused);
        }
        let name = shown(name);
        Err(format!(
            "there is no export {name} for {peer}: it has not booted, or the export is another \
             machine's"
        ))
    }

    fn nbd_names(&self, peer: Peer) -> Vec<String> {
        let all = self.all();
        let mine = all.iter().filter(|one| may_open(&one.spec, peer));
        mine.map(|one| one.spec.machine.to_string()).collect()
    }

    /// Who asks for another machine's disk by its address is counted there.
    fn for_aoe(&self, _interface: &str, header: &aoe::Header) -> Vec<AoeDisk> {
        let exports = self.exports.read().unwrap_or_else(PoisonError::into_inner);
        let mut visible = Vec::new();
        for one @ Assigned { spec, export, .. } in exports.values() {
            let address = spec.shelf_slot;
            if spec.root != RootKind::Aoe || !header.is_for(address.shelf, address.slot) {
                continue;
            }
            if spec.mac == header.source {
                visible.push(one.aoe_disk());
            } else if !header.is_wildcard() {
                export.counters.count(&export.counters.refused);
            }
        }
        visible
    }

    fn all_aoe(&self, _interface: &str) -> Vec<AoeDisk> {
        let all = self.all();
        let over_aoe = all.iter().filter(|one| one.spec.root == RootKind::Aoe);
        over_aoe.map(Assigned::aoe_disk).collect()
    }

    fn on_new_aoe(&self, _interface: &str, listener: Listener) {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(listener);
    }
}

fn may_open(spec: &ExportSpec, peer: Peer) -> bool {
    spec.root == RootKind::Nbd && peer.ip() == Some(spec.address.into())
}
