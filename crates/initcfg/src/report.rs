//! One line by UDP for each stage that `init` reaches, and the boot server's acknowledgement.

use crate::Stage;
use crate::word::{LineError, field, split};
use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;
use wire::Mac;

/// Longest report in bytes: it must fit one unfragmented datagram on any network.
pub const REPORT_MAX: usize = 1024;

/// In the place of a stage's word: none is reached.
const WAITING: &str = "waiting";

/// One stage of one boot, as `init` tells it: `bootlace/1 report BOOT MAC SEQUENCE STAGE MS DETAIL`. `STAGE` is
/// the word of a stage that [is reported](Stage::is_reported), or `waiting`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Number of the boot, from the command line.
    pub boot: u64,
    /// The boot NIC.
    pub mac: Mac,
    /// Counts up from 1; the acknowledgement repeats it.
    pub sequence: u32,
    /// The stage that was reached. `None`: the boot waits for something, and the detail says for what; repeated
    /// every 20 seconds as long as that lasts.
    pub stage: Option<Stage>,
    /// Milliseconds since the kernel started.
    pub uptime_ms: u64,
    /// One line for people; may be empty. Control characters become spaces when it is rendered.
    pub detail: String,
}

/// The boot server has noted a report: `bootlace/1 ack BOOT SEQUENCE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Number of the boot.
    pub boot: u64,
    /// Sequence number of the report.
    pub sequence: u32,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { boot, mac, sequence, stage, uptime_ms, detail } = self;
        let stage = stage.map_or(WAITING, Stage::word);
        write!(f, "bootlace/1 report {boot} {mac} {sequence} {stage} {uptime_ms} ")?;
        for character in detail.chars() {
            let shown = if character.is_control() { ' ' } else { character };
            write!(f, "{shown}")?;
        }
        Ok(())
    }
}

impl Report {
    /// The datagram, cut to [`REPORT_MAX`] bytes between characters.
    pub fn to_datagram(&self) -> String {
        let mut line = alloc::format!("{self}");
        let end = (0..=REPORT_MAX.min(line.len())).rev().find(|&end| line.is_char_boundary(end));
        line.truncate(end.unwrap_or(0));
        line
    }

    /// Reads what follows the word `report`.
    pub(crate) fn from_fields(fields: &str) -> Result<Self, LineError> {
        let mut fields = fields.splitn(6, ' ');
        Ok(Self {
            boot: field(&mut fields, "boot number")?,
            mac: field(&mut fields, "MAC address")?,
            sequence: field(&mut fields, "sequence number")?,
            stage: stage(fields.next())?,
            uptime_ms: field(&mut fields, "uptime")?,
            detail: fields.next().unwrap_or_default().trim().to_owned(),
        })
    }
}

/// What stands in the place of a stage.
fn stage(word: Option<&str>) -> Result<Option<Stage>, LineError> {
    if word == Some(WAITING) {
        return Ok(None);
    }
    let stage = word.and_then(|word| word.parse().ok()).filter(|stage: &Stage| stage.is_reported());
    stage.map(Some).ok_or(LineError::Field("stage"))
}

impl fmt::Display for Ack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bootlace/1 ack {} {}", self.boot, self.sequence)
    }
}

impl Ack {
    /// Reads a datagram.
    ///
    /// # Errors
    /// The line is no acknowledgement, or one of its fields is missing or wrong.
    pub fn parse(datagram: &[u8]) -> Result<Self, LineError> {
        let ("ack", fields) = split(datagram)? else { return Err(LineError::NotOurs) };
        let mut fields = fields.trim_end().splitn(2, ' ');
        Ok(Self {
            boot: field(&mut fields, "boot number")?,
            sequence: field(&mut fields, "sequence number")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Word;
    use alloc::string::ToString;

    fn example() -> Report {
        Report {
            boot: 42,
            mac: Mac([0x52, 0x54, 0, 0, 0, 1]),
            sequence: 3,
            stage: Some(Stage::Link),
            uptime_ms: 1790,
            detail: "eth0: 1000 Mbit/s".to_owned(),
        }
    }

    #[test]
    fn a_report_arrives_as_it_was_sent() {
        let datagram = example().to_datagram();
        assert_eq!(
            datagram,
            "bootlace/1 report 42 52:54:00:00:00:01 3 link 1790 eth0: 1000 Mbit/s"
        );
        assert_eq!(Word::parse(datagram.as_bytes()), Ok(Word::Report(example())));
        let ack = Ack { boot: 42, sequence: 3 };
        assert_eq!(Ack::parse(alloc::format!("{ack}").as_bytes()), Ok(ack));
    }

    #[test]
    fn a_machine_reports_its_own_stages_only() {
        let reported = Stage::ALL.into_iter().filter(|stage| stage.is_reported());
        for stage in reported.map(Some).chain([None]) {
            let report = Report { stage, ..example() };
            assert_eq!(Word::parse(report.to_datagram().as_bytes()), Ok(Word::Report(report)));
        }
        // Those that the boot server notes itself, and no stages.
        for word in ["dhcp", "loader", "config", "kernel", "initrd", "Link", "\"\""] {
            let line = example().to_datagram().replace(" link ", &alloc::format!(" {word} "));
            assert_eq!(Word::parse(line.as_bytes()), Err(LineError::Field("stage")), "{word}");
        }
    }

    #[test]
    fn a_long_or_wild_detail_stays_one_short_line() {
        let report = Report { detail: "ä\n".repeat(2000), ..example() };
        let datagram = report.to_datagram();
        assert!(datagram.len() <= REPORT_MAX);
        assert!(!datagram.contains('\n'));
        assert!(matches!(Word::parse(datagram.as_bytes()), Ok(Word::Report(_))));
    }

    #[test]
    fn only_the_detail_of_a_report_may_be_missing() {
        let datagram = example().to_datagram();
        let shortest = datagram.find(" eth0").unwrap();
        for end in 0..datagram.len() {
            let read = Word::parse(&datagram.as_bytes()[..end]);
            assert!(end >= shortest - 3 || read.is_err(), "{end}");
        }
        let ack = Ack { boot: 42, sequence: 3 }.to_string();
        for end in 0..ack.len() {
            assert!(Ack::parse(&ack.as_bytes()[..end]).is_err(), "{end}");
        }
        assert_eq!(Ack::parse(datagram.as_bytes()), Err(LineError::NotOurs));
    }
}
