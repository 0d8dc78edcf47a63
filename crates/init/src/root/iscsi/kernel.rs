//! The kernel's iSCSI initiator, over netlink (`include/scsi/iscsi_if.h`): sessions, connections, and the
//! PDUs of a login, which the kernel numbers and passes on.

use rustix::fd::{AsRawFd, OwnedFd};
use rustix::net::netlink::{ISCSI, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto, socket_with,
    sockopt,
};
use std::collections::VecDeque;
use std::io;
use std::net::TcpStream;
use std::time::Duration;

/// Largest message of the kernel that is read: one with the PDU of a login.
const MESSAGE_MAX: usize = 32 << 10;

/// A target may need seconds for a login.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the kernel tells of PDUs and of errors.
const GROUP_INITIATOR: u32 = 1;

// Requests.
const CREATE_SESSION: u32 = 11;
const CREATE_CONNECTION: u32 = 13;
const BIND_CONNECTION: u32 = 15;
const SET_PARAMETER: u32 = 16;
const START_CONNECTION: u32 = 17;
const STOP_CONNECTION: u32 = 18;
const SEND_PDU: u32 = 19;
// Events.
const RECEIVED_PDU: u32 = 101;
const CONNECTION_ERROR: u32 = 102;
const REQUEST_FAILED: u32 = 103;

/// Keep the session, and all requests with it.
const STOP_RECOVER: u32 = 3;

/// The first and only connection of a session.
const CONNECTION: u32 = 0;

/// `struct iscsi_uevent`: kind, error, transport, 24 bytes of request, 16 bytes of answer.
const EVENT_BYTES: usize = 56;
const REQUEST_BYTES: usize = 24;
const ANSWER_AT: usize = 40;
const HEADER_BYTES: usize = 16;

/// Requests that wait for the target at once, and the same for one disk.
const COMMANDS_MAX: u16 = 128;
const QUEUE_DEPTH: u16 = 64;

/// A parameter of a session or a connection (`enum iscsi_param`).
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(crate) enum Parameter {
    ReceiveMax = 0,
    SendMax = 1,
    HeaderDigest = 2,
    DataDigest = 3,
    InitialR2t = 4,
    R2tMax = 5,
    ImmediateData = 6,
    FirstBurstMax = 7,
    BurstMax = 8,
    PduInOrder = 9,
    SequenceInOrder = 10,
    RecoveryLevel = 11,
    ExpectedStatus = 14,
    TargetName = 15,
    PortalGroup = 16,
    PersistentAddress = 17,
    PersistentPort = 18,
    RecoveryTimeout = 19,
    InitiatorName = 34,
}

/// Something that the kernel tells.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    Pdu(Vec<u8>),
    ConnectionLost { session: u32 },
    Answer { kind: u32, error: i32, words: [u32; 2] },
}

/// The kernel's initiator for TCP. The order is: [`create_session`](Self::create_session) once; then for each
/// connection [`bind`](Self::bind), [`exchange`](Self::exchange) for each step of the login, [`set`](Self::set)
/// for each parameter, and [`start`](Self::start). After [`wait_for_loss`](Self::wait_for_loss), or a login that
/// failed, [`stop`](Self::stop), and the next connection.
pub(crate) struct Kernel {
    socket: OwnedFd,
    transport: u64,
    pdus: VecDeque<Vec<u8>>,
}

