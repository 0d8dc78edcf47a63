//! The login as a conversation: requests out, responses in, until both have agreed.

use crate::pdu::{LoginRequest, LoginResponse, Malformed, Phase};
use crate::text::{BadText, TEXT_MAX, emit_keys, parse_keys};
use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

/// Responses that a login may take; real ones take two or three.
const RESPONSES_MAX: u32 = 16;

/// Largest data segment that we take: what other initiators of Linux offer.
const RECEIVE_MAX: u32 = 262_144;
const BURST_MAX: u32 = 1 << 20;
const FIRST_BURST_MAX: u32 = 262_144;

// Classes of a status, and details of an initiator's error (RFC 7143 §11.13.5).
const SUCCESS: u8 = 0;
const REDIRECTION: u8 = 1;
const INITIATOR_ERROR: u8 = 2;
const TARGET_ERROR: u8 = 3;
const AUTHENTICATION_FAILED: u8 = 1;
const NOT_AUTHORIZED: u8 = 2;
const NOT_FOUND: u8 = 3;
const TARGET_REMOVED: u8 = 4;
const TOO_MANY_CONNECTIONS: u8 = 6;

/// Who wants to log in where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name of the initiator.
    pub initiator: String,
    /// Name of the target.
    pub target: String,
    /// Names the session among those of the initiator. A login with the name of a session that exists ends that one.
    pub isid: [u8; 6],
}

/// What both sides agreed on (RFC 7143 §13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// Largest data segment in bytes that we take.
    pub receive_max: u32,
    /// Largest data segment in bytes that the target takes.
    pub send_max: u32,
    /// No data before the target asks for it.
    pub initial_r2t: bool,
    /// A command may carry data.
    pub immediate_data: bool,
    /// Bytes of a data sequence.
    pub burst_max: u32,
    /// Bytes that may be sent without being asked for; at most `burst_max`.
    pub first_burst_max: u32,
    /// The target's portal group.
    pub portal_group: u16,
    /// Number that the target's next status will have.
    pub expected_status: u32,
}

impl Agreed {
    /// What holds for what nobody mentions.
    const DEFAULT: Self = Self {
        receive_max: RECEIVE_MAX,
        send_max: 8192,
        initial_r2t: true,
        immediate_data: true,
        burst_max: 262_144,
        first_burst_max: 65_536,
        portal_group: 1,
        expected_status: 0,
    };
}

/// Why the login failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// The answer is no login response.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The text of a response is no list of keys.
    #[error(transparent)]
    BadText(#[from] BadText),
    /// The target wants a password.
    #[error(
        "it asks for a password (CHAP), which machines don't have: let this initiator in without one"
    )]
    WantsPassword,
    /// The initiator is not in the target's list.
    #[error("it does not let this machine in: allow the initiator {0}")]
    NotAllowed(String),
    /// The portal has no such target.
    #[error("there is no target with this name")]
    NoTarget,
    /// The target is elsewhere.
    #[error("the target has moved to {0}: use that address")]
    Moved(String),
    /// The target can't at the moment.
    #[error("the target has no room or is not ready (status {0:#06x})")]
    NotReady(u16),
    /// The target refuses for another reason.
    #[error("the target refuses the login (status {0:#06x})")]
    Refused(u16),
    /// The target's answer to an offer can't be accepted.
    #[error("the target answers {key}={value}, which this machine can't do")]
    Unacceptable {
        /// The key that was offered.
        key: String,
        /// What the target said.
        value: String,
    },
    /// The login leads nowhere.
    #[error("the login never ends")]
    Endless,
}

impl LoginError {
    /// Whether a later try may succeed though nobody changes anything.
    pub const fn is_passing(&self) -> bool {
        matches!(self, Self::NotReady(_))
    }
}

/// What the caller of a [`Login`] does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this request with its text, and hand in the response.
    Exchange(LoginRequest, Vec<u8>),
    /// Both sides have agreed on this: the connection takes commands.
    Done(Agreed),
}

