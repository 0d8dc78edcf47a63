//! The cpio archive that the kernel unpacks.

use crate::BuildError;
use cpio::newc;
use std::collections::BTreeMap;
use std::io::Write;

/// What a path in the archive is.
enum Entry {
    Folder,
    File { permissions: u32, content: Vec<u8> },
    Link { target: String },
    Device { permissions: u32, major: u32, minor: u32 },
}

/// Collects files and writes them as one `newc` segment, always in the same way.
///
/// Sorted by path (so a folder comes before what is in it), owned by root, time 0, one link each, padded
/// to 4 bytes: the kernel drops a segment that breaks one of these rules, and boots on without it.
#[derive(Default)]
pub(crate) struct Archive {
    entries: BTreeMap<String, Entry>,
}

impl Archive {
    /// Adds a file; the path has no leading slash. Folders above it come by themselves.
    pub(crate) fn file(&mut self, path: &str, permissions: u32, content: Vec<u8>) {
        self.add(path, Entry::File { permissions, content });
    }

    /// Adds an empty folder.
    pub(crate) fn folder(&mut self, path: &str) {
        self.add(path, Entry::Folder);
    }

    /// Adds a symbolic link.
    pub(crate) fn link(&mut self, path: &str, target: &str) {
        self.add(path, Entry::Link { target: target.to_owned() });
    }

    /// Adds a character device.
    pub(crate) fn device(&mut self, path: &str, permissions: u32, major: u32, minor: u32) {
        self.add(path, Entry::Device { permissions, major, minor });
    }

    fn add(&mut self, path: &str, entry: Entry) {
        for (end, _) in path.match_indices('/') {
            self.entries.entry(path[..end].to_owned()).or_insert(Entry::Folder);
        }
        self.entries.insert(path.to_owned(), entry);
    }

    /// The bytes of the segment.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, BuildError> {
        let mut bytes = Vec::new();
        for (number, (path, entry)) in (1u32..).zip(&self.entries) {
            bytes = write_entry(bytes, number, path, entry)?;
        }
        bytes = newc::trailer(bytes).map_err(|source| write_error("the trailer", source))?;
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        Ok(bytes)
    }
}

fn write_entry(
    bytes: Vec<u8>,
    number: u32,
    path: &str,
    entry: &Entry,
) -> Result<Vec<u8>, BuildError> {
    let builder = newc::Builder::new(path).ino(number).nlink(1).mtime(0).uid(0).gid(0);
    let (builder, content): (_, &[u8]) = match entry {
        Entry::Folder => (builder.mode(0o040_755), &[]),
        Entry::File { permissions, content } => (builder.mode(0o100_000 | permissions), content),
        Entry::Link { target } => (builder.mode(0o120_777), target.as_bytes()),
        Entry::Device { permissions, major, minor } => {
            (builder.mode(0o020_000 | permissions).rdev_major(*major).rdev_minor(*minor), &[])
        }
    };
    let length = u32::try_from(content.len()).map_err(|_| BuildError::TooLarge(path.to_owned()))?;
    let mut writer = builder.write(bytes, length);
    writer.write_all(content).map_err(|source| write_error(path, source))?;
    writer.finish().map_err(|source| write_error(path, source))
}

fn write_error(what: &str, source: std::io::Error) -> BuildError {
    BuildError::Read { what: format!("{what} for the archive"), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_reads_back_in_order() {
        let mut archive = Archive::default();
        archive.file("lib/modules/b.ko", 0o644, b"module".to_vec());
        archive.file("init", 0o755, b"#!".to_vec());
        archive.device("dev/console", 0o600, 5, 1);
        archive.link("sbin/modprobe", "/init");
        archive.folder("proc");
        let bytes = archive.to_bytes().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(bytes, archive.to_bytes().unwrap());
        let mut rest = bytes.as_slice();
        let mut seen = Vec::new();
        loop {
            let mut reader = newc::Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut reader, &mut content).unwrap();
            let entry = reader.entry();
            assert_eq!((entry.nlink(), entry.mtime(), entry.uid(), entry.gid()), (1, 0, 0, 0));
            seen.push(format!("{} {:o} {}", entry.name(), entry.mode(), content.len()));
            rest = reader.finish().unwrap();
        }
        assert_eq!(
            seen,
            [
                "dev 40755 0",
                "dev/console 20600 0",
                "init 100755 2",
                "lib 40755 0",
                "lib/modules 40755 0",
                "lib/modules/b.ko 100644 6",
                "proc 40755 0",
                "sbin 40755 0",
                "sbin/modprobe 120777 5"
            ]
        );
    }
}
