//! A package: files that are laid out, described and packed by dpkg-deb.

use super::tree::Tree;
use crate::build::{Place, version};
use crate::dist::{self, Crates, licenses, sbom};
use crate::say;
use anyhow::{Context, Result};
use lab::{run, text_of};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which programs are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Programs {
    /// Those that are shipped.
    Release,
    /// Those of `cargo xtask build`, in a hurry.
    Debug,
}

/// What is packed.
pub(crate) struct Package {
    /// As Debian counts versions.
    version: String,
    programs: Programs,
}

/// The book without its pictures, and without why things are as they are.
const BOOK: [&str; 2] = ["docs", "docs/how-to"];

/// For Prometheus and Grafana.
const EXAMPLES: [&str; 2] = ["grafana/bootlace.json", "prometheus/bootlace.rules.yml"];

/// What dpkg runs when it installs and removes.
const SCRIPTS: [&str; 4] = ["config", "postinst", "prerm", "postrm"];

impl Package {
    /// What is shipped.
    pub(crate) fn of_release() -> Self {
        Self { version: version().to_owned(), programs: Programs::Release }
    }

    /// Of the programs that tests run. A name of its own, so that nobody takes it for what is shipped.
    pub(crate) fn of_tests() -> Self {
        Self { version: format!("{}~debug", version()), programs: Programs::Debug }
    }

    /// Packs what was built; where the package is.
    pub(crate) fn pack(&self) -> Result<PathBuf> {
        let place = Place::here();
        let programs = match self.programs {
            Programs::Release => place.target.join("release"),
            Programs::Debug => place.target.join("debug"),
        };
        say(&format!("packing bootlace {}", self.version));
        let folder = place.target.join("debian");
        let tree = Tree::new(folder.join("tree"))?;
        self.lay_programs(&tree, &programs)?;
        lay_settings(&tree, &place)?;
        lay_manual(&tree, &folder.join("manual"), &programs.join("bootlace"))?;
        self.lay_documents(&tree, &place)?;
        let size = tree.kibibytes()?;
        let control = self.control(&place, &tree.path("usr/bin/bootlace"), size)?;
        tree.write("DEBIAN/control", control)?;
        for name in SCRIPTS {
            tree.copy_program(
                &place.root.join("packaging/debian").join(name),
                &format!("DEBIAN/{name}"),
            )?;
        }
        tree.copy(&place.root.join("packaging/debian/templates"), "DEBIAN/templates")?;
        tree.write("DEBIAN/md5sums", tree.sums()?)?;
        let package = folder.join(format!("bootlace_{}_amd64.deb", self.version));
        let mut pack = Command::new("dpkg-deb");
        if self.programs == Programs::Debug {
            pack.args(["-Zgzip", "-z1"]);
        }
        pack.args(["--build", "--root-owner-group"]).arg(tree.path("")).arg(&package);
        run(pack.env("SOURCE_DATE_EPOCH", place.date.to_string())).context("can't pack it")?;
        Ok(package)
    }

    fn lay_programs(&self, tree: &Tree, programs: &Path) -> Result<()> {
        for name in dist::programs() {
            let to = if name == "bootlace" { "usr/bin" } else { "usr/lib/bootlace" };
            let to = format!("{to}/{name}");
            tree.copy_program(&programs.join(&name), &to)?;
            // Those for arm64 are stripped, and our strip knows no other processors.
            if self.programs == Programs::Debug && !name.ends_with("-arm64") {
                run(Command::new("strip").arg(tree.path(&to)))?;
            }
        }
        Ok(())
    }

