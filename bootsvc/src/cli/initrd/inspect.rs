//! `bootlace initrd inspect`

use super::super::{say, table};
use anyhow::{Context, bail};
use clap::Args;
use initcfg::Module;
use initrd_builder::{Contents, Entry, Segment};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

/// Largest file that is read; larger ones don't fit into the memory of a PC that is to boot them.
const FILE_SIZE_MAX: u64 = 2 << 30;

#[derive(Args)]
pub(in crate::cli) struct Inspect {
    /// The initrd
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Inspect {
    pub(in crate::cli) fn run(self) -> anyhow::Result<()> {
        let file = self.file.display();
        let mut bytes = Vec::new();
        File::open(&self.file)
            .and_then(|opened| opened.take(FILE_SIZE_MAX).read_to_end(&mut bytes))
            .with_context(|| format!("can't read {file}"))?;
        if bytes.len() as u64 == FILE_SIZE_MAX {
            bail!("{file} has 2 GiB or more: it is not an initrd");
        }
        let contents = initrd_builder::inspect(&bytes);
        let is_initrd = contents.segments.iter().any(|segment| segment.problem.is_none());
        if !is_initrd && contents.segments.iter().all(|segment| segment.entries.is_empty()) {
            let why = contents.segments.first().and_then(|segment| segment.problem.as_ref());
            bail!(
                "{file} is not an initrd: {}",
                why.map_or("it is empty".into(), ToString::to_string)
            );
        }
        match self.json {
            true => say(serde_json::to_string_pretty(&to_json(&contents))?),
            false => say(to_text(&contents)),
        }
        let problem = contents.segments.iter().find_map(|s| Some((s.offset, s.problem.as_ref()?)));
        if let Some((offset, problem)) = problem {
            bail!(
                "the kernel stops in the archive at byte {offset} of {file} and boots without the rest: \
                 {problem}"
            );
        }
        Ok(())
    }
}

fn to_json(contents: &Contents) -> serde_json::Value {
    let file = |entry: &Entry| {
        let mode = format!("{:o}", entry.mode);
        serde_json::json!({ "path": entry.path, "mode": mode, "size_bytes": entry.size_bytes })
    };
    let segment = |segment: &Segment| {
        serde_json::json!({
            "offset": segment.offset,
            "codec": segment.codec.to_string(),
            "stored_bytes": segment.stored_bytes,
            "unpacked_bytes": segment.unpacked_bytes,
            "problem": segment.problem.as_ref().map(ToString::to_string),
            "files": segment.entries.iter().map(file).collect::<Vec<_>>(),
        })
    };
    let modules = |ours: &Ours<'_>| {
        let module = |(module, size): &(&Module, u64)| {
            let why = Some(&module.why).filter(|why| !why.is_empty());
            serde_json::json!({ "name": module.name, "size_bytes": size, "why": why })
        };
        ours.modules.iter().map(module).collect::<Vec<_>>()
    };
    let ours = ours(contents);
    serde_json::json!({
        "segments": contents.segments.iter().map(segment).collect::<Vec<_>>(),
        "bootlace": ours.map(|ours| serde_json::json!({
            "kernel": ours.kernel,
            "init_bytes": ours.init_bytes,
            "modules": modules(&ours),
            "firmware": ours.firmware.iter().map(|entry| file(entry)).collect::<Vec<_>>(),
        })),
    })
}

/// What an initrd of ours is made of.
struct Ours<'a> {
    kernel: &'a str,
    init_bytes: u64,
    /// With their sizes in the initrd.
    modules: Vec<(&'a Module, u64)>,
    firmware: Vec<&'a Entry>,
    /// All files that are none of these.
    others: Vec<&'a Entry>,
}

fn ours(contents: &Contents) -> Option<Ours<'_>> {
    let index = contents.index.as_ref()?;
    // A file of a later archive replaces that of an earlier one.
    let mut files: BTreeMap<&str, &Entry> = BTreeMap::new();
    for entry in contents.segments.iter().flat_map(|segment| &segment.entries) {
        files.insert(&entry.path, entry);
    }
    let mut modules = Vec::new();
    for module in &index.modules {
        let path = format!("{}/{}", &initcfg::MODULES_PATH[1..], module.file);
        let size = files.remove(path.as_str()).map_or(0, |entry| entry.size_bytes);
        modules.push((module, size));
    }
    let init_bytes = files.remove("init").map_or(0, |entry| entry.size_bytes);
    let (firmware, others) = files
        .into_values()
        .filter(|entry| entry.mode & 0o170_000 != 0o040_000)
        .partition(|entry| entry.path.starts_with("lib/firmware/"));
    Some(Ours { kernel: &index.kernel, init_bytes, modules, firmware, others })
}

