//! What a file holds, read from its front.

/// The bytes of a file that are still to be read. What is not there is `None`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bytes<'a> {
    rest: &'a [u8],
    /// How many there are in the file, which may be more than were read into memory.
    left: u64,
    /// How many it has in all.
    all: u64,
}

impl<'a> Bytes<'a> {
    /// The front of `left` bytes, or all of them.
    pub(super) fn new(rest: &'a [u8], left: u64) -> Self {
        let left = left.max(rest.len() as u64);
        Self { rest, left, all: left }
    }

    /// A whole.
    pub(super) fn whole(rest: &'a [u8]) -> Self {
        Self::new(rest, rest.len() as u64)
    }

    /// What is in memory of the rest.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// How many bytes the file still has.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// How many bytes the file has in all.
    pub(super) fn all(&self) -> u64 {
        self.all
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn starts_with(&self, magic: &[u8]) -> bool {
        self.rest.starts_with(magic)
    }

    pub(super) fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(bytes)?;
        *self = Self { rest, left: self.left - bytes as u64, ..*self };
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    /// The rest from so many bytes on; nothing where there are fewer.
    pub(super) fn after(&self, bytes: usize) -> Self {
        let bytes = bytes.min(self.rest.len());
        Self { rest: &self.rest[bytes..], left: self.left - bytes as u64, ..*self }
    }
}
