//! What was written is read by others: e2fsck finds nothing, debugfs and Linux see the files.

use super::*;
use proptest::prelude::*;
use std::path::Path;
use std::process::Command;
use tempfile::NamedTempFile;

const META: Meta =
    Meta { permissions: 0o644, owner: 0, group: 0, modified_unix: 0, xattrs: vec![] };

/// A file system of `mib` MiB with what `fill` puts there.
fn made(mib: u64, fill: impl FnOnce(&mut NewRoot<'_>)) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    make(file.path(), mib << 20, "root").unwrap();
    let mut root = NewRoot::open(file.as_file()).unwrap();
    fill(&mut root);
    root.finish().unwrap();
    check(file.path());
    file
}

/// e2fsck reads all of it and finds nothing to mend.
fn check(image: &Path) {
    let checked = Command::new("/sbin/e2fsck").args(["-f", "-n"]).arg(image).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success(), "{said}");
    assert!(!said.contains("Fix?") && !said.contains("ignored"), "{said}");
}

fn debugfs(image: &Path, request: &str) -> String {
    let ran = Command::new("/sbin/debugfs").args(["-R", request]).arg(image).output().unwrap();
    String::from_utf8_lossy(&ran.stdout).into_owned()
}

fn put(root: &mut NewRoot<'_>, path: &str, content: &[u8]) {
    let n = root.file(path.as_bytes(), &META, &mut &content[..]).unwrap();
    assert_eq!(n, content.len() as u64);
}

#[test]
fn an_empty_root_is_one() {
    let image = made(64, |_| ());
    assert!(debugfs(image.path(), "ls -l /").contains("lost+found"));
}

#[test]
fn files_of_all_kinds_are_there_with_owners_modes_and_times() {
    let image = made(64, |root| {
        let meta = Meta {
            permissions: 0o4755,
            owner: 70_000,
            group: 65_534,
            modified_unix: 5_000_000_000,
            xattrs: vec![],
        };
        root.folder(b"./", &Meta { permissions: 0o700, ..META }).unwrap();
        root.folder(b"usr/bin/", &Meta { permissions: 0o1777, ..META }).unwrap();
        root.file(b"/usr/bin/su", &meta, &mut &b"set-user-id"[..]).unwrap();
        root.symlink(b"bin", &META, b"usr/bin").unwrap();
        root.symlink(b"long", &META, &[b'x'; 300]).unwrap();
        root.symlink(b"just", &META, &[b'y'; 60]).unwrap();
        put(root, "bin/through-a-link", b"found in usr/bin");
        root.hard_link(b"usr/bin/su2", b"bin/su").unwrap();
        root.special(b"dev/null", &META, Special::CharacterDevice { major: 1, minor: 3 }).unwrap();
        root.special(b"dev/odd", &META, Special::CharacterDevice { major: 300, minor: 70_000 })
            .unwrap();
        root.special(b"pipe", &META, Special::Pipe).unwrap();
    });
    let stat = debugfs(image.path(), "stat /usr/bin/su");
    for part in ["Mode:  04755", "User: 70000", "Group: 65534", "Links: 2", "Size: 11", "2128"] {
        assert!(stat.contains(part), "{part}: {stat}");
    }
    assert_eq!(debugfs(image.path(), "cat /usr/bin/through-a-link"), "found in usr/bin");
    assert_eq!(debugfs(image.path(), "cat /usr/bin/su2"), "set-user-id");
    assert!(debugfs(image.path(), "stat /bin").contains("Fast link dest: \"usr/bin\""));
    assert!(debugfs(image.path(), "stat /long").contains("Size: 300"));
    assert!(debugfs(image.path(), "stat /just").contains("Size: 60"));
    assert!(debugfs(image.path(), "stat /dev/odd").contains("300:70000"));
    assert!(debugfs(image.path(), "stat /").contains("Mode:  0700"));
}

