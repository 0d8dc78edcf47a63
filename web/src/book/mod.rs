//! The book, as it is in the program: for servers that have no way to the Internet, and people who stand at one.

mod html;

/// Lines that a search shows of one page.
const LINES_MAX: usize = 8;

/// Characters of such a line.
const CHARS_MAX: usize = 300;

/// A page of the book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its file below `docs`, without `.md`.
    path: &'static str,
    /// By what it is asked for: what stands behind the last slash of it.
    pub topic: &'static str,
    /// Markdown.
    pub text: &'static str,
}

macro_rules! pages {
    ($($path:literal),* $(,)?) => {
        /// Those that people use, in the order of the book. Decisions are for developers.
        pub const PAGES: &[Page] =
            &[$(Page { path: $path, topic: topic($path), text: include_str!(concat!("../../../docs/", $path, ".md")) }),*];
    };
}

pages!(
    "introduction",
    "how-to/install",
    "tutorial",
    "how-to/air-gap",
    "how-to/container",
    "how-to/import-an-image",
    "how-to/build-an-image",
    "how-to/what-hurts-in-an-image",
    "how-to/image-versions",
    "how-to/capture-a-pc",
    "how-to/change-an-image",
    "how-to/images-between-servers",
    "how-to/jobs",
    "how-to/persistent-disks",
    "how-to/snapshots",
    "how-to/write-mode-ram",
    "how-to/second-network-card",
    "how-to/secure-boot",
    "how-to/arm64",
    "how-to/rooms",
    "how-to/lay-files-over",
    "how-to/further-disks",
    "how-to/ldap-and-nfs-homes",
    "how-to/boot-menus",
    "how-to/ipxe",
    "how-to/try-a-pc",
    "how-to/nbd-or-aoe",
    "how-to/another-dhcp-server",
    "how-to/several-networks",
    "how-to/addresses",
    "how-to/storage-network",
    "how-to/large-packets",
    "how-to/vlan",
    "how-to/foreign-roots",
    "how-to/accounts",
    "how-to/directory",
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
    "comparison",
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
    pub fn of(topic: &str) -> Option<Self> {
        let topic = topic.trim_end_matches(".md").to_ascii_lowercase();
        PAGES.iter().copied().find(|page| page.topic == topic)
    }

    /// Its heading.
    pub fn title(self) -> &'static str {
        self.text.lines().find_map(|line| line.strip_prefix("# ")).unwrap_or(self.topic)
    }

    /// Lines in which all of the words, which are in lower case, stand, each with the heading above it.
    fn lines_with(self, words: &[String]) -> Vec<(&'static str, &'static str)> {
        let mut heading = self.title();
        let mut found = Vec::new();
        let mut is_code = false;
        for line in self.text.lines() {
            is_code ^= line.trim_start().starts_with("```");
            if line.starts_with('#') && !is_code {
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

/// Where words were found on a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The page.
    pub page: Page,
    /// The first lines, each below the heading that it has on the page.
    pub lines: Vec<(&'static str, String)>,
    /// Lines beyond these.
    pub n_more: usize,
}

/// Lines in which all words of `words` stand, page by page, in the order of the book.
pub fn search(words: &str) -> Vec<Found> {
    let mut words: Vec<String> = words.split_whitespace().map(str::to_lowercase).collect();
    words.sort();
    words.dedup();
    if words.is_empty() {
        return Vec::new();
    }
    let of_page = |page: &Page| {
        let all = page.lines_with(&words);
        let short = |line: &str| line.trim().chars().take(CHARS_MAX).collect();
        let first = all.iter().take(LINES_MAX);
        let lines: Vec<_> = first.map(|(heading, line)| (*heading, short(line))).collect();
        let n_more = all.len() - lines.len();
        (!lines.is_empty()).then_some(Found { page: *page, lines, n_more })
    };
    PAGES.iter().filter_map(of_page).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::FindingKind;

    fn is_found(words: &str) -> bool {
        !search(words).is_empty()
    }

    #[test]
    fn all_pages_of_the_book_are_in_the_program() {
        let summary = include_str!("../../../docs/SUMMARY.md");
        let of_book: Vec<&str> = summary
            .split("](")
            .filter_map(|rest| rest.split_once(".md)"))
            .map(|(path, _)| path)
            .filter(|path| !path.starts_with("decisions/"))
            .collect();
        for path in &of_book {
            let is_here = PAGES.iter().any(|page| page.path == *path);
            assert!(is_here, "{path} is in docs/SUMMARY.md, and not in web/src/book/mod.rs");
        }
        assert_eq!(of_book.len(), PAGES.len());
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
            let found = search(words);
            assert!(found.iter().any(|found| found.page.topic == "symptoms"), "{words}");
        }
        for kind in FindingKind::ALL {
            assert!(is_found(kind.word()), "{kind}");
        }
        assert!(!is_found("") && !is_found(" ") && !is_found("such words are nowhere"));
        // A line that begins with # in a block of code is no heading.
        let headings = PAGES.iter().flat_map(|page| page.lines_with(&[]));
        assert!(headings.into_iter().all(|(heading, _)| !heading.contains("prints")));
        // Stages and messages of ours are on that page, which another test compares with the code.
        assert!(Page::of("messages").is_some());
    }
}
