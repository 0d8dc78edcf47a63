//! Certificates of this site: until when they are good, and whom they name.

mod der;

use crate::config::Config;
use crate::paths::Paths;
use crate::web_tls::{PAGE_CERTIFICATE, WebTls};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use model::FindingKind;
use rustls::client::verify_server_name;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use service::{Certificate, Service};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Somebody must see to it by then: who gives certificates may need weeks.
const SOON_DAYS: i64 = 30;

/// How often the boot server looks. The files are few and short, and one that was put in place a minute ago is in use.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// Who looks at a certificate, and refuses the server if it is no good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Browsers,
    /// They would get no disk.
    Machines,
    /// Other clients of NBD.
    Clients,
}

/// A file with a certificate that is in use.
#[derive(Clone, Debug)]
pub(crate) struct Used {
    pub(crate) path: PathBuf,
    pub(crate) by: By,
    /// What helps once it is no good any more.
    pub(crate) remedy: &'static str,
}

/// How a certificate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Good(Date),
    /// It ends on that day, in so many days.
    Soon(Date, i64),
    Over(Date),
    NotYet(Date),
    /// This user may not read it.
    Unseen,
    Unreadable(String),
    NotUnderstood,
}

/// All that this site has. The web page is at `listen`.
pub(crate) fn used(paths: &Paths, config: &Config, listen: SocketAddr) -> Vec<Used> {
    let mut files = Vec::new();
    let by_browsers = |path, remedy| Used { path, by: By::Browsers, remedy };
    // What contradicts itself there is for check to tell.
    match WebTls::of(&config.web, paths, listen) {
        Ok(WebTls::Files(tls)) => {
            files.push(by_browsers(tls.certificate, "put a new one in its place"));
        }
        Ok(WebTls::Own(folder)) => {
            let renewed = "the boot server renews it by itself, and has not: restart it, and look at bootlace logs";
            let page = folder.join(PAGE_CERTIFICATE);
            // It is made at the first start.
            if !matches!(page.try_exists(), Ok(false)) {
                files.push(by_browsers(page, renewed));
                files.push(by_browsers(
                    folder.join("authority.pem"),
                    "move its folder away while the boot server is stopped: it makes a new one, which browsers must be told to trust",
                ));
            }
        }
        Ok(WebTls::Off) | Err(_) => {}
    }
    if let Some(tls) = &config.storage.nbd_tls {
        let by = if tls.machine_ca.is_some() { By::Machines } else { By::Clients };
        let remedy = "put a new one in its place";
        files.push(Used { path: tls.certificate.clone(), by, remedy });
        let authorities = [&tls.machine_ca, &tls.client_ca].into_iter().flatten();
        let remedy = "put a new one in its place, and restart both servers";
        files.extend(authorities.map(|ca| Used { path: ca.clone(), by, remedy }));
    }
    files
}

impl Used {
    /// How it is now, and when it ends.
    pub(crate) fn look(&self, now: Timestamp) -> (How, Option<Timestamp>) {
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                return (How::Unseen, None);
            }
            Err(error) => return (How::Unreadable(error.to_string()), None),
        };
        let dates: Option<Vec<(Timestamp, Timestamp)>> = CertificateDer::pem_slice_iter(&bytes)
            .map(|certificate| der::validity(&certificate.ok()?))
            .collect();
        // Of a chain the last that begins and the first that ends matter.
        let from = dates.iter().flatten().map(|(from, _)| *from).max();
        let end = dates.iter().flatten().map(|(_, end)| *end).min();
        let (Some(from), Some(end)) = (from, end) else { return (How::NotUnderstood, None) };
        let day = |time: Timestamp| time.to_zoned(TimeZone::system()).date();
        let days = (end.as_second() - now.as_second()).div_euclid(86_400);
        let how = match days {
            i64::MIN..0 => How::Over(day(end)),
            _ if from > now => How::NotYet(day(from)),
            0..SOON_DAYS => How::Soon(day(end), days),
            _ => How::Good(day(end)),
        };
        (how, Some(end))
    }

    /// What is wrong, for people; `None`: nothing that is known.
    pub(crate) fn trouble(&self, how: &How) -> Option<String> {
        let name = self.path.display();
        Some(match how {
            How::Good(_) | How::Unseen => return None,
            How::Soon(day, days) => {
                format!("the certificate {name} expires on {day}, in {days} days")
            }
            How::Over(day) => format!("the certificate {name} has expired on {day}"),
            How::NotYet(day) => format!("the certificate {name} is not valid before {day}"),
            How::Unreadable(error) => format!("the certificate {name} can't be read: {error}"),
            How::NotUnderstood => format!("{name} holds no certificate that is understood"),
        })
    }

    fn finding(&self, how: &How) -> Option<(FindingKind, String)> {
        let told = self.trouble(how)?;
        if !matches!(how, How::Over(_) | How::NotYet(_)) {
            return Some((FindingKind::CertificateTrouble, upper_first(&told)));
        }
        Some(match self.by {
            By::Browsers => {
                (FindingKind::WebCertificateInvalid, format!("Browsers refuse the page: {told}"))
            }
            By::Machines => {
                (FindingKind::NbdCertificateInvalid, format!("No machine gets a disk: {told}"))
            }
            By::Clients => {
                (FindingKind::NbdCertificateInvalid, format!("NBD clients are refused: {told}"))
            }
        })
    }
}

