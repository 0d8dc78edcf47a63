//! Our GRUB images, made with the address of this server inside.

use bytes::Bytes;
use model::Loader;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// File name under which a PC BIOS asks for its loader.
pub(crate) const BIOS_FILE: &str = Loader::Bios.file();
/// File name under which 64-bit UEFI asks for our own loader.
pub(crate) const UEFI_X64_FILE: &str = Loader::Own.file();

/// File name under which UEFI of 64-bit ARM PCs asks for our loader.
pub(crate) const ARM64_FILE: &str = Loader::OwnArm64.file();

/// Modules that all images hold: with all of them inside, a loader is one transfer instead of sixteen.
const MODULES: &[&str] = &[
    "boot",
    "chain",
    "configfile",
    "echo",
    "fat",
    "gzio",
    "halt",
    "http",
    "linux",
    "minicmd",
    "net",
    "normal",
    "part_gpt",
    "part_msdos",
    "password_pbkdf2",
    "reboot",
    "regexp",
    "serial",
    "sleep",
    "terminal",
    "test",
    "tftp",
];

struct Kind<'a> {
    file: &'static str,
    format: &'static str,
    folder: &'a str,
    package: &'static str,
    modules: &'static [&'static str],
}

const BIOS: Kind<'static> = Kind {
    file: BIOS_FILE,
    format: "i386-pc-pxe",
    folder: "/usr/lib/grub/i386-pc",
    package: "grub-pc-bin",
    modules: &["pxe", "biosdisk"],
};

const UEFI_X64: Kind<'static> = Kind {
    file: UEFI_X64_FILE,
    format: "x86_64-efi",
    folder: "/usr/lib/grub/x86_64-efi",
    package: "grub-efi-amd64-bin",
    // Without a video driver the kernel of a UEFI PC starts on a dark screen.
    modules: &["efinet", "all_video"],
};

/// Those of PCs with processors of x86.
const KINDS: [Kind<'static>; 2] = [BIOS, UEFI_X64];

/// Where GRUB's modules for arm64 are: the package is of that architecture, so that most servers have them elsewhere, if at all.
const ARM64_FOLDER: &str = "/usr/lib/grub/arm64-efi";

/// For those who have its modules in this folder.
const fn arm64(folder: &str) -> Kind<'_> {
    Kind {
        file: ARM64_FILE,
        format: "arm64-efi",
        folder,
        package: ARM64_PACKAGE,
        modules: &["efinet", "all_video"],
    }
}

const ARM64_PACKAGE: &str = "grub-efi-arm64-bin";

/// The folder with GRUB's modules for arm64: the one that is configured, or where the package has them.
///
/// # Errors
/// There is none, and how it is had.
pub(crate) fn arm64_folder(configured: Option<&Path>) -> Result<PathBuf, NoArm64> {
    let folder = configured.unwrap_or(Path::new(ARM64_FOLDER));
    match (std::fs::read(folder.join("normal.mod")), configured) {
        // ELF: `e_machine` is EM_AARCH64.
        (Ok(module), _) if module.get(18..20) == Some(&[183, 0]) => Ok(folder.to_owned()),
        (Ok(_), _) => Err(NoArm64::NotForArm64(folder.to_owned())),
        (Err(_), Some(_)) => Err(NoArm64::NotThere(folder.to_owned())),
        (Err(_), None) => Err(NoArm64::NotInstalled),
    }
}

/// There is no loader for arm64 PCs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoArm64 {
    /// Nobody has said where the modules are, and they are not installed.
    #[error(
        "arm64 PCs get no loader here, as GRUB's modules for them are not installed; to serve such PCs: dpkg --add-architecture \
         arm64; apt-get update; apt-get install --no-install-recommends \
         {ARM64_PACKAGE}:arm64"
    )]
    NotInstalled,
    /// They are not where somebody has said.
    #[error(
        "{} has no normal.mod: arm64_grub must be the folder arm64-efi of Debian's {ARM64_PACKAGE} (bootlace help arm64)",
        .0.display()
    )]
    NotThere(PathBuf),
    /// They are those of another architecture.
    #[error(
        "the modules in {} are not for arm64: arm64_grub must be the folder arm64-efi of Debian's {ARM64_PACKAGE} (bootlace help arm64)",
        .0.display()
    )]
    NotForArm64(PathBuf),
}

