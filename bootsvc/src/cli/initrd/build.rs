//! `bootlace initrd build`

use super::super::output_file::write;
use super::super::{note, one_of, root_kind, say, table};
use super::inspect::size;
use crate::paths::Paths;
use crate::privileges::{as_owner, as_owner_who_reads};
use crate::site::Site;
use anyhow::{Context, bail};
use clap::Args;
use images::Store;
use initrd_builder::{
    Directory, Fit, Init, Initrd, KernelPackage, ModuleSource, Options, PackedModule, Processor,
};
use model::{Architecture, FileSystem, ImageName, ImageVersion, RootKind};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

#[derive(Args)]
pub(in crate::cli) struct Build {
    /// File to write; - is standard output
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Print each module with its size and why it is included
    #[arg(long)]
    explain: bool,
    /// Kinds of roots that it can attach; default: nbd, and aoe if the kernel has it
    ///
    /// NFS adds 1.0 MB, iSCSI 0.4 MB. The boot server includes them for images that a machine with such a
    /// root boots.
    #[arg(long, value_name = "KINDS", value_delimiter = ',', value_parser = root_kind())]
    roots: Option<Vec<RootKind>>,
    /// Include only drivers for the hardware listed in FILE: a tenth of the size
    ///
    /// Each line is the modalias of a device; lines that start with # are ignored. On a machine that runs
    /// Linux, this prints them: cat /sys/bus/*/devices/*/modalias | sort -u
    ///
    /// The lists of several machines may be joined. PCs with other network cards can't boot such an
    /// initrd, and it can't be used in a VLAN (`vlan` in bootlace.toml).
    #[arg(long, value_name = "FILE", verbatim_doc_comment)]
    fit: Option<PathBuf>,
    /// File systems of root disks; default: all, or with --fit only that of the image (ext4 without --image)
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        value_parser = one_of::<FileSystem>(FileSystem::ALL.map(FileSystem::word))
    )]
    file_systems: Option<Vec<FileSystem>>,
    /// Attach NBD roots over TLS, from a storage server certified by an authority in FILE (PEM)
    ///
    /// The certificate must name the server's IP addresses. This makes init 0.4 MB larger. The boot server
    /// does it by itself if the configuration says so (`machine_ca` in `nbd_tls`).
    #[arg(long, value_name = "FILE")]
    nbd_ca: Option<PathBuf>,
    /// Compress all modules again: neither read nor fill /var/cache/bootlace/modules
    ///
    /// The result is the same. The folder may be emptied at any time.
    #[arg(long)]
    no_cache: bool,
    #[command(flatten)]
    source: Source,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// Take the modules from the newest version of an imported image
    #[arg(long, value_name = "NAME")]
    image: Option<ImageName>,
    /// Take the modules from a kernel package (.deb or .rpm); may be given several times
    ///
    /// Debian: linux-image. Ubuntu: linux-image, linux-modules and linux-modules-extra, in any order.
    /// Fedora: kernel-core, kernel-modules-core and kernel-modules.
    /// openSUSE: kernel-default.
    #[arg(long, value_name = "FILE", verbatim_doc_comment)]
    kernel_package: Vec<PathBuf>,
    /// Take the modules from a folder: lib/modules/VERSION, or a root that has one
    #[arg(long, value_name = "DIR")]
    modules: Option<PathBuf>,
}

impl Build {
    pub(in crate::cli) fn run(self, paths: &Paths) -> anyhow::Result<()> {
        let started = Instant::now();
        let options = self.options(paths)?;
        // The cache of modules is the servers', and the initrd the caller's.
        let initrd = match &self.source.image {
            Some(image) => as_owner(paths, || {
                let version = newest(paths, image)?;
                let laid = Store::look(&paths.images())?;
                let laid = laid.overlay_file(&version.image, version.version)?;
                let overlay = laid.map(|(_, bytes)| bytes);
                let options = Options { overlay, ..self.for_version(options, &version) };
                let modules = service::image_modules(&paths.images(), &version)?;
                let init = self.init(version.architecture)?;
                Ok(initrd_builder::build(modules.as_ref(), &init, &options)?)
            }),
            None => as_owner_who_reads(paths, || {
                let modules = self.source.open()?;
                let start = modules.kernel_start();
                let is_arm64 =
                    start.as_deref().and_then(Processor::of_kernel) == Some(Processor::AARCH64);
                let init = self.init(match is_arm64 {
                    true => Architecture::Arm64,
                    false => Architecture::X86_64,
                })?;
                Ok(initrd_builder::build(modules.as_ref(), &init, &options)?)
            }),
        }?;
        write(&self.output, &initrd.bytes)
            .with_context(|| format!("can't write {}", self.output.display()))?;
        for warning in &initrd.warnings {
            note(format!("note: {warning}"));
        }
        // Standard output may be the initrd.
        let tell: fn(String) = if self.output == Path::new("-") { note } else { say };
        if self.explain {
            tell(format!("{}\n", explain(&initrd)));
        }
        tell(format!(
            "{}: kernel {}, {} modules, {} firmware files, {:.1} MB, {:.2} s",
            self.output.display(),
            initrd.kernel,
            initrd.modules.len(),
            initrd.firmware.len(),
            initrd.bytes.len() as f64 / 1e6,
            started.elapsed().as_secs_f64()
        ));
        Ok(())
    }

