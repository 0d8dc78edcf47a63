//! A disk that loses its power: what a layer does to its files is written down, and every cut leaves what was synced, and of the rest any
//! part: of each write any of its sectors, of names any that were changed since their folder was synced.

use super::Layers;
use super::about::LayerMode;
use crate::base::Base;
use crate::block::Block as _;
use crate::layer::{Expected, Merged};
use crate::memory::Memory;
use model::{Architecture, DiskId, FileSystem, ImageVersion, SnapshotKind};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SECTOR: usize = 512;

/// One thing that was done to a file or a folder. Files have numbers of their own: the operating system's come again.
#[derive(Clone, Debug)]
enum Event {
    Wrote {
        file: usize,
        offset: usize,
        bytes: Vec<u8>,
    },
    Resized {
        file: usize,
        length: usize,
    },
    Synced {
        file: usize,
    },
    /// The name leads there now, and this one nowhere.
    Named {
        name: String,
        file: usize,
        no_more: Option<String>,
    },
    Removed {
        name: String,
    },
    SyncedFolder,
}

#[derive(Default)]
struct Recorder {
    folder: PathBuf,
    /// By the operating system's number.
    files: BTreeMap<u64, usize>,
    n_files: usize,
    events: Vec<Event>,
}

thread_local! {
    static RECORDER: RefCell<Option<Recorder>> = const { RefCell::new(None) };
}

fn record(event: impl FnOnce(&mut Recorder) -> Option<Event>) {
    RECORDER.with_borrow_mut(|recorder| {
        if let Some(recorder) = recorder {
            let event = event(recorder);
            recorder.events.extend(event);
        }
    });
}

impl Recorder {
    fn file(&self, file: &File) -> Option<usize> {
        self.files.get(&file.metadata().unwrap().ino()).copied()
    }

    fn name(&self, path: &Path) -> Option<String> {
        let is_here = path.parent() == Some(self.folder.as_path());
        is_here.then(|| path.file_name().unwrap().to_str().unwrap().to_owned())
    }

    fn new_file(&mut self, path: &Path) -> usize {
        let file = self.n_files;
        self.n_files += 1;
        self.files.insert(fs::metadata(path).unwrap().ino(), file);
        file
    }
}

pub(super) fn wrote(file: &File, bytes: &[u8], offset: u64) {
    record(|recorder| {
        let (file, bytes) = (recorder.file(file)?, bytes.to_vec());
        Some(Event::Wrote { file, offset: offset as usize, bytes })
    });
}

pub(super) fn punched(file: &File, offset: u64, length: u64) {
    wrote(file, &vec![0; length as usize], offset);
}

pub(super) fn resized(file: &File, length: u64) {
    record(|recorder| Some(Event::Resized { file: recorder.file(file)?, length: length as usize }));
}

pub(super) fn synced(file: &File) {
    record(|recorder| Some(Event::Synced { file: recorder.file(file)? }));
}

pub(super) fn synced_folder(path: &Path) {
    record(|recorder| (path == recorder.folder).then_some(Event::SyncedFolder));
}

pub(super) fn created(path: &Path, _file: &File) {
    record(|recorder| {
        let name = recorder.name(path)?;
        let file = recorder.new_file(path);
        Some(Event::Named { name, file, no_more: None })
    });
}

pub(super) fn renamed(from: &Path, to: &Path) {
    record(|recorder| {
        let (no_more, name) = (recorder.name(from)?, recorder.name(to)?);
        let file = recorder.files[&fs::metadata(to).unwrap().ino()];
        Some(Event::Named { name, file, no_more: Some(no_more) })
    });
}

pub(super) fn removed(path: &Path) {
    record(|recorder| Some(Event::Removed { name: recorder.name(path)? }));
}

/// What is on the disk, and what may be.
#[derive(Clone, Default)]
struct Media {
    contents: BTreeMap<usize, Vec<u8>>,
    names: BTreeMap<String, usize>,
    pending: Vec<Event>,
}

impl Media {
    fn see(&mut self, event: &Event) {
        match event {
            Event::Synced { file } => self.settle(|event| match event {
                Event::Wrote { file: one, .. } | Event::Resized { file: one, .. } => one == file,
                _ => false,
            }),
            Event::SyncedFolder => {
                self.settle(|event| matches!(event, Event::Named { .. } | Event::Removed { .. }))
            }
            other => self.pending.push(other.clone()),
        }
    }

    fn settle(&mut self, is_settled: impl Fn(&Event) -> bool) {
        for event in std::mem::take(&mut self.pending) {
            match is_settled(&event) {
                true => self.take(&event, &mut |_| true),
                false => self.pending.push(event),
            }
        }
    }

