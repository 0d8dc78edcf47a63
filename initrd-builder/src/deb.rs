//! Modules straight out of a Debian kernel package, which need not be installed.

use crate::select::is_likely_needed;
use crate::{BuildError, ModuleSource};
use liblzma::stream::MtStreamBuilder;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use tar::Archive;

/// Memory that decoding on several threads may take; one block of Debian's packages has 24 MiB, and
/// each thread holds an input and an output block.
const THREADS_MEMORY_MAX: u64 = 512 << 20;

/// Largest file that is read from a package: see `codec`.
const FILE_SIZE_MAX: u64 = 256 << 20;

/// Length of a file's header in an `ar` archive.
const AR_HEADER_SIZE: usize = 60;

/// The modules of a `linux-image-…` package.
#[derive(Debug)]
pub struct KernelPackage {
    path: PathBuf,
    kernel: String,
    /// By path below `lib/modules/VERSION/`. `None` was not worth keeping in memory: it is read again
    /// from the package in the rare case that it is wanted.
    files: BTreeMap<String, Option<Vec<u8>>>,
}

impl KernelPackage {
    /// Reads the package once, keeping the modules that an initrd may need.
    ///
    /// # Errors
    /// It can't be read, is no Debian package, or holds no modules.
    pub fn open(path: &Path) -> Result<Self, BuildError> {
        let mut kernel = String::new();
        let mut files = BTreeMap::new();
        walk(path, |release, file, content| {
            if kernel.is_empty() {
                release.clone_into(&mut kernel);
            }
            if kernel == release {
                let kept = is_likely_needed(file).then(|| read_all(content)).transpose()?;
                files.insert(file.to_owned(), kept);
            }
            Ok(())
        })
        .map_err(|failure| failure.of(path))?;
        if files.is_empty() {
            let reason = "it holds no kernel modules; give the package that does, like \
                          linux-image-6.1.0-56-amd64 (linux-image-amd64 only points to it)";
            return Err(Failure::Format(reason.to_owned()).of(path));
        }
        Ok(Self { path: path.to_owned(), kernel, files })
    }
}

impl ModuleSource for KernelPackage {
    fn kernel(&self) -> &str {
        &self.kernel
    }

