//! What a disk that has snapshots consists of: which files lie over which, and which of them are kept under a number. Only values:
//! nothing here touches a file.

use model::{Snapshot, SnapshotKind};

/// So many pairs of files may a disk consist of: each more costs each read a look. Those that wait to be merged count.
pub(super) const NODES_MAX: usize = 40;

/// So many snapshots a disk may have.
pub(super) const SNAPSHOTS_MAX: usize = 32;

/// The files of a disk, and how they lie over each other.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tree {
    /// When the disk was begun, in seconds since 1970.
    pub(super) made_unix: u64,
    /// Number of the files that are made next. No number comes twice.
    pub(super) next_files: u32,
    /// Number of the snapshot that is made next.
    pub(super) next_snapshot: u32,
    /// Files to which the machine writes.
    pub(super) top: u32,
    /// To which snapshot the disk goes back when the machine boots, unless that is the boot in which it was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) roll_back: Option<RollBack>,
    pub(super) node: Vec<Node>,
}

/// A rollback that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct RollBack {
    pub(super) snapshot: u32,
    /// The boot that the machine was in then, which may run still.
    pub(super) asked_in_boot: u64,
}

/// A pair of files, data and map.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Node {
    /// 0 are `data` and `map`, 1 are `data.1` and `map.1`.
    pub(super) files: u32,
    /// Over which it lies; `None` is the image version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) parent: Option<u32>,
    /// It is kept as this. `None`: it is the top, or waits to be merged with what lies over it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) snapshot: Option<Snapshot>,
}

/// What is to be done with files that are kept for no snapshot of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Nothing lies over them.
    Remove(u32),
    /// One pair lies over them: the two can be one. Whether something may still be written to the upper.
    Merge { lower: u32, upper: u32, upper_is_top: bool },
}

impl Tree {
    /// The tree of a disk without snapshots.
    pub(super) fn new(made_unix: u64) -> Self {
        let node = vec![Node { files: 0, parent: None, snapshot: None }];
        Self { made_unix, next_files: 1, next_snapshot: 1, top: 0, roll_back: None, node }
    }