    fn take(&mut self, event: &Event, has_sector: &mut dyn FnMut(usize) -> bool) {
        match event {
            Event::Wrote { file, offset, bytes } => {
                let content = self.contents.entry(*file).or_default();
                for (index, sector) in bytes.chunks(SECTOR).enumerate() {
                    let at = offset + index * SECTOR;
                    if has_sector(index) {
                        content.resize(content.len().max(at + sector.len()), 0);
                        content[at..at + sector.len()].copy_from_slice(sector);
                    }
                }
            }
            Event::Resized { file, length } => {
                self.contents.entry(*file).or_default().resize(*length, 0);
            }
            Event::Named { name, file, no_more } => {
                self.contents.entry(*file).or_default();
                self.names.insert(name.clone(), *file);
                if let Some(name) = no_more {
                    self.names.remove(name);
                }
            }
            Event::Removed { name } => {
                self.names.remove(name);
            }
            Event::Synced { .. } | Event::SyncedFolder => {}
        }
    }

    /// What is there after a cut.
    fn cut(&self, random: &mut Random) -> Self {
        let mut left = self.clone();
        // Journals keep the order of names; not all file systems do.
        let (in_order, n_names) = (random.below(2) == 0, random.below(8));
        let mut names_seen = 0;
        for event in std::mem::take(&mut left.pending) {
            let is_there = match &event {
                Event::Named { .. } | Event::Removed { .. } if in_order => {
                    names_seen += 1;
                    names_seen <= n_names
                }
                _ => random.below(2) == 0,
            };
            if is_there {
                let whole = random.below(2) == 0;
                left.take(&event, &mut |_| whole || random.below(2) == 0);
            }
        }
        left
    }

    fn put(&self, folder: &Path) {
        fs::create_dir_all(folder).unwrap();
        for (name, file) in &self.names {
            fs::write(folder.join(name), &self.contents[file]).unwrap();
        }
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }
}

const GRANULE: usize = 4096;
const SIZE: usize = 300 * GRANULE + 1536;

fn whose() -> DiskId {
    "lab-07".parse().unwrap()
}

fn base() -> Base {
    let bytes = vec![0xee; SIZE];
    let version = ImageVersion {
        image: "debian-12".parse().unwrap(),
        version: 1,
        digest: blake3::hash(&bytes).to_hex().to_string(),
        size_bytes: SIZE as u64,
        partition: None,
        logical_volume: None,
        file_system: FileSystem::Ext4,
        kernel_version: "6.1".to_owned(),
        architecture: Architecture::X86_64,
        os_name: None,
        imported_unix: 0,
    };
    Base { version, block: Arc::new(Memory::new(bytes)) }
}

fn open(dir: &Path, base: &Base) -> (Layers, Arc<super::WriteLayer>) {
    let layers = Layers::open(&dir.join("layers"), &dir.join("run"), None).unwrap();
    let mode = LayerMode::Persistent;
    let layer = layers.open_or_create(&whose(), base, mode, 1.into(), Expected::Perhaps);
    (layers, layer.unwrap())
}

fn content(block: &dyn crate::block::Block) -> Vec<u8> {
    let mut bytes = vec![0; block.size_bytes() as usize];
    block.read_at(&mut bytes, 0).unwrap();
    bytes
}

/// What was so when so many events had been seen.
struct Step {
    n_events: usize,
    disk: Vec<u8>,
    /// What must be there from then on.
    is_flushed: bool,
    snapshots: BTreeMap<u32, Arc<Vec<u8>>>,
    /// Of those a person has said that they are to go.
    unwanted: BTreeSet<u32>,
}

