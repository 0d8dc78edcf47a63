//! Versions that go from one store to another, as an administrator notices them.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use common::{make_ext4, system_files};
use images::{
    ImportRequest, ReceiveRequest, Received, SendRequest, Source, Stop, Store, StreamError,
    check_stream,
};
use model::{ImageName, ImageVersion, VersionState};
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::process::Command;

const SIZE_BYTES: u64 = 24 << 20;

fn name() -> ImageName {
    "debian-12".parse().unwrap()
}

fn store(dir: &Path, name: &str) -> Store {
    Store::open(&dir.join(name)).unwrap()
}

/// A store with two versions, of which the second has 3 MiB more, and 1 MiB of the first is empty.
fn two_versions(dir: &Path) -> Store {
    let store = store(dir, "here");
    let files = dir.join("files");
    system_files(&files);
    fs::write(files.join("old"), pattern(1 << 20, 1)).unwrap();
    let disk = dir.join("disk.raw");
    make_ext4(&files, &disk, 0, SIZE_BYTES);
    import(&store, &disk);
    let raw = fs::OpenOptions::new().read(true).write(true).open(&disk).unwrap();
    // As a later state of the same file system would be: blocks of files differ.
    let mut bytes = vec![0; SIZE_BYTES as usize];
    raw.read_exact_at(&mut bytes, 0).unwrap();
    let old = bytes.windows(4096).step_by(1024).position(|it| *it == pattern(4096, 1)).unwrap();
    raw.write_all_at(&vec![0; 1 << 20], old as u64 * 1024).unwrap();
    raw.write_all_at(&pattern(3 << 20, 7), SIZE_BYTES - (4 << 20)).unwrap();
    drop(raw);
    import(&store, &disk);
    store
}

fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn import(store: &Store, disk: &Path) -> ImageVersion {
    let request = ImportRequest {
        fix: None,
        source: Source::open(disk).unwrap(),
        name: name(),
        note: Some("as installed".to_owned()),
        state: VersionState::Released,
        disk_bytes: None,
        is_data: false,
    };
    store.import(&request, &Stop::default(), &mut |_| ()).unwrap().version
}

fn request(version: u32, from: Option<u32>) -> SendRequest {
    SendRequest { image: name(), version, from, at_bytes: 0 }
}

fn send(store: &Store, request: &SendRequest) -> Vec<u8> {
    let mut stream = Vec::new();
    store.send(request, &mut stream, &Stop::default(), &mut |_| ()).unwrap();
    stream
}

fn receive(store: &Store, input: impl Read, keeps_partial: bool) -> Result<Received, StreamError> {
    let request = ReceiveRequest { name: None, state: VersionState::Draft, keeps_partial };
    store.receive(input, &request, &Stop::default(), &mut |_| (), &mut |_| ())
}

fn received(store: &Store, stream: &[u8]) -> ImageVersion {
    match receive(store, stream, false).unwrap() {
        Received::New(version) => version,
        other => panic!("{other:?}"),
    }
}

fn same_files(a: &Store, b: &Store, version: u32, there: u32) {
    let read = |store: &Store, number| fs::read(store.disk_path(&name(), number)).unwrap();
    assert!(read(a, version) == read(b, there));
    let kernel = |store: &Store, number| fs::read(store.vmlinuz_path(&name(), number)).unwrap();
    assert!(kernel(a, version) == kernel(b, there));
}

/// What is in the store beside versions and what it notes for itself.
fn left(store: &Store) -> Vec<String> {
    let names = fs::read_dir(store.dir()).unwrap();
    let names = names.map(|it| it.unwrap().file_name().into_string().unwrap());
    names.filter(|it| it.starts_with(".import-") || it.starts_with(".receive-")).collect()
}

/// A connection that breaks.
struct Broken<'a>(&'a [u8]);

impl Read for Broken<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self.0.read(bytes)? {
            0 => Err(io::ErrorKind::ConnectionReset.into()),
            n => Ok(n),
        }
    }
}

