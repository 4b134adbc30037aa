//! The two halves of a secured link, each with its own count of messages.

use std::sync::Arc;

use snow::StatelessTransportState;

use super::HandshakeError;

/// The largest message of Noise, tag included.
pub const MAX_MESSAGE_BYTES: usize = 65_535;
/// The number of bytes that sealing adds to a message.
pub const TAG_BYTES: usize = 16;
/// Noise reserves the last number (section 5.1).
const LAST_NUMBER: u64 = u64::MAX;

/// Seals messages in the order in which they are sent.
#[derive(Debug)]
pub struct Sealer {
    link: Arc<StatelessTransportState>,
    next: u64,
}

impl Sealer {
    pub(super) fn new(link: Arc<StatelessTransportState>) -> Self {
        Self { link, next: 0 }
    }

    /// Seals `plain` into the start of `out`, [`TAG_BYTES`] longer, and returns that part of `out`.
    ///
    /// # Errors
    /// [`HandshakeError::MessageSize`] when it exceeds [`MAX_MESSAGE_BYTES`] or `out`;
    /// [`HandshakeError::Exhausted`].
    pub fn seal<'out>(
        &mut self,
        plain: &[u8],
        out: &'out mut [u8],
    ) -> Result<&'out mut [u8], HandshakeError> {
        if self.next == LAST_NUMBER {
            return Err(HandshakeError::Exhausted);
        }
        let size = plain.len().saturating_add(TAG_BYTES);
        if size > MAX_MESSAGE_BYTES || size > out.len() {
            return Err(HandshakeError::MessageSize(size));
        }
        let number = self.next;
        // Count before the attempt: a number is never used twice, even if sealing fails.
        self.next += 1;
        let written = self.link.write_message(number, plain, out).map_err(HandshakeError::Noise)?;
        out.get_mut(..written).ok_or(HandshakeError::MessageSize(written))
    }
}

/// Opens messages in the order in which they were sealed. After one that was not genuine it opens no more.
#[derive(Debug)]
pub struct Opener {
    link: Arc<StatelessTransportState>,
    next: u64,
    broken: bool,
}

impl Opener {
    pub(super) fn new(link: Arc<StatelessTransportState>) -> Self {
        Self { link, next: 0, broken: false }
    }

    /// Opens `sealed` into the start of `out`, which has at least as many bytes, and returns that part of `out`,
    /// [`TAG_BYTES`] shorter.
    ///
    /// # Errors
    /// [`HandshakeError::NotGenuine`] for a message that is altered, out of order, repeated or cut short, and
    /// [`HandshakeError::Broken`] ever after; [`HandshakeError::MessageSize`], [`HandshakeError::Exhausted`].
    pub fn open<'out>(
        &mut self,
        sealed: &[u8],
        out: &'out mut [u8],
    ) -> Result<&'out mut [u8], HandshakeError> {
        if self.broken {
            return Err(HandshakeError::Broken);
        }
        if self.next == LAST_NUMBER {
            return Err(HandshakeError::Exhausted);
        }
        if sealed.len() > MAX_MESSAGE_BYTES || sealed.len() > out.len() {
            return Err(HandshakeError::MessageSize(sealed.len()));
        }
        match self.link.read_message(self.next, sealed, out) {
            Ok(written) => {
                self.next += 1;
                out.get_mut(..written).ok_or(HandshakeError::MessageSize(written))
            }
            Err(error) => {
                self.broken = true;
                Err(HandshakeError::NotGenuine(error))
            }
        }
    }
}

#[cfg(test)]
impl Sealer {
    pub(super) fn next_for_test(&mut self, next: u64) {
        self.next = next;
    }
}

#[cfg(test)]
impl Opener {
    pub(super) fn next_for_test(&mut self, next: u64) {
        self.next = next;
    }
}
