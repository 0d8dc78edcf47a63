//! The module index: the builder writes it, `init` loads drivers by it. Replaces depmod's files.
//!
//! A text file, one record per line, words separated by single spaces:
//! ```text
//! bootlace-modules/1 6.1.0-56-amd64
//! module e1000e kernel/drivers/net/ethernet/intel/e1000e/e1000e.ko.zst
//! why network drivers
//! needs ptp
//! alias pci:v00008086d0000105Esv*sd*bc*sc*i*
//! ```
//! `why`, `needs`, `pre`, `post` and `alias` belong to the last `module` line.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

/// Path of the index inside the initrd.
pub const INDEX_PATH: &str = "/lib/bootlace/modules";

/// Folder inside the initrd that [`Module::file`] is relative to.
pub const MODULES_PATH: &str = "/lib/modules";

/// Most modules that an index may hold; Debian's kernel has about 4,000 in all.
pub const MODULES_MAX: usize = 20_000;

const HEADER: &str = "bootlace-modules/1 ";

/// One kernel module of the initrd.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Module {
    /// Name as the kernel shows it: with underscores.
    pub name: String,
    /// File below [`MODULES_PATH`].
    pub file: String,
    /// For people: why it is in the initrd, like `needed by e1000e`. Empty if nobody knows.
    pub why: String,
    /// Names of modules that must be loaded before this one.
    pub needs: Vec<String>,
    /// Names of modules that should be loaded before this one; it works without them.
    pub pre: Vec<String>,
    /// Names of modules that should be loaded after this one.
    pub post: Vec<String>,
    /// Patterns of hardware (and other names) that this module is for.
    pub aliases: Vec<String>,
}

/// All modules of one initrd.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleIndex {
    /// Release of the kernel that the modules belong to, like `6.1.0-56-amd64`.
    pub kernel: String,
    /// The modules; the builder sorts them by name.
    pub modules: Vec<Module>,
}

/// The text is not a module index.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// The first line is another one.
    #[error("not a bootlace-modules/1 index")]
    NotOurs,
    /// A line can't be understood.
    #[error("line {0} of the module index can't be understood")]
    Line(usize),
    /// More than [`MODULES_MAX`] modules.
    #[error("more than {MODULES_MAX} modules in the index")]
    TooMany,
}

/// One step of loading: see [`ModuleIndex::load_order`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load<'a> {
    /// What to load.
    pub module: &'a Module,
    /// `true` if what was asked for can't work without this one.
    pub is_required: bool,
}

impl ModuleIndex {
    /// Reads an index.
    ///
    /// # Errors
    /// The text is no index, or a line of it can't be understood.
    pub fn parse(text: &str) -> Result<Self, IndexError> {
        let mut lines = text.lines().enumerate();
        let kernel = lines
            .next()
            .and_then(|(_, line)| line.strip_prefix(HEADER))
            .ok_or(IndexError::NotOurs)?;
        let mut index = Self { kernel: kernel.to_owned(), modules: Vec::new() };
        for (number, line) in lines {
            let bad = IndexError::Line(number + 1);
            let (kind, value) = line.split_once(' ').ok_or_else(|| bad.clone())?;
            if kind == "module" {
                if index.modules.len() == MODULES_MAX {
                    return Err(IndexError::TooMany);
                }
                let (name, file) = value.split_once(' ').ok_or(bad)?;
                index.modules.push(Module {
                    name: name.to_owned(),
                    file: file.to_owned(),
                    ..Module::default()
                });
                continue;
            }
            let module = index.modules.last_mut().ok_or_else(|| bad.clone())?;
            if kind == "why" {
                value.clone_into(&mut module.why);
                continue;
            }
            let list = match kind {
                "needs" => &mut module.needs,
                "pre" => &mut module.pre,
                "post" => &mut module.post,
                "alias" => &mut module.aliases,
                _ => return Err(bad),
            };
            list.push(value.to_owned());
        }
        Ok(index)
    }

