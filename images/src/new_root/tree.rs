//! Names and folders, in memory until all is there.

use super::folders::Blocks;
use super::inode::{self, Inode};
use super::layout::{LOST_AND_FOUND, ROOT};
use super::{Meta, PutError};
use std::collections::{BTreeMap, VecDeque};

/// Of one name in a path.
const NAME_BYTES_MAX: usize = 255;
/// `EXT4_LINK_MAX`; a folder with more has no number.
pub(super) const LINKS_MAX: u32 = 65000;
/// As Linux follows on the way of one path.
const SYMLINKS_MAX: u32 = 40;
/// What a path may have, so that nobody has the tree become a line.
const DEPTH_MAX: usize = 1024;

const LOST_AND_FOUND_NAME: &[u8] = b"lost+found";

/// Why a path can't be put where it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Misplaced {
    #[error("its path leads out of the archive by \"..\"")]
    Outside,
    #[error("its path is too long")]
    TooLong,
    #[error("its folder is something else")]
    NotInFolder,
    #[error("its folder is found by links that lead in a circle")]
    Circle,
    #[error("there is a folder of that name already")]
    IsFolder,
    #[error("it is a link to a file that is not in the archive before it")]
    NoTarget,
    #[error("it has more names than a file may have")]
    TooManyLinks,
}

struct Node {
    inode: Inode,
    more: More,
}

enum More {
    Folder {
        parent: u32,
        names: BTreeMap<Vec<u8>, u32>,
    },
    /// A symbolic link, by which others may come to their folder.
    Symlink(Vec<u8>),
    Other,
}

/// All files by the numbers of their inodes.
pub(super) struct Tree {
    nodes: Vec<Option<Node>>,
}

impl Tree {
    pub(super) fn new(root: Inode) -> Self {
        let mut nodes: Vec<Option<Node>> = (0..=LOST_AND_FOUND).map(|_| None).collect();
        let names = BTreeMap::from([(LOST_AND_FOUND_NAME.to_vec(), LOST_AND_FOUND)]);
        // Its own ".", and that of lost+found, are counted at the end.
        let more = More::Folder { parent: ROOT, names };
        nodes[ROOT as usize] = Some(Node { inode: root, more });
        Self { nodes }
    }

    /// Puts a folder there; returns what it replaces, if that has no other name.
    pub(super) fn put_folder(
        &mut self,
        path: &[u8],
        inode: Inode,
        n_inodes: u32,
    ) -> Result<Option<Inode>, PutError> {
        let Some((parent, name)) = self.parent_of(path, n_inodes)? else {
            return Ok(Some(std::mem::replace(self.inode_mut(ROOT), inode)));
        };
        match self.names(parent).get(name).copied() {
            // Made by mke2fs, and described by nobody else.
            Some(LOST_AND_FOUND) => Ok(Some(inode)),
            Some(number) if self.is_folder(number) => {
                Ok(Some(std::mem::replace(self.inode_mut(number), inode)))
            }
            there => {
                let number = self.add(inode, More::folder(parent), n_inodes)?;
                self.names_mut(parent).insert(name.to_vec(), number);
                Ok(there.and_then(|number| self.unlink(number)))
            }
        }
    }

    /// Puts anything but a folder there; returns a file that it replaces and that has no other name.
    pub(super) fn put(
        &mut self,
        path: &[u8],
        inode: Inode,
        symlink: Option<&[u8]>,
        n_inodes: u32,
    ) -> Result<Option<Inode>, PutError> {
        let (parent, name) = self.parent_of(path, n_inodes)?.ok_or(Misplaced::IsFolder)?;
        let there = self.names(parent).get(name).copied();
        if there.is_some_and(|number| self.is_folder(number)) {
            return Err(Misplaced::IsFolder.into());
        }
        let more = symlink.map_or(More::Other, |target| More::Symlink(target.to_vec()));
        let number = self.add(inode, more, n_inodes)?;
        self.names_mut(parent).insert(name.to_vec(), number);
        Ok(there.and_then(|number| self.unlink(number)))
    }

