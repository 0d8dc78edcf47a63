//! Reading a backup, whoever made it.

use super::manifest::{BackupFile, MANIFEST_BYTES_MAX, Manifest};
use super::{BackupError, MANIFEST};
use std::io::{self, Read};
use tar::{Archive, EntryType};

/// Zstandard may look back so far, as a power of two: what our writer uses, and not what a file asks for.
const WINDOW_LOG_MAX: u32 = 23;

/// By which a file of Zstandard begins: RFC 8878, section 3.1.1.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Reads a backup as a whole, and tells what is wrong with it. `keep` hears first of the manifest alone, and then gets
/// each file with its content, which it may leave; what it has got is right only when all is read.
///
/// # Errors
/// The file is no backup, is damaged, or `keep` fails.
pub fn read_backup(
    mut input: impl Read,
    mut keep: impl FnMut(&Manifest, &BackupFile, &mut dyn Read) -> io::Result<()>,
) -> Result<Manifest, BackupError> {
    let mut magic = Vec::new();
    let begun = input.by_ref().take(ZSTD_MAGIC.len() as u64).read_to_end(&mut magic);
    begun.map_err(|error| cut_off(MANIFEST, &error))?;
    match &magic[..] {
        [] => return Err(BackupError::Empty),
        all if all == ZSTD_MAGIC => {}
        part if ZSTD_MAGIC.starts_with(part) => {
            return Err(BackupError::CutOff(MANIFEST.to_owned()));
        }
        _ => return Err(BackupError::NoBackup),
    }
    let input = io::Cursor::new(magic).chain(input);
    let mut decoder = zstd::stream::read::Decoder::new(input).map_err(|_| BackupError::NoBackup)?;
    decoder.window_log_max(WINDOW_LOG_MAX).map_err(|_| BackupError::NoBackup)?;
    let mut archive = Archive::new(decoder);
    // Raw: what follows a header is no more than it says.
    let mut entries = archive.entries().map_err(|_| BackupError::NoBackup)?.raw(true);
    let first = entries.next().ok_or(BackupError::NoBackup)?;
    let mut first = first.map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => BackupError::CutOff(MANIFEST.to_owned()),
        _ => BackupError::NoBackup,
    })?;
    let is_manifest = &*first.path_bytes() == MANIFEST.as_bytes()
        && first.header().entry_type() == EntryType::Regular;
    if !is_manifest || first.size() > MANIFEST_BYTES_MAX {
        return Err(BackupError::NoBackup);
    }
    let mut text = Vec::new();
    first.read_to_end(&mut text).map_err(|error| cut_off(MANIFEST, &error))?;
    let manifest = Manifest::parse(&text)?;
    for file in &manifest.files {
        let name = || file.name.clone();
        let damaged = |why: String| BackupError::Damaged { name: name(), why };
        let entry = entries.next().ok_or_else(|| BackupError::CutOff(name()))?;
        let entry = entry.map_err(|error| cut_off(&file.name, &error))?;
        if *entry.path_bytes() != *file.name.as_bytes()
            || entry.header().entry_type() != EntryType::Regular
        {
            let found = String::from_utf8_lossy(&entry.path_bytes()).escape_debug().to_string();
            return Err(damaged(format!("in its place there is {found}")));
        }
        if entry.size() != file.size_bytes {
            let why = format!("it has {} bytes instead of {}", entry.size(), file.size_bytes);
            return Err(damaged(why));
        }
        let mut content =
            Content { inner: entry, hash: blake3::Hasher::new(), n_bytes: 0, error: None };
        let kept = keep(&manifest, file, &mut content);
        if let Some(error) = content.error.take() {
            return Err(cut_off(&file.name, &error));
        }
        kept.map_err(|source| BackupError::Io { action: "keep", name: name(), source })?;
        // What nobody wants is looked at, too.
        io::copy(&mut content, &mut io::sink()).map_err(|error| cut_off(&file.name, &error))?;
        if content.n_bytes != file.size_bytes {
            return Err(BackupError::CutOff(name()));
        }
        if content.hash.finalize().to_hex().as_str() != file.blake3 {
            return Err(damaged("its content is not what it was".to_owned()));
        }
    }
    match entries.next() {
        None => {}
        Some(Ok(_)) => return Err(BackupError::Manifest("there is more than it names".to_owned())),
        Some(Err(error)) => return Err(cut_off("the end", &error)),
    }
    // Tar fills its end with zeroes. The last block of Zstandard has a checksum, which is looked at so, too.
    let mut rest = archive.into_inner();
    let mut buffer = [0; 8192];
    loop {
        match rest.read(&mut buffer).map_err(|error| cut_off("the end", &error))? {
            0 => break,
            n if buffer[..n].iter().all(|byte| *byte == 0) => {}
            _ => return Err(BackupError::Manifest("there is more than it names".to_owned())),
        }
    }
    Ok(manifest)
}

/// What can't be unpacked is cut off, or damaged so that its rest makes no sense.
fn cut_off(name: &str, error: &io::Error) -> BackupError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => BackupError::CutOff(name.to_owned()),
        // The disk or the network that it is read from.
        _ if error.raw_os_error().is_some() => {
            BackupError::Damaged { name: name.to_owned(), why: error.to_string() }
        }
        // What the libraries say of bytes tells nobody anything.
        _ => BackupError::Damaged {
            name: name.to_owned(),
            why: "there are bytes that make no sense. Copy it again, or take another one"
                .to_owned(),
        },
    }
}

