//! The archive for one boot of one machine, which follows the initrd.

use crate::BuildError;
use crate::newc::Archive;

/// An uncompressed archive with the file of [`initcfg::HostConfig`], readable by root only. It may follow
/// any archive that ends at a multiple of 4 bytes, which ours do.
///
/// # Errors
/// The file is larger than an archive can hold.
pub fn host_segment(file: &str) -> Result<Vec<u8>, BuildError> {
    let mut archive = Archive::default();
    archive.file(initcfg::HOST_FILE, 0o600, file.as_bytes().to_vec());
    archive.to_bytes()
}

#[cfg(test)]
mod tests {
    use super::host_segment;
    use crate::inspect;

    #[test]
    fn the_kernel_drops_nothing_of_it_behind_an_initrd() {
        let mut initrd = host_segment("first\n").unwrap();
        initrd.extend(host_segment("bootlace-host/1\nend\n").unwrap());
        let contents = inspect(&initrd);
        assert_eq!(contents.segments.len(), 2, "{contents:?}");
        assert!(contents.segments.iter().all(|segment| segment.problem.is_none()), "{contents:?}");
    }
}
