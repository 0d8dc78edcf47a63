//! What a file has beside its owner and its mode.

use rustix::io::Errno;
use std::io;
use std::path::Path;

/// All extended attributes of a file; access lists are among them.
pub(crate) fn xattrs(place: &Path) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let names = match grown(|buffer| rustix::fs::llistxattr(place, buffer)) {
        Ok(names) => names,
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut xattrs = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        // The sign ends the name in an archive.
        if name.contains(&b'=') {
            continue;
        }
        match grown(|buffer| rustix::fs::lgetxattr(place, name, buffer)) {
            Ok(value) => xattrs.push((name.to_vec(), value)),
            // Some are named and can't be had.
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(xattrs)
}

/// What a call gives that says how much it is; at most what Linux has (`XATTR_SIZE_MAX`).
fn grown(
    mut call: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Vec<u8>> {
    let mut buffer = vec![0; 1 << 10];
    loop {
        match call(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < 64 << 10 => buffer = vec![0; 64 << 10],
            Err(error) => return Err(error),
        }
    }
}
