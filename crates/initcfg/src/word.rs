//! Everything that a machine says to the boot server, and how any line of the protocol begins.

use crate::{Answer, Heartbeat, Obedience, REPORT_MAX, Report};
use core::fmt;
use core::str::FromStr;
use wire::Mac;

/// A line from a machine to the boot server's [`REPORT_PORT`](crate::REPORT_PORT), one a datagram:
/// `bootlace/1 KIND BOOT MAC` and what the kind adds.
///
/// Whoever sends it can name any boot and MAC. It is the machine's own word only if the tag below the line
/// ([`unseal`](crate::unseal)) was made with the [`Token`](crate::Token) of that boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// A stage of the boot is reached (`report`). It is repeated until an [`Ack`](crate::Ack) comes.
    Report(Report),
    /// The machine runs (`alive`), or is about to stop (`off`).
    Heartbeat(Heartbeat),
    /// The machine obeys an order to stop (`obeys`).
    Obedience(Obedience),
    /// The machine runs, and has heard the boot server's question just now (`answers`).
    Answer(Answer),
}

/// The datagram is no line of the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Longer than [`REPORT_MAX`], not UTF-8, of another protocol, or of a kind that is not expected here.
    #[error("not a bootlace/1 line")]
    NotOurs,
    /// A field is missing or can't be understood.
    #[error("bad {0}")]
    Field(&'static str),
}

impl Word {
    /// Reads a line, without its tag.
    ///
    /// # Errors
    /// The line is no word of a machine, or one of its fields is missing or wrong.
    pub fn parse(line: &[u8]) -> Result<Self, LineError> {
        let (kind, fields) = split(line)?;
        match kind {
            "report" => Report::from_fields(fields).map(Self::Report),
            "alive" => Heartbeat::from_fields(false, fields).map(Self::Heartbeat),
            "off" => Heartbeat::from_fields(true, fields).map(Self::Heartbeat),
            "answers" => Answer::from_fields(fields).map(Self::Answer),
            "obeys" => Obedience::from_fields(fields).map(Self::Obedience),
            _ => Err(LineError::NotOurs),
        }
    }

    /// Number of the boot that it is about.
    pub const fn boot(&self) -> u64 {
        match self {
            Self::Report(report) => report.boot,
            Self::Heartbeat(heartbeat) => heartbeat.boot,
            Self::Obedience(obedience) => obedience.boot,
            Self::Answer(answer) => answer.boot,
        }
    }

    /// Boot NIC of the machine that it is about.
    pub const fn mac(&self) -> Mac {
        match self {
            Self::Report(report) => report.mac,
            Self::Heartbeat(heartbeat) => heartbeat.mac,
            Self::Obedience(obedience) => obedience.mac,
            Self::Answer(answer) => answer.mac,
        }
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Report(report) => report.fmt(f),
            Self::Heartbeat(heartbeat) => heartbeat.fmt(f),
            Self::Obedience(obedience) => obedience.fmt(f),
            Self::Answer(answer) => answer.fmt(f),
        }
    }
}

/// The kind of a line, and its fields.
pub(crate) fn split(line: &[u8]) -> Result<(&str, &str), LineError> {
    if line.len() > REPORT_MAX {
        return Err(LineError::NotOurs);
    }
    let text = core::str::from_utf8(line).map_err(|_| LineError::NotOurs)?;
    let words = text.strip_prefix("bootlace/1 ").ok_or(LineError::NotOurs)?;
    words.split_once(' ').ok_or(LineError::NotOurs)
}

/// Reads the next field, which has this name.
pub(crate) fn field<'a, T: FromStr>(
    fields: &mut impl Iterator<Item = &'a str>,
    name: &'static str,
) -> Result<T, LineError> {
    fields.next().and_then(|text| text.parse().ok()).ok_or(LineError::Field(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ack, PowerOrder, PowerVerb, Stage};
    use alloc::string::{String, ToString};

    const MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);

    #[test]
    fn each_word_says_whose_it_is() {
        let words = [
            Word::Report(Report {
                boot: 42,
                mac: MAC,
                sequence: 3,
                stage: Some(Stage::Link),
                uptime_ms: 1790,
                detail: String::new(),
            }),
            Word::Heartbeat(Heartbeat {
                boot: 42,
                mac: MAC,
                is_last: false,
                ram_used_percent: Some(3),
            }),
            Word::Heartbeat(Heartbeat {
                boot: 42,
                mac: MAC,
                is_last: true,
                ram_used_percent: None,
            }),
            Word::Obedience(Obedience { boot: 42, mac: MAC, counter: 1 }),
        ];
        for word in words {
            assert_eq!((word.boot(), word.mac()), (42, MAC));
            assert_eq!(Word::parse(word.to_string().as_bytes()), Ok(word));
        }
    }

    #[test]
    fn what_the_boot_server_says_is_no_word_of_a_machine() {
        let order = PowerOrder { boot: 42, counter: 1, verb: PowerVerb::Reboot };
        for line in [Ack { boot: 42, sequence: 3 }.to_string(), order.to_string()] {
            assert_eq!(Word::parse(line.as_bytes()), Err(LineError::NotOurs), "{line}");
        }
    }

    #[test]
    fn foreign_bytes_are_no_word() {
        for bytes in [&[0xff; 4][..], &[b'a'; 5000], b"", b"bootlace/1", b"bootlace/2 off 1 x"] {
            assert_eq!(Word::parse(bytes), Err(LineError::NotOurs));
        }
        let too_long =
            alloc::format!("bootlace/1 report 42 {MAC} 3 link 1790 {}", "a".repeat(1024));
        assert_eq!(Word::parse(too_long.as_bytes()), Err(LineError::NotOurs));
    }
}
