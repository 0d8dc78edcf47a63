//! RPM packages: two headers, then a compressed cpio archive.

use super::failure::{Failure, Visit};
use crate::codec::xz_decoder;
use crate::newc::{ArchiveError, Next, Reader};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

/// What such a file starts with.
pub(crate) const MAGIC: &[u8] = &[0xed, 0xab, 0xee, 0xdb];

/// Length of the historical start of a package; nothing in it counts.
const LEAD_SIZE: u64 = 96;

/// Start of a header: magic, version, four reserved bytes, number of entries, length of their data.
const HEADER_START_SIZE: usize = 16;

/// Longest header; rpm's own limit. That of Fedora's kernel-modules has 2 MB.
const HEADER_SIZE_MAX: u64 = 256 << 20;

/// Visits all files.
pub(crate) fn walk(mut file: BufReader<File>, visit: &mut Visit<'_>) -> Result<(), Failure> {
    skip(&mut file, LEAD_SIZE)?;
    let signature = skip_header(&mut file)?;
    // Only the signature is padded, to 8 bytes.
    skip(&mut file, signature.next_multiple_of(8) - signature)?;
    skip_header(&mut file)?;
    walk_archive(payload(file)?, visit)
}

fn walk_archive(payload: impl Read, visit: &mut Visit<'_>) -> Result<(), Failure> {
    let mut reader = Reader::new(payload);
    loop {
        let entry = match reader.next()? {
            Next::Entry(entry) => entry,
            Next::Trailer => return Ok(()),
            Next::End => return Err(Failure::Format("its archive is cut off".to_owned())),
        };
        let is_file = entry.mode & 0o170_000 == 0o100_000;
        if is_file {
            visit(&entry.name, &mut reader.content_reader())?;
        }
    }
}

impl From<ArchiveError> for Failure {
    fn from(error: ArchiveError) -> Self {
        Self::Format(format!("its archive is damaged: {error}"))
    }
}

/// Decodes what follows the headers; its first bytes tell how.
fn payload(mut file: BufReader<File>) -> Result<Box<dyn Read>, Failure> {
    let start = file.fill_buf()?;
    Ok(match start {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::stream::read::Decoder::with_buffer(file)?),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Box::new(xz_decoder(file)?),
        [b'0', b'7', ..] => Box::new(file),
        [] => return Err(Failure::Format("it is cut off".to_owned())),
        _ => {
            let reason = "its files are compressed in a way that is not known here";
            return Err(Failure::Format(reason.to_owned()));
        }
    })
}

/// Returns how long the header is.
fn skip_header(file: &mut impl Read) -> Result<u64, Failure> {
    let mut start = [0; HEADER_START_SIZE];
    file.read_exact(&mut start)?;
    let length = header_length(&start)
        .ok_or_else(|| Failure::Format("its RPM header is damaged".to_owned()))?;
    skip(file, length)?;
    Ok(HEADER_START_SIZE as u64 + length)
}

/// Length of entries and data. Never panics, whatever the bytes.
fn header_length(start: &[u8; HEADER_START_SIZE]) -> Option<u64> {
    let [0x8e, 0xad, 0xe8, 1, _, _, _, _, a, b, c, d, e, f, g, h] = *start else { return None };
    let n_entries = u64::from(u32::from_be_bytes([a, b, c, d]));
    let length = n_entries * 16 + u64::from(u32::from_be_bytes([e, f, g, h]));
    (length <= HEADER_SIZE_MAX).then_some(length)
}