    /// Gives a file another name; returns a file that this replaces.
    pub(super) fn put_link(
        &mut self,
        path: &[u8],
        target: &[u8],
        n_inodes: u32,
    ) -> Result<Option<Inode>, PutError> {
        let number = self.find(target)?.ok_or(Misplaced::NoTarget)?;
        if self.is_folder(number) {
            return Err(Misplaced::NoTarget.into());
        }
        let (parent, name) = self.parent_of(path, n_inodes)?.ok_or(Misplaced::IsFolder)?;
        let there = self.names(parent).get(name).copied();
        if there == Some(number) {
            return Ok(None);
        }
        if there.is_some_and(|number| self.is_folder(number)) {
            return Err(Misplaced::IsFolder.into());
        }
        let inode = self.inode_mut(number);
        if inode.n_links >= LINKS_MAX {
            return Err(Misplaced::TooManyLinks.into());
        }
        inode.n_links += 1;
        self.names_mut(parent).insert(name.to_vec(), number);
        Ok(there.and_then(|number| self.unlink(number)))
    }

    /// All folders that are to be written.
    pub(super) fn folders(&self) -> Vec<u32> {
        let numbers = 0..self.nodes.len() as u32;
        numbers.filter(|&number| number != LOST_AND_FOUND && self.is_folder(number)).collect()
    }

    /// The blocks of a folder, without their sums; its number of links is right then.
    pub(super) fn folder_blocks(&mut self, number: u32) -> Vec<Vec<u8>> {
        let Some(Node { more: More::Folder { parent, names }, .. }) = self.node(number) else {
            return Vec::new();
        };
        let mut blocks = Blocks::new();
        blocks.push(b".", number, 2);
        blocks.push(b"..", *parent, 2);
        let mut n_folders = 0;
        for (name, &number) in names {
            let kind = self.node(number).map_or(2, |node| node.inode.folder_kind());
            n_folders += u32::from(kind == 2);
            blocks.push(name, number, kind);
        }
        self.inode_mut(number).n_links = 2 + n_folders;
        blocks.finish()
    }

    pub(super) fn inode(&self, number: u32) -> Option<&Inode> {
        self.node(number).map(|node| &node.inode)
    }

    /// The inode of a number that was given.
    pub(super) fn inode_mut(&mut self, number: u32) -> &mut Inode {
        &mut self.nodes[number as usize].as_mut().expect("a number that was given").inode
    }

    /// The last number that was given.
    pub(super) fn last_number(&self) -> u32 {
        self.nodes.len() as u32 - 1
    }

    fn node(&self, number: u32) -> Option<&Node> {
        self.nodes.get(number as usize)?.as_ref()
    }

    fn is_folder(&self, number: u32) -> bool {
        number == LOST_AND_FOUND || self.inode(number).is_some_and(Inode::is_folder)
    }

    fn names(&self, folder: u32) -> &BTreeMap<Vec<u8>, u32> {
        const NONE: &BTreeMap<Vec<u8>, u32> = &BTreeMap::new();
        match self.node(folder) {
            Some(Node { more: More::Folder { names, .. }, .. }) => names,
            _ => NONE,
        }
    }

    fn names_mut(&mut self, folder: u32) -> &mut BTreeMap<Vec<u8>, u32> {
        match self.nodes[folder as usize].as_mut() {
            Some(Node { more: More::Folder { names, .. }, .. }) => names,
            _ => unreachable!("a folder has names"),
        }
    }

    fn add(&mut self, inode: Inode, more: More, n_inodes: u32) -> Result<u32, PutError> {
        let number = self.nodes.len() as u32;
        if number > n_inodes {
            return Err(PutError::TooManyFiles);
        }
        self.nodes.push(Some(Node { inode, more }));
        Ok(number)
    }

    /// One name less; returns the file if that was the last.
    fn unlink(&mut self, number: u32) -> Option<Inode> {
        let inode = self.inode_mut(number);
        inode.n_links -= 1;
        (inode.n_links == 0).then(|| self.nodes[number as usize].take().map(|node| node.inode))?
    }