    fn origin(&self) -> String {
        self.path.display().to_string()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files.keys().cloned().collect())
    }

    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        if let Some(Some(content)) = self.files.get(path) {
            return Ok(content.clone());
        }
        let mut found = None;
        walk(&self.path, |release, file, content| {
            if release == self.kernel && file == path {
                found = Some(read_all(content)?);
            }
            Ok(())
        })
        .map_err(|failure| match failure {
            Failure::Io(error) => error,
            Failure::Format(reason) => io::Error::new(io::ErrorKind::InvalidData, reason),
        })?;
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// Why walking through a package ended early.
enum Failure {
    Io(io::Error),
    Format(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Failure {
    fn of(self, path: &Path) -> BuildError {
        let path = path.to_owned();
        match self {
            // The decoders and tar say it with these kinds when the file is cut off or damaged.
            Self::Io(error)
                if !matches!(
                    error.kind(),
                    io::ErrorKind::NotFound
                        | io::ErrorKind::PermissionDenied
                        | io::ErrorKind::IsADirectory
                ) =>
            {
                BuildError::Package { path, reason: format!("it is damaged or cut off: {error}") }
            }
            Self::Io(source) => BuildError::Read { what: path.display().to_string(), source },
            Self::Format(reason) => BuildError::Package { path, reason },
        }
    }
}

/// Calls `visit(kernel release, path below its folder, content)` for each file of a module tree.
fn walk(
    path: &Path,
    mut visit: impl FnMut(&str, &str, &mut dyn Read) -> io::Result<()>,
) -> Result<(), Failure> {
    let mut archive = Archive::new(data_member(path)?);
    for entry in archive.entries()? {
        let mut entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let Some((release, file)) = entry.path()?.to_str().and_then(module_path) else { continue };
        visit(&release, &file, &mut entry)?;
    }
    Ok(())
}

/// Splits `./usr/lib/modules/RELEASE/FILE`.
fn module_path(path: &str) -> Option<(String, String)> {
    let path = path.strip_prefix("./").unwrap_or(path);
    let path = path.strip_prefix("usr/").unwrap_or(path);
    let (release, file) = path.strip_prefix("lib/modules/")?.split_once('/')?;
    Some((release.to_owned(), file.to_owned()))
}

fn read_all(content: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    content.take(FILE_SIZE_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Finds the package's files in the outer `ar` archive, and decodes them.
fn data_member(path: &Path) -> Result<Box<dyn Read>, Failure> {
    let mut file = BufReader::with_capacity(1 << 20, File::open(path)?);
    let mut magic = [0; 8];
    let is_package = file.read_exact(&mut magic).is_ok() && &magic == b"!<arch>\n";
    if !is_package {
        return Err(Failure::Format("it is not a Debian package (.deb)".to_owned()));
    }
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

/// Decodes on all processors: Debian's kernel packages are made of 24 MiB blocks.
fn xz_decoder(data: impl Read) -> io::Result<impl Read> {
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(8));
    let stream = MtStreamBuilder::new()
        .threads(threads as u32)
        .memlimit_threading(THREADS_MEMORY_MAX)
        .memlimit_stop(u64::MAX)
        .decoder()?;
    Ok(liblzma::read::XzDecoder::new_stream(data, stream))
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

    fn package(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, path, *content).unwrap();
        }
        let data = zstd::bulk::compress(&tar.into_inner().unwrap(), 1).unwrap();
        let mut deb = b"!<arch>\n".to_vec();
        for (name, content) in [("debian-binary", &b"2.0\nx"[..]), ("data.tar.zst", &data)] {
            deb.extend(format!("{name:<48}{:<10}`\n", content.len()).bytes());
            deb.extend(content);
            deb.resize(deb.len().next_multiple_of(2), b'\n');
        }
        deb
    }

    fn open(bytes: &[u8]) -> Result<KernelPackage, BuildError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernel.deb");
        std::fs::write(&path, bytes).unwrap();
        KernelPackage::open(&path)
    }

    #[test]
    fn modules_are_read_from_the_package() {
        let deb = package(&[
            ("./boot/vmlinuz-6.1", b"kernel"),
            ("./lib/modules/6.1/kernel/fs/ext4/ext4.ko", b"module"),
            ("./lib/modules/6.1/kernel/sound/pci/hda.ko", b"sound"),
        ]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernel.deb");
        std::fs::write(&path, deb).unwrap();
        let source = KernelPackage::open(&path).unwrap();
        assert_eq!(source.kernel(), "6.1");
        assert_eq!(source.list().unwrap().len(), 2);
        assert_eq!(source.read("kernel/fs/ext4/ext4.ko").unwrap(), b"module");
        assert_eq!(source.read("kernel/sound/pci/hda.ko").unwrap(), b"sound", "read again");
        assert!(source.read("kernel/other.ko").is_err());
    }

    #[test]
    fn other_files_are_refused_in_words() {
        let check = |bytes: &[u8], expected: &str| {
            let error = open(bytes).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(b"", "not a Debian package");
        check(&package(&[("./usr/share/doc/x", b"")]), "holds no kernel modules");
        let deb = package(&[("./lib/modules/6.1/kernel/fs/ext4/ext4.ko", &[7; 100])]);
        for end in 0..deb.len() - 1 {
            assert!(open(&deb[..end]).is_err(), "{end}");
        }
    }

    proptest! {
        #[test]
        fn no_header_panics(bytes in proptest::collection::vec(any::<u8>(), AR_HEADER_SIZE)) {
            let _ = parse_ar_header(bytes.as_slice().try_into().unwrap());
        }
    }
}
