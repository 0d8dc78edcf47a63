//! Our own certificate authority: made once, so that browsers that trust it go on to do so, and a certificate that it
//! gives to the web page.

use anyhow::{Context, ensure};
use images::read_small;
use jiff::civil::Date;
use jiff::{Timestamp, ToSpan, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use ring::digest::{SHA256, digest};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use storage::TlsConfig;
use time::OffsetDateTime;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

/// How long the authority is good.
const AUTHORITY_YEARS: i16 = 10;

/// How long a certificate is good. Some browsers take none that is good for more than 398 days.
const CERTIFICATE_DAYS: i32 = 365;

/// A certificate is renewed when it has been good for so long: then two months are left to notice that it is not.
const RENEWED_AFTER_DAYS: i32 = 300;

/// No file of ours here is longer.
const FILE_BYTES_MAX: u64 = 1 << 16;

/// The page's certificate, in the folder of the authority.
pub(crate) const PAGE_CERTIFICATE: &str = "page.pem";

/// The authority, in a folder that only the servers may read.
pub(crate) struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    /// By which people compare it, as browsers show it.
    fingerprint: String,
}

/// What is remembered of the page's certificate, so that nobody needs to read it.
#[derive(Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct About {
    /// From which day on it is good, like `2026-11-27`.
    from: String,
    names: Vec<String>,
}

impl Authority {
    /// The authority in this folder, or a new one if there is none.
    ///
    /// # Errors
    /// Its files can't be read or written. One that is there, and damaged, is not replaced: browsers trust it.
    pub(crate) fn open_or_make(folder: &Path) -> anyhow::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .with_context(|| format!("can't make {}", folder.display()))?;
        let path = folder.join("authority-key.pem");
        let known = read_small(&path, FILE_BYTES_MAX);
        let key = match known.with_context(|| format!("can't read {}", path.display()))? {
            Some(text) => KeyPair::from_pem(&text)
                .with_context(|| format!("{} is damaged", path.display()))?,
            None => make(folder)?,
        };
        let fingerprint = fingerprint(&folder.join("authority.pem"))?;
        let issuer = Issuer::new(about_authority(&key), key);
        Ok(Self { folder: folder.to_owned(), issuer, fingerprint })
    }

    /// Makes a certificate for these names, if there is none for them that is good for some time.
    ///
    /// # Errors
    /// The files can't be written.
    pub(crate) fn renew(&self, names: &[String]) -> anyhow::Result<()> {
        let today = today();
        let path = self.folder.join("about.json");
        let known = read_small(&path, FILE_BYTES_MAX).ok().flatten();
        let known = known.and_then(|text| serde_json::from_str(&text).ok());
        let files = self.files();
        let is_there = files.certificate.exists() && files.key.exists();
        let is_good = |about: &About| {
            let from: Option<Date> = about.from.parse().ok();
            let is_now = |from: Date| (from..=from + RENEWED_AFTER_DAYS.days()).contains(&today);
            about.names == names && from.is_some_and(is_now)
        };
        if is_there && known.as_ref().is_some_and(is_good) {
            return Ok(());
        }
        let key = KeyPair::generate().context("no key can be made")?;
        let mut about = CertificateParams::new(names).context("these can't be names")?;
        about.distinguished_name.push(DnType::CommonName, "Bootlace");
        about.not_before = midnight(today - 1.day());
        about.not_after = midnight(today + CERTIFICATE_DAYS.days());
        about.use_authority_key_identifier_extension = true;
        about.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        about.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = about.signed_by(&key, &self.issuer).context("it can't be signed")?;
        // Who reads both between the two keeps the former ones until the next look.
        write(&files.key, &key.serialize_pem())?;
        write(&files.certificate, &certificate.pem())?;
        let about = About { from: today.to_string(), names: names.to_vec() };
        write(&path, &serde_json::to_string(&about)?)?;
        tracing::info!(names = names.join(", "), "certificate of the web page made");
        Ok(())
    }

    /// The page's certificate.
    pub(crate) fn files(&self) -> TlsConfig {
        TlsConfig {
            certificate: self.folder.join(PAGE_CERTIFICATE),
            key: self.folder.join("page-key.pem"),
            client_ca: None,
            is_required: true,
        }
    }

    /// The file with the authority's certificate, which browsers can be told to trust.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.join("authority.pem")
    }

    /// SHA-256 of the authority's certificate, as browsers show it.
    pub(crate) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

