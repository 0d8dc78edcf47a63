//! What ATA commands do to an export.

use crate::admission::AoePlace;
use crate::export::{Export, Reads};
use aoe::{AtaCommand, AtaRequest, HEALTH_BAD, HEALTH_GOOD, Identity, SECTOR_BYTES, Status};
use images::Block;
use std::io;
use std::time::Instant;

pub(super) struct Answer {
    pub(super) status: Status,
    pub(super) sectors: u8,
    pub(super) lba: u64,
    pub(super) data: Vec<u8>,
    pub(super) must_flush: bool,
}

impl Answer {
    fn of(status: Status) -> Self {
        Self { status, sectors: 0, lba: 0, data: Vec::new(), must_flush: false }
    }
}

/// How an operation that failed is answered.
///
/// Linux tries nothing again that was answered by an ATA error: programs get an I/O error, and the file system
/// stops. What is not answered it sends again, until `aoe_deadsecs` are over, which is for ever for a root
/// (`ktiocomplete` and `rexmit_timer` of drivers/block/aoe/aoecmd.c). So an error is told only if another try
/// would end no better: not if the disk is being closed, or if the server lacks something for a moment.
pub(super) fn failed(export: &Export, error: &io::Error, status: Status) -> Option<Status> {
    let is_final = !passes(error) && !export.connections.is_closed();
    is_final.then_some(status)
}

/// Whether another try may end better. For room on a full disk writes have waited before they come here.
fn passes(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::OutOfMemory
            | io::ErrorKind::Interrupted
            | io::ErrorKind::WouldBlock
            | io::ErrorKind::TimedOut
    )
}

/// Does what is asked; `None` is silence, after which the initiator asks again.
pub(super) fn answer(
    export: &Export,
    place: &AoePlace,
    sectors_max: u8,
    ata: &AtaRequest<'_>,
) -> Option<Answer> {
    if export.connections.is_closed() {
        return None;
    }
    let range = |lba| ata.range(lba, export.disk.size_bytes(), sectors_max);
    match ata.command {
        AtaCommand::Read { lba } | AtaCommand::Verify { lba } => {
            let (offset, length) = match range(lba) {
                Ok(range) => range,
                Err(status) => return Some(Answer::of(status)),
            };
            let began = Instant::now();
            let mut data = vec![0; length];
            if let Err(error) = export.disk.read_at(&mut data, offset) {
                return failed(export, &error, Status::Unreadable).map(Answer::of);
            }
            export.counters.count_reads(Reads::one(length), began);
            if matches!(ata.command, AtaCommand::Verify { .. }) {
                data.clear();
            }
            Some(Answer { data, ..Answer::of(Status::Good) })
        }
        AtaCommand::Write { lba, fua } => {
            // The reply to a write fits into any frame.
            let (offset, length) = match ata.range(lba, export.disk.size_bytes(), u8::MAX) {
                Ok(range) => range,
                Err(status) => return Some(Answer::of(status)),
            };
            // A frame that was cut off on its way.
            let data = ata.data.get(..length)?;
            if let Err(error) = export.disk.write_at(data, offset) {
                return failed(export, &error, Status::Aborted).map(Answer::of);
            }
            Some(Answer { must_flush: fua || export.disk.is_durable(), ..Answer::of(Status::Good) })
        }
        AtaCommand::Flush => Some(Answer { must_flush: true, ..Answer::of(Status::Good) }),
        AtaCommand::Identify => {
            let identity = Identity {
                sectors: export.disk.size_bytes() / SECTOR_BYTES as u64,
                serial: &place.serial,
                model: &format!("Bootlace {}", export.label.name),
                firmware: "1",
                has_write_cache: !export.disk.is_durable() && !export.disk.is_read_only(),
            };
            let data = aoe::identify(&identity).to_vec();
            Some(Answer { data, ..Answer::of(Status::Good) })
        }
        AtaCommand::CheckPowerMode => Some(Answer { sectors: 0xff, ..Answer::of(Status::Good) }),
        AtaCommand::SmartStatus => {
            let lba = if export.disk.has_failed() { HEALTH_BAD } else { HEALTH_GOOD };
            Some(Answer { lba, ..Answer::of(Status::Good) })
        }
        AtaCommand::SmartData => {
            Some(Answer { data: aoe::smart_data().to_vec(), ..Answer::of(Status::Good) })
        }
        AtaCommand::PowerNoOp | AtaCommand::SmartEnable | AtaCommand::SetFeature(_) => {
            Some(Answer::of(Status::Good))
        }
        AtaCommand::Unknown(command) => {
            tracing::debug!(export = export.label.name, command, "ATA command not known");
            Some(Answer::of(Status::Aborted))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_try_would_not_change_is_told() {
        for (kind, expected) in [
            (io::ErrorKind::OutOfMemory, true),
            (io::ErrorKind::Interrupted, true),
            (io::ErrorKind::PermissionDenied, false),
            (io::ErrorKind::StorageFull, false),
            (io::ErrorKind::InvalidInput, false),
            (io::ErrorKind::Other, false),
        ] {
            assert_eq!(passes(&kind.into()), expected, "{kind}");
        }
        assert!(!passes(&io::Error::from_raw_os_error(5)), "EIO");
    }
}
