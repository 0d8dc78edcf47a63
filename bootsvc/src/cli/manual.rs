//! `bootlace manual`: what packages bring of the command line.

use super::Cli;
use anyhow::Context as _;
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use std::fs;
use std::path::PathBuf;

/// Write the manual pages and the completions of shells, for whoever makes packages
#[derive(Args)]
pub(super) struct Manual {
    /// Folder to write to; below it are `man1`, `bash` and `zsh`
    folder: PathBuf,
}

impl Manual {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let folder = |name: &str| {
            let path = self.folder.join(name);
            let made = fs::create_dir_all(&path);
            made.with_context(|| format!("can't make {}", path.display())).map(|()| path)
        };
        clap_mangen::generate_to(Cli::command(), folder("man1")?)
            .context("can't write the manual pages")?;
        // As the folders of the shells want the files to be called.
        for (shell, name) in [(Shell::Bash, "bootlace"), (Shell::Zsh, "_bootlace")] {
            let path = folder(&shell.to_string())?.join(name);
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "bootlace", &mut text);
            fs::write(&path, text).with_context(|| format!("can't write {}", path.display()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_get_all_commands() {
        let folder = tempfile::tempdir().unwrap();
        Manual { folder: folder.path().to_owned() }.run().unwrap();
        let read = |path: &str| fs::read_to_string(folder.path().join(path)).unwrap();
        assert!(read("man1/bootlace-machine-set.1").contains("write\\-mode"));
        assert!(!folder.path().join("man1/bootlace-manual.1").exists(), "it is for packages only");
        for completions in ["bash/bootlace", "zsh/_bootlace"] {
            assert!(read(completions).contains("--write-mode"), "{completions}");
        }
    }
}
