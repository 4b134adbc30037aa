//! The content of a file, read from its front.

/// The bytes of a file that are still to be read. Reading beyond them returns `None`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bytes<'a> {
    rest: &'a [u8],
    /// How many bytes are left in the file, which may be more than were read into memory.
    left: u64,
    /// The size of the file.
    all: u64,
}

impl<'a> Bytes<'a> {
    /// Creates a view of the front of `left` bytes, or of all of them.
    pub(super) fn new(rest: &'a [u8], left: u64) -> Self {
        let left = left.max(rest.len() as u64);
        Self { rest, left, all: left }
    }

    /// Creates a view of bytes that are complete.
    pub(super) fn whole(rest: &'a [u8]) -> Self {
        Self::new(rest, rest.len() as u64)
    }

    /// Returns what is in memory of the rest.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Returns how many bytes the file still has.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// Returns the size of the file.
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

    /// Returns the rest after `bytes` bytes; nothing if there are fewer.
    pub(super) fn after(&self, bytes: usize) -> Self {
        let bytes = bytes.min(self.rest.len());
        Self { rest: &self.rest[bytes..], left: self.left - bytes as u64, ..*self }
    }
}