    /// Whether it is one: read from a file that anybody may have changed.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let n_nodes = self.node.len();
        if n_nodes == 0 || n_nodes > NODES_MAX {
            return Err("it names no files, or too many");
        }
        if self.get(self.top).is_none_or(|top| top.snapshot.is_some()) {
            return Err("the files to which the machine writes are not named, or a snapshot");
        }
        for (index, node) in self.node.iter().enumerate() {
            let is_twice = self.node[..index].iter().any(|other| other.files == node.files);
            let number = |node: &Node| node.snapshot.as_ref().map(|snapshot| snapshot.number);
            let taken = self.node[..index]
                .iter()
                .any(|other| number(other).is_some() && number(other) == number(node));
            let is_beyond = number(node).is_some_and(|number| number >= self.next_snapshot);
            if is_twice || taken || is_beyond || node.files >= self.next_files {
                return Err("its numbers don't fit each other");
            }
            if node.parent == Some(self.top) {
                return Err("something lies over the files to which the machine writes");
            }
            if self.path(node.files).is_none() {
                return Err("what lies over what runs in circles, or something is missing");
            }
        }
        Ok(())
    }

    pub(super) fn get(&self, files: u32) -> Option<&Node> {
        self.node.iter().find(|node| node.files == files)
    }

    /// These files and all below them, from the top down. `None`: there is no end.
    pub(super) fn path(&self, files: u32) -> Option<Vec<u32>> {
        let mut path = vec![files];
        while let Some(parent) = self.get(*path.last()?)?.parent {
            path.push(parent);
            if path.len() > self.node.len() {
                return None;
            }
        }
        Some(path)
    }

    /// The files with what the snapshot holds on top.
    pub(super) fn files_of(&self, number: u32) -> Option<u32> {
        self.node.iter().find(|node| node.number() == Some(number)).map(|node| node.files)
    }

    /// Snapshots, the oldest first.
    pub(super) fn snapshots(&self) -> Vec<(u32, &Snapshot)> {
        let named = |node: &'_ Node| node.files;
        let mut all: Vec<_> = self
            .node
            .iter()
            .filter_map(|node| Some((named(node), node.snapshot.as_ref()?)))
            .collect();
        all.sort_by_key(|(_, snapshot)| snapshot.number);
        all
    }

    /// What the machine wrote becomes a snapshot, and files of this number lie over it. `None`: there are too many.
    pub(super) fn seal(
        &self,
        at_unix: u64,
        kind: SnapshotKind,
        note: Option<String>,
    ) -> Option<(Self, Snapshot)> {
        if self.node.len() >= NODES_MAX || self.snapshots().len() >= SNAPSHOTS_MAX {
            return None;
        }
        let mut tree = self.clone();
        let snapshot = Snapshot { number: tree.next_snapshot, at_unix, kind, note };
        tree.next_snapshot += 1;
        let sealed = self.top;
        tree.named(sealed, Some(snapshot.clone()));
        tree.put_on(Some(sealed));
        Some((tree, snapshot))
    }

    /// The snapshot is no more. What has nothing over it, or one pair of files, is [work](Self::work).
    pub(super) fn without(&self, number: u32) -> Option<Self> {
        let files = self.files_of(number)?;
        let mut tree = self.clone();
        tree.named(files, None);
        if tree.roll_back.as_ref().is_some_and(|asked| asked.snapshot == number) {
            tree.roll_back = None;
        }
        Some(tree)
    }

    /// The machine goes on from the snapshot, with new files over it. What it had becomes a snapshot itself, unless
    /// `is_untouched`.
    pub(super) fn rolled_back(
        &self,
        number: u32,
        at_unix: u64,
        is_untouched: bool,
    ) -> Option<Self> {
        let onto = self.files_of(number)?;
        let mut tree = self.clone();
        let former = tree.top;
        if !is_untouched {
            let kind = SnapshotKind::BeforeRollback;
            let snapshot = Snapshot { number: tree.next_snapshot, at_unix, kind, note: None };
            tree.next_snapshot += 1;
            tree.named(former, Some(snapshot));
        }
        tree.put_on(Some(onto));
        tree.roll_back = None;
        Some(tree)
    }

    /// What is to be done next, if anything; `but` what can't be done now.
    pub(super) fn work(&self) -> Option<Work> {
        let is_idle = |node: &&Node| node.snapshot.is_none() && node.files != self.top;
        for node in self.node.iter().filter(is_idle) {
            let mut over = self.node.iter().filter(|other| other.parent == Some(node.files));
            match (over.next(), over.next()) {
                (None, _) => return Some(Work::Remove(node.files)),
                (Some(upper), None) => {
                    let upper_is_top = upper.files == self.top;
                    let upper = upper.files;
                    return Some(Work::Merge { lower: node.files, upper, upper_is_top });
                }
                // Two go on from there: it is kept until one of them is gone.
                _ => {}
            }
        }
        None
    }

    /// After all of `gone` is in `kept`, of which one lies over the other.
    pub(super) fn merged(&self, kept: u32, gone: u32) -> Option<Self> {
        let (kept_node, gone_node) = (self.get(kept)?.clone(), self.get(gone)?.clone());
        let mut tree = self.clone();
        if kept_node.parent == Some(gone) {
            for node in tree.node.iter_mut().filter(|node| node.files == kept) {
                node.parent = gone_node.parent;
            }
        } else if gone_node.parent == Some(kept) {
            // The lower files hold what the upper did: they take its place.
            tree.named(kept, gone_node.snapshot);
            for node in tree.node.iter_mut().filter(|node| node.parent == Some(gone)) {
                node.parent = Some(kept);
            }
        } else {
            return None;
        }
        tree.node.retain(|node| node.files != gone);
        Some(tree)
    }

    /// Without files over which nothing lies.
    pub(super) fn removed(&self, files: u32) -> Self {
        let mut tree = self.clone();
        tree.node.retain(|node| node.files != files);
        tree
    }

    fn named(&mut self, files: u32, snapshot: Option<Snapshot>) {
        if let Some(node) = self.node.iter_mut().find(|node| node.files == files) {
            node.snapshot = snapshot;
        }
    }

    fn put_on(&mut self, parent: Option<u32>) {
        self.top = self.next_files;
        self.next_files += 1;
        self.node.push(Node { files: self.top, parent, snapshot: None });
    }
}