impl Kernel {
    /// Opens it; the module `iscsi_tcp` must be there.
    pub(crate) fn open() -> io::Result<Self> {
        let transport = crate::sysfs::number("/sys/class/iscsi_transport/tcp/handle")
            .ok_or_else(|| io::Error::other("this kernel has no iSCSI over TCP"))?;
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(ISCSI),
        )?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUP_INITIATOR))?;
        Ok(Self { socket, transport, pdus: VecDeque::new() })
    }

    /// Makes a session; returns its number and that of its SCSI host.
    pub(crate) fn create_session(&mut self) -> io::Result<(u32, u32)> {
        let mut request = [0; REQUEST_BYTES];
        // The first command has number 0, as the login before it.
        request[4..6].copy_from_slice(&COMMANDS_MAX.to_ne_bytes());
        request[6..8].copy_from_slice(&QUEUE_DEPTH.to_ne_bytes());
        let [session, host] = self.request(CREATE_SESSION, request, &[])?;
        self.request(CREATE_CONNECTION, words(&[session, CONNECTION]), &[])?;
        Ok((session, host))
    }

    /// Hands the kernel a connection to the target, for the login.
    pub(crate) fn bind(&mut self, session: u32, stream: &TcpStream) -> io::Result<()> {
        let fd = u32::try_from(stream.as_raw_fd()).map_err(io::Error::other)?;
        let mut request: [u8; REQUEST_BYTES] = words(&[session, CONNECTION]);
        request[8..16].copy_from_slice(&u64::from(fd).to_ne_bytes());
        request[16..20].copy_from_slice(&1u32.to_ne_bytes());
        self.pdus.clear();
        self.done(BIND_CONNECTION, request, &[])
    }

    pub(crate) fn set(
        &mut self,
        session: u32,
        parameter: Parameter,
        value: &str,
    ) -> io::Result<()> {
        let text = [value.as_bytes(), b"\0"].concat();
        let length = u32::try_from(text.len()).map_err(io::Error::other)?;
        let request = words(&[session, CONNECTION, parameter as u32, length]);
        self.done(SET_PARAMETER, request, &text)
            .map_err(|error| io::Error::other(format!("{parameter:?}={value}: {error}")))
    }

    /// Sends a PDU and waits for the next one of the target.
    pub(crate) fn exchange(
        &mut self,
        session: u32,
        header: &[u8],
        text: &[u8],
    ) -> io::Result<Vec<u8>> {
        let length = |part: &[u8]| u32::try_from(part.len()).map_err(io::Error::other);
        let request = words(&[session, CONNECTION, length(header)?, length(text)?]);
        self.done(SEND_PDU, request, &[header, text].concat())?;
        loop {
            if let Some(pdu) = self.pdus.pop_front() {
                return Ok(pdu);
            }
            for event in self.receive(Some(ANSWER_TIMEOUT))? {
                match event {
                    Event::Pdu(pdu) => self.pdus.push_back(pdu),
                    Event::ConnectionLost { session: lost } if lost == session => {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    Event::ConnectionLost { .. } | Event::Answer { .. } => {}
                }
            }
        }
    }

    /// Lets the kernel send commands.
    pub(crate) fn start(&mut self, session: u32) -> io::Result<()> {
        self.done(START_CONNECTION, words(&[session, CONNECTION]), &[])
    }

    /// Takes the connection away; requests wait for another one.
    pub(crate) fn stop(&mut self, session: u32) -> io::Result<()> {
        let mut request: [u8; REQUEST_BYTES] = words(&[session, CONNECTION]);
        request[16..20].copy_from_slice(&STOP_RECOVER.to_ne_bytes());
        self.request(STOP_CONNECTION, request, &[]).map(drop)
    }

    /// Waits until the kernel says that the session has lost its connection.
    pub(crate) fn wait_for_loss(&self, session: u32) -> io::Result<()> {
        loop {
            for event in self.receive(None)? {
                if event == (Event::ConnectionLost { session }) {
                    return Ok(());
                }
            }
        }
    }

    /// A request whose answer is an error number.
    fn done(&mut self, kind: u32, request: [u8; REQUEST_BYTES], data: &[u8]) -> io::Result<()> {
        let [code, _] = self.request(kind, request, data)?;
        match code.cast_signed() {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(error.saturating_neg())),
        }
    }

    fn request(
        &mut self,
        kind: u32,
        request: [u8; REQUEST_BYTES],
        data: &[u8],
    ) -> io::Result<[u32; 2]> {
        let message = message(kind, self.transport, request, data)?;
        sendto(&self.socket, &message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        loop {
            for event in self.receive(Some(ANSWER_TIMEOUT))? {
                match event {
                    Event::Answer { kind: REQUEST_FAILED, error, .. } => {
                        return Err(io::Error::from_raw_os_error(error.saturating_neg()));
                    }
                    Event::Answer { kind: answered, words, .. } if answered == kind => {
                        return Ok(words);
                    }
                    Event::Pdu(pdu) => self.pdus.push_back(pdu),
                    Event::ConnectionLost { .. } | Event::Answer { .. } => {}
                }
            }
        }
    }

    fn receive(&self, timeout: Option<Duration>) -> io::Result<Vec<Event>> {
        sockopt::set_socket_timeout(&self.socket, sockopt::Timeout::Recv, timeout)?;
        let mut buffer = vec![0; MESSAGE_MAX];
        let (received, _) = recv(&self.socket, buffer.as_mut_slice(), RecvFlags::empty())?;
        Ok(parse_events(&buffer[..received.min(MESSAGE_MAX)]))
    }
}

