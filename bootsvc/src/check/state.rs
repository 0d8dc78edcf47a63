//! Whether images, disks and database are there, and have room.

use super::{Verdict, Viewer};
use crate::config::{Config, Pool};
use crate::paths::Paths;
use crate::privileges;
use crate::scratch;
use crate::serve;
use crate::site::{self, Site};
use images::StoreError;
use model::DiskId;
use nix::sys::resource::{Resource, getrlimit};
use rustix::fs::{StatVfsMountFlags, statvfs};
use service::{Expected, Unwritable};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;

/// With less room a database can't be opened for writing: its log begins with as much.
const ROOM_BYTES: u64 = 64 << 10;

/// So much of a kernel holds its headers.
const KERNEL_START: u64 = 64 << 10;

/// Names that are listed of many.
const NAMED_MAX: usize = 5;

pub(super) fn all(paths: &Paths, config: &Config) -> Vec<Verdict> {
    let viewer = Viewer::of(paths);
    let expected = match service::expected(&paths.database()) {
        Ok(expected) => Ok(expected),
        Err(error) if error.is_unwritable() => expected_of_copy(paths),
        Err(error) => Err(viewer.failed(&error)),
    };
    // Nothing that is said of what is in them would be true.
    if let Err(error) = paths.check_folders() {
        return vec![Verdict::Wrong(error.to_string())];
    }
    let mut findings = unwritable(paths);
    findings.push(images(paths, expected.as_ref().ok(), viewer));
    findings.extend(damaged_images(paths));
    findings.extend(unsigned_kernels(paths));
    findings.extend(disks(paths, expected.as_ref().ok(), viewer));
    findings.extend(expected.as_ref().ok().and_then(|expected| admins(config, expected)));
    let n_machines = match (n_machines(paths), expected) {
        (Ok(Some(n_machines)), _) => Ok(n_machines),
        (Ok(None), Ok(expected)) => Ok(expected.n_machines),
        (Ok(None), Err(verdict)) => Err(verdict),
        (Err(error), _) => Err(Verdict::Wrong(error)),
    };
    match n_machines {
        Ok(n_machines) => {
            findings.push(descriptors(n_machines));
            findings.extend(pool(config, n_machines));
        }
        Err(verdict) => findings.push(verdict),
    }
    findings
}

/// Whether somebody may log in, if others than this host reach the page.
fn admins(config: &Config, expected: &Expected) -> Option<Verdict> {
    let listen = config.web.listen;
    let verdict = match expected.n_admins {
        0 => Verdict::Wrong(serve::nobody_may(listen)),
        1 => Verdict::Right("accounts: one administrator".to_owned()),
        n => Verdict::Right(format!("accounts: {n} administrators")),
    };
    (!listen.ip().to_canonical().is_loopback()).then_some(verdict)
}

/// File systems on which nothing can be written, and the first of our folders there.
fn unwritable(paths: &Paths) -> Vec<Verdict> {
    let mut seen = BTreeSet::new();
    let folders = [paths.state(), paths.images(), paths.layers(), paths.cache()];
    let told = folders.into_iter().filter_map(|folder| {
        // One that is missing is made in the next one above it that there is.
        let there = folder.ancestors().find(|folder| folder.exists())?;
        let why = match statvfs(there).ok()? {
            about if about.f_flag.contains(StatVfsMountFlags::RDONLY) => Unwritable::ReadOnly,
            about if about.f_bavail.saturating_mul(about.f_frsize) < ROOM_BYTES => Unwritable::Full,
            _ => return None,
        };
        let is_first = seen.insert(fs::metadata(there).ok()?.dev());
        let has_reserve = paths.database().with_extension("reserve").exists();
        is_first.then(|| match why {
            Unwritable::Full if has_reserve && folder == paths.state() => Verdict::Wrong(format!(
                "the disk of {} is full: a boot server that runs still stores leases, boots and changes, in space that is \
                 reserved for them, and nothing else can be stored. Free space there",
                folder.display()
            )),
            _ => Verdict::Wrong(format!("nothing can be stored in {}: {why}", folder.display())),
        })
    });
    told.collect()
}

/// What a database expects that can't be opened where it is, since nothing can be written there.
fn expected_of_copy(paths: &Paths) -> Result<Expected, Verdict> {
    let database = paths.database();
    let folder = scratch::folder(scratch::database_bytes(&database), &[]).map_err(|error| {
        Verdict::Wrong(format!("there is no room for a copy of {}: {error}", database.display()))
    })?;
    let copy = folder.path().join("state.db");
    service::copy_database(&database, &copy)
        .and_then(|()| service::expected(&copy))
        .map_err(|error| Verdict::Wrong(error.chain()))
}

