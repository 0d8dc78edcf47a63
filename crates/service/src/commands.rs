//! Commands in texts for people, as they work on this site.

use std::path::Path;

/// Commands that texts name, behind `bootlace`.
pub const COMMANDS: &[&str] = &[
    "setup", "up", "serve", "storage", "share", "check", "status", "doctor", "logs", "debug",
    "nagios", "backup", "image", "job", "machine", "room", "site", "lease", "net", "initrd",
    "medium", "disk", "files", "try", "login", "user", "token", "audit", "alert", "help",
];

/// Where texts say that the state is.
const STATE: &str = "/var/lib/bootlace";

/// How commands that are printed as advice begin on this site, and where its state is. Texts name both without `--root`;
/// whoever shows a text completes it at the end, by [`complete`](Self::complete).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commands {
    /// `None`: all is at its usual place.
    root: Option<Root>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Root {
    /// `--root DIR`, quoted for a shell.
    option: String,
    state: String,
}

impl Commands {
    /// Those of the site below `root`, which is `/` but for trials.
    pub fn of(root: &Path) -> Self {
        // Whoever follows the advice is perhaps in another folder.
        let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
        let is_usual = root == Path::new("/");
        let text = root.to_string_lossy();
        Self {
            root: (!is_usual).then(|| Root {
                option: format!("--root {}", quoted(&text)),
                state: format!("{}{STATE}", text.trim_end_matches('/')),
            }),
        }
    }

    /// Whether all is at its usual place: then systemd's units are this site's.
    pub fn are_usual(&self) -> bool {
        self.root.is_none()
    }

    /// The text with each command such as it works when it is typed, and the state where it is.
    pub fn complete(&self, text: &str) -> String {
        self.complete_in(text, |root| root.to_owned())
    }

    /// The same for a text in another language, in which `escape` writes what is put in.
    pub fn complete_in(&self, text: &str, escape: impl Fn(&str) -> String) -> String {
        const PROGRAM: &str = "bootlace ";
        let Some(root) = &self.root else { return text.to_owned() };
        let (option, state) = (escape(&root.option), escape(&root.state));
        let is_apart = |before: &str| before.chars().next_back().is_none_or(|it| !is_of_word(it));
        let (mut complete, mut rest) = (String::with_capacity(text.len()), text);
        while let Some(at) = first_of(rest, [PROGRAM, STATE]) {
            let (before, found) = rest.split_at(at);
            complete.push_str(before);
            // What is complete already has the root before it.
            let is_apart = is_apart(before) && (!before.is_empty() || is_apart(&complete));
            rest = match found.strip_prefix(PROGRAM) {
                Some(after) => {
                    complete.push_str(PROGRAM);
                    if is_apart && COMMANDS.iter().any(|it| begins_with_word(after, it)) {
                        complete.push_str(&option);
                        complete.push(' ');
                    }
                    after
                }
                None => {
                    complete.push_str(if is_apart { &state } else { STATE });
                    &found[STATE.len()..]
                }
            };
        }
        complete.push_str(rest);
        complete
    }
}

fn first_of(text: &str, words: [&str; 2]) -> Option<usize> {
    words.into_iter().filter_map(|word| text.find(word)).min()
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
    fn a_path_in_a_text_is_the_one_of_the_site() {
        let complete = |root: &str, text: &str| Commands::of(Path::new(root)).complete(text);
        let text = "Mount the file system that holds /var/lib/bootlace/images, or bootlace up.";
        assert_eq!(complete("/", text), text);
        let in_trial = "Mount the file system that holds /tmp/trial/var/lib/bootlace/images, or bootlace --root \
                        /tmp/trial up.";
        assert_eq!(complete("/tmp/trial", text), in_trial);
        assert_eq!(complete("/tmp/trial", in_trial), in_trial, "it is complete");
    }

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
