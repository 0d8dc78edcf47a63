//! What hurts in an image is found on real disks, and what is laid over a version stays beside it.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use common::{make_ext4, run, system_files};
use images::{FixChoice, Import, ImportRequest, Source, Stop, Store, StoreError};
use model::{ImageName, VersionState};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const ROOT: &str = "11111111-2222-3333-4444-555555555555";
const SWAP: &str = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee";
const PARTITION: &str = "0fc63daf-8483-4772-8e79-3d69d8477de4";

/// Partitions of root and swap: first sector, and how many.
const PARTITIONS: [(u64, u64); 2] = [(2048, 65536), (81920, 2048)];

/// A disk with a root and swap, whose fstab wants more than there is.
fn disk(dir: &Path, write_table: impl Fn(&mut [u8])) -> PathBuf {
    let files = dir.join("files");
    system_files(&files);
    let fstab = format!(
        "UUID={ROOT} / ext4 defaults 0 1\nUUID={SWAP} none swap sw 0 0\nPARTUUID={PARTITION} /a ext4 defaults 0 0\n\
         PARTLABEL=second /b ext4 defaults 0 0\nLABEL=system /c ext4 defaults 0 0\nUUID=C0FF-EE00 /boot/efi vfat defaults 0 1\n"
    );
    fs::write(files.join("etc/fstab"), fstab).unwrap();
    fs::create_dir_all(files.join("var/log/journal/x")).unwrap();
    let (root, swap, disk) = (dir.join("root"), dir.join("swap"), dir.join("disk.raw"));
    make_ext4(&files, &root, 0, PARTITIONS[0].1 * 512);
    run(Command::new("tune2fs").args(["-L", "system", "-U", ROOT]).arg(&root));
    fs::write(&swap, vec![0; 1 << 20]).unwrap();
    fs::set_permissions(&swap, fs::Permissions::from_mode(0o600)).unwrap();
    run(Command::new("mkswap").args(["-q", "-U", SWAP]).arg(&swap));
    let mut bytes = vec![0; 48 << 20];
    for (file, (start, _)) in [root, swap].iter().zip(PARTITIONS) {
        let file = fs::read(file).unwrap();
        let start = start as usize * 512;
        bytes[start..start + file.len()].copy_from_slice(&file);
    }
    write_table(&mut bytes);
    fs::write(&disk, bytes).unwrap();
    disk
}

fn boot_record(bytes: &mut [u8], entries: &[(u8, u64, u64)]) {
    bytes[440..444].copy_from_slice(&0xabcd_ef01u32.to_le_bytes());
    for (at, (kind, start, n_sectors)) in entries.iter().enumerate() {
        let entry = &mut bytes[446 + 16 * at..462 + 16 * at];
        entry[4] = *kind;
        entry[8..12].copy_from_slice(&(*start as u32).to_le_bytes());
        entry[12..16].copy_from_slice(&(*n_sectors as u32).to_le_bytes());
    }
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
}

fn dos(bytes: &mut [u8]) {
    boot_record(bytes, &PARTITIONS.map(|(start, n_sectors)| (0x83, start, n_sectors)));
}

/// UEFI 2.10, 5.3: header in sector 1, table from sector 2.
fn gpt(bytes: &mut [u8]) {
    let last = bytes.len() as u64 / 512 - 1;
    boot_record(bytes, &[(0xee, 1, last)]);
    // The first three parts of a GUID are little-endian.
    let guid = [
        0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d,
        0xe4,
    ];
    let mut table = vec![0; 128 * 128];
    for (at, (start, n_sectors)) in PARTITIONS.into_iter().enumerate() {
        let entry = &mut table[128 * at..128 * (at + 1)];
        entry[..16].fill(1);
        entry[16..32].copy_from_slice(&guid.map(|byte: u8| byte ^ at as u8));
        entry[32..40].copy_from_slice(&start.to_le_bytes());
        entry[40..48].copy_from_slice(&(start + n_sectors - 1).to_le_bytes());
        for (at, letter) in ["first", "second"][at].encode_utf16().enumerate() {
            entry[56 + 2 * at..58 + 2 * at].copy_from_slice(&letter.to_le_bytes());
        }
    }
    let mut header = [0; 92];
    header[..8].copy_from_slice(b"EFI PART");
    let mut put = |at: usize, value: &[u8]| header[at..at + value.len()].copy_from_slice(value);
    put(8, &0x1_0000u32.to_le_bytes());
    put(12, &92u32.to_le_bytes());
    put(24, &1u64.to_le_bytes());
    put(32, &last.to_le_bytes());
    put(40, &34u64.to_le_bytes());
    put(48, &(last - 34).to_le_bytes());
    put(72, &2u64.to_le_bytes());
    put(80, &128u32.to_le_bytes());
    put(84, &128u32.to_le_bytes());
    put(88, &crc32fast::hash(&table).to_le_bytes());
    let sum = crc32fast::hash(&header);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
    bytes[512..604].copy_from_slice(&header);
    bytes[1024..1024 + table.len()].copy_from_slice(&table);
}