/// Whether all machines can have an address at once.
fn pool(config: &Config, n_machines: u64) -> Option<Verdict> {
    let pools = config.network.all().filter_map(|network| Some((network.pool?, &network.reserved)));
    let pools: Vec<_> = pools.filter(|_| config.network.mode.leases()).collect();
    let n_of = |pool: Pool| u64::from(pool.last.to_bits() - pool.first.to_bits()) + 1;
    let n_addresses: u64 = pools.iter().map(|(pool, _)| n_of(*pool)).sum();
    // Those that are reserved elsewhere need none of the pool; how many of the machines have one is not looked at.
    let n_elsewhere = pools.iter().flat_map(|(pool, reserved)| {
        reserved.values().filter(|it| !(pool.first..=pool.last).contains(*it))
    });
    let names: Vec<String> = pools.iter().map(|(pool, _)| pool.to_string()).collect();
    let (pool, has) = if names.len() == 1 { ("pool", "has") } else { ("pools", "have") };
    (!names.is_empty() && n_machines > n_addresses + n_elsewhere.count() as u64).then(|| {
        Verdict::Better(format!(
            "the {pool} {} {has} {n_addresses} addresses for {n_machines} machines: not all can run at once. Make {} larger",
            names.join(", "),
            if names.len() == 1 { "it" } else { "them" }
        ))
    })
}

/// Whether all machines can be attached at once.
fn descriptors(n_machines: u64) -> Verdict {
    privileges::raise_descriptor_limit();
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    let needed = storage::descriptors_for(n_machines);
    let machines = if n_machines == 1 { "machine needs" } else { "machines need" };
    let sum = format!("{n_machines} {machines} {needed} file descriptors of the storage server");
    match limit < needed {
        false => {
            Verdict::Right(format!("{sum}, which may have {limit} if it is started from here"))
        }
        true => Verdict::Better(format!(
            "{sum}, which may have only {limit} if it is started from here: not all can be attached at once. Allow it \
             {needed} or more: LimitNOFILE= in systemd, ulimit -n"
        )),
    }
}

/// Of the boot server, if one runs that answers this user; `None`: it is for the database to say.
fn n_machines(paths: &Paths) -> Result<Option<u64>, String> {
    /// The site, as far as it is needed.
    #[derive(serde::Deserialize)]
    struct Glance {
        n_machines: u64,
    }
    let database = paths.database();
    let asked = match site::connect(paths) {
        Ok(None) => return Ok(None),
        // It runs on, and what is left of the site is in its memory.
        Ok(Some(_)) if database.try_exists().is_ok_and(|exists| !exists) => {
            return Err(format!(
                "the database {} is gone, and the boot server runs on with what was in it: save that by bootlace backup \
                 create FILE before you stop it; then bootlace backup restore --replace FILE",
                database.display()
            ));
        }
        Ok(Some(stream)) => Site::of_server(paths, stream),
        // Whoever may not ask it may not read the database either.
        Err(error) if error.is::<site::Refused>() => return Ok(None),
        Err(error) => Err(error),
    };
    let glance = asked.and_then(|site| site.get::<Glance>("/api/v1/status"));
    glance.map(|glance| Some(glance.n_machines)).map_err(|error| format!("{error:#}"))
}

/// Image versions with which machines can't start, if there are any.
fn damaged_images(paths: &Paths) -> Option<Verdict> {
    // Whether it can be read is checked with the images.
    let store = images::Store::look(&paths.images()).ok()?;
    let troubles = store.troubles().unwrap_or_default();
    let troubles: Vec<String> = troubles
        .iter()
        .map(|((image, version), trouble)| format!("{image}/v{version}: {}", trouble.why))
        .collect();
    (!troubles.is_empty()).then(|| {
        Verdict::Better(format!(
            "machines can't start with damaged images: {}. Mount the file system that holds them, put them back from a \
             backup, or import them again",
            troubles.join("; ")
        ))
    })
}

