//! The kernel modules of this initrd, and the hardware that wants them.

pub(crate) mod coldplug;
pub(crate) mod loader;