fn make(folder: &Path) -> anyhow::Result<KeyPair> {
    let key = KeyPair::generate().context("no key can be made")?;
    let certificate = about_authority(&key).self_signed(&key).context("it can't be signed")?;
    // The key last: it says that there is an authority.
    write(&folder.join("authority.pem"), &certificate.pem())?;
    write(&folder.join("authority-key.pem"), &key.serialize_pem())?;
    Ok(key)
}

/// The same for the same key, but for the dates, which are not part of what it signs.
fn about_authority(key: &KeyPair) -> CertificateParams {
    let mut about = CertificateParams::default();
    let hash = digest(&SHA256, key.public_key_raw());
    let short: String = hash.as_ref()[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    about.distinguished_name.push(DnType::CommonName, format!("Bootlace {short}"));
    about.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    about.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    about.not_before = midnight(today() - 1.day());
    about.not_after = midnight(today() + AUTHORITY_YEARS.years());
    about
}

/// SHA-256 of the certificate in a file.
///
/// # Errors
/// There is none.
pub(crate) fn fingerprint(path: &Path) -> anyhow::Result<String> {
    let failed = || format!("can't use {}", path.display());
    let text = read_small(path, FILE_BYTES_MAX).with_context(failed)?.with_context(failed)?;
    let certificate = CertificateDer::from_pem_slice(text.as_bytes()).with_context(failed)?;
    let hash = digest(&SHA256, &certificate);
    let bytes: Vec<String> = hash.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    ensure!(bytes.len() == 32, "SHA-256 has 32 bytes");
    Ok(bytes.join(":"))
}

fn today() -> Date {
    Timestamp::now().to_zoned(TimeZone::UTC).date()
}

fn midnight(date: Date) -> OffsetDateTime {
    date_time_ymd(date.year().into(), date.month() as u8, date.day() as u8)
}

/// Writes what only the servers may read, as a whole or not at all.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let new = path.with_extension("new");
    let written = (|| {
        // One that was left over; or what somebody has put there, at which one would wait.
        let _ = fs::remove_file(&new);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    })();
    written.with_context(|| format!("can't write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_authority_stays_and_its_certificate_follows_the_names() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("web");
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let authority = Authority::open_or_make(&folder).unwrap();
        authority.renew(&names(&["boot.example", "10.0.0.1"])).unwrap();
        let addresses = ["10.0.0.1".parse().unwrap()];
        authority.files().check_names(&authority.certificate(), &addresses).unwrap();
        let page = || fs::read(folder.join("page.pem")).unwrap();
        let first = page();
        for file in fs::read_dir(&folder).unwrap() {
            let mode = file.unwrap().metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);

        let again = Authority::open_or_make(&folder).unwrap();
        assert_eq!(again.fingerprint(), authority.fingerprint());
        assert_eq!(again.fingerprint().len(), 32 * 3 - 1);
        again.renew(&names(&["boot.example", "10.0.0.1"])).unwrap();
        assert_eq!(page(), first, "nothing has changed");
        again.renew(&names(&["boot.example", "10.0.0.2"])).unwrap();
        assert_ne!(page(), first);
        let addresses = ["10.0.0.2".parse().unwrap()];
        again.files().check_names(&again.certificate(), &addresses).unwrap();

        // As if it had been made long ago.
        let second = page();
        let about = folder.join("about.json");
        let year = today().year();
        let old =
            fs::read_to_string(&about).unwrap().replace(&year.to_string(), &(year - 1).to_string());
        fs::write(&about, old).unwrap();
        again.renew(&names(&["boot.example", "10.0.0.2"])).unwrap();
        assert_ne!(page(), second, "it is renewed in time");
        fs::write(folder.join("authority-key.pem"), "nonsense").unwrap();
        assert!(Authority::open_or_make(&folder).is_err(), "browsers trust the former one");
    }
}
