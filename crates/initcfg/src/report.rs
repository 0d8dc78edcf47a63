//! One line by UDP for each stage that `init` reaches, and the boot server's acknowledgement.

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;
use wire::Mac;

/// Longest report in bytes: it must fit one unfragmented datagram on any network.
pub const REPORT_MAX: usize = 1024;

/// Stages of a boot inside the initrd, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// The kernel runs our init.
    Start,
    /// The drivers of the hardware are loaded.
    Modules,
    /// The boot NIC has carrier.
    Link,
    /// The boot NIC has its address.
    Address,
    /// The root disk is attached.
    Attach,
    /// The root file system is mounted.
    Mount,
    /// The real init of the image takes over.
    Handover,
    /// The image's own init has started its services.
    Up,
    /// The boot can't go on; the detail says why and what to do.
    Failed,
    /// No stage is reached: the boot waits for something, and the detail says for what. Repeated every
    /// 20 seconds as long as that lasts.
    Waiting,
}

impl Stage {
    /// All stages, in order.
    pub const ALL: [Self; 10] = [
        Self::Start,
        Self::Modules,
        Self::Link,
        Self::Address,
        Self::Attach,
        Self::Mount,
        Self::Handover,
        Self::Up,
        Self::Failed,
        Self::Waiting,
    ];

    /// The word for this stage in reports.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Modules => "modules",
            Self::Link => "link",
            Self::Address => "address",
            Self::Attach => "attach",
            Self::Mount => "mount",
            Self::Handover => "handover",
            Self::Up => "up",
            Self::Failed => "failed",
            Self::Waiting => "waiting",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// One stage of one boot, as `init` tells it:
/// `bootlace/1 report BOOT MAC SEQUENCE STAGE MS DETAIL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Number of the boot, from the command line.
    pub boot: u64,
    /// The boot NIC.
    pub mac: Mac,
    /// Counts up from 1; the acknowledgement repeats it.
    pub sequence: u32,
    /// The stage that was reached.
    pub stage: Stage,
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

/// A machine runs, or is about to stop: `bootlace/1 alive BOOT MAC [ram=PERCENT]` and
/// `bootlace/1 off BOOT MAC`. Not acknowledged: the next one follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Number of the boot.
    pub boot: u64,
    /// The boot NIC.
    pub mac: Mac,
    /// Whether it is the last: the system is being shut down.
    pub is_last: bool,
    /// How full its memory for changes is, in percent; `None` if it has none.
    pub ram_used_percent: Option<u8>,
}

/// The datagram is not a report or an acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// Longer than [`REPORT_MAX`], not UTF-8, or of another protocol.
    #[error("not a bootlace/1 line")]
    NotOurs,
    /// A field is missing or can't be understood.
    #[error("bad {0}")]
    Field(&'static str),
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { boot, mac, sequence, stage, uptime_ms, detail } = self;
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

    /// Reads a datagram.
    pub fn parse(datagram: &[u8]) -> Result<Self, ReportError> {
        let line =
            line(datagram)?.strip_prefix("bootlace/1 report ").ok_or(ReportError::NotOurs)?;
        let mut words = line.splitn(6, ' ');
        Ok(Self {
            boot: word(&mut words, "boot number")?,
            mac: word(&mut words, "MAC address")?,
            sequence: word(&mut words, "sequence number")?,
            stage: word(&mut words, "stage")?,
            uptime_ms: word(&mut words, "uptime")?,
            detail: words.next().unwrap_or_default().trim().to_owned(),
        })
    }
}

impl fmt::Display for Ack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bootlace/1 ack {} {}", self.boot, self.sequence)
    }
}

impl Ack {
    /// Reads a datagram.
    pub fn parse(datagram: &[u8]) -> Result<Self, ReportError> {
        let line = line(datagram)?.strip_prefix("bootlace/1 ack ").ok_or(ReportError::NotOurs)?;
        let mut words = line.trim_end().splitn(2, ' ');
        Ok(Self {
            boot: word(&mut words, "boot number")?,
            sequence: word(&mut words, "sequence number")?,
        })
    }
}

impl fmt::Display for Heartbeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.is_last { "off" } else { "alive" };
        write!(f, "bootlace/1 {word} {} {}", self.boot, self.mac)?;
        match self.ram_used_percent {
            Some(percent) => write!(f, " ram={percent}"),
            None => Ok(()),
        }
    }
}