fn to_text(contents: &Contents) -> String {
    let rows: Vec<[String; 5]> = contents.segments.iter().map(segment_row).collect();
    let mut parts = vec![table(["OFFSET", "CODEC", "STORED", "UNPACKED", "FILES"], &rows)];
    match ours(contents) {
        Some(ours) => parts.extend(describe(&ours)),
        None => parts.extend(contents.segments.iter().filter_map(|segment| {
            let all: Vec<&Entry> = segment.entries.iter().collect();
            let heading = format!("Files of the archive at byte {}:", segment.offset);
            (!all.is_empty()).then(|| format!("{heading}\n{}", file_table(&all)))
        })),
    }
    let stored: u64 = contents.segments.iter().map(|segment| segment.stored_bytes).sum();
    let unpacked: Option<u64> = contents.segments.iter().map(|s| s.unpacked_bytes).sum();
    let unpacked = unpacked.map_or(String::new(), |bytes| format!(", {} unpacked", size(bytes)));
    let n_files: usize = contents.segments.iter().map(|segment| segment.entries.len()).sum();
    parts.push(format!(
        "Total: {} archives, {n_files} files and folders, {}{unpacked}",
        contents.segments.len(),
        size(stored)
    ));
    parts.join("\n\n")
}

fn segment_row(segment: &Segment) -> [String; 5] {
    let is_listed = segment.unpacked_bytes.is_some();
    [
        segment.offset.to_string(),
        segment.codec.to_string(),
        size(segment.stored_bytes),
        segment.unpacked_bytes.map_or("-".into(), size),
        match &segment.problem {
            Some(_) => format!("{}, ignored by the kernel", segment.entries.len()),
            None if is_listed => segment.entries.len().to_string(),
            None => "not listed".into(),
        },
    ]
}

fn describe(ours: &Ours<'_>) -> Vec<String> {
    let module_bytes: u64 = ours.modules.iter().map(|(_, size)| size).sum();
    let firmware_bytes: u64 = ours.firmware.iter().map(|entry| entry.size_bytes).sum();
    let row = |&(module, bytes): &(&Module, u64)| {
        [printable(&module.name), size(bytes), printable(&module.why)]
    };
    let rows: Vec<[String; 3]> = ours.modules.iter().map(row).collect();
    let mut parts = vec![
        format!("Made by Bootlace for kernel {}", printable(ours.kernel)),
        table(["MODULE", "SIZE", "WHY"], &rows),
    ];
    if !ours.firmware.is_empty() {
        parts.push(format!("Firmware:\n{}", file_table(&ours.firmware)));
    }
    parts.push(format!("Other files:\n{}", file_table(&ours.others)));
    parts.push(format!(
        "Init: {}\nModules: {}, {}\nFirmware: {} files, {}",
        size(ours.init_bytes),
        ours.modules.len(),
        size(module_bytes),
        ours.firmware.len(),
        size(firmware_bytes)
    ));
    parts
}

fn file_table(entries: &[&Entry]) -> String {
    let row = |entry: &&Entry| {
        [format!("{:06o}", entry.mode), size(entry.size_bytes), printable(&entry.path)]
    };
    let rows: Vec<[String; 3]> = entries.iter().map(row).collect();
    table(["MODE", "SIZE", "PATH"], &rows)
}

/// Foreign names must not steer the terminal.
fn printable(name: &str) -> String {
    let escape = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    name.chars().map(escape).collect()
}

pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..1_000_000 => format!("{} kB", bytes / 1000),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short_and_names_harmless() {
        assert_eq!([size(9), size(54_321), size(1_234_567)], ["9 B", "54 kB", "1.2 MB"]);
        assert_eq!(printable("a\x1b[2Jé"), "a\\u{1b}[2Jé");
    }
}
