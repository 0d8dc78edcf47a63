//! What ATA commands do to an export.

use crate::admission::AoePlace;
use crate::export::{Export, Reads};
use aoe::{AtaCommand, AtaRequest, HEALTH_BAD, HEALTH_GOOD, Identity, SECTOR_BYTES, Status};
use images::Block;
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
            if export.disk.read_at(&mut data, offset).is_err() {
                return Some(Answer::of(Status::Unreadable));
            }
            export.counters.count_reads(Reads::one(length), began);
            if matches!(ata.command, AtaCommand::Verify { .. }) {
                data.clear();
            }
            Some(Answer { data, ..Answer::of(Status::Good) })
        }
        AtaCommand::Write { lba, fua } => {
            let (offset, length) = match range(lba) {
                Ok(range) => range,
                Err(status) => return Some(Answer::of(status)),
            };
            let Some(data) = ata.data.get(..length) else {
                return Some(Answer::of(Status::Aborted));
            };
            if export.disk.write_at(data, offset).is_err() {
                return Some(Answer::of(Status::Aborted));
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
