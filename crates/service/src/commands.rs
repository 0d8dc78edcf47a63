//! Commands in texts for people, as they work on this site.

use std::path::Path;

/// Commands that texts name, behind `bootlace`.
pub const COMMANDS: &[&str] = &[
    "up", "serve", "storage", "share", "check", "status", "nagios", "backup", "image", "machine",
    "room", "site", "initrd", "login", "user", "token", "audit",
];

/// How commands that are printed as advice begin on this site. Texts name them without `--root`; whoever shows a text
/// completes it at the end, by [`complete`](Self::complete).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commands {
    /// `--root DIR`, quoted for a shell; `None`: all is at its usual place.
    root: Option<String>,
}

impl Commands {
    /// Those of the site below `root`, which is `/` but for trials.
    pub fn of(root: &Path) -> Self {
        // Whoever follows the advice is perhaps in another folder.
        let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
        let is_usual = root == Path::new("/");
        Self { root: (!is_usual).then(|| format!("--root {}", quoted(&root.to_string_lossy()))) }
    }

    /// The text with each command such as it works when it is typed.
    pub fn complete(&self, text: &str) -> String {
        self.complete_in(text, |root| root.to_owned())
    }

    /// The same for a text in another language, in which `escape` writes what is put in.
    pub fn complete_in(&self, text: &str, escape: impl Fn(&str) -> String) -> String {
        const PROGRAM: &str = "bootlace ";
        let Some(root) = &self.root else { return text.to_owned() };
        let root = escape(root);
        let (mut complete, mut rest) = (String::with_capacity(text.len()), text);
        while let Some(at) = rest.find(PROGRAM) {
            let (before, after) = rest.split_at(at + PROGRAM.len());
            let is_program = rest[..at].chars().next_back().is_none_or(|it| !is_of_word(it));
            complete.push_str(before);
            if is_program && COMMANDS.iter().any(|command| begins_with_word(after, command)) {
                complete.push_str(&root);
                complete.push(' ');
            }
            rest = after;
        }
        complete.push_str(rest);
        complete
    }
}

fn begins_with_word(text: &str, word: &str) -> bool {
    text.strip_prefix(word).is_some_and(|rest| !rest.chars().next().is_some_and(is_of_word))
}

fn is_of_word(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '-' | '_' | '/')
}

/// As one word of a shell.
fn quoted(word: &str) -> String {
    let is_plain = |it: char| it.is_ascii_alphanumeric() || "/._-+:@%".contains(it);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_in_a_text_works_as_it_is_printed() {
        let complete = |root: &str, text: &str| Commands::of(Path::new(root)).complete(text);
        let text = "start it by bootlace up, or by bootlace storage; bootlace machine reset lab-07";
        assert_eq!(complete("/", text), text);
        let in_trial = "start it by bootlace --root /tmp/trial up, or by bootlace --root /tmp/trial storage; bootlace \
                        --root /tmp/trial machine reset lab-07";
        assert_eq!(complete("/tmp/trial", text), in_trial);
        assert_eq!(complete("/tmp/trial", in_trial), in_trial, "once is enough");
        for other in
            ["the user bootlace and", "bootlace: attach", "bootlace upgrade", "/x/bootlace up"]
        {
            assert_eq!(complete("/tmp/trial", other), other);
        }
        assert_eq!(complete("/a b/it's", "bootlace up"), r"bootlace --root '/a b/it'\''s' up");
        let here = complete("trial", "bootlace up");
        assert!(here.starts_with("bootlace --root /") && here.ends_with("/trial up"), "{here}");
    }
}