    /// The text that [`ModuleIndex::parse`] reads.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = writeln!(text, "{HEADER}{}", self.kernel);
        for module in &self.modules {
            let _ = writeln!(text, "module {} {}", module.name, module.file);
            if !module.why.is_empty() {
                let _ = writeln!(text, "why {}", module.why);
            }
            for (kind, list) in [
                ("needs", &module.needs),
                ("pre", &module.pre),
                ("post", &module.post),
                ("alias", &module.aliases),
            ] {
                for value in list {
                    let _ = writeln!(text, "{kind} {value}");
                }
            }
        }
        text
    }

    /// The module with this name; `-` and `_` are the same.
    pub fn find(&self, name: &str) -> Option<&Module> {
        let name = module_name(name);
        self.modules.iter().find(|module| module.name == name)
    }

    /// Modules for a hardware name, like the content of a `modalias` file, or for any other alias.
    pub fn matching<'a>(&'a self, alias: &'a str) -> impl Iterator<Item = &'a Module> {
        self.modules
            .iter()
            .filter(move |module| module.aliases.iter().any(|pattern| glob_matches(pattern, alias)))
    }

    /// What to load, in this order, so that the named module works. Empty if there is no such module.
    ///
    /// Each module comes once; a circle of dependencies is cut where it closes.
    pub fn load_order(&self, name: &str) -> Vec<Load<'_>> {
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        // Depth first with a stack of our own: an index from a broken initrd may nest as it likes.
        let mut stack: Vec<(&Module, bool, bool)> =
            self.find(name).map(|module| (module, true, false)).into_iter().collect();
        while let Some((module, is_required, is_expanded)) = stack.pop() {
            if is_expanded {
                order.push(Load { module, is_required });
                continue;
            }
            if !seen.insert(module.name.as_str()) {
                continue;
            }
            // Last in, first out: dependencies end above the module itself, `post` below it.
            for name in module.post.iter().rev() {
                stack.extend(self.find(name).map(|module| (module, false, false)));
            }
            stack.push((module, is_required, true));
            for name in module.needs.iter().rev() {
                stack.extend(self.find(name).map(|module| (module, is_required, false)));
            }
            for name in module.pre.iter().rev() {
                stack.extend(self.find(name).map(|module| (module, false, false)));
            }
        }
        order
    }
}

/// The kernel's form of a module's name: `-` becomes `_`.
pub fn module_name(name: &str) -> String {
    name.replace('-', "_")
}

/// `true` if the shell-like pattern (`*`, `?`, `[a-f]`, `[!a]`) matches the whole text.
///
/// As in the kernel's own `glob_match`, a bracket that never closes stands for itself. Takes at most
/// pattern length × text length steps, whatever the pattern.
pub fn glob_matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to go on when the last `*` must swallow one more byte.
    let mut retry = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            retry = Some((p + 1, t));
            p += 1;
            continue;
        }
        if let Some(next) = match_one(pattern, p, text[t]) {
            p = next;
            t += 1;
            continue;
        }
        let Some((star, swallowed)) = retry else { return false };
        retry = Some((star, swallowed + 1));
        p = star;
        t = swallowed + 1;
    }
    pattern.get(p..).unwrap_or_default().iter().all(|&byte| byte == b'*')
}

/// Matches one byte against the pattern element at `p`; returns where the next element starts.
fn match_one(pattern: &[u8], p: usize, byte: u8) -> Option<usize> {
    match *pattern.get(p)? {
        b'?' => Some(p + 1),
        b'[' => match bracket(pattern, p, byte) {
            Some((next, is_match)) => is_match.then_some(next),
            None => (byte == b'[').then_some(p + 1),
        },
        literal => (literal == byte).then_some(p + 1),
    }
}

