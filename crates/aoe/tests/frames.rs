//! Frames as initiators send them.

use aoe::{
    AtaCommand, AtaReply, AtaRequest, ConfigCommand, ConfigQuery, ConfigReply, Directive,
    ErrorCode, FRAME_MIN, HEALTH_BAD, HEALTH_GOOD, Header, LISTED_MACS_MAX, Malformed, MaskReply,
    MaskRequest, Request, RequestBody, ReserveRequest, Status, Verdict, emit_error, emit_request,
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
fn ranges_outside_of_the_disk_are_refused() {
    let request = |sectors| AtaRequest { command: AtaCommand::Flush, sectors, data: &[] };
    assert_eq!(request(2).range(6, 4096, 2), Ok((3072, 1024)));
    for lba in [7, u64::MAX, u64::MAX / 512] {
        assert_eq!(request(2).range(lba, 4096, 2), Err(Status::OutOfRange), "{lba}");
    }
    for sectors in [0, 3] {
        assert_eq!(request(sectors).range(0, 4096, 2), Err(Status::Aborted), "{sectors}");
    }
}

#[test]
fn replies_are_exactly_as_long_as_their_data() {
    let reply = AtaReply { status: Status::Good, sectors: 0, lba: 0, data: &[1; 1024] };
    assert_eq!(reply.emit(&header(), SERVER, 1, 7).len(), 36 + 1024);
    let error = AtaReply { status: Status::OutOfRange, sectors: 0, lba: 0, data: &[] };
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

/// A request for 1.7 with these bytes behind the header.
fn raw(command: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = [&SERVER.0[..], &CLIENT.0, &[0x88, 0xa2, 0x10, 0, 0, 1, 7, command]].concat();
    frame.extend([0, 0, 0, 5]);
    frame.extend(body);
    frame
}

#[test]
fn a_mask_and_its_changes_are_read() {
    let edit = [0, 1, 0, 2, 0, 1, 2, 0, 0, 0, 0, 1, 0, 7, 2, 0, 0, 0, 0, 2];
    let frame = raw(2, &edit);
    let request = Request::parse(&frame).unwrap();
    let RequestBody::Mask(MaskRequest::Edit(directives)) = request.body else {
        panic!("must be an edit");
    };
    let directives: Vec<_> = directives.iter().collect();
    assert_eq!(directives[0], Directive::Add(Mac([2, 0, 0, 0, 0, 1])));
    assert_eq!(directives[1], Directive::Unknown(7));
    assert_eq!(Request::parse(&emit_request(&request)), Ok(request.clone()));
    for end in 24..frame.len() {
        assert!(Request::parse(&frame[..end]).is_err(), "{end}");
    }
    let list = MaskReply::List(&[CLIENT; 200]);
    let reply = list.emit(&request.header, SERVER, 1, 7, false);
    assert_eq!(reply[24..28], [0, 0, 0, LISTED_MACS_MAX as u8]);
    assert_eq!(reply[30..36], CLIENT.0);
    assert!(reply.len() <= 1514);
}

#[test]
fn a_reservation_is_read() {
    let frame = raw(3, &[2, 2, 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
    let request = Request::parse(&frame).unwrap();
    let macs = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
    let reserve = ReserveRequest::Set { macs: &macs, force: true };
    assert_eq!(request.body, RequestBody::Reserve(reserve));
    for end in 24..frame.len() {
        assert!(Request::parse(&frame[..end]).is_err(), "{end}");
    }
}

#[test]
fn a_config_string_can_be_asked_for_but_not_changed() {
    let check = |command, text: &[u8]| ConfigQuery { command, text }.verdict(b"lab-07");
    assert_eq!(check(ConfigCommand::Read, b""), Verdict::Answer);
    assert_eq!(check(ConfigCommand::Test, b"lab-07"), Verdict::Answer);
    assert_eq!(check(ConfigCommand::Test, b"lab-0"), Verdict::Silence);
    assert_eq!(check(ConfigCommand::Prefix, b"lab-0"), Verdict::Answer);
    assert_eq!(check(ConfigCommand::Prefix, b"lab-1"), Verdict::Silence);
    for command in [ConfigCommand::Set, ConfigCommand::ForceSet] {
        assert_eq!(check(command, b"lab-07"), Verdict::Answer, "it is that already");
        assert_eq!(check(command, b"mine"), Verdict::Refuse(ErrorCode::ConfigPresent));
    }
    let unknown = check(ConfigCommand::Unknown(5), b"");
    assert_eq!(unknown, Verdict::Refuse(ErrorCode::BadArgument));
}

#[test]
fn commands_that_old_drivers_and_monitors_use_are_understood() {
    let check = |feature, command, lba: u64| {
        let mut body = vec![0, feature, 1, command];
        body.extend(&lba.to_le_bytes()[..6]);
        body.extend([0; 2]);
        let frame = raw(0, &body);
        let Ok(Request { body: RequestBody::Ata(ata), .. }) = Request::parse(&frame) else {
            panic!("must parse");
        };
        ata.command
    };
    assert_eq!(check(0xda, 0xb0, HEALTH_GOOD), AtaCommand::SmartStatus);
    assert_eq!(check(0xd0, 0xb0, HEALTH_GOOD), AtaCommand::SmartData);
    assert_eq!(check(0xda, 0xb0, HEALTH_BAD), AtaCommand::Unknown(0xb0));
    assert_eq!(check(0xd4, 0xb0, HEALTH_GOOD), AtaCommand::Unknown(0xb0), "no self-tests");
    assert_eq!(check(0x82, 0xef, 0), AtaCommand::SetFeature(0x82));
    assert_eq!(check(0x10, 0xef, 0), AtaCommand::Unknown(0xef));
    for (dma, lba) in [(0xc8, 7), (0x25, 7), (0x21, 7)] {
        assert_eq!(check(0, dma, lba), AtaCommand::Read { lba });
    }
    for (command, fua) in [(0xca, false), (0x31, false), (0x35, false), (0x3d, true), (0xce, true)]
    {
        assert_eq!(check(0, command, 7), AtaCommand::Write { lba: 7, fua });
    }
    for command in [AtaCommand::SmartStatus, AtaCommand::SmartData, AtaCommand::SetFeature(2)] {
        let body = RequestBody::Ata(AtaRequest { command, sectors: 1, data: &[] });
        let frame = emit_request(&Request { header: header(), body });
        let Ok(Request { body: RequestBody::Ata(ata), .. }) = Request::parse(&frame) else {
            panic!("must parse");
        };
        assert_eq!(ata.command, command);
    }
}

#[test]
fn a_failing_disk_says_so_where_monitors_look() {
    let reply = AtaReply { status: Status::Good, sectors: 0, lba: HEALTH_BAD, data: &[] };
    assert_eq!(reply.emit(&header(), SERVER, 1, 7)[29..31], [0xf4, 0x2c]);
}

proptest! {
    #[test]
    fn random_frames_never_panic(mut frame in proptest::collection::vec(any::<u8>(), 0..128)) {
        let _ = Request::parse(&frame);
        if frame.len() > 24 {
            frame[12..15].copy_from_slice(&[0x88, 0xa2, 0x10]);
            frame[6] = 2;
            frame[19] %= 5;
            if let Ok(request) = Request::parse(&frame) {
                let again = emit_request(&request);
                prop_assert_eq!(Request::parse(&again).unwrap().header, request.header);
                if let RequestBody::Mask(MaskRequest::Edit(edit)) = request.body {
                    prop_assert!(edit.iter().count() <= 16);
                }
            }
        }
    }
}
