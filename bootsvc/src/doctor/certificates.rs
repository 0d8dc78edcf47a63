//! Until when certificates are good.

use super::Look;
use crate::check::Verdict;
use crate::config::Config;
use crate::paths::Paths;
use crate::web_tls::WebTls;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Somebody must see to it by then.
const SOON_DAYS: i64 = 21;

/// All that this site has.
pub(super) fn looks(paths: &Paths, config: &Config) -> Vec<Look> {
    let now = Timestamp::now();
    let mut files: Vec<(PathBuf, &str)> = Vec::new();
    // What contradicts itself there is for check to tell.
    match WebTls::of(&config.web, paths, config.web.listen) {
        Ok(WebTls::Files(tls)) => files.push((tls.certificate, "put a new one in its place")),
        Ok(WebTls::Own(folder)) => {
            let renewed = "the boot server renews it by itself, and has not: restart it, and look at bootlace logs";
            let page = folder.join("page.pem");
            // It is made at the first start.
            if !matches!(page.try_exists(), Ok(false)) {
                files.push((page, renewed));
                files.push((
                    folder.join("authority.pem"),
                    "move its folder away while the boot server is stopped: it makes a new one, which browsers must be told to trust",
                ));
            }
        }
        Ok(WebTls::Off) | Err(_) => {}
    }
    if let Some(tls) = &config.storage.nbd_tls {
        files.push((tls.certificate.clone(), "put a new one in its place"));
        let authorities = [&tls.machine_ca, &tls.client_ca].into_iter().flatten();
        files.extend(
            authorities
                .map(|ca| (ca.clone(), "put a new one in its place, and restart both servers")),
        );
    }
    let verdicts = files.iter().map(|(path, remedy)| look(path, remedy, now));
    verdicts.map(Look::at_servers).collect()
}

fn look(path: &Path, remedy: &str, now: Timestamp) -> Verdict {
    let name = path.display();
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            return Verdict::Unseen(format!("until when {name} is good"));
        }
        Err(error) => {
            return Verdict::Wrong(format!("the certificate {name} can't be read: {error}"));
        }
    };
    // Of a chain the first that ends matters.
    let ends: Option<Vec<Timestamp>> = CertificateDer::pem_slice_iter(&bytes)
        .map(|certificate| ends(&certificate.ok()?))
        .collect();
    let Some(end) = ends.and_then(|ends| ends.into_iter().min()) else {
        return Verdict::Wrong(format!("{name} holds no certificate that is understood: {remedy}"));
    };
    let days = (end.as_second() - now.as_second()).div_euclid(86_400);
    let day = end.to_zoned(TimeZone::system()).date();
    match days {
        i64::MIN..0 => Verdict::Wrong(format!(
            "the certificate {name} has expired on {day}: {remedy}. If that day is yet to come, the clock of this computer is wrong"
        )),
        0..SOON_DAYS => Verdict::Better(format!(
            "the certificate {name} expires on {day}, in {days} days: {remedy}"
        )),
        _ => Verdict::Right(format!("certificate {name}: good until {day}")),
    }
}

/// The end of a certificate's validity (RFC 5280, 4.1).
fn ends(certificate: &[u8]) -> Option<Timestamp> {
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    let (whole, _) = element(certificate, SEQUENCE)?;
    let (mut rest, _) = element(whole, SEQUENCE)?;
    if let Some((_, after)) = element(rest, VERSION) {
        rest = after;
    }
    // Serial number, algorithm, issuer.
    for _ in 0..3 {
        rest = any(rest)?.2;
    }
    let (validity, _) = element(rest, SEQUENCE)?;
    let (_, _, rest) = any(validity)?;
    let (tag, end, _) = any(rest)?;
    time(tag, std::str::from_utf8(end).ok()?)
}

/// `YYMMDDhhmmssZ` in this century's first half or the last one's second, or `YYYYMMDDhhmmssZ`.
fn time(tag: u8, text: &str) -> Option<Timestamp> {
    const UTC_TIME: u8 = 0x17;
    const GENERALIZED_TIME: u8 = 0x18;
    let full = match tag {
        UTC_TIME if text.get(..2)? < "50" => format!("20{text}"),
        UTC_TIME => format!("19{text}"),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let time = DateTime::strptime("%Y%m%d%H%M%S", full.strip_suffix('Z')?).ok()?;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

/// What is in the element with this tag, and what is behind it.
fn element(bytes: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = any(bytes)?;
    (tag == wanted).then_some((content, rest))
}

/// Tag and content of an element (DER), and what is behind it.
fn any(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // A certificate has less than 16 MiB.
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    /// A certificate that is good until this day.
    fn until(year: i32, month: u8, day: u8) -> String {
        let mut about = CertificateParams::new(vec!["boot.lab.example".to_owned()]).unwrap();
        about.not_after = date_time_ymd(year, month, day);
        about.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
    }

    #[test]
    fn the_day_is_told_before_it_has_come_and_after() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("page.pem");
        let now: Timestamp = "2026-11-28T12:00:00Z".parse().unwrap();
        let told = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let verdict = look(&path, "do this", now);
            let (tag, text) = verdict.in_words();
            format!("{tag} {text}")
        };
        let good = told(&until(2052, 3, 9));
        assert!(good.starts_with("ok ") && good.contains("2052-03-0"), "{good}");
        let soon = told(&until(2026, 12, 8));
        assert!(soon.starts_with("note ") && soon.contains("in 9 days: do this"), "{soon}");
        // The first of a chain that ends.
        let over = told(&(until(2030, 1, 1) + &until(2026, 11, 27)));
        assert!(over.starts_with("wrong ") && over.contains("has expired"), "{over}");
        assert!(told("").starts_with("wrong "), "that there is none is not right");
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(look(&path, "do this", now), Verdict::Wrong(_)));
    }

    #[test]
    fn half_a_certificate_has_no_end() {
        let pem = until(2030, 1, 1);
        let whole = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        assert!(ends(&whole).is_some());
        assert!((0..whole.len()).all(|n| ends(&whole[..n]).is_none()));
    }
}
