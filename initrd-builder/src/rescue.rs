//! The archive with the rescue shell, which follows the initrd of a boot that shall stop in one.

use crate::BuildError;
use crate::newc::Archive;

/// An uncompressed archive with this busybox, made to follow others like [`host_segment`](crate::host_segment).
///
/// # Errors
/// The program is larger than an archive can hold.
pub fn rescue_segment(busybox: Vec<u8>) -> Result<Vec<u8>, BuildError> {
    let mut archive = Archive::default();
    archive.file(initcfg::RESCUE_BUSYBOX, 0o755, busybox);
    archive.to_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect;

    #[test]
    fn it_follows_other_segments() {
        let mut initrd = crate::host_segment("bootlace-host/1\nend\n").unwrap();
        initrd.extend(rescue_segment(vec![1, 2, 3]).unwrap());
        let contents = inspect(&initrd);
        assert_eq!(contents.segments.len(), 2, "{contents:?}");
        assert!(contents.segments.iter().all(|segment| segment.problem.is_none()), "{contents:?}");
    }
}
