//! Boots that wait for their machine's disk. Anybody can begin one in a machine's name, also while the machine itself is
//! about to start: each waits beside the others, and whoever proves himself first gets the disk.

use model::{BootId, DiskId, ExportOrder, MachineName};
use std::collections::BTreeMap;

/// Boots of one machine that wait. In the time that a machine needs from its loader to its disk the boot server lets no
/// more begin, 8 from each of its [`MACS_MAX`](model::Machine::MACS_MAX) NICs.
const PER_MACHINE_MAX: usize = 64;

/// Boots that get their machine's disk when they have proven themselves and the former boot is silent.
#[derive(Default)]
pub(super) struct Candidates {
    /// The one that was asked for last is the last.
    by_machine: BTreeMap<DiskId, Vec<ExportOrder>>,
}

impl Candidates {
    /// This boot waits, in place of what was asked for it before. If too many wait, the one that nobody has asked for
    /// the longest time does not any more. Returns whether anything changed.
    pub(super) fn put(&mut self, order: ExportOrder) -> bool {
        let waiting = self.by_machine.entry(order.spec.disk.clone()).or_default();
        if waiting.last() == Some(&order) {
            return false;
        }
        waiting.retain(|other| other.spec.boot != order.spec.boot);
        waiting.push(order);
        waiting.drain(..waiting.len().saturating_sub(PER_MACHINE_MAX));
        true
    }

    /// What was asked for this boot of the machine.
    pub(super) fn get(&self, disk: &DiskId, boot: BootId) -> Option<&ExportOrder> {
        self.by_machine.get(disk)?.iter().find(|order| order.spec.boot == boot)
    }

    /// The machine's boot that was asked for last.
    pub(super) fn last(&self, disk: &DiskId) -> Option<BootId> {
        self.by_machine.get(disk)?.last().map(|order| order.spec.boot)
    }

    /// All of them; those of one machine in the order in which they were asked for.
    pub(super) fn iter(&self) -> impl Iterator<Item = &ExportOrder> {
        self.by_machine.values().flatten()
    }

    /// This boot of the machine has the disk: it does not wait any more, and earlier ones never get it.
    pub(super) fn on_admitted(&mut self, disk: &DiskId, boot: BootId) {
        if let Some(waiting) = self.by_machine.get_mut(disk) {
            waiting.retain(|order| order.spec.boot > boot);
        }
    }

    /// The machine's root is this boot's: what earlier ones asked for beside it they never get.
    pub(super) fn on_root_admitted(&mut self, machine: &MachineName, boot: BootId) {
        for (disk, waiting) in &mut self.by_machine {
            if disk.machine == *machine && !disk.is_root() {
                waiting.retain(|order| order.spec.boot >= boot);
            }
        }
    }

    /// None of the machine waits any more. Returns whether one did.
    pub(super) fn remove(&mut self, disk: &DiskId) -> bool {
        self.by_machine.remove(disk).is_some_and(|waiting| !waiting.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::keys::tests::spec;
    use model::DiskKey;

    fn order(boot: BootId, key: u8) -> ExportOrder {
        ExportOrder { key: Some(DiskKey::new([key; 32])), ..ExportOrder::new(spec(boot)) }
    }

    #[test]
    fn a_boot_that_is_asked_for_again_is_not_pushed_out() {
        let disk: DiskId = "lab-07".parse().unwrap();
        let mut candidates = Candidates::default();
        assert!(candidates.put(order(1, 1)));
        assert!(candidates.put(order(2, 2)));
        assert!(candidates.put(order(1, 3)), "it has another key");
        assert!(!candidates.put(order(1, 3)));
        for boot in 3..66 {
            candidates.put(order(boot, 0));
        }
        assert_eq!(candidates.get(&disk, 1), Some(&order(1, 3)));
        assert_eq!(candidates.get(&disk, 2), None, "one too many");
        candidates.put(order(66, 0));
        assert_eq!(candidates.get(&disk, 1), None);
        assert_eq!((candidates.iter().count(), candidates.last(&disk)), (64, Some(66)));
        candidates.on_admitted(&disk, 65);
        let left: Vec<BootId> = candidates.iter().map(|order| order.spec.boot).collect();
        assert_eq!(left, [66]);
        assert!(candidates.remove(&disk) && !candidates.remove(&disk));
    }
}