fn upper_first(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Those of the names that are not in the first certificate of a file, if it can be read.
pub(crate) fn lacking<'a>(path: &Path, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let read = CertificateDer::pem_file_iter(path).ok().and_then(|mut all| all.next()?.ok());
    let Some(certificate) = read else { return Vec::new() };
    let Ok(parsed) = ParsedCertificate::try_from(&certificate) else { return Vec::new() };
    let lacks = |name: &&str| {
        ServerName::try_from(*name).is_ok_and(|name| verify_server_name(&parsed, &name).is_err())
    };
    names.into_iter().filter(lacks).collect()
}

/// Tells the service how certificates are, until `stop`.
pub(crate) async fn watch(files: Vec<Used>, service: Service, stop: CancellationToken) {
    loop {
        let (files, now) = (files.clone(), Timestamp::now());
        let looked = tokio::task::spawn_blocking(move || {
            let one = |used: &Used| {
                let (how, ends) = used.look(now);
                Certificate {
                    file: used.path.display().to_string(),
                    is_for_pages: used.by == By::Browsers,
                    ends_unix: ends.map(Timestamp::as_second),
                    trouble: used.finding(&how),
                }
            };
            files.iter().map(one).collect()
        });
        if let Ok(certificates) = looked.await {
            service.note_certificates(certificates);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    /// A certificate that is good from the first day of a year until this day.
    fn certificate(from: i32, (year, month, day): (i32, u8, u8)) -> String {
        let mut about = CertificateParams::new(vec!["boot.lab.example".to_owned()]).unwrap();
        about.not_before = date_time_ymd(from, 1, 1);
        about.not_after = date_time_ymd(year, month, day);
        about.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
    }

    #[test]
    fn the_day_is_told_before_it_has_come_and_after() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("page.pem");
        let now: Timestamp = "2026-11-28T12:00:00Z".parse().unwrap();
        let used = Used { path: path.clone(), by: By::Machines, remedy: "do this" };
        let until = |day| certificate(2020, day);
        let look = |text: &str| {
            std::fs::write(&path, text).unwrap();
            used.look(now).0
        };
        assert!(matches!(look(&until((2052, 3, 9))), How::Good(_)));
        assert!(matches!(look(&until((2026, 12, 8))), How::Soon(_, 9)));
        assert!(matches!(look(&until((2026, 12, 28))), How::Soon(_, 29)));
        // The first of a chain that ends, and the last that begins.
        let over = look(&(until((2030, 1, 1)) + &until((2026, 11, 27))));
        let (kind, cause) = used.finding(&over).unwrap();
        assert_eq!(kind, FindingKind::NbdCertificateInvalid);
        assert!(cause.starts_with("No machine gets a disk: the certificate /"), "{cause}");
        assert!(cause.contains("has expired on 2026-11-2"), "{cause}");
        let early = look(&(until((2030, 1, 1)) + &certificate(2027, (2030, 1, 1))));
        assert!(matches!(early, How::NotYet(_)), "{early:?}");
        assert_eq!(look(""), How::NotUnderstood, "that there is none is not right");
        std::fs::remove_file(&path).unwrap();
        let gone = used.look(now).0;
        assert!(matches!(gone, How::Unreadable(_)));
        assert_eq!(used.finding(&gone).unwrap().0, FindingKind::CertificateTrouble);
    }

    #[test]
    fn names_that_a_certificate_lacks_are_known() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("page.pem");
        std::fs::write(&path, certificate(2020, (2052, 3, 9))).unwrap();
        let wanted = ["boot.lab.example", "boot", "10.0.0.1"];
        assert_eq!(lacking(&path, wanted), ["boot", "10.0.0.1"]);
        assert_eq!(lacking(&folder.path().join("none"), wanted), [""; 0]);
    }
}
