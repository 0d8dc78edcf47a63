//! What a stream says of its version.

use super::error::StreamError;
use super::{FILE_BYTES_MAX, FILES_MAX, HEADER_BYTES_MAX, StreamAbout};
use crate::source::SIZE_BYTES_MAX;
use crate::store::Description;
use model::is_note;
use std::collections::BTreeSet;

/// Longest name of a file, and of a kernel.
const NAME_BYTES_MAX: usize = 64;

/// The header. What a later Bootlace adds is left out; what can't be left out has another first line.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct Header {
    /// Where of the disk the records begin.
    pub(super) at_bytes: u64,
    /// The disk needs at most so much of the other one's disk.
    pub(super) data_bytes: u64,
    pub(super) from: Option<From>,
    /// In the order in which they come.
    #[serde(default)]
    pub(super) files: Vec<FileAbout>,
    /// `image.toml` as it is at the sender.
    pub(super) description: Description,
}

/// The version that the other side has.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct From {
    pub(super) version: u32,
    pub(super) digest: String,
    pub(super) size_bytes: u64,
}

/// A file beside the disk.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct FileAbout {
    pub(super) name: String,
    pub(super) size_bytes: u64,
    pub(super) blake3: String,
    /// It is the one that the version has beside it from which the disk differs, and does not come.
    #[serde(default)]
    pub(super) is_as_before: bool,
}

impl Header {
    pub(super) fn encode(&self) -> Result<Vec<u8>, StreamError> {
        let text = toml::to_string(self).map_err(|error| StreamError::Flawed(error.to_string()))?;
        match u32::try_from(text.len()) {
            Ok(length) if length <= HEADER_BYTES_MAX => Ok(text.into_bytes()),
            _ => Err(StreamError::Flawed("its description is too long".to_owned())),
        }
    }

    /// Reads a header, of which nothing is believed.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, StreamError> {
        let wrong = |why: &str| StreamError::Malformed(format!("its header is wrong: {why}"));
        let text = str::from_utf8(bytes).map_err(|_| wrong("it is no text"))?;
        let header: Self = toml::from_str(text).map_err(|error| wrong(error.message()))?;
        let Description { version, note, .. } = &header.description;
        let size_bytes = version.size_bytes;
        if !is_size(size_bytes) {
            return Err(wrong(&format!("a disk has not {size_bytes} bytes")));
        }
        if header.at_bytes > size_bytes || !header.at_bytes.is_multiple_of(4096) {
            return Err(wrong("it begins where no block of the disk does"));
        }
        let is_kernel = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
        let kernel = &version.kernel_version;
        if kernel.len() > NAME_BYTES_MAX
            || kernel.starts_with('.')
            || !kernel.bytes().all(is_kernel)
        {
            return Err(wrong("no kernel has such a version"));
        }
        if !version.os_name.as_deref().is_none_or(is_note) || !note.as_deref().is_none_or(is_note) {
            return Err(wrong("its note or its system's name is none that lists can show"));
        }
        let from = header.from.as_ref();
        if !is_digest(&version.digest) || !from.is_none_or(|from| is_digest(&from.digest)) {
            return Err(wrong("a digest has 64 digits"));
        }
        if !from.is_none_or(|from| is_size(from.size_bytes)) {
            return Err(wrong("no disk has the size of the one that it is compared with"));
        }
        header.check_files().map_err(|why| wrong(&why))?;
        Ok(header)
    }

    fn check_files(&self) -> Result<(), String> {
        if self.files.len() > FILES_MAX {
            return Err(format!("it has {} files", self.files.len()));
        }
        let mut names = BTreeSet::new();
        for FileAbout { name, size_bytes, blake3, is_as_before } in &self.files {
            if *is_as_before && self.from.is_none() {
                return Err(format!("{name} is as before, and there is nothing before"));
            }
            if !is_file_name(name) {
                return Err(format!("a file is called {name:?}"));
            }
            if !names.insert(name) {
                return Err(format!("{name} is in it twice"));
            }
            if *size_bytes > FILE_BYTES_MAX || !is_digest(blake3) {
                return Err(format!("{name} has {size_bytes} bytes, or no digest"));
            }
        }
        match names.contains(&"vmlinuz".to_owned()) {
            true => Ok(()),
            false => Err("it has no kernel".to_owned()),
        }
    }

    pub(super) fn about(&self) -> StreamAbout {
        let version = &self.description.version;
        StreamAbout {
            image: version.image.clone(),
            version: version.version,
            digest: version.digest.clone(),
            size_bytes: version.size_bytes,
            from: self.from.as_ref().map(|from| (from.version, from.digest.clone())),
            at_bytes: self.at_bytes,
        }
    }
}

/// Whether a file beside a disk may be called so: not what the store makes itself, and nothing that leads elsewhere.
pub(super) fn is_file_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.starts_with('.')
        && name.bytes().all(is_plain)
        && !["disk.raw", "image.toml", "removed", "peek"].contains(&name)
}

fn is_size(bytes: u64) -> bool {
    (1..=SIZE_BYTES_MAX).contains(&bytes) && bytes.is_multiple_of(4096)
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|it| it.is_ascii_digit() || (b'a'..=b'f').contains(&it))
}
