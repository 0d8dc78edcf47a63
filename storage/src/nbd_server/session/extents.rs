//! BLOCK_STATUS: where a disk has holes.

use super::Session;
use super::output::SHORT_BYTES_MAX;
use images::Block;
use nbd::{CommandFlags, Request, structured};
use std::io;

/// Extents in one reply: 64 KiB of it.
const EXTENTS_MAX: usize = 8192;

/// As many if memory is short; what is missing is asked for again.
const EXTENTS_AT_LEAST: usize = 1024;

impl Session<'_> {
    pub(super) fn block_status(&mut self, request: &Request) -> io::Result<()> {
        let extents_max = match self.output.has_room(EXTENTS_MAX * 8 + SHORT_BYTES_MAX) {
            true => EXTENTS_MAX,
            false => {
                self.send()?;
                EXTENTS_AT_LEAST
            }
        };
        match self.extents(request, extents_max) {
            Ok(extents) => {
                self.output.put(&structured::block_status(request.cookie, &extents));
                Ok(())
            }
            Err(error) => self.finish(request, Err(error)),
        }
    }

    fn extents(&self, request: &Request, extents_max: usize) -> io::Result<Vec<(u32, bool)>> {
        let end = request.offset + u64::from(request.length);
        let mut extents: Vec<(u32, bool)> = Vec::new();
        let mut position = request.offset;
        while position < end {
            let extent = self.export.disk.extent(position, end - position)?;
            // Not longer than the request, whose length has 32 bits.
            let length = extent.length as u32;
            position += extent.length;
            match extents.last_mut() {
                Some((last, is_hole)) if *is_hole == extent.is_hole => *last += length,
                _ => {
                    let is_enough = !extents.is_empty() && request.flags.has(CommandFlags::REQ_ONE);
                    if is_enough || extents.len() >= extents_max {
                        break;
                    }
                    extents.push((length, extent.is_hole));
                }
            }
        }
        Ok(extents)
    }
}
