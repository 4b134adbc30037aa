//! The latest timestamps of a stream, written by its callback and read elsewhere without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

use super::line::Stamp;

/// The number of timestamps kept: 20 s at one every 20 ms.
const SLOTS: u64 = 1024;

/// A ring that one writer overwrites; a reader keeps only what was not overwritten meanwhile.
#[derive(Debug)]
pub struct Stamps {
    slots: Box<[[AtomicU64; 3]]>,
    written: AtomicU64,
}

impl Stamps {
    /// Creates an empty ring; 24 kB.
    pub fn new() -> Self {
        let slots = (0..SLOTS).map(|_| [const { AtomicU64::new(0) }; 3]).collect();
        Self { slots, written: AtomicU64::new(0) }
    }

    /// Adds a timestamp. Only one thread may do this.
    pub fn push(&self, stamp: Stamp) {
        let written = self.written.load(Ordering::Relaxed);
        if let Some(slot) = self.slots.get((written % SLOTS) as usize) {
            for (field, value) in slot.iter().zip([stamp.frame, stamp.plays_ns, stamp.told_ns]) {
                field.store(value, Ordering::Release);
            }
        }
        self.written.store(written + 1, Ordering::Release);
    }

    /// Returns the timestamps, oldest first, 1,023 at most.
    pub fn read(&self) -> Vec<Stamp> {
        let end = self.written.load(Ordering::Acquire);
        let start = end.saturating_sub(SLOTS);
        let read = |index: u64| {
            let [frame, plays, told] = self.slots.get((index % SLOTS) as usize)?;
            let load = |field: &AtomicU64| field.load(Ordering::Acquire);
            Some((index, Stamp { frame: load(frame), plays_ns: load(plays), told_ns: load(told) }))
        };
        let stamps: Vec<(u64, Stamp)> = (start..end).filter_map(read).collect();
        // A reader that saw a field of a later stamp also sees that stamp counted here, except for the one being written.
        let written = self.written.load(Ordering::Acquire);
        stamps.into_iter().filter(|(index, _)| index + SLOTS > written).map(|(_, stamp)| stamp).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn stamp(index: u64) -> Stamp {
        Stamp { frame: index, plays_ns: index * 2, told_ns: index * 3 }
    }

    #[test]
    fn the_last_ones_are_kept_in_order() {
        let stamps = Stamps::new();
        assert!(stamps.read().is_empty());
        (0..4_000).for_each(|index| stamps.push(stamp(index)));
        let read = stamps.read();
        assert_eq!(read.len(), 1_023);
        assert_eq!(read, (2_977..4_000).map(stamp).collect::<Vec<_>>());
    }

    #[test]
    fn no_reader_sees_half_a_stamp() {
        let stamps = Arc::new(Stamps::new());
        let writer = std::thread::spawn({
            let stamps = stamps.clone();
            move || (0..200_000).for_each(|index| stamps.push(stamp(index)))
        });
        while !writer.is_finished() {
            for read in stamps.read() {
                assert_eq!(read, stamp(read.frame));
            }
        }
        writer.join().expect("the writer");
    }
}