/// A loader can't be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GrubImagesError {
    /// A Debian package is missing.
    #[error("{what} is missing; install it by: apt-get install {package}")]
    Missing {
        /// What is missing.
        what: String,
        /// Package that has it.
        package: &'static str,
    },
    /// `grub-mkimage` failed.
    #[error("grub-mkimage could not make {file}: {text}")]
    Failed {
        /// File it should make.
        file: &'static str,
        /// What `grub-mkimage` said.
        text: String,
    },
    /// The cache folder can't be used.
    #[error("can't keep the loaders in {path}")]
    Cache {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The loaders for all kinds of firmware that we serve.
#[derive(Clone, Debug)]
pub(crate) struct GrubImages {
    files: Vec<(&'static str, Bytes)>,
}

impl GrubImages {
    /// Makes the loaders for `server`, or takes them from `cache`; that for arm64 PCs of the modules in this folder, if there is one.
    ///
    /// # Errors
    /// A package is missing, `grub-mkimage` fails, or the cache can't be written.
    pub(crate) fn make(
        server: Ipv4Addr,
        cache: &Path,
        arm64_folder: Option<&Path>,
    ) -> Result<Self, GrubImagesError> {
        let version = check()?;
        let arm64_folder = arm64_folder.map(Path::to_string_lossy);
        let folder = cache.join("loader");
        let cached = |source| GrubImagesError::Cache { path: folder.clone(), source };
        std::fs::create_dir_all(&folder).map_err(cached)?;
        let mut files = Vec::new();
        let early = early(server);
        for kind in KINDS.iter().chain(&arm64_folder.as_deref().map(arm64)) {
            let modules = modules_mark(kind);
            let recipe =
                format!("{version} {server} {:?} {MODULES:?} {early}{modules}", kind.modules);
            let key = blake3::hash(recipe.as_bytes()).to_hex();
            let path = folder.join(format!("{}-{}", &key[..16], kind.file));
            if !path.exists() {
                let new = path.with_extension("new");
                let to = Image { kind, prefix: &format!("(tftp,{server})/grub"), early: &early };
                to.make(&folder, &new)?;
                std::fs::rename(&new, &path).map_err(cached)?;
            }
            files.push((kind.file, Bytes::from(std::fs::read(&path).map_err(cached)?)));
        }
        Ok(Self { files })
    }

    /// The loader of that name.
    pub(crate) fn get(&self, file: &str) -> Option<(&'static str, Bytes)> {
        self.files.iter().find(|(name, _)| *name == file).cloned()
    }
}

/// Whether loaders can be made: the version of `grub-mkimage`, or what is missing.
///
/// # Errors
/// A package is missing.
pub(crate) fn check() -> Result<String, GrubImagesError> {
    let missing = |what: &str, package| GrubImagesError::Missing { what: what.to_owned(), package };
    let version = Command::new("grub-mkimage").arg("--version").output();
    let version = version.map_err(|_| missing("grub-mkimage", "grub-common"))?;
    for kind in &KINDS {
        if !Path::new(kind.folder).join("normal.mod").exists() {
            return Err(missing(kind.folder, kind.package));
        }
    }
    Ok(String::from_utf8_lossy(&version.stdout).trim().to_owned())
}

/// Tells modules apart that are not of the package with `grub-mkimage`: where they are, and from when.
fn modules_mark(kind: &Kind<'_>) -> String {
    if kind.file != ARM64_FILE {
        return String::new();
    }
    let written = std::fs::metadata(Path::new(kind.folder).join("normal.mod"))
        .and_then(|about| about.modified())
        .ok()
        .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    format!("{} {written:?}", kind.folder)
}

/// What GRUB does first. The server's address is written out, because GRUB's own idea of it is another
/// DHCP server's in some networks.
fn early(server: Ipv4Addr) -> String {
    format!("normal (tftp,{server}){}\n", model::ENTRY_PATH)
}

/// GRUB for 64-bit UEFI as it starts from a medium, with this as the first that it does; `folder` is for what is made on the way.
///
/// # Errors
/// A package is missing, `grub-mkimage` fails, or the folder can't be written.
pub(crate) fn medium_grub(early: &str, folder: &Path) -> Result<Vec<u8>, GrubImagesError> {
    check()?;
    let output = folder.join(UEFI_X64_FILE);
    let kind = Kind { modules: &["efinet", "all_video", "iso9660", "search_fs_file"], ..UEFI_X64 };
    Image { kind: &kind, prefix: "/grub", early }.make(folder, &output)?;
    std::fs::read(&output).map_err(|source| GrubImagesError::Cache { path: output, source })
}

/// What `grub-mkimage` is to make.
struct Image<'a> {
    kind: &'a Kind<'a>,
    prefix: &'a str,
    early: &'a str,
}

impl Image<'_> {
    fn make(&self, folder: &Path, output: &Path) -> Result<(), GrubImagesError> {
        let kind = self.kind;
        let early_path = folder.join("early.cfg");
        std::fs::write(&early_path, self.early)
            .map_err(|source| GrubImagesError::Cache { path: folder.into(), source })?;
        let run = Command::new("grub-mkimage")
            .args(["-O", kind.format, "-d", kind.folder, "-p", self.prefix])
            .arg("-c")
            .arg(&early_path)
            .arg("-o")
            .arg(output)
            .args(MODULES)
            .args(kind.modules)
            .output();
        let failed = |text: String| GrubImagesError::Failed { file: kind.file, text };
        let run = run.map_err(|error| failed(error.to_string()))?;
        if run.status.success() {
            Ok(())
        } else {
            Err(failed(String::from_utf8_lossy(&run.stderr).trim().to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_brings_the_loader_for_arm64_is_said_where_there_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let why = arm64_folder(Some(folder.path())).unwrap_err().to_string();
        assert!(why.contains("has no normal.mod") && why.contains(ARM64_PACKAGE), "{why}");
        let module = folder.path().join("normal.mod");
        for other in [&b"x"[..], b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x01\0\x3e\0"] {
            std::fs::write(&module, other).unwrap();
            let why = arm64_folder(Some(folder.path())).unwrap_err().to_string();
            assert!(why.contains("not for arm64"), "{why}");
        }
        std::fs::write(module, b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x01\0\xb7\0").unwrap();
        assert_eq!(arm64_folder(Some(folder.path())).unwrap(), folder.path());
        assert!(NoArm64::NotInstalled.to_string().contains(ARM64_PACKAGE));
    }

    #[test]
    fn loaders_are_made_once_and_hold_the_server_s_address() {
        if check().is_err() {
            eprintln!("skipped: the GRUB packages are not installed");
            return;
        }
        let cache = tempfile::tempdir().unwrap();
        let server = Ipv4Addr::new(10, 77, 0, 1);
        let loaders = GrubImages::make(server, cache.path(), None).unwrap();
        assert!(loaders.get(BIOS_FILE).unwrap().1.len() > 100_000);
        let (_, efi) = loaders.get(UEFI_X64_FILE).unwrap();
        assert!(efi.windows(16).any(|bytes| bytes == b"(tftp,10.77.0.1)"));
        assert!(loaders.get("other").is_none() && loaders.get(ARM64_FILE).is_none());
        std::fs::read_dir(cache.path().join("loader")).unwrap().for_each(|entry| {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension != "cfg") {
                std::fs::write(path, "from the cache").unwrap();
            }
        });
        let again = GrubImages::make(server, cache.path(), None).unwrap();
        assert_eq!(again.get(BIOS_FILE).unwrap().1, "from the cache");
    }
}
