//! Paths in the root of another system, whose links must not lead out of it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// Linux follows as many links (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// Where a path leads if `root` is the root: absolute links begin there, and `..` ends there.
///
/// What is not there is found out by who opens it.
///
/// # Errors
/// Links lead in circles.
pub(crate) fn resolve(root: &Path, path: &Path) -> io::Result<PathBuf> {
    let mut at = PathBuf::new();
    let mut left = parts(path);
    let mut n_links = 0;
    while let Some(part) = left.pop() {
        match part {
            Part::Root => at = PathBuf::new(),
            Part::Up => drop(at.pop()),
            Part::Name(name) => {
                let next = at.join(name);
                match fs::read_link(root.join(&next)) {
                    Ok(target) if n_links < LINKS_MAX => {
                        n_links += 1;
                        left.extend(parts(&target));
                    }
                    Ok(_) => return Err(io::Error::other("links lead in a circle")),
                    Err(_) => at = next,
                }
            }
        }
    }
    Ok(root.join(at))
}

enum Part {
    Root,
    Up,
    Name(OsString),
}

/// The parts of a path, the last one first.
fn parts(path: &Path) -> Vec<Part> {
    let part = |component: Component<'_>| match component {
        Component::RootDir => Some(Part::Root),
        Component::ParentDir => Some(Part::Up),
        Component::Normal(name) => Some(Part::Name(name.to_owned())),
        Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().rev().filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_stay_in_the_root() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("usr/lib/modules")).unwrap();
        for (target, link) in [
            ("/usr/lib", "lib"),
            ("../../../etc", "usr/up"),
            ("/nowhere", "usr/dangling"),
            ("loop", "usr/loop"),
        ] {
            symlink(target, root.join(link)).unwrap();
        }
        let check = |path: &str, expected: &str| {
            let found = resolve(root, Path::new(path)).unwrap();
            assert_eq!(found, root.join(expected), "{path}");
        };
        check("lib/modules", "usr/lib/modules");
        check("/lib/./modules/../modules", "usr/lib/modules");
        check("usr/up/passwd", "etc/passwd");
        check("usr/dangling", "nowhere");
        check("../../lib", "usr/lib");
        let error = resolve(root, Path::new("usr/loop")).unwrap_err().to_string();
        assert_eq!(error, "links lead in a circle");
    }
}