/// Writes, snapshots, deletions and merges; returns what was on the disk at first, the events, and the steps.
fn run(dir: &Path, base: &Base, random: &mut Random) -> (Media, Vec<Event>, Vec<Step>) {
    let (layers, layer) = open(dir, base);
    layer.flush().unwrap();
    let folder = dir.join("layers/lab-07");
    let mut recorder = Recorder { folder: folder.clone(), ..Recorder::default() };
    let mut media = Media::default();
    for entry in fs::read_dir(&folder).unwrap().flatten() {
        let file = recorder.new_file(&entry.path());
        media.contents.insert(file, fs::read(entry.path()).unwrap());
        media.names.insert(entry.file_name().into_string().unwrap(), file);
    }
    RECORDER.set(Some(recorder));
    let n_events = || RECORDER.with_borrow(|recorder| recorder.as_ref().unwrap().events.len());
    let mut disk = content(layer.as_ref());
    let mut snapshots = BTreeMap::new();
    let mut unwanted = BTreeSet::new();
    let mut steps = vec![Step {
        n_events: 0,
        disk: disk.clone(),
        is_flushed: true,
        snapshots: BTreeMap::new(),
        unwanted: BTreeSet::new(),
    }];
    for round in 0..60u64 {
        let mut is_flushed = false;
        match random.below(10) {
            0..=4 => {
                let offset = random.below(SIZE / SECTOR) * SECTOR;
                let length = (1 + random.below(40)) * SECTOR;
                let data = vec![round as u8 + 1; length.min(SIZE - offset)];
                layer.write_at(&data, offset as u64).unwrap();
                disk[offset..offset + data.len()].copy_from_slice(&data);
            }
            5 => {
                let offset = random.below(SIZE / GRANULE) * GRANULE;
                let length = ((1 + random.below(9)) * GRANULE).min(SIZE - offset);
                layer.trim(offset as u64, length as u64).unwrap();
                disk[offset..offset + length].fill(0);
            }
            6 => {
                layer.flush().unwrap();
                is_flushed = true;
            }
            7 => {
                let made = layers.snapshot(&whose(), round, SnapshotKind::Daily, None).unwrap();
                if let Some(made) = made {
                    snapshots.insert(made.number, Arc::new(disk.clone()));
                    is_flushed = true;
                }
            }
            8 if !snapshots.is_empty() => {
                let all: Vec<u32> = snapshots.keys().copied().collect();
                let number = all[random.below(all.len())];
                // Said before it is done.
                unwanted.insert(number);
                snapshots.remove(&number);
                if let Some(last) = steps.last_mut() {
                    last.unwanted.insert(number);
                }
                layers.remove_snapshot(&whose(), number).unwrap();
            }
            _ => while layers.tidy(&whose(), &|_| true).unwrap() == Merged::Done {},
        }
        let (disk, snapshots, unwanted) = (disk.clone(), snapshots.clone(), unwanted.clone());
        steps.push(Step { n_events: n_events(), disk, is_flushed, snapshots, unwanted });
    }
    (media, RECORDER.take().unwrap().events, steps)
}

fn check(dir: &Path, base: &Base, steps: &[Step], n_events: usize, what: &str) {
    let (layers, layer) = open(dir, base);
    // Steps that were over, and the one that was cut.
    let n_over = steps.iter().take_while(|step| step.n_events <= n_events).count();
    let flushed = steps[..n_over].iter().rposition(|step| step.is_flushed).unwrap();
    let possible = &steps[flushed..steps.len().min(n_over + 1)];
    let check_disk = |when: &str| {
        for (at, byte) in content(layer.as_ref()).iter().enumerate() {
            assert!(
                possible.iter().any(|step| step.disk[at] == *byte),
                "{what}: byte {at} ({byte}) is neither old nor new {when}"
            );
        }
    };
    let last = &steps[n_over - 1];
    let check_snapshots = |when: &str| {
        let there: BTreeSet<u32> =
            layers.snapshots(&whose()).unwrap().iter().map(|info| info.snapshot.number).collect();
        for (number, expected) in &last.snapshots {
            if !last.unwanted.contains(number) {
                assert!(there.contains(number), "{what}: snapshot {number} is gone {when}");
            }
            if there.contains(number) {
                let found = content(&layers.view(&whose(), *number, base).unwrap());
                assert!(found == **expected, "{what}: snapshot {number} differs {when}");
            }
        }
    };
    check_disk("");
    check_snapshots("");
    while layers.tidy(&whose(), &|_| true).unwrap() == Merged::Done {}
    check_disk("after a merge");
    check_snapshots("after a merge");
}

#[test]
fn no_power_cut_loses_what_was_flushed_or_a_snapshot() {
    let base = base();
    let mut n_cuts = 0;
    for seed in 1..=4 {
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ seed << 40);
        let dir = tempfile::tempdir().unwrap();
        let (mut media, events, steps) = run(dir.path(), &base, &mut random);
        for (n_events, event) in events.iter().enumerate() {
            // Each place at which names are about to change, and some of the others.
            let names =
                matches!(event, Event::Named { .. } | Event::SyncedFolder | Event::Removed { .. });
            if names || random.below(8) == 0 {
                let cut = tempfile::tempdir().unwrap();
                media.cut(&mut random).put(&cut.path().join("layers/lab-07"));
                let what = format!("seed {seed}, before event {n_events} ({event:.60?})");
                check(cut.path(), &base, &steps, n_events, &what);
                n_cuts += 1;
            }
            media.see(event);
        }
    }
    println!("{n_cuts} power cuts");
    assert!(n_cuts > 200, "{n_cuts}");
}