/// Newest versions with a kernel that PCs with Secure Boot can't start, if there are any.
fn unsigned_kernels(paths: &Paths) -> Option<Verdict> {
    let store = images::Store::look(&paths.images()).ok()?;
    let mut newest: BTreeMap<_, u32> = BTreeMap::new();
    for version in store.list().ok()? {
        let number = newest.entry(version.image).or_default();
        *number = (*number).max(version.version);
    }
    let is_unsigned = |(image, version): &(_, u32)| {
        let mut start = Vec::new();
        let file = fs::File::open(store.vmlinuz_path(image, *version));
        let read = file.and_then(|file| file.take(KERNEL_START).read_to_end(&mut start));
        read.is_ok() && !images::is_signed(&start)
    };
    let unsigned = newest.into_iter().filter(is_unsigned);
    let names: Vec<String> =
        unsigned.map(|(image, number)| format!("{image} version {number}")).collect();
    (!names.is_empty()).then(|| {
        Verdict::Better(format!(
            "PCs with Secure Boot can't start {}: the kernel has no signature. Other PCs can; to change it, install the \
             distribution's signed kernel in the image, and import it again",
            listed(&names)
        ))
    })
}

/// Whether the image versions are there that the database knows.
fn images(paths: &Paths, expected: Option<&Expected>, viewer: Viewer) -> Verdict {
    let folder = paths.images();
    let there = images::Store::look(&folder).and_then(|store| store.given_out().and(store.list()));
    let versions = match there {
        Ok(versions) => versions,
        Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Vec::new()
        }
        Err(error) => return viewer.failed(&error),
    };
    let known = expected.map_or(&[][..], |expected| &expected.images);
    let is_there = |known: &(String, u32)| {
        versions.iter().any(|it| (it.image.as_str(), it.version) == (&known.0, known.1))
    };
    let missing: Vec<String> = known
        .iter()
        .filter(|known| !is_there(known))
        .map(|(image, version)| format!("{image}/v{version}"))
        .collect();
    // Machines that keep no disk boot the newest one.
    let are_older = known.iter().filter(|known| !is_there(known)).all(|known| {
        versions.iter().any(|it| it.image.as_str() == known.0 && it.version > known.1)
    });
    match (missing.len(), versions.len()) {
        (0, 0) => Verdict::Right(
            "no images yet; import one: bootlace image import FILE --name NAME".into(),
        ),
        (0, 1) => Verdict::Right(format!("1 image version in {}", folder.display())),
        (0, n) => Verdict::Right(format!("{n} image versions in {}", folder.display())),
        (_, 0) => Verdict::Wrong(format!(
            "no image is in {}, where the database has {}: the file system that holds them is probably not mounted. Mount \
             it, or put them back from a backup",
            folder.display(),
            listed(&missing)
        )),
        _ if are_older => Verdict::Better(format!(
            "of the images that the database knows, {} {} not in {}, or damaged; newer versions are there. Only machines \
             whose persistent disk was made on what is missing don't start. Mount the file system that holds it, put it \
             back from a backup, or import the same disk again",
            listed(&missing),
            if missing.len() == 1 { "is" } else { "are" },
            folder.display()
        )),
        _ => Verdict::Wrong(format!(
            "of the images that the database knows, {} {} not in {}, or damaged: machines don't start with what is \
             missing. Mount the file system that holds them, or put them back from a backup",
            listed(&missing),
            if missing.len() == 1 { "is" } else { "are" },
            folder.display()
        )),
    }
}

/// Whether the disks that machines keep are where they were.
fn disks(paths: &Paths, expected: Option<&Expected>, viewer: Viewer) -> Option<Verdict> {
    let (table, layers) = (paths.state().join("exports.toml"), paths.layers());
    let known = expected.into_iter().flat_map(|expected| &expected.disks);
    let known: Vec<DiskId> = known.map(DiskId::from).collect();
    let kept = match storage::kept_disks(&table, &layers, &known) {
        Ok(kept) => kept,
        Err(error) => return Some(viewer.failed(&error)),
    };
    let names = |disks: &BTreeSet<DiskId>| -> Vec<String> {
        disks.iter().map(ToString::to_string).collect()
    };
    if let Some(verdict) = without_version(paths, &kept) {
        return Some(verdict);
    }
    let (missing, older) = (names(&kept.missing), names(&kept.older));
    if !older.is_empty() {
        return Some(Verdict::Wrong(format!(
            "older copies of persistent disks are in {}, or other ones, and not those that the machines had last: of {}. These \
             machines don't start. The file system that holds the right ones is probably not mounted: mount it. If an older one \
             was put back on purpose, touch put-back in its folder, and it is taken",
            layers.display(),
            listed(&older)
        )));
    }
    match (missing.len(), kept.n_there) {
        (0, 0) => None,
        (0, 1) => Some(Verdict::Right(format!("1 disk of a machine in {}", layers.display()))),
        (0, n) => Some(Verdict::Right(format!("{n} disks of machines in {}", layers.display()))),
        (_, n) => {
            let told = format!(
                "persistent disks that were in {} are not there: of {}. The file system that holds them is probably not \
                 mounted: mount it, or put them back from a backup",
                layers.display(),
                listed(&missing)
            );
            Some(if n == 0 { Verdict::Wrong(told) } else { Verdict::Better(told) })
        }
    }
}

