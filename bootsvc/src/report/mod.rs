//! `bootlace debug report`: what a maintainer must know of a site, in one file without secrets.

mod censor;
mod configuration;
mod parts;

pub(crate) use parts::{PARTS, censor, collect};

use anyhow::{Context, bail};
use std::io::{Read, Write};

/// A file in the report.
pub(crate) struct Part {
    pub(crate) name: &'static str,
    pub(crate) text: String,
}

/// Largest report that is listed.
const REPORT_BYTES_MAX: u64 = 256 << 20;

/// Folder in the archive, so that nothing else is overwritten where it is unpacked.
const FOLDER: &str = "bootlace-report";

/// Writes all parts as a tar archive, compressed by zstd.
///
/// # Errors
/// `out` can't be written.
pub(crate) fn pack(parts: &[Part], made_unix: u64, out: impl Write) -> anyhow::Result<()> {
    let failed = "can't write the report";
    let compressed = zstd::Encoder::new(out, zstd::DEFAULT_COMPRESSION_LEVEL).context(failed)?;
    let mut archive = tar::Builder::new(compressed);
    for part in parts {
        let mut header = tar::Header::new_gnu();
        header.set_size(part.text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(made_unix);
        header.set_entry_type(tar::EntryType::Regular);
        archive
            .append_data(&mut header, format!("{FOLDER}/{}", part.name), part.text.as_bytes())
            .context(failed)?;
    }
    archive.into_inner().and_then(zstd::Encoder::finish).context(failed)?;
    Ok(())
}

/// Names and sizes of what is in a report.
///
/// # Errors
/// It is none.
pub(crate) fn list(input: impl Read) -> anyhow::Result<Vec<(String, u64)>> {
    let none = "it is no report of bootlace debug report";
    let read = zstd::Decoder::new(input).context(none)?.take(REPORT_BYTES_MAX);
    let mut archive = tar::Archive::new(read);
    let mut listed = Vec::new();
    for entry in archive.entries().context(none)? {
        let entry = entry.context(none)?;
        let path = entry.path().context(none)?;
        let Ok(name) = path.strip_prefix(FOLDER) else { bail!(none) };
        listed.push((name.display().to_string(), entry.size()));
    }
    if listed.is_empty() {
        bail!(none);
    }
    Ok(listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_listed_and_what_is_no_report_is_not() {
        let parts = [("doctor.json", "{}"), ("log.txt", "a line\n")];
        let parts = parts.map(|(name, text)| Part { name, text: text.to_owned() });
        let mut packed = Vec::new();
        pack(&parts, 1_800_000_000, &mut packed).unwrap();
        let listed = list(&packed[..]).unwrap();
        assert_eq!(listed, [("doctor.json".to_owned(), 2), ("log.txt".to_owned(), 7)]);
        for other in [&b""[..], b"no report", &packed[..packed.len() / 2]] {
            assert!(list(other).is_err());
        }
    }
}
