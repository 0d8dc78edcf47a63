//! The sign of life that a running machine sends until its system stops.

use crate::word::{LineError, field};
use core::fmt;
use wire::Mac;

/// A machine runs, or is about to stop: `bootlace/1 alive BOOT MAC [ram=PERCENT]` and
/// `bootlace/1 off BOOT MAC`. Not acknowledged: the next one follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Number of the boot.
    pub boot: u64,
    /// The boot NIC.
    pub mac: Mac,
    /// Whether this is the last heartbeat: the system is being shut down.
    pub is_last: bool,
    /// How full its memory for changes is, in percent; `None` if it has none.
    pub ram_used_percent: Option<u8>,
}

impl fmt::Display for Heartbeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_last { "off" } else { "alive" };
        write!(f, "bootlace/1 {kind} {} {}", self.boot, self.mac)?;
        match self.ram_used_percent {
            Some(percent) => write!(f, " ram={percent}"),
            None => Ok(()),
        }
    }
}

impl Heartbeat {
    /// How often a machine sends one, in seconds. Who has missed three is not there any more.
    pub const INTERVAL_SECONDS: u64 = 20;

    /// Reads what follows the word `alive`, or `off` if it is the last.
    pub(crate) fn from_fields(is_last: bool, fields: &str) -> Result<Self, LineError> {
        let mut fields = fields.trim_end().splitn(3, ' ');
        Ok(Self {
            boot: field(&mut fields, "boot number")?,
            mac: field(&mut fields, "MAC address")?,
            is_last,
            ram_used_percent: fields.next().map(ram_used_percent).transpose()?,
        })
    }
}

fn ram_used_percent(field: &str) -> Result<u8, LineError> {
    let percent = field.strip_prefix("ram=").and_then(|digits| digits.parse().ok());
    percent.filter(|percent| *percent <= 100).ok_or(LineError::Field("ram"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Word;
    use alloc::string::ToString;

    #[test]
    fn a_sign_of_life_arrives_as_it_was_sent() {
        let mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
        for (is_last, ram_used_percent) in [(false, None), (true, None), (false, Some(100))] {
            let heartbeat = Heartbeat { boot: 42, mac, is_last, ram_used_percent };
            let line = heartbeat.to_string();
            assert_eq!(Word::parse(line.as_bytes()), Ok(Word::Heartbeat(heartbeat)));
            let shortest = line.find(" ram=").unwrap_or(line.len());
            for end in 0..line.len() {
                let read = Word::parse(&line.as_bytes()[..end]);
                assert!(end >= shortest || read.is_err(), "{end}");
            }
            assert!(Word::parse(alloc::format!("{line} x").as_bytes()).is_err());
        }
        let too_full = "bootlace/1 alive 42 52:54:00:00:00:01 ram=101";
        assert_eq!(Word::parse(too_full.as_bytes()), Err(LineError::Field("ram")));
    }
}