    /// The init for such machines.
    fn init(&self, architecture: Architecture) -> anyhow::Result<Init> {
        let name = service::init_name(architecture, self.nbd_ca.is_some());
        let init = service::find_init(name).with_context(|| {
            format!(
                "{name} is neither beside this program nor in /usr/lib/bootlace; cargo xtask build makes it"
            )
        })?;
        let bytes =
            std::fs::read(&init).with_context(|| format!("can't read {}", init.display()))?;
        Init::parse(bytes).with_context(|| format!("can't use {}", init.display()))
    }

    fn options(&self, paths: &Paths) -> anyhow::Result<Options> {
        let roots = self.roots.as_ref();
        let fit = self.fit.as_deref().map(read_fit).transpose()?;
        let file_systems = match &self.file_systems {
            Some(names) => Some(names.iter().copied().collect()),
            None => fit.as_ref().map(|_| [FileSystem::Ext4].into()),
        };
        Ok(Options {
            roots: roots.map(|kinds| kinds.iter().copied().collect()),
            more_roots: BTreeSet::new(),
            file_systems,
            root_file_system: None,
            is_on_lvm: false,
            has_local_disks: false,
            fit,
            nbd_ca: self.nbd_ca.as_deref().map(storage::read_authorities).transpose()?,
            overlay: None,
            cache: (!self.no_cache).then(|| paths.cache().join("modules")),
        })
    }

    /// The same for a version of an image, of whose root more is known.
    fn for_version(&self, options: Options, version: &ImageVersion) -> Options {
        let of_image = version.file_system;
        let options = Options { is_on_lvm: version.logical_volume.is_some(), ..options };
        match (&self.file_systems, &options.fit) {
            (Some(_), _) => options,
            (None, Some(_)) => Options { file_systems: Some([of_image].into()), ..options },
            (None, None) => Options { root_file_system: Some(of_image), ..options },
        }
    }
}

impl Source {
    /// Modules of no image.
    fn open(&self) -> anyhow::Result<Box<dyn ModuleSource>> {
        Ok(match self {
            Self { kernel_package, .. } if !kernel_package.is_empty() => {
                Box::new(KernelPackage::open(kernel_package)?)
            }
            Self { modules: Some(folder), .. } => Box::new(Directory::open(folder)?),
            _ => bail!("give --image, --kernel-package or --modules"),
        })
    }
}

fn read_fit(file: &Path) -> anyhow::Result<Fit> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("can't read the hardware list {}", file.display()))?;
    Fit::parse(&text).with_context(|| format!("can't use {}", file.display()))
}

/// The newest version of an image.
fn newest(paths: &Paths, image: &ImageName) -> anyhow::Result<ImageVersion> {
    let versions: Vec<ImageVersion> = Site::enter(paths, None)?.get("/api/v1/images")?;
    let mut known: Vec<ImageName> = versions.iter().map(|version| version.image.clone()).collect();
    known.dedup();
    let of_image = versions.into_iter().filter(|version| version.image == *image);
    let newest = of_image.max_by_key(|version| version.version);
    Ok(newest.ok_or_else(|| service::Error::NoImage { image: image.clone(), known })?)
}

fn explain(initrd: &Initrd) -> String {
    let row = |module: &PackedModule| {
        [module.name.clone(), size(module.size_bytes), module.why.to_string()]
    };
    let rows: Vec<[String; 3]> = initrd.modules.iter().map(row).collect();
    table(["MODULE", "SIZE", "WHY"], &rows)
}