#[test]
fn attributes_stand_in_the_inode_or_in_a_block() {
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let list = [
        &[2, 0, 0, 0][..],
        &[1, 0, 6, 0, 255, 255, 255, 255],
        &[2, 0, 7, 0, 232, 3, 0, 0],
        &[4, 0, 4, 0, 255, 255, 255, 255],
        &[16, 0, 7, 0, 255, 255, 255, 255],
        &[32, 0, 4, 0, 255, 255, 255, 255],
    ]
    .concat();
    let xattr = |name: &str, value: &[u8]| Xattr::new(name.as_bytes(), value).unwrap();
    let image = made(64, |root| {
        let small = Meta { xattrs: vec![xattr("security.capability", &capability)], ..META };
        root.file(b"ping", &small, &mut &b"x"[..]).unwrap();
        let all = vec![
            xattr("user.long", &[7; 2000]),
            xattr("security.capability", &capability),
            xattr("system.posix_acl_access", &list),
            xattr("trusted.x", b""),
        ];
        root.folder(b"folder", &Meta { xattrs: all, permissions: 0o755, ..META }).unwrap();
    });
    assert!(debugfs(image.path(), "ea_list ping").contains("security.capability (20)"));
    let listed = debugfs(image.path(), "ea_list folder");
    for name in ["user.long (2000)", "system.posix_acl_access (28)", "trusted.x (0)"] {
        assert!(listed.contains(name), "{name}: {listed}");
    }
    assert!(Xattr::new(b"nfs4.acl", b"").is_none() && Xattr::new(b"user.", b"").is_none());
    assert!(Xattr::new(b"system.posix_acl_access", b"xyz").is_none());
    assert!(!Xattr::fit(&[xattr("user.huge", &[0; 5000])]));
}

#[test]
fn what_is_replaced_gives_its_room_back() {
    let before = made(64, |root| put(root, "a", &[1; 9000]));
    let image = made(64, |root| {
        put(root, "a", &[2; 3 << 20]);
        root.symlink(b"a", &META, &[b'x'; 200]).unwrap();
        put(root, "a", &[1; 9000]);
        put(root, "twice", b"1");
        root.hard_link(b"other", b"twice").unwrap();
        put(root, "twice", b"2");
        root.hard_link(b"twice", b"other").unwrap();
        root.hard_link(b"twice", b"twice").unwrap();
        root.symlink(b"l", &META, b"a").unwrap();
        root.folder(b"l", &Meta { permissions: 0o755, ..META }).unwrap();
    });
    let free = |image: &NamedTempFile| {
        let said = debugfs(image.path(), "stats -h");
        let line = said.lines().find(|line| line.starts_with("Free blocks:")).unwrap().to_owned();
        line.rsplit(' ').next().unwrap().parse::<u32>().unwrap()
    };
    // The other file, and the folder.
    assert_eq!(free(&before) - free(&image), 2);
    assert_eq!(debugfs(image.path(), "cat twice"), "1");
    assert!(debugfs(image.path(), "stat other").contains("Links: 2"));
}

#[test]
fn paths_that_can_not_be_are_refused() {
    made(64, |root| {
        put(root, "file", b"");
        root.symlink(b"circle", &META, b"circle/x").unwrap();
        root.symlink(b"up", &META, b"../../../etc").unwrap();
        root.symlink(b"new", &META, b"a/../b").unwrap();
        let mut refused = |path: &[u8], why: Misplaced| match root.file(path, &META, &mut &b"x"[..])
        {
            Err(PutError::Misplaced(misplaced)) => assert_eq!(misplaced, why),
            other => panic!("{other:?}"),
        };
        refused(b"../etc/passwd", Misplaced::Outside);
        refused(b"a/../../b", Misplaced::Outside);
        refused(b"/", Misplaced::IsFolder);
        refused(b"lost+found", Misplaced::IsFolder);
        refused(b"file/below", Misplaced::NotInFolder);
        refused(b"circle/below", Misplaced::Circle);
        refused(&[b'n'; 256], Misplaced::TooLong);
        refused(b"nul\0l", Misplaced::TooLong);
        refused(&b"d/".repeat(2000), Misplaced::TooLong);
        refused(b"a/b/..", Misplaced::Outside);
        let link = root.hard_link(b"link", b"missing");
        assert!(matches!(link, Err(PutError::Misplaced(Misplaced::NoTarget))));
        let link = root.hard_link(b"link", b"/");
        assert!(matches!(link, Err(PutError::Misplaced(Misplaced::NoTarget))));
        // There is no way out of the root, as in Linux.
        put(root, "up/passwd", b"inside");
        put(root, "new/file", b"in b");
    });
}