/// A login of an initiator, without passwords.
///
/// Call [`step`](Self::step); after [`Step::Exchange`] send the request with its text, receive one response, hand
/// it to [`on_response`](Self::on_response), and call `step` again, until it is [`Step::Done`].
/// After an error the connection is of no use any more; whether another one may be is told by
/// [`LoginError::is_passing`].
pub struct Login {
    identity: Identity,
    phase: Phase,
    has_offered: bool,
    /// Text of responses that are continued.
    text: Vec<u8>,
    /// Answers to keys that we did not offer.
    replies: Vec<String>,
    is_continued: bool,
    agreed: Agreed,
    n_responses: u32,
    tsih: u16,
}

impl Login {
    /// A login that has not begun.
    pub const fn new(identity: Identity) -> Self {
        Self {
            identity,
            phase: Phase::Security,
            has_offered: false,
            text: Vec::new(),
            replies: Vec::new(),
            is_continued: false,
            agreed: Agreed::DEFAULT,
            n_responses: 0,
            tsih: 0,
        }
    }

    /// What to do now. Call it once for each request: it takes what there is to say out of the login.
    pub fn step(&mut self) -> Step {
        let next = match self.phase {
            Phase::Full => return Step::Done(self.agreed),
            Phase::Security => Phase::Operational,
            Phase::Operational => Phase::Full,
        };
        let text = self.take_text();
        let request = LoginRequest {
            now: self.phase,
            next: Some(next).filter(|_| !self.is_continued),
            isid: self.identity.isid,
            tsih: self.tsih,
            expected_status: self.agreed.expected_status,
            text_bytes: text.len(),
        };
        Step::Exchange(request, text)
    }

    fn take_text(&mut self) -> Vec<u8> {
        if self.is_continued {
            return Vec::new();
        }
        let replies = core::mem::take(&mut self.replies);
        let mut keys: Vec<(&str, &str)> =
            replies.iter().map(|key| (key.as_str(), "NotUnderstood")).collect();
        if !self.has_offered {
            self.has_offered = true;
            match self.phase {
                Phase::Security => keys.extend([
                    ("InitiatorName", self.identity.initiator.as_str()),
                    ("TargetName", self.identity.target.as_str()),
                    ("SessionType", "Normal"),
                    ("AuthMethod", "None"),
                ]),
                Phase::Operational | Phase::Full => keys.extend(OFFERS),
            }
        }
        emit_keys(&keys)
    }

    /// The target has answered with this header ([`HEADER_BYTES`](crate::HEADER_BYTES)) and this text; the padding of the
    /// text may be there or not.
    ///
    /// # Errors
    /// The target refuses, or the answer makes no sense: the connection is of no use any more.
    pub fn on_response(&mut self, header: &[u8], text: &[u8]) -> Result<(), LoginError> {
        let response = LoginResponse::parse(header)?;
        self.n_responses += 1;
        if self.n_responses > RESPONSES_MAX {
            return Err(LoginError::Endless);
        }
        if self.text.len() + text.len() > TEXT_MAX {
            return Err(BadText.into());
        }
        self.text.extend(text);
        self.check_status(response.status)?;
        self.agreed.expected_status = response.status_number.wrapping_add(1);
        self.tsih = response.tsih;
        self.is_continued = response.is_continued;
        if response.is_continued {
            return Ok(());
        }
        let text = core::mem::take(&mut self.text);
        for (key, value) in parse_keys(&text)? {
            self.on_key(key, value)?;
        }
        // A phase can't be left that we are not in, and a login never goes back.
        if let Some(next) = response.next
            && response.now == self.phase
        {
            let is_forward = self.phase == Phase::Security || next == Phase::Full;
            if !is_forward || next == Phase::Security {
                return Err(LoginError::Endless);
            }
            // Without the second phase the defaults hold.
            self.phase = next;
            self.has_offered = false;
        }
        if self.phase == Phase::Full {
            self.agreed.first_burst_max = self.agreed.first_burst_max.min(self.agreed.burst_max);
            // The kernel numbers a session that has started over.
            self.tsih = response.tsih;
        }
        Ok(())
    }

