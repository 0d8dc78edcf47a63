//! The kernel modules of this initrd, and the hardware that wants them.

pub(crate) mod coldplug;
mod load;

pub(crate) use load::{Modules, cannot_load, modprobe};
