//! Whose a disk is that a machine keeps.

use crate::MachineIdentity;
use alloc::vec::Vec;
use core::fmt;
use wire::Mac;

/// The machine that a persistent disk is of, beside its name, which another machine may have by now.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DiskOwner {
    /// Tells it from others with its name.
    pub identity: MachineIdentity,
    /// NICs that it boots from: by these it is known if the database with its identity was lost.
    pub macs: Vec<Mac>,
}

impl DiskOwner {
    /// Whether a disk of this machine is the disk of `other`, which boots from the NIC `mac`.
    pub fn is(&self, other: &Self, mac: Mac) -> bool {
        self.identity == other.identity || self.macs.contains(&mac)
    }
}

/// For people: `52:54:00:00:00:01, 52:54:00:00:00:02, identity 9215c0de…`.
impl fmt::Display for DiskOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for mac in &self.macs {
            write!(f, "{mac}, ")?;
        }
        write!(f, "identity {:08x}…", u128::from_be_bytes(self.identity.to_bytes()) >> 96)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;

    #[test]
    fn a_machine_is_known_by_its_identity_or_by_the_nic_that_it_boots_from() {
        let mac = |last| Mac([2, 0, 0, 0, 0, last]);
        let of = |identity, macs: &[u8]| DiskOwner {
            identity: MachineIdentity::new([identity; 16]),
            macs: macs.iter().map(|&last| mac(last)).collect(),
        };
        let noted = of(0x0a, &[1, 2]);
        assert!(noted.is(&of(0x0a, &[3]), mac(3)), "its board was replaced");
        assert!(noted.is(&of(0x0b, &[2]), mac(2)), "the database was lost, and it was added again");
        assert!(!noted.is(&of(0x0b, &[3]), mac(3)));
        assert!(!noted.is(&of(0x0b, &[2, 3]), mac(3)), "it has the other one's dock now");
        let text = "02:00:00:00:00:01, 02:00:00:00:00:02, identity 0a0a0a0a…";
        assert_eq!(noted.to_string(), text);
    }
}
