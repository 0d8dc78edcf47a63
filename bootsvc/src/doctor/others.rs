//! Others whom leases name, so that PCs use them: the router, and servers of names and of time. Whoever boots does without, so
//! nothing else tells that one of them is wrong.

use super::lan::has_other;
use crate::check::{Verdict, at_once};
use crate::network::Served;
use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long an answer is waited for, each of two times.
const PATIENCE: Duration = Duration::from_millis(700);

/// Further apart, tickets of Kerberos are refused.
const CLOCKS_APART_S: u64 = 300;

/// Who has the root of all names (RFC 1035 section 4.1): whoever answers names says something to that.
const DNS_QUESTION: [u8; 17] = [b'B', b'l', 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];

/// Bytes of a message's head.
const DNS_HEADER: usize = 12;

/// Whether this computer passes on what others send through it.
const FORWARDS: &str = "/proc/sys/net/ipv4/ip_forward";

/// A client's packet of version 4 (RFC 5905 section 7.3).
const NTP_QUESTION: [u8; 48] = {
    let mut packet = [0; 48];
    packet[0] = 4 << 3 | 3;
    packet
};

/// From 1900, where NTP begins, to 1970.
const NTP_EPOCH_S: u64 = 2_208_988_800;

/// All whom these networks name.
pub(super) fn looks(networks: &[Served]) -> Vec<Verdict> {
    let leased: Vec<&Served> = networks.iter().filter(|it| it.pool.is_some()).collect();
    let all = |of: fn(&Served) -> &[Ipv4Addr]| -> BTreeSet<Ipv4Addr> {
        leased.iter().flat_map(|it| of(it).iter().copied()).collect()
    };
    let names =
        all(|it| &it.network.dns).into_iter().map(|it| thread::spawn(move || name_server(it)));
    let times =
        all(|it| &it.network.ntp).into_iter().map(|it| thread::spawn(move || time_server(it)));
    let asked: Vec<_> = names.chain(times).collect();
    let mut verdicts: Vec<Verdict> = at_once(leased, routers).into_iter().flatten().collect();
    verdicts.extend(asked.into_iter().filter_map(|it| it.join().ok()));
    verdicts
}

/// Whether somebody has the addresses of routers that PCs are told, where these are on a link of ours.
fn routers(served: &Served) -> Vec<Verdict> {
    let network = &served.network;
    if network.is_relayed {
        return Vec::new();
    }
    let by_routes =
        network.routes.iter().map(|route| route.via).filter(|via| !via.is_unspecified());
    let all: BTreeSet<Ipv4Addr> = network.router.into_iter().chain(by_routes).collect();
    all.into_iter().filter_map(|router| self::router(served, router)).collect()
}

fn router(served: &Served, router: Ipv4Addr) -> Option<Verdict> {
    let interface = &served.interface;
    if router == served.network.server || served.further.contains(&router) {
        let forwards = std::fs::read_to_string(FORWARDS).ok()?;
        return (forwards.trim() == "0").then(|| {
            Verdict::Better(format!(
                "PCs are told this computer as their router ({router}), and it passes nothing on: set net.ipv4.ip_forward=1 \
                 (sysctl), or correct router in bootlace.toml"
            ))
        });
    }
    Some(match has_other(interface, router) {
        Ok(Some(mac)) => {
            Verdict::Right(format!("the router that PCs are told is there: {router} ({mac})"))
        }
        Ok(None) => Verdict::Better(format!(
            "nobody on {interface} has {router}, the router that PCs are told: machines don't reach what lies behind it. \
             Switch it on, or correct router or routes in bootlace.toml"
        )),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Verdict::Unseen(format!("whether the router {router} is there"))
        }
        Err(error) => Verdict::Better(format!(
            "whether the router {router} is there can't be found out: {error}"
        )),
    })
}

fn name_server(server: Ipv4Addr) -> Verdict {
    let is_answer = |answer: &[u8]| {
        answer.len() >= DNS_HEADER && answer[..2] == DNS_QUESTION[..2] && answer[2] & 0x80 != 0
    };
    match ask((server, 53), &DNS_QUESTION, is_answer) {
        // SERVFAIL: those whom it asks don't answer. REFUSED says who answers names of its own only.
        Ok(answer) if answer[3] & 0xf == 2 => Verdict::Better(format!(
            "the name server {server}, which PCs are told, answers that it can find nothing out now (SERVFAIL): look whom it asks, \
             and whether it reaches them"
        )),
        Ok(_) => Verdict::Right(format!("the name server that PCs are told answers: {server}")),
        Err(why) => silent(
            &format!("the name server {server}"),
            &why,
            "machines there find no names",
            "dns",
        ),
    }
}

