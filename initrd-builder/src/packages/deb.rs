//! Debian packages: an `ar` archive with a `tar` inside.

use super::failure::{Failure, Visit};
use crate::codec::xz_decoder;
use std::fs::File;
use std::io::{self, BufReader, Read};
use tar::Archive;

/// What such a file starts with.
pub(crate) const MAGIC: &[u8] = b"!<arch>\n";

/// Length of a file's header in an `ar` archive.
const AR_HEADER_SIZE: usize = 60;

/// Visits all files.
pub(crate) fn walk(file: BufReader<File>, visit: &mut Visit<'_>) -> Result<(), Failure> {
    let mut archive = Archive::new(data_member(file)?);
    for entry in archive.entries()? {
        let mut entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = entry.path()?.to_string_lossy().into_owned();
        visit(&path, &mut entry)?;
    }
    Ok(())
}

/// Finds the package's files in the outer `ar` archive, and decodes them.
fn data_member(mut file: BufReader<File>) -> Result<Box<dyn Read>, Failure> {
    file.read_exact(&mut [0; MAGIC.len()])?;
    loop {
        let mut header = [0; AR_HEADER_SIZE];
        if file.read_exact(&mut header).is_err() {
            return Err(Failure::Format("it has no data.tar: it is damaged or cut off".to_owned()));
        }
        let (name, length) = parse_ar_header(&header)
            .ok_or_else(|| Failure::Format("its ar header is damaged".to_owned()))?;
        if !name.starts_with("data.tar") {
            // Members start at even offsets.
            let padded = length.next_multiple_of(2);
            let skipped = io::copy(&mut (&mut file).take(padded), &mut io::sink())?;
            if skipped != padded {
                return Err(Failure::Format("it is cut off".to_owned()));
            }
            continue;
        }
        let data = file.take(length);
        return Ok(match name.as_str() {
            "data.tar" => Box::new(data),
            "data.tar.gz" => Box::new(flate2::read::GzDecoder::new(data)),
            "data.tar.zst" => Box::new(zstd::stream::read::Decoder::new(data)?),
            "data.tar.xz" => Box::new(xz_decoder(data)?),
            other => {
                let reason = format!("its {other} is compressed in a way that is not known here");
                return Err(Failure::Format(reason));
            }
        });
    }
}

/// Name and length of a member. Never panics, whatever the bytes.
fn parse_ar_header(header: &[u8; AR_HEADER_SIZE]) -> Option<(String, u64)> {
    let text = core::str::from_utf8(header).ok().filter(|text| text.ends_with("`\n"))?;
    let name = text.get(..16)?.trim_end().trim_end_matches('/').to_owned();
    Some((name, text.get(48..58)?.trim_end().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_header_panics(bytes in proptest::collection::vec(any::<u8>(), AR_HEADER_SIZE)) {
            let _ = parse_ar_header(bytes.as_slice().try_into().unwrap());
        }
    }
}