/// The content of a file, of which it is noted what is read.
struct Content<R> {
    inner: R,
    hash: blake3::Hasher,
    n_bytes: u64,
    error: Option<io::Error>,
}

impl<R: Read> Read for Content<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(buffer) {
            Ok(n_bytes) => {
                self.hash.update(&buffer[..n_bytes]);
                self.n_bytes += n_bytes as u64;
                Ok(n_bytes)
            }
            Err(error) => {
                let same = || io::Error::new(error.kind(), error.to_string());
                self.error =
                    Some(error.raw_os_error().map_or_else(same, io::Error::from_raw_os_error));
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, digest, write_backup};
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    fn backup(folder: &Path) -> (Manifest, Vec<u8>) {
        let files = [
            ("bootlace.toml", Kind::Configuration, b"[network]\n".repeat(20)),
            ("files/0", Kind::File, b"a key".to_vec()),
            ("state.db", Kind::Database, (0..40_000u32).flat_map(u32::to_le_bytes).collect()),
        ];
        let mut sources = Vec::new();
        let files = files.map(|(name, kind, content)| {
            let source = folder.join(name.replace('/', "-"));
            std::fs::write(&source, content).unwrap();
            let (size_bytes, blake3) = digest(&source).unwrap();
            sources.push(source);
            let path = (kind == Kind::File).then(|| "/etc/bootlace/key.pem".into());
            BackupFile {
                name: name.to_owned(),
                kind,
                path,
                size_bytes,
                blake3,
                mode: 0o640,
                group: None,
            }
        });
        let manifest = Manifest::new(7, files.to_vec());
        let mut last = 0;
        let bytes = write_backup(Vec::new(), &manifest, &sources, |n| last = n).unwrap();
        assert_eq!(last, manifest.size_bytes());
        (manifest, bytes)
    }

    fn read(bytes: &[u8]) -> Result<Manifest, BackupError> {
        read_backup(bytes, |_, _, content| io::copy(content, &mut io::sink()).map(drop))
    }

    #[test]
    fn what_was_written_is_read_and_each_prefix_of_it_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let (manifest, bytes) = backup(folder.path());
        let mut kept = Vec::new();
        let read_manifest = read_backup(&bytes[..], |_, file, content| {
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes)?;
            kept.push((file.name.clone(), bytes.len() as u64));
            Ok(())
        });
        assert_eq!(read_manifest.unwrap(), manifest);
        let expected: Vec<_> =
            manifest.files.iter().map(|file| (file.name.clone(), file.size_bytes)).collect();
        assert_eq!(kept, expected);
        for length in (0..bytes.len()).step_by(7).chain(bytes.len() - 40..bytes.len()) {
            let error = read(&bytes[..length]).expect_err("a prefix was taken for a whole");
            let is_told = match length {
                0 => matches!(error, BackupError::Empty),
                _ => matches!(error, BackupError::CutOff(_)),
            };
            assert!(is_told, "{length}: {error}");
        }
        for length in 1..1024.min(bytes.len()) {
            let error = read(&bytes[..length]).unwrap_err().to_string();
            assert!(error.contains("it is cut off"), "{length}: {error}");
        }
        assert!(matches!(read(b"garbage"), Err(BackupError::NoBackup)));
        assert!(matches!(read(b"\x28\xb5g"), Err(BackupError::NoBackup)));
    }

    #[test]
    fn what_is_damaged_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (manifest, bytes) = backup(folder.path());
        let plain = zstd::decode_all(&bytes[..]).unwrap();
        let check = |plain: &[u8], text: &str| {
            let packed = zstd::encode_all(plain, 1).unwrap();
            let error = read(&packed).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        };
        let replaced = |from: &[u8], to: &[u8]| {
            let at = plain.windows(from.len()).rposition(|window| window == from).unwrap();
            [&plain[..at], to, &plain[at + from.len()..]].concat()
        };
        check(&replaced(b"a key", b"a kex"), "files/0 in it is damaged: its content");
        check(b"", "not a backup");
        check(&plain[..plain.len() / 2], "cut off: state.db");
        check(&[&plain[..], b"more"].concat(), "more than it names");
        let newer = replaced(b"\"format\": 1", b"\"format\": 9");
        check(&newer, "has format 9");
        let text = serde_json::to_string(&manifest).unwrap();
        let refused = |from: &str, to: &str, why: &str| {
            assert!(text.contains(from), "{from}");
            let error = Manifest::parse(text.replacen(from, to, 1).as_bytes()).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
        };
        refused("/etc/bootlace/key.pem", "/etc/../key.pem", "no place of its own");
        refused("/etc/bootlace/key.pem", "key.pem", "no place of its own");
        refused("files/0", "state.db", "in it twice");
        refused("files/0", "a b", "a file is called");
        refused("\"database\"", "\"configuration\"", "0 databases");
        refused("\"kind\":\"file\"", "\"kind\":\"database\"", "2 databases");
        refused("\"size_bytes\":5", "\"size_bytes\":99999999999", "99999999999 bytes");
        Manifest::parse(text.replacen('{', "{\"color\":1,", 1).as_bytes())
            .expect("what is new is left out");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
            let _ = read(&bytes);
            let _ = read(&zstd::encode_all(&bytes[..], 1).unwrap());
            let _ = Manifest::parse(&bytes);
        }
    }
}
