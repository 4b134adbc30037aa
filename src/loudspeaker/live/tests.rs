use proptest::prelude::*;

use super::super::playout::{Command, Course, Job, Playout, Progress, Sound};
use super::*;

const RATE_HZ: u32 = 8_000;
const BLOCK: usize = 160;
/// 5 ms, after which returning sound is heard unchanged.
const RETURN: usize = (RATE_HZ / RETURN_HZ) as usize;

/// A tone, so that no two samples next to each other are far apart.
fn said(blocks: usize) -> Vec<i16> {
    (0..blocks * BLOCK).map(|index| ((index as f32 * 0.11).sin() * 12_000.0) as i16).collect()
}

/// The largest step of the tone, in units of full scale, with room for what a fade adds.
const LARGEST_STEP: f32 = 12_000.0 / 32_768.0 * (0.11 + 1.0 / RETURN as f32 + 0.03);

fn push(tap: &mut Tap, said: &[i16], number: usize) {
    let bytes: Vec<u8> =
        said[number * BLOCK..][..BLOCK].iter().flat_map(|sample| sample.to_le_bytes()).collect();
    tap.push((number * BLOCK) as u64, &bytes, 1.0);
}

fn heard(feed: &mut Feed, frames: usize) -> Vec<f32> {
    let mut samples = vec![0.0; frames];
    feed.take(&mut samples);
    samples
}

fn floats(said: &[i16]) -> Vec<f32> {
    said.iter().map(|sample| sample::from_i16(*sample)).collect()
}

#[test]
fn what_comes_in_time_is_heard_to_the_bit() {
    let said = said(10);
    let (mut tap, mut feed) = Feed::open(RATE_HZ, false);
    (0..10).for_each(|number| push(&mut tap, &said, number));
    tap.end(said.len() as u64);
    assert!(heard(&mut feed, said.len()) == floats(&said));
    assert_eq!(heard(&mut feed, 500), vec![0.0; 500]);
    assert_eq!(tap.counts(), (10, 0));
}

#[test]
fn a_quieter_station_hears_it_quieter() {
    let (mut tap, mut feed) = Feed::open(RATE_HZ, false);
    tap.push(0, &16_384_i16.to_le_bytes().repeat(BLOCK), 0.5);
    assert_eq!(heard(&mut feed, BLOCK), vec![0.25; BLOCK]);
}

#[test]
fn a_lost_block_fades_out_and_in_and_moves_nothing() {
    let said = said(10);
    let (mut tap, mut feed) = Feed::open(RATE_HZ, false);
    (0..10).filter(|number| *number != 4).for_each(|number| push(&mut tap, &said, number));
    tap.end(said.len() as u64);
    let heard = heard(&mut feed, said.len() + 1);
    let said = floats(&said);
    assert!(heard[..4 * BLOCK] == said[..4 * BLOCK]);
    assert!(heard[5 * BLOCK + RETURN..10 * BLOCK] == said[5 * BLOCK + RETURN..]);
    let peak = |samples: &[f32]| samples.iter().fold(0.0_f32, |peak, sample| peak.max(sample.abs()));
    assert!(peak(&heard[4 * BLOCK..][..40]) > 0.2, "it breaks off");
    assert!(
        heard.windows(2).take(10 * BLOCK - 1).all(|pair| (pair[1] - pair[0]).abs() < LARGEST_STEP),
        "a click"
    );
    assert_eq!(tap.counts(), (9, 0));
}

#[test]
fn a_long_gap_is_silent_after_40_ms() {
    let said = said(2);
    let (mut tap, mut feed) = Feed::open(RATE_HZ, false);
    push(&mut tap, &said, 0);
    let heard = heard(&mut feed, 20 * BLOCK);
    assert!(heard[3 * BLOCK..].iter().all(|sample| *sample == 0.0));
}

#[test]
fn a_late_block_is_heard_from_where_it_should_be_by_now() {
    let said = said(3);
    let (mut tap, mut feed) = Feed::open(RATE_HZ, false);
    push(&mut tap, &said, 0);
    heard(&mut feed, BLOCK + 50);
    push(&mut tap, &said, 1);
    push(&mut tap, &said, 2);
    let rest = heard(&mut feed, 2 * BLOCK - 50);
    assert!(rest[RETURN..] == floats(&said)[BLOCK + 50 + RETURN..]);
    heard(&mut feed, 1);
    assert_eq!(tap.counts(), (2, 1));
}