impl Node {
    fn number(&self) -> Option<u32> {
        self.snapshot.as_ref().map(|snapshot| snapshot.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(tree: &Tree) -> Tree {
        let (tree, _) = tree.seal(7, SnapshotKind::Daily, None).unwrap();
        tree.check().unwrap();
        tree
    }

    /// `files<parent=snapshot`, and the top with a star.
    fn drawn(tree: &Tree) -> String {
        let node = |node: &Node| {
            let parent = node.parent.map_or(String::new(), |parent| format!("<{parent}"));
            let number = node.number().map_or(String::new(), |number| format!("={number}"));
            let top = if node.files == tree.top { "*" } else { "" };
            format!("{}{parent}{number}{top}", node.files)
        };
        tree.node.iter().map(node).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn snapshots_come_and_go() {
        let tree = sealed(&sealed(&sealed(&Tree::new(1))));
        assert_eq!(drawn(&tree), "0=1 1<0=2 2<1=3 3<2*");
        assert_eq!(tree.work(), None);
        let middle = tree.without(2).unwrap();
        assert_eq!(middle.work(), Some(Work::Merge { lower: 1, upper: 2, upper_is_top: false }));
        assert_eq!(drawn(&middle.merged(2, 1).unwrap()), "0=1 2<0=3 3<2*");
        assert_eq!(drawn(&middle.merged(1, 2).unwrap()), "0=1 1<0=3 3<1*");
        let newest = tree.without(3).unwrap();
        assert_eq!(newest.work(), Some(Work::Merge { lower: 2, upper: 3, upper_is_top: true }));
        assert_eq!(tree.without(4), None);
        assert_eq!(tree.merged(0, 3), None);
    }

    #[test]
    fn a_rollback_can_be_undone() {
        let tree = sealed(&sealed(&Tree::new(1)));
        let back = tree.rolled_back(1, 9, false).unwrap();
        back.check().unwrap();
        assert_eq!(drawn(&back), "0=1 1<0=2 2<1=3 3<0*");
        assert_eq!(drawn(&back.rolled_back(3, 9, true).unwrap()), "0=1 1<0=2 2<1=3 3<0 4<2*");
        assert_eq!(back.rolled_back(3, 9, true).unwrap().work(), Some(Work::Remove(3)));
        // Two go on from the first: it stays until one of them is gone.
        let unnamed = back.without(1).unwrap();
        assert_eq!(unnamed.work(), None);
        let one = unnamed.without(3).unwrap().removed(2).without(2).unwrap().removed(1);
        one.check().unwrap();
        assert_eq!(one.work(), Some(Work::Merge { lower: 0, upper: 3, upper_is_top: true }));
    }

    #[test]
    fn what_is_no_tree_is_seen() {
        let tree = sealed(&sealed(&Tree::new(1)));
        let changed = |change: fn(&mut Tree)| {
            let mut tree = tree.clone();
            change(&mut tree);
            tree.check()
        };
        assert!(changed(|_| {}).is_ok());
        assert!(changed(|tree| tree.node.clear()).is_err());
        assert!(changed(|tree| tree.top = 9).is_err());
        assert!(changed(|tree| tree.top = 1).is_err());
        assert!(changed(|tree| tree.node[0].parent = Some(1)).is_err());
        assert!(changed(|tree| tree.node[0].parent = Some(2)).is_err());
        assert!(changed(|tree| tree.node[1].files = 0).is_err());
        assert!(changed(|tree| tree.next_files = 2).is_err());
        assert!(changed(|tree| tree.next_snapshot = 2).is_err());
        let mut many = Tree::new(1);
        while let Some((more, _)) = many.seal(1, SnapshotKind::Daily, None) {
            many = more;
        }
        assert_eq!(many.snapshots().len(), SNAPSHOTS_MAX);
    }
}
