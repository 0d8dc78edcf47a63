//! Reply frames in memory that is used again for each batch.

/// A frame: its head, and the data of a large read, so that this is not copied. Otherwise all is in
/// the head.
#[derive(Clone, Default)]
pub(super) struct Reply {
    pub(super) head: Vec<u8>,
    body: Vec<u8>,
    body_length: usize,
}

impl Reply {
    pub(super) fn parts(&self) -> [&[u8]; 2] {
        [&self.head, &self.body[..self.body_length]]
    }

    /// Exchanges the memory of the body for `data`, of which `length` bytes are sent.
    pub(super) fn swap_body(&mut self, data: &mut Vec<u8>, length: usize) {
        std::mem::swap(&mut self.body, data);
        self.body_length = length.min(self.body.len());
    }

    pub(super) fn copy_body(&mut self, data: &[u8]) {
        if self.body.len() < data.len() {
            self.body.resize(data.len(), 0);
        }
        self.body[..data.len()].copy_from_slice(data);
        self.body_length = data.len();
    }

    fn len(&self) -> usize {
        self.head.len() + self.body_length
    }
}

impl From<Vec<u8>> for Reply {
    fn from(head: Vec<u8>) -> Self {
        Self { head, ..Self::default() }
    }
}

#[derive(Default)]
pub(super) struct Replies {
    frames: Vec<Reply>,
    used: usize,
}

impl Replies {
    /// Memory for one more, with whatever was in its head before; and its number.
    pub(super) fn add(&mut self) -> (usize, &mut Reply) {
        let index = self.used;
        if index == self.frames.len() {
            self.frames.push(Reply::default());
        }
        self.used += 1;
        let reply = &mut self.frames[index];
        reply.body_length = 0;
        (index, reply)
    }

    /// One more like that of this number.
    pub(super) fn add_copy(&mut self, of: usize) -> &mut Reply {
        let (index, _) = self.add();
        let (before, new) = self.frames.split_at_mut(index);
        new[0].clone_from(&before[of]);
        &mut new[0]
    }

    pub(super) fn frames(&self) -> &[Reply] {
        &self.frames[..self.used]
    }

    pub(super) fn bytes(&self) -> usize {
        self.frames().iter().map(Reply::len).sum()
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
        replies.add().1.head.extend([1; 60]);
        assert_eq!(replies.add_copy(0).head, [1; 60]);
        assert_eq!(replies.bytes(), 120);
        assert_eq!(replies.frames().len(), 2);
        replies.clear();
        assert!(replies.frames().is_empty());
        let (index, memory) = replies.add();
        assert_eq!((index, memory.head.len()), (0, 60));
    }
}