#[test]
fn a_folder_with_many_files_and_many_groups() {
    let image = made(600, |root| {
        for number in 0..9000 {
            put(
                root,
                &format!("many/file-with-a-name-{number:05}"),
                format!("{number}").as_bytes(),
            );
        }
        // Over the ends of groups, and past copies of the superblock.
        for number in 0..3 {
            let content = vec![number + 1; 100 << 20];
            put(root, &format!("large{number}"), &content);
        }
        for number in 0..200 {
            root.folder(format!("many/folder{number}").as_bytes(), &META).unwrap();
        }
    });
    assert_eq!(debugfs(image.path(), "cat many/file-with-a-name-08999"), "8999");
    let sum = |path: &str| {
        let mut all = Command::new("/sbin/debugfs");
        let all =
            all.args(["-R", &format!("cat {path}")]).arg(image.path()).output().unwrap().stdout;
        (all.len(), all.iter().all(|byte| *byte == all[0]), all[0])
    };
    assert_eq!(sum("large2"), (100 << 20, true, 3));
}

#[test]
fn long_zeroes_become_holes() {
    struct Sparse(u64);
    impl Read for Sparse {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = buffer.len().min((2000 << 20) - self.0 as usize).min(1 << 20);
            // A byte each four MiB: more runs than an inode and one block have places for.
            buffer[..n].fill(0);
            if n > 0 && self.0.is_multiple_of(4 << 20) {
                buffer[0] = 1;
            }
            self.0 += n as u64;
            Ok(n)
        }
    }
    let image = made(640, |root| {
        root.file(b"sparse", &META, &mut Sparse(0)).unwrap();
    });
    let stat = debugfs(image.path(), "stat sparse");
    assert!(stat.contains("Size: 2097152000"), "{stat}");
    let taken = image.as_file().metadata().unwrap();
    assert!(std::os::unix::fs::MetadataExt::blocks(&taken) * 512 < 64 << 20);
}

#[test]
fn what_does_not_fit_is_told() {
    let file = NamedTempFile::new().unwrap();
    make(file.path(), 64 << 20, "root").unwrap();
    let mut root = NewRoot::open(file.as_file()).unwrap();
    let put = root.file(b"large", &META, &mut io::repeat(7));
    assert!(matches!(put, Err(PutError::Full)));
    let mut root = NewRoot::open(file.as_file()).unwrap();
    let mut number = 0;
    let put = loop {
        number += 1;
        if let Err(error) = root.symlink(format!("{number}").as_bytes(), &META, b"x") {
            break error;
        }
    };
    assert!(matches!(put, PutError::TooManyFiles), "{put:?}");
    root.finish().unwrap();
    check(file.path());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn whatever_comes_e2fsck_finds_nothing(
        steps in proptest::collection::vec((0..6_u8, "[ab./]{1,7}", "[ab./]{1,5}", 0..20_000_usize), 1..40)
    ) {
        made(64, |root| {
            for (kind, path, other, size) in &steps {
                let (path, other) = (path.as_bytes(), other.as_bytes());
                let _ = match kind {
                    0 => root.folder(path, &META),
                    1 => root.symlink(path, &META, &other.repeat(1 + size % 40)),
                    2 => root.hard_link(path, other),
                    3 => root.special(path, &META, Special::Pipe),
                    _ => root.file(path, &META, &mut &vec![1; *size][..]).map(drop),
                };
            }
        });
    }
}
