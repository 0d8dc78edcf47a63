//! Where modules come from.

use std::io;

/// The modules of one kernel: a folder, a package, or an imported image.
pub trait ModuleSource {
    /// Release of the kernel, like `6.1.0-56-amd64`.
    fn kernel(&self) -> &str;

    /// For people: where this is.
    fn origin(&self) -> String;

    /// All files below `lib/modules/RELEASE/`, relative to it, like `kernel/fs/ext4/ext4.ko`.
    ///
    /// # Errors
    /// The store can't be read.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Content of one of the listed files, as it is stored (perhaps compressed).
    ///
    /// # Errors
    /// The source has no such file, or it can't be read.
    fn read(&self, path: &str) -> io::Result<Vec<u8>>;

    /// At least the first 66 kB of the kernel's own file, if it is at hand: it knows its real version.
    fn kernel_start(&self) -> Option<Vec<u8>> {
        None
    }

    /// A firmware file by the name that a driver asks for, like `rtl_nic/rtl8168h-2.fw`, as it is
    /// stored; the file's name may end in `.xz` or `.zst`. `None` if the source has none.
    ///
    /// # Errors
    /// The store can't be read.
    fn firmware(&self, _name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }
}
