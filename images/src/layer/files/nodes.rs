//! The files of a disk with snapshots: made, opened and removed; and the description that says how they lie over each other.

use super::{Files, data_name, header, layer_file, map_name, new_file};
use crate::layer::about::{About, LayerMode};
use crate::layer::error::{LayerError, io_error};
use crate::layer::map::{self, Map};
use crate::layer::media;
use crate::layer::part::Part;
use crate::layer::tree::Tree;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;

impl Files {
    /// The tree of a persistent layer; of one without snapshots the one that it would have.
    pub(in crate::layer) fn tree(&self, about: &About) -> Tree {
        let made_unix = || self.extent(&about.disk).map_or(0, |(_, made_unix)| made_unix);
        about.tree.clone().unwrap_or_else(|| Tree::new(made_unix()))
    }

    /// The folder of a layer.
    pub(in crate::layer) fn folder_of(&self, about: &About) -> PathBuf {
        self.path(about)
    }

    /// Makes files that hold nothing, durably; nothing names them yet. What a broken-off attempt left in their place goes.
    pub(in crate::layer) fn make_node(
        &self,
        about: &About,
        files: u32,
    ) -> Result<Part, LayerError> {
        let folder = self.path(about);
        let (data_path, map_path) = (folder.join(data_name(files)), folder.join(map_name(files)));
        for path in [&data_path, &map_path] {
            media::remove_file(path).map_err(io_error("remove", path))?;
        }
        let made = (|| {
            let data = new_file(&data_path)?;
            media::set_len(&data, about.size_bytes)
                .and_then(|()| media::sync_all(&data))
                .map_err(io_error("make", &data_path))?;
            let durable = new_file(&map_path)?;
            map::format(&durable, &header(about, files, [0; 16])?)
                .and_then(|()| media::sync_all(&durable))
                .and_then(|()| media::sync_folder(&folder))
                .map_err(io_error("write", &map_path))?;
            let map = self.map(about, files, &self.new_volatile(about, files)?)?;
            let (data, durable) =
                (layer_file(&data_path, &data)?, layer_file(&map_path, &durable)?);
            Ok(Part::new(files, about.size_bytes, data, map, Some(durable)))
        })();
        if made.is_err() {
            self.remove_node(about, files);
        }
        made.map_err(|error| self.explain(error))
    }