#[test]
fn a_version_arrives_as_it_was_and_the_next_as_what_differs() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (two_versions(dir.path()), store(dir.path(), "there"));
    // What a later Bootlace may lay beside a disk comes along.
    let folder = here.disk_path(&name(), 1).parent().unwrap().to_owned();
    fs::write(folder.join("overlay.cpio"), "later").unwrap();
    let about = folder.join("image.toml");
    let text = fs::read_to_string(&about).unwrap();
    fs::set_permissions(&about, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    fs::write(&about, format!("{text}\nlater = \"too\"\n")).unwrap();

    let whole = send(&here, &request(1, None));
    assert_eq!(check_stream(&whole[..], &Stop::default(), &mut |_| ()).unwrap().version, 1);
    let first = received(&there, &whole);
    assert_eq!((first.version, &first.image), (1, &name()));
    same_files(&here, &there, 1, 1);
    assert_eq!(there.note(&name(), 1).unwrap().as_deref(), Some("as installed"));
    assert_eq!(there.states().unwrap()[&(name(), 1)], VersionState::Draft);
    let arrived = there.disk_path(&name(), 1).parent().unwrap().to_owned();
    assert_eq!(fs::read_to_string(arrived.join("overlay.cpio")).unwrap(), "later");
    assert!(fs::read_to_string(arrived.join("image.toml")).unwrap().contains("later = \"too\""));
    // No more room than at home.
    let blocks = |store: &Store| fs::metadata(store.disk_path(&name(), 1)).unwrap().blocks();
    assert!(blocks(&there) <= blocks(&here) + 16);

    let changes = send(&here, &request(2, Some(1)));
    let mut diff = Vec::new();
    let diff_bytes =
        here.send_diff(&request(2, Some(1)), &mut diff, &Stop::default(), &mut |_| ()).unwrap();
    assert_eq!(diff.len() as u64, diff_bytes);
    assert!(diff_bytes <= (3 << 20) * 11 / 10 + (64 << 10), "{diff_bytes}");
    assert!(diff.starts_with(b"rbd diff v1\nf\x02\0\0\0v1t\x02\0\0\0v2s"));
    let second = received(&there, &changes);
    assert_eq!(second.version, 2);
    same_files(&here, &there, 2, 2);
    // Once more, it is known, and what holds nothing new is short.
    assert!(
        matches!(receive(&there, &changes[..], false).unwrap(), Received::Known(it) if it == second)
    );
    let nothing = here.send(&request(2, Some(2)), io::sink(), &Stop::default(), &mut |_| ());
    let nothing = nothing.unwrap();
    assert!(nothing.diff_bytes < 100 && nothing.stream_bytes < 2000, "{nothing:?}");
    assert_eq!(left(&there), [""; 0]);

    // By another name, as the newest of that, and what it is compared with is found by its content.
    let other: ImageName = "copy".parse().unwrap();
    let as_other = ReceiveRequest {
        name: Some(other.clone()),
        state: VersionState::Test,
        keeps_partial: false,
    };
    let came = there.receive(&changes[..], &as_other, &Stop::default(), &mut |_| (), &mut |_| ());
    assert!(matches!(came.unwrap(), Received::New(it) if it.version == 1 && it.image == other));
    assert_eq!(there.states().unwrap()[&(other, 1)], VersionState::Test);
}

#[test]
fn what_is_damaged_is_put_back_and_the_damaged_is_not_sent() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (two_versions(dir.path()), store(dir.path(), "there"));
    let stream = send(&here, &request(1, None));
    received(&there, &stream);
    fs::remove_file(there.vmlinuz_path(&name(), 1)).unwrap();
    let put_back = receive(&there, &stream[..], false).unwrap();
    assert!(matches!(put_back, Received::PutBack(_, files) if files == ["vmlinuz"]));
    same_files(&here, &there, 1, 1);

    let disk = here.disk_path(&name(), 1);
    fs::set_permissions(&disk, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let raw = fs::OpenOptions::new().write(true).open(&disk).unwrap();
    raw.write_all_at(b"rotten", 9 << 20).unwrap();
    let mut sent = Vec::new();
    let error = here.send(&request(1, None), &mut sent, &Stop::default(), &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("has changed since it was imported"), "{error}");
    let empty = store(dir.path(), "empty");
    receive(&empty, &sent[..], false).unwrap_err();
    assert!(empty.list().unwrap().is_empty());
}

