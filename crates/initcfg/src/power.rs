//! How the boot server asks a running machine to stop, and the machine says that it does. Both lines are
//! only good with the [`Token`](crate::Token)'s tag below them.

use crate::word::{LineError, field, split};
use alloc::string::String;
use core::fmt;
use core::str::FromStr;
use wire::Mac;

/// What a machine shall do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerVerb {
    /// Stop its system and restart the machine.
    Reboot,
    /// Stop its system and switch the machine off.
    Poweroff,
}

impl PowerVerb {
    /// The word in orders, on the command line and in the API.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Reboot => "reboot",
            Self::Poweroff => "poweroff",
        }
    }
}

impl fmt::Display for PowerVerb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// The word is neither `reboot` nor `poweroff`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("only reboot and poweroff can be asked for")]
pub struct UnknownVerb;

impl FromStr for PowerVerb {
    type Err = UnknownVerb;

    fn from_str(text: &str) -> Result<Self, UnknownVerb> {
        let all = [Self::Reboot, Self::Poweroff];
        all.into_iter().find(|verb| verb.word() == text).ok_or(UnknownVerb)
    }
}

/// `bootlace/1 power BOOT COUNTER VERB`, from the boot server to where the signs of life come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PowerOrder {
    /// Number of the boot.
    pub boot: u64,
    /// Counts up from 1 within a boot: an order that was heard before is not obeyed again.
    pub counter: u32,
    /// What to do.
    pub verb: PowerVerb,
}

/// The machine obeys an order: `bootlace/1 obeys BOOT MAC COUNTER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Obedience {
    /// Number of the boot.
    pub boot: u64,
    /// The boot NIC.
    pub mac: Mac,
    /// Counter of the order.
    pub counter: u32,
}

impl fmt::Display for PowerOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bootlace/1 power {} {} {}", self.boot, self.counter, self.verb)
    }
}

impl PowerOrder {
    /// Reads a line.
    ///
    /// # Errors
    /// The line is no order, or one of its fields is missing or wrong.
    pub fn parse(line: &[u8]) -> Result<Self, LineError> {
        let ("power", fields) = split(line)? else { return Err(LineError::NotOurs) };
        let mut fields = fields.splitn(3, ' ');
        Ok(Self {
            boot: field(&mut fields, "boot number")?,
            counter: field(&mut fields, "counter")?,
            verb: field(&mut fields, "verb")?,
        })
    }
}

impl fmt::Display for Obedience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bootlace/1 obeys {} {} {}", self.boot, self.mac, self.counter)
    }
}

impl Obedience {
    /// Reads what follows the word `obeys`.
    pub(crate) fn from_fields(fields: &str) -> Result<Self, LineError> {
        let mut fields = fields.splitn(3, ' ');
        Ok(Self {
            boot: field(&mut fields, "boot number")?,
            mac: field(&mut fields, "MAC address")?,
            counter: field(&mut fields, "counter")?,
        })
    }
}

/// Letters and digits that nobody mixes up when he reads them aloud.
const CODE_ALPHABET: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";

/// Four letters and digits for a boot that failed: the machine shows them on its screen and the boot server
/// on its page, so that two people on the telephone know that they speak of the same.
pub fn failure_code(boot: u64, mac: Mac) -> String {
    // FNV-1a: not a secret, only different from boot to boot.
    let bytes = boot.to_be_bytes().into_iter().chain(mac.0);
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    let letter = |index: u32| {
        let five_bits = (hash >> (40 + 5 * index)) & 31;
        char::from(CODE_ALPHABET[five_bits as usize])
    };
    (0..4).map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Word;

    const MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);

    #[test]
    fn orders_and_answers_arrive_as_they_were_sent() {
        for verb in [PowerVerb::Reboot, PowerVerb::Poweroff] {
            let order = PowerOrder { boot: 42, counter: 3, verb };
            let text = alloc::format!("{order}");
            assert_eq!(PowerOrder::parse(text.as_bytes()), Ok(order));
            for end in 0..text.len() {
                assert!(PowerOrder::parse(&text.as_bytes()[..end]).is_err(), "{end}");
            }
        }
        let answer = Obedience { boot: 42, mac: MAC, counter: 3 };
        let text = alloc::format!("{answer}");
        assert_eq!(text, "bootlace/1 obeys 42 52:54:00:00:00:01 3");
        assert_eq!(Word::parse(text.as_bytes()), Ok(Word::Obedience(answer)));
        for end in 0..text.len() {
            assert!(Word::parse(&text.as_bytes()[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn boots_of_a_machine_and_machines_in_a_room_have_different_codes() {
        let other = Mac([0x52, 0x54, 0, 0, 0, 2]);
        let mut codes: alloc::vec::Vec<_> =
            (1..=200).flat_map(|boot| [MAC, other].map(|mac| failure_code(boot, mac))).collect();
        assert!(codes.iter().all(|code| code.len() == 4));
        codes.sort();
        codes.dedup();
        assert!(codes.len() > 395, "{}", codes.len());
    }
}
