//! Frames as initiators send them.

use aoe::{
    AtaCommand, AtaReply, AtaRequest, ConfigCommand, ConfigQuery, ConfigReply, ErrorCode,
    FRAME_MIN, Header, Malformed, Request, RequestBody, Status, emit_error, emit_request,
};
use proptest::prelude::*;
use wire::Mac;

const CLIENT: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
const SERVER: Mac = Mac([0x02, 0, 0, 0, 0, 9]);

fn header() -> Header {
    Header {
        destination: Mac::BROADCAST,
        source: CLIENT,
        shelf: 0xffff,
        slot: 0xff,
        tag: 0x8001_0203,
    }
}

fn write<'a>(data: &'a [u8]) -> Request<'a> {
    let command = AtaCommand::Write { lba: 0x1234_5678_9abc, fua: false };
    let body = RequestBody::Ata(AtaRequest { command, sectors: 2, data });
    Request { header: Header { shelf: 1, slot: 7, destination: SERVER, ..header() }, body }
}

/// Linux's discovery: 32 bytes of a Query Config, padded to 60.
#[test]
fn a_discovery_by_broadcast_is_understood_and_answered() {
    let mut frame = vec![0xff; 6];
    frame.extend(CLIENT.0);
    frame.extend([0x88, 0xa2, 0x10, 0, 0xff, 0xff, 0xff, 1, 0x80, 1, 2, 3]);
    frame.resize(FRAME_MIN, 0);
    let request = Request::parse(&frame).unwrap();
    let query = ConfigQuery { command: ConfigCommand::Read, text: b"" };
    assert_eq!(request, Request { header: header(), body: RequestBody::Config(query) });
    assert!(request.header.is_for(1, 7));

    let reply = ConfigReply { buffer_count: 128, sector_count: 2, text: b"lab-07" };
    let reply = reply.emit(&request.header, SERVER, 1, 7);
    assert_eq!(reply[..6], CLIENT.0);
    assert_eq!(reply[14..24], [0x18, 0, 0, 1, 7, 1, 0x80, 1, 2, 3]);
    assert_eq!(reply[24..32], [0, 128, 0, 1, 2, 0x10, 0, 6]);
    assert_eq!(reply.len(), FRAME_MIN, "shorter frames vanish for some tools");
    assert_eq!(Request::parse(&reply), Err(Malformed::Response));
}

#[test]
fn what_is_emitted_is_parsed_alike() {
    let data = [7; 1024];
    let request = write(&data);
    assert_eq!(Request::parse(&emit_request(&request)), Ok(request));
}

#[test]
fn a_28_bit_read_ignores_the_bits_above() {
    let request = write(&[]);
    let mut frame = emit_request(&request);
    frame[24] = 0; // no LBA48
    frame[27] = 0x20;
    let Ok(Request { body: RequestBody::Ata(ata), .. }) = Request::parse(&frame) else {
        panic!("must parse");
    };
    assert_eq!(ata.command, AtaCommand::Read { lba: 0x0678_9abc });
}

#[test]
fn ranges_outside_of_the_disk_are_none() {
    let request = |sectors| AtaRequest { command: AtaCommand::Flush, sectors, data: &[] };
    assert_eq!(request(2).range(6, 4096, 2), Some((3072, 1024)));
    for (sectors, lba) in [(2, 7), (0, 0), (3, 0), (2, u64::MAX), (2, u64::MAX / 512)] {
        assert_eq!(request(sectors).range(lba, 4096, 2), None, "{sectors} at {lba}");
    }
}

#[test]
fn replies_are_exactly_as_long_as_their_data() {
    let reply = AtaReply { status: Status::Good, sectors: 0, data: &[1; 1024] };
    assert_eq!(reply.emit(&header(), SERVER, 1, 7).len(), 36 + 1024);
    let error = AtaReply { status: Status::OutOfRange, sectors: 0, data: &[] };
    let frame = error.emit(&header(), SERVER, 1, 7);
    assert_eq!((frame[25], frame[27], frame.len()), (0x10, 0x41, FRAME_MIN));
    let refused = emit_error(&write(&[]), SERVER, 1, 7, ErrorCode::UnrecognizedCommand);
    assert_eq!(refused[14..16], [0x1c, 1]);
}

#[test]
fn no_prefix_of_a_frame_panics() {
    let frame = emit_request(&write(&[7; 64]));
    for end in 0..36 {
        assert!(Request::parse(&frame[..end]).is_err(), "{end}");
    }
    for end in 36..frame.len() {
        assert!(Request::parse(&frame[..end]).is_ok(), "{end}");
    }
    assert_eq!(Request::parse(&[0x01; 60]), Err(Malformed::NotAoe(0x0101)));
}

proptest! {
    #[test]
    fn random_frames_never_panic(mut frame in proptest::collection::vec(any::<u8>(), 0..128)) {
        let _ = Request::parse(&frame);
        if frame.len() > 24 {
            frame[12..15].copy_from_slice(&[0x88, 0xa2, 0x10]);
            frame[6] = 2;
            let _ = Request::parse(&frame);
        }
    }
}
