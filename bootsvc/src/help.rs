//! The book, as it is in the program: for servers that have no way to the Internet, and people who stand at one.

/// A page of the book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// By what it is asked for: its file without `.md`.
    pub(crate) topic: &'static str,
    /// Markdown.
    pub(crate) text: &'static str,
}

macro_rules! pages {
    ($($path:literal),* $(,)?) => {
        /// Those that people use, in the order of the book. Decisions are for developers.
        pub(crate) const PAGES: &[Page] =
            &[$(Page { topic: topic($path), text: include_str!(concat!("../../docs/", $path, ".md")) }),*];

        #[cfg(test)]
        const PATHS: &[&str] = &[$($path),*];
    };
}

pages!(
    "introduction",
    "how-to/install",
    "tutorial",
    "how-to/import-an-image",
    "how-to/jobs",
    "how-to/persistent-disks",
    "how-to/write-mode-ram",
    "how-to/second-network-card",
    "how-to/rooms",
    "how-to/nbd-or-aoe",
    "how-to/large-packets",
    "how-to/vlan",
    "how-to/foreign-roots",
    "how-to/accounts",
    "how-to/tls",
    "how-to/rescue-shell",
    "how-to/power",
    "how-to/share-a-disk",
    "how-to/build-an-initrd",
    "how-to/back-up-and-restore",
    "how-to/find-out-what-is-wrong",
    "how-to/full-disk",
    "how-to/alerts",
    "how-to/monitoring",
    "how-to/scripts",
    "booting",
    "threat-model",
    "operating",
    "findings",
    "symptoms",
    "messages",
    "configuration",
    "limits",
    "quirks",
    "glossary",
);

/// What stands behind the last slash.
const fn topic(path: &'static str) -> &'static str {
    let mut bytes = path.as_bytes();
    let mut at = bytes.len();
    while at > 0 {
        at -= 1;
        if bytes[at] == b'/' {
            bytes = bytes.split_at(at + 1).1;
            break;
        }
    }
    match std::str::from_utf8(bytes) {
        Ok(topic) => topic,
        Err(_) => path,
    }
}

impl Page {
    /// The page of this topic.
    pub(crate) fn of(topic: &str) -> Option<Self> {
        let topic = topic.trim_end_matches(".md").to_ascii_lowercase();
        PAGES.iter().copied().find(|page| page.topic == topic)
    }

    /// Its heading.
    pub(crate) fn title(self) -> &'static str {
        self.text.lines().find_map(|line| line.strip_prefix("# ")).unwrap_or(self.topic)
    }

    /// Lines in which all of the words stand, each with the heading above it.
    pub(crate) fn lines_with(self, words: &[String]) -> Vec<(&'static str, &'static str)> {
        let words: Vec<String> = words.iter().map(|word| word.to_lowercase()).collect();
        let mut heading = self.title();
        let mut found = Vec::new();
        for line in self.text.lines() {
            if line.starts_with('#') {
                heading = line.trim_start_matches('#').trim();
            }
            let small = line.to_lowercase();
            if words.iter().all(|word| small.contains(word.as_str())) {
                found.push((heading, line));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::FindingKind;
    use std::path::Path;

    fn is_found(words: &str) -> bool {
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        PAGES.iter().any(|page| !page.lines_with(&words).is_empty())
    }

    #[test]
    fn all_pages_of_the_book_are_in_the_program() {
        let summary = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/SUMMARY.md");
        let summary = std::fs::read_to_string(summary).unwrap();
        let of_book: Vec<&str> = summary
            .split("](")
            .filter_map(|rest| rest.split_once(".md)"))
            .map(|(path, _)| path)
            .filter(|path| !path.starts_with("decisions/"))
            .collect();
        for path in &of_book {
            assert!(PATHS.contains(path), "{path} is in docs/SUMMARY.md, and not in help.rs");
        }
        assert_eq!(of_book.len(), PATHS.len());
        for page in PAGES {
            assert_eq!(Page::of(page.topic), Some(*page), "two pages are called {}", page.topic);
        }
    }

    #[test]
    fn what_is_on_a_screen_is_found() {
        for words in [
            "PXE-E53",
            "PXE-E16",
            "PXE-E51",
            "PXE-E32",
            "PXE-E11",
            "no DHCPOFFER",
            "grub>",
            "grub rescue>",
            "waiting for carrier",
            "emergency mode",
            "Failed to execute /init",
            "Secure Boot violation",
            "Kernel panic",
            "TFTP timeout",
            "NBP file downloaded successfully",
        ] {
            let symptoms = Page::of("symptoms").unwrap();
            let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
            assert!(!symptoms.lines_with(&words).is_empty(), "{words:?}");
        }
        for kind in FindingKind::ALL {
            assert!(is_found(kind.word()), "{kind}");
        }
        // Stages and messages of ours are on that page, which another test compares with the code.
        assert!(Page::of("messages").is_some());
    }
}
