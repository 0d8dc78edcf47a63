//! Small files that a person may have put there, or something else in their place: a look at one never waits, and never takes more memory
//! than such a file has.

use rustix::fs::OFlags;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

/// What is in the file; `None` if there is none.
///
/// # Errors
/// The file can't be read (the operating system's error), or it is no file, is longer than `bytes_max`, or no text (`InvalidData`, with a
/// sentence for people: a pipe would make its reader wait for ever, and a device has no end).
pub fn read_small(path: &Path, bytes_max: u64) -> io::Result<Option<String>> {
    let none_if_missing = |error: io::Error| match error.kind() {
        ErrorKind::NotFound => Ok(None),
        _ => Err(error),
    };
    // Looked at before it is opened: opening may do something with a device.
    let kind = match fs::metadata(path) {
        Ok(kind) => kind,
        Err(error) => return none_if_missing(error),
    };
    check_kind(&kind)?;
    let flags = OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path);
    let file: File = match opened {
        Ok(file) => file,
        Err(error) => return none_if_missing(error),
    };
    // It may have been exchanged since.
    check_kind(&file.metadata()?)?;
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(unfit(format!("it is longer than {bytes_max} bytes")));
    }
    String::from_utf8(bytes).map(Some).map_err(|_| unfit("it is no text".to_owned()))
}

fn check_kind(metadata: &Metadata) -> io::Result<()> {
    let kind = metadata.file_type();
    let found = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => "folder",
        () if kind.is_fifo() => "pipe",
        () if kind.is_socket() => "socket",
        () => "device",
    };
    Err(unfit(format!("it is a {found}, and not a file")))
}

fn unfit(why: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::Mode;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_is_no_small_file_is_named_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("owner.toml");
        let look = || read_small(&path, 8).map_err(|error| error.to_string());
        assert_eq!(look(), Ok(None));
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        assert_eq!(look(), Err("it is a pipe, and not a file".to_owned()));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(look(), Err("it is a folder, and not a file".to_owned()));
        fs::remove_dir(&path).unwrap();
        symlink("/dev/zero", &path).unwrap();
        assert_eq!(look(), Err("it is a device, and not a file".to_owned()));
        fs::remove_file(&path).unwrap();
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(look(), Err("it is longer than 8 bytes".to_owned()));
        fs::write(&path, [0xff]).unwrap();
        assert_eq!(look(), Err("it is no text".to_owned()));
        fs::write(&path, "12345678").unwrap();
        assert_eq!(look(), Ok(Some("12345678".to_owned())));
    }
}