/// Reads a bracket expression at `p`: where it ends, and whether the byte is in it.
fn bracket(pattern: &[u8], p: usize, byte: u8) -> Option<(usize, bool)> {
    let mut at = p + 1;
    let is_inverted = pattern.get(at) == Some(&b'!');
    if is_inverted {
        at += 1;
    }
    let first = at;
    let mut is_match = false;
    loop {
        let low = *pattern.get(at)?;
        if low == b']' && at != first {
            return Some((at + 1, is_match != is_inverted));
        }
        at += 1;
        let mut high = low;
        if pattern.get(at) == Some(&b'-') && pattern.get(at + 1).is_some_and(|&next| next != b']') {
            high = pattern[at + 1];
            at += 2;
        }
        is_match |= (low..=high).contains(&byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    fn module(name: &str, needs: &[&str], pre: &[&str], post: &[&str]) -> Module {
        let owned = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect();
        Module {
            name: name.to_owned(),
            file: alloc::format!("kernel/{name}.ko.zst"),
            why: "needed by a test".to_owned(),
            needs: owned(needs),
            pre: owned(pre),
            post: owned(post),
            aliases: vec![alloc::format!("test:{name}")],
        }
    }

    fn example() -> ModuleIndex {
        ModuleIndex {
            kernel: "6.1.0-56-amd64".to_owned(),
            modules: vec![
                module("crc16", &[], &[], &[]),
                module("crc32c_intel", &[], &[], &[]),
                module("ext4", &["crc16", "jbd2"], &["crc32c_intel"], &["late"]),
                module("jbd2", &["crc16"], &[], &[]),
                module("late", &["ext4"], &[], &[]),
            ],
        }
    }

    #[test]
    fn what_the_builder_writes_is_what_init_reads() {
        let index = example();
        assert_eq!(ModuleIndex::parse(&index.to_text()), Ok(index));
    }

    #[test]
    fn dependencies_are_loaded_first_and_once() {
        let index = example();
        let order = |name| -> Vec<(&str, bool)> {
            index
                .load_order(name)
                .iter()
                .map(|load| (load.module.name.as_str(), load.is_required))
                .collect()
        };
        assert_eq!(
            order("ext4"),
            [
                ("crc32c_intel", false),
                ("crc16", true),
                ("jbd2", true),
                ("ext4", true),
                ("late", false)
            ]
        );
        assert_eq!(order("crc32c-intel"), [("crc32c_intel", true)]);
        assert_eq!(order("nothing"), []);
    }

    #[test]
    fn a_circle_of_dependencies_ends() {
        let index = ModuleIndex {
            modules: vec![module("a", &["b"], &[], &[]), module("b", &["a"], &[], &[])],
            ..ModuleIndex::default()
        };
        assert_eq!(index.load_order("a").len(), 2);
    }

    #[test]
    fn hardware_names_match_as_in_the_kernel() {
        let check = |pattern, text, expected| {
            assert_eq!(glob_matches(pattern, text), expected, "{pattern} {text}");
        };
        check(
            "pci:v00008086d000010D3sv*sd*bc*sc*i*",
            "pci:v00008086d000010D3sv0sd0bc02sc00i00",
            true,
        );
        check(
            "pci:v00008086d000010D3sv*sd*bc*sc*i*",
            "pci:v00008086d000010D4sv0sd0bc02sc00i00",
            false,
        );
        check(
            "usb:v0525pA4A2d*dc*dsc*dp*ic*isc*ip*in*",
            "usb:v0525pA4A2d0100dc00dsc00dp00ic02isc06ip00in00",
            true,
        );
        check("usb:v0B95p772[AB]d*", "usb:v0B95p772Bd0001", true);
        check("usb:v0B95p772[0-9a-f]d*", "usb:v0B95p772Bd0001", false);
        check("a[!b]c", "abc", false);
        check("a[!b]c", "axc", true);
        check("a[]]c", "a]c", true);
        check("a[bc", "a[bc", true);
        check("*", "", true);
        check("?", "", false);
        check("", "", true);
        check("a*b*c", "aXbYbZc", true);
        check("a*b*c", "aXbYbZ", false);
    }

    #[test]
    fn wrong_text_is_refused_by_line() {
        assert_eq!(ModuleIndex::parse(""), Err(IndexError::NotOurs));
        let wrong = |rest: &str| ModuleIndex::parse(&alloc::format!("{HEADER}6.1\n{rest}"));
        assert_eq!(wrong("needs a"), Err(IndexError::Line(2)));
        assert_eq!(wrong("module a"), Err(IndexError::Line(2)));
        assert_eq!(wrong("module a b\nwhat c"), Err(IndexError::Line(3)));
        let text = example().to_text();
        for end in 0..text.len() {
            let _ = ModuleIndex::parse(&text[..end]);
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*", alias in ".*") {
            let _ = ModuleIndex::parse(&text);
            let _ = ModuleIndex::parse(&alloc::format!("{HEADER}{text}"));
            let _ = glob_matches(&text, &alias);
        }

        #[test]
        fn wild_patterns_end(pattern in "[ab*?\\[\\]!-]{0,40}", text in "[ab\\[\\]-]{0,60}") {
            let _ = glob_matches(&pattern, &text);
            prop_assert!(glob_matches("*", &text));
        }
    }
}