impl Heartbeat {
    /// How often a machine sends one, in seconds. Who has missed three is not there any more.
    pub const INTERVAL_SECONDS: u64 = 20;

    /// Reads a datagram.
    pub fn parse(datagram: &[u8]) -> Result<Self, ReportError> {
        let line = line(datagram)?.strip_prefix("bootlace/1 ").ok_or(ReportError::NotOurs)?;
        let mut words = line.trim_end().splitn(4, ' ');
        let is_last = match words.next() {
            Some("alive") => false,
            Some("off") => true,
            _ => return Err(ReportError::NotOurs),
        };
        Ok(Self {
            boot: word(&mut words, "boot number")?,
            mac: word(&mut words, "MAC address")?,
            is_last,
            ram_used_percent: words
                .next()
                .map(|text| {
                    let percent = text.strip_prefix("ram=").and_then(|text| text.parse().ok());
                    percent.filter(|&percent: &u8| percent <= 100).ok_or(ReportError::Field("ram"))
                })
                .transpose()?,
        })
    }
}

impl FromStr for Stage {
    type Err = ReportError;

    fn from_str(text: &str) -> Result<Self, ReportError> {
        Self::ALL.into_iter().find(|stage| stage.word() == text).ok_or(ReportError::Field("stage"))
    }
}

pub(crate) fn line(datagram: &[u8]) -> Result<&str, ReportError> {
    let datagram = datagram.get(..datagram.len().min(REPORT_MAX + 1)).unwrap_or_default();
    if datagram.len() > REPORT_MAX {
        return Err(ReportError::NotOurs);
    }
    core::str::from_utf8(datagram).map_err(|_| ReportError::NotOurs)
}

pub(crate) fn word<'a, T: FromStr>(
    words: &mut impl Iterator<Item = &'a str>,
    name: &'static str,
) -> Result<T, ReportError> {
    words.next().and_then(|text| text.parse().ok()).ok_or(ReportError::Field(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Report {
        Report {
            boot: 42,
            mac: Mac([0x52, 0x54, 0, 0, 0, 1]),
            sequence: 3,
            stage: Stage::Link,
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
        assert_eq!(Report::parse(datagram.as_bytes()), Ok(example()));
        let ack = Ack { boot: 42, sequence: 3 };
        assert_eq!(Ack::parse(alloc::format!("{ack}").as_bytes()), Ok(ack));
        for stage in Stage::ALL {
            assert_eq!(stage.word().parse(), Ok(stage));
        }
        for (is_last, ram_used_percent) in [(false, None), (true, None), (false, Some(100))] {
            let heartbeat = Heartbeat { boot: 42, mac: example().mac, is_last, ram_used_percent };
            let datagram = alloc::format!("{heartbeat}");
            assert_eq!(Heartbeat::parse(datagram.as_bytes()), Ok(heartbeat));
            assert_eq!(Report::parse(datagram.as_bytes()), Err(ReportError::NotOurs));
            let shortest = datagram.find(" ram=").unwrap_or(datagram.len());
            for end in 0..datagram.len() {
                let read = Heartbeat::parse(&datagram.as_bytes()[..end]);
                assert!(end >= shortest || read.is_err(), "{end}");
            }
            assert!(Heartbeat::parse(alloc::format!("{datagram} x").as_bytes()).is_err());
        }
    }

    #[test]
    fn a_long_or_wild_detail_stays_one_short_line() {
        let report = Report { detail: "ä\n".repeat(2000), ..example() };
        let datagram = report.to_datagram();
        assert!(datagram.len() <= REPORT_MAX);
        assert!(!datagram.contains('\n'));
        assert!(Report::parse(datagram.as_bytes()).is_ok());
    }

    #[test]
    fn no_prefix_of_a_report_panics() {
        let datagram = example().to_datagram();
        for end in 0..datagram.len() {
            let _ = Report::parse(&datagram.as_bytes()[..end]);
            let _ = Ack::parse(&datagram.as_bytes()[..end]);
        }
        assert_eq!(Report::parse(&[0xff; 4]), Err(ReportError::NotOurs));
        assert_eq!(Report::parse(&[b'a'; 5000]), Err(ReportError::NotOurs));
    }
}
