//! Which disk of a name is to be thrown away: by the time that it is, another machine may have the name.

use crate::DiskOwner;
use alloc::string::String;

/// The disk that an order means: body of `POST /v1/disks/{machine}/delete`, and in an
/// [`ExportOrder`](crate::ExportOrder) with a reset. Another one that has the name by now is left alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskMeant {
    /// Its random identity, if that was known when the order was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The machine whose disk it is. A disk of which that was never noted may be any machine's of the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<DiskOwner>,
    /// What can't be told is left alone, as the order came with a backup.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub must_be_known: bool,
}

/// What is known of a disk that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskFound<'a> {
    /// Its random identity; `None`: it can't be read, or is not told.
    pub id: Option<&'a str>,
    /// The machine that has had it last; `None`: that was never noted.
    pub owner: Option<&'a DiskOwner>,
}

impl DiskMeant {
    /// Whether the order means this disk.
    ///
    /// The machine is told by its identity. A NIC is no proof, as the next machine of the name may be the same PC, unless
    /// the disk's own identity says the same.
    pub fn is(&self, found: DiskFound<'_>) -> bool {
        let is_same = self.id.as_deref().zip(found.id).map(|(meant, found)| meant == found);
        let is_his = self.owner.as_ref().zip(found.owner).map(|(meant, found)| {
            let has_nic = meant.macs.iter().any(|mac| found.macs.contains(mac));
            meant.identity == found.identity || is_same == Some(true) && has_nic
        });
        match (is_same, is_his) {
            (Some(false), _) | (_, Some(false)) => false,
            (None, None) => !self.must_be_known,
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MachineIdentity;
    use wire::Mac;

    #[test]
    fn an_order_means_the_disk_of_its_machine_and_no_other() {
        let of = |identity, mac| DiskOwner {
            identity: MachineIdentity::new([identity; 16]),
            macs: [Mac([2, 0, 0, 0, 0, mac])].into(),
        };
        let check =
            |id: Option<&str>, owner: Option<(u8, u8)>, found: (Option<&str>, Option<(u8, u8)>)| {
                let owner = owner.map(|(identity, mac)| of(identity, mac));
                let noted = found.1.map(|(identity, mac)| of(identity, mac));
                let meant = DiskMeant { id: id.map(Into::into), owner, must_be_known: false };
                let found = DiskFound { id: found.0, owner: noted.as_ref() };
                let restored = DiskMeant { must_be_known: true, ..meant.clone() };
                (meant.is(found), restored.is(found))
            };
        let (yes, no, unless_restored) = ((true, true), (false, false), (true, false));
        let a = Some((0x0a, 1));
        assert_eq!(check(Some("x"), a, (Some("x"), a)), yes);
        assert_eq!(check(Some("x"), a, (Some("y"), a)), no, "it was reset since");
        assert_eq!(check(None, a, (Some("y"), a)), yes, "the machine is gone for good");
        assert_eq!(
            check(None, a, (Some("y"), Some((0x0b, 1)))),
            no,
            "it is the same PC, added again"
        );
        assert_eq!(check(Some("x"), a, (Some("x"), Some((0x0b, 1)))), yes, "its database was lost");
        assert_eq!(
            check(Some("x"), a, (Some("x"), Some((0x0b, 2)))),
            no,
            "it never was this machine's"
        );
        assert_eq!(check(Some("x"), a, (None, a)), yes, "its description is damaged");
        assert_eq!(check(Some("x"), a, (Some("x"), None)), yes, "an earlier release made it");
        assert_eq!(check(None, a, (Some("y"), None)), unless_restored);
        assert_eq!(check(Some("x"), None, (None, a)), unless_restored);
    }
}