fn words(words: &[u32]) -> [u8; REQUEST_BYTES] {
    let mut request = [0; REQUEST_BYTES];
    for (place, word) in request.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    request
}

fn message(
    kind: u32,
    transport: u64,
    request: [u8; REQUEST_BYTES],
    data: &[u8],
) -> io::Result<Vec<u8>> {
    let length =
        u32::try_from(HEADER_BYTES + EVENT_BYTES + data.len()).map_err(io::Error::other)?;
    let netlink_kind = u16::try_from(kind).map_err(io::Error::other)?;
    let mut bytes = Vec::with_capacity(length as usize);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(netlink_kind.to_ne_bytes());
    // Flags, sequence number and sender mean nothing here.
    bytes.extend([0; 10]);
    bytes.extend(kind.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(transport.to_ne_bytes());
    bytes.extend(request);
    bytes.extend([0; EVENT_BYTES - ANSWER_AT]);
    bytes.extend(data);
    Ok(bytes)
}

/// Splits a datagram of the kernel. A message that does not fit ends the list.
fn parse_events(mut bytes: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some(length) = word(bytes, 0).and_then(|length| usize::try_from(length).ok()) {
        let Some(body) = bytes.get(HEADER_BYTES..length) else { break };
        let Some(event) = parse_event(body) else { break };
        events.push(event);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    events
}

fn parse_event(body: &[u8]) -> Option<Event> {
    let words = [word(body, ANSWER_AT)?, word(body, ANSWER_AT + 4)?];
    Some(match word(body, 0)? {
        RECEIVED_PDU => Event::Pdu(body.get(EVENT_BYTES..)?.to_vec()),
        CONNECTION_ERROR => Event::ConnectionLost { session: words[0] },
        kind => Event::Answer { kind, error: word(body, 4)?.cast_signed(), words },
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_as_the_kernel_reads_it() {
        let bytes = message(SET_PARAMETER, 9, words(&[1, 0, 15, 2]), b"x\0").unwrap();
        assert_eq!(bytes.len(), 16 + 56 + 2);
        assert_eq!(word(&bytes, 0), Some(74));
        assert_eq!(bytes[4..6], 16u16.to_ne_bytes());
        assert_eq!((word(&bytes, 16), word(&bytes, 24)), (Some(16), Some(9)));
        assert_eq!((word(&bytes, 32), word(&bytes, 40)), (Some(1), Some(15)));
        assert_eq!(bytes[72..], *b"x\0");
    }

    #[test]
    fn events_are_told_apart() {
        let event = |kind: u32, answer: [u32; 2], data: &[u8]| {
            let mut bytes = message(kind, 0, [0; REQUEST_BYTES], data).unwrap();
            bytes[56..60].copy_from_slice(&answer[0].to_ne_bytes());
            bytes[60..64].copy_from_slice(&answer[1].to_ne_bytes());
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let bytes = [
            event(RECEIVED_PDU, [1, 0], b"pdu"),
            event(CONNECTION_ERROR, [3, 0], &[]),
            event(CREATE_SESSION, [1, 2], &[]),
        ]
        .concat();
        let answer = Event::Answer { kind: CREATE_SESSION, error: 0, words: [1, 2] };
        let lost = Event::ConnectionLost { session: 3 };
        assert_eq!(parse_events(&bytes), [Event::Pdu(b"pdu".to_vec()), lost, answer]);
        for end in 0..bytes.len() {
            assert!(parse_events(&bytes[..end]).len() < 3);
        }
        assert!(parse_events(&[0; 128]).is_empty());
    }
}
