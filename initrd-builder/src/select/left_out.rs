//! Modules that can't be used, and why: whatever is wrong with one, it ends no build that can do without.

use crate::program::Processor;
use crate::{BuildError, ModInfoError, ModuleSource};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io;

/// Modules that are named for one reason; a tree for another kernel has hundreds.
const NAMES_MAX: usize = 8;

/// Reasons that an error names.
const REASONS_MAX: usize = 3;

/// Why a module can't be used.
#[derive(Debug)]
pub(super) enum Problem {
    /// There is no file of it.
    Missing,
    /// Its file can't be read or decoded.
    Read { path: String, source: io::Error },
    /// It is no module.
    Damaged { path: String, source: ModInfoError },
    /// It was built for another kernel.
    WrongKernel { found: String },
    /// It was built for another kind of processor.
    WrongProcessor { found: Processor },
    /// What it needs can't be used.
    Needs(String),
}

impl Problem {
    /// For people: `it …`, for one module or several of them.
    fn reason(&self, source: &dyn ModuleSource) -> String {
        match self {
            Self::Missing => format!("not in {}", source.origin()),
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "a link that leads nowhere".to_owned()
            }
            Self::Read { source, .. } => format!("can't be read: {source}"),
            Self::Damaged { source, .. } => {
                let text = source.to_string();
                text.strip_prefix("it is ")
                    .or(text.strip_prefix("the file is "))
                    .unwrap_or(&text)
                    .to_owned()
            }
            Self::WrongKernel { found } if found.is_empty() => {
                "for a kernel that it does not name".to_owned()
            }
            Self::WrongKernel { found } => format!("for kernel {found}, not {}", source.kernel()),
            Self::WrongProcessor { found } => format!("for {found} processors"),
            Self::Needs(name) => format!("needs {name}, which can't be used"),
        }
    }

    /// The error of a build that can't do without this module.
    pub(super) fn into_error(
        self,
        source: &dyn ModuleSource,
        module: String,
        wanted_by: String,
    ) -> BuildError {
        let (origin, kernel) = (source.origin(), source.kernel().to_owned());
        match self {
            Self::Missing => BuildError::Missing { module, wanted_by, origin, kernel },
            Self::Read { path, source } => {
                BuildError::Read { what: format!("{path} in {origin}"), source }
            }
            Self::Damaged { path, source } => BuildError::Module { path, origin, source },
            Self::WrongKernel { found } => {
                BuildError::WrongKernel { module, origin, found, kernel }
            }
            Self::WrongProcessor { found } => {
                BuildError::WrongModuleProcessor { module, origin, found: found.to_string() }
            }
            Self::Needs(needed) => {
                BuildError::Missing { module: needed, wanted_by: module, origin, kernel }
            }
        }
    }
}

/// Names of modules by the reason why they are left out.
#[derive(Debug, Default)]
pub(super) struct LeftOut(BTreeMap<String, BTreeSet<String>>);

impl LeftOut {
    pub(super) fn note(&mut self, source: &dyn ModuleSource, name: &str, problem: &Problem) {
        self.note_reason(name, problem.reason(source));
    }

    pub(super) fn note_reason(&mut self, name: &str, reason: String) {
        self.0.entry(reason).or_default().insert(name.to_owned());
    }

    /// One sentence for each reason.
    pub(super) fn sentences(&self) -> Vec<String> {
        self.0
            .iter()
            .map(|(reason, names)| format!("left out: {} ({reason})", list(names)))
            .collect()
    }

    /// For an error: the first reasons.
    pub(super) fn for_error(&self) -> String {
        let mut text = String::new();
        let sentences = self.sentences();
        for sentence in sentences.iter().take(REASONS_MAX) {
            let _ = write!(text, "; {sentence}");
        }
        if sentences.len() > REASONS_MAX {
            let _ = write!(text, "; and {} reasons more", sentences.len() - REASONS_MAX);
        }
        text
    }
}

fn list(names: &BTreeSet<String>) -> String {
    let shown: Vec<&str> = names.iter().take(NAMES_MAX).map(String::as_str).collect();
    let more = match names.len().saturating_sub(NAMES_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_for_another_kernel_is_one_sentence() {
        let mut left_out = LeftOut::default();
        for number in 0..300 {
            left_out
                .note_reason(&format!("driver{number:03}"), "for kernel 5.10, not 6.1".to_owned());
        }
        left_out.note_reason("updates/dkms/nvidia.ko", "empty".to_owned());
        let sentences = left_out.sentences();
        assert_eq!(sentences[0], "left out: updates/dkms/nvidia.ko (empty)");
        assert!(sentences[1].starts_with("left out: driver000, driver001, "), "{sentences:?}");
        assert!(
            sentences[1].ends_with(" and 292 more (for kernel 5.10, not 6.1)"),
            "{sentences:?}"
        );
        assert_eq!(left_out.for_error().matches("; ").count(), 2);
    }
}