    /// The folder that a path is in, and its name there; `None`: it is the root. Folders that are missing are made.
    fn parent_of<'p>(
        &mut self,
        path: &'p [u8],
        n_inodes: u32,
    ) -> Result<Option<(u32, &'p [u8])>, PutError> {
        let names = names_of(path)?;
        let Some((name, folders)) = names.split_last() else { return Ok(None) };
        let mut way = Way::new(folders);
        while let Some(name) = self.next(&mut way) {
            if let Some(number) = self.names(way.at).get(&name).copied() {
                self.follow(&mut way, number)?;
            } else {
                let meta = Meta { permissions: 0o755, ..Meta::default() };
                let inode = Inode::new(inode::FOLDER, &meta);
                let number = self.add(inode, More::folder(way.at), n_inodes)?;
                let at = way.at;
                self.names_mut(at).insert(name, number);
                way.at = number;
            }
        }
        Ok(Some((way.at, name)))
    }

    /// What is at a path; a link there is not followed.
    fn find(&self, path: &[u8]) -> Result<Option<u32>, Misplaced> {
        let names = names_of(path)?;
        let Some((last, folders)) = names.split_last() else { return Ok(Some(ROOT)) };
        let mut way = Way::new(folders);
        while let Some(name) = self.next(&mut way) {
            let Some(number) = self.names(way.at).get(&name).copied() else { return Ok(None) };
            self.follow(&mut way, number)?;
        }
        Ok(self.names(way.at).get(*last).copied())
    }

    /// Goes into a folder, or where a link to one leads.
    fn follow(&self, way: &mut Way, number: u32) -> Result<(), Misplaced> {
        match self.node(number).map(|node| &node.more) {
            Some(More::Folder { .. }) => way.at = number,
            Some(More::Symlink(target)) => {
                way.n_symlinks += 1;
                if way.n_symlinks > SYMLINKS_MAX || way.rest.len() > DEPTH_MAX {
                    return Err(Misplaced::Circle);
                }
                if target.starts_with(b"/") {
                    way.at = ROOT;
                }
                for name in target.split(|&byte| byte == b'/').rev() {
                    match name {
                        b"" | b"." => {}
                        name if name.len() > NAME_BYTES_MAX => return Err(Misplaced::TooLong),
                        name => way.rest.push_front(name.to_vec()),
                    }
                }
            }
            _ => return Err(Misplaced::NotInFolder),
        }
        Ok(())
    }

    /// The next name on a way; links have ".." in it, which is the folder above where it has come to.
    fn next(&self, way: &mut Way) -> Option<Vec<u8>> {
        loop {
            let name = way.rest.pop_front()?;
            if name != b".." {
                return Some(name);
            }
            way.at = match self.node(way.at).map(|node| &node.more) {
                Some(More::Folder { parent, .. }) => *parent,
                _ => ROOT,
            };
        }
    }
}

impl More {
    fn folder(parent: u32) -> Self {
        Self::Folder { parent, names: BTreeMap::new() }
    }
}

/// A path that is being followed.
struct Way {
    at: u32,
    rest: VecDeque<Vec<u8>>,
    n_symlinks: u32,
}

impl Way {
    fn new(names: &[&[u8]]) -> Self {
        let rest = names.iter().map(|name| name.to_vec()).collect();
        Self { at: ROOT, rest, n_symlinks: 0 }
    }
}

/// The names of a path from the root on.
fn names_of(path: &[u8]) -> Result<Vec<&[u8]>, Misplaced> {
    let mut names = Vec::new();
    for name in path.split(|&byte| byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => return Err(Misplaced::Outside),
            name if name.len() > NAME_BYTES_MAX || name.contains(&0) => {
                return Err(Misplaced::TooLong);
            }
            name => names.push(name),
        }
    }
    if names.len() > DEPTH_MAX {
        return Err(Misplaced::TooLong);
    }
    Ok(names)
}