fn time_server(server: Ipv4Addr) -> Verdict {
    let is_answer = |answer: &[u8]| answer.len() >= NTP_QUESTION.len() && answer[0] & 7 == 4;
    let what = format!("the time server {server}");
    let answer = match ask((server, 123), &NTP_QUESTION, is_answer) {
        Ok(answer) => answer,
        Err(why) => return silent(&what, &why, "clocks of machines may be wrong", "ntp"),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    match time_of(&answer, now) {
        None => Verdict::Better(format!(
            "{what}, which PCs are told, does not know the time itself yet: clocks of machines may be wrong"
        )),
        Some(time) if time.abs_diff(now) > CLOCKS_APART_S => Verdict::Better(format!(
            "the clock of this computer and that of {what} are {} apart: machines take that server's time. Set the wrong one right",
            apart(time.abs_diff(now))
        )),
        Some(_) => Verdict::Right(format!("the time server that PCs are told answers: {server}")),
    }
}

/// That nobody answers there, what comes of it, and what helps.
fn silent(what: &str, why: &io::Error, then: &str, setting: &str) -> Verdict {
    use io::ErrorKind::{HostUnreachable, NetworkUnreachable};
    let is_beyond = matches!(why.kind(), NetworkUnreachable | HostUnreachable);
    Verdict::Better(match is_beyond {
        true => format!(
            "this computer can't reach {what}, which PCs are told ({why}), so whether it answers is not known: give this computer a \
             way to it, or correct {setting} in bootlace.toml"
        ),
        false => format!(
            "{what}, which PCs are told, does not answer this computer ({why}): {then}, unless it answers them alone. \
             Correct {setting} in bootlace.toml, or that server"
        ),
    })
}

/// `7 minutes`, `3 days`.
fn apart(seconds: u64) -> String {
    match seconds {
        0..7_200 => format!("{} minutes", seconds / 60),
        7_200..172_800 => format!("{} hours", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// What an NTP server says the time is, in seconds since 1970, if it knows; `now` says in which of NTP's 136 years we are.
fn time_of(answer: &[u8], now: u64) -> Option<u64> {
    let (leap, stratum) = (answer.first()? >> 6, *answer.get(1)?);
    let told = u32::from_be_bytes(answer.get(40..44)?.try_into().ok()?);
    let is_set = leap != 3 && (1..16).contains(&stratum) && told != 0;
    let ahead = told.wrapping_sub((now + NTP_EPOCH_S) as u32).cast_signed();
    is_set.then(|| now.saturating_add_signed(ahead.into()))
}

/// Asks twice at most. The answer, or why there is none.
fn ask(
    server: (Ipv4Addr, u16),
    question: &[u8],
    is_answer: impl Fn(&[u8]) -> bool,
) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // Others are not heard then, and a host that says that nobody listens there is.
    socket.connect(server)?;
    let mut why = io::Error::new(io::ErrorKind::TimedOut, "it is silent");
    for _ in 0..2 {
        let end = Instant::now() + PATIENCE;
        if let Err(error) = socket.send(question) {
            why = error;
            continue;
        }
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            socket.set_read_timeout(Some(left))?;
            let mut buffer = [0; 1500];
            match socket.recv(&mut buffer) {
                Ok(length) if is_answer(&buffer[..length]) => return Ok(buffer[..length].to_vec()),
                Ok(_) => why = io::Error::other("what it says is no answer"),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    why = error;
                    break;
                }
            }
        }
    }
    Err(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_that_is_told_is_read() {
        let answer = |first: u8, stratum: u8, seconds: u32| {
            let mut answer = [0; 48];
            (answer[0], answer[1]) = (first, stratum);
            answer[40..44].copy_from_slice(&seconds.to_be_bytes());
            answer
        };
        let now = 1_795_874_403;
        let told = (now + NTP_EPOCH_S) as u32;
        assert_eq!(time_of(&answer(0x24, 2, told + 7), now), Some(now + 7));
        assert_eq!(time_of(&answer(0x24, 2, told - 7), now), Some(now - 7));
        // Not set; or told to ask less often.
        assert_eq!(time_of(&answer(0xe4, 2, told), now), None);
        assert_eq!(time_of(&answer(0x24, 0, told), now), None);
        // In 2036 the count begins anew.
        let later = (1 << 32) - NTP_EPOCH_S + 5;
        assert_eq!(time_of(&answer(0x24, 2, u32::MAX), later), Some(later - 6));
        for length in 0..44 {
            assert_eq!(time_of(&answer(0x24, 2, told)[..length], now), None);
        }
    }

    #[test]
    fn who_does_not_listen_is_told_apart() {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = server.local_addr().unwrap().port();
        let asked = thread::spawn(move || {
            ask((Ipv4Addr::LOCALHOST, port), b"who?", |answer| answer == b"me")
        });
        let mut buffer = [0; 9];
        let (length, client) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"who?");
        // What is none does not hide the answer behind it.
        for answer in [&b"you"[..], b"me"] {
            server.send_to(answer, client).unwrap();
        }
        assert_eq!(asked.join().unwrap().unwrap(), b"me");
        drop(server);
        let refused = ask((Ipv4Addr::LOCALHOST, port), b"who?", |_| true).unwrap_err();
        assert!(refused.to_string().contains("refused"), "{refused}");
    }
}
