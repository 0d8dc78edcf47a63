//! Paths inside a root that is not `/` yet: its absolute links must not lead out of it.

use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Links that are followed for one path, as in the kernel.
const LINKS_MAX: usize = 40;

/// Where a path of the root really is, seen from here, following all links inside the root. The file
/// itself may be missing; `None` if there are too many links.
pub(crate) fn resolve(root: &Path, path: &Path) -> Option<PathBuf> {
    let mut done: Vec<OsString> = Vec::new();
    let mut todo: Vec<OsString> = Vec::new();
    push_parts(&mut todo, path);
    let mut links = 0;
    while let Some(part) = todo.pop() {
        if part == ".." {
            done.pop();
            continue;
        }
        let mut here = root.to_owned();
        here.extend(&done);
        here.push(&part);
        match fs::read_link(&here) {
            Ok(target) => {
                links += 1;
                if links > LINKS_MAX {
                    return None;
                }
                if target.is_absolute() {
                    done.clear();
                }
                push_parts(&mut todo, &target);
            }
            Err(_) => done.push(part),
        }
    }
    let mut resolved = root.to_owned();
    resolved.extend(&done);
    Some(resolved)
}

fn push_parts(todo: &mut Vec<OsString>, path: &Path) {
    for component in path.components().rev() {
        match component {
            Component::Normal(part) => todo.push(part.to_owned()),
            Component::ParentDir => todo.push("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_stay_inside_the_root() {
        let root = std::env::temp_dir().join(format!("bootlace-resolve-{}", std::process::id()));
        fs::create_dir_all(root.join("usr/lib/systemd")).unwrap();
        fs::write(root.join("usr/lib/systemd/systemd"), "").unwrap();
        fs::create_dir_all(root.join("usr/sbin")).unwrap();
        let link = |target: &str, at: &str| symlink(target, root.join(at)).unwrap();
        link("usr/sbin", "sbin");
        link("usr/lib", "lib");
        link("/lib/systemd/systemd", "usr/sbin/init");
        link("../../../../etc/passwd", "out");
        link("loop", "loop");
        let check = |path: &str, expected: Option<&str>| {
            let found = resolve(&root, Path::new(path));
            assert_eq!(found, expected.map(|path| root.join(path)), "{path}");
        };
        check("/sbin/init", Some("usr/lib/systemd/systemd"));
        check("/out", Some("etc/passwd"));
        check("/missing/file", Some("missing/file"));
        check("/loop", None);
        fs::remove_dir_all(&root).unwrap();
    }
}