    fn lay_documents(&self, tree: &Tree, place: &Place) -> Result<()> {
        let doc = "usr/share/doc/bootlace";
        for folder in BOOK {
            let to = folder.replacen("docs", doc, 1);
            for entry in fs::read_dir(place.root.join(folder))? {
                let path = entry?.path();
                if path.extension().is_some_and(|it| it == "md") {
                    let name = path.file_name().context("it has a name")?.to_string_lossy();
                    tree.copy(&path, &format!("{to}/{name}"))?;
                }
            }
        }
        for example in EXAMPLES {
            let (from, name) = (place.root.join("packaging").join(example), Path::new(example));
            let name = name.file_name().context("it has a name")?.to_string_lossy();
            tree.copy(&from, &format!("{doc}/examples/{name}"))?;
        }
        let crates = Crates::find(place)?;
        tree.write_compressed(&format!("{doc}/THIRD-PARTY-LICENSES.txt"), licenses(&crates)?)?;
        tree.write_compressed(&format!("{doc}/bootlace.cdx.json"), sbom(&crates)?)?;
        tree.write(&format!("{doc}/copyright"), copyright(place)?)?;
        let changes = fs::read_to_string(place.root.join("CHANGELOG.md"))?;
        tree.write_compressed(&format!("{doc}/changelog"), changes)?;
        let date = format!("@{}", place.date);
        let date = text_of(Command::new("date").args(["--utc", "--rfc-email", "--date", &date]))?;
        let changes = format!(
            "bootlace ({}) unstable; urgency=medium\n\n  * What has changed is in changelog.gz.\n\n -- {MAINTAINER}  {}\n",
            self.version,
            date.trim()
        );
        tree.write_compressed(&format!("{doc}/changelog.Debian"), changes)
    }

    fn control(&self, place: &Place, program: &Path, kibibytes: u64) -> Result<String> {
        let template = fs::read_to_string(place.root.join("packaging/debian/control"))?;
        let libc = format!("2.{}", libc_minor(&fs::read(program)?));
        Ok(template
            .replace("@VERSION@", &self.version)
            .replace("@MAINTAINER@", MAINTAINER)
            .replace("@SIZE@", &kibibytes.to_string())
            .replace("@LIBC@", &libc))
    }
}

const MAINTAINER: &str = "The Bootlace developers <bootlace@bootlace.example>";

fn lay_settings(tree: &Tree, place: &Place) -> Result<()> {
    let packaging = place.root.join("packaging");
    // No conffile: setup writes it, and dpkg would ask at each upgrade that brings another one.
    tree.copy(&packaging.join("bootlace.toml"), "usr/share/bootlace/bootlace.toml")?;
    tree.make_folder(&tree.path("etc/bootlace"))?;
    for entry in fs::read_dir(packaging.join("systemd"))? {
        let path = entry?.path();
        let unit = path.file_name().context("it has a name")?.to_string_lossy();
        tree.copy(&path, &format!("usr/lib/systemd/system/{unit}"))?;
    }
    tree.copy(&packaging.join("debian/lintian-overrides"), "usr/share/lintian/overrides/bootlace")
}

/// Manual pages and completions, as the program itself writes them.
fn lay_manual(tree: &Tree, folder: &Path, program: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(folder);
    run(Command::new(program).arg("manual").arg(folder))?;
    for entry in fs::read_dir(folder.join("man1"))? {
        let path = entry?.path();
        let name = path.file_name().context("it has a name")?.to_string_lossy();
        tree.write_compressed(&format!("usr/share/man/man1/{name}"), fs::read(&path)?)?;
    }
    tree.copy(&folder.join("bash/bootlace"), "usr/share/bash-completion/completions/bootlace")?;
    tree.copy(&folder.join("zsh/_bootlace"), "usr/share/zsh/vendor-completions/_bootlace")
}

/// As Debian wants it: which license, and where the texts are.
fn copyright(place: &Place) -> Result<String> {
    let mit = fs::read_to_string(place.root.join("LICENSE-MIT"))?;
    Ok(format!(
        "Bootlace is under the MIT license or the Apache license 2.0, whichever you prefer.\n\n\
         The Apache license is in /usr/share/common-licenses/Apache-2.0. The MIT license:\n\n{mit}\n\
         The licenses of the libraries that the programs contain are in\n\
         /usr/share/doc/bootlace/THIRD-PARTY-LICENSES.txt.gz\n"
    ))
}

/// The newest glibc that a program needs a symbol of: 2.N.
fn libc_minor(program: &[u8]) -> u32 {
    const START: &[u8] = b"GLIBC_2.";
    let digits = |at: usize| {
        let digits = program[at..].iter().take_while(|byte| byte.is_ascii_digit());
        digits.fold(0u32, |number, digit| number.saturating_mul(10) + u32::from(digit - b'0'))
    };
    let places = program.windows(START.len()).enumerate().filter(|(_, bytes)| *bytes == START);
    places.map(|(at, _)| digits(at + START.len())).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_symbol_tells_which_libc_is_needed() {
        assert_eq!(libc_minor(b"\0GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.4\0GLIBC_PRIVATE"), 34);
        assert_eq!(libc_minor(b"static"), 0);
    }
}
