//! A medium that boots PCs from the network whose firmware can't: a USB stick or a CD with GRUB, and with iPXE, which has drivers for
//! network cards.
//!
//! The same bytes serve both: an ISO 9660 file system with boot code for both kinds of firmware, and a partition table in front.

mod uefi;

use crate::boot::grub_images::GrubImagesError;
use crate::boot::ipxe_loaders::{FOLDERS, INSTALL};
use crate::boot::signed_loader::SignedLoader;
use model::IPXE_ENTRY_PATH;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the medium's file system holds, in the folder in which it is made.
const CONTENT: &str = "content";

/// Where GRUB finds what it starts on the medium.
const FOLDER: &str = "/bootlace";

/// iPXE's script there.
const IPXE_SCRIPT: &str = "medium.ipxe";

/// How long GRUB waits for somebody to choose.
const MENU_SECONDS: u32 = 3;

/// What GRUB holds.
const MODULES: &[&str] = &[
    "biosdisk",
    "boot",
    "chain",
    "echo",
    "iso9660",
    "linux16",
    "minicmd",
    "normal",
    "part_gpt",
    "part_msdos",
    "reboot",
    "search",
    "search_fs_file",
    "serial",
    "terminal",
    "test",
];

/// Its modules.
const GRUB_FOLDER: &str = "/usr/lib/grub/i386-pc";