    /// Removes files that nothing names any more. What can't be removed now is at the next start.
    pub(in crate::layer) fn remove_node(&self, about: &About, files: u32) {
        let folder = self.path(about);
        for path in [folder.join(map_name(files)), folder.join(data_name(files))] {
            if let Err(error) = media::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "what is left of a snapshot is not removed");
            }
        }
        let _ = fs::remove_file(self.volatile_path(about, files));
    }

    /// Opens files to which no machine writes any more. If the server died before they were flushed, they are now.
    pub(in crate::layer) fn open_sealed(
        &self,
        about: &About,
        files: u32,
    ) -> Result<Part, LayerError> {
        let folder = self.path(about);
        let (data_path, map_path) = (folder.join(data_name(files)), folder.join(map_name(files)));
        let data = layer_file(&data_path, &self.open_data(about, files)?)?;
        let durable = self.open_durable(about, files)?;
        let map = Map::new(about.size_bytes, None, Arc::clone(&self.recent));
        let kept = self.kept_volatile(about, files);
        let loaded = match &kept {
            Some(volatile) => map.load(volatile, false),
            None => map.load(&durable, true),
        };
        loaded.map_err(|error| self.damaged(about, &map_name(files), error.to_string()))?;
        let durable = layer_file(&map_path, &durable)?;
        let part = Part::new(files, about.size_bytes, data, map, Some(durable));
        if kept.is_some() {
            // An error of what this process did not write is told to nobody else.
            part.data().and_then(|_| part.flush()).map_err(io_error("flush", &data_path))?;
            self.settle(about, &part);
        }
        Ok(part)
    }

    /// All that the machine wrote to these files is durable, and it writes no more there.
    pub(in crate::layer) fn settle(&self, about: &About, part: &Part) {
        part.map.settle();
        let _ = fs::remove_file(self.volatile_path(about, part.files));
    }

    /// Whether the machine wrote anything to the files on top, for who does not have them open.
    pub(in crate::layer) fn is_top_untouched(&self, about: &About) -> Result<bool, LayerError> {
        let files = about.top();
        let durable = self.open_durable(about, files)?;
        let path = self.path(about).join(map_name(files));
        let has_any = map::has_any(&durable)
            .and_then(|has_any| match self.kept_volatile(about, files) {
                Some(volatile) if !has_any => map::has_any(&volatile),
                _ => Ok(has_any),
            })
            .map_err(io_error("read", &path))?;
        Ok(!has_any)
    }

    /// Puts this description beside the one that counts, durably: [`commit_about`](Self::commit_about) takes no room any more.
    pub(in crate::layer) fn prepare_about(&self, about: &About) -> Result<(), LayerError> {
        let new = self.path(about).join("layer.new");
        let write = || {
            media::remove_file(&new).map_err(io_error("remove", &new))?;
            let file = new_file(&new)?;
            let text = toml::to_string(about)
                .map_err(|error| io_error("write", &new)(io::Error::other(error)))?;
            media::write_all_at(&file, text.as_bytes(), 0)
                .and_then(|()| media::sync_all(&file))
                .map_err(io_error("write", &new))
        };
        let written = write();
        if written.is_err() {
            let _ = media::remove_file(&new);
        }
        written.map_err(|error| self.explain(error))
    }

    /// Has the description that was prepared count. It is durable when the folder is synced.
    pub(in crate::layer) fn commit_about(&self, about: &About) -> io::Result<()> {
        let folder = self.path(about);
        media::rename(&folder.join("layer.new"), &folder.join("layer.toml"))
    }

    pub(in crate::layer) fn sync_folder(&self, about: &About) -> Result<(), LayerError> {
        let folder = self.path(about);
        media::sync_folder(&folder).map_err(io_error("sync", &folder))
    }

    /// What files take that a machine does not write to.
    pub(in crate::layer) fn others_bytes(&self, about: &About) -> u64 {
        let Some(tree) = &about.tree else { return 0 };
        let others = tree.node.iter().filter(|node| node.files != tree.top);
        others.map(|node| self.node_bytes(about, node.files)).sum()
    }

    /// What one pair of files takes.
    pub(in crate::layer) fn node_bytes(&self, about: &About, files: u32) -> u64 {
        let data = fs::metadata(self.path(about).join(data_name(files)));
        data.map_or(0, |data| data.blocks() * 512)
    }

    /// Removes files that no description names: a snapshot, or its end, was broken off.
    pub(super) fn remove_stray_nodes(&self) -> Result<(), LayerError> {
        for disk in self.kept()? {
            let Ok(Some(about)) = self.about(&disk, LayerMode::Persistent) else { continue };
            let named = |files: u32| match &about.tree {
                Some(tree) => tree.get(files).is_some(),
                None => files == 0,
            };
            let folder = self.path(&about);
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            for entry in entries.flatten() {
                let name = entry.file_name();
                let Some(files) = name.to_str().and_then(numbered) else { continue };
                if !named(files) {
                    let path = entry.path();
                    media::remove_file(&path).map_err(io_error("remove", &path))?;
                    let _ = fs::remove_file(self.volatile_path(&about, files));
                }
            }
        }
        Ok(())
    }

    /// Removes all volatile maps of a layer's folder of this name.
    pub(in crate::layer) fn remove_volatile(&self, folder: &str) {
        let _ = fs::remove_file(self.volatile_dir.join(format!("{folder}.map")));
        let Ok(entries) = fs::read_dir(&self.volatile_dir) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| {
                name.strip_prefix(folder)?.strip_prefix('.')?.strip_suffix(".map")
            });
            if number.is_some_and(|number| number.parse::<u32>().is_ok()) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// How much the machine's disk takes with all of its snapshots, and when it was begun.
    pub(in crate::layer) fn extent_of(&self, about: &About) -> (u64, u64) {
        let tree = self.tree(about);
        let all = tree.node.iter().map(|node| self.node_bytes(about, node.files)).sum();
        (all, tree.made_unix)
    }
}

/// The number in the name of files of a snapshot.
fn numbered(name: &str) -> Option<u32> {
    let number = name.strip_prefix("data.").or_else(|| name.strip_prefix("map."))?;
    number.parse().ok().filter(|files| *files > 0)
}
