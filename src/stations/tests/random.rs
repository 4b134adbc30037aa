//! Random events in random order.

use proptest::prelude::*;

use super::super::*;
use super::office::{KEEP, Office, clip, receipt};
use crate::priority::Priority;

/// An event that may happen at random.
#[derive(Debug, Clone)]
enum Happening {
    Joins { name: usize, instance: u64, last: Option<u64> },
    Leaves(usize),
    Announces { zoned: bool, priority: Priority },
    Says { name: usize, what: usize, sequence: u64, lead_us: u32 },
    Behaves(usize),
    Passes(u64),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        3 => (0..5_usize, 1..3_u64, proptest::option::of(1..6_u64))
            .prop_map(|(name, instance, last)| Happening::Joins { name, instance, last }),
        1 => (0..5_usize).prop_map(Happening::Leaves),
        1 => (any::<bool>(), 0..6_u8).prop_map(|(zoned, priority)| {
            // Most announcements have normal priority.
            Happening::Announces { zoned, priority: Priority::from_byte(priority).unwrap_or_default() }
        }),
        1 => (0..5_usize, 0..9_usize, 1..6_u64, any::<u32>())
            .prop_map(|(name, what, sequence, lead_us)| Happening::Says { name, what, sequence, lead_us }),
        6 => (0..5_usize).prop_map(Happening::Behaves),
        3 => (0..4_000_u64).prop_map(Happening::Passes),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order: no panic, no spinning tick, correct tallies, exactly one verdict on every
    /// announcement, and at most one receipt of each station and clip.
    #[test]
    fn any_sequence_of_happenings_settles(
        keeps: bool,
        happenings in proptest::collection::vec(happening(), 1..120),
    ) {
        const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
        let mut office = Office::new(keeps);
        let mut sequence = 0;
        let mut priorities = vec![Priority::Normal];
        for happening in happenings {
            match happening {
                Happening::Joins { name, instance, last } => {
                    let zones: &[&str] = if name % 2 == 0 { &["x"] } else { &[] };
                    let last = last.map(|sequence| receipt(clip(sequence)));
                    let _ = office.join_as(NAMES[name], zones, instance, last);
                }
                Happening::Leaves(name) => office.leave(NAMES[name]),
                Happening::Announces { zoned, priority } => {
                    sequence += 1;
                    priorities.push(priority);
                    office.announce_as(sequence, if zoned { &["x"] } else { &[] }, priority);
                }
                Happening::Says { name, what, sequence, lead_us } => {
                    let (id, reason) = (clip(sequence), String::from("so"));
                    office.says(NAMES[name], match what {
                        0 => FromStation::Ping { t1_us: 1 },
                        1 => FromStation::Verified { clip: id, lead_us },
                        2 => FromStation::Rejected { clip: id, reason },
                        3 => FromStation::Playing { clip: id },
                        4 => FromStation::Played(receipt(id)),
                        5 => FromStation::Failed { clip: id, reason },
                        6 => FromStation::Goodbye,
                        7 => FromStation::Queued { clip: id },
                        _ => FromStation::Hello { name: "a".into(), zones: vec![], instance: 1, last: None, nonce: None, begun: None },
                    });
                }
                // The next step of a well-behaved station.
                Happening::Behaves(name) => {
                    let name = NAMES[name];
                    let next = office.stations.announcements.iter().find_map(|(id, announcement)| {
                        let message = match announcement.progress(name)? {
                            Progress::Sent { .. } => FromStation::Verified { clip: *id, lead_us: 5_000 },
                            Progress::Told { .. } => FromStation::Played(receipt(*id)),
                            _ => return None,
                        };
                        Some(message)
                    });
                    if let Some(message) = next {
                        let ends = matches!(message, FromStation::Played(_));
                        office.says(name, message);
                        if ends {
                            office.leave(name);
                        }
                    }
                }
                Happening::Passes(ms) => office.pass(Duration::from_millis(ms)),
            }
        }
        office.pass(KEEP + RECEIPT_PATIENCE + Duration::from_secs(60));
        prop_assert!(office.stations.is_settled());
        prop_assert!(office.stations.announcements.is_empty());
        prop_assert_eq!(office.stations.next_tick(office.now), None);
        for sequence in 1..=sequence {
            let verdicts = office.verdicts(clip(sequence));
            prop_assert_eq!(verdicts.len(), 1);
            let plays = office.plays_of(clip(sequence));
            for other in 1..sequence {
                let [one, two] = [sequence, other].map(|sequence| priorities[sequence as usize]);
                if one.interrupts(two) || two.interrupts(one) {
                    continue;
                }
                for (one, two) in
                    plays.iter().flat_map(|play| office.plays_of(clip(other)).into_iter().map(move |it| (*play, it)))
                {
                    let (earlier, later) = if one.0 < two.0 { (one, two) } else { (two, one) };
                    let ((_, _, from, until, is_late), (_, _, other_from, other_until, _)) = (earlier, later);
                    // Only a late play whose instant was already set may be overlapped.
                    prop_assert!(is_late || until <= other_from || other_until <= from, "two pages at once: {earlier:?} of {later:?}");
                }
            }
            let (played, expected, missing) = &verdicts[0];
            prop_assert_eq!(played + missing.len(), *expected);
            let id = clip(sequence).to_string();
            let meant = office.events.iter().find_map(|event| match event {
                Event::Sending { clip, stations } if *clip == id => Some(stations.clone()),
                _ => None,
            });
            for name in NAMES {
                let outcomes = usize::from(meant.iter().flatten().any(|meant| meant == name));
                prop_assert_eq!(office.outcomes(name, clip(sequence)).len(), outcomes);
            }
        }
    }
}