fn import(store: &Store, source: &Path, fix: Option<FixChoice>) -> Import {
    let request = ImportRequest {
        disk_bytes: None,
        source: Source::open(source).unwrap(),
        name: name(),
        note: None,
        state: VersionState::Released,
        fix,
        is_data: false,
    };
    store.import(&request, &Stop::default(), &mut |_| ()).unwrap()
}

fn name() -> ImageName {
    "debian".parse().unwrap()
}

#[test]
fn what_fstab_wants_is_compared_with_what_is_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("images")).unwrap();
    let told = |import: &Import| -> Vec<(String, Option<usize>)> {
        import.harms.iter().map(|harm| (harm.check.clone(), harm.line)).collect()
    };
    let expected = |lines: &[usize]| -> Vec<(String, Option<usize>)> {
        let mounts = lines.iter().map(|line| ("fstab-mount".to_owned(), Some(*line)));
        let others = [("swap-on-disk".to_owned(), Some(2)), ("journal-on-disk".to_owned(), None)];
        mounts.chain(others).collect()
    };
    let whole = disk(dir.path(), gpt);
    let imported = import(&store, &whole, None);
    assert_eq!(told(&imported), expected(&[6]));
    assert!(imported.laid_over.is_empty() && imported.warnings.is_empty(), "{imported:?}");
    // In a table of the other kind the partitions have other names.
    let other = tempfile::tempdir().unwrap();
    let other = disk(other.path(), dos);
    assert_eq!(told(&import(&store, &other, None)), expected(&[3, 4, 6]));
}

#[test]
fn what_is_laid_over_a_version_stays_beside_it_until_the_version_goes() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("images")).unwrap();
    let disk = disk(dir.path(), gpt);
    let all = FixChoice::default();
    let imported = import(&store, &disk, Some(all.clone()));
    assert_eq!(imported.laid_over, ["/etc/fstab", "/etc/systemd/journald.conf.d/50-bootlace.conf"]);
    let (image, version) = (name(), imported.version.version);
    let (overlay, bytes) = store.overlay_file(&image, version).unwrap().unwrap();
    assert_eq!(overlay.entries.len(), 2);
    assert_eq!(overlay.to_file().unwrap(), bytes);
    assert_eq!(store.overlaid().unwrap(), [(image.clone(), version)]);
    // The version is as it was, and looked at again it is the same.
    let harms = store.harms(&image, version).unwrap();
    assert_eq!(harms.harms, imported.harms);
    assert_eq!(store.verify(&image, version, 0, &Stop::default(), &mut |_| ()).unwrap().flaw, None);

    let less = FixChoice { except: ["journal-on-disk".to_owned()].into(), ..all };
    assert_eq!(store.lay_over(&image, version, Some(&less)).unwrap().entries.len(), 1);
    assert_eq!(store.overlay(&image, version).unwrap().entries.len(), 1);
    store.lay_over(&image, version, None).unwrap();
    assert_eq!(store.overlay_file(&image, version).unwrap(), None);
    assert!(matches!(store.lay_over(&image, 9, None), Err(StoreError::Missing { .. })));

    store.lay_over(&image, version, Some(&less)).unwrap();
    let path = store.dir().join("debian").join(format!("{version}.overlay"));
    let mut file = fs::read(&path).unwrap();
    file.truncate(file.len() - 1);
    fs::remove_file(&path).unwrap();
    fs::write(&path, file).unwrap();
    let error = store.overlay(&image, version).unwrap_err().to_string();
    assert!(error.contains("cut off") && error.contains("bootlace image fix debian/v1"), "{error}");
    store.lay_over(&image, version, Some(&less)).unwrap();
    store.remove(&image, version).unwrap();
    assert_eq!(store.overlaid().unwrap(), []);
}
