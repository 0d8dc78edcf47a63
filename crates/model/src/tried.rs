//! PCs that are tried on the server itself: in software, and of which nothing stays.

use crate::machine::Machine;
use crate::names::MachineName;
use wire::Mac;

/// The machine that `bootlace try` switches on.
pub const TRY_MACHINE: &str = "bootlace-try";

/// The machine that the doctor's firmware boots as.
pub const DOCTOR_MACHINE: &str = "bootlace-doctor";

/// The same with its disk over AoE.
pub const DOCTOR_AOE_MACHINE: &str = "bootlace-doctor-aoe";

/// How the MAC addresses of such PCs begin: locally administered ones.
const MACS: [u8; 5] = [0x02, 0x62, 0x6c, 0x74, 0x72];

/// The MAC address of a PC that is tried.
pub const fn tried_mac(number: u8) -> Mac {
    let [a, b, c, d, e] = MACS;
    Mac([a, b, c, d, e, number])
}

/// Whether it is one.
pub fn is_tried_mac(mac: Mac) -> bool {
    mac.0[..MACS.len()] == MACS
}

/// Whether machines that are tried have this name; somebody's own may have it, too.
pub fn is_tried_name(name: &MachineName) -> bool {
    [TRY_MACHINE, DOCTOR_MACHINE, DOCTOR_AOE_MACHINE].contains(&name.as_str())
}

impl Machine {
    /// Whether it is one that is tried, and not somebody's own.
    pub fn is_tried(&self) -> bool {
        is_tried_name(&self.name) && self.macs().all(is_tried_mac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_have_macs_of_their_own() {
        assert!(is_tried_mac(tried_mac(0)) && is_tried_mac(tried_mac(255)));
        assert!(!is_tried_mac("52:54:00:12:34:56".parse().unwrap()));
        assert!(tried_mac(7).is_of_a_nic());
    }
}
