//! Files that commands make for somebody who names them.

use crate::new_file::NewFile;
use anyhow::{anyhow, bail, ensure};
use std::fs::OpenOptions;
use std::io::{ErrorKind, IsTerminal as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Replaces the file as a whole, so that nobody boots half of it; `-` is standard output. What is no file, such as a pipe or a device, is
/// written to.
pub(super) fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if path == Path::new("-") {
        ensure!(
            !std::io::stdout().is_terminal(),
            "it is no text: name a file, or redirect standard output"
        );
        let mut out = std::io::stdout().lock();
        return Ok(out.write_all(bytes).and_then(|()| out.flush())?);
    }
    match std::fs::metadata(path) {
        Ok(there) if there.is_dir() => bail!("it is a folder"),
        Ok(there) if there.file_type().is_block_device() => {
            // Refused by the kernel if it, or a part of it, is mounted or otherwise in use (open(2)).
            let opened = OpenOptions::new().write(true).custom_flags(libc::O_EXCL).open(path);
            let mut device = opened.map_err(|error| match error.kind() {
                ErrorKind::ResourceBusy => {
                    anyhow!("it is in use: unmount what is on it (lsblk shows that), or name another device")
                }
                _ => error.into(),
            })?;
            // Before anything on it is lost.
            let size = device.seek(SeekFrom::End(0))?;
            device.rewind()?;
            let megabytes = bytes.len().div_ceil(1_000_000);
            ensure!(
                size >= bytes.len() as u64,
                "it is too small: name a device with at least {megabytes} MB"
            );
            device.write_all(bytes)?;
            // Whoever reads that it is done pulls the stick.
            Ok(device.sync_all()?)
        }
        Err(error) if error.kind() == ErrorKind::NotFound && path.starts_with("/dev") => {
            bail!("there is no such device: lsblk shows those that there are")
        }
        Ok(there) if !there.is_file() => {
            Ok(OpenOptions::new().write(true).open(path)?.write_all(bytes)?)
        }
        _ => {
            let mut new = NewFile::create(path, 0o666)?;
            new.write_all(bytes)?;
            Ok(new.replace()?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::io::Read as _;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_is_no_file_is_written_to_and_links_stay_links() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "former").unwrap();
        symlink("file", at("link")).unwrap();
        // What somebody has laid where a file in the making may be.
        fs::write(at("precious"), "precious").unwrap();
        symlink("precious", at(".file.new")).unwrap();
        write(&at("link"), b"initrd").unwrap();
        assert!(at("link").symlink_metadata().unwrap().is_symlink());
        assert_eq!(fs::read(at("file")).unwrap(), b"initrd");
        assert_eq!(fs::read(at("precious")).unwrap(), b"precious");

        let pipe = at("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || {
                let mut read = Vec::new();
                File::open(pipe).unwrap().read_to_end(&mut read).unwrap();
                read
            }
        });
        write(&pipe, b"initrd").unwrap();
        assert_eq!(reader.join().unwrap(), b"initrd");
        assert!(pipe.symlink_metadata().unwrap().file_type().is_fifo());
        let error = write(Path::new("/dev/full"), b"initrd").unwrap_err().to_string();
        assert!(error.contains("No space left"), "{error}");
        assert!(write(folder.path(), b"initrd").unwrap_err().to_string().contains("a folder"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 5);
    }
}