proptest! {
    /// Whatever is lost or late, and by how much: the blocks that are there are in their places, nothing clicks, and no block
    /// counts twice.
    #[test]
    fn nothing_is_ever_moved(fates in prop::collection::vec(prop_oneof![4 => Just(None), 1 => Just(Some(0_usize)), 1 => (1_usize..3).prop_map(Some)], 1..40)) {
        let said = said(fates.len());
        let expected = floats(&said);
        let (mut tap, mut feed) = Feed::open(RATE_HZ, false);
        let mut all = Vec::new();
        for at in 0..fates.len() + 3 {
            // In order, as a link delivers them: the blocks that are in time by now, and those that come `fate` blocks late.
            for (number, fate) in fates.iter().enumerate() {
                if *fate != Some(0) && number + fate.unwrap_or(0) == at && at < fates.len() + 3 {
                    let later = fates[number + 1..].iter().enumerate().any(|(after, fate)| {
                        *fate != Some(0) && number + 1 + after + fate.unwrap_or(0) < at
                    });
                    if !later {
                        push(&mut tap, &said, number);
                    }
                }
            }
            all.extend(heard(&mut feed, BLOCK));
        }
        prop_assert!(all.windows(2).all(|pair| (pair[1] - pair[0]).abs() < LARGEST_STEP));
        for number in 0..fates.len() {
            let is_here = fates[number].is_none();
            let was_here = number == 0 || fates[number - 1].is_none();
            let from = number * BLOCK + if was_here { 0 } else { RETURN };
            if is_here && all[from..(number + 1) * BLOCK] != expected[from..(number + 1) * BLOCK] {
                // It may differ only where an earlier block came late into it or fades in.
                let before = fates[..number].iter().rev().take(3).any(Option::is_some);
                prop_assert!(before, "block {number} is not what was said");
            }
        }
        let (played, late) = tap.counts();
        prop_assert!(played + late <= fates.len() as u32);
    }
}

struct Rig {
    commands: rtrb::Producer<Command>,
    _finished: rtrb::Consumer<Job>,
    playout: Playout,
    progress: Arc<Progress>,
}

/// A device that plays sample 0 at `frame`.
fn rig(feed: Feed, frame: f64, ratio: f64) -> Rig {
    let (mut commands, taken) = rtrb::RingBuffer::new(8);
    let (given, finished) = rtrb::RingBuffer::new(2);
    let progress = Arc::new(Progress::default());
    let course = Course { frame, position: 0.0, ratio };
    let job = Job { sound: Sound::Live(Box::new(feed)), course, progress: progress.clone() };
    commands.push(Command::Play(job)).expect("room");
    Rig { commands, _finished: finished, playout: Playout::new(taken, given), progress }
}

impl Rig {
    fn hear(&mut self, frames: usize) -> Vec<f32> {
        let mut heard = Vec::new();
        self.playout.fill(frames, |_, sample| heard.push(sample));
        heard
    }
}

#[test]
fn a_device_plays_it_from_the_agreed_frame_to_the_bit() {
    let said = said(20);
    let (mut tap, feed) = Feed::open(RATE_HZ, false);
    let mut rig = rig(feed, 500.0, 1.0);
    let mut heard = Vec::new();
    for number in 0..20 {
        push(&mut tap, &said, number);
        heard.extend(rig.hear(BLOCK));
    }
    tap.end(said.len() as u64);
    heard.extend(rig.hear(1_000));
    assert!(heard[..500].iter().all(|sample| *sample == 0.0));
    assert!(heard[500..][..said.len()] == floats(&said));
    assert!(heard[500 + said.len()..].iter().all(|sample| *sample == 0.0));
    assert_eq!(
        (rig.progress.started(), rig.progress.ended()),
        (Some(500.0), Some(500.0 + said.len() as f64))
    );
    assert_eq!(tap.counts(), (20, 0));
}

/// A clip that begins late begins with its first sample; speech begins with the sample that is due.
#[test]
fn a_device_that_is_late_joins_in_step_and_one_that_starves_does_not_stretch() {
    let said = said(30);
    let (mut tap, feed) = Feed::open(RATE_HZ, true);
    (0..20).for_each(|number| push(&mut tap, &said, number));
    let mut rig = rig(feed, -1_000.0, 1.0);
    let expected = floats(&said);
    let heard = rig.hear(2_000);
    let near = 1_000 + RETURN + BLOCK;
    assert!(heard[RETURN + BLOCK..] == expected[near..3_000]);
    // Nothing comes for a while; then the sound is where it would have been.
    rig.hear(600);
    (20..30).for_each(|number| push(&mut tap, &said, number));
    let heard = rig.hear(800);
    assert!(heard[BLOCK..] == expected[3_600 + BLOCK..4_400]);
}

/// A card of another rate, whose clock drifts, and blocks that come, stay away and come again.
#[test]
fn a_callback_neither_allocates_nor_frees() {
    let said = said(40);
    let (mut tap, feed) = Feed::open(RATE_HZ, false);
    let mut rig = rig(feed, 100.0, 8_000.0 / 44_100.0);
    for number in 0..60 {
        if number < 40 && number % 7 != 3 {
            push(&mut tap, &said, number);
        }
        if number == 50 {
            tap.end(said.len() as u64);
        }
        let steer = Course { frame: 100.0, position: (number % 3) as f64 * 0.1, ratio: 8_000.0 / 44_100.0 };
        rig.commands.push(Command::Steer(steer)).expect("room");
        let told = allocation_counter::measure(|| rig.playout.fill(882, |_, _| ()));
        assert_eq!((told.count_total, told.count_current), (0, 0), "{told:?}");
    }
    assert!(rig.progress.ended().is_some());
}