    fn check_status(&self, (class, detail): (u8, u8)) -> Result<(), LoginError> {
        let status = u16::from_be_bytes([class, detail]);
        Err(match (class, detail) {
            (SUCCESS, _) => return Ok(()),
            (REDIRECTION, _) => {
                let keys = parse_keys(&self.text).unwrap_or_default();
                let address = keys.iter().find(|(key, _)| *key == "TargetAddress");
                LoginError::Moved(address.map_or("another address", |(_, value)| value).to_owned())
            }
            (INITIATOR_ERROR, AUTHENTICATION_FAILED) => LoginError::WantsPassword,
            (INITIATOR_ERROR, NOT_AUTHORIZED) => {
                LoginError::NotAllowed(self.identity.initiator.clone())
            }
            (INITIATOR_ERROR, NOT_FOUND | TARGET_REMOVED) => LoginError::NoTarget,
            (INITIATOR_ERROR, TOO_MANY_CONNECTIONS) | (TARGET_ERROR, _) => {
                LoginError::NotReady(status)
            }
            _ => LoginError::Refused(status),
        })
    }

    fn on_key(&mut self, key: &str, value: &str) -> Result<(), LoginError> {
        let unacceptable =
            || LoginError::Unacceptable { key: key.to_owned(), value: value.to_owned() };
        let number = || value.parse::<u32>().map_err(|_| unacceptable());
        let is_yes = || match value {
            "Yes" => Ok(true),
            "No" => Ok(false),
            _ => Err(unacceptable()),
        };
        // RFC 7143 §13.13 and §13.14: 512 to 2^24-1.
        let size = || {
            number().and_then(|bytes| match bytes {
                512..=0x00ff_ffff => Ok(bytes),
                _ => Err(unacceptable()),
            })
        };
        let agreed = &mut self.agreed;
        match key {
            "AuthMethod" if value == "None" => {}
            "AuthMethod" => return Err(LoginError::WantsPassword),
            "MaxRecvDataSegmentLength" => agreed.send_max = size()?,
            "InitialR2T" => agreed.initial_r2t = is_yes()?,
            "ImmediateData" => agreed.immediate_data = is_yes()?,
            "MaxBurstLength" => agreed.burst_max = size()?.min(BURST_MAX),
            "FirstBurstLength" => agreed.first_burst_max = size()?.min(FIRST_BURST_MAX),
            "TargetPortalGroupTag" => {
                agreed.portal_group = value.parse().map_err(|_| unacceptable())?;
            }
            "HeaderDigest" | "DataDigest" if value != "None" => return Err(unacceptable()),
            "DataPDUInOrder" | "DataSequenceInOrder" if !is_yes()? => return Err(unacceptable()),
            "ErrorRecoveryLevel" if number()? != 0 => return Err(unacceptable()),
            "TargetAlias" | "TargetAddress" | "TargetName" | "InitiatorName" | "SessionType" => {}
            _ if OFFERS.iter().any(|(offered, _)| *offered == key) => {}
            // An answer that nobody waits for is none to an answer.
            _ if value == "NotUnderstood" => {}
            _ => self.replies.push(key.chars().take(63).collect()),
        }
        Ok(())
    }
}

const OFFERS: [(&str, &str); 13] = [
    ("HeaderDigest", "None"),
    ("DataDigest", "None"),
    ("MaxRecvDataSegmentLength", "262144"),
    ("InitialR2T", "No"),
    ("ImmediateData", "Yes"),
    ("MaxBurstLength", "1048576"),
    ("FirstBurstLength", "262144"),
    ("MaxOutstandingR2T", "1"),
    ("MaxConnections", "1"),
    ("DataPDUInOrder", "Yes"),
    ("DataSequenceInOrder", "Yes"),
    ("ErrorRecoveryLevel", "0"),
    ("DefaultTime2Retain", "0"),
];
