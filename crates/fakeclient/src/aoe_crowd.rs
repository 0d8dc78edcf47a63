//! AoE requests in the names of many, from a host that hears no answer.

use crate::packet::raw_socket;
use aoe::{
    AtaCommand, AtaRequest, ConfigCommand, ConfigQuery, Header, Request, RequestBody, emit_request,
};
use socket2::Socket;
use std::io;
use wire::Mac;

/// Sends requests, and never reads.
#[derive(Debug)]
pub struct AoeCrowd {
    socket: Socket,
}

impl AoeCrowd {
    /// A host behind `interface`. Needs root.
    ///
    /// # Errors
    /// There is no such interface, or we are not root.
    pub fn open(interface: &str) -> io::Result<Self> {
        Ok(Self { socket: raw_socket(interface, aoe::ETHERTYPE)? })
    }

    /// Asks in the name of this NIC which disks there are.
    ///
    /// # Errors
    /// The interface is gone.
    pub fn discover(&self, source: Mac, tag: u32) -> io::Result<()> {
        let query = ConfigQuery { command: ConfigCommand::Read, text: &[] };
        self.send(header(source, tag), RequestBody::Config(query))
    }

    /// Reads the first sectors of every disk in the name of this NIC.
    ///
    /// # Errors
    /// The interface is gone.
    pub fn read(&self, source: Mac, tag: u32) -> io::Result<()> {
        let request = AtaRequest { command: AtaCommand::Read { lba: 0 }, sectors: 2, data: &[] };
        self.send(header(source, tag), RequestBody::Ata(request))
    }

    fn send(&self, header: Header, body: RequestBody<'_>) -> io::Result<()> {
        self.socket.send(&emit_request(&Request { header, body })).map(drop)
    }
}

/// To everybody, every shelf and every slot.
fn header(source: Mac, tag: u32) -> Header {
    Header { destination: Mac([0xff; 6]), source, shelf: u16::MAX, slot: u8::MAX, tag }
}