/// Disks whose image version is not there, whatever newer ones there are.
fn without_version(paths: &Paths, kept: &storage::KeptDisks) -> Option<Verdict> {
    // Whether it can be read is checked with the images.
    let store = images::Store::look(&paths.images()).ok()?;
    let without: Vec<String> = kept
        .stands_on
        .iter()
        .filter_map(|(machine, (image, version))| {
            let trouble = store.trouble_of(image, *version).filter(|it| !it.has_changed)?;
            Some(format!("{machine} ({image}/v{version}: {})", trouble.why))
        })
        .collect();
    (!without.is_empty()).then(|| {
        Verdict::Wrong(format!(
            "machines can't start, as the image version on which their disk was made is not there: {}. Mount the file system that \
             holds it, put it back from a backup, or import the same disk again",
            listed(&without)
        ))
    })
}

fn listed(names: &[String]) -> String {
    match names.len() {
        0..=NAMED_MAX => names.join(", "),
        n => format!("{} and {} more", names[..NAMED_MAX].join(", "), n - NAMED_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THEIRS: Viewer = Viewer { is_theirs: true };

    /// What the database expects: two versions, and a disk.
    fn expected() -> Expected {
        let versions = [1, 2].map(|version| ("debian-12".to_owned(), version));
        let disks = vec!["lab-07".parse().unwrap()];
        Expected { n_machines: 1, n_admins: 0, images: versions.into(), disks }
    }

    #[test]
    fn a_disk_whose_version_is_gone_is_wrong() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        fs::create_dir_all(paths.images()).unwrap();
        let stands_on = [("lab-07".parse().unwrap(), ("debian-12".parse().unwrap(), 1))].into();
        let kept = storage::KeptDisks {
            n_there: 1,
            missing: BTreeSet::new(),
            older: BTreeSet::new(),
            stands_on,
        };
        let Some(Verdict::Wrong(told)) = without_version(&paths, &kept) else {
            panic!("it passes");
        };
        assert!(told.contains("lab-07 (debian-12/v1: "), "{told}");
    }

    #[test]
    fn images_and_disks_that_are_not_mounted_are_told_of() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        let wrong = |verdict: Verdict| match verdict {
            Verdict::Wrong(text) => text,
            _ => panic!("it passes"),
        };
        // The mount points are missing, and then empty.
        for _ in 0..2 {
            let told = wrong(images(&paths, Some(&expected()), THEIRS));
            assert!(
                told.contains("debian-12/v1, debian-12/v2") && told.contains("Mount"),
                "{told}"
            );
            let told = wrong(disks(&paths, Some(&expected()), THEIRS).unwrap());
            assert!(told.contains("of lab-07") && told.contains("mount it"), "{told}");
            assert!(matches!(images(&paths, None, THEIRS), Verdict::Right(_)), "none are known");
            fs::create_dir_all(paths.images()).unwrap();
            fs::create_dir_all(paths.layers()).unwrap();
        }
        assert_eq!(fs::read_dir(paths.images()).unwrap().count(), 0, "a check makes nothing");
        let add = |version: u32| {
            let folder = paths.images().join(format!("debian-12/{version}"));
            fs::create_dir_all(&folder).unwrap();
            let about = format!(
                "image = \"debian-12\"\nversion = {version}\ndigest = \"00\"\nsize_bytes = 4096\n\
                 file_system = \"ext4\"\nkernel_version = \"6.1.0\"\nimported_unix = 0\n"
            );
            fs::write(folder.join("image.toml"), about).unwrap();
        };
        add(1);
        let told = wrong(images(&paths, Some(&expected()), THEIRS));
        assert!(told.contains("debian-12/v2 is not in"), "{told}");
        fs::remove_dir_all(paths.images().join("debian-12")).unwrap();
        add(2);
        let verdict = images(&paths, Some(&expected()), THEIRS);
        assert!(matches!(&verdict, Verdict::Better(told) if told.contains("debian-12/v1 is not")));
        fs::write(paths.images().join(".numbers.toml"), "").unwrap();
        assert!(wrong(images(&paths, Some(&expected()), THEIRS)).contains("it is empty"));
        fs::create_dir(paths.layers().join("lab-07")).unwrap();
        assert!(matches!(disks(&paths, Some(&expected()), THEIRS), Some(Verdict::Right(_))));
    }
}