#[test]
fn what_breaks_off_leaves_nothing_or_is_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (two_versions(dir.path()), store(dir.path(), "there"));
    let stream = send(&here, &request(2, None));
    let size_of = |there: &Store| {
        let digest = here.version(&name(), 2).unwrap().digest;
        there.partial_bytes(&digest, SIZE_BYTES)
    };
    for part in [0, 3, 4, 100, stream.len() / 2, stream.len() - 40, stream.len() - 1] {
        receive(&there, Broken(&stream[..part]), false).unwrap_err();
        receive(&there, &stream[..part], false).unwrap_err();
        assert_eq!(left(&there), [""; 0], "{part}");
    }
    // At each break some more is there.
    let mut before = 0;
    let mut rounds = 0;
    let arrived = loop {
        let at_bytes = size_of(&there);
        assert!(at_bytes >= before, "{at_bytes} {before}");
        before = at_bytes;
        let stream = send(&here, &SendRequest { at_bytes, ..request(2, None) });
        rounds += 1;
        if rounds > 4 {
            break receive(&there, &stream[..], true).unwrap();
        }
        let part = stream.len() * 2 / 5;
        let error = receive(&there, Broken(&stream[..part]), true).unwrap_err();
        assert!(matches!(error, StreamError::Read(_)), "{error}");
        assert_eq!(left(&there).len(), 1);
    };
    assert!(before > 0);
    assert!(matches!(arrived, Received::New(it) if it.version == 1));
    same_files(&here, &there, 2, 1);
    assert_eq!(left(&there), [""; 0]);

    // From where nothing is, nothing goes on.
    let empty = store(dir.path(), "empty");
    let late = send(&here, &SendRequest { at_bytes: 8 << 20, ..request(2, None) });
    let error = receive(&empty, &late[..], true).unwrap_err();
    assert!(error.to_string().contains("--resume-at 0"), "{error}");
    let changes = send(&here, &request(2, Some(1)));
    let error = receive(&empty, &changes[..], true).unwrap_err();
    assert!(error.to_string().contains("differs from debian-12/v1"), "{error}");
    assert_eq!(left(&empty), [""; 0]);
    // What was kept and is wrong costs one try.
    let broken = receive(&empty, Broken(&stream[..stream.len() / 2]), true);
    broken.unwrap_err();
    let kept = empty.dir().join(&left(&empty)[0]).join("disk.raw");
    fs::OpenOptions::new().write(true).open(&kept).unwrap().write_all_at(b"x", 4096).unwrap();
    let error = receive(&empty, &stream[..], true).unwrap_err();
    assert!(error.to_string().contains("digest"), "{error}");
    assert_eq!(left(&empty), [""; 0]);
    receive(&empty, &stream[..], true).unwrap();
}

/// A stream with this header, and records.
fn forged(change: impl FnOnce(&mut toml::Table), records: &[u8], tail: &[u8]) -> Vec<u8> {
    let kernel = common::kernel_file(common::KERNEL);
    let mut header: toml::Table = toml::from_str(&format!(
        "at_bytes = 0\ndata_bytes = 4096\n[[files]]\nname = \"vmlinuz\"\nsize_bytes = {}\nblake3 = \"{}\"\n[description]\n\
         image = \"debian-12\"\nversion = 1\ndigest = \"{}\"\nsize_bytes = 8192\nfile_system = \"ext4\"\nkernel_version = \"6.1\"\n\
         imported_unix = 0\n",
        kernel.len(),
        blake3::hash(&kernel).to_hex(),
        blake3::hash(&[0; 8192]).to_hex(),
    ))
    .unwrap();
    change(&mut header);
    let header = toml::to_string(&header).unwrap();
    let mut plain = b"bootlace image stream 1\n".to_vec();
    plain.extend((header.len() as u32).to_le_bytes());
    plain.extend(header.as_bytes());
    plain.extend(&kernel);
    plain.extend(records);
    let digest = blake3::hash(&plain);
    plain.extend(digest.as_bytes());
    plain.extend(tail);
    zstd::encode_all(&plain[..], 3).unwrap()
}

fn record(tag: u8, offset: u64, length: u64, data: &[u8]) -> Vec<u8> {
    [&[tag][..], &offset.to_le_bytes(), &length.to_le_bytes(), data].concat()
}

fn records(all: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = b"rbd diff v1\ns".to_vec();
    bytes.extend(8192u64.to_le_bytes());
    bytes.extend(all.concat());
    bytes
}

