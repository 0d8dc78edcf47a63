//! Dates in a certificate.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// From when until when a certificate is good (RFC 5280, 4.1).
pub(super) fn validity(certificate: &[u8]) -> Option<(Timestamp, Timestamp)> {
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
    let (from_tag, from, rest) = any(validity)?;
    let (end_tag, end, _) = any(rest)?;
    let time = |tag, text| time(tag, std::str::from_utf8(text).ok()?);
    Some((time(from_tag, from)?, time(end_tag, end)?))
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

    #[test]
    fn half_a_certificate_has_no_end() {
        let mut about = CertificateParams::new(vec!["boot.lab.example".to_owned()]).unwrap();
        (about.not_before, about.not_after) =
            (date_time_ymd(2020, 2, 1), date_time_ymd(2052, 3, 9));
        let whole = about.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let whole = whole.der();
        let day = |day: &str| day.parse::<Timestamp>().unwrap();
        let told = (day("2020-02-01T00:00:00Z"), day("2052-03-09T00:00:00Z"));
        assert_eq!(validity(whole), Some(told));
        assert!((0..whole.len()).all(|n| validity(&whole[..n]).is_none()));
    }
}
