//! Reply frames in memory that is used again for each batch.

#[derive(Default)]
pub(super) struct Replies {
    frames: Vec<Vec<u8>>,
    used: usize,
}

impl Replies {
    /// Memory for one more, with whatever was in it before; and its number.
    pub(super) fn add(&mut self) -> (usize, &mut Vec<u8>) {
        let index = self.used;
        if index == self.frames.len() {
            self.frames.push(Vec::new());
        }
        self.used += 1;
        (index, &mut self.frames[index])
    }

    /// One more like that of this number.
    pub(super) fn add_copy(&mut self, of: usize) -> &mut Vec<u8> {
        let (index, _) = self.add();
        let (before, new) = self.frames.split_at_mut(index);
        new[0].clone_from(&before[of]);
        &mut new[0]
    }

    pub(super) fn frames(&self) -> &[Vec<u8>] {
        &self.frames[..self.used]
    }

    pub(super) fn bytes(&self) -> usize {
        self.frames().iter().map(Vec::len).sum()
    }

    pub(super) fn clear(&mut self) {
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again() {
        let mut replies = Replies::default();
        replies.add().1.extend([1; 60]);
        assert_eq!(replies.add_copy(0), &[1; 60]);
        assert_eq!(replies.frames().len(), 2);
        replies.clear();
        assert!(replies.frames().is_empty());
        let (index, memory) = replies.add();
        assert_eq!((index, memory.len()), (0, 60));
    }
}