#[test]
fn streams_that_mean_no_good_are_refused_with_words() {
    let dir = tempfile::tempdir().unwrap();
    let there = store(dir.path(), "there");
    let check = |stream: &[u8], expected: &str| {
        for keeps in [false, true] {
            let error = receive(&there, stream, keeps).unwrap_err();
            let text = format!(
                "{error}: {:?}",
                std::error::Error::source(&error).map(|it| it.to_string())
            );
            assert!(text.contains(expected), "expected {expected:?} in: {text}");
            check_stream(stream, &Stop::default(), &mut |_| ()).err();
        }
        assert_eq!(left(&there), [""; 0], "{expected}");
        assert!(there.list().unwrap().is_empty());
    };
    let same = |_: &mut toml::Table| ();
    let with = |all: &[Vec<u8>]| forged(same, &records(all), b"");
    let end = || b"e".to_vec();
    check(&with(&[record(b'w', 8192, 4096, &[1; 4096]), end()]), "is not in its place");
    check(&with(&[record(b'z', u64::MAX - 10, 4096, b""), end()]), "is not in its place");
    check(&with(&[record(b'z', 0, u64::MAX, b""), end()]), "is not in its place");
    check(&with(&[record(b'z', 0, 0, b""), end()]), "is not in its place");
    let twice = [record(b'z', 4096, 4096, b""), record(b'z', 0, 4096, b""), end()];
    check(&with(&twice), "is not in its place");
    check(&with(&[b"x".to_vec()]), "a record begins with 'x'");
    check(&with(&[record(b's', 1, 1, b"")]), "a record begins with 's'");
    check(&with(&[record(b'w', 0, 4096, &[1; 4096]), end()]), "the disk that came out of it");
    check(&forged(same, &records(&[end()]), b"more"), "something follows its end");
    check(&forged(same, b"rbd diff v2\n", b""), "no rbd diff v1");
    let mut long = b"rbd diff v1\nf".to_vec();
    long.extend(u32::MAX.to_le_bytes());
    check(&forged(same, &long, b""), "a snapshot's name");
    for bad in ["../x", "/etc/passwd", "disk.raw", "image.toml", ".x", "a/b", "", "a\u{202e}"] {
        let named = |header: &mut toml::Table| {
            header["files"][0].as_table_mut().unwrap().insert("name".to_owned(), bad.into());
        };
        check(&forged(named, &records(&[end()]), b""), "a file is called");
    }
    let image = |header: &mut toml::Table| {
        header["description"].as_table_mut().unwrap().insert("image".to_owned(), "../x".into());
    };
    check(&forged(image, &records(&[end()]), b""), "its header is wrong");
    for (field, value) in [("size_bytes", i64::MAX), ("size_bytes", 0), ("size_bytes", 4097)] {
        let sized = |header: &mut toml::Table| {
            header["description"].as_table_mut().unwrap().insert(field.to_owned(), value.into());
        };
        check(&forged(sized, &records(&[end()]), b""), "its header is wrong");
    }
    let late = |header: &mut toml::Table| {
        header.insert("at_bytes".to_owned(), 12288.into());
    };
    check(&forged(late, &records(&[end()]), b""), "it begins where no block");
    // A file that says that it is longer than all that comes, and one with other content.
    let longer = |header: &mut toml::Table| {
        header["files"][0]
            .as_table_mut()
            .unwrap()
            .insert("size_bytes".to_owned(), (1 << 28).into());
    };
    check(&forged(longer, &records(&[end()]), b""), "vmlinuz has another digest");
    // Gigabytes of zeroes in a few bytes end where the disk does.
    let bomb = zstd::encode_all(io::repeat(0).take(1 << 30), 3).unwrap();
    check(&bomb, "it begins otherwise");
    let huge = [record(b'w', 0, 1 << 40, &[]), end()];
    check(&with(&huge), "is not in its place");
    check(b"", "it is empty");
    check(b"PK\x03\x04 and more", "not compressed with Zstandard");
    let newer = zstd::encode_all(&b"bootlace image stream 2\n"[..], 3).unwrap();
    check(&newer, "a newer Bootlace");
    // All in it fits, but for what is on its disk.
    check(&with(&[end()]), "no root where it says");
}

#[test]
fn no_prefix_and_no_changed_byte_panics_or_arrives() {
    let good = forged(|_| (), &records(&[record(b'z', 0, 4096, b""), b"e".to_vec()]), b"");
    check_stream(&good[..], &Stop::default(), &mut |_| ()).unwrap();
    let plain = zstd::decode_all(&good[..]).unwrap();
    for length in 0..good.len() {
        check_stream(&good[..length], &Stop::default(), &mut |_| ()).unwrap_err();
    }
    for at in 0..plain.len() {
        let mut changed = plain.clone();
        changed[at] ^= 1;
        let changed = zstd::encode_all(&changed[..], 1).unwrap();
        check_stream(&changed[..], &Stop::default(), &mut |_| ()).unwrap_err();
    }
}

#[test]
fn the_tool_zstd_opens_it() {
    let dir = tempfile::tempdir().unwrap();
    let here = two_versions(dir.path());
    let file = dir.path().join("stream");
    fs::write(&file, send(&here, &request(1, None))).unwrap();
    let status = Command::new("zstd").args(["-q", "-t"]).arg(&file).status();
    match status {
        Ok(status) => assert!(status.success()),
        Err(error) => println!("skipped: zstd: {error}"),
    }
}
