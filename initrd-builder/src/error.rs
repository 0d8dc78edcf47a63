//! What can go wrong when an initrd is built.

use crate::ModInfoError;
use initcfg::{FileSystem, RootKind};
use std::io;
use std::path::PathBuf;

/// Why there is no initrd.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The init can't be started by machines.
    #[error(
        "{why}: take the bootlace-init that came with this program, or build both with `cargo xtask build`"
    )]
    Init {
        /// What is wrong with it.
        why: String,
    },
    /// Kernel and init are for different kinds of processors.
    #[error(
        "kernel {kernel} in {origin} is for {found} processors, and bootlace-init for {init}: no machine \
         could start it; give the kernel for {init}"
    )]
    WrongProcessor {
        /// Release of the kernel.
        kernel: String,
        /// Where it was found.
        origin: String,
        /// What it runs on.
        found: String,
        /// What the init runs on.
        init: String,
    },
    /// A module that is needed is not there.
    #[error(
        "module {module}, needed by {wanted_by}, is not in {origin} (kernel {kernel}): give the \
         complete modules of one kernel, for example its whole linux-image package"
    )]
    Missing {
        /// Name of the module.
        module: String,
        /// Who needs the module: another one, or a purpose.
        wanted_by: String,
        /// Where the module was looked for.
        origin: String,
        /// Release of the kernel.
        kernel: String,
    },
    /// The kernel can't attach root disks of a kind.
    #[error(
        "kernel {kernel} in {origin} has no module {module}, so no {} root disks: leave {kind} out of \
         --roots, or take a kernel that has it (those of cloud and kvm packages lack many)", kind.title()
    )]
    NoRootModule {
        /// Which kind.
        kind: RootKind,
        /// The module that it needs.
        module: &'static str,
        /// Where the module was looked for.
        origin: String,
        /// Release of the kernel.
        kernel: String,
    },
    /// A line of the hardware list can't be understood.
    #[error(
        "line {line} of the hardware list is not a modalias: each line is the content of a modalias \
         file, as `cat /sys/bus/*/devices/*/modalias` prints them on such a machine"
    )]
    FitLine {
        /// Which line, from 1.
        line: usize,
    },
    /// The hardware list is empty.
    #[error(
        "the hardware list has no hardware name: `cat /sys/bus/*/devices/*/modalias` prints them on \
         such a machine"
    )]
    FitEmpty,
    /// Nothing in the hardware list is a network card.
    #[error(
        "kernel {kernel} in {origin} has no network driver for anything in the hardware list: no \
         machine could reach its root disk; is it the list of the right machine?{left_out}"
    )]
    FitNoNetwork {
        /// Where drivers were looked for.
        origin: String,
        /// Release of the kernel.
        kernel: String,
        /// Drivers that are there and can't be used, each with a semicolon before it; may be empty.
        left_out: String,
    },
    /// A module was built for another kernel.
    #[error(
        "module {module} in {origin} is for kernel {found}, but the initrd is for {kernel}: it would \
         not load; give the modules that belong to this kernel"
    )]
    WrongKernel {
        /// Name of the module.
        module: String,
        /// Where the module was found.
        origin: String,
        /// The kernel that it was built for.
        found: String,
        /// Release of the kernel that the initrd is for.
        kernel: String,
    },
    /// A module was built for another kind of processor.
    #[error(
        "module {module} in {origin} is for {found} processors: give the modules that belong to this kernel"
    )]
    WrongModuleProcessor {
        /// Name of the module.
        module: String,
        /// Where the module was found.
        origin: String,
        /// What it runs on.
        found: String,
    },
    /// There is no driver for any network card.
    #[error(
        "{origin} (kernel {kernel}) has no driver of any network card: it is not the complete \
         module tree of a kernel; if the kernel comes in several packages, give all of them{left_out}"
    )]
    NoNetwork {
        /// Where drivers were looked for.
        origin: String,
        /// Release of the kernel.
        kernel: String,
        /// Drivers that are there and can't be used, each with a semicolon before it; may be empty.
        left_out: String,
    },
    /// The kernel can't read the root file system of the image.
    #[error(
        "kernel {kernel} in {origin} has no {file_system}, neither as a module nor inside, and could not mount the image's \
         root: give a kernel with all of its modules{left_out}"
    )]
    NoRootFileSystem {
        /// Where modules were looked for.
        origin: String,
        /// Release of the kernel.
        kernel: String,
        /// What the root is.
        file_system: FileSystem,
        /// Drivers that are there and can't be used, each with a semicolon before it; may be empty.
        left_out: String,
    },
    /// The folder holds no modules.
    #[error(
        "{} has no kernel modules: give a folder like /lib/modules/6.1.0-56-amd64, or one that \
         holds lib/modules/VERSION", .0.display()
    )]
    NoModules(PathBuf),
    /// The folder holds modules of several kernels.
    #[error("{} has modules of several kernels ({kernels}): give the folder of one of them", folder.display())]
    SeveralKernels {
        /// The folder.
        folder: PathBuf,
        /// The releases, separated by commas.
        kernels: String,
    },
    /// A module file is damaged.
    #[error("module {path} in {origin} can't be read")]
    Module {
        /// The file.
        path: String,
        /// Where the module was found.
        origin: String,
        /// What is wrong with it.
        #[source]
        source: ModInfoError,
    },
    /// Packages with a kernel and no modules.
    #[error(
        "{origin} holds kernel {kernel} without its modules: give the package of these as well, in Ubuntu \
         linux-modules-{kernel} (and linux-modules-extra-{kernel})"
    )]
    OnlyKernel {
        /// The packages.
        origin: String,
        /// Release of the kernel.
        kernel: String,
    },
    /// The file is not a package of a kernel, or it is damaged.
    #[error("{} is not a usable kernel package: {reason}", path.display())]
    Package {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Reading failed.
    #[error("can't read {what}")]
    Read {
        /// What was to be read.
        what: String,
        /// What the operating system or the decoder says.
        #[source]
        source: io::Error,
    },
    /// A file does not fit into the archive format.
    #[error("{0} is larger than 4 GiB, which an initrd can't hold")]
    TooLarge(String),
}