fn skip(file: &mut impl Read, length: u64) -> Result<(), Failure> {
    match io::copy(&mut file.take(length), &mut io::sink())? == length {
        true => Ok(()),
        false => Err(Failure::Format("it is cut off".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KernelPackage;
    use crate::newc::Archive;
    use crate::{BuildError, ModuleSource};
    use proptest::prelude::*;
    use std::io::Write;
    use std::process::Command;

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = Archive::default();
        for (path, content) in files {
            archive.file(path, 0o644, content.to_vec());
        }
        archive.to_bytes().unwrap()
    }

    /// Headers with one entry and some data, as long as the format allows odd lengths.
    fn package(payload: &[u8]) -> Vec<u8> {
        let mut rpm = [MAGIC, &[0; LEAD_SIZE as usize - 4]].concat();
        for n_data in [5u8, 3] {
            rpm.extend([0x8e, 0xad, 0xe8, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, n_data]);
            rpm.extend(vec![1; 16 + usize::from(n_data)]);
            if n_data == 5 {
                rpm.resize(rpm.len().next_multiple_of(8), 0);
            }
        }
        [&rpm, payload].concat()
    }

    fn open(packages: &[Vec<u8>]) -> Result<KernelPackage, BuildError> {
        let folder = tempfile::tempdir().unwrap();
        let mut paths = Vec::new();
        for (number, bytes) in packages.iter().enumerate() {
            paths.push(folder.path().join(format!("{number}.rpm")));
            std::fs::write(&paths[number], bytes).unwrap();
        }
        KernelPackage::open(&paths)
    }

    fn zstd(files: &[(&str, &[u8])]) -> Vec<u8> {
        package(&zstd::bulk::compress(&archive(files), 1).unwrap())
    }

    #[test]
    fn modules_of_all_packages_of_a_kernel_are_read() {
        let files: &[(&str, &[u8])] = &[("./lib/modules/6.12/kernel/fs/ext4/ext4.ko.xz", b"ext4")];
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&archive(files)).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&archive(files)).unwrap();
        for payload in [archive(files), gzip.finish().unwrap(), xz.finish().unwrap()] {
            let source = open(&[package(&payload)]).unwrap();
            assert_eq!(source.list().unwrap().files, ["kernel/fs/ext4/ext4.ko.xz"]);
        }
        let core = zstd(&[
            ("usr/lib/modules/6.12/modules.builtin", b"list"),
            ("usr/lib/modules/6.12/vmlinuz", b"kernel"),
        ]);
        let source = open(&[core.clone(), zstd(files)]).unwrap();
        assert_eq!(source.kernel(), "6.12");
        assert_eq!(source.read("kernel/fs/ext4/ext4.ko.xz").unwrap(), b"ext4");
        assert_eq!(source.read("modules.builtin").unwrap(), b"list");
        let other = zstd(&[("lib/modules/6.13/kernel/a.ko", b"")]);
        let error = open(&[core, other]).unwrap_err().to_string();
        assert!(
            error.contains("6.13") && error.contains("6.12") && error.contains("1.rpm"),
            "{error}"
        );
    }

    #[test]
    fn every_prefix_is_refused_in_words() {
        let rpm = zstd(&[("lib/modules/6.12/kernel/a.ko", &[7; 100])]);
        for end in 0..rpm.len() {
            let error = open(&[rpm[..end].to_vec()]).unwrap_err().to_string();
            assert!(error.contains("0.rpm is not a usable kernel package: it"), "{error}");
        }
        let error = open(&[zstd(&[("usr/share/doc/x", b"")])]).unwrap_err().to_string();
        assert!(error.contains("holds no kernel modules"), "{error}");
    }

    /// A foreign program writes the package; without it there is nothing to test.
    #[test]
    fn packages_of_rpmbuild_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path();
        for compression in ["w3.zstdio", "w2.xzdio", "w6.gzdio"] {
            let spec = "Name: kernel-core\nVersion: 6.12.9\nRelease: 200\nSummary: x\nLicense: x\n\
                        %description\nx\n%install\nd=%{buildroot}/lib/modules/6.12.9-200/kernel/fs\n\
                        mkdir -p $d\nprintf module > $d/a.ko\nln -s a.ko $d/b.ko\n%files\n/lib/modules\n";
            std::fs::write(top.join("x.spec"), spec).unwrap();
            let built = Command::new("rpmbuild")
                .args(["-bb", "--quiet", "--target", "noarch", "--define"])
                .arg(format!("_topdir {}", top.display()))
                .args(["--define", &format!("_binary_payload {compression}")])
                .arg(top.join("x.spec"))
                .output();
            let Ok(built) = built else {
                let _ = writeln!(io::stderr(), "skipped: there is no rpmbuild");
                return;
            };
            assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
            let source =
                KernelPackage::open(&[top.join("RPMS/noarch/kernel-core-6.12.9-200.noarch.rpm")]);
            let source = source.unwrap();
            assert_eq!(source.kernel(), "6.12.9-200");
            assert_eq!(source.list().unwrap().files, ["kernel/fs/a.ko"]);
            assert_eq!(source.read("kernel/fs/a.ko").unwrap(), b"module");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(tail: Vec<u8>, start: [u8; HEADER_START_SIZE]) {
            let _ = header_length(&start);
            let _ = open(&[[MAGIC, &tail].concat()]);
            let _ = open(&[package(&tail)]);
            let _ = open(&[package(&zstd::bulk::compress(&tail, 1).unwrap())]);
        }
    }
}