/// A medium can't be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MediumError {
    /// A Debian package is missing.
    #[error("{what} is missing: {install}")]
    Missing {
        /// What is missing.
        what: String,
        /// What installs it.
        install: &'static str,
    },
    /// There is no GRUB for UEFI.
    #[error(transparent)]
    Grub(#[from] GrubImagesError),
    /// A program failed.
    #[error("{program} failed: {text}")]
    Failed {
        /// The program.
        program: &'static str,
        /// What it said.
        text: String,
    },
    /// A file can't be written or read.
    #[error("can't use {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Makes the medium in `folder`, which is empty, for boot servers at these addresses, the first of which that answers counts; where
/// the image of it is. PCs with Secure Boot start it if it holds the signed loader.
///
/// # Errors
/// A package is missing, a program fails, or there is no room.
pub(crate) fn build(
    folder: &Path,
    servers: &[Ipv4Addr],
    signed: Option<&SignedLoader>,
) -> Result<PathBuf, MediumError> {
    let content = folder.join(CONTENT);
    let own = content.join(&FOLDER[1..]);
    create_dir(&own)?;
    let lkrn = ipxe("ipxe.lkrn")?;
    fs::copy(&lkrn, own.join("ipxe.lkrn")).map_err(file(&lkrn))?;
    let script = script(servers);
    write(&own.join(IPXE_SCRIPT), script.as_bytes())?;
    write(&own.join("grub.cfg"), menu().as_bytes())?;
    mkimage(folder, &content.join("boot.img"))?;
    uefi::make(folder, (servers, script), signed)?;

    let image = folder.join("medium.iso");
    let hybrid = Path::new("/usr/lib/grub/i386-pc/boot_hybrid.img");
    if !hybrid.exists() {
        let what = hybrid.display().to_string();
        return Err(MediumError::Missing { what, install: "apt-get install grub-pc-bin" });
    }
    let mut xorriso = Command::new("xorriso");
    xorriso.args(["-as", "mkisofs", "-quiet", "-r", "-J", "-V", "BOOTLACE", "-o"]).arg(&image);
    // For a BIOS: El Torito on a CD, and code in the first sector on a stick.
    xorriso.args(["-b", "boot.img", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table"]);
    xorriso.arg("--grub2-boot-info").arg("--grub2-mbr").arg(hybrid);
    // For UEFI: the same on a CD, and a partition on a stick.
    xorriso.args([
        "-eltorito-alt-boot",
        "-e",
        uefi::PARTITION,
        "-no-emul-boot",
        "-isohybrid-gpt-basdat",
    ]);
    run(("xorriso", "apt-get install xorriso"), xorriso.arg(&content))?;
    Ok(image)
}

/// Where the package has this file of iPXE.
fn ipxe(name: &str) -> Result<PathBuf, MediumError> {
    let mut places = FOLDERS.iter().map(|folder| Path::new(folder).join(name));
    let found = places.find(|path| path.exists());
    found.ok_or_else(|| MediumError::Missing { what: name.to_owned(), install: INSTALL })
}

/// GRUB for PC BIOS, for a CD and for a stick.
fn mkimage(folder: &Path, output: &Path) -> Result<(), MediumError> {
    if !Path::new(GRUB_FOLDER).join("normal.mod").exists() {
        let install = "apt-get install grub-pc-bin";
        return Err(MediumError::Missing { what: GRUB_FOLDER.to_owned(), install });
    }
    let early = folder.join("early.cfg");
    let start = format!("search.file {FOLDER}/grub.cfg root\nnormal ($root){FOLDER}/grub.cfg\n");
    write(&early, start.as_bytes())?;
    let mut grub = Command::new("grub-mkimage");
    grub.args(["-O", "i386-pc-eltorito", "-d", GRUB_FOLDER, "-p", FOLDER, "-c"]).arg(early);
    run(("grub-mkimage", "apt-get install grub-common"), grub.arg("-o").arg(output).args(MODULES))
}

fn run(
    (program, install): (&'static str, &'static str),
    command: &mut Command,
) -> Result<(), MediumError> {
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(MediumError::Failed { program, text })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(MediumError::Missing { what: program.to_owned(), install })
        }
        Err(error) => Err(MediumError::Failed { program, text: error.to_string() }),
    }
}

fn file(path: &Path) -> impl FnOnce(io::Error) -> MediumError + use<> {
    let path = path.to_owned();
    move |source| MediumError::File { path, source }
}

fn create_dir(path: &Path) -> Result<(), MediumError> {
    fs::create_dir_all(path).map_err(file(path))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), MediumError> {
    fs::write(path, bytes).map_err(file(path))
}

/// GRUB's menu.
fn menu() -> String {
    format!(
        "if serial --unit=0 --speed=115200; then terminal_output --append serial; fi\n\
         set timeout={MENU_SECONDS}\n\
         menuentry 'Boot from the network (Bootlace)' {{\n\
         \x20 linux16 {FOLDER}/ipxe.lkrn\n\
         \x20 initrd16 {FOLDER}/{IPXE_SCRIPT}\n\
         }}\n\
         menuentry 'The disk of this PC' {{\n\
         \x20 set root=hd1\n\
         \x20 if chainloader (hd1)+1; then boot; fi\n\
         \x20 set root=hd0\n\
         \x20 if chainloader (hd0)+1; then boot; fi\n\
         }}\n\
         menuentry 'Restart' {{\n\x20 reboot\n}}\n"
    )
}

/// What iPXE does: an address by DHCP from whoever gives one, and then the first server that answers.
fn script(servers: &[Ipv4Addr]) -> String {
    let names: Vec<String> = servers.iter().map(ToString::to_string).collect();
    let asks: String = names
        .iter()
        .map(|server| {
            format!(
                "chain --autofree tftp://{server}{IPXE_ENTRY_PATH} ||\n\
                 iseq ${{bootlace}} leave && exit 1 ||\n"
            )
        })
        .collect();
    format!(
        "#!ipxe\n\
         # Made by bootlace medium build.\n\
         :again\n\
         echo Bootlace: looking for the boot server {}\n\
         dhcp || goto none\n\
         {asks}\
         echo Bootlace: no boot server answers there. Asking again.\n\
         sleep 5 ||\n\
         goto again\n\
         :none\n\
         echo Bootlace: no network card of this PC gets an address. Asking again.\n\
         sleep 5 ||\n\
         goto again\n",
        names.join(", "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_asks_one_server_after_the_other_and_never_ends() {
        let text = script(&[Ipv4Addr::new(10, 0, 5, 1), Ipv4Addr::new(10, 0, 5, 2)]);
        let first = text.find("tftp://10.0.5.1/autoexec.ipxe ||").unwrap();
        assert!(text[first..].contains("tftp://10.0.5.2/autoexec.ipxe ||"));
        assert!(text.ends_with("goto again\n"));
    }

    #[test]
    fn what_is_missing_is_named_with_its_package() {
        let error =
            run(("no-such-program", "apt-get install it"), &mut Command::new("no-such-program"));
        let told = error.unwrap_err().to_string();
        assert_eq!(told, "no-such-program is missing: apt-get install it");
    }
}
