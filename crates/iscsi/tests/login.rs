//! Logins as an initiator and its targets have them.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use iscsi::{Agreed, HEADER_BYTES, Identity, Login, LoginError, LoginResponse, Step, parse_keys};

fn login() -> Login {
    Login::new(Identity {
        initiator: "eui.525400fffe000001".to_owned(),
        target: "iqn.2026-11.example:disk".to_owned(),
        isid: [0x80, 1, 2, 3, 0, 0],
    })
}

/// A login response: flags, status, text.
fn response(flags: u8, status: [u8; 2], text: &str) -> (Vec<u8>, Vec<u8>) {
    let text = text.replace(' ', "\0").into_bytes();
    let mut header = vec![0; HEADER_BYTES];
    header[0] = 0x23;
    header[1] = flags;
    header[5..8].copy_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes()[1..]);
    header[15] = 7;
    header[27] = 41;
    header[36..38].copy_from_slice(&status);
    (header, text)
}

fn answer(login: &mut Login, flags: u8, text: &str) -> Result<(), LoginError> {
    let (header, text) = response(flags, [0, 0], text);
    login.on_response(&header, &text)
}

fn sent(login: &mut Login) -> (u8, String) {
    match login.step() {
        Step::Exchange(request, text) => {
            let header = request.to_bytes();
            assert_eq!(header[0], 0x43, "an immediate login request");
            assert_eq!(usize::from(header[7]) + (usize::from(header[6]) << 8), text.len());
            (header[1], String::from_utf8(text).unwrap().replace('\0', " "))
        }
        Step::Done(agreed) => panic!("done: {agreed:?}"),
    }
}

/// The usual first half: the target wants no password.
fn introduced() -> Login {
    let mut login = login();
    let (flags, text) = sent(&mut login);
    assert_eq!(flags, 0x81, "from security to operational");
    assert!(text.contains("TargetName=iqn.2026-11.example:disk "), "{text}");
    assert!(text.contains("InitiatorName=eui.525400fffe000001 "), "{text}");
    answer(&mut login, 0x81, "AuthMethod=None TargetPortalGroupTag=2 ").unwrap();
    login
}

fn agreed(login: &mut Login) -> Agreed {
    match login.step() {
        Step::Done(agreed) => agreed,
        Step::Exchange(request, _) => panic!("not done: {request:?}"),
    }
}

#[test]
fn both_sides_agree() {
    let mut login = introduced();
    let (flags, text) = sent(&mut login);
    assert_eq!(flags, 0x87, "from operational to full");
    assert!(text.contains("HeaderDigest=None ") && text.contains("InitialR2T=No "), "{text}");
    let keys = "HeaderDigest=None MaxRecvDataSegmentLength=8192 InitialR2T=Yes ImmediateData=No \
                MaxBurstLength=65536 FirstBurstLength=131072 MaxOutstandingR2T=1 ";
    answer(&mut login, 0x87, keys).unwrap();
    let agreed = agreed(&mut login);
    assert_eq!((agreed.send_max, agreed.burst_max, agreed.first_burst_max), (8192, 65_536, 65_536));
    assert_eq!((agreed.initial_r2t, agreed.immediate_data), (true, false));
    assert_eq!((agreed.portal_group, agreed.expected_status), (2, 42));
}

#[test]
fn a_target_may_ask_back_and_take_its_time() {
    let mut login = introduced();
    sent(&mut login);
    // More text follows, then a key of its own, before it agrees.
    answer(&mut login, 0x44, "MaxRecvDataSegmentLength=16").unwrap();
    assert_eq!(sent(&mut login), (0x04, String::new()));
    answer(&mut login, 0x04, "384 X-com.example.thing=1 ").unwrap();
    assert_eq!(sent(&mut login), (0x87, "X-com.example.thing=NotUnderstood ".to_owned()));
    answer(&mut login, 0x87, "").unwrap();
    assert_eq!(agreed(&mut login).send_max, 16_384);
}

#[test]
fn a_refusal_says_what_to_do() {
    for (status, says) in [
        ([2, 1], "password (CHAP)"),
        ([2, 2], "allow the initiator eui.525400fffe000001"),
        ([2, 3], "no target with this name"),
        ([1, 1], "moved to 10.0.0.6:3260,1"),
        ([3, 1], "not ready (status 0x0301)"),
        ([2, 0], "refuses the login (status 0x0200)"),
    ] {
        let mut login = login();
        login.step();
        let (header, text) = response(0, status, "TargetAddress=10.0.0.6:3260,1 ");
        let error = login.on_response(&header, &text).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    let mut login = introduced();
    login.step();
    let error = answer(&mut login, 0x87, "HeaderDigest=CRC32C ").unwrap_err().to_string();
    assert!(error.contains("HeaderDigest=CRC32C, which this machine can't do"), "{error}");
    assert_eq!(
        answer(&mut self::login(), 0x81, "AuthMethod=CHAP "),
        Err(LoginError::WantsPassword)
    );
}

#[test]
fn a_target_that_never_agrees_is_given_up() {
    let mut login = login();
    let end = (0..100).map(|_| answer(&mut login, 0, "")).find_map(Result::err);
    assert_eq!(end, Some(LoginError::Endless));
    let mut long = self::login();
    let end = (0..9).map(|_| answer(&mut long, 0x40, &"x".repeat(1024))).find_map(Result::err);
    assert!(matches!(end, Some(LoginError::BadText(_))), "{end:?}");
}

#[test]
fn no_prefix_of_a_response_panics() {
    let (header, text) = response(0x81, [0, 0], "AuthMethod=None MaxBurstLength=1 a=b ");
    for end in 0..header.len() {
        assert!(LoginResponse::parse(&header[..end]).is_err(), "{end}");
        assert!(login().on_response(&header[..end], &text).is_err());
    }
    for end in 0..text.len() {
        let _ = parse_keys(&text[..end]);
        let _ = login().on_response(&header, &text[..end]);
    }
    let mut other = header;
    other[0] = 0x3f;
    assert!(LoginResponse::parse(&other).unwrap_err().to_string().contains("PDU 0x3f"));
}
